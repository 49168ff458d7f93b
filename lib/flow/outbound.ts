// From the own programs to the network: packets of the TUN become frames. One decision a super-packet.
//
//   1. parse the packet; fragments, ICMP errors and what is not carried turn off here
//   2. find its flow by what the own kernel sees; none: a first packet, an answer from the wrong address, or nothing of ours
//   3. is the flow ordinary (established, its other end known, no SYN)? else: opening.ts, accepting.ts
//   4. hop limit
//   5. where its peer's frames go: session and path by the peer table, or those of the lane whose queue of the TUN it was read from
//   6. does it fit the path? TCP super-packets are cut smaller, single TCP packets answered with "too big", the rest sent in pieces
//   7. remember what TCP says
//   8. rewrite in place: the inner header over the tail of the IP header and the ports, so that it and the rest are one contiguous plaintext
//   9. hand it to the codec as one entry of the seal batch
//
// Lone packets of ordinary flows do not come here: daemon/native/express.cc does 1 to 9 for them, to the same effect. What changes here for them changes there.
//
// Invariant: no packet read from the TUN is for a local address, and its source is one.

import { Gso, PACKET_WORDS, Seal, SEAL_WORDS, type PacketBatch, type SealBatch } from '../wire/batch.js'
import { INNER_HEADER, Kind, Protocol, VNET_HEADER } from '../wire/constants.js'
import { IcmpKind, IcmpType } from '../wire/icmp.js'
import { writeInnerHeader } from '../wire/inner.js'
import { IcmpErrorFrame } from '../wire/open.js'
import { ParsedPacket, parsePacket, Vnet, VNET_NEEDS_CHECKSUM } from '../wire/packet.js'
import { Reassembler } from '../wire/reassembly.js'
import { TcpFlag } from '../wire/tcp.js'
import { UDP_CHECKSUM, UDP_HEADER } from '../wire/udp.js'
import { SELF } from '../path/peers.js'
import type { Accepting } from './accepting.js'
import type { Closing } from './closing.js'
import type { FlowCore } from './flow-core.js'
import { Count, FlowFlag, FlowState, ROW_WORDS, Row } from './flow-table.js'
import type { FrameSender } from './frame-sender.js'
import { errorToFrame, IcmpErrorPacket, parseIcmpError } from './icmp-error.js'
import type { CarryPacket, Opening } from './opening.js'
import type { OwnKernel } from './own-kernel.js'
import { ReadAhead } from './read-ahead.js'
import { renewChecksum } from './row-checksum.js'
import { takeSegment } from './segment.js'
import { isRepeated, trackOut } from './tcp-track.js'
import { TooBigAdvice } from './too-big-advice.js'
import { innerToOuterClass, nextHopLimit, packetToFrame } from './translate.js'

/** A path that leaves less than this to a TCP segment's payload is not cut down to. */
const GSO_SIZE_MIN = 256
const IPV6_MTU_MIN = 1280
/** What Linux heeds at least (552, `ip_rt_min_pmtu`) is less. */
const IPV4_MTU_MIN = 576
/** Of the byte that begins with IPv4's flags. */
const DONT_FRAGMENT = 0x40

export class Outbound {
  readonly #core: FlowCore
  readonly #sender: FrameSender
  readonly #kernel: OwnKernel
  readonly #opening: Opening
  readonly #accepting: Accepting
  readonly #closing: Closing
  readonly #packet = new ParsedPacket()
  readonly #error = new IcmpErrorPacket()
  readonly #errorFrame = new IcmpErrorFrame()
  readonly reassembler: Reassembler
  readonly #advice = new TooBigAdvice()
  readonly #ahead: ReadAhead
  /** The packet came in fragments. */
  #reassembled = false
  #seal: SealBatch | undefined
  #now = 0

  constructor(
    core: FlowCore,
    sender: FrameSender,
    kernel: OwnKernel,
    opening: Opening,
    accepting: Accepting,
    closing: Closing,
  ) {
    this.#core = core
    this.#sender = sender
    this.#kernel = kernel
    this.#opening = opening
    this.#accepting = accepting
    this.#closing = closing
    this.#ahead = new ReadAhead(core.table)
    this.reassembler = new Reassembler((reason, packets) => {
      for (let i = 0; i < packets; i++) core.drop(reason)
    })
  }

