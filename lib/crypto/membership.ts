import { z } from 'zod'
import { HOST_ID_LENGTH, NETWORK_ID_LENGTH } from '../wire/constants.js'
import { fromHex, hostId, networkId, type HostId, type NetworkId } from '../wire/ids.js'
import { bytesOf, bytesUpTo, fields, pack, unpack } from '../wire/pack.js'
import { decodeSigned, SIGNED_OVERHEAD } from '../wire/signed.js'
import { forbiddenTag, ISSUER_CERTIFICATE_MAX, networkOf, openIssuer, Serial, type Issuer } from './authority.js'
import type { HostKey } from './host-key.js'
import { Label, Tags } from './names.js'
import type { Primitives } from './primitives.js'
import type { RevocationList } from './revocations.js'
import { verifyBlob } from './signing.js'
import { checkValidity, SKEW_SECONDS, type Validity, WallSeconds } from './validity.js'

/** Bytes of a membership, its issuer's certificate included: it fits a handshake message of the smallest path. */
export const MEMBERSHIP_MAX = 900
const LABEL = 'caracal/1 membership'
const VERSION = 1

/** What makes a host a member: signed by an issuer, whose certificate is embedded. */
export interface Membership extends Validity {
  readonly network: NetworkId
  readonly host: HostId
  readonly name: string
  readonly tags: readonly string[]
  readonly serial: number
  /** When it was signed, seconds since the epoch; a renewed one keeps its `notBefore`, since when the host has been a member. */
  readonly issuedAt: number
  readonly issuer: HostId
  /** The certificate as it travels. */
  readonly bytes: Uint8Array
}

export interface MembershipProblem {
  /** Drop reason. */
  readonly reason: 'membership-invalid' | 'revoked'
  readonly problem:
    'malformed' | 'other-network' | 'other-host' | 'signature' | 'tags' | 'not-yet-valid' | 'expired' | 'revoked'
  /** One sentence for people, without a full stop. */
  readonly detail: string
}

export interface MembershipCheck {
  /** Public key of the network's authority. */
  readonly authority: Uint8Array
  /** Seconds since the epoch. */
  readonly wallNow: number
  /** Default: SKEW_SECONDS. */
  readonly skewSeconds?: number
  /** So long after its end it is taken all the same. Default: 0. */
  readonly graceSeconds?: number
  readonly revocations: RevocationList
}

/** How long a membership is valid. */
export const MEMBERSHIP_SECONDS = 366 * 86_400
/** How long what is open with a member may go on after its membership has expired; nothing new begins. */
export const GRACE_SECONDS = 86_400

/** Signs a membership; `certificate` is the issuer's own. Throws RangeError for fields no membership may have, and for tags the issuer may not give. */
export function issueMembership(
  primitives: Primitives,
  key: HostKey,
  issuer: { readonly certificate: Uint8Array; readonly authority: Uint8Array },
  member: Validity & Pick<Membership, 'host' | 'name' | 'tags' | 'serial'> & Partial<Pick<Membership, 'issuedAt'>>,
): Uint8Array {
  const certified = openIssuer(primitives, issuer.certificate, issuer.authority)
  if (certified === undefined || certified.host !== key.id) throw new RangeError("not this host's issuer certificate")
  const tag = forbiddenTag(certified, member.tags)
  if (tag !== undefined) throw new RangeError(`this issuer may not give the tag ${tag}`)
  const { host, name, tags, serial, notBefore, issuedAt } = member
  // Never beyond the issuer's own end.
  const notAfter = Math.min(member.notAfter, certified.notAfter)
  const network = fromHex(certified.network)
  const first = [VERSION, network, fromHex(host), name, tags, notBefore, notAfter, serial, issuer.certificate]
  const body = pack(issuedAt === undefined ? first : [...first, issuedAt])
  const bytes = key.sign(LABEL, body)
  if (bytes.length > MEMBERSHIP_MAX || decodeBody(body) === undefined)
    throw new RangeError(
      'membership out of bounds: name and tags are 1 to 63 and 1 to 32 of a-z, 0-9, hyphen; fewer tags',
    )
  return bytes
}

/**
 * Signs a membership that goes on where `current` ends. The serial is the next one and not the time: whoever revokes covers what was renewed elsewhere before the
 * revocation was known there. Throws as {@link issueMembership}.
 */
