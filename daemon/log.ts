// What the daemon's parts log with.

export const logLevels = ['debug', 'info', 'warn', 'error', 'silent'] as const
export type LogLevel = (typeof logLevels)[number]

/** What is worth knowing about an event, by stable field names. Never a key, a token or a payload. */
export type LogFields = Readonly<Record<string, unknown>>

/** Said in place of lines that were dropped, with their number in the field `lines`. */
export const LINES_MISSED =
  'lines of this log were dropped, as nobody took them in time: see what reads it, or set `log` to a higher level'

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
  /** Lines that were dropped since nobody took them in time, here and in all children. */
  readonly dropped: number
}

/** Writes nothing; for tests and for tools that have no log. */
export const noLog: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => noLog,
  setLevel: () => undefined,
  dropped: 0,
}
