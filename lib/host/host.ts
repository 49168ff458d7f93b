// A host, whole and pure: what goes in is what the devices read and how late it is, what comes out goes to HostIo and HostEvents.
//
//   TUN ──▶ DataPath ──▶ FlowEngine ──▶ DataPath ──▶ underlay         records  ◀──▶ Directory ──▶ Catalogue ──▶ Choice
//   underlay ──▶ DataPath ─┬▶ FlowEngine ──▶ TUN                      peers    ◀──▶ SessionTable, PathProber, Neighbours
//                          └▶ handshakes, probes, control messages

import type { Membership } from '../crypto/membership.js'
import { FlowEngine } from '../flow/flow-engine.js'
import { Generations } from '../flow/flow-id.js'
import { FlowTable } from '../flow/flow-table.js'
import { decodeLocator, locatorRecord, type Locator } from '../path/locator.js'
import { LanePaths } from '../path/lane-paths.js'
import { PeerTable } from '../path/peers.js'
import { PathProber, type Liveness } from '../path/prober.js'
import { Addresses } from '../service/addresses.js'
import { ServiceCatalogue } from '../service/catalogue.js'
import { choiceDefaults, InstanceChoice } from '../service/choice.js'
import { Directory, directoryDefaults } from '../service/directory.js'
import type { RecordChange } from '../service/host-records.js'
import { rulesInForce } from '../service/ownership.js'
import { allowAll, type Policy } from '../service/policy.js'
import { ServiceTable } from '../service/service-table.js'
import { Stamps } from '../service/stamps.js'
import type { LocalRule } from '../service/local-rules.js'
import { MemberTrust } from '../service/trust.js'
import type { Established, LostReason, SessionSink } from '../session/session-sink.js'
import { SessionTable } from '../session/session-table.js'
import {
  ADDRESS_RECORD,
  CLEAR,
  Open,
  OPEN_WORDS,
  OPENED,
  Seal,
  SEAL_WORDS,
  type DatagramBatch,
  type OpenBatch,
  type PacketBatch,
  type SealBatch,
} from '../wire/batch.js'
import { INNER_HEADER, Kind, PROBE_TOKEN } from '../wire/constants.js'
import { DropCounters, type DropReason } from '../wire/drop.js'
import type { HostId, ServiceId } from '../wire/ids.js'
import { innerKind } from '../wire/inner.js'
import { Claims } from './claims.js'
import { conditionOf } from './condition.js'
import { Channel, ControlChannel } from './control-channel.js'
import { DataPath } from './data-path.js'
import type { LaneInward, LaneOutward } from './lane-buffers.js'
import { Expulsions } from './expulsions.js'
import { HostEnvironment } from './host-environment.js'
import { Farewells } from './farewells.js'
import { FailureDetector, type Look } from './failure-detector.js'
import { PEER_CAPACITY, type HostComponents, type HostOptions } from './host-options.js'
import { IdleSessions } from './idle-sessions.js'
import { Issuing } from './issuing.js'
import { issuingDefaults } from './issuing-options.js'
import { Loading } from './loading.js'
import { Neighbours } from './neighbours.js'
import { Offers, OFFERS_MAX, type Offer } from './offers.js'
import { CONTROL_CLASS, ownFrame, prefersItsWay, probeFrame } from './own-frames.js'
import { Pings } from './pings.js'
import { SyncHold } from './sync-hold.js'
import { Turns } from './turns.js'
import { Whereabouts } from './whereabouts.js'

/** Between reviews of what has changed about other hosts: there may be many changes at once. */
const TICK_MS = 100
const NO_BYTES = new Uint8Array(0)
/** Frames that need no keepalive in answer: they are answers themselves, or an echo or an acknowledgement answers them at once. */
const SELF_ANSWERED: ReadonlySet<number> = new Set([Kind.empty, Kind.probe, Kind.probeEcho, Kind.control])

