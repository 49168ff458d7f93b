// How services are found that a host knows nothing of: by resolvers, by asking neighbours, by those who had them before. Hosts here hear little of the directory, so that they have to.
import { test } from 'tap'
import { sodium } from '../tools/sodium.js'
import { HostWorld, type WorldHost, type WorldOptions } from './host-world.js'
import type { TcpSocket } from './virtual-kernel.js'

const SEEDS = [1, 2, 3]

/** Hosts that hear of each other only in these pairs, by number; each has a session with those that `links` says. */
function world(
  seed: number,
  count: number,
  links: readonly (readonly [number, number])[],
  heard: readonly (readonly [number, number])[] = [],
  options: WorldOptions = {},
): HostWorld {
  const made = new HostWorld(sodium, seed, options)
  made.hears = (a, b) =>
    heard.some(([x, y]) => (x === a.number && y === b.number) || (y === a.number && x === b.number))
  for (let i = 0; i < count; i++) made.add()
  for (const [a, b] of links) made.hosts[a]!.hints.push(made.hosts[b]!)
  for (const host of made.hosts) host.start()
  const up = (a: WorldHost, b: WorldHost) => (a.host.peers.sealSlot[a.host.peers.indexOf(b.id)] ?? -1) >= 0
  const linked = () =>
    links.every(([a, b]) => up(made.hosts[a]!, made.hosts[b]!) && up(made.hosts[b]!, made.hosts[a]!)) &&
    heard.every(([a, b]) => made.hosts[a]!.host.directory.record(made.hosts[b]!.id, 'locators') !== undefined)
  if (!made.until(linked, 10_000)) throw new Error('the hosts did not find each other within 10 s')
  made.runFor(1_000)
  return made
}

const servedBy = (socket: TcpSocket) => new TextDecoder().decode(socket.received.slice(0, 8)).split('\n')[0]!
const knows = (host: WorldHost, name: string) => host.host.catalogue.byName(name) !== undefined
const hasSession = (a: WorldHost, b: WorldHost) => (a.host.peers.sealSlot[a.host.peers.indexOf(b.id)] ?? -1) >= 0
const total = (w: HostWorld, of: (host: WorldHost) => number) => w.hosts.reduce((sum, host) => sum + of(host), 0)
const followed = (host: WorldHost) => host.host.flows.counters.followed

test('a chain of three resolvers ends at the instance, and the next flow needs no extra trip', (t) => {
  for (const seed of SEEDS) {
    const w = world(
      seed,
      5,
      [
        [0, 1],
        [1, 2],
        [2, 3],
        [3, 4],
      ],
      [[3, 4]],
    )
    const [client, first, second, third, server] = w.hosts as [WorldHost, WorldHost, WorldHost, WorldHost, WorldHost]
    server.expose('api.corp', 80)
    t.ok(w.until(() => knows(third, 'api.corp'), 5_000))
    client.rules(['corp', first])
    first.rules(['corp', second])
    second.rules(['corp', third])
    t.notOk(knows(client, 'api.corp'))
    const socket = client.connect('api.corp', 80)
    t.ok(
      w.until(() => servedBy(socket) === 'h4', 2_000),
      `seed ${seed}: ${socket.state}`,
    )
    t.ok(hasSession(client, server), 'by a session of its own: nobody speaks for the client')
    t.equal(followed(client), 3)
    for (const host of [first, second, third]) t.equal(host.host.flows.counters.accepted, 0)
    const told = total(w, ({ host }) => host.drops.get('moved'))
    const again = client.connect('api.corp', 80, 6)
    const datagram = client.udp('api.corp', 80)
    client.program(() => datagram.send('hello'))
    t.ok(w.until(() => servedBy(again) === 'h4' && datagram.received.length > 0, 1_000))
    t.equal(
      total(w, ({ host }) => host.drops.get('moved')),
      told,
      'nobody was asked again',
    )
    const other = client.udp('other.corp', 80)
    client.program(() => other.send('hello'))
    w.runFor(2_000)
    t.same(other.received, [], 'what no resolver knows is refused')
    t.equal(other.unreachable, 1)
  }
  t.end()
})

