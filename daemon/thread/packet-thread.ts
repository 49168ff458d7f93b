import { Worker } from 'node:worker_threads'
import type { TapEvent } from '../../lib/host/tap.js'
import type { DaemonOptions } from '../config.js'
import type { ControlHandlers, DumpRequest } from '../control/protocol.js'
import { messageOf } from '../errors.js'
import type { Log } from '../log.js'
import type { DaemonSummary, RunningDaemon } from '../running.js'
import { OwnServers, type Close } from '../servers.js'
import { ThreadCalls, type Implementation } from './calls.js'
import { controlMethods } from './control-methods.js'
import type { ControlMethods, MainMethods, PacketMethods, ServedPart } from './methods.js'

/** Newly made objects of the packet thread, MB: it makes none for a packet, and a large space for them is memory without use. */
const YOUNG_GENERATION_MB = 8

interface DumpReader {
  readonly emit: (event: TapEvent) => void
  readonly lost: (count: number) => void
}

/** A daemon whose packets are moved by a thread of their own; this one serves programs and people. */
export class PacketThread implements RunningDaemon {
  failed = false
  readonly stopRequested: Promise<string>
  #requested: (reason: string) => void = () => undefined
  readonly #worker: Worker
  readonly #calls: ThreadCalls<MainMethods, PacketMethods>
  readonly #open = new Map<ServedPart, Close>()
  readonly #dumps = new Map<number, DumpReader>()
  #lastDump = 0
  #summary: DaemonSummary | undefined
  #stopping = false

  private constructor(
    options: DaemonOptions,
    private readonly log: Log,
  ) {
    this.stopRequested = new Promise((resolve) => (this.#requested = resolve))
    this.#worker = new Worker(new URL('./packet-main.js', import.meta.url), {
      name: 'packets',
      workerData: options,
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MB },
    })
    this.#calls = new ThreadCalls(this.#worker, this.#own(), (error) => log.error({ error }, 'a thread was told in vain'))
    this.#worker.on('error', (error) => this.#lost(error))
    this.#worker.on('exit', () => this.#lost(new Error('the packet thread has ended')))
  }

  /** Brings the daemon up; rejects as Daemon.start does, and nothing is left behind. */
  static async start(options: DaemonOptions, log: Log): Promise<PacketThread> {
    const thread = new PacketThread(options, log)
    try {
      thread.#summary = await thread.#calls.call('start', undefined)
      return thread
    } catch (error) {
      await thread.#end()
      throw error
    }
  }

  get summary(): DaemonSummary {
    if (this.#summary === undefined) throw new Error('the daemon is not up')
    return this.#summary
  }

  requestStop(reason: string): void {
    this.#calls.tell('requestStop', reason)
  }

  reload(): Promise<unknown> {
    return this.#calls.call('reload', {})
  }

  async stop(): Promise<number> {
    try {
      const { flows, failed } = await this.#calls.call('stop', undefined)
      this.failed ||= failed
      return flows
    } catch (error) {
      this.failed = true
      this.log.error({ error }, 'the packet thread could not end in good order')
      return 0
    } finally {
      await this.#end()
    }
  }

  async #end(): Promise<void> {
    this.#stopping = true
    for (const close of this.#open.values()) await close()
    this.#open.clear()
    await this.#worker.terminate()
  }

  /** The packet thread is gone, and with it everything that the servers could tell. */
  #lost(error: unknown): void {
    this.#calls.end(error)
    if (this.#stopping) return
    this.#stopping = true
    this.failed = true
    this.log.error({ error }, 'the packet thread failed')
    this.#requested(messageOf(error))
  }

  #own(): Implementation<MainMethods> {
    const { log } = this
    const servers = new OwnServers(log)
    const keep = async (part: ServedPart, opening: Promise<Close>) => void this.#open.set(part, await opening)
    return {
      log: ({ level, fields, text }) => log[level](fields, text),
      setLevel: (level) => log.setLevel(level),
      stopRequested: (reason) => this.#requested(reason),
      names: (addresses) =>
        keep(
          'names',
          servers.names(addresses, (name, type) => this.#calls.call('answer', { name, type })),
        ),
      control: (socket) => keep('control', servers.control(socket, this.#handlers())),
      metrics: (listen) =>
        keep(
          'metrics',
          servers.metrics(listen, () => this.#calls.call('sample', undefined)),
        ),
      discovery: (place) =>
        keep(
          'discovery',
          servers.discovery(place, (host, locator) => this.#calls.tell('found', { host, locator })),
        ),
      close: async (part) => {
        const close = this.#open.get(part)
        this.#open.delete(part)
        await close?.()
      },
      dumpEvents: ({ stream, events, lost }) => {
        const reader = this.#dumps.get(stream)
        if (reader === undefined) return
        for (const event of events) reader.emit(event)
        if (lost > 0) reader.lost(lost)
        this.#calls.tell('dumpTaken', { stream, count: events.length })
      },
    }
  }

  #handlers(): ControlHandlers {
    const calls: Pick<ThreadCalls<MainMethods, ControlMethods>, 'call'> = this.#calls
    return {
      ...controlMethods((operation, request) => calls.call(operation, request)),
      dump: (request, emit, signal, lost) => this.#dump(request, { emit, lost }, signal),
    }
  }

  async #dump(request: DumpRequest, reader: DumpReader, signal: AbortSignal): Promise<void> {
    const stream = ++this.#lastDump
    this.#dumps.set(stream, reader)
    try {
      await this.#calls.call('dumpOpen', { stream, request })
      if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
      await this.#calls.call('dumpClose', { stream })
    } finally {
      this.#dumps.delete(stream)
    }
  }
}
