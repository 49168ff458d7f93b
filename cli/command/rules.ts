import type { Command } from 'commander'
import type { RuleInfo } from '../../daemon/control/protocol.js'
import { withDaemon } from '../daemon.js'
import { formatDuration } from '../duration.js'
import { givenName, withReading, type ReadingOptions } from '../option.js'
import { print, printJson, printTable } from '../output.js'
import type { Finish } from '../program.js'

export function addRules(program: Command, finish: Finish): void {
  withReading(program.command('rules'))
    .argument('[name]', 'only rules that cover this service', givenName)
    .description('List the service table: where first packets go, the most specific names first.')
    .addHelpText(
      'after',
      `
Of the rules that are set (setting \`rules\`), those of the most specific name decide. They and the service's instances are used in the order of
their priorities, lowest first, a rule before an instance of the same priority; drop and delay end the list.`,
    )
    .action(async (name: string | undefined, options: ReadingOptions) => {
      const answer = await withDaemon(options, (client) => client.call('rules', name === undefined ? {} : { name }))
      if (options.json) printJson(answer)
      else if (answer.rules.length === 0) print('no rules: no service is known and none are set')
      else {
        printTable(
          ['NAME', 'BITS', 'ACTION', 'HOST', 'PRIO', 'WEIGHT', 'HITS', 'LAST HIT', 'BY'],
          answer.rules.map(row),
        )
      }
      finish()
    })
}

function row(rule: RuleInfo): (string | number | null)[] {
  const { name, prefix, length, action, host, priority, weight, hits, lastHitMs, by } = rule
  const last = lastHitMs === null ? '-' : `${formatDuration(lastHitMs)} ago`
  return [name ?? prefix, length, action, host, priority, weight, hits, last, by]
}
