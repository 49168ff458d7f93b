import type { Primitives } from '../crypto/primitives.js'
import { COOKIE_LENGTH, COOKIE_NONCE, CookieView, MAC_LENGTH, type HandshakeView } from '../wire/handshake.js'
import { ADDRESS_RECORD } from '../wire/batch.js'

const MAC1_LABEL = new TextEncoder().encode('caracal/1 mac1')
const COOKIE_LABEL = new TextEncoder().encode('caracal/1 cookie')
const SECRET_LIFE_MS = 120_000

/**
 * MAC1 and the key of cookie replies, both from a host's X25519 public key: who does not know that key gets no answer from its owner.
 * Made once a host; the expensive parts are done in the constructor.
 */
export class HandshakeMacs {
  readonly #mac1Key: Uint8Array
  readonly #cookieKey: Uint8Array

  constructor(
    readonly primitives: Primitives,
    staticPublic: Uint8Array,
  ) {
    this.#mac1Key = labelled(primitives, MAC1_LABEL, staticPublic)
    this.#cookieKey = labelled(primitives, COOKIE_LABEL, staticPublic)
  }

  /** Writes MAC1, and MAC2 when there is a cookie, into a message that goes to the owner of the key. */
  sign(view: HandshakeView, cookie?: Uint8Array): void {
    view.mac1.set(this.primitives.blake2b(view.beforeMac1, MAC_LENGTH, this.#mac1Key))
    if (cookie !== undefined) this.signMac2(view, cookie)
  }

  signMac2(view: HandshakeView, cookie: Uint8Array): void {
    view.mac2.set(this.primitives.blake2b(view.beforeMac2, MAC_LENGTH, cookie))
  }

  /** Whether MAC1 of a message to the owner of the key is right. */
  verify(view: HandshakeView): boolean {
    return this.primitives.equal(this.primitives.blake2b(view.beforeMac1, MAC_LENGTH, this.#mac1Key), view.mac1)
  }

  /** The cookie reply of the owner of the key; bound to the message it answers by that message's MAC1. */
  sealCookie(cookie: Uint8Array, answered: HandshakeView): CookieView {
    const nonce = this.primitives.randomBytes(COOKIE_NONCE)
    const sealed = this.primitives.xchachaSeal(this.#cookieKey, nonce, answered.mac1, cookie)
    return CookieView.encode({ receiver: answered.sender, nonce, sealed })
  }

  /** The cookie in a reply to our message with this MAC1; undefined: forged. */
  openCookie(reply: CookieView, mac1: Uint8Array): Uint8Array | undefined {
    return this.primitives.xchachaOpen(this.#cookieKey, reply.nonce, mac1, reply.sealed)
  }
}

/** Makes and checks cookies: a MAC over the sender's address under a secret that changes every two minutes; the last two are valid. */
export class CookieJar {
  #secret: Uint8Array
  #previous: Uint8Array
  #since = -Infinity

  constructor(readonly primitives: Primitives) {
    this.#secret = primitives.randomBytes(32)
    this.#previous = this.#secret
  }

  /** COOKIE_LENGTH bytes for the sender with this address record. */
  make(address: Uint8Array, now: number): Uint8Array {
    this.#rotate(now)
    return this.#cookie(this.#secret, address)
  }

  /** Whether MAC2 proves that its sender receives at this address. */
  verify(view: HandshakeView, address: Uint8Array, now: number): boolean {
    this.#rotate(now)
    return this.#matches(view, this.#secret, address) || this.#matches(view, this.#previous, address)
  }

  #matches(view: HandshakeView, secret: Uint8Array, address: Uint8Array): boolean {
    const expected = this.primitives.blake2b(view.beforeMac2, MAC_LENGTH, this.#cookie(secret, address))
    return this.primitives.equal(expected, view.mac2)
  }

  #cookie(secret: Uint8Array, address: Uint8Array): Uint8Array {
    return this.primitives.blake2b(address.subarray(0, ADDRESS_RECORD), COOKIE_LENGTH, secret)
  }

  #rotate(now: number): void {
    if (now - this.#since < SECRET_LIFE_MS) return
    this.#since = now
    this.#previous = this.#secret
    this.#secret = this.primitives.randomBytes(32)
  }
}

function labelled(primitives: Primitives, label: Uint8Array, key: Uint8Array): Uint8Array {
  const input = new Uint8Array(label.length + key.length)
  input.set(label)
  input.set(key, label.length)
  return primitives.blake2b(input, 32)
}
