// Three hosts in virtual time: connections over a link that loses, doubles and reorders frames. Whatever the seed, every byte arrives once and in order, nobody is reset, and
// nothing is left in the tables. FLOW_SEEDS sets how many seeds are run.
import tap, { test } from 'tap'
import type { Family } from '../../lib/flow/environment.js'
import { service, address, FlowHost, host, seeded, SELF_ADDRESS } from '../unit/flow/flow-host.js'
import { ACK, RST, see, SYN, tcpPacket, type Seen } from '../unit/flow/packets.js'
import { TinyTcp, type SegmentOut } from './tiny-tcp.js'

const WEB = 5
const SEEDS = Number(process.env['FLOW_SEEDS'] ?? 60)
const CONNECTIONS = 4
// The tests do not let go of the thread: half a minute where other work goes on.
tap.setTimeout(60_000 + SEEDS * 3_000)

interface Event {
  readonly at: number
  readonly run: (now: number) => void
}

interface World {
  readonly loss: number
  readonly duplicates: number
  readonly jitter: number
  /** What hosts 2 and 3 do with a SYN, in order of choice. */
  readonly servers: readonly ['serves' | 'refuses' | 'silent', 'serves' | 'refuses' | 'silent']
  readonly clientFamily: Family
  readonly serverFamilies: readonly [Family, Family]
}

class Simulation {
  now = 0
  readonly clients: TinyTcp[] = []
  readonly servers = new Map<string, TinyTcp>()
  readonly hosts: FlowHost[]
  resets = 0
  readonly #events: Event[] = []
  readonly #random: () => number

