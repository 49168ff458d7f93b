// Makes all parts of a daemon and puts them together: on a device of its own, or on what a former daemon has left with its keeper.

import { availableParallelism } from 'node:os'
import { FlowMemory } from '../lib/flow/flow-memory.js'
import { Host } from '../lib/host/host.js'
import { PEER_CAPACITY, type HostEvents } from '../lib/host/host-options.js'
import { PeerTable } from '../lib/path/peers.js'
import { dnsAddress, formatAddress } from '../lib/service/address-plan.js'
import { JoinIssuer } from '../lib/session/join-issuer.js'
import type { Primitives } from '../lib/crypto/primitives.js'
import { Admission } from './admission.js'
import type { Config, DaemonOptions } from './config.js'
import { CounterFile } from './counter-file.js'
import { Daemon } from './daemon.js'
import { CaracalError, messageOf } from './errors.js'
import { NativeExpress } from './express.js'
import { openIdentity, type Identity } from './identity.js'
import { Instances } from './instances.js'
import { joinNetwork } from './joining.js'
import { FlowFile } from './keeper/flow-file.js'
import type { HandedOver } from './keeper/hand-over.js'
import { closeHeld } from './keeper/keeper-link.js'
import { findKeeper } from './keeper/keeper-process.js'
import { deviceOf, keptOf, type Kept } from './keeper/keeping.js'
import { Lanes, lanesFor } from './lanes/lanes.js'
import { LinkSetup } from './link.js'
import type { Log } from './log.js'
import { codecAddon, NativeCodec } from './native-codec.js'
import { native } from './native.js'
import { linkMtu } from './own-locators.js'
import { DeviceIo, monotonicNow, PacketLoop } from './packet-loop.js'
import type { Servers } from './servers.js'
import { StateDirectory } from './state-files.js'
import { readClaims, readMappings } from './state-writes.js'
import { tableMemory } from './table-memory.js'
import { NativeTun } from './tun.js'
import { Underlay } from './underlay.js'
import type { Undo } from './undo.js'
import { wallNow } from './wall-clock.js'

/** Longer than services take to be restored, the first probe of each included. */
const LOADING_MS = 10_000

/** A daemon that is put together, but not at work yet. */
export interface Built {
  readonly daemon: Daemon
  /** What it goes on with; undefined: its device is new. */
  readonly kept: Kept | undefined
  readonly flowFile: FlowFile | undefined
}

/** What was made before another daemon is asked to hand over, since it takes time. */
export interface Prepared {
  readonly codec: NativeCodec
}

/** `rehearsed`: so is everything that can be without this host's own state. */
export async function prepare(config: Config, primitives: Primitives, rehearsed: boolean): Promise<Prepared> {
  const codec = () => new NativeCodec(codecAddon(), config.aead)
  if (rehearsed) {
    const { rehearse } = await import('./rehearsal.js')
    rehearse(primitives, codec)
    await readForNothing(config, primitives).catch(() => undefined)
  }
  return { codec: codec() }
}

/** As it will be read when it is ours. */
async function readForNothing({ name, pool, zone, state: path }: Config, primitives: Primitives): Promise<void> {
  const state = StateDirectory.peek(path)
  const join = () => Promise.reject(new Error('only a member is read'))
  await openIdentity({ name, create: undefined, join: undefined, pool, zone }, { state, primitives, wallNow, join })
  await Promise.all([readMappings(state), readClaims(state)])
}

