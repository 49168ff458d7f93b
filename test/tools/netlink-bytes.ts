// Messages as the kernel makes them, in this machine's byte order.
import { endianness } from 'node:os'

const little = endianness() === 'LE'

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  if (little) bytes.writeUInt16LE(value)
  else bytes.writeUInt16BE(value)
  return bytes
}
export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  if (little) bytes.writeUInt32LE(value >>> 0)
  else bytes.writeUInt32BE(value >>> 0)
  return bytes
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)])
}
export function attribute(type: number, content: Buffer): Buffer {
  return padded(Buffer.concat([u16(content.length + 4), u16(type), content]))
}
export function message(type: number, body: Buffer, flags = 0, sequence = 0): Buffer {
  return padded(Buffer.concat([u32(body.length + 16), u16(type), u16(flags), u32(sequence), u32(0), body]))
}

export function linkBytes(index: number, name: string, flags: number, mtu = 1500, type = 16): Buffer {
  const header = Buffer.concat([Buffer.from([0, 0]), u16(1), u32(index), u32(flags), u32(0)])
  return message(type, Buffer.concat([header, attribute(3, Buffer.from(`${name}\0`)), attribute(4, u32(mtu))]))
}
export function addressBytes(link: number, address: Buffer, flags = 0x80, type = 20, prefixLength?: number): Buffer {
  const family = address.length === 4 ? 2 : 10
  const length = prefixLength ?? address.length * 8
  const header = Buffer.concat([Buffer.from([family, length, flags & 0xff, 0]), u32(link)])
  return message(type, Buffer.concat([header, attribute(1, address), attribute(8, u32(flags))]))
}
export function routeBytes(link: number, gateway: Buffer, destination = Buffer.alloc(0), type = 24, kind = 1): Buffer {
  const family = gateway.length === 4 ? 2 : 10
  const header = Buffer.concat([Buffer.from([family, destination.length * 8, 0, 0, 254, 3, 0, kind]), u32(0)])
  const to = destination.length === 0 ? Buffer.alloc(0) : attribute(1, destination)
  return message(
    type,
    Buffer.concat([header, to, attribute(5, gateway), attribute(4, u32(link)), attribute(6, u32(100))]),
  )
}