  run(batch: PacketBatch, seal: SealBatch, now: number): void {
    this.#seal = seal
    this.#now = now
    this.#ahead.packets(batch)
    for (let i = 0; i < batch.count; i++) {
      const length = batch.desc[i * PACKET_WORDS + 1]!
      if (length < 0) continue
      const { dropped } = this.#core
      try {
        this.#packetIn(batch.data, batch.view, batch.desc[i * PACKET_WORDS]!, length)
      } catch (error) {
        this.#core.fault(error, dropped)
      }
    }
    this.#seal = undefined
  }

  /** One packet that lies elsewhere. */
  readonly carry: CarryPacket = (packet, view, now) => {
    this.#now = now
    this.#packetIn(packet, view, 0, packet.length)
  }

  /** Stages 1 to 3. */
  #packetIn(data: Uint8Array, view: DataView, offset: number, length: number): void {
    const packet = this.#packet
    const parsed = parsePacket(data, view, offset, length, packet)
    if (parsed !== 'ok') {
      if (parsed === 'fragment') this.#fragment(data)
      else if (parsed === 'icmp-error') this.#icmpError(data, view)
      else this.#core.drop(parsed, data.subarray(offset + VNET_HEADER, offset + length))
      return
    }
    const { table } = this.#core
    const { sourceOffset, destinationOffset, family, protocol } = packet
    const ports = (packet.sourcePort << 16) | packet.destinationPort
    const row = table.find(view, sourceOffset, destinationOffset, family, protocol, ports)
    if (row < 0) {
      this.#unknown(data, view, ports)
      return
    }
    if (this.#isOrdinary(row)) this.#forward(data, view, row)
    else this.#special(data, view, row)
  }

  #isOrdinary(row: number): boolean {
    const { words } = this.#core.table
    const base = row * ROW_WORDS
    if (words[base + Row.state]! < FlowState.established) return false
    const flags = words[base + Row.flags]! & (FlowFlag.acceptor | FlowFlag.confirmed)
    return flags !== FlowFlag.acceptor && (this.#packet.tcpFlags & TcpFlag.syn) === 0
  }

  /** Stages 4 to 9. */
  #forward(data: Uint8Array, view: DataView, row: number): void {
    const packet = this.#packet
    const { table, counters, peers } = this.#core
    const { words, doubles } = table
    const base = row * ROW_WORDS

    const hopLimit = nextHopLimit(packet.hopLimit)
    if (hopLimit === 0) {
      this.#expired(data)
      return
    }

    const peer = words[base + Row.peer]!
    let sealSlot = peers.sealSlot[peer]!
    let addressSlot = peers.addressSlot[peer]!
    const seal = this.#seal
    if (seal === undefined || data !== seal.data || sealSlot < 0 || addressSlot < 0) {
      this.#forwardSingly(data, view, row)
      return
    }

