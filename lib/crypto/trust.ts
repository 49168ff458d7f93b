import { z } from 'zod'
import type { HostId, NetworkId } from '../wire/ids.js'
import { bytesOf, bytesUpTo, fields, pack, unpack } from '../wire/pack.js'
import { ISSUER_CERTIFICATE_MAX, networkOf, openIssuer, type Issuer } from './authority.js'
import {
  isMembershipProblem,
  MEMBERSHIP_MAX,
  verifyMembership,
  type Membership,
  type MembershipProblem,
} from './membership.js'
import { NAME_RULE_MAX, NameRuleList, NAME_RULES_MAX } from './name-rules.js'
import { NetworkProfile } from './network-profile.js'
import type { Primitives } from './primitives.js'
import { REVOCATION_MAX, RevocationList, REVOCATIONS_MAX } from './revocations.js'
import { SKEW_SECONDS, WALL_MAX, WallSeconds } from './validity.js'

/** Bytes of an encoded store. */
export const TRUST_MAX = 2 ** 22
/**
 * How far the floor may be ahead of the newest time that an issuer or the authority has signed. A clock that was far in the future once would else make every certificate
 * look expired for ever; so much a healthy membership always has left (it is renewed with a third of a year left), so that a wrong floor does no harm and is overtaken.
 */
export const FLOOR_AHEAD_SECONDS = 90 * 86_400
const VERSION = 1

export interface TrustOptions {
  /** Public key of the authority. */
  readonly authority: Uint8Array
  readonly profile: NetworkProfile
  /** Default: SKEW_SECONDS. */
  readonly skewSeconds?: number
  /** Wall time known to have passed, seconds since the epoch. */
  readonly floor?: number
}

/** Whom a host of one network believes: the authority, its own membership, what has been revoked, to whom names were given, and how late it is at least. Holds no secret. */
export class TrustStore {
  readonly network: NetworkId
  readonly authority: Uint8Array
  readonly profile: NetworkProfile
  readonly skewSeconds: number
  readonly revocations: RevocationList
  readonly nameRules: NameRuleList
  readonly #primitives: Primitives
  #membership: Uint8Array | undefined
  #issuerCertificate: Uint8Array | undefined
  #floor: number
  /** When the newest membership seen was signed; undefined: none yet. */
  #newestIssued: number | undefined

  constructor(primitives: Primitives, options: TrustOptions) {
    this.#primitives = primitives
    this.authority = options.authority
    this.network = networkOf(primitives, options.authority)
    this.profile = options.profile
    this.skewSeconds = options.skewSeconds ?? SKEW_SECONDS
    this.revocations = new RevocationList(primitives, options.authority)
    this.nameRules = new NameRuleList(primitives, options.authority, this.revocations)
    this.#floor = options.floor ?? 0
  }

  /** A store from its file; undefined: damaged. */
  static decode(primitives: Primitives, bytes: Uint8Array): TrustStore | undefined {
    const value = unpack(bytes, TRUST_MAX, Body)
    if (value === undefined) return undefined
    const [, authority, [name, ipv4Pool, zone], floor, membership, certificate, revocations, rules, newestIssued] =
      value
    const store = new TrustStore(primitives, { authority, profile: { name, ipv4Pool, zone }, floor })
    store.#membership = membership ?? undefined
    store.#issuerCertificate = certificate ?? undefined
    for (const revocation of revocations) if (store.revocations.add(revocation) === 'invalid') return undefined
    for (const rule of rules ?? []) if (store.nameRules.add(rule) === 'invalid') return undefined
    store.#newestIssued = newestIssued ?? undefined
    // At any time: what counts is that it has been signed.
    if (store.#membership !== undefined) store.#judge(store.#membership, WALL_MAX, Infinity)
    store.#floor = Math.min(floor, store.#ceiling)
    return store
  }

  encode(): Uint8Array {
    return this.#encode(this.#floor, this.#newestIssued)
  }

  /** Whether another process of this host has only become older since this store was read, and has written `bytes`: then the store is as old from now on. Else it is to be read anew. */
  followed(bytes: Uint8Array): boolean {
    const value = unpack(bytes, TRUST_MAX, Body)
    if (value === undefined) return false
    const [floor, newestIssued] = [value[3], value[8] ?? undefined]
    const same = this.#encode(floor, newestIssued)
    if (same.length !== bytes.length || same.some((byte, i) => byte !== bytes[i])) return false
    if (newestIssued !== undefined) this.#newestIssued = Math.max(this.#newestIssued ?? 0, newestIssued)
    this.observe(floor)
    return true
  }

  #encode(floor: number, newestIssued: number | undefined): Uint8Array {
    const { name, ipv4Pool, zone } = this.profile
    return pack([
      VERSION,
      this.authority,
      [name, ipv4Pool, zone],
      floor,
      this.#membership ?? null,
      this.#issuerCertificate ?? null,
      this.revocations.entries(),
      this.nameRules.entries(),
      newestIssued ?? null,
    ])
  }

