import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { z } from 'zod'
import { moveNames } from './moves.js'
import { cells, type Cell, type RunReport } from './run.js'

/** How often each stall was seen, by its ms in three digits: as much of a long list as its quantiles need. */
export class Spread {
  readonly #counts: Map<number, number>
  #total = 0

  constructor(counts: Iterable<readonly [number, number]> = []) {
    this.#counts = new Map(counts)
    for (const count of this.#counts.values()) this.#total += count
  }

  add(ms: number): void {
    const rounded = Number(ms < 1 ? ms.toFixed(2) : ms.toPrecision(3))
    this.#counts.set(rounded, (this.#counts.get(rounded) ?? 0) + 1)
    this.#total++
  }

  /** Nearest rank; NaN of nothing. */
  quantile(part: number): number {
    let left = Math.max(1, Math.ceil(this.#total * part))
    for (const [ms, count] of [...this.#counts].sort(([a], [b]) => a - b)) {
      left -= count
      if (left <= 0) return ms
    }
    return NaN
  }

  toJSON(): readonly (readonly [number, number])[] {
    return [...this.#counts]
  }
}

const spreadShape = z.array(z.tuple([z.number(), z.number()]))
const cellShape = z.object({
  runs: z.number(),
  failed: z.number(),
  moves: z.number(),
  resets: z.number(),
  sent: z.number(),
  lost: z.number(),
  refused: z.number(),
  tcp: spreadShape,
  udp: spreadShape,
})
const stateShape = z.object({
  version: z.literal(1),
  from: z.number(),
  next: z.number(),
  failures: z.array(z.number()),
  cells: z.record(z.string(), cellShape),
})

interface Counts {
  runs: number
  failed: number
  moves: number
  resets: number
  sent: number
  lost: number
  refused: number
  readonly tcp: Spread
  readonly udp: Spread
}

/** What many runs came to, cell by cell; kept in a file, so that a long series can be gone on with. */
export class Tally {
  /** Seed of the next run. */
  next: number
  readonly failures: number[] = []
  readonly #cells = new Map<string, Counts>()

  constructor(readonly from: number) {
    this.next = from
  }

  /** Throws for a file that is none of these. */
  static load(file: string): Tally {
    const state = stateShape.parse(JSON.parse(readFileSync(file, 'utf8')))
    const tally = new Tally(state.from)
    tally.next = state.next
    tally.failures.push(...state.failures)
    for (const [key, { tcp, udp, ...counts }] of Object.entries(state.cells))
      tally.#cells.set(key, { ...counts, tcp: new Spread(tcp), udp: new Spread(udp) })
    return tally
  }

  /** Whole or not at all. */
  save(file: string): void {
    const { from, next, failures } = this
    const state = { version: 1, from, next, failures, cells: Object.fromEntries(this.#cells) }
    writeFileSync(`${file}.new`, JSON.stringify(state))
    renameSync(`${file}.new`, file)
  }

  get runs(): number {
    return this.next - this.from
  }

  /** Of the run with the seed {@link next}. */
  add(report: RunReport): void {
    const counts = this.#counts(keyOf(report))
    this.next = report.seed + 1
    counts.runs++
    if (report.problems.length > 0) {
      counts.failed++
      this.failures.push(report.seed)
    }
    counts.moves += report.moves.length
    counts.resets += report.resets
    counts.sent += report.datagrams.sent
    counts.lost += report.datagrams.lost
    counts.refused += report.refused
    for (const { tcpMs, udpMs } of report.moves) {
      counts.tcp.add(tcpMs)
      counts.udp.add(udpMs)
    }
  }

  /** A line a cell that has runs, the heads first. */
  lines(): string[][] {
    const shown = (spread: Spread) => [0.5, 0.99, 1].map((part) => spread.quantile(part).toFixed(1)).join(' / ')
    const heads = ['move', 'RTT', 'loss', 'runs', 'moves', 'TCP p50/p99/max', 'UDP p50/p99/max', 'resets', 'lost']
    const byMove = cells.toSorted((a, b) => moveNames.indexOf(a.move) - moveNames.indexOf(b.move))
    const lines = byMove.flatMap((cell) => {
      const counts = this.#cells.get(keyOf(cell))
      if (counts === undefined) return []
      const { runs, moves, tcp, udp, resets, lost, sent, failed } = counts
      const numbers = [`${cell.rttMs}`, `${cell.loss * 100} %`, `${runs}`, `${moves}`]
      const end = [`${resets}`, `${lost} of ${sent}`, failed > 0 ? `${failed} failed` : '']
      return [[cell.move, ...numbers, shown(tcp), shown(udp), ...end]]
    })
    return [[...heads, ''], ...lines]
  }

  /** Frames of attackers, all refused unless a run failed. */
  get refused(): number {
    return [...this.#cells.values()].reduce((sum, { refused }) => sum + refused, 0)
  }

  #counts(key: string): Counts {
    let counts = this.#cells.get(key)
    if (counts === undefined) {
      const none = { runs: 0, failed: 0, moves: 0, resets: 0, sent: 0, lost: 0, refused: 0 }
      counts = { ...none, tcp: new Spread(), udp: new Spread() }
      this.#cells.set(key, counts)
    }
    return counts
  }
}

function keyOf({ move, rttMs, loss }: Cell): string {
  return `${move} ${rttMs} ${loss}`
}
