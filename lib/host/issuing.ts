// What a member asks of an issuer, and what an issuer signs for members:
//
//   NameClaims ─────────┐                           ┌── IssuerDesk: who claimed first, who may be renewed
//   MembershipRenewal ──┴▶ IssuerLine ──(session)──▶┘
//
// An issuer asks its own desk.

import type { Authority } from '../crypto/authority.js'
import type { HostKey } from '../crypto/host-key.js'
import type { Membership } from '../crypto/membership.js'
import type { Primitives } from '../crypto/primitives.js'
import type { TrustStore } from '../crypto/trust.js'
import type { PeerTable } from '../path/peers.js'
import type { ServiceCatalogue } from '../service/catalogue.js'
import type { Directory } from '../service/directory.js'
import type { RecordChange } from '../service/host-records.js'
import type { Stamps } from '../service/stamps.js'
import type { MemberTrust } from '../service/trust.js'
import type { DropReason } from '../wire/drop.js'
import { decodeIssuerMessage, encodeIssuerMessage, type IssuerAnswer } from '../wire/issuer-message.js'
import { Channel, type ControlChannel } from './control-channel.js'
import { IssuerDesk } from './issuer-desk.js'
import { IssuerLine } from './issuer-line.js'
import type { IssuingOptions } from './issuing-options.js'
import { MembershipRenewal } from './membership-renewal.js'
import { NameClaims } from './name-claims.js'

export interface IssuingComponents {
  readonly primitives: Primitives
  readonly hostKey: HostKey
  readonly trust: TrustStore
  readonly authority: Authority | undefined
  readonly peers: PeerTable
  readonly control: ControlChannel
  readonly members: MemberTrust
  readonly catalogue: ServiceCatalogue
  readonly directory: Directory
  readonly stamps: Stamps
  /** Seconds since the epoch. */
  readonly wallNow: () => number
  readonly wantSession: (peer: number, now: number) => void
  readonly renewed: (membership: Membership, now: number) => void
  readonly certified: () => void
  readonly renewalFailed: (detail: string) => void
  /** {@link NameClaims.encode} is another one now. */
  readonly claimsChanged: () => void
  readonly drop: (reason: DropReason) => void
}

export class Issuing {
  readonly claims: NameClaims
  readonly #c: IssuingComponents
  readonly #desk: IssuerDesk
  readonly #line: IssuerLine
  readonly #renewal: MembershipRenewal

  /** `claims`: NameClaims.encode of before a restart. */
  constructor(components: IssuingComponents, options: IssuingOptions, claims: Uint8Array | undefined) {
    this.#c = components
    const self = components.hostKey.id
    const known = (host: typeof self) => components.directory.record(host, 'locators') !== undefined
    this.#desk = new IssuerDesk(components, options)
    this.#line = new IssuerLine({ ...components, self, known }, options)
    const both = { ...components, self, desk: this.#desk, line: this.#line }
    this.#renewal = new MembershipRenewal({ ...both, failed: components.renewalFailed }, options)
    const publish = (payload: Parameters<Directory['publish']>[0][number]['payload'], now: number) =>
      components.directory.publish([{ payload }], now)
    this.claims = new NameClaims({ ...both, publish, changed: components.claimsChanged }, options, claims)
  }

  /** A message from a peer. */
  receive(peer: number, body: Uint8Array, now: number): void {
    const { peers, control, drop } = this.#c
    const message = decodeIssuerMessage(body)
    if (message === undefined) return drop('bad-control')
    switch (message.kind) {
      case 'stamp':
      case 'renew': {
        const { request } = message
        const host = peers.hostId(peer)
        const outcome =
          message.kind === 'stamp' ? this.#desk.stamp(host, message.service, now) : this.#desk.renew(host, now)
        let answer: IssuerAnswer
        if (!(outcome instanceof Uint8Array)) answer = { kind: 'refused', request, ...outcome }
        else if (message.kind === 'stamp') answer = { kind: 'stamped', request, stamp: outcome }
        else answer = { kind: 'renewed', request, membership: outcome }
        // A full queue: who asked will ask again.
        control.send(peer, Channel.issuing, encodeIssuerMessage(answer), now)
        return
      }
      default:
        this.#line.receive(peer, message, now)
    }
  }

  /** A record came, changed or went; after the catalogue has taken it. */
  recordChanged(change: RecordChange, now: number): void {
    const { kind } = change.record?.payload ?? change.before?.payload ?? { kind: 'withdrawn' }
    if (kind === 'name') this.#desk.recordChanged(change, this.#c.directory.withdrew(change.host, change.key), now)
  }

  /** There is a session with the peer now. */
  sessionUp(peer: number, now: number): void {
    if (!this.claims.waits && !this.#renewal.waits) return
    if (!this.#line.isIssuer(this.#c.peers.hostId(peer), now)) return
    this.claims.issuerUp(now)
    this.#renewal.issuerUp(now)
  }

  /** An issuer may have been revoked, and its stamps be worth less. */
  revocationsChanged(now: number): void {
    this.claims.lookAtAll(now)
  }

  nextTimeout(): number {
    return Math.min(this.#line.nextTimeout(), this.claims.nextTimeout(), this.#renewal.nextTimeout())
  }

  handleTimeout(now: number): void {
    this.#line.handleTimeout(now)
    this.claims.handleTimeout(now)
    this.#renewal.handleTimeout(now)
  }
}
