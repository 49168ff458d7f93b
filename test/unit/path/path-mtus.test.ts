import { test } from 'tap'
import { PathMtus } from '../../../lib/path/path-mtus.js'
import { PeerTable } from '../../../lib/path/peers.js'
import { hostId } from '../../../lib/wire/ids.js'
import { ADDRESS_RECORD } from '../../../lib/wire/batch.js'

const PEER = 1
/** Plaintext of an acknowledgement, and of a full segment. */
const SMALL = 64
const FULL = 1_400

/** One peer, whose path carries 1,500 bytes and answers at once unless it is told not to. */
class Scene {
  now = 1_000
  silent = false
  readonly sent: number[] = []
  /** Whether each said that frames to the peer go that way. */
  readonly preferred: boolean[] = []
  readonly peers = new PeerTable(hostId(new Uint8Array(32).fill(9)), 4)
  readonly mtus: PathMtus
  #tokens = 0

  constructor() {
    this.peers.add(hostId(new Uint8Array(32).fill(PEER)))
    const record = new Uint8Array(ADDRESS_RECORD)
    record[0] = 4
    this.mtus = new PathMtus({
      peers: this.peers,
      randomBytes: (length) => new Uint8Array(length).fill(++this.#tokens),
      linkMtu: () => 1_500,
      sendProbe: (peer, _slot, token, room, inUse) => {
        this.sent.push(room)
        this.preferred.push(inUse)
        if (!this.silent) queue.push(() => this.mtus.echoed(peer, token, this.now))
      },
    })
    const queue: (() => void)[] = []
    this.#queue = queue
    this.peers.setPath(PEER, this.peers.addresses.acquire(record))
    this.mtus.use(PEER, this.now)
  }
  readonly #queue: (() => void)[]

  /** Frames with so long a plaintext go to the peer every ms. Returns how many probes there were. */
  run(ms: number, longest: number): number {
    const before = this.sent.length
    for (let i = 0; i < ms; i++, this.now++) {
      this.mtus.used(PEER, this.now, longest)
      this.mtus.handleTimeout(this.now)
      for (const answer of this.#queue.splice(0)) answer()
    }
    return this.sent.length - before
  }
}

test('what a new path carries is found out whatever goes by it', (t) => {
  const scene = new Scene()
  scene.run(100, SMALL)
  t.equal(scene.sent.length, 2, 'one probe of the largest size, and its control')
  t.equal(scene.mtus.of(PEER, scene.peers.pathSlot[PEER]!)?.phase, 'complete')
  t.end()
})

test('frames that any path carries are no reason to confirm how much it carries', (t) => {
  const scene = new Scene()
  scene.run(100, SMALL)
  t.equal(scene.run(20_000, SMALL), 0)
  t.equal(scene.run(100, FULL), 2, 'the size in use, and its control, with the first large frame')
  const large = scene.run(9_000, FULL)
  t.equal(large, 6, 'and then every three seconds')
  scene.run(3_000, SMALL)
  t.equal(scene.run(30_000, SMALL), 0)
  t.end()
})

test('a path that turned out not to carry what it did is measured with small frames too', (t) => {
  const scene = new Scene()
  scene.run(100, SMALL)
  scene.mtus.linksChanged(scene.now)
  t.equal(scene.run(1_000, SMALL), 0, 'as long as there is no reason to doubt')
  scene.silent = true
  scene.mtus.hint(PEER, scene.now, true)
  t.ok(scene.sent.length > 0)
  const before = scene.sent.length
  scene.run(60_000, SMALL)
  scene.silent = false
  scene.run(60_000, FULL)
  t.ok(scene.sent.length > before)
  t.equal(scene.mtus.of(PEER, scene.peers.pathSlot[PEER]!)?.mtu, 1_500)
  t.end()
})

/** Address slot of one more path to the peer, held as long as that is there. */
function another(scene: Scene, host: number): number {
  const record = new Uint8Array(ADDRESS_RECORD)
  record[0] = 4
  record[8] = host
  return scene.peers.addresses.acquire(record)
}

test('a path beside the one in use is measured, by probes that say so, and used as it was measured', (t) => {
  const scene = new Scene()
  scene.run(100, SMALL)
  const first = scene.peers.pathSlot[PEER]!
  const other = another(scene, 2)
  t.equal(scene.mtus.of(PEER, other), undefined)
  scene.preferred.length = 0
  scene.mtus.beside(PEER, other, true, scene.now)
  scene.run(1, SMALL)
  t.strictSame(scene.preferred, [false, false], 'the peer is not to follow')
  t.match(scene.mtus.of(PEER, other), { mtu: 1_500 })
  t.equal(scene.mtus.nextTimeout(), Infinity)
  scene.silent = true
  scene.peers.setPath(PEER, other)
  scene.mtus.use(PEER, scene.now)
  t.equal(scene.peers.pathMtu[PEER], 1_500, 'at once')
  scene.peers.setPath(PEER, another(scene, 3))
  scene.mtus.use(PEER, scene.now)
  t.strictSame([scene.peers.pathMtu[PEER], scene.peers.pathMtuTaken[PEER]], [1_280, 1_500], 'not so one that is new')
  scene.peers.setPath(PEER, first)
  scene.mtus.use(PEER, scene.now)
  t.equal(scene.peers.pathMtu[PEER], 1_500, 'nor forgotten what was in use')
  t.end()
})

test('before a path is proven few probes go by it, and nothing is kept of one that is gone, or of too many', (t) => {
  const scene = new Scene()
  scene.run(100, SMALL)
  scene.silent = true
  const slots = Array.from({ length: 10 }, (_, i) => another(scene, i + 2))
  for (const slot of slots) {
    const before = scene.sent.length
    for (let i = 0; i < 10; i++) scene.mtus.beside(PEER, slot, false, scene.now++)
    t.equal(scene.sent.length - before, 4, 'two probes and their controls')
  }
  for (const slot of slots) scene.mtus.gone(PEER, slot)
  for (const slot of slots) scene.peers.addresses.release(slot)
  t.equal(scene.mtus.of(PEER, scene.peers.pathSlot[PEER]!)?.mtu, 1_500, 'that in use stays')
  scene.mtus.forget(PEER)
  const rest = scene.peers.addresses.capacity - 1
  const again = new Set(Array.from({ length: rest }, (_, i) => another(scene, i + 100)))
  t.equal(again.size, rest)
  t.notOk(again.has(-1), 'all address slots are free again')
  t.end()
})

test('a path that is known by another address slot keeps what was measured', (t) => {
  const scene = new Scene()
  scene.run(100, SMALL)
  const from = scene.peers.pathSlot[PEER]!
  const to = another(scene, 2)
  scene.silent = true
  scene.peers.setPath(PEER, to)
  scene.mtus.renamed(PEER, from, to)
  scene.mtus.use(PEER, scene.now)
  t.equal(scene.peers.pathMtu[PEER], 1_500)
  t.equal(scene.mtus.of(PEER, from), undefined)
  t.end()
})
