// One real host with many peers. The far ends do the real handshake and open flows, and are no hosts beyond that: what they do is not counted.

import { codecAddon, NativeCodec } from '../../daemon/native-codec.js'
import type { AeadName, FrameCodec } from '../../lib/crypto/codec.js'
import { HostKey } from '../../lib/crypto/host-key.js'
import { PeerTable } from '../../lib/path/peers.js'
import { SessionTable } from '../../lib/session/session-table.js'
import {
  datagramBatch,
  frameRuns,
  Open,
  OPEN_WORDS,
  openBatch,
  RUN_WORDS,
  Seal,
  sealBatch,
  type FrameRuns,
} from '../../lib/wire/batch.js'
import { FrameType, INNER_HEADER, Kind, KindFlag, Protocol } from '../../lib/wire/constants.js'
import { DropCounters } from '../../lib/wire/drop.js'
import { fromHex } from '../../lib/wire/ids.js'
import { innerGeneration, innerKind, innerSlot, writeInnerHeader } from '../../lib/wire/inner.js'
import { OPEN_HEADER, OpenFrame, writeOpen } from '../../lib/wire/open.js'
import { TcpFlag, TCP_WIRE_HEADER } from '../../lib/wire/tcp.js'
import { ACK, PSH, SYN, tcpPacket } from '../unit/flow/packets.js'
import type { MemoryHost, MemoryLink } from './memory-link.js'
import { answer, BATCH, IP, Program, TCP } from './program.js'

const FLOWS = 1_000
const PORT = 80
/** Frames of one read of the socket. */
const DATAGRAMS = 8
const FOREVER = 1e9
const nowhere = Uint8Array.of(0, 0, 0, 0)

interface Lane {
  readonly lane: number
  readonly aead: AeadName
  readonly key: Uint8Array
}

/** A flow as the far end knows it: the host's flow ID, and how the host's server sees the client. */
interface Flow {
  readonly end: number
  slot: number
  generation: number
  client: Uint8Array
  clientPort: number
}

/** Notes one far end's keys: sealing for all of them is done by one codec, each with a slot of its own. */
class KeyNote implements FrameCodec {
  readonly aeads: readonly AeadName[]
  readonly skipped = 0
  inward: Lane | undefined

  constructor(
    readonly shared: NativeCodec,
    readonly slot: number,
  ) {
    this.aeads = shared.aeads
  }
  installSeal(_slot: number, aead: AeadName, key: Uint8Array, receiverLane: number): void {
    this.shared.installSeal(this.slot, aead, key, receiverLane)
  }
  installOpen(lane: number, aead: AeadName, key: Uint8Array): void {
    this.inward = { lane, aead, key: key.slice() }
  }
  removeSeal(): void {
    this.shared.removeSeal(this.slot)
  }
  removeOpen(): void {
    this.inward = undefined
  }
  sealed(): number {
    return this.shared.sealed(this.slot)
  }
  seal(): number {
    throw new Error('not by this one')
  }
  open(): void {
    throw new Error('not by this one')
  }
}

export class FarEnds {
  readonly #host: MemoryHost
  readonly #codec = new NativeCodec(codecAddon())
  readonly #inward: Lane[] = []
  readonly #flows: Flow[] = []
  readonly #service: Uint8Array
  readonly #served: Uint8Array
  readonly #seal = sealBatch(new Uint8Array(1 << 16), BATCH)
  readonly #runs = frameRuns(1 << 18, BATCH)
  readonly #datagrams = datagramBatch(1)
  readonly #opened = openBatch(1 << 18, BATCH)
  #sealUsed = 0

  constructor(
    readonly link: MemoryLink,
    readonly peers: number,
  ) {
    const probes = {
      activeIntervalMs: FOREVER,
      idleIntervalMs: FOREVER,
      doubtfulAfterMs: FOREVER,
      deadAfterMs: FOREVER,
    }
    this.#host = link.add({ flowCapacity: 4 * FLOWS, session: { loadThreshold: FOREVER }, prober: probes })
    const service = this.#host.offer({ name: 'web', ports: [PORT] })
    this.#service = fromHex(service)
    this.#served = this.#host.host.addresses.served(service, 4)
    for (let end = 0; end < peers; end++) this.#connect(end)
    for (let flow = 0; flow < FLOWS; flow++) this.#openFlow(flow)
    this.#acceptAll()
  }

