import { ADDRESS_LOCAL, ADDRESS_RECORD } from '../wire/batch.js'
import type { DropReason } from '../wire/drop.js'
import type { HostId } from '../wire/ids.js'
import { decodeMove, encodeMove, type MovedAddress, type MoveMessage } from '../wire/move.js'
import { remoteKey, sameRemote } from './address-record.js'
import type { PeerTable } from './peers.js'
import type { PathProber } from './prober.js'
import type { Remote } from './remote.js'

/** Position in an address record. */
const ADDRESS = 8
/** Own addresses that are gone are told of so long, ms, and so many. */
const GONE_MS = 60_000
const GONE_MAX = 6
/** A message is repeated after a round trip and a half and this, twice that, and so on, but no later than RETRY_MAX_MS, TRIES times. */
const RETRY_MS = 10
const RETRY_MAX_MS = 1_000
const TRIES = 12

/** Where this host can be reached. */
export interface OwnLocator {
  readonly record: Uint8Array
  /** It is about to go. */
  readonly deprecated: boolean
}

interface Outgoing {
  readonly sequence: number
  readonly body: Uint8Array
  tries: number
  nextAt: number
}

/**
 * Tells the peers when this host's addresses change, and follows them when theirs do: one message a peer, whatever the number of its flows, repeated until it is acknowledged. A
 * message moves nothing by itself: frames go to an address of the peer that our own probe has proven, at once where it had been proven before.
 */
export class Rebinding {
  /** Messages of peers that were heeded. */
  received = 0
  /** Peers that were told of changed addresses, and those that did not acknowledge it. */
  told = 0
  unanswered = 0
  #own: readonly OwnLocator[] = []
  /** Own addresses that are gone, and when they went. */
  readonly #gone = new Map<string, { readonly record: Uint8Array; readonly at: number }>()
  readonly #outgoing = new Map<number, Outgoing>()
  /** Highest sequence heard, by peer. */
  readonly #heard = new Map<number, number>()
  #due = Infinity
  /** The peers have not been told of the last change: that has thrown. */
  #untold = false

  constructor(
    private readonly components: {
      readonly self: HostId
      readonly peers: PeerTable
      readonly prober: PathProber
      /** Above all that were given before, also by former processes of this host. */
      readonly nextSequence: () => number
      /** Seals it as a frame of Kind.move and sends it to this address slot. */
      readonly send: (peer: number, addressSlot: number, body: Uint8Array) => void
      /** Bytes of a datagram with such a body. */
      readonly datagramBytes: (body: Uint8Array) => number
      readonly drop: (reason: DropReason) => void
    },
  ) {}

