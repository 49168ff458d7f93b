// A host, whole and pure: what goes in is what the devices read and how late it is, what comes out goes to HostIo and HostEvents.
//
//   TUN ──▶ DataPath ──▶ FlowEngine ──▶ DataPath ──▶ underlay         records  ◀──▶ Directory ──▶ Catalogue ──▶ Choice
//   underlay ──▶ DataPath ─┬▶ FlowEngine ──▶ TUN                      peers    ◀──▶ SessionTable, PathProber, Neighbours
//                          └▶ handshakes, probes, control messages

import type { FrameCodec } from '../crypto/codec.js'
import type { HostKey } from '../crypto/host-key.js'
import type { Primitives } from '../crypto/primitives.js'
import type { TrustStore } from '../crypto/trust.js'
import { FlowEngine } from '../flow/flow-engine.js'
import type { FlowOptions } from '../flow/flow-options.js'
import { FlowTable } from '../flow/flow-table.js'
import { Generations } from '../flow/flow-id.js'
import { decodeLocator, type Locator } from '../path/locator.js'
import { SELF, PeerTable } from '../path/peers.js'
import { PathProber, type Liveness, type ProberOptions } from '../path/prober.js'
import { Addresses, type SavedMappings } from '../service/addresses.js'
import { Catalogue } from '../service/catalogue.js'
import { Choice } from '../service/choice.js'
import { Directory, directoryDefaults, type DirectoryOptions } from '../service/directory.js'
import type { SequenceSource } from '../service/own-records.js'
import type { Policy } from '../service/policy.js'
import type { Registration } from '../service/registration.js'
import { MemberTrust } from '../service/trust.js'
import { SessionTable, type JoinResponder, type SessionOptions } from '../session/session-table.js'
import type { Established } from '../session/session-sink.js'
import {
  ADDRESS_RECORD,
  CLEAR,
  Open,
  OPENED,
  OPEN_WORDS,
  type DatagramBatch,
  type OpenBatch,
  type PacketBatch,
  type SealBatch,
} from '../wire/batch.js'
import { INNER_HEADER, Kind, Protocol } from '../wire/constants.js'
import { DropCounters, type DropReason } from '../wire/drop.js'
import { fromHex, type HostId, type NetworkId, type ServiceId } from '../wire/ids.js'
import { innerKind, writeInnerHeader } from '../wire/inner.js'
import { Channel, ControlChannel } from './control-channel.js'
import { DataPath, type HostIo } from './data-path.js'
import { HostEnvironment, type LocalEndpoints } from './host-environment.js'
import { Neighbours, type NeighboursOptions } from './neighbours.js'

export interface HostComponents {
  readonly primitives: Primitives
  readonly codec: FrameCodec
  readonly hostKey: HostKey
  readonly trust: TrustStore
  readonly io: HostIo
  readonly events: HostEvents
  /** Where flows are delivered on this host; the daemon knows what listens. */
  readonly endpoints: LocalEndpoints
  /** Memory of the flow table: FlowTable.bytesFor(flowCapacity), zeroed or what a former process left. */
  readonly flowMemory: ArrayBufferLike
  /** Seconds since the epoch. */
  readonly wallNow: () => number
  /** Uniform in [0, 1). */
  readonly random: () => number
  readonly nextStamp: () => bigint
  readonly sequence: SequenceSource
  readonly issuer?: JoinResponder
}

export interface HostOptions {
  readonly flowCapacity: number
  readonly peerCapacity?: number
  readonly session?: SessionOptions
  readonly prober?: Partial<ProberOptions>
  readonly flow?: Partial<FlowOptions>
  readonly directory?: Partial<DirectoryOptions>
  readonly neighbours?: Partial<NeighboursOptions>
  readonly mappings?: SavedMappings | undefined
}

/** What the process around the host wants to know. Called from inside the host's methods. */
export interface HostEvents {
  /** Address mappings changed: to disk before they are told to anybody. */
  mappingChanged(): void
  /** The kernel's local addresses are to be brought in line with Addresses.localAddresses. */
  localAddressesChanged(): void
  /** A host's session came up, went, or its liveness changed. */
  peer(host: HostId, what: 'up' | 'lost' | 'failed' | Liveness | 'moved', detail: string): void
  /** The revocation list grew: to disk. */
  revocationsChanged(): void
  /** A packet was dropped; only while `wantsDrops`. */
  dropped(reason: DropReason, packet: Uint8Array | undefined, now: number): void
}

const PROBE_TOKEN = 16
const SETTLE_EVERY_MS = 1_000

export class Host {
  readonly id: HostId
  readonly peers: PeerTable
  readonly drops = new DropCounters()
  readonly dataPath: DataPath
  readonly sessions: SessionTable
  readonly prober: PathProber
  readonly control: ControlChannel
  readonly members: MemberTrust
  readonly directory: Directory
  readonly catalogue: Catalogue
  readonly addresses: Addresses
  readonly choice: Choice
  readonly flows: FlowEngine
  readonly neighbours: Neighbours
  readonly environment: HostEnvironment
  /** Set while a dump wants dropped packets. */
  wantsDrops = false
  readonly #c: HostComponents
  readonly #started: number
  #settleAt = 0
  #now = 0
}
