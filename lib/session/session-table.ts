// Sessions of one host with all its peers. The way of a session:
//
//   connect ──▶ initiation ── init ──▶ guard ▶ Responder.read ▶ stamp ▶ offered (unconfirmed)
//                   ◀── response ──────────────────────────────────────┘
//               established ── first frame (proveAlive) ──▶ confirmed, current at both ends
//
// A session is renewed by a fresh handshake; the rules by which both ends agree on the current one are in peer-sessions.ts.

import { staticKeyOf } from '../crypto/host-key.js'
import { isMembershipProblem, MEMBERSHIP_MAX, type Membership } from '../crypto/membership.js'
import { SELF } from '../path/peers.js'
import { ADDRESS_RECORD } from '../wire/batch.js'
import { FrameType, REJECT_AFTER_MS, REKEY_AFTER_FRAMES, REKEY_AFTER_MS } from '../wire/constants.js'
import type { DropReason } from '../wire/drop.js'
import { CookieView, HandshakeView } from '../wire/handshake.js'
import { HandshakeGuard } from './guard.js'
import { noiseOptions, verifyPeer } from './identity.js'
import { IndexTable } from './index-table.js'
import { Initiation } from './initiation.js'
import { LaneRole, LaneTable, laneSlot } from './lanes.js'
import { Liveness } from './liveness.js'
import { HandshakeMacs } from './macs.js'
import { encodeInit, GENERATION_MAX, LANES_MAX } from './payload.js'
import { PeerSessions } from './peer-sessions.js'
import { chooseAead, readResponse, Responder } from './responder.js'
import { CANDIDATES_MAX, merged, Schedule } from './schedule.js'
import { Session } from './session.js'
import type { SessionComponents, SessionInfo, SessionOptions } from './session-components.js'
import type { Established, FailReason, LostReason } from './session-sink.js'

export type { JoinResponder, SessionComponents, SessionInfo, SessionOptions } from './session-components.js'

/** The responder renews so much later than the initiator, if that has not. */
const RESPONDER_LATER_MS = 15_000
/** Between looks at whether an old but idle session has been used, and between attempts to renew. */
const RENEW_AGAIN_MS = 10_000
/** A keepalive may be so much late: it goes along with something else that is due, as a turn for it alone would keep packets waiting. The other end waits longer. */
const KEEPALIVE_LATE_MS = 500
const PROOF_FIRST_MS = 250
const PROOF_LAST_MS = 2_000

/** What each frame of the data path changes, for a data path that does it without this table; {@link SessionTable.marked} tells it afterwards. */
export interface SessionMarks {
  /** By lane slot: {@link SessionTable.lanePeer}, LaneRole, entries opened. */
  readonly lanePeer: Int32Array
  readonly laneRole: Uint8Array
  readonly laneOpened: Float64Array
  /** By peer, as Liveness keeps them. */
  readonly waitingSince: Float64Array
  readonly owedSince: Float64Array
  readonly usedAt: Float64Array
}

export class SessionTable {
  /** Peer index by lane slot; -1: none. For the data path, which may only read it. */
  readonly lanePeer: Int32Array
  readonly guard: HandshakeGuard
  readonly #c: SessionComponents
  readonly #options: SessionOptions
  readonly #noise
  readonly #responder: Responder
  readonly #lanes: LaneTable
  readonly #liveness: Liveness
  readonly #indexes: IndexTable<PeerSessions>
  readonly #states: (PeerSessions | undefined)[] = []
  /** Peers with sessions or an initiation. */
  readonly #active = new Set<PeerSessions>()
  #membership: Uint8Array
  /** Not later than the next thing to do. */
  #due = Infinity
  /** Of keepalives: may be KEEPALIVE_LATE_MS late. */
  #keepaliveDue = Infinity

