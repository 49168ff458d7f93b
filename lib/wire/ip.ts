// IPv4 and IPv6 headers as they come from the local kernel. Contract: after `readIp` returned 'ok' or 'fragment', all offsets lie
// inside the buffer in ascending order ipOffset < transportOffset <= end.
import { Protocol } from './constants.js'

export type IpFamily = 4 | 6

export const IPV4_HEADER = 20
export const IPV6_HEADER = 40
/** Length of an address in bytes. */
export const addressLength = (family: IpFamily): number => (family === 4 ? 4 : 16)
/** Length of the IP header that this program writes. */
export const ipHeaderLength = (family: IpFamily): number => (family === 4 ? IPV4_HEADER : IPV6_HEADER)

/** IPv6 extension headers that are walked. */
const HOP_BY_HOP = 0
const ROUTING = 43
const FRAGMENT = 44
const NO_NEXT_HEADER = 59
const DESTINATION_OPTIONS = 60
/** More extension headers than this in one packet are refused. */
const EXTENSIONS_MAX = 8

const OPTION_END = 0
const OPTION_NOP = 1
const OPTION_LOOSE_ROUTE = 131
const OPTION_STRICT_ROUTE = 137

/** What an IP header says. Reusable: filled by {@link readIp}. Offsets are positions in the buffer that was read. */
export interface IpHeader {
  family: IpFamily
  ipOffset: number
  /** Positions of the addresses. */
  sourceOffset: number
  destinationOffset: number
  /** First byte after the IP header and its extensions; of a fragment: of the piece it carries. */
  transportOffset: number
  /** First byte after the packet. */
  end: number
  /** As in the IP header: 1, 6, 17, 58 ... */
  protocol: number
  /** Traffic class (IPv4: type of service): DSCP and ECN. */
  trafficClass: number
  hopLimit: number
  /** Position in the original packet of the piece carried, bytes; 0 when not a fragment. */
  fragmentOffset: number
  moreFragments: boolean
  identification: number
  /** IPv6: position of the fragment header; 0: none. */
  fragmentHeaderOffset: number
  /** IPv6: position of the byte that names the fragment header, or else the transport header. */
  nextHeaderOffset: number
}

export type IpResult = 'ok' | 'fragment' | 'malformed-packet' | 'unsupported-protocol'

/**
 * Reads the IP header at `offset`; nothing at or after `limit` is touched. `quoted`: the packet stands in an ICMP error, so it may
 * be cut short. IPv4 header checksums are not verified: the packets come from the own kernel, not from a wire.
 * Bytes after the length that the header states are ignored.
 */
export function readIp(
  data: Uint8Array,
  view: DataView,
  offset: number,
  limit: number,
  quoted: boolean,
  into: IpHeader,
): IpResult {
  if (limit - offset < IPV4_HEADER) return 'malformed-packet'
  into.ipOffset = offset
  into.fragmentHeaderOffset = 0
  into.nextHeaderOffset = 0
  const version = data[offset]! >> 4
  if (version === 4) return readIpv4(data, view, offset, limit, quoted, into)
  if (version === 6) return readIpv6(data, view, offset, limit, quoted, into)
  return 'malformed-packet'
}

function readIpv4(
  data: Uint8Array,
  view: DataView,
  offset: number,
  limit: number,
  quoted: boolean,
  into: IpHeader,
): IpResult {
  const headerLength = (data[offset]! & 0x0f) << 2
  const total = view.getUint16(offset + 2)
  if (headerLength < IPV4_HEADER || total < headerLength || offset + headerLength > limit) return 'malformed-packet'
  let end = offset + total
  if (end > limit) {
    if (!quoted) return 'malformed-packet'
    end = limit
  }
  into.family = 4
  into.sourceOffset = offset + 12
  into.destinationOffset = offset + 16
  into.transportOffset = offset + headerLength
  into.end = end
  into.protocol = data[offset + 9]!
  into.trafficClass = data[offset + 1]!
  into.hopLimit = data[offset + 8]!
  into.identification = view.getUint16(offset + 4)
  const fragment = view.getUint16(offset + 6)
  into.fragmentOffset = (fragment & 0x1fff) << 3
  into.moreFragments = (fragment & 0x2000) !== 0
  if (headerLength > IPV4_HEADER) {
    const options = checkOptions(data, offset + IPV4_HEADER, offset + headerLength)
    if (options !== 'ok') return options
  }
  return (fragment & 0x3fff) !== 0 ? 'fragment' : 'ok'
}

/** Options are not carried. A source route would make the destination address a mere hop, so such a packet is refused. */
function checkOptions(data: Uint8Array, from: number, to: number): IpResult {
  let at = from
  while (at < to) {
    const option = data[at]!
    if (option === OPTION_END) return 'ok'
    if (option === OPTION_NOP) {
      at++
      continue
    }
    const length = at + 1 < to ? data[at + 1]! : 0
    if (length < 2 || at + length > to) return 'malformed-packet'
    if (option === OPTION_LOOSE_ROUTE || option === OPTION_STRICT_ROUTE) return 'unsupported-protocol'
    at += length
  }
  return 'ok'
}

function readIpv6(
  data: Uint8Array,
  view: DataView,
  offset: number,
  limit: number,
  quoted: boolean,
  into: IpHeader,
): IpResult {
  if (limit - offset < IPV6_HEADER) return 'malformed-packet'
  const payload = view.getUint16(offset + 4)
  let end = offset + IPV6_HEADER + payload
  if (end > limit) {
    if (!quoted) return 'malformed-packet'
    end = limit
  }
  into.family = 6
  into.sourceOffset = offset + 8
  into.destinationOffset = offset + 24
  into.trafficClass = ((data[offset]! & 0x0f) << 4) | (data[offset + 1]! >> 4)
  into.hopLimit = data[offset + 7]!
  into.end = end
  into.identification = 0
  into.fragmentOffset = 0
  into.moreFragments = false
  let at = offset + IPV6_HEADER
  let nextAt = offset + 6
  for (let walked = 0; walked <= EXTENSIONS_MAX; walked++) {
    const next = data[nextAt]!
    into.nextHeaderOffset = nextAt
    into.protocol = next
    into.transportOffset = at
    if (next === FRAGMENT) {
      if (at + 8 > end) return 'malformed-packet'
      const fragment = view.getUint16(at + 2)
      into.identification = view.getUint32(at + 4)
      into.fragmentOffset = fragment & 0xfff8
      into.moreFragments = (fragment & 1) !== 0
      // RFC 6946: a fragment header around a whole packet is just skipped.
      if ((fragment & 0xfff9) !== 0) {
        into.fragmentHeaderOffset = at
        into.transportOffset = at + 8
        into.protocol = data[at]!
        return 'fragment'
      }
      nextAt = at
      at += 8
    } else if (next === HOP_BY_HOP || next === DESTINATION_OPTIONS || next === ROUTING) {
      if (at + 8 > end) return 'malformed-packet'
      const length = (data[at + 1]! + 1) << 3
      if (at + length > end) return 'malformed-packet'
      // Segments left: the destination address is a mere hop.
      if (next === ROUTING && data[at + 3] !== 0) return 'unsupported-protocol'
      nextAt = at
      at += length
    } else {
      return next === NO_NEXT_HEADER ? 'unsupported-protocol' : 'ok'
    }
  }
  return 'unsupported-protocol'
}

/** The protocol number that an IP header of this family has for `protocol` (1 stands for echo of both families). */
export function ipProtocol(family: IpFamily, protocol: number): number {
  return family === 6 && protocol === Protocol.icmp ? Protocol.icmp6 : protocol
}
