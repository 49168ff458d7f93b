import type { Command } from 'commander'
import { withDaemon } from '../daemon.js'
import { formatDuration, formatMs } from '../duration.js'
import { givenName, withReading, type ReadingOptions } from '../option.js'
import { print, printJson, printTable } from '../output.js'
import type { Finish } from '../program.js'

export function addPaths(program: Command, finish: Finish): void {
  withReading(program.command('paths'))
    .argument('[host]', 'only to this host', givenName)
    .description('List the underlay paths to other hosts, as our own probes found them.')
    .action(async (host: string | undefined, options: ReadingOptions) => {
      const answer = await withDaemon(options, (client) => client.call('paths', host === undefined ? {} : { host }))
      if (options.json) printJson(answer)
      else if (answer.paths.length === 0) print('no paths')
      else {
        printTable(
          ['HOST', 'LOCAL', 'REMOTE', 'STATE', 'USED', 'RTT', 'LOSS %', 'MTU', 'SINCE', 'WHY'],
          answer.paths.map(
            ({ host: name, local, remote, state, inUse, rttMs, lossPercent, mtu, changedMs, reason }) => [
              name,
              local,
              remote,
              state,
              inUse ? 'yes' : 'no',
              rttMs === null ? '-' : formatMs(rttMs),
              lossPercent === null ? '-' : Math.round(lossPercent),
              mtu,
              formatDuration(changedMs),
              reason,
            ],
          ),
        )
      }
      finish()
    })
}
