// What every FrameCodec says to a caller who hands it nonsense.

import type { Test } from 'tap'
import type { AeadName, FrameCodec } from '../../../lib/crypto/codec.js'
import { Seal, SEAL_WORDS, frameRuns, openBatch, sealBatch } from '../../../lib/wire/batch.js'
import { Kind, KindFlag } from '../../../lib/wire/constants.js'
import { pattern, sealAll, tcp, toOpen, toSeal, udp, type Packet } from '../../tools/frames.js'
import { KEY, pair, single } from './codec-contract.js'

export function codecMisuse(t: Test, make: () => FrameCodec, aead: AeadName): void {
  t.test('wrong descriptors throw before anything is touched', async (t) => {
    const codec = pair(make, aead)
    const good = udp({ payload: pattern(50) })
    const wrong: [number, number][] = [
      [Seal.offset, -1],
      [Seal.offset, 200],
      [Seal.offset, 2 ** 31 - 1],
      [Seal.length, -1],
      [Seal.length, 11],
      [Seal.length, 2 ** 31 - 1],
      [Seal.headerLength, 11],
      [Seal.headerLength, 67],
      [Seal.headerLength, -(2 ** 31)],
      [Seal.gsoSize, -1],
      [Seal.gsoSize, 10],
      [Seal.gsoKind, 3],
      [Seal.gsoKind, -1],
      [Seal.sealSlot, -1],
      [Seal.sealSlot, 65_536],
      [Seal.addressSlot, -1],
      [Seal.trafficClass, 256],
      [Seal.trafficClass, -1],
    ]
    for (const [word, value] of wrong) {
      const batch = toSeal([good, good])
      batch.desc[SEAL_WORDS + word] = value
      const before = [batch.data.slice(), batch.desc.slice()]
      const runs = frameRuns(10_000, 10)
      t.throws(() => codec.seal(batch, 0, runs), { code: 'CARACAL_E_RANGE' }, `word ${word} = ${value}`)
      t.same([batch.data, batch.desc], before)
      t.match(runs, { count: 0, used: 0 })
    }
    t.equal(codec.sealed(0), 0)

    const segmented: [string, Packet][] = [
      ['complete checksum', tcp({ kind: Kind.data, payload: pattern(2000), gsoSize: 1000 })],
      ['kind without segments', tcp({ kind: Kind.open | KindFlag.checksumPartial, payload: pattern(99), gsoSize: 9 })],
      ['wrong header length', { ...tcp({ payload: pattern(2000), gsoSize: 1000 }), headerLength: 44 }],
      ['long header', { ...udp({ payload: pattern(2000), gsoSize: 1000 }), headerLength: 513 }],
      ['header without UDP', { ...udp({ payload: pattern(2000), gsoSize: 1000 }), headerLength: 15 }],
      ['large segments', { bytes: pattern(70_000), headerLength: 12 }],
      ['segments larger than the runs', udp({ payload: pattern(15_000), gsoSize: 9_980 })],
    ]
    for (const [name, packet] of segmented)
      t.throws(() => codec.seal(toSeal([packet]), 0, frameRuns(10_000, 10)), { code: 'CARACAL_E_RANGE' }, name)
    t.throws(() => codec.seal(toSeal([good]), 0, frameRuns(1000, 0)), { code: 'CARACAL_E_RANGE' })
    t.throws(() => codec.seal(toSeal([good]), 2, frameRuns(1000, 1)), { code: 'CARACAL_E_RANGE' })
    t.throws(() => codec.seal({ ...toSeal([good]), count: 2 }, 0, frameRuns(1000, 1)), { code: 'CARACAL_E_RANGE' })
    t.throws(() => codec.seal(toSeal([good]), 0, { ...frameRuns(1000, 1), count: 2 }), { code: 'CARACAL_E_RANGE' })
    t.throws(() => codec.seal(toSeal([good]), 0, { ...frameRuns(1000, 1), used: 1001 }), { code: 'CARACAL_E_RANGE' })
    const same = new Uint8Array(1000)
    t.throws(
      () => codec.seal(sealBatch(same.subarray(0, 501), 0), 0, { ...frameRuns(0, 1), data: same.subarray(500) }),
      {
        code: 'CARACAL_E_ARGUMENT',
      },
    )
  })

  t.test('wrong datagrams throw before anything is touched', async (t) => {
    const codec = pair(make, aead)
    const frame = sealAll(codec, [udp({ payload: pattern(9) })])[0]!.bytes
    for (const [word, value] of [
      [0, -1],
      [0, 2 ** 31 - 1],
      [1, -1],
      [1, 100],
      [2, -5],
    ] as const) {
      const datagrams = toOpen([single(frame)])
      datagrams.desc[word] = value
      const out = { ...openBatch(140_000, 64), count: 3 }
      t.throws(() => codec.open(datagrams, out), { code: 'CARACAL_E_RANGE' }, `word ${word} = ${value}`)
      t.equal(out.count, 3)
    }
    const datagrams = toOpen([single(frame)])
    t.throws(() => codec.open(datagrams, openBatch(140_000, 0)), { code: 'CARACAL_E_RANGE' }, 'no entries')
    t.throws(() => codec.open(datagrams, openBatch(100, 1)), { code: 'CARACAL_E_RANGE' }, 'no bytes')
    t.throws(() => codec.open({ ...datagrams, count: 2 }, openBatch(140_000, 64)), { code: 'CARACAL_E_RANGE' })
    t.throws(() => codec.open({ ...datagrams, addresses: new Uint8Array(23) }, openBatch(140_000, 64)), {
      code: 'CARACAL_E_RANGE',
    })
    const shared = { ...openBatch(0, 64), data: datagrams.data }
    t.throws(() => codec.open(datagrams, shared), { code: 'CARACAL_E_ARGUMENT' }, 'overlap')
    const out = openBatch(140_000, 64)
    codec.open(datagrams, out)
    t.equal(out.count, 1, 'and the right ones still open')
  })

  t.test('wrong keys, slots and lanes throw', async (t) => {
    const codec = make()
    const code = 'CARACAL_E_RANGE'
    t.throws(() => codec.installSeal(-1, aead, KEY, 0), { code })
    t.throws(() => codec.installSeal(65_536, aead, KEY, 0), { code })
    t.throws(() => codec.installSeal(0, aead, KEY.subarray(1), 0), { code })
    t.throws(() => codec.installSeal(0, aead, KEY, -1), { code })
    t.throws(() => codec.installSeal(0, aead, KEY, 2 ** 32), { code })
    t.throws(() => codec.installSeal(0.5, aead, KEY, 0), { code: 'CARACAL_E_ARGUMENT' })
    t.throws(() => codec.installOpen(-1, aead, KEY), { code })
    t.throws(() => codec.installOpen(0, aead, new Uint8Array(33)), { code })
    t.throws(() => codec.removeSeal(65_536), { code })
    t.throws(() => codec.removeOpen(NaN), { code: 'CARACAL_E_ARGUMENT' })
    t.throws(() => codec.sealed(-1), { code })
    t.equal(codec.sealed(0), 0)
  })
}
