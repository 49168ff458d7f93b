// Invite tokens. Text: `caracal1-`, then base64url of: length of the body 2 (BE), body, checksum 4 (BLAKE2b of length and body).
// The length tells a token that was cut from one that was changed.

import { z } from 'zod'
import { concat, fromBase64url, toBase64url, utf8 } from '../wire/bytes.js'
import { HOST_ID_LENGTH, NETWORK_ID_LENGTH } from '../wire/constants.js'
import { fromHex, hostId, networkId, toHex, type HostId, type NetworkId } from '../wire/ids.js'
import { bytesOf, fields, pack, unpack } from '../wire/pack.js'
import { networkOf } from './authority.js'
import { Label, Tags } from './names.js'
import { NetworkProfile } from './network-profile.js'
import type { Primitives } from './primitives.js'
import { wallText, WallSeconds } from './validity.js'

export const TOKEN_ID_LENGTH = 16
export const TOKEN_SECRET_LENGTH = 32
const PREFIX = 'caracal1-'
const ANY_PREFIX = /^caracal(\d+)-/
const BODY_MAX = 1024
const CHECKSUM_LENGTH = 4
const LOCATORS_MAX = 8

/** What a token says openly. */
export interface TokenFields {
  readonly network: NetworkId
  /** Public key of the authority; the network ID is its hash. */
  readonly authority: Uint8Array
  readonly profile: NetworkProfile
  /** Whom to ask, and where: `ADDR:PORT` texts (lib/path/locator.ts). */
  readonly issuer: HostId
  readonly locators: readonly string[]
  /** Seconds since the epoch. */
  readonly expiry: number
  /** 16 bytes. */
  readonly tokenId: Uint8Array
  /** Tags the new host will have. */
  readonly tags: readonly string[]
}

export interface TokenProblem {
  readonly problem: 'truncated' | 'malformed' | 'expired' | 'unsupported-version'
  /** One sentence for people, without a full stop; nothing of the token is in it. */
  readonly detail: string
}

/** An invitation to a network. Its secret shows only in {@link text}. */
export class InviteToken implements TokenFields {
  readonly network: NetworkId
  readonly authority: Uint8Array
  readonly profile: NetworkProfile
  readonly issuer: HostId
  readonly locators: readonly string[]
  readonly expiry: number
  readonly tokenId: Uint8Array
  readonly tags: readonly string[]
  readonly #secret: Uint8Array

  /** Throws RangeError for lengths out of bounds. */
  constructor(token: TokenFields, secret: Uint8Array) {
    if (secret.length !== TOKEN_SECRET_LENGTH) throw new RangeError(`a token's secret has ${TOKEN_SECRET_LENGTH} bytes`)
    this.network = token.network
    this.authority = token.authority
    this.profile = token.profile
    this.issuer = token.issuer
    this.locators = token.locators
    this.expiry = token.expiry
    this.tokenId = token.tokenId
    this.tags = token.tags
    this.#secret = new Uint8Array(secret)
  }