  constructor(components: SessionComponents, options: SessionOptions = {}) {
    const { primitives, hostKey, network, trust, codec, peers } = components
    this.#c = components
    this.#options = options
    this.#membership = checkedMembership(components.membership)
    this.#noise = noiseOptions(primitives, hostKey, network, 'session')
    this.#responder = new Responder(primitives, this.#noise, trust)
    this.#lanes = new LaneTable(primitives, [codec, ...(components.laneCodecs ?? [])].slice(0, LANES_MAX))
    this.#liveness = new Liveness(peers.capacity, options)
    this.#indexes = new IndexTable(primitives)
    this.lanePeer = this.#lanes.peer
    this.guard = new HandshakeGuard(primitives, hostKey.staticKey, options)
  }

  /** Puts a renewed membership of our own into all handshakes from now on. Throws RangeError when it is too long for one. */
  setMembership(bytes: Uint8Array): void {
    this.#membership = checkedMembership(bytes)
  }

  /**
   * Makes a session with the peer, asking the addresses (records, copied) in their order. While one is being made, adds the addresses; does nothing when
   * there is a session. How it ends is told by `established` or `failed`.
   */
  connect(peer: number, addresses: readonly Uint8Array[], now: number): void {
    const state = this.#state(peer)
    if (state === undefined) return
    const copies = addresses.slice(0, CANDIDATES_MAX).map((address) => address.slice(0, ADDRESS_RECORD))
    state.addresses = merged(copies, state.addresses)
    if (state.initiation !== undefined) {
      state.initiation.schedule.add(copies, now)
      this.#advance(state, now)
    } else if (state.current === undefined) this.#initiate(state, copies, now)
  }

  /** Makes a new session in the place of the one there is, at once. */
  renew(peer: number, now: number): void {
    const state = this.#states[peer]
    if (state?.current !== undefined && state.initiation === undefined) this.#renew(state, now)
  }

  /** One clear datagram at `offset`, from the address in `address` (a record). Why it was dropped (and counted), or undefined. `wallNow`: seconds since the epoch. */
  receive(
    bytes: Uint8Array,
    offset: number,
    length: number,
    address: Uint8Array,
    now: number,
    wallNow: number,
  ): DropReason | undefined {
    const reason = this.#receive(bytes, offset, length, address, now, wallNow)
    if (reason !== undefined) this.#c.drops.add(reason)
    return reason
  }

  /** An entry was opened that came in on this lane (u32 or i32). Its peer; -1: the lane has gone meanwhile. The hot path: no allocation but at a session's first frame. */
  transportSeen(lane: number, now: number): number {
    const slot = laneSlot(lane)
    const peer = this.lanePeer[slot]!
    if (peer < 0) return -1
    this.#lanes.opened[slot]!++
    const role = this.#lanes.role[slot]
    if (role === LaneRole.current) this.#liveness.heard(peer)
    else if (role !== LaneRole.previous) this.#firstFrame(peer, slot, now)
    return peer
  }

