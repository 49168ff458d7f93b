// The other end of the control socket: what the command line (and a test) talks through.

import { statSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import type { z } from 'zod'
import { CaracalError, isErrorCode, messageOf, systemCode } from '../errors.js'
import { groupName } from './group.js'
import { LineReader } from './lines.js'
import {
  CONTROL_VERSION,
  RESPONSE_LINE_MAX,
  issuesOf,
  responseLineShape,
  responseShapes,
  streamShapes,
  type ControlError,
  type Operation,
  type RequestInput,
  type ResponseOf,
  type StreamEvent,
  type StreamOperation,
  type StreamRequestInput,
} from './protocol.js'

type Responses = { readonly [O in Operation]: z.ZodType<ResponseOf<O>> }
const responses: Responses = responseShapes
type Events = { readonly [O in StreamOperation]: { readonly event: z.ZodType<StreamEvent<O>> } }
const events: Events = streamShapes

interface Waiting {
  result(value: unknown): void
  event(value: unknown): void
  lost(count: number): void
  fail(error: CaracalError): void
}

export interface StreamReader<O extends StreamOperation> {
  event(event: StreamEvent<O>): void
  /** So many events were not sent, because this reader is slow. */
  lost?(count: number): void
}

/** A connection to a daemon. */
export class ControlClient {
  private readonly waiting = new Map<number, Waiting>()
  private readonly lines = new LineReader(RESPONSE_LINE_MAX)
  private nextId = 1
  private broken: CaracalError | undefined
  /** Resolves when the connection has been closed by either side. */
  readonly closed: Promise<void>

  private constructor(
    private readonly socket: Socket,
    private readonly path: string,
  ) {
    this.closed = new Promise((resolve) => socket.once('close', () => resolve()))
    socket.on('data', (chunk) => this.data(chunk))
    socket.on('error', (error) => this.break(messageOf(error)))
    socket.on('close', () => this.break('it closed the connection'))
  }

  /** @throws CaracalError CARACAL_E_NO_DAEMON, CARACAL_E_SOCKET_DENIED or CARACAL_E_SOCKET */
  static connect(path: string): Promise<ControlClient> {
    return new Promise((resolve, reject) => {
      const socket = connect(path)
      const failed = (error: Error) => reject(connectError(path, error))
      socket.once('error', failed)
      socket.once('connect', () => {
        socket.off('error', failed)
        resolve(new ControlClient(socket, path))
      })
    })
  }

  /**
   * One request, one answer.
   * @throws CaracalError what the daemon says, CARACAL_E_DISCONNECTED when it goes away, CARACAL_E_RESPONSE when it answers nonsense
   */
  async call<O extends Operation>(op: O, request: RequestInput<O>): Promise<ResponseOf<O>> {
    const value = await this.request(op, request, undefined)
    const parsed = responses[op].safeParse(value)
    if (parsed.success) return parsed.data
    throw new CaracalError(
      'CARACAL_E_RESPONSE',
      `the daemon's answer is not understood (${issuesOf(parsed.error)})`,
      SAME_RELEASE,
    )
  }

  /** Reads a stream until `signal` is aborted or the daemon ends it. @throws CaracalError as {@link call} */
  async stream<O extends StreamOperation>(
    op: O,
    request: StreamRequestInput<O>,
    reader: StreamReader<O>,
    signal: AbortSignal,
  ): Promise<void> {
    const shape = events[op].event
    const id = this.nextId
    const cancel = () => {
      if (this.waiting.has(id)) this.request('cancel', { id }, undefined).catch(() => undefined)
    }
    const ended = this.request(op, request, {
      event: (value) => {
        const parsed = shape.safeParse(value)
        if (parsed.success) reader.event(parsed.data)
        else this.break(`an event is not understood: ${issuesOf(parsed.error)}`)
      },
      lost: (count) => reader.lost?.(count),
    })
    signal.addEventListener('abort', cancel)
    if (signal.aborted) cancel()
    try {
      await ended
    } finally {
      signal.removeEventListener('abort', cancel)
    }
  }

  /** Stops reading, so that the daemon drops events instead of this process keeping them; undone by {@link resume}. */
  pause(): void {
    this.socket.pause()
  }

  resume(): void {
    this.socket.resume()
  }

  close(): void {
    this.socket.destroy()
  }

  private request(
    op: string,
    args: object,
    stream: { event(value: unknown): void; lost(count: number): void } | undefined,
  ): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.broken !== undefined) return reject(this.broken)
      const id = this.nextId++
      this.waiting.set(id, {
        result: resolve,
        fail: reject,
        event: (value) => stream?.event(value),
        lost: (count) => stream?.lost(count),
      })
      this.socket.write(`${JSON.stringify({ v: CONTROL_VERSION, id, op, args })}\n`)
    })
  }

  private data(chunk: Buffer): void {
    for (const line of this.lines.push(chunk)) {
      if (line === undefined) return this.break('it sent a line that is too long')
      let json: unknown
      try {
        json = JSON.parse(line)
      } catch {
        return this.break('it does not speak our protocol')
      }
      const parsed = responseLineShape.safeParse(json)
      if (!parsed.success) return this.break('it does not speak our protocol')
      this.message(parsed.data)
    }
  }

  private message(message: z.infer<typeof responseLineShape>): void {
    if (message.id === null) {
      if (message.error !== undefined) this.fail(told(message.error))
      return
    }
    const waiting = this.waiting.get(message.id)
    if (waiting === undefined) return
    if (message.event !== undefined) return waiting.event(message.event)
    if (message.lost !== undefined) return waiting.lost(message.lost)
    this.waiting.delete(message.id)
    if (message.error !== undefined) waiting.fail(told(message.error))
    else waiting.result(message.result)
  }

  private break(why: string): void {
    const what = `the daemon at ${this.path} is gone (${why})`
    this.fail(
      new CaracalError('CARACAL_E_DISCONNECTED', what, 'look into its log, and start it again with `caracal up`'),
    )
  }

  private fail(error: CaracalError): void {
    this.broken ??= error
    for (const waiting of this.waiting.values()) waiting.fail(this.broken)
    this.waiting.clear()
    this.socket.destroy()
  }
}

