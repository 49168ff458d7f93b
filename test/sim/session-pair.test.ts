// Two hosts with sessions over a link that loses, repeats and reorders, both calling whenever they have something to say and no session. Each run is one seed,
// which its name tells; SESSION_SEED=n runs just that one.

import { test, type Test } from 'tap'
import { sodium } from '../tools/sodium.js'
import { VirtualNetwork, type SessionHost } from './session-host.js'

const only = process.env['SESSION_SEED']
const seeds = only === undefined ? Array.from({ length: 10 }, (_, i) => i + 1) : [Number(only)]

interface World {
  readonly net: VirtualNetwork
  readonly hosts: readonly [SessionHost, SessionHost]
  sent: number
  restarts: number
}

function world(seed: number, trouble: number): World {
  const net = new VirtualNetwork(sodium, seed)
  const hosts = [net.host('A'), net.host('B')] as const
  net.link = {
    loss: net.random() * trouble,
    duplicate: net.random() * 0.2,
    delay: 1 + net.random() * 60,
    jitter: net.random() * 80,
  }
  return { net, hosts, sent: 0, restarts: 0 }
}

/** What a host does with something to say: sends it, or calls. */
function say(world: World, from: SessionHost, to: SessionHost): void {
  if (from.send(to, `${from.name} ${world.sent++}`)) return
  from.connect(to)
}

function live(world: World, ms: number, restartEvery: number): void {
  const { net } = world
  const end = net.now + ms
  while (net.now < end) {
    const [a, b] = net.random() < 0.5 ? world.hosts : [world.hosts[1], world.hosts[0]]
    say(world, a, b)
    // Sometimes at the very same moment, so that initiations cross.
    if (net.random() < 0.3) say(world, b, a)
    if (net.random() < 0.02) a.table.renew(a.peer(b), net.now)
    net.runFor(net.random() * (net.random() < 0.02 ? 8000 : 300))
    if (net.random() < 100 / restartEvery) {
      world.restarts++
      a.start()
    }
  }
}

/** Both have the same session, and it works in both directions. */
function agree(t: Test, { net, hosts: [a, b] }: World): void {
  t.match(a.info(b), { connected: true, confirmed: true }, 'A has a session')
  t.match(b.info(a), { connected: true, confirmed: true }, 'B has a session')
  t.equal(a.info(b).generation, b.info(a).generation, 'it is the same one')
  t.not(a.info(b).role, b.info(a).role)
  const before = [a.received.length, b.received.length]
  a.send(b, 'last')
  b.send(a, 'last')
  net.runFor(200)
  t.same([a.received.length - before[0]!, b.received.length - before[1]!], [1, 1], 'frames arrive both ways')
}

for (const seed of seeds) {
  test(`seed ${seed}: loss, duplication, reordering, renewals`, async (t) => {
    const w = world(seed, 0.15)
    live(w, 400_000, Infinity)
    for (const host of w.hosts) {
      t.equal(new Set(host.received).size, host.received.length, 'nothing arrives twice')
      t.equal(host.drops.get('unknown-lane'), 0, 'no frame on a session that its receiver does not have')
      t.equal(host.drops.get('bad-tag'), 0)
    }
    const sessions = w.hosts[0].sessions.length
    t.ok(sessions >= 3, `${sessions} sessions`)
    t.ok(w.hosts[0].received.length + w.hosts[1].received.length > w.sent * 0.8)
    w.net.link = { delay: 20 }
    live(w, 10_000, Infinity)
    w.net.runFor(1000)
    agree(t, w)
  })

  test(`seed ${seed}: the same, and either host restarts now and then`, async (t) => {
    const w = world(seed + 1000, 0.3)
    live(w, 200_000, 10_000)
    t.ok(w.restarts > 0, `${w.restarts} restarts`)
    for (const host of w.hosts) t.equal(new Set(host.received).size, host.received.length, 'nothing arrives twice')
    w.net.link = { delay: 20 }
    live(w, 20_000, Infinity)
    w.net.runFor(1000)
    agree(t, w)
  })
}
