import { CommanderError, type Command } from 'commander'
import { CaracalError, messageOf, type ErrorCode } from '../daemon/errors.js'

/** Exit status of the command. */
export const Status = { done: 0, couldNot: 1, badUsage: 2 } as const

/** What an action says about its end: nothing is done, else an exit status (also of a program that it ran). */
export type Outcome = number | void

/** What was typed can never work, whatever the state of the network. */
const usageErrors: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'CARACAL_E_USAGE',
  'CARACAL_E_FILTER',
  'CARACAL_E_NAME',
  'CARACAL_E_PORT',
])

/** The line for stderr and the exit status of whatever a command threw. undefined: nothing to say. */
export function describeFailure(
  error: unknown,
  program: Command,
  words: readonly string[],
): { line: string | undefined; status: number } {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return { line: undefined, status: Status.done }
    // help after a bare `caracal` is already on stderr
    if (error.code === 'commander.help') return { line: undefined, status: Status.badUsage }
    const what = messageOf(error)
      .replace(/^error: /, '')
      .replace(/\.$/, '')
    return { line: `caracal: ${what}: see \`${helpFor(program, words)}\``, status: Status.badUsage }
  }
  if (error instanceof CaracalError) {
    return {
      line: `caracal: ${messageOf(error)}`,
      status: usageErrors.has(error.code) ? Status.badUsage : Status.couldNot,
    }
  }
  const line = `caracal: unexpected failure (${messageOf(error)}): please report it with the command`
  return { line, status: Status.couldNot }
}

function helpFor(program: Command, words: readonly string[]): string {
  let command = program
  let path = 'caracal'
  for (const word of words) {
    const next = command.commands.find((candidate) => candidate.name() === word)
    if (next === undefined) continue
    command = next
    path += ` ${word}`
  }
  return `${path} --help`
}
