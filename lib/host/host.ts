// A host, whole and pure: what goes in is what the devices read and how late it is, what comes out goes to HostIo and HostEvents.
//
//   TUN ──▶ DataPath ──▶ FlowEngine ──▶ DataPath ──▶ underlay         peers    ◀──▶ Peering
//   underlay ──▶ DataPath ─┬▶ FlowEngine ──▶ TUN                      records  ◀──▶ Directory ──▶ Services
//                          └▶ Peering: handshakes, probes, control messages

import { FlowEngine } from '../flow/flow-engine.js'
import { Generations } from '../flow/flow-id.js'
import { FlowMemory } from '../flow/flow-memory.js'
import type { LanePaths } from '../path/lane-paths.js'
import type { Locator } from '../path/locator.js'
import { PeerTable } from '../path/peers.js'
import type { PathProber } from '../path/prober.js'
import type { Addresses } from '../service/addresses.js'
import type { ServiceCatalogue } from '../service/catalogue.js'
import type { InstanceChoice } from '../service/choice.js'
import { Directory, directoryDefaults } from '../service/directory.js'
import type { RecordChange } from '../service/host-records.js'
import type { LocalRule } from '../service/local-rules.js'
import { allowAll, type Policy } from '../service/policy.js'
import { LOCATORS_MAX } from '../service/registration.js'
import type { ServiceTable } from '../service/service-table.js'
import { MemberTrust } from '../service/trust.js'
import type { SessionTable } from '../session/session-table.js'
import type { DatagramBatch, OpenBatch, PacketBatch, SealBatch } from '../wire/batch.js'
import { DropCounters, type DropReason } from '../wire/drop.js'
import type { HostId, ServiceId } from '../wire/ids.js'
import type { ControlChannel } from './control-channel.js'
import { DataPath, type DataPathDecisions, type DataPathTap } from './data-path.js'
import { Express } from './express.js'
import type { FailureDetector } from './failure-detector.js'
import { HostClock } from './host-clock.js'
import { HostEnvironment } from './host-environment.js'
import { PEER_CAPACITY, type HostComponents, type HostOptions } from './host-options.js'
import type { LaneInward, LaneOutward } from './lane-buffers.js'
import type { Neighbours } from './neighbours.js'
import type { Offer } from './offers.js'
import { Peering } from './peering.js'
import type { PeeringSink } from './peering-components.js'
import { Resumption } from './resumption.js'
import { Services } from './services.js'
import { Turns } from './turns.js'
import type { Whereabouts } from './whereabouts.js'

const NO_BYTES = new Uint8Array(0)
/** The record of where this host is now is made so much later than its peers are told, ms: packets wait meanwhile. The first is for hosts that have moved too, and look where this one is. */
const PUBLISH_MS = 1
const PUBLISH_LATER_MS = 20
const PUBLISH_AGAIN_MS = 1_000

export class Host implements DataPathDecisions {
  readonly id: HostId
  readonly drops = new DropCounters()
  readonly peers: PeerTable
  readonly members: MemberTrust
  readonly dataPath: DataPath
  readonly directory: Directory
  readonly peering: Peering
  readonly sessions: SessionTable
  readonly prober: PathProber
  readonly lanePaths: LanePaths
  readonly control: ControlChannel
  readonly neighbours: Neighbours
  readonly detector: FailureDetector
  readonly services: Services
  readonly table: ServiceTable
  readonly catalogue: ServiceCatalogue
  readonly addresses: Addresses
  readonly choice: InstanceChoice
  readonly whereabouts: Whereabouts
  readonly environment: HostEnvironment
  readonly flows: FlowEngine
  /** What passes without this host being asked; off until somebody does it. */
  readonly express: Express
  /** Who may reach what; replacing it cuts flows that it denies, see {@link setPolicy}. */
  policy: Policy = allowAll
  /** Set while somebody looks at dropped packets. */
  wantsDrops = false
  readonly #c: HostComponents
  readonly #clock = new HostClock()
  readonly #turns = new Turns()
  readonly #resumption: Resumption
  #leaving = false
  /** Where this host is, by its own addresses and as others see it. */
  #locators: readonly Locator[] = []
  #seenAt: readonly Locator[] = []
  /** When the record of where this host is follows what its peers were told; Infinity: it has. */
  #publishDue = Infinity

