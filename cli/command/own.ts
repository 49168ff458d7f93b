import type { Command } from 'commander'
import { PRIORITY_MAX, WEIGHT_MAX, type NameInfo, type OwnResponse } from '../../daemon/control/protocol.js'
import { CaracalError } from '../../daemon/errors.js'
import { RANK_MAX } from '../../lib/wire/constants.js'
import { withDaemon } from '../daemon.js'
import { collect, givenName, wholeNumber, withReading, type ReadingOptions } from '../option.js'
import { counted, formatTime, print, printJson, printTable } from '../output.js'
import type { Finish } from '../program.js'

interface Options extends ReadingOptions {
  readonly tag?: string[]
  readonly host?: string[]
  readonly minPriority?: number
  readonly maxWeight?: number
  readonly free?: boolean
}

export function addOwn(program: Command, finish: Finish): void {
  withReading(program.command('own'))
    .argument('[name]', 'name of a service, for itself and all names below it, or "*" for all', givenName)
    .description(
      "Give a name to hosts, by the authority's word; others' registrations of it are ignored. Without a name: list whose the names are.",
    )
    .option('--tag <tag>', 'hosts with this tag; may be repeated', collect)
    .option('--host <host>', 'this host, by name or ID; may be repeated', collect)
    .option('--min-priority <n>', 'best priority that its instances have (default: 0)', wholeNumber(0, PRIORITY_MAX))
    .option('--max-weight <n>', 'largest weight that its instances have (default: any)', wholeNumber(0, WEIGHT_MAX))
    .option('--free', 'take the rule for the name back')
    .action(async (name: string | undefined, options: Options) => {
      const { tag: tags = [], host: hosts = [], minPriority, maxWeight, free = false } = options
      const given = tags.length + hosts.length > 0 || minPriority !== undefined || maxWeight !== undefined
      if (name === undefined) {
        if (given || free) throw usage('whose name is not said', 'give the name first: caracal own NAME --tag T')
        return finish(await list(options))
      }
      if (free && given) throw usage('--free goes with nothing else', 'leave out the other options')
      if (!free && !given) throw usage(`to whom ${name} belongs is not said`, 'give --tag, --host or --free')
      const request = { name, tags, hosts, free, minPriority: minPriority ?? 0, maxWeight: maxWeight ?? RANK_MAX }
      const owned = await withDaemon(options, (client) => client.call('own', request))
      if (options.json) printJson(owned)
      else print(`${outcome(owned)}; ${counted(owned.told, 'host')} told so far`)
      finish()
    })
}

async function list(options: Options): Promise<void> {
  const answer = await withDaemon(options, (client) => client.call('names', {}))
  if (options.json) return printJson(answer)
  const { names } = answer
  if (names.length === 0) return print('no names; `caracal expose` and `caracal own` make some')
  printTable(
    ['NAME', 'OWNERS', 'LIMITS', 'BY', 'SINCE', 'IGNORED'],
    names.map((info) => [
      info.name,
      info.by === 'key' ? '-' : owners(info),
      limits(info),
      says(info),
      formatTime(info.sinceAt === null ? null : Math.floor(info.sinceAt)),
      info.ignored.map(({ host }) => host).join(' ') || '-',
    ]),
  )
}

function outcome({ name, free, by, ...rule }: OwnResponse): string {
  const what = name === '*' ? 'every name without a rule of its own' : name
  if (free) return by === 'authority' ? `${what} is free` : `${what} is free, as far as this issuer has a say`
  const limit = limits(rule)
  return `${what} belongs to ${owners(rule)}${limit === '-' ? '' : ` (${limit})`}, by the ${by}'s word`
}

function owners({ tags, hosts }: Pick<NameInfo, 'tags' | 'hosts'>): string {
  const parts = [...tags.map((tag) => `tag ${tag}`), ...hosts.map((host) => `host ${host}`)]
  return parts.join(', ') || 'every member'
}

function limits({ minPriority, maxWeight }: Pick<NameInfo, 'minPriority' | 'maxWeight'>): string {
  const parts = [
    ...(minPriority === null || minPriority === 0 ? [] : [`priority >= ${minPriority}`]),
    ...(maxWeight === null || maxWeight === RANK_MAX ? [] : [`weight <= ${maxWeight}`]),
  ]
  return parts.join(', ') || '-'
}

function says({ name, by, rule, signer }: NameInfo): string {
  const above = rule === null || rule === name ? '' : ` for ${rule}`
  switch (by) {
    case 'authority':
      return `authority${above}`
    case 'issuer':
      return `issuer ${signer ?? '?'}${above}`
    case 'claim':
      return `first claim, of ${signer ?? '?'}`
    case 'key':
      return 'its key'
    case 'nobody':
      return '-'
  }
}

function usage(what: string, next: string): CaracalError {
  return new CaracalError('CARACAL_E_USAGE', what, next)
}
