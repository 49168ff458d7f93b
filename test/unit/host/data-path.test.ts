import { test } from 'tap'
import { PortableCodec, portableAeads } from '../../../lib/crypto/portable-codec.js'
import { DataPath, type DataPathDecisions, type DataPathTap } from '../../../lib/host/data-path.js'
import { encodeLocator } from '../../../lib/path/locator.js'
import { PeerTable } from '../../../lib/path/peers.js'
import {
  ADDRESS_RECORD,
  CLEAR,
  DATAGRAM_WORDS,
  Gso,
  Open,
  OPEN_WORDS,
  OPENED,
  PACKET_WORDS,
  RUN_WORDS,
  Seal,
  SEAL_WORDS,
  type PacketBatch,
} from '../../../lib/wire/batch.js'
import { FrameType, INNER_HEADER, Kind, KindFlag, VNET_HEADER } from '../../../lib/wire/constants.js'
import { hostId } from '../../../lib/wire/ids.js'
import { writeInnerHeader } from '../../../lib/wire/inner.js'
import { sodium as primitives } from '../../tools/sodium.js'

const KEY = primitives.randomBytes(32)
const LANE = 0x1234_0005
const SLOT = 3
const TCP_REST = 16
const HEADERS = INNER_HEADER + TCP_REST

/** A TCP segment as it is sealed: inner header, transport header without ports, payload. */
interface Plain {
  readonly payload: Uint8Array
  /** Payload bytes a frame; 0: one frame. */
  readonly gsoSize: number
}

interface Frame {
  readonly bytes: Uint8Array
  readonly stride: number
  readonly to: number
  readonly trafficClass: number
}

/** One end of a session: what it sent, wrote and was asked to decide. */
class End implements DataPathDecisions {
  readonly peers = new PeerTable(hostId('00'.repeat(32)), 8)
  readonly peer = this.peers.add(hostId('01'.repeat(32)))
  readonly codec = new PortableCodec(portableAeads(primitives))
  readonly path: DataPath
  /** Runs, in the order of sending. */
  readonly runs: Frame[] = []
  /** Calls of sendFrames. */
  sends = 0
  readonly written: Uint8Array[] = []
  readonly opened: { status: number; bytes: Uint8Array; gsoSize: number; from: number }[] = []
  /** Losses that it was told of. */
  readonly losses: [string, number][] = []
  /** What is sealed for the next batch of the TUN. */
  outbound: readonly Plain[] = []
  /** Done for each batch from the wire. */
  inbound: (tunOut: PacketBatch) => void = () => undefined

  constructor() {
    this.codec.installSeal(SLOT, 'chacha20-poly1305', KEY, LANE)
    this.codec.installOpen(LANE, 'chacha20-poly1305', KEY)
    this.peers.sealSlot[this.peer] = SLOT
    this.peers.setPath(this.peer, this.peers.addresses.acquire(encodeLocator({ address: '192.0.2.9', port: 9 })))
    this.path = new DataPath({
      codec: this.codec,
      peers: this.peers,
      decisions: this,
      io: {
        writeTun: ({ data, desc, count }) => {
          for (let i = 0; i < count; i++) {
            const [offset, length] = desc.subarray(i * PACKET_WORDS)
            this.written.push(data.slice(offset, offset! + length!))
          }
        },
        sendFrames: ({ data, desc, count }) => {
          this.sends++
          for (let i = 0; i < count; i++) {
            const [offset, length, stride, to, trafficClass] = desc.subarray(i * RUN_WORDS)
            const bytes = data.slice(offset, offset! + length!)
            this.runs.push({ bytes, stride: stride!, to: to!, trafficClass: trafficClass! })
          }
        },
      },
    })
  }

