/** A token bucket for answers to packets that fit nothing, so that garbage cannot make us send as much again. */
export class AnswerLimit {
  #tokens: number
  #at = -Infinity

  constructor(
    readonly perSecond: number,
    readonly burst: number,
  ) {
    this.#tokens = burst
  }

  /** Whether one more answer may go out at `now` (ms). */
  take(now: number): boolean {
    if (now > this.#at) {
      if (this.#at !== -Infinity) {
        this.#tokens = Math.min(this.burst, this.#tokens + ((now - this.#at) * this.perSecond) / 1000)
      }
      this.#at = now
    }
    if (this.#tokens < 1) return false
    this.#tokens--
    return true
  }
}
