// Builders and readers of what goes through a frame codec, for its tests and benchmarks.

import { createCipheriv, createDecipheriv } from 'node:crypto'
import type { CipherChaCha20Poly1305, CipherGCM, DecipherChaCha20Poly1305, DecipherGCM } from 'node:crypto'
import type { AeadName, FrameCodec } from '../../lib/crypto/codec.js'
import type { PortableAead } from '../../lib/crypto/portable-codec.js'
import {
  ADDRESS_RECORD,
  DATAGRAM_WORDS,
  Gso,
  OPENED,
  OPEN_WORDS,
  Open,
  RUN_WORDS,
  SEAL_WORDS,
  frameRuns,
  openBatch,
  sealBatch,
  type DatagramBatch,
  type FrameRuns,
  type OpenBatch,
  type SealBatch,
} from '../../lib/wire/batch.js'
import { INNER_HEADER, INNER_KIND, Kind, KindFlag, Protocol } from '../../lib/wire/constants.js'

const TAG = 16
const tagged = { authTagLength: TAG }

function aead(
  cipher: (key: Uint8Array, nonce: Uint8Array) => CipherGCM | CipherChaCha20Poly1305,
  decipher: (key: Uint8Array, nonce: Uint8Array) => DecipherGCM | DecipherChaCha20Poly1305,
): PortableAead {
  return {
    seal(key, nonce, aad, plaintext) {
      const c = cipher(key, nonce)
      c.setAAD(aad, { plaintextLength: plaintext.length })
      return Uint8Array.from(Buffer.concat([c.update(plaintext), c.final(), c.getAuthTag()]))
    },
    open(key, nonce, aad, ciphertext) {
      if (ciphertext.length < TAG) return undefined
      const d = decipher(key, nonce)
      const end = ciphertext.length - TAG
      d.setAAD(aad, { plaintextLength: end })
      d.setAuthTag(ciphertext.subarray(end))
      const plaintext = d.update(ciphertext.subarray(0, end))
      try {
        return Uint8Array.from(Buffer.concat([plaintext, d.final()]))
      } catch {
        return undefined
      }
    },
  }
}

/** Both AEADs over node:crypto. */
export function nodeAeads(): ReadonlyMap<AeadName, PortableAead> {
  return new Map([
    [
      'aes-256-gcm',
      aead(
        (key, nonce) => createCipheriv('aes-256-gcm', key, nonce, tagged),
        (key, nonce) => createDecipheriv('aes-256-gcm', key, nonce, tagged),
      ),
    ],
    [
      'chacha20-poly1305',
      aead(
        (key, nonce) => createCipheriv('chacha20-poly1305', key, nonce, tagged),
        (key, nonce) => createDecipheriv('chacha20-poly1305', key, nonce, tagged),
      ),
    ],
  ])
}

/** One entry of a SealBatch. */
export interface Packet {
  readonly bytes: Uint8Array
  readonly headerLength: number
  readonly gsoSize?: number
  readonly gsoKind?: number
  readonly slot?: number
  readonly address?: number
  readonly trafficClass?: number
}

/** Bytes that differ from place to place, so that a misplaced payload shows. */
export function pattern(length: number, seed = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 31 + (i >>> 8) * 7 + seed * 101) & 0xff)
}

export interface Inner {
  readonly flow?: number
  /** Kind byte; data with partial checksum by default. */
  readonly kind?: number
  readonly protocol?: number
  readonly hops?: number
}

export const PARTIAL_DATA = Kind.data | KindFlag.checksumPartial

export function inner({ flow = 1, kind = PARTIAL_DATA, protocol = Protocol.tcp, hops = 63 }: Inner = {}): Uint8Array {
  const bytes = new Uint8Array(INNER_HEADER)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, flow, true)
  view.setUint32(4, 0xc0ffee00 + flow, true)
  bytes.set([kind, 0, hops, protocol], INNER_KIND)
  return bytes
}

export interface TcpPacket extends Inner {
  readonly sequence?: number
  readonly ack?: number
  readonly flags?: number
  readonly window?: number
  readonly options?: Uint8Array
  readonly payload?: Uint8Array
  readonly gsoSize?: number
}

/** Inner header, TCP header without ports, payload. flags: ACK by default. */
export function tcp(p: TcpPacket = {}): Packet {
  const { sequence = 1000, ack = 5, flags = 0x10, window = 501, options = new Uint8Array(12).fill(1) } = p
  const payload = p.payload ?? new Uint8Array(0)
  const header = new Uint8Array(16 + options.length)
  const view = new DataView(header.buffer)
  view.setUint32(0, sequence)
  view.setUint32(4, ack)
  header[8] = (header.length + 4) << 2
  header[9] = flags
  view.setUint16(10, window)
  header.set(options, 16)
  return packet([inner(p), header, payload], INNER_HEADER + header.length, p.gsoSize, Gso.tcp)
}

export interface UdpPacket extends Inner {
  readonly payload?: Uint8Array
  readonly gsoSize?: number
}

/** Inner header, UDP length and checksum, payload. */
export function udp(p: UdpPacket = {}): Packet {
  const payload = p.payload ?? new Uint8Array(0)
  const header = new Uint8Array(4)
  new DataView(header.buffer).setUint16(0, 8 + payload.length)
  return packet([inner({ protocol: Protocol.udp, ...p }), header, payload], INNER_HEADER + 4, p.gsoSize, Gso.udp)
}

function packet(parts: Uint8Array[], headerLength: number, gsoSize = 0, gsoKind: number = Gso.none): Packet {
  return { bytes: join(parts), headerLength, gsoSize, gsoKind: gsoSize > 0 ? gsoKind : Gso.none }
}

export function join(parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(parts))
}

