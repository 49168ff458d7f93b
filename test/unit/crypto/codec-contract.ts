// What every FrameCodec promises, whatever it is made of.

import type { Test } from 'tap'
import type { AeadName, FrameCodec } from '../../../lib/crypto/codec.js'
import {
  Gso,
  OPENED,
  CLEAR,
  frameRuns,
  openBatch,
  OPEN_BYTES,
  OPEN_ENTRIES,
  SEGMENTS_READ_MAX,
} from '../../../lib/wire/batch.js'
import {
  CLEAR_HEADER,
  FrameType,
  GSO_BYTES_MAX,
  HEADROOM,
  Kind,
  KindFlag,
  Protocol,
  REPLAY_WINDOW,
} from '../../../lib/wire/constants.js'
import { dropNumber, type DropReason } from '../../../lib/wire/drop.js'
import {
  PARTIAL_DATA,
  asReceived,
  expand,
  inner,
  join,
  openAll,
  pattern,
  readEntries,
  readRuns,
  sealAll,
  split,
  tcp,
  toOpen,
  toSeal,
  udp,
  type Entry,
  type Packet,
  type Received,
} from '../../tools/frames.js'

export const KEY = pattern(32, 9)
const LANE = 0xbeef0007
const failed = (reason: DropReason) => -(dropNumber(reason) + 1)
const FLAG = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16, urg: 32, cwr: 128 }

/** A codec that sends to itself: slot 0 to lane LANE. */
export function pair(make: () => FrameCodec, aead: AeadName): FrameCodec {
  const codec = make()
  codec.installSeal(0, aead, KEY, LANE)
  codec.installOpen(LANE, aead, KEY)
  return codec
}
/** Whole frames compare as text: a difference in thousands of bytes is then still quick to report. */
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
export const single = (bytes: Uint8Array): Received => ({ bytes, size: 0 })

