// A host, whole and pure: what goes in is what the devices read and how late it is, what comes out goes to HostIo and HostEvents.
//
//   TUN ──▶ DataPath ──▶ FlowEngine ──▶ DataPath ──▶ underlay         records  ◀──▶ Directory ──▶ Catalogue ──▶ Choice
//   underlay ──▶ DataPath ─┬▶ FlowEngine ──▶ TUN                      peers    ◀──▶ SessionTable, PathProber, Neighbours
//                          └▶ handshakes, probes, control messages

import type { FrameCodec } from '../crypto/codec.js'
import type { HostKey } from '../crypto/host-key.js'
import type { Primitives } from '../crypto/primitives.js'
import type { TrustStore } from '../crypto/trust.js'
import { FlowEngine } from '../flow/flow-engine.js'
import { Generations } from '../flow/flow-id.js'
import type { FlowOptions } from '../flow/flow-options.js'
import { FlowTable } from '../flow/flow-table.js'
import { decodeLocator, locatorRecord, type Locator } from '../path/locator.js'
import { PeerTable } from '../path/peers.js'
import { PathProber, type Liveness, type ProberOptions } from '../path/prober.js'
import { Addresses, type SavedMappings } from '../service/addresses.js'
import { ServiceCatalogue } from '../service/catalogue.js'
import { choiceDefaults, InstanceChoice, type HostCondition } from '../service/choice.js'
import { Directory, directoryDefaults, type DirectoryOptions } from '../service/directory.js'
import type { RecordChange } from '../service/host-records.js'
import type { SequenceSource } from '../service/own-records.js'
import { allowAll, type Policy } from '../service/policy.js'
import { recordKey, TAGS_MAX, type Registration } from '../service/registration.js'
import { networkPrefix } from '../service/service-id.js'
import { ServiceTable } from '../service/service-table.js'
import { MemberTrust } from '../service/trust.js'
import type { Established, LostReason, SessionSink } from '../session/session-sink.js'
import { SessionTable, type JoinResponder, type SessionOptions } from '../session/session-table.js'
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
import { INNER_HEADER, Kind } from '../wire/constants.js'
import { DropCounters, type DropReason } from '../wire/drop.js'
import { fromHex, hostId, toHex, type HostId, type ServiceId } from '../wire/ids.js'
import { innerKind, writeInnerHeader } from '../wire/inner.js'
import { Claims } from './claims.js'
import { Channel, ControlChannel } from './control-channel.js'
import { DataPath, type HostIo } from './data-path.js'
import { HostEnvironment, type LocalEndpoints } from './host-environment.js'
import { Neighbours, type NeighboursOptions } from './neighbours.js'

export interface HostComponents {
  readonly primitives: Primitives
  readonly codec: FrameCodec
  readonly hostKey: HostKey
  /** With a membership of this host. */
  readonly trust: TrustStore
  readonly io: HostIo
  readonly events: HostEvents
  readonly endpoints: LocalEndpoints
  /** Memory of the flow table: FlowTable.bytesFor(flowCapacity) bytes, zeroed. */
  readonly flowMemory: ArrayBufferLike
  /** Seconds since the epoch. */
  readonly wallNow: () => number
  /** Uniform in [0, 1). */
  readonly random: () => number
  readonly nextStamp: () => bigint
  readonly sequence: SequenceSource
  readonly issuer?: JoinResponder
}

export interface HostOptions {
  readonly flowCapacity: number
  readonly peerCapacity?: number
  readonly session?: SessionOptions
  readonly prober?: Partial<ProberOptions>
  readonly flow?: Partial<FlowOptions>
  readonly directory?: Partial<DirectoryOptions>
  readonly neighbours?: Partial<NeighboursOptions>
  /** Address mappings of before a restart. */
  readonly mappings?: SavedMappings | undefined
}

