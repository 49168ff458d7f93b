import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { AskedProgram, monotonicNow } from '../net/moves/asked-program.js'
import { Crowd } from '../net/moves/crowd.js'
import { moveKinds, type Fault, type MoveKind, type MoveName } from '../net/moves/kinds.js'
import { MoveNet } from '../net/moves/move-net.js'
import { RECORD } from './moves-record.js'
import type { Gaps, StreamCommand, StreamState } from './moves-stream.js'

export interface RowOptions {
  /** Moves that the streams go through. */
  readonly moves: number
  /** Of the bare network, ms; the links are emulated where it is more than 0. */
  readonly rttMs: number
  /** Of 100 packets so many are lost each way, each by itself; the links are emulated where it is more than 0. */
  readonly lossPercent?: number
  /** The daemons' logs are kept there. */
  readonly logs?: string
  /** The streams' programs come before all else that runs: that one of them was not let run is no stall of the network. Needs root. */
  readonly first?: boolean
  /** The daemons' configuration has `loop.priority: real-time`. Needs root. */
  readonly realTime?: boolean
  readonly progress: (line: string) => void
}

/** ms */
export interface Spread {
  readonly p50: number
  readonly p99: number
  readonly max: number
}
export interface SlowMove {
  readonly number: number
  /** Wall time, as in the daemons' logs. */
  readonly at: string
  /** Longest gaps of client to server and back, nothing subtracted, ms. */
  readonly there: Gaps
  readonly back: Gaps
}
/** Windows without a move. */
export interface Baseline {
  /** Median of their longest gaps, ms. */
  readonly tcp: number
  readonly udp: number
  /** Median of the longest that a datagram was under way, ms. */
  readonly underWay: number
  /** Of TCP or UDP the longer, over the median: what would be found of a move that does nothing; and of being under way, likewise. */
  readonly over: Spread
  readonly underWayOver: Spread
  readonly windows: number
}
/** Of what is measured in a window, that is compared with windows without a move. */
type Measure = 'tcp' | 'udp' | 'underWay'

export interface RowReport {
  readonly row: MoveName
  readonly title: string
  readonly countedFrom: string
  /** Measured by ping over the bare network, ms. */
  readonly rttMs: number
  readonly lossPercent: number
  readonly targetMs: number
  readonly moves: number
  /** Moves that were not made as they should, by the bench's own fault, and made again. */
  readonly madeAgain: number
  /** Over the baseline; of the two directions the longer. */
  readonly tcp: Spread
  readonly udp: Spread
  /** The longest that a datagram was under way, likewise over the baseline: what the streams' own processes did not do in time is no part of it. */
  readonly underWay: Spread
  readonly baseline: Baseline
  /** Longest pause of the streams' own processes in each move's window. */
  readonly own: Spread
  readonly datagrams: {
    readonly sent: number
    readonly lost: number
    readonly mostLost: number
    /** Of those, at most, that had come to the program and did not fit into its socket's buffer: it did not read them in time. */
    readonly overflowed: number
    readonly twice: number
  }
  readonly sendErrors: number
  readonly resets: number
  readonly bytes: { readonly sent: number; readonly lost: number; readonly hashesAgree: boolean }
  readonly crowd: { readonly connections: number; readonly moves: number; readonly slowestMs: number }
  readonly slowest: readonly SlowMove[]
  /** What must never be, such as a reset. */
  readonly errors: readonly string[]
}

const SERVICE = 'paced'
const PORT = 9_400
const EVERY_MS = 1
/** A window without a move comes before each of so many moves. */
const BASELINE_EVERY = 3
const SETTLED_MS = 20_000
/** On links that lose packets TCP is behind by up to so much all the time. */
const LOSSY_BEHIND_MS = 2_000
const MADE_AGAIN_MAX = 20
const SLOWEST_KEPT = 5
const CROWD = { connections: 1_000, senders: 128 }
const CROWD_MOVES = 3
/** Words before those of a program that comes first. */
const FIRST = ['chrt', '--fifo', '1'] as const
const program = fileURLToPath(new URL('moves-stream.js', import.meta.url))
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)))