  /** A frame that the peer should answer in some way (anything but an empty one) was sealed for it. */
  dataSent(peer: number, now: number): void {
    if (this.#liveness.sent(peer, now)) this.#arm(this.#liveness.silentAt(peer, this.#c.peers.rttMs[peer]!))
  }

  /** A frame that answers what came from the peer and wants no answer itself was sealed for it. */
  answerSent(peer: number): void {
    this.#liveness.answered(peer)
  }

  /** A frame came from the peer that nothing answers by itself, as an echo or an acknowledgement would. */
  dataReceived(peer: number, now: number): void {
    if (this.#liveness.received(peer, now)) this.#armKeepalive(peer)
  }

  get marks(): SessionMarks {
    const { peer, role, opened } = this.#lanes
    const { waitingSince, owedSince, usedAt } = this.#liveness
    return { lanePeer: peer, laneRole: role, laneOpened: opened, waitingSince, owedSince, usedAt }
  }

  /** The peer's {@link marks} have been changed as {@link transportSeen}, {@link dataSent} and {@link dataReceived} would have. */
  marked(peer: number): void {
    this.#arm(this.#liveness.silentAt(peer, this.#c.peers.rttMs[peer]!))
    this.#armKeepalive(peer)
  }

  /** Ends all that there is with the peer: revoked, expired, or gone. A later handshake is judged by the trust store again. */
  dropPeer(peer: number, reason: LostReason, now: number): void {
    const state = this.#states[peer]
    if (state === undefined) return
    this.#endInitiation(state)
    state.membership = undefined
    this.#liveness.clear(peer)
    if (state.closeAll()) this.#c.sink.lost(peer, reason, now)
  }

  /** Number of one of our lanes (u32 or i32) in its session; 0 for one that is not known. */
  laneNumber(lane: number): number {
    return this.#lanes.number[laneSlot(lane)]!
  }

  /** UDP ports of the peer's lanes above the first in the current session. */
  lanePorts(peer: number): readonly number[] {
    const session = this.#states[peer]?.current
    return session?.parameters.remotePorts.slice(0, session.parameters.ownLanes.length - 1) ?? []
  }

  /** As verified in the last handshake; undefined: never had a session, or was dropped. */
  membershipOf(peer: number): Membership | undefined {
    return this.#states[peer]?.membership
  }

  info(peer: number, now: number): SessionInfo {
    return this.#states[peer]?.info(now) ?? { connected: false, connecting: false, confirmed: false, rekeys: 0 }
  }

  /** Peers there is a session with. */
  get count(): number {
    let count = 0
    for (const state of this.#active) if (state.current !== undefined) count++
    return count
  }

  /** When {@link handleTimeout} is to be called; Infinity: not before something else happens. It may turn out that there is nothing to do. */
  nextTimeout(): number {
    return Math.min(this.#due, this.#keepaliveDue + KEEPALIVE_LATE_MS)
  }

  handleTimeout(now: number): void {
    if (now < this.#due && now < this.#keepaliveDue) return
    this.#due = Infinity
    this.#keepaliveDue = Infinity
    for (const state of this.#active) this.#advance(state, now)
  }

  /** Forgets all keys, tells nobody. */
  close(): void {
    for (const state of this.#active) {
      this.#endInitiation(state)
      state.closeAll()
    }
    this.#active.clear()
    this.#due = Infinity
    this.#keepaliveDue = Infinity
  }

  // ---- What comes in ----

  #receive(
    bytes: Uint8Array,
    offset: number,
    length: number,
    address: Uint8Array,
    now: number,
    wallNow: number,
  ): DropReason | undefined {
    if (length > 0 && bytes[offset] === FrameType.cookie) {
      const reply = CookieView.check(bytes, offset, length)
      return typeof reply === 'string' ? reply : this.#takeCookie(reply, now)
    }
    const view = HandshakeView.check(bytes, offset, length)
    if (typeof view === 'string') return view
    if (view.type === FrameType.response) return this.#takeResponse(view, address, now, wallNow)
    if (view.type === FrameType.joined) return 'not-ours'
    const issuer = this.#c.issuer
    if (view.type === FrameType.join && issuer === undefined) return 'not-entitled'
    const verdict = this.guard.admit(view, address, now)
    if (verdict instanceof CookieView) {
      this.#c.sink.sendDatagram(verdict.bytes, address)
      return 'cookie-required'
    }
    if (verdict !== 'pass') return verdict
    if (view.type === FrameType.join) return issuer?.answer(view, address, now, wallNow)
    return this.#takeInit(view, address, now, wallNow)
  }

  #takeInit(view: HandshakeView, address: Uint8Array, now: number, wallNow: number): DropReason | undefined {
    const request = this.#responder.read(view, wallNow)
    if (typeof request === 'string') return request
    const peer = this.#c.peers.add(request.membership.host)
    if (peer === SELF) return 'not-ours'
    const state = peer < 0 ? undefined : this.#state(peer)
    if (state === undefined) return 'queue-full'
    const { payload, membership } = request
    if (payload.stamp <= state.greatestStamp) return 'handshake-replayed'
    state.greatestStamp = payload.stamp

    const aead = chooseAead(this.#c.codec.aeads, payload.aeads)
    if (aead === undefined) return 'handshake-failed'
    const lanes = this.#unconfirmedFull() ? undefined : this.#reserve(peer, payload.lanes.length)
    if (lanes === undefined) return 'queue-full'
    const generation = Math.min(GENERATION_MAX, Math.max(payload.generation, state.nextGeneration))
    const ports = this.#ports(lanes)
    const response = { membership: this.#membership, aeads: this.#c.codec.aeads, aead, lanes, generation, ports }
    const answer = this.#responder.answer(request, this.#indexes.random(), response)
    if (answer === undefined || answer.datagram.length > 3 * view.bytes.length) {
      this.#release(lanes)
      return answer === undefined ? 'handshake-failed' : 'amplification'
    }
    const parameters = {
      peer,
      initiator: false,
      aead,
      generation,
      createdAt: now,
      ownLanes: lanes,
      remoteLanes: payload.lanes,
      remotePorts: payload.ports,
      membership,
      address: address.slice(0, ADDRESS_RECORD),
      // Whoever has the session that is current here asks for a later one.
      afresh: payload.generation < state.nextGeneration,
    }
    const session = new Session(parameters, answer.exporter, this.#lanes, LaneRole.unconfirmed)
    answer.exporter.fill(0)
    state.offer(session, now)
    this.#active.add(state)
    this.#arm(session.retireAt)
    this.#c.sink.sendDatagram(answer.datagram, address)
    return undefined
  }

  #takeResponse(view: HandshakeView, address: Uint8Array, now: number, wallNow: number): DropReason | undefined {
    const { primitives, trust, codec } = this.#c
    const state = this.#indexes.owner(view.receiver)
    const attempt = state?.initiation?.attempt(view.receiver)
    if (state === undefined || attempt === undefined) return 'handshake-failed'
    if (!this.guard.macs.verify(view)) return 'bad-mac'
    const answer = attempt.handshakes[0] && readResponse(attempt.handshakes[0], view.noise)
    if (answer === undefined) return 'handshake-failed'
    const { payload, exporter } = answer
    const own = state.promisedLanes
    if (payload === undefined || !codec.aeads.includes(payload.aead) || payload.lanes.length > own.length)
      return this.#refuse(state, 'handshake-failed', now)
    const membership = verifyPeer(primitives, trust, payload.membership, state.staticKey, wallNow)
    if (isMembershipProblem(membership)) return this.#refuse(state, membership.reason, now)

    const parameters = {
      peer: state.peer,
      initiator: true,
      aead: payload.aead,
      generation: payload.generation,
      createdAt: now,
      ownLanes: own.slice(0, payload.lanes.length),
      remoteLanes: payload.lanes,
      remotePorts: payload.ports,
      membership,
      address: address.slice(0, ADDRESS_RECORD),
      afresh: false,
    }
    // The lanes go over to the session; those that the responder did not want are free again.
    state.promisedLanes = own.slice(payload.lanes.length)
    this.#endInitiation(state)
    const session = new Session(parameters, exporter, this.#lanes, LaneRole.unproven)
    exporter.fill(0)
    const succeeds = state.succession(session)
    if (!state.establish(session, now)) return undefined
    state.proofInterval = PROOF_FIRST_MS
    state.proofAt = now + PROOF_FIRST_MS
    this.#becomeCurrent(state, session, succeeds, now - attempt.sentAt, now)
    this.#advance(state, now)
    return undefined
  }

  #takeCookie(reply: CookieView, now: number): DropReason | undefined {
    const initiation = this.#indexes.owner(reply.receiver)?.initiation
    const attempt = initiation?.attempt(reply.receiver)
    if (initiation === undefined || attempt === undefined) return 'handshake-failed'
    if (!initiation.takeCookie(attempt, reply, now)) return 'bad-mac'
    this.#c.sink.sendDatagram(attempt.view.bytes, attempt.address)
    return undefined
  }

  /** The first frame on a lane: of an initiator that we answered, or the first answer on a session we initiated. */
  #firstFrame(peer: number, slot: number, now: number): void {
    const state = this.#states[peer]
    const session = state?.withSlot(slot)
    if (state === undefined || session === undefined) return
    if (session.initiator) {
      state.prove(session, now)
      state.proofAt = Infinity
      this.#liveness.heard(peer)
      this.#c.sink.confirmed(peer, now)
    } else {
      const succeeds = state.succession(session)
      if (!state.confirm(session, session.createdAt + REJECT_AFTER_MS, now)) return this.#advance(state, now)
      this.#endInitiation(state)
      this.#liveness.heard(peer)
      state.proofAt = Infinity
      this.#becomeCurrent(state, session, succeeds, undefined, now)
      if (state.current === session) this.#c.sink.confirmed(peer, now)
      // Tells the initiator that its proof has arrived.
      if (state.current === session) this.#c.sink.proveAlive(peer, now)
    }
    this.#advance(state, now)
  }

  #becomeCurrent(
    state: PeerSessions,
    session: Session,
    succeeds: Pick<Established, 'rekey' | 'afresh'>,
    rttMs: number | undefined,
    now: number,
  ): void {
    const { initiator, aead, membership, address, createdAt } = session.parameters
    const after = this.#options.rekeyAfterMs ?? REKEY_AFTER_MS
    state.renewAt = createdAt + after + (initiator ? 0 : RESPONDER_LATER_MS)
    this.#active.add(state)
    const established = { membership, address: address.slice(), initiator, ...succeeds, aead, rttMs }
    this.#c.sink.established(state.peer, established, now)
  }

  // ---- What is started here ----

  #initiate(state: PeerSessions, addresses: readonly Uint8Array[], now: number): void {
    const lanes = this.#reserve(state.peer, LANES_MAX)
    if (lanes === undefined) return this.#c.sink.failed(state.peer, 'queue-full', now)
    state.promisedLanes = lanes
    // A peer that asked just now is about to prove itself; then ours is not needed.
    const retryMs = this.#options.retryMs ?? 250
    const start = state.askedSince(now - retryMs) ? now + retryMs : now
    const schedule = new Schedule(addresses, start, () => this.#jitter(), this.#options)
    state.initiation = new Initiation({
      type: FrameType.init,
      noise: this.#noise,
      remoteStatic: state.staticKey,
      macs: state.macs,
      schedule,
      payload: () =>
        encodeInit({
          membership: this.#membership,
          stamp: this.#c.nextStamp(),
          aeads: this.#c.codec.aeads,
          lanes,
          generation: state.nextGeneration,
          ports: this.#ports(lanes),
        }),
      indexes: this.#indexes.of(state),
    })
    this.#active.add(state)
    this.#advance(state, now)
  }

  #renew(state: PeerSessions, now: number): void {
    const { peers } = this.#c
    const slot = peers.pathSlot[state.peer]!
    const path = slot < 0 ? [] : [peers.addresses.record(slot)]
    state.renewAt = now + RENEW_AGAIN_MS
    this.#initiate(state, merged(path, state.addresses), now)
  }

  /** The peer's authenticated answer is of no use; asking again would not change it. */
  #refuse(state: PeerSessions, reason: DropReason, now: number): DropReason {
    this.#fail(state, reason, now)
    this.#advance(state, now)
    return reason
  }

  #fail(state: PeerSessions, reason: FailReason, now: number): void {
    this.#endInitiation(state)
    this.#c.sink.failed(state.peer, reason, now)
  }

  #endInitiation(state: PeerSessions): void {
    state.initiation?.close()
    state.initiation = undefined
    this.#release(state.promisedLanes)
    state.promisedLanes = []
  }

