// The daemon's state as the control socket tells it: pure readings, no actions.

import type { AeadName } from '../lib/crypto/codec.js'
import type { PeerTraffic } from '../lib/flow/peer-traffic.js'
import type { FlowSnapshot } from '../lib/flow/flow-snapshot.js'
import type { Host } from '../lib/host/host.js'
import { decodeLocal, decodeLocator, formatLocator, type Locator } from '../lib/path/locator.js'
import { pathReasons } from '../lib/path/path.js'
import type { PathView } from '../lib/path/prober-sink.js'
import { SELF } from '../lib/path/peers.js'
import { ADDRESS_LOCAL } from '../lib/wire/batch.js'
import { dnsAddress, formatAddress } from '../lib/service/address-plan.js'
import type { DialledTarget } from '../lib/flow/environment.js'
import { isInstanceRule, type Instance as CatalogueInstance, type ServiceView } from '../lib/service/catalogue.js'
import { isLocalRule } from '../lib/service/local-rules.js'
import { NETWORK_BITS, SERVICE_ID_BITS } from '../lib/service/service-id.js'
import type { HostId, ServiceId } from '../lib/wire/ids.js'
import type {
  AddressPair,
  FlowInfo,
  HostInfo,
  InstanceInfo,
  PathInfo,
  RuleInfo,
  ServiceInfo,
  StatusResponse,
} from './control/shapes.js'
import type { Admission } from './admission.js'
import type { Config } from './config.js'
import { wallNow } from './wall-clock.js'
import type { ResolverSettings } from './dns/resolver-settings.js'
import type { EventLoopDelay } from './event-loop.js'
import type { Identity } from './identity.js'
import type { Instances } from './instances.js'
import type { Keeping } from './keeper/keeping.js'
import type { LinkReport } from './link.js'
import type { Log } from './log.js'
import type { MetricsSample } from './metrics.js'
import type { Names } from './names.js'
import { chooseLibrary, codecAddon, sealers } from './native-codec.js'
import { monotonicNow, type DeviceIo } from './packet-loop.js'
import { ownNameOf } from './proof-setting.js'
import type { TunDevice } from './tun.js'
import type { Lanes } from './lanes/lanes.js'
import type { Underlay } from './underlay.js'
import { version } from './version.js'

type LaneCounts =
  | 'count'
  | 'ports'
  | 'framesOut'
  | 'bytesOut'
  | 'framesFailed'
  | 'packetsNotWritten'
  | 'packetsNotSealed'
  | 'datagramsLost'

/** What of a daemon is shown. */
export interface Viewed {
  readonly state: 'starting' | 'ready' | 'closing'
  /** Monotonic ms. */
  readonly startedAt: number
  readonly config: Pick<Config, 'dns' | 'aead'>
  readonly identity: Identity
  readonly host: Host
  /** What this host offers in handshakes. */
  readonly aeads: readonly AeadName[]
  readonly names: Names
  readonly instances: Instances
  readonly admission: Pick<Admission, 'isIssuer'>
  readonly underlay: Underlay
  readonly lanes: Pick<Lanes, LaneCounts>
  readonly io: Pick<DeviceIo, 'tunWriteFailed'>
  readonly tun: Pick<TunDevice, 'name' | 'mtu' | 'packetsLost'>
  readonly linkReport: LinkReport | undefined
  readonly resolver: Pick<ResolverSettings, 'description'> | undefined
  readonly locators: readonly Locator[]
  /** Undefined while the daemon starts. */
  readonly keeping: Pick<Keeping, 'summary'> | undefined
  readonly loopDelay: Pick<EventLoopDelay, 'read'>
  readonly log: Pick<Log, 'dropped'>
}

const pair = (v4: Uint8Array | undefined, v6: Uint8Array | undefined): AddressPair => ({
  v4: v4 === undefined ? null : formatAddress(v4),
  v6: v6 === undefined ? null : formatAddress(v6),
})

