// The peers of a host: whom it has sessions with, by which paths, and whether they answer.
//
//   handshakes ──▶ SessionTable ──▶ established, lost ──┬▶ PathProber, LanePaths: by which ways their frames go
//   Neighbours ──▶ whom to have a session with          ├▶ ControlChannel: messages, acknowledged
//   IdleSessions, Expulsions, Farewells ──▶ its end     └▶ FailureDetector: who is alive, as others say too
//
// What this means for flows and services goes to PeeringSink.

import type { Membership } from '../crypto/membership.js'
import { decodeLocator } from '../path/locator.js'
import type { PeerTable } from '../path/peers.js'
import type { PathProber } from '../path/prober.js'
import type { Directory } from '../service/directory.js'
import type { Established, FailReason, LostReason, SessionSink } from '../session/session-sink.js'
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
  type SealBatch,
} from '../wire/batch.js'
import { INNER_HEADER, Kind } from '../wire/constants.js'
import type { DropReason } from '../wire/drop.js'
import type { HostId } from '../wire/ids.js'
import { innerKind } from '../wire/inner.js'
import { Channel, ControlChannel, type ControlSink } from './control-channel.js'
import type { DataPath } from './data-path.js'
import { Expulsions } from './expulsions.js'
import { Farewells } from './farewells.js'
import { FailureDetector, type Look } from './failure-detector.js'
import type { HostClock } from './host-clock.js'
import type { HostOptions } from './host-options.js'
import { IdleSessions } from './idle-sessions.js'
import { issuingDefaults } from './issuing-options.js'
import { Neighbours } from './neighbours.js'
import { CONTROL_CLASS, ownFrame, prefersItsWay, SEALED_MORE } from './own-frames.js'
import { Pauses } from './pauses.js'
import type { PeeringComponents } from './peering-components.js'
import { Ways } from './ways.js'

/** Between reviews of what has changed about other hosts: there may be many changes at once. */
const REVIEW_MS = 100
const NO_BYTES = new Uint8Array(0)
/** Frames that need no keepalive in answer: they are answers themselves, or an echo or an acknowledgement answers them at once. */
const SELF_ANSWERED: ReadonlySet<number> = new Set([Kind.empty, Kind.probe, Kind.probeEcho, Kind.control, Kind.move])

export class Peering implements SessionSink, ControlSink {
  readonly id: HostId
  readonly peers: PeerTable
  readonly sessions: SessionTable
  readonly ways: Ways
  readonly prober: PathProber
  readonly control: ControlChannel
  readonly pauses: Pauses
  readonly neighbours: Neighbours
  readonly detector: FailureDetector
  /** Frames of handshakes that came, whatever became of them. */
  clearFramesIn = 0
  readonly #c: PeeringComponents
  readonly #clock: HostClock
  readonly #dataPath: DataPath
  readonly #directory: Directory
  readonly #expulsions: Expulsions
  readonly #farewells: Farewells
  readonly #idle: IdleSessions
  /** Of peers whose sessions have come up, at {@link #greetAt} at the earliest: what packets do not wait for. It follows with the next time-out, before the peer's next word at the latest. */
  readonly #greetings = new Map<number, () => void>()
  #greetAt = Infinity
  /** Where the frames came from that were heard last. */
  #datagrams: DatagramBatch | undefined
  #reviewedAt = -Infinity
  /** Directory.hostsVersion at the last review. */
  #hostsVersion = -1