export function codecContract(t: Test, make: () => FrameCodec, aead: AeadName): void {
  const through = (packets: readonly Packet[]): Entry[] => {
    const codec = pair(make, aead)
    return openAll(codec, sealAll(codec, packets).map(asReceived))
  }
  const statuses = (entries: readonly Entry[]) => entries.map((e) => e.status)

  t.test('super-packets of all shapes come out as they went in', async (t) => {
    const shapes: Record<string, Packet> = {
      'tcp 2 segments': tcp({ payload: pattern(2000), gsoSize: 1000 }),
      'tcp short last': tcp({ payload: pattern(2001), gsoSize: 1000 }),
      'tcp 64 KB': tcp({ payload: pattern(65_400), gsoSize: 1368 }),
      'tcp small segments': tcp({ payload: pattern(5000), gsoSize: 36 }),
      'tcp segments shorter than the header': tcp({ payload: pattern(500), gsoSize: 7 }),
      'tcp one byte each': tcp({ payload: pattern(100), gsoSize: 1, options: new Uint8Array(40).fill(1) }),
      'tcp FIN and PSH': tcp({ payload: pattern(3000), gsoSize: 1400, flags: FLAG.ack | FLAG.fin | FLAG.psh }),
      'tcp sequence wraps': tcp({ payload: pattern(9000), gsoSize: 1400, sequence: 0xfffff000 }),
      'tcp all options': tcp({ payload: pattern(9000), gsoSize: 1400, options: pattern(40, 3) }),
      'tcp no options': tcp({ payload: pattern(9000), gsoSize: 1400, options: new Uint8Array(0) }),
      'udp 2 segments': udp({ payload: pattern(2000), gsoSize: 1000 }),
      'udp 64 segments': udp({ payload: pattern(64 * 700 - 3), gsoSize: 700 }),
      'udp tiny segments': udp({ payload: pattern(64), gsoSize: 1 }),
    }
    for (const [name, packet] of Object.entries(shapes)) {
      const entries = through([packet])
      t.equal(entries.length, 1, `${name}: one entry`)
      const entry = entries[0]!
      t.equal(hex(entry.bytes), hex(packet.bytes), `${name}: same bytes`)
      t.match(entry, { status: OPENED, lane: LANE | 0, datagram: 0, headerLength: packet.headerLength }, name)
      t.match(entry, { gsoSize: packet.gsoSize, gsoKind: packet.gsoKind }, name)
    }
  })

  t.test('frames are the segments of the super-packet, in runs that one send takes', async (t) => {
    const packets = [
      tcp({ payload: pattern(65_400), gsoSize: 1400, flags: FLAG.ack | FLAG.psh | FLAG.cwr }),
      udp({ payload: pattern(100 * 600), gsoSize: 600 }),
      tcp({ payload: pattern(3000), gsoSize: 1400, kind: PARTIAL_DATA, flow: 2 }),
    ]
    const codec = pair(make, aead)
    const runs = sealAll(codec, packets)
    for (const run of runs) {
      t.ok(run.bytes.length <= GSO_BYTES_MAX)
      t.ok(Math.ceil(run.bytes.length / run.stride) <= 64)
    }
    const frames = runs.flatMap(split)
    const plaintexts = frames.map((frame) => openAll(pair(make, aead), [single(frame)])[0]!.bytes)
    t.same(plaintexts.map(hex), packets.flatMap(expand).map(hex))
    t.equal(codec.sealed(0), frames.length, 'counts frames, not packets')
    t.same(
      frames.map((frame) => new DataView(frame.buffer).getBigUint64(8, true)),
      frames.map((_, i) => BigInt(i)),
      'counters rise by one',
    )
    t.same(frames[0]!.subarray(0, CLEAR_HEADER), [FrameType.transport, 1, 0, 0, 7, 0, 0xef, 0xbe, ...Array(8).fill(0)])
  })

  t.test('an accept frame is segmented behind its flow ID', async (t) => {
    for (const plain of [
      tcp({ payload: pattern(4000), gsoSize: 900 }),
      udp({ payload: pattern(4000), gsoSize: 900 }),
    ]) {
      const head = plain.bytes.slice(0, 12)
      head[8] = Kind.accept | KindFlag.checksumPartial
      const bytes = join([head, pattern(8, 77), plain.bytes.subarray(12)])
      const packet = { ...plain, bytes, headerLength: plain.headerLength + 8 }
      const entries = through([packet])
      t.same(
        entries.map((e) => e.bytes),
        expand(packet),
        'arrives segment by segment',
      )
      t.ok(entries.every((e) => e.headerLength === 12 && e.gsoKind === Gso.none))
    }
  })

  t.test('single frames of every kind pass as they are', async (t) => {
    const kinds = [
      Kind.empty,
      Kind.open,
      Kind.accept,
      Kind.notHere,
      Kind.close,
      Kind.piece,
      Kind.control,
      Kind.probe,
      15,
    ]
    const packets: Packet[] = kinds.map((kind, i) => ({
      bytes: join([inner({ kind, protocol: 0 }), pattern(i * 13)]),
      headerLength: 12,
    }))
    packets.push({ bytes: join([inner({ kind: Kind.data, protocol: Protocol.icmp }), pattern(64)]), headerLength: 20 })
    const entries = through(packets)
    t.same(
      entries.map((e) => e.bytes),
      packets.map((p) => p.bytes),
    )
    t.same(
      entries.map((e) => e.headerLength),
      packets.map((p) => p.headerLength),
    )
    t.ok(entries.every((e) => e.status === OPENED && e.gsoSize === 0 && e.gsoKind === Gso.none))
  })

  t.test('each entry has its headroom, and its transport header is aligned', async (t) => {
    const payload = pattern(333)
    const entries = through([1, 2, 3, 4, 5].map((flow) => udp({ flow, payload })))
    t.equal(entries.length, 5)
    let end = 0
    for (const entry of entries) {
      t.ok(entry.offset >= end + HEADROOM)
      t.equal(entry.offset % 4, 0)
      end = entry.offset + entry.bytes.length
    }
  })

  t.test('TCP segments are coalesced only when they continue the flow', async (t) => {
    const first = { sequence: 1000, payload: pattern(100) }
    const cases: [string, Parameters<typeof tcp>[0], boolean][] = [
      ['next in sequence', {}, true],
      ['shorter', { payload: pattern(1) }, true],
      ['with PSH', { flags: FLAG.ack | FLAG.psh }, true],
      ['with FIN', { flags: FLAG.ack | FLAG.fin }, true],
      ['longer', { payload: pattern(101) }, false],
      ['pure ack', { payload: new Uint8Array(0) }, false],
      ['gap', { sequence: 1101 }, false],
      ['again', { sequence: 1000 }, false],
      ['other ack', { ack: 6 }, false],
      ['other window', { window: 502 }, false],
      ['other options', { options: new Uint8Array(12).fill(2) }, false],
      ['more options', { options: new Uint8Array(16).fill(1) }, false],
      ['other flow', { flow: 2 }, false],
      ['other hop limit', { hops: 62 }, false],
      ['complete checksum', { kind: Kind.data }, false],
      ['other kind', { kind: Kind.accept | KindFlag.checksumPartial }, false],
      ['SYN', { flags: FLAG.ack | FLAG.syn }, false],
      ['RST', { flags: FLAG.ack | FLAG.rst }, false],
      ['URG', { flags: FLAG.ack | FLAG.urg }, false],
      ['CWR', { flags: FLAG.ack | FLAG.cwr }, false],
      ['UDP', { protocol: Protocol.udp }, false],
    ]
    for (const [name, change, merged] of cases) {
      const packets = [tcp(first), tcp({ sequence: 1100, payload: pattern(100, 1), ...change })]
      const entries = through(packets)
      t.same(statuses(entries), merged ? [OPENED] : [OPENED, OPENED], name)
      if (!merged) {
        t.same(
          entries.map((e) => e.bytes),
          packets.map((p) => p.bytes),
          `${name}: both unchanged`,
        )
      }
    }
  })

  t.test('what may not be continued is not', async (t) => {
    for (const change of [
      { flags: FLAG.ack | FLAG.psh },
      { flags: FLAG.ack | FLAG.fin },
      { flags: FLAG.ack | FLAG.syn },
      { flags: FLAG.ack | FLAG.rst },
      { flags: FLAG.ack | FLAG.urg },
      { flags: FLAG.ack | FLAG.cwr },
      { kind: Kind.data },
    ]) {
      const packets = [
        tcp({ sequence: 1, payload: pattern(50), ...change }),
        tcp({ sequence: 51, payload: pattern(50), ...change }),
      ]
      t.equal(through(packets).length, 2, JSON.stringify(change))
    }
    const parts = [100, 60, 100].map((length, i) => tcp({ sequence: [0, 100, 160][i]!, payload: pattern(length) }))
    t.same(
      through(parts).map((e) => e.bytes.length - 40),
      [160, 100],
      'a shorter segment is the last',
    )
    const acks = [1, 2, 3].map(() => tcp({ sequence: 9 }))
    t.equal(through(acks).length, 3, 'pure acks travel alone')
  })

  t.test('flags of the segments are those of the super-packet', async (t) => {
    const packets = [
      tcp({ sequence: 0, payload: pattern(100) }),
      tcp({ sequence: 100, payload: pattern(100), flags: FLAG.ack | FLAG.psh | FLAG.fin }),
      tcp({ sequence: 200, payload: pattern(100) }),
    ]
    const entries = through(packets)
    t.equal(entries.length, 2)
    t.equal(entries[0]!.bytes[12 + 9], FLAG.ack | FLAG.psh | FLAG.fin)
    t.match(entries[0], { gsoSize: 100, gsoKind: Gso.tcp, headerLength: 40 })
  })

  t.test('of a datagram of too many segments the rest is one entry, and nothing else suffers', async (t) => {
    const codec = pair(make, aead)
    const good = sealAll(codec, [udp({ payload: pattern(40) })]).flatMap(split)[0]!
    const shapes = [
      [65_507, 1],
      [65_507, 16],
      [65_507, 44],
      [SEGMENTS_READ_MAX * 16 + 1, 16],
      [SEGMENTS_READ_MAX * 16, 16],
      [SEGMENTS_READ_MAX, 1],
      [65_507, 3],
    ] as const
    const datagrams = toOpen([
      ...shapes.map(([length, size]) => ({ bytes: new Uint8Array(length).fill(6), size })),
      single(good),
    ])
    const out = openBatch(datagrams.count * OPEN_BYTES, datagrams.count * OPEN_ENTRIES)
    codec.open(datagrams, out)
    const entries = readEntries(out, datagrams)
    t.match(entries.at(-1), { status: OPENED, datagram: shapes.length })
    for (const [datagram, [length, size]] of shapes.entries()) {
      const own = entries.filter((entry) => entry.datagram === datagram)
      const rest = Math.max(0, Math.ceil(length / size) - SEGMENTS_READ_MAX)
      const name = `${length} bytes by ${size}`
      t.equal(own.length, Math.min(Math.ceil(length / size), SEGMENTS_READ_MAX) + Math.min(rest, 1), name)
      t.ok(
        own.slice(0, SEGMENTS_READ_MAX).every((one) => one.status < 0 && one.gsoSize === 0 && one.bytes.length <= size),
      )
      if (rest === 0) continue
      t.match(own.at(-1), { status: failed('bad-frame'), gsoSize: size }, name)
      t.equal(own.at(-1)!.bytes.length, length - SEGMENTS_READ_MAX * size, name)
    }
  })

  t.test('super-packets end at their limits', async (t) => {
    const segment = 1400
    const packets = Array.from({ length: 100 }, (_, i) =>
      tcp({ sequence: i * segment, payload: pattern(segment, i), options: new Uint8Array(0) }),
    )
    const sizes = through(packets).map((e) => e.bytes.length - 12)
    t.equal(sizes[0], 16 + 46 * segment)
    t.ok(sizes[0]! <= 65_535 - 60 && sizes[0]! + segment > 65_535 - 60)
    const small = Array.from({ length: 130 }, (_, i) => udp({ payload: pattern(64, i) }))
    t.same(
      through(small).map((e) => (e.bytes.length - 16) / 64),
      [64, 64, 2],
    )
    const large = Array.from({ length: 60 }, (_, i) => udp({ payload: pattern(1300, i) }))
    t.same(
      through(large).map((e) => (e.bytes.length - 16) / 1300),
      [49, 11],
    )
  })

  t.test('UDP datagrams are coalesced when they are of one size', async (t) => {
    const cases: [string, Packet, boolean][] = [
      ['equal', udp({ payload: pattern(100) }), true],
      ['shorter', udp({ payload: pattern(99) }), true],
      ['longer', udp({ payload: pattern(101) }), false],
      ['empty', udp({}), false],
      ['other flow', udp({ flow: 5, payload: pattern(100) }), false],
      ['complete checksum', udp({ kind: Kind.data, payload: pattern(100) }), false],
    ]
    for (const [name, second, merged] of cases) {
      t.equal(through([udp({ payload: pattern(100) }), second]).length, merged ? 1 : 2, name)
    }
    const sizes = [100, 99, 100].map((length) => udp({ payload: pattern(length) }))
    t.equal(through(sizes).length, 2, 'a shorter one is the last')
    const lying = udp({ payload: pattern(100) })
    lying.bytes[13]! += 1
    t.equal(through([lying, lying]).length, 2, 'a wrong length field travels alone')
  })

  t.test('super-packets span datagrams from one address with one traffic class', async (t) => {
    const packets = [0, 1, 2].map((i) => tcp({ sequence: i * 100, payload: pattern(100, i) }))
    const cases: [string, Partial<Received>, number][] = [
      ['same', {}, 1],
      ['other address', { address: 1 }, 3],
      ['other class', { trafficClass: 2 }, 3],
    ]
    for (const [name, change, expected] of cases) {
      const codec = pair(make, aead)
      const frames = sealAll(codec, packets).flatMap(split)
      const entries = openAll(
        codec,
        frames.map((bytes, i) => ({ ...single(bytes), ...(i === 1 ? change : {}) })),
      )
      t.equal(entries.length, expected, name)
      t.same(
        entries.map((e) => e.datagram),
        [0, 1, 2].slice(0, expected),
      )
    }
  })

  t.test('failures between the segments do not tear the super-packet', async (t) => {
    const codec = pair(make, aead)
    const packet = tcp({ payload: pattern(5000), gsoSize: 1000 })
    const frames = sealAll(codec, [packet]).flatMap(split)
    const forged = frames[2]!.slice()
    forged[30]! ^= 1
    const order = [frames[0]!, forged, frames[1]!, frames[1]!, Uint8Array.of(6), frames[2]!, frames[3]!, frames[4]!]
    const entries = openAll(codec, order.map(single))
    t.same(statuses(entries), [OPENED, failed('bad-tag'), failed('replayed'), failed('truncated')])
    t.same(entries[0]!.bytes, packet.bytes)
  })

  t.test('every failure has its reason and points to its frame', async (t) => {
    const codec = pair(make, aead)
    const frame = sealAll(codec, [tcp({ payload: pattern(40) })])[0]!.bytes
    const changed = (at: number, value: number, length = frame.length) => {
      const copy = frame.slice(0, length)
      if (at >= 0) copy[at] = value
      return copy
    }
    const cases: [string, Uint8Array, number, number][] = [
      ['nothing', new Uint8Array(0), failed('truncated'), 0],
      ['one byte', changed(-1, 0, 1), failed('truncated'), 0],
      ['no lane', changed(-1, 0, 7), failed('truncated'), 0],
      ['too short', changed(-1, 0, 43), failed('truncated'), LANE | 0],
      ['type 0', changed(0, 0), failed('bad-type'), 0],
      ['type 8', changed(0, 8), failed('bad-type'), 0],
      ['version', changed(1, 2), failed('bad-version'), LANE | 0],
      ['row', changed(4, 8), failed('unknown-lane'), (LANE + 1) | 0],
      ['random half of the lane', changed(7, 0), failed('unknown-lane'), LANE & 0xffffff],
      ['cut', changed(-1, 0, 60), failed('bad-tag'), LANE | 0],
    ]
    for (const type of [1, 2, 3, 4, 5, 7]) cases.push([`clear type ${type}`, changed(0, type), CLEAR, 0])
    const entries = openAll(
      codec,
      cases.map(([, bytes]) => single(bytes)),
    )
    let offset = 0
    for (const [i, [name, bytes, status, lane]] of cases.entries()) {
      t.match(entries[i], { status, lane, datagram: i, headerLength: 0, gsoSize: 0, offset }, name)
      t.same(entries[i]!.bytes, bytes, name)
      offset += bytes.length
    }
  })

  t.test('authentic frames that make no sense are bad frames', async (t) => {
    const data = (protocol: number, rest: number[]): Packet => ({
      bytes: join([inner({ protocol }), Uint8Array.from(rest)]),
      headerLength: 12,
    })
    const header = Array<number>(16).fill(0)
    const withOffset = (words: number) => header.map((_, i) => (i === 8 ? words << 4 : 0))
    const bad = [
      data(Protocol.tcp, []),
      data(Protocol.tcp, withOffset(5).slice(1)),
      data(Protocol.tcp, withOffset(4)),
      data(Protocol.tcp, withOffset(6)),
      data(Protocol.udp, [0, 8, 0]),
      data(Protocol.icmp, [8, 0, 0, 0, 0, 0, 0]),
      data(Protocol.icmp6, header),
      data(99, header),
    ]
    const entries = through(bad)
    t.same(
      statuses(entries),
      bad.map(() => failed('bad-frame')),
    )
    t.same(statuses(through([data(Protocol.tcp, withOffset(5)), data(Protocol.udp, [0, 8, 0, 0])])), [OPENED, OPENED])
  })

  t.test('a frame changed in any bit never opens', async (t) => {
    const codec = pair(make, aead)
    const frame = sealAll(codec, [udp({ payload: pattern(20) })])[0]!.bytes
    const mutants = Array.from({ length: frame.length * 8 }, (_, bit) => {
      const copy = frame.slice()
      copy[bit >> 3]! ^= 1 << (bit & 7)
      return copy
    })
    let opened = 0
    for (let i = 0; i < mutants.length; i += 64)
      opened += statuses(openAll(codec, mutants.slice(i, i + 64).map(single))).filter((s) => s === OPENED).length
    t.equal(opened, 0)
    t.same(statuses(openAll(codec, [single(frame)])), [OPENED], 'and the frame itself still does')
  })

  t.test('replays are refused in a window as long as promised', async (t) => {
    const codec = pair(make, aead)
    const frames = sealAll(
      codec,
      Array.from({ length: REPLAY_WINDOW + 10 }, () => udp({ payload: pattern(1) })),
    ).flatMap(split)
    const open = (i: number) => openAll(codec, [single(frames[i]!)])[0]!.status
    t.equal(open(REPLAY_WINDOW + 9), OPENED)
    t.equal(open(REPLAY_WINDOW + 9), failed('replayed'))
    t.equal(open(9), failed('replayed'), 'older than the window')
    t.equal(open(10), OPENED, 'the oldest in the window')
    t.equal(open(10), failed('replayed'))
    t.equal(open(5000), OPENED)
    t.equal(open(5000), failed('replayed'))
  })

  t.test('slots and lanes are apart, and gone when removed', async (t) => {
    const codec = make()
    const other = pattern(32, 10)
    codec.installSeal(65_535, aead, KEY, 0xffffffff)
    codec.installSeal(1, aead, other, 0x00010001)
    codec.installOpen(0xffffffff, aead, KEY)
    codec.installOpen(0x00010001, aead, other)
    const packets = [65_535, 1, 2].map((slot) => ({ ...udp({ payload: pattern(9) }), slot }))
    const runs = sealAll(codec, packets)
    t.equal(runs.flatMap(split).length, 2, 'an empty slot is skipped')
    t.equal(codec.skipped, 1, 'which is said')
    t.same(
      [65_535, 1, 2].map((slot) => codec.sealed(slot)),
      [1, 1, 0],
    )
    t.same(
      openAll(codec, runs.map(asReceived)).map((e) => [e.status, e.lane]),
      [
        [OPENED, -1],
        [OPENED, 0x00010001],
      ],
    )
    codec.removeOpen(0x00020001)
    codec.installSeal(1, aead, other, 0x00010001)
    t.equal(codec.sealed(1), 0, 'a new key starts anew')
    const again = sealAll(codec, packets.slice(1)).map(asReceived)
    t.same(statuses(openAll(codec, again)), [failed('replayed')], 'removing another lane of the row does nothing')
    codec.removeOpen(0x00010001)
    t.same(statuses(openAll(codec, again)), [failed('unknown-lane')])
    codec.removeSeal(1)
    codec.removeSeal(1)
    t.same(sealAll(codec, packets.slice(1)), [])
    codec.installOpen(0x00030001, aead, other)
    t.same(statuses(openAll(codec, again)), [failed('unknown-lane')], 'the row is under another index')
    codec.installOpen(0x00010001, aead, other)
    t.same(statuses(openAll(codec, again)), [OPENED], 'a new lane has a window of its own')
  })

  t.test('the caller may overwrite a key once it is installed', async (t) => {
    const codec = make()
    const key = KEY.slice()
    codec.installSeal(0, aead, key, LANE)
    codec.installOpen(LANE, aead, key)
    key.fill(0)
    const frames = sealAll(codec, [udp({ payload: pattern(9) })]).map(asReceived)
    t.same(statuses(openAll(pair(make, aead), frames)), [OPENED])
    t.same(statuses(openAll(codec, frames)), [OPENED])
  })

  t.test('full runs are carried on where they ended', async (t) => {
    const packets = [
      tcp({ payload: pattern(20_000), gsoSize: 1400, flags: FLAG.ack | FLAG.psh | FLAG.cwr }),
      udp({ payload: pattern(900) }),
      udp({ payload: pattern(20_000), gsoSize: 700 }),
    ]
    const whole = sealAll(pair(make, aead), packets).flatMap(split)
    for (const runs of [frameRuns(1500, 1), frameRuns(4000, 64), frameRuns(65_536, 1), frameRuns(7000, 2)]) {
      const parts = sealAll(pair(make, aead), packets, runs).flatMap(split)
      t.same(parts.map(hex), whole.map(hex), `${runs.data.length} bytes`)
    }
  })

  t.test('frames gather in the run that is there', async (t) => {
    const codec = pair(make, aead)
    const runs = frameRuns(100_000, 10)
    for (const length of [500, 500, 400, 500])
      codec.seal(toSeal([{ ...udp({ payload: pattern(length) }), address: 3 }]), 0, runs)
    t.same(
      readRuns(runs).map((run) => [run.bytes.length, run.stride, run.address]),
      [
        [548 * 2 + 448, 548, 3],
        [548, 548, 3],
      ],
    )
    runs.count = runs.used = 0
    const apart = [
      { address: 3 },
      { address: 4 },
      { address: 4, trafficClass: 1 },
      { address: 4, trafficClass: 1 },
    ].map((change) => ({ ...udp({ payload: pattern(10) }), ...change }))
    t.same(
      sealAll(codec, apart, runs).map((run) => [split(run).length, run.address, run.trafficClass]),
      [
        [1, 3, 0],
        [1, 4, 0],
        [2, 4, 1],
      ],
    )
    runs.count = runs.used = 0
    const many = Array.from({ length: 130 }, () => udp({ payload: pattern(1) }))
    t.same(
      sealAll(codec, many, runs).map((run) => split(run).length),
      [64, 64, 2],
    )
  })
}
