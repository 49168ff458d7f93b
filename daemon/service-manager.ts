// What the daemon tells the service manager that started it (systemd's protocol, sd_notify(3)): that it is ready, reloading or stopping, one line
// about its state, and, at half the watchdog's time, that its event loop turns. Without NOTIFY_SOCKET nothing of this happens.

import { noLog, type Log } from './log.js'
import { messageOf } from './errors.js'
import { native, nativeReason } from './native.js'

/** Sends one datagram to the unix socket `/path` or, abstract, `@name`; throws when it could not. */
export type Notifier = (socket: string, text: string) => void

export interface ServiceManagerComponents {
  readonly log?: Log
  /** Replaces the native one in tests. */
  readonly notify?: Notifier
}

/** The part of the environment that the service manager sets. */
export interface ServiceManagerEnvironment {
  readonly NOTIFY_SOCKET?: string | undefined
  /** Microseconds without a ping after which we are ended. */
  readonly WATCHDOG_USEC?: string | undefined
  /** Whose pings are awaited; not there: everybody's. */
  readonly WATCHDOG_PID?: string | undefined
}

const STATUS_MAX = 512
/** A manager that is busy, as at boot, takes no datagrams for a while: what matters is kept and sent again. */
const RETRY_MS = 50
const PENDING_MAX = 8
const TIMER_MAX_MS = 2 ** 31 - 1
const busy: ReadonlySet<string | undefined> = new Set(['EAGAIN', 'ENOBUFS', 'ENOMEM'])

/** The service manager that started this process, if one did. Its timers do not keep the process alive. */
export class ServiceManager {
  readonly #socket: string | undefined
  readonly #watchdogMs: number | undefined
  readonly #log: Log
  readonly #notify: Notifier
  /** Not taken yet, in their order. */
  readonly #pending: string[] = []
  #retry: NodeJS.Timeout | undefined
  #watchdog: NodeJS.Timeout | undefined
  #complained = false
  #closed = false

  private constructor(
    socket: string | undefined,
    watchdogMs: number | undefined,
    { log = noLog, notify = sendNative }: ServiceManagerComponents,
  ) {
    this.#socket = socket
    this.#watchdogMs = watchdogMs
    this.#log = log
    this.#notify = notify
  }

  /** What `env` says of the service manager. Never throws: what it cannot use is logged and left aside. */
  static fromEnvironment(
    env: ServiceManagerEnvironment,
    components: ServiceManagerComponents = {},
    pid = process.pid,
  ): ServiceManager {
    const { NOTIFY_SOCKET: socket } = env
    if (socket === undefined || socket === '') return new ServiceManager(undefined, undefined, components)
    if (!/^[/@]./.test(socket)) {
      components.log?.warn({ socket }, 'the service manager is not told of our state: its socket is of an unknown kind')
      return new ServiceManager(undefined, undefined, components)
    }
    return new ServiceManager(socket, watchdogPeriod(env, pid), components)
  }

  /** A service manager listens. */
  get present(): boolean {
    return this.#socket !== undefined
  }

  /** How often the watchdog is fed; undefined: there is none. */
  get watchdogMs(): number | undefined {
    return this.#watchdogMs
  }

  /** Everything is open and served, at the start or after a reload. From now on the watchdog is fed. */
  ready(status?: string): void {
    this.#send(['READY=1', ...statusLines(status)].join('\n'))
    if (this.#closed || this.#watchdogMs === undefined || this.#watchdog !== undefined) return
    this.#ping()
    // A timer fires also when the loop gets no further than its timers: the ping comes from behind the poll for I/O.
    this.#watchdog = setInterval(() => setImmediate(() => this.#ping()), this.#watchdogMs)
    this.#watchdog.unref()
  }

  /** The configuration is read anew; {@link ready} ends it. */
  reloading(): void {
    const microseconds = process.hrtime.bigint() / 1000n
    this.#send(`RELOADING=1\nMONOTONIC_USEC=${microseconds}`)
  }

  /** We are on our way out. The watchdog is fed on until {@link close}: an end that hangs is found out. */
  stopping(status?: string): void {
    this.#send(['STOPPING=1', ...statusLines(status)].join('\n'))
  }

  /** One line for people who ask the service manager (`systemctl status`). */
  status(text: string): void {
    this.#send(statusLines(text).join('\n'))
  }

  /** Nothing is sent from now on, pings and what waits included. */
  close(): void {
    this.#closed = true
    clearInterval(this.#watchdog)
    clearTimeout(this.#retry)
    this.#watchdog = undefined
    this.#retry = undefined
    this.#pending.length = 0
  }

  #ping(): void {
    // One that is not taken is not kept: the next one says the same.
    if (!this.#closed) this.#try('WATCHDOG=1')
  }

  #send(text: string): void {
    if (this.#socket === undefined || this.#closed) return
    if (this.#pending.length === 0 && this.#try(text)) return
    if (this.#pending.length === PENDING_MAX) this.#pending.shift()
    this.#pending.push(text)
    this.#retryLater()
  }

  #retryLater(): void {
    this.#retry ??= setTimeout(() => {
      this.#retry = undefined
      while (this.#pending.length > 0 && this.#try(this.#pending[0]!)) this.#pending.shift()
      if (this.#pending.length > 0) this.#retryLater()
    }, RETRY_MS)
    this.#retry.unref()
  }

  /** false: to be tried again. */
  #try(text: string): boolean {
    if (this.#socket === undefined) return true
    try {
      this.#notify(this.#socket, text)
      this.#complained = false
      return true
    } catch (error) {
      if (busy.has(nativeReason(error))) return false
      if (!this.#complained)
        this.#log.warn({ socket: this.#socket, reason: messageOf(error) }, 'the service manager could not be told')
      this.#complained = true
      return true
    }
  }
}

function sendNative(socket: string, text: string): void {
  native().notify(socket, text)
}

/** ms; half the time, so that one late or lost ping does no harm. */
function watchdogPeriod(
  { WATCHDOG_USEC: time, WATCHDOG_PID: owner }: ServiceManagerEnvironment,
  pid: number,
): number | undefined {
  if (time === undefined || !/^[1-9]\d{0,15}$/.test(time)) return undefined
  if (owner !== undefined && owner !== '' && owner !== String(pid)) return undefined
  return Math.min(Math.max(Math.floor(Number(time) / 2000), 1), TIMER_MAX_MS)
}

/** One line, not cut within a character. */
function statusLines(text: string | undefined): string[] {
  if (text === undefined) return []
  const line = text.replace(/\p{Cc}+/gu, ' ').trim()
  return [`STATUS=${[...line].slice(0, STATUS_MAX).join('')}`]
}
