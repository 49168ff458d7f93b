import { z } from 'zod'
import { concat, utf8 } from '../wire/bytes.js'
import { HOST_ID_LENGTH, NETWORK_ID_LENGTH } from '../wire/constants.js'
import { fromHex, hostId, networkId, type HostId } from '../wire/ids.js'
import { bytesOf, bytesUpTo, fields, pack, unpack } from '../wire/pack.js'
import { decodeSigned, SIGNED_OVERHEAD } from '../wire/signed.js'
import { type Authority, ISSUER_CERTIFICATE_MAX, networkOf, openIssuer, Serial } from './authority.js'
import type { HostKey } from './host-key.js'
import type { Primitives } from './primitives.js'
import { verifyBlob } from './signing.js'
import { WallSeconds } from './validity.js'

/** Bytes of one revocation. */
export const REVOCATION_MAX = 640
/** Revocations a list can hold. */
export const REVOCATIONS_MAX = 4096
const LABEL = 'caracal/1 revocation'
const VERSION = 1

/**
 * The host's memberships up to this serial are void. Signed by the authority, it voids its issuer certificates up to the serial too, and with them
 * what they signed; signed by an issuer, memberships only.
 */
export interface Revocation {
  readonly host: HostId
  readonly serial: number
  /** When it was signed, seconds since the epoch. */
  readonly time: number
  readonly byAuthority: boolean
}

export interface RevocationFields {
  readonly host: HostId
  readonly serial: number
  readonly time: number
}

/** Signs a revocation as the authority. */
export function revokeAsAuthority(authority: Authority, revocation: RevocationFields): Uint8Array {
  return authority.sign(LABEL, encodeBody(fromHex(authority.network), revocation, null))
}

/** Signs a revocation as an issuer, whose certificate goes with it. */
export function revokeAsIssuer(
  key: HostKey,
  issuer: { readonly network: Uint8Array; readonly certificate: Uint8Array },
  revocation: RevocationFields,
): Uint8Array {
  return key.sign(LABEL, encodeBody(issuer.network, revocation, issuer.certificate))
}

const Body = fields([
  z.literal(VERSION),
  bytesOf(NETWORK_ID_LENGTH),
  bytesOf(HOST_ID_LENGTH),
  Serial,
  WallSeconds,
  z.union([z.null(), bytesUpTo(ISSUER_CERTIFICATE_MAX)]),
])

function encodeBody(network: Uint8Array, revocation: RevocationFields, certificate: Uint8Array | null): Uint8Array {
  return pack([VERSION, network, fromHex(revocation.host), revocation.serial, revocation.time, certificate])
}

/** Verifies a revocation. It does not lapse with its issuer's certificate, which must have been valid when it was signed. undefined: none of this network's. */
export function openRevocation(
  primitives: Primitives,
  bytes: Uint8Array,
  authority: Uint8Array,
): Revocation | undefined {
  const blob = decodeSigned(bytes, REVOCATION_MAX)
  const body = blob && unpack(blob.body, REVOCATION_MAX - SIGNED_OVERHEAD, Body)
  if (blob === undefined || body === undefined) return undefined
  const [, network, host, serial, time, certificate] = body
  if (networkId(network) !== networkOf(primitives, authority)) return undefined
  let signer = authority
  if (certificate !== null) {
    const issuer = openIssuer(primitives, certificate, authority)
    if (issuer === undefined || time < issuer.notBefore || time > issuer.notAfter) return undefined
    signer = fromHex(issuer.host)
  }
  if (!verifyBlob(primitives, LABEL, blob, signer)) return undefined
  return { host: hostId(host), serial, time, byAuthority: certificate === null }
}

interface Held {
  readonly revocation: Revocation
  readonly bytes: Uint8Array
}

/**
 * A network's revocations: a set that only grows, the union of what all hosts have seen. Of one host's revocations by one kind of signer only the
 * one with the highest serial is kept; it covers the others. What an issuer revoked stays so when the issuer itself is revoked later: a host wrongly
 * cut off gets a new membership, which has a higher serial.
 */
export class RevocationList {
  readonly #held = new Map<string, Held>()
  readonly #primitives: Primitives
  readonly #authority: Uint8Array
  /** When the newest revocation was signed, seconds since the epoch; 0: there is none. */
  newest = 0
  #digest: Uint8Array | undefined

  /** `authority`: public key. */
  constructor(primitives: Primitives, authority: Uint8Array) {
    this.#primitives = primitives
    this.#authority = authority
  }

  get size(): number {
    return this.#held.size
  }

  /** Adds one revocation from anybody. A new one is returned: the caller's cue to end that host's sessions and to tell its neighbours. */
  add(bytes: Uint8Array): Revocation | 'known' | 'invalid' | 'full' {
    const revocation = openRevocation(this.#primitives, bytes, this.#authority)
    if (revocation === undefined) return 'invalid'
    const key = listKey(revocation.host, revocation.byAuthority)
    const before = this.#held.get(key)
    if (before !== undefined && before.revocation.serial >= revocation.serial) return 'known'
    if (before === undefined && this.#held.size >= REVOCATIONS_MAX) return 'full'
    this.#held.set(key, { revocation, bytes: new Uint8Array(bytes) })
    this.#digest = undefined
    this.newest = Math.max(this.newest, revocation.time)
    return revocation
  }

  /** Adds all of another list; the revocations that were new. */
  merge(other: RevocationList): Revocation[] {
    const added: Revocation[] = []
    for (const bytes of other.entries()) {
      const result = this.add(bytes)
      if (typeof result === 'object') added.push(result)
    }
    return added
  }

  /** Signed bytes of all revocations, each at most REVOCATION_MAX, in an order that depends on the content only. */
  entries(): Uint8Array[] {
    return [...this.#held.keys()].sort().map((key) => this.#held.get(key)!.bytes)
  }

  /** What is revoked, for people. */
  list(): Revocation[] {
    return [...this.#held.values()].map((held) => held.revocation)
  }

  /** 32 bytes; lists that revoke the same have the same, so hosts compare before they exchange. */
  digest(): Uint8Array {
    if (this.#digest === undefined) {
      const lines = [...this.#held.keys()]
        .sort()
        .map((key) => utf8(`${key} ${this.#held.get(key)!.revocation.serial}\n`))
      this.#digest = this.#primitives.blake2b(concat(lines), 32)
    }
    return this.#digest
  }

  /** Whether a membership of the host with this serial is void. */
  coversMembership(host: HostId, serial: number): boolean {
    return this.coversIssuer(host, serial) || this.#serial(host, false) >= serial
  }

  /** Whether an issuer certificate of the host with this serial is void. */
  coversIssuer(host: HostId, serial: number): boolean {
    return this.#serial(host, true) >= serial
  }

  /** When the issuer certificate was revoked, seconds since the epoch; undefined: it has not been. */
  issuerRevokedAt(host: HostId, serial: number): number | undefined {
    return this.coversIssuer(host, serial) ? this.#held.get(listKey(host, true))?.revocation.time : undefined
  }

  /** The revocations of a host, as they travel. */
  entriesOf(host: HostId): Uint8Array[] {
    return [true, false].flatMap((byAuthority) => this.#held.get(listKey(host, byAuthority))?.bytes ?? [])
  }

  #serial(host: HostId, byAuthority: boolean): number {
    return this.#held.get(listKey(host, byAuthority))?.revocation.serial ?? -1
  }
}

function listKey(host: HostId, byAuthority: boolean): string {
  return `${host}${byAuthority ? 'a' : 'i'}`
}
