// What a new flow costs, and what packets cost with many flows and many peers: `npm run bench:flows -- [FLOWS] [--rates N,N] [--rounds N] [--memory]`.
//
// First through two real daemons in namespaces (see setups-real.ts), unless --memory is given. Then with two real hosts with real sessions and the native codec, joined by memory:
// no sockets, no TUN, no kernel. Counted is the processor time of the whole process (garbage collection included) while it is inside a host; the programs' packets are made, and
// answered, outside of that. Prints tables, then what was to be reached, and last one line of JSON.

import { parseArgs } from 'node:util'
import { visitFlows } from '../../daemon/flow-pages.js'
import { Names } from '../../daemon/names.js'
import { flowView } from '../../daemon/views.js'
import { FlowTable, Row } from '../../lib/flow/flow-table.js'
import { loadPrimitives } from '../../daemon/node-primitives.js'
import { HostWorld } from '../sim/host-world.js'
import { locatorOf } from '../sim/underlay.js'
import { ACK, PSH, SYN, tcpPacket } from '../unit/flow/packets.js'
import { enclosed } from './enclosed.js'
import { FarEnds } from './far-ends.js'
import { MemoryLink } from './memory-link.js'
import { answer, BATCH, Program, TCP } from './program.js'
import { FLOWS_MAX } from './real-flows.js'
import { setUpsReal } from './setups-real.js'
import { Targets } from './targets.js'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rates: { type: 'string', default: '10000,20000,40000' },
    rounds: { type: 'string', default: '5' },
    memory: { type: 'boolean', default: false },
  },
})
const FLOWS = Number(positionals[0] ?? 100_000)
/** A second; of the real daemons, as the rounds. */
const RATES = values.rates.split(',').map(Number)
const REAL_ROUNDS = Number(values.rounds)
/** A requirement: of both daemons. */
const SET_UPS_MIN = 30_000
/** A message more in a hundred set-ups is one that was repeated because a daemon was not let run in time. */
const EXTRA_MAX = 0.01
if (!(FLOWS >= 20_000 && 2 * FLOWS <= FLOWS_MAX && RATES.every((rate) => rate > 0) && REAL_ROUNDS >= 1))
  throw new RangeError('FLOWS takes 20000 to 250000, --rates and --rounds numbers above 0')
const PACKETS = 200_000
const ROUNDS = 5
const PORTS = [80, 81, 82, 83, 84, 85, 86, 87]
const CLIENT_PORTS = 50_000
const PAYLOAD = 64
const results: Record<string, number> = {}
const targets = new Targets()
await enclosed()

function report(what: string, figures: Record<string, number>): void {
  for (const [name, value] of Object.entries(figures)) results[`${what}: ${name}`] = Number(value.toFixed(3))
  const text = Object.entries(figures).map(
    ([name, value]) => `${name} ${Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(2)}`,
  )
  console.log(`${what.padEnd(48)} ${text.join('   ')}`)
}
const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!

const sodium = await loadPrimitives()
const world = new HostWorld(sodium, 7, { realCrypto: true })
const newLink = () => new MemoryLink(world, (length) => sodium.randomBytes(length))
const capacity = 4 * FLOWS + 10_000
const anywhere = Uint8Array.of(0, 0, 0, 0)

