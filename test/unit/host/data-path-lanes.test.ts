// Batches of a lane above the first: what is the lane's to seal, what leaves by the first lane, and in which order.
import { test } from 'tap'
import { PortableCodec, portableAeads } from '../../../lib/crypto/portable-codec.js'
import { DataPath, type DataPathDecisions } from '../../../lib/host/data-path.js'
import { laneInward, laneOutward } from '../../../lib/host/lane-buffers.js'
import { PeerTable } from '../../../lib/path/peers.js'
import { encodeLocator } from '../../../lib/path/locator.js'
import { DATAGRAM_WORDS, OPENED, Open, PACKET_WORDS, RUN_WORDS, Seal, SEAL_WORDS } from '../../../lib/wire/batch.js'
import { CLEAR_HEADER, INNER_HEADER, Kind, TAG_LENGTH } from '../../../lib/wire/constants.js'
import { hostId } from '../../../lib/wire/ids.js'
import { writeInnerHeader } from '../../../lib/wire/inner.js'
import { sodium as primitives } from '../../tools/sodium.js'

const FIRST_SLOT = 5
const LANE_SLOT = 6
const KEY = new Uint8Array(32).fill(1)
const LANE = 2

function frame(text: string): Uint8Array {
  const bytes = new Uint8Array(INNER_HEADER + text.length)
  writeInnerHeader(new DataView(bytes.buffer), 0, 7, 9, Kind.control, 0, 64, 0)
  bytes.set(new TextEncoder().encode(text), INNER_HEADER)
  return bytes
}

function setUp() {
  const peers = new PeerTable(hostId('00'.repeat(32)), 8, 3)
  const peer = peers.add(hostId('01'.repeat(32)))
  const codecs = Array.from({ length: 3 }, () => new PortableCodec(portableAeads(primitives)))
  codecs[0]!.installSeal(FIRST_SLOT, 'chacha20-poly1305', KEY, 100)
  codecs[LANE]!.installSeal(LANE_SLOT, 'chacha20-poly1305', KEY, 102)
  const place = (port: number) => peers.addresses.acquire(encodeLocator({ address: '192.0.2.9', port }))
  peers.sealSlot[peer] = FIRST_SLOT
  peers.setPath(peer, place(7474))
  peers.laneSealSlot[peers.laneAt(peer, LANE)] = LANE_SLOT
  const laneAddress = place(7476)
  const sent: { lane: number; to: number; length: number }[] = []
  const written: string[] = []
  const losses: [string, number][] = []
  const lost = (reason: string, n: number) => {
    if (n > 0) losses.push([reason, n])
  }
  const decisions: DataPathDecisions = { fromTun: () => undefined, fromPeers: () => undefined, lost }
  const path = new DataPath({
    codec: codecs[0]!,
    laneCodecs: codecs.slice(1),
    peers,
    decisions: {
      fromTun: (...given) => decisions.fromTun(...given),
      fromPeers: (...given) => decisions.fromPeers(...given),
      lost,
    },
    io: {
      writeTun: ({ data, desc, count }) => {
        for (let i = 0; i < count; i++) {
          const [offset, length] = desc.subarray(i * PACKET_WORDS)
          written.push(new TextDecoder().decode(data.slice(offset, offset! + length!)))
        }
      },
      sendFrames: ({ desc, count }, _, lane) => {
        for (let i = 0; i < count; i++) {
          const [, length, , to] = desc.subarray(i * RUN_WORDS)
          sent.push({ lane, to: to!, length: length! })
        }
      },
    },
  })
  const prove = () => (peers.laneAddressSlot[peers.laneAt(peer, LANE)] = laneAddress)
  return { peers, peer, codecs, path, decisions, losses, sent, written, laneAddress, prove }
}

const wireLength = (text: string) => CLEAR_HEADER + INNER_HEADER + text.length + TAG_LENGTH

test('what a batch makes stands in it in the order of the decisions', (t) => {
  const { peers, peer, path, decisions, sent, laneAddress, prove } = setUp()
  prove()
  const outward = laneOutward()
  outward.tunIn.used = 1000
  decisions.fromTun = (batch, seal) => {
    t.equal(seal.lane, LANE)
    path.flowFrameTo(peer, frame('one'), 0)
    const at = seal.count++ * SEAL_WORDS
    seal.desc.set([2, 40, 40, 0, 0, LANE_SLOT, laneAddress, 0], at)
    path.flowFrameTo(peer, frame('three, longer'), 8)
    t.equal(batch.data, seal.data)
  }
  path.decideOutward(LANE, outward, 1)
  const { seal } = outward
  t.strictSame(sent, [], 'all of it is the lane to send')
  t.equal(seal.count, 3)
  const lengths = [0, 1, 2].map((i) => seal.desc[i * SEAL_WORDS + Seal.length])
  t.strictSame(lengths, [INNER_HEADER + 3, 40, INNER_HEADER + 13])
  for (let i = 0; i < 3; i++) t.equal(seal.desc[i * SEAL_WORDS + Seal.addressSlot], laneAddress)
  t.ok(seal.desc[Seal.offset]! >= 1000, 'behind what was read')
  t.equal(peers.laneUsed[peers.laneAt(peer, LANE)], 1)
  t.end()
})

