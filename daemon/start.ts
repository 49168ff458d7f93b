// Brings a daemon up, step by step.

import { SELF } from '../lib/path/peers.js'
import { parseLocator } from '../lib/path/locator.js'
import { formatLocator } from '../lib/path/locator.js'
import { dnsAddress, formatAddress } from '../lib/service/address-plan.js'
import type { Primitives } from '../lib/crypto/primitives.js'
import { buildDaemon, prepare, type Built } from './build.js'
import type { DaemonOptions } from './config.js'
import { CheckedRequests } from './control/requests.js'
import { ControlHandlersOfDaemon } from './control-handlers.js'
import type { Daemon } from './daemon.js'
import { applyResolverSettings } from './dns/resolver-settings.js'
import { CaracalError, messageOf } from './errors.js'
import { Keeping, type Kept } from './keeper/keeping.js'
import { askToHandOver, type HandedOver } from './keeper/hand-over.js'
import type { Log } from './log.js'
import { LogLimit } from './log-limit.js'
import { zoneResolver, zoneSources } from './names.js'
import { NetworkWatcher } from './netlink.js'
import { monotonicNow } from './packet-loop.js'
import { policyOf } from './policy-setting.js'
import type { Servers } from './servers.js'
import { Undo } from './undo.js'
import { metricsSample } from './views.js'

const LOOK_MS = 5_000
/** More than handshakes take with as many hosts as a host usually has flows with. */
const SESSIONS_MS = 250
/** Of what fails again and again a line is logged so often. */
const FAULTS_EVERY_MS = 60_000

/**
 * Brings everything up; what had been done is undone when something fails, but what a former daemon has left stays with its keeper for the next try. With `options.replace` the daemon that runs is asked to
 * hand over when all is made that needs nothing of it.
 */
export async function startDaemon(
  options: DaemonOptions,
  log: Log,
  primitives: Primitives,
  servers: Servers,
): Promise<Daemon> {
  const undo = new Undo()
  let keep = false
  let daemon: Daemon | undefined
  try {
    const prepared = await prepare(options, log, primitives)
    const before = options.replace ? await askToHandOver(options.config) : undefined
    const built = await buildDaemon(options, log, primitives, servers, prepared, before, undo, () => (keep = true))
    daemon = built.daemon
    await open(built, before)
    return daemon
  } catch (error) {
    const failed = (another: unknown) => log.error({ error: another }, 'something could not be undone')
    await daemon?.closeControl?.()
    if (daemon === undefined) await undo.run(keep, failed)
    else await daemon.release(keep)
    if (keep) log.warn({}, 'what the last daemon has left stays with its keeper, for another try')
    throw error
  }
}

async function open({ daemon, kept, flowFile }: Built, before: HandedOver | undefined): Promise<void> {
  const { config, log, host, link, instances, loop, servers, undo } = daemon
  host.policy = policyOf(config.policy)
  daemon.rules.set(config.rules)
  // The last of what is done while packets are moved.
  undo.add(() => daemon.pausePeers())
  undo.add(() => daemon.keeping?.leave())
  undo.addOutliving(() => daemon.keeping?.end())
  undo.addOutliving(() => link.teardown())
  if (kept === undefined) daemon.linkReport = await link.setup()
  else {
    // Programs wait: first the packets, then what is as it should be already.
    await moveBegins(daemon)
    await sessionsReturn(daemon)
    watchNetwork(daemon)
    daemon.linkReport = await link.adopt()
  }
  for (const warning of daemon.linkReport.warnings) log.warn({ device: config.tun.name }, warning)
  await openNames(daemon)
  if (kept === undefined) {
    await moveBegins(daemon)
    watchNetwork(daemon)
  }
  const look = setInterval(() => daemon.rules.look(), LOOK_MS)
  undo.add(() => clearInterval(look))
  const restored = await instances.restored()
  for (const request of restored) {
    // One that cannot be offered any more must not keep the daemon, and all others, down.
    await daemon.expose(request, false).catch((error: unknown) => {
      log.error({ service: request.name, error }, 'a service that was exposed before is not offered any more')
    })
  }
  for (const request of config.services) await daemon.expose(request, true)
  host.loaded(monotonicNow())
  loop.wake()
  const listeners = await servers.listeners(() => instances.scan())
  undo.add(listeners.close)
  instances.start(listeners)
  undo.add(() => instances.stop())
  await startDiscovery(daemon)
  undo.add(() => daemon.loopDelay.stop())
  if (config.metrics !== undefined) undo.add(await servers.metrics(config.metrics, async () => metricsSample(daemon)))
  daemon.keeping = await Keeping.begin(
    {
      directory: daemon.files.path,
      settings: config.keeper,
      log,
      note: {
        host: host.id,
        tun: config.tun.name,
        vnetHeader: config.offload.vnetHeader,
        listen: config.listen.map(formatLocator),
      },
      holdings: [{ queue: daemon.tun.handle, sockets: daemon.underlay.handles }, ...daemon.lanes.holdings],
      withdraw: daemon.resolver?.withdrawal === undefined ? [] : [daemon.resolver.withdrawal],
      giveUp: link.removal(),
      flowFile: flowFile?.path,
    },
    kept,
  )
  // Its socket's name goes when it closes.
  await before?.gone
  const socket = { path: config.socket, group: config.group }
  const close = await servers.control(socket, new CheckedRequests(new ControlHandlersOfDaemon(daemon)))
  daemon.closeControl = close
  await daemon.files.release()
  daemon.state = 'ready'
  if (kept !== undefined || flowFile?.kept === true) tellWhatIsKept(daemon, kept)
  log.info({ zone: daemon.zone, dns: daemon.resolver?.description }, 'names are served')
}

