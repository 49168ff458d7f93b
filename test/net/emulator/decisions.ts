import { seededRandom } from '../../tools/seeded-random.js'
import type { LinkSettings } from './settings.js'

/** What becomes of one packet. */
export type Fate = 'arrives' | 'lost' | 'tooBig' | 'cut' | 'overflowed'

/**
 * The decisions about the packets of one direction, one after the other. Each kind of decision has numbers of its own, one a packet of at least `sizeMin` bytes: which packets are lost
 * depends on the seed, the packets' count and the loss alone.
 */
export class LinkDecisions {
  /** Of the last packet that arrives: when, whether twice, and whether it is held back beyond that. */
  arrivesAt = 0
  twice = false
  heldBack = false
  readonly #loss: () => number
  readonly #duplicate: () => number
  readonly #reorder: () => number
  readonly #jitter: () => number
  #losing = false
  /** When the last bit that was let in has gone out at the link's rate. */
  #busyUntil = -Infinity
  #lastArrival = -Infinity

  constructor(
    public settings: LinkSettings,
    seed: number,
  ) {
    const numbers = (kind: number) => seededRandom(Math.imul(seed + kind, 0x9e3779b1))
    this.#loss = numbers(1)
    this.#duplicate = numbers(2)
    this.#reorder = numbers(3)
    this.#jitter = numbers(4)
  }

  /** Decides about a packet of so many bytes that comes in now (ms); with `arrives`, the fields above tell the rest. */
  decide(now: number, bytes: number): Fate {
    const { settings } = this
    if (settings.cut) return 'cut'
    if (bytes > settings.mtu) return 'tooBig'
    const harmed = bytes >= settings.sizeMin
    if (harmed && this.#isLost()) return 'lost'
    let at = now
    if (settings.rate > 0) {
      const perMs = settings.rate / 8_000
      const start = Math.max(now, this.#busyUntil)
      if ((start - now) * perMs + bytes > settings.queueBytes) return 'overflowed'
      at = this.#busyUntil = start + bytes / perMs
    }
    at += settings.delayMs + (settings.jitterMs === 0 ? 0 : settings.jitterMs * this.#jitter())
    // A packet does not overtake those before it, also where the delay has just become less.
    this.arrivesAt = this.#lastArrival = Math.max(at, this.#lastArrival)
    this.twice = harmed && this.#duplicate() < settings.duplicate
    this.heldBack = harmed && this.#reorder() < settings.reorder
    return 'arrives'
  }

  /** Gilbert's model: two states, in one of which everything is lost. */
  #isLost(): boolean {
    const { loss, lossBurst } = this.settings
    const number = this.#loss()
    if (lossBurst === 1 || loss === 0 || loss === 1) this.#losing = number < loss
    else if (this.#losing) this.#losing = number >= 1 / lossBurst
    else this.#losing = number < loss / (lossBurst * (1 - loss))
    return this.#losing
  }
}
