// What a daemon and its keeper say to each other: daemon/native/keeper/message.h has the same. Decoding is total: whatever comes is an answer or undefined.

import { utf8 } from '../../lib/wire/bytes.js'

const VERSION = 1
const NAME = /^[a-z0-9-]{1,31}$/
export const NOTE_MAX = 16_384
export const COMMANDS_MAX = 32
export const WORDS_MAX = 16
export const WORD_MAX = 1_024
/** Seconds. */
export const AFTER_MAX = 30 * 86_400

const Ask = { take: 1, hold: 2, release: 3, note: 4, plan: 5, state: 6, end: 7 } as const
const Answer = { held: 129, state: 130, done: 131, refused: 132 } as const
const refusals = ['malformed', 'busy', 'full'] as const
export type KeeperRefusal = (typeof refusals)[number]

/** When the keeper is to run commands: each once, so many seconds after the last daemon has gone. */
export const occasions = ['withdraw', 'giveUp'] as const
export type Occasion = (typeof occasions)[number]

/** A program and its arguments. */
export type KeeperCommand = readonly string[]

export interface KeeperState {
  readonly pid: number
  /** Daemons it has had. */
  readonly daemons: number
  readonly descriptors: number
  /** Commands that could not be started, or ended with another status than 0. */
  readonly failedCommands: number
  /** Messages and processes that it has turned away. */
  readonly refused: number
  /** It had been without a daemon for so long that it has run the commands of `withdraw`. */
  readonly withdrew: boolean
  readonly note: Uint8Array
}

export type KeeperAnswer =
  | { readonly kind: 'held'; readonly name: string }
  | ({ readonly kind: 'state' } & KeeperState)
  | { readonly kind: 'done' }
  | { readonly kind: 'refused'; readonly why: KeeperRefusal }

const STATE_NUMBERS = 6

export const takeRequest = (): Uint8Array => Uint8Array.of(VERSION, Ask.take)
export const stateRequest = (): Uint8Array => Uint8Array.of(VERSION, Ask.state)
export const endRequest = (): Uint8Array => Uint8Array.of(VERSION, Ask.end)
/** Goes with one descriptor, which replaces the one of that name. */
export const holdRequest = (name: string): Uint8Array => withName(Ask.hold, name)
export const releaseRequest = (name: string): Uint8Array => withName(Ask.release, name)

/** What the next daemon is told. Throws RangeError above NOTE_MAX bytes. */
export function noteRequest(note: Uint8Array): Uint8Array {
  if (note.length > NOTE_MAX) throw new RangeError(`a note of ${note.length} bytes`)
  return Uint8Array.of(VERSION, Ask.note, ...note)
}

/** Replaces the plan for this occasion. Throws RangeError for more than the keeper takes. */
export function planRequest(occasion: Occasion, afterSeconds: number, commands: readonly KeeperCommand[]): Uint8Array {
  if (!(afterSeconds >= 0 && afterSeconds <= AFTER_MAX)) throw new RangeError(`${afterSeconds} seconds`)
  if (commands.length > COMMANDS_MAX) throw new RangeError(`${commands.length} commands`)
  const bytes: number[] = [VERSION, Ask.plan, occasions.indexOf(occasion)]
  const seconds = Math.round(afterSeconds)
  for (let i = 0; i < 4; i++) bytes.push((seconds >>> (8 * i)) & 0xff)
  bytes.push(commands.length)
  for (const command of commands) {
    if (command.length < 1 || command.length > WORDS_MAX) throw new RangeError(`a command of ${command.length} words`)
    bytes.push(command.length)
    for (const word of command) {
      const text = utf8(word)
      if (text.length > WORD_MAX || text.includes(0)) throw new RangeError('a word that is no argument')
      bytes.push(text.length & 0xff, text.length >>> 8, ...text)
    }
  }
  return Uint8Array.from(bytes)
}

/** undefined: not a whole answer of this version. */
export function decodeAnswer(bytes: Uint8Array): KeeperAnswer | undefined {
  if (bytes.length < 2 || bytes[0] !== VERSION) return undefined
  const body = bytes.subarray(2)
  switch (bytes[1]) {
    case Answer.held: {
      const name = Buffer.from(body).toString('latin1')
      return NAME.test(name) ? { kind: 'held', name } : undefined
    }
    case Answer.done:
      return { kind: 'done' }
    case Answer.refused: {
      const why = refusals[(body[0] ?? 0) - 1]
      return why === undefined ? undefined : { kind: 'refused', why }
    }
    case Answer.state: {
      if (body.length < 4 * STATE_NUMBERS || body.length > 4 * STATE_NUMBERS + NOTE_MAX) return undefined
      const view = new DataView(body.buffer, body.byteOffset, body.byteLength)
      const number = (i: number) => view.getUint32(4 * i, true)
      return {
        kind: 'state',
        pid: number(0),
        daemons: number(1),
        descriptors: number(2),
        failedCommands: number(3),
        refused: number(4),
        withdrew: number(5) !== 0,
        note: body.slice(4 * STATE_NUMBERS),
      }
    }
    default:
      return undefined
  }
}

function withName(kind: number, name: string): Uint8Array {
  if (!NAME.test(name)) throw new RangeError(`not a name of what is held: ${name}`)
  return Uint8Array.of(VERSION, kind, ...utf8(name))
}