export function statusView(daemon: Viewed): StatusResponse {
  const { host, identity, config, underlay, instances, lanes } = daemon
  const { express } = host
  host.settle(monotonicNow())
  const { addresses } = host
  const { profile } = identity.trust
  const { open, tcp, udp, icmp } = host.flows.counts
  const flows = { open, tcp, udp, icmp, capacity: host.flows.table.capacity }
  const { dataPath } = host
  const { rebinding, moveNotes, pathMtus } = host.peering.ways
  const framesFailed = underlay.framesFailed + lanes.framesFailed + express.framesFailed
  return {
    state: daemon.state,
    version,
    pid: process.pid,
    uptimeMs: monotonicNow() - daemon.startedAt,
    network: { name: profile.name, id: identity.trust.network },
    host: {
      name: identity.membership.name,
      id: host.id,
      tags: [...identity.membership.tags],
      membershipExpiresAt: identity.membership.notAfter,
      issuer: daemon.admission.isIssuer,
      ownName: ownNameOf(host.id),
      revoked: host.revocation ?? null,
    },
    zone: profile.zone,
    addresses: {
      self: pair(addresses.self(4), addresses.self(6)),
      dns: pair(dnsAddress(addresses.plan, 4), dnsAddress(addresses.plan, 6)),
      pool: addresses.plan.pool,
      prefix: addresses.plan.v6,
    },
    tun: { name: daemon.tun.name, mtu: daemon.tun.mtu, up: daemon.linkReport !== undefined },
    listen: underlay.locals.map(formatLocator),
    lanes: { count: 1 + lanes.count, ports: [...lanes.ports], framesOut: lanes.framesOut },
    keeper: daemon.keeping?.summary ?? { on: false, pid: null, descriptors: 0, takeovers: 0 },
    express: express.on,
    locators: daemon.locators.map(formatLocator),
    seenAt: host.seenAt.map(formatLocator),
    dns: { mode: config.dns.kind, detail: daemon.resolver?.description ?? '' },
    sessions: { up: peersUp(daemon).length, known: host.directory.hosts().length - 1 },
    services: { local: instances.count, known: host.catalogue.count },
    flows,
    counters: {
      ...host.flows.counters,
      tunPacketsIn: dataPath.tunPacketsIn,
      tunPacketsOut: dataPath.tunPacketsOut,
      tunPacketsLost: daemon.tun.packetsLost,
      expressPacketsOut: express.packetsOut,
      expressPacketsIn: express.packetsIn,
      wireFramesOut: dataPath.framesOut + lanes.framesOut,
      wireSingleFramesOut: dataPath.singleFramesOut,
      wireAgainFrames: dataPath.replay.framesAgain,
      wireAgainOverruns: dataPath.replay.overrun,
      wireFramesIn: dataPath.framesIn,
      wireClearFramesIn: host.peering.clearFramesIn,
      wireBytesOut: dataPath.bytesOut + lanes.bytesOut,
      wireDatagramsIn: dataPath.datagramsIn,
      wireBytesIn: dataPath.bytesIn,
      wireFramesFailed: framesFailed,
      wireDatagramsLost: underlay.datagramsLost + lanes.datagramsLost,
      movesSent: rebinding.told,
      movesUnanswered: rebinding.unanswered,
      movesReceived: rebinding.received,
      pausesReceived: host.peering.pauses.received,
      keeperTakeovers: daemon.keeping?.summary.takeovers ?? 0,
      flowsKept: host.flows.restored.kept,
      flowsUnfinished: host.flows.restored.unfinished,
      flowsTorn: host.flows.restored.torn,
      flowsNameless: host.flows.restored.nameless,
      logLinesDropped: daemon.log.dropped,
      movesSettled: moveNotes.heardAgain,
      moveStallMs: moveNotes.stallMs,
      probesSent: host.prober.probes.sent,
      probesEchoed: host.prober.probes.echoed,
      pathMtuRaised: pathMtus.changes.raised,
      pathMtuLowered: pathMtus.changes.lowered,
      ...prefixed(
        'pathCommits',
        Object.fromEntries(pathReasons.map((reason) => [reason, host.prober.commits.get(reason) ?? 0])),
      ),
      ...prefixed('nameRules', identity.trust.nameRules.refused),
      ...prefixed('query', host.whereabouts.asking.counters),
      ...prefixed('directory', host.directory.counters),
    },
    drops: {
      ...host.drops.toJSON(),
      // The devices, and who seals, count these themselves.
      'no-session': host.drops.get('no-session') + lanes.packetsNotSealed + express.packetsNotSealed,
      'send-failed': host.drops.get('send-failed') + framesFailed,
      'tun-write-failed':
        host.drops.get('tun-write-failed') +
        daemon.io.tunWriteFailed +
        lanes.packetsNotWritten +
        express.packetsNotWritten,
    },
    sealing: sealers(daemon.aeads, chooseLibrary(codecAddon(), config.aead.implementation)),
  }
}