/** The packets one behind the other, as the flow layer hands them over. */
export function toSeal(packets: readonly Packet[]): SealBatch {
  const batch = sealBatch(join(packets.map((p) => p.bytes)), packets.length)
  let offset = 0
  for (const p of packets) {
    const words = [offset, p.bytes.length, p.headerLength, p.gsoSize ?? 0, p.gsoKind ?? 0]
    batch.desc.set([...words, p.slot ?? 0, p.address ?? 0, p.trafficClass ?? 0], batch.count++ * SEAL_WORDS)
    offset += p.bytes.length
  }
  return batch
}

export interface Run {
  readonly bytes: Uint8Array
  readonly stride: number
  readonly address: number
  readonly trafficClass: number
}

export function readRuns(runs: FrameRuns): Run[] {
  return Array.from({ length: runs.count }, (_, i) => {
    const [offset = 0, length = 0, stride = 0, address = 0, trafficClass = 0] = runs.desc.subarray(i * RUN_WORDS)
    return { bytes: runs.data.slice(offset, offset + length), stride, address, trafficClass }
  })
}

/** Seals all packets, emptying the runs whenever they are full. */
export function sealAll(codec: FrameCodec, packets: readonly Packet[], runs = frameRuns(1 << 20, 512)): Run[] {
  const batch = toSeal(packets)
  const result: Run[] = []
  for (let from = 0; ;) {
    from = codec.seal(batch, from, runs)
    result.push(...readRuns(runs))
    if (from === batch.count) return result
    if (runs.count === 0) throw new Error('nothing was sealed, and entries are left')
    runs.count = runs.used = 0
  }
}

/** The single frames of a run. */
export function split(run: Run): Uint8Array[] {
  const frames: Uint8Array[] = []
  for (let at = 0; at < run.bytes.length; at += run.stride) frames.push(run.bytes.slice(at, at + run.stride))
  return frames
}

/** What the socket received: bytes, GRO's segment size (0: none), where from. */
export interface Received {
  readonly bytes: Uint8Array
  readonly size: number
  readonly address?: number
  readonly trafficClass?: number
}

export const asReceived = (run: Run): Received => ({ ...run, size: run.bytes.length > run.stride ? run.stride : 0 })

export function toOpen(received: readonly Received[]): DatagramBatch {
  const data = join(received.map((r) => r.bytes))
  const desc = new Int32Array(received.length * DATAGRAM_WORDS)
  const addresses = new Uint8Array(received.length * ADDRESS_RECORD)
  let offset = 0
  received.forEach((r, i) => {
    desc.set([offset, r.bytes.length, r.size, r.trafficClass ?? 0], i * DATAGRAM_WORDS)
    addresses.fill(r.address ?? 0, i * ADDRESS_RECORD, (i + 1) * ADDRESS_RECORD)
    offset += r.bytes.length
  })
  return { data, view: new DataView(data.buffer), desc, addresses, count: received.length }
}

/** An OpenBatch with room for whatever the datagrams hold. */
export function roomFor(datagrams: DatagramBatch): OpenBatch {
  let segments = 0
  let bytes = 0
  for (let i = 0; i < datagrams.count; i++) {
    const [, length = 0, size = 0] = datagrams.desc.subarray(i * DATAGRAM_WORDS)
    segments += size === 0 || length === 0 ? 1 : Math.ceil(length / size)
    bytes += length
  }
  return openBatch(bytes + segments * 67, segments)
}

export interface Entry {
  readonly offset: number
  readonly bytes: Uint8Array
  readonly headerLength: number
  readonly gsoSize: number
  readonly gsoKind: number
  readonly lane: number
  readonly datagram: number
  readonly status: number
}

export function readEntries(out: OpenBatch, datagrams: DatagramBatch): Entry[] {
  return Array.from({ length: out.count }, (_, i) => {
    const word = (position: number) => out.desc[i * OPEN_WORDS + position]!
    const status = word(Open.status)
    const source = status === OPENED ? out.data : datagrams.data
    const offset = word(Open.offset)
    return {
      offset,
      bytes: source.slice(offset, offset + word(Open.length)),
      headerLength: word(Open.headerLength),
      gsoSize: word(Open.gsoSize),
      gsoKind: word(Open.gsoKind),
      lane: word(Open.lane),
      datagram: word(Open.datagram),
      status,
    }
  })
}

export function openAll(codec: FrameCodec, received: readonly Received[]): Entry[] {
  const datagrams = toOpen(received)
  const out = roomFor(datagrams)
  codec.open(datagrams, out)
  return readEntries(out, datagrams)
}

/** The single packets that a packet with segments stands for, made the slow way. */
export function expand(p: Packet): Uint8Array[] {
  const { bytes, headerLength, gsoSize = 0, gsoKind = Gso.none } = p
  const payload = bytes.subarray(headerLength)
  if (gsoSize === 0 || payload.length <= gsoSize) return [bytes.slice()]
  const segments = Math.ceil(payload.length / gsoSize)
  return Array.from({ length: segments }, (_, i) => {
    const slice = payload.subarray(i * gsoSize, (i + 1) * gsoSize)
    const segment = join([bytes.subarray(0, headerLength), slice])
    const view = new DataView(segment.buffer)
    if (gsoKind === Gso.udp) view.setUint16(headerLength - 4, 8 + slice.length)
    else {
      const at = (segment[INNER_KIND]! & 15) === Kind.accept ? INNER_HEADER + 8 : INNER_HEADER
      view.setUint32(at, view.getUint32(at) + i * gsoSize)
      if (i < segments - 1) segment[at + 9]! &= ~(1 | 8)
      if (i > 0) segment[at + 9]! &= ~128
    }
    return segment
  })
}