  /** Our own membership as it travels; undefined: not a member yet. */
  get membership(): Uint8Array | undefined {
    return this.#membership
  }

  /** Our own issuer certificate, if we are one. */
  get issuerCertificate(): Uint8Array | undefined {
    return this.#issuerCertificate
  }

  /** Takes a new membership of our own, `host`, when it verifies. */
  adoptMembership(host: HostId, bytes: Uint8Array, wallNow: number): Membership | MembershipProblem {
    const membership = this.verify(bytes, wallNow)
    if (isMembershipProblem(membership)) return membership
    if (membership.host !== host)
      return { reason: 'membership-invalid', problem: 'other-host', detail: 'the membership is for another host' }
    this.#membership = membership.bytes
    return membership
  }

  /** Takes an issuer certificate of our own; undefined: not signed by the authority. */
  adoptIssuerCertificate(bytes: Uint8Array): Issuer | undefined {
    const issuer = openIssuer(this.#primitives, bytes, this.authority)
    if (issuer !== undefined) this.#issuerCertificate = new Uint8Array(bytes)
    return issuer
  }

  /** Verifies anybody's membership in this network at a time that is never before the floor. `graceSeconds`: so long after its end it is taken all the same. */
  verify(bytes: Uint8Array, wallNow: number, graceSeconds = 0): Membership | MembershipProblem {
    return this.#judge(bytes, Math.max(wallNow, this.#floor), graceSeconds)
  }

  /** Wall time that has passed for sure: a clock set back does not make expired certificates valid again. */
  get floor(): number {
    return this.#floor
  }

  /**
   * Notes the clock; the time to go by, which is the floor while the clock is behind it. Our own clock only: others' would let one of them run ours ahead. The floor follows
   * the clock as far as {@link FLOOR_AHEAD_SECONDS} allow.
   */
  observe(wallNow: number): number {
    const wall = Math.floor(wallNow)
    this.#floor = Math.max(this.#floor, Math.min(wall, this.#ceiling))
    return Math.max(this.#floor, wall)
  }

  get #ceiling(): number {
    if (this.#newestIssued === undefined) return Infinity
    return Math.max(this.#newestIssued, this.revocations.newest) + FLOOR_AHEAD_SECONDS
  }

  #judge(bytes: Uint8Array, wallNow: number, graceSeconds: number): Membership | MembershipProblem {
    const { authority, skewSeconds, revocations } = this
    const check = { authority, wallNow, skewSeconds, graceSeconds, revocations }
    const result = verifyMembership(this.#primitives, bytes, check)
    if (!isMembershipProblem(result)) this.#newestIssued = Math.max(this.#newestIssued ?? 0, result.issuedAt)
    return result
  }

  toJSON(): { network: NetworkId; profile: NetworkProfile; revocations: number; floor: number } {
    return { network: this.network, profile: this.profile, revocations: this.revocations.size, floor: this.#floor }
  }
}

const Body = fields([
  z.literal(VERSION),
  bytesOf(32),
  fields([NetworkProfile.shape.name, NetworkProfile.shape.ipv4Pool, NetworkProfile.shape.zone]),
  WallSeconds,
  z.union([z.null(), bytesUpTo(MEMBERSHIP_MAX)]),
  z.union([z.null(), bytesUpTo(ISSUER_CERTIFICATE_MAX)]),
  z.array(bytesUpTo(REVOCATION_MAX)).max(2 * REVOCATIONS_MAX),
  // Files of before there were rules end here.
  z.array(bytesUpTo(NAME_RULE_MAX)).max(NAME_RULES_MAX).optional(),
  WallSeconds.nullish(),
])
