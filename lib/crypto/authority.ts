import { z } from 'zod'
import { HOST_ID_LENGTH, NETWORK_ID_LENGTH } from '../wire/constants.js'
import { fromHex, hostId, networkId, type HostId, type NetworkId } from '../wire/ids.js'
import { bytesOf, fields, pack, unpack } from '../wire/pack.js'
import { SIGNED_OVERHEAD } from '../wire/signed.js'
import { ANY_TAG, IssuerTags } from './names.js'
import type { Primitives } from './primitives.js'
import { openBody } from './signing.js'
import { SEED_LENGTH, SigningKey } from './signing-key.js'
import { type Validity, WallSeconds } from './validity.js'

/** Bytes of an issuer certificate. */
export const ISSUER_CERTIFICATE_MAX = 420
const LABEL = 'caracal/1 issuer'
const VERSION = 1

/** What the authority allows a host: to sign memberships of its network with these tags. */
export interface Issuer extends Validity {
  readonly network: NetworkId
  readonly host: HostId
  /** Tags it may give; {@link ANY_TAG}: any. */
  readonly tags: readonly string[]
  readonly serial: number
}

/** BLAKE2b-256 of the authority's public key. */
export function networkOf(primitives: Primitives, authority: Uint8Array): NetworkId {
  return networkId(primitives.blake2b(authority, NETWORK_ID_LENGTH))
}

/** Serial for what is signed now: wall ms, and above the one before; so a revocation covers all that was signed until then. */
export function nextSerial(wallMs: number, previous = 0): number {
  return Math.max(Math.floor(wallMs), previous + 1)
}
export const Serial = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)

/** The key a network is known by. It may be kept offline: hosts need its public half only. */
export class Authority extends SigningKey {
  readonly network: NetworkId

  constructor(primitives: Primitives, seed: Uint8Array) {
    super(primitives, seed)
    this.network = networkOf(primitives, this.publicKey)
  }

  static generate(primitives: Primitives): Authority {
    return new Authority(primitives, primitives.randomBytes(SEED_LENGTH))
  }

  /** Signs an issuer certificate. Throws RangeError for fields no certificate may have. */
  certifyIssuer(issuer: Omit<Issuer, 'network'>): Uint8Array {
    const { host, tags, notBefore, notAfter, serial } = issuer
    if (!IssuerTags.safeParse(tags).success) throw new RangeError('not a list of tags')
    const body = pack([VERSION, fromHex(this.network), fromHex(host), tags, notBefore, notAfter, serial])
    const bytes = this.sign(LABEL, body)
    if (decodeIssuer(body) === undefined || bytes.length > ISSUER_CERTIFICATE_MAX)
      throw new RangeError('issuer certificate out of bounds: fewer or shorter tags')
    return bytes
  }
}

const Body = fields([
  z.literal(VERSION),
  bytesOf(NETWORK_ID_LENGTH),
  bytesOf(HOST_ID_LENGTH),
  IssuerTags,
  WallSeconds,
  WallSeconds,
  Serial,
])

function decodeIssuer(body: Uint8Array): Issuer | undefined {
  const value = unpack(body, ISSUER_CERTIFICATE_MAX - SIGNED_OVERHEAD, Body)
  if (value === undefined) return undefined
  const [, network, host, tags, notBefore, notAfter, serial] = value
  return { network: networkId(network), host: hostId(host), tags, notBefore, notAfter, serial }
}

/** The certificate's content, when this authority signed it for its network; validity in time is the caller's to check. */
export function openIssuer(primitives: Primitives, bytes: Uint8Array, authority: Uint8Array): Issuer | undefined {
  const body = openBody(primitives, LABEL, bytes, ISSUER_CERTIFICATE_MAX, authority)
  const issuer = body && decodeIssuer(body)
  return issuer?.network === networkOf(primitives, authority) ? issuer : undefined
}

/** First tag that the issuer may not give; undefined: all are allowed. */
export function forbiddenTag(issuer: Issuer, tags: readonly string[]): string | undefined {
  if (issuer.tags.includes(ANY_TAG)) return undefined
  return tags.find((tag) => !issuer.tags.includes(tag))
}
