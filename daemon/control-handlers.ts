import { realpath } from 'node:fs/promises'
import { revokeAsAuthority, revokeAsIssuer } from '../lib/crypto/revocations.js'
import { nextSerial } from '../lib/crypto/authority.js'
import type { TapEvent } from '../lib/host/tap.js'
import type { DialledTarget } from '../lib/flow/environment.js'
import { SELF } from '../lib/path/peers.js'
import type { PathView } from '../lib/path/prober-sink.js'
import type { ServiceView } from '../lib/service/catalogue.js'
import { parseServiceName, plainLabels } from '../lib/service/service-id.js'
import { fromHex, type HostId } from '../lib/wire/ids.js'
import type {
  ControlHandlers,
  DumpRequest,
  ExposeRequest,
  FlowInfo,
  FlowPage,
  FlowsRequest,
  RequestOf,
  ResponseOf,
  ServicePage,
  ServicesRequest,
} from './control/protocol.js'
import type { Daemon } from './daemon.js'
import { wallNow } from './wall-clock.js'
import { CaracalError } from './errors.js'
import { doctorChecks } from './doctor-inputs.js'
import { giveName, namesView, ruledName } from './name-rules.js'
import { collectFlows, collectTraffic, visitFlows } from './flow-pages.js'
import { monotonicNow } from './packet-loop.js'
import { collectServices, SERVICES_A_PAGE } from './service-pages.js'
import {
  dialledPair,
  flowView,
  hostsView,
  instanceView,
  pathEnds,
  pathInUse,
  pathsView,
  peersUp,
  rulesView,
  serviceView,
  statusView,
} from './views.js'

/** What the control socket asks of a running daemon. */
export class ControlHandlersOfDaemon implements ControlHandlers {
  constructor(private readonly daemon: Daemon) {}

  async status(): Promise<ResponseOf<'status'>> {
    return statusView(this.daemon)
  }

  async invite({ tags, expiresMs, uses }: RequestOf<'invite'>): Promise<ResponseOf<'invite'>> {
    const { admission, identity } = this.daemon
    const expiresAt = Math.floor(wallNow() + expiresMs / 1000)
    const token = await admission.invite({ tags, uses, expiresAt }, wallNow())
    return { token, network: identity.trust.profile.name, tags, uses, expiresAt }
  }

  async expose(request: ExposeRequest): Promise<ResponseOf<'expose'>> {
    const { daemon } = this
    const seen = new Set<string>()
    for (const { protocol, port } of request.ports) {
      const key = `${protocol.toUpperCase()} port ${port}`
      if (seen.has(key)) {
        throw new CaracalError(
          'CARACAL_E_PORT_TAKEN',
          `${key} is given twice`,
          'a dialled port leads to one local port',
        )
      }
      seen.add(key)
    }
    const name = this.#serviceName(request.name)
    const warnings = await daemon.expose({ ...request, name }, false)
    const id = daemon.serviceId(name)
    const conflict = daemon.host.catalogue.conflict(id, daemon.host.id)
    return {
      name,
      id,
      domain: `${plainLabels(name)}.${daemon.zone}`,
      dialled: dialledPair(daemon, { kind: 'service', service: id }),
      ports: request.ports.map(({ protocol, port, local }) => ({ protocol, port, local })),
      warnings: [
        ...warnings,
        ...(conflict === undefined ? [] : [`others ignore this registration: ${conflict.detail}`]),
      ],
    }
  }

