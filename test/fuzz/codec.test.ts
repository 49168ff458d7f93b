// The portable and the native codec are each other's yardstick: the same input must give the same runs and the same entries, byte for byte.

import { deepStrictEqual, notEqual, ok } from 'node:assert/strict'
import fc from 'fast-check'
import { t as tap, test } from 'tap'
import { NativeCodec, codecAddon, type AeadLibrary } from '../../daemon/native-codec.js'
import type { AeadName, FrameCodec } from '../../lib/crypto/codec.js'
import { PortableCodec } from '../../lib/crypto/portable-codec.js'
import {
  DATAGRAM_WORDS,
  Gso,
  OPENED,
  SEAL_WORDS,
  frameRuns,
  openBatch,
  type DatagramBatch,
  type OpenBatch,
} from '../../lib/wire/batch.js'
import { Kind, KindFlag, Protocol } from '../../lib/wire/constants.js'
import {
  asReceived,
  expand,
  inner,
  join,
  nodeAeads,
  openAll,
  pattern,
  readEntries,
  readRuns,
  roomFor,
  sealAll,
  split,
  tcp,
  toOpen,
  toSeal,
  udp,
  type Packet,
  type Received,
} from '../tools/frames.js'

// Some 6,000 runs take 5 s on an idle machine; a busy one may need a multiple.
tap.setTimeout(120_000)

const addon = codecAddon()
const LANES = [5, 0xabcd0006, 0xffff0007]

function keyed(codec: FrameCodec, aead: AeadName): FrameCodec {
  LANES.forEach((lane, slot) => {
    codec.installSeal(slot, aead, pattern(32, slot), lane)
    codec.installOpen(lane, aead, pattern(32, slot))
  })
  return codec
}
/** What the native codec is made of: AES-256-GCM has two libraries where libipsec-mb is installed. */
interface Variant {
  readonly aead: AeadName
  readonly implementation: AeadLibrary
}
const CHACHA: Variant = { aead: 'chacha20-poly1305', implementation: 'openssl' }
const portable = ({ aead }: Variant) => keyed(new PortableCodec(nodeAeads()), aead)
const native = ({ aead, implementation }: Variant) =>
  keyed(new NativeCodec(addon, { offer: [aead], implementation }), aead)

const variants = fc.constantFrom(
  ...addon.codecAeads().map((aead): Variant => ({ aead, implementation: 'openssl' })),
  ...(addon.ipsecMb().problem === '' ? [{ aead: 'aes-256-gcm', implementation: 'ipsec-mb' } as const] : []),
)
const flow = fc.integer({ min: 1, max: 2 })
const partial = fc.oneof(
  { weight: 9, arbitrary: fc.constant(Kind.data | KindFlag.checksumPartial) },
  { weight: 1, arbitrary: fc.constant(Kind.data) },
)
const length = fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 6000 }))
const route = fc.record({
  slot: fc.oneof({ weight: 12, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.integer({ min: 0, max: 3 }) }),
  address: fc.oneof({ weight: 12, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.constant(1) }),
  trafficClass: fc.oneof({ weight: 12, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.constant(2) }),
})
const usually = <T>(value: T, other: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 9, arbitrary: fc.constant(value) }, { weight: 1, arbitrary: other })

const tcpPacket = fc
  .record({
    flow,
    kind: partial,
    sequence: fc.constantFrom(0, 500, 1000, 0xfffffff0),
    ack: usually(5, fc.constant(6)),
    flags: usually(0x10, fc.integer({ min: 0, max: 255 })),
    options: usually(12, fc.constantFrom(0, 4, 40)).map((n) => pattern(n)),
    payload: length.map((n) => pattern(n)),
    gsoSize: fc.oneof(fc.constant(0), fc.constantFrom(500, 1000, 1400), fc.integer({ min: 8, max: 2000 })),
  })
  .map((p) => tcp(p.kind === Kind.data ? { ...p, gsoSize: 0 } : p))
const udpPacket = fc
  .record({
    flow,
    kind: partial,
    payload: length.map((n) => pattern(n)),
    gsoSize: fc.oneof(fc.constant(0), fc.constantFrom(500, 1000), fc.integer({ min: 8, max: 2000 })),
  })
  .map((p) => udp(p.kind === Kind.data ? { ...p, gsoSize: 0 } : p))