function tellWhatIsKept({ host, log }: Daemon, kept: Kept | undefined): void {
  const { kept: flows, unfinished, torn, nameless, why } = host.flows.restored
  const of = kept === undefined ? 'flows' : 'device, sockets and flows'
  log.info(
    { takeovers: kept?.takeovers ?? 0, flows, unfinished, torn, nameless, why },
    `went on with the ${of} that the last daemon had left`,
  )
}

/** Hosts that are known are looked for, and packets are moved from now on. */
async function moveBegins(daemon: Daemon): Promise<void> {
  const { host, lanes, loop, log } = daemon
  await restorePeers(daemon)
  loop.start()
  lanes.start(host, loop, log)
}

/** Open flows wait for sessions with the hosts that they are with; nothing else is done meanwhile, but for those that do not come it is not waited. */
async function sessionsReturn({ host }: Daemon): Promise<void> {
  const wanted = [...host.flows.restored.rows.keys()].filter((peer) => peer !== SELF)
  const deadline = monotonicNow() + SESSIONS_MS
  const isBack = (peer: number) => host.sessions.info(peer, monotonicNow()).confirmed
  while (!wanted.every(isBack) && monotonicNow() < deadline) await new Promise((resolve) => setTimeout(resolve, 2))
}

async function openNames(daemon: Daemon): Promise<void> {
  const { host, config, zone, servers, undo } = daemon
  const resolve = zoneResolver(zoneSources(host, daemon.names, zone), () => daemon.writes.mappingsWritten(), Date.now)
  const addresses = ([4, 6] as const)
    .filter((family) => family === 4 || daemon.linkReport?.ipv6 === true)
    .map((family) => formatAddress(dnsAddress(host.addresses.plan, family)))
  undo.add(await servers.names(addresses, resolve))
  try {
    daemon.resolver = await applyResolverSettings(config.dns, { tun: config.tun.name, zone, servers: addresses })
  } catch (error) {
    throw new CaracalError('CARACAL_E_DNS', messageOf(error), 'choose another --dns')
  }
  const { restore } = daemon.resolver
  undo.addOutliving(() => restore())
}

async function restorePeers(daemon: Daemon): Promise<void> {
  const { host, identity, config } = daemon
  const told = (identity.joined?.locators ?? []).flatMap(({ host: id, locator: text }) => {
    const locator = parseLocator(text)
    return locator === undefined ? [] : [{ host: id, locators: [locator] }]
  })
  const known = [...(await daemon.knownHosts.read()), ...told]
  const now = monotonicNow()
  // Proven hosts stand last and come first, should there be no room for all; of a host's locators the one hinted last is tried first.
  for (const { host: id, locators } of known.toReversed()) {
    for (const locator of [...config.discovery.peers, ...locators.toReversed()]) host.neighbours.hint(id, locator, now)
  }
  // With nobody to ask, what this host knows is all there is.
  if (known.length === 0) host.directory.markSynced()
}

async function startDiscovery(daemon: Daemon): Promise<void> {
  const { config, host, identity, underlay, servers, undo } = daemon
  if (!config.discovery.mdns) return
  const place = {
    network: identity.trust.network,
    host: host.id,
    port: underlay.locals[0]?.port ?? 0,
    exclude: config.tun.name,
    interfaces: config.discovery.interfaces,
  }
  undo.add(await servers.discovery(place, (id, locator) => daemon.hint(id, locator)))
}

function watchNetwork(daemon: Daemon): void {
  const limit = new LogLimit(FAULTS_EVERY_MS, monotonicNow)
  const watcher = new NetworkWatcher(daemon.tun.name, {
    changed: () => daemon.networkChanged(watcher.links),
    fault: (error) => {
      const kept = limit.take()
      if (kept === undefined) return
      const next = 'it is tried again every second; if the disk of the state directory is full, make room'
      daemon.log.error({ error, kept }, `the other hosts could not be told of a change of the network: ${next}`)
    },
    failed: (error) => daemon.fail(error, 'changes of the network are not heard of any more'),
  })
  daemon.undo.add(() => watcher.close())
  daemon.networkChanged(watcher.links)
}