async function twoHosts(): Promise<void> {
  const link = newLink()
  const client = link.add({ flowCapacity: capacity })
  const server = link.add({ flowCapacity: capacity })
  client.host.neighbours.hint(server.id, locatorOf(server.address), link.now)
  const service = server.offer({ name: 'web', ports: PORTS })
  link.until(() => client.host.directory.synced && client.host.catalogue.byName('web') !== undefined)
  const dialled = client.host.addresses.dialledAddress({ kind: 'service', service }, 4)
  if (dialled === undefined) throw new Error('no address')
  const self = client.host.addresses.self(4)
  const common = { family: 4 as const, source: self, destination: dialled, ports: [1, 1] as const, partial: true }
  const syn = new Program(client, tcpPacket({ ...common, flags: SYN, mss: 1460 }))
  const ack = new Program(client, tcpPacket({ ...common, flags: ACK }))
  // Pushed, so that each is a packet of its own to the end: nothing is coalesced with one flow and more with many.
  const data = new Program(
    client,
    tcpPacket({ ...common, flags: ACK | PSH, payload: new Array<number>(PAYLOAD).fill(7) }),
  )
  const stub = new Program(
    server,
    tcpPacket({ ...common, source: anywhere, destination: anywhere, flags: SYN | ACK, mss: 1460 }),
  )

  const address = (program: Program, flow: number): number => {
    const { tunIn } = client.host.dataPath
    const at = program.add()
    tunIn.view.setUint16(at + TCP, 10_000 + (flow % CLIENT_PORTS))
    tunIn.view.setUint16(at + TCP + 2, PORTS[Math.floor(flow / CLIENT_PORTS) % PORTS.length]!)
    return at
  }
  let open = 0
  const frames = () => client.framesSent + server.framesSent

  /** Opens so many flows; µs of processor time until the client's SYN-ACK, and of its acknowledgement. */
  const openFlows = (count: number) => {
    const times = { setUp: 0, acknowledge: 0, frames: 0, framesBack: 0, timers: 0 }
    for (const end = open + count; open < end;) {
      const first = open
      syn.begin()
      for (; open < end && open < first + BATCH; open++) {
        const at = address(syn, open)
        client.host.dataPath.tunIn.view.setUint32(at + TCP + 4, (open * 7919) >>> 0)
      }
      link.spent = 0
      const sent = client.framesSent
      const back = server.framesSent
      syn.send()
      link.deliver(server)
      const answered = answer(server, stub)
      link.deliver(client)
      times.setUp += link.spent
      times.frames += client.framesSent - sent
      times.framesBack += server.framesSent - back
      if (answered !== open - first || client.written.count !== open - first) {
        throw new Error(`${open - first} SYNs, ${answered} answered, ${client.written.count} answers`)
      }
      client.written.clear()
      link.spent = 0
      ack.begin()
      for (let flow = first; flow < open; flow++) {
        const at = address(ack, flow)
        client.host.dataPath.tunIn.view.setUint32(at + TCP + 4, (flow * 7919 + 1) >>> 0)
      }
      ack.send()
      link.deliver(server)
      times.acknowledge += link.spent
      server.written.clear()
      link.spent = 0
      link.pass(2)
      times.timers += link.spent
      client.written.clear()
      server.written.clear()
    }
    return times
  }

  /** Sends so many packets over all open flows in turn; µs of processor time at both ends, a packet. */
  const traffic = (count: number): number => {
    let flow = 0
    let arrived = 0
    link.spent = 0
    for (let sent = 0; sent < count; sent += BATCH) {
      data.begin()
      for (let i = 0; i < BATCH; i++) {
        flow = (flow + 7_919) % open
        address(data, flow)
      }
      data.send()
      link.deliver(server)
      arrived += server.written.count
      server.written.clear()
    }
    const { spent } = link
    link.pass(1)
    client.written.clear()
    server.written.clear()
    const sent = Math.ceil(count / BATCH) * BATCH
    if (arrived !== sent) throw new Error(`${arrived} of ${sent} packets arrived`)
    return spent / sent
  }

  // Code that runs for the first time is not what is measured.
  openFlows(1)
  traffic(50_000)
  const single = median(Array.from({ length: ROUNDS }, () => traffic(PACKETS)))
  openFlows(999)
  const thousand = median(Array.from({ length: ROUNDS }, () => traffic(PACKETS)))
  openFlows(9_000)
  globalThis.gc?.()
  const before = process.memoryUsage()
  const rounds: ReturnType<typeof openFlows>[] = []
  for (let round = 0; round < ROUNDS; round++) rounds.push(openFlows(Math.floor((FLOWS - 10_000) / ROUNDS)))
  globalThis.gc?.()
  const after = process.memoryUsage()
  const many = median(Array.from({ length: ROUNDS }, () => traffic(PACKETS)))
  const made = Math.floor((FLOWS - 10_000) / ROUNDS)
  const per = (pick: (times: ReturnType<typeof openFlows>) => number) =>
    median(rounds.map((times) => pick(times) / made))
  report('flow set-up, SYN to SYN-ACK, joined by memory', {
    'us cpu': per((t) => t.setUp),
    'a cpu second': 1e6 / per((t) => t.setUp),
    'frames there': per((t) => t.frames),
    'frames back': per((t) => t.framesBack),
  })
  report('with the acknowledgement and the timers', {
    'us cpu': per((t) => t.setUp + t.acknowledge + t.timers),
    'a cpu second': 1e6 / per((t) => t.setUp + t.acknowledge + t.timers),
    'us of the timers': per((t) => t.timers),
  })
  report(`memory with ${open} flows, both ends`, {
    'MB of heap': after.heapUsed / 1e6,
    'bytes of heap a flow': (after.heapUsed - before.heapUsed) / (open - 10_000),
    'bytes of table a flow and end': client.host.flows.table.bytes.length / client.host.flows.table.capacity,
    'MB resident': after.rss / 1e6,
  })
  report(`${PAYLOAD} B, one way, both ends, us cpu a packet`, {
    '1 flow': single,
    '1,000 flows': thousand,
    [`${open} flows`]: many,
  })
  const daemon = { host: client.host, names: new Names(client.host) }
  for (let round = 0; round < 3; round++) {
    const parts: number[] = []
    for (let from: number | undefined = 0; from !== undefined;) {
      const started = performance.now()
      const part: unknown[] = []
      from = visitFlows(client.host.flows, from, (flow) => part.push(flowView(daemon, flow)))
      structuredClone(part)
      parts.push(performance.now() - started)
    }
    const counting = performance.now()
    const counted = client.host.flows.counts.open
    const count = performance.now() - counting
    if (counted !== open) throw new Error(`${counted} of ${open} flows counted`)
    if (round < 2) continue
    report(`the list of ${open} flows, for another thread, ms`, {
      all: parts.reduce((sum, ms) => sum + ms, 0),
      'longest part': Math.max(...parts),
      parts: parts.length,
      'their number': count,
    })
  }
  if (client.host.flows.table.get(0, Row.peer) < 0 || frames() === 0) throw new Error('nothing was opened')
}

