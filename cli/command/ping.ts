import type { Command } from 'commander'
import type { ControlClient } from '../../daemon/control/client.js'
import type { PingResponse } from '../../daemon/control/protocol.js'
import { untilInterrupted, withDaemon } from '../daemon.js'
import { formatMs } from '../duration.js'
import { Status } from '../exit.js'
import { givenName, timeSpan, wholeNumber, withReading, type ReadingOptions } from '../option.js'
import { print, printJsonLine } from '../output.js'
import type { Finish } from '../program.js'

interface Options extends ReadingOptions {
  readonly count: number
  readonly interval: number
  readonly timeout: number
}

export function addPing(program: Command, finish: Finish): void {
  withReading(program.command('ping'))
    .argument('<target>', 'name of a service or a host', givenName)
    .description(
      'Ask a host, or the host a new flow to the service would go to, and time its answer. Exit status 1 without any answer.',
    )
    .option('-c, --count <n>', 'how often (default: 4)', wholeNumber(1, 1_000_000), 4)
    .option('-i, --interval <time>', 'pause between (default: 1s)', timeSpan(10, 3_600_000), 1000)
    .option('-W, --timeout <time>', 'how long to wait for an answer (default: 2s)', timeSpan(1, 60_000), 2000)
    .action(async (target: string, options: Options) => {
      const times = await withDaemon(options, (client) =>
        untilInterrupted(({ signal }) => repeat(client, target, options, signal)),
      )
      const answers = times.filter((time) => time !== null)
      if (!options.json) summarise(times.length, answers)
      finish(answers.length > 0 ? Status.done : Status.couldNot)
    })
}

async function repeat(
  client: ControlClient,
  target: string,
  { count, interval, timeout: timeoutMs, json }: Options,
  signal: AbortSignal,
): Promise<(number | null)[]> {
  const times: (number | null)[] = []
  let before: PingResponse | undefined
  const stopped = new Promise<'stop'>((resolve) => signal.addEventListener('abort', () => resolve('stop')))
  for (let sequence = 0; sequence < count; sequence++) {
    const reply = await Promise.race([client.call('ping', { target, sequence, timeoutMs }), stopped])
    if (reply === 'stop') break
    times.push(reply.rttMs)
    if (json) printJsonLine(reply)
    else {
      const change = describeChange(before, reply)
      if (change !== undefined) print(change)
      print(describe(reply))
    }
    if (reply.remote !== null) before = reply
    if (sequence + 1 < count && (await Promise.race([after(interval), stopped])) === 'stop') break
  }
  return times
}

function after(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

function pathOf({ local, remote }: PingResponse): string {
  return `${local ?? ''} > ${remote ?? ''}`
}

/** That this ping went by another path than the one before, if it did. */
function describeChange(before: PingResponse | undefined, reply: PingResponse): string | undefined {
  if (before === undefined || reply.remote === null || pathOf(before) === pathOf(reply)) return undefined
  if (before.host !== reply.host) return `now to ${reply.host ?? 'nobody'}, before to ${before.host ?? 'nobody'}`
  return `the path is now ${pathOf(reply)}, before ${pathOf(before)}: ${reply.reason ?? 'not known why'}`
}

function describe(reply: PingResponse): string {
  const { sequence, host, remote, rttMs, detail } = reply
  const who = `${host ?? 'nobody'}${remote === null ? '' : ` by ${pathOf(reply)}`}`
  return rttMs === null
    ? `no answer from ${who}, seq ${sequence}: ${detail}`
    : `answer from ${who}, seq ${sequence}: ${formatMs(rttMs)}`
}

function summarise(asked: number, answers: readonly number[]): void {
  if (asked === 0) return
  const lost = Math.round(((asked - answers.length) / asked) * 100)
  const mean = answers.reduce((sum, time) => sum + time, 0) / answers.length
  const spread = [Math.min(...answers), mean, Math.max(...answers)].map(formatMs).join(' / ')
  const times = answers.length > 0 ? `, min / mean / max ${spread}` : ''
  print(`${asked} asked, ${answers.length} answered, ${lost} % lost${times}`)
}
