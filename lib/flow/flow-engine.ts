import type { DatagramBatch, OpenBatch, PacketBatch, SealBatch } from '../wire/batch.js'
import { Protocol } from '../wire/constants.js'
import type { ServiceId } from '../wire/ids.js'
import { CloseCode } from '../wire/open.js'
import { Accepting } from './accepting.js'
import { Closing } from './closing.js'
import { Confirmation } from './confirmation.js'
import type { FlowEnvironment } from './environment.js'
import { Expiry } from './expiry.js'
import { FlowCore, seconds } from './flow-core.js'
import type { FlowCounters } from './flow-counters.js'
import type { FlowCounts } from './flow-counts.js'
import type { PeerTraffic } from './peer-traffic.js'
import { formatFlowId } from './flow-id.js'
import type { FlowMemory } from './flow-memory.js'
import { defaultFlowOptions, type FlowOptions } from './flow-options.js'
import type { FlowSnapshot } from './flow-snapshot.js'
import { Count, FlowFlag, FlowState, ROW_WORDS, Row, type FlowTable } from './flow-table.js'
import { FrameSender } from './frame-sender.js'
import { Inbound } from './inbound.js'
import { Opening } from './opening.js'
import { Outbound } from './outbound.js'
import { OwnKernel } from './own-kernel.js'
import { Reunion } from './reunion.js'
import { RestoredFlows, restoreFlows } from './restored-flows.js'
import { WaitingKind } from './waiting-ring.js'

export interface FlowComponents {
  /** With what a former process has left, or new; not opened yet. */
  readonly memory: FlowMemory
  readonly env: FlowEnvironment
}

/**
 * The data path of a host: what its programs and its peers send, by flows. Owns the flow table; asks the host for the rest by its environment, whose
 * functions are called from inside the calls below. Only `env.other` may call back into the engine.
 */
export class FlowEngine {
  readonly table: FlowTable
  #restored = new RestoredFlows(undefined)
  readonly #core: FlowCore
  readonly #sender: FrameSender
  readonly #kernel: OwnKernel
  readonly #opening: Opening
  readonly #closing: Closing
  readonly #expiry: Expiry
  readonly #confirmation: Confirmation
  readonly #reunion: Reunion
  readonly #outbound: Outbound
  readonly #inbound: Inbound

  constructor({ memory, env }: FlowComponents, options: Partial<FlowOptions> = {}) {
    const core = new FlowCore(memory, env, { ...defaultFlowOptions, ...options })
    const sender = new FrameSender(core)
    const kernel = new OwnKernel(core)
    const opening = new Opening(core, sender, kernel)
    const accepting = new Accepting(core, sender)
    const confirmation = new Confirmation(core, sender)
    const reunion = new Reunion(core, kernel, confirmation)
    const closing = new Closing(core, sender, kernel, opening, reunion)
    this.table = core.table
    this.#core = core
    this.#sender = sender
    this.#kernel = kernel
    this.#opening = opening
    this.#closing = closing
    this.#expiry = new Expiry(core, kernel, confirmation)
    this.#confirmation = confirmation
    this.#reunion = reunion
    this.#outbound = new Outbound(core, sender, kernel, opening, accepting, closing)
    this.#inbound = new Inbound(core, sender, kernel, opening, accepting, closing, confirmation)
  }

  /** The memory is this engine's from now on. Once, before anything else. `restore`: what a former process has left there is taken up, see {@link restored}; else it must be zeroed. */
  open(restore: boolean): void {
    this.#core.memory.open(restore)
    this.#restored = restoreFlows(this.#core)
  }

  /** What has become of the flows of a former process. */
  get restored(): RestoredFlows {
    return this.#restored
  }

  get counters(): FlowCounters {
    return this.#core.counters
  }

  /** Flows there are. */
  get counts(): Readonly<Pick<FlowCounts, 'open' | 'tcp' | 'udp' | 'icmp'>> {
    return this.#core.counts
  }

  /** What had passed in flows with each peer that this process has forgotten. A copy, to which those that are there may be added. */
  get endedTraffic(): PeerTraffic {
    return this.#core.traffic.copy()
  }

  /** Packets and frames that wait for a way to their peer, and the bytes that they take. */
  get waiting(): { readonly count: number; readonly bytes: number } {
    const { count, bytes } = this.#sender.waiting
    return { count, bytes }
  }

  /** Flows there are to the service's instance on a host, by its peer index. */
  openTo(service: ServiceId, peer: number): number {
    const number = this.#core.services.find(service)
    return number === undefined ? 0 : this.#core.counts.to(number, peer)
  }