  /** This host's addresses are these from now on. Returns whether they are others than before. Throws as `nextSequence` does, and does the rest when it is called again. */
  setOwn(own: readonly OwnLocator[], now: number): boolean {
    if (!this.#untold && own.length === this.#own.length && own.every((one, i) => isSame(one, this.#own[i]!)))
      return false
    const keys = new Set(own.map(({ record }) => remoteKey(record)))
    const left = this.#own.filter(({ record }) => !keys.has(remoteKey(record)))
    for (const { record } of left) this.#gone.set(remoteKey(record), { record, at: now })
    for (const [key, { at }] of this.#gone)
      if (keys.has(key) || at < now - GONE_MS || this.#gone.size > GONE_MAX) this.#gone.delete(key)
    // Between losing one address and having the next there is nothing to send from.
    const moved = own.length > 0 && (left.length > 0 || (this.#own.length === 0 && this.#gone.size > 0))
    this.#own = own
    this.components.prober.setOwn(own, moved, now)
    this.#untold = own.length > 0
    if (this.#untold) this.#tellAll(now)
    this.#untold = false
    return true
  }

  /** This host's routes have changed. What could not be said for want of one is said now. */
  routesChanged(now: number): void {
    if (!this.components.prober.routesChanged(now) || this.#outgoing.size === 0) return
    this.#due = now
    for (const [peer, outgoing] of this.#outgoing) {
      outgoing.nextAt = now
      this.#tell(peer, outgoing, now)
    }
  }

  /** A session with the peer is over. */
  forget(peer: number): void {
    this.#outgoing.delete(peer)
  }

  /** A frame's content, out of the session with the peer, of `bytes` as a datagram, that came from the record at `offset`. Returns whether the way to the peer is another one, or in doubt. */
  receive(peer: number, body: Uint8Array, bytes: number, records: Uint8Array, offset: number, now: number): boolean {
    const { peers, prober, drop } = this.components
    const message = decodeMove(body)
    if (message === undefined) {
      drop('bad-control')
      return false
    }
    if (message.kind === 'receipt') {
      if (this.#outgoing.get(peer)?.sequence === message.sequence) this.#outgoing.delete(peer)
      return false
    }
    if (message.host !== peers.hostId(peer)) {
      drop('not-entitled')
      return false
    }
    const last = this.#heard.get(peer) ?? -1
    if (message.sequence < last) {
      drop('stale-move')
      return false
    }
    const isNew = message.sequence > last
    if (isNew) {
      this.#heard.set(peer, message.sequence)
      this.#apply(peer, message, bytes, prober.remoteOf(peer, records, offset), now)
    }
    const receipt = encodeMove({ kind: 'receipt', sequence: message.sequence })
    const slot = prober.slotOf(peer, records, offset, now, this.components.datagramBytes(receipt))
    if (slot >= 0) this.components.send(peer, slot, receipt)
    // Probes would leave nothing for the receipt where little may go.
    if (isNew) prober.review(peer, now)
    return isNew
  }

  nextTimeout(): number {
    return this.#outgoing.size === 0 ? Infinity : this.#due
  }

  handleTimeout(now: number): void {
    if (now < this.#due) return
    this.#due = Infinity
    for (const [peer, outgoing] of this.#outgoing) this.#tell(peer, outgoing, now)
  }

  #apply(
    peer: number,
    { addresses }: MoveMessage & { kind: 'move' },
    bytes: number,
    from: Remote | undefined,
    now: number,
  ): void {
    this.received++
    const usable = addresses.filter(({ standing }) => standing === 'usable').length
    const share = Math.floor(bytes / Math.max(usable, 1))
    for (const one of addresses) this.components.prober.candidate(peer, recordOf(one), now, share, one.standing, from)
  }

  #tellAll(now: number): void {
    const { self, peers, nextSequence } = this.components
    const addresses: MovedAddress[] = [
      ...this.#own.map(({ record, deprecated }) => addressOf(record, deprecated ? 'deprecated' : 'usable')),
      ...[...this.#gone.values()].map(({ record }) => addressOf(record, 'gone')),
    ]
    const sequence = nextSequence()
    const body = encodeMove({ kind: 'move', host: self, sequence, addresses })
    this.#due = now
    for (let peer = 1; peer < peers.size; peer++) {
      if (peers.sealSlot[peer]! < 0) continue
      const outgoing = { sequence, body, tries: 0, nextAt: now }
      this.#outgoing.set(peer, outgoing)
      this.told++
      this.#tell(peer, outgoing, now)
    }
  }

  #tell(peer: number, outgoing: Outgoing, now: number): void {
    const { peers, prober, send, datagramBytes } = this.components
    if (outgoing.tries >= TRIES) {
      this.unanswered++
      this.#outgoing.delete(peer)
      return
    }
    if (now >= outgoing.nextAt) {
      for (const slot of prober.ways(peer, outgoing.tries > 0, datagramBytes(outgoing.body)))
        send(peer, slot, outgoing.body)
      const wait = (1.5 * peers.rttMs[peer]! + RETRY_MS) * 2 ** outgoing.tries
      outgoing.nextAt = now + Math.min(wait, RETRY_MAX_MS)
      outgoing.tries++
    }
    this.#due = Math.min(this.#due, outgoing.nextAt)
  }
}

function isSame(a: OwnLocator, b: OwnLocator): boolean {
  return a.deprecated === b.deprecated && sameRemote(a.record, b.record)
}

function addressOf(record: Uint8Array, standing: MovedAddress['standing']): MovedAddress {
  const port = (record[2]! << 8) | record[3]!
  return { address: record.slice(ADDRESS, record[0] === 4 ? ADDRESS + 4 : ADDRESS_LOCAL), port, standing }
}

function recordOf({ address, port }: MovedAddress): Uint8Array {
  const record = new Uint8Array(ADDRESS_RECORD)
  record[0] = address.length === 4 ? 4 : 6
  record[2] = port >> 8
  record[3] = port & 255
  record.set(address, ADDRESS)
  return record
}
