import { Handshake, NO_PSK, type NoiseOptions } from '../crypto/noise.js'
import { HandshakeView, type CookieView, type HandshakeType } from '../wire/handshake.js'
import type { HandshakeMacs } from './macs.js'
import { sameBytes, type Schedule } from './schedule.js'

/** First messages of one initiation that may still be answered; the responder keeps as many sessions unconfirmed. */
export const OUTSTANDING_MAX = 8

/** One first message on its way. */
export interface Attempt {
  /** Our handshake index, random. */
  readonly index: number
  readonly handshakes: readonly Handshake[]
  readonly view: HandshakeView
  readonly address: Uint8Array
  /** Whether it has been sent again with a cookie. */
  repeated: boolean
  /** When it was sent last. */
  sentAt: number
}

export interface InitiationOptions {
  readonly type: HandshakeType
  readonly noise: NoiseOptions
  /** The responder's X25519 public key, and its MACs. */
  readonly remoteStatic: Uint8Array
  readonly macs: HandshakeMacs
  readonly schedule: Schedule
  /** What the answer's key schedule may end with, likeliest first; the first messages do not depend on it. Default: no psk. */
  readonly psks?: readonly Uint8Array[]
  /** A fresh payload for each first message, sent at this time. */
  readonly payload: (now: number) => Uint8Array
  readonly indexes: HandshakeIndexes
}

/** Hands out our handshake indexes. */
export interface HandshakeIndexes {
  /** A fresh random one (u32, not 0). */
  take(): number
  release(index: number): void
}

/**
 * The initiator's end: asks the candidate addresses by its schedule, each time with a fresh first message, and takes the first answer. Several first messages are
 * outstanding at once, so that a slow path's answer still counts.
 */
export class Initiation {
  readonly #attempts: Attempt[] = []
  readonly #cookies: { readonly address: Uint8Array; readonly cookie: Uint8Array }[] = []

  constructor(readonly options: InitiationOptions) {}

  get schedule(): Schedule {
    return this.options.schedule
  }
  get attempts(): readonly Attempt[] {
    return this.#attempts
  }

  /** The first message that is due now, to be sent to its address; undefined: none, or the responder's key is unusable. */
  next(now: number): Attempt | undefined {
    const address = this.schedule.take(now)
    if (address === undefined) return undefined
    const { type, noise, remoteStatic, macs } = this.options
    // One ephemeral key a first message, whatever psk its answer turns out to use.
    const ephemeralSecret = noise.primitives.randomBytes(32)
    const payload = this.options.payload(now)
    const handshakes: Handshake[] = []
    let message: Uint8Array | undefined
    for (const psk of this.options.psks ?? [NO_PSK]) {
      const handshake = Handshake.initiate({ ...noise, ephemeralSecret, remoteStatic, psk })
      message = handshake.writeMessage1(payload)
      if (message === undefined) return undefined
      handshakes.push(handshake)
    }
    ephemeralSecret.fill(0)
    if (message === undefined) return undefined
    const index = this.options.indexes.take()
    const view = HandshakeView.encode({ type, sender: index, receiver: 0, noise: message })
    macs.sign(view, this.#cookies.find((known) => sameBytes(known.address, address))?.cookie)
    const attempt = { index, handshakes, view, address, repeated: false, sentAt: now }
    this.#attempts.push(attempt)
    if (this.#attempts.length > OUTSTANDING_MAX) this.options.indexes.release(this.#attempts.shift()!.index)
    return attempt
  }

  attempt(index: number): Attempt | undefined {
    return this.#attempts.find((attempt) => attempt.index === index)
  }

  /** Takes a cookie reply; true: `attempt` is to be sent again, it now bears the cookie. */
  takeCookie(attempt: Attempt, reply: CookieView, now: number): boolean {
    if (attempt.repeated) return false
    const cookie = this.options.macs.openCookie(reply, attempt.view.mac1)
    if (cookie === undefined) return false
    attempt.repeated = true
    attempt.sentAt = now
    const known = this.#cookies.findIndex((entry) => sameBytes(entry.address, attempt.address))
    if (known >= 0) this.#cookies.splice(known, 1)
    this.#cookies.push({ address: attempt.address, cookie })
    if (this.#cookies.length > OUTSTANDING_MAX) this.#cookies.shift()
    this.options.macs.signMac2(attempt.view, cookie)
    return true
  }
  /** Ends it: later answers find nobody. */
  close(): void {
    for (const attempt of this.#attempts.splice(0)) this.options.indexes.release(attempt.index)
  }
}
