import { native, type NativeHandle } from './native.js'

/** What threads wake each other with. Each has an object of its own over the same event. */
export class NativeEvent {
  readonly #native = native()
  readonly #handle: NativeHandle
  #open = true

  /** @param token of {@link share}: the event of another thread; else a new one */
  constructor(token?: number) {
    this.#handle = token === undefined ? this.#native.eventOpen() : this.#native.adopt(token)
  }

  /** A token with which another thread makes its own object, once. */
  share(): number {
    return this.#native.share(this.#handle)
  }

  signal(): void {
    this.#native.eventSignal(this.#handle)
  }

  /** Calls back after signals, at least once after the last one. One thread of those that share it. */
  onSignal(callback: () => void): void {
    this.#native.watch(this.#handle, () => {
      this.#native.eventClear(this.#handle)
      callback()
    })
  }

  /** Closing twice is allowed. */
  close(): void {
    if (!this.#open) return
    this.#open = false
    this.#native.close(this.#handle)
  }
}
