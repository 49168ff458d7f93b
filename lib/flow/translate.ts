// What changes when a packet leaves its host's families and addresses behind, and when it comes in.
import { addressSum, checksumOf, pseudoHeaderSum, removeSum, replaceWord, sumBytes } from '../wire/checksum.js'
import { KindFlag, Protocol } from '../wire/constants.js'
import type { ParsedPacket } from '../wire/packet.js'
import { Tcp } from '../wire/tcp.js'
import { UDP_CHECKSUM } from '../wire/udp.js'

const ECN = 0x03
const ECT1 = 1
const CE = 3

/**
 * Turns the transport header of a packet from the TUN ('ok' of parsePacket) into what travels in a frame, in place: afterwards the bytes
 * from `packet.wireOffset` to `packet.end` are it, whatever the family was. Returns the KindFlag bits that say what its checksum holds.
 * The flow's own addresses and ports are out of it.
 */
export function packetToFrame(data: Uint8Array, view: DataView, packet: ParsedPacket): number {
  if (packet.protocol === Protocol.icmp) {
    echoToFrame(view, data, packet)
    return 0
  }
  const udp = packet.protocol === Protocol.udp
  const field = packet.transportOffset + (udp ? UDP_CHECKSUM : Tcp.checksum)
  const checksum = view.getUint16(field)
  // UDP over IPv4 may go without a checksum, over IPv6 not: the receiver's kernel is left to make one. The tag protects it meanwhile.
  if (packet.needsChecksum || (udp && checksum === 0)) {
    view.setUint16(field, 0)
    return KindFlag.checksumPartial
  }
  const own =
    addressSum(data, packet.sourceOffset, packet.family) +
    addressSum(data, packet.destinationOffset, packet.family) +
    packet.sourcePort +
    packet.destinationPort
  view.setUint16(field, removeSum(checksum, own))
  return KindFlag.checksumFree
}

/** Echoes travel as ICMPv4 with a complete checksum. */
function echoToFrame(view: DataView, data: Uint8Array, packet: ParsedPacket): void {
  const at = packet.transportOffset
  const before = view.getUint16(at)
  const after = packet.icmpType << 8
  view.setUint16(at, after)
  if (packet.needsChecksum) {
    view.setUint16(at + 2, 0)
    view.setUint16(at + 2, checksumOf(sumBytes(data, view, at, packet.end - at)))
    return
  }
  if (packet.family === 4) return
  const pseudo = pseudoHeaderSum(
    6,
    data,
    packet.sourceOffset,
    data,
    packet.destinationOffset,
    Protocol.icmp6,
    packet.end - at,
  )
  view.setUint16(at + 2, removeSum(replaceWord(view.getUint16(at + 2), before, after), pseudo))
}

/** Hop limit after one hop; 0: the packet must not go on ('hop-limit'). */
export function nextHopLimit(hopLimit: number): number {
  return hopLimit > 1 ? hopLimit - 1 : 0
}

/** Traffic class of the outer header for a packet of this class: RFC 6040 section 4.1, normal mode; DSCP is kept. */
export function innerToOuterClass(inner: number): number {
  return inner
}

/**
 * Traffic class with which a packet of class `inner` leaves a frame that came in with class `outer`: RFC 6040 section 4.2, figure 4.
 * The DSCP is the inner one. -1: congestion was marked on a packet that cannot say so, it must be dropped.
 */
export function outerToInnerEcn(inner: number, outer: number): number {
  const mark = outer & ECN
  const own = inner & ECN
  if (mark === CE) return own === 0 ? -1 : inner | CE
  if (mark === ECT1 && own !== 0 && own !== CE) return (inner & ~ECN) | ECT1
  return inner
}
