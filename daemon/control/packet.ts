// A look at an IP packet for people: addresses, ports and what is worth printing. Total: any bytes give a summary or undefined, cut
// packets give what is there. Made only while somebody watches, so it may allocate.

import ipaddr from 'ipaddr.js'
import { Protocol } from '../../lib/wire/constants.js'

export interface PacketSummary {
  readonly source: string
  readonly destination: string
  /** IP protocol number of the upper layer, after extension headers. */
  readonly protocol: number
  /** Bytes that the IP header claims. */
  readonly length: number
  /** TCP and UDP, when they are there. */
  readonly sourcePort?: number
  readonly destinationPort?: number
  /** Such as `[S] seq 1 win 64240 len 0`. */
  readonly text: string
}

const FLAGS = [
  [0x02, 'S'],
  [0x01, 'F'],
  [0x04, 'R'],
  [0x08, 'P'],
  [0x20, 'U'],
  [0x40, 'E'],
  [0x80, 'C'],
  [0x10, '.'],
] as const

const ICMP4: Readonly<Record<number, string>> = {
  0: 'echo reply',
  3: 'unreachable',
  5: 'redirect',
  8: 'echo request',
  11: 'time exceeded',
  12: 'parameter problem',
}
const ICMP6: Readonly<Record<number, string>> = {
  1: 'unreachable',
  2: 'packet too big',
  3: 'time exceeded',
  4: 'parameter problem',
  128: 'echo request',
  129: 'echo reply',
  133: 'router solicitation',
  134: 'router advertisement',
  135: 'neighbour solicitation',
  136: 'neighbour advertisement',
  143: 'multicast listener report',
}

/** Summary of an IPv4 or IPv6 packet; undefined when not even its IP header is there. */
export function summarisePacket(bytes: Uint8Array): PacketSummary | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const version = bytes.length > 0 ? view.getUint8(0) >> 4 : 0
  if (version === 4 && bytes.length >= 20) return summarise4(bytes, view)
  if (version === 6 && bytes.length >= 40) return summarise6(bytes, view)
  return undefined
}

function addressText(bytes: Uint8Array, offset: number, length: number): string {
  return ipaddr.fromByteArray([...bytes.subarray(offset, offset + length)]).toString()
}

function summarise4(bytes: Uint8Array, view: DataView): PacketSummary {
  const header = (view.getUint8(0) & 15) * 4
  const length = view.getUint16(2)
  const fragment = view.getUint16(6)
  const base = {
    source: addressText(bytes, 12, 4),
    destination: addressText(bytes, 16, 4),
    protocol: view.getUint8(9),
    length,
  }
  const offset = (fragment & 0x1fff) * 8
  if (offset > 0) return { ...base, text: `fragment at ${offset} len ${Math.max(0, length - header)}` }
  if (header < 20) return { ...base, text: 'bad header length' }
  const more = (fragment & 0x2000) !== 0 ? 'first fragment, ' : ''
  return upper(base, view, header, length - header, more)
}

function summarise6(bytes: Uint8Array, view: DataView): PacketSummary {
  const payload = view.getUint16(4)
  let next = view.getUint8(6)
  let at = 40
  let more = ''
  const addresses = { source: addressText(bytes, 8, 16), destination: addressText(bytes, 24, 16), length: payload + 40 }
  // hop-by-hop, routing, fragment, destination options
  for (let n = 0; n < 8 && (next === 0 || next === 43 || next === 44 || next === 60); n++) {
    if (at + 8 > bytes.length) return { ...addresses, protocol: next, text: 'cut in an extension header' }
    if (next === 44) {
      const fragment = view.getUint16(at + 2)
      if (fragment >> 3 > 0)
        return { ...addresses, protocol: view.getUint8(at), text: `fragment at ${fragment & 0xfff8}` }
      if ((fragment & 1) !== 0) more = 'first fragment, '
    }
    const size = next === 44 ? 8 : (view.getUint8(at + 1) + 1) * 8
    next = view.getUint8(at)
    at += size
  }
  return upper({ ...addresses, protocol: next }, view, at, payload + 40 - at, more)
}

interface Base {
  readonly source: string
  readonly destination: string
  readonly protocol: number
  readonly length: number
}

function upper(base: Base, view: DataView, at: number, length: number, note: string): PacketSummary {
  const left = view.byteLength - at
  if (base.protocol === Protocol.tcp && left >= 4) {
    const ports = { sourcePort: view.getUint16(at), destinationPort: view.getUint16(at + 2) }
    return { ...base, ...ports, text: note + (left >= 20 ? tcpText(view, at, length) : 'cut') }
  }
  if (base.protocol === Protocol.udp && left >= 4) {
    const ports = { sourcePort: view.getUint16(at), destinationPort: view.getUint16(at + 2) }
    return { ...base, ...ports, text: `${note}len ${Math.max(0, length - 8)}` }
  }
  if (base.protocol === Protocol.icmp && left >= 2) return { ...base, text: note + icmpText(ICMP4, view, at, left) }
  if (base.protocol === Protocol.icmp6 && left >= 2) return { ...base, text: note + icmpText(ICMP6, view, at, left) }
  return { ...base, text: `${note}len ${Math.max(0, length)}` }
}

function tcpText(view: DataView, at: number, length: number): string {
  const bits = view.getUint8(at + 13)
  const flags = FLAGS.map(([bit, letter]) => ((bits & bit) !== 0 ? letter : '')).join('')
  const header = (view.getUint8(at + 12) >> 4) * 4
  const payload = Math.max(0, length - header)
  const ack = (bits & 0x10) !== 0 ? ` ack ${view.getUint32(at + 8)}` : ''
  return `[${flags || 'none'}] seq ${view.getUint32(at + 4)}${ack} win ${view.getUint16(at + 14)} len ${payload}`
}

function icmpText(names: Readonly<Record<number, string>>, view: DataView, at: number, left: number): string {
  const type = view.getUint8(at)
  const code = view.getUint8(at + 1)
  const title = names[type] ?? `type ${type}`
  if (!title.startsWith('echo')) return code === 0 ? title : `${title} code ${code}`
  return left >= 8 ? `${title} id ${view.getUint16(at + 4)} seq ${view.getUint16(at + 6)}` : title
}