  // ---- Time ----

  /** Does what is due for a peer and arms what comes next. */
  #advance(state: PeerSessions, now: number): void {
    const { peer } = state
    this.#sendInits(state, now)
    if (state.expire(now)) {
      this.#liveness.clear(peer)
      this.#c.sink.lost(peer, 'expired', now)
    }
    const session = state.current
    if (session !== undefined && state.initiation === undefined) {
      const limit = this.#options.rekeyAfterFrames ?? REKEY_AFTER_FRAMES
      const due = now >= state.renewAt || (session.sealed >= limit && session.confirmed)
      if (due && this.#liveness.usedSince(peer, session.createdAt)) this.#renew(state, now)
      else if (due) state.renewAt = now + RENEW_AGAIN_MS
    }
    if (now >= state.proofAt) {
      state.proofInterval *= 2
      state.proofAt = state.proofInterval > PROOF_LAST_MS ? Infinity : now + state.proofInterval
      this.#c.sink.proveAlive(peer, now)
    }
    if (now >= this.#liveness.keepaliveAt(peer)) {
      this.#liveness.answered(peer)
      if (state.current !== undefined) this.#c.sink.proveAlive(peer, now)
    }
    if (now >= this.#liveness.silentAt(peer, this.#c.peers.rttMs[peer]!)) {
      this.#liveness.heard(peer)
      state.silent = state.current !== undefined
      if (state.silent && state.initiation === undefined) this.#renew(state, now)
    }
    const next = this.#nextOf(state)
    if (state.current !== undefined) this.#armKeepalive(peer)
    if (next === Infinity && state.current === undefined && state.initiation === undefined) this.#active.delete(state)
    this.#arm(next)
  }

