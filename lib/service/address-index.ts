/** From pairs of 32-bit words to values; lookups touch only typed arrays. Open addressing; grows by doubling when entries are added, which is off the packet path. */
export class AddressIndex<T> {
  #keys = new Int32Array(2 * 64)
  /** Position in #values plus 1; 0: empty. */
  #slots = new Int32Array(64)
  readonly #values: T[] = []

  get(high: number, low: number): T | undefined {
    const mask = this.#slots.length - 1
    for (let at = hash(high, low) & mask; this.#slots[at] !== 0; at = (at + 1) & mask) {
      if (this.#keys[2 * at] === (high | 0) && this.#keys[2 * at + 1] === (low | 0))
        return this.#values[this.#slots[at]! - 1]
    }
    return undefined
  }

  /** Adds or replaces. Entries are never removed: there is one for each name and host ever given out. */
  set(high: number, low: number, value: T): void {
    const at = this.#place(high, low)
    if (this.#slots[at] !== 0) {
      this.#values[this.#slots[at]! - 1] = value
      return
    }
    this.#values.push(value)
    this.#fill(at, high, low, this.#values.length)
    if (this.#values.length * 2 > this.#slots.length) this.#grow()
  }

  #place(high: number, low: number): number {
    const mask = this.#slots.length - 1
    let at = hash(high, low) & mask
    while (this.#slots[at] !== 0 && (this.#keys[2 * at] !== (high | 0) || this.#keys[2 * at + 1] !== (low | 0))) {
      at = (at + 1) & mask
    }
    return at
  }

  #fill(at: number, high: number, low: number, slot: number): void {
    this.#keys[2 * at] = high
    this.#keys[2 * at + 1] = low
    this.#slots[at] = slot
  }

  #grow(): void {
    const [keys, slots] = [this.#keys, this.#slots]
    this.#keys = new Int32Array(keys.length * 2)
    this.#slots = new Int32Array(slots.length * 2)
    for (let at = 0; at < slots.length; at++) {
      if (slots[at] === 0) continue
      const [high, low] = [keys[2 * at]!, keys[2 * at + 1]!]
      this.#fill(this.#place(high, low), high, low, slots[at]!)
    }
  }
}

function hash(high: number, low: number): number {
  let h = Math.imul(high ^ 0x9e3779b1, 0x85ebca6b) ^ low
  h = Math.imul(h ^ (h >>> 15), 0xc2b2ae35)
  return h ^ (h >>> 16)
}
