import { test, type Test } from 'tap'
import { PortableCodec, portableAeads } from '../../../lib/crypto/portable-codec.js'
import { Replay } from '../../../lib/host/replay.js'
import { PeerTable } from '../../../lib/path/peers.js'
import { frameRuns, Run, RUN_WORDS } from '../../../lib/wire/batch.js'
import { hostId } from '../../../lib/wire/ids.js'
import { RECENT_BYTES, RECENT_RING, RECENT_ROWS, RECENT_RUN_MAX } from '../../../lib/wire/recent-ring.js'
import { sodium as primitives } from '../../tools/sodium.js'

const RUN_SPACE = 65_536
const SLOT = 3
const [OLD, NEW, NEWEST] = [1, 2, 4]

/** One peer whose frames go to the address OLD, and what is sent of it again. */
class Rig {
  readonly peers = new PeerTable(hostId('00'.repeat(32)), 4)
  readonly peer = this.peers.add(hostId('01'.repeat(32)))
  readonly codec = new PortableCodec(portableAeads(primitives))
  readonly memory = new Uint8Array(RUN_SPACE + RECENT_RING)
  readonly replay = new Replay(this.memory, this.peers, this.codec)
  readonly #runs = frameRuns(0, 1, this.memory)
  readonly again: { readonly mark: number; readonly length: number; readonly stride: number; readonly to: number }[] =
    []

  constructor() {
    this.peers.sealPeer[SLOT] = this.peer
    this.peers.sealSlot[this.peer] = SLOT
    this.to(OLD, 0)
  }