  async unexpose({ name }: RequestOf<'unexpose'>): Promise<ResponseOf<'unexpose'>> {
    const { daemon } = this
    const instance = daemon.instances.get(daemon.serviceId(this.#serviceName(name)))
    if (instance === undefined) {
      throw new CaracalError('CARACAL_E_NO_SUCH_SERVICE', `this host does not expose ${name}`, 'see `caracal services`')
    }
    const flows = daemon.host.flows.openTo(instance.service, SELF)
    await daemon.unexpose(instance)
    return { name: instance.request.name, flows }
  }

  async services(request: ServicesRequest): Promise<ResponseOf<'services'>> {
    return collectServices(async (from, left = request.limit) => {
      if (from !== undefined) await otherWork()
      return this.servicePage({ ...request, limit: left }, from)
    })
  }

  servicePage({ name, limit }: ServicesRequest, from: number | undefined): ServicePage {
    const { daemon } = this
    const { catalogue } = daemon.host
    const { views, next } =
      name === undefined
        ? catalogue.some(from, Math.min(limit, SERVICES_A_PAGE))
        : { views: [this.#known(name)], next: undefined }
    return {
      services: views.map((view) => serviceView(daemon, view)),
      next,
      left: limit - views.length,
      total: name === undefined ? catalogue.count : views.length,
    }
  }

  async resolve({ name }: RequestOf<'resolve'>): Promise<ResponseOf<'resolve'>> {
    const { daemon } = this
    const { host, names, zone } = daemon
    const target = this.#target(name)
    const addresses = dialledPair(daemon, target)
    const pinned = target.kind === 'service' && target.host !== undefined ? names.showHost(target.host) : null
    if (target.kind === 'host') {
      return {
        name: `${names.showHost(target.host)}.host.${zone}`,
        kind: 'host',
        id: target.host,
        addresses,
        pinned,
        instances: [],
        obstacle: null,
      }
    }
    const view = host.catalogue.get(target.service)
    const ports = new Set((view?.instances ?? []).flatMap((i) => i.ports.map((p) => `${p.protocol}/${p.port}`)))
    const [protocol, port] = ([...ports][0] ?? 'tcp/0').split('/')
    const candidates = host.environment.look(target, protocol === 'udp' ? 17 : 6, Number(port), monotonicNow(), false)
    const order = typeof candidates === 'string' ? [] : candidates.map(({ peer }) => host.peers.hostId(peer))
    const instances = order.flatMap((id) => view?.instances.find((i) => i.host === id) ?? [])
    const full = plainLabels(view?.name ?? this.#serviceName(name))
    return {
      name: pinned === null ? `${full}.${zone}` : `${full}.at.${pinned}.${zone}`,
      kind: 'service',
      id: target.service,
      addresses,
      pinned,
      instances: instances.map((i) => instanceView(daemon, i)),
      obstacle: typeof candidates === 'string' ? candidates : null,
    }
  }

  async rules({ name }: RequestOf<'rules'>): Promise<ResponseOf<'rules'>> {
    const service = name === undefined ? undefined : this.daemon.serviceId(this.#serviceName(name))
    return { rules: rulesView(this.daemon, service) }
  }

  async hosts(): Promise<ResponseOf<'hosts'>> {
    const traffic = await collectTraffic(this.daemon.host.flows, otherWork)
    return { hosts: hostsView(this.daemon, traffic) }
  }

  async flows(request: FlowsRequest): Promise<ResponseOf<'flows'>> {
    return collectFlows(async (from, left = request.limit) => {
      if (from > 0) await otherWork()
      return this.flowPage({ ...request, limit: left }, from)
    })
  }

  flowPage({ service: serviceText, host: hostText, protocol, limit }: FlowsRequest, from: number): FlowPage {
    const { daemon } = this
    const { host } = daemon
    const service = serviceText === undefined ? undefined : daemon.serviceId(this.#serviceName(serviceText))
    const peer = hostText === undefined ? undefined : host.peers.indexOf(this.#hostId(hostText))
    const flows: FlowInfo[] = []
    let matched = 0
    const next = visitFlows(host.flows, from, (flow) => {
      if (protocol !== undefined && flow.protocol !== protocol) return
      if (service !== undefined && flow.service !== service) return
      // One end of every flow is this host.
      if (peer !== undefined && peer !== SELF && (peer < 0 || flow.peer !== peer)) return
      matched++
      if (flows.length < limit) flows.push(flowView(daemon, flow))
    })
    const counted = service === undefined && (peer === undefined || peer === SELF)
    const total = counted ? host.flows.counts[protocol ?? 'open'] : undefined
    return { flows, matched, next, left: limit - flows.length, total }
  }

  async paths({ host }: RequestOf<'paths'>): Promise<ResponseOf<'paths'>> {
    const paths = pathsView(this.daemon)
    if (host === undefined) return { paths }
    const id = this.#hostId(host)
    return { paths: paths.filter((path) => path.hostId === id) }
  }

  async ping({ target: text, sequence, timeoutMs }: RequestOf<'ping'>): Promise<ResponseOf<'ping'>> {
    const { daemon } = this
    const { host, names } = daemon
    const target = this.#target(text)
    const reply = (peer: number | undefined, rttMs: number | null, detail: string, path?: PathView) => ({
      target: text,
      kind: target.kind,
      sequence,
      host: peer === undefined ? null : (names.peer(peer) ?? null),
      ...(path === undefined ? { local: null, remote: null } : pathEnds(daemon, path)),
      reason: path?.reason ?? null,
      rttMs,
      detail,
    })
    const candidates = host.environment.look(target, 1, 0, monotonicNow(), false)
    if (typeof candidates === 'string') return reply(undefined, null, candidates)
    const { peer } = candidates[0]!
    if (peer === SELF) return reply(SELF, 0, '')
    const deadline = monotonicNow() + timeoutMs
    host.neighbours.want(peer, monotonicNow())
    daemon.loop.wake()
    while (host.peers.sealSlot[peer]! < 0 && monotonicNow() < deadline)
      await new Promise((resolve) => setTimeout(resolve, 5))
    if (host.peers.sealSlot[peer]! < 0) return reply(peer, null, 'no session with the host')
    // The one by which it goes, whatever becomes of that until the answer is there.
    const path = pathInUse(daemon, peer)
    return new Promise((resolve) => {
      const timer = setTimeout(
        () => {
          ping?.cancel()
          resolve(reply(peer, null, 'no answer', path))
        },
        Math.max(1, deadline - monotonicNow()),
      )
      const ping = host.ping(peer, monotonicNow(), (rttMs) => {
        clearTimeout(timer)
        resolve(reply(peer, rttMs, '', path))
      })
    })
  }

  async doctor(): Promise<ResponseOf<'doctor'>> {
    return { checks: await doctorChecks(this.daemon) }
  }

  async revoke({ host: text }: RequestOf<'revoke'>): Promise<ResponseOf<'revoke'>> {
    const { daemon } = this
    const { identity, host } = daemon
    const { trust, authority, hostKey } = identity
    const id = this.#hostId(text)
    if (id === host.id)
      throw new CaracalError('CARACAL_E_NOT_ENTITLED', 'a host cannot revoke itself', 'run it on another host')
    const wall = Math.floor(wallNow())
    const entry = { host: id, serial: nextSerial(Date.now(), host.members.lastKnown(id)?.serial), time: wall }
    const certificate = trust.issuerCertificate
    if (authority === undefined && certificate === undefined) {
      throw new CaracalError(
        'CARACAL_E_NOT_ISSUER',
        'this host may not revoke',
        'run it on the host that created the network',
      )
    }
    const name = daemon.names.showHost(id)
    const bytes =
      authority !== undefined
        ? revokeAsAuthority(authority, entry)
        : revokeAsIssuer(hostKey, { network: fromHex(trust.network), certificate: certificate! }, entry)
    trust.revocations.add(bytes)
    const told = peersUp(daemon).filter((peer) => host.peers.hostId(peer) !== id).length
    host.revocationsAdded(monotonicNow())
    daemon.loop.wake()
    void daemon.writes.trust()
    return { name, id, told }
  }

  async own({ hosts, ...request }: RequestOf<'own'>): Promise<ResponseOf<'own'>> {
    const { daemon } = this
    const { host, identity, names, primitives } = daemon
    const name = ruledName(request.name === '*' ? '*' : this.#withoutZone(request.name))
    const ids = [...new Set(hosts.map((text) => this.#hostId(text)))]
    const wish = request.free
      ? { name, tags: [], hosts: [], minPriority: 0, maxWeight: 0, free: true }
      : { ...request, name, tags: [...new Set(request.tags)], hosts: ids }
    const { bytes, rule } = giveName(identity, wish, primitives, Date.now())
    host.nameRuleAdded(bytes, monotonicNow())
    daemon.loop.wake()
    await daemon.writes.trust()
    const { tags, minPriority, maxWeight, free, serial, issuer } = rule
    const by = issuer === undefined ? ('authority' as const) : ('issuer' as const)
    const shown = rule.hosts.map((id) => names.showHost(id))
    const told = peersUp(daemon).length
    return { name, free, by, tags: [...tags], hosts: shown, minPriority, maxWeight, serial, told }
  }

  async names(): Promise<ResponseOf<'names'>> {
    return { names: namesView(this.daemon) }
  }

  async reload(): Promise<ResponseOf<'reload'>> {
    return this.daemon.reload()
  }

  async down({ keep }: RequestOf<'down'>): Promise<ResponseOf<'down'>> {
    const { daemon } = this
    const flows = daemon.host.flows.counts.open
    if (keep && daemon.keeping?.holds !== true) {
      const next = 'see `caracal doctor`; without --keep it ends and leaves nothing'
      throw new CaracalError('CARACAL_E_KEEPER', 'this daemon has no keeper that could hold anything', next)
    }
    setImmediate(() => daemon.requestStop(keep ? 'caracal down --keep' : 'caracal down', keep))
    return { pid: process.pid, flows }
  }

  async handover({ state }: RequestOf<'handover'>): Promise<ResponseOf<'handover'>> {
    const { daemon } = this
    if ((await realpath(state).catch(() => state)) !== daemon.files.path) {
      const next = 'give the --state and the --socket of one and the same daemon'
      const what = `the daemon that runs there has the state directory ${daemon.files.path}`
      throw new CaracalError('CARACAL_E_STATE', what, next)
    }
    return { pid: process.pid, counters: await daemon.handOver() }
  }

  dump(request: DumpRequest, emit: (event: TapEvent) => void, signal: AbortSignal): Promise<void> {
    const close = this.daemon.openTap({ snapLength: request.snapLength, event: emit }, request.points)
    return new Promise((resolve) => {
      const end = () => {
        close()
        resolve()
      }
      if (signal.aborted) end()
      else signal.addEventListener('abort', end, { once: true })
    })
  }

  /** The name of a service, with or without the zone, as it is registered. Throws CARACAL_E_NAME. */
  #serviceName(text: string): string {
    const parsed = parseServiceName(this.#withoutZone(text))
    if (!('problem' in parsed)) return parsed.text
    throw new CaracalError('CARACAL_E_NAME', parsed.problem, 'give a name such as web or api.shop')
  }

  /** Throws CARACAL_E_NAME, CARACAL_E_NO_SUCH_SERVICE. */
  #known(text: string): ServiceView {
    const view = this.daemon.host.catalogue.byName(this.#serviceName(text))
    if (view !== undefined) return view
    throw new CaracalError('CARACAL_E_NO_SUCH_SERVICE', `no host exposes ${text}`, 'see `caracal services`')
  }

  #hostId(name: string): HostId {
    const id = this.daemon.names.hostNamed(name) ?? this.daemon.host.directory.hosts().find((host) => host === name)
    if (id !== undefined) return id
    throw new CaracalError('CARACAL_E_NO_SUCH_HOST', `no host is called ${name}`, 'see `caracal hosts`')
  }

  #withoutZone(name: string): string {
    const { zone } = this.daemon
    const lower = name.toLowerCase().replace(/\.$/, '')
    return lower.endsWith(`.${zone}`) ? lower.slice(0, -zone.length - 1) : lower
  }

  /** `web`, `web.at.h2`, `h2.host` with or without the zone; `h2` alone when no service is called so. */
  #target(text: string): DialledTarget {
    const { daemon } = this
    const name = this.#withoutZone(text)
    const pinned = /^(.+)\.at\.([^.]+)$/.exec(name)
    if (pinned !== null)
      return { kind: 'service', service: this.#known(pinned[1]!).service, host: this.#hostId(pinned[2]!) }
    const hostName = /^([^.]+)\.host$/.exec(name)?.[1]
    if (hostName !== undefined) return { kind: 'host', host: this.#hostId(hostName) }
    const hostId = this.daemon.names.hostNamed(name)
    const isService = this.daemon.host.catalogue.byName(name) !== undefined
    if (hostId !== undefined && !isService) return { kind: 'host', host: hostId }
    const parsed = parseServiceName(name)
    const findable = isService || 'problem' in parsed ? undefined : daemon.names.findable(parsed)
    return { kind: 'service', service: findable ?? this.#known(name).service }
  }
}

/** Whatever else is to be done gets its turn. */
function otherWork(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