export function renewMembership(
  primitives: Primitives,
  key: HostKey,
  issuer: { readonly certificate: Uint8Array; readonly authority: Uint8Array },
  current: Membership,
  wallNow: number,
  seconds = MEMBERSHIP_SECONDS,
): Uint8Array {
  const { host, name, tags, notBefore } = current
  const issuedAt = Math.floor(wallNow)
  const serial = current.serial + 1
  const member = { host, name, tags, notBefore, notAfter: issuedAt + seconds, serial, issuedAt }
  return issueMembership(primitives, key, issuer, member)
}

const Body = fields([
  z.literal(VERSION),
  bytesOf(NETWORK_ID_LENGTH),
  bytesOf(HOST_ID_LENGTH),
  Label,
  Tags,
  WallSeconds,
  WallSeconds,
  Serial,
  bytesUpTo(ISSUER_CERTIFICATE_MAX),
  WallSeconds.optional(),
])

function decodeBody(body: Uint8Array): z.infer<typeof Body> | undefined {
  return unpack(body, MEMBERSHIP_MAX - SIGNED_OVERHEAD, Body)
}

/** Verifies a membership from anybody: any bytes give a membership or why they are none. */
export function verifyMembership(
  primitives: Primitives,
  bytes: Uint8Array,
  check: MembershipCheck,
): Membership | MembershipProblem {
  const { authority, wallNow, revocations } = check
  const skew = check.skewSeconds ?? SKEW_SECONDS
  const blob = decodeSigned(bytes, MEMBERSHIP_MAX)
  const body = blob && decodeBody(blob.body)
  if (blob === undefined || body === undefined) return invalid('malformed', 'not a membership of a known version')
  const [, network, host, name, tags, notBefore, notAfter, serial, certificate, issuedAt] = body
  if (networkId(network) !== networkOf(primitives, authority))
    return invalid('other-network', 'the membership is for another network')
  const issuer = openIssuer(primitives, certificate, authority)
  if (issuer === undefined) return invalid('signature', "the issuer is not certified by this network's authority")
  if (!verifyBlob(primitives, LABEL, blob, fromHex(issuer.host)))
    return invalid('signature', "the membership's signature is not its issuer's")
  const tag = forbiddenTag(issuer, tags)
  if (tag !== undefined) return invalid('tags', `the issuer may not give the tag ${tag}`)

  const membership: Membership = {
    network: networkId(network),
    host: hostId(host),
    name,
    tags,
    notBefore,
    notAfter,
    serial,
    issuedAt: issuedAt ?? notBefore,
    issuer: issuer.host,
    bytes: new Uint8Array(bytes),
  }
  const late = outOfTime(membership, issuer, wallNow, skew, check.graceSeconds ?? 0)
  return revoked(membership, issuer, revocations) ?? late ?? membership
}

/** Tells a problem from a membership. */
export function isMembershipProblem(result: Membership | MembershipProblem): result is MembershipProblem {
  return 'problem' in result
}

function invalid(problem: Exclude<MembershipProblem['problem'], 'revoked'>, detail: string): MembershipProblem {
  return { reason: 'membership-invalid', problem, detail }
}

function revoked(membership: Membership, issuer: Issuer, revocations: RevocationList): MembershipProblem | undefined {
  if (revocations.coversMembership(membership.host, membership.serial))
    return { reason: 'revoked', problem: 'revoked', detail: `the membership of ${membership.name} has been revoked` }
  if (revocations.coversIssuer(issuer.host, issuer.serial))
    return {
      reason: 'revoked',
      problem: 'revoked',
      detail: `the issuer of ${membership.name}'s membership has been revoked`,
    }
  return undefined
}

function outOfTime(
  membership: Membership,
  issuer: Issuer,
  wallNow: number,
  skewSeconds: number,
  graceSeconds: number,
): MembershipProblem | undefined {
  const late =
    checkValidity(`the membership of ${membership.name}`, membership, wallNow, skewSeconds, graceSeconds) ??
    checkValidity(`the certificate of the issuer of ${membership.name}`, issuer, wallNow, skewSeconds, graceSeconds)
  return late && invalid(late.problem, late.detail)
}