/** A stretch of one TCP stream, packet by packet: what coalescing is for. */
const stream = fc
  .record({
    flow,
    start: fc.integer({ min: 0, max: 0xffffffff }),
    sizes: fc.array(fc.constantFrom(100, 100, 100, 100, 99, 1), { minLength: 2, maxLength: 12 }),
    psh: fc.integer({ min: 0, max: 15 }),
  })
  .map(({ flow, start, sizes, psh }) => {
    let at = start
    return sizes.map((size, i) => {
      const packet = tcp({ flow, sequence: at >>> 0, payload: pattern(size), flags: i === psh ? 0x18 : 0x10 })
      at += size
      return packet
    })
  })
const datagrams = fc
  .record({ flow, sizes: fc.array(fc.constantFrom(50, 50, 50, 49, 0), { minLength: 2, maxLength: 80 }) })
  .map(({ flow, sizes }) => sizes.map((size) => udp({ flow, payload: pattern(size) })))
const anyFrame = fc
  .record({
    kind: fc.integer({ min: 0, max: 255 }),
    protocol: fc.constantFrom<number>(Protocol.tcp, Protocol.udp, Protocol.icmp, 0, 58),
    rest: fc.uint8Array({ maxLength: 90 }),
  })
  .map(({ rest, ...p }): Packet => ({ bytes: join([inner(p), rest]), headerLength: 12 }))

const packets = fc
  .array(
    fc.oneof(
      tcpPacket.map((p) => [p]),
      udpPacket.map((p) => [p]),
      anyFrame.map((p) => [p]),
      stream,
      datagrams,
    ),
    { minLength: 1, maxLength: 6 },
  )
  .chain((groups) => {
    const all = groups.flat()
    return fc
      .array(route, { minLength: all.length, maxLength: all.length })
      .map((routes) => all.map((packet, i) => ({ ...packet, ...routes[i]! })))
  })

/** What the network does to a run before it is received. */
const fate = fc.record({
  cut: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.integer({ min: 1, max: 5000 }) }),
  flip: fc.oneof({ weight: 3, arbitrary: fc.constant(-1) }, { weight: 1, arbitrary: fc.nat(500_000) }),
  single: fc.boolean(),
  twice: fc.nat(9).map((n) => n === 0),
  address: usually(0, fc.constant(1)),
})

function suffer(run: Received, f: { cut: number; flip: number; single: boolean; twice: boolean; address: number }) {
  const bytes = run.bytes.slice(0, f.cut > 0 && f.cut < run.bytes.length ? f.cut : undefined)
  if (f.flip >= 0) bytes[(f.flip >>> 3) % bytes.length]! ^= 1 << (f.flip & 7)
  const whole: Received = { ...run, bytes, address: f.address }
  const pieces = f.single && run.size > 0 ? chop(whole) : [whole]
  return f.twice ? [...pieces, ...pieces] : pieces
}

function chop(run: Received): Received[] {
  return split({ bytes: run.bytes, stride: run.size, address: 0, trafficClass: 0 }).map((bytes) => ({
    ...run,
    bytes,
    size: 0,
  }))
}

/** Descriptors, and the bytes of each plaintext. */
function result(codec: FrameCodec, batch: DatagramBatch): unknown {
  const out: OpenBatch = roomFor(batch)
  codec.open(batch, out)
  return [out.used, readEntries(out, batch).map((e) => ({ ...e, bytes: Buffer.from(e.bytes).toString('hex') }))]
}

test('both seal the same runs, whatever room there is', async (t) => {
  fc.assert(
    fc.property(
      variants,
      packets,
      fc.integer({ min: 6100, max: 70_000 }),
      fc.integer({ min: 1, max: 9 }),
      (variant, all, bytes, rows) => {
        const [a, b] = [portable(variant), native(variant)]
        const runs = (codec: FrameCodec) => sealAll(codec, all, frameRuns(bytes, rows))
        deepStrictEqual(runs(b), runs(a))
        for (const slot of LANES.keys()) deepStrictEqual(b.sealed(slot), a.sealed(slot))
      },
    ),
    { numRuns: 600 },
  )
  t.pass('600 runs')
})