/** The paced streams between the first two hosts. */
export class Streams {
  private constructor(
    private readonly client: AskedProgram,
    private readonly server: AskedProgram,
  ) {}

  /** `first`: their programs come before all else that runs. */
  static async open(net: MoveNet, everyMs: number, first: boolean): Promise<Streams> {
    const [from = '', to = ''] = net.hosts
    const words = [...(first ? FIRST : []), process.execPath, program]
    const server = AskedProgram.onHost(net.lab, to, [...words, 'serve', String(everyMs), String(PORT)])
    try {
      await server.said()
      const ports = (['tcp', 'udp'] as const).map((protocol) => ({ protocol, port: PORT }))
      const name = await net.serve(SERVICE, to, ports)
      const client = AskedProgram.onHost(net.lab, from, [...words, 'open', String(everyMs), name, String(PORT)])
      await client.said().catch(async (error: unknown) => {
        await client.close()
        throw error
      })
      return new Streams(client, server)
    } catch (error) {
      await server.close()
      throw error
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.client.close(), this.server.close()])
  }

  /** Of client to server, and back: the gaps are the receivers'. */
  async gaps(from: number, to: number): Promise<{ there: Gaps; back: Gaps }> {
    await pause(to - monotonicNow())
    const [back, there] = await this.#both<Gaps>({ do: 'gaps', from, to })
    return { there, back }
  }

  state(): Promise<[client: StreamState, server: StreamState]> {
    return this.#both({ do: 'state' })
  }
  stop(): Promise<[client: StreamState, server: StreamState]> {
    return this.#both({ do: 'stop' })
  }

  /** Datagrams that have not come of those sent between two states. */
  async lost(since: readonly StreamState[], until: readonly StreamState[]): Promise<number> {
    const missing = async (receiver: AskedProgram, sender: number) => {
      const [from, to] = [since[sender]!.datagramsSent, until[sender]!.datagramsSent]
      return to - from - (await this.#ask<number>(receiver, { do: 'seen', from, to }))
    }
    return (await missing(this.server, 0)) + (await missing(this.client, 1))
  }

  /** undefined: all streams flow, and TCP has made up for what it was late with. Else what is not so. */
  async standing(since: number, rttMs: number, lossy = false): Promise<Fault> {
    const [client, server] = await this.state()
    const enough = RECORD * (rttMs + (lossy ? LOSSY_BEHIND_MS : 100))
    const way = (from: StreamState, to: StreamState, name: string) => {
      const behind = from.bytesSent - to.bytesReceived
      return [
        ...(to.tcpAt > since ? [] : [`nothing comes by TCP ${name}`]),
        ...(to.udpAt > since ? [] : [`nothing comes by UDP ${name}`]),
        ...(behind < enough ? [] : [`TCP ${name} is ${behind} bytes behind`]),
      ]
    }
    const wrong = [...way(client, server, 'there'), ...way(server, client, 'back')]
    return wrong.length === 0 ? undefined : wrong.join(', ')
  }

  #both<T>(command: StreamCommand): Promise<[T, T]> {
    return Promise.all([this.#ask<T>(this.client, command), this.#ask<T>(this.server, command)])
  }
  async #ask<T>(of: AskedProgram, command: StreamCommand): Promise<T> {
    const answer: T = JSON.parse(await of.ask(JSON.stringify(command)))
    return answer
  }
}

export const overflowsOf = (ends: readonly StreamState[]): number => ends.reduce((sum, end) => sum + end.overflowed, 0)