const SAME_RELEASE = 'use the `caracal` command of the same release as the daemon'

function told(error: ControlError): CaracalError {
  const code = isErrorCode(error.code) ? error.code : 'CARACAL_E_INTERNAL'
  return new CaracalError(code, error.what, error.next)
}

function connectError(path: string, error: Error): CaracalError {
  const code = systemCode(error)
  if (code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'ENOTSOCK' || code === 'ENOTDIR') {
    const next = 'start one with `caracal up --create NAME`, or give its socket with --socket or CARACAL_SOCKET'
    return new CaracalError('CARACAL_E_NO_DAEMON', `no daemon answers at ${path}`, next, { cause: error })
  }
  if (code === 'EACCES' || code === 'EPERM') {
    return new CaracalError('CARACAL_E_SOCKET_DENIED', `no permission to use ${path}`, whoMay(path), { cause: error })
  }
  const next = 'give the right one with --socket or CARACAL_SOCKET'
  return new CaracalError('CARACAL_E_SOCKET', `the socket ${path} cannot be used (${messageOf(error)})`, next, {
    cause: error,
  })
}

function whoMay(path: string): string {
  try {
    const { gid, mode } = statSync(path)
    const group = groupName(gid)
    if ((mode & 0o060) === 0o060 && gid !== 0) {
      return `become root, or a member of group ${group} (\`sudo usermod -aG ${group} $USER\`, then log in again)`
    }
  } catch {
    // a directory on the way is closed to us: only root knows more
  }
  return 'become root, or set `group:` in the configuration of the daemon and join that group'
}
