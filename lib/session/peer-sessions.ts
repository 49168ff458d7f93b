import type { Membership } from '../crypto/membership.js'
import type { PeerTable } from '../path/peers.js'
import type { HandshakeMacs } from './macs.js'
import { OUTSTANDING_MAX, type Initiation } from './initiation.js'
import { LaneRole } from './lanes.js'
import { GENERATION_MAX } from './payload.js'
import type { Session } from './session.js'
import type { SessionInfo } from './session-components.js'
import type { Established } from './session-sink.js'

/** The initiator takes an answer for at most HANDSHAKE_GIVE_UP_MS and proves itself at once, repeatedly; then its session is of no more use. */
export const UNCONFIRMED_MS = 12_000
/** How long frames still on their way under the previous session are accepted. */
export const GRACE_MS = 5_000
const PREVIOUS_MAX = 4

/**
 * The sessions with one peer: the current one, which we send on, former ones, which are still opened, and those that the peer has asked for but not proven.
 *
 * Which session is current follows an order that both ends know, so that they agree however their handshakes cross: the greater generation wins, among equals the
 * one whose initiator has the lower host ID. No frame is sent on a session before the other end is known to have its keys: an initiator has the
 * response, a responder waits for the initiator's first frame.
 */
export class PeerSessions {
  current: Session | undefined
  /** Verified in the latest handshake. */
  membership: Membership | undefined
  initiation: Initiation | undefined
  /** Lanes promised in the initiation's first messages. */
  promisedLanes: readonly number[] = []
  /** Greatest stamp of the peer's inits. */
  greatestStamp = -1n
  /** Address records known from `connect` and from the last handshake. */
  addresses: readonly Uint8Array[] = []
  /** When the current session is to be renewed. */
  renewAt = Infinity
  /** When the empty frame that proves us alive is repeated, and after how long again. */
  proofAt = Infinity
  proofInterval = 0
  rekeys = 0
  /** What is sent on the current session gets no answer. */
  silent = false
  /** There was a current session once. */
  #known = false
  readonly #previous: Session[] = []
  readonly #unconfirmed: Session[] = []

  constructor(
    readonly peer: number,
    /** Whether our host ID is the lower one. */
    readonly lower: boolean,
    readonly staticKey: Uint8Array,
    readonly macs: HandshakeMacs,
    readonly peers: PeerTable,
  ) {}

  get nextGeneration(): number {
    return Math.min(GENERATION_MAX, (this.current?.generation ?? 0) + 1)
  }

  info(now: number): SessionInfo {
    const { current: session, rekeys } = this
    const connecting = this.initiation !== undefined
    if (session === undefined) return { connected: false, connecting, confirmed: false, rekeys }
    return {
      connected: true,
      connecting,
      confirmed: session.confirmed,
      aead: session.parameters.aead,
      role: session.initiator ? 'initiator' : 'responder',
      ageMs: now - session.createdAt,
      lanes: session.parameters.ownLanes.length,
      framesSent: session.sealed,
      entriesReceived: session.opened,
      generation: session.generation,
      rekeys,
    }
  }

  /** Whether the peer has asked for a session since then and not proven itself yet. */
  askedSince(time: number): boolean {
    return this.#unconfirmed.some((session) => session.createdAt >= time)
  }

  /** The session with this lane slot. */
  withSlot(slot: number): Session | undefined {
    if (this.current?.hasSlot(slot)) return this.current
    return this.#unconfirmed.find((session) => session.hasSlot(slot))
  }

