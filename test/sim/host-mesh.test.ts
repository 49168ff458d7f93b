// What the people who use a network of several hosts would see, in virtual time. Each scenario is run with several seeds; a failing one is named, and HOST_SEED=n runs only
// that one; HOST_SEEDS=n runs n times as many.

import { test, type Test } from 'tap'
import { revokeAsAuthority } from '../../lib/crypto/revocations.js'
import { Channel } from '../../lib/host/control-channel.js'
import { FrameType } from '../../lib/wire/constants.js'
import { fromHex } from '../../lib/wire/ids.js'
import { sodium } from '../tools/sodium.js'
import { HostWorld, type LinkOptions, type WorldHost, type WorldOptions } from './host-world.js'
import { seededRandom } from '../tools/seeded-random.js'
import type { Family, TcpSocket } from './virtual-kernel.js'

const ONLY = process.env['HOST_SEED']
const TIMES = Number(process.env['HOST_SEEDS'] ?? 1)

type Any = <T>(values: readonly T[]) => T

/** Runs the scenario with so many seeds. What it returns are problems. */
function seeds(t: Test, count: number, scenario: (seed: number, any: Any) => readonly string[]): void {
  t.setTimeout(120_000 * TIMES)
  const list = ONLY === undefined ? Array.from({ length: count * TIMES }, (_, i) => i + 1) : [Number(ONLY)]
  for (const seed of list) {
    const random = seededRandom(seed * 7919)
    const any: Any = (values) => values[Math.floor(random() * values.length)]!
    let problems: readonly string[]
    try {
      problems = scenario(seed, any)
    } catch (error) {
      problems = [error instanceof Error ? (error.stack ?? error.message) : String(error)]
    }
    if (problems.length > 0) t.fail(`HOST_SEED=${seed}`, { problems })
  }
  t.pass(`${list.length} seeds`)
  t.end()
}

/** A world whose hosts know each other. */
function mesh(seed: number, count: number, options: WorldOptions = {}): HostWorld {
  const world = new HostWorld(sodium, seed, options)
  world.mesh(count)
  if (!world.until(() => world.converged, 10_000)) throw new Error('the hosts did not find each other within 10 s')
  return world
}

/** A program that writes a little now and then until it is told to stop. */
class Talker {
  #stopped = false
  #n = 0

  constructor(
    readonly host: WorldHost,
    readonly socket: TcpSocket,
    readonly every = 20,
  ) {
    this.#talk()
  }

  stop(): void {
    this.#stopped = true
    this.host.program(() => this.socket.close())
  }

