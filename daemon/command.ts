// Programs of the system that the daemon runs to their end: `ip`, `nft`. Never a shell.

import { access, constants } from 'node:fs/promises'
import { isAbsolute, join } from 'node:path'
import { messageOf } from './errors.js'
import { native } from './native.js'

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

/** Runs a program with `input` on its stdin; resolves with its stdout, rejects with a CommandError. */
export type CommandRunner = (program: string, args: readonly string[], input?: string) => Promise<string>

const LIMIT_MS = 20_000
const OUTPUT_MAX = 64 << 20

/** Finds system programs also where an ordinary user's PATH does not look; messages are not translated. */
export function systemEnvironment(): NodeJS.ProcessEnv {
  return { ...process.env, LC_ALL: 'C', PATH: `${process.env.PATH ?? '/usr/bin:/bin'}:/usr/sbin:/sbin:/usr/local/sbin` }
}

/** Runs it for at most `limitMs`. This process is not forked for it, which would hold up packets. */
export async function runWithin(
  limitMs: number,
  program: string,
  args: readonly string[],
  input = '',
): Promise<string> {
  const environment = systemEnvironment()
  const path = await found(program, environment.PATH ?? '')
  if (path === undefined) throw new CommandError(program, undefined, 'it is not installed', true)
  const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`)
  const run = native().runProgram([path, ...args], variables, Buffer.from(input), limitMs, OUTPUT_MAX)
  const { status, signal, late, tooMuch, output, complaint } = await run.catch((error: unknown) => {
    throw new CommandError(program, undefined, messageOf(error), false)
  })
  if (status === 0 && !late && !tooMuch) return output
  const ended = late ? `it did not end within ${limitMs / 1000} s` : tooMuch ? 'it said too much' : undefined
  const why =
    ended ??
    (complaint.trim().replace(/\s*\n\s*/g, '; ') || `it ended with ${status < 0 ? `signal ${signal}` : status}`)
  throw new CommandError(program, status < 0 || ended !== undefined ? undefined : status, why, false)
}

export const runCommand: CommandRunner = (program, args, input) => runWithin(LIMIT_MS, program, args, input)

async function found(program: string, path: string): Promise<string | undefined> {
  for (const folder of path.split(':')) {
    const file = join(folder, program)
    if (!isAbsolute(file)) continue
    const isThere = await access(file, constants.X_OK).then(
      () => true,
      () => false,
    )
    if (isThere) return file
  }
  return undefined
}
