// Stamps: an issuer's word on when it saw a host claim a name. A claimer's own word could be back-dated.

import { z } from 'zod'
import { concat } from '../wire/bytes.js'
import { fromHex, type HostId, type NetworkId, type ServiceId } from '../wire/ids.js'
import { bytesOf, bytesUpTo, fields, pack, unpack } from '../wire/pack.js'
import { decodeSigned, SIGNATURE_LENGTH } from '../wire/signed.js'
import { ISSUER_CERTIFICATE_MAX, type Issuer } from './authority.js'
import type { HostKey } from './host-key.js'
import type { Primitives } from './primitives.js'
import { verifyBlob } from './signing.js'
import { WallSeconds } from './validity.js'

/** Bytes of a stamp, its issuer's certificate included. */
export const STAMP_MAX = ISSUER_CERTIFICATE_MAX + SIGNATURE_LENGTH + 16
const LABEL = 'caracal/1 stamp'
const VERSION = 1
/** Bytes that are signed: version, network, service, host, time. */
const BODY_LENGTH = 1 + 3 * 32 + 8

/** What a stamp says: this host claimed this name at this time. */
export interface StampSubject {
  readonly network: NetworkId
  readonly service: ServiceId
  readonly host: HostId
}

export interface Stamp {
  /** When the issuer signed it, seconds since the epoch. */
  readonly time: number
  readonly issuer: Issuer
}

/** Signs a stamp; `certificate` is the issuer's own, and travels with it. Throws RangeError for a time or certificate out of bounds. */
export function signStamp(key: HostKey, certificate: Uint8Array, subject: StampSubject, time: number): Uint8Array {
  if (!WallSeconds.safeParse(time).success) throw new RangeError(`not a wall time: ${time}`)
  const blob = decodeSigned(key.sign(LABEL, bodyOf(subject, time)), BODY_LENGTH + 65)
  if (blob === undefined || certificate.length > ISSUER_CERTIFICATE_MAX) throw new RangeError('stamp out of bounds')
  return pack([VERSION, time, blob.signature, certificate])
}

const Shape = fields([z.literal(VERSION), WallSeconds, bytesOf(SIGNATURE_LENGTH), bytesUpTo(ISSUER_CERTIFICATE_MAX, 1)])

/**
 * Verifies a stamp about the subject. `issuerOf` opens a certificate (lib/crypto/authority.ts). The certificate must have been valid when the stamp was signed, and may
 * have lapsed since; whether its issuer has been revoked is the caller's to weigh. undefined: no stamp about this.
 */
export function openStamp(
  primitives: Primitives,
  bytes: Uint8Array,
  subject: StampSubject,
  issuerOf: (certificate: Uint8Array) => Issuer | undefined,
): Stamp | undefined {
  const value = unpack(bytes, STAMP_MAX, Shape)
  if (value === undefined) return undefined
  const [, time, signature, certificate] = value
  const issuer = issuerOf(certificate)
  if (issuer === undefined || issuer.network !== subject.network) return undefined
  if (time < issuer.notBefore || time > issuer.notAfter) return undefined
  const signed = verifyBlob(primitives, LABEL, { body: bodyOf(subject, time), signature }, fromHex(issuer.host))
  return signed ? { time, issuer } : undefined
}

function bodyOf({ network, service, host }: StampSubject, time: number): Uint8Array {
  const when = new Uint8Array(8)
  new DataView(when.buffer).setBigUint64(0, BigInt(time))
  return concat([Uint8Array.of(VERSION), fromHex(network), fromHex(service), fromHex(host), when])
}