export class Host implements SessionSink {
  readonly id: HostId
  readonly peers: PeerTable
  readonly drops = new DropCounters()
  /** Frames of handshakes that came, whatever became of them. */
  clearFramesIn = 0
  readonly dataPath: DataPath
  readonly sessions: SessionTable
  readonly prober: PathProber
  readonly lanePaths: LanePaths
  readonly control: ControlChannel
  readonly members: MemberTrust
  readonly table = new ServiceTable()
  readonly directory: Directory
  readonly catalogue: ServiceCatalogue
  readonly addresses: Addresses
  readonly choice: InstanceChoice
  readonly flows: FlowEngine
  readonly neighbours: Neighbours
  readonly detector: FailureDetector
  readonly environment: HostEnvironment
  readonly whereabouts: Whereabouts
  /** Who may reach what; replacing it cuts flows that it denies, see {@link setPolicy}. */
  policy: Policy = allowAll
  /** Set while somebody looks at dropped packets. */
  wantsDrops = false
  readonly #c: HostComponents
  readonly #claims: Claims
  readonly #offers: Offers
  readonly #issuing: Issuing
  readonly #expulsions: Expulsions
  #datagrams: DatagramBatch | undefined
  #tickedAt = -Infinity
  /** Directory.hostsVersion at the last review. */
  #hostsVersion = -1
  #leaving = false
  /** Rules for names have come: reviewed once a batch, as they come in many messages. */
  #namesRuled = false
  readonly #syncHold: SyncHold
  readonly #farewells: Farewells
  readonly #loading: Loading
  readonly #idle: IdleSessions
  readonly #pings = new Pings()
  readonly #turns = new Turns()

