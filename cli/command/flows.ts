import { Option, type Command } from 'commander'
import { FLOWS_MAX, type FlowInfo, type WatchEvent } from '../../daemon/control/protocol.js'
import { untilInterrupted, withDaemon } from '../daemon.js'
import { formatDuration } from '../duration.js'
import { givenName, timeSpan, wholeNumber, withReading, type ReadingOptions } from '../option.js'
import { formatBytes, note, print, printJson, printJsonLine, printTable } from '../output.js'
import { formatClock } from '../clock.js'
import type { Finish } from '../program.js'

interface Options extends ReadingOptions {
  readonly watch?: boolean
  readonly interval: number
  readonly limit: number
  readonly service?: string
  readonly host?: string
  readonly protocol?: 'tcp' | 'udp' | 'icmp'
}

export function addFlows(program: Command, finish: Finish): void {
  withReading(program.command('flows'))
    .description('List the open flows of this host.')
    .option('--watch', 'go on, and print each flow that opens, changes or closes; with --json a line each')
    .option('--interval <time>', 'how often --watch looks (default: 1s)', timeSpan(100, 60_000), 1000)
    .option('--limit <n>', 'list no more (default: 1000)', wholeNumber(1, FLOWS_MAX), 1000)
    .option('--service <name>', 'only of this service', givenName)
    .option('--host <host>', 'only with this host', givenName)
    .addOption(new Option('--protocol <protocol>', 'only of this protocol').choices(['tcp', 'udp', 'icmp']))
    .action(async (options: Options) => {
      if (options.watch) await watch(options)
      else await list(options)
      finish()
    })
}

async function list(options: Options): Promise<void> {
  const { service, host, protocol, limit } = options
  const answer = await withDaemon(options, (client) => client.call('flows', { service, host, protocol, limit }))
  if (options.json) return printJson(answer)
  printTable(
    [
      'FLOW',
      'PROTO',
      'ROLE',
      'CLIENT',
      'SERVICE',
      'INSTANCE',
      'STATE',
      'AGE',
      'IDLE',
      'IN',
      'OUT',
      'PATH',
      'SINCE',
      'LOCAL',
    ],
    answer.flows.map((flow) => [
      flow.id,
      flow.protocol,
      flow.role,
      flow.client,
      flow.service,
      flow.instance,
      flow.state,
      formatDuration(flow.ageMs),
      formatDuration(flow.idleMs),
      formatBytes(flow.bytesIn),
      formatBytes(flow.bytesOut),
      flow.path,
      flow.pathMs === null ? '-' : formatDuration(flow.pathMs),
      `${flow.source} > ${flow.destination}`,
    ]),
  )
  if (answer.total > answer.flows.length) note(`${answer.total - answer.flows.length} more: see --limit`)
}

async function watch(options: Options): Promise<void> {
  const { service, host, protocol, interval: intervalMs, json } = options
  await withDaemon(options, (client) =>
    untilInterrupted(({ signal }) =>
      client.stream(
        'watch',
        { service, host, protocol, intervalMs },
        {
          event: (event) => (json ? printJsonLine(event) : print(formatChange(event))),
          lost: (count) => note(`${count} changes not shown: the output is slower than the flows`),
        },
        signal,
      ),
    ),
  )
}

function formatChange({ change, time, flow, from }: WatchEvent): string {
  return `${formatClock(time, 3)} ${change.padEnd(6)} ${describe(flow)}${from === undefined ? '' : describeMove(flow, from)}`
}

/** What was before, and since when it is as it is. */
function describeMove({ instance, pathMs }: FlowInfo, from: NonNullable<WatchEvent['from']>): string {
  const before = [
    ...(from.instance === instance ? [] : [from.instance ?? '?']),
    ...(from.path === null ? [] : [from.path]),
  ]
  return `, before ${before.join(' by ')}${pathMs === null ? '' : `, for ${formatDuration(pathMs)}`}`
}

function describe(flow: FlowInfo): string {
  const where = `${flow.service ?? 'host'}@${flow.instance ?? '?'}`
  const traffic = `in ${formatBytes(flow.bytesIn)} out ${formatBytes(flow.bytesOut)}`
  const path = flow.path === null ? '' : ` by ${flow.path}`
  return `${flow.id} ${flow.protocol} ${flow.client} > ${where} ${flow.state} ${traffic} (${flow.source} > ${flow.destination})${path}`
}