/** What /metrics says. */
export function metricsSample(daemon: Viewed): MetricsSample {
  const { host, instances, loopDelay } = daemon
  const { counters, flows, sessions, services, version, drops, keeper } = statusView(daemon)
  return {
    version,
    startedAt: wallNow() - (monotonicNow() - daemon.startedAt) / 1000,
    counters: Object.fromEntries(Object.entries(counters).filter(([name]) => !name.startsWith('directory'))),
    drops,
    sessions,
    flows,
    services: { ...services, unhealthy: [...instances.all()].filter(({ health }) => health !== 'up').length },
    directory: { synced: host.directory.synced, counters: { ...host.directory.counters } },
    keeper: keeper.pid !== null,
    loopDelay: loopDelay.read(),
  }
}

function prefixed(prefix: string, counters: object): Record<string, number> {
  const entries = Object.entries(counters).filter((entry): entry is [string, number] => typeof entry[1] === 'number')
  return Object.fromEntries(
    entries.map(([key, value]) => {
      const camel = key.replace(/-(.)/g, (_, c: string) => c.toUpperCase())
      return [prefix + camel[0]!.toUpperCase() + camel.slice(1), value]
    }),
  )
}

/** Peers with a session. */
export function peersUp({ host }: Pick<Viewed, 'host'>): number[] {
  const up: number[] = []
  for (let peer = 1; peer < host.peers.size; peer++) if (host.peers.sealSlot[peer]! >= 0) up.push(peer)
  return up
}

/** The path that the peer's frames go by; undefined: none. */
export function pathInUse({ host }: Pick<Viewed, 'host'>, peer: number): PathView | undefined {
  return peer === SELF ? undefined : host.prober.paths(peer).find(({ inUse }) => inUse)
}

function remoteOf({ host }: Pick<Viewed, 'host'>, { slot }: PathView): string {
  const locator = decodeLocator(host.peers.addresses.record(slot))
  return locator === undefined ? '' : formatLocator(locator)
}

/** What paths are shown from. */
export interface PathsViewed extends Pick<Viewed, 'host'> {
  readonly names: Pick<Names, 'peer'>
  readonly underlay: Pick<Underlay, 'locals'>
}

/** Where the path goes from and to, `ADDR:PORT`. */
export function pathEnds(daemon: PathsViewed, path: PathView): { local: string; remote: string } {
  const record = daemon.host.peers.addresses.record(path.slot)
  const bound = daemon.underlay.locals.find(({ address }) => address.includes(':') === (record[0] === 6))
  const seen = record.slice()
  if (path.localSeen !== undefined) seen.set(path.localSeen, ADDRESS_LOCAL)
  const port = bound?.port ?? 0
  const local = decodeLocal(record, port) ?? decodeLocal(seen, port) ?? bound
  return { local: local === undefined ? '' : formatLocator(local), remote: remoteOf(daemon, path) }
}

