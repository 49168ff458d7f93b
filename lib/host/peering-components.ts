import type { Locator } from '../path/locator.js'
import type { PeerTable } from '../path/peers.js'
import type { Directory } from '../service/directory.js'
import type { MemberTrust } from '../service/trust.js'
import type { DropCounters, DropReason } from '../wire/drop.js'
import type { DataPath } from './data-path.js'
import type { HostClock } from './host-clock.js'
import type { HostComponents } from './host-options.js'
import type { Turns } from './turns.js'

/** What happens with peers that flows and services are to know. */
export interface PeeringSink {
  /** A session is up; `afresh`: what was sent to the peer before may be lost. Returns whether the peer's flows are to be gone through with it. */
  sessionUp(peer: number, afresh: boolean, now: number): boolean
  /** What packets do not wait for, later. `rekey`: the session takes the place of another one; `reunited`: what {@link sessionUp} has returned. */
  met(peer: number, rekey: boolean, reunited: boolean, now: number): void
  /** The peer has the current session too. */
  confirmed(peer: number, now: number): void
  /** What waited for a way to the peer may go. */
  released(peer: number, now: number): void
  /** Of what waits for a way to the peer, so many bytes of datagrams may go to this address slot, at once. Returns how many have, or more. */
  spend(peer: number, addressSlot: number, bytes: number, now: number): number
  /** A frame of a flow has come from the peer, and no other with it. */
  cameAlone(peer: number, now: number): void
  /** There is no session any more; flows to the peer may wait for the next one. */
  sessionLost(peer: number): void
  /** No session could be had. */
  sessionFailed(peer: number, now: number): void
  /** The peer is gone for good, or as good as: its flows end. */
  peerLost(peer: number, now: number): void
  /** Peers that flows are bound to. */
  peersInUse(): ReadonlySet<number>
  /** A message on one of the channels that are not about peers. */
  message(peer: number, channel: number, body: Uint8Array, now: number): void
  /** This host is a member no more; as {@link HostEvents.expelled}. */
  expelled(what: 'revoked' | 'expired', detail: string, now: number): void
  /** Peers agree that they see this host there, behind a NAT, and nowhere else but at its own addresses. */
  seenAt(locators: readonly Locator[], now: number): void
  drop(reason: DropReason): void
  /** A clear frame was dropped, which the session layer has counted. */
  refused(reason: DropReason): void
}

export interface PeeringComponents {
  readonly host: HostComponents
  readonly clock: HostClock
  readonly turns: Turns
  readonly peers: PeerTable
  readonly members: MemberTrust
  readonly directory: Directory
  readonly dataPath: DataPath
  readonly drops: DropCounters
  readonly sink: PeeringSink
}
