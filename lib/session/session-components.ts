import type { AeadName, FrameCodec } from '../crypto/codec.js'
import type { HostKey } from '../crypto/host-key.js'
import type { Primitives } from '../crypto/primitives.js'
import type { PeerTable } from '../path/peers.js'
import type { DropCounters, DropReason } from '../wire/drop.js'
import type { HandshakeView } from '../wire/handshake.js'
import type { NetworkId } from '../wire/ids.js'
import type { GuardOptions } from './guard.js'
import type { MembershipVerifier } from './identity.js'
import type { LivenessOptions } from './liveness.js'
import type { ScheduleOptions } from './schedule.js'
import type { SessionSink } from './session-sink.js'

/** Answers join datagrams that have passed the guard: lib/session/join-issuer.ts. */
export interface JoinResponder {
  answer(view: HandshakeView, address: Uint8Array, now: number, wallNow: number): DropReason | undefined
}

export interface SessionComponents {
  readonly primitives: Primitives
  readonly codec: FrameCodec
  /** Codecs of this host's lanes above the first. */
  readonly laneCodecs?: readonly FrameCodec[]
  /** Their UDP ports. */
  readonly lanePorts?: readonly number[]
  readonly hostKey: HostKey
  readonly network: NetworkId
  /** Our own membership, as signed. */
  readonly membership: Uint8Array
  readonly trust: MembershipVerifier
  readonly peers: PeerTable
  readonly drops: DropCounters
  readonly sink: SessionSink
  /** Each greater than all before, over restarts too (below 2^64). */
  readonly nextStamp: () => bigint
  /** Left out: join datagrams are dropped. */
  readonly issuer?: JoinResponder
}

export interface SessionOptions extends GuardOptions, ScheduleOptions, LivenessOptions {
  readonly rekeyAfterMs?: number
  readonly rekeyAfterFrames?: number
  /** Sessions whose initiators have not proven themselves, over all peers. */
  readonly maxUnconfirmed?: number
}

/** For status output; there are no keys in it. */
export interface SessionInfo {
  readonly connected: boolean
  readonly connecting: boolean
  readonly confirmed: boolean
  readonly aead?: AeadName
  readonly role?: 'initiator' | 'responder'
  readonly ageMs?: number
  readonly lanes?: number
  readonly framesSent?: number
  readonly entriesReceived?: number
  readonly generation?: number
  readonly rekeys: number
}
