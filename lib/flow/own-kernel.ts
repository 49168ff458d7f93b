// What the flow layer itself tells the own kernel: resets, exact in their sequence numbers, and ICMP errors.
import { Protocol } from '../wire/constants.js'
import type { DropReason } from '../wire/drop.js'
import { PacketHead } from '../wire/headers.js'
import { IcmpKind } from '../wire/icmp.js'
import { IcmpErrorFrame } from '../wire/open.js'
import type { ParsedPacket } from '../wire/packet.js'
import { resetFor, resetPacket } from '../wire/reset.js'
import type { FlowCore } from './flow-core.js'
import { FlowFlag, ROW_WORDS, Row } from './flow-table.js'
import { answerIcmpError, carriedIcmpError } from './icmp-error.js'
import { Refusals } from './refusals.js'
import type { Segment } from './segment.js'

const OWN_HOP_LIMIT = 64

export class OwnKernel {
  readonly #head = new PacketHead()
  readonly #unreachable = new IcmpErrorFrame()
  /** What an error quotes of TCP's header besides the ports, of which RFC 792 demands no more. */
  readonly #sequence = new Uint8Array(4)
  readonly #refusals: Refusals

  constructor(readonly core: FlowCore) {
    this.#refusals = new Refusals({
      write: (packet) => core.env.writePacket(packet),
      overflow: () => core.counters.refusalsOnce++,
    })
  }

  get nextTimeout(): number {
    return this.#refusals.nextTimeout
  }

  handleTimeout(now: number): void {
    this.#refusals.handleTimeout(now)
  }

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
    const head = this.#head
    this.headTowards(row, head)
    head.trafficClass = 0
    head.hopLimit = OWN_HOP_LIMIT
    const sequenced = table.has(row, FlowFlag.sequenced)
    this.core.env.writePacket(resetPacket(head, sequenced ? nextIn >>> 0 : 0, nextOut >>> 0))
    if (sequenced && acked !== 0 && acked !== nextIn) {
      this.core.env.writePacket(resetPacket(head, acked >>> 0, nextOut >>> 0))
    }
    this.core.counters.reset++
  }

  /** Resets the sender of a TCP packet that belongs to no flow. A reset is not answered. */
  resetSender(data: Uint8Array, view: DataView, packet: ParsedPacket): void {
    const reset = resetFor(data, view, packet)
    if (reset !== undefined) this.core.env.writePacket(reset)
  }

  /** Tells the sender of the packet, read from the TUN and not yet turned into a frame, that it cannot go on. The teller is who it was sent to. */
  answer(data: Uint8Array, packet: ParsedPacket, kind: IcmpKind, transportMtu: number, now: number): void {
    if (!this.core.answers.take(now)) return
    const error = answerIcmpError(data, packet, kind, transportMtu, data, packet.destinationOffset)
    if (error !== undefined) this.core.env.writePacket(error)
  }

  /** Hands on an ICMP error that came from the other end: about a packet of the own kernel's, told by who it was sent to. */
  carried(row: number, frame: IcmpErrorFrame): void {
    const error = this.#carriedError(row, frame)
    if (error !== undefined) this.core.env.writePacket(error)
  }

  /** Tells the own kernel, of a TCP flow, that what it has sent from this number on did not get there. */
  unreachable(row: number, sequence: number): void {
    const frame = this.#unreachable
    frame.kind = IcmpKind.hostUnreachable
    frame.quote = this.#sequence
    frame.quoteLength = this.#sequence.length
    new DataView(this.#sequence.buffer).setInt32(0, sequence)
    this.carried(row, frame)
  }

  /** Shows the program why its flow could not be opened. */
  refuse(row: number, reason: DropReason, segment: Segment, now: number): void {
    if (reason === 'refused' && segment.protocol === Protocol.tcp) {
      this.reset(row)
      return
    }
    const frame = new IcmpErrorFrame()
    frame.kind = refusalKind(reason)
    frame.quote = segment.bytes
    frame.quoteLength = segment.bytes.length
    const error = this.#carriedError(row, frame)
    if (error !== undefined) this.#tell(error, segment.protocol, now)
  }

  /** As {@link refuse} for a packet that got no flow. */
  refusePacket(data: Uint8Array, view: DataView, packet: ParsedPacket, reason: DropReason, now: number): void {
    if (reason === 'refused' && packet.protocol === Protocol.tcp) {
      if (this.core.answers.take(now)) this.resetSender(data, view, packet)
      return
    }
    if (!this.core.answers.take(now)) return
    const error = answerIcmpError(data, packet, refusalKind(reason), 0, data, packet.destinationOffset)
    if (error !== undefined) this.#tell(error, packet.protocol, now)
  }

  #tell(error: Uint8Array, protocol: number, now: number): void {
    if (protocol === Protocol.tcp) this.#refusals.tell(error, now)
    else this.core.env.writePacket(error)
  }

  #carriedError(row: number, frame: IcmpErrorFrame): Uint8Array | undefined {
    const head = this.#quotedHead(row)
    return carriedIcmpError(frame, head, head.destination, head.destinationOffset)
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
    head.hopLimit = OWN_HOP_LIMIT
    return head
  }
}

function refusalKind(reason: DropReason): IcmpKind {
  if (reason === 'refused') return IcmpKind.portUnreachable
  if (reason === 'denied' || reason === 'revoked' || reason === 'not-entitled') return IcmpKind.prohibited
  return IcmpKind.addressUnreachable
}