  /** A run of one key and one address goes out; `mark` is its first byte after the clear header. */
  send(mark: number, now: number, length = 100, addressSlot = OLD, sealSlot = SLOT, counter = mark): void {
    this.memory.fill(0, 0, length)
    new DataView(this.memory.buffer).setUint32(8, counter, true)
    new DataView(this.memory.buffer).setUint32(16, mark, true)
    this.#runs.desc.set([0, length, Math.min(length, 1_000), addressSlot, 0, sealSlot])
    this.#runs.count = 1
    this.replay.sent(this.#runs, now)
  }

  to(addressSlot: number, now: number, again = true, reachedAt = Infinity, openSince = Infinity): void {
    this.peers.setPath(this.peer, addressSlot)
    this.replay.moved(this.peer, now, again, reachedAt, openSince)
  }

  /** Marks of what is sent again now. */
  flush(now: number): number[] {
    this.again.length = 0
    this.replay.flush(now, ({ data, desc, count }) => {
      for (let i = 0; i < count; i++) {
        const base = i * RUN_WORDS
        const at = desc[base + Run.offset]!
        this.again.push({
          mark: new DataView(data.buffer).getUint32(at + 16, true),
          length: desc[base + Run.length]!,
          stride: desc[base + Run.stride]!,
          to: desc[base + Run.addressSlot]!,
        })
      }
    })
    return this.again.map(({ mark }) => mark)
  }
}

const check = (name: string, work: (t: Test, rig: Rig) => void) =>
  test(name, (t) => {
    work(t, new Rig())
    t.end()
  })

check('what was sent since the old way last gave a sign is sent again, in order, to the new one', (t, rig) => {
  rig.send(1, 10)
  rig.send(2, 90)
  rig.send(3, 150, 2_500)
  rig.peers.heardAt[rig.peer] = 120
  rig.peers.rttMs[rig.peer] = 20
  rig.to(NEW, 200)
  t.ok(rig.replay.due)
  t.strictSame(rig.flush(200), [2, 3], 'a round trip and a little before the last sign')
  t.strictSame(rig.again[1], { mark: 3, length: 2_500, stride: 1_000, to: NEW })
  t.equal(rig.replay.framesAgain, 4)
  t.notOk(rig.replay.due)
  t.strictSame(rig.flush(201), [], 'once')
})

check(
  'what was sent since anything is known to have arrived is sent again although the peer is heard, from a way that is dead in one direction',
  (t, rig) => {
    for (let i = 0; i < 10; i++) rig.send(i + 1, 100 + 20 * i)
    rig.peers.heardAt[rig.peer] = 290
    rig.to(NEW, 300, true, 195)
    t.strictSame(rig.flush(300), [6, 7, 8, 9, 10])
  },
)

check('what went by the new way, for another peer or in the clear stays', (t, rig) => {
  rig.peers.heardAt[rig.peer] = 0
  rig.send(1, 10, 100, NEW)
  rig.send(2, 10, 100, OLD, SLOT + 1)
  rig.send(3, 10, 100, OLD, -1)
  rig.send(4, 10)
  rig.to(NEW, 20)
  t.strictSame(rig.flush(20), [4])
})

check('a way that is as good as ever, and one of a forgotten peer, cost nothing', (t, rig) => {
  rig.send(1, 10)
  rig.to(NEW, 20, false)
  t.notOk(rig.replay.due)
  rig.send(2, 30, 100, NEW)
  rig.replay.forget(rig.peer)
  rig.to(NEWEST, 40)
  t.strictSame(rig.flush(40), [])
})

check('what is older than a second, or than the receiver remembers, stays', (t, rig) => {
  rig.send(1, 1_000)
  rig.send(2, 2_500)
  rig.to(NEW, 2_600)
  t.strictSame(rig.flush(2_600), [2])
  rig.codec.sealed = () => 20_000
  rig.send(3, 2_700, 100, NEW, SLOT, 11_000)
  rig.send(4, 2_700, 100, NEW, SLOT, 19_000)
  rig.to(NEWEST, 2_800)
  t.strictSame(rig.flush(2_800), [4])
})

check('what was sent again in vain is sent again once more', (t, rig) => {
  rig.send(1, 10)
  rig.to(NEW, 100)
  t.strictSame(rig.flush(100), [1])
  rig.to(NEWEST, 300)
  t.strictSame(rig.flush(300), [1])
  t.equal(rig.again[0]?.to, NEWEST)
})

check('bulk is not kept', (t, rig) => {
  rig.send(1, 10, RECENT_RUN_MAX + 1)
  rig.send(2, 10, RECENT_RUN_MAX)
  rig.to(NEW, 20)
  t.strictSame(rig.flush(20), [2])
})

check('the ring holds so many bytes: the oldest go first, and that is counted', (t, rig) => {
  const length = 3_000
  const room = Math.floor(RECENT_BYTES / length)
  for (let i = 0; i < 3 * room; i++) rig.send(i, 10 + i / 1_000, length)
  rig.to(NEW, 20)
  const marks = rig.flush(20)
  t.ok(marks.length >= room - 1 && marks.length <= room, `${marks.length} of ${room}`)
  t.equal(marks.at(-1), 3 * room - 1)
  t.ok(
    marks.every((mark, i) => i === 0 || mark === marks[i - 1]! + 1),
    'whole and in order',
  )
  t.equal(rig.replay.overrun, 1)
})

check('the ring holds so many runs', (t, rig) => {
  for (let i = 0; i < RECENT_ROWS + 5; i++) rig.send(i, 10, 40)
  rig.to(NEW, 20)
  const marks = rig.flush(20)
  t.equal(marks.length, RECENT_ROWS)
  t.equal(marks[0], 5)
})

test('copies go to where the peer seems to be, each once, as many as may', async (t) => {
  const rig = new Rig()
  for (let i = 1; i <= 6; i++) rig.send(i, 100 + i)
  const copies = (bytes: number, to = NEW): readonly [number[], boolean] => {
    const marks: number[] = []
    const all = rig.replay.copy(rig.peer, to, bytes, 120, ({ data, desc, count }) => {
      for (let i = 0; i < count; i++)
        marks.push(new DataView(data.buffer).getUint32(desc[i * RUN_WORDS + Run.offset]! + 16, true))
    })
    return [marks, all]
  }
  rig.peers.heardAt[rig.peer] = 113
  t.strictSame(copies(250), [[3, 4], false], 'those after the last sign of the peer')
  t.strictSame(copies(99), [[], false])
  t.strictSame(copies(1_000), [[5, 6], true])
  t.strictSame(copies(1_000), [[], true])
  rig.send(7, 121, 100, NEW)
  t.strictSame(copies(1_000), [[], true], 'not what goes there by itself')
  t.strictSame(copies(1_000, NEWEST), [[3, 4, 5, 6], true])
  rig.to(NEW, 130)
  t.strictSame(rig.flush(130), [3, 4, 5, 6], 'where it really is they have not been')
})

test('copies are not sent once more to where the peer turned out to be', async (t) => {
  const moved = (openSince: number) => {
    const rig = new Rig()
    for (let i = 1; i <= 6; i++) rig.send(i, 100 + i)
    rig.peers.heardAt[rig.peer] = 113
    rig.replay.copy(rig.peer, NEW, 250, 120, () => undefined)
    rig.to(NEW, 130, true, 101.5, openSince)
    return rig
  }
  const rig = moved(120)
  t.strictSame(rig.flush(130), [2, 5, 6], 'but what was not copied is')
  t.strictSame(moved(121).flush(130), [2, 3, 4, 5, 6], 'and all when nobody knows that the way carried them')
  rig.to(NEWEST, 200)
  t.strictSame(rig.flush(200), [2, 3, 4, 5, 6], 'and all when it went there in vain')
})

test('what went to a peer whose frames have waited for long is as good as when that began', async (t) => {
  const rig = new Rig()
  rig.peers.heardAt[rig.peer] = 0
  rig.send(1, 100)
  rig.replay.held(rig.peer, 600)
  rig.replay.held(rig.peer, 900)
  rig.to(NEW, 1_500)
  t.strictSame(rig.flush(1_500), [1])
  rig.send(2, 1_600, 100, NEW)
  rig.to(OLD, 2_700)
  t.strictSame(rig.flush(2_700), [], 'others are too old')
})

test('what went ahead to where the peer was not goes again, to where it is', async (t) => {
  const rig = new Rig()
  const ahead = (now: number) => rig.replay.copy(rig.peer, NEW, 1_000, now, () => undefined)
  rig.peers.heardAt[rig.peer] = 100
  ahead(110)
  rig.send(1, 111, 100, NEW)
  rig.send(2, 111, 100, NEW)
  rig.peers.heardAt[rig.peer] = 150
  rig.replay.stayed(rig.peer)
  t.strictSame(rig.flush(150), [1, 2], 'where it was all the time')
  t.ok(rig.again.every(({ to }) => to === OLD))
  rig.replay.stayed(rig.peer)
  t.notOk(rig.replay.due, 'once')
  ahead(160)
  rig.send(3, 161, 100, NEW)
  rig.to(NEWEST, 170)
  t.strictSame(rig.flush(170).slice(-1), [3], 'or elsewhere')
  ahead(180)
  rig.send(4, 181, 100, NEW)
  rig.to(NEW, 190)
  t.notOk(rig.flush(190).includes(4), 'but not when it was right')
})