  /**
   * Packets read from the TUN become entries of `seal`, which must lie over the same bytes (`sealBatch(batch.data, entries)`), be empty
   * and have room for `batch.count` entries. The batch's packets are consumed. Seal and send, then the buffer is free again.
   */
  fromTun(batch: PacketBatch, seal: SealBatch, now: number): void {
    this.#core.now = now
    this.#outbound.run(batch, seal, now)
    this.#loop(now)
  }

  /**
   * Opened frames become packets of `tunOut`, which must lie over the same bytes as `open`
   * (`{ data: open.data, view: open.view, desc: new Int32Array(entries * PACKET_WORDS), count: 0, used: 0 }`), be empty and have room for `open.count`
   * entries. `datagrams` is the batch they came from (class of the outer header). `lanePeer`: peer index by the low 16 bits of our lane index, -1: none.
   * Entries with status CLEAR are skipped: they are the session layer's. Failed ones are counted by `env.drop`.
   */
  fromPeers(open: OpenBatch, datagrams: DatagramBatch, lanePeer: Int32Array, tunOut: PacketBatch, now: number): void {
    this.#core.now = now
    this.#inbound.run(open, datagrams, lanePeer, tunOut, now)
    this.#loop(now)
  }

  /** Flows of a former process go on from now on: none is younger than that, and the idle ones are remembered as if they had been opened here. */
  resume(now: number): void {
    for (const rows of this.restored.rows.values()) {
      for (const row of rows) {
        notAfter(this.table, row, seconds(now))
        this.#opening.remember(row, now)
      }
    }
    this.#loop(now)
  }

  /** A session and a path to the peer are there (sealSlot and addressSlot are set): what waited is sent, by `env.sendFrame` and `env.sendBatch`, and what was not asked is. Harmless when there is nothing. */
  sessionUp(peer: number, now: number): void {
    this.sendWaiting(peer, Infinity, now)
    if (this.#sender.connected(peer) && this.#confirmation.takeUnasked(peer)) this.#reunion.begin(peer, now)
  }

  /** As {@link sessionUp}, the oldest first and no more than so many bytes of datagrams. Returns how many they were at most. */
  sendWaiting(peer: number, bytes: number, now: number): number {
    this.#core.now = now
    const spent = this.#sender.flush(
      peer,
      (slot, generation) => this.#lives(slot, generation),
      (packets, seal) => this.#outbound.run(packets, seal, now),
      bytes,
    )
    this.#loop(now)
    return spent
  }

  /** The peer is there again after it was away, or has begun anew: flows with it go on at once, and those that it does not have any more end. */
  reunite(peer: number, now: number): void {
    this.#reunion.begin(peer, now)
  }

  /** The handshake was given up: flows that are being opened go to their next candidate. Established ones stay. */
  sessionFailed(peer: number, now: number): void {
    this.#core.now = now
    // An older session may live on.
    if (this.#core.peers.sealSlot[peer]! < 0)
      this.#sender.waiting.dropAll(
        peer,
        'session-timeout',
        ({ kind, slot, generation }) => kind === WaitingKind.packet || this.#lives(slot, generation),
      )
    this.#opening.sessionFailed(peer, now)
    this.#loop(now)
  }

  /** More is known of services: first packets held by DELAY rules are tried again. */
  release(now: number): void {
    this.#core.now = now
    this.#opening.release(now, this.#outbound.carry)
    this.#loop(now)
  }

  /** The peer is gone for good: its flows end here, with a reset to the own kernel; those being opened go elsewhere. */
  peerLost(peer: number, now: number): void {
    this.sessionFailed(peer, now)
    this.#closing.peerLost(peer)
    this.#confirmation.takeUnasked(peer)
    this.#inbound.pieces.forget(peer)
    this.#loop(now)
  }

  /**
   * Ends the flows for which `denied` says so (a policy or a revocation): CLOSE to the peer, reset to the own kernel. Returns their number. `rows`: those of them that are asked
   * about, else all.
   */
  cut(denied: (flow: FlowSnapshot) => boolean, now: number, rows?: readonly number[]): number {
    this.#core.now = now
    let n = 0
    const count = rows?.length ?? this.table.highWater
    for (let i = 0; i < count; i++) {
      const row = rows?.[i] ?? i
      const flow = this.flow(row)
      if (flow === undefined || !denied(flow)) continue
      this.#closing.end(row, CloseCode.denied)
      n++
    }
    this.#loop(now)
    return n
  }

