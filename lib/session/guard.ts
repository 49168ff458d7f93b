import type { Primitives } from '../crypto/primitives.js'
import type { DropReason } from '../wire/drop.js'
import type { CookieView, HandshakeView } from '../wire/handshake.js'
import { CookieJar, HandshakeMacs } from './macs.js'
import { RateLimit, type RateLimitOptions } from './rate-limit.js'

export interface GuardOptions extends RateLimitOptions {
  /** First messages a second, over all sources, from which on cookies are asked for. */
  readonly loadThreshold?: number
}

const LOAD_WINDOW_MS = 1000

/**
 * What a first message (init, join) has to pass before any key agreement is computed for it: MAC1; under load a cookie; the source's rate.
 * One guard a host, shared by all that answers first messages.
 */
export class HandshakeGuard {
  readonly macs: HandshakeMacs
  readonly #cookies: CookieJar
  readonly #rates: RateLimit
  readonly #threshold: number
  #windowStart = -Infinity
  #inWindow = 0
  #loadedUntil = -Infinity

  /** `staticPublic`: our own X25519 public key. */
  constructor(primitives: Primitives, staticPublic: Uint8Array, options: GuardOptions = {}) {
    this.macs = new HandshakeMacs(primitives, staticPublic)
    this.#cookies = new CookieJar(primitives)
    this.#rates = new RateLimit(options)
    this.#threshold = options.loadThreshold ?? 150
  }

  /** Whether senders must prove their address at the moment. */
  underLoad(now: number): boolean {
    return now < this.#loadedUntil
  }

  /** 'pass', why the message is dropped, or the cookie reply to send to where it came from (the message itself is dropped as 'cookie-required'). */
  admit(view: HandshakeView, address: Uint8Array, now: number): 'pass' | DropReason | CookieView {
    if (!this.macs.verify(view)) return 'bad-mac'
    if (this.underLoad(now)) {
      this.#count(now)
      if (!this.#cookies.verify(view, address, now)) return this.macs.sealCookie(this.#cookies.make(address, now), view)
      return this.#rates.allow(address, now) ? 'pass' : 'rate-limited'
    }
    // Without load the rate comes first, so that a single source cannot make everybody else need cookies.
    if (!this.#rates.allow(address, now)) return 'rate-limited'
    this.#count(now)
    return 'pass'
  }

  #count(now: number): void {
    if (now - this.#windowStart >= LOAD_WINDOW_MS) {
      this.#windowStart = now
      this.#inWindow = 0
    }
    if (++this.#inWindow >= this.#threshold) this.#loadedUntil = now + LOAD_WINDOW_MS
  }
}
