// What travels inside the Noise messages of a join (IKpsk2, the psk from the invite token, its own prologue).
//
// Request: [signed blob, proof]. The blob, signed by the joining host's key, names network, issuer, token and host, so that it is good for nothing else; the proof
// is a MAC over the blob under the token's psk: who merely knows a token's ID uses nothing up. Answer: granted or refused.
// A refusal before the token is known is sealed without a psk: it is the issuer's all the same, by its static key.

import { z } from 'zod'
import type { HostKey } from '../crypto/host-key.js'
import { MEMBERSHIP_MAX } from '../crypto/membership.js'
import { Label, Tags } from '../crypto/names.js'
import { NetworkProfile } from '../crypto/network-profile.js'
import type { Primitives } from '../crypto/primitives.js'
import { verifyBlob } from '../crypto/signing.js'
import { TOKEN_ID_LENGTH } from '../crypto/token.js'
import { WallSeconds } from '../crypto/validity.js'
import { concat, utf8 } from '../wire/bytes.js'
import { FrameType, HOST_ID_LENGTH, NETWORK_ID_LENGTH } from '../wire/constants.js'
import { HANDSHAKE_MAX, payloadRoom } from '../wire/handshake.js'
import { fromHex, hostId, networkId, type HostId, type NetworkId } from '../wire/ids.js'
import { bytesOf, bytesUpTo, fields, pack, unpack, type Packable } from '../wire/pack.js'
import { decodeSigned } from '../wire/signed.js'
import { packPayload, unpackPayload } from './payload.js'

const LABEL = 'caracal/1 join'
const VERSION = 1
const PROOF_LENGTH = 32
const DETAIL_MAX = 160
const LOCATORS_MAX = 16

/** What a joining host says of itself. */
export interface JoinRequest {
  readonly network: NetworkId
  readonly issuer: HostId
  /** TOKEN_ID_LENGTH bytes. */
  readonly tokenId: Uint8Array
  /** The joining host, proven by signature and by the handshake. */
  readonly host: HostId
  readonly name: string
  /** Tags it would like; what it gets is the token's and the issuer's matter. */
  readonly tags: readonly string[]
  /** Its clock, seconds since the epoch. */
  readonly wallNow: number
}

/** Why a join is refused, by the issuer. */
export const refusals = ['unknown-token', 'used-up', 'expired', 'name-taken', 'denied', 'clock-skew'] as const
export type Refusal = (typeof refusals)[number]

export interface JoinRefusal {
  readonly refusal: Refusal
  /** One sentence for people, without a full stop; cut to 160 characters. */
  readonly detail: string
}

/** Where a member can be reached: `ADDR:PORT` (lib/path/locator.ts). */
export interface MemberLocator {
  readonly host: HostId
  readonly locator: string
}

export interface JoinGrant {
  readonly membership: Uint8Array
  /** Left out where there is no room for it: the token says it too. */
  readonly profile?: NetworkProfile
  /** As many as there is room for. */
  readonly locators: readonly MemberLocator[]
}

/** An answer as the joining host reads it; `wallNow` is the issuer's clock. */
export type JoinAnswer = (JoinGrant | JoinRefusal) & { readonly wallNow: number }

const RequestBody = fields([
  z.literal(VERSION),
  bytesOf(NETWORK_ID_LENGTH),
  bytesOf(HOST_ID_LENGTH),
  bytesOf(TOKEN_ID_LENGTH),
  bytesOf(HOST_ID_LENGTH),
  Label,
  Tags,
  WallSeconds,
])
const Request = fields([bytesUpTo(HANDSHAKE_MAX), bytesOf(PROOF_LENGTH)])

/** Throws RangeError for a name or tags that no host may have. */
export function encodeJoinRequest(
  primitives: Primitives,
  key: HostKey,
  psk: Uint8Array,
  request: Omit<JoinRequest, 'host'>,
): Uint8Array {
  const { network, issuer, tokenId, name, tags, wallNow } = request
  const wall = Math.floor(wallNow)
  const body = pack([VERSION, fromHex(network), fromHex(issuer), tokenId, fromHex(key.id), name, tags, wall])
  if (unpack(body, HANDSHAKE_MAX, RequestBody) === undefined) throw new RangeError('not a host name, or not tags')
  const blob = key.sign(LABEL, body)
  return packPayload(FrameType.join, [blob, proofOf(primitives, psk, blob)])
}

