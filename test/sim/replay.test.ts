// What programs notice of a way that is gone before anybody knows, on links that lose nothing else: that nothing is lost, and nothing comes twice.

import tap, { test, type Test } from 'tap'
import { sodium } from '../tools/sodium.js'
import { HostWorld, type WorldHost } from './host-world.js'
import { seededRandom } from '../tools/seeded-random.js'
import type { TcpSocket, UdpSocket } from './virtual-kernel.js'

const ONLY = process.env['HOST_SEED']
tap.setTimeout(240_000)

type Any = <T>(values: readonly T[]) => T

function seeds(t: Test, count: number, scenario: (seed: number, any: Any) => readonly string[]): void {
  const list = ONLY === undefined ? Array.from({ length: count }, (_, i) => i + 1) : [Number(ONLY)]
  for (const seed of list) {
    const random = seededRandom(seed * 7919)
    const problems = scenario(seed, (values) => values[Math.floor(random() * values.length)]!)
    if (problems.length > 0) t.fail(`HOST_SEED=${seed}`, { problems })
  }
  t.pass(`${list.length} seeds`)
  t.end()
}

/** A stream of datagrams and one over TCP, both of which are sent back, something every `every` ms. */
class Streams {
  readonly udp: UdpSocket
  readonly tcp: TcpSocket
  sent = 0
  #stopped = false

  constructor(
    readonly client: WorldHost,
    readonly every: number,
  ) {
    this.udp = client.udp('web', 80)
    this.tcp = client.connect('web', 80)
    this.#send()
  }

  stop(): void {
    this.#stopped = true
  }

  #send(): void {
    if (this.#stopped) return
    const { client, udp, tcp } = this
    client.program(() => {
      udp.send(`${this.sent++}`)
      tcp.write(Uint8Array.of(this.sent & 255))
    })
    client.world.events.at(client.world.now + this.every, () => this.#send())
  }

  problems(stall: number): string[] {
    const { udp, tcp, sent } = this
    const times = new Map<string, number>()
    for (const text of udp.received) times.set(text, (times.get(text) ?? 0) + 1)
    const lost = Array.from({ length: sent }, (_, i) => i).filter(
      (i) => ![...times.keys()].some((text) => text.endsWith(` ${i}`)),
    )
    const twice = [...times].filter(([, count]) => count > 1)
    const problems: string[] = []
    if (lost.length > 0) problems.push(`${lost.length} of ${sent} datagrams lost: ${lost.slice(0, 10).join(', ')}…`)
    if (twice.length > 0) problems.push(`${twice.length} datagrams came more than once`)
    if (tcp.longestGap > stall) problems.push(`TCP stalled for ${tcp.longestGap} ms`)
    if (tcp.timeouts > 0) problems.push(`TCP ran into ${tcp.timeouts} time-outs`)
    return problems
  }
}

function meet(seed: number, hosts: number, delay: number): HostWorld {
  const world = new HostWorld(sodium, seed, { link: { delay } })
  world.mesh(hosts)
  if (!world.until(() => world.converged, 10_000)) throw new Error('the hosts did not find each other within 10 s')
  world.hosts[0]!.expose('web', 80)
  world.runFor(500)
  return world
}

test('a host that leaves an address which works brings little forth that is sent again', (t) => {
  seeds(t, 6, (seed, any) => {
    const delay = any([0.1, 5])
    const world = meet(seed, 2, delay)
    const [server, client] = world.hosts as [WorldHost, WorldHost]
    const streams = new Streams(client, 1)
    world.runFor(any([2_300, 2_800, 4_100]))
    const moving = any([server, client])
    const other = moving === server ? client : server
    const before = other.host.dataPath.replay.framesAgain
    const [old, next] = [moving.address, world.freshAddress(0, 4)]
    moving.settle([old, next])
    moving.tell([])
    world.runFor(any([1_300, 1_800]))
    moving.settle([next, old])
    moving.tell([])
    world.runFor(200)
    moving.settle([next])
    moving.tell()
    world.runFor(500)
    streams.stop()
    world.runFor(500)
    const again = other.host.dataPath.replay.framesAgain - before
    // Three frames a millisecond, and the peer follows when nothing has come by the old address for 20 ms.
    const problems = again <= 3 * (20 + 10 + 6 * delay) ? [] : [`${again} frames were sent again`]
    return [...problems, ...streams.problems(100)]
  })
})

test('an address change loses no datagram, doubles none and costs TCP no time-out', (t) => {
  seeds(t, 24, (seed, any) => {
    const delay = any([0.1, 5, 20])
    const world = meet(seed, any([2, 3]), delay)
    const [server, client] = world.hosts
    const streams = new Streams(client!, any([1, 5]))
    world.runFor(500)
    const moving = any([server!, client!])
    const nat = any([true, false])
    const told = any([true, false])
    for (let i = 0; i < 3; i++) {
      const address = nat ? moving.address.replace(/\d+$/, String(20_000 + i)) : world.freshAddress()
      moving.move(address, !nat && told)
      world.runFor(any([700, 1_500]))
    }
    streams.stop()
    world.runFor(2_000)
    const again = world.hosts.reduce((sum, { host }) => sum + host.dataPath.replay.framesAgain, 0)
    const problems = streams.problems(190)
    if (again === 0) problems.push('nothing was sent again')
    if (problems.length > 0) problems.push(JSON.stringify({ moving: moving.name, nat, told, delay, again }))
    return problems
  })
})

test('both ends change their address in the same instant: what was on its way arrives once', (t) => {
  seeds(t, 12, (seed, any) => {
    const delay = any([0.1, 5, 20])
    const world = meet(seed, 3, delay)
    const [server, client] = world.hosts
    const streams = new Streams(client!, 5)
    world.runFor(500)
    server!.move(world.freshAddress(), true)
    world.runFor(any([0, 5, 10]))
    client!.move(world.freshAddress(), true)
    world.runFor(3_000)
    streams.stop()
    world.runFor(2_000)
    const problems = streams.problems(1_000).filter((problem) => !problem.startsWith('TCP ran'))
    if (problems.length > 0) problems.push(JSON.stringify({ delay }))
    return problems
  })
})
