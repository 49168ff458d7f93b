import { test } from 'tap'
import { recordKey, type RecordPayload } from '../../lib/service/registration.js'
import { serviceId } from '../../lib/wire/ids.js'
import { sodium as primitives } from '../tools/sodium.js'
import { DirectoryWorld, view, type SimHost } from './directory-world.js'

function registration(number: number, weight: number): RecordPayload {
  return {
    kind: 'registration',
    service: serviceId(number.toString(16).padStart(64, '0')),
    name: `service-${number}`,
    ports: [{ protocol: 'tcp', port: 80, localPort: 8080 }],
    priority: 100,
    weight,
    state: 'up',
    epoch: 0,
    move: 'drain',
    load: 0,
  }
}

/** What every host ought to see: what each living host says of itself. */
function truth(hosts: readonly SimHost[]): string[] {
  return hosts.flatMap((host) => view(host).filter((line) => line.startsWith(host.id.slice(0, 8)))).sort()
}

for (const seed of [1, 2, 3, 4]) {
  test(`hosts converge through loss, flapping links, restarts and lost disks (seed ${seed})`, async (t) => {
    const world = new DirectoryWorld(primitives, seed, 16, (random) => 5 + 100 * random(), { fanOut: 3 })
    const { hosts, random } = world
    world.loss = 0.15
    const pick = (): SimHost => hosts[Math.floor(random() * hosts.length)]!
    hosts.forEach((host, i) => {
      host.directory.publish([{ payload: registration(i, 100) }, { payload: registration(100 + i, 1) }], 0)
      if (i > 0) world.connect(host, hosts[Math.floor(random() * i)]!)
    })
    for (let i = 0; i < 10; i++) world.connect(pick(), pick())

    for (let step = 0; step < 120; step++) {
      world.run(world.now + 500 * random())
      const host = pick()
      const number = hosts.indexOf(host)
      const what = random()
      if (what < 0.45)
        host.directory.publish([{ payload: registration(number, Math.floor(1000 * random())) }], world.now)
      else if (what < 0.6) host.directory.withdraw([recordKey(registration(number, 0))], world.now)
      else if (what < 0.9) {
        const peer = [...host.peers][0]
        if (peer !== undefined && host.peers.size > 1 && peer.peers.size > 1) world.disconnect(host, peer)
        world.connect(pick(), pick())
      } else {
        host.restart(random() < 0.5)
        host.directory.publish([{ payload: registration(number, Math.floor(1000 * random())) }], world.now)
      }
    }
    // The links that flapped may have cut the world in two.
    hosts.forEach((host, i) => i > 0 && world.connect(host, hosts[i - 1]!))
    world.run(world.now + 90_000)
    const expected = truth(hosts)
    t.ok(expected.length >= 16, 'there is something to agree on')
    for (const host of hosts) t.strictSame(view(host), expected, `host ${hosts.indexOf(host)} agrees`)
    t.ok(hosts.every((host) => host.directory.synced))

    // Dead hosts' records end with their leases and do not come back from anybody's copy.
    const dead = hosts.splice(0, 2)
    for (const host of dead) for (const peer of [...host.peers]) world.disconnect(host, peer)
    hosts.forEach((host, i) => i > 0 && world.connect(host, hosts[i - 1]!))
    world.loss = 0
    world.run(world.now + 2 * world.options.lease)
    const rest = truth(hosts)
    for (const host of hosts) t.strictSame(view(host), rest, 'the dead are forgotten')
  })
}

test('a change reaches every connected host after one way, others after one way more', async (t) => {
  const world = new DirectoryWorld(primitives, 7, 12, () => 20)
  const [first, ...others] = world.hosts
  for (const host of others.slice(0, 10)) world.connect(first!, host)
  const far = others[10]!
  world.connect(far, others[0]!)
  world.run(10_000)
  first!.directory.publish([{ payload: registration(1, 100) }], world.now)
  world.run(world.now + 100)
  const start = world.now
  const key = recordKey(registration(1, 0))
  first!.directory.publish([{ payload: { ...registration(1, 100), state: 'unhealthy' } as RecordPayload }], start)
  const state = (host: SimHost): unknown => {
    const payload = host.directory.record(first!.id, key)?.payload
    return payload?.kind === 'registration' ? payload.state : undefined
  }
  world.run(start + 20.5)
  t.strictSame(others.slice(0, 10).map(state), Array(10).fill('unhealthy'))
  t.equal(state(far), 'up')
  world.run(start + 40.5)
  t.equal(state(far), 'unhealthy')
})

test('a comparison repairs what was lost, long before the next heartbeat', async (t) => {
  const world = new DirectoryWorld(primitives, 10, 2, () => 10)
  const [a, b] = world.hosts
  world.connect(a!, b!)
  world.run(3_000)
  world.loss = 1
  a!.directory.publish([{ payload: registration(1, 100) }], world.now)
  world.run(world.now + 100)
  world.loss = 0
  t.strictSame(view(b!), [])
  world.run(world.now + world.options.compareEvery + 100)
  t.strictSame(view(b!), truth([a!]))
})

test('the idle cost a host does not grow with the number of its peers', async (t) => {
  const cost = (count: number): number => {
    const world = new DirectoryWorld(primitives, 8, count, () => 5)
    for (const host of world.hosts) host.directory.publish([{ payload: registration(1, 100) }], 0)
    for (const a of world.hosts) for (const b of world.hosts) world.connect(a, b)
    world.run(35_000)
    const before = world.messages
    world.run(65_000)
    return (world.messages - before) / count / 30
  }
  // Own heartbeats to each peer every 30 s, a comparison each 5 s, and summaries of others' heartbeats to a few.
  t.ok(cost(6) < 6, 'messages a second and host among 6')
  t.ok(cost(24) < 12, 'messages a second and host among 24')
})

test('a revoked host is dropped everywhere, and its records are taken from nobody', async (t) => {
  const world = new DirectoryWorld(primitives, 9, 5, () => 10)
  const { hosts } = world
  hosts.forEach((host, i) => {
    host.directory.publish([{ payload: registration(i, 1) }], 0)
    if (i > 0) world.connect(host, hosts[i - 1]!)
  })
  world.run(5_000)
  const bad = hosts[0]!
  t.equal(hosts[4]!.directory.recordsOf(bad.id).length, 1)
  hosts[4]!.trust.revoke(Uint8Array.from(Buffer.from(bad.id, 'hex')))
  hosts[4]!.directory.revocationsChanged()
  world.run(6_000)
  for (const host of hosts.slice(1)) t.equal(host.directory.recordsOf(bad.id).length, 0)
  bad.directory.publish([{ payload: registration(7, 1) }], world.now)
  world.run(20_000)
  for (const host of hosts.slice(1)) t.equal(host.directory.recordsOf(bad.id).length, 0)
})
