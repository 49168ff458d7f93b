import type { HostMove } from '../lib/host/move-notes.js'
import { OFFERS_MAX } from '../lib/host/offers.js'
import { TrafficTap } from '../lib/host/traffic-tap.js'
import type { Tap, TapPoint } from '../lib/host/tap.js'
import type { Host } from '../lib/host/host.js'
import type { AeadName } from '../lib/crypto/codec.js'
import { isMembershipProblem } from '../lib/crypto/membership.js'
import type { Primitives } from '../lib/crypto/primitives.js'
import { wallText } from '../lib/crypto/validity.js'
import type { Locator } from '../lib/path/locator.js'
import { formatLocator } from '../lib/path/locator.js'
import { formatAddress } from '../lib/service/address-plan.js'
import { parseServiceName, serviceIdOf } from '../lib/service/service-id.js'
import type { HostId, ServiceId } from '../lib/wire/ids.js'
import type { Admission } from './admission.js'
import { compareConfigs, loadConfig, type Config, type DaemonOptions } from './config.js'
import type { ExposeRequest } from './control/protocol.js'
import type { CounterFile } from './counter-file.js'
import type { ResolverSettings } from './dns/resolver-settings.js'
import { CaracalError, messageOf } from './errors.js'
import { EventLoopDelay } from './event-loop.js'
import type { HostLinks } from './host-links.js'
import { rejoin, type Identity } from './identity.js'
import type { Instance, Instances } from './instances.js'
import type { Keeping } from './keeper/keeping.js'
import { KnownHosts } from './known-hosts.js'
import type { Lanes } from './lanes/lanes.js'
import type { LinkReport, LinkSetup } from './link.js'
import type { Log } from './log.js'
import { Names } from './names.js'
import { ownLocators, parsePools, type OwnLocator, type Pool } from './own-locators.js'
import { monotonicNow, type DeviceIo, type PacketLoop } from './packet-loop.js'
import { policyOf } from './policy-setting.js'
import { proofOf } from './proof-setting.js'
import { ConfiguredRules } from './rules.js'
import { AFTER_FAULT, type DaemonSummary, type RunningDaemon, type StopRequest } from './running.js'
import type { Close, Servers } from './servers.js'
import type { StateDirectory } from './state-files.js'
import { StateWrites } from './state-writes.js'
import type { NativeTun } from './tun.js'
import type { Underlay } from './underlay.js'
import type { Undo } from './undo.js'
import { wallNow } from './wall-clock.js'

const FAREWELL_MS = 300
/** More than the next daemon needs until packets are moved again. */
const HANDED_OVER_MS = 150
/** For so long peers hold what goes to this host, at most: a process takes less to start. */
const PAUSE_MS = 5_000
/** A peer that has not acknowledged it by then is not waited for. */
const PAUSE_TOLD_MS = 100
/** Until what has moved with this host is under way again: more than a round trip in most networks. */
const MOVED_MS = 20

/** First numbers that were not given out. */
export interface HandedCounters {
  readonly stamps: number
  readonly sequences: number
}

