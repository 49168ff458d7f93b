import type { AddressStanding, Remote } from './remote.js'

/** Why a path is in the state it is in, or was taken into use. One closed list for log, metrics and display; append only. */
export const pathReasons = [
  /** It was learnt of. */
  'candidate',
  /** The handshake came by it. */
  'established',
  /** Our probe came back. */
  'proven',
  /** Probes stay unanswered. */
  'silent',
  /** An address of this host, or of the peer, is gone. */
  'address-gone',
  /** An address is about to go. */
  'deprecated',
  /** Clearly better than the one that was in use. */
  'better',
  /** The peer sends from there. */
  'peer-moved',
  /** This host's links or addresses have changed. */
  'links-changed',
  /** This host's routes prefer another own address now. */
  'rerouted',
  /** This host has no route to the peer's address. */
  'no-route',
] as const
export type PathReason = (typeof pathReasons)[number]
/** For these nothing is lost on the old way. */
export const lossless: ReadonlySet<PathReason> = new Set<PathReason>([
  'established',
  'better',
  'links-changed',
  'rerouted',
])
/** Whether a way that is left for this reason carries what comes all the same. */
export const worksStill = (reason: PathReason): boolean => lossless.has(reason) || reason === 'deprecated'

/** unproven: no probe has come back yet. suspect: one is overdue. dead: none has for long, or an address of it is gone. */
export type PathState = 'unproven' | 'proven' | 'suspect' | 'dead'

export interface Probe {
  readonly token: Uint8Array
  readonly sentAt: number
}

/** Probes remembered until they come back, so that a round trip longer than the interval is still measured. */
const PENDING_MAX = 16
/** Probes over which the loss is counted. */
const WINDOW = 32
/** Frames overtake each other by no more than this, but for what the round trip varies by. */
export const OVERTAKING_MS = 10
/** An echo that takes longer than a round trip, four times its usual deviation, or this share of it, and this is overdue. */
const OVERDUE_SHARE = 0.25
const OVERDUE_MS = 20
const LEAST_OF = 8
/** Round trips by which ways are compared, at least: the first, of a program that is being started, says little. */
export const SAMPLES_MIN = 4

/** One way to a peer: from an own address, or as the kernel chooses, to one of the peer's. What is measured of it, and what it is good for. */
export class Path {
  state: PathState = 'unproven'
  reason: PathReason = 'candidate'
  /** Changes of state and use. */
  changes = 0
  /** When our probe was last echoed from there; 0: never. */
  provenAt = 0
  /** When the last probe was sent that came back: what was sent there before has arrived, as far as is known; -Infinity: none has. */
  reachedAt = -Infinity
  /** Since when frames go there, the last time that they began to; -Infinity: they never have. */
  usedSince = -Infinity
  /** Probes since it was last proven. */
  tries = 0
  /** Smoothed round trip and its mean deviation, ms; 0: not measured. */
  rttMs = 0
  rttVarMs = 0
  /** Shortest of these {@link LEAST_OF} samples and of those before, ms; Infinity: none. Of {@link leastRttMs}. */
  #least = Infinity
  #leastBefore = Infinity
  samples = 0
  /** Probes not yet echoed, newest last. */
  readonly pending: Probe[] = []
  sentAt = -Infinity
  /** When anything authentic last came from there, and what the peer sends the way that it prefers. */
  heardAt = -Infinity
  trafficAt = -Infinity
  /** The peer has said by this path that by then it had what was sent to it by the way in use; -Infinity: it has said nothing since that one is in use. */
  toldAt = -Infinity
  /** Probes of a path that the peer has come to prefer, since it last did and as none has come back. */
  challenges = 0
  /** This host is about to leave its own address, or has left it. */
  local: AddressStanding = 'usable'
  /** Own address to which what comes from there comes, as records have it. */
  localSeen: Uint8Array | undefined
  /** How often in a row it was better than the one in use. */
  betterFor = 0
  /** A bit a probe, the newest lowest: 1 lost. */
  #lost = 0
  #counted = 0

  constructor(
    /** Address slot: the pair of addresses. */
    public slot: number,
    /** The peer's, which other paths may lead to as well. */
    readonly remote: Remote,
    public changedAt: number,
  ) {}

