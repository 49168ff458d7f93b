// Entry of the packet thread: the host, its devices and its files. Everything that programs and people talk to is in the main thread.

import { parentPort } from 'node:worker_threads'
import { loadConfig, type DaemonOptions } from '../config.js'
import type { Requests } from '../control/requests.js'
import type { Daemon } from '../daemon.js'
import type { DnsResolver } from '../dns/dns-message.js'
import { loadPrimitives } from '../node-primitives.js'
import type { Servers } from '../servers.js'
import { startDaemon } from '../start.js'
import { metricsSample } from '../views.js'
import { ThreadCalls, type Implementation } from './calls.js'
import { DumpStreams } from './dump-streams.js'
import type { MainMethods, PacketMethods, ServedPart } from './methods.js'
import { threadLog } from './thread-log.js'

if (parentPort === null) throw new Error('this is the entry of a thread')
let options: DaemonOptions | undefined
let daemon: Daemon | undefined
let requests: Requests | undefined
let resolver: DnsResolver | undefined
let changedListeners = (): void => undefined
/** Hosts that were found while the daemon was starting. */
const foundEarly: Parameters<Implementation<PacketMethods>['found']>[0][] = []
const FOUND_EARLY_MAX = 1_024

function there<T>(part: T | undefined): T {
  if (part === undefined) throw new Error('the daemon is not up')
  return part
}

const own: Implementation<PacketMethods> = {
  configure: (request) => {
    const config = loadConfig(request.sources)
    options = { ...request, config }
    log.setLevel(config.log)
    return { loop: config.loop, log: config.log }
  },
  start: async () => {
    daemon = await startDaemon(there(options), log, await loadPrimitives(), servers)
    for (const { host, locator } of foundEarly.splice(0)) daemon.hint(host, locator)
    void daemon.stopRequested.then((request) => main.tell('stopRequested', request))
    return daemon.summary
  },
  requestStop: ({ reason, keep }) => there(daemon).requestStop(reason, keep),
  reload: async () => void (await there(daemon).reload()),
  stop: async (keep) => {
    const running = there(daemon)
    return { flows: await running.stop(keep), failed: running.failed }
  },
  answer: async ({ name, type }) => there(resolver)(name, type),
  sample: () => metricsSample(there(daemon)),
  found: (found) => {
    if (daemon !== undefined) daemon.hint(found.host, found.locator)
    else if (foundEarly.length < FOUND_EARLY_MAX) foundEarly.push(found)
  },
  listenersChanged: () => changedListeners(),
  request: ({ operation, args }) => there(requests).call(operation, args),
  watch: (args) => there(requests).watch(args),
  flowPage: ({ args, from, left }) => there(requests).flowPage(args, from, left),
  servicePage: ({ args, from, left }) => there(requests).servicePage(args, from, left),
  dump: ({ stream, args }) => dumps.run(stream, args, there(requests)),
  dumpTaken: ({ stream, count }) => dumps.taken(stream, count),
  dumpEnd: ({ stream }) => dumps.end(stream),
  logTaken: ({ count, dropped }) => log.taken(count, dropped),
}

const main = new ThreadCalls<PacketMethods, MainMethods>(parentPort, own, (error) =>
  log.error({ error }, 'the main thread was told in vain'),
)
const log = threadLog(
  'info',
  (level, fields, text) => main.tell('log', { level, fields, text }),
  (level) => main.tell('setLevel', level),
)
const dumps = new DumpStreams((stream, events, lost) => main.tell('dumpEvents', { stream, events, lost }))
const closing = (part: ServedPart) => () => main.call('close', part)

/** Servers in the main thread, which ask this one. */
const servers: Servers = {
  names: async (addresses, resolve) => {
    resolver = resolve
    await main.call('names', addresses)
    return closing('names')
  },
  control: async (socket, given) => {
    requests = given
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
  listeners: async (changed) => {
    changedListeners = changed
    await main.call('listeners', undefined)
    return {
      busy: (protocols, missing) => main.tell('listenersBusy', { protocols, missing }),
      close: closing('listeners'),
    }
  },
}