  fromTun: DataPathDecisions['fromTun'] = (batch, seal) => {
    let at = 0
    for (const { payload, gsoSize } of this.outbound) {
      writeInnerHeader(seal.view, at, 7, 9, Kind.data | KindFlag.checksumPartial, 0, 64, 6)
      seal.data.fill(0, at + INNER_HEADER, at + HEADERS)
      // Data offset: 20 bytes, ports included.
      seal.data[at + INNER_HEADER + 8] = 0x50
      seal.data[at + INNER_HEADER + 9] = 0x10
      seal.data.set(payload, at + HEADERS)
      const base = seal.count++ * SEAL_WORDS
      seal.desc[base + Seal.offset] = at
      seal.desc[base + Seal.length] = HEADERS + payload.length
      seal.desc[base + Seal.headerLength] = HEADERS
      seal.desc[base + Seal.gsoSize] = gsoSize
      seal.desc[base + Seal.gsoKind] = gsoSize > 0 ? Gso.tcp : Gso.none
      seal.desc[base + Seal.sealSlot] = SLOT
      seal.desc[base + Seal.addressSlot] = this.peers.addressSlot[this.peer]!
      seal.desc[base + Seal.trafficClass] = 0x20
      at += HEADERS + payload.length
    }
    batch.count = 0
  }

  fromPeers: DataPathDecisions['fromPeers'] = (open, datagrams, tunOut) => {
    for (let i = 0; i < open.count; i++) {
      const base = i * OPEN_WORDS
      const status = open.desc[base + Open.status]!
      const offset = open.desc[base + Open.offset]!
      const data = status === OPENED ? open.data : datagrams.data
      this.opened.push({
        status,
        bytes: data.slice(offset, offset + open.desc[base + Open.length]!),
        gsoSize: open.desc[base + Open.gsoSize]!,
        from: datagrams.addresses[open.desc[base + Open.datagram]! * ADDRESS_RECORD + 3]!,
      })
    }
    this.inbound(tunOut)
  }

  lost(reason: string, n: number): void {
    if (n > 0) this.losses.push([reason, n])
  }

  /** The kernel's packets have been read: what they become. */
  send(...outbound: readonly Plain[]): void {
    this.outbound = outbound
    this.path.tunIn.count = 1
    this.path.tunRead(0)
  }

  /** Sends arrive, each as one GRO'd datagram, from port `from`. */
  receive(frames: readonly Frame[], from = 1): void {
    const { wireIn } = this.path
    for (let next = 0; next < frames.length;) {
      wireIn.count = 0
      for (; wireIn.count < 8 && next < frames.length; next++, wireIn.count++) {
        const { bytes, stride } = frames[next]!
        const row = wireIn.count * DATAGRAM_WORDS
        const at = wireIn.count * 65_536
        wireIn.data.set(bytes, at)
        wireIn.desc.set([at, bytes.length, stride < bytes.length ? stride : 0, 0], row)
        const address = { address: '192.0.2.1', port: from + wireIn.count }
        wireIn.addresses.set(encodeLocator(address), wireIn.count * ADDRESS_RECORD)
      }
      this.path.wireRead(0)
    }
  }

  /** All payload that was opened, in order. */
  get payload(): Uint8Array {
    return Buffer.concat(
      this.opened.filter(({ status }) => status === OPENED).map(({ bytes }) => bytes.subarray(HEADERS)),
    )
  }
}

/** Sees everything, does nothing. */
class Watcher implements DataPathTap {
  readonly log: string[] = []
  tunRead = (batch: PacketBatch) => void this.log.push(`tunRead ${batch.count}`)
  tunWrite = (batch: PacketBatch) => void this.log.push(`tunWrite ${batch.count}`)
  sealing: DataPathTap['sealing'] = (_, entry) => void this.log.push(`sealing ${entry}`)
  sealed: DataPathTap['sealed'] = (runs) => void this.log.push(`sealed ${runs.count > 0}`)
  clear: DataPathTap['clear'] = (runs) => void this.log.push(`clear ${runs.used}`)
  opened: DataPathTap['opened'] = (datagrams, open) => void this.log.push(`opened ${datagrams.count} ${open.count}`)
  settle = () => undefined
}