  constructor(
    seed: number,
    readonly world: World,
  ) {
    this.#random = seeded(seed)
    this.hosts = [1, 2, 3].map((n) => new FlowHost(n, {}, 64, seed * 10 + n))
    const [client, ...others] = this.hosts
    const candidates = others.map((server, i) => {
      server.meet(1)
      server.serve(WEB, world.serverFamilies[i]!, 8080)
      return { peer: client!.meet(server.number), service: service(WEB), doubtful: this.#random() < 0.3 }
    })
    client!.catalogue.set(WEB, candidates)
    for (let i = 0; i < CONNECTIONS; i++) this.#connection(client!, i)
  }

  run(until: number): void {
    for (;;) {
      let at = Infinity
      for (const event of this.#events) at = Math.min(at, event.at)
      for (const h of this.hosts) at = Math.min(at, h.engine.nextTimeout())
      for (const tcp of [...this.clients, ...this.servers.values()]) at = Math.min(at, tcp.deadline)
      if (at > until) return
      this.now = Math.max(this.now, at)
      const due = this.#events.filter((event) => event.at <= this.now)
      for (const event of due) this.#events.splice(this.#events.indexOf(event), 1)
      for (const event of due) event.run(this.now)
      for (const h of this.hosts) if (h.engine.nextTimeout() <= this.now) h.engine.handleTimeout(this.now)
      for (const tcp of [...this.clients, ...this.servers.values()]) tcp.timeout(this.now)
      this.#settle()
    }
  }

  #connection(client: FlowHost, i: number): void {
    const family = this.world.clientFamily
    const data = Array.from({ length: Math.floor(this.#random() * 3000) }, (_, n) => (n * 3 + i) & 255)
    const emit = (segment: SegmentOut) =>
      client.tun(
        this.now,
        tcpPacket({
          ...segment,
          family,
          source: SELF_ADDRESS[family],
          destination: address('dialled', family, WEB),
          ports: [40_000 + i, 80],
          partial: this.#random() < 0.5,
        }),
      )
    const tcp = new TinyTcp(data, Math.floor(this.#random() * 2 ** 32), emit)
    this.clients.push(tcp)
    this.#events.push({ at: i * 3, run: (now) => tcp.connect(now) })
  }

  /** Carries frames to the link and packets to the programs. */
  #settle(): void {
    for (let busy = true; busy;) {
      busy = false
      for (const from of this.hosts) {
        for (const frame of from.takeSent()) {
          busy = true
          const copies = this.#random() < this.world.duplicates ? 2 : 1
          for (let i = 0; i < copies; i++) {
            if (this.#random() < this.world.loss) continue
            const to = this.hosts.find((h) => host(h.number) === from.peers.hostId(frame.peer))!
            const at = this.now + 1 + this.#random() * this.world.jitter
            const peer = to.peers.indexOf(host(from.number))
            this.#events.push({ at, run: (now) => to.receive(now, peer, frame) })
          }
        }
        for (const packet of from.takeWritten()) {
          busy = true
          const seen = see(packet)
          if (seen.icmp !== undefined) continue
          if ((seen.flags & RST) !== 0) this.resets++
          if (from.number === 1) this.clients[seen.ports[1] - 40_000]!.receive(seen, this.now)
          else this.#server(from, seen)
        }
      }
    }
  }

  #server(at: FlowHost, seen: Seen): void {
    const behaviour = this.world.servers[at.number - 2]!
    const answer = (segment: Omit<SegmentOut, 'payload'> & { readonly payload?: readonly number[] }) =>
      at.tun(
        this.now,
        tcpPacket({
          ...segment,
          family: seen.family,
          source: seen.destination,
          destination: seen.source,
          ports: [8080, seen.ports[0]],
        }),
      )
    if (behaviour === 'silent') return
    if (behaviour === 'refuses') {
      if (seen.flags === SYN) answer({ flags: RST | ACK, sequence: 0, acknowledgement: seen.sequence + 1 })
      return
    }
    const key = `${at.number}/${seen.ports[0]}`
    let tcp = this.servers.get(key)
    if (tcp === undefined) {
      if (seen.flags !== SYN) return
      const data = Array.from({ length: Math.floor(this.#random() * 3000) }, (_, n) => (n * 5) & 255)
      tcp = new TinyTcp(data, Math.floor(this.#random() * 2 ** 32), answer)
      this.servers.set(key, tcp)
    }
    tcp.receive(seen, this.now)
  }
}

/** The server's end of a client's connection: the one that got its bytes. */
function serverOf(simulation: Simulation, i: number): TinyTcp | undefined {
  return [2, 3]
    .map((n) => simulation.servers.get(`${n}/${40_000 + i}`))
    .find((tcp) => tcp?.establishedAt !== -1 && tcp !== undefined)
}

test('whatever the link does, connections are whole', (t) => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = seeded(seed * 7919)
    const any = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)]!
    const first = any(['serves', 'refuses', 'silent'] as const)
    const second = first === 'serves' ? any(['serves', 'refuses', 'silent'] as const) : 'serves'
    // Where one refuses, a client is rightly told so when the other one's answers are lost for three seconds.
    const refusal = first === 'refuses' || second === 'refuses'
    const simulation = new Simulation(seed, {
      loss: any(refusal ? [0, 0.02] : [0, 0.02, 0.15]),
      duplicates: any([0, 0.1]),
      jitter: any([0, 5, 40]),
      servers: [first, second],
      clientFamily: any([4, 6]),
      serverFamilies: [any([4, 6]), any([4, 6])],
    })
    simulation.run(60_000)
    const problems: string[] = []
    simulation.clients.forEach((client, i) => {
      const server = serverOf(simulation, i)
      if (client.state !== 'established' || !client.done) problems.push(`client ${i} is ${client.state}`)
      else if (server === undefined || !server.done) problems.push(`server of ${i} is ${server?.state}`)
      else if (server.received.join() !== client.data.join()) problems.push(`bytes of client ${i}`)
      else if (client.received.join() !== server.data.join()) problems.push(`bytes to client ${i}`)
    })
    simulation.run(400_000)
    for (const h of simulation.hosts) {
      if (h.engine.table.count > 0) problems.push(`host ${h.number} keeps ${h.engine.table.count} flows`)
      if (h.drops.includes('bad-frame')) problems.push(`bad frames at host ${h.number}`)
    }
    if (problems.length > 0) t.fail(`seed ${seed}`, { world: simulation.world, problems })
  }
  t.pass(`${SEEDS} seeds`)
  t.end()
})

test('a dead or refusing first choice costs milliseconds, not seconds', (t) => {
  for (const first of ['silent', 'refuses'] as const) {
    const world = { loss: 0, duplicates: 0, jitter: 1, clientFamily: 4, serverFamilies: [4, 6] } as const
    const simulation = new Simulation(1, { ...world, servers: [first, 'serves'] })
    simulation.run(2_000)
    for (const client of simulation.clients) {
      t.ok(client.establishedAt >= 0 && client.establishedAt < 100, `${first}: ${client.establishedAt} ms`)
    }
  }
  t.end()
})

test('nothing is reset when nothing fails', (t) => {
  const world = { loss: 0, duplicates: 0.2, jitter: 2, clientFamily: 6, serverFamilies: [4, 4] } as const
  const simulation = new Simulation(2, { ...world, servers: ['serves', 'serves'] })
  simulation.run(100_000)
  t.ok(simulation.clients.every((client) => client.done))
  t.equal(simulation.resets, 0)
  t.end()
})
