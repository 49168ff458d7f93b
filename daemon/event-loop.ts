// How late the packet loop is: packets wait as long as its deadlines do.

import { createHistogram } from 'node:perf_hooks'

/** ms by which deadlines were dealt with too late, over the last one to two minutes. */
export interface LoopDelay {
  readonly p50Ms: number
  readonly p99Ms: number
  readonly maxMs: number
}

const WINDOW_MS = 60_000
const none: LoopDelay = { p50Ms: 0, p99Ms: 0, maxMs: 0 }

/** Counts from construction to `stop`; does not keep the process alive. A timer of its own, such as Node's monitor has, would wake a process that sleeps. */
export class EventLoopDelay {
  /** Microseconds, and one more: it holds no zero. */
  readonly #histogram = createHistogram()
  readonly #window: NodeJS.Timeout
  /** Of the last full window. */
  #last = none

  constructor() {
    this.#window = setInterval(() => this.#turn(), WINDOW_MS)
    this.#window.unref()
  }

  /** A deadline was dealt with so many ms too late. */
  record(ms: number): void {
    this.#histogram.record(1 + Math.round(ms * 1_000))
  }

  /** The worse of the last full minute and the running one. */
  read(): LoopDelay {
    const now = this.#current()
    const { p50Ms, p99Ms, maxMs } = this.#last
    return { p50Ms: Math.max(p50Ms, now.p50Ms), p99Ms: Math.max(p99Ms, now.p99Ms), maxMs: Math.max(maxMs, now.maxMs) }
  }

  stop(): void {
    clearInterval(this.#window)
  }

  #turn(): void {
    this.#last = this.#current()
    this.#histogram.reset()
  }

  #current(): LoopDelay {
    if (this.#histogram.count === 0) return none
    const [p50, p99] = [50, 99].map((p) => milliseconds(this.#histogram.percentile(p)))
    return { p50Ms: p50 ?? 0, p99Ms: p99 ?? 0, maxMs: milliseconds(this.#histogram.max) }
  }
}

const milliseconds = (recorded: number): number => (recorded - 1) / 1_000