async function twoDaemons() {
  const { rows, drops } = await setUpsReal({
    flows: Math.floor(FLOWS / REAL_ROUNDS / RATES.length),
    rounds: REAL_ROUNDS,
    rates: RATES,
  })
  for (const { rate, cpuUs, userUs, perCpuSecond, framesThere, framesBack, lost, queueFull, unread, rounds } of rows) {
    report(`flow set-up, both daemons, ${rate} a second`, {
      'us cpu': cpuUs,
      'us of that outside the kernel': userUs,
      'a cpu second': perCpuSecond,
      'frames there': framesThere,
      'frames back': framesBack,
    })
    const each = rounds.map((us) => us.toFixed(1)).join(', ')
    console.log(
      `  rounds: ${each} us; ${lost} lost; the TUN's queue full ${queueFull} times, ${unread} answers not read`,
    )
    targets.atLeast(`flow set-ups a CPU-second of both daemons, ${rate} a second`, perCpuSecond, SET_UPS_MIN)
    targets.atMost('  messages of each end beyond one a set-up', Math.max(framesThere, framesBack) - 1, EXTRA_MAX)
    targets.atMost('  lost though the TUN had room', Math.max(0, lost - queueFull - unread), 0)
  }
  const dropped = Object.entries(drops).map(([reason, count]) => `${reason} ${count}`)
  console.log(`  dropped by the daemons: ${dropped.join(', ') || 'nothing'}`)
  return { rows, drops }
}

const real = values.memory ? undefined : await twoDaemons()
await twoHosts()
for (const peers of [1, 100, 1_000]) {
  const figures = new FarEnds(newLink(), peers).run(PACKETS / 2, ROUNDS, PAYLOAD)
  report(`1,000 flows, ${peers} peers, one end, us cpu`, {
    'a packet to the peers': figures.out,
    'a frame from them': figures.in,
  })
}
targets.atMost('MB of a table of a million flows', FlowTable.bytesFor(1_000_000) / 1e6, 256)
targets.print()
console.log(JSON.stringify({ flows: FLOWS, results, real, targets: targets.judged }))
process.exit()
