import type { Command } from 'commander'
import { withDaemon } from '../daemon.js'
import { withReading, type ReadingOptions } from '../option.js'
import { note, print, printJson } from '../output.js'
import type { Finish } from '../program.js'

export function addReload(program: Command, finish: Finish): void {
  withReading(program.command('reload'))
    .description('Read the configuration again and put in force what can be without a restart (as SIGHUP does).')
    .action(async (options: ReadingOptions) => {
      const { changed, restart } = await withDaemon(options, (client) => client.call('reload', {}))
      if (options.json) printJson({ changed, restart })
      else print(changed.length > 0 ? `in force: ${changed.join(', ')}` : 'nothing has changed')
      if (restart.length > 0) note(`caracal: warning: needs a restart: ${restart.join(', ')}`)
      finish()
    })
}
