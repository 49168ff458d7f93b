import { fromHex, toHex } from '../wire/ids.js'

const ID_WORDS = 8
/** An ID of 32 bytes and a checksum. */
const ENTRY_WORDS = ID_WORDS + 1

/**
 * What the small numbers in a flow table's rows stand for, kept in the same memory: 32-byte IDs (64 hex digits) by number. An entry is written before a row that needs it
 * is given a checksum, so that a row which is whole has its names. Bounded: numbers from `capacity` on have no name, and flows with them end with the process.
 */
export class SavedNames {
  readonly #words: Int32Array
  readonly #bytes: Uint8Array
  /** 1: written by this process, or taken over by it. */
  readonly #known: Uint8Array

  /** Bytes that so many names take. */
  static bytesFor(capacity: number): number {
    return 4 * ENTRY_WORDS * capacity
  }

  /** `at`: position in the buffer, a multiple of 4. */
  constructor(
    buffer: ArrayBufferLike,
    at: number,
    readonly capacity: number,
  ) {
    this.#words = new Int32Array(buffer, at, capacity * ENTRY_WORDS)
    this.#bytes = new Uint8Array(buffer, at, SavedNames.bytesFor(capacity))
    this.#known = new Uint8Array(capacity)
  }

  /** Whether {@link keep} has nothing to do. */
  has(number: number): boolean {
    return number >= this.capacity || this.#known[number] === 1
  }

  /** Writes what the number stands for from now on. No row that was not released may have meant something else by it. */
  keep(number: number, id: string): void {
    if (number < 0 || number >= this.capacity) return
    const entry = number * ENTRY_WORDS
    this.#bytes.set(fromHex(id).subarray(0, 4 * ID_WORDS), 4 * entry)
    this.#words[entry + ID_WORDS] = this.#checksum(number)
    this.#known[number] = 1
  }

  /** What the number stands for; undefined: it is not known. */
  read(number: number): string | undefined {
    if (number < 0 || number >= this.capacity) return undefined
    const entry = number * ENTRY_WORDS
    if (this.#words[entry + ID_WORDS] !== this.#checksum(number)) return undefined
    return toHex(this.#bytes.subarray(4 * entry, 4 * (entry + ID_WORDS)))
  }

  #checksum(number: number): number {
    const entry = number * ENTRY_WORDS
    let sum = Math.imul(number + 1, 0x9e3779b1)
    for (let i = 0; i < ID_WORDS; i++) sum = mixed(sum, this.#words[entry + i]!)
    return sum
  }
}

/** One step of a checksum over 32-bit words. */
export function mixed(sum: number, word: number): number {
  const k = Math.imul(word ^ sum, 0x85ebca6b)
  return Math.imul((k << 13) | (k >>> 19), 0xc2b2ae35) ^ (sum >>> 5)
}
