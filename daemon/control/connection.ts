// One client of the control socket. Requests run concurrently, at most RUNNING_MAX; a client that does not read its answers is not read
// from either, and events of a stream that it does not take in time are counted instead of kept, so that nothing grows.

import type { Socket } from 'node:net'
import type { TapEvent } from '../../lib/host/tap.js'
import { CaracalError, messageOf } from '../errors.js'
import type { Log } from '../log.js'
import { FlowWatch } from './flow-watch.js'
import { CONTROL_VERSION, readRequestLine, REQUEST_LINE_MAX } from './line.js'
import { LineReader } from './lines.js'
import { encodePacket } from './packet-event.js'
import type { ControlError } from './protocol.js'
import type { Requests } from './requests.js'

const RUNNING_MAX = 32
/** Bytes waiting in the socket above which events are dropped and requests are not read. */
const PENDING_MAX = 1024 * 1024
/** How long a client has to close its side after we have closed ours. */
const LINGER_MS = 2000

export interface ConnectionOptions {
  /** Closed after this long without a running request. */
  readonly idleMs: number
  /** Closed when a line that has begun is not complete after this long. */
  readonly lineMs: number
}

export class Connection {
  private readonly lines = new LineReader(REQUEST_LINE_MAX)
  private readonly running = new Map<number, AbortController>()
  private timer: NodeJS.Timeout | undefined
  private closing = false

  /** Takes over the socket. */
  constructor(
    private readonly socket: Socket,
    private readonly requests: Requests,
    private readonly log: Log,
    private readonly options: ConnectionOptions,
  ) {
    socket.on('data', (chunk) => this.data(chunk))
    socket.on('drain', () => this.resume())
    socket.on('end', () => this.ended())
    socket.on('error', (error) => log.debug({ error: messageOf(error) }, 'control connection broke'))
    socket.on('close', () => this.closed())
    this.watchTime()
  }

  /** Ends streams, sends what is under way, closes. */
  close(): void {
    this.closing = true
    for (const controller of this.running.values()) controller.abort()
    if (this.running.size === 0) this.finish()
  }

  /** Cuts it at once. */
  destroy(): void {
    this.socket.destroy()
  }

  private data(chunk: Buffer): void {
    for (const line of this.lines.push(chunk)) {
      if (this.closing) return
      if (line === undefined) {
        const next = 'send a shorter one'
        this.refuse({
          code: 'CARACAL_E_REQUEST_TOO_LONG',
          what: `a request is longer than ${REQUEST_LINE_MAX} bytes`,
          next,
        })
        return
      }
      this.line(line)
    }
    this.watchTime()
    if (this.socket.writableLength > PENDING_MAX) this.socket.pause()
  }

  private line(text: string): void {
    let json: unknown
    try {
      json = JSON.parse(text)
    } catch {
      this.refuse({ code: 'CARACAL_E_REQUEST', what: 'a request is not JSON', next: 'send one JSON object a line' })
      return
    }
    const line = readRequestLine(json)
    if (typeof line === 'string') {
      this.refuse({ code: 'CARACAL_E_REQUEST', what: `not a request (${line})`, next: 'send v, id, op, args' })
      return
    }
    const { v, id, op, args } = line
    if (v !== CONTROL_VERSION) {
      const what = `the daemon speaks version ${CONTROL_VERSION} of the control protocol, not ${v}`
      this.fail(id, new CaracalError('CARACAL_E_UNSUPPORTED', what, 'use the `caracal` command of the same release'))
    } else if (this.running.has(id)) {
      this.fail(id, new CaracalError('CARACAL_E_REQUEST', `request ${id} is still running`, 'use another id'))
    } else if (op === 'cancel') {
      this.cancel(id, args)
    } else if (this.running.size >= RUNNING_MAX) {
      this.fail(id, new CaracalError('CARACAL_E_BUSY', `${RUNNING_MAX} requests are running`, 'wait for one to end'))
    } else {
      void this.run(id, op, args)
    }
  }

  private cancel(id: number, args: object): void {
    const { id: which }: { id?: unknown } = args
    const controller = typeof which === 'number' ? this.running.get(which) : undefined
    controller?.abort()
    this.send({ id, result: { found: controller !== undefined } })
  }

  private async run(id: number, op: string, args: object): Promise<void> {
    const controller = new AbortController()
    this.running.set(id, controller)
    try {
      this.send({ id, result: await this.dispatch(id, op, args, controller.signal) })
    } catch (error) {
      this.fail(id, error, op)
    } finally {
      this.running.delete(id)
      if (this.closing && this.running.size === 0) this.finish()
      this.watchTime()
    }
  }

