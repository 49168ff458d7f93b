// ICMP errors: read from the TUN into a form that knows no family, and written for the own kernel, which must recognise the packet
// that they quote. How many are written a second is the engine's to limit.
import { checksumOf, pseudoHeaderSum, sumBytes } from '../wire/checksum.js'
import { Protocol, VNET_HEADER } from '../wire/constants.js'
import { PacketHead, writeIpHeader } from '../wire/headers.js'
import { ICMP_HEADER, icmp4Kind, icmp6Kind, Icmp6Type, icmpCodes, IcmpKind, IcmpType } from '../wire/icmp.js'
import { addressLength, IPV4_HEADER, IPV6_HEADER, ipHeaderLength, readIp, type IpFamily } from '../wire/ip.js'
import { ICMP_QUOTE_MAX, type IcmpErrorFrame } from '../wire/open.js'
import { ParsedPacket } from '../wire/packet.js'

/** A quote needs the ports and 4 bytes more (RFC 792: 8 bytes), so that the receiver finds its socket. */
const QUOTE_MIN = 8
/** Whole packets: RFC 1812 section 4.3.2.3, RFC 4443 section 2.4. */
const ICMP4_PACKET_MAX = 576
const ICMP6_PACKET_MAX = 1280
const IPV6_MTU_MIN = 1280
/** Assumed where a router of the time before RFC 1191 says no MTU. */
const IPV4_MTU_UNKNOWN = 576
const HOP_LIMIT = 64

/** What {@link parseIcmpError} found. Offsets are positions in the packet's buffer. */
export class IcmpErrorPacket {
  /** IcmpKind. */
  kind: IcmpKind = IcmpKind.hostUnreachable
  /** tooBig: largest transport header and payload that fits, bytes; else 0. */
  transportMtu = 0
  family: IpFamily = 4
  /** Of the quoted packet: Protocol.tcp, .udp or .icmp (echo of either family). */
  protocol = 0
  /** The quoted packet's addresses and ports, as it was sent: towards the TUN's owner for packets that we wrote. */
  sourceOffset = 0
  destinationOffset = 0
  sourcePort = 0
  destinationPort = 0
  /** Quoted transport header without ports (echo: whole), up to `end`. */
  wireOffset = 0
  end = 0
}

const quotedIp = new ParsedPacket()

/** Reads the error for which parsePacket returned 'icmp-error'. 'unsupported-protocol': an error that is not carried, or about something that is not. */
export function parseIcmpError(
  data: Uint8Array,
  view: DataView,
  packet: ParsedPacket,
  into: IcmpErrorPacket,
): 'ok' | 'malformed-packet' | 'unsupported-protocol' {
  const at = packet.transportOffset
  const v4 = packet.family === 4
  const kind = v4 ? icmp4Kind(data[at]!, data[at + 1]!) : icmp6Kind(data[at]!, data[at + 1]!)
  if (kind === undefined) return 'unsupported-protocol'
  const quote = at + ICMP_HEADER
  const limit = quoteEnd(data, at, packet.end, v4, kind)
  const ip = readIp(data, view, quote, limit, true, quotedIp)
  if (ip === 'malformed-packet' || ip === 'unsupported-protocol') return ip
  if (quotedIp.family !== packet.family) return 'malformed-packet'
  // Only the first fragment has a transport header.
  if (quotedIp.fragmentOffset !== 0) return 'unsupported-protocol'
  const transport = quotedIp.transportOffset
  if (quotedIp.end - transport < QUOTE_MIN) return 'malformed-packet'
  into.kind = kind
  into.family = packet.family
  into.sourceOffset = quotedIp.sourceOffset
  into.destinationOffset = quotedIp.destinationOffset
  into.end = quotedIp.end
  into.transportMtu = kind === IcmpKind.tooBig ? transportMtu(view, at, v4) : 0
  const protocol = quotedIp.protocol
  if (protocol === Protocol.tcp || protocol === Protocol.udp) {
    into.protocol = protocol
    into.sourcePort = view.getUint16(transport)
    into.destinationPort = view.getUint16(transport + 2)
    into.wireOffset = transport + 4
    return 'ok'
  }
  if (protocol !== (v4 ? Protocol.icmp : Protocol.icmp6)) return 'unsupported-protocol'
  const type = data[transport]!
  const request = type === (v4 ? IcmpType.echoRequest : Icmp6Type.echoRequest)
  if (!request && type !== (v4 ? IcmpType.echoReply : Icmp6Type.echoReply)) return 'unsupported-protocol'
  const identifier = view.getUint16(transport + 4)
  into.protocol = Protocol.icmp
  into.sourcePort = request ? identifier : 0
  into.destinationPort = request ? 0 : identifier
  into.wireOffset = transport
  return 'ok'
}

/** RFC 4884: a length in the ICMP header (IPv4 words of 4 bytes, IPv6 of 8) says where extensions begin that are not part of the quote. */
function quoteEnd(data: Uint8Array, at: number, end: number, v4: boolean, kind: IcmpKind): number {
  if (!v4 && (kind === IcmpKind.tooBig || kind === IcmpKind.protocolUnreachable)) return end
  const length = v4 ? data[at + 5]! << 2 : data[at + 4]! << 3
  return length === 0 ? end : Math.min(end, at + ICMP_HEADER + length)
}

function transportMtu(view: DataView, at: number, v4: boolean): number {
  if (!v4) return clamp16(view.getUint32(at + 4) - IPV6_HEADER)
  const mtu = view.getUint16(at + 6)
  return clamp16((mtu === 0 ? IPV4_MTU_UNKNOWN : mtu) - IPV4_HEADER)
}

function clamp16(value: number): number {
  return Math.max(0, Math.min(0xffff, value))
}