  /** Shutdown: CLOSE to all peers, resets to the own kernel, by `env.sendFrame` and `env.writePacket`: flush both before leaving. */
  closeAll(now: number): void {
    this.#core.now = now
    this.#closing.closeAll()
    this.#loop(now)
  }

  /** When {@link handleTimeout} is to be called next, ms; Infinity: not before something else happens. May change with each call into the engine. */
  nextTimeout(): number {
    return Math.min(
      this.#opening.nextTimeout,
      this.#expiry.nextTimeout,
      this.#reunion.nextTimeout,
      this.#kernel.nextTimeout,
      this.#sender.waiting.next,
      this.#outbound.reassembler.nextTimeout(),
      this.#inbound.pieces.nextTimeout(),
    )
  }

  handleTimeout(now: number): void {
    this.#core.now = now
    this.#opening.handleTimeout(now, this.#outbound.carry)
    this.#expiry.handleTimeout(now)
    this.#reunion.handleTimeout(now)
    this.#kernel.handleTimeout(now)
    this.#sender.waiting.expire(now)
    this.#outbound.reassembler.expire(now)
    this.#inbound.pieces.expire(now)
    this.#loop(now)
  }

  /** A snapshot of each flow, in no particular order. */
  *flows(filter: (flow: FlowSnapshot) => boolean = () => true): Generator<FlowSnapshot, void, undefined> {
    for (let row = 0; row < this.table.highWater; row++) {
      const flow = this.flow(row)
      if (flow !== undefined && filter(flow)) yield flow
    }
  }

  /** Snapshot of the flow in a row; undefined: the row is free. */
  flow(row: number): FlowSnapshot | undefined {
    const { table } = this
    const { words, doubles } = table
    const b = row * ROW_WORDS
    const state = stateName(words[b + Row.state]!)
    if (state === undefined) return undefined
    const remoteGeneration = words[b + Row.remoteGeneration]!
    const dialled = words[b + Row.dialled]!
    const protocol = table.protocol(row)
    return {
      id: formatFlowId(row, words[b + Row.generation]!),
      remoteId: remoteGeneration === 0 ? undefined : formatFlowId(words[b + Row.remoteSlot]!, remoteGeneration),
      state,
      role: table.has(row, FlowFlag.acceptor) ? 'acceptor' : 'initiator',
      protocol: protocol === Protocol.tcp ? 'tcp' : protocol === Protocol.udp ? 'udp' : 'icmp',
      family: table.family(row),
      local: table.address(row, Row.local),
      remote: table.address(row, Row.remote),
      localPort: table.localPort(row),
      remotePort: table.remotePort(row),
      dialledPort: dialled >>> 16,
      clientPort: dialled & 0xffff,
      peer: words[b + Row.peer]!,
      service: this.#core.services.service(words[b + Row.service]!),
      since: words[b + Row.since]!,
      lastOut: words[b + Row.lastOut]!,
      lastIn: words[b + Row.lastIn]!,
      packetsOut: doubles[b / 2 + Count.packetsOut]!,
      bytesOut: doubles[b / 2 + Count.bytesOut]!,
      packetsIn: doubles[b / 2 + Count.packetsIn]!,
      bytesIn: doubles[b / 2 + Count.bytesIn]!,
      bindingSequence: words[b + Row.bindingSequence]!,
    }
  }

  #lives(slot: number, generation: number): boolean {
    const known = this.table.get(slot, Row.generation) === generation
    return (known && this.table.get(slot, Row.state) >= FlowState.halfOpen) || this.#opening.wants(slot, generation)
  }

  /** Ends every entry: frames to this host itself, until there are no more, since each may answer with others. */
  #loop(now: number): void {
    const { loopback } = this.#sender
    for (let i = 0; i < loopback.length; i++) this.#inbound.loopback(loopback[i]!, now)
    loopback.length = 0
    this.#expiry.wake(now)
  }
}

/** Times that lie ahead are another clock's, or nonsense. */
function notAfter(table: FlowTable, row: number, second: number): void {
  for (const field of [Row.lastOut, Row.lastIn, Row.confirmed])
    if (table.get(row, field) > second) table.set(row, field, second)
}

function stateName(state: number): FlowSnapshot['state'] | undefined {
  switch (state) {
    case FlowState.opening:
      return 'opening'
    case FlowState.halfOpen:
      return 'half-open'
    case FlowState.established:
      return 'established'
    case FlowState.closing:
      return 'closing'
    default:
      return undefined
  }
}
