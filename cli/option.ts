// Options that several commands share, and how their values are read. A value that is not of its form is bad usage, said with the form.

import { InvalidArgumentError, type Command } from 'commander'
import { DEFAULT_SOCKET } from '../daemon/control/line.js'
import { parseDuration } from './duration.js'

/** Options of every command that talks to the daemon. */
export interface SocketOption {
  readonly socket?: string
}
/** Options of every command that reads. */
export interface ReadingOptions extends SocketOption {
  readonly json?: boolean
}

export function withSocket(command: Command): Command {
  return command.option('--socket <path>', `control socket of the daemon (CARACAL_SOCKET, else ${DEFAULT_SOCKET})`)
}

export function withReading(command: Command): Command {
  return withSocket(command).option('--json', 'print JSON with stable field names')
}

/** Adds a value to an option that may be given more than once. */
export function collect(value: string, before: readonly string[] | undefined): string[] {
  return [...(before ?? []), value]
}

const NAME_MAX = 256

/** Reads a name of a service or a host; what it may consist of is checked where the zone is known. */
export function givenName(text: string): string {
  if (text.length > 0 && text.length <= NAME_MAX) return text
  throw new InvalidArgumentError(
    text === '' ? 'Expected a name, not nothing.' : `Expected a name of at most ${NAME_MAX} characters.`,
  )
}

/** Reads a whole number within bounds. */
export function wholeNumber(low: number, high: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
    if (value >= low && value <= high) return value
    throw new InvalidArgumentError(`Expected a whole number from ${low} to ${high}.`)
  }
}

/** Reads a time span within bounds, in ms. */
export function timeSpan(low: number, high: number): (text: string) => number {
  return (text) => {
    const value = parseDuration(text)
    if (value !== undefined && value >= low && value <= high) return value
    throw new InvalidArgumentError('Expected a time such as 250ms, 30s, 10m, 1h or 7d, within reason.')
  }
}
