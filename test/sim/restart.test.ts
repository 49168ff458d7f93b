// What programs notice of a daemon that is killed and started again, with its flow table or without. Each scenario is run with several seeds; HOST_SEED=n runs only that one.

import tap, { test, type Test } from 'tap'
import { revokeAsAuthority } from '../../lib/crypto/revocations.js'
import { parsePolicy } from '../../lib/service/policy.js'
import { sodium } from '../tools/sodium.js'
import { HostWorld, type LinkOptions, type WorldHost, type WorldOptions } from './host-world.js'
import { seededRandom } from '../tools/seeded-random.js'
import type { Family, TcpSocket, UdpSocket } from './virtual-kernel.js'

const ONLY = process.env['HOST_SEED']
const TIMES = Number(process.env['HOST_SEEDS'] ?? 1)
tap.setTimeout(240_000)

type Any = <T>(values: readonly T[]) => T

function seeds(t: Test, count: number, scenario: (seed: number, any: Any) => readonly string[]): void {
  const list = ONLY === undefined ? Array.from({ length: count * TIMES }, (_, i) => i + 1) : [Number(ONLY)]
  for (const seed of list) {
    const random = seededRandom(seed * 7919)
    let problems: readonly string[]
    try {
      problems = scenario(seed, (values) => values[Math.floor(random() * values.length)]!)
    } catch (error) {
      problems = [error instanceof Error ? (error.stack ?? error.message) : String(error)]
    }
    if (problems.length > 0) t.fail(`HOST_SEED=${seed}`, { problems })
  }
  t.pass(`${list.length} seeds`)
  t.end()
}

/** Something a program writes now and then over TCP, whose echo is compared in the end. */
class Stream {
  readonly socket: TcpSocket
  #stopped = false
  #n = 0

  constructor(
    readonly client: WorldHost,
    readonly every: number,
    family: Family = 4,
  ) {
    this.socket = client.connect('web', 80, family)
    this.#write()
  }

  stop(): void {
    this.#stopped = true
    this.client.program(() => this.socket.close())
  }

