/** Lets one line through in a while, and counts those that it keeps back. */
export class LogLimit {
  #nextAt = -Infinity
  #kept = 0

  /** `now`: monotonic ms. */
  constructor(
    private readonly everyMs: number,
    private readonly now: () => number,
  ) {}

  /** How many lines were kept back since the last; undefined: this one is. */
  take(): number | undefined {
    const now = this.now()
    if (now < this.#nextAt) {
      this.#kept++
      return undefined
    }
    this.#nextAt = now + this.everyMs
    const kept = this.#kept
    this.#kept = 0
    return kept
  }
}