/** What the process around the host wants to know. Called from inside the host's methods. */
export interface HostEvents {
  /** Address mappings changed: to disk before they are told to anybody. */
  mappingChanged(): void
  /** The kernel's local addresses are to be brought in line with Addresses.localAddresses. */
  localAddressesChanged(): void
  /** A host's session came up or ended, its liveness changed, or its frames go another way. */
  peer(host: HostId, what: 'up' | 'lost' | 'failed' | 'moved' | Liveness, detail: string): void
  /** The revocation list grew: to disk. */
  revocationsChanged(): void
  /** A packet was dropped; only while `wantsDrops`. Bytes are only valid during the call. */
  dropped(reason: DropReason, packet: Uint8Array | undefined): void
  /** A locator of a host was proven: worth remembering over a restart. */
  remember(): void
}

/** What a host publishes about one of its services. */
export type Offer = Pick<Registration, 'service' | 'name' | 'ports' | 'priority' | 'weight' | 'state' | 'move'>

const PROBE_TOKEN = 16
const TICK_MS = 1_000
/** How long a host that leaves waits for its last messages to arrive before it says farewell all the same. */
const FAREWELL_MS = 100
const PINGS_MAX = 1_024
/** Services that a host may offer: with their names and addresses they fit the records that it may publish. */
export const OFFERS_MAX = 100
/** Key of the rule that holds first packets until the directory is whole. */
const UNSYNCED = 'unsynced'
const PEERS = 4_096
/** Traffic class of the host's own frames: CS6, network control. */
const CONTROL_CLASS = 0xc0
const NO_BYTES = new Uint8Array(0)

export class Host implements SessionSink {
  readonly id: HostId
  readonly peers: PeerTable
  readonly drops = new DropCounters()
  readonly dataPath: DataPath
  readonly sessions: SessionTable
  readonly prober: PathProber
  readonly control: ControlChannel
  readonly members: MemberTrust
  readonly table = new ServiceTable()
  readonly directory: Directory
  readonly catalogue: ServiceCatalogue
  readonly addresses: Addresses
  readonly choice: InstanceChoice
  readonly flows: FlowEngine
  readonly neighbours: Neighbours
  readonly environment: HostEnvironment
  /** Who may reach what; replacing it cuts flows that it denies, see {@link setPolicy}. */
  policy: Policy = allowAll
  /** Set while somebody looks at dropped packets. */
  wantsDrops = false
  readonly #c: HostComponents
  readonly #claims: Claims
  /** Peer by codec seal slot, for the accounting of what was sent. */
  readonly #sealPeer = new Int32Array(65_536).fill(-1)
  #datagrams: DatagramBatch | undefined
  #tickAt = -Infinity
  #leaving = false
  #servicesChanged = false
  #wasSynced = false
  /** Peers to be told that this host leaves, and when at the latest. */
  readonly #farewells = new Set<number>()
  #farewellAt = Infinity
  readonly #pings = new Map<string, { peer: number; sentAt: number; answered: (rttMs: number) => void }>()

