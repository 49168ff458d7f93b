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
import { SKEW_SECONDS, WallSeconds } from './validity.js'

/** Bytes of an encoded store. */
export const TRUST_MAX = 2 ** 22
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
    const [, authority, [name, ipv4Pool, zone], floor, membership, certificate, revocations, rules] = value
    const store = new TrustStore(primitives, { authority, profile: { name, ipv4Pool, zone }, floor })
    store.#membership = membership ?? undefined
    store.#issuerCertificate = certificate ?? undefined
    for (const revocation of revocations) if (store.revocations.add(revocation) === 'invalid') return undefined
    for (const rule of rules ?? []) if (store.nameRules.add(rule) === 'invalid') return undefined
    return store
  }

  encode(): Uint8Array {
    const { name, ipv4Pool, zone } = this.profile
    return pack([
      VERSION,
      this.authority,
      [name, ipv4Pool, zone],
      this.#floor,
      this.#membership ?? null,
      this.#issuerCertificate ?? null,
      this.revocations.entries(),
      this.nameRules.entries(),
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

  /** Verifies anybody's membership in this network at a time that is never before the floor. */
  verify(bytes: Uint8Array, wallNow: number): Membership | MembershipProblem {
    return verifyMembership(this.#primitives, bytes, {
      authority: this.authority,
      wallNow: Math.max(wallNow, this.#floor),
      skewSeconds: this.skewSeconds,
      revocations: this.revocations,
    })
  }

  /** Wall time that has passed for sure: a clock set back does not make expired certificates valid again. */
  get floor(): number {
    return this.#floor
  }

  /** Notes the clock; the time to go by, which is the floor while the clock is behind it. Our own clock only: others' would let one of them run ours ahead. */
  observe(wallNow: number): number {
    this.#floor = Math.max(this.#floor, Math.floor(wallNow))
    return this.#floor
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
])