/** `traffic`: of flows with each peer. */
export function hostView(daemon: Viewed, id: HostId, traffic: PeerTraffic): HostInfo {
  const { host, identity, names } = daemon
  const self = id === host.id
  const member = host.members.member(id)
  const peer = self ? SELF : host.peers.indexOf(id)
  const now = monotonicNow()
  const info = peer > 0 ? host.sessions.info(peer, now) : undefined
  const liveness = peer > 0 ? host.prober.liveness(peer) : undefined
  const locators = self ? daemon.locators : host.directory.locatorsOf(id)
  const heard = host.prober.heardAt(peer)
  const path = peer > 0 ? pathInUse(daemon, peer) : undefined
  const state = self
    ? 'self'
    : host.members.isRevoked(id) ||
        (member === undefined && host.members.membership(id) === undefined && info?.connected !== true)
      ? 'revoked'
      : info?.connected === true
        ? liveness === 'dead'
          ? 'down'
          : liveness === 'doubtful'
            ? 'suspect'
            : 'up'
        : info?.connecting === true
          ? 'connecting'
          : 'down'
  return {
    name: names.showHost(id),
    id,
    self,
    tags: [...(self ? identity.membership.tags : (member?.tags ?? []))],
    state,
    locators: locators.map(formatLocator),
    session:
      info?.connected === true
        ? {
            upMs: info.ageMs ?? 0,
            aead: info.aead ?? '',
            lanes: info.lanes ?? 1,
            lanesWorking: 1 + host.lanePaths.working(peer),
            ...(path === undefined ? { local: null, remote: null } : pathEnds(daemon, path)),
            bytesIn: traffic.bytesIn[peer]!,
            bytesOut: traffic.bytesOut[peer]!,
            lastHeardMs: heard === undefined ? 0 : Math.max(0, now - heard),
          }
        : null,
    rttMs: peer > 0 && host.peers.rttMs[peer]! > 0 ? host.peers.rttMs[peer]! : null,
    membershipExpiresAt: member?.notAfter ?? null,
  }
}

export function hostsView(daemon: Viewed, traffic: PeerTraffic): HostInfo[] {
  const { host, identity } = daemon
  const ids = new Set<HostId>([...host.directory.hosts(), ...host.members.members().map((member) => member.host)])
  for (const peer of peersUp(daemon)) ids.add(host.peers.hostId(peer))
  for (const revocation of identity.trust.revocations.list()) ids.add(revocation.host)
  const views = [...ids].map((id) => hostView(daemon, id, traffic))
  return views.sort((a, b) => Number(b.self) - Number(a.self) || (a.name < b.name ? -1 : 1))
}

export function instanceView(daemon: Viewed, instance: CatalogueInstance): InstanceInfo {
  const { host, instances, names } = daemon
  const self = instance.host === host.id
  const local = self ? instances.get(instance.service) : undefined
  const peer = self ? SELF : host.peers.indexOf(instance.host)
  const liveness = self ? 'alive' : peer > 0 ? host.prober.liveness(peer) : undefined
  const state =
    liveness === 'dead' ? 'down' : liveness === 'doubtful' && instance.state === 'up' ? 'suspect' : instance.state
  return {
    host: names.showHost(instance.host),
    hostId: instance.host,
    self,
    ports: instance.ports.map(({ protocol, port, localPort }) => ({ protocol, port, local: localPort })),
    priority: instance.priority,
    weight: instance.weight,
    state,
    health: { kind: local?.request.health.kind ?? 'none', detail: local?.detail ?? '' },
    rttMs: self ? 0 : peer > 0 && host.peers.rttMs[peer]! > 0 ? host.peers.rttMs[peer]! : null,
    flows: peer < 0 ? 0 : host.flows.openTo(instance.service, peer),
  }
}

export function serviceView(daemon: Viewed, view: ServiceView): ServiceInfo {
  const { addresses } = daemon.host
  const target: DialledTarget = { kind: 'service', service: view.service }
  return {
    name: view.name,
    id: view.service,
    dialled: dialledPair(daemon, target),
    served: pair(addresses.served(view.service, 4), addresses.served(view.service, 6)),
    movable: addresses.isMovable(view.service),
    instances: view.instances.map((instance) => instanceView(daemon, instance)),
  }
}

/** What DNS answers for the target. */
export function dialledPair({ host }: Viewed, target: DialledTarget): AddressPair {
  return pair(host.addresses.dialledAddress(target, 4), host.addresses.dialledAddress(target, 6))
}