  constructor(components: HostComponents, options: HostOptions) {
    const { primitives, codec, hostKey, trust, random, wallNow, events } = components
    this.#c = components
    this.id = hostKey.id
    const network = trust.network
    const randomBytes = (length: number) => primitives.randomBytes(length)
    this.peers = new PeerTable(this.id, options.peerCapacity ?? PEERS)
    this.members = new MemberTrust({
      primitives,
      key: hostKey,
      authority: trust.authority,
      revocations: trust.revocations,
      wallNow: () => trust.observe(wallNow()),
    })
    this.members.learn(trust.membership ?? NO_BYTES, this.id)
    this.dataPath = new DataPath({ codec, peers: this.peers, io: components.io, decisions: this })
    this.sessions = new SessionTable(
      {
        primitives,
        codec,
        hostKey,
        network,
        membership: trust.membership ?? NO_BYTES,
        trust,
        peers: this.peers,
        drops: this.drops,
        sink: this,
        nextStamp: components.nextStamp,
        ...(components.issuer === undefined ? {} : { issuer: components.issuer }),
      },
      options.session,
    )
    this.prober = new PathProber({ peers: this.peers, randomBytes, sink: this }, options.prober)
    const epoch = new DataView(primitives.randomBytes(4).buffer).getUint32(0) | 1
    this.control = new ControlChannel({ peers: this.peers, epoch: epoch >>> 0, sink: this })
    this.directory = new Directory(
      { ...directoryDefaults, ...options.directory },
      { trust: this.members, hasher: primitives, sequence: components.sequence, random },
      {
        send: (to, message) => this.#say(to, message),
        changed: (change) => this.#recordChanged(change),
        revoked: () => this.#revoked(),
      },
    )
    const tagsOf = (host: HostId) => this.members.member(host)?.tags
    this.catalogue = new ServiceCatalogue({ network, self: this.id }, { primitives, tagsOf, table: this.table, memberSince: (host) => this.members.member(host)?.notBefore ?? 0 })
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
    this.choice = new InstanceChoice(choiceDefaults, {
      random,
      condition: (host) => this.#condition(host),
      openFlows: (service, host) => this.environment.openFlows(service, host),
    })
    this.environment = new HostEnvironment({
      self: this.id,
      peers: this.peers,
      addresses: this.addresses,
      catalogue: this.catalogue,
      choice: this.choice,
      table: this.table,
      endpoints: components.endpoints,
      tagsOf,
      policy: () => this.policy,
      active: (peer, now) => this.prober.active(peer, now),
      wantSession: (peer, now) => this.#afterwards(() => this.neighbours.want(peer, now)),
      other: (batch, entry, peer, now) => this.#other(batch, entry, peer, now),
      sendFrame: (peer, plaintext, trafficClass) => this.#sendFrame(peer, plaintext, trafficClass),
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
        locatorsOf: (host) => this.#locatorsOf(host),
        excluded: (host) => this.members.isRevoked(host),
        random,
      },
      options.neighbours,
    )
    this.addresses.claimPeer(Math.floor(wallNow()))
    // Until the directory is whole, a name that is not in it may still come: its first packets wait.
    this.table.set(networkPrefix(network), UNSYNCED, { action: { kind: 'delay' }, priority: 65_535, weight: 0 })
  }

  // ---- What comes in ----

  /** The TUN has filled `dataPath.tunIn`. */
  tunRead(now: number): void {
    this.#now = now
    this.dataPath.tunRead(now)
  }

