import { HANDSHAKE_GIVE_UP_MS, HANDSHAKE_RETRY_MS } from '../wire/constants.js'

export interface ScheduleOptions {
  readonly retryMs?: number
  readonly giveUpMs?: number
  /** Between the candidate addresses of a round. */
  readonly staggerMs?: number
}

/** Candidate addresses of one handshake. */
export const CANDIDATES_MAX = 8

/**
 * When a first message goes to which candidate address: rounds over all addresses, staggered so that the first one usually answers before the second is asked;
 * rounds start at intervals with ±10 % jitter that double from the second on, for one or two lost datagrams say nothing of the peer, until the time is up.
 */
export class Schedule {
  readonly #retryMs: number
  readonly #staggerMs: number
  readonly #giveUpAt: number
  #addresses: Uint8Array[]
  #round = 0
  #position = 0
  #roundStart: number
  #nextAt: number

  /** `jitter`: uniform in [0, 1). */
  constructor(
    addresses: readonly Uint8Array[],
    now: number,
    readonly jitter: () => number,
    options: ScheduleOptions = {},
  ) {
    this.#addresses = addresses.slice(0, CANDIDATES_MAX)
    this.#retryMs = options.retryMs ?? HANDSHAKE_RETRY_MS
    this.#staggerMs = options.staggerMs ?? 40
    this.#giveUpAt = now + (options.giveUpMs ?? HANDSHAKE_GIVE_UP_MS)
    this.#roundStart = now
    this.#nextAt = now
  }

  get addresses(): readonly Uint8Array[] {
    return this.#addresses
  }

  /** When {@link take} or {@link expired} has something to say. */
  get nextAt(): number {
    return Math.min(this.#addresses.length === 0 ? Infinity : this.#nextAt, this.#giveUpAt)
  }

  expired(now: number): boolean {
    return now >= this.#giveUpAt
  }

  /** The address to ask now, or undefined when none is due. */
  take(now: number): Uint8Array | undefined {
    if (now < this.#nextAt || this.expired(now)) return undefined
    const address = this.#addresses[this.#position]
    if (address === undefined) return undefined
    this.#position++
    if (this.#position < this.#addresses.length) {
      this.#nextAt = now + this.#staggerMs
      return address
    }
    const interval = this.#retryMs * 2 ** Math.max(0, this.#round - 1) * (0.9 + 0.2 * this.jitter())
    this.#roundStart = Math.max(now, this.#roundStart + interval)
    this.#nextAt = this.#roundStart
    this.#position = 0
    this.#round++
    return address
  }

  /** Adds candidates that are not known yet; a new one is asked at once. The oldest make room when there are too many. */
  add(addresses: readonly Uint8Array[], now: number): void {
    const fresh = addresses.filter((address) => !this.#addresses.some((known) => sameBytes(known, address)))
    if (fresh.length === 0) return
    const kept = this.#addresses.slice(Math.max(0, this.#addresses.length + fresh.length - CANDIDATES_MAX))
    this.#addresses = [...kept, ...fresh].slice(0, CANDIDATES_MAX)
    this.#position = Math.min(kept.length, this.#addresses.length - 1)
    this.#nextAt = now
  }
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

/** Candidate addresses: `first`, then what `second` has besides. */
export function merged(first: readonly Uint8Array[], second: readonly Uint8Array[]): Uint8Array[] {
  const all = [...first]
  for (const address of second) if (!all.some((known) => sameBytes(known, address))) all.push(address)
  return all.slice(0, CANDIDATES_MAX)
}
