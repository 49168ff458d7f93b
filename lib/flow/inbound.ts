// From the network to the own programs: opened frames become packets of the TUN, over the same memory. The mirror of outbound.ts.
//
//   1. what the codec says of the entry; whose lane it came in on
//   2. kind: DATA goes on here; OPEN, ACCEPT, NOT-HERE, CLOSE, ICMP errors and pieces turn off; what is not the flow layer's goes to the host
//   3. find the flow by its ID, which is only valid from the flow's peer; else NOT-HERE
//   4. the first frame with our own flow ID: the initiator knows it, no more ACCEPTs
//   5. hop limit; ECN of the outer header
//   6. write the local headers in front: addresses and ports as the own kernel knows the flow
//   7. remember what TCP says; a SYN's MSS is lowered to what the path back carries
//   8. hand it to the TUN as one entry of the packet batch
//
// Lone frames of ordinary flows do not come here: see outbound.ts.
//
// Invariant: no packet written to the TUN has a source that is a local address.

import { CLEAR, Open, OPEN_WORDS, OPENED, PACKET_WORDS, DATAGRAM_WORDS, Gso } from '../wire/batch.js'
import type { DatagramBatch, OpenBatch, PacketBatch } from '../wire/batch.js'
import { HEADROOM, INNER_HEADER, Kind, LANE_SLOT_BITS, Protocol, VNET_HEADER } from '../wire/constants.js'
import { dropReasons } from '../wire/drop.js'
import { PacketHead, writeHeaders } from '../wire/headers.js'
import {
  innerClass,
  innerFlags,
  innerGeneration,
  innerHopLimit,
  innerKind,
  innerProtocol,
  innerSlot,
} from '../wire/inner.js'
import { ipHeaderLength } from '../wire/ip.js'
import { ACCEPT_HEADER, CloseCode, CloseFrame, IcmpErrorFrame, NotHereFrame } from '../wire/open.js'
import { readClose, readIcmpErrorFrame, readNotHere } from '../wire/open.js'
import { Vnet, VNET_NEEDS_CHECKSUM } from '../wire/packet.js'
import { clampMss, Tcp, TCP_HEADER, TcpFlag } from '../wire/tcp.js'
import { UDP_HEADER } from '../wire/udp.js'
import { SELF } from '../path/peers.js'
import type { Accepting } from './accepting.js'
import type { Closing } from './closing.js'
import type { Confirmation } from './confirmation.js'
import type { FlowCore } from './flow-core.js'
import { Count, FlowFlag, FlowState, ROW_WORDS, Row } from './flow-table.js'
import type { FrameSender, LoopbackFrame } from './frame-sender.js'
import type { Opening } from './opening.js'
import type { OwnKernel } from './own-kernel.js'
import { PieceAssembler } from './pieces.js'
import { ReadAhead } from './read-ahead.js'
import { trackIn } from './tcp-track.js'
import { outerToInnerEcn } from './translate.js'

const LANE_MASK = (1 << LANE_SLOT_BITS) - 1
/** A TCP segment's header without ports and options, in a frame. */
const TCP_FRAME_HEADER = INNER_HEADER + TCP_HEADER - 4
/** RFC 9293 section 3.7.1: what a host may always be sent. */
const MSS_MIN = 536
/** The outer class is not known, and marks nothing: pieces, frames to ourselves. */
const NO_CLASS = 0

export class Inbound {
  readonly #core: FlowCore
  readonly #sender: FrameSender
  readonly #kernel: OwnKernel
  readonly #opening: Opening
  readonly #accepting: Accepting
  readonly #closing: Closing
  readonly #confirmation: Confirmation
  readonly #head = new PacketHead()
  readonly #notHere = new NotHereFrame()
  readonly #close = new CloseFrame()
  readonly #icmpError = new IcmpErrorFrame()
  readonly pieces: PieceAssembler
  readonly #ahead: ReadAhead
  #out: PacketBatch | undefined
  #now = 0

  constructor(
    core: FlowCore,
    sender: FrameSender,
    kernel: OwnKernel,
    opening: Opening,
    accepting: Accepting,
    closing: Closing,
    confirmation: Confirmation,
  ) {
    this.#core = core
    this.#sender = sender
    this.#kernel = kernel
    this.#opening = opening
    this.#accepting = accepting
    this.#closing = closing
    this.#confirmation = confirmation
    this.#ahead = new ReadAhead(core.table)
    this.pieces = new PieceAssembler((reason, pieces) => {
      for (let i = 0; i < pieces; i++) core.drop(reason)
    })
  }

