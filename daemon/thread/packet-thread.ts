import type { Worker } from 'node:worker_threads'
import type { TapEvent } from '../../lib/host/tap.js'
import type { Config, UpRequest } from '../config.js'
import { FLOWS_MAX } from '../control/line.js'
import type { Requests } from '../control/requests.js'
import { messageOf } from '../errors.js'
import { collectFlows } from '../flow-pages.js'
import { HeapCare, ownHeap } from '../heap-care.js'
import type { ListenerWatching } from '../instances.js'
import type { Log } from '../log.js'
import { AFTER_FAULT, type DaemonSummary, type RunningDaemon, type StopRequest } from '../running.js'
import { OwnServers, type Close } from '../servers.js'
import { collectServices } from '../service-pages.js'
import { ThreadCalls, type Implementation } from './calls.js'
import type { MainMethods, PacketMethods, ServedPart } from './methods.js'
import { packetWorker } from './packet-worker.js'

interface DumpReader {
  readonly emit: (event: TapEvent) => void
  readonly lost: (count: number) => void
}

/** A daemon whose packets are moved by a thread of their own; this one serves programs and people. */
export class PacketThread implements RunningDaemon {
  failed = false
  readonly stopRequested: Promise<StopRequest>
  #requested: (request: StopRequest) => void = () => undefined
  readonly #worker: Worker
  readonly #calls: ThreadCalls<MainMethods, PacketMethods>
  readonly #open = new Map<ServedPart, Close>()
  readonly #dumps = new Map<number, DumpReader>()
  #lastDump = 0
  /** Lines of the packet thread that it does not know to be dealt with, and how many it knows to be dropped. */
  #linesTaken = 0
  #linesDropped = 0
  #tellingOfLines: NodeJS.Immediate | undefined
  #summary: DaemonSummary | undefined
  #heap: HeapCare | undefined
  #stopping = false

  private constructor(private readonly log: Log) {
    this.stopRequested = new Promise((resolve) => (this.#requested = resolve))
    this.#worker = packetWorker()
    this.#calls = new ThreadCalls(this.#worker, this.#own(), (error) =>
      log.error({ error }, 'a thread was told in vain'),
    )
    this.#worker.on('error', (error) => this.#lost(error))
    this.#worker.on('exit', () => this.#lost(new Error('the packet thread has ended')))
  }

  /** A thread that has read the configuration; rejects with CARACAL_E_CONFIG. To be started or ended. */
  static async configure(request: UpRequest, log: Log): Promise<{ thread: PacketThread } & Pick<Config, 'loop'>> {
    const thread = new PacketThread(log)
    try {
      const { loop } = await thread.#calls.call('configure', request)
      return { thread, loop }
    } catch (error) {
      await thread.end()
      throw error
    }
  }

  /** Brings the daemon up; rejects as startDaemon does, and nothing is left behind. `idle`: no packets wait when it is up. */
  async start(idle: boolean): Promise<this> {
    try {
      this.#summary = await this.#calls.call('start', undefined)
      this.#heap = new HeapCare({ ...ownHeap, packets: () => 0 }, idle)
      return this
    } catch (error) {
      await this.end()
      throw error
    }
  }

  get summary(): DaemonSummary {
    if (this.#summary === undefined) throw new Error('the daemon is not up')
    return this.#summary
  }

  requestStop(reason: string, keep = false): void {
    this.#calls.tell('requestStop', { reason, keep })
  }

  reload(): Promise<unknown> {
    return this.#calls.call('reload', undefined)
  }

  async stop(keep: boolean): Promise<number> {
    try {
      const { flows, failed } = await this.#calls.call('stop', keep)
      this.failed ||= failed
      return flows
    } catch (error) {
      this.failed = true
      this.log.error({ error }, 'the packet thread could not end in good order')
      return 0
    } finally {
      await this.end()
    }
  }

  /** Ends the thread as it is. */
  async end(): Promise<void> {
    this.#stopping = true
    this.#heap?.stop()
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
    this.log.error({ error }, `the packet thread failed: ${AFTER_FAULT}`)
    this.#requested({ reason: messageOf(error), keep: true })
  }

  #own(): Implementation<MainMethods> {
    const { log } = this
    const servers = new OwnServers(log)
    let listeners: ListenerWatching | undefined
    const keep = async (part: ServedPart, opening: Promise<Close>) => void this.#open.set(part, await opening)
    return {
      log: ({ level, fields, text }) => {
        log[level](fields, text)
        this.#linesTaken++
        this.#tellingOfLines ??= setImmediate(() => this.#tellOfLines())
      },
      setLevel: (level) => log.setLevel(level),
      stopRequested: (request) => this.#requested(request),
      names: (addresses) =>
        keep(
          'names',
          servers.names(addresses, (name, type) => this.#calls.call('answer', { name, type })),
        ),
      control: (socket) => keep('control', servers.control(socket, this.#requests())),
      metrics: (listen) =>
        keep(
          'metrics',
          servers.metrics(listen, () => {
            this.#tellOfLines()
            return this.#calls.call('sample', undefined)
          }),
        ),
      discovery: (place) =>
        keep(
          'discovery',
          servers.discovery(place, (host, locator) => this.#calls.tell('found', { host, locator })),
        ),
      listeners: async () => {
        const opened = await servers.listeners(() => this.#calls.tell('listenersChanged', undefined))
        listeners = opened
        this.#open.set('listeners', opened.close)
      },
      listenersBusy: ({ protocols, missing }) => listeners?.busy(protocols, missing),
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

  /** What it counts as under way, and as dropped. */
  #tellOfLines(): void {
    clearImmediate(this.#tellingOfLines)
    this.#tellingOfLines = undefined
    const { dropped } = this.log
    if (this.#linesTaken === 0 && dropped === this.#linesDropped) return
    this.#calls.tell('logTaken', { count: this.#linesTaken, dropped })
    this.#linesTaken = 0
    this.#linesDropped = dropped
  }

  #requests(): Requests {
    const flowPage = (args: unknown, from: number, left: number | undefined) =>
      this.#calls.call('flowPage', { args, from, left })
    // As a whole, the list of many flows would take the packet thread too long to hand over.
    const flows = (args: unknown) => collectFlows((from, left) => flowPage(args, from, left))
    const servicePage = (args: unknown, from: number | undefined, left: number | undefined) =>
      this.#calls.call('servicePage', { args, from, left })
    return {
      call: (operation, args) => {
        if (operation === 'flows') return flows(args)
        if (operation === 'services') return collectServices((from, left) => servicePage(args, from, left))
        this.#tellOfLines()
        return this.#calls.call('request', { operation, args })
      },
      dump: (args, emit, signal, lost) => this.#dump(args, { emit, lost }, signal),
      watch: (args) => this.#calls.call('watch', args),
      watched: async (request) => (await flows({ ...request, limit: FLOWS_MAX })).flows,
      flowPage,
      servicePage,
    }
  }

  async #dump(args: unknown, reader: DumpReader, signal: AbortSignal): Promise<void> {
    const stream = ++this.#lastDump
    const end = () => this.#calls.tell('dumpEnd', { stream })
    this.#dumps.set(stream, reader)
    try {
      const ended = this.#calls.call('dump', { stream, args })
      if (signal.aborted) end()
      else signal.addEventListener('abort', end, { once: true })
      await ended
    } finally {
      signal.removeEventListener('abort', end)
      this.#dumps.delete(stream)
    }
  }
}
