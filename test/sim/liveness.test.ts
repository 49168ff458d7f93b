// Who notices that a host is gone, and how soon; and what somebody gains who says so of a host that lives.

import { test } from 'tap'
import { Channel } from '../../lib/host/control-channel.js'
import { conditionOf } from '../../lib/host/condition.js'
import { encodeLivenessMessage, encodeReport, REPORT_LABEL } from '../../lib/wire/liveness-message.js'
import { sodium } from '../tools/sodium.js'
import { HostWorld, type WorldHost, type WorldOptions } from './host-world.js'

/** LIVENESS_HOSTS=300: a large network indeed, which takes minutes. */
const MANY = Number(process.env['LIVENESS_HOSTS'] ?? 80)

function grown(seed: number, count: number, options: WorldOptions = {}): HostWorld {
  const world = new HostWorld(sodium, seed, { link: { delay: 5, jitter: 2 }, ...options })
  world.mesh(count)
  const whole = () => world.hosts.every(({ host }) => host.directory.hosts().length === count)
  if (!world.until(whole, 60_000, 250)) throw new Error('the hosts did not find each other within a minute')
  return world
}

const conditionAt = (at: WorldHost, of: WorldHost) => conditionOf(of.id, at.host, at.world.now).liveness

test('64 hosts, one dies: within seconds no other takes it for a good one, and connections do not wait for it', (t) => {
  t.setTimeout(240_000)
  const world = grown(3, 64, { host: { idleSessions: { idleMs: 15_000 } } })
  const [dead, second] = [world.hosts[20]!, world.hosts[41]!]
  dead.expose('web', 80)
  second.expose('web', 80)
  world.runFor(45_000)
  dead.die()
  const living = world.hosts.filter((host) => host !== dead)
  const good = () => living.filter((host) => !['suspect', 'dead'].includes(conditionAt(host, dead)))
  const start = world.now
  t.ok(
    world.until(() => good().length === 0, 8_000, 100),
    `${good().length} hosts do not know after 8 s`,
  )
  t.comment(`known everywhere after ${world.now - start} ms`)
  world.runFor(1_500)
  const states = living.map((host) => conditionAt(host, dead))
  t.comment(`dead at ${states.filter((state) => state === 'dead').length} of ${living.length}`)
  t.ok(states.filter((state) => state === 'dead').length > living.length / 2)
  for (const host of living) {
    const wrong = living.filter((other) => ['suspect', 'dead'].includes(conditionAt(host, other)))
    if (wrong.length > 0) t.fail(`${host.name} suspects ${wrong.map(({ name }) => name).join(' ')}`)
  }
  const sockets = [2, 9, 33, 50, 60].map((n) => world.hosts[n]!.connect('web', 80))
  world.runFor(3_000)
  for (const { establishedAt, startedAt } of sockets)
    t.ok(establishedAt - startedAt < 200, `${establishedAt - startedAt} ms`)
  t.end()
})

test('a liar: a living host is doubted for a moment, then the liar is not believed', (t) => {
  t.setTimeout(240_000)
  const world = grown(5, 40, { host: { idleSessions: { idleMs: 15_000 } } })
  world.runFor(45_000)
  const [liar, victim] = [world.hosts[7]!, world.hosts[30]!]
  const others = world.hosts.filter((host) => host !== liar && host !== victim)
  const doubting = () => others.filter((host) => ['suspect', 'dead'].includes(conditionAt(host, victim)))
  const lie = () => {
    liar.enter((host) => {
      const heartbeat = host.directory.heartbeatOf(victim.id)!
      const { sequence } = heartbeat
      const report = host.members.sign(REPORT_LABEL, encodeReport({ host: victim.id, sequence, state: 'dead' }))
      const body = encodeLivenessMessage({
        kind: 'reports',
        reports: [{ reporter: liar.id, age: 0, report, heartbeatAge: 0, heartbeat: heartbeat.blob }],
      })
      for (const other of others) {
        const peer = host.peers.indexOf(other.id)
        if (peer > 0 && host.peers.sealSlot[peer]! >= 0) host.control.send(peer, Channel.liveness, body, world.now)
      }
      host.dataPath.flush(world.now)
    })
  }
  const lasted: number[] = []
  let most = 0
  for (let i = 0; i < 8; i++) {
    lie()
    const start = world.now
    world.runFor(20)
    most = Math.max(most, doubting().length)
    t.notOk(
      others.some((host) => conditionAt(host, victim) === 'dead'),
      'nobody takes the victim for dead',
    )
    t.ok(
      world.until(() => doubting().length === 0, 5_000, 10),
      `still doubted by ${doubting().length}`,
    )
    lasted.push(world.now - start)
    world.runFor(3_000)
  }
  t.comment(`doubted for ${lasted.join(' ')} ms, by ${most} of ${others.length} at most`)
  t.ok(most > 0, 'it is heard at first')
  t.ok(Math.max(...lasted) < 2_000)
  t.ok(lasted.at(-1)! <= 20, 'and not believed in the end')
  t.end()
})

