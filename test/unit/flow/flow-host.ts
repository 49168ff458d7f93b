// A host around a FlowEngine for tests: its own kernel is an array of packets written, its underlay an array of frames sent. Frames are not sealed;
// a super-frame crosses as the codec at the other end would have put it together again.

import type {
  AddressBook,
  Candidate,
  DialledTarget,
  Family,
  FlowEnvironment,
  LocalEndpoint,
  NotHere,
} from '../../../lib/flow/environment.js'
import { FlowEngine } from '../../../lib/flow/flow-engine.js'
import { Generations } from '../../../lib/flow/flow-id.js'
import type { FlowOptions } from '../../../lib/flow/flow-options.js'
import { FlowMemory } from '../../../lib/flow/flow-memory.js'
import { FlowState, Row } from '../../../lib/flow/flow-table.js'
import { isWhole } from '../../../lib/flow/row-checksum.js'
import { encodeLocator } from '../../../lib/path/locator.js'
import { Hold, PeerTable, SELF } from '../../../lib/path/peers.js'
import {
  datagramBatch,
  Open,
  openBatch,
  OPEN_WORDS,
  packetBatch,
  PACKET_WORDS,
  Seal,
  SEAL_WORDS,
  sealBatch,
  type OpenBatch,
  type SealBatch,
} from '../../../lib/wire/batch.js'
import { HEADROOM } from '../../../lib/wire/constants.js'
import type { DropReason } from '../../../lib/wire/drop.js'
import { hostId, serviceId, type HostId, type ServiceId } from '../../../lib/wire/ids.js'
import { innerKind } from '../../../lib/wire/inner.js'

/** Addresses end in a number: of the service, or of the peer's host. */
const roles = { self: [0, 0], dialled: [64, 0xd1], served: [128, 0x5e], peer: [192, 0x9e] } as const
export type Role = keyof typeof roles

export function address(role: Role, family: Family, n: number): Uint8Array {
  const [v4, v6] = roles[role]
  if (family === 4) return Uint8Array.of(198, 18, v4, n)
  const bytes = new Uint8Array(16)
  bytes.set([0xfd, 1, 2, 3, 4, 5, v6, 0])
  bytes[15] = n
  return bytes
}
export const SELF_ADDRESS = { 4: address('self', 4, 1), 6: address('self', 6, 1) } as const

export const service = (n: number): ServiceId => serviceId(n.toString(16).padStart(64, '0'))
export const host = (n: number): HostId => hostId('a' + n.toString(16).padStart(63, '0'))
const numberOf = (id: string): number => Number.parseInt(id.slice(-2), 16)

export interface SentFrame {
  readonly peer: number
  readonly bytes: Uint8Array
  readonly kind: number
  readonly gsoKind: number
  readonly gsoSize: number
  readonly trafficClass: number
}