/** Makes the moves of one kind under the streams, then some under the crowd. */
export async function measure(row: MoveName, options: RowOptions): Promise<RowReport> {
  const kind: MoveKind = moveKinds[row]
  const { rttMs, lossPercent = 0, logs, progress } = options
  const folder = mkdtempSync(join(tmpdir(), 'caracal-moves-'))
  const config = join(folder, 'settings.yaml')
  if (options.realTime === true) writeFileSync(config, 'loop: { priority: real-time }\n')
  const net = await MoveNet.up({
    ...(options.realTime === true ? { upArguments: () => ['--config', config] } : {}),
    directory: join(folder, 'lab'),
    ...kind.net,
    // A round trip passes two links twice.
    ...(rttMs > 0 || lossPercent > 0
      ? { link: { delayMs: rttMs / 4, loss: 1 - Math.sqrt(1 - lossPercent / 100) } }
      : {}),
  })
  try {
    const measured = net.roundTrip()
    progress(`${row}: RTT ${measured.toFixed(2)} ms`)
    const streamed = await throughStreams(net, kind, measured, options)
    const crowd = await throughCrowd(net, kind, streamed.errors.length === 0 ? CROWD_MOVES : 0)
    const { title, countedFrom } = kind
    return {
      row,
      title,
      countedFrom,
      rttMs: measured,
      lossPercent,
      targetMs: kind.target(measured),
      ...streamed,
      crowd: { connections: CROWD.connections, moves: crowd.moves, slowestMs: crowd.slowestMs },
      errors: [...streamed.errors, ...crowd.errors],
    }
  } finally {
    if (logs !== undefined)
      keepLogs(net, join(logs, lossPercent > 0 ? `${row}-${rttMs}-${lossPercent}` : `${row}-${rttMs}`))
    await net.close()
    rmSync(folder, { recursive: true, force: true })
  }
}

type Streamed = Omit<RowReport, 'row' | 'title' | 'countedFrom' | 'rttMs' | 'lossPercent' | 'targetMs' | 'crowd'>

async function throughStreams(net: MoveNet, kind: MoveKind, rttMs: number, options: RowOptions): Promise<Streamed> {
  const streams = await Streams.open(net, EVERY_MS, options.first === true)
  const { windowMs } = kind
  const lossy = (options.lossPercent ?? 0) > 0
  const quiet: Record<Measure, number>[] = []
  const moved: SlowMove[] = []
  const lost: number[] = []
  let overflowed = 0
  const errors: string[] = []
  let madeAgain = 0
  const settle = async () => {
    const since = monotonicNow()
    let wrong: Fault
    if (await net.within(SETTLED_MS, async () => (wrong = await streams.standing(since, rttMs, lossy)) === undefined))
      return true
    errors.push(`after ${moved.length} moves the streams did not flow again within ${SETTLED_MS} ms: ${wrong}`)
    return false
  }
  try {
    for (let number = 0; number < options.moves;) {
      const unprepared = await kind.prepare?.(net)
      if (unprepared !== undefined) {
        errors.push(`before move ${number}: ${unprepared}`)
        break
      }
      if (!(await settle())) break
      if (number % BASELINE_EVERY === 0) {
        const from = monotonicNow()
        quiet.push(larger(await streams.gaps(from, from + windowMs)))
      }
      const before = await streams.state()
      const at = new Date().toISOString()
      const { from, fault, unfit, check } = await kind.make(net, number)
      const gaps = await streams.gaps(from, from + windowMs)
      const until = await streams.state()
      if (!(await settle())) break
      // What was under way.
      await pause(rttMs + 200)
      const missing = await streams.lost(before, until)
      const unread = overflowsOf(await streams.state()) - overflowsOf(before)
      if (unfit !== undefined) {
        if (++madeAgain > MADE_AGAIN_MAX) throw new Error(`${unfit}, ${madeAgain} times`)
        continue
      }
      const wrong = fault ?? (await check?.())
      if (wrong !== undefined) errors.push(`move ${number}: ${wrong}`)
      moved.push({ number, at, ...gaps })
      lost.push(missing)
      overflowed += Math.min(unread, missing)
      number++
      const { tcp, udp } = larger(gaps)
      options.progress(`  ${number}: TCP ${tcp.toFixed(1)}, UDP ${udp.toFixed(1)} ms, ${missing} datagrams lost, ${at}`)
      const resets = (await streams.state()).flatMap((end) => end.resets)
      if (resets.length > 0) break
    }
    let ends = await streams.stop()
    const all = () => ends[0].bytesSent === ends[1].bytesReceived && ends[1].bytesSent === ends[0].bytesReceived
    await net.within(SETTLED_MS, async () => ((ends = await streams.state()), all()))
    const [client, server] = ends
    const resets = ends.flatMap((end) => end.resets)
    if (resets.length > 0) errors.push(`the connection was cut: ${resets.join(', ')}`)
    const hashesAgree = client.hashSent === server.hashReceived && server.hashSent === client.hashReceived
    if (!hashesAgree) errors.push('what came by TCP is not what was sent')
    const baseline = baselineOf(quiet)
    const over = (of: Measure) => spread(moved.map((move) => Math.max(0, larger(move)[of] - baseline[of])))
    const longest = (move: SlowMove) => Math.max(larger(move).tcp, larger(move).udp)
    const sum = (of: (end: StreamState) => number) => of(client) + of(server)
    return {
      moves: moved.length,
      madeAgain,
      tcp: over('tcp'),
      udp: over('udp'),
      underWay: over('underWay'),
      baseline,
      own: spread(moved.map(({ there, back }) => Math.max(there.own, back.own))),
      datagrams: {
        sent: sum((end) => end.datagramsSent),
        lost: lost.reduce((all, one) => all + one, 0),
        mostLost: Math.max(0, ...lost),
        overflowed,
        twice: sum((end) => end.datagramsTwice),
      },
      sendErrors: sum((end) => end.sendErrors),
      resets: resets.length,
      bytes: { sent: sum((end) => end.bytesSent), lost: sum((end) => end.bytesSent - end.bytesReceived), hashesAgree },
      slowest: moved.toSorted((a, b) => longest(b) - longest(a)).slice(0, SLOWEST_KEPT),
      errors,
    }
  } finally {
    await streams.close()
  }
}