const bytes = (length: number, seed = 1) => Uint8Array.from({ length }, (_, i) => (i * 31 + seed * 17 + (i >> 8)) & 255)
const plain = (length: number, gsoSize = 0, seed = 1): Plain => ({ payload: bytes(length, seed), gsoSize })
const all = (frames: readonly Frame[]) => Buffer.concat(frames.map((frame) => frame.bytes))

/** Two ends with the same keys, the first one watched or not. */
function ends(tapped: boolean): { a: End; b: End; watcher: Watcher } {
  const [a, b, watcher] = [new End(), new End(), new Watcher()]
  if (tapped) a.path.tap = b.path.tap = watcher
  return { a, b, watcher }
}

for (const tapped of [false, true]) {
  const how = tapped ? ', while a dump is open' : ''

  test(`what one end seals the other opens${how}`, async (t) => {
    const { a, b } = ends(tapped)
    const sent = [plain(100), plain(60_000, 1_300, 2), plain(0, 0, 3), plain(1_000, 0, 4)]
    a.send(...sent)
    t.ok(a.runs.every(({ to, trafficClass }) => to === a.peers.addressSlot[a.peer] && trafficClass === 0x20))
    b.receive(a.runs)
    t.strictSame(Buffer.from(b.payload), Buffer.concat(sent.map(({ payload }) => payload)))
    t.equal(a.path.bytesOut, all(a.runs).length)
    t.equal(b.path.bytesIn, a.path.bytesOut)
    t.equal(b.path.datagramsIn, a.runs.length)
    t.equal(a.path.framesOut, 3 + Math.ceil(60_000 / 1_300))
  })

  test(`more frames than the runs hold go out in several sends${how}`, async (t) => {
    const { a, b } = ends(tapped)
    // Small segments: the headers make more of it than fits.
    const sent = Array.from({ length: 8 }, (_, i) => plain(60_000, 40, i))
    a.send(...sent)
    t.ok(a.sends > 1)
    t.ok(all(a.runs).length > 1024 * 1024)
    t.equal(a.path.framesOut, 8 * 1_500)
    b.receive(a.runs)
    t.equal(b.payload.length, 8 * 60_000)
    t.strictSame(Buffer.from(b.payload), Buffer.concat(sent.map(({ payload }) => payload)))
  })

  test(`one entry that is more than the runs hold${how}`, async (t) => {
    const { a, b } = ends(tapped)
    a.send(plain(500_000, 40))
    t.ok(a.sends > 1)
    b.receive(a.runs)
    t.strictSame(Buffer.from(b.payload), Buffer.from(bytes(500_000)))
  })

  test(`own frames: copied, many at once, before the rest${how}`, async (t) => {
    const { a, b } = ends(tapped)
    const one = new Uint8Array(INNER_HEADER + 600)
    for (let i = 0; i < 1_500; i++) {
      one.fill(i & 255, INNER_HEADER)
      if (!a.path.frameTo(a.peer, 0, one, 0xc0)) t.fail('not taken')
    }
    one.fill(0)
    t.ok(a.sends > 0, 'what does not fit any more is sent')
    a.path.flush(0)
    t.equal(a.path.framesOut, 1_500)
    t.ok(a.runs.every(({ trafficClass }) => trafficClass === 0xc0))
    b.receive(a.runs)
    t.strictSame(
      b.opened.map(({ status, bytes: plaintext }) => [status, plaintext.length, plaintext.at(-1)]),
      Array.from({ length: 1_500 }, (_, i) => [OPENED, one.length, i & 255]),
    )
  })

  test(`own packets: copied, many at once, aligned${how}`, async (t) => {
    const { a } = ends(tapped)
    const packet = new Uint8Array(VNET_HEADER + 901)
    for (let i = 0; i < 1_500; i++) {
      packet.fill(i & 255, VNET_HEADER)
      a.path.packet(packet)
    }
    packet.fill(0)
    t.ok(a.written.length > 0)
    a.path.flush(0)
    t.strictSame(
      a.written.map((one) => [one.length, one.at(-1)]),
      Array.from({ length: 1_500 }, (_, i) => [packet.length, i & 255]),
    )
    a.path.flush(0)
    t.equal(a.written.length, 1_500, 'once')
  })

  test(`packets made while frames are decided upon go to the kernel first${how}`, async (t) => {
    const { a, b } = ends(tapped)
    b.inbound = (tunOut) => {
      b.path.packet(new Uint8Array(VNET_HEADER + 2))
      tunOut.desc.set([HEADERS, 40], 0)
      tunOut.count = 1
    }
    a.send(plain(100))
    b.receive(a.runs)
    t.strictSame(
      b.written.map(({ length }) => length),
      [VNET_HEADER + 2, 40],
    )
  })

  test(`datagrams of several senders keep their addresses${how}`, async (t) => {
    const { a, b } = ends(tapped)
    const single = Array.from({ length: 8 }, (_, i) => ({
      bytes: Uint8Array.of(FrameType.init, 1, i, 0),
      stride: 4,
      to: 0,
      trafficClass: 0,
    }))
    a.send(plain(3_000, 1_000))
    b.receive([single[0]!, a.runs[0]!, single[1]!, ...single.slice(2, 7)], 20)
    const froms = new Map(
      b.opened.map(({ status, from, bytes: [, , third] }) => [status === CLEAR ? third : 'data', from]),
    )
    t.strictSame(
      [...froms],
      [
        [0, 20],
        ['data', 21],
        [1, 22],
        [2, 23],
        [3, 24],
        [4, 25],
        [5, 26],
        [6, 27],
      ],
    )
  })

  test(`an empty datagram is one that is too short${how}`, async (t) => {
    const { b } = ends(tapped)
    b.receive([{ bytes: new Uint8Array(0), stride: 0, to: 0, trafficClass: 0 }])
    t.equal(b.opened.length, 1)
    t.ok(b.opened[0]!.status < 0)
  })

  test(`a peer without a session, or without a path, gets nothing${how}`, async (t) => {
    const { a } = ends(tapped)
    t.notOk(a.path.frameTo(a.peer, -1, new Uint8Array(INNER_HEADER), 0))
    a.peers.sealSlot[a.peer] = -1
    t.notOk(a.path.frameTo(a.peer, 0, new Uint8Array(INNER_HEADER), 0))
    a.codec.removeSeal(SLOT)
    a.send(plain(100), plain(200))
    a.path.flush(0)
    t.equal(a.sends, 0)
  })

  test(`a datagram in the clear goes out as it is${how}`, async (t) => {
    const { a } = ends(tapped)
    a.path.clear(Uint8Array.of(1, 2, 3), 5)
    t.match(a.runs, [{ bytes: Uint8Array.of(1, 2, 3), stride: 3, to: 5, trafficClass: 0 }])
    t.equal(a.path.framesOut, 1)
  })
}