test('a broken path between two hosts makes neither of them dead for the others', (t) => {
  const world = grown(6, 12)
  world.runFor(20_000)
  const [a, b, ...others] = world.hosts
  world.filter = ({ from, to }) =>
    !((from === a!.address && to === b!.address) || (from === b!.address && to === a!.address))
  world.runFor(40_000)
  t.equal(conditionAt(a!, b!), 'dead', 'to each other they are')
  t.equal(conditionAt(b!, a!), 'dead')
  for (const host of others) {
    t.not(conditionAt(host, a!), 'dead')
    t.not(conditionAt(host, b!), 'dead')
    t.equal(host.host.detector.counters.accepted, 0, 'nobody was told')
  }
  t.end()
})

test('a large network: few sessions each, and a change reaches all of them within seconds', (t) => {
  t.setTimeout(900_000)
  const world = grown(4, MANY, { host: { peerCapacity: 1_024, idleSessions: { idleMs: 20_000 } } })
  world.runFor(60_000)
  const counts = world.hosts.slice(1).map(({ host }) => host.sessions.count)
  t.ok(Math.max(...counts) <= 2 * Math.log2(MANY), `a host keeps ${Math.max(...counts)} sessions`)
  const start = world.now
  world.hosts[77]!.expose('late', 80)
  const known = () => world.hosts.filter(({ host }) => host.catalogue.byName('late') !== undefined).length
  t.ok(
    world.until(() => known() === MANY, 5_000, 20),
    `known to ${known()} hosts`,
  )
  t.comment(
    `${Math.round(counts.reduce((a, b) => a + b) / counts.length)} sessions on average; known everywhere after ${world.now - start} ms`,
  )
  t.end()
})

test('a session that was made for a flow is given up by both ends when nobody needs it, and comes back when one does', (t) => {
  const world = grown(8, 16, { host: { neighbours: { meshMax: 4 }, idleSessions: { idleMs: 10_000 } } })
  world.runFor(25_000)
  const client = world.hosts[1]!
  const server = world.hosts.find(
    (host) => host !== client && !client.host.neighbours.wants(host.id) && !host.host.neighbours.wants(client.id),
  )!
  const connected = (a: WorldHost, b: WorldHost) =>
    a.host.sessions.info(a.host.peers.indexOf(b.id), world.now).connected
  server.expose('web', 80)
  t.ok(
    world.until(() => client.host.catalogue.byName('web') !== undefined, 3_000),
    'the service is known',
  )
  t.notOk(connected(client, server), 'nobody has needed a session yet')
  const socket = client.connect('web', 80)
  world.runFor(1_000)
  t.ok(connected(client, server) && connected(server, client), 'the flow has one')
  world.runFor(40_000)
  t.equal(socket.state, 'established')
  t.ok(connected(client, server) && connected(server, client), 'as long as the flow is open')
  client.program(() => socket.close())
  t.ok(
    world.until(() => !connected(client, server) && !connected(server, client), 120_000, 100),
    'then neither end has it',
  )
  const about = (host: WorldHost, other: WorldHost) =>
    host.log.filter((line) => line === `up ${other.name} ${other.name}` || line.startsWith(`lost ${other.name} `))
      .length
  const before = [about(client, server), about(server, client)]
  world.runFor(60_000)
  t.strictSame([about(client, server), about(server, client)], before, 'it does not come and go')
  const again = client.connect('web', 80)
  world.runFor(1_000)
  t.equal(again.state, 'established')
  const kept = world.hosts.every(({ host }) =>
    world.hosts.every(
      (other) =>
        !host.neighbours.wants(other.id) || host.sessions.info(host.peers.indexOf(other.id), world.now).connected,
    ),
  )
  t.ok(kept, 'sessions that are wanted stay, used or not')
  t.end()
})
