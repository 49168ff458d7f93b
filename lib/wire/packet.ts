// A packet of the TUN: virtio_net_hdr, IP header, transport header, payload. This is the view that the data path takes of it.
// Contract: after 'ok' every field is set and all offsets lie inside the packet; nothing throws, whatever the bytes.
import { Protocol, VNET_HEADER } from './constants.js'
import { IcmpType, Icmp6Type, ICMP_HEADER } from './icmp.js'
import { readIp, type IpFamily, type IpHeader } from './ip.js'
import { tcpHeaderLength } from './tcp.js'
import { UDP_HEADER } from './udp.js'

/** struct virtio_net_hdr: flags 1, gso type 1, header length 2, gso size 2, checksum start 2, checksum offset 2 (host order: little endian). */
export const Vnet = { flags: 0, gsoType: 1, headerLength: 2, gsoSize: 4, checksumStart: 6, checksumOffset: 8 } as const
export const VNET_NEEDS_CHECKSUM = 1
export const VnetGso = { none: 0, tcp4: 1, tcp6: 4, udp: 5, ecnFlag: 0x80 } as const

/** What {@link parsePacket} found. One instance is reused for all packets; it owns no bytes. */
export class ParsedPacket implements IpHeader {
  family: IpFamily = 4
  /** Position of the virtio_net_hdr. */
  vnetOffset = 0
  ipOffset = 0
  sourceOffset = 0
  destinationOffset = 0
  /** Position of the transport header (TCP, UDP: of its ports). */
  transportOffset = 0
  /** Position of what travels in a frame: the transport header without ports; of ICMP the whole. */
  wireOffset = 0
  payloadOffset = 0
  /** First byte after the packet; trailing bytes of the buffer are not part of it. */
  end = 0
  /** Protocol.tcp, .udp or .icmp; an echo of ICMPv6 is .icmp too. After 'fragment': as the IP header has it. */
  protocol = 0
  /** Ports. An echo request has its identifier as source port and 0 as destination port, a reply the reverse. */
  sourcePort = 0
  destinationPort = 0
  /** TcpFlag bits; 0 for other protocols. */
  tcpFlags = 0
  /** Echo: ICMPv4's number of the type (8 request, 0 reply) in both families. ICMP error: the type as it stands. */
  icmpType = 0
  trafficClass = 0
  hopLimit = 0
  isFragment = false
  fragmentOffset = 0
  moreFragments = false
  identification = 0
  fragmentHeaderOffset = 0
  nextHeaderOffset = 0
  /** VnetGso without the ECN flag. */
  gsoType = 0
  /** Payload bytes of a segment of a super-packet; 0: not one. */
  gsoSize = 0
  /** The checksum field holds the pseudo-header's sum only, the rest is still to be added. */
  needsChecksum = false
}

export type ParseResult = 'ok' | 'fragment' | 'icmp-error' | 'malformed-packet' | 'unsupported-protocol'

/**
 * Reads the packet whose virtio_net_hdr stands at `offset` and which has `length` bytes including it. `view` must cover the same
 * bytes as `data`. 'fragment': IP fields are set, see reassembly.ts. 'icmp-error': IP fields are set, see lib/flow/icmp-error.ts.
 */
export function parsePacket(
  data: Uint8Array,
  view: DataView,
  offset: number,
  length: number,
  into: ParsedPacket,
): ParseResult {
  const limit = offset + length
  if (offset < 0 || length < VNET_HEADER || limit > data.length) return 'malformed-packet'
  into.vnetOffset = offset
  into.tcpFlags = 0
  into.icmpType = 0
  into.sourcePort = 0
  into.destinationPort = 0
  into.gsoType = data[offset + Vnet.gsoType]! & ~VnetGso.ecnFlag
  into.gsoSize = into.gsoType === VnetGso.none ? 0 : view.getUint16(offset + Vnet.gsoSize, true)
  // The segments' checksums of a super-packet cannot be complete.
  into.needsChecksum = (data[offset + Vnet.flags]! & VNET_NEEDS_CHECKSUM) !== 0 || into.gsoType !== VnetGso.none
  const ip = readIp(data, view, offset + VNET_HEADER, limit, false, into)
  into.isFragment = ip === 'fragment'
  into.wireOffset = into.transportOffset
  into.payloadOffset = into.transportOffset
  if (ip !== 'ok') return ip
  switch (into.protocol) {
    case Protocol.tcp:
      return parseTcp(data, view, into)
    case Protocol.udp:
      return parseUdp(view, into)
    case Protocol.icmp:
      return into.family === 4 ? parseIcmp4(data, view, into) : 'unsupported-protocol'
    case Protocol.icmp6:
      return into.family === 6 ? parseIcmp6(data, view, into) : 'unsupported-protocol'
    default:
      return 'unsupported-protocol'
  }
}

