import { decodeSessionMessage, encodeSessionMessage, type SessionMessage } from '../wire/session-message.js'

export interface IdleSessionsOptions {
  /** A session that was made for a flow is given up when no flow and no bind has needed it for so long, ms. */
  readonly idleMs: number
}

export const idleSessionsDefaults: IdleSessionsOptions = { idleMs: 600_000 }

export interface IdleSessionsComponents {
  /** Peers there may be. */
  readonly capacity: number
  /** Whether a session is kept with the peer, used or not. */
  readonly wanted: (peer: number) => boolean
  /** Peers that flows are bound to. */
  readonly inUse: () => ReadonlySet<number>
  readonly send: (peer: number, body: Uint8Array, now: number) => void
  /** Whether something that was sent to the peer waits for its acknowledgement. */
  readonly pending: (peer: number) => boolean
  /** Ends the session; what is to be acknowledged goes out first. */
  readonly end: (peer: number, now: number) => void
}

interface Idle {
  checkAt: number
  /** We have asked. */
  asked: boolean
}

/** An agreement whose acknowledgement does not come is not waited for longer. */
const AGREED_MS = 1_000
/** Between looks at who has flows: the other end decides how often it asks. */
const LOOK_MS = 1_000

/** Gives up sessions that nobody needs, both ends at once: one asks, the other agrees or not. */
export class IdleSessions {
  readonly #sessions = new Map<number, Idle>()
  /** By peer: when a flow or bind needed the session last. */
  readonly #usedAt: Float64Array
  /** Peers that we have agreed with; when the session ends at the latest, whether or not they have heard of it. */
  readonly #ending = new Map<number, number>()
  readonly #options: IdleSessionsOptions
  #due = Infinity
  #inUse: ReadonlySet<number> = new Set()
  #lookedAt = -Infinity

  constructor(
    private readonly components: IdleSessionsComponents,
    options: Partial<IdleSessionsOptions> = {},
  ) {
    this.#options = { ...idleSessionsDefaults, ...options }
    this.#usedAt = new Float64Array(components.capacity)
  }

  up(peer: number, now: number): void {
    const checkAt = now + this.#options.idleMs
    this.#usedAt[peer] = now
    this.#sessions.set(peer, { checkAt, asked: false })
    this.#due = Math.min(this.#due, checkAt)
  }

  down(peer: number): void {
    this.#sessions.delete(peer)
    this.#ending.delete(peer)
  }

  /** A flow or bind concerns the peer. */
  used(peer: number, now: number): void {
    this.#usedAt[peer] = now
  }

  /** False: it was not understood. */
  receive(peer: number, body: Uint8Array, now: number): boolean {
    const message = decodeSessionMessage(body)
    const session = this.#sessions.get(peer)
    if (message === undefined) return false
    if (session === undefined) return true
    if (message === 'release') this.#answer(peer, now)
    else if (!session.asked) return true
    else if (message === 'agree') this.components.end(peer, now)
    else {
      session.asked = false
      this.#check(session, now + this.#options.idleMs)
    }
    return true
  }

  nextTimeout(): number {
    return this.#due
  }

  handleTimeout(now: number): void {
    if (now < this.#due) return
    this.#due = Infinity
    this.flush(now)
    for (const endAt of this.#ending.values()) this.#due = Math.min(this.#due, endAt)
    for (const [peer, session] of this.#sessions) {
      if (now >= session.checkAt) this.#look(peer, session, now)
      this.#due = Math.min(this.#due, session.checkAt)
    }
  }

  /** Ends what the other end has heard is to end; called after each batch from the network. */
  flush(now: number): void {
    for (const [peer, endAt] of this.#ending) {
      if (now >= endAt || !this.components.pending(peer)) this.components.end(peer, now)
    }
  }

  #look(peer: number, session: Idle, now: number): void {
    const { idleMs } = this.#options
    // Asked again after a while, should the question or its answer be lost with a session that was renewed.
    session.checkAt = Math.max(this.#usedAt[peer]!, now - idleMs / 2) + idleMs
    session.asked = this.#isIdle(peer, now)
    if (session.asked) this.#say(peer, 'release', now)
  }

  #answer(peer: number, now: number): void {
    if (!this.#isIdle(peer, now)) return this.#say(peer, 'keep', now)
    this.#say(peer, 'agree', now)
    this.#ending.set(peer, now + AGREED_MS)
    this.#due = Math.min(this.#due, now + AGREED_MS)
  }

  #isIdle(peer: number, now: number): boolean {
    const { wanted, inUse } = this.components
    if (now - this.#usedAt[peer]! < this.#options.idleMs || wanted(peer)) return false
    if (now - this.#lookedAt >= LOOK_MS) {
      this.#lookedAt = now
      this.#inUse = inUse()
    }
    return !this.#inUse.has(peer)
  }

  #check(session: Idle, at: number): void {
    session.checkAt = at
    this.#due = Math.min(this.#due, at)
  }

  #say(peer: number, message: SessionMessage, now: number): void {
    this.components.send(peer, encodeSessionMessage(message), now)
  }
}
