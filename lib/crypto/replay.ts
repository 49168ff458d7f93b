import { REPLAY_WINDOW } from '../wire/constants.js'

const WORD_BITS = 32
/** One word more than the window, so that the word being filled never holds counters that are still in the window. */
const WORDS = REPLAY_WINDOW / WORD_BITS + 1

/**
 * Which counters of a lane have been seen: the last REPLAY_WINDOW up to the highest, as a ring of bits (the idea of RFC 6479).
 * To be asked only after the frame's tag has been checked, because asking marks the counter as seen.
 */
export class ReplayWindow {
  readonly #bits = new Uint32Array(WORDS)
  #highest = 0

  /** Highest counter accepted so far; 0 before the first. */
  get highest(): number {
    return this.#highest
  }

  /** Whether the counter (an integer of 0..2^53-1) is new and not older than the window; marks it as seen. */
  accept(counter: number): boolean {
    if (counter > this.#highest) this.#advance(counter)
    else if (this.#highest - counter >= REPLAY_WINDOW) return false
    const word = Math.floor(counter / WORD_BITS) % WORDS
    const bit = 1 << (counter % WORD_BITS)
    if ((this.#bits[word]! & bit) !== 0) return false
    this.#bits[word]! |= bit
    return true
  }

  #advance(counter: number): void {
    const from = Math.floor(this.#highest / WORD_BITS)
    const steps = Math.floor(counter / WORD_BITS) - from
    if (steps >= WORDS) this.#bits.fill(0)
    else for (let step = 1; step <= steps; step++) this.#bits[(from + step) % WORDS] = 0
    this.#highest = counter
  }
}
