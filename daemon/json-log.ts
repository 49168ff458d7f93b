// The daemon's log: JSON lines on stderr, one event a line. Written at once where there is room, see log-lines.ts.

import { pino, stdTimeFunctions } from 'pino'

import { logLines, type LogLines } from './log-lines.js'
import { LINES_MISSED, logLevels, type Log, type LogFields, type LogLevel } from './log.js'

/** Logs to file descriptor `fd` (stderr). */
export function createLog(level: LogLevel, fields: LogFields = {}, fd = 2): Log {
  const lines = logLines(fd, (missed) => root.warn({ lines: missed }, LINES_MISSED))
  const root = pino(
    {
      level: 'trace',
      base: { ...fields },
      timestamp: stdTimeFunctions.isoTime,
      errorKey: 'error',
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: ['token', '*.token', 'secret', '*.secret'], censor: '(hidden)' },
    },
    lines,
  )
  const gate = { rank: logLevels.indexOf(level) }
  return wrap(root, gate, lines)
}

interface Sink {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
  child(fields: object): Sink
}

function wrap(sink: Sink, gate: { rank: number }, lines: Pick<LogLines, 'dropped'>): Log {
  return {
    debug: (fields, message) => void (gate.rank <= 0 && sink.debug(fields, message)),
    info: (fields, message) => void (gate.rank <= 1 && sink.info(fields, message)),
    warn: (fields, message) => void (gate.rank <= 2 && sink.warn(fields, message)),
    error: (fields, message) => void (gate.rank <= 3 && sink.error(fields, message)),
    child: (fields) => wrap(sink.child({ ...fields }), gate, lines),
    setLevel: (level) => void (gate.rank = logLevels.indexOf(level)),
    get dropped() {
      return lines.dropped
    },
  }
}
