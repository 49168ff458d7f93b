interface Event {
  readonly at: number
  readonly order: number
  readonly run: () => void
}

/** What happens next in virtual time: a binary heap, earliest first, in the order of arrival among those of one instant. */
export class EventQueue {
  readonly #heap: Event[] = []
  #order = 0

  constructor(public now: number) {}

  at(time: number, run: () => void): void {
    if (time === Infinity) return
    const heap = this.#heap
    const event = { at: Math.max(time, this.now), order: this.#order++, run }
    let i = heap.push(event) - 1
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (!before(event, heap[parent]!)) break
      heap[i] = heap[parent]!
      i = parent
    }
    heap[i] = event
  }

  /** Runs all that happens up to the time. */
  run(until: number): void {
    for (let next = this.#heap[0]; next !== undefined && next.at <= until; next = this.#heap[0]) {
      this.#take()
      this.now = next.at
      next.run()
    }
    this.now = Math.max(this.now, until)
  }

  #take(): void {
    const heap = this.#heap
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++
      if (!before(heap[child]!, last)) break
      heap[i] = heap[child]!
      i = child
    }
    heap[i] = last
  }
}

function before(a: Event, b: Event): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order)
}
