// A packet as a line of text: time, point, way, who, what, flow, verdict.
//
//   15:04:05.123456 tun  > web@h2  tcp 198.18.0.1:40022 > 198.18.64.2:80 [S] seq 1 win 64240 len 0  flow 0011223344556677  pass

import type { DumpPacket } from '../../daemon/control/protocol.js'
import { summarisePacket, type PacketSummary } from '../../daemon/control/packet.js'
import { Protocol } from '../../lib/wire/constants.js'
import { formatClock } from '../clock.js'
import { plain } from '../output.js'

const protocolNames: Readonly<Record<number, string>> = {
  [Protocol.icmp]: 'icmp',
  [Protocol.tcp]: 'tcp',
  [Protocol.udp]: 'udp',
  [Protocol.icmp6]: 'icmp6',
}

/** Whether the packet's bytes are a UDP payload of the underlay, not an IP packet. */
export function isDatagram(packet: DumpPacket): boolean {
  return packet.point === 'wire' || packet.local !== undefined || packet.remote !== undefined
}

/** One line without control characters, whatever names a file or a daemon gives. */
export function formatPacket(packet: DumpPacket): string {
  const way = packet.direction === 'out' ? '>' : '<'
  const parts = [
    `${formatClock(packet.time, 6)} ${packet.point.padEnd(4)} ${way} ${who(packet)}`,
    isDatagram(packet) ? datagramText(packet) : packetText(packet),
  ]
  if (packet.flow !== undefined) parts.push(`flow ${packet.flow}`)
  parts.push(packet.verdict === 'pass' ? 'pass' : `DROP ${packet.verdict}`)
  return plain(parts.join('  '))
}

/** `web@h2`, `web`, `host h2`, `-`. */
function who({ service, peer }: DumpPacket): string {
  if (service !== undefined) return peer === undefined ? service : `${service}@${peer}`
  return peer === undefined ? '-' : `host ${peer}`
}

function packetText(packet: DumpPacket): string {
  const summary = summarisePacket(packet.bytes)
  if (summary === undefined) return `not an IP packet, ${packet.length} bytes`
  const protocol = protocolNames[summary.protocol] ?? `protocol ${summary.protocol}`
  const frame = packet.frame === undefined ? '' : `${packet.frame} `
  return `${frame}${protocol} ${endpoints(summary)} ${summary.text}`
}

function endpoints({ source, destination, sourcePort, destinationPort }: PacketSummary): string {
  const join = (address: string, port: number | undefined) =>
    port === undefined ? address : address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
  return `${join(source, sourcePort)} > ${join(destination, destinationPort)}`
}

function datagramText(packet: DumpPacket): string {
  const local = packet.local ?? '?'
  const remote = packet.remote ?? '?'
  const ends = packet.direction === 'out' ? `${local} > ${remote}` : `${remote} > ${local}`
  const ports = packet.sourcePort === undefined ? '' : ` ${packet.sourcePort} > ${packet.destinationPort ?? '?'}`
  const inside = packet.protocol === undefined ? '' : ` (${packet.protocol}${ports})`
  return `${packet.frame ?? 'frame'} ${ends} len ${packet.length}${inside}`
}

/** Bytes as lines of sixteen: offset, hex, text. */
export function hexLines(bytes: Uint8Array): string[] {
  const lines: string[] = []
  for (let at = 0; at < bytes.length; at += 16) {
    const row = [...bytes.subarray(at, at + 16)]
    const hex = row.map((byte, i) => (i % 8 === 0 && i > 0 ? ' ' : '') + byte.toString(16).padStart(2, '0')).join(' ')
    const text = row.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('')
    lines.push(`  ${at.toString(16).padStart(4, '0')}  ${hex.padEnd(48)}  ${text}`)
  }
  return lines
}
