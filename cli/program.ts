import { Command } from 'commander'
import { version } from '../daemon/version.js'
import { describeFailure, Status, type Outcome } from './exit.js'
import { plain } from './output.js'

/** How a command tells its outcome. */
export type Finish = (outcome: Outcome) => void

/** In the order of the help. A command loads its own modules only: it starts faster, and the daemon stays small. */
const commands: Readonly<Record<string, () => Promise<(program: Command, finish: Finish) => void>>> = {
  up: async () => (await import('./command/up.js')).addUp,
  down: async () => (await import('./command/down.js')).addDown,
  status: async () => (await import('./command/status.js')).addStatus,
  doctor: async () => (await import('./command/doctor.js')).addDoctor,
  invite: async () => (await import('./command/invite.js')).addInvite,
  revoke: async () => (await import('./command/revoke.js')).addRevoke,
  expose: async () => (await import('./command/expose.js')).addExpose,
  unexpose: async () => (await import('./command/unexpose.js')).addUnexpose,
  own: async () => (await import('./command/own.js')).addOwn,
  key: async () => (await import('./command/key.js')).addKey,
  services: async () => (await import('./command/services.js')).addServices,
  resolve: async () => (await import('./command/resolve.js')).addResolve,
  rules: async () => (await import('./command/rules.js')).addRules,
  hosts: async () => (await import('./command/hosts.js')).addHosts,
  paths: async () => (await import('./command/paths.js')).addPaths,
  flows: async () => (await import('./command/flows.js')).addFlows,
  ping: async () => (await import('./command/ping.js')).addPing,
  dump: async () => (await import('./command/dump.js')).addDump,
  reload: async () => (await import('./command/reload.js')).addReload,
  demo: async () => (await import('./command/demo.js')).addDemo,
  lab: async () => (await import('./command/lab.js')).addLab,
}

/** Runs `caracal` with these words; resolves with the exit status, having said on stderr what went wrong. */
export async function runCli(words: readonly string[]): Promise<number> {
  let status: number = Status.done
  const finish: Finish = (outcome) => {
    status = outcome ?? Status.done
  }
  const program = new Command('caracal')
    .description('An overlay network that addresses services by name and keeps their connections while anything moves.')
    .version(version)
    .helpCommand('help [command]', 'explain a command')
    .enablePositionalOptions()
    .showSuggestionAfterError()
    .configureOutput({ outputError: () => undefined })
    .exitOverride()
  const [word = ''] = words
  const wanted = Object.hasOwn(commands, word) ? [commands[word]] : Object.values(commands)
  for (const load of wanted) (await load?.())?.(program, finish)
  try {
    await program.parseAsync(words, { from: 'user' })
    return status
  } catch (error) {
    const failure = describeFailure(error, program, words)
    if (failure.line !== undefined) process.stderr.write(`${plain(failure.line)}\n`)
    return failure.status
  }
}
