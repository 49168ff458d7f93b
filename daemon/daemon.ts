import { availableParallelism } from 'node:os'
import { FlowTable } from '../lib/flow/flow-table.js'
import { Host } from '../lib/host/host.js'
import { PEER_CAPACITY, type HostEvents } from '../lib/host/host-options.js'
import { areClaims } from '../lib/host/name-claims.js'
import { OFFERS_MAX } from '../lib/host/offers.js'
import { TrafficTap } from '../lib/host/traffic-tap.js'
import type { Locator } from '../lib/path/locator.js'
import { formatLocator, parseLocator } from '../lib/path/locator.js'
import { dnsAddress, formatAddress } from '../lib/service/address-plan.js'
import { savedMappings } from '../lib/service/addresses.js'
import { PeerTable } from '../lib/path/peers.js'
import { parseServiceName, serviceIdOf } from '../lib/service/service-id.js'
import { JoinIssuer } from '../lib/session/join-issuer.js'
import type { AeadName } from '../lib/crypto/codec.js'
import { isMembershipProblem } from '../lib/crypto/membership.js'
import type { Primitives } from '../lib/crypto/primitives.js'
import { wallText } from '../lib/crypto/validity.js'
import type { Tap, TapPoint } from '../lib/host/tap.js'
import type { HostId, ServiceId } from '../lib/wire/ids.js'
import { Admission } from './admission.js'
import { compareConfigs, loadConfig, type Config, type DaemonOptions } from './config.js'
import { ControlHandlersOfDaemon } from './control-handlers.js'
import type { ExposeRequest } from './control/protocol.js'
import { CheckedRequests } from './control/requests.js'
import { CounterFile } from './counter-file.js'
import { EventLoopDelay } from './event-loop.js'
import { NativeExpress } from './express.js'
import { metricsSample } from './views.js'
import { applyResolverSettings, type ResolverSettings } from './dns/resolver-settings.js'
import { CaracalError, messageOf } from './errors.js'
import { openIdentity, rejoin, stateFile, type Identity } from './identity.js'
import type { HostLinks } from './host-links.js'
import { Instances, type Instance } from './instances.js'
import { joinNetwork } from './joining.js'
import { KnownHosts } from './known-hosts.js'
import { Lanes, lanesFor } from './lanes/lanes.js'
import { LinkSetup, type LinkReport } from './link.js'
import type { Log } from './log.js'
import { Names, zoneResolver, zoneSources } from './names.js'
import { codecAddon, NativeCodec } from './native-codec.js'
import { native } from './native.js'
import { NetworkWatcher } from './netlink.js'
import { linkMtu, ownLocators, type OwnLocator } from './own-locators.js'
import { DeviceIo, monotonicNow, PacketLoop } from './packet-loop.js'
import { policyOf } from './policy-setting.js'
import { proofOf } from './proof-setting.js'
import { ConfiguredRules } from './rules.js'
import type { DaemonSummary, RunningDaemon } from './running.js'
import type { Servers } from './servers.js'
import { StateDirectory } from './state-files.js'
import { NativeTun } from './tun.js'
import { tableMemory } from './table-memory.js'
import { Underlay } from './underlay.js'

const MAPPINGS_FILE = 'addresses'
const CLAIMS_FILE = 'name-claims'
const LOOK_MS = 5_000
const FAREWELL_MS = 300
/** Longer than services take to be restored, the first probe of each included. */
const LOADING_MS = 10_000

export const wallNow = (): number => Date.now() / 1000

