// What a datagram looked like around its payload: the dump only has the payload and the two addresses, capture files want IP packets.

import ipaddr from 'ipaddr.js'
import type { DumpPacket } from '../../daemon/control/protocol.js'
import { parseLocator, formatLocator } from '../../lib/path/locator.js'
import { checksumOf, pseudoHeaderSum, sumBytes } from '../../lib/wire/checksum.js'
import { Protocol } from '../../lib/wire/constants.js'

const UDP_HEADER = 8

interface End {
  readonly bytes: Uint8Array
  readonly port: number
}

/**
 * IP and UDP header that carried the datagram, with right checksums; where the payload has been cut the UDP checksum is 0 ("none").
 * An address that is not known is the unspecified one.
 */
export function underlayHeader(packet: DumpPacket): Uint8Array {
  const ends = [packet.local, packet.remote].map((text) => (text === undefined ? undefined : parseLocator(text, 0)))
  const six = ends.some((end) => end?.address.includes(':') && end.address !== '::')
  const [local, remote] = ends.map((end) => endOf(end?.address, end?.port ?? 0, six))
  const [source, destination] = packet.direction === 'out' ? [local!, remote!] : [remote!, local!]
  const header = new Uint8Array((six ? 40 : 20) + UDP_HEADER)
  const view = new DataView(header.buffer)
  const udp = header.length - UDP_HEADER
  const udpLength = Math.min(65_535, UDP_HEADER + packet.length)
  view.setUint16(udp, source.port)
  view.setUint16(udp + 2, destination.port)
  view.setUint16(udp + 4, udpLength)
  if (six) writeIp6(header, view, source, destination, udpLength)
  else writeIp4(header, view, source, destination, udpLength)
  if (packet.bytes.length === packet.length) {
    const payload = packet.bytes
    const family = six ? 6 : 4
    let sum = pseudoHeaderSum(family, source.bytes, 0, destination.bytes, 0, Protocol.udp, udpLength)
    sum = sumBytes(header, view, udp, UDP_HEADER, sum)
    sum = sumBytes(
      payload,
      new DataView(payload.buffer, payload.byteOffset, payload.byteLength),
      0,
      payload.length,
      sum,
    )
    // 0 would mean that there is none
    view.setUint16(udp + 6, checksumOf(sum) || 0xffff)
  }
  return header
}

function endOf(address: string | undefined, port: number, six: boolean): End {
  const size = six ? 16 : 4
  const bytes = address === undefined ? [] : ipaddr.parse(address).toByteArray()
  return { bytes: Uint8Array.from(bytes.length === size ? bytes : new Array<number>(size).fill(0)), port }
}

function writeIp4(header: Uint8Array, view: DataView, source: End, destination: End, udpLength: number): void {
  header[0] = 0x45
  view.setUint16(2, Math.min(65_535, 20 + udpLength))
  // don't fragment, as path MTU discovery needs it
  view.setUint16(6, 0x4000)
  header[8] = 64
  header[9] = Protocol.udp
  header.set(source.bytes, 12)
  header.set(destination.bytes, 16)
  view.setUint16(10, checksumOf(sumBytes(header, view, 0, 20)))
}

function writeIp6(header: Uint8Array, view: DataView, source: End, destination: End, udpLength: number): void {
  header[0] = 0x60
  view.setUint16(4, udpLength)
  header[6] = Protocol.udp
  header[7] = 64
  header.set(source.bytes, 8)
  header.set(destination.bytes, 24)
}

/** The reverse: both ends and the payload of an IP packet that carries UDP; undefined: it is none. */
export function splitUnderlay(
  bytes: Uint8Array,
): { readonly source: string; readonly destination: string; readonly header: number } | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const six = bytes.length >= 48 && view.getUint8(0) >> 4 === 6
  if (!six && !(bytes.length >= 28 && view.getUint8(0) === 0x45)) return undefined
  const udp = six ? 40 : 20
  const size = six ? 16 : 4
  const text = (offset: number, port: number) =>
    formatLocator({ address: ipaddr.fromByteArray([...bytes.subarray(offset, offset + size)]).toString(), port })
  return {
    source: text(six ? 8 : 12, view.getUint16(udp)),
    destination: text(six ? 24 : 16, view.getUint16(udp + 2)),
    header: udp + UDP_HEADER,
  }
}
