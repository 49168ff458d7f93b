// Cryptography that keeps no secret but notices everything the real one does, some fifty times faster: for simulations of many hosts. A wrong key, a changed bit, another message are
// refused; two ends of an exchange come to the same result. Hashes stay the real ones.

import type { PortableAead } from '../../lib/crypto/portable-codec.js'
import type { Primitives } from '../../lib/crypto/primitives.js'
import { concat } from '../../lib/wire/bytes.js'

/** 2^31 - 1, and a generator of its multiplicative group. */
const PRIME = 2147483647n
const GENERATOR = 7n

/** As an AEAD: any change of key, nonce, header or bytes is noticed. */
export const standInAead: PortableAead = {
  seal(key, nonce, aad, plaintext) {
    const sealed = new Uint8Array(plaintext.length + 16)
    for (let i = 0; i < plaintext.length; i++) sealed[i] = plaintext[i]! ^ key[i & 31]!
    writeTag(key, nonce, aad, sealed)
    return sealed
  },
  open(key, nonce, aad, sealed) {
    const copy = sealed.slice()
    writeTag(key, nonce, aad, copy)
    for (let i = sealed.length - 16; i < sealed.length; i++) if (copy[i] !== sealed[i]) return undefined
    const plaintext = copy.subarray(0, copy.length - 16)
    for (let i = 0; i < plaintext.length; i++) plaintext[i]! ^= key[i & 31]!
    return plaintext
  },
}

/** Over everything but the last 16 bytes, into them. */
function writeTag(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array): void {
  let a = 0x811c9dc5
  let b = 0x1234567
  const mix = (bytes: Uint8Array, end: number) => {
    for (let i = 0; i < end; i++) {
      a = Math.imul(a ^ bytes[i]!, 0x01000193)
      b = Math.imul(b + bytes[i]!, 0x85ebca6b) ^ (b >>> 13)
    }
  }
  mix(key, key.length)
  mix(nonce, nonce.length)
  mix(aad, aad.length)
  mix(sealed, sealed.length - 16)
  const view = new DataView(sealed.buffer, sealed.byteOffset + sealed.length - 16, 16)
  for (let i = 0; i < 4; i++) view.setInt32(4 * i, i % 2 === 0 ? a + i : b + i)
}

/** Key agreement in a group of 31 bits; signatures that are hashes over the public key. `randomBytes` and hashes are those of `real`. */
export function standInPrimitives(real: Primitives): Primitives {
  const keys = new Map<bigint, Uint8Array>()
  const keyOf = (value: bigint): Uint8Array => {
    let key = keys.get(value)
    if (key === undefined) {
      const head = Uint8Array.of(
        Number(value >> 24n),
        Number(value >> 16n) & 255,
        Number(value >> 8n) & 255,
        Number(value) & 255,
      )
      key = concat([head, real.blake2b(head, 28)])
      keys.set(value, key)
    }
    return key.slice()
  }
  const publicKey = (secret: Uint8Array) => keyOf(power(GENERATOR, scalar(secret)))
  const signature = (message: Uint8Array, key: Uint8Array) => real.blake2b(message, 64, key)
  return {
    ...real,
    x25519PublicKey: publicKey,
    x25519: (secret, key) => {
      const shared = power(number(key) % PRIME, scalar(secret))
      return shared === 0n ? undefined : keyOf(shared)
    },
    ed25519PublicKey: publicKey,
    ed25519Sign: (message, seed) => signature(message, publicKey(seed)),
    ed25519Verify: (given, message, key) => real.equal(given, signature(message, key)),
    ed25519SeedToX25519: (seed) => seed.slice(),
    ed25519PublicToX25519: (key) => key.slice(),
    chachaSeal: (key, nonce, aad, plaintext) => standInAead.seal(key, nonce, aad, plaintext),
    chachaOpen: (key, nonce, aad, sealed) =>
      sealed.length < 16 ? undefined : standInAead.open(key, nonce, aad, sealed),
  }
}

function number(bytes: Uint8Array): bigint {
  return BigInt(((bytes[0]! << 24) | (bytes[1]! << 16) | (bytes[2]! << 8) | bytes[3]!) >>> 0)
}

function scalar(secret: Uint8Array): bigint {
  return (number(secret) % (PRIME - 1n)) + 1n
}

function power(base: bigint, exponent: bigint): bigint {
  let result = 1n
  for (let square = base, left = exponent; left > 0n; left >>= 1n) {
    if ((left & 1n) === 1n) result = (result * square) % PRIME
    square = (square * square) % PRIME
  }
  return result
}
