// Packets made byte by byte for tests, with checksums summed the slow, obvious way, independent of lib/wire/checksum.ts.

export type Family = 4 | 6

export const VNET = 10
const addresses = {
  4: { a: [198, 18, 0, 1], b: [198, 18, 64, 7] },
  6: {
    a: [0xfd, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    b: [0xfd, 1, 2, 3, 4, 5, 0xd1, 0xa1, 9, 8, 7, 6, 5, 4, 3, 2],
  },
} as const
export const client = (family: Family) => Uint8Array.from(addresses[family].a)
export const server = (family: Family) => Uint8Array.from(addresses[family].b)

export const u16 = (n: number) => [(n >> 8) & 255, n & 255]
export const u32 = (n: number) => [...u16(n >>> 16), ...u16(n & 0xffff)]

/** One's complement sum of the bytes taken as 16-bit words, folded. */
export function slowSum(bytes: readonly number[]): number {
  let sum = 0
  for (let i = 0; i < bytes.length; i += 2) {
    sum += bytes[i]! * 256 + (bytes[i + 1] ?? 0)
    if (sum > 65_535) sum -= 65_535
  }
  return sum
}

export function pseudoHeader(source: Uint8Array, destination: Uint8Array, protocol: number, length: number): number[] {
  return source.length === 4
    ? [...source, ...destination, 0, protocol, ...u16(length)]
    : [...source, ...destination, ...u32(length), 0, 0, 0, protocol]
}

export interface Sample {
  readonly family: Family
  readonly protocol: number
  readonly transport: readonly number[]
  readonly source?: Uint8Array
  readonly destination?: Uint8Array
  readonly trafficClass?: number
  readonly hopLimit?: number
  readonly vnet?: readonly number[]
  /** IPv4 options or IPv6 extension headers; the latter's own first byte must name the protocol. */
  readonly extra?: readonly number[]
  /** IPv6: first next header when there are extension headers. */
  readonly nextHeader?: number
  /** IPv4: flags and fragment offset field. */
  readonly fragment?: number
  readonly identification?: number
}

/** virtio_net_hdr, IP header and the transport bytes as they are. */
export function packetOf(sample: Sample): Uint8Array<ArrayBuffer> {
  const { family, protocol, transport, extra = [], trafficClass = 0, hopLimit = 64 } = sample
  const source = sample.source ?? client(family)
  const destination = sample.destination ?? server(family)
  const vnet = sample.vnet ?? [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
  let ip: number[]
  if (family === 4) {
    ip = [
      0x40 | (5 + extra.length / 4),
      trafficClass,
      ...u16(20 + extra.length + transport.length),
      ...u16(sample.identification ?? 1),
      ...u16(sample.fragment ?? 0),
      hopLimit,
      protocol,
      0,
      0,
      ...source,
      ...destination,
      ...extra,
    ]
    const checksum = ~slowSum(ip) & 0xffff
    ip[10] = checksum >> 8
    ip[11] = checksum & 255
  } else {
    ip = [
      0x60 | (trafficClass >> 4),
      (trafficClass & 15) << 4,
      0,
      0,
      ...u16(extra.length + transport.length),
      sample.nextHeader ?? protocol,
      hopLimit,
      ...source,
      ...destination,
      ...extra,
    ]
  }
  return Uint8Array.from([...vnet, ...ip, ...transport])
}

function withChecksum(bytes: number[], at: number, pseudo: readonly number[], udp = false): number[] {
  bytes[at] = 0
  bytes[at + 1] = 0
  let checksum = ~slowSum([...pseudo, ...bytes]) & 0xffff
  if (udp && checksum === 0) checksum = 0xffff
  bytes[at] = checksum >> 8
  bytes[at + 1] = checksum & 255
  return bytes
}

export interface TcpSample {
  readonly flags?: number
  readonly sequence?: number
  readonly acknowledgement?: number
  readonly options?: readonly number[]
  readonly payload?: readonly number[]
  readonly ports?: readonly [number, number]
}

/** A TCP segment with a complete checksum. */
export function tcp(family: Family, sample: TcpSample = {}): number[] {
  const {
    flags = 0x10,
    sequence = 1000,
    acknowledgement = 2000,
    options = [],
    payload = [],
    ports = [40_000, 80],
  } = sample
  const bytes = [
    ...u16(ports[0]),
    ...u16(ports[1]),
    ...u32(sequence),
    ...u32(acknowledgement),
    (5 + options.length / 4) << 4,
    flags,
    ...u16(512),
    0,
    0,
    0,
    0,
    ...options,
    ...payload,
  ]
  return withChecksum(bytes, 16, pseudoHeader(client(family), server(family), 6, bytes.length))
}

/** A UDP datagram with a complete checksum. */
export function udp(
  family: Family,
  payload: readonly number[] = [],
  ports: readonly [number, number] = [5353, 53],
): number[] {
  const bytes = [...u16(ports[0]), ...u16(ports[1]), ...u16(8 + payload.length), 0, 0, ...payload]
  return withChecksum(bytes, 6, pseudoHeader(client(family), server(family), 17, bytes.length), true)
}

/** An echo with a complete checksum. */
export function echo(family: Family, request: boolean, identifier: number, payload: readonly number[] = []): number[] {
  const type = family === 4 ? (request ? 8 : 0) : request ? 128 : 129
  const bytes = [type, 0, 0, 0, ...u16(identifier), ...u16(7), ...payload]
  return withChecksum(bytes, 2, family === 4 ? [] : pseudoHeader(client(6), server(6), 58, bytes.length))
}

/** An ICMP message with a complete checksum, between these addresses. */
export function icmp(
  family: Family,
  source: Uint8Array,
  destination: Uint8Array,
  message: readonly number[],
): number[] {
  return withChecksum([...message], 2, family === 4 ? [] : pseudoHeader(source, destination, 58, message.length))
}

/** Asserts by throwing that a packet (virtio_net_hdr first) is consistent: lengths, IP checksum, and its transport checksum, completed first when it is partial. */
export function checkPacket(packet: Uint8Array): void {
  const ip = [...packet.subarray(VNET)]
  const family = ip[0]! >> 4
  const header = family === 4 ? 20 : 40
  const length = family === 4 ? ip[2]! * 256 + ip[3]! : 40 + ip[4]! * 256 + ip[5]!
  if (length !== ip.length) throw new Error(`length ${length}, bytes ${ip.length}`)
  if (family === 4 && slowSum(ip.slice(0, 20)) !== 0xffff) throw new Error('IP checksum')
  const protocol = family === 4 ? ip[9]! : ip[6]!
  const source = packet.subarray(VNET + (family === 4 ? 12 : 8), VNET + (family === 4 ? 16 : 24))
  const destination = packet.subarray(VNET + (family === 4 ? 16 : 24), VNET + header)
  const transport = ip.slice(header)
  if ((packet[0]! & 1) !== 0) {
    const start = packet[6]! + packet[7]! * 256
    const field = packet[8]! + packet[9]! * 256
    if (start !== header) throw new Error(`checksum start ${start}`)
    if (field !== (protocol === 6 ? 16 : 6)) throw new Error(`checksum offset ${field}`)
    const pseudo = slowSum(pseudoHeader(source, destination, protocol, transport.length))
    if (transport[field]! * 256 + transport[field + 1]! !== pseudo) throw new Error('partial checksum')
    return
  }
  const covered =
    protocol === 1 ? transport : [...pseudoHeader(source, destination, protocol, transport.length), ...transport]
  if (slowSum(covered) !== 0xffff) throw new Error('transport checksum')
}

export const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
