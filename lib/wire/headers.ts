// Writes the local headers back in front of what travelled in a frame, so that it becomes a packet of the TUN again.
import { addressSum, addSum, checksumOf, fold, replaceWord } from './checksum.js'
import { Gso } from './batch.js'
import { KindFlag, PACKET_MAX, Protocol, VNET_HEADER } from './constants.js'
import { ICMP_HEADER, Icmp6Type, IcmpType } from './icmp.js'
import { ipHeaderLength, ipProtocol, IPV4_HEADER, type IpFamily } from './ip.js'
import { Vnet, VNET_NEEDS_CHECKSUM, VnetGso } from './packet.js'
import { Tcp, TCP_WIRE_HEADER, tcpHeaderLength, TcpFlag } from './tcp.js'
import { UDP_CHECKSUM, udpChecksum, UDP_HEADER, UDP_WIRE_HEADER } from './udp.js'

const DONT_FRAGMENT = 0x4000
const NO_ADDRESS = new Uint8Array(16)

/** Headers to be written. One instance is reused; it borrows the address arrays for the call. */
export class PacketHead {
  family: IpFamily = 4
  /** Protocol.tcp, .udp or .icmp (echo of either family). */
  protocol = 0
  /** Addresses of `family` in network order at these positions. */
  source: Uint8Array = NO_ADDRESS
  sourceOffset = 0
  destination: Uint8Array = NO_ADDRESS
  destinationOffset = 0
  /** Ports; an echo request takes its identifier from the source port, a reply from the destination port. */
  sourcePort = 0
  destinationPort = 0
  trafficClass = 0
  hopLimit = 64
  /** KindFlag bits of the frame (others are ignored): what the checksum field holds. */
  checksum = 0
  /** Gso. */
  gsoKind = 0
  /** Payload bytes of a segment; 0: not a super-packet. */
  gsoSize = 0
}

/**
 * Completes the packet whose transport header without ports (of ICMP: whole) stands at `wireOffset` and which ends at `end`. Returns the
 * position of its virtio_net_hdr, or -1 when the bytes are not such a header, the packet would be too long or there is no room in front
 * (54 bytes always do). Overwrites what stands in front. IPv4: never to be fragmented, therefore identification 0 (RFC 6864).
 */
export function writeHeaders(
  data: Uint8Array,
  view: DataView,
  wireOffset: number,
  end: number,
  head: PacketHead,
): number {
  const icmp = head.protocol === Protocol.icmp
  const transport = icmp ? wireOffset : wireOffset - 4
  const ip = transport - ipHeaderLength(head.family)
  const vnet = ip - VNET_HEADER
  if (vnet < 0 || end > data.length || wireOffset > end || end - ip > PACKET_MAX) return -1
  view.setUint32(vnet, 0)
  view.setUint32(vnet + 4, 0)
  view.setUint16(vnet + 8, 0)
  const addresses = addressesOf(head)
  let ok: boolean
  if (head.protocol === Protocol.tcp) ok = finishTcp(data, view, vnet, ip, transport, end, head, addresses)
  else if (head.protocol === Protocol.udp) ok = finishUdp(data, view, vnet, ip, transport, end, head, addresses)
  else ok = icmp && finishEcho(data, view, transport, end, head, addresses)
  if (!ok) return -1
  writeIp(data, view, ip, end - transport, head, addresses)
  return vnet
}

/** Writes the IP header at `at` for `length` bytes behind it. The caller has made sure of the room. */
export function writeIpHeader(data: Uint8Array, view: DataView, at: number, length: number, head: PacketHead): void {
  writeIp(data, view, at, length, head, addressesOf(head))
}

/** The sum of both addresses, which IPv4's own checksum and those of the transports have in common. */
function addressesOf(head: PacketHead): number {
  return (
    addressSum(head.source, head.sourceOffset, head.family) +
    addressSum(head.destination, head.destinationOffset, head.family)
  )
}

function writeIp(
  data: Uint8Array,
  view: DataView,
  at: number,
  length: number,
  head: PacketHead,
  addresses: number,
): void {
  const protocol = ipProtocol(head.family, head.protocol)
  if (head.family === 4) {
    const first = 0x4500 | head.trafficClass
    const total = IPV4_HEADER + length
    const fifth = (head.hopLimit << 8) | protocol
    view.setUint16(at, first)
    view.setUint16(at + 2, total)
    view.setUint16(at + 4, 0)
    view.setUint16(at + 6, DONT_FRAGMENT)
    view.setUint16(at + 8, fifth)
    view.setUint16(at + 10, checksumOf(first + total + DONT_FRAGMENT + fifth + addresses))
    copyAddress(data, at + 12, head.source, head.sourceOffset, 4)
    copyAddress(data, at + 16, head.destination, head.destinationOffset, 4)
  } else {
    view.setUint32(at, (0x60000000 | (head.trafficClass << 20)) >>> 0)
    view.setUint16(at + 4, length)
    view.setUint16(at + 6, (protocol << 8) | head.hopLimit)
    copyAddress(data, at + 8, head.source, head.sourceOffset, 16)
    copyAddress(data, at + 24, head.destination, head.destinationOffset, 16)
  }
}

