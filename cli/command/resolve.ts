import type { Command } from 'commander'
import { withDaemon } from '../daemon.js'
import { givenName, withReading, type ReadingOptions } from '../option.js'
import { print, printJson, printPairs, printTable } from '../output.js'
import type { Finish } from '../program.js'
import { instanceCells, instanceHeadings } from './services.js'

export function addResolve(program: Command, finish: Finish): void {
  withReading(program.command('resolve'))
    .argument('<name>', 'such as web, web.at.h2, h2.host; with or without the zone', givenName)
    .description('Show what a name stands for, and where a new flow to it would go, in the order it would try.')
    .action(async (name: string, options: ReadingOptions) => {
      const answer = await withDaemon(options, (client) => client.call('resolve', { name }))
      if (options.json) {
        printJson(answer)
        return finish()
      }
      printPairs([
        ['name', answer.name],
        [answer.kind, answer.id],
        ['addresses', [answer.addresses.v4, answer.addresses.v6].filter(Boolean).join('  ') || '-'],
        ...(answer.pinned === null ? [] : ([['pinned to', answer.pinned]] as const)),
        ...(answer.obstacle === null ? [] : ([['obstacle', answer.obstacle]] as const)),
      ])
      if (answer.instances.length > 0) {
        print('')
        printTable(instanceHeadings, answer.instances.map(instanceCells))
      }
      finish()
    })
}
