// How late the event loop is: packets wait as long as it does.

import { monitorEventLoopDelay } from 'node:perf_hooks'

/** ms by which timers came late, over the last one to two minutes. */
export interface LoopDelay {
  readonly p50Ms: number
  readonly p99Ms: number
  readonly maxMs: number
}

/** A process that sleeps is woken this often: seldom enough to cost nothing. */
const RESOLUTION_MS = 500
const WINDOW_MS = 60_000
const none: LoopDelay = { p50Ms: 0, p99Ms: 0, maxMs: 0 }

/** Measures from construction to `stop`; does not keep the process alive. */
export class EventLoopDelay {
  readonly #histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
  readonly #window: NodeJS.Timeout
  /** Of the last full window. */
  #last = none

  constructor() {
    this.#histogram.enable()
    this.#window = setInterval(() => this.#turn(), WINDOW_MS)
    this.#window.unref()
  }

  /** The worse of the last full minute and the running one. */
  read(): LoopDelay {
    const now = this.#current()
    const { p50Ms, p99Ms, maxMs } = this.#last
    return { p50Ms: Math.max(p50Ms, now.p50Ms), p99Ms: Math.max(p99Ms, now.p99Ms), maxMs: Math.max(maxMs, now.maxMs) }
  }

  stop(): void {
    clearInterval(this.#window)
    this.#histogram.disable()
  }

  #turn(): void {
    this.#last = this.#current()
    this.#histogram.reset()
  }

  #current(): LoopDelay {
    if (this.#histogram.count === 0) return none
    const [p50, p99] = [50, 99].map((p) => lateness(this.#histogram.percentile(p)))
    return { p50Ms: p50 ?? 0, p99Ms: p99 ?? 0, maxMs: lateness(this.#histogram.max) }
  }
}

/** The histogram holds nanoseconds from one timer to the next. */
function lateness(nanoseconds: number): number {
  return Math.max(0, nanoseconds / 1e6 - RESOLUTION_MS)
}
