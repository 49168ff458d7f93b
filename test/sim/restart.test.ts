// What programs notice of a daemon that is killed and started again, with its flow table or without. Each scenario is run with several seeds; HOST_SEED=n runs only that one.

import tap, { test, type Test } from 'tap'
import { loadSodium } from '../../lib/crypto/sodium.js'
import { HostWorld, type LinkOptions, type WorldHost, type WorldOptions } from './host-world.js'
import { seededRandom } from '../tools/seeded-random.js'
import type { Family, TcpSocket, UdpSocket } from './virtual-kernel.js'

const ONLY = process.env['HOST_SEED']
const TIMES = Number(process.env['HOST_SEEDS'] ?? 1)
const sodium = await loadSodium()
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

test('the daemon of either end, or both, is killed and started again: every stream is whole', (t) => {
  seeds(t, 60, (seed, any) => {
    const link = anyLink(any)
    const world = meet(seed, any([2, 3]), { link, realCrypto: seed % 12 === 0 })
    const [server, client] = world.hosts as [WorldHost, WorldHost]
    server.expose('web', 80, { family: any([4, 6]) })
    world.runFor(500)
    const streams = [1, 20, 500].map((every) => new Stream(client, every, any([4, 6])))
    const udp: UdpSocket = client.udp('web', 80, any([4, 6]))
    client.program(() => udp.send('before'))
    world.runFor(700)
    const killed = any([[server], [client], [server, client]])
    const down = any([0, 20, 300, 1_500])
    const times = any([1, 1, 2])
    for (let i = 0; i < times; i++) {
      for (const host of killed) {
        host.restart(down, true)
        if (any([true, false])) world.runFor(any([5, 200]))
      }
      world.runFor(down + any([50, 3_000]))
    }
    world.runFor(4_000)
    client.program(() => udp.send('after'))
    world.runFor(500)
    const problems: string[] = []
    const kept = killed.map(({ host }) => host.flows.restored)
    for (const { kept: flows, torn, why } of kept)
      if (why !== undefined || torn > 0 || flows < 4) problems.push(`restored ${flows}, torn ${torn}, ${why}`)
    const longest = Math.max(...streams.map(({ socket }) => socket.longestGap))
    for (const stream of streams) stream.stop()
    world.runFor(8_000)
    streams.forEach((stream, i) => problems.push(...stream.problems(`stream ${i}`)))
    if (!udp.received.some((text) => text.endsWith(' after')) && link.loss === 0) problems.push('no datagram after it')
    if (process.env['SHOW']) console.log(seed, killed.map((h) => h.name).join(), down, times, longest)
    const names = killed.map(({ name }) => name)
    if (problems.length > 0) problems.push(JSON.stringify({ link, down, times, names, longest }))
    return problems
  })
})
