import { createPublicKey, randomFillSync, verify, type KeyObject } from 'node:crypto'
import type { Primitives } from '../lib/crypto/primitives.js'
import { loadSodium } from '../lib/crypto/sodium.js'
import { toHex } from '../lib/wire/ids.js'

const KEYS_MAX = 4096
/** SubjectPublicKeyInfo of an Ed25519 key up to the key itself (RFC 8410). */
const SPKI = Buffer.from('302a300506032b6570032100', 'hex')

/**
 * libsodium's primitives, with the system's randomness, and with Ed25519 verification by node:crypto, which is faster where many signatures of the same hosts
 * are checked.
 */
export async function loadPrimitives(): Promise<Primitives> {
  const keys = new Map<string, KeyObject>()
  return {
    ...(await loadSodium((length) => randomFillSync(new Uint8Array(length)))),
    ed25519Verify(signature, message, publicKey) {
      if (signature.length !== 64 || publicKey.length !== 32) return false
      const id = toHex(publicKey)
      let key = keys.get(id)
      if (key === undefined) {
        key = keyObject(publicKey)
        if (key === undefined) return false
        const oldest = keys.size >= KEYS_MAX ? keys.keys().next().value : undefined
        if (oldest !== undefined) keys.delete(oldest)
        keys.set(id, key)
      }
      return verify(null, message, key, signature)
    },
  }
}

/** undefined: the library refuses the key. */
function keyObject(publicKey: Uint8Array): KeyObject | undefined {
  try {
    return createPublicKey({ key: Buffer.concat([SPKI, publicKey]), format: 'der', type: 'spki' })
  } catch {
    return undefined
  }
}