  constructor(components: HostComponents, options: HostOptions) {
    const { primitives, codec, hostKey, trust, random, wallNow } = components
    this.#c = components
    this.id = hostKey.id
    const laneCodecs = components.lanes?.codecs ?? []
    const capacity = options.peerCapacity ?? PEER_CAPACITY
    this.peers = new PeerTable(this.id, capacity, 1 + laneCodecs.length, components.lanes?.records)
    this.members = new MemberTrust({
      primitives,
      key: hostKey,
      authority: trust.authority,
      revocations: trust.revocations,
      nameRules: trust.nameRules,
      wallNow: () => trust.observe(wallNow()),
    })
    this.members.learn(trust.membership ?? NO_BYTES, this.id)
    this.dataPath = new DataPath({ codec, laneCodecs, peers: this.peers, io: components.io, decisions: this })
    this.directory = new Directory(
      { ...directoryDefaults, ...options.directory },
      { trust: this.members, hasher: primitives, sequence: components.sequence, random },
      {
        send: (to, message) => this.peering.say(to, message),
        changed: (change) => this.#recordChanged(change),
        heartbeat: (host, now) => this.detector.heartbeat(host, now),
        revoked: () => this.#revoked(),
        namesRuled: () => this.services.namesRuled(),
      },
    )
    const { peers, members, dataPath, directory, drops } = this
    const around = { host: components, clock: this.#clock, members, directory }
    this.peering = new Peering(
      { ...around, turns: this.#turns, peers, dataPath, drops, sink: this.#peeringSink() },
      options,
    )
    const { peering } = this
    this.sessions = peering.sessions
    this.prober = peering.prober
    this.lanePaths = peering.ways.lanePaths
    this.control = peering.control
    this.neighbours = peering.neighbours
    this.detector = peering.detector
    this.services = new Services(
      {
        ...{ ...around, peering },
        allows: (client, service, protocol, port) => this.environment.allows(client, service, protocol, port),
        openFlows: (service, host) => this.environment.openFlows(service, host),
        release: (now) => this.#turns.inside(() => this.flows.release(now)),
        drop: (reason) => this.drop(reason),
      },
      options,
    )
    const { table, catalogue, addresses, choice, whereabouts, loading } = this.services
    this.table = table
    this.catalogue = catalogue
    this.addresses = addresses
    this.choice = choice
    this.whereabouts = whereabouts
    this.environment = new HostEnvironment({
      ...{ self: this.id, peers, addresses, catalogue, choice, whereabouts, loading },
      endpoints: components.endpoints,
      tagsOf: (host) => members.member(host)?.tags,
      policy: () => this.policy,
      active: (peer, now) => peering.needed(peer, now),
      wantSession: (peer, now) => this.#turns.afterwards(() => peering.neighbours.want(peer, now)),
      afterwards: (action) => this.#turns.afterwards(action),
      retransmitted: (peer, now) => peering.retransmitted(peer, now),
      other: (batch, entry, peer, now) => peering.other(batch, entry, peer, now),
      sendFrame: (peer, plaintext, trafficClass) => peering.sendFrame(peer, plaintext, trafficClass),
      sendBatch: (seal, now) => peering.sendBatch(seal, now),
      writePacket: (packet) => dataPath.packet(packet),
      drop: (reason, packet, n) => this.drop(reason, packet, n),
      fault: (error) => dataPath.fault(error),
    })
    const generations = new Generations((length) => primitives.randomBytes(length))
    const shape = { flows: options.flowCapacity, peers: capacity, host: this.id }
    const memory = new FlowMemory(components.flowMemory, shape, generations)
    this.flows = new FlowEngine({ memory, env: this.environment }, options.flow)
    this.#resumption = new Resumption({
      ...{ flows: this.flows, peers },
      isRevoked: (host) => members.isRevoked(host),
      allowsFlow: (flow) => this.environment.allowsFlow(flow),
      connect: (hosts, now) => peering.neighbours.owe(hosts, now),
    })
    this.express = new Express({
      ...{ flows: memory.table, peers, dataPath },
      marks: this.sessions.marks,
      ring: dataPath.replay.ring,
      counters: this.flows.counters,
      passed: (peer, sentAt, longest, heardAt) => peering.passed(peer, sentAt, longest, heardAt),
      attend: (peer, on, now) => peering.prober.attend(peer, on, now),
    })
    if (options.restore !== 'later') this.takeFlows(options.restore === true)
  }