  #sendInits(state: PeerSessions, now: number): void {
    let initiation = state.initiation
    while (initiation !== undefined) {
      const attempt = initiation.next(now)
      if (attempt === undefined) break
      this.#c.sink.sendDatagram(attempt.view.bytes, attempt.address)
      initiation = state.initiation
    }
    if (initiation?.schedule.expired(now) !== true) return
    this.#fail(state, initiation.schedule.addresses.length === 0 ? 'no-address' : 'no-answer', now)
  }

  /** Of keepalives apart: {@link #armKeepalive}. */
  #nextOf(state: PeerSessions): number {
    const { peer } = state
    const next = Math.min(state.nextExpiry, state.initiation?.schedule.nextAt ?? Infinity)
    if (state.current === undefined) return next
    const silentAt = this.#liveness.silentAt(peer, this.#c.peers.rttMs[peer]!)
    return Math.min(next, state.proofAt, silentAt, state.initiation === undefined ? state.renewAt : Infinity)
  }

  #arm(time: number): void {
    if (time < this.#due) this.#due = time
  }

  #armKeepalive(peer: number): void {
    this.#keepaliveDue = Math.min(this.#keepaliveDue, this.#liveness.keepaliveAt(peer))
  }

  // ---- Tables ----

  /** State of the peer, made on first use; undefined for ourselves, unknown peers and IDs that are no keys. */
  #state(peer: number): PeerSessions | undefined {
    const known = this.#states[peer]
    if (known !== undefined || peer === SELF || peer < 0 || peer >= this.#c.peers.size) return known
    const { primitives, peers, hostKey } = this.#c
    const id = peers.hostId(peer)
    const staticKey = staticKeyOf(primitives, id)
    if (staticKey === undefined) return undefined
    const macs = new HandshakeMacs(primitives, staticKey)
    const state = new PeerSessions(peer, hostKey.id < id, staticKey, macs, peers)
    this.#states[peer] = state
    return state
  }

  /** Up to as many lanes as wanted and allowed; undefined: no slots left. */
  #reserve(peer: number, wanted: number): readonly number[] | undefined {
    return this.#lanes.reserve(peer, Math.min(wanted, this.#lanes.codecs.length))
  }

  #ports(lanes: readonly number[]): readonly number[] {
    return (this.#c.lanePorts ?? []).slice(0, lanes.length - 1)
  }

  #release(lanes: readonly number[]): void {
    for (const lane of lanes) this.#lanes.free(lane)
  }

  #unconfirmedFull(): boolean {
    let unconfirmed = 0
    for (const state of this.#active) unconfirmed += state.unconfirmed
    return unconfirmed >= (this.#options.maxUnconfirmed ?? 4096)
  }

  #jitter(): number {
    const bytes = this.#c.primitives.randomBytes(2)
    return (bytes[0]! | (bytes[1]! << 8)) / 65_536
  }
}

function checkedMembership(bytes: Uint8Array): Uint8Array {
  if (bytes.length > MEMBERSHIP_MAX) throw new RangeError(`membership of ${bytes.length} bytes`)
  return bytes.slice()
}
