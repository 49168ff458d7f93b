import type { AeadName } from '../crypto/codec.js'
import type { Membership } from '../crypto/membership.js'
import type { DropReason } from '../wire/drop.js'

/** A new session, as `established` reports it. */
export interface Established {
  readonly membership: Membership
  /** Address record the handshake's message came from; the receiver's to keep. */
  readonly address: Uint8Array
  /** Whether we were the initiator. */
  readonly initiator: boolean
  /** Whether it takes the place of another session with the peer. */
  readonly rekey: boolean
  /** The other end has begun anew, or was away: what was sent to it before may be lost. */
  readonly afresh: boolean
  readonly aead: AeadName
  /** Round trip of the handshake, ms; initiator only. */
  readonly rttMs: number | undefined
}

/** Why a session ended: it became too old, neither end needs it, or what `dropPeer` said. */
export type LostReason = DropReason | 'expired' | 'idle'
/** Why an initiation ended without a session. 'no-answer': also what a peer does that refuses us. */
export type FailReason = DropReason | 'no-answer' | 'no-address'

/** What the session layer wants of its host. Calls come from inside `receive`, `transportSeen`, `connect` and `handleTimeout`; it may be called back from them. */
export interface SessionSink {
  /** One clear datagram. The bytes are only valid during the call. */
  sendDatagram(bytes: Uint8Array, address: Uint8Array): void
  /** Frames may be sent to the peer from now on; PeerTable.sealSlot is written. A session that we initiated the peer only uses when it has a frame of it: one is to be sent at once, as by {@link proveAlive}. */
  established(peer: number, session: Established, now: number): void
  /** The peer has the current session too; once a session, after `established`. */
  confirmed(peer: number, now: number): void
  /** There is no session with the peer any more. */
  lost(peer: number, reason: LostReason, now: number): void
  /** An initiation has ended without a session; an older session may still live. */
  failed(peer: number, reason: FailReason, now: number): void
  /** Send the peer one empty frame now, on the session in PeerTable.sealSlot. It does not count as {@link SessionTable.dataSent}. */
  proveAlive(peer: number, now: number): void
}