test('a dump changes no byte of what is sent', async (t) => {
  const [open, watched] = [ends(false).a, ends(true).a]
  const sent = [plain(100), plain(60_000, 1_300, 2), plain(20_000, 40, 3), plain(1_000, 0, 4)]
  for (const end of [open, watched]) end.send(...sent)
  t.ok(all(open.runs).equals(all(watched.runs)))
  t.equal(open.path.framesOut, watched.path.framesOut)
  t.equal(open.path.bytesOut, watched.path.bytesOut)
})

test('what is decided first leaves first, whichever way it takes', (t) => {
  const end = new End()
  const entries = end.fromTun
  const lengths = [100, 70, 200, 30]
  const overhead = 16 + 16
  const single = (length: number) =>
    end.path.frameTo(end.peer, end.peers.addressSlot[end.peer]!, new Uint8Array(length), 0)
  const plain = (length: number): Plain => ({ payload: new Uint8Array(length - HEADERS), gsoSize: 0 })
  end.fromTun = (batch, seal, now) => {
    end.outbound = [plain(lengths[0]!)]
    entries(batch, seal, now)
    single(lengths[1]!)
    end.outbound = [plain(lengths[2]!)]
    entries(batch, seal, now)
    single(lengths[3]!)
  }
  end.path.tunRead(1)
  t.same(
    end.runs.map(({ bytes }) => bytes.length),
    lengths.map((length) => length + overhead),
  )
  t.same([end.path.framesOut, end.path.singleFramesOut], [4, 2])

  const other = new End()
  const packet = (n: number) => new Uint8Array(VNET_HEADER + 20).fill(n)
  other.inbound = (tunOut) => {
    const entry = (n: number) => {
      const offset = 100 * n
      tunOut.data.set(packet(n), offset)
      tunOut.desc.set([offset, packet(n).length], tunOut.count++ * PACKET_WORDS)
    }
    entry(1)
    entry(2)
    other.path.packet(packet(3))
    entry(4)
    other.path.packet(packet(5))
  }
  const [run] = end.runs
  other.path.wireIn.data.set(run!.bytes)
  other.path.wireIn.desc.set([0, run!.bytes.length, 0, 0])
  other.path.wireIn.count = 1
  other.path.wireRead(1)
  t.same(
    other.written.map((bytes) => bytes[0]),
    [1, 2, 3, 4, 5],
  )
  t.equal(other.path.tunPacketsOut, 5)
  t.end()
})

