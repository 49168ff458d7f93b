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
      sendProbe: (peer, _slot, token, room) => {
        this.sent.push(room)
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
  t.ok(scene.run(100, SMALL) > 0)
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