  /** µs of processor time at the host, the median of so many rounds: a packet to the peers, and a frame from them. */
  run(packets: number, rounds: number, payload: number): { readonly out: number; readonly in: number } {
    const middle = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1]!
    this.outward({ packets, payload, batch: BATCH })
    this.#inwards(packets, payload)
    return {
      out: middle(Array.from({ length: rounds }, () => this.outward({ packets, payload, batch: BATCH }))),
      in: middle(Array.from({ length: rounds }, () => this.#inwards(packets, payload))),
    }
  }

  // ---- Set-up ----

  #connect(end: number): void {
    const { link } = this
    const { world } = link
    const key = HostKey.generate(world.primitives)
    const trust = world.trust(key.id, `far${end}`)
    const peers = new PeerTable(key.id, 4)
    const peer = peers.add(this.#host.id)
    const record = world.record(world.freshAddress())
    const from = link.records.push(record) - 1
    const codec = new KeyNote(this.#codec, end)
    const toHost = (bytes: Uint8Array) => this.#host.incoming.add(bytes, 0, bytes.length, bytes.length, from)
    let done = false
    const prove = () => {
      this.#plaintext(end, 0, (view, at) => writeInnerHeader(view, at, 0, 0, Kind.empty, 0, 0, 0))
      this.#sendAll()
    }
    const sessions = new SessionTable({
      primitives: world.primitives,
      codec,
      hostKey: key,
      network: trust.network,
      membership: trust.membership ?? nowhere,
      trust,
      peers,
      drops: new DropCounters(),
      nextStamp: () => 1n,
      sink: {
        sendDatagram: toHost,
        established: () => {
          done = true
          prove()
        },
        confirmed: () => undefined,
        lost: () => undefined,
        failed: () => undefined,
        proveAlive: prove,
      },
    })
    this.#host.strayed = (_record, data, offset, length) => {
      if (data[offset] !== FrameType.transport)
        sessions.receive(data, offset, length, record0(link), link.now, world.wallNow)
    }
    sessions.connect(peer, [record0(link)], link.now)
    while (link.deliver(this.#host));
    this.#host.strayed = undefined
    if (!done || codec.inward === undefined) throw new Error('no session')
    this.#inward[end] = codec.inward
    link.now += 1
  }

  #openFlow(flow: number): void {
    const end = flow % this.peers
    this.#flows.push({ end, slot: 0, generation: 0, client: nowhere, clientPort: 0 })
    const frame = new OpenFrame()
    frame.slot = flow
    frame.generation = flow + 1
    frame.service = this.#service
    frame.clientPort = 10_000 + flow
    frame.dialledPort = PORT
    this.#plaintext(end, OPEN_HEADER + TCP_WIRE_HEADER, (view, at, data) => {
      writeInnerHeader(view, at, 0, 0, Kind.open | KindFlag.checksumPartial, 0, 64, Protocol.tcp)
      writeOpen(data, view, at + INNER_HEADER, frame)
      segment(view, at + INNER_HEADER + OPEN_HEADER, TcpFlag.syn)
    })
    this.#sendAll()
  }

