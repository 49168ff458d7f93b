import type { Command } from 'commander'
import { print } from '../output.js'
import type { Finish } from '../program.js'

export function addDemo(program: Command, finish: Finish): void {
  program
    .command('demo')
    .description(
      'Build three hosts on this machine, serve, call by name, and move things under an open connection. Needs no root.',
    )
    .option('--keep', 'leave the hosts up for looking around')
    .action(async (options: { readonly keep?: boolean }) => {
      const { runDemo } = await import('../lab/demo.js')
      finish(await runDemo({ print, ...options }))
    })
}
