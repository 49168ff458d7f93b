import { CaracalError, systemCode } from '../errors.js'
import { logLevels, type Log, type LogFields, type LogLevel } from '../log.js'

/** A log whose lines are written by another thread, so that a reader of stderr that is slow never holds this one up. */
export function threadLog(
  level: LogLevel,
  write: (level: Exclude<LogLevel, 'silent'>, fields: LogFields, text: string) => void,
  levelChanged: (level: LogLevel) => void,
): Log {
  const gate = { rank: logLevels.indexOf(level) }
  const made = (fixed: LogFields): Log => {
    const at = (name: Exclude<LogLevel, 'silent'>) => (fields: LogFields, text: string) => {
      if (gate.rank <= logLevels.indexOf(name)) write(name, plainFields({ ...fixed, ...fields }), text)
    }
    return {
      debug: at('debug'),
      info: at('info'),
      warn: at('warn'),
      error: at('error'),
      child: (fields) => made({ ...fixed, ...fields }),
      setLevel: (next) => {
        gate.rank = logLevels.indexOf(next)
        levelChanged(next)
      },
    }
  }
  return made({})
}

/** Errors as the log writes them, which a copy would strip of their codes. */
function plainFields(fields: LogFields): LogFields {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, plain(value)]))
}

function plain(value: unknown): unknown {
  if (!(value instanceof Error)) return value
  const { name: type, message, stack } = value
  const code = systemCode(value)
  const next = value instanceof CaracalError ? value.next : undefined
  return { type, message, ...(code === undefined ? {} : { code }), ...(next === undefined ? {} : { next }), stack }
}
