import type { TrustStore } from '../crypto/trust.js'
import { SKEW_SECONDS, wallText } from '../crypto/validity.js'
import { SELF, type PeerTable } from '../path/peers.js'
import type { MemberTrust } from '../service/trust.js'
import type { LostReason } from '../session/session-sink.js'
import type { SessionTable } from '../session/session-table.js'
import type { HostId } from '../wire/ids.js'
import type { ControlChannel } from './control-channel.js'
import type { IssuingOptions } from './issuing-options.js'
import type { Neighbours } from './neighbours.js'
import { Partings } from './partings.js'

export interface ExpulsionsComponents {
  readonly self: HostId
  readonly peers: PeerTable
  readonly trust: TrustStore
  readonly members: MemberTrust
  readonly sessions: SessionTable
  readonly control: ControlChannel
  readonly neighbours: Neighbours
  /** Seconds since the epoch. */
  readonly wallNow: () => number
  /** The flows with the peer end. */
  readonly peerLost: (peer: number, now: number) => void
  /** Sends what waits to be sent, acknowledgements included. */
  readonly flush: (now: number) => void
  /** This host is a member no more, or its membership has run out (a clock may be wrong: it may come back). One sentence without a full stop. */
  readonly ended: (what: 'revoked' | 'expired', detail: string, now: number) => void
}

/** Who is a member no more, and what that ends: at once where a host was revoked, after a grace where its membership has expired. This host is no exception. */
export class Expulsions {
  /** When and by whom this host was revoked, for people; undefined: it is a member as far as it knows. */
  own: string | undefined
  readonly #c: ExpulsionsComponents
  readonly #options: IssuingOptions
  readonly #partings: Partings
  #lookAt = -Infinity
  /** End of our own membership when it was last valid. */
  #ownEnd = Infinity
  #expired = false

  constructor(components: ExpulsionsComponents, options: IssuingOptions) {
    this.#c = components
    this.#options = options
    const { peers, control } = components
    this.#partings = new Partings({ peers, control, cut: (peer, now) => this.#cut(peer, 'revoked', now) })
  }

  /** The revocation list has grown, and the peers have been told. */
  revoked(now: number): void {
    const { peers, members, peerLost, self } = this.#c
    for (let peer = 1; peer < peers.size; peer++) {
      if (!peers.has(peer) || !members.isRevoked(peers.hostId(peer))) continue
      peerLost(peer, now)
      if (peers.sealSlot[peer]! >= 0) this.#partings.begin(peer, now)
      else this.#cut(peer, 'revoked', now)
    }
    if (this.own !== undefined || !members.isRevoked(self)) return
    this.own = this.#why()
    this.#c.ended('revoked', this.own, now)
    this.#cutAll('revoked', now)
  }

  nextTimeout(): number {
    return Math.min(this.#lookAt, this.#partings.nextTimeout())
  }

  handleTimeout(now: number): void {
    if (this.#partings.pending) this.#partings.look(now)
    if (now < this.#lookAt) return
    this.#lookAt = now + this.#options.graceLookMs
    this.#lookForExpired(now)
  }

  /** Messages have come. */
  heard(now: number): void {
    if (this.#partings.pending) this.#partings.look(now)
  }

  #lookForExpired(now: number): void {
    const { peers, members, sessions, peerLost, trust, self } = this.#c
    const wall = trust.observe(this.#c.wallNow())
    const end = (notAfter: number) => notAfter + SKEW_SECONDS + this.#options.graceSeconds
    const own = members.member(self)
    if (own !== undefined) {
      this.#ownEnd = own.notAfter
      this.#expired = false
    } else if (this.own === undefined && wall > this.#ownEnd) {
      if (!this.#expired) this.#c.ended('expired', `its membership expired at ${wallText(this.#ownEnd)}`, now)
      this.#expired = true
      if (wall > end(this.#ownEnd)) return this.#cutAll('expired', now)
    }
    for (let peer = 1; peer < peers.size; peer++) {
      if (peers.sealSlot[peer]! < 0) continue
      const host = peers.hostId(peer)
      if (members.member(host) !== undefined) continue
      const last = Math.max(members.lastKnown(host)?.notAfter ?? 0, sessions.membershipOf(peer)?.notAfter ?? 0)
      if (wall <= end(last)) continue
      peerLost(peer, now)
      this.#cut(peer, 'expired', now)
    }
  }

  #cutAll(reason: LostReason, now: number): void {
    const { peers, peerLost, flush } = this.#c
    // What comes in with this is acknowledged.
    flush(now)
    for (let peer = SELF + 1; peer < peers.size; peer++) {
      if (!peers.has(peer)) continue
      peerLost(peer, now)
      this.#cut(peer, reason, now)
    }
  }

  #cut(peer: number, reason: LostReason, now: number): void {
    this.#c.sessions.dropPeer(peer, reason, now)
    // Should it become a member again, a handshake that was cut short is not waited for.
    this.#c.neighbours.lost(peer, now)
  }

  #why(): string {
    const { trust, self } = this.#c
    const entry = trust.revocations.list().find(({ host }) => host === self)
    if (entry === undefined) return 'the issuer of its membership was revoked'
    return `${entry.byAuthority ? 'the authority' : 'an issuer'} revoked it at ${wallText(entry.time)}`
  }
}
