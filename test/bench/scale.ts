// What a packet costs with few and many flows and peers: `npm run bench:scale`. Real hosts with real sessions and the native codec, joined by memory (see memory-link.ts): the
// processor time inside the hosts, kernels and sockets not counted. Everything is measured in turns, round by round, and each figure is the median over the rounds: what else
// the machine does falls on all of them.
//
//   flows  two hosts, one way, both ends: a small packet each, and super-packets of 64 KB, over all open flows in turn
//   peers  one host and so many others, 1,000 flows: what goes out, the host's end only
//
// Beside each figure stands its ratio to the first row of its kind: flat is what stays below FLAT_MAX. With --real, instead, what a TCP stream gets through real daemons that have
// so many flows open: scale-real.ts.

import { loadPrimitives } from '../../daemon/node-primitives.js'
import { HostWorld } from '../sim/host-world.js'
import { locatorOf } from '../sim/underlay.js'
import { ACK, PSH, SYN, tcpPacket } from '../unit/flow/packets.js'
import { parseArgs } from 'node:util'
import { enclosed } from './enclosed.js'
import { FarEnds } from './far-ends.js'
import { MemoryLink, type MemoryHost } from './memory-link.js'
import { answer, BATCH, BULK_BATCH, Program, TCP } from './program.js'
import { scaleReal } from './scale-real.js'
import { Targets } from './targets.js'

const FLOWS = [1, 1_000, 100_000]
const PEERS = [1, 100, 1_000]
const ROUNDS = 7
const SMALL = { payload: 64, packets: 50_000, batch: BATCH } as const
const BULK = { payload: 47 * 1_348, gsoSize: 1_348, packets: 2_000, batch: BULK_BATCH } as const
const SERVER_PORTS = [80, 81, 82, 83]
const CLIENT_PORTS = 50_000
/** Of the first row: a quarter more is what reads of memory that no cache holds may cost. */
const FLAT_MAX = 1.25
const anywhere = Uint8Array.of(0, 0, 0, 0)

/** Two hosts with so many flows open between them. */
class Pair {
  readonly #client: MemoryHost
  readonly #server: MemoryHost
  readonly #common
  #next = 0