/** Everything that a running daemon consists of. Made by {@link Daemon.start}, ended by {@link stop}. */
export class Daemon implements RunningDaemon {
  readonly startedAt = monotonicNow()
  readonly loopDelay = new EventLoopDelay()
  readonly names: Names
  readonly knownHosts: KnownHosts
  readonly rules: ConfiguredRules
  /** What `caracal dump` listens to. */
  readonly tap: TrafficTap
  state: 'starting' | 'ready' | 'closing' = 'starting'
  resolver: ResolverSettings | undefined
  linkReport: LinkReport | undefined
  readonly #undo: (() => Promise<void> | void)[] = []
  #locators: readonly OwnLocator[] = []
  #mappings: Promise<void> = Promise.resolve()
  #mappingsLost = false
  #requestStop: (reason: string) => void = () => undefined
  /** Resolves with why the daemon is to end. */
  readonly stopRequested = new Promise<string>((resolve) => (this.#requestStop = resolve))

  private constructor(
    readonly options: DaemonOptions,
    public config: Config,
    readonly log: Log,
    readonly primitives: Primitives,
    readonly files: StateDirectory,
    readonly identity: Identity,
    readonly underlay: Underlay,
    readonly io: DeviceIo,
    readonly host: Host,
    readonly instances: Instances,
    readonly admission: Admission,
    readonly tun: NativeTun,
    readonly link: LinkSetup,
    readonly loop: PacketLoop,
    /** Above the first. */
    readonly lanes: Lanes,
    /** What this host offers in handshakes. */
    readonly aeads: readonly AeadName[],
    readonly servers: Servers,
  ) {
    this.names = new Names(host)
    this.knownHosts = new KnownHosts({ files, remembered: () => host.neighbours.remembered(), log })
    this.rules = new ConfiguredRules({ host, names: this.names, log, now: monotonicNow })
    let clockOffset = 0
    this.tap = new TrafficTap({
      flows: host.flows,
      peers: host.peers,
      lanePeer: host.sessions.lanePeer,
      addresses: host.addresses,
      names: this.names,
      local: (family) => {
        const own = [...this.#locators, ...underlay.locals].find(
          ({ address }) => address.includes(':') === (family === 6),
        )
        return own === undefined ? undefined : formatLocator(own)
      },
      wallMs: (now) => clockOffset + now,
      switched: (on) => {
        // Once a dump: the wall clock's own steps would bring packets out of order.
        clockOffset = Date.now() - monotonicNow()
        host.setTap(on ? this.tap : undefined)
        lanes.work(!on)
        host.wantsDrops = on
      },
    })
  }

  get summary(): DaemonSummary {
    const { identity, host } = this
    return { network: identity.trust.profile.name, name: identity.membership.name, id: host.id }
  }
  get zone(): string {
    return this.identity.trust.profile.zone
  }
  /** Where others are told to reach this host. */
  get locators(): readonly Locator[] {
    return this.#locators.filter(({ deprecated }) => !deprecated)
  }

  /** The daemon ends because something went wrong. */
  failed = false

  /** Ends the daemon in good order. */
  requestStop(reason: string): void {
    this.#requestStop(reason)
  }

  /** ID of the service of this name. Throws CARACAL_E_NAME. */
  serviceId(text: string): ServiceId {
    const suffix = `.${this.zone}`
    const name = parseServiceName(text.endsWith(suffix) ? text.slice(0, -suffix.length) : text)
    if ('problem' in name)
      throw new CaracalError('CARACAL_E_NAME', name.problem, 'choose a name such as web or api.shop')
    return serviceIdOf(name, this.identity.trust.network, this.primitives)
  }

  /** Reads the configuration anew and puts in force what can be. Throws CARACAL_E_CONFIG or CARACAL_E_PROOF, and nothing has changed. */
  async reload(): Promise<{ changed: string[]; restart: string[] }> {
    const before = this.config
    const after = loadConfig(this.options.sources)
    for (const request of after.services) this.#proofOf(request)
    const { changed, restart } = compareConfigs(before, after)
    this.config = { ...before, services: after.services, policy: after.policy, rules: after.rules, log: after.log }
    this.log.setLevel(after.log)
    if (changed.includes('policy')) {
      const cut = this.host.setPolicy(policyOf(after.policy), monotonicNow())
      this.log.info({ flows: cut }, 'a new policy is in force')
    }
    if (changed.includes('rules')) this.rules.set(after.rules)
    if (changed.includes('services')) await this.#replaceServices(before, after)
    this.loop.wake()
    this.log.info({ changed, restart }, 'configuration read again')
    return { changed, restart }
  }

  async #replaceServices(before: Config, after: Config): Promise<void> {
    for (const { name } of before.services) {
      const instance = this.instances.get(this.serviceId(name))
      if (instance?.configured === true && !after.services.some((one) => one.name === name))
        await this.unexpose(instance)
    }
    for (const request of after.services) await this.expose(request, true)
  }

  /** Opens a tap at the points; returns what closes it. */
  openTap(tap: Tap, points: readonly TapPoint[]): () => void {
    return this.tap.add(tap, points)
  }

  /** Brings everything up; what had been done is undone when something fails. */
  static async start(options: DaemonOptions, log: Log, primitives: Primitives, servers: Servers): Promise<Daemon> {
    const undo: (() => Promise<void> | void)[] = []
    try {
      const daemon = await Daemon.#build(options, log, primitives, servers, undo)
      daemon.#undo.push(...undo)
      undo.length = 0
      try {
        await daemon.#open()
      } catch (error) {
        await daemon.#close()
        throw error
      }
      return daemon
    } finally {
      for (const action of undo.reverse()) await action()
    }
  }

  static async #build(
    options: DaemonOptions,
    log: Log,
    primitives: Primitives,
    servers: Servers,
    undo: (() => Promise<void> | void)[],
  ): Promise<Daemon> {
    const { config } = options
    const files = await StateDirectory.open(config.state)
    undo.push(() => files.close())
    const codec = new NativeCodec(codecAddon(), config.aead)
    const underlay = Underlay.open(config.listen, config.offload)
    undo.push(() => underlay.close())
    const wish = { name: config.name, create: options.create, join: options.join, pool: config.pool, zone: config.zone }
    const identity = await openIdentity(wish, {
      state: files,
      primitives,
      wallNow,
      join: (key, token, name) => joinNetwork(underlay, primitives, key, token, name),
    })
    const { trust, hostKey } = identity
    const stamps = await CounterFile.open(files, 'stamps', Date.now())
    const sequences = await CounterFile.open(files, 'sequences')
    const mappings = await files.read(MAPPINGS_FILE, (bytes) => savedMappings.safeParse(parseJson(bytes)).data)
    const claims = await files.read(CLAIMS_FILE, (bytes) => (areClaims(bytes) ? bytes : undefined))
    const io = new DeviceIo(underlay)
    const lanes = Lanes.open({
      count: lanesFor(config.loop.lanes, availableParallelism()) - 1,
      listen: underlay.locals,
      sockets: config.offload,
      aead: config.aead,
      recordBytes: PeerTable.recordBytes(PEER_CAPACITY),
    })
    undo.push(() => lanes.close())
    io.lanes = lanes
    // The host calls these only once it runs, and then the daemon is there.
    const late: { daemon?: Daemon } = {}
    const daemonOf = () => {
      if (late.daemon === undefined) throw new Error('the host ran before its daemon was there')
      return late.daemon
    }
    const events: HostEvents = {
      mappingChanged: () => late.daemon?.writeMappings(),
      localAddressesChanged: () => late.daemon?.localAddressesChanged(),
      peer: (host, what, detail) => daemonOf().#peerEvent(host, what, detail),
      revocationsChanged: () => void daemonOf().saveTrust(),
      namesRuled: () => void daemonOf().saveTrust(),
      claimsChanged: () => daemonOf().saveClaims(),
      renewed: (what) => daemonOf().#renewed(what),
      renewalFailed: (detail) => log.warn({ detail }, "this host's membership could not be renewed; it is tried again"),
      expelled: (what, detail) => daemonOf().#expelled(what, detail),
      dropped: (reason, packet) => late.daemon?.tap.dropped(reason, packet),
      remember: () => daemonOf().knownHosts.changed(),
    }
    const instances: Instances = new Instances({
      state: files,
      served: (service, family) => host.addresses.served(service, family),
      changed: (instance) => daemonOf().#instanceChanged(instance),
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
        flowMemory: tableMemory(FlowTable.bytesFor(config.limits.flows)),
        tableMemory,
        wallNow,
        random: Math.random,
        nextStamp: () => BigInt(stamps.next()),
        sequence: sequences,
        issuer,
        authority: identity.authority,
        pathMtu: (address) => linkMtu(native().udpRouteMtu(address), config.tun.mtu),
      },
      { flowCapacity: config.limits.flows, mappings, claims, loadingUntil: monotonicNow() + LOADING_MS },
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
    const device = {
      ...config.tun,
      offload: config.offload.tun,
      vnetHeader: config.offload.vnetHeader,
      multiQueue: lanes.count > 0,
      up: false,
    }
    const tun = new NativeTun(device)
    undo.push(() => tun.close())
    if (!lanes.attach(tun, device))
      log.warn({}, 'the kernel does not let us choose queues by flow: one lane carries everything; as root it does')
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
    undo.push(() => loop.stop())
    if (config.loop.express) {
      const settle = () => loop.run((now) => host.settle(now))
      const express = new NativeExpress({ host, codec, tun, underlay, settle })
      undo.push(() => express.close())
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
    )
    late.daemon = daemon
    return daemon
  }

  async #open(): Promise<void> {
    const { config, log, host, link, instances, loop, servers } = this
    host.policy = policyOf(config.policy)
    this.rules.set(config.rules)
    this.#undo.push(() => link.teardown())
    this.linkReport = await link.setup()
    for (const warning of this.linkReport.warnings) log.warn({ device: config.tun.name }, warning)
    await this.#openNames()
    loop.start()
    this.lanes.start(host, loop, log)
    await this.#restorePeers()
    this.#watchNetwork()
    const look = setInterval(() => this.rules.look(), LOOK_MS)
    this.#undo.push(() => clearInterval(look))
    const restored = await instances.restored()
    for (const request of restored) {
      // One that cannot be offered any more must not keep the daemon, and all others, down.
      await this.expose(request, false).catch((error: unknown) => {
        log.error({ service: request.name, error }, 'a service that was exposed before is not offered any more')
      })
    }
    for (const request of config.services) await this.expose(request, true)
    host.loaded(monotonicNow())
    loop.wake()
    instances.start()
    this.#undo.push(() => instances.stop())
    await this.#startDiscovery()
    this.#undo.push(() => this.loopDelay.stop())
    if (config.metrics !== undefined)
      this.#undo.push(await servers.metrics(config.metrics, async () => metricsSample(this)))
    const socket = { path: config.socket, group: config.group }
    this.#undo.push(await servers.control(socket, new CheckedRequests(new ControlHandlersOfDaemon(this))))
    await this.files.release()
    this.state = 'ready'
    log.info({ zone: this.zone, dns: this.resolver?.description }, 'names are served')
  }

