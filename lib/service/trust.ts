import type { HostKey } from '../crypto/host-key.js'
import { isMembershipProblem, verifyMembership, type Membership, type MembershipProblem } from '../crypto/membership.js'
import type { NameRuleList } from '../crypto/name-rules.js'
import type { Primitives } from '../crypto/primitives.js'
import type { RevocationList } from '../crypto/revocations.js'
import { verifyBlob, type SignLabel } from '../crypto/signing.js'
import { checkValidity, SKEW_SECONDS } from '../crypto/validity.js'
import { fromHex, type HostId } from '../wire/ids.js'
import { decodeSigned, type SignedBlob } from '../wire/signed.js'

/** What the directory asks about keys and members. */
export interface Trust {
  readonly self: HostId
  /** Signs as this host. */
  sign(label: SignLabel, body: Uint8Array): SignedBlob
  verify(label: SignLabel, blob: SignedBlob, host: HostId): boolean
  /** Remembers a membership from anybody when it is valid now; true: it is new. `expected`: of this host only. */
  learn(membership: Uint8Array, expected: HostId): boolean
  /** The newest membership known, as it travels; undefined: none, expired or revoked. */
  membership(host: HostId): Uint8Array | undefined
  /** Signed revocations, each at most REVOCATION_MAX bytes. */
  revocations(): readonly Uint8Array[]
  /** Equal for equal sets. */
  revocationDigest(): Uint8Array
  /** Adds one from anybody; true: it was new and valid. */
  revoke(item: Uint8Array): boolean
  /** Signed rules for names, each at most NAME_RULE_MAX bytes. */
  nameRules(): readonly Uint8Array[]
  /** Equal for equal sets. */
  nameRuleDigest(): Uint8Array
  /** Adds one from anybody; true: it was new and valid. */
  addNameRule(item: Uint8Array): boolean
}

export interface MemberTrustComponents {
  readonly primitives: Primitives
  readonly key: HostKey
  /** Public key of the network's authority. */
  readonly authority: Uint8Array
  readonly revocations: RevocationList
  readonly nameRules: NameRuleList
  /** Seconds since the epoch. */
  readonly wallNow: () => number
}

const MEMBERS_MAX = 16_384
const SEALED_MAX = 65_536

/** Trust by memberships and revocations: knows the members this host has met or heard of. */
export class MemberTrust implements Trust {
  readonly self: HostId
  readonly #members = new Map<HostId, Membership>()
  /** Hosts that were members until a revocation came, as they were. */
  readonly #revoked = new Map<HostId, Membership>()
  readonly #components: MemberTrustComponents

  constructor(components: MemberTrustComponents) {
    this.#components = components
    this.self = components.key.id
  }

  sign(label: SignLabel, body: Uint8Array): SignedBlob {
    const blob = decodeSigned(this.#components.key.sign(label, body), SEALED_MAX)
    if (blob === undefined) throw new RangeError(`${body.length} bytes are too many to sign`)
    return blob
  }

  verify(label: SignLabel, blob: SignedBlob, host: HostId): boolean {
    return verifyBlob(this.#components.primitives, label, blob, fromHex(host))
  }

  learn(bytes: Uint8Array, expected: HostId): boolean {
    const known = this.#members.get(expected)
    // Told again and again, it is not to cost a verification each time.
    if (known !== undefined && sameBytes(known.bytes, bytes)) return false
    const membership = this.#check(bytes)
    if (membership === undefined || membership.host !== expected) return false
    if (known !== undefined && known.serial >= membership.serial) return false
    if (known === undefined && this.#members.size >= MEMBERS_MAX) return false
    this.#members.set(expected, membership)
    this.#revoked.delete(expected)
    return true
  }

  membership(host: HostId): Uint8Array | undefined {
    return this.member(host)?.bytes
  }

  /** The membership with its name and tags; undefined as {@link membership}. */
  member(host: HostId): Membership | undefined {
    const membership = this.#members.get(host)
    if (membership === undefined) return undefined
    const problem = checkValidity('', membership, this.#components.wallNow(), SKEW_SECONDS)
    return problem === undefined ? membership : undefined
  }

  /** The newest membership heard of, valid or expired since. */
  lastKnown(host: HostId): Membership | undefined {
    return this.#members.get(host)
  }

  /** All valid members known, this host among them once it has been told its own membership by {@link learn}. */
  members(): Membership[] {
    return [...this.#members.keys()].flatMap((host) => this.member(host) ?? [])
  }

  revocations(): readonly Uint8Array[] {
    return this.#components.revocations.entries()
  }

  revocationDigest(): Uint8Array {
    return this.#components.revocations.digest()
  }

  revoke(item: Uint8Array): boolean {
    if (typeof this.#components.revocations.add(item) === 'string') return false
    this.recheck()
    return true
  }

  nameRules(): readonly Uint8Array[] {
    return this.#components.nameRules.entries()
  }

  nameRuleDigest(): Uint8Array {
    return this.#components.nameRules.digest()
  }

  addNameRule(item: Uint8Array): boolean {
    return typeof this.#components.nameRules.add(item) !== 'string'
  }

  /** Whether the host was a member here until a revocation came: sessions and flows with it are to end. */
  isRevoked(host: HostId): boolean {
    return this.#revoked.has(host)
  }

  /** What a revoked host was; undefined: not revoked, or not known here before. */
  revokedMember(host: HostId): Membership | undefined {
    return this.#revoked.get(host)
  }

  /** Forgets members whose membership no longer holds, and the rules of issuers that are revoked. Call when the revocation list has grown by another way than {@link revoke}. */
  recheck(): void {
    this.#components.nameRules.prune()
    for (const [host, membership] of this.#members) {
      const result = this.#verify(membership.bytes)
      if (!isMembershipProblem(result)) continue
      this.#members.delete(host)
      if (result.reason === 'revoked') this.#revoked.set(host, membership)
    }
  }

  #check(bytes: Uint8Array): Membership | undefined {
    const result = this.#verify(bytes)
    return isMembershipProblem(result) ? undefined : result
  }

  #verify(bytes: Uint8Array): Membership | MembershipProblem {
    const { primitives, authority, revocations, wallNow } = this.#components
    return verifyMembership(primitives, bytes, { authority, wallNow: wallNow(), revocations })
  }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i])
}