/** A request whose signature holds; its proof is still to be checked, with the psk of its token. */
export interface ReadRequest {
  readonly request: JoinRequest
  provenBy(psk: Uint8Array): boolean
}

/** undefined: malformed, of another version, or not signed by the host it names. */
export function decodeJoinRequest(primitives: Primitives, bytes: Uint8Array): ReadRequest | undefined {
  const outer = unpackPayload(bytes, Request)
  const signed = outer && decodeSigned(outer[0], HANDSHAKE_MAX)
  const body = signed && unpack(signed.body, HANDSHAKE_MAX, RequestBody)
  if (outer === undefined || signed === undefined || body === undefined) return undefined
  const [, network, issuer, tokenId, host, name, tags, wallNow] = body
  if (!verifyBlob(primitives, LABEL, signed, host)) return undefined
  const request = {
    network: networkId(network),
    issuer: hostId(issuer),
    tokenId,
    host: hostId(host),
    name,
    tags,
    wallNow,
  }
  return { request, provenBy: (psk) => primitives.equal(proofOf(primitives, psk, outer[0]), outer[1]) }
}

function proofOf(primitives: Primitives, psk: Uint8Array, blob: Uint8Array): Uint8Array {
  return primitives.blake2b(concat([utf8(`${LABEL} proof\0`), blob]), PROOF_LENGTH, psk)
}

const Answer = fields([
  z.literal(VERSION),
  z.string().max(32),
  WallSeconds,
  z.string().max(4 * DETAIL_MAX),
  z.union([z.null(), bytesUpTo(MEMBERSHIP_MAX)]),
  z.union([z.null(), fields([NetworkProfile.shape.name, NetworkProfile.shape.ipv4Pool, NetworkProfile.shape.zone])]),
  z.array(fields([bytesOf(HOST_ID_LENGTH), z.string().max(64)])).max(LOCATORS_MAX),
])
const GRANTED = 'granted'

/** Leaves out locators, then the profile, when there is no room. Throws RangeError for a membership that is too long by itself. */
export function encodeJoinAnswer(answer: JoinGrant | JoinRefusal, wallNow: number): Uint8Array {
  const wall = Math.floor(wallNow)
  if ('refusal' in answer)
    return packPayload(FrameType.joined, [
      VERSION,
      answer.refusal,
      wall,
      answer.detail.slice(0, DETAIL_MAX),
      null,
      null,
      [],
    ])
  const profile =
    answer.profile === undefined ? null : [answer.profile.name, answer.profile.ipv4Pool, answer.profile.zone]
  const locators = answer.locators.slice(0, LOCATORS_MAX).map(({ host, locator }) => [fromHex(host), locator])
  const value = (profile: Packable, count: number) => [
    VERSION,
    GRANTED,
    wall,
    '',
    answer.membership,
    profile,
    locators.slice(0, count),
  ]
  const fits = (candidate: Packable) => pack(candidate).length + 2 <= payloadRoom(FrameType.joined)
  let count = locators.length
  while (count > 0 && !fits(value(profile, count))) count--
  const complete = value(profile, count)
  return packPayload(FrameType.joined, fits(complete) ? complete : value(null, 0))
}

/** undefined: malformed or of another version. A refusal that this version does not know is 'denied'. */
export function decodeJoinAnswer(bytes: Uint8Array): JoinAnswer | undefined {
  const value = unpackPayload(bytes, Answer)
  if (value === undefined) return undefined
  const [, status, wallNow, detail, membership, profile, locators] = value
  if (status !== GRANTED) return { refusal: refusals.find((known) => known === status) ?? 'denied', detail, wallNow }
  if (membership === null) return undefined
  const members = locators.map(([host, locator]) => ({ host: hostId(host), locator }))
  if (profile === null) return { membership, locators: members, wallNow }
  const [name, ipv4Pool, zone] = profile
  return { membership, profile: { name, ipv4Pool, zone }, locators: members, wallNow }
}
