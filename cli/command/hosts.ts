import type { Command } from 'commander'
import { withDaemon } from '../daemon.js'
import { formatMs } from '../duration.js'
import { withReading, type ReadingOptions } from '../option.js'
import { printJson, printTable } from '../output.js'
import type { Finish } from '../program.js'

export function addHosts(program: Command, finish: Finish): void {
  withReading(program.command('hosts'))
    .description('List the hosts of the network.')
    .action(async (options: ReadingOptions) => {
      const answer = await withDaemon(options, (client) => client.call('hosts', {}))
      if (options.json) {
        printJson(answer)
        return finish()
      }
      printTable(
        ['HOST', 'STATE', 'RTT', 'REACHED AT', 'TAGS', 'ID'],
        answer.hosts.map(({ name, self, state, rttMs, session, locators, tags, id }) => [
          name,
          state,
          rttMs === null ? '-' : formatMs(rttMs),
          session?.remote ?? (self ? locators.join(' ') || '-' : '-'),
          tags.join(' ') || '-',
          id.slice(0, 16),
        ]),
      )
      finish()
    })
}