/** Fills the frame that carries the error to the end that sent the quoted packet. It borrows `data`, where an ICMPv6 echo's type is rewritten. */
export function errorToFrame(data: Uint8Array, error: IcmpErrorPacket, frame: IcmpErrorFrame): void {
  if (error.protocol === Protocol.icmp && error.family === 6) {
    data[error.wireOffset] =
      data[error.wireOffset] === Icmp6Type.echoRequest ? IcmpType.echoRequest : IcmpType.echoReply
  }
  frame.kind = error.kind
  frame.transportMtu = error.transportMtu
  frame.quote = data
  frame.quoteOffset = error.wireOffset
  frame.quoteLength = Math.min(error.end - error.wireOffset, ICMP_QUOTE_MAX)
}

/**
 * The packet for the TUN (virtio_net_hdr and all) that tells the own kernel of an error carried here. `quoted` has the refused packet's headers
 * as the own kernel sent them: its source is who is told. `source`: who tells, an address of the same family. The kind is the frame's.
 * undefined: the quote is too short to be recognised, or the frame's kind is none.
 */
export function carriedIcmpError(
  frame: IcmpErrorFrame,
  quoted: PacketHead,
  source: Uint8Array,
  sourceOffset: number,
): Uint8Array | undefined {
  const echo = quoted.protocol === Protocol.icmp
  const ports = echo ? 0 : 4
  if (frame.quoteLength + ports < QUOTE_MIN) return undefined
  const header = ipHeaderLength(quoted.family)
  const quoteLength = header + ports + Math.min(frame.quoteLength, ICMP_QUOTE_MAX)
  const packet = startError(quoted.family, quoteLength)
  const view = new DataView(packet.buffer)
  const at = packet.length - quoteLength
  writeIpHeader(packet, view, at, quoteLength - header, quoted)
  const transport = at + header
  packet.set(
    frame.quote.subarray(frame.quoteOffset, frame.quoteOffset + quoteLength - header - ports),
    transport + ports,
  )
  if (echo) {
    const request = packet[transport] === IcmpType.echoRequest
    if (!request && packet[transport] !== IcmpType.echoReply) return undefined
    if (quoted.family === 6) packet[transport] = request ? Icmp6Type.echoRequest : Icmp6Type.echoReply
    view.setUint16(transport + 4, request ? quoted.sourcePort : quoted.destinationPort)
  } else {
    view.setUint16(transport, quoted.sourcePort)
    view.setUint16(transport + 2, quoted.destinationPort)
  }
  return finishError(packet, view, quoted.family, frame.kind, frame.transportMtu, source, sourceOffset, {
    bytes: quoted.source,
    offset: quoted.sourceOffset,
  })
}

/**
 * The packet for the TUN that answers a packet read from it ('ok' or 'fragment' of parsePacket, not yet turned into a frame) with an error:
 * tooBig (`mtu`: largest transport header and payload, bytes), hopLimit, hostUnreachable ... `source`: who tells, of the packet's family.
 * undefined: such a packet is not to be answered (RFC 1122 section 3.2.2).
 */
export function answerIcmpError(
  data: Uint8Array,
  packet: ParsedPacket,
  kind: IcmpKind,
  mtu: number,
  source: Uint8Array,
  sourceOffset: number,
): Uint8Array | undefined {
  if (packet.fragmentOffset !== 0) return undefined
  const { family } = packet
  const most = (family === 4 ? ICMP4_PACKET_MAX : ICMP6_PACKET_MAX) - ipHeaderLength(family) - ICMP_HEADER
  const quoteLength = Math.min(packet.end - packet.ipOffset, most)
  const answer = startError(family, quoteLength)
  answer.set(data.subarray(packet.ipOffset, packet.ipOffset + quoteLength), answer.length - quoteLength)
  return finishError(answer, new DataView(answer.buffer), family, kind, mtu, source, sourceOffset, {
    bytes: data,
    offset: packet.sourceOffset,
  })
}

function startError(family: IpFamily, quoteLength: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(VNET_HEADER + ipHeaderLength(family) + ICMP_HEADER + quoteLength)
}

/** Everything in front of the quote, which is in place. */
function finishError(
  packet: Uint8Array,
  view: DataView,
  family: IpFamily,
  kind: number,
  mtu: number,
  source: Uint8Array,
  sourceOffset: number,
  destination: { readonly bytes: Uint8Array; readonly offset: number },
): Uint8Array | undefined {
  const codes = icmpCodes(kind)
  if (codes === undefined) return undefined
  const at = VNET_HEADER + ipHeaderLength(family)
  const length = packet.length - at
  packet[at] = codes[family === 4 ? 0 : 2]
  packet[at + 1] = codes[family === 4 ? 1 : 3]
  if (kind === IcmpKind.tooBig) {
    if (family === 4) view.setUint16(at + 6, Math.min(0xffff, mtu + IPV4_HEADER))
    else view.setUint32(at + 4, Math.max(IPV6_MTU_MIN, mtu + IPV6_HEADER))
  } else if (family === 6 && kind === IcmpKind.protocolUnreachable) {
    // Parameter problem: the pointer is the position of the next header field.
    view.setUint32(at + 4, 6)
  }
  const head = new PacketHead()
  head.family = family
  head.protocol = Protocol.icmp
  head.source = source
  head.sourceOffset = sourceOffset
  head.destination = destination.bytes.slice(destination.offset, destination.offset + addressLength(family))
  head.hopLimit = HOP_LIMIT
  writeIpHeader(packet, view, VNET_HEADER, length, head)
  const pseudo =
    family === 4 ? 0 : pseudoHeaderSum(6, source, sourceOffset, head.destination, 0, Protocol.icmp6, length)
  view.setUint16(at + 2, checksumOf(sumBytes(packet, view, at, length, pseudo)))
  return packet
}
