import { test } from 'tap'
import { LanePaths } from '../../../lib/path/lane-paths.js'
import { decodeLocator, encodeLocator, formatLocator } from '../../../lib/path/locator.js'
import { PeerTable } from '../../../lib/path/peers.js'
import { hostId } from '../../../lib/wire/ids.js'

const PEER = 1

function setUp() {
  const peers = new PeerTable(hostId(new Uint8Array(32)), 8, 3)
  peers.add(hostId(new Uint8Array(32).fill(1)))
  peers.setPath(PEER, peers.addresses.acquire(encodeLocator({ address: '192.0.2.2', port: 7474 })))
  const probes: { lane: number; to: string; token: Uint8Array }[] = []
  let random = 0
  const lanes = new LanePaths({
    peers,
    randomBytes: (length) => new Uint8Array(length).fill(++random),
    sendProbe: (_, lane, slot, token) => {
      const to = decodeLocator(peers.addresses.record(slot))
      probes.push({ lane, to: to === undefined ? '' : formatLocator(to), token })
    },
  })
  const works = (lane: number) => peers.laneAddressSlot[peers.laneAt(PEER, lane)]! >= 0
  return { peers, lanes, probes, works }
}
type World = ReturnType<typeof setUp>

/** Virtual time up to `until`; the other end echoes what `answered` says. */
function run({ lanes, probes }: World, until: number, answered: (lane: number) => boolean): void {
  for (let now = lanes.nextTimeout(); now <= until; now = lanes.nextTimeout()) {
    lanes.handleTimeout(now)
    for (const { lane, token } of probes.splice(0)) if (answered(lane)) lanes.echoed(PEER, lane, token, now)
  }
}

test('a lane is used once a probe on it has been echoed on it', (t) => {
  const world = setUp()
  const { lanes, probes, works } = world
  lanes.offer(PEER, [7475, 7476], 0)
  t.strictSame(
    probes.map(({ lane, to }) => `${lane} ${to}`),
    ['1 192.0.2.2:7475', '2 192.0.2.2:7476'],
  )
  t.equal(lanes.working(PEER), 0)
  const [first] = probes
  t.notOk(lanes.echoed(PEER, 2, first!.token, 1), "another lane's token proves nothing")
  t.notOk(lanes.echoed(PEER, 1, first!.token.subarray(1), 1), 'nor does a part of it')
  t.notOk(lanes.echoed(2, 1, first!.token, 1), "nor another peer's")
  t.ok(lanes.echoed(PEER, 1, first!.token, 1))
  t.notOk(lanes.echoed(PEER, 1, first!.token, 1), 'a token is good for once')
  t.ok(works(1))
  t.notOk(works(2))
  t.end()
})

test('what is not let through is tried three times, and again after a minute', (t) => {
  const world = setUp()
  const { lanes, probes, works } = world
  lanes.offer(PEER, [7475], 0)
  t.equal(probes.splice(0).length, 1)
  let sent = 0
  run(world, 59_000, () => (sent++, false))
  t.equal(sent, 2)
  t.notOk(works(1))
  run(world, 70_000, () => true)
  t.ok(works(1))
  t.end()
})

test('a lane in use that falls silent is given up within three seconds, and taken up again when it answers', (t) => {
  const world = setUp()
  const { peers, lanes, works } = world
  const use = () => (peers.laneUsed[peers.laneAt(PEER, 1)] = 1)
  lanes.offer(PEER, [7475], 0)
  world.probes.splice(0)
  run(world, 300, () => true)
  t.ok(works(1))
  for (let now = 0; now < 10_000; now += 500) {
    use()
    run(world, now, () => true)
    t.ok(works(1), `at ${now} ms`)
  }
  for (let now = 10_000; now <= 14_000; now += 500) {
    use()
    run(world, now, () => false)
  }
  t.notOk(works(1))
  run(world, 80_000, () => true)
  t.ok(works(1))
  t.end()
})

test('an idle lane is not probed', (t) => {
  const world = setUp()
  world.lanes.offer(PEER, [7475, 7476], 0)
  for (const { lane, token } of world.probes.splice(0)) world.lanes.echoed(PEER, lane, token, 1)
  let sent = 0
  run(world, 600_000, () => (sent++, true))
  t.equal(sent, 0)
  t.equal(world.lanes.working(PEER), 2)
  t.end()
})

test('lanes follow the path, and end with the session', (t) => {
  const { peers, lanes, probes, works } = setUp()
  lanes.offer(PEER, [7475], 0)
  lanes.echoed(PEER, 1, probes.splice(0)[0]!.token, 1)
  t.ok(works(1))
  peers.setPath(PEER, peers.addresses.acquire(encodeLocator({ address: '198.51.100.7', port: 4000 })))
  lanes.offer(PEER, [7475], 10)
  t.notOk(works(1), 'not before it is proven there')
  t.strictSame(
    probes.map(({ to }) => to),
    ['198.51.100.7:7475'],
  )
  lanes.echoed(PEER, 1, probes[0]!.token, 11)
  t.ok(works(1))
  lanes.forget(PEER)
  t.notOk(works(1))
  t.equal(lanes.working(PEER), 0)
  t.end()
})

test('more lanes than this host has are left alone', (t) => {
  const { lanes, probes } = setUp()
  lanes.offer(PEER, [7475, 7476, 7477, 7478], 0)
  t.equal(probes.length, 2)
  t.end()
})
