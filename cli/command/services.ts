import type { Command } from 'commander'
import { SERVICES_MAX, type InstanceInfo, type ServiceInfo } from '../../daemon/control/protocol.js'
import { formatPort } from '../../daemon/control/spec.js'
import { withDaemon } from '../daemon.js'
import { formatMs } from '../duration.js'
import { givenName, wholeNumber, withReading, type ReadingOptions } from '../option.js'
import { note, print, printJson, printTable } from '../output.js'
import type { Finish } from '../program.js'

interface Options extends ReadingOptions {
  readonly limit: number
}

export function addServices(program: Command, finish: Finish): void {
  withReading(program.command('services'))
    .argument('[name]', 'only this service', givenName)
    .description('List the services of the network and their instances.')
    .option('--limit <n>', 'list no more (default: 1000)', wholeNumber(1, SERVICES_MAX), 1000)
    .action(async (name: string | undefined, options: Options) => {
      const { limit } = options
      const answer = await withDaemon(options, (client) =>
        client.call('services', name === undefined ? { limit } : { name, limit }),
      )
      if (options.json) printJson(answer)
      else if (answer.services.length === 0) print('no services; `caracal expose NAME --tcp PORT` makes one')
      else {
        printTable(['SERVICE', 'ADDRESS', ...instanceHeadings], answer.services.flatMap(rows))
        const more = answer.total - answer.services.length
        if (more > 0) note(`${more} more: see --limit, or name one`)
      }
      finish()
    })
}

function rows({ name, dialled, instances }: ServiceInfo): (string | number | null)[][] {
  const address = dialled.v4 ?? dialled.v6
  if (instances.length === 0) return [[name, address]]
  return instances.map((instance, i) => [i === 0 ? name : '', i === 0 ? address : '', ...instanceCells(instance)])
}

export const instanceHeadings = ['HOST', 'PORTS', 'STATE', 'PRIO', 'WEIGHT', 'FLOWS', 'RTT', 'HEALTH']

/** Cells under {@link instanceHeadings}. */
export function instanceCells(instance: InstanceInfo): (string | number | null)[] {
  const { host, self, ports, state, priority, weight, flows, rttMs, health } = instance
  const check = health.detail === '' ? health.kind : `${health.kind}: ${health.detail}`
  const listed = ports.map(formatPort).join(' ')
  return [
    self ? `${host} (here)` : host,
    listed,
    state,
    priority,
    weight,
    flows,
    rttMs === null ? '-' : formatMs(rttMs),
    check,
  ]
}