    const payload = packet.end - packet.payloadOffset
    const headerLength = INNER_HEADER + packet.payloadOffset - packet.wireOffset
    const room = this.#sender.room(peer)
    let gsoSize = packet.gsoSize
    if (gsoSize >= payload) gsoSize = 0
    if (gsoSize > 0) {
      if (headerLength + gsoSize > room) {
        if (packet.protocol !== Protocol.tcp) {
          this.#split(data)
          return
        }
        gsoSize = room - headerLength
        if (gsoSize < GSO_SIZE_MIN) {
          this.#tooBig(data, room)
          return
        }
      }
    } else if (headerLength + payload > room) {
      if (!this.#refusedAsTooBig(data, room, row)) this.#forwardSingly(data, view, row, true)
      return
    }

    if (packet.protocol === Protocol.tcp) {
      if (isRepeated(table, row, view, packet.wireOffset, payload)) this.#core.env.retransmitted(peer, this.#now)
      if (trackOut(table, row, view, packet.wireOffset, packet.tcpFlags, payload)) this.#core.ended(row)
    }
    const flags = packetToFrame(data, view, packet)
    const at = packet.wireOffset - INNER_HEADER
    const length = packet.end - at
    const slot = words[base + Row.remoteSlot]!
    const generation = words[base + Row.remoteGeneration]!
    writeInnerHeader(view, at, slot, generation, Kind.data | flags, packet.trafficClass, hopLimit, packet.protocol)

    if (seal.lane > 0) {
      const lane = peers.useLane(peer, seal.lane)
      if (lane >= 0) {
        sealSlot = peers.laneSealSlot[lane]!
        addressSlot = peers.laneAddressSlot[lane]!
      } else seal.byFirst++
    }
    const { desc } = seal
    const entry = seal.count++ * SEAL_WORDS
    desc[entry + Seal.offset] = at
    desc[entry + Seal.length] = length
    desc[entry + Seal.headerLength] = headerLength
    desc[entry + Seal.gsoSize] = gsoSize
    desc[entry + Seal.gsoKind] = gsoSize === 0 ? Gso.none : packet.protocol === Protocol.tcp ? Gso.tcp : Gso.udp
    desc[entry + Seal.sealSlot] = sealSlot
    desc[entry + Seal.addressSlot] = addressSlot
    desc[entry + Seal.trafficClass] = innerToOuterClass(packet.trafficClass)

    words[base + Row.lastOut] = Math.floor(this.#now / 1000)
    doubles[base / 2 + Count.packetsOut]!++
    doubles[base / 2 + Count.bytesOut]! += packet.end - packet.ipOffset
    counters.packetsOut++
    counters.bytesOut += packet.end - packet.ipOffset
  }

  /** The way beside the batch: to this same host, without a way to the peer, in pieces, or of a packet that lies elsewhere. The frame is copied. `carried`: it is not refused. */
  #forwardSingly(data: Uint8Array, view: DataView, row: number, carried = false): void {
    const packet = this.#packet
    const { table, counters } = this.#core
    const peer = table.get(row, Row.peer)
    if (!this.#sender.connected(peer)) {
      this.#sender.hold(peer, data, packet.vnetOffset, packet.end - packet.vnetOffset, this.#now)
      return
    }
    const payload = packet.end - packet.payloadOffset
    const segmented = packet.gsoSize > 0 && packet.gsoSize < payload
    if (segmented && packet.protocol === Protocol.udp && peer !== SELF) {
      this.#split(data)
      return
    }
    const room = this.#sender.room(peer)
    const large = packet.end - packet.wireOffset + INNER_HEADER > room
    if (large && !carried && this.#refusedAsTooBig(data, room, row)) return
    const { protocol, ipOffset, end } = packet
    const gsoSize = segmented ? packet.gsoSize : 0
    if (protocol === Protocol.tcp && trackOut(table, row, view, packet.wireOffset, packet.tcpFlags, payload)) {
      this.#core.ended(row)
    }
    const segment = takeSegment(data, view, packet)
    if (peer === SELF) this.#sender.dataToSelf(row, segment, gsoSize)
    else this.#sender.data(row, segment, this.#now)
    const base = row * ROW_WORDS
    table.words[base + Row.lastOut] = Math.floor(this.#now / 1000)
    table.doubles[base / 2 + Count.packetsOut]!++
    table.doubles[base / 2 + Count.bytesOut]! += end - ipOffset
    counters.packetsOut++
    counters.bytesOut += end - ipOffset
  }

  /** The flow is being opened or not yet confirmed, or TCP begins anew. */
  #special(data: Uint8Array, view: DataView, row: number): void {
    const packet = this.#packet
    const { table } = this.#core
    if (packet.hopLimit <= 1) {
      this.#expired(data)
      return
    }
    if (packet.gsoSize > 0 && packet.gsoSize < packet.end - packet.payloadOffset) {
      if (packet.protocol === Protocol.udp) this.#split(data)
      else this.#core.drop('mid-stream', data.subarray(packet.ipOffset, packet.end))
      return
    }
    const syn = packet.protocol === Protocol.tcp && (packet.tcpFlags & (TcpFlag.syn | TcpFlag.ack)) === TcpFlag.syn
    if (!table.has(row, FlowFlag.acceptor)) {
      if (syn && view.getInt32(packet.wireOffset) !== table.get(row, Row.initial)) this.#anew(data, view, row)
      else if (table.get(row, Row.state) === FlowState.opening) this.#opening.again(row, data, view, packet, this.#now)
      else this.#forward(data, view, row)
      return
    }
    if (syn) this.#core.drop('mid-stream', data.subarray(packet.ipOffset, packet.end))
    else if (table.has(row, FlowFlag.confirmed)) this.#forward(data, view, row)
    else this.#accepting.answer(row, data, view, packet, this.#now)
  }

  /** A SYN with another number: the program's kernel has given up the old connection and begins a new one. */
  #anew(data: Uint8Array, view: DataView, row: number): void {
    const packet = this.#packet
    if (this.#core.table.get(row, Row.state) === FlowState.opening) this.#opening.abandon(row)
    else this.#closing.supersede(row)
    this.#unknown(data, view, (packet.sourcePort << 16) | packet.destinationPort)
  }

  /** A packet without a flow. */
  #unknown(data: Uint8Array, view: DataView, ports: number): void {
    const packet = this.#packet
    const { table, env } = this.#core
    const { family, protocol, sourceOffset, destinationOffset } = packet
    const { addresses } = env
    const local = addresses.isLocal(data, sourceOffset, family)
    if (!local && !(family === 4 && data[sourceOffset] === 127)) {
      this.#core.drop('foreign-source', data.subarray(packet.ipOffset, packet.end))
      return
    }
    if (protocol === Protocol.udp) {
      // A server on the wildcard address answers from whichever address its kernel likes.
      const row = table.findAnyLocal(view, destinationOffset, family, protocol, ports)
      if (row >= 0 && table.has(row, FlowFlag.acceptor)) {
        // It may have connected its socket from there: what follows is for that address.
        table.setLocal(row, view, sourceOffset)
        renewChecksum(table, row)
        if (this.#isOrdinary(row)) this.#forward(data, view, row)
        else this.#special(data, view, row)
        return
      }
    }
    const target = local ? addresses.dialled(data, destinationOffset, family) : undefined
    if (target === undefined) {
      this.#nowhere(data, view)
      return
    }
    const first =
      protocol === Protocol.tcp
        ? (packet.tcpFlags & (TcpFlag.syn | TcpFlag.ack | TcpFlag.rst | TcpFlag.fin)) === TcpFlag.syn
        : protocol === Protocol.udp || packet.icmpType === IcmpType.echoRequest
    if (!first) {
      this.#midStream(data, view)
      return
    }
    if (packet.hopLimit <= 1) this.#expired(data)
    else if (packet.gsoSize > 0 && packet.gsoSize < packet.end - packet.payloadOffset) this.#split(data)
    else this.#opening.start(data, view, packet, target, this.#now)
  }

  /** To an address that stands for nothing to be dialled: an old answer to a peer, or a mistake. */
  #nowhere(data: Uint8Array, view: DataView): void {
    const packet = this.#packet
    const { addresses } = this.#core.env
    if (addresses.isPeer(data, packet.destinationOffset, packet.family)) {
      this.#midStream(data, view)
      return
    }
    const { family, destinationOffset } = packet
    const multicast = family === 4 ? data[destinationOffset]! >= 224 : data[destinationOffset] === 0xff
    if (!multicast && !addresses.isLocal(data, destinationOffset, family)) {
      this.#kernel.answer(data, packet, IcmpKind.addressUnreachable, 0, this.#now)
    }
    this.#core.drop('not-dialled', data.subarray(packet.ipOffset, packet.end))
  }

