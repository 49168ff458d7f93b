import { Command } from 'commander'
import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { addDemo } from './command/demo.js'
import { addDoctor } from './command/doctor.js'
import { addDown } from './command/down.js'
import { addDump } from './command/dump.js'
import { addExpose } from './command/expose.js'
import { addFlows } from './command/flows.js'
import { addHosts } from './command/hosts.js'
import { addInvite } from './command/invite.js'
import { addLab } from './command/lab.js'
import { addPaths } from './command/paths.js'
import { addPing } from './command/ping.js'
import { addReload } from './command/reload.js'
import { addResolve } from './command/resolve.js'
import { addRevoke } from './command/revoke.js'
import { addServices } from './command/services.js'
import { addStatus } from './command/status.js'
import { addUnexpose } from './command/unexpose.js'
import { addUp } from './command/up.js'
import { describeFailure, Status, type Outcome } from './exit.js'
import { plain } from './output.js'

/** How a command tells its outcome. */
export type Finish = (outcome: Outcome) => void

const commands = [
  addUp,
  addDown,
  addStatus,
  addDoctor,
  addInvite,
  addRevoke,
  addExpose,
  addUnexpose,
  addServices,
  addResolve,
  addHosts,
  addPaths,
  addFlows,
  addPing,
  addDump,
  addReload,
  addDemo,
  addLab,
]

/** Version of the package. */
export function version(): string {
  // beside dist/ both in the checkout and when installed
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return z.object({ version: z.string() }).parse(JSON.parse(text)).version
}

/** Runs `caracal` with these words; resolves with the exit status, having said on stderr what went wrong. */
export async function runCli(words: readonly string[]): Promise<number> {
  let status: number = Status.done
  const finish: Finish = (outcome) => {
    status = outcome ?? Status.done
  }
  const program = new Command('caracal')
    .description('An overlay network that addresses services by name and keeps their connections while anything moves.')
    .version(version())
    .helpCommand('help [command]', 'explain a command')
    .enablePositionalOptions()
    .showSuggestionAfterError()
    .configureOutput({ outputError: () => undefined })
    .exitOverride()
  for (const add of commands) add(program, finish)
  try {
    await program.parseAsync(words, { from: 'user' })
    return status
  } catch (error) {
    const failure = describeFailure(error, program, words)
    if (failure.line !== undefined) process.stderr.write(`${plain(failure.line)}\n`)
    return failure.status
  }
}
