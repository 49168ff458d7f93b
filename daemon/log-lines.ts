import { native } from './native.js'

/** Bytes of lines that wait for whoever reads them; what is more is counted instead. */
const WAITING_MAX = 256 * 1024
/** A reader that takes nothing is looked at again after so long. */
const AGAIN_MS = 100

export interface LogLinesComponents {
  /** As Native has it. */
  readonly writeNow: (fd: number, bytes: Uint8Array) => number
  /** So many lines were dropped since this was called last: it may {@link LogLines.write} one that says so. */
  readonly missed: (lines: number) => void
}

/**
 * Lines on their way to a descriptor that others read: what has room is written before `write` returns, so that the last line before an end is there; but whoever does not read holds nobody up. Does not keep the
 * process alive.
 */
export class LogLines {
  #waiting: Uint8Array[] = []
  #bytes = 0
  #dropped = 0
  #told = 0
  #draining = false
  #timer: NodeJS.Timeout | undefined

  constructor(
    private readonly fd: number,
    private readonly components: LogLinesComponents,
  ) {}

  /** Lines that nobody took in time, or at all. */
  get dropped(): number {
    return this.#dropped
  }

  write(line: string): void {
    const bytes = Buffer.from(line)
    if (this.#bytes + bytes.length > WAITING_MAX) {
      this.#dropped++
      return
    }
    this.#waiting.push(bytes)
    this.#bytes += bytes.length
    if (this.#timer === undefined && !this.#draining) this.#drain()
  }

  #drain(): void {
    this.#draining = true
    try {
      while (this.#writeSome() && this.#dropped > this.#told) {
        const missed = this.#dropped - this.#told
        this.#told = this.#dropped
        this.components.missed(missed)
      }
    } catch {
      // Nobody will ever read it.
      this.#dropped += this.#waiting.length
      this.#told = this.#dropped
      this.#waiting = []
      this.#bytes = 0
    }
    this.#draining = false
    if (this.#waiting.length === 0) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#drain()
    }, AGAIN_MS)
    this.#timer.unref()
  }

  /** Whether all is written. */
  #writeSome(): boolean {
    let i = 0
    let line = this.#waiting[0]
    while (line !== undefined) {
      const taken = this.components.writeNow(this.fd, line)
      if (taken === 0) break
      this.#bytes -= taken
      line = taken < line.length ? line.subarray(taken) : this.#waiting[++i]
    }
    this.#waiting = line === undefined ? [] : [line, ...this.#waiting.slice(i + 1)]
    return line === undefined
  }
}

/** Lines to the file descriptor. */
export function logLines(fd: number, missed: LogLinesComponents['missed']): LogLines {
  return new LogLines(fd, { writeNow: (to, bytes) => native().writeNow(to, bytes), missed })
}
