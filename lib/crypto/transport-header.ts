// What segmenting and coalescing need to know of transport headers as frames carry them: without the four bytes of the ports.

import { INNER_HEADER, INNER_KIND, INNER_PROTOCOL, Kind, KindFlag, Protocol } from '../wire/constants.js'
import { Gso } from '../wire/batch.js'

/** Positions in a TCP header without ports. Options begin at TCP_OPTIONS. */
export const TCP_SEQUENCE = 0
export const TCP_ACK = 4
export const TCP_DATA_OFFSET = 8
export const TCP_FLAGS = 9
export const TCP_WINDOW = 10
export const TCP_URGENT = 14
export const TCP_OPTIONS = 16
/** Positions in a UDP header without ports, and the length of one with them. */
export const UDP_LENGTH = 0
export const UDP_HEADER = 4
export const UDP_WITH_PORTS = 8
/** ICMP echo is carried whole: type, code, checksum, ID, sequence. */
export const ICMP_HEADER = 8

export const TcpFlag = { fin: 1, syn: 2, rst: 4, psh: 8, urg: 32, cwr: 128 } as const
/** Only the last segment of a super-packet may carry these. */
export const TCP_LAST = TcpFlag.fin | TcpFlag.psh
/** Segments with one of these travel alone. */
const TCP_ALONE = TcpFlag.syn | TcpFlag.rst | TcpFlag.urg | TcpFlag.cwr

/** Kind byte of frames that may be coalesced: their checksum is the receiving kernel's to make. */
const COALESCIBLE = Kind.data | KindFlag.checksumPartial

/** Length of the TCP header (without ports) at `offset`, out of its data offset field. May be less than TCP_OPTIONS in malformed ones. */
export function tcpHeaderLength(bytes: Uint8Array, offset: number): number {
  return (bytes[offset + TCP_DATA_OFFSET]! >>> 4) * 4 - 4
}

/** Inner and transport header of a plaintext. */
export interface FrameHeader {
  /** Inner header and, for data, the transport header. */
  headerLength: number
  /** As what its payload may be coalesced; none: not at all. */
  gsoKind: number
}

/** Fills in `header` from the plaintext (at least an inner header long); false: data with an incomplete or unknown transport header. */
export function readFrameHeader(plaintext: Uint8Array, header: FrameHeader): boolean {
  header.headerLength = INNER_HEADER
  header.gsoKind = Gso.none
  const kind = plaintext[INNER_KIND]!
  if ((kind & 15) !== Kind.data) return true
  const room = plaintext.length - INNER_HEADER
  switch (plaintext[INNER_PROTOCOL]) {
    case Protocol.tcp: {
      if (room < TCP_OPTIONS) return false
      const length = tcpHeaderLength(plaintext, INNER_HEADER)
      if (length < TCP_OPTIONS || length > room) return false
      header.headerLength += length
      const alone = (plaintext[INNER_HEADER + TCP_FLAGS]! & TCP_ALONE) !== 0
      if (kind === COALESCIBLE && !alone && length < room) header.gsoKind = Gso.tcp
      return true
    }
    case Protocol.udp: {
      if (room < UDP_HEADER) return false
      header.headerLength += UDP_HEADER
      const payload = room - UDP_HEADER
      const stated = (plaintext[INNER_HEADER + UDP_LENGTH]! << 8) | plaintext[INNER_HEADER + UDP_LENGTH + 1]!
      if (kind === COALESCIBLE && payload > 0 && stated === payload + UDP_WITH_PORTS) header.gsoKind = Gso.udp
      return true
    }
    case Protocol.icmp:
      if (room < ICMP_HEADER) return false
      header.headerLength += ICMP_HEADER
      return true
    default:
      return false
  }
}

/** Whether two plaintexts agree in inner header and, but for the fields that differ from segment to segment, in the TCP header. */
export function sameTcpStream(a: Uint8Array, b: Uint8Array, headerLength: number): boolean {
  const t = INNER_HEADER
  return (
    sameBytes(a, b, 0, INNER_HEADER) &&
    sameBytes(a, b, t + TCP_ACK, t + TCP_FLAGS) &&
    (a[t + TCP_FLAGS]! & ~TCP_LAST) === (b[t + TCP_FLAGS]! & ~TCP_LAST) &&
    sameBytes(a, b, t + TCP_WINDOW, t + TCP_WINDOW + 2) &&
    sameBytes(a, b, t + TCP_URGENT, headerLength)
  )
}

/** Whether two byte arrays agree in [from, to). */
export function sameBytes(a: Uint8Array, b: Uint8Array, from: number, to: number): boolean {
  for (let i = from; i < to; i++) if (a[i] !== b[i]) return false
  return true
}

/** Big-endian 32 bits at `offset`, unsigned. */
export function readU32(bytes: Uint8Array, offset: number): number {
  return ((bytes[offset]! << 24) | (bytes[offset + 1]! << 16) | (bytes[offset + 2]! << 8) | bytes[offset + 3]!) >>> 0
}
export function writeU32(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value >>> 24
  bytes[offset + 1] = value >>> 16
  bytes[offset + 2] = value >>> 8
  bytes[offset + 3] = value
}
export function writeU16(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value >>> 8
  bytes[offset + 1] = value
}