/** Everything that a running daemon consists of. Made by {@link startDaemon}, ended by {@link stop}. */
export class Daemon implements RunningDaemon {
  readonly startedAt = monotonicNow()
  readonly loopDelay = new EventLoopDelay()
  readonly names: Names
  readonly knownHosts: KnownHosts
  readonly rules: ConfiguredRules
  readonly writes: StateWrites
  /** What `caracal dump` listens to. */
  readonly tap: TrafficTap
  state: 'starting' | 'ready' | 'closing' = 'starting'
  resolver: ResolverSettings | undefined
  linkReport: LinkReport | undefined
  /** Undefined while it starts. */
  keeping: Keeping | undefined
  /** Closes the control socket, the last thing that is open. */
  closeControl: Close | undefined
  #locators: readonly OwnLocator[] = []
  readonly #pools: readonly Pool[]
  /** Until the changes of links are looked at. */
  #linksTimer: NodeJS.Timeout | undefined
  #released: Promise<void> | undefined
  /** It ends, and another one is to go on. */
  #kept = false
  #requestStop: (request: StopRequest) => void = () => undefined
  /** Resolves with why, and how, the daemon is to end. */
  readonly stopRequested = new Promise<StopRequest>((resolve) => (this.#requestStop = resolve))

  constructor(
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
    readonly undo: Undo,
    private readonly counters: Readonly<Record<keyof HandedCounters, CounterFile>>,
  ) {
    this.#pools = parsePools([host.addresses.plan.pool, host.addresses.plan.v6])
    this.names = new Names(host)
    this.writes = new StateWrites({ files, identity, host, log })
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

  /** Ends the daemon because of a fault of its own: what is open waits for the next one, as if this one had been killed. */
  fail(error: unknown, what: string): void {
    this.log.error({ error }, `${what}: ${AFTER_FAULT}`)
    this.failed = true
    this.requestStop(messageOf(error), true)
  }

  /** Ends the daemon in good order. `keep`: another one is to go on with what it has. */
  requestStop(reason: string, keep = false): void {
    this.#requestStop({ reason, keep })
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
    await this.writes.mappingsWritten()
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

  instanceChanged(instance: Instance): void {
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

  /** This host's membership or certificate as an issuer was renewed. */
  renewed(what: 'membership' | 'certificate'): void {
    const { identity, log } = this
    const { trust } = identity
    this.writes.trustNow()
    if (what === 'certificate') return log.info({}, "this host's issuer certificate is renewed")
    const membership = trust.verify(trust.membership ?? new Uint8Array(0), wallNow())
    if (isMembershipProblem(membership)) return
    identity.membership = membership
    log.info({ until: wallText(membership.notAfter) }, "this host's membership is renewed")
  }

  expelled(what: 'revoked' | 'expired', detail: string): void {
    const { log } = this
    if (what === 'revoked')
      log.error({ detail }, `this host was revoked: it offers nothing and connects to nobody any more; ${rejoin}`)
    else log.error({ detail }, 'this host is a member no more: nothing new can be reached')
  }

  peerEvent(id: HostId, what: string, detail: string, move?: HostMove): void {
    this.loop.wake()
    const level = what === 'failed' || what === 'doubtful' ? 'debug' : 'info'
    // A host calls this from inside its own work, for which packets wait.
    setImmediate(() => {
      this.log[level]({ host: this.names.showHost(id), detail, ...move }, `host ${what}`)
      if (what === 'up') this.rules.look()
    })
  }

  /** The peers are told where this host is when that has changed, and paths are looked at again. */
  networkChanged(links: HostLinks): void {
    const locators = ownLocators(this.underlay.locals, links, this.tun.name, this.#pools)
    const text = (list: readonly OwnLocator[]) => JSON.stringify(list)
    const moved = text(locators) !== text(this.#locators)
    if (moved) {
      this.host.setLocators(locators, monotonicNow())
      // Had it thrown, it would be to be done again.
      this.#locators = locators
    } else this.host.routesChanged(monotonicNow())
    this.loop.wake()
    // Packets come first, and when this host has moved those by which its peers follow, and all that waited for it.
    if (this.#linksTimer !== undefined) return
    if (moved) this.#linksTimer = setTimeout(() => this.#linksChanged(), MOVED_MS).unref()
    else setImmediate(() => this.#linksChanged())
  }

  #linksChanged(): void {
    this.#linksTimer = undefined
    if (this.#released !== undefined) return
    this.host.linksChanged(monotonicNow())
    this.loop.wake()
  }

  /** Ends flows, tells the peers, takes everything back. Returns the number of flows that were open. `keep`: flows go on, nothing is said, and everything waits for the next daemon. */
  async stop(keep: boolean): Promise<number> {
    const flows = this.host.flows.counts.open
    // Flows outlive a daemon that failed also while there is no keeper, as they do one that is killed.
    const held = keep && (this.keeping?.holds === true || (this.failed && this.config.keeper.on))
    if (this.#released === undefined && !held) {
      if (keep) this.log.warn({}, 'there is no keeper: nothing can be kept')
      await this.#leave()
    }
    await this.closeControl?.()
    await this.release(held)
    return flows
  }

  /** The other hosts are told that this one goes. */
  async #leave(): Promise<void> {
    this.state = 'closing'
    this.host.leave(monotonicNow())
    this.loop.wake()
    // The farewells are acknowledged within a round trip; a peer that does not answer is not waited for.
    const deadline = monotonicNow() + FAREWELL_MS
    while (this.host.control.pending > 0 && monotonicNow() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  /** Hands everything over to the process that asks for it: what this one has it may have from now on, with these counters. Throws CARACAL_E_KEEPER where nothing holds it in between. */
  async handOver(): Promise<HandedCounters> {
    if (this.state !== 'ready' || this.keeping?.holds !== true) {
      const next = 'end it with `caracal down`, then start the other one'
      throw new CaracalError('CARACAL_E_KEEPER', 'this daemon has no keeper to hand over by', next)
    }
    await this.release(true)
    // To end is work too, which is not to be in the other one's way.
    setTimeout(() => this.requestStop('another daemon has taken over', true), HANDED_OVER_MS)
    const { stamps, sequences } = this.counters
    return { stamps: stamps.unused, sequences: sequences.unused }
  }

  /** Another daemon is about to have what this one has: what goes to this host is held by its peers until then, since nobody could read it in between. */
  async pausePeers(): Promise<void> {
    const { host, loop } = this
    if (!this.#kept) return
    host.pausePeers(PAUSE_MS, monotonicNow())
    loop.wake()
    const deadline = monotonicNow() + PAUSE_TOLD_MS
    while (host.peering.pauses.pending > 0 && monotonicNow() < deadline)
      await new Promise((resolve) => setTimeout(resolve, 1))
    // What was sent before is there: it is read in the next turn of the event loop.
    for (let turn = 0; turn < 2; turn++) await new Promise((resolve) => setImmediate(resolve))
  }

  /** Gives everything back but the control socket; with `keep` what outlives a daemon stays. Once; later calls wait for the first. */
  release(keep: boolean): Promise<void> {
    return (this.#released ??= this.#release(keep))
  }

  async #release(keep: boolean): Promise<void> {
    this.#kept = keep && this.state === 'ready'
    // Before the device goes, whose end is not to be taken for a failure. One that stays is served as long as possible.
    if (!keep) this.loop.stop()
    if (this.state !== 'starting') {
      this.state = 'closing'
      // What goes to disk does so while packets are still moved.
      await Promise.all([this.writes.trust().catch(() => undefined), this.knownHosts.write()])
    }
    await this.undo.run(keep, (error) => this.log.error({ error }, 'something could not be undone'))
  }
}