function parseTcp(data: Uint8Array, view: DataView, into: ParsedPacket): ParseResult {
  const at = into.transportOffset
  const header = tcpHeaderLength(data, at, into.end)
  if (header < 0) return 'malformed-packet'
  const gso = into.family === 4 ? VnetGso.tcp4 : VnetGso.tcp6
  if (into.gsoType !== VnetGso.none && (into.gsoType !== gso || into.gsoSize === 0)) return 'malformed-packet'
  if (!checksumFieldAt(view, into, 16)) return 'malformed-packet'
  into.sourcePort = view.getUint16(at)
  into.destinationPort = view.getUint16(at + 2)
  into.tcpFlags = data[at + 13]!
  into.wireOffset = at + 4
  into.payloadOffset = at + header
  return 'ok'
}

function parseUdp(view: DataView, into: ParsedPacket): ParseResult {
  const at = into.transportOffset
  if (into.end - at < UDP_HEADER) return 'malformed-packet'
  const length = view.getUint16(at + 4)
  if (length < UDP_HEADER || at + length > into.end) return 'malformed-packet'
  if (into.gsoType !== VnetGso.none && (into.gsoType !== VnetGso.udp || into.gsoSize === 0)) return 'malformed-packet'
  if (!checksumFieldAt(view, into, 6)) return 'malformed-packet'
  into.sourcePort = view.getUint16(at)
  into.destinationPort = view.getUint16(at + 2)
  into.wireOffset = at + 4
  into.payloadOffset = at + UDP_HEADER
  into.end = at + length
  return 'ok'
}

function parseIcmp4(data: Uint8Array, view: DataView, into: ParsedPacket): ParseResult {
  const at = into.transportOffset
  if (into.end - at < ICMP_HEADER || into.gsoType !== VnetGso.none) return 'malformed-packet'
  if (!checksumFieldAt(view, into, 2)) return 'malformed-packet'
  const type = data[at]!
  into.icmpType = type
  if (type === IcmpType.unreachable || type === IcmpType.timeExceeded) return 'icmp-error'
  if (type === IcmpType.echoRequest) return echo(data, view, into, IcmpType.echoRequest)
  if (type === IcmpType.echoReply) return echo(data, view, into, IcmpType.echoReply)
  return 'unsupported-protocol'
}

function parseIcmp6(data: Uint8Array, view: DataView, into: ParsedPacket): ParseResult {
  const at = into.transportOffset
  if (into.end - at < ICMP_HEADER || into.gsoType !== VnetGso.none) return 'malformed-packet'
  if (!checksumFieldAt(view, into, 2)) return 'malformed-packet'
  const type = data[at]!
  into.icmpType = type
  if (type >= Icmp6Type.unreachable && type <= Icmp6Type.parameterProblem) return 'icmp-error'
  if (type === Icmp6Type.echoRequest) return echo(data, view, into, IcmpType.echoRequest)
  if (type === Icmp6Type.echoReply) return echo(data, view, into, IcmpType.echoReply)
  return 'unsupported-protocol'
}

function echo(data: Uint8Array, view: DataView, into: ParsedPacket, type: number): ParseResult {
  const at = into.transportOffset
  if (data[at + 1] !== 0) return 'unsupported-protocol'
  const identifier = view.getUint16(at + 4)
  into.protocol = Protocol.icmp
  into.icmpType = type
  into.sourcePort = type === IcmpType.echoRequest ? identifier : 0
  into.destinationPort = type === IcmpType.echoRequest ? 0 : identifier
  into.payloadOffset = at + ICMP_HEADER
  return 'ok'
}

/** A partial checksum must be the transport header's own, else completing it would write elsewhere. */
function checksumFieldAt(view: DataView, into: ParsedPacket, field: number): boolean {
  if (!into.needsChecksum || into.gsoType !== VnetGso.none) return true
  const vnet = into.vnetOffset
  return (
    view.getUint16(vnet + Vnet.checksumStart, true) === into.transportOffset - into.ipOffset &&
    view.getUint16(vnet + Vnet.checksumOffset, true) === field
  )
}