  run(open: OpenBatch, datagrams: DatagramBatch, lanePeer: Int32Array, out: PacketBatch, now: number): void {
    this.#out = out
    this.#now = now
    this.#ahead.frames(open)
    for (let i = 0; i < open.count; i++) {
      const { dropped } = this.#core
      try {
        this.#entry(open, i, datagrams, lanePeer, now)
      } catch (error) {
        this.#core.fault(error, dropped, framesIn(open.desc, i * OPEN_WORDS))
      }
    }
    this.#out = undefined
  }

  /** Stages 1 and 2. */
  #entry(open: OpenBatch, i: number, datagrams: DatagramBatch, lanePeer: Int32Array, now: number): void {
    const { data, view, desc } = open
    const entry = i * OPEN_WORDS
    const status = desc[entry + Open.status]!
    if (status === CLEAR) return
    if (status !== OPENED) {
      this.#core.drop(dropReasons[-status - 1] ?? 'bad-frame', undefined, framesIn(desc, entry))
      return
    }
    const peer = lanePeer[desc[entry + Open.lane]! & LANE_MASK] ?? -1
    if (peer < 0) {
      this.#core.drop('unknown-lane')
      return
    }
    const at = desc[entry + Open.offset]!
    const length = desc[entry + Open.length]!
    if (length < INNER_HEADER) {
      this.#core.drop('bad-frame')
      return
    }
    const outer = datagrams.desc[desc[entry + Open.datagram]! * DATAGRAM_WORDS + 3] ?? NO_CLASS
    const kind = innerKind(data, at)
    if (kind === Kind.data) {
      this.#data(data, view, at, length, peer, outer, desc[entry + Open.gsoKind]!, desc[entry + Open.gsoSize]!)
      return
    }
    const { counters } = this.#core
    const settled = counters.framesDelivered + this.#core.dropped
    if (!this.#special(kind, data, view, at, length, peer, outer)) this.#core.env.other(open, i, peer, now)
    if (counters.framesDelivered + this.#core.dropped === settled) counters.framesTaken++
  }

  /** A frame from this host to itself. */
  loopback(frame: LoopbackFrame, now: number): void {
    this.#now = now
    const { bytes, gsoKind, gsoSize } = frame
    this.#single(bytes, SELF, gsoKind, gsoSize)
  }

  #single(bytes: Uint8Array, peer: number, gsoKind: number, gsoSize: number): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const length = bytes.length - HEADROOM
    const kind = innerKind(bytes, HEADROOM)
    if (kind === Kind.data) this.#data(bytes, view, HEADROOM, length, peer, NO_CLASS, gsoKind, gsoSize)
    else if (!this.#special(kind, bytes, view, HEADROOM, length, peer, NO_CLASS)) this.#core.drop('bad-frame')
  }

  /** Stages 3 and 4. */
  #data(
    data: Uint8Array,
    view: DataView,
    at: number,
    length: number,
    peer: number,
    outer: number,
    gsoKind: number,
    gsoSize: number,
  ): void {
    const { table } = this.#core
    const row = table.resolve(innerSlot(view, at), innerGeneration(view, at), peer)
    if (row < 0) {
      this.#unknown(view, at, peer)
      return
    }
    const base = row * ROW_WORDS
    const state = table.words[base + Row.state]!
    if (state === FlowState.opening) {
      this.#core.drop('unknown-flow')
      return
    }
    const flags = table.words[base + Row.flags]!
    if ((flags & (FlowFlag.acceptor | FlowFlag.confirmed)) === FlowFlag.acceptor) {
      table.words[base + Row.flags] = flags | FlowFlag.confirmed
      if (state === FlowState.halfOpen) this.#core.setState(row, FlowState.established)
    }
    this.#deliver(data, view, at, at + INNER_HEADER, at + length, row, outer, gsoKind, gsoSize)
  }

