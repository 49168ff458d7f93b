// Packets of a program, and what a packet written to the TUN says.

import { Protocol } from '../../../lib/wire/constants.js'
import { IcmpType } from '../../../lib/wire/icmp.js'
import { ParsedPacket, parsePacket } from '../../../lib/wire/packet.js'
import { checkPacket, packetOf, pseudoHeader, slowSum, u16, u32, VNET, viewOf } from '../wire/sample-packets.js'
import type { Family } from '../../../lib/flow/environment.js'

export const SYN = 2
export const ACK = 16
export const FIN = 1
export const RST = 4
export const PSH = 8
/** Of IPv4's flags and fragment offset. */
const DONT_FRAGMENT = 0x4000

export interface Packet {
  readonly family: Family
  readonly source: Uint8Array
  readonly destination: Uint8Array
  readonly ports: readonly [number, number]
  readonly payload?: readonly number[]
  readonly trafficClass?: number
  readonly hopLimit?: number
  /** Leave the checksum to the device. */
  readonly partial?: boolean
  /** Payload of a segment of a super-packet; implies partial. */
  readonly gsoSize?: number
  /** IPv4: routers may fragment it, which kernels allow of nothing that they can send again. */
  readonly mayFragment?: boolean
}
export interface TcpPacket extends Packet {
  readonly flags: number
  readonly sequence?: number
  readonly acknowledgement?: number
  readonly mss?: number
}

function complete(packet: Packet, protocol: number, transport: number[], field: number, gso: number): Uint8Array {
  const { family, source, destination, gsoSize } = packet
  const pseudo = pseudoHeader(source, destination, protocol, transport.length)
  const partial = packet.partial === true || gsoSize !== undefined
  const sum = partial ? slowSum(pseudo) : ~slowSum([...pseudo, ...transport]) & 0xffff
  transport[field] = sum >> 8
  transport[field + 1] = sum & 255
  const header = family === 4 ? 20 : 40
  const vnet = [
    1,
    gsoSize === undefined ? 0 : gso,
    0,
    0,
    (gsoSize ?? 0) & 255,
    (gsoSize ?? 0) >> 8,
    header,
    0,
    field,
    0,
  ]
  return packetOf({
    family,
    protocol,
    transport,
    source,
    destination,
    trafficClass: packet.trafficClass ?? 0,
    hopLimit: packet.hopLimit ?? 64,
    fragment: (packet.mayFragment ?? protocol !== Protocol.tcp) ? 0 : DONT_FRAGMENT,
    vnet: partial ? vnet : new Array<number>(10).fill(0),
  })
}

export function tcpPacket(packet: TcpPacket): Uint8Array {
  const options = packet.mss === undefined ? [] : [2, 4, ...u16(packet.mss)]
  const transport = [
    ...u16(packet.ports[0]),
    ...u16(packet.ports[1]),
    ...u32((packet.sequence ?? 1000) >>> 0),
    ...u32((packet.acknowledgement ?? 0) >>> 0),
    (5 + options.length / 4) << 4,
    packet.flags,
    ...u16(512),
    0,
    0,
    0,
    0,
    ...options,
    ...(packet.payload ?? []),
  ]
  return complete(packet, Protocol.tcp, transport, 16, packet.family === 4 ? 1 : 4)
}

export function udpPacket(packet: Packet): Uint8Array {
  const payload = packet.payload ?? []
  const transport = [...u16(packet.ports[0]), ...u16(packet.ports[1]), ...u16(8 + payload.length), 0, 0, ...payload]
  return complete(packet, Protocol.udp, transport, 6, 5)
}

/** `ports`: [identifier, 0] of a request, [0, identifier] of a reply. */
export function echoPacket(packet: Packet): Uint8Array {
  const { family, source, destination, ports } = packet
  const request = ports[0] !== 0
  const type = family === 4 ? (request ? 8 : 0) : request ? 128 : 129
  const transport = [type, 0, 0, 0, ...u16(request ? ports[0] : ports[1]), ...u16(1), ...(packet.payload ?? [])]
  const pseudo = family === 4 ? [] : pseudoHeader(source, destination, 58, transport.length)
  const sum = ~slowSum([...pseudo, ...transport]) & 0xffff
  transport[2] = sum >> 8
  transport[3] = sum & 255
  const common = { trafficClass: packet.trafficClass ?? 0, hopLimit: packet.hopLimit ?? 64 }
  const fragment = (packet.mayFragment ?? true) ? 0 : DONT_FRAGMENT
  return packetOf({ family, protocol: family === 4 ? 1 : 58, transport, source, destination, fragment, ...common })
}

