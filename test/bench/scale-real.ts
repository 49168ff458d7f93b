// What a TCP stream gets through real daemons that have few or many flows open, and what it costs them: `npm run bench:scale -- --real [--seconds N]`. A pair of daemons for each number of flows,
// opened by syns.py and confirmed by both ends; the pairs are measured in turn, and each figure is the median over the rounds.

import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { collect } from '../../cli/lab/lab.js'
import { RealFlows } from './real-flows.js'
import { Targets } from './targets.js'

const ROUNDS = 5
const PORT = 5_201
const OPEN_RATE = 5_000
/** Opened in parts, so that what a busy machine lost is opened in another one. */
const PART = 20_000
/** Parts that may be needed beyond those that are enough when nothing is lost. */
const PARTS_MORE = 2
const shape = z.object({
  end: z.object({
    sum_received: z.object({ bytes: z.number(), bits_per_second: z.number() }),
    sum_sent: z.object({ retransmits: z.number() }),
  }),
})

export interface ScaleOptions {
  readonly flows: readonly number[]
  /** A stream lasts so long. */
  readonly seconds: number
  /** What the cost of a byte may be, times that of the first row. */
  readonly flatMax: number
}

export async function scaleReal({ flows, seconds, flatMax }: ScaleOptions): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'caracal-scale-'))
  const nets: RealFlows[] = []
  try {
    for (const [i, count] of flows.entries()) {
      const net = await RealFlows.up(join(folder, String(i)), `10.${83 + i}.0`, count + (PARTS_MORE + 1) * PART)
      nets.push(net)
      // The stream itself is one.
      await openAll(net, count - 1)
      await net.answered()
      const server = net.lab.spawn('h2', ['iperf3', '-s', '--forceflush', '-p', String(PORT)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      await once(server.stdout!, 'data')
      await net.expose('stream', PORT)
    }
    const rows = flows.map(() => [] as { mbps: number; cpu: number; retransmits: number }[])
    for (let round = -1; round < ROUNDS; round++) {
      for (const [i, net] of nets.entries()) {
        const before = await net.read()
        const words = ['iperf3', '-J', '-c', net.addressOf('stream'), '-p', String(PORT), '-t', String(seconds)]
        const { code, out } = await collect(net.lab.spawn('h1', words, { stdio: ['ignore', 'pipe', 'pipe'] }))
        if (code !== 0) throw new Error(`iperf3 ended with ${code}: ${out.slice(-500)}`)
        const used = (await net.read()).time - before.time
        const { sum_received: came, sum_sent: went } = shape.parse(JSON.parse(out)).end
        // The first round warms up: code is compiled for what it has seen.
        if (round < 0) continue
        const cpu = used / came.bytes
        rows[i]!.push({ mbps: came.bits_per_second / 1e6, cpu, retransmits: went.retransmits })
      }
    }
    report(flows, rows, flatMax, await Promise.all(nets.map(async (net) => (await net.read()).status[1]!.flows.open)))
  } finally {
    await Promise.all(nets.map((net) => net.down()))
    rmSync(folder, { recursive: true, force: true })
  }
}

async function openAll(net: RealFlows, count: number): Promise<void> {
  const parts = Math.ceil(count / PART) + PARTS_MORE
  let open = 0
  for (let part = 0; part < parts && open < count; part++)
    open += (await net.open(Math.min(PART, count - open), OPEN_RATE, true)).answered
  if (open < count) throw new Error(`${open} of ${count} flows are open: the machine is too busy`)
}

function report(
  flows: readonly number[],
  rows: readonly (readonly { mbps: number; cpu: number; retransmits: number }[])[],
  flatMax: number,
  open: readonly number[],
): void {
  const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[values.length >> 1]!
  const figures = rows.map((all) => ({
    mbps: median(all.map(({ mbps }) => mbps)),
    cpu: median(all.map(({ cpu }) => cpu)),
    retransmits: median(all.map(({ retransmits }) => retransmits)),
  }))
  const first = figures[0]!
  const targets = new Targets()
  const results = figures.map(({ mbps, cpu, retransmits }, i) => {
    const ratio = cpu / first.cpu
    if (i > 0) targets.atMost(`${flows[i]} flows: CPU of both daemons a GB, times that of ${flows[0]}`, ratio, flatMax)
    return {
      flows: flows[i]!,
      'open at h2': open[i]!,
      'Mbit/s': Math.round(mbps),
      'ratio ': Number((mbps / first.mbps).toFixed(2)),
      'CPU s a GB': Number(cpu.toFixed(3)),
      ratio: Number(ratio.toFixed(2)),
      retransmits,
    }
  })
  console.table(results)
  targets.print()
  console.log(JSON.stringify({ rounds: ROUNDS, flatMax, results, rows, targets: targets.judged }))
}
