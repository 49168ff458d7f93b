// Programs of the system that the daemon runs to their end: `ip`, `nft`. Never a shell.

import { execFile } from 'node:child_process'

/** A program that could not be started, or ended with another status than 0. */
export class CommandError extends Error {
  override readonly name = 'CommandError'

  constructor(
    readonly program: string,
    /** Exit status; undefined: it did not start or was ended after the time limit. */
    readonly status: number | undefined,
    /** What it wrote to stderr, on one line. */
    readonly complaint: string,
    /** It is not installed. */
    readonly missing: boolean,
  ) {
    super(missing ? `${program} is not installed` : `${program}: ${complaint}`)
  }
}

/** How a program has ended, as plain data. */
export type CommandOutcome =
  { readonly output: string } | { readonly failure: Pick<CommandError, 'program' | 'status' | 'complaint' | 'missing'> }

/** Runs a program with `input` on its stdin; resolves with its stdout, rejects with a CommandError. */
export type CommandRunner = (program: string, args: readonly string[], input?: string) => Promise<string>

const LIMIT_MS = 20_000
const OUTPUT_MAX = 64 << 20

/** Finds system programs also where an ordinary user's PATH does not look; messages are not translated. */
export function systemEnvironment(): NodeJS.ProcessEnv {
  return { ...process.env, LC_ALL: 'C', PATH: `${process.env.PATH ?? '/usr/bin:/bin'}:/usr/sbin:/sbin:/usr/local/sbin` }
}

export const runCommand: CommandRunner = (program, args, input) =>
  new Promise((resolve, reject) => {
    const options = { env: systemEnvironment(), timeout: LIMIT_MS, maxBuffer: OUTPUT_MAX, encoding: 'utf8' } as const
    const child = execFile(program, args, options, (error, stdout, stderr) => {
      if (error === null) {
        resolve(stdout)
        return
      }
      const status = typeof error.code === 'number' ? error.code : undefined
      const complaint = stderr.trim().replace(/\s*\n\s*/g, '; ') || error.message
      reject(new CommandError(program, status, complaint, error.code === 'ENOENT'))
    })
    // A program that ends without reading its input is judged by its status.
    child.stdin?.on('error', () => undefined)
    child.stdin?.end(input ?? '')
  })

/** {@link runCommand} for another thread, which has the error as such by {@link outputOf}. */
export async function commandOutcome(...command: Parameters<CommandRunner>): Promise<CommandOutcome> {
  try {
    return { output: await runCommand(...command) }
  } catch (error) {
    if (!(error instanceof CommandError)) throw error
    const { program, status, complaint, missing } = error
    return { failure: { program, status, complaint, missing } }
  }
}

/** Throws CommandErrors. */
export function outputOf(outcome: CommandOutcome): string {
  if ('output' in outcome) return outcome.output
  const { program, status, complaint, missing } = outcome.failure
  throw new CommandError(program, status, complaint, missing)
}
