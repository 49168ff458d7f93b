// What a host is made of, what can be chosen about it, and what it tells the process around it.

import type { Authority } from '../crypto/authority.js'
import type { FrameCodec } from '../crypto/codec.js'
import type { HostKey } from '../crypto/host-key.js'
import type { Primitives } from '../crypto/primitives.js'
import type { TrustStore } from '../crypto/trust.js'
import type { FlowOptions } from '../flow/flow-options.js'
import type { Liveness } from '../path/prober-sink.js'
import type { ProberOptions } from '../path/prober-options.js'
import type { SavedMappings } from '../service/addresses.js'
import type { DirectoryOptions } from '../service/directory.js'
import type { Memory } from '../service/growing-words.js'
import type { SequenceSource } from '../service/own-records.js'
import type { JoinResponder, SessionOptions } from '../session/session-table.js'
import type { DropReason } from '../wire/drop.js'
import type { HostId } from '../wire/ids.js'
import type { HostIo } from './data-path.js'
import type { LocalEndpoints } from './host-environment.js'
import type { FailureDetectorOptions } from './failure-detector.js'
import type { IdleSessionsOptions } from './idle-sessions.js'
import type { IssuingOptions } from './issuing-options.js'
import type { HostMove } from './move-notes.js'
import type { NeighboursOptions } from './neighbours.js'

export interface HostComponents {
  readonly primitives: Primitives
  readonly codec: FrameCodec
  /** Lanes above the first, whose queues and sockets are other threads' work. */
  readonly lanes?: HostLanes
  readonly hostKey: HostKey
  /** With a membership of this host. */
  readonly trust: TrustStore
  readonly io: HostIo
  readonly events: HostEvents
  readonly endpoints: LocalEndpoints
  /** Memory of the flow table: FlowMemory.bytesFor(flowCapacity, peerCapacity) bytes, zeroed unless there is something to {@link HostOptions.restore}. */
  readonly flowMemory: ArrayBufferLike
  /** Memory of tables that grow. Default: as any other. */
  readonly tableMemory?: Memory
  /** Seconds since the epoch. */
  readonly wallNow: () => number
  /** Uniform in [0, 1). */
  readonly random: () => number
  readonly nextStamp: () => bigint
  readonly sequence: SequenceSource
  readonly issuer?: JoinResponder
  /** Where the authority's key is on this host: it renews its own issuer certificate. */
  readonly authority?: Authority | undefined
  /** Largest underlay packet to the address that needs no fragments as far as this host can know, IP header included; 0: not known. */
  readonly pathMtu?: (address: Uint8Array) => number
  /** Whether this host has a route to the address. Default: it has. */
  readonly isRouted?: (address: Uint8Array) => boolean
}

export interface HostLanes {
  readonly codecs: readonly FrameCodec[]
  /** Where the lanes' sockets listen. */
  readonly ports: readonly number[]
  /** Memory of the address records: PeerTable.recordBytes(peerCapacity) bytes, zeroed. */
  readonly records: Uint8Array
  /** Waits a moment, until what was decided upon has left; false: it has not, or something is being decided upon. */
  settle(): boolean
}

export const PEER_CAPACITY = 4_096

export interface HostOptions {
  readonly flowCapacity: number
  /**
   * The flow memory is as a former process of this host has left it, in good order or not: its flows go on. What does not fit is thrown away, see `flows.restored`. Time must
   * have gone on meanwhile: both processes tell it by the same clock. `later`: it is that process's still, and is not touched before {@link Host.takeFlows}.
   */
  readonly restore?: boolean | 'later'
  /** What this host has is still being restored, at most until then, ms; {@link Host.loaded} ends it before. Default: it is not. */
  readonly loadingUntil?: number
  /** Default: {@link PEER_CAPACITY}. */
  readonly peerCapacity?: number
  readonly session?: SessionOptions
  readonly prober?: Partial<ProberOptions>
  readonly pathMtu?: Partial<PathMtuOptions>
  readonly flow?: Partial<FlowOptions>
  readonly directory?: Partial<DirectoryOptions>
  readonly neighbours?: Partial<NeighboursOptions>
  readonly idleSessions?: Partial<IdleSessionsOptions>
  readonly detector?: Partial<FailureDetectorOptions>
  /** Address mappings of before a restart. */
  readonly mappings?: SavedMappings | undefined
  readonly issuing?: Partial<IssuingOptions>
  /** Name claims of before a restart: {@link Host.exportClaims}. */
  readonly claims?: Uint8Array | undefined
}

/** What the process around the host wants to know. Called from inside the host's methods. */
export interface HostEvents {
  /** Address mappings changed: to disk before they are told to anybody. */
  mappingChanged(): void
  /** The kernel's local addresses are to be brought in line with Addresses.localAddresses. */
  localAddressesChanged(): void
  /** A host's session came up or ended, its liveness changed, or its frames go another way. */
  peer(
    host: HostId,
    what: 'up' | 'lost' | 'failed' | 'moved' | 'settled' | Liveness,
    detail: string,
    move?: HostMove,
  ): void
  /** The revocation list grew: to disk. */
  revocationsChanged(): void
  /** Rules for names have come: to disk. */
  namesRuled(): void
  /** Host.exportClaims gives something else now: to disk. */
  claimsChanged(): void
  /** The trust store has a new membership or issuer certificate of this host: to disk before anybody is told. */
  renewed(what: 'membership' | 'certificate'): void
  /** This host's membership could not be renewed; one sentence without a full stop. */
  renewalFailed(detail: string): void
  /** This host is a member no more: revoked, it offers nothing and connects to nobody; expired, it begins nothing. Told once. One sentence without a full stop. */
  expelled(what: 'revoked' | 'expired', detail: string): void
  /** A packet was dropped; only while `wantsDrops`. Bytes are only valid during the call. */
  dropped(reason: DropReason, packet: Uint8Array | undefined): void
  /** A locator of a host was proven: worth remembering over a restart. */
  remember(): void
}
import type { PathMtuOptions } from '../path/path-mtu.js'