  /** Neither end has given up its address. */
  get usable(): boolean {
    return this.remote.standing !== 'gone' && this.local !== 'gone'
  }
  /** Neither end is about to. */
  get lasting(): boolean {
    return this.remote.standing === 'usable' && this.local === 'usable'
  }
  get proven(): boolean {
    return this.state === 'proven' && this.usable
  }
  /** Nothing says that it does not. */
  works(now: number): boolean {
    return this.usable && this.misses(now) === 0
  }
  /** Probes by which {@link loss} was counted. */
  get counted(): number {
    return this.#counted
  }
  /** Share of the last probes that did not come back. */
  get loss(): number {
    let lost = 0
    for (let bits = this.#lost; bits !== 0; bits &= bits - 1) lost++
    return this.#counted === 0 ? 0 : lost / this.#counted
  }

  set(state: PathState, reason: PathReason, now: number): void {
    if (this.state === state) return
    this.state = state
    this.changed(reason, now)
  }

  changed(reason: PathReason, now: number): void {
    this.reason = reason
    this.changedAt = now
    this.changes++
  }

  /** `sentAt` may be past, where the way that the probe took shows only now. */
  probed(token: Uint8Array, sentAt: number): void {
    this.tries++
    let at = this.pending.length
    while (at > 0 && this.pending[at - 1]!.sentAt > sentAt) at--
    this.pending.splice(at, 0, { token, sentAt })
    if (this.pending.length > PENDING_MAX) {
      this.pending.shift()
      this.#count(true)
    }
    this.sentAt = Math.max(this.sentAt, sentAt)
  }

  /** The probe with this token has come back: when it was sent; undefined: there is none. Those that were sent well before it count as lost. */
  echoed(token: Uint8Array, now: number): number | undefined {
    const index = this.pending.findIndex((probe) => sameBytes(probe.token, token))
    if (index < 0) return undefined
    const { sentAt } = this.pending[index]!
    this.pending.splice(index, 1)
    while (this.pending.length > 0 && this.pending[0]!.sentAt < sentAt - OVERTAKING_MS) {
      this.pending.shift()
      this.#count(true)
    }
    this.#count(false)
    const sample = Math.max(now - sentAt, 0.01)
    const deviation = this.rttMs === 0 ? sample / 8 : Math.abs(sample - this.rttMs)
    this.rttVarMs = this.samples === 0 ? deviation : this.rttVarMs * 0.75 + deviation * 0.25
    this.rttMs = this.rttMs === 0 ? sample : this.rttMs * 0.875 + sample * 0.125
    if (this.samples % LEAST_OF === 0) {
      this.#leastBefore = this.#least
      this.#least = sample
    } else this.#least = Math.min(this.#least, sample)
    this.samples++
    this.provenAt = now
    this.reachedAt = Math.max(this.reachedAt, sentAt)
    this.remote.validated = true
    this.challenges = 0
    this.tries = 0
    return sentAt
  }

  /** How far it is, ms: the shortest round trip of the last ones, which neither end's being busy made longer; 0: of too few. */
  get leastRttMs(): number {
    return this.samples < SAMPLES_MIN ? 0 : Math.min(this.#least, this.#leastBefore)
  }

  /** ms after which an echo is overdue. */
  get patience(): number {
    return this.rttMs + Math.max(OVERDUE_SHARE * this.rttMs, 4 * this.rttVarMs) + OVERDUE_MS
  }

  /** Probes of which the echo is overdue; of those that were sent `since` then. */
  misses(now: number, since = -Infinity): number {
    const { patience } = this
    let misses = 0
    for (const { sentAt } of this.pending) {
      if (sentAt + patience > now) break
      if (sentAt >= since) misses++
    }
    return misses
  }

  /** Its pending probes are of no account: the way they went is another one now. */
  forgetProbes(): void {
    this.pending.length = 0
    this.sentAt = -Infinity
  }

  /** Of a path that works: what is lost while it does not says nothing about how many get lost when it does. */
  #count(lost: boolean): void {
    if (lost && this.state !== 'proven') return
    this.#lost = ((this.#lost << 1) | Number(lost)) >>> 0
    if (this.#counted < WINDOW) this.#counted++
  }
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}