/** An ICMP error of the kernel about a packet that was written to it. */
export function portUnreachable(refused: Uint8Array): Uint8Array {
  const ip = [...refused.subarray(VNET)]
  const v4 = ip[0]! >> 4 === 4
  const source = Uint8Array.from(v4 ? ip.slice(16, 20) : ip.slice(24, 40))
  const destination = Uint8Array.from(v4 ? ip.slice(12, 16) : ip.slice(8, 24))
  const transport = [v4 ? 3 : 1, v4 ? 3 : 4, 0, 0, 0, 0, 0, 0, ...ip]
  const pseudo = v4 ? [] : pseudoHeader(source, destination, 58, transport.length)
  const sum = ~slowSum([...pseudo, ...transport]) & 0xffff
  transport[2] = sum >> 8
  transport[3] = sum & 255
  return packetOf({ family: v4 ? 4 : 6, protocol: v4 ? 1 : 58, transport, source, destination })
}

export interface Seen {
  readonly family: Family
  readonly protocol: number
  readonly source: Uint8Array
  readonly destination: Uint8Array
  readonly ports: readonly [number, number]
  readonly payload: Uint8Array
  readonly trafficClass: number
  readonly hopLimit: number
  readonly gsoSize: number
  /** TCP. */
  readonly flags: number
  readonly sequence: number
  readonly acknowledgement: number
  readonly mss: number | undefined
  /** ICMP error: its type and code, and the packet it quotes (without virtio_net_hdr). */
  readonly icmp: readonly [number, number] | undefined
  /** Of an ICMP error that says what fits: whole packet, bytes. */
  readonly mtu: number
  readonly quote: Uint8Array | undefined
}

/** Reads a packet written to the TUN; throws when any of its lengths or checksums is wrong. */
export function see(bytes: Uint8Array): Seen {
  checkPacket(bytes)
  const packet = new ParsedPacket()
  const view = viewOf(bytes)
  const result = parsePacket(bytes, view, 0, bytes.length, packet)
  if (result !== 'ok' && result !== 'icmp-error') throw new Error(`not a packet: ${result}`)
  const { family, transportOffset: at } = packet
  const length = family === 4 ? 4 : 16
  const tcp = packet.protocol === Protocol.tcp
  const error = result === 'icmp-error'
  return {
    family,
    protocol: packet.protocol,
    source: bytes.slice(packet.sourceOffset, packet.sourceOffset + length),
    destination: bytes.slice(packet.destinationOffset, packet.destinationOffset + length),
    ports: [packet.sourcePort, packet.destinationPort],
    payload: bytes.slice(packet.payloadOffset, packet.end),
    trafficClass: packet.trafficClass,
    hopLimit: packet.hopLimit,
    gsoSize: packet.gsoSize,
    flags: packet.tcpFlags,
    sequence: tcp ? view.getUint32(at + 4) : 0,
    acknowledgement: tcp ? view.getUint32(at + 8) : 0,
    mss: tcp && packet.payloadOffset > at + 20 && bytes[at + 20] === 2 ? view.getUint16(at + 22) : undefined,
    icmp: error ? [bytes[at]!, bytes[at + 1]!] : undefined,
    mtu: error ? (packet.family === 4 ? view.getUint16(at + 6) : view.getUint32(at + 4)) : 0,
    quote: error ? bytes.slice(at + 8, packet.end) : undefined,
  }
}

export const isRequest = (packet: Seen, icmpType = IcmpType.echoRequest): boolean =>
  packet.protocol === Protocol.icmp && icmpType === IcmpType.echoRequest && packet.ports[0] !== 0
