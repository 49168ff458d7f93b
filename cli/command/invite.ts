import type { Command } from 'commander'
import { TOKEN_USES_MAX } from '../../lib/wire/constants.js'
import { withDaemon } from '../daemon.js'
import { collect, timeSpan, wholeNumber, withReading, type ReadingOptions } from '../option.js'
import { counted, formatTime, print, printJson } from '../output.js'
import type { Finish } from '../program.js'

interface Options extends ReadingOptions {
  readonly tag?: string[]
  readonly expires: number
  readonly uses: number
}

const HOUR = 3_600_000

export function addInvite(program: Command, finish: Finish): void {
  withReading(program.command('invite'))
    .description(
      'Make a token with which another host joins: `caracal up --join TOKEN`. The token is the last line of the output.',
    )
    .option('--tag <tag>', 'tag of the host that joins; may be repeated', collect)
    .option(
      '--expires <time>',
      'how long the token is good, such as 10m or 7d (default: 1h)',
      timeSpan(1000, 366 * 24 * HOUR),
      HOUR,
    )
    .option('--uses <n>', 'how many hosts may join with it (default: 1)', wholeNumber(1, TOKEN_USES_MAX), 1)
    .action(async (options: Options) => {
      const request = { tags: options.tag ?? [], expiresMs: options.expires, uses: options.uses }
      const invite = await withDaemon(options, (client) => client.call('invite', request))
      if (options.json) {
        printJson(invite)
        return finish()
      }
      const tags = invite.tags.length > 0 ? ` with ${invite.tags.join(', ')}` : ''
      print(`joins ${counted(invite.uses, 'host')} to ${invite.network}${tags}, until ${formatTime(invite.expiresAt)}`)
      print(invite.token)
      finish()
    })
}