test('a batch that could not be decided upon is not sent later', (t) => {
  const end = new End()
  const entries = end.fromTun
  end.fromTun = (batch, seal, now) => {
    end.outbound = [{ payload: new Uint8Array(50), gsoSize: 0 }]
    entries(batch, seal, now)
    throw new Error('a fault')
  }
  t.throws(() => end.path.tunRead(1), /a fault/)
  t.strictSame(end.losses, [['fault', 1]])
  end.path.frameTo(end.peer, end.peers.addressSlot[end.peer]!, new Uint8Array(30), 0)
  end.path.flush(2)
  t.same(
    end.runs.map(({ bytes }) => bytes.length),
    [30 + 16 + 16],
  )
  t.end()
})

test('what was thrown over a packet is thrown on when the others have left', (t) => {
  const end = new End()
  const entries = end.fromTun
  end.fromTun = (batch, seal, now) => {
    entries(batch, seal, now)
    end.path.fault(new Error('the first fault'))
    end.path.fault(new Error('another one'))
  }
  t.throws(() => end.send(plain(50), plain(60)), /the first fault/)
  t.equal(end.runs.length, 2)
  t.strictSame(end.losses, [])
  end.fromTun = entries
  t.doesNotThrow(() => end.send(plain(50)))
  t.end()
})

test('what there is no key for any more, and what cannot be sealed, is counted', (t) => {
  for (const watched of [false, true]) {
    const { a } = ends(watched)
    a.codec.removeSeal(SLOT)
    a.send(plain(100), plain(3_000, 1_000))
    t.strictSame(a.runs, [])
    t.equal(
      a.losses.reduce((sum, [, n]) => sum + n, 0),
      2,
    )
    t.ok(a.losses.every(([reason]) => reason === 'no-session'))
  }
  const end = new End()
  end.codec.seal = () => {
    throw new Error('a fault')
  }
  t.throws(() => end.send(plain(100), plain(100)), /a fault/)
  t.strictSame(end.losses, [['fault', 2]])
  t.end()
})

test('a dump sees each thing once, in order', async (t) => {
  const { a, b, watcher } = ends(true)
  a.send(plain(100), plain(3_000, 1_000))
  a.path.clear(new Uint8Array(20), 0)
  t.strictSame(watcher.log, ['tunRead 1', 'sealing 0', 'sealed true', 'sealing 1', 'sealed true', 'clear 20'])
  watcher.log.length = 0
  b.inbound = (tunOut) => {
    tunOut.count = 1
  }
  b.receive(a.runs)
  const frame = ['opened 1 1', 'tunWrite 1']
  t.strictSame(
    watcher.log,
    [1, 2, 3, 4, 5].flatMap(() => frame),
    'frame by frame, also those that came together',
  )
})
