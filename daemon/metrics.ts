// /metrics for Prometheus, over HTTP on an address of its own. What is told is read when it is asked for; nothing is counted here.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { formatLocator, type Locator } from '../lib/path/locator.js'
import { CaracalError, messageOf, systemCode } from './errors.js'
import type { LoopDelay } from './event-loop.js'
import { noLog, type Log } from './log.js'
import type { MetricsText } from './metrics-text.js'

/** The daemon at one moment. Counts are since the start; keys that are not given are not told. */
export interface MetricsSample {
  readonly version: string
  /** Seconds since the epoch. */
  readonly startedAt: number
  /** Monotonic counts by names in camel case, as `status` has them: `tunPacketsIn` becomes `caracal_tun_in_packets_total`. */
  readonly counters: Readonly<Record<string, number>>
  /** By drop reason (DropCounters.toJSON); reasons that are not given are told as 0. */
  readonly drops: Readonly<Record<string, number>>
  readonly sessions: { readonly up: number; readonly known: number }
  readonly flows: { readonly tcp: number; readonly udp: number; readonly icmp: number; readonly capacity: number }
  /** `local`: instances on this host; `unhealthy`: those of them that are not up. */
  readonly services: { readonly local: number; readonly unhealthy: number; readonly known: number }
  readonly directory: { readonly synced: boolean; readonly counters: Readonly<Record<string, number>> }
  /** There is a keeper. */
  readonly keeper: boolean
  readonly loopDelay: LoopDelay
}

export interface MetricsOptions {
  /** TCP address; port 0 takes a free one. */
  readonly listen: Locator
}

export interface MetricsComponents {
  readonly read: () => MetricsSample | Promise<MetricsSample>
  readonly log?: Log
}

const CONNECTIONS_MAX = 16
const TIMEOUT_MS = 5_000
const HEADERS_MAX = 8_192

/** Serves `GET /metrics`; everything else is answered 404. */
export class Metrics {
  readonly #options: MetricsOptions
  readonly #read: MetricsComponents['read']
  readonly #log: Log
  readonly #server: Server
  #text: Promise<MetricsText> | undefined

  constructor(options: MetricsOptions, { read, log = noLog }: MetricsComponents) {
    this.#options = options
    this.#read = read
    this.#log = log
    this.#server = createServer(
      {
        maxHeaderSize: HEADERS_MAX,
        headersTimeout: TIMEOUT_MS,
        requestTimeout: TIMEOUT_MS,
        connectionsCheckingInterval: TIMEOUT_MS,
      },
      (request, response) => void this.#answer(request, response),
    )
    this.#server.maxConnections = CONNECTIONS_MAX
    this.#server.keepAliveTimeout = TIMEOUT_MS
    this.#server.setTimeout(TIMEOUT_MS)
  }

  /** Resolves with the address it listens on; rejects with CARACAL_E_LISTEN. */
  async start(): Promise<Locator> {
    const { address, port } = this.#options.listen
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (error) => reject(listenFailure(this.#options.listen, error)))
      this.#server.listen({ host: address, port, ipv6Only: address.includes(':') }, () => {
        this.#server.removeAllListeners('error')
        this.#server.on('error', (error) => this.#log.warn({ error }, 'the metrics server had an error'))
        resolve()
      })
    })
    const bound = this.#server.address()
    return { address, port: typeof bound === 'object' && bound !== null ? bound.port : port }
  }

  /** Ends all connections. Stopping what never started is allowed. */
  async stop(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    this.#server.closeAllConnections()
    await closed
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url?.replace(/\?.*$/s, '')
    if (request.method !== 'GET' || path !== '/metrics') {
      // What follows the headers is not read.
      response.writeHead(404, { 'content-type': 'text/plain', connection: 'close' }).end('only GET /metrics\n')
      return
    }
    try {
      const text = await this.#load()
      const body = await text.write(await this.#read())
      response.writeHead(200, { 'content-type': text.contentType }).end(body)
    } catch (error) {
      this.#log.error({ error }, 'the metrics could not be read')
      if (!response.headersSent) response.writeHead(500, { 'content-type': 'text/plain' })
      response.end('the metrics could not be read; see the log of the daemon\n')
    }
  }

  /** prom-client comes into memory with the first request. */
  #load(): Promise<MetricsText> {
    this.#text ??= import('./metrics-text.js').then(({ MetricsText }) => new MetricsText())
    return this.#text
  }
}

function listenFailure(listen: Locator, error: unknown): CaracalError {
  const where = `cannot serve metrics on TCP ${formatLocator(listen)}`
  const elsewhere = 'choose another address for `metrics` in the configuration'
  const code = systemCode(error)
  const [what, next] =
    code === 'EADDRINUSE'
      ? [`${where}, another process has the port`, elsewhere]
      : code === 'EADDRNOTAVAIL'
        ? [`${where}, this host does not have that address`, elsewhere]
        : code === 'EACCES'
          ? [`${where}, ports below 1024 need root`, elsewhere]
          : [`${where} (${messageOf(error)})`, undefined]
  return new CaracalError('CARACAL_E_LISTEN', what, next, { cause: error })
}