test('datagrams find their way through resolvers too', (t) => {
  const w = world(
    1,
    3,
    [
      [0, 1],
      [1, 2],
    ],
    [[1, 2]],
  )
  const [client, resolver, server] = w.hosts as [WorldHost, WorldHost, WorldHost]
  server.expose('dns.corp', 53)
  t.ok(w.until(() => knows(resolver, 'dns.corp'), 5_000))
  client.rules(['corp', resolver])
  const socket = client.udp('dns.corp', 53)
  client.program(() => {
    socket.send('one')
    socket.send('two')
  })
  t.ok(w.until(() => socket.received.length === 2, 2_000))
  t.same(socket.received, ['h2 one', 'h2 two'])
  t.end()
})

test('resolvers that name each other end in a refusal, without a storm', (t) => {
  for (const seed of SEEDS) {
    const w = world(seed, 4, [
      [0, 1],
      [1, 2],
      [2, 3],
    ])
    const [client, a, b, c] = w.hosts as [WorldHost, WorldHost, WorldHost, WorldHost]
    client.rules(['corp', a])
    a.rules(['corp', b])
    b.rules(['corp', c])
    c.rules(['corp', a], ['corp', b], ['corp', client])
    w.runFor(2_000)
    let frames = 0
    w.filter = () => ++frames > 0
    w.runFor(3_000)
    const idle = frames
    frames = 0
    const socket = client.connect('x.corp', 80)
    w.runFor(3_000)
    t.equal(socket.state, 'unreachable')
    t.equal(
      total(w, ({ host }) => host.drops.get('moved')),
      3,
      'each was asked once',
    )
    t.same([...client.host.flows.flows()], [])
    // Besides what an idle network says: two handshakes, the sessions' first words, three questions.
    t.ok(frames < idle + 150, `${frames} frames, ${idle} when idle`)
  }
  t.end()
})

test('a resolver answers only for what its policy lets the client reach', (t) => {
  const w = world(
    1,
    3,
    [
      [0, 1],
      [1, 2],
    ],
    [[1, 2]],
  )
  const [client, resolver, server] = w.hosts as [WorldHost, WorldHost, WorldHost]
  server.expose('api.corp', 80)
  t.ok(w.until(() => knows(resolver, 'api.corp'), 5_000))
  client.rules(['corp', resolver])
  const rules = [{ allow: true, from: ['staff'], to: ['corp'], ports: [] }]
  resolver.enter((host) => host.setPolicy({ rules, otherwise: false }, w.now))
  const socket = client.connect('api.corp', 80)
  t.ok(w.until(() => socket.state === 'unreachable', 2_000))
  t.equal(resolver.host.drops.get('denied'), 1)
  t.notOk(hasSession(client, server))
  t.end()
})

test('a dropped name is refused at once, whatever is known of it', (t) => {
  const w = new HostWorld(sodium, 1)
  const [client, server] = w.mesh(2) as [WorldHost, WorldHost]
  server.expose('api.shop', 80)
  t.ok(w.until(() => knows(client, 'api.shop'), 10_000))
  client.rules(['shop', 'drop'])
  const socket = client.connect('api.shop', 80)
  t.equal(socket.state, 'unreachable')
  t.equal(client.host.drops.get('denied'), 1)
  client.rules()
  const after = client.connect('api.shop', 80)
  t.ok(w.until(() => servedBy(after) === 'h1', 1_000))
  t.end()
})

test('what is delayed goes out when an instance registers', (t) => {
  const w = new HostWorld(sodium, 1)
  const [client, server] = w.mesh(2) as [WorldHost, WorldHost]
  t.ok(w.until(() => w.converged, 10_000))
  client.rules(['lab', 'delay'])
  const socket = client.connect('new.lab', 80)
  w.runFor(800)
  t.equal(socket.state, 'syn-sent')
  server.expose('new.lab', 80)
  t.ok(w.until(() => servedBy(socket) === 'h1', 1_000))
  t.equal(w.hosts[1]!.host.whereabouts.asking.counters.told, 0)
  t.end()
})

