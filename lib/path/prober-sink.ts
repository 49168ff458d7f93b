import type { DropReason } from '../wire/drop.js'
import type { PathReason, PathState } from './path.js'

/** Of a peer: probes are answered; one has been unanswered for long; nothing is heard of it any more. */
export type Liveness = 'alive' | 'doubtful' | 'dead'

/** Frames of a peer go another way from now on. */
export interface PathCommit {
  readonly peer: number
  /** Address slots; `from`: -1 when they had none. The same twice: where from they go has changed, as the kernel chooses it. */
  readonly from: number
  readonly to: number
  readonly reason: PathReason
  /** When anything last came by the old way, ms; -Infinity: nothing has. */
  readonly heardAt: number
  /** What went the old way lately may be lost. */
  readonly lossy: boolean
  /** What went the old way before then has arrived, as far as anybody knows; Infinity: there was no other way. */
  readonly reachedAt: number
  /** When the probe was sent by which the new way was proven, ms: since then it carries what goes there; Infinity: no probe has. */
  readonly openSince: number
}

export interface ProberSink {
  /**
   * Seal and send a probe frame to this address slot, as a datagram of `bytes`, 0: as short as it can be. `heardAgo`: how long ago the peer was last heard by the way that is
   * left for this one and works, ms, for it to know; left out: that is not said.
   */
  sendProbe(peer: number, addressSlot: number, token: Uint8Array, bytes?: number, heardAgo?: number): void
  /** What waits for the peer, or went where it is no more, may go to this address slot, up to so many bytes of datagrams. Returns how many have. */
  spend(peer: number, addressSlot: number, bytes: number, now: number): number
  /** The peer's liveness changed. */
  liveness(peer: number, state: Liveness, now: number): void
  /** Frames of the peer go another way now; `PeerTable.pathSlot` says so already. */
  committed(commit: PathCommit, now: number): void
  /** Frames of the peer's flows wait from now on: `PeerTable.addressSlot` says so already. */
  held(peer: number, now: number): void
  /** Frames of the peer's flows had to wait, and go again: `PeerTable.addressSlot` says so already. */
  released(peer: number, now: number): void
  /** The first frame has come by the way to which the peer's frames were moved: ms since the last one by the old way. */
  settled(commit: PathCommit, stallMs: number): void
  /** There is no path by this address slot any more, which was not in use. */
  gone(peer: number, addressSlot: number): void
  drop(reason: DropReason): void
}

/** What is known of a path, for display. */
export interface PathView {
  readonly slot: number
  readonly state: PathState
  readonly inUse: boolean
  /** Since when frames go there, the last time that they began to; -Infinity: they never have. */
  readonly usedSince: number
  /** Own address to which what comes from there comes, 16 bytes; undefined: nothing has come yet. */
  readonly localSeen: Uint8Array | undefined
  /** ms; 0: not measured. */
  readonly rttMs: number
  readonly rttVarMs: number
  /** Share of the last probes. */
  readonly loss: number
  readonly provenAt: number
  readonly reason: PathReason
  readonly changedAt: number
  readonly changes: number
}
