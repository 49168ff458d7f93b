// What sealing and opening cost, ns a frame. Run by hand: node dist/test/bench/codec.js [SECONDS a row]
import { NativeCodec, codecAddon, type AeadLibrary } from '../../daemon/native-codec.js'
import { loadPrimitives } from '../../daemon/node-primitives.js'
import type { AeadName, FrameCodec } from '../../lib/crypto/codec.js'
import { PortableCodec, portableAeads } from '../../lib/crypto/portable-codec.js'
import { DATAGRAM_WORDS, RUN_WORDS, datagramBatch, frameRuns, openBatch } from '../../lib/wire/batch.js'
import { pattern, tcp, toSeal, udp, type Packet } from '../tools/frames.js'

const seconds = Number(process.argv[2] ?? 0.5)
const LANE = 1
const loads: Record<string, Packet[]> = {
  'TCP super-packet of 64 KB, 1,380 B each': [tcp({ payload: pattern(47 * 1380), gsoSize: 1380 })],
  '48 UDP datagrams of 1,300 B': Array.from({ length: 48 }, () => udp({ payload: pattern(1300) })),
  '64 UDP datagrams of 64 B': Array.from({ length: 64 }, () => udp({ payload: pattern(64) })),
  '64 pure acks': Array.from({ length: 64 }, (_, i) => tcp({ ack: i })),
  'one UDP datagram of 64 B': [udp({ payload: pattern(64) })],
}

function measure(codec: FrameCodec, aead: AeadName, packets: readonly Packet[]) {
  const fresh = toSeal(packets)
  const batch = toSeal(packets)
  const runs = frameRuns(1 << 20, 256)
  const datagrams = datagramBatch(8)
  const out = openBatch(8 * 131_072, 512)
  let frames = 0
  let opened = 0
  let rounds = 0
  let sealing = 0n
  let opening = 0n
  codec.installSeal(0, aead, pattern(32), LANE)
  codec.installOpen(LANE, aead, pattern(32))
  const warm = process.hrtime.bigint() + BigInt(Math.round(seconds * 2e8))
  const end = warm + BigInt(Math.round(seconds * 1e9))
  for (let now = 0n; now < end; now = process.hrtime.bigint()) {
    batch.data.set(fresh.data)
    batch.desc.set(fresh.desc)
    runs.count = runs.used = 0
    const start = process.hrtime.bigint()
    codec.seal(batch, 0, runs)
    const sealed = process.hrtime.bigint()
    datagrams.count = runs.count
    for (let i = 0; i < runs.count; i++) {
      const [offset = 0, length = 0, stride = 0] = runs.desc.subarray(i * RUN_WORDS, (i + 1) * RUN_WORDS)
      datagrams.data.set(runs.data.subarray(offset, offset + length), i * 65_536)
      datagrams.desc.set([i * 65_536, length, stride, 0], i * DATAGRAM_WORDS)
    }
    const ready = process.hrtime.bigint()
    codec.open(datagrams, out)
    const done = process.hrtime.bigint()
    if (now < warm) continue
    rounds++
    sealing += sealed - start
    opening += done - ready
    for (let i = 0; i < runs.count; i++)
      frames += Math.ceil(runs.desc[i * RUN_WORDS + 1]! / runs.desc[i * RUN_WORDS + 2]!)
    opened += out.count
  }
  const each = (time: bigint) => (Number(time) / frames).toFixed(0).padStart(7)
  return `seal ${each(sealing)}  open ${each(opening)}  (${frames / rounds} frames, opened as ${opened / rounds})`
}

const addon = codecAddon()
const sodium = portableAeads(await loadPrimitives())
const native = (implementation: AeadLibrary) => () =>
  new NativeCodec(addon, { offer: addon.codecAeads(), implementation })
const variants: [string, AeadName, () => FrameCodec][] = [
  ...(addon.ipsecMb().problem === ''
    ? [['ipsec-mb', 'aes-256-gcm', native('ipsec-mb')] satisfies [string, AeadName, () => FrameCodec]]
    : []),
  ...addon.codecAeads().map((name): [string, AeadName, () => FrameCodec] => ['openssl', name, native('openssl')]),
  ['portable', 'chacha20-poly1305', () => new PortableCodec(sodium)],
]
console.log('ns a frame')
for (const [what, aead, make] of variants)
  for (const [load, packets] of Object.entries(loads))
    console.log(`${what.padEnd(8)} ${aead.padEnd(17)} ${load.padEnd(40)} ${measure(make(), aead, packets)}`)
