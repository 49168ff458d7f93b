import { InvalidArgumentError, Option, type Command } from 'commander'
import {
  PRIORITY_MAX,
  WEIGHT_MAX,
  moveKinds,
  type HealthSpec,
  type MoveKind,
  type PortSpec,
} from '../../daemon/control/protocol.js'
import { HEALTH_FORM, PORT_FORM, formatPort, parseHealth, parsePortSpec } from '../../daemon/control/spec.js'
import { CaracalError } from '../../daemon/errors.js'
import { parseServiceName } from '../../lib/service/service-id.js'
import { withDaemon } from '../daemon.js'
import { wholeNumber, withReading, type ReadingOptions } from '../option.js'
import { note, print, printJson } from '../output.js'
import type { Finish } from '../program.js'

interface Options extends ReadingOptions {
  readonly tcp?: PortSpec[]
  readonly udp?: PortSpec[]
  readonly weight: number
  readonly priority: number
  readonly health: HealthSpec
  readonly move: MoveKind
  readonly proof?: string
}

const none: HealthSpec = { kind: 'none' }

export function addExpose(program: Command, finish: Finish): void {
  withReading(program.command('expose'))
    .argument('<name>', 'name of the service, such as web or api.shop')
    .description('Register a server of this host as an instance of a service. Once more for the same name replaces it.')
    .option(
      '--tcp <port[:local]>',
      'TCP port as dialled, and of the server when it is another; may be repeated',
      ports('tcp'),
    )
    .option('--udp <port[:local]>', 'UDP port, likewise', ports('udp'))
    .option('--weight <n>', 'share among instances of one priority (default: 1)', wholeNumber(0, WEIGHT_MAX), 1)
    .option('--priority <n>', 'lower is asked first (default: 0)', wholeNumber(0, PRIORITY_MAX), 0)
    .option('--health <check>', `how the server is checked: ${HEALTH_FORM}`, health, none)
    .addOption(new Option('--move <kind>', 'how the instance leaves').choices([...moveKinds]).default('drain'))
    .option('--proof <text>', 'for a self-certifying name (~…): what `caracal key proof` printed for this host')
    .action(async (text: string, options: Options) => {
      const name = parseServiceName(text)
      if (!('text' in name))
        throw new CaracalError('CARACAL_E_USAGE', name.problem, 'give a name such as web or api.shop')
      const listed = [...(options.tcp ?? []), ...(options.udp ?? [])]
      if (listed.length === 0) throw new CaracalError('CARACAL_E_USAGE', 'no port to expose', 'give --tcp or --udp')
      const { weight, priority, health, move, proof } = options
      const rest = { weight, priority, health, move, ...(proof === undefined ? {} : { proof }) }
      const request = { name: name.text, ports: listed, ...rest }
      const exposed = await withDaemon(options, (client) => client.call('expose', request))
      for (const warning of exposed.warnings) note(`caracal: warning: ${warning}`)
      if (options.json) {
        printJson(exposed)
        return finish()
      }
      const addresses = [exposed.dialled.v4, exposed.dialled.v6].filter(Boolean).join(', ')
      print(
        `${exposed.name} is exposed as ${exposed.domain} (${addresses}), port ${exposed.ports.map(formatPort).join(', ')}`,
      )
      finish()
    })
}

function ports(protocol: 'tcp' | 'udp') {
  return (text: string, before: readonly PortSpec[] | undefined): PortSpec[] => {
    const spec = parsePortSpec(protocol, text)
    if (spec === undefined) throw new InvalidArgumentError(`Expected ${PORT_FORM}.`)
    const twice = before?.some(({ port }) => port === spec.port)
    if (twice) throw new InvalidArgumentError(`Port ${spec.port} is given twice.`)
    return [...(before ?? []), spec]
  }
}

function health(text: string): HealthSpec {
  const spec = parseHealth(text)
  if (spec === undefined) throw new InvalidArgumentError(`Expected ${HEALTH_FORM}.`)
  return spec
}