function copyAddress(data: Uint8Array, at: number, from: Uint8Array, offset: number, length: number): void {
  for (let i = 0; i < length; i++) data[at + i] = from[offset + i]!
}

function finishTcp(
  data: Uint8Array,
  view: DataView,
  vnet: number,
  ip: number,
  transport: number,
  end: number,
  head: PacketHead,
  addresses: number,
): boolean {
  if (end - transport < 4 + TCP_WIRE_HEADER) return false
  const header = tcpHeaderLength(data, transport, end)
  if (header < 0) return false
  const segmented = head.gsoKind === Gso.tcp && head.gsoSize > 0 && end - transport - header > head.gsoSize
  if (!finishChecksum(view, vnet, ip, transport, end, Tcp.checksum, segmented, head, addresses)) return false
  if (segmented) {
    const congestion = (data[transport + Tcp.flags]! & TcpFlag.cwr) === 0 ? 0 : VnetGso.ecnFlag
    data[vnet + Vnet.gsoType] = (head.family === 4 ? VnetGso.tcp4 : VnetGso.tcp6) | congestion
    view.setUint16(vnet + Vnet.headerLength, transport + header - ip, true)
    view.setUint16(vnet + Vnet.gsoSize, head.gsoSize, true)
  }
  return true
}

function finishUdp(
  data: Uint8Array,
  view: DataView,
  vnet: number,
  ip: number,
  transport: number,
  end: number,
  head: PacketHead,
  addresses: number,
): boolean {
  if (end - transport < 4 + UDP_WIRE_HEADER) return false
  view.setUint16(transport + 4, end - transport)
  const segmented = head.gsoKind === Gso.udp && head.gsoSize > 0 && end - transport - UDP_HEADER > head.gsoSize
  if (!finishChecksum(view, vnet, ip, transport, end, UDP_CHECKSUM, segmented, head, addresses)) return false
  if (segmented) {
    data[vnet + Vnet.gsoType] = VnetGso.udp
    view.setUint16(vnet + Vnet.headerLength, transport + UDP_HEADER - ip, true)
    view.setUint16(vnet + Vnet.gsoSize, head.gsoSize, true)
  } else {
    const field = transport + UDP_CHECKSUM
    if ((head.checksum & KindFlag.checksumFree) !== 0) view.setUint16(field, udpChecksum(view.getUint16(field)))
  }
  return true
}

/** Ports and checksum of TCP and UDP. */
function finishChecksum(
  view: DataView,
  vnet: number,
  ip: number,
  transport: number,
  end: number,
  field: number,
  segmented: boolean,
  head: PacketHead,
  addresses: number,
): boolean {
  view.setUint16(transport, head.sourcePort)
  view.setUint16(transport + 2, head.destinationPort)
  if (segmented || (head.checksum & KindFlag.checksumPartial) !== 0) {
    view.setUint16(transport + field, fold(addresses + head.protocol + end - transport))
    view.setUint8(vnet + Vnet.flags, VNET_NEEDS_CHECKSUM)
    view.setUint16(vnet + Vnet.checksumStart, transport - ip, true)
    view.setUint16(vnet + Vnet.checksumOffset, field, true)
    return true
  }
  if ((head.checksum & KindFlag.checksumFree) === 0) return false
  const own = addresses + head.sourcePort + head.destinationPort
  view.setUint16(transport + field, addSum(view.getUint16(transport + field), own))
  return true
}

/** An echo travels as ICMPv4 with a complete checksum; identifier, and for IPv6 type and pseudo header, are brought in. */
function finishEcho(
  data: Uint8Array,
  view: DataView,
  at: number,
  end: number,
  head: PacketHead,
  addresses: number,
): boolean {
  if (end - at < ICMP_HEADER) return false
  const word = view.getUint16(at)
  const request = word === IcmpType.echoRequest << 8
  if (!request && word !== IcmpType.echoReply << 8) return false
  const identifier = request ? head.sourcePort : head.destinationPort
  let checksum = replaceWord(view.getUint16(at + 2), view.getUint16(at + 4), identifier)
  view.setUint16(at + 4, identifier)
  if (head.family === 6) {
    const type = request ? Icmp6Type.echoRequest : Icmp6Type.echoReply
    checksum = replaceWord(checksum, word, type << 8)
    data[at] = type
    checksum = addSum(checksum, addresses + Protocol.icmp6 + end - at)
  }
  view.setUint16(at + 2, checksum)
  return true
}