  /** A socket has filled `dataPath.wireIn`. */
  wireRead(now: number): void {
    this.#now = now
    this.dataPath.wireRead(now)
    this.control.flush(now)
    if (this.#farewells.size > 0) this.#sayFarewell(now)
    this.dataPath.flush(now)
  }

  nextTimeout(): number {
    return Math.min(
      this.sessions.nextTimeout(),
      this.prober.nextTimeout(),
      this.control.nextTimeout(),
      this.directory.nextTimeout(),
      this.flows.nextTimeout(),
      this.neighbours.nextTimeout(),
      this.#tickAt,
      this.#farewellAt,
    )
  }

  handleTimeout(now: number): void {
    this.#now = now
    this.sessions.handleTimeout(now)
    this.prober.handleTimeout(now)
    this.control.handleTimeout(now)
    this.directory.handleTimeout(now)
    this.#inFlows(() => this.flows.handleTimeout(now))
    if (now >= this.#tickAt) this.#tick(now)
    this.#noticeSync()
    if (this.#servicesChanged) this.#release(now)
    this.neighbours.handleTimeout(now)
    if (now >= this.#farewellAt) this.#sayFarewell(now)
    this.dataPath.flush(now)
  }

  // ---- What this host offers ----

  /** Whether the service is offered already, or there is room for one more. */
  mayOffer(service: ServiceId): boolean {
    if (this.directory.record(this.id, `service/${service}`) !== undefined) return true
    return (
      this.directory.recordsOf(this.id).filter(({ payload }) => payload.kind === 'registration').length < OFFERS_MAX
    )
  }

  /**
   * Offers a service, or changes what is offered. Returns its served addresses, IPv4 first, which are to be local from now on. Throws RangeError,
   * and nothing has changed, where {@link mayOffer} says no.
   */
  offer(offer: Offer, now: number): readonly [Uint8Array, Uint8Array] {
    if (!this.mayOffer(offer.service)) throw new RangeError(`a host may offer ${OFFERS_MAX} services`)
    this.#now = now
    const wall = Math.floor(this.#c.wallNow())
    const known = this.directory.record(
      this.id,
      recordKey({ kind: 'name', service: offer.service, name: offer.name, since: 0, tags: [], hosts: [] }),
    )
    const claimed = known?.payload.kind === 'name' && known.lifetime > 0
    // The first claim keeps the name for hosts that share a tag with this one; where there are no tags, for every member.
    const tags = (this.members.member(this.id)?.tags ?? []).slice(0, TAGS_MAX)
    const registration: Registration = { kind: 'registration', ...offer, epoch: 0, load: 0 }
    const name = { kind: 'name' as const, service: offer.service, name: offer.name, since: wall, tags, hosts: [] }
    this.addresses.claimService(offer.service, wall)
    this.#claims.ownChanged()
    const served = this.addresses.host(offer.service)
    this.directory.publish([{ payload: registration }, ...(claimed ? [] : [{ payload: name }])], now)
    this.#claims.settle(now)
    this.#c.events.localAddressesChanged()
    this.dataPath.flush(now)
    return served
  }

  /** Takes an offer back; open flows go on. */
  withdraw(service: ServiceId, name: string, now: number): void {
    this.#now = now
    this.directory.withdraw(
      [`service/${service}`, recordKey({ kind: 'name', service, name, since: 0, tags: [], hosts: [] })],
      now,
    )
    this.addresses.releaseService(service)
    this.#claims.ownChanged()
    this.#claims.settle(now)
    this.dataPath.flush(now)
  }

  /** Where others can reach this host. */
  setLocators(locators: readonly Locator[], now: number): void {
    this.#now = now
    this.directory.publish([{ payload: { kind: 'locators', locators, relays: [] } }], now)
    this.dataPath.flush(now)
  }

  /** Puts a policy in force, also for flows that are open. Returns how many it has cut. */
  setPolicy(policy: Policy, now: number): number {
    this.#now = now
    this.policy = policy
    return this.#cutDenied(now)
  }

  /** One round trip to the peer, outside the regular probes; `answered` is called with its ms, or never. Undefined: no session. */
  ping(peer: number, now: number, answered: (rttMs: number) => void): { cancel(): void } | undefined {
    if (this.peers.sealSlot[peer]! < 0 || this.#pings.size >= PINGS_MAX) return undefined
    const token = this.#c.primitives.randomBytes(PROBE_TOKEN)
    const key = toHex(token)
    this.#pings.set(key, { peer, sentAt: now, answered })
    this.#sendProbe(Kind.probe, peer, this.peers.addressSlot[peer]!, token)
    this.dataPath.flush(now)
    return { cancel: () => this.#pings.delete(key) }
  }

  /** Leaves the network for now: withdraws what is offered, ends all flows, tells the peers. Returns the number of flows. */
  leave(now: number): number {
    if (this.#leaving) return 0
    this.#now = now
    this.#leaving = true
    const open = [...this.flows.flows()].length
    const keys = this.directory.recordsOf(this.id).filter(({ payload }) => payload.kind === 'registration')
    this.directory.withdraw(
      keys.map(({ key }) => key),
      now,
    )
    this.flows.closeAll(now)
    for (let peer = 1; peer < this.peers.size; peer++) if (this.peers.sealSlot[peer]! >= 0) this.#farewells.add(peer)
    this.#farewellAt = now + FAREWELL_MS
    this.#sayFarewell(now)
    this.dataPath.flush(now)
    return open
  }

  /** Messages have no order, and after a farewell none is heard: it goes out when the others have arrived, or their time is up. */
  #sayFarewell(now: number): void {
    for (const peer of this.#farewells) {
      if (now < this.#farewellAt && this.control.pendingFor(peer)) continue
      this.#farewells.delete(peer)
      if (this.peers.sealSlot[peer]! >= 0) this.control.send(peer, Channel.farewell, NO_BYTES, now)
    }
    if (this.#farewells.size === 0) this.#farewellAt = Infinity
  }

  /** Revocations were added to the trust store by hand. */
  revocationsAdded(now: number): void {
    this.#now = now
    this.members.recheck()
    this.directory.revocationsChanged()
    this.#revoked()
    this.dataPath.flush(now)
  }

  // ---- DataPathDecisions ----

  fromTun(batch: PacketBatch, seal: SealBatch, now: number): void {
    this.#inFlows(() => this.flows.fromTun(batch, seal, now))
    let last = -1
    for (let i = 0; i < seal.count; i++) {
      const slot = seal.desc[i * SEAL_WORDS + Seal.sealSlot]!
      if (slot === last) continue
      last = slot
      const peer = this.#sealPeer[slot]!
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
        const kind = innerKind(open.data, desc[base + Open.offset]!)
        this.prober.heard(peer, datagrams.addresses, record, now, kind !== Kind.probe && kind !== Kind.probeEcho)
        if (kind !== Kind.empty) this.sessions.dataReceived(peer, now)
      } else if (status === CLEAR) {
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
    this.#inFlows(() => this.flows.fromPeers(open, datagrams, this.sessions.lanePeer, tunOut, now))
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
    this.#sealPeer[this.peers.sealSlot[peer]!] = peer
    this.members.learn(session.membership.bytes, host)
    if (session.rttMs !== undefined && this.peers.rttMs[peer] === 0) this.peers.rttMs[peer] = session.rttMs
    const known = this.prober.liveness(peer) === undefined
    if (known || !session.rekey || this.peers.addressSlot[peer]! < 0)
      this.prober.established(peer, session.address, now)
    this.neighbours.established(peer, decodeLocator(session.address), now)
    this.#offerPaths(peer)
    if (session.rekey) this.directory.peerRenewed(host)
    else {
      this.directory.peerUp(host, now)
      this.#c.events.peer(host, 'up', session.membership.name)
      this.#c.events.remember()
    }
    this.control.sessionUp(peer, now)
    this.flows.sessionUp(peer, now)
  }

  confirmed(peer: number, now: number): void {
    this.#sealPeer[this.peers.sealSlot[peer]!] = peer
    this.flows.sessionUp(peer, now)
  }

  lost(peer: number, reason: LostReason, now: number): void {
    const host = this.peers.hostId(peer)
    this.directory.peerDown(host)
    this.control.clear(peer)
    this.prober.forget(peer)
    this.neighbours.lost(peer, now)
    this.#c.events.peer(host, 'lost', reason)
  }

  failed(peer: number, reason: DropReason | 'no-answer' | 'no-address', now: number): void {
    this.neighbours.failed(peer, now)
    this.flows.sessionFailed(peer, now)
    this.#c.events.peer(this.peers.hostId(peer), 'failed', reason)
  }

  proveAlive(peer: number): void {
    const frame = new Uint8Array(INNER_HEADER)
    writeInnerHeader(viewOf(frame), 0, 0, 0, Kind.empty, 0, 0, 0)
    this.dataPath.frameTo(peer, this.peers.addressSlot[peer]!, frame, CONTROL_CLASS)
  }

  // ---- ProberSink ----

  sendProbe(peer: number, addressSlot: number, token: Uint8Array): void {
    this.#sendProbe(Kind.probe, peer, addressSlot, token)
    this.sessions.dataSent(peer, this.#now)
  }

  liveness(peer: number, state: Liveness, now: number): void {
    const host = this.peers.hostId(peer)
    this.#c.events.peer(host, state, '')
    if (state === 'alive') return
    // Others that have a session with it look for themselves.
    const suspicion = fromHex(host)
    for (let other = 1; other < this.peers.size; other++) {
      if (other !== peer && this.prober.liveness(other) === 'alive')
        this.control.send(other, Channel.liveness, suspicion, now)
    }
  }

  moved(peer: number): void {
    const locator = decodeLocator(this.peers.addresses.record(this.peers.addressSlot[peer]!))
    if (locator === undefined) return
    this.neighbours.hint(this.peers.hostId(peer), locator, this.#now)
    this.#c.events.peer(this.peers.hostId(peer), 'moved', `${locator.address}:${locator.port}`)
    this.#c.events.remember()
  }

  // ---- ControlSink ----

  sendControl(peer: number, message: Uint8Array): boolean {
    const frame = new Uint8Array(INNER_HEADER + message.length)
    writeInnerHeader(viewOf(frame), 0, 0, 0, Kind.control, 0, 0, 0)
    frame.set(message, INNER_HEADER)
    return this.#sendFrame(peer, frame, CONTROL_CLASS)
  }

  message(peer: number, channel: number, body: Uint8Array, now: number): void {
    switch (channel) {
      case Channel.directory:
        return this.directory.receive(this.peers.hostId(peer), body, now)
      case Channel.liveness: {
        const suspect = body.length === 32 ? this.peers.indexOf(hostId(body)) : -1
        if (suspect > 0) this.prober.suspect(suspect, now)
        return
      }
      case Channel.farewell:
        this.flows.peerLost(peer, now)
        // The last that goes by this session is its acknowledgement, which the leaving host waits for.
        this.control.flush(now)
        this.dataPath.flush(now)
        this.sessions.dropPeer(peer, 'expired', now)
        return this.neighbours.left(peer, now)
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
  #flowDepth = 0
  #later: (() => void)[] = []

  /** The flow engine must not be entered while it works: what its environment sets off waits until it is done. */
  #inFlows(work: () => void): void {
    this.#flowDepth++
    try {
      work()
    } finally {
      this.#flowDepth--
    }
    while (this.#flowDepth === 0 && this.#later.length > 0) {
      const waiting = this.#later
      this.#later = []
      for (const action of waiting) action()
    }
  }

  #afterwards(action: () => void): void {
    if (this.#flowDepth > 0) this.#later.push(action)
    else action()
  }

  #say(to: HostId, message: Uint8Array): void {
    const peer = this.peers.indexOf(to)
    if (peer > 0) this.control.send(peer, Channel.directory, message, this.#now)
  }

  #sent(peer: number, now: number): void {
    this.sessions.dataSent(peer, now)
    this.prober.active(peer, now)
  }

  #sendFrame(peer: number, plaintext: Uint8Array, trafficClass: number): boolean {
    if (!this.dataPath.frameTo(peer, this.peers.addressSlot[peer]!, plaintext, trafficClass)) {
      this.drop('no-session')
      return false
    }
    this.sessions.dataSent(peer, this.#now)
    return true
  }

  #sendProbe(kind: number, peer: number, addressSlot: number, token: Uint8Array): void {
    const frame = new Uint8Array(INNER_HEADER + PROBE_TOKEN)
    writeInnerHeader(viewOf(frame), 0, 0, 0, kind, 0, 0, 0)
    frame.set(token.subarray(0, PROBE_TOKEN), INNER_HEADER)
    this.dataPath.frameTo(peer, addressSlot, frame, CONTROL_CLASS)
  }

  /** A frame that is not the flow layer's. */
  #other(batch: OpenBatch, entry: number, peer: number, now: number): void {
    const base = entry * OPEN_WORDS
    const offset = batch.desc[base + Open.offset]!
    const body = batch.data.slice(offset + INNER_HEADER, offset + batch.desc[base + Open.length]!)
    const record = batch.desc[base + Open.datagram]! * ADDRESS_RECORD
    const records = this.#datagrams?.addresses
    switch (innerKind(batch.data, offset)) {
      case Kind.empty:
        return
      case Kind.control:
        return this.#afterwards(() => this.control.receive(peer, body, now))
      case Kind.probe:
        if (body.length < PROBE_TOKEN || records === undefined) return this.drop('bad-frame')
        return this.#sendProbe(Kind.probeEcho, peer, this.prober.slotOf(peer, records, record), body)
      case Kind.probeEcho:
        if (body.length < PROBE_TOKEN || records === undefined) return this.drop('bad-frame')
        if (!this.#pinged(peer, body, now)) this.prober.echoed(peer, body, records, record, now)
        return
      default:
        this.drop('bad-frame')
    }
  }

  #noticeSync(): void {
    if (this.#wasSynced || !this.directory.synced) return
    this.#wasSynced = true
    this.#servicesChanged = true
  }

  /** First packets that wait for a service are tried again, and refused once nothing more is to come. */
  #release(now: number): void {
    this.#servicesChanged = false
    if (this.directory.synced) this.table.delete(networkPrefix(this.#c.trust.network), UNSYNCED)
    this.#inFlows(() => this.flows.release(now))
  }

  #pinged(peer: number, body: Uint8Array, now: number): boolean {
    if (this.#pings.size === 0) return false
    const key = toHex(body.subarray(0, PROBE_TOKEN))
    const ping = this.#pings.get(key)
    if (ping === undefined || ping.peer !== peer) return false
    this.#pings.delete(key)
    ping.answered(now - ping.sentAt)
    return true
  }

  #recordChanged(change: RecordChange): void {
    const payload = change.record?.payload ?? change.before?.payload
    if (payload?.kind === 'locators') this.#offerPaths(this.peers.indexOf(change.host))
    if (this.catalogue.apply(change)) this.#servicesChanged = true
    this.#claims.recordChanged(change)
    if (change.before === undefined || payload?.kind === 'locators') this.#tickAt = Math.min(this.#tickAt, this.#now)
    if (this.#claims.due) this.#tickAt = Math.min(this.#tickAt, this.#now)
  }

  #revoked(): void {
    for (let peer = 1; peer < this.peers.size; peer++) {
      if (!this.members.isRevoked(this.peers.hostId(peer))) continue
      this.flows.peerLost(peer, this.#now)
      this.sessions.dropPeer(peer, 'revoked', this.#now)
      // Should it become a member again, a handshake that was cut short is not waited for.
      this.neighbours.lost(peer, this.#now)
    }
    this.catalogue.review()
    this.#c.events.revocationsChanged()
  }

  #cutDenied(now: number): number {
    const self = this.id
    const cut = this.flows.cut((flow) => {
      if (flow.peer < 0) return false
      const protocol = flow.protocol === 'tcp' ? 6 : flow.protocol === 'udp' ? 17 : 1
      const client = flow.role === 'initiator' ? self : this.peers.hostId(flow.peer)
      return !this.environment.allows(client, flow.service, protocol, flow.dialledPort)
    }, now)
    this.dataPath.flush(now)
    return cut
  }

  #tick(now: number): void {
    this.#tickAt = now + TICK_MS
    this.neighbours.known(this.directory.hosts(), now)
    if (this.#claims.due) this.#claims.settle(now)
  }

  #condition(host: HostId): HostCondition {
    if (host === this.id) return { liveness: 'alive', age: 0, rtt: 0 }
    const peer = this.peers.indexOf(host)
    const state = peer < 0 ? undefined : this.prober.liveness(peer)
    if (state === undefined) return { liveness: 'unknown', age: Infinity, rtt: 0 }
    const age = this.#now - (this.prober.heardAt(peer) ?? -Infinity)
    return { liveness: state === 'doubtful' ? 'suspect' : state, age, rtt: this.peers.rttMs[peer]! }
  }

  /** What the peer's records say about where it is are paths to fall back to. */
  #offerPaths(peer: number): void {
    if (peer <= 0) return
    for (const locator of this.#locatorsOf(this.peers.hostId(peer))) {
      const record = locatorRecord(locator)
      if (record !== undefined) this.prober.candidate(peer, record, this.#now)
    }
  }

  #locatorsOf(host: HostId): readonly Locator[] {
    const payload = this.directory.record(host, 'locators')?.payload
    return payload?.kind === 'locators' ? payload.locators : []
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