  async #openNames(): Promise<void> {
    const { host, config, zone } = this
    const resolve = zoneResolver(zoneSources(host, this.names, zone), () => this.#mappingsWritten(), Date.now)
    const addresses = ([4, 6] as const)
      .filter((family) => family === 4 || this.linkReport?.ipv6 === true)
      .map((family) => formatAddress(dnsAddress(host.addresses.plan, family)))
    this.#undo.push(await this.servers.names(addresses, resolve))
    try {
      this.resolver = await applyResolverSettings(config.dns, { tun: config.tun.name, zone, servers: addresses })
    } catch (error) {
      throw new CaracalError('CARACAL_E_DNS', messageOf(error), 'choose another --dns')
    }
    const { restore } = this.resolver
    this.#undo.push(() => restore())
  }

  async #restorePeers(): Promise<void> {
    const { host, identity, config } = this
    const told = (identity.joined?.locators ?? []).flatMap(({ host: id, locator: text }) => {
      const locator = parseLocator(text)
      return locator === undefined ? [] : [{ host: id, locators: [locator] }]
    })
    const known = [...(await this.knownHosts.read()), ...told]
    const now = monotonicNow()
    // Proven hosts stand last and come first, should there be no room for all; of a host's locators the one hinted last is tried first.
    for (const { host: id, locators } of known.toReversed()) {
      for (const locator of [...config.discovery.peers, ...locators.toReversed()])
        host.neighbours.hint(id, locator, now)
    }
    // With nobody to ask, what this host knows is all there is.
    if (known.length === 0) host.directory.markSynced()
  }

  async #startDiscovery(): Promise<void> {
    const { config, host, identity, underlay } = this
    if (!config.discovery.mdns) return
    const place = {
      network: identity.trust.network,
      host: host.id,
      port: underlay.locals[0]?.port ?? 0,
      exclude: config.tun.name,
      interfaces: config.discovery.interfaces,
    }
    this.#undo.push(await this.servers.discovery(place, (id, locator) => this.hint(id, locator)))
  }

  /** Somebody says that the host may be there. */
  hint(id: HostId, locator: Locator): void {
    this.host.neighbours.hint(id, locator, monotonicNow())
    this.loop.wake()
  }

  /** Registers an instance; resolves with warnings when it is durable. */
  async expose(request: ExposeRequest, configured: boolean): Promise<readonly string[]> {
    const { host, instances, link } = this
    const service = this.serviceId(request.name)
    if (host.revocation !== undefined) {
      throw new CaracalError('CARACAL_E_MEMBERSHIP', `this host was revoked: ${host.revocation}`, rejoin)
    }
    this.#proofOf(request)
    if (!host.mayOffer(service)) {
      throw new CaracalError(
        'CARACAL_E_BUSY',
        `this host offers ${OFFERS_MAX} services, which is as many as it may`,
        'unexpose some, or use another host',
      )
    }
    // The served addresses first: health is judged by where packets will go.
    const served = host.addresses.host(service)
    await link.addLocal(served.map(formatAddress))
    const instance = await instances.add(service, request, configured)
    if (!configured) await instances.save()
    this.#publish(instance)
    await this.#mappingsWritten()
    if (instance.health === 'up') return instance.detail === '' ? [] : [instance.detail]
    return [`${instance.detail}: registered as unhealthy`]
  }

  /** Takes an instance back; its flows go on. */
  async unexpose(instance: Instance): Promise<void> {
    const { host, instances } = this
    instances.remove(instance.service)
    host.withdraw(instance.service, instance.request.name, monotonicNow())
    this.loop.wake()
    await instances.save()
  }

  #instanceChanged(instance: Instance): void {
    const { name } = instance.request
    this.log.info({ service: name, health: instance.health, detail: instance.detail }, 'health of an instance')
    this.#publish(instance)
  }

  /** Throws CARACAL_E_PROOF. */
  #proofOf({ name, proof }: ExposeRequest): Uint8Array | undefined {
    const { host, identity, names, primitives } = this
    const { network } = identity.trust
    return proofOf(name, proof, { primitives, network, host: host.id, showHost: (id) => names.showHost(id) })
  }

  #publish({ service, request, health }: Instance): void {
    if (this.host.revocation !== undefined) return
    const { name, ports, priority, weight, move } = request
    const proof = this.#proofOf(request)
    const offer = {
      ...(proof === undefined ? {} : { proof }),
      service,
      name,
      priority,
      weight,
      move,
      state: health,
      ports: ports.map(({ protocol, port, local }) => ({ protocol, port, localPort: local })),
    }
    this.host.offer(offer, monotonicNow())
    this.loop.wake()
  }

  localAddressesChanged(): void {
    const wanted = this.host.addresses.localAddresses().map(({ address }) => formatAddress(address))
    void this.link
      .addLocal(wanted)
      .catch((error: unknown) => this.log.error({ error }, 'served addresses could not be set'))
  }

  writeMappings(): void {
    const bytes = Buffer.from(JSON.stringify(this.host.addresses.exportMappings()))
    this.#mappings = this.files.write(MAPPINGS_FILE, bytes)
    this.#mappings.catch((error: unknown) => {
      this.#mappingsLost = true
      this.log.error({ error }, 'address mappings could not be written')
    })
  }

  /** Resolves when the mappings are on disk; what could not be written before is tried again. */
  #mappingsWritten(): Promise<void> {
    if (this.#mappingsLost) {
      this.#mappingsLost = false
      this.writeMappings()
    }
    return this.#mappings
  }

  /** Resolves when it is on disk; a failure is logged whether or not anybody waits. */
  saveTrust(): Promise<void> {
    this.identity.trust.observe(wallNow())
    const done = this.files.write(stateFile.trust, this.identity.trust.encode())
    done.catch((error: unknown) => this.log.error({ error }, 'the trust store could not be written'))
    return done
  }

  saveClaims(): void {
    this.files.write(CLAIMS_FILE, this.host.exportClaims()).catch((error: unknown) => {
      this.log.error({ error }, 'the claims of names could not be written')
    })
  }

  #renewed(what: 'membership' | 'certificate'): void {
    const { identity, files, log } = this
    const { trust } = identity
    try {
      files.writeNow(stateFile.trust, trust.encode())
    } catch (error) {
      log.error({ error }, 'the trust store could not be written')
    }
    if (what === 'certificate') return log.info({}, "this host's issuer certificate is renewed")
    const membership = trust.verify(trust.membership ?? new Uint8Array(0), wallNow())
    if (isMembershipProblem(membership)) return
    identity.membership = membership
    log.info({ until: wallText(membership.notAfter) }, "this host's membership is renewed")
  }

  #expelled(what: 'revoked' | 'expired', detail: string): void {
    const { log } = this
    if (what === 'revoked')
      log.error({ detail }, `this host was revoked: it offers nothing and connects to nobody any more; ${rejoin}`)
    else log.error({ detail }, 'this host is a member no more: nothing new can be reached')
  }

  #peerEvent(id: HostId, what: string, detail: string): void {
    const level = what === 'failed' || what === 'doubtful' ? 'debug' : 'info'
    this.log[level]({ host: this.names.showHost(id), detail }, `host ${what}`)
    // A host calls this from inside its own work.
    if (what === 'up') setImmediate(() => this.rules.look())
    this.loop.wake()
  }

  #watchNetwork(): void {
    const watcher = new NetworkWatcher(this.tun.name, {
      changed: () => this.#networkChanged(watcher.links),
      failed: (error) => {
        this.log.error({ error }, 'changes of the network are not heard of any more')
        this.failed = true
        this.requestStop(messageOf(error))
      },
    })
    this.#undo.push(() => watcher.close())
    this.#networkChanged(watcher.links)
  }

  /** The peers are told where this host is when that has changed, and paths are looked at again. */
  #networkChanged(links: HostLinks): void {
    const { plan } = this.host.addresses
    const locators = ownLocators(this.underlay.locals, links, this.tun.name, [plan.pool, plan.v6])
    const text = (list: readonly OwnLocator[]) => JSON.stringify(list)
    if (text(locators) !== text(this.#locators)) {
      this.#locators = locators
      this.host.setLocators(locators, monotonicNow())
    }
    this.host.linksChanged(monotonicNow())
    this.loop.wake()
  }

  /** Ends flows, tells the peers, takes everything back. Returns the number of flows that were open. */
  async stop(): Promise<number> {
    this.state = 'closing'
    const flows = this.host.leave(monotonicNow())
    this.loop.wake()
    // The farewells are acknowledged within a round trip; a peer that does not answer is not waited for.
    const deadline = monotonicNow() + FAREWELL_MS
    while (this.host.control.pending > 0 && monotonicNow() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    await this.#close()
    return flows
  }

  async #close(): Promise<void> {
    // Before the device goes, whose end is not to be taken for a failure.
    this.loop.stop()
    if (this.state === 'closing') {
      void this.saveTrust()
      await this.knownHosts.write()
    }
    for (const action of this.#undo.reverse()) {
      try {
        await action()
      } catch (error) {
        this.log.error({ error }, 'something could not be undone')
      }
    }
    this.#undo.length = 0
  }
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString('utf8'))
  } catch {
    return undefined
  }
}