  #write(): void {
    if (this.#stopped || this.socket.state === 'reset') return
    const n = this.#n++
    this.client.program(() => this.socket.write(Uint8Array.from({ length: 50 }, (_, i) => (n * 7 + i) & 255)))
    this.client.world.events.at(this.client.world.now + this.every, () => this.#write())
  }

  /** What is wrong with a stream that should have come to its end. */
  problems(name: string): string[] {
    const { socket } = this
    if (!socket.done) return [`${name}: ${socket.state}, ${socket.received.length} of ${socket.sent.length} came back`]
    const received = socket.received.slice(0, Infinity)
    const banner = received.indexOf(10) + 1
    const echo = received.subarray(banner)
    const sent = socket.sent.slice(0, Infinity)
    const same = echo.length === sent.length && echo.every((byte, i) => byte === sent[i])
    return same ? [] : [`${name}: other bytes came back than were sent`]
  }
}

function meet(seed: number, count: number, options: WorldOptions): HostWorld {
  const world = new HostWorld(sodium, seed, options)
  world.mesh(count)
  if (!world.until(() => world.converged, 10_000)) throw new Error('the hosts did not find each other within 10 s')
  return world
}

const anyLink = (any: Any): LinkOptions => ({ delay: any([0.1, 5, 40]), loss: any([0, 0, 0.02]), jitter: any([0, 3]) })

/** What is wrong when all streams should have come to their ends. */
function finish(world: HostWorld, streams: readonly Stream[]): string[] {
  for (const stream of streams) stream.stop()
  world.until(() => streams.every(({ socket }) => socket.done), 12_000, 100)
  return streams.flatMap((stream, i) => stream.problems(`stream ${i}`))
}

/** Longest time for which a stream stood still, ms. */
const stallOf = (streams: readonly Stream[]) => Math.max(...streams.map(({ socket }) => socket.longestGap))

test('the daemon of either end, or both, is killed and started again: every stream is whole, and soon goes on', (t) => {
  seeds(t, 20, (seed, any) => {
    const link = anyLink(any)
    const world = meet(seed, any([2, 3]), { link, realCrypto: seed % 12 === 0 })
    const [server, client] = world.hosts as [WorldHost, WorldHost]
    server.expose('web', 80, { family: any([4, 6]) })
    world.runFor(500)
    const streams = [4, 20, 500].map((every) => new Stream(client, every, any([4, 6])))
    const udp: UdpSocket = client.udp('web', 80, any([4, 6]))
    client.program(() => udp.send('before'))
    world.runFor(700)
    const killed = any([[server], [client], [server, client]])
    const down = any([0, 20, 300, 1_500])
    const times = any([1, 1, 2])
    const problems: string[] = []
    for (let i = 0; i < times; i++) {
      // A datagram that is lost on its way opens no flow at the other end, and is not kept at this one.
      const had = killed.map(({ host }) => host.flows.counts.tcp + host.flows.counts.udp)
      for (const host of killed) {
        host.restart(down, true)
        if (any([true, false])) world.runFor(any([5, 200]))
      }
      world.until(() => killed.every(({ running }) => running), down + 1)
      for (const [k, { host, name }] of killed.entries()) {
        const { kept, unfinished, torn, why } = host.flows.restored
        const expected = link.loss === 0 ? 4 : had[k]! - unfinished
        if (why !== undefined || torn > 0 || kept !== expected)
          problems.push(`${name}: ${kept} kept, ${torn} torn, ${why}`)
      }
      world.runFor(any([50, 3_000]))
    }
    world.runFor(4_000)
    client.program(() => udp.send('after'))
    world.runFor(500)
    if (link.loss === 0 && !udp.received.some((text) => text.endsWith(' after'))) problems.push('no datagram after it')
    const stall = stallOf(streams)
    // Down, the first repetition, the next thing that is written, and the ways. A segment lost on the way besides is repeated after 200 ms and more.
    const most = down + 200 * killed.length + 8 * (link.delay! + link.jitter!) + 60
    if (link.loss === 0 && times === 1 && streams.some(({ socket, every }) => socket.longestGap > every + most))
      problems.push('it took too long')
    problems.push(...finish(world, streams))
    if (problems.length > 0)
      problems.push(JSON.stringify({ link, down, times, killed: killed.map(({ name }) => name), stall }))
    return problems
  })
})

test('the way carries less when a daemon comes back: large datagrams of the other end arrive soon again', (t) => {
  seeds(t, 6, (seed, any) => {
    const world = meet(seed, 2, { link: { delay: any([0.1, 5]) } })
    const [server, client] = world.hosts as [WorldHost, WorldHost]
    server.expose('web', 80, { family: any([4, 6]) })
    world.runFor(500)
    const udp = client.udp('web', 80, any([4, 6]))
    let last = -Infinity
    udp.onData = () => (last = world.now)
    const send = () => {
      client.program(() => udp.send('x'.repeat(1_330)))
      world.events.at(world.now + 20, send)
    }
    send()
    world.runFor(any([700, 5_000]))
    const problems = last > world.now - 100 ? [] : ['no large datagrams pass before it']
    client.restart(0, true)
    world.filter = ({ bytes }) => bytes.length <= 1_280 - 28
    const at = world.now
    if (!world.until(() => last > at, 1_000)) problems.push('no large datagram came within a second')
    return problems
  })
})

test('killed in the middle of its work, again and again: every stream is whole', (t) => {
  seeds(t, 12, (seed, any) => {
    const world = meet(seed, 2, { link: { delay: any([0.1, 5]) } })
    const [server, client] = world.hosts as [WorldHost, WorldHost]
    server.expose('web', 80, { family: any([4, 6]) })
    world.runFor(500)
    const streams = [3, 20].map((every) => new Stream(client, every, any([4, 6])))
    world.runFor(700)
    for (let i = 0; i < 8; i++) {
      any([server, client]).restartWithin(any([1, 2, 3, 7, 50]), any([0, 30, 400]))
      world.runFor(any([200, 900]))
    }
    world.runFor(3_000)
    return finish(world, streams)
  })
})

test('killed while connections are being opened: they open all the same', (t) => {
  seeds(t, 16, (seed, any) => {
    const world = meet(seed, any([2, 3]), { link: anyLink(any) })
    const [server, client] = world.hosts as [WorldHost, WorldHost]
    server.expose('web', 80, { family: any([4, 6]) })
    world.runFor(500)
    const streams = Array.from({ length: 6 }, () => {
      const stream = new Stream(client, 20, any([4, 6]))
      world.runFor(any([0, 1, 10]))
      return stream
    })
    world.runFor(any([0, 1, 5, 30]))
    for (const host of any([[server], [client], [server, client]])) host.restart(any([0, 20, 300]), true)
    world.until(() => streams.every(({ socket }) => socket.state === 'established'), 15_000)
    world.runFor(1_000)
    return finish(world, streams)
  })
})

test('killed while it or the other end moves: a third host knows where they are', (t) => {
  seeds(t, 16, (seed, any) => {
    const link = { delay: any([0.1, 5, 40]) }
    const world = meet(seed, 3, { link })
    const [third, server, client] = world.hosts as [WorldHost, WorldHost, WorldHost]
    server.expose('web', 80)
    world.runFor(500)
    const streams = [5, 20].map((every) => new Stream(client, every))
    world.runFor(700)
    const [killed, other] = any([
      [server, client],
      [client, server],
    ])
    const moves = any(['comes back elsewhere', 'has just moved', 'the other moves meanwhile', 'both'] as const)
    const down = any([20, 300, 1_500])
    if (moves === 'has just moved') {
      killed.move(world.freshAddress(), true)
      world.runFor(any([0, 1, 20]))
    }
    killed.kill(true)
    world.runFor(down / 2)
    if (moves === 'the other moves meanwhile' || moves === 'both') other.move(world.freshAddress(), true)
    world.runFor(down / 2)
    if (moves === 'comes back elsewhere' || moves === 'both') killed.settle([world.freshAddress()])
    killed.start()
    world.runFor(6_000)
    const problems = finish(world, streams)
    if (stallOf(streams) > down + 3_000) problems.push(`it took ${stallOf(streams)} ms`)
    if (!third.running) problems.push('the third host is gone')
    if (problems.length > 0) problems.push(JSON.stringify({ link, moves, down, killed: killed.name }))
    return problems
  })
})

test('a host that comes back without its memory: its connections end at both ends, and new ones work', (t) => {
  seeds(t, 12, (seed, any) => {
    const world = meet(seed, any([2, 3]), { link: anyLink(any) })
    const [server, client] = world.hosts as [WorldHost, WorldHost]
    server.expose('web', 80)
    world.runFor(500)
    const streams = [5, 20].map((every) => new Stream(client, every))
    world.runFor(700)
    const [forgets, remembers] = any([
      [server, client],
      [client, server],
    ])
    // The other one is killed as well, and has all its flows.
    if (any([true, false])) remembers.restart(any([0, 100]), true)
    forgets.restart(any([0, 50, 1_000]))
    // A program of a server that has been forgotten, and has nothing to send, is not known to anybody.
    const ends = () => [...streams.map(({ socket }) => socket), ...(forgets === client ? server.kernel.accepted : [])]
    const over = world.until(() => ends().every(({ state }) => state === 'reset'), 15_000)
    const problems = over
      ? []
      : [
          `not reset: ${ends()
            .map(({ state }) => state)
            .join(', ')}`,
        ]
    for (const host of [server, client])
      if (!world.until(() => host.host.flows.counts.open === 0, 20_000, 1_000))
        problems.push(`${host.name} has flows left`)
    const fresh = new Stream(client, 20)
    world.runFor(2_000)
    return [...problems, ...finish(world, [fresh])]
  })
})

test('what was decided meanwhile holds before a flow goes on: a host that was revoked, a policy that denies', (t) => {
  seeds(t, 12, (seed, any) => {
    const world = meet(seed, 2, { link: { delay: any([0.1, 5]) } })
    const [server, client] = world.hosts as [WorldHost, WorldHost]
    server.expose('web', 80)
    world.runFor(500)
    const streams = [1, 20].map((every) => new Stream(client, every))
    world.runFor(700)
    const [killed, other] = any([
      [server, client],
      [client, server],
    ])
    const policy = any([true, false])
    const received = () => streams.map(({ socket }) => socket.received.length)
    killed.kill(true)
    world.runFor(any([10, 300]))
    const before = received()
    if (!policy) {
      const order = { host: other.id, serial: world.serial, time: Math.floor(world.wallNow) }
      killed.trust.revocations.add(revokeAsAuthority(world.authority, order))
    }
    killed.start()
    if (policy) {
      const rules = parsePolicy({ rules: [{ action: 'deny', to: ['web'] }] })
      if ('problems' in rules) throw new Error(rules.problems.join())
      killed.host.policy = rules
    }
    const ends = () => (killed === server ? server.kernel.accepted : streams.map(({ socket }) => socket))
    const over = world.until(() => ends().every(({ state }) => state === 'reset'), 5_000)
    const problems = over
      ? []
      : [
          `not reset: ${ends()
            .map(({ state }) => state)
            .join(', ')}`,
        ]
    if (received().some((length, i) => length !== before[i]!)) problems.push('something arrived')
    if (killed.host.flows.counts.open > 0) problems.push('there are flows left')
    if (problems.length > 0) problems.push(JSON.stringify({ policy, killed: killed.name }))
    return problems
  })
})

test('a client keeps its IPv4 address before a server that was killed, whatever is known of claims by then', (t) => {
  seeds(t, 8, (seed, any) => {
    const world = meet(seed, 3, {})
    const [server, client] = world.hosts as [WorldHost, WorldHost]
    server.expose('web', 80)
    world.runFor(any([50, 2_000]))
    const stream = new Stream(client, 20)
    world.runFor(700)
    const before = [server.host.addresses.peer(client.id, 4), server.host.addresses.served(world.service('web'), 4)]
    server.kill(true)
    server.start()
    const after = [server.host.addresses.peer(client.id, 4), server.host.addresses.served(world.service('web'), 4)]
    const text = (list: readonly Uint8Array[]) => list.map((address) => address.join('.')).join()
    const problems = text(before) === text(after) ? [] : [`${text(before)} became ${text(after)}`]
    world.runFor(3_000)
    return [...problems, ...finish(world, [stream])]
  })
})

test('a daemon is away for longer than sessions last: what is open goes on all the same', (t) => {
  seeds(t, 4, (seed, any) => {
    const world = meet(seed, 2, { link: { delay: 5 } })
    const [server, client] = world.hosts as [WorldHost, WorldHost]
    server.expose('web', 80, { family: any([4, 6]) })
    world.runFor(500)
    const streams = [new Stream(client, 5_000, any([4, 6]))]
    world.runFor(700)
    any([server, client]).restart(400_000, true)
    world.runFor(430_000)
    return finish(world, streams)
  })
})

test('a server with connections from more hosts than it keeps sessions with has them all back within moments', (t) => {
  seeds(t, 1, (seed) => {
    const delay = 10
    const world = meet(seed, 40, { link: { delay } })
    const [server, ...clients] = world.hosts as [WorldHost, ...WorldHost[]]
    server.expose('web', 80)
    world.runFor(1_000)
    const streams = clients.map((client) => new Stream(client, 100))
    world.runFor(1_000)
    const sessions = () => server.host.sessions.count
    const before = sessions()
    server.kill(true)
    world.runFor(200)
    server.start()
    const { kept } = server.host.flows.restored
    // A handshake, and what makes it known to be new.
    const back = world.until(() => sessions() >= clients.length, 6 * delay, 1)
    const problems = back && kept === clients.length ? [] : [`${sessions()} of ${before} sessions, ${kept} flows`]
    world.runFor(500)
    // Down, the first repetition, the next thing that is written, and the ways.
    if (stallOf(streams) > 200 + 200 + 100 + 10 * delay) problems.push(`it took ${stallOf(streams)} ms`)
    return [...problems, ...finish(world, streams)]
  })
})
