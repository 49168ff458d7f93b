// The daemon's log: JSON lines on stderr, one event a line. Written synchronously, so that the last line before an end is there.

import { pino, destination, stdTimeFunctions } from 'pino'

export const logLevels = ['debug', 'info', 'warn', 'error', 'silent'] as const
export type LogLevel = (typeof logLevels)[number]

/** What is worth knowing about an event, by stable field names. Never a key, a token or a payload. */
export type LogFields = Readonly<Record<string, unknown>>

export interface Log {
  debug(fields: LogFields, message: string): void
  info(fields: LogFields, message: string): void
  warn(fields: LogFields, message: string): void
  /** `error` in the fields is written with its code, message and stack. */
  error(fields: LogFields, message: string): void
  /** A log that adds fields to every line; its level follows this one's. */
  child(fields: LogFields): Log
  /** Changes what is written, from now on, here and in all children. */
  setLevel(level: LogLevel): void
}

/** Logs to file descriptor `fd` (stderr). */
export function createLog(level: LogLevel, fields: LogFields = {}, fd = 2): Log {
  const root = pino(
    {
      level: 'trace',
      base: { ...fields },
      timestamp: stdTimeFunctions.isoTime,
      errorKey: 'error',
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: ['token', '*.token', 'secret', '*.secret'], censor: '(hidden)' },
    },
    destination({ dest: fd, sync: true }),
  )
  const gate = { rank: logLevels.indexOf(level) }
  return wrap(root, gate)
}

interface Sink {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
  child(fields: object): Sink
}

function wrap(sink: Sink, gate: { rank: number }): Log {
  return {
    debug: (fields, message) => void (gate.rank <= 0 && sink.debug(fields, message)),
    info: (fields, message) => void (gate.rank <= 1 && sink.info(fields, message)),
    warn: (fields, message) => void (gate.rank <= 2 && sink.warn(fields, message)),
    error: (fields, message) => void (gate.rank <= 3 && sink.error(fields, message)),
    child: (fields) => wrap(sink.child({ ...fields }), gate),
    setLevel: (level) => void (gate.rank = logLevels.indexOf(level)),
  }
}

/** Writes nothing; for tests and for tools that have no log. */
export const noLog: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => noLog,
  setLevel: () => undefined,
}