  /** What it means that this session, not in use yet, becomes the current one. */
  succession(session: Session): Pick<Established, 'rekey' | 'afresh'> {
    const rekey = this.current !== undefined
    return { rekey, afresh: rekey ? this.silent || session.parameters.afresh : this.#known }
  }

  /** Keeps a responder's new session until its initiator's first frame. */
  offer(session: Session, now: number): void {
    session.retireAt = Math.min(session.retireAt, now + UNCONFIRMED_MS)
    this.#unconfirmed.push(session)
    if (this.#unconfirmed.length > OUTSTANDING_MAX) this.#unconfirmed.shift()!.close()
  }

  /** The initiator's first frame on an offered session has come. True: it is the current one now. */
  confirm(session: Session, rejectAt: number, now: number): boolean {
    // The initiator took this answer; answers to its earlier first messages are void.
    const at = this.#unconfirmed.indexOf(session)
    for (const earlier of this.#unconfirmed.splice(0, at + 1)) if (earlier !== session) earlier.close()
    session.confirmed = true
    session.retireAt = rejectAt
    if (this.current !== undefined && this.#outranks(this.current, session)) {
      session.setRole(LaneRole.previous)
      this.#keepPrevious(session)
      this.#retirePrevious(now)
      return false
    }
    this.#switchTo(session, LaneRole.current, now)
    return true
  }

  /** The answer to our initiation has made this session. False: a better one is there already, this one is not needed and closed. */
  establish(session: Session, now: number): boolean {
    if (this.current !== undefined && this.#outranks(this.current, session)) {
      session.close()
      return false
    }
    this.#switchTo(session, LaneRole.unproven, now)
    return true
  }

  /** The first frame has come back on the session we initiated. */
  prove(session: Session, now: number): void {
    session.confirmed = true
    session.setRole(LaneRole.current)
    this.#retirePrevious(now)
  }

  /** Forgets what is too old; true: the current session too. */
  expire(now: number): boolean {
    closeWhere(this.#previous, (session) => now >= session.retireAt)
    closeWhere(this.#unconfirmed, (session) => now >= session.retireAt)
    if (this.current === undefined || now < this.current.retireAt) return false
    this.#closeCurrent()
    return true
  }

  /** When {@link expire} has something to do. */
  get nextExpiry(): number {
    let next = this.current?.retireAt ?? Infinity
    for (const session of this.#previous) next = Math.min(next, session.retireAt)
    for (const session of this.#unconfirmed) next = Math.min(next, session.retireAt)
    return next
  }

  get unconfirmed(): number {
    return this.#unconfirmed.length
  }

  /** Forgets all sessions; true: there was a current one. */
  closeAll(): boolean {
    const had = this.current !== undefined
    closeWhere(this.#previous, () => true)
    closeWhere(this.#unconfirmed, () => true)
    this.#closeCurrent()
    return had
  }

  #outranks(current: Session, other: Session): boolean {
    if (current.generation !== other.generation) return current.generation > other.generation
    if (current.initiator === other.initiator) return false
    return current.initiator === this.lower
  }

  #switchTo(session: Session, role: LaneRole, now: number): void {
    const former = this.current
    this.current = session
    this.#known = true
    this.silent = false
    this.membership = session.parameters.membership
    this.addresses = [session.parameters.address, ...this.addresses].slice(0, OUTSTANDING_MAX)
    session.setRole(role)
    this.#publish(session)
    if (former !== undefined) {
      this.rekeys++
      former.setRole(LaneRole.previous)
      this.#keepPrevious(former)
    }
    if (session.confirmed) this.#retirePrevious(now)
  }

  /** What frames to the peer are sealed with from now on. */
  #publish(session: Session | undefined): void {
    const { peers, peer } = this
    const slots = session?.sealSlots ?? []
    peers.sealSlot[peer] = slots[0] ?? -1
    for (let lane = 1; lane < peers.lanes; lane++) peers.laneSealSlot[peers.laneAt(peer, lane)] = slots[lane] ?? -1
  }

  #keepPrevious(session: Session): void {
    this.#previous.push(session)
    if (this.#previous.length > PREVIOUS_MAX) this.#previous.shift()!.close()
  }

  /** Once both ends have the current session, the others are only good for frames on their way. */
  #retirePrevious(now: number): void {
    if (this.current?.confirmed !== true) return
    for (const session of this.#previous) session.retireAt = Math.min(session.retireAt, now + GRACE_MS)
  }

  #closeCurrent(): void {
    this.current?.close()
    this.current = undefined
    this.#publish(undefined)
    this.renewAt = Infinity
    this.proofAt = Infinity
  }
}

function closeWhere(sessions: Session[], condition: (session: Session) => boolean): void {
  for (let i = sessions.length - 1; i >= 0; i--) {
    if (!condition(sessions[i]!)) continue
    sessions[i]!.close()
    sessions.splice(i, 1)
  }
}
