import type { ParsedPacket } from '../wire/packet.js'
import { nextHopLimit, packetToFrame } from './translate.js'

/** A program's packet as it travels in a frame, kept beyond its batch. */
export interface Segment {
  /** Transport header without ports (of ICMP: whole) and payload. */
  readonly bytes: Uint8Array
  /** KindFlag bits: what its checksum holds. */
  readonly checksum: number
  readonly trafficClass: number
  readonly hopLimit: number
  /** IP protocol; 1 stands for echo of both families. */
  readonly protocol: number
}

/** Takes a packet, not a super-packet, out of its buffer, where it is rewritten. Its hop limit falls by one. */
export function takeSegment(data: Uint8Array, view: DataView, packet: ParsedPacket): Segment {
  const checksum = packetToFrame(data, view, packet)
  return {
    bytes: data.slice(packet.wireOffset, packet.end),
    checksum,
    trafficClass: packet.trafficClass,
    hopLimit: nextHopLimit(packet.hopLimit),
    protocol: packet.protocol,
  }
}
