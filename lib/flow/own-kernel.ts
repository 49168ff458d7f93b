// What the flow layer itself tells the own kernel: resets, exact in their sequence numbers, and ICMP errors.
import { checksumOf, sumBytes } from '../wire/checksum.js'
import { HEADROOM, KindFlag, Protocol } from '../wire/constants.js'
import type { DropReason } from '../wire/drop.js'
import { PacketHead, writeHeaders } from '../wire/headers.js'
import { IcmpKind } from '../wire/icmp.js'
import type { IcmpErrorFrame } from '../wire/open.js'
import { IcmpErrorFrame as IcmpErrorBody } from '../wire/open.js'
import type { ParsedPacket } from '../wire/packet.js'
import { Tcp, TCP_HEADER, TCP_WIRE_HEADER, TcpFlag } from '../wire/tcp.js'
import type { FlowCore } from './flow-core.js'
import { FlowFlag, ROW_WORDS, Row } from './flow-table.js'
import { answerIcmpError, carriedIcmpError } from './icmp-error.js'
import type { Segment } from './segment.js'

export class OwnKernel {
  readonly #head = new PacketHead()

  constructor(readonly core: FlowCore) {}

  /** Fills `head` for a packet of the flow towards the own kernel. Class and hop limit are the caller's. */
  headTowards(row: number, head: PacketHead): void {
    const { table } = this.core
    head.family = table.family(row)
    head.protocol = table.protocol(row)
    head.source = table.bytes
    head.sourceOffset = table.addressOffset(row, Row.remote)
    head.destination = table.bytes
    head.destinationOffset = table.addressOffset(row, Row.local)
    head.sourcePort = table.remotePort(row)
    head.destinationPort = table.localPort(row)
  }

  /**
   * Resets the own kernel's TCP connection of the flow. A kernel takes a reset only at exactly the next sequence number it expects (RFC 5961 section 3.2);
   * when bytes beyond its last acknowledgement are under way to it, that is one of two numbers, and both are sent.
   */
  reset(row: number): void {
    const { table } = this.core
    if (table.protocol(row) !== Protocol.tcp) return
    const base = row * ROW_WORDS
    const nextIn = table.words[base + Row.nextIn]!
    const acked = table.words[base + Row.acked]!
    const nextOut = table.words[base + Row.nextOut]!
    this.headTowards(row, this.#head)
    if (!table.has(row, FlowFlag.sequenced)) {
      this.#writeReset(0, nextOut, TcpFlag.rst | TcpFlag.ack)
      return
    }
    this.#writeReset(nextIn, nextOut, TcpFlag.rst | TcpFlag.ack)
    if (acked !== 0 && acked !== nextIn) this.#writeReset(acked, nextOut, TcpFlag.rst | TcpFlag.ack)
    this.core.counters.reset++
  }

  /** Resets the sender of a TCP packet that belongs to no flow (RFC 9293 section 3.10.7.1). A reset is not answered. */
  resetSender(data: Uint8Array, view: DataView, packet: ParsedPacket): void {
    if ((packet.tcpFlags & TcpFlag.rst) !== 0) return
    const head = this.#head
    head.family = packet.family
    head.protocol = Protocol.tcp
    head.source = data
    head.sourceOffset = packet.destinationOffset
    head.destination = data
    head.destinationOffset = packet.sourceOffset
    head.sourcePort = packet.destinationPort
    head.destinationPort = packet.sourcePort
    const at = packet.transportOffset
    if ((packet.tcpFlags & TcpFlag.ack) !== 0) {
      this.#writeReset(view.getInt32(at + Tcp.acknowledgement), 0, TcpFlag.rst)
      return
    }
    let end = view.getInt32(at + Tcp.sequence) + packet.end - packet.payloadOffset
    if ((packet.tcpFlags & TcpFlag.syn) !== 0) end++
    if ((packet.tcpFlags & TcpFlag.fin) !== 0) end++
    this.#writeReset(0, end | 0, TcpFlag.rst | TcpFlag.ack)
  }

  /** Tells the sender of the packet, read from the TUN and not yet turned into a frame, that it cannot go on. The teller is who it was sent to. */
  answer(data: Uint8Array, packet: ParsedPacket, kind: IcmpKind, transportMtu: number, now: number): void {
    if (!this.core.answers.take(now)) return
    const error = answerIcmpError(data, packet, kind, transportMtu, data, packet.destinationOffset)
    if (error !== undefined) this.core.env.writePacket(error)
  }

  /** Hands on an ICMP error that came from the other end: about a packet of the own kernel's, told by who it was sent to. */
  carried(row: number, frame: IcmpErrorFrame): void {
    const head = this.#quotedHead(row)
    const error = carriedIcmpError(frame, head, head.destination, head.destinationOffset)
    if (error !== undefined) this.core.env.writePacket(error)
  }

  /** Shows the program why its flow could not be opened. */
  refuse(row: number, reason: DropReason, segment: Segment): void {
    if (reason === 'refused' && segment.protocol === Protocol.tcp) {
      this.reset(row)
      return
    }
    const frame = new IcmpErrorBody()
    frame.kind = refusalKind(reason)
    frame.quote = segment.bytes
    frame.quoteLength = segment.bytes.length
    this.carried(row, frame)
  }

  /** As {@link refuse} for a packet that got no flow. */
  refusePacket(data: Uint8Array, packet: ParsedPacket, reason: DropReason, now: number): void {
    this.answer(data, packet, refusalKind(reason), 0, now)
  }

  #quotedHead(row: number): PacketHead {
    const { table } = this.core
    const head = this.#head
    head.family = table.family(row)
    head.protocol = table.protocol(row)
    head.source = table.bytes
    head.sourceOffset = table.addressOffset(row, Row.local)
    head.destination = table.bytes
    head.destinationOffset = table.addressOffset(row, Row.remote)
    head.sourcePort = table.localPort(row)
    head.destinationPort = table.remotePort(row)
    head.trafficClass = 0
    head.hopLimit = 64
    return head
  }

  /** Addresses and ports are in the head. */
  #writeReset(sequence: number, acknowledgement: number, flags: number): void {
    const data = new Uint8Array(HEADROOM + TCP_WIRE_HEADER)
    const view = new DataView(data.buffer)
    const at = HEADROOM
    view.setInt32(at, sequence)
    view.setInt32(at + 4, acknowledgement)
    data[at + 8] = (TCP_HEADER / 4) << 4
    data[at + 9] = flags
    view.setUint16(at + 12, checksumOf(sumBytes(data, view, at, TCP_WIRE_HEADER, Protocol.tcp + TCP_HEADER)))
    const head = this.#head
    head.checksum = KindFlag.checksumFree
    head.trafficClass = 0
    head.hopLimit = 64
    head.gsoKind = 0
    head.gsoSize = 0
    const vnet = writeHeaders(data, view, at, data.length, head)
    if (vnet >= 0) this.core.env.writePacket(data.subarray(vnet))
  }
}

function refusalKind(reason: DropReason): IcmpKind {
  if (reason === 'refused') return IcmpKind.portUnreachable
  if (reason === 'denied' || reason === 'revoked' || reason === 'not-entitled') return IcmpKind.prohibited
  return IcmpKind.addressUnreachable
}
