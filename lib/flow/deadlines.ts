interface Deadline<T> {
  readonly at: number
  readonly item: T
}

/** Items by the time at which they are due: a binary heap. An item that is no longer wanted is left to come up and be ignored. */
export class Deadlines<T> {
  readonly #heap: Deadline<T>[] = []

  get size(): number {
    return this.#heap.length
  }

  /** When the first item is due; Infinity: there is none. */
  get next(): number {
    return this.#heap[0]?.at ?? Infinity
  }

  add(at: number, item: T): void {
    const heap = this.#heap
    const entry = { at, item }
    let i = heap.push(entry) - 1
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (heap[parent]!.at <= at) break
      heap[i] = heap[parent]!
      i = parent
    }
    heap[i] = entry
  }

  /** Takes out the first item due at `now`; undefined: none is. */
  take(now: number): T | undefined {
    const heap = this.#heap
    const first = heap[0]
    if (first === undefined || first.at > now) return undefined
    const last = heap.pop()!
    if (heap.length > 0) {
      let i = 0
      for (;;) {
        let child = 2 * i + 1
        if (child >= heap.length) break
        if (child + 1 < heap.length && heap[child + 1]!.at < heap[child]!.at) child++
        if (heap[child]!.at >= last.at) break
        heap[i] = heap[child]!
        i = child
      }
      heap[i] = last
    }
    return first.item
  }
}
