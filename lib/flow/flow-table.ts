// All flows of a host in one ArrayBuffer, so that it can lie on shared memory: a header, the rows, and two hash indexes.
//
// A row is ROW_WORDS 32-bit words, side by side because one packet reads about twenty of them: three cache lines instead of twenty.
// Index 1, by what the own kernel's packets say: (family, protocol, remote address, ports). The local address is compared but not hashed,
// so that the same slots answer two more questions: whose is an answer from the wrong local address, and is a client's port taken.
// Every packet out asks it, so it is made for two reads of memory, the slot and the row: open addressing (linear probing, no tombstones), and a slot is the row + 1
// in its low bits, as many as the table's rows need, and of the hash the bits above, so that another flow's row is hardly ever read.
// Index 2, by the other end's flow ID and the peer: what makes OPEN idempotent and lets a peer name a flow by its own ID. Heads of chains through the rows.
// Addresses lie in the row in network order (Linux runs on little-endian machines here), so that headers are written from it.
// Slots, heads and chains hold row + 1; 0 is the end, so a zeroed buffer is an empty table.

import type { Family } from './environment.js'
import type { Generations } from './flow-id.js'

/** Words of a row. */
export const ROW_WORDS = 44
/** Word positions in a row. */
export const Row = {
  /** {@link FlowState} */
  state: 0,
  /** protocol << 8 | family; echo of both families is protocol 1. */
  kind: 1,
  /** Local port << 16 | remote port, as the own kernel sees them. Echo: the identifier stands where the client's port would. */
  ports: 2,
  /** Four words: IPv4 in the first, the rest 0. */
  remote: 3,
  local: 7,
  /** Of a free row: the next one, + 1. */
  nextFree: 11,
  generation: 12,
  peer: 13,
  /** The other end's flow ID; generation 0: not known yet. */
  remoteSlot: 14,
  remoteGeneration: 15,
  nextRemote: 16,
  /** {@link FlowFlag} */
  flags: 17,
  /** Reference of the service (see service-refs.ts). */
  service: 18,
  /** Port as the client dialled it << 16 | the client's own port, before any translation. */
  dialled: 19,
  /** Last packet from and to the own kernel, s. */
  lastOut: 20,
  lastIn: 21,
  since: 22,
  /** TCP: initial sequence number of the initiator. */
  initial: 23,
  /** TCP: last acknowledgement from the own kernel; sequence after the last byte to it; after the last byte from it. */
  acked: 24,
  nextIn: 25,
  nextOut: 26,
  /** TCP: the largest segment either side may send over the path at set-up. */
  mss: 27,
  bindingSequence: 28,
  hostMoveSequence: 29,
  /** TCP: last acknowledgement to the own kernel, which is the oldest number of it that is under way; 0: none yet. */
  unacked: 30,
  /** When the other end last confirmed the flow, s. */
  confirmed: 31,
  /** Sequence numbers after the FIN of either direction. */
  finOut: 32,
  finIn: 33,
  /** Four Float64 counters; see {@link Count}. */
  counters: 34,
  /** See row-checksum.ts. */
  checksum: 42,
} as const

/** Positions of a row's counters in `FlowTable.doubles`, from `row * ROW_WORDS / 2`. */
export const Count = { packetsOut: 17, bytesOut: 18, packetsIn: 19, bytesIn: 20 } as const

export const FlowState = {
  free: 0,
  /** Initiator: candidates are being tried. */
  opening: 1,
  /** Acceptor: the server has not answered yet. */
  halfOpen: 2,
  established: 3,
  /** Both directions are finished, or one end reset; kept for stragglers. */
  closing: 4,
} as const
export type FlowState = (typeof FlowState)[keyof typeof FlowState]

export const FlowFlag = {
  acceptor: 1,
  /** Acceptor: the initiator has used our flow ID. */
  confirmed: 2,
  finOut: 4,
  finIn: 8,
  reset: 16,
  /** In the index by the other end's flow ID. */
  remoteLinked: 32,
  /** `nextIn` is set: something of TCP went to the own kernel. */
  sequenced: 64,
} as const

const HEADER_WORDS = 16
const Header = { count: 1, free: 2, highWater: 3 } as const

function headsFor(capacity: number): number {
  let n = 16
  while (n < capacity) n *= 2
  return n
}

