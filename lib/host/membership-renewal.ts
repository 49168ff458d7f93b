import { openIssuer, type Authority } from '../crypto/authority.js'
import { isMembershipProblem, type Membership } from '../crypto/membership.js'
import type { Primitives } from '../crypto/primitives.js'
import type { TrustStore } from '../crypto/trust.js'
import type { MemberTrust } from '../service/trust.js'
import type { HostId } from '../wire/ids.js'
import type { IssuerAnswer } from '../wire/issuer-message.js'
import type { IssuerDesk } from './issuer-desk.js'
import type { IssuerLine } from './issuer-line.js'
import type { IssuingOptions } from './issuing-options.js'

export interface MembershipRenewalComponents {
  readonly self: HostId
  readonly primitives: Primitives
  readonly trust: TrustStore
  readonly members: MemberTrust
  readonly desk: IssuerDesk
  readonly line: IssuerLine
  /** Where the authority's key is on this host. */
  readonly authority: Authority | undefined
  /** Seconds since the epoch. */
  readonly wallNow: () => number
  /** The trust store has a new membership of this host: to disk, then to the others. */
  readonly renewed: (membership: Membership, now: number) => void
  /** The trust store has a new issuer certificate of this host. */
  readonly certified: () => void
  /** One sentence without a full stop. */
  readonly failed: (detail: string) => void
}

/** Begins earlier by so much of the last third, a part of it that differs from host to host. */
const SPREAD = 0.1

/** Keeps this host's membership, and its issuer certificate where the authority's key is here, from running out: from when a third of the validity is left, an issuer is asked for the next. */
export class MembershipRenewal {
  readonly #c: MembershipRenewalComponents
  readonly #options: IssuingOptions
  readonly #spread: number
  #lookAt = -Infinity
  /** No issuer could be asked: the first that comes up will be. */
  #waits = false

  constructor(components: MembershipRenewalComponents, options: IssuingOptions) {
    this.#c = components
    this.#options = options
    this.#spread = 1 + (SPREAD * Number.parseInt(components.self.slice(0, 8), 16)) / 2 ** 32
  }

  nextTimeout(): number {
    return this.#lookAt
  }

  /** Whether the renewal is late for want of an issuer to ask. */
  get waits(): boolean {
    return this.#waits
  }

  /** An issuer can be asked now. */
  issuerUp(now: number): void {
    if (this.#waits) this.#lookAt = now
  }

  handleTimeout(now: number): void {
    if (now < this.#lookAt) return
    const { self, members, wallNow } = this.#c
    const { lookMs, firstLookMs } = this.#options
    if (this.#lookAt === -Infinity) {
      this.#lookAt = now + firstLookMs
      return
    }
    this.#waits = false
    this.#lookAt = now + lookMs
    if (members.isRevoked(self)) return
    const wall = wallNow()
    this.#certify(wall)
    const membership = members.member(self)
    if (membership === undefined) return
    const left = membership.notAfter - wall
    const from = ((membership.notAfter - membership.issuedAt) / 3) * this.#spread
    if (left > from) this.#lookAt = now + Math.min(lookMs, 1 + (left - from) * 1000)
    else this.#ask(left, now)
  }

  #ask(left: number, now: number): void {
    const { desk, line, self } = this.#c
    const { renewRetryMs, renewUrgentMs, urgentSeconds } = this.#options
    this.#lookAt = now + (left < urgentSeconds ? renewUrgentMs : renewRetryMs)
    if (desk.issuer !== undefined) {
      const outcome = desk.renew(self, now)
      if (outcome instanceof Uint8Array) this.#adopt(outcome, now)
      else this.#c.failed(outcome.detail)
      return
    }
    if (line.ask({ kind: 'renew' }, now, (answer, at) => this.#answered(answer, at))) return
    this.#waits = true
    this.#c.failed('no issuer can be reached')
  }

  #answered(answer: IssuerAnswer | undefined, now: number): void {
    if (answer?.kind === 'renewed') this.#adopt(answer.membership, now)
    else this.#c.failed(answer?.kind === 'refused' ? answer.detail : 'the issuer did not answer')
  }

  #adopt(bytes: Uint8Array, now: number): void {
    const { self, trust, members, wallNow, renewed, failed } = this.#c
    const present = members.member(self)
    const offered = trust.verify(bytes, wallNow())
    if (isMembershipProblem(offered)) return failed(offered.detail)
    if (present !== undefined && (offered.serial <= present.serial || offered.notAfter <= present.notAfter))
      return failed('the issuer gave one that is not newer')
    if (present !== undefined && (offered.name !== present.name || offered.tags.join() !== present.tags.join()))
      return failed('the issuer gave one with another name or other tags')
    const membership = trust.adoptMembership(self, bytes, wallNow())
    if (isMembershipProblem(membership)) return failed(membership.detail)
    renewed(membership, now)
    // When it is to be renewed in turn.
    this.#lookAt = now
  }

  #certify(wall: number): void {
    const { authority, trust, primitives, self } = this.#c
    const { certificateSeconds } = this.#options
    const bytes = trust.issuerCertificate
    const issuer = bytes && openIssuer(primitives, bytes, trust.authority)
    if (authority === undefined || issuer === undefined || trust.revocations.coversIssuer(self, issuer.serial)) return
    const validity = Math.min(issuer.notAfter - issuer.notBefore, certificateSeconds)
    if (issuer.notAfter - wall > validity / 3) return
    // Since when it may issue stays: what it has stamped is judged by it.
    const { tags, notBefore } = issuer
    const notAfter = Math.floor(wall) + certificateSeconds
    const certificate = { host: self, tags, notBefore, notAfter, serial: issuer.serial + 1 }
    if (trust.adoptIssuerCertificate(authority.certifyIssuer(certificate)) !== undefined) this.#c.certified()
  }
}
