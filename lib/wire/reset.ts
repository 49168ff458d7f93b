// TCP resets for the own kernel, made from nothing or in answer to a packet of it.
import { KindFlag, Protocol, VNET_HEADER } from './constants.js'
import { PacketHead, writeHeaders } from './headers.js'
import { addressLength, ipHeaderLength } from './ip.js'
import type { ParsedPacket } from './packet.js'
import { Tcp, TCP_HEADER, TcpFlag } from './tcp.js'

/**
 * A reset with the addresses and ports of `head` (its checksum and GSO fields are set here), as a packet for the TUN in a fresh array.
 * `sequence`: what the receiver expects next, which is the last acknowledgement it sent. `acknowledgement` undefined: none.
 */
export function resetPacket(head: PacketHead, sequence: number, acknowledgement: number | undefined): Uint8Array {
  const wire = VNET_HEADER + ipHeaderLength(head.family) + 4
  const packet = new Uint8Array(wire - 4 + TCP_HEADER)
  const view = new DataView(packet.buffer)
  const transport = wire - 4
  view.setUint32(transport + Tcp.sequence, sequence)
  view.setUint32(transport + Tcp.acknowledgement, acknowledgement ?? 0)
  packet[transport + Tcp.dataOffset] = (TCP_HEADER >> 2) << 4
  packet[transport + Tcp.flags] = TcpFlag.rst | (acknowledgement === undefined ? 0 : TcpFlag.ack)
  head.protocol = Protocol.tcp
  head.checksum = KindFlag.checksumPartial
  head.gsoSize = 0
  writeHeaders(packet, view, wire, packet.length, head)
  return packet
}

/** The reset that refuses a TCP packet read from the TUN (RFC 9293 section 3.10.7.1), for the TUN; undefined: it is a reset itself. */
export function resetFor(data: Uint8Array, view: DataView, packet: ParsedPacket): Uint8Array | undefined {
  if (packet.protocol !== Protocol.tcp || (packet.tcpFlags & TcpFlag.rst) !== 0) return undefined
  const head = new PacketHead()
  const length = addressLength(packet.family)
  head.family = packet.family
  head.source = data.slice(packet.destinationOffset, packet.destinationOffset + length)
  head.destination = data.slice(packet.sourceOffset, packet.sourceOffset + length)
  head.sourcePort = packet.destinationPort
  head.destinationPort = packet.sourcePort
  const at = packet.transportOffset
  if ((packet.tcpFlags & TcpFlag.ack) !== 0) {
    return resetPacket(head, view.getUint32(at + Tcp.acknowledgement), undefined)
  }
  const syn = (packet.tcpFlags & TcpFlag.syn) === 0 ? 0 : 1
  const fin = (packet.tcpFlags & TcpFlag.fin) === 0 ? 0 : 1
  const covered = packet.end - packet.payloadOffset + syn + fin
  return resetPacket(head, 0, (view.getUint32(at + Tcp.sequence) + covered) >>> 0)
}