/** Throws CaracalErrors; what is in `undo` is to be run then. `found`: what a former daemon has left is there, and is to stay. */
export async function buildDaemon(
  options: DaemonOptions,
  log: Log,
  primitives: Primitives,
  servers: Servers,
  { codec }: Prepared,
  before: Pick<HandedOver, 'counters'> | undefined,
  undo: Undo,
  found: () => void,
): Promise<Built> {
  const { config } = options
  const files = await StateDirectory.open(config.state)
  undo.add(() => files.close())
  const laneCount = lanesFor(config.loop.lanes, availableParallelism())
  const kept = await findKept(files.path, config, laneCount, log)
  if (kept !== undefined) {
    found()
    undo.add(() => kept.link.close())
    undo.add(() => kept.release())
  }
  const underlay =
    kept === undefined ? Underlay.open(config.listen, config.offload) : Underlay.take(kept.sockets, config.offload)
  undo.add(() => underlay.close())
  const wish = { name: config.name, create: options.create, join: options.join, pool: config.pool, zone: config.zone }
  const identity = await openIdentity(wish, {
    state: files,
    primitives,
    wallNow,
    join: (key, token, name) => joinNetwork(underlay, primitives, key, token, name),
  })
  const { trust, hostKey } = identity
  if (kept !== undefined && kept.host !== hostKey.id) throw otherHost()
  const [stamps, sequences, mappings, claims] = await Promise.all([
    CounterFile.open(files, 'stamps', Date.now(), before?.counters.stamps),
    CounterFile.open(files, 'sequences', 1, before?.counters.sequences),
    readMappings(files),
    readClaims(files),
  ])
  const io = new DeviceIo(underlay)
  const lanes = Lanes.open({
    count: laneCount - 1,
    listen: underlay.locals,
    sockets: config.offload,
    aead: config.aead,
    recordBytes: PeerTable.recordBytes(PEER_CAPACITY),
    held: kept?.lanes,
  })
  undo.add(() => lanes.close())
  io.lanes = lanes
  const flowBytes = FlowMemory.bytesFor(config.limits.flows, PEER_CAPACITY)
  const flowFile = openFlowFile(config, identity, flowBytes, undo, log)
  // The host calls these only once it runs, and then the daemon is there.
  const late: { daemon?: Daemon } = {}
  const daemonOf = () => {
    if (late.daemon === undefined) throw new Error('the host ran before its daemon was there')
    return late.daemon
  }
  const events: HostEvents = {
    mappingChanged: () => late.daemon?.writes.mappings(),
    localAddressesChanged: () => late.daemon?.localAddressesChanged(),
    peer: (host, what, detail, move) => daemonOf().peerEvent(host, what, detail, move),
    revocationsChanged: () => void daemonOf().writes.trust(),
    namesRuled: () => void daemonOf().writes.trust(),
    claimsChanged: () => daemonOf().writes.claims(),
    renewed: (what) => daemonOf().renewed(what),
    renewalFailed: (detail) => log.warn({ detail }, "this host's membership could not be renewed; it is tried again"),
    expelled: (what, detail) => daemonOf().expelled(what, detail),
    dropped: (reason, packet) => late.daemon?.tap.dropped(reason, packet),
    remember: () => daemonOf().knownHosts.changed(),
  }
  const instances: Instances = new Instances({
    state: files,
    served: (service, family) => host.addresses.served(service, family),
    changed: (instance) => daemonOf().instanceChanged(instance),
    now: monotonicNow,
  })
  const admission = new Admission({
    identity,
    primitives,
    files,
    locators: () => late.daemon?.locators ?? [],
    hosts: () => daemonOf().host,
    log,
  })
  const issuer = new JoinIssuer({
    primitives,
    hostKey,
    network: trust.network,
    authority: admission,
    sendDatagram: (bytes, address) => underlay.sendOne(bytes, address),
  })
  const host: Host = new Host(
    {
      primitives,
      codec,
      ...(lanes.count === 0 ? {} : { lanes: lanes.host }),
      hostKey,
      trust,
      io,
      events,
      endpoints: instances,
      flowMemory: flowFile?.memory ?? tableMemory(flowBytes),
      tableMemory,
      wallNow,
      random: Math.random,
      nextStamp: () => BigInt(stamps.next()),
      sequence: sequences,
      issuer,
      authority: identity.authority,
      pathMtu: (address) => linkMtu(native().udpRouteMtu(address), config.tun.mtu),
    },
    {
      flowCapacity: config.limits.flows,
      restore: flowFile?.kept === true,
      mappings,
      claims,
      loadingUntil: monotonicNow() + LOADING_MS,
    },
  )
  const { plan } = host.addresses
  const link = new LinkSetup({
    tun: config.tun.name,
    mtu: config.tun.mtu,
    self: [formatAddress(host.addresses.self(4)), formatAddress(host.addresses.self(6))],
    local: [formatAddress(dnsAddress(plan, 4)), formatAddress(dnsAddress(plan, 6))],
    routes: [plan.pool, plan.v6],
    pools: [plan.pool, plan.v6],
  })
  if (kept === undefined) await clearWay(link)
  const device = {
    ...config.tun,
    offload: config.offload.tun,
    vnetHeader: config.offload.vnetHeader,
    multiQueue: lanes.count > 0,
    up: false,
  }
  const tun = new NativeTun(kept === undefined ? device : { ...device, held: kept.queue })
  undo.add(() => tun.close())
  if (!lanes.attach(tun, device))
    log.warn({}, 'the kernel does not let us choose queues by flow: one lane carries everything; as root it does')
  kept?.release()
  io.tun = tun
  const loop = new PacketLoop({
    host,
    tun,
    underlay,
    fault: (error) => log.error({ error }, 'a batch of packets could not be handled'),
    failed: (error) => {
      log.error({ error }, 'the packet loop failed')
      if (late.daemon === undefined) return
      late.daemon.failed = true
      late.daemon.requestStop(messageOf(error))
    },
  })
  undo.add(() => loop.stop())
  if (config.loop.express) {
    const settle = () => loop.run((now) => host.settle(now))
    const express = new NativeExpress({ host, codec, tun, underlay, settle })
    undo.add(() => express.close())
  }
  const daemon = new Daemon(
    options,
    config,
    log,
    primitives,
    files,
    identity,
    underlay,
    io,
    host,
    instances,
    admission,
    tun,
    link,
    loop,
    lanes,
    codec.aeads,
    servers,
    undo,
    { stamps, sequences },
  )
  late.daemon = daemon
  return { daemon, kept, flowFile }
}

