const FIRST_BITS = 4
/** Leading zeros of the numbers that lie in piece 0. */
const FIRST_ZEROS = 31 - FIRST_BITS

/** Gives so many zeroed bytes. */
export type Memory = (bytes: number) => ArrayBuffer
export const plainMemory: Memory = (bytes) => new ArrayBuffer(bytes)

/**
 * Items of a fixed number of 32-bit words, all zero at first. It grows by pieces, each as large as all before it together, and nothing ever moves: an item costs
 * memory when it is first touched, and no growth takes longer for being of a large table.
 */
export class GrowingWords {
  readonly #pieces: Int32Array[] = []
  readonly #width: number
  readonly #memory: Memory
  #capacity = 0

  /** @param width words an item */
  constructor(width: number, memory: Memory) {
    this.#width = width
    this.#memory = memory
  }

  /** Makes items 0..`count` - 1 exist. */
  reserve(count: number): void {
    while (this.#capacity < count) {
      const items = 1 << (FIRST_BITS + this.#pieces.length)
      this.#pieces.push(new Int32Array(this.#memory(items * this.#width * Int32Array.BYTES_PER_ELEMENT)))
      this.#capacity += items
    }
  }

  /** The array that holds an item, from {@link at} on. */
  words(item: number): Int32Array {
    return this.#pieces[FIRST_ZEROS - Math.clz32(item + (1 << FIRST_BITS))]!
  }

  at(item: number): number {
    const number = item + (1 << FIRST_BITS)
    return (number ^ (0x80000000 >>> Math.clz32(number))) * this.#width
  }
}
