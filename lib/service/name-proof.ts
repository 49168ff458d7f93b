// Proofs for self-certifying names: what the holder of a name's key signs so that a host may register it. The record carries the signature alone;
// between people a proof is a text that says for which service and host it is, so that what is wrong with it can be said.

import type { OwnerKey } from '../crypto/owner.js'
import type { Primitives } from '../crypto/primitives.js'
import { verifyBlob } from '../crypto/signing.js'
import { concat, fromBase64url, toBase64url } from '../wire/bytes.js'
import { HOST_ID_LENGTH, SERVICE_ID_LENGTH } from '../wire/constants.js'
import { fromHex, hostId, serviceId, type HostId, type ServiceId } from '../wire/ids.js'
import { decodeSigned, SIGNATURE_LENGTH, SIGNED_OVERHEAD } from '../wire/signed.js'

const LABEL = 'caracal/1 service proof'
const VERSION = 1
const BODY = SERVICE_ID_LENGTH + HOST_ID_LENGTH
/** Characters of a proof's text. */
export const PROOF_TEXT_LENGTH = Math.ceil(((1 + BODY + SIGNATURE_LENGTH) * 4) / 3)

/** That the host may register the service, which names the network too. */
export interface NameProof {
  readonly service: ServiceId
  readonly host: HostId
  /** By the key in the service's name; see {@link isProven}. */
  readonly signature: Uint8Array
}

/** Signs a proof; `service` is the ID of the key's name. */
export function proveName(key: OwnerKey, service: ServiceId, host: HostId): NameProof {
  const blob = decodeSigned(key.sign(LABEL, proofBody(service, host)), SIGNED_OVERHEAD + BODY)
  if (blob === undefined) throw new RangeError('a proof cannot be signed')
  return { service, host, signature: blob.signature }
}

/** Whether the holder of `key`, the one in the service's name, has signed that the host may register it. */
export function isProven(primitives: Primitives, key: Uint8Array, { service, host, signature }: NameProof): boolean {
  return verifyBlob(primitives, LABEL, { body: proofBody(service, host), signature }, key)
}

/** Version (1), service (32), host (32), signature (64), in base64url. */
export function formatProof({ service, host, signature }: NameProof): string {
  return toBase64url(concat([Uint8Array.of(VERSION), proofBody(service, host), signature]))
}

/** Total. undefined: no proof of this version. The signature is not checked here. */
export function parseProof(text: string): NameProof | undefined {
  if (text.length !== PROOF_TEXT_LENGTH) return undefined
  const bytes = fromBase64url(text)
  if (bytes === undefined || bytes[0] !== VERSION) return undefined
  return {
    service: serviceId(bytes.subarray(1, 1 + SERVICE_ID_LENGTH)),
    host: hostId(bytes.subarray(1 + SERVICE_ID_LENGTH, 1 + BODY)),
    signature: bytes.slice(1 + BODY),
  }
}

function proofBody(service: ServiceId, host: HostId): Uint8Array {
  return concat([fromHex(service), fromHex(host)])
}
