import type { Command } from 'commander'
import { withDaemon } from '../daemon.js'
import { givenName, withSocket, type SocketOption } from '../option.js'
import { counted, print } from '../output.js'
import type { Finish } from '../program.js'

export function addUnexpose(program: Command, finish: Finish): void {
  withSocket(program.command('unexpose'))
    .argument('<name>', 'name of the service', givenName)
    .description("Withdraw this host's instance of a service. Open flows end by themselves.")
    .action(async (name: string, options: SocketOption) => {
      const gone = await withDaemon(options, (client) => client.call('unexpose', { name }))
      print(
        `${gone.name} is no longer exposed here${gone.flows > 0 ? `; ${counted(gone.flows, 'open flow')} go on` : ''}`,
      )
      finish()
    })
}