test('by a lane that is not proven nothing goes, by the first lane all in its order', (t) => {
  const { peers, peer, path, decisions, sent } = setUp()
  const outward = laneOutward()
  decisions.fromTun = () => {
    path.flowFrameTo(peer, frame('one'), 0)
    path.flowFrameTo(peer, frame('number two'), 0)
  }
  path.decideOutward(LANE, outward, 1)
  const to = peers.addressSlot[peer]!
  t.strictSame(sent, [
    { lane: 0, to, length: wireLength('one') },
    { lane: 0, to, length: wireLength('number two') },
  ])
  t.equal(peers.laneUsed[peers.laneAt(peer, LANE)], 0)
  t.end()
})

test('a batch that throws leaves nothing behind, and the next one is decided upon', (t) => {
  const { peer, path, decisions, losses, prove } = setUp()
  prove()
  const outward = laneOutward()
  decisions.fromTun = () => {
    path.flowFrameTo(peer, frame('one'), 0)
    throw new Error('half decided')
  }
  t.throws(() => path.decideOutward(LANE, outward, 1), /half decided/)
  t.equal(outward.seal.count, 0)
  t.strictSame(losses, [['fault', 1]])
  decisions.fromTun = () => void path.flowFrameTo(peer, frame('two'), 0)
  path.decideOutward(LANE, outward, 1)
  t.equal(outward.seal.count, 1)
  t.end()
})

test('what a batch has no key for any more is counted once, by the lane whose it is', (t) => {
  const { peers, peer, codecs, path, decisions, losses, sent, prove } = setUp()
  const outward = laneOutward()
  decisions.fromTun = () => {
    path.flowFrameTo(peer, frame('by the first'), 0)
    prove()
    path.flowFrameTo(peer, frame('by the lane'), 0)
    path.flowFrameTo(peer, frame('by the lane too'), 0)
  }
  path.decideOutward(LANE, outward, 1)
  t.equal(sent.length, 1)
  t.strictSame(losses, [], 'the entries of the lane are no loss of the first')

  peers.laneAddressSlot[peers.laneAt(peer, LANE)] = -1
  codecs[0]!.removeSeal(FIRST_SLOT)
  path.decideOutward(LANE, outward, 2)
  t.strictSame(losses, [['no-session', 1]])
  t.end()
})

test('more frames than a batch has room for go by the first lane', (t) => {
  const { peer, path, decisions, sent, prove } = setUp()
  prove()
  const outward = laneOutward()
  const entries = outward.seal.desc.length / SEAL_WORDS
  decisions.fromTun = () => {
    for (let i = 0; i < entries + 10; i++) path.flowFrameTo(peer, frame('x'), 0)
  }
  path.decideOutward(LANE, outward, 1)
  t.equal(outward.seal.count, entries)
  t.ok(sent.length > 0 && sent.every(({ lane }) => lane === 0))
  t.end()
})

test('packets made while a batch from the wire is decided upon stand in it, in order', (t) => {
  const { path, decisions, written } = setUp()
  const inward = laneInward()
  inward.wireIn.count = 1
  inward.wireIn.desc.set([0, 90, 0, 0], 0 * DATAGRAM_WORDS)
  inward.open.count = 1
  inward.open.used = 640
  inward.open.desc[Open.status] = OPENED
  const made = new TextEncoder().encode('made here')
  decisions.fromPeers = (_open, _datagrams, out) => {
    out.desc.set([100, 50], out.count++ * PACKET_WORDS)
    path.packet(made)
    out.desc.set([200, 60], out.count++ * PACKET_WORDS)
  }
  path.decideInward(inward, 1)
  const { tunOut } = inward
  t.strictSame(written, [])
  t.equal(tunOut.count, 3)
  const [offset, length] = tunOut.desc.subarray(PACKET_WORDS)
  t.ok(offset! >= 640)
  t.strictSame(tunOut.data.slice(offset, offset! + length!), made)
  t.equal(path.datagramsIn, 1)
  t.equal(path.bytesIn, 90)
  path.packet(made)
  path.flush(2)
  t.strictSame(written, ['made here'], 'outside of a batch they are written here')
  t.end()
})

test('a probe of a lane is sealed and sent at once from the socket of the lane', (t) => {
  const { peer, path, sent, laneAddress } = setUp()
  t.ok(path.laneFrame(peer, LANE, laneAddress, frame('probe'), 0))
  t.strictSame(sent, [{ lane: LANE, to: laneAddress, length: wireLength('probe') }])
  t.notOk(path.laneFrame(peer, 1, laneAddress, frame('probe'), 0), 'a lane that the session does not have')
  t.notOk(path.laneFrame(peer, 7, laneAddress, frame('probe'), 0), 'a lane that this host does not have')
  t.end()
})
