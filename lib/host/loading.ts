/** The time after a start in which this host does not know yet what it has: services are still being restored. Bounded. */
export class Loading {
  #until: number

  /** `until`: ms at which it ends whatever happens; -Infinity: there is nothing to load. */
  constructor(until: number) {
    this.#until = until
  }

  /** When it ends by itself, ms; Infinity: it has ended. */
  get next(): number {
    return this.#until === -Infinity ? Infinity : this.#until
  }

  is(now: number): boolean {
    return now < this.#until
  }

  done(): void {
    this.#until = -Infinity
  }
}