export function flowView(daemon: Pick<Viewed, 'host' | 'names'>, flow: FlowSnapshot): FlowInfo {
  const { host, names } = daemon
  const own = names.showHost(host.id)
  const other = flow.peer < 0 ? null : flow.peer === SELF ? own : (names.peer(flow.peer) ?? null)
  const initiator = flow.role === 'initiator'
  const seconds = monotonicNow() / 1000
  const path = flow.peer < 0 ? undefined : pathInUse(daemon, flow.peer)
  const end = (address: Uint8Array, port: number) => formatLocator({ address: formatAddress(address), port })
  return {
    id: flow.id,
    protocol: flow.protocol,
    role: initiator ? 'client' : 'server',
    client: initiator ? own : (other ?? '?'),
    service: flow.service === undefined ? null : (names.service(flow.service) ?? flow.service),
    instance: initiator ? other : own,
    state: flow.state,
    ageMs: Math.max(0, seconds - flow.since) * 1000,
    idleMs: Math.max(0, seconds - Math.max(flow.lastIn, flow.lastOut)) * 1000,
    bytesIn: flow.bytesIn,
    bytesOut: flow.bytesOut,
    packetsIn: flow.packetsIn,
    packetsOut: flow.packetsOut,
    source: initiator ? end(flow.local, flow.localPort) : end(flow.remote, flow.remotePort),
    destination: initiator ? end(flow.remote, flow.remotePort) : end(flow.local, flow.localPort),
    path: path === undefined ? null : remoteOf(daemon, path),
    pathMs: path === undefined ? null : Math.max(0, monotonicNow() - path.usedSince),
  }
}

/** Rules of the service table, the longest prefixes first; `service`: only those that cover it. */
export function rulesView(daemon: Pick<Viewed, 'host' | 'names'>, service?: ServiceId): RuleInfo[] {
  const { host, names } = daemon
  const { table, whereabouts } = host
  const seconds = monotonicNow() / 1000
  const entries = service === undefined ? [...table.entries()] : table.covering(service)
  const rules = entries.flatMap(({ prefix, rules }) => {
    const { id, length } = prefix
    const set = whereabouts.rules.textOf(prefix)
    return rules.map(({ key, action, priority, weight, hits, lastHit }): RuleInfo => {
      const hostId = action.kind === 'forward' ? action.host : action.kind === 'demux' ? host.id : null
      const known = length === SERVICE_ID_BITS ? names.service(id) : length <= NETWORK_BITS ? '*' : undefined
      return {
        name: (isLocalRule(key) ? set : undefined) ?? known ?? null,
        prefix: id.slice(0, length / 4),
        length,
        action: action.kind === 'forward' ? action.to : action.kind === 'demux' ? 'deliver' : action.kind,
        host: hostId === null ? null : names.showHost(hostId),
        hostId,
        priority,
        weight,
        hits,
        lastHitMs: hits === 0 ? null : Math.max(0, Math.round((seconds - lastHit) * 1000)),
        by: isLocalRule(key) ? 'settings' : isInstanceRule(key) ? 'registration' : 'daemon',
      }
    })
  })
  const place = ({ name, prefix }: RuleInfo) => name ?? prefix
  return rules.sort((a, b) => b.length - a.length || (place(a) < place(b) ? -1 : place(a) > place(b) ? 1 : 0))
}

export function pathsView(daemon: PathsViewed): PathInfo[] {
  const { host, names } = daemon
  const now = monotonicNow()
  return peersUp(daemon).flatMap((peer) =>
    host.prober.paths(peer).map((path): PathInfo => {
      const { slot, state, inUse, usedSince, rttMs, rttVarMs, loss, provenAt, reason, changedAt, changes } = path
      return {
        host: names.peer(peer) ?? '?',
        hostId: host.peers.hostId(peer),
        ...pathEnds(daemon, path),
        state,
        inUse,
        rttMs: rttMs > 0 ? rttMs : null,
        rttVarMs: rttMs > 0 ? rttVarMs : null,
        lossPercent: rttMs > 0 ? loss * 100 : null,
        mtu: host.peering.ways.pathMtus.of(peer, slot)?.mtu ?? null,
        lastHeardMs: provenAt > 0 ? now - provenAt : null,
        usedMs: inUse ? Math.max(0, now - usedSince) : null,
        reason,
        changedMs: Math.max(0, now - changedAt),
        changes,
      }
    }),
  )
}
