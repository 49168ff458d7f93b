import { test } from 'tap'
import { PROBE_BYTES } from '../../../lib/path/cadence.js'
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
  const settles = { now: true, asked: 0 }
  let random = 0
  const lanes = new LanePaths({
    peers,
    randomBytes: (length) => new Uint8Array(length).fill(++random),
    settle: () => (settles.asked++, settles.now),
    sendProbe: (_, lane, slot, token) => {
      const to = decodeLocator(peers.addresses.record(slot))
      probes.push({ lane, to: to === undefined ? '' : formatLocator(to), token })
    },
  })
  const works = (lane: number) => peers.laneAddressSlot[peers.laneAt(PEER, lane)]! >= 0
  return { peers, lanes, probes, works, settles }
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
  lanes.renew(PEER, [7475], 10)
  t.notOk(works(1), 'not before it is proven there')
  t.strictSame(
    probes.map(({ to }) => to),
    ['198.51.100.7:7475'],
  )
  lanes.echoed(PEER, 1, probes[0]!.token, 11)
  t.ok(works(1))
  lanes.forget(PEER, 12)
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

/** Both lanes work, at 1 ms. */
function bothWork(): World {
  const world = setUp()
  world.lanes.offer(PEER, [7475, 7476], 0)
  for (const { lane, token } of world.probes.splice(0)) world.lanes.echoed(PEER, lane, token, 1)
  return world
}

test('with a new session the lanes whose ports are the same go on as they are', (t) => {
  const { lanes, probes, works } = bothWork()
  lanes.offer(PEER, [7475, 7480], 10)
  t.ok(works(1))
  t.notOk(works(2), 'another port is to be tried first')
  t.strictSame(
    probes.map(({ lane, to }) => `${lane} ${to}`),
    ['2 192.0.2.2:7480'],
  )
  t.end()
})

test("an address that packets in hand may go to is nobody else's before they have left", (t) => {
  const { peers, lanes, works, settles } = bothWork()
  const taken = [1, 2].map((lane) => peers.laneAddressSlot[peers.laneAt(PEER, lane)]!)
  const elsewhere = (address: string) => peers.addresses.acquire(encodeLocator({ address, port: 4000 }))
  settles.now = false
  peers.setPath(PEER, elsewhere('198.51.100.7'))
  lanes.renew(PEER, [7475, 7476], 10)
  t.notOk(works(1) || works(2))
  for (let i = 1; i < 5; i++) t.notOk(taken.includes(elsewhere(`203.0.113.${i}`)))
  for (const slot of taken) t.equal(decodeLocator(peers.addresses.record(slot))?.address, '192.0.2.2')
  lanes.handleTimeout(1_100)
  t.notOk(taken.includes(elsewhere('203.0.113.5')), 'nor after a while')
  settles.now = true
  t.ok(lanes.nextTimeout() < 3_000)
  lanes.handleTimeout(lanes.nextTimeout())
  t.ok(taken.includes(elsewhere('203.0.113.6')), 'then it is free')
  t.end()
})

test("lanes that are tried at another address do not take each other's slots", (t) => {
  const { peers, lanes } = bothWork()
  const slots = () => [1, 2].map((lane) => peers.laneAddressSlot[peers.laneAt(PEER, lane)])
  const ports = new Map(slots().map((slot, i) => [slot, 7475 + i]))
  lanes.renew(PEER, [7475, 7476], 10)
  for (const [slot, port] of ports) t.equal(decodeLocator(peers.addresses.record(slot!))?.port, port)
  t.end()
})

test('what is in hand is waited for before a lane is left, and for nothing else', (t) => {
  const { lanes, settles } = bothWork()
  lanes.offer(PEER, [7475, 7476], 10)
  t.equal(settles.asked, 0)
  lanes.renew(PEER, [7475, 7476], 20)
  t.ok(settles.asked > 0)
  t.end()
})

test('what waited goes by the first lane, and the lanes are used again once they have been tried again', (t) => {
  const { lanes, probes, works } = bothWork()
  lanes.stepBack(PEER, 10)
  t.notOk(works(1) || works(2))
  t.strictSame(
    probes.map(({ lane }) => lane),
    [1, 2],
    'at once',
  )
  for (const { lane, token } of probes) lanes.echoed(PEER, lane, token, 11)
  t.ok(works(1) && works(2))
  t.end()
})

/** A frame of so many bytes comes on the first lane above the first, from there; what is to be challenged then. */
function heardAside({ lanes }: World, address: string, port: number, now: number, bytes = 200): string | undefined {
  const found = lanes.heardAside(PEER, 1, encodeLocator({ address, port }), 0, now, bytes)
  const locator = found && decodeLocator(found.record)
  return locator && formatLocator(locator)
}

test('heardAside: where a lane comes from another address, the first lane may, too', (t) => {
  const world = bothWork()
  const { probes } = world
  for (const now of [10, 11]) t.equal(heardAside(world, '192.0.2.2', 7475, now), undefined)
  t.equal(probes.length, 0)
  t.equal(heardAside(world, '198.51.100.7', 7475, 20), '198.51.100.7:7474', 'its port there is that of the way in use')
  t.strictSame(
    probes.splice(0).map(({ lane, to }) => `${lane} ${to}`),
    ['1 198.51.100.7:7475'],
    'and the peer is asked to speak on it',
  )
  t.equal(heardAside(world, '198.51.100.7', 7475, 50), undefined, 'once')
  t.equal(probes.length, 0)
  t.equal(heardAside(world, '192.0.2.2', 7475, 100), '192.0.2.2:7474', 'and back again')
  t.equal(heardAside(world, '2001:db8::7', 7475, 200), '[2001:db8::7]:7474')
  t.end()
})

test('heardAside: of the first frame on a lane only another address counts', (t) => {
  for (const [address, found] of [
    ['192.0.2.2', undefined],
    ['198.51.100.7', '198.51.100.7:7474'],
  ] as const) {
    const world = bothWork()
    t.equal(heardAside(world, address, 40_000, 10), found, 'a NAT may have given it any port')
    t.equal(world.probes.length, found === undefined ? 0 : 1)
  }
  t.end()
})

test('heardAside: where only its port is another one, the peer is asked where its first lane is', (t) => {
  const world = bothWork()
  heardAside(world, '192.0.2.2', 40_000, 10)
  t.equal(heardAside(world, '192.0.2.2', 40_001, 20), undefined)
  t.strictSame(
    world.probes.splice(0).map(({ lane, to }) => `${lane} ${to}`),
    ['1 192.0.2.2:40001'],
  )
  t.equal(heardAside(world, '192.0.2.2', 40_002, 25), undefined)
  t.equal(world.probes.length, 0, 'not more often than addresses are challenged')
  t.end()
})

test('heardAside: no more goes to an address than three times what came from there', (t) => {
  for (const bytes of [45, 60, 100, 1_400]) {
    const world = bothWork()
    const record = encodeLocator({ address: '198.51.100.7', port: 7475 })
    const found = world.lanes.heardAside(PEER, 1, record, 0, 10, bytes)
    const asked = world.probes.length * PROBE_BYTES
    t.ok(asked + 3 * found!.bytes <= 3 * bytes, `${bytes} bytes`)
  }
  t.end()
})