/** A reproducible stream of numbers in [0, 1) (mulberry32). */
export function seeded(seed: number): () => number {
  let s = seed >>> 0
  return () => {
    s = (s + 0x6d2b79f5) >>> 0
    let t = Math.imul(s ^ (s >>> 15), s | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

const PEERS = 16

export class FlowHost implements FlowEnvironment {
  readonly peers: PeerTable
  readonly addresses: AddressBook
  readonly engine: FlowEngine
  /** The flow table's memory: a host of the same number and capacity that is given it takes up the flows. */
  readonly buffer: ArrayBuffer
  /** What the engine did, in order; tests take it out. */
  written: Uint8Array[] = []
  sent: SentFrame[] = []
  drops: DropReason[] = []
  readonly faults: unknown[] = []
  outcomes: string[] = []
  wanted: number[] = []
  readonly repeated: number[] = []
  others = 0
  /** Answers of the catalogue: by dialled number. */
  readonly catalogue = new Map<number, readonly Candidate[] | DropReason | 'hold'>()
  /** By service number, -1: the host itself. */
  readonly endpoints = new Map<number, LocalEndpoint | NotHere | DropReason>()
  /** Whom a hint names, by its first byte; services that were asked about. */
  readonly hinted = new Map<number, readonly Candidate[]>()
  asked: number[] = []
  /** Addresses of peers that flows of a former process keep, by number. */
  readonly keptPeers = new Map<number, Uint8Array>()
  isLoading = false
  /** Every address of these service numbers is local here. */
  readonly serving = new Set<number>()
  readonly #lanePeer = new Int32Array(65_536).fill(-1)

  constructor(
    readonly number: number,
    options: Partial<FlowOptions> = {},
    capacity = 64,
    seed = number,
    left?: ArrayBuffer,
  ) {
    const random = seeded(seed)
    const generations = new Generations((length) => Uint8Array.from({ length }, () => Math.floor(random() * 256)))
    this.peers = new PeerTable(host(number), PEERS)
    this.addresses = {
      self: (family) => SELF_ADDRESS[family],
      dialled: (bytes, offset, family) => this.#dialled(bytes, offset, family),
      served: (id, family) => address('served', family, numberOf(id)),
      peer: (id, family) => address('peer', family, numberOf(id)),
      keepPeer: (id, kept) => void this.keptPeers.set(numberOf(id), kept),
      isPeer: (bytes, offset, family) => bytes[offset + (family === 4 ? 2 : 6)] === roles.peer[family === 4 ? 0 : 1],
      isLocal: (bytes, offset, family) => this.#isLocal(bytes, offset, family),
    }
    const shape = { flows: capacity, peers: PEERS, host: host(number) }
    this.buffer = left ?? new ArrayBuffer(FlowMemory.bytesFor(capacity, PEERS))
    const memory = new FlowMemory(this.buffer, shape, generations)
    this.engine = new FlowEngine({ memory, env: this }, options)
    this.engine.open(left !== undefined)
  }

  /** Makes the other host known, with a session and a path unless told otherwise. Returns its peer index. */
  meet(other: number, connected = true): number {
    const peer = this.peers.add(host(other))
    this.#lanePeer[peer] = peer
    this.peers.rttMs[peer] = 1
    if (connected) this.connect(peer)
    return peer
  }

  connect(peer: number): void {
    this.peers.sealSlot[peer] = peer
    this.peers.setPath(peer, this.peers.addresses.acquire(encodeLocator({ address: '192.0.2.1', port: 7000 + peer })))
    this.peers.pathMtu[peer] = 1500
  }

  /** Frames of the peer's flows wait although there is a session, or not any more. */
  hold(peer: number, on: boolean): void {
    this.peers.hold(peer, Hold.noWay, on)
  }

  disconnect(peer: number): void {
    this.peers.sealSlot[peer] = -1
  }

  /** Offers a service at an address of this host; by default its served one. */
  serve(n: number, family: Family, port: number, at = address('served', family, n)): void {
    this.serving.add(n)
    this.endpoints.set(n, { family, address: at, port })
  }

  /** Reads packets, virtio_net_hdr and all, from the TUN. */
  tun(now: number, ...packets: Uint8Array[]): void {
    const batch = packetBatch(256 * 1024, packets.length)
    for (const packet of packets) {
      const offset = (batch.used & ~3) + 6
      batch.data.set(packet, offset)
      batch.desc[batch.count * PACKET_WORDS] = offset
      batch.desc[batch.count * PACKET_WORDS + 1] = packet.length
      batch.count++
      batch.used = offset + packet.length
    }
    const seal = sealBatch(batch.data, packets.length)
    this.engine.fromTun(batch, seal, now)
    this.#checkCounts()
    this.sendBatch(seal)
  }

  sendBatch(seal: SealBatch): void {
    for (let i = 0; i < seal.count; i++) {
      const word = (field: number) => seal.desc[i * SEAL_WORDS + field]!
      const bytes = seal.data.slice(word(Seal.offset), word(Seal.offset) + word(Seal.length))
      const peer = word(Seal.sealSlot)
      this.sent.push({
        peer,
        bytes,
        kind: innerKind(bytes, 0),
        gsoKind: word(Seal.gsoKind),
        gsoSize: word(Seal.gsoSize),
        trafficClass: word(Seal.trafficClass),
      })
    }
  }

  /** Receives a frame from a peer. `outer`: traffic class of the outer header. */
  receive(now: number, peer: number, frame: Omit<SentFrame, 'peer' | 'kind' | 'trafficClass'>, outer = 0): void {
    const open = openBatch(frame.bytes.length + 2 * HEADROOM, 1)
    open.data.set(frame.bytes, HEADROOM)
    const entry = open.desc.subarray(0, OPEN_WORDS)
    entry[Open.offset] = HEADROOM
    entry[Open.length] = frame.bytes.length
    entry[Open.gsoKind] = frame.gsoKind
    entry[Open.gsoSize] = frame.gsoSize
    entry[Open.lane] = peer
    open.count = 1
    const datagrams = datagramBatch(1)
    datagrams.desc[3] = outer
    datagrams.count = 1
    this.receiveBatch(now, open, datagrams)
  }

  receiveBatch(now: number, open: OpenBatch, datagrams = datagramBatch(1)): void {
    const out = { data: open.data, view: open.view, desc: new Int32Array(64 * PACKET_WORDS), count: 0, used: 0 }
    this.engine.fromPeers(open, datagrams, this.#lanePeer, out, now)
    this.#checkCounts()
    for (let i = 0; i < out.count; i++) {
      const offset = out.desc[i * PACKET_WORDS]!
      this.written.push(out.data.slice(offset, offset + out.desc[i * PACKET_WORDS + 1]!))
    }
  }

  /** What is counted as flows come and go is what a walk over them finds; and whatever changes in a row, it is whole again. */
  #checkCounts(): void {
    const { table } = this.engine
    for (let row = 0; row < table.highWater; row++) {
      if (table.get(row, Row.state) >= FlowState.established && !isWhole(table, row))
        throw new Error(`the checksum of row ${row} does not fit`)
    }
    const walked = new Map<string, number>([
      ['open', 0],
      ['tcp', 0],
      ['udp', 0],
      ['icmp', 0],
    ])
    const add = (key: string) => walked.set(key, (walked.get(key) ?? 0) + 1)
    const instances = new Map<string, { readonly service: ServiceId; readonly peer: number }>()
    for (let peer = 0; peer < this.peers.size; peer++) {
      for (const n of [...this.catalogue.keys(), ...this.endpoints.keys()]) {
        if (n < 0) continue
        instances.set(`${service(n)}/${peer}`, { service: service(n), peer })
        walked.set(`${service(n)}/${peer}`, 0)
      }
    }
    for (const flow of this.engine.flows()) {
      add('open')
      add(flow.protocol)
      if (flow.service === undefined || (flow.role === 'acceptor' && flow.peer === SELF)) continue
      const at = flow.role === 'acceptor' ? SELF : flow.peer
      instances.set(`${flow.service}/${at}`, { service: flow.service, peer: at })
      add(`${flow.service}/${at}`)
    }
    const { open, tcp, udp, icmp } = this.engine.counts
    const counted = new Map<string, number>(Object.entries({ open, tcp, udp, icmp }))
    for (const [key, { service: id, peer }] of instances) counted.set(key, this.engine.openTo(id, peer))
    for (const [key, count] of walked) {
      if (counted.get(key) !== count) throw new Error(`${key}: ${count} flows, ${counted.get(key)} counted`)
    }
  }

  takeWritten(): Uint8Array[] {
    const { written } = this
    this.written = []
    return written
  }

  takeSent(): SentFrame[] {
    const { sent } = this
    this.sent = []
    return sent
  }

  takeDrops(): DropReason[] {
    const { drops } = this
    this.drops = []
    return drops
  }

  // ---- FlowEnvironment

  candidates(target: DialledTarget): readonly Candidate[] | DropReason | 'hold' {
    const n = target.kind === 'service' ? numberOf(target.service) : -1
    return this.catalogue.get(n) ?? 'no-such-service'
  }

  ask(target: DialledTarget): void {
    if (target.kind === 'service') this.asked.push(numberOf(target.service))
  }

  moved(_candidate: Candidate, hint: Uint8Array): readonly Candidate[] {
    return this.hinted.get(hint[0] ?? -1) ?? []
  }

  loading(): boolean {
    return this.isLoading
  }

  outcome(candidate: Candidate, outcome: 'answered' | 'refused' | 'silent'): void {
    this.outcomes.push(`${candidate.peer} ${outcome}`)
  }

  flowRestored(peer: number): void {
    this.outcomes.push(`${peer} restored`)
  }

  flowEnded(peer: number): void {
    this.outcomes.push(`${peer} ended`)
  }

  localEndpoint(_peer: number, id: ServiceId | undefined): LocalEndpoint | NotHere | DropReason {
    return this.endpoints.get(id === undefined ? -1 : numberOf(id)) ?? 'no-instance'
  }

  wantSession(peer: number): void {
    this.wanted.push(peer)
  }

  retransmitted(peer: number): void {
    this.repeated.push(peer)
  }

  other(): void {
    this.others++
  }

  sendFrame(peer: number, plaintext: Uint8Array, trafficClass: number): boolean {
    if (this.peers.sealSlot[peer]! < 0) {
      this.drops.push('no-session')
      return false
    }
    const bytes = plaintext.slice()
    this.sent.push({ peer, bytes, kind: innerKind(bytes, 0), gsoKind: 0, gsoSize: 0, trafficClass })
    return true
  }

  writePacket(packet: Uint8Array): void {
    this.written.push(packet.slice())
  }

  drop(reason: DropReason, _packet?: Uint8Array, n = 1): void {
    for (let i = 0; i < n; i++) this.drops.push(reason)
  }

  fault(error: unknown): void {
    this.faults.push(error)
  }

  #dialled(bytes: Uint8Array, offset: number, family: Family): DialledTarget | undefined {
    if (bytes[offset + (family === 4 ? 2 : 6)] !== roles.dialled[family === 4 ? 0 : 1]) return undefined
    const n = bytes[offset + (family === 4 ? 3 : 15)]!
    return n >= 200
      ? { kind: 'host', host: host(n - 200) }
      : n === 0
        ? undefined
        : { kind: 'service', service: service(n) }
  }

  #isLocal(bytes: Uint8Array, offset: number, family: Family): boolean {
    const role = bytes[offset + (family === 4 ? 2 : 6)]
    const n = bytes[offset + (family === 4 ? 3 : 15)]!
    if (role === roles.self[family === 4 ? 0 : 1]) return n === 1
    return role === roles.served[family === 4 ? 0 : 1] && this.serving.has(n)
  }
}

/** Delivers all frames between the hosts until nothing is under way. Frames for which `lost` says so vanish. */
export function exchange(
  hosts: readonly FlowHost[],
  now: number,
  lost: (frame: SentFrame) => boolean = () => false,
): void {
  for (let busy = true; busy;) {
    busy = false
    for (const from of hosts) {
      for (const frame of from.takeSent()) {
        busy = true
        if (lost(frame)) continue
        const to = hosts.find((h) => host(h.number) === from.peers.hostId(frame.peer))
        if (to === undefined) continue
        const peer = to.peers.indexOf(host(from.number))
        to.receive(now, peer, frame, frame.trafficClass)
      }
    }
  }
}