test('what is delayed goes out when a neighbour two hops away knows', (t) => {
  for (const seed of SEEDS) {
    const w = world(
      seed,
      4,
      [
        [0, 1],
        [1, 2],
        [2, 3],
      ],
      [[2, 3]],
      { link: { loss: 0.02 } },
    )
    const [client, between, knowing, server] = w.hosts as [WorldHost, WorldHost, WorldHost, WorldHost]
    server.expose('new.lab', 80)
    t.ok(w.until(() => knows(knowing, 'new.lab'), 5_000))
    client.rules(['lab', 'delay'])
    const socket = client.connect('new.lab', 80)
    t.ok(
      w.until(() => servedBy(socket) === 'h3', 2_500),
      `seed ${seed}: ${socket.state}`,
    )
    t.match(between.host.whereabouts.asking.counters, { passed: 1, told: 0 })
    t.match(knowing.host.whereabouts.asking.counters, { told: 1 })
    t.match(client.host.whereabouts.asking.counters, { asked: 1, answered: 1 })
  }
  t.end()
})

test('what is delayed in vain is refused after three seconds, and each host was asked once', (t) => {
  const ring: [number, number][] = [0, 1, 2, 3, 4].map((i) => [i, (i + 1) % 5])
  const w = world(1, 5, [...ring, [0, 2], [1, 3]])
  const client = w.hosts[0]!
  client.rules(['lab', 'delay'])
  const socket = client.connect('new.lab', 80)
  w.runFor(2_900)
  t.equal(socket.state, 'syn-sent')
  w.runFor(200)
  t.equal(socket.state, 'unreachable')
  // The program's kernel has repeated its SYN, which asks again.
  const { asked } = client.host.whereabouts.asking.counters
  t.ok(asked >= 1 && asked <= 3, `asked ${asked} times`)
  const passed = total(w, ({ host }) => host.whereabouts.asking.counters.passed)
  t.ok(passed <= asked * (w.hosts.length - 1), `passed on ${passed} times`)
  t.end()
})

test('a resolver that delays it itself lets the client wait, and finds it meanwhile', (t) => {
  const w = world(
    1,
    4,
    [
      [0, 1],
      [1, 2],
      [2, 3],
    ],
    [[2, 3]],
  )
  const [client, resolver, knowing, server] = w.hosts as [WorldHost, WorldHost, WorldHost, WorldHost]
  server.expose('new.lab', 80)
  t.ok(w.until(() => knows(knowing, 'new.lab'), 5_000))
  client.rules(['lab', resolver])
  resolver.rules(['lab', 'delay'])
  const socket = client.connect('new.lab', 80)
  t.ok(w.until(() => servedBy(socket) === 'h3', 2_500))
  t.ok(client.host.flows.counters.askedAgain >= 1)
  const never = client.connect('never.lab', 80)
  t.notOk(w.until(() => never.state !== 'syn-sent', 2_900))
  t.ok(
    w.until(() => never.state === 'unreachable', 1_500),
    never.state,
  )
  t.end()
})

test('a host that has the service no more sends a client with old records on', (t) => {
  for (const seed of SEEDS) {
    // After the first look the client hears nothing any more.
    let deaf = false
    const w = new HostWorld(sodium, seed)
    w.hears = (host) => !(deaf && host.number === 0)
    for (let i = 0; i < 3; i++) w.add()
    const [client, old, fresh] = w.hosts as [WorldHost, WorldHost, WorldHost]
    for (const host of [client, fresh]) host.hints.push(old)
    for (const host of w.hosts) host.start()
    old.expose('web', 80)
    t.ok(w.until(() => w.converged && knows(client, 'web'), 10_000))
    deaf = true
    fresh.expose('web', 80)
    old.unexpose('web')
    t.ok(
      w.until(() => old.host.catalogue.byName('web')?.instances.every(({ host }) => host === fresh.id) === true, 5_000),
    )
    t.ok(
      client.host.catalogue.byName('web')?.instances.every(({ host }) => host === old.id),
      'old records',
    )
    const socket = client.connect('web', 80)
    t.ok(
      w.until(() => servedBy(socket) === 'h2', 1_000),
      `seed ${seed}: ${socket.state}`,
    )
    const told = old.host.drops.get('moved')
    t.equal(told, 1)
    const datagram = client.udp('web', 80)
    client.program(() => datagram.send('hello'))
    t.ok(w.until(() => datagram.received.length > 0, 1_000))
    t.equal(old.host.drops.get('moved'), told, 'the client remembers')
    const pinned = client.connect('web', 80, 4, old)
    t.ok(
      w.until(() => pinned.state === 'unreachable', 4_000),
      'who wants that host is not sent elsewhere',
    )
  }
  t.end()
})

