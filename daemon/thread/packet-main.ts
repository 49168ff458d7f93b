// Entry of the packet thread: the host, its devices and its files. Everything that programs and people talk to is in the main thread.

import { parentPort, workerData } from 'node:worker_threads'
import { loadSodium } from '../../lib/crypto/sodium.js'
import type { DaemonOptions } from '../config.js'
import type { Operation, RequestOf, ResponseOf } from '../control/protocol.js'
import { Daemon } from '../daemon.js'
import type { DnsResolver } from '../dns/dns-message.js'
import { withNodeCrypto } from '../node-primitives.js'
import type { Servers } from '../servers.js'
import { metricsSample } from '../views.js'
import { ThreadCalls, type Implementation } from './calls.js'
import { controlMethods } from './control-methods.js'
import { DumpStreams } from './dump-streams.js'
import type { MainMethods, PacketMethods, ServedPart } from './methods.js'
import { threadLog } from './thread-log.js'

if (parentPort === null) throw new Error('this is the entry of a thread')
const options: DaemonOptions = workerData
let daemon: Daemon | undefined
let handlers: Unary | undefined
let resolver: DnsResolver | undefined
let dumps: DumpStreams | undefined

type Unary = { readonly [O in Operation]: (request: RequestOf<O>) => Promise<ResponseOf<O>> }

function there<T>(part: T | undefined): T {
  if (part === undefined) throw new Error('the daemon is not up')
  return part
}

const own: Implementation<PacketMethods> = {
  ...controlMethods((operation, request) => there(handlers)[operation](request)),
  start: async () => {
    const primitives = withNodeCrypto(await loadSodium())
    daemon = await Daemon.start(options, log, primitives, servers)
    void daemon.stopRequested.then((reason) => main.tell('stopRequested', reason))
    return daemon.summary
  },
  requestStop: (reason) => there(daemon).requestStop(reason),
  stop: async () => {
    const running = there(daemon)
    return { flows: await running.stop(), failed: running.failed }
  },
  answer: ({ name, type }) => Promise.resolve(there(resolver)(name, type)),
  sample: () => metricsSample(there(daemon)),
  found: ({ host, locator }) => there(daemon).hint(host, locator),
  dumpOpen: ({ stream, request }) => there(dumps).open(stream, request),
  dumpTaken: ({ stream, count }) => dumps?.taken(stream, count),
  dumpClose: ({ stream }) => dumps?.close(stream),
}

const main = new ThreadCalls<PacketMethods, MainMethods>(parentPort, own, (error) =>
  log.error({ error }, 'the main thread was told in vain'),
)
const log = threadLog(
  options.config.log,
  (level, fields, text) => main.tell('log', { level, fields, text }),
  (level) => main.tell('setLevel', level),
)
const closing = (part: ServedPart) => () => main.call('close', part)

/** Servers in the main thread, which ask this one. */
const servers: Servers = {
  names: async (addresses, resolve) => {
    resolver = resolve
    await main.call('names', addresses)
    return closing('names')
  },
  control: async (socket, given) => {
    handlers = given
    dumps = new DumpStreams({
      openTap: (tap, points) => there(daemon).openTap(tap, points),
      send: (stream, events, lost) => main.tell('dumpEvents', { stream, events, lost }),
    })
    await main.call('control', socket)
    return closing('control')
  },
  metrics: async (listen) => {
    await main.call('metrics', listen)
    return closing('metrics')
  },
  discovery: async (place) => {
    await main.call('discovery', place)
    return closing('discovery')
  },
}
