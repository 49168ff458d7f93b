/** The flow engine must not be entered while it works: what its environment sets off waits until it is done. */
export class Turns {
  #depth = 0
  #later: (() => void)[] = []

  /** Does the engine's work, then what was put off. */
  inside(work: () => void): void {
    this.enter()
    try {
      work()
    } finally {
      this.leave()
    }
    this.rest()
  }

  /** The three parts of {@link inside}, for what is done for every packet: the engine's work begins, has ended whatever came of it, and what was put off. */
  enter(): void {
    this.#depth++
  }
  leave(): void {
    this.#depth--
  }
  rest(): void {
    while (this.#depth === 0 && this.#later.length > 0) {
      const waiting = this.#later
      this.#later = []
      for (const action of waiting) action()
    }
  }

  /** Does it now, or as soon as the engine is done. */
  afterwards(action: () => void): void {
    if (this.#depth > 0) this.#later.push(action)
    else action()
  }
}
