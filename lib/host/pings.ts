import { toHex } from '../wire/ids.js'

interface Ping {
  readonly peer: number
  readonly sentAt: number
  readonly answered: (rttMs: number) => void
}

const PINGS_MAX = 1_024

/** Round trips that somebody waits for, by the token of their probe. */
export class Pings {
  readonly #waiting = new Map<string, Ping>()

  /** undefined: too many are under way. */
  add(peer: number, token: Uint8Array, now: number, answered: (rttMs: number) => void): { cancel(): void } | undefined {
    if (this.#waiting.size >= PINGS_MAX) return undefined
    const key = toHex(token)
    this.#waiting.set(key, { peer, sentAt: now, answered })
    return { cancel: () => void this.#waiting.delete(key) }
  }

  /** An echo came from the peer; false: nobody waits for it. */
  answered(peer: number, token: Uint8Array, now: number): boolean {
    if (this.#waiting.size === 0) return false
    const key = toHex(token)
    const ping = this.#waiting.get(key)
    if (ping?.peer !== peer) return false
    this.#waiting.delete(key)
    ping.answered(now - ping.sentAt)
    return true
  }
}