  constructor(components: HostComponents, options: HostOptions) {
    const { primitives, codec, hostKey, trust, random, wallNow, events } = components
    this.#c = components
    this.id = hostKey.id
    const network = trust.network
    const issuing = { ...issuingDefaults, ...options.issuing }
    const randomBytes = (length: number) => primitives.randomBytes(length)
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
    this.sessions = new SessionTable(
      {
        primitives,
        codec,
        laneCodecs,
        lanePorts: components.lanes?.ports ?? [],
        hostKey,
        network,
        membership: trust.membership ?? NO_BYTES,
        // An expired member keeps its sessions for the grace, and may begin nothing.
        trust: { verify: (bytes, wall) => trust.verify(bytes, wall, issuing.graceSeconds) },
        peers: this.peers,
        drops: this.drops,
        sink: this,
        nextStamp: components.nextStamp,
        ...(components.issuer === undefined ? {} : { issuer: components.issuer }),
      },
      options.session,
    )
    this.prober = new PathProber({ peers: this.peers, randomBytes, sink: this }, options.prober)
    this.lanePaths = new LanePaths({
      peers: this.peers,
      randomBytes,
      sendProbe: (peer, lane, slot, token) => {
        this.dataPath.laneFrame(peer, lane, slot, ownFrame(Kind.probe, token), CONTROL_CLASS)
      },
    })
    const epoch = new DataView(primitives.randomBytes(4).buffer).getUint32(0) | 1
    this.control = new ControlChannel({ peers: this.peers, epoch: epoch >>> 0, sink: this })
    this.#farewells = new Farewells(this.peers, this.control)
    this.directory = new Directory(
      { ...directoryDefaults, ...options.directory },
      { trust: this.members, hasher: primitives, sequence: components.sequence, random },
      {
        send: (to, message) => this.#say(to, message),
        changed: (change) => this.#recordChanged(change),
        heartbeat: (host, now) => this.detector.heartbeat(host, now),
        revoked: () => this.#revoked(),
        namesRuled: () => {
          this.#namesRuled = true
        },
      },
    )
    const stamps = new Stamps({ primitives, network, authority: trust.authority, revocations: trust.revocations })
    const tagsOf = (host: HostId) => this.members.member(host)?.tags
    this.catalogue = new ServiceCatalogue(
      { network, self: this.id },
      { primitives, tagsOf, stamps, table: this.table, memberSince: (id) => this.members.member(id)?.notBefore ?? 0 },
    )
    this.catalogue.setRules(rulesInForce(trust.nameRules.list()))
    this.addresses = new Addresses(
      { network, self: this.id, pool: trust.profile.ipv4Pool },
      { hasher: primitives, mappingChanged: () => events.mappingChanged() },
    )
    if (options.mappings !== undefined) this.addresses.importMappings(options.mappings)
    this.#claims = new Claims({
      self: this.id,
      directory: this.directory,
      catalogue: this.catalogue,
      addresses: this.addresses,
      members: this.members,
      wallNow,
      localChanged: () => events.localAddressesChanged(),
    })
    const { peers, control, directory, catalogue, members } = this
    this.#issuing = new Issuing(
      {
        ...{ primitives, hostKey, trust, authority: components.authority, wallNow, stamps },
        ...{ peers, control, members, catalogue, directory },
        wantSession: (peer, now) => this.neighbours.want(peer, now),
        renewed: (membership, now) => this.#renewed(membership, now),
        certified: () => events.renewed('certificate'),
        renewalFailed: (detail) => events.renewalFailed(detail),
        claimsChanged: () => events.claimsChanged(),
        drop: (reason) => this.drop(reason),
      },
      issuing,
      options.claims,
    )
    this.#offers = new Offers({
      ...{ self: this.id, directory, addresses: this.addresses, wallNow },
      ...{ claims: this.#claims, names: this.#issuing.claims },
    })
    this.choice = new InstanceChoice(choiceDefaults, {
      random,
      condition: (host) => conditionOf(host, this, this.#now),
      openFlows: (service, host) => this.environment.openFlows(service, host),
    })
    this.whereabouts = new Whereabouts({
      self: this.id,
      network,
      hasher: primitives,
      peers: this.peers,
      catalogue: this.catalogue,
      choice: this.choice,
      table: this.table,
      random,
      randomBytes,
      locatorsOf: (host) => [...this.directory.locatorsOf(host), ...this.neighbours.hintsOf(host)],
      isMember: (host) => tagsOf(host) !== undefined,
      isRevoked: (host) => this.members.isRevoked(host),
      allows: (client, service, protocol, port) => this.environment.allows(client, service, protocol, port),
      hint: (host, locator, now) => this.neighbours.hint(host, locator, now),
      send: (peer, message, now) => this.control.send(peer, Channel.query, message, now),
      release: () => (this.#syncHold.due = true),
      drop: (reason) => this.drop(reason),
    })
    this.#loading = new Loading(options.loadingUntil ?? -Infinity)
    if (options.loadingUntil !== undefined) this.directory.hush()
    this.environment = new HostEnvironment({
      self: this.id,
      peers: this.peers,
      addresses: this.addresses,
      catalogue: this.catalogue,
      choice: this.choice,
      whereabouts: this.whereabouts,
      loading: this.#loading,
      endpoints: components.endpoints,
      tagsOf,
      policy: () => this.policy,
      active: (peer, now) => this.#needed(peer, now),
      wantSession: (peer, now) => this.#turns.afterwards(() => this.neighbours.want(peer, now)),
      afterwards: (action) => this.#turns.afterwards(action),
      other: (batch, entry, peer, now) => this.#other(batch, entry, peer, now),
      sendFrame: (peer, plaintext, trafficClass) =>
        this.#accounted(peer, this.dataPath.flowFrameTo(peer, plaintext, trafficClass)),
      writePacket: (packet) => this.dataPath.packet(packet),
      drop: (reason, packet) => this.drop(reason, packet),
    })
    const table = new FlowTable(components.flowMemory, options.flowCapacity, new Generations(randomBytes))
    this.flows = new FlowEngine({ table, env: this.environment }, options.flow)
    this.neighbours = new Neighbours(
      {
        self: this.id,
        peers: this.peers,
        connect: (peer, addresses, now) => this.sessions.connect(peer, addresses, now),
        locatorsOf: (host) => this.directory.locatorsOf(host),
        excluded: (host) => this.members.isRevoked(host) || this.revocation !== undefined,
        random,
      },
      options.neighbours,
    )
    const { sessions, flows, neighbours } = this
    this.#expulsions = new Expulsions(
      {
        ...{ self: this.id, trust, wallNow, peers, members, control, sessions, flows, neighbours },
        flush: (now) => {
          control.flush(now)
          this.dataPath.flush(now)
        },
        ended: (what, detail, now) => {
          if (what === 'revoked') directory.withdraw(this.#offers.registered(), now)
          events.expelled(what, detail)
        },
      },
      issuing,
    )
    this.detector = new FailureDetector(
      {
        self: this.id,
        sign: (label, body) => this.members.sign(label, body),
        verify: (label, blob, host) =>
          this.members.membership(host) !== undefined && this.members.verify(label, blob, host),
        look: (host) => this.#look(host),
        lookNow: (host, now) => this.prober.suspect(this.peers.indexOf(host), now),
        peers: () => this.#livingPeers(),
        adjacent: (a, b) => this.neighbours.adjacent(a, b),
        send: (to, message, now) => this.control.send(this.peers.indexOf(to), Channel.liveness, message, now),
        heartbeatOf: (host) => this.directory.heartbeatOf(host),
        learn: (from, host, heartbeat, age, now) => this.directory.learn(from, { host, heartbeat, age }, now),
        refute: (sequence, now) => this.directory.refute(sequence, now),
        random,
      },
      options.detector,
    )
    this.#idle = new IdleSessions(
      {
        wanted: (peer) => this.neighbours.wants(this.peers.hostId(peer)),
        inUse: () => new Set(Array.from(this.flows.flows(), ({ peer }) => peer)),
        send: (peer, body, now) => this.control.send(peer, Channel.sessions, body, now),
        pending: (peer) => this.control.pendingFor(peer),
        end: (peer, now) => this.#end(peer, 'idle', now),
      },
      options.idleSessions,
    )
    this.addresses.claimPeer(Math.floor(wallNow()))
    this.#syncHold = new SyncHold(this.table, network)
  }

  // ---- What comes in ----

  /** The TUN has filled `dataPath.tunIn`. */
  tunRead(now: number): void {
    this.#now = now
    this.dataPath.tunRead(now)
  }

  /** A socket, of this lane, has filled `dataPath.wireIn`. */
  wireRead(now: number, lane = 0): void {
    this.#now = now
    this.dataPath.wireRead(now, lane)
    this.#afterFrames(now)
  }

  #afterFrames(now: number): void {
    this.control.flush(now)
    if (this.#farewells.dueAt < Infinity) this.#farewells.say(now)
    this.#expulsions.heard(now)
    this.#idle.flush(now)
    this.#release(now)
    this.dataPath.flush(now)
  }

  /** The thread of a lane has read packets from its queue of the TUN: see DataPath. */
  decideOutward(lane: number, outward: LaneOutward, now: number): void {
    this.#now = now
    this.dataPath.decideOutward(lane, outward, now)
  }

  /** The thread of a lane has received datagrams and opened them: see DataPath. */
  decideInward(inward: LaneInward, now: number): void {
    this.#now = now
    this.dataPath.decideInward(inward, now)
    this.#afterFrames(now)
  }

  nextTimeout(): number {
    return Math.min(
      this.sessions.nextTimeout(),
      this.prober.nextTimeout(),
      this.lanePaths.nextTimeout(),
      this.control.nextTimeout(),
      this.directory.nextTimeout(),
      this.flows.nextTimeout(),
      this.neighbours.nextTimeout(),
      this.#issuing.nextTimeout(),
      this.#expulsions.nextTimeout(),
      this.#loading.next,
      this.#idle.nextTimeout(),
      this.detector.nextTimeout(),
      this.#nextTick(),
      this.#farewells.dueAt,
    )
  }

  handleTimeout(now: number): void {
    this.#now = now
    if (now >= this.#loading.next) this.loaded(now)
    this.sessions.handleTimeout(now)
    this.prober.handleTimeout(now)
    this.lanePaths.handleTimeout(now)
    this.detector.handleTimeout(now)
    this.control.handleTimeout(now)
    this.directory.handleTimeout(now)
    this.#turns.inside(() => this.flows.handleTimeout(now))
    this.#issuing.handleTimeout(now)
    this.#expulsions.handleTimeout(now)
    if (now >= this.#nextTick()) this.#tick(now)
    this.#release(now)
    this.neighbours.handleTimeout(now)
    this.#idle.handleTimeout(now)
    if (now >= this.#farewells.dueAt) this.#farewells.say(now)
    this.dataPath.flush(now)
  }

  // ---- What this host offers ----

  /** When and by whom this host was revoked, for people; undefined: it is a member. */
  get revocation(): string | undefined {
    return this.#expulsions.own
  }

  /** Whether the service is offered already, or there is room for one more; nothing is offered by a host that was revoked. */
  mayOffer(service: ServiceId): boolean {
    return this.revocation === undefined && (this.#offers.has(service) || this.#offers.room)
  }

  /** What this host has claimed, with its stamps: to be kept over a restart. */
  exportClaims(): Uint8Array {
    return this.#issuing.claims.encode()
  }

  /**
   * Offers a service, or changes what is offered. Returns its served addresses, IPv4 first, which are to be local from now on. Throws RangeError,
   * and nothing has changed, where {@link mayOffer} says no.
   */
  offer(offer: Offer, now: number): readonly [Uint8Array, Uint8Array] {
    if (!this.mayOffer(offer.service)) throw new RangeError(`a host may offer ${OFFERS_MAX} services`)
    this.#now = now
    const served = this.#offers.publish(offer, now)
    this.#c.events.localAddressesChanged()
    this.dataPath.flush(now)
    return served
  }

  /** Takes an offer back; open flows go on. */
  withdraw(service: ServiceId, name: string, now: number): void {
    this.#now = now
    this.#offers.withdraw(service, name, now)
    this.dataPath.flush(now)
  }

  /** Where others can reach this host. */
  setLocators(locators: readonly Locator[], now: number): void {
    this.#now = now
    this.directory.publish([{ payload: { kind: 'locators', locators, relays: [] } }], now)
    this.dataPath.flush(now)
  }

  /** What this host has is restored: it is published, and from now on what it does not have it refuses. */
  loaded(now: number): void {
    this.#now = now
    this.#loading.done()
    this.directory.speak(now)
    this.dataPath.flush(now)
  }

  /** Puts the rules in force that people set, and no others. */
  setRules(rules: readonly LocalRule[], now: number): void {
    this.#now = now
    this.whereabouts.setRules(rules)
    this.#release(now)
    this.dataPath.flush(now)
  }

  /** The host's links have changed: so may what its paths carry, and which of them work. */
  linksChanged(now: number): void {
    this.#now = now
    this.prober.linksChanged(now)
    for (let peer = 1; peer < this.peers.size; peer++) this.#sizePath(peer)
  }

  /** Puts a policy in force, also for flows that are open. Returns how many it has cut. */
  setPolicy(policy: Policy, now: number): number {
    this.#now = now
    this.policy = policy
    return this.#cutDenied(now)
  }

  /** One round trip to the peer, outside the regular probes; `answered` is called with its ms, or never. Undefined: no session. */
  ping(peer: number, now: number, answered: (rttMs: number) => void): { cancel(): void } | undefined {
    if (this.peers.sealSlot[peer]! < 0) return undefined
    const token = this.#c.primitives.randomBytes(PROBE_TOKEN)
    const ping = this.#pings.add(peer, token, now, answered)
    if (ping === undefined) return undefined
    this.dataPath.frameTo(peer, this.peers.addressSlot[peer]!, ownFrame(Kind.probe, token), CONTROL_CLASS)
    this.dataPath.flush(now)
    return ping
  }

  /** Leaves the network for now: withdraws what is offered, ends all flows, tells the peers. Returns the number of flows. */
  leave(now: number): number {
    if (this.#leaving) return 0
    this.#now = now
    this.#leaving = true
    const { open } = this.flows.counts
    this.directory.withdraw(this.#offers.registered(), now)
    this.flows.closeAll(now)
    this.#farewells.begin(now)
    this.dataPath.flush(now)
    return open
  }

  /** Revocations were added to the trust store by hand. */
  revocationsAdded(now: number): void {
    this.#now = now
    this.members.recheck()
    this.directory.revocationsChanged()
    this.#revoked()
    this.dataPath.flush(now)
  }

  /** A rule was added to the trust store by hand; `rule`: its signed bytes. */
  nameRuleAdded(rule: Uint8Array, now: number): void {
    this.#now = now
    this.directory.nameRuleAdded(rule)
    this.#reviewNames()
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
    let last = -1
    for (let i = 0; i < seal.count; i++) {
      const slot = seal.desc[i * SEAL_WORDS + Seal.sealSlot]!
      if (slot === last) continue
      last = slot
      const peer = this.peers.sealPeer[slot]!
      if (peer > 0) this.#sent(peer, now)
    }
  }

  fromPeers(open: OpenBatch, datagrams: DatagramBatch, tunOut: PacketBatch, now: number): void {
    this.#datagrams = datagrams
    const { desc } = open
    for (let i = 0; i < open.count; i++) {
      const base = i * OPEN_WORDS
      const status = desc[base + Open.status]!
      const record = desc[base + Open.datagram]! * ADDRESS_RECORD
      if (status === OPENED) {
        const peer = this.sessions.transportSeen(desc[base + Open.lane]!, now)
        if (peer < 0) continue
        const at = desc[base + Open.offset]!
        const kind = innerKind(open.data, at)
        const prefers = prefersItsWay(kind, open.data, at, desc[base + Open.length]!)
        if (this.peers.lanes > 1 && this.sessions.laneNumber(desc[base + Open.lane]!) > 0)
          this.prober.heardAside(peer, now, prefers)
        else this.prober.heard(peer, datagrams.addresses, record, now, prefers)
        if (!SELF_ANSWERED.has(kind)) this.sessions.dataReceived(peer, now)
      } else if (status === CLEAR) {
        this.clearFramesIn++
        const address = datagrams.addresses.slice(record, record + ADDRESS_RECORD)
        const reason = this.sessions.receive(
          datagrams.data,
          desc[base + Open.offset]!,
          desc[base + Open.length]!,
          address,
          now,
          this.#c.wallNow(),
        )
        // Counted by the session layer.
        if (reason !== undefined && this.wantsDrops) this.#c.events.dropped(reason, undefined)
      }
    }
    this.#turns.enter()
    try {
      this.flows.fromPeers(open, datagrams, this.sessions.lanePeer, tunOut, now)
    } finally {
      this.#turns.leave()
    }
    this.#turns.rest()
    this.#datagrams = undefined
  }

  // ---- SessionSink ----

  sendDatagram(bytes: Uint8Array, address: Uint8Array): void {
    const { addresses } = this.peers
    const slot = addresses.acquire(address)
    if (slot < 0) return this.drop('send-failed')
    this.dataPath.clear(bytes, slot)
    addresses.release(slot)
  }

  established(peer: number, session: Established, now: number): void {
    const host = this.peers.hostId(peer)
    this.#learnSlots(peer)
    this.members.learn(session.membership.bytes, host)
    if (session.rttMs !== undefined && this.peers.rttMs[peer] === 0) this.peers.rttMs[peer] = session.rttMs
    const known = this.prober.liveness(peer) === undefined
    if (known || !session.rekey || this.peers.addressSlot[peer]! < 0)
      this.prober.established(peer, session.address, now)
    this.#sizePath(peer)
    this.#offerLanes(peer, now)
    this.neighbours.established(peer, decodeLocator(session.address), now)
    if (!session.rekey) this.#idle.up(peer, now)
    this.#offerPaths(peer)
    if (session.rekey) this.directory.peerRenewed(host)
    else {
      this.directory.peerUp(host, now)
      // One more who may know what is waited for.
      this.#syncHold.due = true
      this.#c.events.peer(host, 'up', session.membership.name)
      this.#c.events.remember()
    }
    this.control.sessionUp(peer, now)
    this.flows.sessionUp(peer, now)
    this.#issuing.sessionUp(peer, now)
  }

  confirmed(peer: number, now: number): void {
    this.#learnSlots(peer)
    this.flows.sessionUp(peer, now)
  }

  lost(peer: number, reason: LostReason, now: number): void {
    const host = this.peers.hostId(peer)
    this.directory.peerDown(host)
    this.control.clear(peer)
    this.lanePaths.forget(peer)
    this.prober.forget(peer)
    this.dataPath.replay.forget(peer)
    this.whereabouts.asking.forget(peer)
    this.neighbours.lost(peer, now)
    this.#idle.down(peer)
    this.detector.peerDown(host)
    this.#c.events.peer(host, 'lost', reason)
  }

  failed(peer: number, reason: DropReason | 'no-answer' | 'no-address', now: number): void {
    this.neighbours.failed(peer, now)
    this.flows.sessionFailed(peer, now)
    this.#c.events.peer(this.peers.hostId(peer), 'failed', reason)
  }

  proveAlive(peer: number): void {
    this.dataPath.frameTo(peer, this.peers.addressSlot[peer]!, ownFrame(Kind.empty), CONTROL_CLASS)
  }

  // ---- ProberSink ----

  sendProbe(peer: number, addressSlot: number, token: Uint8Array): void {
    this.dataPath.frameTo(
      peer,
      addressSlot,
      probeFrame(token, addressSlot === this.peers.addressSlot[peer]),
      CONTROL_CLASS,
    )
    this.sessions.dataSent(peer, this.#now)
  }

  liveness(peer: number, state: Liveness, now: number): void {
    const host = this.peers.hostId(peer)
    this.#c.events.peer(host, state, '')
    this.detector.looked(host, state, now)
  }

  moved(peer: number): void {
    this.dataPath.replay.moved(peer, this.#now)
    this.#sizePath(peer)
    this.#offerLanes(peer, this.#now)
    const locator = decodeLocator(this.peers.addresses.record(this.peers.addressSlot[peer]!))
    if (locator === undefined) return
    this.neighbours.hint(this.peers.hostId(peer), locator, this.#now)
    this.#c.events.peer(this.peers.hostId(peer), 'moved', `${locator.address}:${locator.port}`)
    this.#c.events.remember()
  }

  // ---- ControlSink ----

  sendControl(peer: number, message: Uint8Array, wantsAnswer: boolean): boolean {
    const frame = ownFrame(Kind.control, message)
    if (wantsAnswer) return this.#sendFrame(peer, frame, CONTROL_CLASS)
    const sent = this.dataPath.frameTo(peer, this.peers.addressSlot[peer]!, frame, CONTROL_CLASS)
    if (sent) this.sessions.answerSent(peer)
    else this.drop('no-session')
    return sent
  }

  message(peer: number, channel: number, body: Uint8Array, now: number): void {
    switch (channel) {
      case Channel.directory:
        return this.directory.receive(this.peers.hostId(peer), body, now)
      case Channel.liveness:
        if (!this.detector.receive(this.peers.hostId(peer), body, now)) this.drop('bad-control')
        return
      case Channel.issuing:
        return this.#issuing.receive(peer, body, now)
      case Channel.query:
        return this.whereabouts.asking.receive(peer, body, now)
      case Channel.farewell:
        this.flows.peerLost(peer, now)
        this.#end(peer, 'expired', now)
        return this.neighbours.left(peer, now)
      case Channel.sessions:
        if (!this.#idle.receive(peer, body, now)) this.drop('bad-control')
        return
      default:
        this.drop('bad-control')
    }
  }

  drop(reason: DropReason, packet?: Uint8Array): void {
    this.drops.add(reason)
    if (this.wantsDrops) this.#c.events.dropped(reason, packet)
  }

  // ---- Inside ----

  #now = 0

  #look(host: HostId): Look | undefined {
    const peer = this.peers.indexOf(host)
    const state = peer > 0 ? this.prober.liveness(peer) : undefined
    return state && { state, heardAt: this.prober.heardAt(peer) ?? -Infinity }
  }

  #livingPeers(): HostId[] {
    const living: HostId[] = []
    for (let peer = 1; peer < this.peers.size; peer++)
      if (this.prober.liveness(peer) === 'alive') living.push(this.peers.hostId(peer))
    return living
  }

  #say(to: HostId, message: Uint8Array): void {
    const peer = this.peers.indexOf(to)
    if (peer > 0) this.control.send(peer, Channel.directory, message, this.#now)
  }

  #sent(peer: number, now: number): void {
    this.sessions.dataSent(peer, now)
    this.#needed(peer, now)
  }

  /** A flow or bind concerns the peer. */
  #needed(peer: number, now: number): void {
    this.prober.active(peer, now)
    this.#idle.used(peer, now)
  }

  /** Ends the session with the peer. The last that goes by it is the acknowledgement of what it has said, which it waits for. */
  #end(peer: number, reason: LostReason, now: number): void {
    this.control.flush(now)
    this.dataPath.flush(now)
    this.sessions.dropPeer(peer, reason, now)
  }

  #sendFrame(peer: number, plaintext: Uint8Array, trafficClass: number): boolean {
    return this.#accounted(peer, this.dataPath.frameTo(peer, this.peers.addressSlot[peer]!, plaintext, trafficClass))
  }

  #accounted(peer: number, sent: boolean): boolean {
    if (!sent) {
      this.drop('no-session')
      return false
    }
    this.sessions.dataSent(peer, this.#now)
    return true
  }

  /** Whose session the codecs' seal slots are. */
  #learnSlots(peer: number): void {
    const { peers } = this
    peers.sealPeer[peers.sealSlot[peer]!] = peer
    for (let lane = 1; lane < peers.lanes; lane++) {
      const slot = peers.laneSealSlot[peers.laneAt(peer, lane)]!
      if (slot >= 0) peers.sealPeer[slot] = peer
    }
  }

  #offerLanes(peer: number, now: number): void {
    if (this.peers.lanes > 1) this.lanePaths.offer(peer, this.sessions.lanePorts(peer), now)
  }

  #sizePath(peer: number): void {
    const { addressSlot, addresses, pathMtu } = this.peers
    const slot = addressSlot[peer]!
    pathMtu[peer] = slot < 0 ? 0 : (this.#c.pathMtu?.(addresses.record(slot)) ?? 0)
  }

  /** A frame that is not the flow layer's. */
  #other(batch: OpenBatch, entry: number, peer: number, now: number): void {
    const base = entry * OPEN_WORDS
    const offset = batch.desc[base + Open.offset]!
    const body = batch.data.slice(offset + INNER_HEADER, offset + batch.desc[base + Open.length]!)
    const record = batch.desc[base + Open.datagram]! * ADDRESS_RECORD
    const records = this.#datagrams?.addresses
    const lane = this.peers.lanes > 1 ? this.sessions.laneNumber(batch.desc[base + Open.lane]!) : 0
    switch (innerKind(batch.data, offset)) {
      case Kind.empty:
        return
      case Kind.control:
        return this.#turns.afterwards(() => {
          if (!this.control.receive(peer, body, now)) this.sessions.dataReceived(peer, now)
        })
      case Kind.probe:
        if (body.length < PROBE_TOKEN || records === undefined) return this.drop('bad-frame')
        this.#echo(peer, lane, body.subarray(0, PROBE_TOKEN), records, record)
        this.sessions.answerSent(peer)
        return
      case Kind.probeEcho:
        if (body.length < PROBE_TOKEN || records === undefined) return this.drop('bad-frame')
        if (lane > 0) this.lanePaths.echoed(peer, lane, body, now)
        else if (!this.#pings.answered(peer, body.subarray(0, PROBE_TOKEN), now))
          this.prober.echoed(peer, body, records, record, now)
        return
      default:
        this.drop('bad-frame')
    }
  }

  /** A probe is answered by the lane that it came by, to where it came from. */
  #echo(peer: number, lane: number, token: Uint8Array, records: Uint8Array, record: number): void {
    const frame = ownFrame(Kind.probeEcho, token)
    if (lane === 0) {
      this.dataPath.frameTo(peer, this.prober.slotOf(peer, records, record), frame, CONTROL_CLASS)
      return
    }
    const { addresses } = this.peers
    const slot = addresses.acquire(records, record)
    if (slot < 0) return this.drop('send-failed')
    this.dataPath.laneFrame(peer, lane, slot, frame, CONTROL_CLASS)
    addresses.release(slot)
  }

  /** First packets that wait for a service are tried again, and refused once nothing more is to come. */
  #release(now: number): void {
    if (this.#namesRuled) {
      this.#reviewNames()
      this.#c.events.namesRuled()
    }
    this.#syncHold.look(this.directory.synced)
    if (!this.#syncHold.due) return
    this.#syncHold.due = false
    this.#turns.inside(() => this.flows.release(now))
  }

  #recordChanged(change: RecordChange): void {
    const payload = change.record?.payload ?? change.before?.payload
    if (payload?.kind === 'locators') this.#offerPaths(this.peers.indexOf(change.host))
    if (this.catalogue.apply(change)) this.#syncHold.due = true
    if (payload?.kind === 'registration') this.whereabouts.learned.forget(payload.service, change.host)
    this.#claims.recordChanged(change)
    this.#issuing.recordChanged(change, this.#now)
  }

  #revoked(): void {
    this.#expulsions.revoked(this.#now)
    this.neighbours.reviewDue = true
    this.#reviewNames()
    this.#issuing.revocationsChanged(this.#now)
    this.#c.events.revocationsChanged()
  }

  /** Whose names are whose, by the rules and the hosts' tags as they are now. */
  #reviewNames(): void {
    this.#namesRuled = false
    this.catalogue.setRules(rulesInForce(this.#c.trust.nameRules.list()))
    this.#claims.reviewAll()
    this.#syncHold.due = true
  }

  /** The trust store has a new membership of ours. */
  #renewed({ bytes }: Membership, now: number): void {
    this.#c.events.renewed('membership')
    this.members.learn(bytes, this.id)
    this.sessions.setMembership(bytes)
    this.directory.membershipRenewed(now)
  }

  #cutDenied(now: number): number {
    const cut = this.flows.cut((flow) => !this.environment.allowsFlow(flow), now)
    this.dataPath.flush(now)
    return cut
  }

  /** When what has changed about other hosts is looked at; Infinity: nothing has. */
  #nextTick(): number {
    if (this.#claims.due) return this.#now
    return this.#reviewDue ? this.#tickedAt + TICK_MS : Infinity
  }

  get #reviewDue(): boolean {
    return this.neighbours.reviewDue || this.directory.hostsVersion !== this.#hostsVersion
  }

  #tick(now: number): void {
    if (this.#reviewDue && now >= this.#tickedAt + TICK_MS) {
      this.#tickedAt = now
      this.#hostsVersion = this.directory.hostsVersion
      this.neighbours.known(this.directory.hosts(), now)
    }
    if (this.#claims.due) this.#claims.settle(now)
  }

  /** What the peer's records say about where it is are paths to fall back to. */
  #offerPaths(peer: number): void {
    if (peer <= 0) return
    for (const locator of this.directory.locatorsOf(this.peers.hostId(peer))) {
      const record = locatorRecord(locator)
      if (record !== undefined) this.prober.candidate(peer, record, this.#now)
    }
  }
}
