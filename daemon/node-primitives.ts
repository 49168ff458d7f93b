import { createPublicKey, verify, type KeyObject } from 'node:crypto'
import type { Primitives } from '../lib/crypto/primitives.js'
import { toHex } from '../lib/wire/ids.js'

const KEYS_MAX = 4096
/** SubjectPublicKeyInfo of an Ed25519 key up to the key itself (RFC 8410). */
const SPKI = Buffer.from('302a300506032b6570032100', 'hex')

/** The same primitives with Ed25519 verification by node:crypto, faster where many signatures of the same hosts are checked. */
export function withNodeVerify(primitives: Primitives): Primitives {
  const keys = new Map<string, KeyObject>()
  return {
    ...primitives,
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
