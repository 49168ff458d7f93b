// What it costs to open a flow through real daemons. SYNs of connections that differ go to h1's TUN at a steady rate, made by a program that is not counted, and are answered by
// another one at h2's TUN; counted is the processor time of both daemons, all threads, less what they use with nothing to do, and the frames that they send.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { RealFlows, type Reading, type Sent } from './real-flows.js'

const IDLE_MS = 5_000
const WARM_MIN = 20_000

/** At one rate; figures are medians over the rounds. */
export interface SetUps {
  /** SYNs a second. */
  readonly rate: number
  readonly perCpuSecond: number
  readonly cpuUs: number
  /** Of that, outside of the kernel. */
  readonly userUs: number
  readonly framesThere: number
  readonly framesBack: number
  /** µs of processor time a set-up. */
  readonly rounds: readonly number[]
  /** That were never answered; and answers that came again, as a daemon had asked again. */
  readonly lost: number
  readonly again: number
  /** Packets that found the queue of a TUN full, and answers that their receiver did not read in time. */
  readonly queueFull: number
  readonly unread: number
}

export interface SetUpsOptions {
  /** At each rate in each of the rounds. */
  readonly flows: number
  readonly rounds: number
  readonly rates: readonly number[]
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!

/** The rates are measured in turn, so that what else the machine does falls on all of them. Also returns what the daemons dropped meanwhile. */
export async function setUpsReal({ flows, rounds, rates }: SetUpsOptions) {
  const folder = mkdtempSync(join(tmpdir(), 'caracal-setups-'))
  const warm = Math.max(WARM_MIN, flows)
  const net = await RealFlows.up(folder, '10.81.0', warm + rounds * rates.length * flows)
  try {
    // Code that runs for the first time is not what is measured.
    await net.open(warm, rates[0]!, false)
    const quiet = await net.read()
    await new Promise((resolve) => setTimeout(resolve, IDLE_MS))
    const first = await net.read()
    const idle = between(quiet, first)
    const measured = rates.map(() => [] as Round[])
    for (let round = 0; round < rounds; round++) {
      for (const [i, rate] of rates.entries()) {
        const before = await net.read()
        const sent = await net.open(flows, rate, false)
        const used = between(before, await net.read())
        const each = (of: (one: Between) => number) =>
          Math.max(0, of(used) - (used.ms / idle.ms) * of(idle)) / sent.answered
        measured[i]!.push({
          ...sent,
          queueFull: used.queueFull,
          cpuUs: each(({ timeUs }) => timeUs),
          userUs: each(({ userUs }) => userUs),
          framesThere: each(({ there }) => there),
          framesBack: each(({ back }) => back),
        })
      }
    }
    const rows = measured.map((all, i): SetUps => {
      const middle = (of: (round: Round) => number) => median(all.map(of))
      const sum = (of: (round: Round) => number) => all.reduce((total, round) => total + of(round), 0)
      return {
        rate: rates[i]!,
        perCpuSecond: 1e6 / middle(({ cpuUs }) => cpuUs),
        cpuUs: middle(({ cpuUs }) => cpuUs),
        userUs: middle(({ userUs }) => userUs),
        framesThere: middle(({ framesThere }) => framesThere),
        framesBack: middle(({ framesBack }) => framesBack),
        rounds: all.map(({ cpuUs }) => cpuUs),
        lost: sum(({ sent, answered }) => sent - answered),
        again: sum(({ again }) => again),
        queueFull: sum(({ queueFull }) => queueFull),
        unread: sum(({ unread }) => unread),
      }
    })
    return { rows, drops: dropsBetween(first, await net.read()) }
  } finally {
    await net.down()
    rmSync(folder, { recursive: true, force: true })
  }
}

interface Round extends Sent {
  readonly queueFull: number
  readonly cpuUs: number
  readonly userUs: number
  readonly framesThere: number
  readonly framesBack: number
}
type Between = ReturnType<typeof between>

/** Processor time of both daemons, and the frames that each has sent. */
function between(from: Reading, to: Reading) {
  const frames = (i: number) => to.status[i]!.counters['wireFramesOut']! - from.status[i]!.counters['wireFramesOut']!
  return {
    ms: to.at - from.at,
    timeUs: (to.time - from.time) / 1e3,
    userUs: to.userUs - from.userUs,
    there: frames(0),
    back: frames(1),
    queueFull: to.queueFull - from.queueFull,
  }
}

/** By reason, of both daemons. */
function dropsBetween(from: Reading, to: Reading): Record<string, number> {
  const drops: Record<string, number> = {}
  for (const [i, { drops: now }] of to.status.entries()) {
    for (const [reason, count] of Object.entries(now)) {
      const dropped = count - (from.status[i]!.drops[reason] ?? 0)
      if (dropped > 0) drops[reason] = (drops[reason] ?? 0) + dropped
    }
  }
  return drops
}
