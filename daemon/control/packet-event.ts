import type { DumpEvent, DumpPacket } from './protocol.js'

/** For the socket. */
export function encodePacket(packet: DumpPacket): DumpEvent {
  const { buffer, byteOffset, byteLength } = packet.bytes
  return { ...packet, bytes: Buffer.from(buffer, byteOffset, byteLength).toString('base64') }
}
