import type { Command } from 'commander'
import { withDaemon } from '../daemon.js'
import { givenName, withSocket, type SocketOption } from '../option.js'
import { counted, print } from '../output.js'
import type { Finish } from '../program.js'

export function addRevoke(program: Command, finish: Finish): void {
  withSocket(program.command('revoke'))
    .argument('<host>', 'name or ID of the host', givenName)
    .description('Shut a host out of the network for good. Its live flows are cut.')
    .action(async (host: string, options: SocketOption) => {
      const revoked = await withDaemon(options, (client) => client.call('revoke', { host }))
      print(`${revoked.name} (${revoked.id}) is revoked; ${counted(revoked.told, 'host')} told so far`)
      finish()
    })
}
