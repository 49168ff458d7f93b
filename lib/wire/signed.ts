import { concat } from './bytes.js'

/** Something signed, in transit: the signature is over a domain-separation label and `body` exactly as received (lib/crypto/signing.ts). */
export interface SignedBlob {
  readonly body: Uint8Array
  /** Ed25519, 64 bytes. */
  readonly signature: Uint8Array
}

export const SIGNATURE_LENGTH = 64
/** Version of the envelope; the body has its own. */
const VERSION = 1
/** Bytes beyond the body. */
export const SIGNED_OVERHEAD = 1 + SIGNATURE_LENGTH

/** Version (1), signature (64), body. Throws RangeError for a signature of another length. */
export function encodeSigned(blob: SignedBlob): Uint8Array {
  if (blob.signature.length !== SIGNATURE_LENGTH) throw new RangeError(`a signature has ${SIGNATURE_LENGTH} bytes`)
  return concat([Uint8Array.of(VERSION), blob.signature, blob.body])
}

/** undefined: more than `max` bytes, too few, or of another version. The parts are copies. */
export function decodeSigned(bytes: Uint8Array, max: number): SignedBlob | undefined {
  if (bytes.length > max || bytes.length <= SIGNED_OVERHEAD || bytes[0] !== VERSION) return undefined
  return {
    signature: new Uint8Array(bytes.subarray(1, SIGNED_OVERHEAD)),
    body: new Uint8Array(bytes.subarray(SIGNED_OVERHEAD)),
  }
}