test('a server that is starting again lets clients wait', (t) => {
  for (const seed of SEEDS) {
    const w = new HostWorld(sodium, seed)
    const [client, server] = w.mesh(2) as [WorldHost, WorldHost]
    server.expose('web', 80)
    t.ok(w.until(() => knows(client, 'web') && w.converged, 10_000))
    const before = client.connect('web', 80)
    t.ok(w.until(() => servedBy(before) === 'h1', 1_000))
    server.restoring = 1_500
    const slot = () => client.host.peers.sealSlot[client.host.peers.indexOf(server.id)]
    const old = slot()
    server.restart(0)
    t.ok(w.until(() => server.running && hasSession(server, client) && slot() !== old, 5_000))
    t.ok(server.host.environment.loading(w.now))
    const during = client.connect('web', 80)
    const datagram = client.udp('web', 80)
    client.program(() => {
      datagram.send('hello')
      before.write(Uint8Array.of(1))
    })
    const loaded = () => !server.host.environment.loading(w.now)
    w.runFor(500)
    t.notOk(loaded())
    t.equal(during.state, 'syn-sent')
    t.equal(before.state, 'established', 'nothing is known of it yet: it is left alone')
    t.ok(
      w.until(() => servedBy(during) === 'h1' && datagram.received.length > 0, 3_000),
      `seed ${seed}: ${during.state}, ${datagram.received.length}`,
    )
    t.ok(loaded())
    t.ok(
      w.until(() => before.state === 'reset', 5_000),
      'what did not come back is gone',
    )
  }
  t.end()
})

test('a policy that denies what is open cuts it at both ends within a second, whichever end has it', (t) => {
  for (const seed of SEEDS) {
    for (const denying of [0, 1]) {
      const w = world(seed, 2, [[0, 1]], [[0, 1]], { link: { loss: 0.01, jitter: 5 } })
      const [client, server] = w.hosts as [WorldHost, WorldHost]
      for (const name of ['shut', 'open']) server.expose(name, 80)
      t.ok(w.until(() => knows(client, 'shut') && knows(client, 'open'), 5_000))
      const [shut, open] = [client.connect('shut', 80), client.connect('open', 80)]
      const talk = () => {
        client.program(() => [shut, open].forEach((one) => one.open && one.write(Uint8Array.of(1))))
        w.events.at(w.now + 20, talk)
      }
      talk()
      t.ok(w.until(() => shut.state === 'established' && open.state === 'established', 5_000))
      w.runFor(200)
      const rules = [{ allow: true, from: [], to: ['open'], ports: [] }]
      let cut = 0
      w.hosts[denying]!.enter((host) => (cut = host.setPolicy({ rules, otherwise: false }, w.now)))
      t.equal(cut, 1)
      w.runFor(1_000)
      t.equal(shut.state, 'reset', `denied by ${w.hosts[denying]!.name}`)
      const at = (socket: TcpSocket) =>
        server.kernel.accepted.find(({ ends }) => ends.remotePort === socket.ends.localPort)
      t.notOk(at(shut)?.open, "the server's end is gone, too")
      t.ok(open.state === 'established' && at(open)?.open, 'the other connection goes on')
    }
  }
  t.end()
})
