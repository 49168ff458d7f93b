// Packets as pcapng (draft-ietf-opsawg-pcapng), little endian: one interface a tap point, all raw IP, microseconds; a frame of the
// underlay gets the IP and UDP header that carried it. What only caracal knows stands in the comment of each packet as words
// `key=value`, from which the reader gets it back.

import type { DumpPacket } from '../../daemon/control/protocol.js'
import { tapPoints } from '../../daemon/control/protocol.js'
import { isDatagram } from './format.js'
import { splitUnderlay, underlayHeader } from './underlay.js'

const BLOCK = { section: 0x0a0d0d0a, interface: 1, packet: 6 } as const
const BYTE_ORDER = 0x1a2b3c4d
const LINKTYPE_RAW = 101
const OPTION = {
  end: 0,
  comment: 1,
  interfaceName: 2,
  packetFlags: 2,
  description: 3,
  application: 4,
  resolution: 9,
} as const
const APPLICATION = 'caracal'
/** Larger blocks are not read. */
const BLOCK_MAX = 1024 * 1024

const descriptions: Readonly<Record<string, string>> = {
  tun: 'packets between programs and the overlay',
  wire: 'sealed frames on the underlay; IP and UDP headers are reconstructed',
  drop: 'what was dropped, with the reason',
}

/** What every file begins with: the section and its three interfaces. */
export function pcapngHeader(): Uint8Array {
  const section = Buffer.alloc(16)
  section.writeUInt32LE(BYTE_ORDER, 0)
  section.writeUInt16LE(1, 4)
  // length of the section: not known
  section.writeBigInt64LE(-1n, 8)
  const interfaces = tapPoints.map((point) => {
    const body = Buffer.alloc(8)
    body.writeUInt16LE(LINKTYPE_RAW, 0)
    const options = [
      option(OPTION.interfaceName, Buffer.from(`caracal-${point}`)),
      option(OPTION.description, Buffer.from(descriptions[point] ?? point)),
      option(OPTION.resolution, Buffer.from([6])),
      option(OPTION.end),
    ]
    return block(BLOCK.interface, [body, ...options])
  })
  const application = option(OPTION.application, Buffer.from(APPLICATION))
  return Buffer.concat([block(BLOCK.section, [section, application, option(OPTION.end)]), ...interfaces])
}

/** One packet's block. */
export function pcapngPacket(packet: DumpPacket): Uint8Array {
  const header = isDatagram(packet) ? underlayHeader(packet) : new Uint8Array(0)
  const micros = Math.round(packet.time * 1000)
  const fixed = Buffer.alloc(20)
  fixed.writeUInt32LE(tapPoints.indexOf(packet.point), 0)
  fixed.writeUInt32LE(Math.floor(micros / 2 ** 32), 4)
  fixed.writeUInt32LE(micros % 2 ** 32, 8)
  fixed.writeUInt32LE(header.length + packet.bytes.length, 12)
  fixed.writeUInt32LE(header.length + Math.max(packet.length, packet.bytes.length), 16)
  const flags = Buffer.alloc(4)
  flags.writeUInt32LE(packet.direction === 'in' ? 1 : 2)
  const data = [header, packet.bytes, padding(header.length + packet.bytes.length)]
  const options = [
    option(OPTION.packetFlags, flags),
    option(OPTION.comment, Buffer.from(comment(packet))),
    option(OPTION.end),
  ]
  return block(BLOCK.packet, [fixed, ...data, ...options])
}