  /** The flow memory is this host's from now on, where that was to be later: before anything else. `restore`: it is as a former process has left it; else it is zeroed. */
  takeFlows(restore: boolean): void {
    this.flows.open(restore)
  }

  // ---- What comes in ----

  /** The TUN has filled `dataPath.tunIn`. */
  tunRead(now: number): void {
    this.#enter(now)
    this.dataPath.tunRead(now)
  }

  /** A socket, of this lane, has filled `dataPath.wireIn`. */
  wireRead(now: number, lane = 0): void {
    this.#enter(now)
    this.dataPath.wireRead(now, lane)
    this.#afterFrames(now)
  }

  /** The thread of a lane has read packets from its queue of the TUN: see DataPath. */
  decideOutward(lane: number, outward: LaneOutward, now: number): void {
    this.#enter(now)
    this.dataPath.decideOutward(lane, outward, now)
  }

  /** The thread of a lane has received datagrams and opened them: see DataPath. */
  decideInward(inward: LaneInward, now: number): void {
    this.#enter(now)
    this.dataPath.decideInward(inward, now)
    this.#afterFrames(now)
  }

  nextTimeout(): number {
    const { peering, services, flows } = this
    return Math.min(
      this.#resumption.nextTimeout(),
      peering.nextTimeout(),
      services.nextTimeout(),
      flows.nextTimeout(),
      this.#publishDue,
    )
  }