  /** The psk of the join handshake, 32 bytes. */
  psk(primitives: Primitives): Uint8Array {
    return tokenPsk(primitives, this.#secret)
  }

  /** What is given to the new host. Throws RangeError for fields no token may have. */
  text(primitives: Primitives): string {
    const { network, profile, authority, issuer, locators, expiry, tokenId, tags } = this
    const body = pack([
      fromHex(network),
      authority,
      fromHex(issuer),
      locators,
      expiry,
      tokenId,
      this.#secret,
      tags,
      [profile.name, profile.ipv4Pool, profile.zone],
    ])
    if (unpack(body, BODY_MAX, Body) === undefined) throw new RangeError('token out of bounds')
    const counted = concat([Uint8Array.of(body.length >> 8, body.length & 0xff), body])
    return PREFIX + toBase64url(concat([counted, checksum(primitives, counted)]))
  }

  toJSON(): Omit<TokenFields, 'authority' | 'tokenId'> & { authority: string; tokenId: string } {
    const { network, profile, issuer, locators, expiry, tags } = this
    return {
      network,
      profile,
      issuer,
      locators,
      expiry,
      tags,
      authority: toHex(this.authority),
      tokenId: toHex(this.tokenId),
    }
  }
}

const Body = fields([
  bytesOf(NETWORK_ID_LENGTH),
  bytesOf(32),
  bytesOf(HOST_ID_LENGTH),
  z.array(z.string().max(64)).min(1).max(LOCATORS_MAX),
  WallSeconds,
  bytesOf(TOKEN_ID_LENGTH),
  bytesOf(TOKEN_SECRET_LENGTH),
  Tags,
  fields([Label, NetworkProfile.shape.ipv4Pool, NetworkProfile.shape.zone]),
])

/** What issuer and joiner mix into their handshake: a hash, so that the issuer need not keep the secret. */
export function tokenPsk(primitives: Primitives, secret: Uint8Array): Uint8Array {
  return primitives.blake2b(concat([utf8('caracal/1 token psk\0'), secret]), 32)
}

function checksum(primitives: Primitives, counted: Uint8Array): Uint8Array {
  return primitives.blake2b(concat([utf8('caracal/1 token\0'), counted]), CHECKSUM_LENGTH)
}

/** Any text gives a token or what is wrong with it. White space, as pasting adds it, is ignored. `wallNow`: seconds since the epoch. */
export function parseToken(primitives: Primitives, text: string, wallNow: number): InviteToken | TokenProblem {
  const compact = text.replace(/\s+/g, '')
  if (!compact.startsWith(PREFIX)) {
    const version = ANY_PREFIX.exec(compact)?.[1]
    if (version !== undefined) return bad('unsupported-version', 'the token is of another version of caracal')
    if (compact !== '' && PREFIX.startsWith(compact)) return cut()
    return bad('malformed', `this is not a token; one begins with ${PREFIX}`)
  }
  const digits = compact.slice(PREFIX.length)
  if (!/^[A-Za-z0-9_-]*$/.test(digits)) return bad('malformed', 'the token has characters that no token has')
  const head = fromBase64url(digits.slice(0, 4))
  if (head === undefined || head.length < 3) return cut()
  const bodyLength = (head[0]! << 8) | head[1]!
  if (bodyLength > BODY_MAX) return changed()
  const wanted = Math.ceil(((2 + bodyLength + CHECKSUM_LENGTH) * 8) / 6)
  if (digits.length < wanted) return cut()
  if (digits.length > wanted) return bad('malformed', 'there is something after the end of the token')
  const bytes = fromBase64url(digits)
  if (bytes === undefined) return changed()
  const counted = bytes.subarray(0, 2 + bodyLength)
  if (!primitives.equal(checksum(primitives, counted), bytes.subarray(2 + bodyLength))) return changed()
  return decodeBody(primitives, counted.subarray(2), wallNow)
}

function decodeBody(primitives: Primitives, body: Uint8Array, wallNow: number): InviteToken | TokenProblem {
  const value = unpack(body, BODY_MAX, Body)
  if (value === undefined) return changed()
  const [network, authority, issuer, locators, expiry, tokenId, secret, tags, [name, ipv4Pool, zone]] = value
  if (networkId(network) !== networkOf(primitives, authority)) return changed()
  if (wallNow > expiry)
    return bad('expired', `the token expired at ${wallText(expiry)} (this host's clock says ${wallText(wallNow)})`)
  const profile = { name, ipv4Pool, zone }
  const open = {
    network: networkId(network),
    authority,
    issuer: hostId(issuer),
    locators,
    expiry,
    tokenId,
    tags,
    profile,
  }
  return new InviteToken(open, secret)
}

function bad(problem: TokenProblem['problem'], detail: string): TokenProblem {
  return { problem, detail }
}
const cut = () => bad('truncated', 'the token is cut short')
const changed = () => bad('malformed', 'the token has been changed on its way')