  /** Stages 5 to 8. `wire`: position of the transport header without ports. */
  #deliver(
    data: Uint8Array,
    view: DataView,
    at: number,
    wire: number,
    end: number,
    row: number,
    outer: number,
    gsoKind: number,
    gsoSize: number,
  ): void {
    const { table, counters } = this.#core
    const { words, doubles } = table
    const base = row * ROW_WORDS
    const protocol = words[base + Row.kind]! >> 8
    if (innerProtocol(data, at) !== protocol) {
      this.#core.drop('bad-frame')
      return
    }
    const hopLimit = innerHopLimit(data, at)
    if (hopLimit === 0) {
      this.#core.drop('hop-limit')
      return
    }
    const trafficClass = outerToInnerEcn(innerClass(data, at), outer)
    if (trafficClass < 0) {
      this.#core.drop('congestion-marked')
      return
    }

    const head = this.#head
    this.#kernel.headTowards(row, head)
    head.trafficClass = trafficClass
    head.hopLimit = hopLimit
    head.checksum = innerFlags(data, at)
    head.gsoKind = gsoKind
    head.gsoSize = gsoKind === Gso.none ? 0 : gsoSize
    const vnet = writeHeaders(data, view, wire, end, head)
    if (vnet < 0) {
      this.#core.drop('bad-frame')
      return
    }

    if (protocol === Protocol.tcp) {
      const transport = wire - 4
      const flags = data[transport + Tcp.flags]!
      const header = (data[transport + Tcp.dataOffset]! >> 4) << 2
      if (trackIn(table, row, view, wire, flags, end - transport - header)) this.#core.ended(row)
      if ((flags & TcpFlag.syn) !== 0) this.#clamp(data, view, vnet, end, row)
    }

    const bytes = end - vnet - VNET_HEADER
    // What goes round inside this host was no frame.
    if (this.#out !== undefined)
      counters.framesDelivered += gsoKind === Gso.none ? 1 : framesOf(data, wire, end, protocol, gsoSize)
    words[base + Row.lastIn] = Math.floor(this.#now / 1000)
    doubles[base / 2 + Count.packetsIn]!++
    doubles[base / 2 + Count.bytesIn]! += bytes
    counters.packetsIn++
    counters.bytesIn += bytes

    const out = this.#out
    if (out === undefined || out.data !== data) {
      this.#core.env.writePacket(data.subarray(vnet, end))
      return
    }
    const entry = out.count++ * PACKET_WORDS
    out.desc[entry] = vnet
    out.desc[entry + 1] = end - vnet
  }

  #clamp(data: Uint8Array, view: DataView, vnet: number, end: number, row: number): void {
    const { table } = this.#core
    const transport = vnet + VNET_HEADER + ipHeaderLength(table.family(row))
    const mss = Math.max(MSS_MIN, Math.min(0xffff, this.#sender.roomTaken(table.get(row, Row.peer)) - TCP_FRAME_HEADER))
    const partial = (data[vnet + Vnet.flags]! & VNET_NEEDS_CHECKSUM) !== 0
    clampMss(data, view, transport, end, mss, partial)
    table.set(row, Row.mss, mss)
  }

  /** Frames of other kinds; false: not the flow layer's. */
  #special(
    kind: number,
    data: Uint8Array,
    view: DataView,
    at: number,
    length: number,
    peer: number,
    outer: number,
  ): boolean {
    switch (kind) {
      case Kind.open: {
        const row = this.#accepting.open(data, view, at, length, peer, this.#now)
        if (row < 0) return true
        const { segmentOffset } = this.#accepting
        this.#deliver(data, view, at, segmentOffset, at + length, row, outer, Gso.none, 0)
        return true
      }
      case Kind.accept:
        this.#accept(data, view, at, length, peer, outer)
        return true
      case Kind.notHere:
        if (readNotHere(data, view, at + INNER_HEADER, length - INNER_HEADER, this.#notHere) !== 'ok')
          this.#core.drop('bad-frame')
        else this.#closing.notHere(peer, innerSlot(view, at), innerGeneration(view, at), this.#notHere, this.#now)
        return true
      case Kind.close:
        if (readClose(data, view, at + INNER_HEADER, length - INNER_HEADER, this.#close) !== 'ok')
          this.#core.drop('bad-frame')
        else this.#closing.closed(peer, innerSlot(view, at), innerGeneration(view, at), this.#close, this.#now)
        return true
      case Kind.icmpError:
        this.#carriedError(data, view, at, length, peer)
        return true
      case Kind.piece:
        this.#piece(data, view, at, length, peer)
        return true
      case Kind.confirm:
      case Kind.confirmed:
        this.#confirmation.receive(peer, kind, view, at, length, this.#now)
        return true
      default:
        return false
    }
  }

  /** The acceptor's answer, with its flow ID. The first one binds the flow. */
  #accept(data: Uint8Array, view: DataView, at: number, length: number, peer: number, outer: number): void {
    const wire = at + INNER_HEADER + ACCEPT_HEADER
    const { table } = this.#core
    if (at + length < wire) {
      this.#core.drop('bad-frame')
      return
    }
    const slot = innerSlot(view, at)
    const generation = innerGeneration(view, at)
    const remoteSlot = innerSlot(view, at + INNER_HEADER)
    const remoteGeneration = innerGeneration(view, at + INNER_HEADER)
    const found = this.#opening.find(slot, generation, peer)
    if (found !== undefined) {
      if (remoteGeneration === 0 || found.attempt.state === 'refused') {
        this.#core.drop(remoteGeneration === 0 ? 'bad-frame' : 'unknown-flow')
        return
      }
      this.#opening.accepted(found.pending, found.attempt, remoteSlot, remoteGeneration, this.#now)
    } else {
      const row = table.resolve(slot, generation, peer)
      if (row < 0) {
        // A candidate that lost, or whose flow is over: its server is told.
        this.#core.drop('unknown-flow')
        if (this.#core.answers.take(this.#now)) {
          this.#sender.close(peer, slot, generation, remoteSlot, remoteGeneration, CloseCode.lost)
        }
        return
      }
      const base = row * ROW_WORDS
      if (
        table.words[base + Row.remoteSlot] !== (remoteSlot | 0) ||
        table.words[base + Row.remoteGeneration] !== (remoteGeneration | 0)
      ) {
        this.#core.drop('flow-closed')
        return
      }
      // TCP's own acknowledgement carries the acceptor's flow ID back. A datagram flow that only listens would never.
      if (table.protocol(row) !== Protocol.tcp) this.#confirmation.prove(row)
    }
    if (at + length > wire) this.#deliver(data, view, at, wire, at + length, slot, outer, Gso.none, 0)
  }

  #carriedError(data: Uint8Array, view: DataView, at: number, length: number, peer: number): void {
    const { table } = this.#core
    const error = this.#icmpError
    if (readIcmpErrorFrame(data, view, at + INNER_HEADER, length - INNER_HEADER, error) !== 'ok') {
      this.#core.drop('bad-frame')
      return
    }
    const row = table.resolve(innerSlot(view, at), innerGeneration(view, at), peer)
    if (row < 0) this.#unknown(view, at, peer)
    else if (table.get(row, Row.state) < FlowState.established) this.#core.drop('unknown-flow')
    else if (this.#core.answers.take(this.#now)) this.#kernel.carried(row, error)
    else this.#core.drop('rate-limited')
  }

  #piece(data: Uint8Array, view: DataView, at: number, length: number, peer: number): void {
    const whole = this.pieces.add(peer, data, view, at, length, this.#now)
    if (whole === 'held') return
    if (typeof whole === 'string') this.#core.drop(whole)
    else this.#single(whole, peer, Gso.none, 0)
  }

  #unknown(view: DataView, at: number, peer: number): void {
    this.#core.drop('unknown-flow')
    this.#sender.unknown(peer, innerSlot(view, at), innerGeneration(view, at), this.#now)
  }
}

/** Frames that an entry stands for. */
function framesIn(desc: Int32Array, entry: number): number {
  const size = desc[entry + Open.gsoSize]!
  return size > 0 ? Math.max(1, Math.ceil((desc[entry + Open.length]! - desc[entry + Open.headerLength]!) / size)) : 1
}

/** Frames that a super-packet was made of. `wire`: position of its transport header without ports. */
function framesOf(data: Uint8Array, wire: number, end: number, protocol: number, gsoSize: number): number {
  const header = protocol === Protocol.tcp ? ((data[wire - 4 + Tcp.dataOffset]! >> 4) << 2) - 4 : UDP_HEADER - 4
  return Math.max(1, Math.ceil((end - wire - header) / Math.max(gsoSize, 1)))
}