  handleTimeout(now: number): void {
    this.#enter(now)
    this.#turns.inside(() => this.#resumption.begin(now))
    if (now >= this.services.loading.next) this.loaded(now)
    this.peering.handleTimeout(now)
    this.services.handleTimeout(now)
    this.#turns.inside(() => this.flows.handleTimeout(now))
    if (now >= this.#publishDue) this.#publishLocators(now)
    this.peering.review(now)
    this.services.settleClaims(now)
    this.services.release(now)
    this.peering.keepSessions(now)
    this.dataPath.flush(now)
  }

  /** Catches up with what passed express, as every input does by itself. */
  settle(now: number): void {
    this.#enter(now)
    this.dataPath.flush(now)
  }

  /** Who sees the traffic from now on; undefined: nobody. */
  setTap(tap: DataPathTap | undefined): void {
    this.settle(this.#clock.now)
    this.express.hold(tap !== undefined, this.#clock.now)
    this.dataPath.tap = tap
  }

  // ---- What this host offers ----

  /** When and by whom this host was revoked, for people; undefined: it is a member. */
  get revocation(): string | undefined {
    return this.peering.revocation
  }

  /** Whether the service is offered already, or there is room for one more; nothing is offered by a host that was revoked. */
  mayOffer(service: ServiceId): boolean {
    return this.services.mayOffer(service)
  }

  /** What this host has claimed, with its stamps: to be kept over a restart. */
  exportClaims(): Uint8Array {
    return this.services.issuing.claims.encode()
  }

  /**
   * Offers a service, or changes what is offered. Returns its served addresses, IPv4 first, which are to be local from now on. Throws RangeError,
   * and nothing has changed, where {@link mayOffer} says no.
   */
  offer(offer: Offer, now: number): readonly [Uint8Array, Uint8Array] {
    this.#enter(now)
    const served = this.services.offer(offer, now)
    this.dataPath.flush(now)
    return served
  }

  /** Takes an offer back; open flows go on. */
  withdraw(service: ServiceId, name: string, now: number): void {
    this.#enter(now)
    this.services.withdraw(service, name, now)
    this.dataPath.flush(now)
  }

  /** Where others can reach this host; the peers are told at once. `deprecated`: it is about to go. */
  setLocators(locators: readonly (Locator & { readonly deprecated?: boolean })[], now: number): void {
    this.#enter(now)
    if (this.peering.ways.setLocators(locators, now)) this.#seenAt = []
    const stays = ({ address, port }: Locator) => locators.some((one) => one.address === address && one.port === port)
    const isMore = this.#locators.length > 0 && this.#locators.every(stays)
    this.#locators = locators.filter(({ deprecated }) => deprecated !== true)
    this.#publishDue = Math.min(this.#publishDue, now + (isMore ? PUBLISH_LATER_MS : PUBLISH_MS))
    this.dataPath.flush(now)
  }

  /** Where other hosts see this one, behind a NAT, as several agree. */
  get seenAt(): readonly Locator[] {
    return this.#seenAt
  }

  #publishLocators(now: number): void {
    // Where there is no number for the record yet.
    this.#publishDue = now + PUBLISH_AGAIN_MS
    const own = this.#locators.map(({ address, port }) => ({ address, port }))
    const seen = this.#seenAt.map(({ address, port }) => ({ address, port, reflexive: true }))
    const locators = [...own.slice(0, LOCATORS_MAX - seen.length), ...seen]
    this.directory.publish([{ payload: { kind: 'locators', locators, relays: [] } }], now)
    this.#publishDue = Infinity
  }

  /** What this host has is restored: it is published, and from now on what it does not have it refuses. */
  loaded(now: number): void {
    this.#enter(now)
    this.services.loaded(now)
    this.dataPath.flush(now)
  }

  /** Puts the rules in force that people set, and no others. */
  setRules(rules: readonly LocalRule[], now: number): void {
    this.#enter(now)
    this.services.setRules(rules)
    this.services.release(now)
    this.dataPath.flush(now)
  }

  /** The host's routes have changed: what waited for one goes. */
  routesChanged(now: number): void {
    this.#enter(now)
    this.peering.ways.routesChanged(now)
    this.dataPath.flush(now)
  }

  /** The host's links have changed: so may what its paths carry, and which of them work. */
  linksChanged(now: number): void {
    this.#enter(now)
    this.peering.ways.linksChanged(now)
  }

  /** Puts a policy in force, also for flows that are open. Returns how many it has cut. */
  setPolicy(policy: Policy, now: number): number {
    this.#enter(now)
    this.policy = policy
    const cut = this.flows.cut((flow) => !this.environment.allowsFlow(flow), now)
    this.dataPath.flush(now)
    return cut
  }

  /** One round trip to the peer, outside the regular probes; `answered` is called with its ms, or never. Undefined: no session. */
  ping(peer: number, now: number, answered: (rttMs: number) => void): { cancel(): void } | undefined {
    return this.peering.ways.ping(peer, now, answered)
  }

  /**
   * Asks the peers to hold what goes to this host: another process is about to take its place. Until a session with that one stands, `ms` have passed (at most PAUSE_MAX_MS), or
   * {@link resumePeers}. When `peering.pauses.pending` is 0 all have acknowledged it, and what they had sent before is here, or on its way and about to be: read the sockets on
   * until nothing comes any more, then stop.
   */
  pausePeers(ms: number, now: number): void {
    this.#enter(now)
    this.peering.pauses.begin(ms, now)
    this.dataPath.flush(now)
  }

  /** This host goes on after all: the peers send again. */
  resumePeers(now: number): void {
    this.#enter(now)
    this.peering.pauses.end(now)
    this.dataPath.flush(now)
  }

  /** Leaves the network for now: withdraws what is offered, ends all flows, tells the peers. Returns the number of flows. */
  leave(now: number): number {
    if (this.#leaving) return 0
    this.#enter(now)
    this.#leaving = true
    const { open } = this.flows.counts
    this.services.withdrawAll(now)
    this.flows.closeAll(now)
    this.peering.leave(now)
    this.dataPath.flush(now)
    return open
  }

  /** Revocations were added to the trust store by hand. */
  revocationsAdded(now: number): void {
    this.#enter(now)
    this.members.recheck()
    this.directory.revocationsChanged()
    this.#revoked()
    this.dataPath.flush(now)
  }

  /** A rule was added to the trust store by hand; `rule`: its signed bytes. */
  nameRuleAdded(rule: Uint8Array, now: number): void {
    this.#enter(now)
    this.directory.nameRuleAdded(rule)
    this.services.reviewNames()
    this.dataPath.flush(now)
  }

  // ---- DataPathDecisions ----

  fromTun(batch: PacketBatch, seal: SealBatch, now: number): void {
    this.#turns.enter()
    try {
      this.flows.fromTun(batch, seal, now)
    } finally {
      this.#turns.leave()
    }
    this.#turns.rest()
    this.peering.sent(seal, now)
  }

  lost(reason: DropReason, n: number): void {
    if (n > 0) this.drop(reason, undefined, n)
  }

  fromPeers(open: OpenBatch, datagrams: DatagramBatch, tunOut: PacketBatch, now: number): void {
    try {
      this.peering.heard(open, datagrams, now)
    } catch (error) {
      this.dataPath.fault(error)
    }
    this.#turns.enter()
    try {
      this.flows.fromPeers(open, datagrams, this.sessions.lanePeer, tunOut, now)
    } finally {
      this.#turns.leave()
    }
    this.#turns.rest()
  }

  // ---- Between peers, services and flows ----

  #enter(now: number): void {
    this.#clock.now = now
    this.express.settle(now)
  }

  #afterFrames(now: number): void {
    this.peering.afterFrames(now)
    this.services.release(now)
    this.dataPath.flush(now)
  }

  #peeringSink(): PeeringSink {
    return {
      sessionUp: (peer, afresh, now) => {
        const resumed = this.#resumption.sessionUp(peer, now)
        this.#sendWaiting(peer, now)
        return resumed || afresh
      },
      met: (peer, rekey, reunited, now) => {
        if (reunited) this.flows.reunite(peer, now)
        this.services.sessionUp(peer, rekey, now)
      },
      confirmed: (peer, now) => this.#sendWaiting(peer, now),
      released: (peer, now) => this.#sendWaiting(peer, now),
      spend: (peer, addressSlot, bytes, now) => this.#spend(peer, addressSlot, bytes, now),
      cameAlone: (peer, now) => this.express.came(peer, now),
      sessionLost: (peer) => this.services.sessionLost(peer),
      sessionFailed: (peer, now) => this.flows.sessionFailed(peer, now),
      peerLost: (peer, now) => this.flows.peerLost(peer, now),
      peersInUse: () => new Set(Array.from(this.flows.flows(), ({ peer }) => peer)),
      message: (peer, channel, body, now) => this.services.message(peer, channel, body, now),
      expelled: (what, detail, now) => {
        if (what === 'revoked') this.services.withdrawAll(now)
        this.#c.events.expelled(what, detail)
      },
      seenAt: (locators, now) => {
        this.#seenAt = locators
        this.#publishLocators(now)
      },
      drop: (reason) => this.drop(reason),
      refused: (reason) => {
        if (this.wantsDrops) this.#c.events.dropped(reason, undefined)
      },
    }
  }

  /** What waited for the peer goes, before anything newer does. */
  #sendWaiting(peer: number, now: number): void {
    this.#turns.afterwards(() => this.#turns.inside(() => this.flows.sessionUp(peer, now)))
  }

  #spend(peer: number, addressSlot: number, bytes: number, now: number): number {
    let spent = 0
    this.peers.lend(peer, addressSlot)
    this.#turns.inside(() => (spent = this.flows.sendWaiting(peer, bytes, now)))
    this.peers.lend(peer, -1)
    return spent
  }

  #recordChanged(change: RecordChange): void {
    const payload = change.record?.payload ?? change.before?.payload
    if (payload?.kind === 'locators') this.peering.located(change.host)
    this.services.recordChanged(change)
  }

  #revoked(): void {
    this.peering.revoked(this.#clock.now)
    this.services.revoked(this.#clock.now)
    this.#c.events.revocationsChanged()
  }

  drop(reason: DropReason, packet?: Uint8Array, n = 1): void {
    this.drops.add(reason, n)
    if (this.wantsDrops) this.#c.events.dropped(reason, packet)
  }
}