  /** The host's server answers all of them, and the far ends learn the host's flow IDs. */
  #acceptAll(): void {
    const { link } = this
    const host = this.#host
    link.deliver(host)
    const { written } = host
    if (written.count !== FLOWS) throw new Error(`${written.count} flows arrived`)
    for (let i = 0; i < written.count; i++) {
      const at = written.desc[4 * i]!
      const flow = this.#flows[i]!
      flow.client = written.data.slice(at + IP + 12, at + IP + 16)
      flow.clientPort = written.view.getUint16(at + TCP)
    }
    host.strayed = (record, data, offset, length, stride) => {
      const end = link.records.findIndex((r, i) => i > 0 && r.every((byte, j) => byte === record[j])) - 1
      for (let at = offset; at < offset + length; at += stride)
        this.#learn(end, data.subarray(at, Math.min(at + stride, offset + length)))
    }
    answer(host, new Program(host, this.#template(SYN | ACK, 0)))
    host.strayed = undefined
    if (this.#flows.some(({ generation }) => generation === 0)) throw new Error('a flow was not accepted')
    // Each far end shows that it knows the host's flow ID.
    for (const flow of this.#flows) this.#data(flow, 0, TcpFlag.ack)
    this.#sendAll()
    link.deliver(host)
    if (written.count !== FLOWS) throw new Error(`${written.count} acknowledgements arrived`)
    written.clear()
  }

  #learn(end: number, frame: Uint8Array): void {
    const lane = this.#inward[end]!
    const opened = this.#opened
    this.#codec.installOpen(lane.lane, lane.aead, lane.key)
    this.#datagrams.data.set(frame)
    this.#datagrams.desc.set([0, frame.length, 0, 0])
    this.#datagrams.count = 1
    this.#codec.open(this.#datagrams, opened)
    this.#codec.removeOpen(lane.lane)
    const at = opened.desc[Open.offset]!
    if (opened.count !== 1 || opened.desc[Open.status] !== 0 || OPEN_WORDS < 1) throw new Error('a frame does not open')
    if (innerKind(opened.data, at) !== Kind.accept) return
    const flow = this.#flows[innerSlot(opened.view, at)]!
    flow.slot = innerSlot(opened.view, at + INNER_HEADER)
    flow.generation = innerGeneration(opened.view, at + INNER_HEADER)
  }

  // ---- Traffic ----

  /** Packets of the host's server to all flows in turn, `gsoSize` bytes a segment where they are super-packets. µs of processor time each. */
  outward(load: {
    readonly packets: number
    readonly payload: number
    readonly gsoSize?: number
    readonly batch: number
  }): number {
    const { link } = this
    const { packets, payload, gsoSize, batch } = load
    const host = this.#host
    const program = new Program(host, this.#template(ACK | PSH, payload, gsoSize))
    const { tunIn } = host.host.dataPath
    const before = host.framesSent
    let next = 0
    link.spent = 0
    for (let sent = 0; sent < packets; sent += batch) {
      program.begin()
      for (let i = 0; i < batch; i++) {
        next = (next + 619) % FLOWS
        const { client, clientPort } = this.#flows[next]!
        const at = program.add()
        tunIn.data.set(client, at + IP + 16)
        tunIn.view.setUint16(at + TCP + 2, clientPort)
      }
      program.send()
    }
    const sent = Math.ceil(packets / batch) * batch
    if (host.framesSent - before < sent) throw new Error(`${host.framesSent - before} of ${sent} packets were sent`)
    return link.spent / sent
  }

  /** Each frame is a datagram by itself, however many peers there are. */
  #inwards(packets: number, payload: number): number {
    const { link } = this
    const host = this.#host
    let next = 0
    let arrived = 0
    link.spent = 0
    for (let sent = 0; sent < packets; sent += BATCH) {
      for (let i = 0; i < BATCH; i++) {
        next = (next + 619) % FLOWS
        this.#data(this.#flows[next]!, payload, TcpFlag.ack | TcpFlag.psh)
        if (i % DATAGRAMS === DATAGRAMS - 1) this.#sendAll()
      }
      link.deliver(host)
      arrived += host.written.count
      host.written.clear()
    }
    const sent = Math.ceil(packets / BATCH) * BATCH
    if (arrived !== sent) throw new Error(`${arrived} of ${sent} frames arrived`)
    return link.spent / sent
  }

  #template(flags: number, payload: number, gsoSize?: number): Uint8Array {
    const ends = { source: this.#served, destination: nowhere, ports: [PORT, 0] as const }
    const packet = { family: 4 as const, ...ends, flags, partial: true, payload: new Array<number>(payload).fill(7) }
    return tcpPacket(gsoSize === undefined ? packet : { ...packet, gsoSize })
  }

  #data(flow: Flow, payload: number, flags: number): void {
    this.#plaintext(flow.end, TCP_WIRE_HEADER + payload, (view, at) => {
      writeInnerHeader(view, at, flow.slot, flow.generation, Kind.data | KindFlag.checksumPartial, 0, 64, Protocol.tcp)
      segment(view, at + INNER_HEADER, flags)
    })
  }

  /** Adds a frame of `length` bytes behind its inner header. */
  #plaintext(end: number, length: number, write: (view: DataView, at: number, data: Uint8Array) => void): void {
    const seal = this.#seal
    if (seal.count === BATCH) this.#sendAll()
    const at = this.#sealUsed
    const whole = INNER_HEADER + length
    seal.data.fill(0, at, at + whole)
    write(seal.view, at, seal.data)
    const base = seal.count++ * 8
    seal.desc[base + Seal.offset] = at
    seal.desc[base + Seal.length] = whole
    seal.desc[base + Seal.headerLength] = whole
    seal.desc[base + Seal.gsoSize] = 0
    seal.desc[base + Seal.gsoKind] = 0
    seal.desc[base + Seal.sealSlot] = end
    seal.desc[base + Seal.addressSlot] = end
    seal.desc[base + Seal.trafficClass] = 0
    this.#sealUsed = at + whole
  }

  #sendAll(): void {
    const runs = this.#runs
    runs.count = 0
    runs.used = 0
    if (this.#codec.seal(this.#seal, 0, runs) !== this.#seal.count) throw new Error('the frames do not fit')
    this.#put(runs)
    this.#seal.count = 0
    this.#sealUsed = 0
  }

  #put(runs: FrameRuns): void {
    for (let i = 0; i < runs.count; i++) {
      const [offset, length, stride, end] = [...runs.desc.subarray(i * RUN_WORDS, i * RUN_WORDS + 4)]
      for (let at = offset!; at < offset! + length!; at += stride!) {
        const size = Math.min(stride!, offset! + length! - at)
        this.#host.incoming.add(runs.data, at, size, size, end! + 1)
      }
    }
  }
}

/** Address record of the host. */
function record0(link: MemoryLink): Uint8Array {
  return link.records[0]!
}

/** A TCP header without ports. */
function segment(view: DataView, at: number, flags: number): void {
  view.setUint32(at, 1)
  view.setUint8(at + 8, 5 << 4)
  view.setUint8(at + 9, flags)
  view.setUint16(at + 10, 512)
}