  private async dispatch(id: number, op: string, args: object, signal: AbortSignal): Promise<unknown> {
    if (op === 'dump') return this.dump(id, args, signal)
    if (op === 'watch') return this.watch(id, args, signal)
    return this.requests.call(op, args)
  }

  private async dump(id: number, args: object, signal: AbortSignal): Promise<object> {
    const stream = new Stream(this.socket, id, signal)
    const emit = (event: TapEvent) => stream.event(() => encodePacket(event))
    await this.requests.dump(args, emit, signal, (count) => stream.missed(count))
    return stream.close()
  }

  private async watch(id: number, args: object, signal: AbortSignal): Promise<object> {
    const request = await this.requests.watch(args)
    const stream = new Stream(this.socket, id, signal)
    const watch = new FlowWatch()
    while (!signal.aborted) {
      for (const event of watch.changes(await this.requests.watched(request), Date.now())) stream.event(() => event)
      await pause(request.intervalMs, signal)
    }
    return stream.close()
  }

  private fail(id: number, error: unknown, op = ''): void {
    if (error instanceof CaracalError) {
      const { code, what, next } = error
      this.send({ id, error: next === undefined ? { code, what } : { code, what, next } })
      return
    }
    this.log.error({ error, op }, 'a control request failed unexpectedly')
    const what = `the daemon failed at ${op || 'the request'} (${messageOf(error)})`
    this.send({ id, error: { code: 'CARACAL_E_INTERNAL', what, next: 'its log has the details' } })
  }

  /** Answers something that is no request, and closes. */
  private refuse(error: ControlError): void {
    this.send({ id: null, error })
    this.log.debug({ code: error.code }, 'a control connection was refused')
    this.close()
  }

  private send(message: object): void {
    if (this.socket.writable) this.socket.write(`${JSON.stringify(message)}\n`)
  }

  /** Sends what is left; a client that keeps its half open does not keep the connection. */
  private finish(): void {
    if (this.socket.destroyed || this.socket.writableEnded) return
    this.socket.end()
    this.socket.resume()
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.socket.destroy(), LINGER_MS)
    this.timer.unref()
  }

  private resume(): void {
    if (!this.closing) this.socket.resume()
  }

  /** The client sends no more; what runs is finished, except streams, which only closing ends. */
  private ended(): void {
    if (this.lines.partial) {
      const what = 'the last request is incomplete'
      this.send({ id: null, error: { code: 'CARACAL_E_REQUEST', what, next: 'end it with a line end' } })
    }
    this.close()
  }

  private closed(): void {
    this.closing = true
    clearTimeout(this.timer)
    for (const controller of this.running.values()) controller.abort()
  }

  /** A client may be silent while a request runs; half a line or nothing at all has a limit. */
  private watchTime(): void {
    clearTimeout(this.timer)
    if (this.closing || (this.running.size > 0 && !this.lines.partial)) return
    const limit = this.lines.partial ? this.options.lineMs : this.options.idleMs
    this.timer = setTimeout(() => {
      const what = this.lines.partial ? 'a request was not completed in time' : 'no request for a long time'
      this.refuse({ code: 'CARACAL_E_TIMEOUT', what, next: 'connect again' })
      for (const controller of this.running.values()) controller.abort()
    }, limit)
    this.timer.unref()
  }
}

/** Events of one stream, dropped and counted while the reader is behind. */
class Stream {
  private lost = 0
  private readonly onDrain = () => this.tellLost()

  constructor(
    private readonly socket: Socket,
    private readonly id: number,
    private readonly signal: AbortSignal,
  ) {
    socket.on('drain', this.onDrain)
  }

  /** `make` is called only when the event is sent. */
  event(make: () => object): void {
    if (this.signal.aborted || !this.socket.writable) return
    if (this.socket.writableLength > PENDING_MAX) {
      this.lost++
      return
    }
    this.tellLost()
    this.socket.write(`${JSON.stringify({ id: this.id, event: make() })}\n`)
  }

  /** Events that never got here. */
  missed(count: number): void {
    this.lost += count
  }

  /** The stream's result. */
  close(): object {
    this.socket.off('drain', this.onDrain)
    if (this.socket.writable) this.tellLost()
    return {}
  }

  private tellLost(): void {
    if (this.lost === 0) return
    this.socket.write(`${JSON.stringify({ id: this.id, lost: this.lost })}\n`)
    this.lost = 0
  }
}

/** Resolves after `ms` or when aborted. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    const done = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done)
  })
}
