import type { PeerTable } from '../path/peers.js'
import type { AddressBook, DialledTarget, Family } from '../service/address-book.js'
import type { OpenBatch, SealBatch } from '../wire/batch.js'
import type { DropReason } from '../wire/drop.js'
import type { ServiceId } from '../wire/ids.js'

export type { AddressBook, DialledTarget, Family }

/** One place a flow may be bound to. */
export interface Candidate {
  readonly peer: number
  /** The instance's service; undefined: the host itself (echo only). */
  readonly service: ServiceId | undefined
  /** Not heard of lately: ask the next candidate shortly after. */
  readonly doubtful: boolean
  /** It may know who has the service, and need not have it itself. */
  readonly resolver?: boolean
  /** The program wants this host and no other: it is not followed to where it sends us. */
  readonly pinned?: boolean
  /** Hints that led there, one after the other. */
  readonly hops?: number
}

/** Why an OPEN is not taken here although it is not refused. */
export interface NotHere {
  /** moved: the hint says where else to ask. loading: ask again. */
  readonly notHere: 'moved' | 'loading'
  /** See lib/path/hint.ts. */
  readonly hint?: Uint8Array
}

/** Where a flow is delivered on this host. */
export interface LocalEndpoint {
  readonly family: Family
  /** Destination written to the TUN (served, loopback or self address), network order. */
  readonly address: Uint8Array
  /** The server's port (0 for echo). */
  readonly port: number
}

/** What the flow layer asks of the host it runs in. Implemented by lib/host; by a stub in unit tests. */
export interface FlowEnvironment {
  readonly peers: PeerTable
  readonly addresses: AddressBook
  /**
   * Instances for a new flow in the order they are to be tried; a reason when there is none or policy forbids;
   * 'hold' when a DELAY rule says that the answer may still come: `FlowEngine.release` asks again. protocol 1 stands for echo of both families.
   */
  candidates(
    target: DialledTarget,
    protocol: number,
    port: number,
    now: number,
  ): readonly Candidate[] | DropReason | 'hold'
  /** A first packet for the target is held: whoever may know where it is to be asked. */
  ask(target: DialledTarget, protocol: number, port: number, now: number): void
  /** The candidate does not have the service and gave a hint, borrowed: whom to ask instead. */
  moved(candidate: Candidate, hint: Uint8Array, now: number): readonly Candidate[]
  /** This host has been started a moment ago and does not know yet what it has. */
  loading(now: number): boolean
  /** How a try ended that began at `since`, for choice and health: 'refused' by the server's kernel, 'silent' after its time. */
  outcome(candidate: Candidate, outcome: 'answered' | 'refused' | 'silent', since: number, now: number): void
  /** A flow that this host's programs have to an instance is there again after a restart. */
  flowRestored(peer: number, service: ServiceId | undefined): void
  /** A flow that this host's programs had to an instance, once answered, is over. For choice: how many there are. */
  flowEnded(peer: number, service: ServiceId | undefined): void
  /** Where an OPEN from `peer` for (service, protocol, port as dialled) goes here; a reason when not offered, unhealthy or denied. service undefined: this host itself. */
  localEndpoint(
    peer: number,
    service: ServiceId | undefined,
    protocol: number,
    port: number,
    now: number,
  ): LocalEndpoint | NotHere | DropReason
  /** Start or hasten a session with the peer; `FlowEngine.sessionUp` is called when it is there. */
  wantSession(peer: number, now: number): void
  /** The own kernel sends again what it has sent to the peer: it may not have arrived. */
  retransmitted(peer: number, now: number): void
  /** The entry of the batch is not the flow layer's (control, probe, probe echo, empty). */
  other(batch: OpenBatch, entry: number, peer: number, now: number): void
  /** One frame to a peer outside the fast path: inner header and all. Copied. False: no session or path, the frame was dropped and counted. */
  sendFrame(peer: number, plaintext: Uint8Array, trafficClass: number): boolean
  /** Entries to be sealed and sent, of packets that waited: in memory of the caller, whose it is again afterwards. */
  sendBatch(seal: SealBatch, now: number): void
  /** One packet to the own kernel outside the fast path: vnet header and all. Copied. */
  writePacket(packet: Uint8Array): void
  /** Packets or frames, `n` in number, were dropped; `packet`, the one if it is one, is only valid during the call. Counts them. */
  drop(reason: DropReason, packet: Uint8Array | undefined, n: number): void
  /** Something unforeseen was thrown over a packet or frame, which is counted; the others of its batch are decided upon all the same. */
  fault(error: unknown): void
}