test('both open the same entries out of frames that suffered', async (t) => {
  fc.assert(
    fc.property(variants, packets, fc.array(fate, { minLength: 1, maxLength: 30 }), (variant, all, fates) => {
      const received = sealAll(portable(variant), all)
        .map(asReceived)
        .flatMap((run, i) => suffer(run, fates[i % fates.length]!))
      const [a, b] = [portable(variant), native(variant)]
      // Twice: the second time everything is a replay.
      for (let round = 0; round < 2; round++) deepStrictEqual(result(b, toOpen(received)), result(a, toOpen(received)))
    }),
    { numRuns: 600 },
  )
  t.pass('600 runs')
})

test('every payload arrives once and in order', async (t) => {
  fc.assert(
    fc.property(
      variants,
      fc.array(
        fc.oneof(
          stream,
          datagrams,
          tcpPacket.map((p) => [p]),
        ),
        { minLength: 1 },
      ),
      (variant, groups) => {
        const all = groups.flat()
        const entries = openAll(native(variant), sealAll(native(variant), all).map(asReceived))
        ok(entries.every((e) => e.status === OPENED))
        const arrived = entries.flatMap((e) => expand({ ...e, gsoSize: e.gsoKind === Gso.none ? 0 : e.gsoSize }))
        deepStrictEqual(arrived.map(hex), all.flatMap(expand).map(hex))
      },
    ),
    { numRuns: 400 },
  )
  t.pass('400 runs')
})
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')

test('open is total over any bytes', async (t) => {
  const header = fc.tuple(fc.constantFrom(...LANES), fc.integer({ min: 0, max: 8 })).map(([lane, type]) => {
    const bytes = new Uint8Array(16)
    new DataView(bytes.buffer).setUint32(4, lane, true)
    bytes.set([type, 1])
    return bytes
  })
  const garbage = fc
    .tuple(
      fc.option(header),
      fc.oneof(
        fc.uint8Array({ maxLength: 60 }),
        fc.nat(3000).map((n) => pattern(n)),
      ),
      fc.nat(1500),
    )
    .map(([start, bytes, size]): Received => ({ bytes: start === null ? bytes : join([start, bytes]), size }))
  fc.assert(
    fc.property(variants, fc.array(garbage, { maxLength: 6 }), (variant, received) => {
      const batch = toOpen(received)
      deepStrictEqual(result(native(variant), batch), result(portable(variant), batch))
      for (const entry of openAll(native(variant), received)) notEqual(entry.status, OPENED)
    }),
    { numRuns: 2000 },
  )
  t.pass('2000 runs')
})

test('any descriptors: both throw or neither does, and the bytes around stay whole', async (t) => {
  const word = fc.oneof(fc.integer({ min: -2, max: 120 }), fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }))
  const codes = new Set<string>()
  const attempt = (f: () => void): string => {
    try {
      f()
      return 'done'
    } catch (error) {
      if (!(error instanceof Error) || !('code' in error)) throw error
      return String(error.code)
    }
  }
  fc.assert(
    fc.property(fc.array(word, { minLength: SEAL_WORDS, maxLength: SEAL_WORDS }), fc.nat(7), (words, changes) => {
      const outcomes = [portable, native].map((make) => {
        const batch = toSeal([udp({ payload: pattern(60) }), tcp({ payload: pattern(60), gsoSize: 20 })])
        const row = batch.desc.subarray(SEAL_WORDS)
        words.forEach((value, i) => ((changes >>> (i % 3)) & 1) === 1 && row.fill(value, i, i + 1))
        const runs = frameRuns(500, 3)
        const outcome = attempt(() => make(CHACHA).seal(batch, 0, runs))
        codes.add(outcome)
        return [outcome, readRuns(runs), batch.data, batch.desc]
      })
      deepStrictEqual(outcomes[1], outcomes[0])
    }),
    { numRuns: 3000 },
  )
  fc.assert(
    fc.property(fc.array(word, { minLength: DATAGRAM_WORDS, maxLength: DATAGRAM_WORDS }), (words) => {
      const outcomes = [portable, native].map((make) => {
        const batch = toOpen([{ bytes: pattern(100), size: 0 }])
        batch.desc.set(words)
        const out = openBatch(70_000, 64)
        const outcome = attempt(() => make(CHACHA).open(batch, out))
        codes.add(outcome)
        return [outcome, out.count, out.used, out.desc]
      })
      deepStrictEqual(outcomes[1], outcomes[0])
    }),
    { numRuns: 2000 },
  )
  t.same([...codes].sort(), ['CARACAL_E_RANGE', 'done'])
})