  #talk(): void {
    if (this.#stopped || this.socket.state === 'reset') return
    this.host.program(() => this.socket.write(Uint8Array.from({ length: 50 }, (_, i) => (this.#n * 7 + i) & 255)))
    this.#n++
    this.host.world.events.at(this.host.world.now + this.every, () => this.#talk())
  }
}

/** A whole conversation: so many bytes, their echo, the end. */
function exchange(host: WorldHost, socket: TcpSocket, length: number): TcpSocket {
  host.program(() => {
    socket.write(Uint8Array.from({ length }, (_, i) => (i * 31 + length) & 255))
    socket.close()
  })
  return socket
}

/** The name of the instance's host, which its server says first. */
const servedBy = (socket: TcpSocket) => new TextDecoder().decode(socket.received.slice(0, 8)).split('\n')[0]!

/** What is wrong with a conversation that should have come to its end. */
function problemsOf(name: string, socket: TcpSocket): string[] {
  if (!socket.done) return [`${name}: ${socket.state}, ${socket.received.length} bytes back of ${socket.sent.length}`]
  const echo = socket.received.slice(servedBy(socket).length + 1, Infinity)
  const sent = socket.sent.slice(0, Infinity)
  if (echo.length !== sent.length || echo.some((byte, i) => byte !== sent[i]))
    return [`${name}: other bytes than were sent`]
  return []
}

/** Reasons that nothing in a healthy network is dropped for, whatever the link does. */
const NEVER = ['bad-frame', 'bad-control', 'not-entitled', 'bad-tag', 'foreign-source', 'malformed-packet'] as const

function oddDrops(world: HostWorld): string[] {
  return world.hosts
    .filter((host) => host.running)
    .flatMap(({ host, name }) =>
      NEVER.filter((reason) => host.drops.get(reason) > 0).map((reason) => `${name} dropped ${reason}`),
    )
}

test('hosts started at once find each other from one hint, and agree', (t) => {
  seeds(t, 12, (seed, any) => {
    const link = { loss: any([0, 0.01, 0.05]), duplicate: any([0, 0.1]), jitter: any([0, 10, 40]), delay: any([1, 20]) }
    const world = new HostWorld(sodium, seed, { link, realCrypto: seed % 6 === 0 })
    const hosts = world.mesh(any([2, 3, 6]))
    hosts.at(-1)!.expose('web', 80)
    const problems: string[] = []
    if (!world.until(() => world.converged, 10_000)) problems.push('no agreement within 10 s')
    world.runFor(2_000)
    for (const { name, host } of hosts) {
      if (host.catalogue.byName('web')?.instances.length !== 1) problems.push(`${name} does not know the service`)
      if (host.sessions.count !== hosts.length - 1) problems.push(`${name} has ${host.sessions.count} sessions`)
    }
    return [...problems, ...oddDrops(world)]
  })
})

test('whatever the link does, connections are whole', (t) => {
  seeds(t, 70, (seed, any) => {
    const link: LinkOptions = {
      loss: any([0, 0.01, 0.05]),
      duplicate: any([0, 0.05]),
      jitter: any([0, 5, 30]),
      delay: any([1, 5, 25]),
    }
    const world = mesh(seed, any([2, 3, 4]), { link, realCrypto: seed % 20 === 0 })
    const [client, ...others] = world.hosts
    const instances = [...others, client!].slice(0, any([1, 2, 3]))
    const family = any<Family>([4, 6])
    for (const instance of instances) instance.expose('web', 80, { family: any<Family>([4, 6]) })
    if (!world.until(() => client!.host.catalogue.byName('web')?.instances.length === instances.length, 5_000)) {
      return ['the client did not hear of all instances']
    }
    const sockets = Array.from({ length: 3 }, (_, i) => {
      world.runFor(any([0, 3, 40]))
      return exchange(client!, client!.connect('web', 80, family), 500 + 1_500 * i)
    })
    const event = any(['none', 'client-moves', 'server-moves', 'nat'] as const)
    world.runFor(any([5, 30, 100]))
    if (event === 'client-moves') client!.move(world.freshAddress(), true)
    else if (event === 'server-moves') others[0]!.move(world.freshAddress(), any([true, false]))
    else if (event === 'nat') client!.move(client!.address.replace('7474', '30001'), false)
    world.until(() => sockets.every((socket) => socket.done), 60_000, 100)
    const problems = sockets.flatMap((socket, i) => problemsOf(`connection ${i}`, socket))
    world.runFor(80_000)
    for (const { name, host } of world.hosts) {
      if (host.flows.table.count > 0) problems.push(`${name} keeps ${host.flows.table.count} flows`)
    }
    if (problems.length > 0)
      problems.push(JSON.stringify({ link, event, family, hosts: world.hosts.length, instances: instances.length }))
    return [...problems, ...oddDrops(world)]
  })
})

test('connections begun while the hosts are still starting are held, not refused', (t) => {
  seeds(t, 10, (seed, any) => {
    const world = new HostWorld(sodium, seed, { link: { jitter: any([0, 10]), delay: any([2, 20]) } })
    const hosts = world.mesh(3)
    const server = any(hosts.slice(1))
    server.expose('web', 80)
    world.runFor(any([0, 5, 50]))
    const clients = hosts.filter((host) => host !== server)
    const sockets = clients.map((client) => exchange(client, client.connect('web', 80, any<Family>([4, 6])), 1_000))
    world.runFor(3_000)
    const problems = sockets.flatMap((socket, i) => problemsOf(`connection ${i}`, socket))
    for (const [i, { establishedAt, startedAt }] of sockets.entries()) {
      if (establishedAt - startedAt > 1_500) problems.push(`connection ${i} took ${establishedAt - startedAt} ms`)
    }
    return [...problems, ...oddDrops(world)]
  })
})

test('datagrams to a service come back from one instance', (t) => {
  seeds(t, 8, (seed, any) => {
    const world = mesh(seed, 3, { link: { jitter: any([0, 20]), duplicate: any([0, 0.1]) } })
    const [client, a, b] = world.hosts
    a!.expose('dns', 53, { family: any<Family>([4, 6]) })
    b!.expose('dns', 53, { family: any<Family>([4, 6]) })
    world.runFor(1_000)
    const socket = client!.udp('dns', 53, any<Family>([4, 6]))
    for (let i = 0; i < 20; i++) {
      client!.program(() => socket.send(`question ${i}`))
      world.runFor(100)
    }
    world.runFor(500)
    const answers = new Set(socket.received)
    const servers = new Set(socket.received.map((text) => text.slice(0, 2)))
    const problems: string[] = []
    if (servers.size !== 1) problems.push(`answers from ${[...servers].join(' and ')}`)
    for (let i = 0; i < 20; i++) {
      if (!answers.has(`${[...servers][0]} question ${i}`)) problems.push(`no answer to question ${i}`)
    }
    return [...problems, ...oddDrops(world)]
  })
})

test('an instance that refuses costs the client nothing: the next one is asked', (t) => {
  seeds(t, 10, (seed, any) => {
    const world = mesh(seed, 3, { link: { delay: any([1, 10]), jitter: any([0, 5]) } })
    const [client, broken, sound] = world.hosts
    broken!.expose('web', 80, { listens: false, priority: 1 })
    sound!.expose('web', 80, { priority: 2 })
    world.runFor(1_000)
    const socket = exchange(client!, client!.connect('web', 80, any<Family>([4, 6])), 2_000)
    world.runFor(3_000)
    const problems = problemsOf('connection', socket)
    if (servedBy(socket) !== 'h2') problems.push(`served by ${servedBy(socket)}`)
    if (socket.establishedAt - socket.startedAt > 150)
      problems.push(`took ${socket.establishedAt - socket.startedAt} ms`)
    return [...problems, ...oddDrops(world)]
  })
})

test('when every instance refuses, so does the name', (t) => {
  seeds(t, 5, (seed, any) => {
    const world = mesh(seed, 3)
    const [client, a, b] = world.hosts
    for (const host of [a!, b!]) host.expose('web', 80, { listens: false })
    world.runFor(1_000)
    const socket = client!.connect('web', 80, any<Family>([4, 6]))
    const unknown = client!.connect('nothing', 80)
    const port = client!.connect('web', 81)
    world.runFor(1_000)
    const problems: string[] = []
    if (socket.state !== 'reset') problems.push(`refused by all: ${socket.state}`)
    if (unknown.state !== 'unreachable') problems.push(`no such service: ${unknown.state}`)
    if (port.state !== 'reset') problems.push(`another port: ${port.state}`)
    return problems
  })
})

test('a host that dies silently: new connections go elsewhere, living flows are not touched', (t) => {
  seeds(t, 12, (seed, any) => {
    const world = mesh(seed, 4, { link: { loss: any([0, 0.01]), jitter: any([0, 5]) } })
    const [client, a, b, c] = world.hosts
    const doomed = any([a!, b!])
    for (const host of [a!, b!]) host.expose('web', 80)
    c!.expose('other', 80)
    // Idle for a while, or busy: both must work.
    world.runFor(any([1_000, 20_000]))
    const living = [client!.connect('web', 80, 4, doomed === a ? b : a), client!.connect('other', 80, 6)]
    const talkers = living.map((socket) => new Talker(client!, socket))
    world.runFor(500)
    doomed.die()
    const sockets: TcpSocket[] = []
    for (let i = 0; i < 30; i++) {
      sockets.push(exchange(client!, client!.connect('web', 80, any<Family>([4, 6])), 200))
      world.runFor(100)
    }
    for (const talker of talkers) talker.stop()
    world.runFor(4_000)
    const problems = [...sockets, ...living].flatMap((socket, i) => problemsOf(`connection ${i}`, socket))
    for (const [i, { establishedAt, startedAt }] of sockets.entries()) {
      if (establishedAt - startedAt > 1_000) problems.push(`connection ${i} took ${establishedAt - startedAt} ms`)
    }
    return [...problems, ...oddDrops(world)]
  })
})

test('client and server on one host', (t) => {
  seeds(t, 8, (seed, any) => {
    const world = mesh(seed, 2)
    const [host, other] = world.hosts
    host!.expose('web', 80, { family: any<Family>([4, 6]) })
    const early = exchange(host!, host!.connect('web', 80, any<Family>([4, 6])), 5_000)
    world.runFor(1_000)
    const again = exchange(host!, host!.connect('web', 80, any<Family>([4, 6])), 300)
    const away = exchange(other!, other!.connect('web', 80, any<Family>([4, 6])), 3_000)
    world.runFor(2_000)
    return [
      ...problemsOf('at once', early),
      ...problemsOf('later', again),
      ...problemsOf('from elsewhere', away),
      ...oddDrops(world),
    ]
  })
})

test('a stream goes on when an end changes its address', (t) => {
  seeds(t, 16, (seed, any) => {
    const link = { loss: any([0, 0.01]), jitter: any([0, 5]), delay: any([2, 20]) }
    const world = mesh(seed, 3, { link })
    const [server, client] = world.hosts
    server!.expose('web', 80)
    world.runFor(500)
    const socket = client!.connect('web', 80)
    const talker = new Talker(client!, socket)
    world.runFor(1_000)
    const moving = any([server!, client!])
    const nat = any([true, false])
    for (let i = 0; i < 3; i++) {
      moving.move(
        nat ? moving.address.replace(/\d+$/, String(20_000 + i)) : world.freshAddress(),
        !nat && any([true, false]),
      )
      world.runFor(any([300, 1_500]))
    }
    talker.stop()
    world.runFor(3_000)
    const problems = problemsOf('stream', socket)
    // The paths' round trip, a probe, and what TCP itself takes to repeat what was lost.
    if (socket.longestGap > 900) problems.push(`stalled for ${socket.longestGap} ms`)
    if (problems.length > 0) problems.push(JSON.stringify({ link, moving: moving.name, nat }))
    return [...problems, ...oddDrops(world)]
  })
})

test('the daemon of the server restarts: its old connections end at both ends, new ones work', (t) => {
  seeds(t, 12, (seed, any) => {
    const world = mesh(seed, 3, { link: { loss: any([0, 0.01]), jitter: any([0, 5]) } })
    const [server, client, other] = world.hosts
    server!.expose('web', 80)
    other!.expose('other', 80)
    world.runFor(500)
    const socket = client!.connect('web', 80)
    const unrelated = client!.connect('other', 80)
    const talkers = [new Talker(client!, socket), new Talker(client!, unrelated)]
    world.runFor(500)
    server!.restart(any([0, 50, 2_000]))
    world.runFor(6_000)
    const problems: string[] = []
    if (socket.state !== 'reset') problems.push(`the client's end is ${socket.state}`)
    // The server learns of it when it says something itself.
    server!.program(() =>
      server!.kernel.accepted.forEach((accepted) => accepted.open && accepted.write(Uint8Array.of(1))),
    )
    world.runFor(100)
    for (const accepted of server!.kernel.accepted)
      if (accepted.open) problems.push('the server still has the connection')
    const again = exchange(client!, client!.connect('web', 80), 2_000)
    talkers[1]!.stop()
    world.runFor(3_000)
    problems.push(...problemsOf('new', again), ...problemsOf('unrelated', unrelated), ...oddDrops(world))
    if (!world.until(() => world.converged, 5_000)) problems.push('no agreement after the restart')
    return problems
  })
})

test('a restart of the client’s daemon: names and connections work again', (t) => {
  seeds(t, 8, (seed, any) => {
    const world = mesh(seed, 3)
    const [server, client] = world.hosts
    server!.expose('web', 80)
    world.runFor(500)
    const socket = client!.connect('web', 80)
    const talker = new Talker(client!, socket)
    world.runFor(500)
    client!.restart(any([0, 1_000]))
    world.runFor(5_000)
    talker.stop()
    const problems = socket.state === 'reset' ? [] : [`the old connection is ${socket.state}`]
    const again = exchange(client!, client!.connect('web', 80), 2_000)
    world.runFor(3_000)
    return [...problems, ...problemsOf('new', again), ...oddDrops(world)]
  })
})

test('a revoked host is cut off within a second and cannot come back', (t) => {
  seeds(t, 10, (seed, any) => {
    const world = mesh(seed, 4, { link: { loss: any([0, 0.01]), jitter: any([0, 5]) } })
    const [server, revoker, revoked, client] = world.hosts
    server!.expose('web', 80)
    revoked!.expose('evil', 80)
    world.runFor(500)
    const cut = [revoked!.connect('web', 80), client!.connect('evil', 80)]
    const living = client!.connect('web', 80)
    const talkers = [
      ...cut.map((socket, i) => new Talker([revoked!, client!][i]!, socket)),
      new Talker(client!, living),
    ]
    world.runFor(500)
    const order = { host: revoked!.id, serial: world.serial, time: Math.floor(world.wallNow) }
    revoker!.trust.revocations.add(revokeAsAuthority(world.authority, order))
    revoker!.enter((host) => host.revocationsAdded(world.now))
    world.runFor(1_000)
    const problems: string[] = []
    const others = [server!, revoker!, client!]
    const connected = () =>
      others.filter(({ host }) => host.sessions.info(host.peers.indexOf(revoked!.id), world.now).connected)
    for (const { name } of connected()) problems.push(`${name} still has a session with it`)
    if (server!.kernel.accepted.some(({ ends, open }) => open && ends.remotePort === cut[0]!.ends.localPort))
      problems.push('its connection still stands at the server')
    if (cut[1]!.state !== 'reset') problems.push(`a connection to it is ${cut[1]!.state}`)
    const received = cut[0]!.received.length
    if (any([true, false])) revoked!.restart()
    world.runFor(15_000)
    for (const { name } of connected()) problems.push(`${name} has a session with it again`)
    if (cut[0]!.received.length > received) problems.push('it still receives')
    for (const talker of talkers) talker.stop()
    world.runFor(2_000)
    if (client!.host.catalogue.byName('evil') !== undefined) problems.push('its service is still known')
    return [...problems, ...problemsOf('the others’ connection', living)]
  })
})

test('recorded frames, sent again, change nothing', (t) => {
  seeds(t, 8, (seed, any) => {
    const world = mesh(seed, 3, { link: { jitter: any([0, 5]) } })
    const [server, client] = world.hosts
    server!.expose('web', 80)
    world.runFor(500)
    const recorded: { from: string; to: string; bytes: Uint8Array }[] = []
    world.filter = (passing) => recorded.push({ ...passing, bytes: passing.bytes.slice() }) > 0
    const socket = client!.connect('web', 80)
    const talker = new Talker(client!, socket)
    world.runFor(1_000)
    // A new handshake on the way, so that there is one to be replayed.
    client!.enter((host) => host.sessions.renew(host.peers.indexOf(server!.id), world.now))
    world.runFor(1_000)
    world.filter = () => true
    const before = server!.host.flows.table.count
    const stranger = world.freshAddress()
    for (const [i, { from, to, bytes }] of recorded.entries()) {
      world.deliver(i % 2 === 0 ? from : stranger, to, bytes)
      if (i % 10 === 0) world.runFor(1)
    }
    world.runFor(1_000)
    talker.stop()
    world.runFor(2_000)
    const problems = problemsOf('stream', socket)
    if (socket.longestGap > 300) problems.push(`stalled for ${socket.longestGap} ms`)
    if (server!.host.drops.get('replayed') < recorded.length / 10) problems.push('replays were not counted')
    if (recorded.some(({ bytes }) => bytes[0] === FrameType.init)) {
      const counted = world.hosts.reduce((sum, { host }) => sum + host.drops.get('handshake-replayed'), 0)
      if (counted === 0) problems.push('replayed handshakes were not counted')
    } else problems.push('no handshake was recorded')
    if (server!.host.flows.table.count !== before) problems.push('a flow has come of it')
    return problems
  })
})

test('what another member forges changes nothing', (t) => {
  seeds(t, 6, (seed, any) => {
    const world = mesh(seed, 3, { link: { jitter: any([0, 5]) } })
    const [server, client, forger] = world.hosts
    server!.expose('web', 80)
    world.runFor(500)
    const socket = client!.connect('web', 80)
    const talker = new Talker(client!, socket)
    world.runFor(500)
    const flows = [...client!.host.flows.flows(), ...server!.host.flows.flows()]
    forger!.enter((host) => {
      for (const victim of [client!, server!]) {
        const peer = host.peers.indexOf(victim.id)
        const slot = host.peers.addressSlot[peer]!
        // CLOSE, NOT-HERE and data under each flow ID there is, and confirmations of them.
        for (const { id } of flows) {
          const flow = Uint8Array.from(Buffer.from(id, 'hex'))
          for (const name of [flow, flow.slice().reverse(), littleEndian(flow)]) {
            for (const kind of [1, 2, 3, 4, 5, 6, 7, 11, 12]) {
              const frame = new Uint8Array(12 + 64)
              frame.set(name)
              frame[8] = kind
              frame[10] = 64
              frame[11] = 6
              frame.set(name, 12)
              host.dataPath.frameTo(peer, slot, frame, 0)
            }
          }
        }
        // Control messages that make no sense, on every channel; suspicions of others.
        for (const channel of Object.values(Channel)) {
          if (channel === Channel.farewell) continue
          host.control.send(peer, channel, world.primitives.randomBytes(40), world.now)
        }
        host.control.send(peer, Channel.liveness, fromHex(server!.id), world.now)
        host.control.send(peer, Channel.liveness, fromHex(client!.id), world.now)
      }
      host.setLocators(
        [
          { address: 'nowhere', port: 1 },
          { address: '10.0.0.1', port: 1 },
        ],
        world.now,
      )
      host.dataPath.flush(world.now)
    })
    world.runFor(1_000)
    const problems: string[] = []
    const [dropped] = [server!.host.drops]
    if (dropped.get('unknown-flow') === 0) problems.push('foreign flow IDs were not counted')
    if (dropped.get('bad-control') === 0) problems.push('unknown control messages were not counted')
    talker.stop()
    world.runFor(2_000)
    if (socket.longestGap > 300) problems.push(`stalled for ${socket.longestGap} ms`)
    return [...problems, ...problemsOf('stream', socket)]
  })
})

/** Of a flow ID as text: slot and generation, each little endian. */
function littleEndian(id: Uint8Array): Uint8Array {
  return Uint8Array.from([3, 2, 1, 0, 7, 6, 5, 4], (i) => id[i]!)
}

test('a host that leaves ends its flows and tells the others', (t) => {
  seeds(t, 10, (seed, any) => {
    const world = mesh(seed, 3, { link: { loss: any([0, 0.05]), jitter: any([0, 5]), delay: any([1, 20]) } })
    const [leaving, client, other] = world.hosts
    leaving!.expose('web', 80)
    other!.expose('web', 80)
    other!.expose('away', 80)
    world.runFor(500)
    const ended = [client!.connect('web', 80, 4, leaving), leaving!.connect('away', 80)]
    const talkers = [new Talker(client!, ended[0]!), new Talker(leaving!, ended[1]!)]
    if (!world.until(() => ended.every(({ state }) => state === 'established'), 5_000)) return ['nothing is open']
    world.runFor(500)
    const accepted = other!.kernel.accepted.filter((socket) => socket.open)
    leaving!.leave()
    world.runFor(700)
    const problems: string[] = []
    if (leaving!.running) problems.push('it is still waiting')
    if (ended.some((socket) => socket.state !== 'reset'))
      problems.push(`its flows are ${ended.map(({ state }) => state).join(', ')}`)
    if (accepted.some((socket) => socket.open)) problems.push('a server of another host still has its connection')
    for (const { name, host } of [client!, other!]) {
      if (host.sessions.info(host.peers.indexOf(leaving!.id), world.now).connected)
        problems.push(`${name} still has a session with it`)
      if (host.catalogue.byName('web')?.instances.length !== 1) problems.push(`${name} still offers its instance`)
    }
    for (const talker of talkers) talker.stop()
    let asked = 0
    world.filter = ({ to }) => {
      if (to === leaving!.address) asked++
      return true
    }
    const again = exchange(client!, client!.connect('web', 80), 500)
    world.runFor(1_500)
    if (asked > 0) problems.push(`it was sent ${asked} more frames`)
    world.filter = () => true
    leaving!.start()
    if (!world.until(() => world.converged, 5_000)) problems.push('it could not come back')
    return [...problems, ...problemsOf('new', again)]
  })
})

test('sessions are renewed under a stream that lasts for minutes', (t) => {
  seeds(t, 3, (seed, any) => {
    const world = mesh(seed, 3, {
      link: { loss: any([0, 0.02]), duplicate: any([0, 0.05]), jitter: any([0, 20]), delay: any([5, 40]) },
    })
    const [server, client] = world.hosts
    server!.expose('web', 80)
    world.runFor(500)
    const socket = client!.connect('web', 80)
    const talker = new Talker(client!, socket, any([50, 400]))
    world.runFor(400_000)
    talker.stop()
    world.runFor(5_000)
    const problems = problemsOf('stream', socket)
    const { rekeys } = client!.host.sessions.info(client!.host.peers.indexOf(server!.id), world.now)
    if (rekeys < 3) problems.push(`only ${rekeys} new sessions in 400 s`)
    if (socket.longestGap > 1_500) problems.push(`stalled for ${socket.longestGap} ms`)
    for (const { log, name } of world.hosts) {
      const odd = log.filter((line) => /^(lost|failed|dead)/.test(line))
      if (odd.length > 0) problems.push(`${name}: ${odd.join(', ')}`)
    }
    return [...problems, ...oddDrops(world)]
  })
})

test('a network that was cut in two grows together again', (t) => {
  seeds(t, 6, (seed, any) => {
    const world = mesh(seed, 4, { link: { loss: any([0, 0.01]), jitter: any([0, 5]) } })
    const [server, near, client, far] = world.hosts
    server!.expose('web', 80)
    world.runFor(500)
    const socket = client!.connect('web', 80)
    const talker = new Talker(client!, socket, 100)
    const beside = new Talker(near!, near!.connect('web', 80), 100)
    world.runFor(500)
    const side = (address: string) => [client!.address, far!.address].includes(address)
    world.filter = ({ from, to }) => side(from) === side(to)
    const seconds = any([2, 10, 30, 250])
    world.runFor(seconds * 1_000)
    const problems: string[] = []
    if (seconds > 180 && client!.host.catalogue.byName('web') !== undefined)
      problems.push('a service that cannot be heard of is still offered')
    const held = socket.received.length
    world.filter = () => true
    near!.expose('new', 80)
    if (!world.until(() => world.converged, 20_000, 100)) problems.push('no agreement within 20 s')
    world.runFor(3_000)
    if (socket.received.length <= held) problems.push('the stream does not go on')
    talker.stop()
    beside.stop()
    const again = exchange(client!, client!.connect('new', 80), 500)
    world.runFor(4_000)
    problems.push(
      ...problemsOf('stream', socket),
      ...problemsOf('on the near side', beside.socket),
      ...problemsOf('new', again),
    )
    if (beside.socket.longestGap > 1_000) problems.push(`the near side stalled for ${beside.socket.longestGap} ms`)
    if (problems.length > 0) problems.push(`cut for ${seconds} s`)
    return [...problems, ...oddDrops(world)]
  })
})

test('both ends move in the same instant, with a third host that knows both', (t) => {
  seeds(t, 8, (seed, any) => {
    const world = mesh(seed, 3, { link: { delay: any([2, 20]), jitter: any([0, 5]) } })
    const [server, , client] = world.hosts
    server!.expose('web', 80)
    world.runFor(500)
    const socket = client!.connect('web', 80)
    const talker = new Talker(client!, socket)
    world.runFor(500)
    server!.move(world.freshAddress(), true)
    client!.move(world.freshAddress(), true)
    world.runFor(10_000)
    talker.stop()
    world.runFor(3_000)
    const problems = problemsOf('stream', socket)
    if (socket.longestGap > 2_000) problems.push(`stalled for ${socket.longestGap} ms`)
    return [...problems, ...oddDrops(world)]
  })
})

test('in a large network any host reaches any other, though few keep sessions', (t) => {
  seeds(t, 1, (seed, any) => {
    const world = new HostWorld(sodium, seed, { link: { loss: 0.01, jitter: 5 } })
    const hosts = world.mesh(40)
    hosts[37]!.expose('web', 80)
    const problems: string[] = []
    if (!world.until(() => world.converged, 30_000, 100)) problems.push('no agreement within 30 s')
    world.runFor(1_000)
    const kept = hosts.slice(1).map(({ host }) => host.sessions.count)
    if (Math.max(...kept) > 33) problems.push(`a host keeps ${Math.max(...kept)} sessions`)
    const sockets = [3, 11, 20, 29].map((n) =>
      exchange(hosts[n]!, hosts[n]!.connect('web', 80, any<Family>([4, 6])), 2_000),
    )
    world.runFor(5_000)
    problems.push(...sockets.flatMap((socket, i) => problemsOf(`connection ${i}`, socket)), ...oddDrops(world))
    for (const [i, { establishedAt, startedAt }] of sockets.entries()) {
      if (establishedAt - startedAt > 1_000) problems.push(`connection ${i} took ${establishedAt - startedAt} ms`)
    }
    return problems
  })
})
