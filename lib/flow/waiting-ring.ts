// What waits for one peer, in memory: entries one behind the other, the oldest first. Each lies in one piece: one that does not fit before the end begins at 0 again.
//
//   [ … free … | oldest | next | … | newest | … free … ]        or, wrapped:        [ … | newest | … free … | oldest | next | … | unused ]
//
// An entry: its words (32 bits each), when it came (double), then its bytes, so that the IP header behind a vnet header lies on a multiple of four. All in the machine's byte order.

/** Words of an entry. `bytes`: what it takes in all. */
const Word = { bytes: 0, length: 1, kind: 2, trafficClass: 3, slot: 4, generation: 5 } as const
const HEADER = 32
const SINCE = 3
/** From the end of the header to the bytes: a vnet header is 10 long. */
const SHIFT = 2

/** A packet as it was read from the TUN, vnet header and all; a frame, inner header and all. */
export const WaitingKind = { packet: 0, frame: 1 } as const
export type WaitingKind = (typeof WaitingKind)[keyof typeof WaitingKind]

/** Of an entry, besides its bytes. Filled by {@link WaitingRing.oldest}, which makes no object. */
export class WaitingEntry {
  kind: number = WaitingKind.packet
  /** Where its bytes lie in {@link WaitingRing.data}, until something else is done with the ring. */
  offset = 0
  length = 0
  since = 0
  /** Of a frame. */
  trafficClass = 0
  /** Our flow ID that a frame belongs to: it is only sent while that flow or attempt lives; slot -1: none. */
  slot = -1
  generation = 0
}

/** Bytes that so many take in a ring. */
export function waitingBytes(length: number): number {
  return HEADER + ((SHIFT + length + 7) & ~7)
}

export class WaitingRing {
  readonly data: Uint8Array
  readonly #words: Int32Array
  readonly #doubles: Float64Array
  #count = 0
  /** Where the oldest entry begins, and where the next one would; of a wrapped ring where the first part ends. */
  #head = 0
  #tail = 0
  #end = 0
  #wrapped = false
  #used = 0

  /** @param capacity bytes, a multiple of 8 */
  constructor(capacity: number) {
    const buffer = new ArrayBuffer(capacity)
    this.data = new Uint8Array(buffer)
    this.#words = new Int32Array(buffer)
    this.#doubles = new Float64Array(buffer)
  }

  get capacity(): number {
    return this.data.length
  }
  get count(): number {
    return this.#count
  }
  /** Bytes that the entries take. */
  get used(): number {
    return this.#used
  }
  /** When the oldest entry came; Infinity: there is none. */
  get since(): number {
    return this.#count === 0 ? Infinity : this.#doubles[this.#head / 8 + SINCE]!
  }

  /** Copies the bytes, as the newest entry. `entry`: what else is known of it. False: there is no room. */
  append(entry: Readonly<WaitingEntry>, bytes: Uint8Array, offset: number): boolean {
    const size = waitingBytes(entry.length)
    const at = this.#place(size)
    if (at < 0) return false
    const word = at / 4
    this.#words[word + Word.bytes] = size
    this.#words[word + Word.length] = entry.length
    this.#words[word + Word.kind] = entry.kind
    this.#words[word + Word.trafficClass] = entry.trafficClass
    this.#words[word + Word.slot] = entry.slot
    this.#words[word + Word.generation] = entry.generation
    this.#doubles[at / 8 + SINCE] = entry.since
    this.data.set(bytes.subarray(offset, offset + entry.length), at + HEADER + SHIFT)
    this.#tail = at + size
    this.#used += size
    this.#count++
    return true
  }

  /** Reads the oldest entry into `entry`. There must be one. */
  oldest(entry: WaitingEntry): void {
    const word = this.#head / 4
    entry.kind = this.#words[word + Word.kind]!
    entry.offset = this.#head + HEADER + SHIFT
    entry.length = this.#words[word + Word.length]!
    entry.since = this.since
    entry.trafficClass = this.#words[word + Word.trafficClass]!
    entry.slot = this.#words[word + Word.slot]!
    entry.generation = this.#words[word + Word.generation]!
  }

  /** Forgets the oldest entry; its bytes are there until the next one is appended. There must be one. */
  shift(): void {
    const size = this.#words[this.#head / 4]!
    this.#used -= size
    this.#head += size
    if (--this.#count === 0) {
      this.#head = this.#tail = 0
      this.#wrapped = false
    } else if (this.#wrapped && this.#head === this.#end) {
      this.#head = 0
      this.#wrapped = false
    }
  }

  /** Appends all entries of another ring. There must be room. */
  take(from: WaitingRing): void {
    const entry = new WaitingEntry()
    while (from.count > 0) {
      from.oldest(entry)
      this.append(entry, from.data, entry.offset)
      from.shift()
    }
  }

  /** Where an entry of so many bytes goes; -1: nowhere. */
  #place(size: number): number {
    if (this.#wrapped) return size <= this.#head - this.#tail ? this.#tail : -1
    if (size <= this.capacity - this.#tail) return this.#tail
    if (size > this.#head) return -1
    this.#end = this.#tail
    this.#wrapped = true
    return 0
  }
}
