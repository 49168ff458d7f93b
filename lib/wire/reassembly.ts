// Puts the fragments of inner packets together before flows are looked up (RFC 791, RFC 8200 section 4.5), in bounded memory.
// Overlapping fragments spoil their packet for good (RFC 5722), in both families.
import { checksumOf, sumBytes } from './checksum.js'
import { PACKET_MAX, VNET_HEADER } from './constants.js'
import { addressLength, IPV6_HEADER } from './ip.js'
import type { ParsedPacket } from './packet.js'

export interface ReassemblyLimits {
  /** Bytes held in all, and packets under way. */
  readonly bytes: number
  readonly entries: number
  /** How long a packet may take to become whole, ms. */
  readonly timeout: number
}
export const REASSEMBLY_LIMITS: ReassemblyLimits = { bytes: 4 * 1024 * 1024, entries: 256, timeout: 5_000 }

/** A packet of the greatest length in the smallest IPv4 MTU that hosts must take (576) has 120. */
const FRAGMENTS_MAX = 128
/** Charged for each fragment beside its bytes, so that tiny ones are not for free. */
const FRAGMENT_COST = 128

interface Fragment {
  readonly start: number
  readonly bytes: Uint8Array
}

interface Entry {
  readonly key: string
  readonly deadline: number
  /** Ascending, without overlaps. */
  fragments: Fragment[]
  /** IP header and extensions in front of the fragment header; from the first fragment. */
  header: Uint8Array | undefined
  /** IPv6: position in `header` of the byte that named the fragment header, and what it is to name. */
  nextHeaderAt: number
  nextHeader: number
  /** Length of the packet behind `header`; -1: the last fragment is not there yet. */
  total: number
  held: number
  cost: number
  spoilt: boolean
}

type Dropped = (reason: 'fragment-timeout' | 'fragment-overflow' | 'malformed-packet', packets: number) => void

export class Reassembler {
  /** In order of their beginning. */
  readonly #entries = new Map<string, Entry>()
  readonly #limits: ReassemblyLimits
  readonly #dropped: Dropped
  #bytes = 0

  /** `dropped` is told how many fragments, held until then, were given up; the one at hand is the return value's. */
  constructor(dropped: Dropped, limits: ReassemblyLimits = REASSEMBLY_LIMITS) {
    this.#dropped = dropped
    this.#limits = limits
  }

  /** Bytes held now. */
  get bytes(): number {
    return this.#bytes
  }

  /**
   * Takes the packet for which parsePacket returned 'fragment'; its bytes are copied. Returns the whole packet when this was the last one missing: a fresh
   * array with a virtio_net_hdr that asks for nothing, to be parsed as if it had been read from the TUN.
   */
  add(
    data: Uint8Array,
    packet: ParsedPacket,
    now: number,
  ): Uint8Array | 'held' | 'malformed-packet' | 'fragment-overflow' {
    this.expire(now)
    const start = packet.fragmentOffset
    const length = packet.end - packet.transportOffset
    const headerLength = (packet.family === 4 ? packet.transportOffset : packet.fragmentHeaderOffset) - packet.ipOffset
    if (length <= 0 || (packet.moreFragments && (length & 7) !== 0)) return 'malformed-packet'
    if (headerLength + start + length > PACKET_MAX) return 'malformed-packet'
    const entry = this.#entry(data, packet, now)
    if (entry.spoilt) return 'malformed-packet'
    const at = place(entry, start, length)
    if (at < 0) {
      if (isDuplicate(entry, start, data, packet.transportOffset, length)) return 'malformed-packet'
      this.#spoil(entry)
      return 'malformed-packet'
    }
    const end = start + length
    const last = entry.fragments[entry.fragments.length - 1]
    const reach = last === undefined ? 0 : last.start + last.bytes.length
    const contradicts = packet.moreFragments
      ? entry.total >= 0 && end > entry.total
      : (entry.total >= 0 && entry.total !== end) || reach > end
    if (contradicts) {
      this.#spoil(entry)
      return 'malformed-packet'
    }
    const cost = length + FRAGMENT_COST + (start === 0 ? headerLength : 0)
    if (entry.fragments.length >= FRAGMENTS_MAX || !this.#makeRoom(entry, cost)) {
      this.#drop(entry, 'fragment-overflow')
      return 'fragment-overflow'
    }
    const bytes = data.slice(packet.transportOffset, packet.end)
    entry.fragments.splice(at, 0, { start, bytes })
    if (!packet.moreFragments) entry.total = end
    if (start === 0) {
      entry.header = data.slice(packet.ipOffset, packet.ipOffset + headerLength)
      entry.nextHeaderAt = packet.nextHeaderOffset - packet.ipOffset
      entry.nextHeader = packet.protocol
    }
    entry.held += length
    this.#charge(entry, cost)
    if (entry.held !== entry.total || entry.header === undefined) return 'held'
    this.#remove(entry)
    const complete = whole(entry, entry.header, packet.family)
    if (complete !== undefined) return complete
    this.#dropped('malformed-packet', entry.fragments.length - 1)
    return 'malformed-packet'
  }