  constructor(
    readonly link: MemoryLink,
    readonly flows: number,
  ) {
    const options = { flowCapacity: 4 * flows + 10_000 }
    this.#client = link.add(options)
    this.#server = link.add(options)
    const { host } = this.#client
    host.neighbours.hint(this.#server.id, locatorOf(this.#server.address), link.now)
    const service = this.#server.offer({ name: `web${flows}`, ports: SERVER_PORTS })
    link.until(() => host.directory.synced && host.catalogue.byName(`web${flows}`) !== undefined)
    const destination = host.addresses.dialledAddress({ kind: 'service', service }, 4)
    if (destination === undefined) throw new Error('no address')
    const ends = { source: host.addresses.self(4), destination, ports: [1, 1] as const }
    this.#common = { family: 4 as const, ...ends, partial: true }
    const syn = new Program(this.#client, tcpPacket({ ...this.#common, flags: SYN, mss: 1_460 }))
    const ack = new Program(this.#client, tcpPacket({ ...this.#common, flags: ACK }))
    const back = { ...this.#common, source: anywhere, destination: anywhere, flags: SYN | ACK, mss: 1_460 }
    const stub = new Program(this.#server, tcpPacket(back))
    for (let open = 0; open < flows; open += BATCH) {
      const numbers = Array.from({ length: Math.min(BATCH, flows - open) }, (_, i) => open + i)
      this.#send(syn, numbers)
      if (answer(this.#server, stub) !== numbers.length) throw new Error('a SYN did not arrive')
      link.deliver(this.#client)
      this.#client.written.clear()
      this.#send(ack, numbers)
      link.pass(2)
      this.#client.written.clear()
      this.#server.written.clear()
    }
  }

  /** µs of processor time a packet. */
  run({ payload, gsoSize, packets, batch }: Load): number {
    const bytes = new Array<number>(payload).fill(7)
    const packet = { ...this.#common, flags: ACK | PSH, payload: bytes }
    const program = new Program(this.#client, tcpPacket(gsoSize === undefined ? packet : { ...packet, gsoSize }))
    const { link } = this
    let sent = 0
    link.spent = 0
    for (; sent < packets; sent += batch) {
      this.#send(
        program,
        Array.from({ length: batch }, () => (this.#next = (this.#next + 7_919) % this.flows)),
      )
      if (this.#server.written.bytesAdded < batch * payload) throw new Error('a packet did not arrive')
      this.#server.written.clear()
    }
    const { spent } = link
    link.pass(1)
    for (const host of [this.#client, this.#server]) host.written.clear()
    return spent / sent
  }

  #send(program: Program, flows: readonly number[]): void {
    const { tunIn } = this.#client.host.dataPath
    program.begin()
    for (const flow of flows) {
      const at = program.add()
      tunIn.view.setUint16(at + TCP, 10_000 + (flow % CLIENT_PORTS))
      tunIn.view.setUint16(at + TCP + 2, SERVER_PORTS[Math.floor(flow / CLIENT_PORTS) % SERVER_PORTS.length]!)
    }
    program.send()
    this.link.deliver(this.#server)
  }
}

interface Load {
  readonly payload: number
  readonly gsoSize?: number
  readonly packets: number
  readonly batch: number
}

const { values } = parseArgs({
  options: { real: { type: 'boolean', default: false }, seconds: { type: 'string', default: '5' } },
})
if (values.real) {
  await enclosed()
  await scaleReal({ flows: FLOWS, seconds: Number(values.seconds), flatMax: FLAT_MAX })
  process.exit()
}
const sodium = await loadPrimitives()
const world = new HostWorld(sodium, 7, { realCrypto: true })
const newLink = () => new MemoryLink(world, (length) => sodium.randomBytes(length))
const setups = [
  ...FLOWS.map((flows, i) => {
    const pair = new Pair(newLink(), flows)
    return { what: `${flows} flows, both ends`, first: i === 0, run: (load: Load) => pair.run(load) }
  }),
  ...PEERS.map((peers, i) => {
    const ends = new FarEnds(newLink(), peers)
    return { what: `${peers} peers, one end`, first: i === 0, run: (load: Load) => ends.outward(load) }
  }),
]
const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!
const figures = setups.map(() => ({ small: [] as number[], bulk: [] as number[] }))
for (let round = -1; round < ROUNDS; round++) {
  for (const [i, { run }] of setups.entries()) {
    const small = run(SMALL)
    const bulk = (run(BULK) / BULK.payload) * 1e3
    // Code that runs for the first time is not what is measured.
    if (round < 0) continue
    figures[i]!.small.push(small)
    figures[i]!.bulk.push(bulk)
  }
}
const rows = setups.map(({ what, first }, i) => ({
  ...{ what, first },
  small: median(figures[i]!.small),
  bulk: median(figures[i]!.bulk),
}))
const targets = new Targets()
const results = rows.map(({ what, first, small, bulk }, i) => {
  const base = rows.slice(0, i + 1).findLast((row) => row.first)!
  const ratios = { small: small / base.small, bulk: bulk / base.bulk }
  if (!first) {
    targets.atMost(`${what}: a small packet, times that of ${base.what}`, ratios.small, FLAT_MAX)
    targets.atMost(`${what}: a byte in bulk, times that of ${base.what}`, ratios.bulk, FLAT_MAX)
  }
  return {
    what,
    'us a small packet': Number(small.toFixed(3)),
    ratio: Number(ratios.small.toFixed(2)),
    's a GB': Number(bulk.toFixed(3)),
    'ratio ': Number(ratios.bulk.toFixed(2)),
  }
})
console.table(results)
targets.print()
console.log(targets.judged.every(({ kept }) => kept) ? 'flat' : `not flat: a ratio is above ${FLAT_MAX}`)
console.log(JSON.stringify({ rounds: ROUNDS, flatMax: FLAT_MAX, results, targets: targets.judged }))
