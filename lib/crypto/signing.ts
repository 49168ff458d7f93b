import { concat, utf8 } from '../wire/bytes.js'
import { decodeSigned, encodeSigned, type SignedBlob } from '../wire/signed.js'
import type { Primitives } from './primitives.js'

/** What a signature is for; a signature for one purpose is none for another. */
export type SignLabel = `caracal/1 ${string}`

/** What is signed: the label, a zero byte, the body. */
function signedMessage(label: SignLabel, body: Uint8Array): Uint8Array {
  return concat([utf8(`${label}\0`), body])
}

/** The signed blob's bytes. */
export function signBody(primitives: Primitives, label: SignLabel, body: Uint8Array, seed: Uint8Array): Uint8Array {
  return encodeSigned({ body, signature: primitives.ed25519Sign(signedMessage(label, body), seed) })
}

/** Whether the blob was signed by this key for this purpose. */
export function verifyBlob(primitives: Primitives, label: SignLabel, blob: SignedBlob, publicKey: Uint8Array): boolean {
  return primitives.ed25519Verify(blob.signature, signedMessage(label, blob.body), publicKey)
}

/** The body of a signed blob of at most `max` bytes; undefined: malformed, or not signed by this key for this purpose. */
export function openBody(
  primitives: Primitives,
  label: SignLabel,
  bytes: Uint8Array,
  max: number,
  publicKey: Uint8Array,
): Uint8Array | undefined {
  const blob = decodeSigned(bytes, max)
  return blob !== undefined && verifyBlob(primitives, label, blob, publicKey) ? blob.body : undefined
}