async function throughCrowd(net: MoveNet, kind: MoveKind, moves: number) {
  const errors: string[] = []
  let slowestMs = 0
  if (moves === 0) return { moves, slowestMs, errors }
  const crowd = await Crowd.open(net, CROWD)
  try {
    for (let n = 0; n < moves; n++) {
      const unprepared = await kind.prepare?.(net)
      const report = await crowd.through(() => kind.make(net, n), SETTLED_MS)
      slowestMs = Math.max(slowestMs, report.slowestMs)
      errors.push(...report.errors, ...(unprepared === undefined ? [] : [unprepared]))
    }
    return { moves, slowestMs, errors }
  } finally {
    await crowd.close()
  }
}

function baselineOf(windows: readonly Readonly<Record<Measure, number>>[]): Baseline {
  const median = (of: Measure) =>
    quantile(
      windows.map((window) => window[of]),
      0.5,
    )
  const [tcp, udp, underWay] = [median('tcp'), median('udp'), median('underWay')]
  const over = spread(windows.map((window) => Math.max(0, window.tcp - tcp, window.udp - udp)))
  const underWayOver = spread(windows.map((window) => Math.max(0, window.underWay - underWay)))
  return { tcp, udp, underWay, over, underWayOver, windows: windows.length }
}

function larger({ there, back }: { there: Gaps; back: Gaps }): Record<Measure, number> {
  const of = (measure: Measure) => Math.max(there[measure], back[measure])
  return { tcp: of('tcp'), udp: of('udp'), underWay: of('underWay') }
}

/** Nearest rank; NaN of nothing. */
function quantile(values: readonly number[], part: number): number {
  return values.toSorted((a, b) => a - b)[Math.max(0, Math.ceil(values.length * part) - 1)] ?? NaN
}

function spread(values: readonly number[]): Spread {
  return { p50: quantile(values, 0.5), p99: quantile(values, 0.99), max: quantile(values, 1) }
}

function keepLogs(net: MoveNet, folder: string): void {
  mkdirSync(folder, { recursive: true })
  for (const { name } of net.lab.hosts) copyFileSync(net.lab.path(name, 'daemon.log'), join(folder, `${name}.log`))
}