function comment(packet: DumpPacket): string {
  const { service, peer, flow, frame, protocol, sourcePort, destinationPort, verdict } = packet
  const ports = sourcePort === undefined ? undefined : `${sourcePort}>${destinationPort ?? ''}`
  const layer = isDatagram(packet) ? 'underlay' : undefined
  return Object.entries({ service, peer, flow, frame, protocol, ports, layer, verdict })
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${key}=${value}`)
    .join(' ')
}

function padding(length: number): Uint8Array {
  return new Uint8Array(-length & 3)
}

function option(code: number, value: Uint8Array = new Uint8Array(0)): Uint8Array {
  const head = Buffer.alloc(4)
  head.writeUInt16LE(code, 0)
  head.writeUInt16LE(value.length, 2)
  return Buffer.concat([head, value, padding(value.length)])
}

function block(type: number, parts: readonly Uint8Array[]): Uint8Array {
  const length = 12 + parts.reduce((sum, part) => sum + part.length, 0)
  const head = Buffer.alloc(8)
  head.writeUInt32LE(type, 0)
  head.writeUInt32LE(length, 4)
  const tail = Buffer.alloc(4)
  tail.writeUInt32LE(length)
  return Buffer.concat([head, ...parts, tail])
}

/** Reads what {@link pcapngHeader} and {@link pcapngPacket} wrote, in pieces of any size. Total: other bytes end in a `problem`. */
export class PcapngReader {
  private buffer: Buffer = Buffer.alloc(0)
  private begun = false
  /** Why nothing more is read. */
  problem: string | undefined;

  /** The packets that these bytes complete. */
  *push(chunk: Uint8Array): Generator<DumpPacket> {
    this.buffer = Buffer.concat([this.buffer, chunk])
    let at = 0
    while (this.problem === undefined && this.buffer.length - at >= 12) {
      const type = this.buffer.readUInt32LE(at)
      const length = this.buffer.readUInt32LE(at + 4)
      this.check(type, length, at)
      if (this.problem !== undefined || this.buffer.length - at < length) break
      const body = this.buffer.subarray(at + 8, at + length - 4)
      at += length
      const packet = type === BLOCK.packet ? readPacket(body) : undefined
      if (packet !== undefined) yield packet
    }
    this.buffer = this.problem === undefined ? this.buffer.subarray(at) : Buffer.alloc(0)
  }

  /** To be called at the end: an incomplete block is a problem too. */
  end(): void {
    if (!this.begun) this.problem ??= 'it is no pcapng file of `caracal dump -w`'
    else if (this.buffer.length > 0) this.problem ??= 'it is cut off in a packet'
  }

  private check(type: number, length: number, at: number): void {
    const first = !this.begun
    this.begun = true
    if (first && (type !== BLOCK.section || this.buffer.readUInt32LE(at + 8) !== BYTE_ORDER)) {
      this.problem = 'it is no pcapng file of `caracal dump -w`'
    } else if (length < 12 || length > BLOCK_MAX || length % 4 !== 0) {
      this.problem = `a block of ${length} bytes`
    }
  }
}

function readPacket(body: Buffer): DumpPacket | undefined {
  if (body.length < 20) return undefined
  const point = tapPoints[body.readUInt32LE(0)]
  const time = (body.readUInt32LE(4) * 2 ** 32 + body.readUInt32LE(8)) / 1000
  const captured = body.readUInt32LE(12)
  const original = body.readUInt32LE(16)
  if (point === undefined || 20 + captured > body.length) return undefined
  const bytes = body.subarray(20, 20 + captured)
  const options = readOptions(body.subarray(20 + captured + (-captured & 3)))
  const flags = options.get(OPTION.packetFlags)
  const direction = flags !== undefined && flags.length === 4 && (flags.readUInt32LE() & 3) === 1 ? 'in' : 'out'
  const words = new Map<string, string>()
  for (const word of (options.get(OPTION.comment)?.toString('utf8') ?? '').split(' ')) {
    const equals = word.indexOf('=')
    if (equals > 0) words.set(word.slice(0, equals), word.slice(equals + 1))
  }
  const base = { point, direction, time, ...fromWords(words) } as const
  const underlay = words.get('layer') === 'underlay' ? splitUnderlay(bytes) : undefined
  if (underlay === undefined) return { ...base, bytes, length: original }
  const { source, destination, header } = underlay
  const [local, remote] = direction === 'out' ? [source, destination] : [destination, source]
  return { ...base, bytes: bytes.subarray(header), length: Math.max(0, original - header), local, remote }
}

function readOptions(bytes: Buffer): Map<number, Buffer> {
  const options = new Map<number, Buffer>()
  let at = 0
  while (at + 4 <= bytes.length) {
    const code = bytes.readUInt16LE(at)
    const length = bytes.readUInt16LE(at + 2)
    if (code === OPTION.end || at + 4 + length > bytes.length) break
    options.set(code, bytes.subarray(at + 4, at + 4 + length))
    at += 4 + length + (-length & 3)
  }
  return options
}

type Words = Pick<
  DumpPacket,
  'service' | 'peer' | 'flow' | 'frame' | 'protocol' | 'sourcePort' | 'destinationPort' | 'verdict'
>

function fromWords(words: ReadonlyMap<string, string>): Words {
  const ports = /^(\d{1,5})>(\d{1,5})?$/.exec(words.get('ports') ?? '')
  const protocol = words.get('protocol')
  const text = (key: 'service' | 'peer' | 'flow' | 'frame') => (words.has(key) ? { [key]: words.get(key) } : {})
  return {
    ...text('service'),
    ...text('peer'),
    ...text('flow'),
    ...text('frame'),
    ...(protocol === 'tcp' || protocol === 'udp' || protocol === 'icmp' ? { protocol } : {}),
    ...(ports === null ? {} : { sourcePort: Number(ports[1]) }),
    ...(ports?.[2] === undefined ? {} : { destinationPort: Number(ports[2]) }),
    verdict: words.get('verdict') ?? 'pass',
  }
}
