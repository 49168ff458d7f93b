import { native, type NativeHandle } from './native.js'

/**
 * One deadline on the event loop, which may be moved as often as one likes. Node's own timers share one of libuv's, and that one goes off when the earliest of them would have, whether or not it
 * is there still: a thread that sets a deadline and moves it on, as one does that waits for answers, would be woken each time for nothing.
 */
export class NativeTimer {
  readonly #native = native()
  readonly #handle: NativeHandle
  #open = true

  /** `expired` is called when it is time; the event loop goes on as long as the timer is open. */
  constructor(expired: () => void) {
    this.#handle = this.#native.timerOpen()
    this.#native.watch(this.#handle, expired)
  }

  /** Goes off in so many ms, and not when it was to before; Infinity: not at all. */
  set(ms: number): void {
    this.#native.timerSet(this.#handle, ms === Infinity ? 0 : Math.max(1, Math.ceil(ms * 1_000)))
  }

  /** Closing twice is allowed. */
  close(): void {
    if (!this.#open) return
    this.#open = false
    this.#native.close(this.#handle)
  }
}