/** What a former daemon has left, if it fits; what does not is given up. Throws CARACAL_E_KEEPER. */
async function findKept(directory: string, config: Config, lanes: number, log: Log): Promise<Kept | undefined> {
  const found = await findKeeper(directory)
  if (found === undefined) return undefined
  const kept = keptOf(found, config, lanes)
  if (typeof kept !== 'string') return kept
  log.warn({ why: kept }, 'what the last daemon has left does not fit the configuration: everything is set up anew')
  closeHeld(found.held)
  await found.link.end()
  const device = deviceOf(found)
  // Of our own name it is replaced in its place.
  if (device !== undefined && device !== config.tun.name) await LinkSetup.remove(device)
  return undefined
}

/** undefined: the table is to be this process's own memory. */
function openFlowFile(
  { keeper }: Config,
  { trust, hostKey }: Identity,
  bytes: number,
  undo: Undo,
  log: Log,
): FlowFile | undefined {
  const owner = `${trust.network} ${hostKey.id}`
  if (!keeper.on) {
    FlowFile.forget(owner)
    return undefined
  }
  const file = FlowFile.open(owner, bytes, true, (why) => log.warn({ why }, 'no flow table there'))
  if (file === undefined) log.warn({}, 'no tmpfs has room for the flow table: flows end with this daemon')
  else undo.addOutliving(() => file.remove())
  return file
}

/** A killed daemon's device is removed; another one's, and other users of our pools, stand in the way. */
async function clearWay(link: LinkSetup): Promise<void> {
  await link.cleanStale()
  const conflicts = await link.conflicts()
  if (conflicts.length > 0) {
    const { pool, prefix, kind, device } = conflicts[0]!
    throw new CaracalError(
      'CARACAL_E_ADDRESS_CLASH',
      `the pool ${pool} overlaps the ${kind} ${prefix} of ${device} on this host`,
      `create the network with another pool (setting pool), or remove that ${kind}`,
    )
  }
}

function otherHost(): CaracalError {
  return new CaracalError(
    'CARACAL_E_KEEPER',
    'the keeper in the state directory holds the device of another host',
    'end the process caracal-keeper that has it, then try again',
  )
}