  /** Of a flow that is not here any more: only the own kernel is told. */
  #midStream(data: Uint8Array, view: DataView): void {
    const packet = this.#packet
    if (this.#core.env.loading(this.#now)) {
      this.#core.drop('loading', data.subarray(packet.ipOffset, packet.end))
      return
    }
    if (packet.protocol === Protocol.tcp && this.#core.answers.take(this.#now)) {
      this.#kernel.resetSender(data, view, packet)
    }
    this.#core.drop('mid-stream', data.subarray(packet.ipOffset, packet.end))
  }

  #fragment(data: Uint8Array): void {
    const packet = this.#packet
    const { ipOffset, end } = packet
    const whole = this.reassembler.add(data, packet, this.#now)
    if (whole === 'held') return
    if (typeof whole === 'string') this.#core.drop(whole, data.subarray(ipOffset, end))
    else {
      this.#reassembled = true
      this.#packetIn(whole, new DataView(whole.buffer), 0, whole.length)
      this.#reassembled = false
    }
  }

  /** The own kernel refuses a packet of a flow that was written to it. */
  #icmpError(data: Uint8Array, view: DataView): void {
    const packet = this.#packet
    const { table } = this.#core
    const { ipOffset, end } = packet
    const error = this.#error
    const parsed = parseIcmpError(data, view, packet, error)
    if (parsed !== 'ok') {
      this.#core.drop(parsed, data.subarray(ipOffset, end))
      return
    }
    const ports = (error.destinationPort << 16) | error.sourcePort
    const row = table.find(view, error.destinationOffset, error.sourceOffset, error.family, error.protocol, ports)
    const state = row < 0 ? FlowState.free : table.get(row, Row.state)
    if (state === FlowState.halfOpen && error.kind !== IcmpKind.tooBig) this.#accepting.refused(row)
    else if (state >= FlowState.established && table.get(row, Row.remoteGeneration) !== 0) {
      errorToFrame(data, error, this.#errorFrame)
      this.#sender.icmpError(row, this.#errorFrame)
    } else this.#core.drop('mid-stream', data.subarray(ipOffset, end))
  }

  #expired(data: Uint8Array): void {
    const packet = this.#packet
    this.#kernel.answer(data, packet, IcmpKind.hopLimit, 0, this.#now)
    this.#core.drop('hop-limit', data.subarray(packet.ipOffset, packet.end))
  }

  /**
   * Whether a single packet beyond the path's room was refused; false: it goes in pieces. Only TCP is refused, which sends it again at once; of others nothing is lost, but
   * who sends many such packets is told that smaller ones are better. None is while it may turn out that the path carries them.
   */
  #refusedAsTooBig(data: Uint8Array, room: number, row: number): boolean {
    const packet = this.#packet
    const length = packet.end - packet.ipOffset
    const frame = INNER_HEADER + packet.end - packet.wireOffset
    if (frame <= this.#sender.roomTaken(this.#core.table.get(row, Row.peer))) return false
    // What heeds the smallest MTU that its kernel knows, and what it has fragmented or lets others fragment, must be carried.
    if (length <= (packet.family === 4 ? IPV4_MTU_MIN : IPV6_MTU_MIN)) return false
    if (packet.family === 4 ? (data[packet.ipOffset + 6]! & DONT_FRAGMENT) === 0 : this.#reassembled) return false
    if (packet.protocol === Protocol.tcp) {
      this.#tooBig(data, room)
      return true
    }
    if (this.#advice.isDue(row, this.#now)) this.#tellTooBig(data, room)
    return false
  }

  #tellTooBig(data: Uint8Array, room: number): void {
    const packet = this.#packet
    const ports = packet.protocol === Protocol.icmp ? 0 : 4
    this.#core.counters.tooBig++
    this.#kernel.answer(data, packet, IcmpKind.tooBig, room - INNER_HEADER + ports, this.#now)
  }

  #tooBig(data: Uint8Array, room: number): void {
    const packet = this.#packet
    this.#tellTooBig(data, room)
    this.#core.drop('too-big', data.subarray(packet.ipOffset, packet.end))
  }

  /** Takes a UDP super-packet apart where it cannot go as one, and sends its datagrams on their way again. */
  #split(data: Uint8Array): void {
    const packet = this.#packet
    const { ipOffset, transportOffset, payloadOffset, end, gsoSize, family } = packet
    const header = payloadOffset - ipOffset
    if (packet.protocol !== Protocol.udp) {
      this.#core.drop('mid-stream', data.subarray(ipOffset, end))
      return
    }
    for (let from = payloadOffset; from < end; from += gsoSize) {
      const size = Math.min(gsoSize, end - from)
      const single = new Uint8Array(VNET_HEADER + header + size)
      const singleView = new DataView(single.buffer)
      single.set(data.subarray(ipOffset, payloadOffset), VNET_HEADER)
      single.set(data.subarray(from, from + size), VNET_HEADER + header)
      const ip = VNET_HEADER
      const transport = ip + transportOffset - ipOffset
      if (family === 4) singleView.setUint16(ip + 2, header + size)
      else singleView.setUint16(ip + 4, header + size - 40)
      singleView.setUint16(transport + 4, UDP_HEADER + size)
      single[Vnet.flags] = VNET_NEEDS_CHECKSUM
      singleView.setUint16(Vnet.checksumStart, transport - ip, true)
      singleView.setUint16(Vnet.checksumOffset, UDP_CHECKSUM, true)
      this.#packetIn(single, singleView, 0, single.length)
    }
  }
}