/** Slots of the first index: at least a third of them are empty. */
function slotsFor(capacity: number): number {
  return headsFor(Math.ceil(capacity * 1.5))
}

export class FlowTable {
  readonly words: Int32Array
  readonly doubles: Float64Array
  readonly bytes: Uint8Array
  readonly capacity: number
  /** First word in `words` of the first index's slots, and of the second one's heads. */
  readonly #tuples: number
  readonly #remotes: number
  readonly #slotMask: number
  readonly #headMask: number
  /** Bits of a slot that are the row + 1. */
  readonly #rowMask: number
  readonly #seed: number
  readonly #generations: Generations

  /** Bytes that a table of `capacity` rows takes. */
  static bytesFor(capacity: number): number {
    return 4 * (HEADER_WORDS + capacity * ROW_WORDS + slotsFor(capacity) + headsFor(capacity))
  }

  /**
   * Lies in `bytesFor(capacity)` bytes of `buffer` from `at` on, a multiple of 8, and does not touch them yet. They must be zeroed, or be rebuilt before anything else; throws RangeError when there are
   * not so many.
   */
  constructor(buffer: ArrayBufferLike, capacity: number, generations: Generations, at = 0) {
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > 2 ** 24) throw new RangeError('flow table capacity')
    if (buffer.byteLength < at + FlowTable.bytesFor(capacity)) throw new RangeError('flow table buffer too small')
    const rows = capacity * ROW_WORDS
    // Rows come first, so that a row's base is one multiplication away.
    this.words = new Int32Array(buffer, at, rows + slotsFor(capacity) + headsFor(capacity) + HEADER_WORDS)
    this.doubles = new Float64Array(buffer, at, rows / 2)
    this.bytes = new Uint8Array(buffer, at, 4 * rows)
    this.capacity = capacity
    this.#tuples = rows
    this.#remotes = rows + slotsFor(capacity)
    this.#slotMask = slotsFor(capacity) - 1
    this.#headMask = headsFor(capacity) - 1
    this.#rowMask = 2 ** (32 - Math.clz32(capacity)) - 1
    this.#generations = generations
    this.#seed = generations.next()
  }

  /** Looks at what {@link rebuild} is going to look at, and changes nothing: pages, and the code, are there by then. */
  preview(): void {
    for (let at = this.#tuples; at >= 0;) at = this.#used(at + 1)
  }

  /** First word from `at` on, behind the rows, that is not 0; -1: there is none. */
  #used(at: number): number {
    const { words } = this
    for (; at < words.length; at++) if (words[at] !== 0) return at
    return -1
  }

  get #header(): number {
    return this.#remotes + this.#headMask + 1
  }

  /** Flows in the table. */
  get count(): number {
    return this.words[this.#header + Header.count]!
  }

  /** Rows from 0 that were ever used: what a walk over the table visits. */
  get highWater(): number {
    return this.words[this.#header + Header.highWater]!
  }

  /** Of the index by 5-tuple, for those who read it elsewhere: first word of its slots in `words`, mask of a slot's number, bits of a slot that are the row + 1, seed of the hash. */
  get tupleIndex(): {
    readonly slots: number
    readonly slotMask: number
    readonly rowMask: number
    readonly seed: number
  } {
    return { slots: this.#tuples, slotMask: this.#slotMask, rowMask: this.#rowMask, seed: this.#seed }
  }

  /** A row in state `state` with a fresh generation and all else 0, or -1: full. */
  allocate(state: FlowState): number {
    const { words } = this
    const header = this.#header
    let row = words[header + Header.free]! - 1
    if (row >= 0) words[header + Header.free] = words[row * ROW_WORDS + Row.nextFree]!
    else {
      row = words[header + Header.highWater]!
      if (row >= this.capacity) return -1
      words[header + Header.highWater] = row + 1
    }
    const base = row * ROW_WORDS
    words.fill(0, base, base + ROW_WORDS)
    words[base + Row.state] = state
    words[base + Row.generation] = this.#generations.next()
    words[base + Row.peer] = -1
    words[header + Header.count]!++
    return row
  }

  /**
   * Makes a table of rows that another process has left. Of the rest of it nothing is trusted: the index begins empty, rows in no state in which they may be kept (`keeps`) are free, and
   * the others are in it once they are linked again.
   */
  rebuild(keeps: (row: number) => boolean): void {
    const { words, capacity } = this
    const header = this.#header
    const left = words[header + Header.highWater]!
    const rows = left >= 0 && left <= capacity ? left : capacity
    // Most of it is empty, and memory that is only read costs less than memory that is written.
    for (let at = this.#used(this.#tuples); at >= 0; at = this.#used(at + 1)) words[at] = 0
    words[header + Header.highWater] = rows
    for (let row = rows - 1; row >= 0; row--) {
      const base = row * ROW_WORDS
      words[base + Row.nextRemote] = 0
      words[base + Row.flags]! &= ~FlowFlag.remoteLinked
      if (keeps(row)) words[header + Header.count]!++
      else this.#free(row)
    }
  }

  /** Another generation, a random u32 as a signed number: parallel attempts of one flow differ in it. */
  newGeneration(): number {
    return this.#generations.next()
  }

  /** Unlinks and frees the row. Its flow ID is unknown from here on. */
  release(row: number): void {
    const { words } = this
    const base = row * ROW_WORDS
    if (words[base + Row.state] === FlowState.free) return
    this.unlinkTuple(row)
    this.unlinkRemote(row)
    words[this.#header + Header.count]!--
    this.#free(row)
  }

  #free(row: number): void {
    const { words } = this
    const base = row * ROW_WORDS
    const header = this.#header
    words[base + Row.state] = FlowState.free
    words[base + Row.generation] = 0
    words[base + Row.nextFree] = words[header + Header.free]!
    words[header + Header.free] = row + 1
  }

  /** Sets the row's 5-tuple as the own kernel sees it and makes it findable. Once a row. Addresses of 4 or 16 bytes. */
  link(
    row: number,
    family: Family,
    protocol: number,
    local: Uint8Array,
    remote: Uint8Array,
    localPort: number,
    remotePort: number,
  ): void {
    const { words } = this
    const base = row * ROW_WORDS
    words[base + Row.kind] = (protocol << 8) | family
    words[base + Row.ports] = (localPort << 16) | remotePort
    for (let i = 0; i < (family === 4 ? 1 : 4); i++) {
      words[base + Row.remote + i] = word(remote, 4 * i)
      words[base + Row.local + i] = word(local, 4 * i)
    }
    this.linkTuple(row)
  }

  /** Makes a row findable by the 5-tuple that it has. Once a row. */
  linkTuple(row: number): void {
    const { words } = this
    const hash = this.#tupleHash(row)
    let slot = hash & this.#slotMask
    while (words[this.#tuples + slot] !== 0) slot = (slot + 1) & this.#slotMask
    words[this.#tuples + slot] = (hash & ~this.#rowMask) | (row + 1)
  }

  /**
   * Row whose own kernel sends packets with this local (source) and remote (destination) address and ports word, or -1.
   * `ports` is source port << 16 | destination port as a signed word. Reads the addresses from the packet; no allocation.
   */
  find(view: DataView, local: number, remote: number, family: Family, protocol: number, ports: number): number {
    const { words } = this
    const slotMask = this.#slotMask
    const rowMask = this.#rowMask
    const kind = (protocol << 8) | family
    const r0 = view.getInt32(remote, true)
    const l0 = view.getInt32(local, true)
    if (family === 4) {
      const hash = this.#hash(kind, ports, r0, 0, 0, 0)
      for (let slot = hash & slotMask; ; slot = (slot + 1) & slotMask) {
        const entry = words[this.#tuples + slot]!
        if (entry === 0) return -1
        if (((entry ^ hash) & ~rowMask) !== 0) continue
        const row = (entry & rowMask) - 1
        const b = row * ROW_WORDS
        if (
          words[b + Row.ports] === ports &&
          words[b + Row.remote] === r0 &&
          words[b + Row.kind] === kind &&
          words[b + Row.local] === l0
        )
          return row
      }
    }
    const r1 = view.getInt32(remote + 4, true)
    const r2 = view.getInt32(remote + 8, true)
    const r3 = view.getInt32(remote + 12, true)
    const l1 = view.getInt32(local + 4, true)
    const l2 = view.getInt32(local + 8, true)
    const l3 = view.getInt32(local + 12, true)
    const hash = this.#hash(kind, ports, r0, r1, r2, r3)
    for (let slot = hash & slotMask; ; slot = (slot + 1) & slotMask) {
      const entry = words[this.#tuples + slot]!
      if (entry === 0) return -1
      if (((entry ^ hash) & ~rowMask) !== 0) continue
      const row = (entry & rowMask) - 1
      const b = row * ROW_WORDS
      if (
        words[b + Row.ports] === ports &&
        words[b + Row.kind] === kind &&
        words[b + Row.remote + 3] === r3 &&
        words[b + Row.remote + 2] === r2 &&
        words[b + Row.remote + 1] === r1 &&
        words[b + Row.remote] === r0 &&
        words[b + Row.local + 3] === l3 &&
        words[b + Row.local + 2] === l2 &&
        words[b + Row.local + 1] === l1 &&
        words[b + Row.local] === l0
      )
        return row
    }
  }

  /** As {@link find}, whatever the local address is. */
  findAnyLocal(view: DataView, remote: number, family: Family, protocol: number, ports: number): number {
    const { words } = this
    const slotMask = this.#slotMask
    const rowMask = this.#rowMask
    const kind = (protocol << 8) | family
    const six = family === 6
    const r0 = view.getInt32(remote, true)
    const r1 = six ? view.getInt32(remote + 4, true) : 0
    const r2 = six ? view.getInt32(remote + 8, true) : 0
    const r3 = six ? view.getInt32(remote + 12, true) : 0
    const hash = this.hashOf(view, remote, family, protocol, ports)
    for (let slot = hash & slotMask; ; slot = (slot + 1) & slotMask) {
      const entry = words[this.#tuples + slot]!
      if (entry === 0) return -1
      if (((entry ^ hash) & ~rowMask) !== 0) continue
      const row = (entry & rowMask) - 1
      const b = row * ROW_WORDS
      if (
        words[b + Row.ports] === ports &&
        words[b + Row.kind] === kind &&
        words[b + Row.remote] === r0 &&
        words[b + Row.remote + 1] === r1 &&
        words[b + Row.remote + 2] === r2 &&
        words[b + Row.remote + 3] === r3
      )
        return row
    }
  }

  /** What {@link find} goes by: hash of a packet's remote address, at `remote`, and ports word. */
  hashOf(view: DataView, remote: number, family: Family, protocol: number, ports: number): number {
    const kind = (protocol << 8) | family
    const r0 = view.getInt32(remote, true)
    if (family === 4) return this.#hash(kind, ports, r0, 0, 0, 0)
    const r1 = view.getInt32(remote + 4, true)
    return this.#hash(kind, ports, r0, r1, view.getInt32(remote + 8, true), view.getInt32(remote + 12, true))
  }

  /** Row of a flow ID (two u32) in a frame from `peer`; -1: not ours, of another generation, or another peer's flow. */
  resolve(slot: number, generation: number, peer: number): number {
    if (slot >= this.capacity || slot < 0 || generation === 0) return -1
    const base = slot * ROW_WORDS
    return this.words[base + Row.generation] === (generation | 0) && this.words[base + Row.peer] === peer ? slot : -1
  }

  /** Makes a row findable by its peer and the other end's flow ID, both set before and not changed while linked. */
  linkRemote(row: number): void {
    const { words } = this
    const base = row * ROW_WORDS
    const head = this.#remoteHead(
      words[base + Row.peer]!,
      words[base + Row.remoteSlot]!,
      words[base + Row.remoteGeneration]!,
    )
    words[base + Row.nextRemote] = words[head]!
    words[head] = row + 1
    words[base + Row.flags]! |= FlowFlag.remoteLinked
  }

  /** Row of the flow that `peer` calls by this ID, or -1. */
  findRemote(peer: number, slot: number, generation: number): number {
    const { words } = this
    slot |= 0
    generation |= 0
    let row = words[this.#remoteHead(peer, slot, generation)]! - 1
    while (row >= 0) {
      const b = row * ROW_WORDS
      if (
        words[b + Row.remoteGeneration] === generation &&
        words[b + Row.remoteSlot] === slot &&
        words[b + Row.peer] === peer
      )
        return row
      row = words[b + Row.nextRemote]! - 1
    }
    return -1
  }

  /** Takes the row out of the second index. */
  unlinkRemote(row: number): void {
    const { words } = this
    const base = row * ROW_WORDS
    if ((words[base + Row.flags]! & FlowFlag.remoteLinked) === 0) return
    words[base + Row.flags]! &= ~FlowFlag.remoteLinked
    const peer = words[base + Row.peer]!
    let at = this.#remoteHead(peer, words[base + Row.remoteSlot]!, words[base + Row.remoteGeneration]!)
    while (words[at] !== row + 1) {
      if (words[at] === 0) return
      at = (words[at]! - 1) * ROW_WORDS + Row.nextRemote
    }
    words[at] = words[base + Row.nextRemote]!
    words[base + Row.nextRemote] = 0
  }

  /** Takes the row out of the first index, so that its 5-tuple can serve a new flow; the row lives on under its flow ID. */
  unlinkTuple(row: number): void {
    const { words } = this
    const slots = this.#tuples
    const mask = this.#slotMask
    let hole = this.#tupleHash(row) & mask
    for (; ; hole = (hole + 1) & mask) {
      const entry = words[slots + hole]!
      if (entry === 0) return
      if ((entry & this.#rowMask) === row + 1) break
    }
    // Those behind it move up, but none to before where its search begins.
    for (let slot = (hole + 1) & mask; words[slots + slot] !== 0; slot = (slot + 1) & mask) {
      const entry = words[slots + slot]!
      const first = this.#tupleHash((entry & this.#rowMask) - 1) & mask
      if (((slot - first) & mask) < ((slot - hole) & mask)) continue
      words[slots + hole] = entry
      hole = slot
    }
    words[slots + hole] = 0
  }

  /** Another local address, read at `offset` in the row's family; it is not part of the index, so the row stays where it is. */
  setLocal(row: number, view: DataView, offset: number): void {
    const base = row * ROW_WORDS + Row.local
    for (let i = 0; i < (this.family(row) === 4 ? 1 : 4); i++)
      this.words[base + i] = view.getInt32(offset + 4 * i, true)
  }

  /** Position in `bytes` of the row's local or remote address, in network order. */
  addressOffset(row: number, which: typeof Row.local | typeof Row.remote): number {
    return 4 * (row * ROW_WORDS + which)
  }

  /** Copy of the row's local or remote address. */
  address(row: number, which: typeof Row.local | typeof Row.remote): Uint8Array {
    const at = this.addressOffset(row, which)
    return this.bytes.slice(at, at + (this.family(row) === 4 ? 4 : 16))
  }

  get(row: number, field: number): number {
    return this.words[row * ROW_WORDS + field]!
  }

  set(row: number, field: number, value: number): void {
    this.words[row * ROW_WORDS + field] = value
  }

  has(row: number, flag: number): boolean {
    return (this.words[row * ROW_WORDS + Row.flags]! & flag) !== 0
  }

  flag(row: number, flag: number): void {
    this.words[row * ROW_WORDS + Row.flags]! |= flag
  }

  family(row: number): Family {
    return (this.words[row * ROW_WORDS + Row.kind]! & 0xff) === 4 ? 4 : 6
  }

  protocol(row: number): number {
    return this.words[row * ROW_WORDS + Row.kind]! >> 8
  }

  localPort(row: number): number {
    return this.words[row * ROW_WORDS + Row.ports]! >>> 16
  }

  remotePort(row: number): number {
    return this.words[row * ROW_WORDS + Row.ports]! & 0xffff
  }

  #hash(kind: number, ports: number, r0: number, r1: number, r2: number, r3: number): number {
    let h = this.#seed
    h = mix(h, kind)
    h = mix(h, ports)
    h = mix(h, r0)
    if ((kind & 0xff) === 6) h = mix(mix(mix(h, r1), r2), r3)
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
    return h ^ (h >>> 13)
  }

  #tupleHash(row: number): number {
    const { words } = this
    const b = row * ROW_WORDS
    const r = b + Row.remote
    return this.#hash(
      words[b + Row.kind]!,
      words[b + Row.ports]!,
      words[r]!,
      words[r + 1]!,
      words[r + 2]!,
      words[r + 3]!,
    )
  }

  #remoteHead(peer: number, slot: number, generation: number): number {
    return this.#remotes + (this.#hash(peer << 8, slot, generation, 0, 0, 0) & this.#headMask)
  }
}

function mix(h: number, word: number): number {
  const k = Math.imul(word ^ h, 0x9e3779b1)
  return Math.imul((k << 15) | (k >>> 17), 0x1b873593) ^ (h >>> 3)
}

function word(bytes: Uint8Array, offset: number): number {
  return bytes[offset]! | (bytes[offset + 1]! << 8) | (bytes[offset + 2]! << 16) | (bytes[offset + 3]! << 24)
}