  /** When {@link expire} is to be called next, ms; Infinity: never. */
  nextTimeout(): number {
    for (const entry of this.#entries.values()) return entry.deadline
    return Infinity
  }

  /** Drops what has taken too long. */
  expire(now: number): void {
    for (const entry of this.#entries.values()) {
      if (entry.deadline > now) return
      this.#drop(entry, 'fragment-timeout')
    }
  }

  #entry(data: Uint8Array, packet: ParsedPacket, now: number): Entry {
    const key = keyOf(data, packet)
    const found = this.#entries.get(key)
    if (found !== undefined) return found
    if (this.#entries.size >= this.#limits.entries) {
      for (const oldest of this.#entries.values()) {
        this.#drop(oldest, 'fragment-overflow')
        break
      }
    }
    const entry: Entry = {
      key,
      deadline: now + this.#limits.timeout,
      fragments: [],
      header: undefined,
      nextHeaderAt: 0,
      nextHeader: 0,
      total: -1,
      held: 0,
      cost: 0,
      spoilt: false,
    }
    this.#entries.set(key, entry)
    return entry
  }

  /** Gives up the oldest others until `cost` fits. */
  #makeRoom(entry: Entry, cost: number): boolean {
    if (entry.cost + cost > this.#limits.bytes) return false
    for (const oldest of this.#entries.values()) {
      if (this.#bytes + cost <= this.#limits.bytes) break
      if (oldest !== entry && oldest.cost > 0) this.#drop(oldest, 'fragment-overflow')
    }
    return true
  }

  /** Keeps the name until its time-out, so that the rest of the packet is refused too. */
  #spoil(entry: Entry): void {
    const packets = entry.fragments.length
    this.#charge(entry, -entry.cost)
    entry.fragments = []
    entry.header = undefined
    entry.spoilt = true
    if (packets > 0) this.#dropped('malformed-packet', packets)
  }

  #charge(entry: Entry, cost: number): void {
    entry.cost += cost
    this.#bytes += cost
  }

  #drop(entry: Entry, reason: 'fragment-timeout' | 'fragment-overflow'): void {
    this.#remove(entry)
    if (entry.fragments.length > 0) this.#dropped(reason, entry.fragments.length)
  }

  #remove(entry: Entry): void {
    this.#entries.delete(entry.key)
    this.#charge(entry, -entry.cost)
  }
}

/** RFC 791: addresses, protocol, identification. RFC 8200: addresses, identification. */
function keyOf(data: Uint8Array, packet: ParsedPacket): string {
  let key = `${packet.family}/${packet.identification}/${packet.family === 4 ? packet.protocol : ''}/`
  const length = addressLength(packet.family)
  for (let i = 0; i < length; i++) key += String.fromCharCode(data[packet.sourceOffset + i]!)
  for (let i = 0; i < length; i++) key += String.fromCharCode(data[packet.destinationOffset + i]!)
  return key
}

/** Where the fragment belongs among the others; -1: it overlaps one. */
function place(entry: Entry, start: number, length: number): number {
  let at = entry.fragments.length
  while (at > 0 && entry.fragments[at - 1]!.start >= start) at--
  const before = entry.fragments[at - 1]
  const after = entry.fragments[at]
  if (before !== undefined && before.start + before.bytes.length > start) return -1
  if (after !== undefined && start + length > after.start) return -1
  return at
}

/** RFC 8200 section 4.5: exact copies may be ignored. */
function isDuplicate(entry: Entry, start: number, data: Uint8Array, offset: number, length: number): boolean {
  const same = entry.fragments.find((fragment) => fragment.start === start && fragment.bytes.length === length)
  return same !== undefined && same.bytes.every((byte, i) => byte === data[offset + i])
}

function whole(entry: Entry, header: Uint8Array, family: 4 | 6): Uint8Array | undefined {
  const length = header.length + entry.total
  if (length > PACKET_MAX) return undefined
  const packet = new Uint8Array(VNET_HEADER + length)
  const view = new DataView(packet.buffer)
  packet.set(header, VNET_HEADER)
  for (const { start, bytes } of entry.fragments) packet.set(bytes, VNET_HEADER + header.length + start)
  if (family === 4) {
    view.setUint16(VNET_HEADER + 2, length)
    view.setUint16(VNET_HEADER + 6, 0)
    view.setUint16(VNET_HEADER + 10, 0)
    view.setUint16(VNET_HEADER + 10, checksumOf(sumBytes(packet, view, VNET_HEADER, header.length)))
  } else {
    view.setUint16(VNET_HEADER + 4, length - IPV6_HEADER)
    packet[VNET_HEADER + entry.nextHeaderAt] = entry.nextHeader
  }
  return packet
}
