import { CaracalError, systemCode } from '../errors.js'
import { LINES_MISSED, logLevels, type Log, type LogFields, type LogLevel } from '../log.js'

/** Lines under way to the other thread; what is more is counted instead. */
const UNDER_WAY_MAX = 256

type Write = (level: Exclude<LogLevel, 'silent'>, fields: LogFields, text: string) => void

/** Lines on their way to the thread that writes them, never more than it keeps up with. */
class LinesUnderWay {
  #count = 0
  #missed = 0
  #told = 0
  #droppedThere = 0

  constructor(private readonly write: Write) {}

  get dropped(): number {
    return this.#missed + this.#droppedThere
  }

  add(...line: Parameters<Write>): void {
    if (this.#count >= UNDER_WAY_MAX) {
      this.#missed++
      return
    }
    this.#count++
    this.write(...line)
  }

  taken(count: number, droppedThere: number): void {
    this.#count -= count
    this.#droppedThere = droppedThere
    const lines = this.#missed - this.#told
    if (lines === 0 || this.#count >= UNDER_WAY_MAX) return
    this.#told = this.#missed
    this.add('warn', { lines }, LINES_MISSED)
  }
}

export interface ThreadLog extends Log {
  /** The other thread has dealt with so many lines, and dropped so many in all. */
  taken(count: number, dropped: number): void
}

/** A log whose lines are written by another thread, so that a reader of stderr that is slow never holds this one up. */
export function threadLog(level: LogLevel, write: Write, levelChanged: (level: LogLevel) => void): ThreadLog {
  const lines = new LinesUnderWay(write)
  const gate = { rank: logLevels.indexOf(level) }
  const made = (fixed: LogFields): Log => {
    const at = (name: Exclude<LogLevel, 'silent'>) => (fields: LogFields, text: string) => {
      if (gate.rank <= logLevels.indexOf(name)) lines.add(name, plainFields({ ...fixed, ...fields }), text)
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
      get dropped() {
        return lines.dropped
      },
    }
  }
  const log = made({})
  return {
    ...log,
    taken: (count, dropped) => lines.taken(count, dropped),
    get dropped() {
      return lines.dropped
    },
  }
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
