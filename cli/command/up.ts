import { readFileSync } from 'node:fs'
import { Option, type Command } from 'commander'
import type { ConfigSources } from '../../daemon/config.js'
import { CaracalError } from '../../daemon/errors.js'
import { collect } from '../option.js'
import type { Finish } from '../program.js'

interface Options {
  readonly create?: string
  readonly join?: string
  readonly config?: string
  readonly printConfig?: boolean
  readonly state?: string
  readonly socket?: string
  readonly name?: string
  readonly listen?: string[]
  readonly tun?: string
  readonly dns?: string
  readonly log?: string
  readonly replace?: boolean
}

export function addUp(program: Command, finish: Finish): void {
  program
    .command('up')
    .description(
      'Run the daemon of this host in the foreground. Without --create or --join: in the network of its state folder.',
    )
    .addOption(
      new Option('--create <network>', 'create a network of this name, with this host as its first').conflicts('join'),
    )
    .addOption(new Option('--join <token>', 'join with a token of `caracal invite`; - reads it from stdin'))
    .option('--config <file>', 'YAML file with settings')
    .option('--print-config', 'print a configuration that explains every setting, and exit')
    .option('--state <dir>', 'folder of keys and memberships (CARACAL_STATE, else /var/lib/caracal)')
    .option('--socket <path>', 'control socket (CARACAL_SOCKET, else /run/caracal.sock)')
    .option('--name <host>', "name of this host in the network (default: the machine's)")
    .option('--listen <addr:port>', 'underlay UDP address; may be repeated', collect)
    .option('--tun <name>', 'name of the TUN device')
    .option('--dns <mode>', 'how programs find our names: auto, resolved, none or file:PATH')
    .option('--log <level>', 'what is logged, as JSON on stderr: debug, info, warn, error or silent')
    .option('--replace', 'take over from the daemon that runs, if one does: open connections go on')
    .action(async (options: Options) => {
      // the daemon's modules are loaded by this command only: all others start faster without
      if (options.printConfig) {
        const { defaultConfigText } = await import('../../daemon/config-example.js')
        process.stdout.write(defaultConfigText())
        return finish()
      }
      const { create, join, config: file, state, socket, name, listen, tun, dns, log } = options
      const environment = { CARACAL_SOCKET: process.env['CARACAL_SOCKET'], CARACAL_STATE: process.env['CARACAL_STATE'] }
      const sources: ConfigSources = { file, options: { state, socket, name, listen, tun, dns, log }, environment }
      const { runDaemon } = await import('../../daemon/main.js')
      const token = join === '-' ? tokenFromStdin() : join
      finish(await runDaemon({ sources, create, join: token, replace: options.replace === true }))
    })
}

function tokenFromStdin(): string {
  const token = readFileSync(0, 'utf8').trim()
  if (token !== '') return token
  throw new CaracalError(
    'CARACAL_E_USAGE',
    'there is no token on stdin',
    'pipe the last line of `caracal invite` into it',
  )
}