  constructor(components: PeeringComponents, options: HostOptions) {
    const { host, peers, members, directory, dataPath, sink } = components
    const { primitives, hostKey, trust, random, wallNow } = host
    this.#c = components
    this.#clock = components.clock
    this.#dataPath = dataPath
    this.#directory = directory
    this.id = hostKey.id
    this.peers = peers
    const issuing = { ...issuingDefaults, ...options.issuing }
    this.sessions = new SessionTable(
      {
        ...{ primitives, codec: host.codec, hostKey, peers, drops: components.drops, sink: this },
        laneCodecs: host.lanes?.codecs ?? [],
        lanePorts: host.lanes?.ports ?? [],
        network: trust.network,
        membership: trust.membership ?? NO_BYTES,
        // An expired member keeps its sessions for the grace, and may begin nothing.
        trust: { verify: (bytes, wall) => trust.verify(bytes, wall, issuing.graceSeconds) },
        nextStamp: host.nextStamp,
        ...(host.issuer === undefined ? {} : { issuer: host.issuer }),
      },
      options.session,
    )
    this.ways = new Ways(
      {
        ...{ host, clock: components.clock, peers, directory, dataPath, sessions: this.sessions },
        looked: (id, state, now) => this.detector.looked(id, state, now),
        hint: (id, locator, now) => this.neighbours.hint(id, locator, now),
        spend: (peer, slot, bytes, now) => sink.spend(peer, slot, bytes, now),
        released: (peer, now) => this.#released(peer, now),
        seenAt: (locators, now) => sink.seenAt(locators, now),
        drop: (reason) => sink.drop(reason),
      },
      options,
    )
    this.prober = this.ways.prober
    const epoch = new DataView(primitives.randomBytes(4).buffer).getUint32(0) | 1
    this.control = new ControlChannel({ peers, epoch: epoch >>> 0, sink: this })
    this.#farewells = new Farewells(peers, this.control)
    this.pauses = new Pauses({
      ...{ peers, control: this.control },
      nextSequence: () => host.sequence.next(),
      rest: (peer, until, now) => this.prober.rest(peer, until, now),
      released: (peer, now) => this.#released(peer, now),
    })
    this.neighbours = new Neighbours(
      {
        ...{ self: this.id, peers, random },
        connect: (peer, addresses, now) => this.sessions.connect(peer, addresses, now),
        locatorsOf: (id) => directory.locatorsOf(id),
        excluded: (id) => members.isRevoked(id) || this.revocation !== undefined,
      },
      options.neighbours,
    )
    const { sessions, control, neighbours } = this
    this.#expulsions = new Expulsions(
      {
        ...{ self: this.id, trust, wallNow, peers, members, control, sessions, neighbours },
        peerLost: (peer, now) => sink.peerLost(peer, now),
        flush: (now) => {
          control.flush(now)
          dataPath.flush(now)
        },
        ended: (what, detail, now) => sink.expelled(what, detail, now),
      },
      issuing,
    )
    this.detector = new FailureDetector(
      {
        self: this.id,
        sign: (label, body) => members.sign(label, body),
        verify: (label, blob, id) => members.membership(id) !== undefined && members.verify(label, blob, id),
        look: (id) => this.#look(id),
        lookNow: (id, now) => this.prober.suspect(peers.indexOf(id), now),
        peers: () => this.#livingPeers(),
        adjacent: (a, b) => neighbours.adjacent(a, b),
        send: (to, message, now) => control.send(peers.indexOf(to), Channel.liveness, message, now),
        heartbeatOf: (id) => directory.heartbeatOf(id),
        learn: (from, id, heartbeat, age, now) => directory.learn(from, { host: id, heartbeat, age }, now),
        refute: (sequence, now) => directory.refute(sequence, now),
        random,
      },
      options.detector,
    )
    this.#idle = new IdleSessions(
      {
        capacity: peers.capacity,
        wanted: (peer) => neighbours.wants(peers.hostId(peer)),
        inUse: () => sink.peersInUse(),
        send: (peer, body, now) => control.send(peer, Channel.sessions, body, now),
        pending: (peer) => control.pendingFor(peer),
        end: (peer, now) => this.#end(peer, 'idle', now),
      },
      options.idleSessions,
    )
  }

  // ---- A batch of frames ----

  /** What has come shows who lives, and by which way; handshakes are answered. Before the frames themselves are decided upon. */
  heard(open: OpenBatch, datagrams: DatagramBatch, now: number): void {
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
        const length = desc[base + Open.length]!
        const prefers = prefersItsWay(kind, open.data, at, length)
        // First: what is said because the peer was heard is an answer.
        const answersItself = SELF_ANSWERED.has(kind)
        if (!answersItself) this.sessions.dataReceived(peer, now)
        const lane = this.peers.lanes > 1 ? this.sessions.laneNumber(desc[base + Open.lane]!) : 0
        if (lane > 0) this.ways.heardAside(peer, lane, datagrams.addresses, record, now, prefers, length + SEALED_MORE)
        else this.prober.heard(peer, datagrams.addresses, record, now, prefers, length + SEALED_MORE)
        if (answersItself) continue
        this.prober.flowed(peer, now)
        if (open.count === 1) this.#c.sink.cameAlone(peer, now)
      } else if (status === CLEAR) {
        this.clearFramesIn++
        const address = datagrams.addresses.slice(record, record + ADDRESS_RECORD)
        const reason = this.sessions.receive(
          datagrams.data,
          desc[base + Open.offset]!,
          desc[base + Open.length]!,
          address,
          now,
          this.#c.host.wallNow(),
        )
        if (reason !== undefined) this.#c.sink.refused(reason)
      }
    }
  }

  /** A frame out of the batch that was heard last, which is not the flow layer's. */
  other(batch: OpenBatch, entry: number, peer: number, now: number): void {
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
        return this.#c.turns.afterwards(() => {
          if (!this.control.receive(peer, body, now)) this.sessions.dataReceived(peer, now)
        })
      case Kind.probe:
        if (records === undefined) return this.drop('bad-frame')
        return this.ways.probed(peer, lane, body, records, record, now)
      case Kind.probeEcho:
        if (records === undefined) return this.drop('bad-frame')
        return this.ways.echoed(peer, lane, body, records, record, now)
      case Kind.move:
        if (records === undefined) return
        return this.#c.turns.afterwards(() => {
          // What waits for an acknowledgement may have gone to where the peer is no more.
          if (this.ways.moveReceived(peer, body, records, record, now)) this.control.sessionUp(peer, now)
        })
      default:
        this.drop('bad-frame')
    }
  }

  /** These entries are about to be sealed and sent. */
  sent(seal: SealBatch, now: number): void {
    const { desc, count } = seal
    let longest = 0
    for (let i = 0; i < count; i++) {
      const base = i * SEAL_WORDS
      const slot = desc[base + Seal.sealSlot]!
      longest = Math.max(longest, desc[base + Seal.length]!)
      if (i + 1 < count && desc[base + SEAL_WORDS + Seal.sealSlot] === slot) continue
      const peer = this.peers.sealPeer[slot]!
      if (peer > 0) {
        this.sessions.dataSent(peer, now)
        this.needed(peer, now, longest)
      }
      longest = 0
    }
  }

  /** Packets of flows have passed without this host being asked: as {@link sent}, their plaintext so long at most, and {@link heard}. 0: none. */
  passed(peer: number, sentAt: number, longest: number, heardAt: number): void {
    this.sessions.marked(peer)
    if (sentAt > 0) this.needed(peer, sentAt, longest)
    // They came by the path in use, or had not passed.
    if (heardAt > 0) this.ways.flowedInUse(peer, heardAt)
  }

  /** A flow or bind concerns the peer. `longest`: plaintext of frames that go to it. */
  needed(peer: number, now: number, longest = 0): void {
    this.ways.used(peer, now, longest)
    this.#idle.used(peer, now)
  }

  /** The own kernel sends again what it has sent to the peer. */
  retransmitted(peer: number, now: number): void {
    const { pathMtus } = this.ways
    if (pathMtus.isHintDue(peer, now)) this.#c.turns.afterwards(() => pathMtus.hint(peer, now))
  }

  /** A batch has been decided upon: what waited for the messages in it. */
  afterFrames(now: number): void {
    this.control.flush(now)
    if (this.#farewells.dueAt < Infinity) this.#farewells.say(now)
    this.#expulsions.heard(now)
    this.#idle.flush(now)
  }

  // ---- Time ----

  nextTimeout(): number {
    return Math.min(
      this.sessions.nextTimeout(),
      this.ways.nextTimeout(),
      this.control.nextTimeout(),
      this.pauses.nextTimeout(),
      this.neighbours.nextTimeout(),
      this.#expulsions.nextTimeout(),
      this.#idle.nextTimeout(),
      this.detector.nextTimeout(),
      this.#reviewDue ? this.#reviewedAt + REVIEW_MS : Infinity,
      this.#farewells.dueAt,
      this.#greetings.size > 0 ? this.#greetAt : Infinity,
    )
  }

  /** Whether peers answer. */
  handleTimeout(now: number): void {
    for (const peer of this.#greetings.keys()) this.#greet(peer)
    this.sessions.handleTimeout(now)
    this.ways.handleTimeout(now)
    this.detector.handleTimeout(now)
    this.control.handleTimeout(now)
    this.pauses.handleTimeout(now)
  }

  /** Who is a member no more, and whom to have sessions with. */
  review(now: number): void {
    this.#expulsions.handleTimeout(now)
    if (!this.#reviewDue || now < this.#reviewedAt + REVIEW_MS) return
    this.#reviewedAt = now
    this.#hostsVersion = this.#directory.hostsVersion
    this.neighbours.known(this.#directory.hosts(), now)
  }

  /** Sessions that are wanted, and those that are not; after all that may want one. */
  keepSessions(now: number): void {
    this.neighbours.handleTimeout(now)
    this.#idle.handleTimeout(now)
    if (now >= this.#farewells.dueAt) this.#farewells.say(now)
  }

  get #reviewDue(): boolean {
    return this.neighbours.reviewDue || this.#directory.hostsVersion !== this.#hostsVersion
  }

  // ---- What is asked of the peers ----

  /** When and by whom this host was revoked, for people; undefined: it is a member. */
  get revocation(): string | undefined {
    return this.#expulsions.own
  }

  /** The revocation list has grown, and the peers have been told. */
  revoked(now: number): void {
    this.#expulsions.revoked(now)
    this.neighbours.reviewDue = true
  }

  /** One message of the directory. */
  say(to: HostId, message: Uint8Array): void {
    const peer = this.peers.indexOf(to)
    if (peer > 0) this.control.send(peer, Channel.directory, message, this.#clock.now)
  }

  /** A frame of a flow. False: there is no session, which is counted. */
  sendFrame(peer: number, plaintext: Uint8Array, trafficClass: number): boolean {
    return this.#accounted(peer, this.#dataPath.flowFrameTo(peer, plaintext, trafficClass))
  }

  /** The host's records say something else about where it is. */
  located(host: HostId): void {
    this.ways.offer(this.peers.indexOf(host))
    this.neighbours.located(host, this.#clock.now)
  }

  /** Packets of flows that waited. */
  sendBatch(seal: SealBatch, now: number): void {
    this.#dataPath.sendBatch(seal)
    this.sent(seal, now)
  }

  membershipRenewed({ bytes }: Membership): void {
    this.#c.members.learn(bytes, this.id)
    this.sessions.setMembership(bytes)
  }

  /** This host leaves: all peers are told, as soon as they have what else was said. */
  leave(now: number): void {
    this.#farewells.begin(now)
  }

  // ---- SessionSink ----

  sendDatagram(bytes: Uint8Array, address: Uint8Array): void {
    const { addresses } = this.peers
    const slot = addresses.acquire(address)
    if (slot < 0) return this.drop('send-failed')
    this.#dataPath.clear(bytes, slot)
    addresses.release(slot)
  }

  established(peer: number, session: Established, now: number): void {
    this.#learnSlots(peer)
    if (session.rttMs !== undefined && this.peers.rttMs[peer] === 0) this.peers.rttMs[peer] = session.rttMs
    this.ways.established(peer, session, now)
    if (session.initiator) {
      // The peer waits for it with all that is to come here.
      this.proveAlive(peer)
      this.#dataPath.sendFrames()
    }
    this.#c.members.learn(session.membership.bytes, this.peers.hostId(peer))
    this.pauses.sessionUp(peer, now)
    const reunited = this.#c.sink.sessionUp(peer, session.afresh, now)
    this.#greet(peer)
    if (this.#greetings.size === 0) this.#greetAt = now
    this.#greetings.set(peer, () => this.#meet(peer, session, reunited))
  }

  /** What packets do not wait for, of a session that has come up. */
  #meet(peer: number, session: Established, reunited: boolean): void {
    const { events } = this.#c.host
    const { now } = this.#clock
    const host = this.peers.hostId(peer)
    this.neighbours.established(peer, decodeLocator(session.address), now)
    if (!session.rekey) this.#idle.up(peer, now)
    // Later the peer says itself where it is.
    if (!session.rekey || session.afresh) this.ways.offer(peer)
    if (session.rekey) this.#directory.peerRenewed(host)
    else {
      this.#directory.peerUp(host, now)
      events.peer(host, 'up', session.membership.name)
      events.remember()
    }
    this.control.sessionUp(peer, now)
    this.#c.sink.met(peer, session.rekey, reunited, now)
  }

  #greet(peer: number): void {
    const greeting = this.#greetings.get(peer)
    if (greeting === undefined) return
    this.#greetings.delete(peer)
    greeting()
  }

  confirmed(peer: number, now: number): void {
    this.#learnSlots(peer)
    this.#c.sink.confirmed(peer, now)
  }

  lost(peer: number, reason: LostReason, now: number): void {
    this.#greet(peer)
    const host = this.peers.hostId(peer)
    this.#directory.peerDown(host)
    this.control.clear(peer)
    this.ways.forget(peer)
    this.pauses.forget(peer)
    this.#c.sink.sessionLost(peer)
    this.neighbours.lost(peer, now)
    this.#idle.down(peer)
    this.detector.peerDown(host)
    this.#c.host.events.peer(host, 'lost', reason)
  }

  failed(peer: number, reason: FailReason, now: number): void {
    this.neighbours.failed(peer, now)
    // Whether a host is revoked that was not known as a member before only its handshake shows.
    if (reason === 'revoked') this.#c.sink.peerLost(peer, now)
    else this.#c.sink.sessionFailed(peer, now)
    this.#c.host.events.peer(this.peers.hostId(peer), 'failed', reason)
  }

  proveAlive(peer: number): void {
    this.#dataPath.frameTo(peer, this.peers.pathSlot[peer]!, ownFrame(Kind.empty), CONTROL_CLASS)
  }

  // ---- ControlSink ----

  sendControl(peer: number, message: Uint8Array, wantsAnswer: boolean): boolean {
    const frame = ownFrame(Kind.control, message)
    const slot = this.prober.controlSlot(peer, frame.length + SEALED_MORE, this.#clock.now)
    const sent = this.#dataPath.frameTo(peer, slot, frame, CONTROL_CLASS)
    if (wantsAnswer) return this.#accounted(peer, sent)
    if (sent) this.sessions.answerSent(peer)
    else this.drop('no-session')
    return sent
  }

  message(peer: number, channel: number, body: Uint8Array, now: number): void {
    this.#greet(peer)
    switch (channel) {
      case Channel.directory:
        return this.#directory.receive(this.peers.hostId(peer), body, now)
      case Channel.liveness:
        if (!this.detector.receive(this.peers.hostId(peer), body, now)) this.drop('bad-control')
        return
      case Channel.farewell:
        this.#c.sink.peerLost(peer, now)
        this.#end(peer, 'expired', now)
        return this.neighbours.left(peer, now)
      case Channel.pause:
        if (!this.pauses.receive(peer, body, now)) this.drop('bad-control')
        return
      case Channel.sessions:
        if (!this.#idle.receive(peer, body, now)) this.drop('bad-control')
        return
      default:
        this.#c.sink.message(peer, channel, body, now)
    }
  }

  drop(reason: DropReason): void {
    this.#c.sink.drop(reason)
  }

  // ---- Inside ----

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

  #released(peer: number, now: number): void {
    this.ways.lanePaths.stepBack(peer, now)
    this.#c.sink.released(peer, now)
  }

  #accounted(peer: number, sent: boolean): boolean {
    if (sent) this.sessions.dataSent(peer, this.#clock.now)
    else this.drop('no-session')
    return sent
  }

  /** Ends the session with the peer. The last that goes by it is the acknowledgement of what it has said, which it waits for. */
  #end(peer: number, reason: LostReason, now: number): void {
    this.control.flush(now)
    this.#dataPath.flush(now)
    this.sessions.dropPeer(peer, reason, now)
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
}
