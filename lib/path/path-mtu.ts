// How large a packet one path carries: path MTU discovery by probes of its own, after RFC 8899 (DPLPMTUD), which asks no router. Sizes are whole IP packets, in bytes.
//
//   base ──largest size answered──▶ complete ──the size in use is not answered any more──▶ base
//    │                                 ▲ │ raise timer, links changed
//    ├──largest size not, BASE is──▶ searching ◀┘
//    └──BASE is not──▶ error: MIN is in use, and larger sizes are searched
//
// A probe is sent together with a small one behind it, its control. What counts as lost is a probe whose control, or a later one, has come back: so a path that loses anything, or is slow, or
// silent, is not taken for one that carries no large packets. How many such losses in a row say that the size is too large depends on how many controls are lost.
//
// By a path of which nothing is known, or no more, nothing larger than BASE goes until the largest size has come back, for which several pairs go at once. A path beside the one in use is
// measured by a pair now and then, with the probes that keep it proven.

import { MAX_PLPMTU, MIN_PLPMTU_IPV4, MIN_PLPMTU_IPV6, BASE_PLPMTU } from '../wire/constants.js'

/** The states of RFC 8899 section 5.2. */
export type PathMtuPhase = 'base' | 'searching' | 'complete' | 'error'

export interface PathMtuOptions {
  /** PMTU_RAISE_TIMER: larger sizes are searched again after this, ms; the first times, as links come back soon or never, after `raiseMinMs`, twice that, and so on. */
  readonly raiseMs: number
  readonly raiseMinMs: number
  /** CONFIRMATION_TIMER: while frames go by the path, the size in use is probed this often, ms. */
  readonly confirmMs: number
  /** And when there is reason to doubt it: at once, or so long after the last time that there was, ms. */
  readonly hintMs: number
}

export const pathMtuDefaults: PathMtuOptions = { raiseMs: 600_000, raiseMinMs: 10_000, confirmMs: 3_000, hintMs: 500 }

export interface PathMtuComponents {
  /** Sends a probe by the path that makes an IP packet of `size` bytes, never in fragments; 0: as small as it can be. */
  readonly send: (size: number, token: Uint8Array) => void
  readonly randomBytes: (length: number) => Uint8Array
  /** Smoothed round trip of the path, ms; 0: unknown. */
  readonly rttMs: () => number
}

/** Least losses of a size until it counts as too large: RFC 8899 section 5.1.2. */
export const MAX_PROBES = 3
/** Sizes so close together are not told apart. */
const GRANULARITY = 8
/** How sure it must be that so many losses in a row are none of chance: natural logarithms of 1,000, and for the size in use of 100 million. */
const SURE = Math.log(1e3)
const SURE_IN_USE = Math.log(1e8)
/** Share of probes that any path is taken to lose at least, as losses come in groups; and at most. */
const LOSS_MIN = 0.1
const LOSS_MAX = 0.9
/** So many probes and controls are remembered for that. */
const HISTORY = 100
/** What there is no reason to doubt is confirmed so long after frames went by the path again: the first ones do not wait for it. */
const CONFIRM_LATER_MS = 20
/** Between probes of a size that is in doubt, or an eighth of a round trip; and how long the first is waited for, with two round trips; and while no round trip is known. */
const SPACING_MS = 20
const PATIENCE_MS = 80
const PATIENCE_UNKNOWN_MS = 500
/** Frames overtake each other by so much at most, or by a quarter of a round trip. */
const REORDER_MIN_MS = 10
/** Probes of one size; and those in a row of which nothing comes back, after which the path is not asked for a while. */
const PROBES_MAX = 48
const SILENT_MAX = 5
const SILENT_REST_MS = 1_000
/** Pairs that go within a round trip by a path in use of which nothing is known: one may be lost. */
const EAGER = 3
/** What a path beside the one in use carries is confirmed with one of so many probes of the path itself. */
const CONFIRM_BESIDE = 10
const TOKEN = 16

/** What networks are built for: Ethernet, PPPoE, tunnels of all kinds, clouds, large frames. */
const COMMON = [1_006, 1_280, 1_360, 1_400, 1_420, 1_440, 1_450, 1_460, 1_472, 1_480, 1_492, 1_500, 4_352, 8_000, 8_500, 8_900, 8_980] // prettier-ignore

/** A probe and its control. */
interface Pair {
  readonly large: Uint8Array
  readonly small: Uint8Array
  /** When the control came back; 0: it has not. */
  controlAt: number
}

/** One size under test. */
interface Trial {
  readonly size: number
  readonly pairs: Pair[]
  /** A probe of it is lost: others follow closely. */
  doubtful: boolean
  /** Pairs that follow each other closely before anything may have come back, as frames wait for the answer. */
  eager: number
  /** Pairs sent since anything came back, after waiting for it. */
  silent: number
  heardAt: number
  sentAt: number
  /** When the next pair is sent, and when what has come back is to be looked at. */
  nextAt: number
  reviewAt: number
}

/**
 * One path. While frames go by it, which {@link used} tells, it is probed as often as that is of use, and a size under test is tested to the end; while another one is in use, one
 * pair goes with a probe of the path itself, which {@link beside} tells.
 */
export class PathMtu {
  /** Largest packet that the path is taken to carry. Begins with the largest there may be, which on most networks is right. */
  mtu: number
  phase: PathMtuPhase = 'base'
  /** Times that the size in use turned out too large. */
  shrunk = 0
  readonly #min: number
  readonly #base: number
  #max: number
  /** Smallest size known to be too large. */
  #tooLarge: number
  #trial: Trial | undefined
  /** Larger sizes are looked for where there were none: the largest, then the next one. */
  #raising = false
  #confirmAt: number
  /** Nothing shows that the path, as it is, carries what it is taken to carry. */
  #unsure = true
  /** Another path is in use; and how often this one has been heard of meanwhile. */
  #isBeside = false
  #heardOf = 0
  /** When the size in use is confirmed, or a larger one looked for, as frames go by the path; Infinity: that is not due. */
  #startAt = Infinity
  /** When a hint was heeded last, or will be. */
  #hintedAt = -Infinity
  #raiseAt = Infinity
  #raiseIn: number
  /** What is remembered of probes and controls that the path carries. */
  #sent = 0
  #lost = 0
  readonly #options: PathMtuOptions

  /** `linkMtu`: what this host's own link to there carries. */
  constructor(
    private readonly components: PathMtuComponents,
    family: 4 | 6,
    linkMtu: number,
    now: number,
    options: Partial<PathMtuOptions> = {},
  ) {
    this.#options = { ...pathMtuDefaults, ...options }
    this.#min = family === 4 ? MIN_PLPMTU_IPV4 : MIN_PLPMTU_IPV6
    this.#max = this.#clamp(linkMtu)
    this.#base = Math.min(BASE_PLPMTU, this.#max)
    this.mtu = this.#max
    this.#tooLarge = this.#max + 1
    this.#confirmAt = now
    this.#raiseIn = this.#options.raiseMinMs
  }

  /** Largest packet that is to go by the path: until it has shown that it carries more, no more than what nearly all paths do. */
  get safe(): number {
    return this.#unsure ? Math.min(this.mtu, this.#base) : this.mtu
  }

  /** Whether what it is taken to carry has been measured. */
  get measured(): boolean {
    return !this.#unsure
  }

  /** A size is under test. */
  get testing(): boolean {
    return this.#trial !== undefined
  }

  /** Frames go by the path from now on. What is not known of it is found out at once, and what is on its way may tell. */
  enter(now: number): void {
    this.#isBeside = false
    if (!this.#unsure) {
      this.#trial = undefined
      return
    }
    const trial = this.#trial
    if (trial === undefined) return this.#confirm(now)
    trial.heardAt = now
    trial.eager = EAGER
    this.#sendPair(trial, now)
  }

  /** The path works beside the one in use, or is being proven: one pair of probes may go by it. */
  beside(now: number): void {
    this.#isBeside = true
    this.#startAt = Infinity
    const trial = this.#trial
    if (trial === undefined) {
      if (!this.#unsure && now >= this.#raiseAt) this.#raise(now)
      else if (this.#heardOf++ % CONFIRM_BESIDE === 0) this.#confirm(now)
    } else if (this.#isTooLarge(trial, now)) {
      this.#trial = undefined
      this.#failed(trial.size, now)
    } else if (trial.pairs.length >= PROBES_MAX) this.#giveUp(trial, now)
    if (this.#trial !== undefined) this.#sendPair(this.#trial, now)
  }

  /** Frames go by the path, and some that are not small, or none such: those are carried by any path. Returns when it is to be told again of such at the earliest, ms. */
  used(now: number, small = false): number {
    if (small && this.phase === 'complete') return Infinity
    if (this.#trial === undefined && now >= this.#nextStart) {
      if (this.phase !== 'complete') this.#start(now)
      else if (this.#startAt === Infinity) this.#startAt = now + CONFIRM_LATER_MS
    }
    return this.nextTimeout() === Infinity ? this.#nextStart : now + this.#options.hintMs
  }

  /** Whether a {@link hint} changes anything now: that of another one may lie ahead. */
  isHintDue(now: number): boolean {
    return now > this.#hintedAt
  }

  /** Something makes it doubtful that the size in use arrives: it is tried, at once or as soon as it may be again, and nothing concluded. */
  hint(now: number): void {
    if (!this.isHintDue(now)) return
    this.#hintedAt = Math.max(now, this.#hintedAt + this.#options.hintMs)
    this.#confirmAt = Math.min(this.#confirmAt, this.#hintedAt)
    if (this.#hintedAt <= now && this.#trial === undefined) this.#start(now)
  }

  /**
   * A peer that has been away is there again, or this host is elsewhere, and what lies between may be another way: as a hint, but without regard to when the last one was, and what was known of the path is in
   * doubt.
   */
  renewed(now: number): void {
    this.#hintedAt = -Infinity
    if (this.#unsure && this.#trial?.sentAt === now) return
    this.#trial = undefined
    this.#unsure = true
    this.hint(now)
  }

  /** The path is not in use any more. */
  rest(): void {
    this.#trial = undefined
    this.#heardOf = 0
    this.#startAt = Infinity
  }

  /** The host's links have changed, and so may what the path carries; nothing larger than its own link does. */
  linksChanged(linkMtu: number, now: number): void {
    const max = this.#clamp(linkMtu)
    if (max < this.mtu) {
      this.mtu = max
      this.phase = 'base'
    }
    if (this.#trial !== undefined && this.#trial.size > max) this.#trial = undefined
    if (max !== this.#max) this.#tooLarge = max + 1
    this.#max = max
    this.#confirmAt = now
    this.#heardOf = 0
    this.#raiseIn = this.#options.raiseMinMs
    this.#raiseAt = this.mtu < max ? now : Infinity
  }

  /** An echo has come. False: of no probe of ours. */
  probeAcknowledged(token: Uint8Array, now: number): boolean {
    const trial = this.#trial
    if (trial === undefined || token.length < TOKEN) return false
    for (const [i, pair] of trial.pairs.entries()) {
      if (sameToken(pair.large, token)) {
        this.#remember(i + 1, i)
        this.#trial = undefined
        this.#carried(trial.size, now)
        return true
      }
      if (!sameToken(pair.small, token)) continue
      trial.heardAt = now
      if (pair.controlAt === 0) pair.controlAt = now
      // The path carries something again.
      if (trial.silent > 0 && trial.doubtful) this.#hurry(trial, now)
      trial.reviewAt = Math.min(trial.reviewAt, now + this.#reorder)
      return true
    }
    return false
  }

  /** Infinity: no size is under test, or about to be, or another path is in use. */
  nextTimeout(): number {
    if (this.#isBeside) return Infinity
    return this.#trial === undefined ? this.#startAt : Math.min(this.#trial.nextAt, this.#trial.reviewAt)
  }

  handleTimeout(now: number): void {
    const trial = this.#trial
    if (now < this.nextTimeout()) return
    if (trial === undefined) return this.#start(now)
    if (now >= trial.reviewAt && this.#isTooLarge(trial, now)) {
      this.#trial = undefined
      this.#failed(trial.size, now)
      return
    }
    if (now < trial.nextAt) return
    if (trial.silent < SILENT_MAX && trial.pairs.length < PROBES_MAX) {
      this.#sendPair(trial, now)
      return
    }
    this.#giveUp(trial, now)
  }

  /** Nothing is known, and nothing changes: a path that carries nothing at all is not this one's business. */
  #giveUp(trial: Trial, now: number): void {
    this.#trial = undefined
    if (trial.size !== this.mtu) this.#complete(now)
    this.#confirmNot(now, SILENT_REST_MS)
  }

  get #nextStart(): number {
    return Math.min(this.#confirmAt, this.#raiseAt)
  }

  get #reorder(): number {
    return Math.max(REORDER_MIN_MS, this.components.rttMs() / 4)
  }

  #clamp(linkMtu: number): number {
    return Math.min(Math.max(linkMtu, this.#min), MAX_PLPMTU)
  }

  #start(now: number): void {
    this.#startAt = Infinity
    if (this.#unsure || now >= this.#confirmAt) this.#confirm(now)
    else this.#raise(now)
  }

  #raise(now: number): void {
    this.phase = 'searching'
    this.#raising = true
    this.#raiseAt = Infinity
    this.#tooLarge = this.#max + 1
    this.#search(now)
  }

  #confirm(now: number): void {
    this.#confirmNot(now, this.#options.confirmMs)
    this.#try(this.mtu, now)
  }

  /** For so long, unless a hint is to be heeded before. */
  #confirmNot(now: number, ms: number): void {
    this.#confirmAt = now + ms
    if (this.#hintedAt > now) this.#confirmAt = Math.min(this.#confirmAt, this.#hintedAt)
  }

  #try(size: number, now: number): void {
    const trial: Trial = {
      size,
      pairs: [],
      doubtful: false,
      eager: this.#unsure ? EAGER : 0,
      silent: 0,
      heardAt: now,
      sentAt: now,
      nextAt: now,
      reviewAt: Infinity,
    }
    this.#trial = trial
    if (!this.#isBeside) this.#sendPair(trial, now)
  }

  #sendPair(trial: Trial, now: number): void {
    const { randomBytes, send, rttMs } = this.components
    const pair: Pair = { large: randomBytes(TOKEN), small: randomBytes(TOKEN), controlAt: 0 }
    trial.pairs.push(pair)
    const rtt = rttMs()
    const patience = rtt > 0 ? 2 * rtt + PATIENCE_MS : PATIENCE_UNKNOWN_MS
    const quiet = now - trial.heardAt >= patience
    trial.silent = quiet ? trial.silent + 1 : 0
    const wait = trial.doubtful && !quiet ? this.#spacing : patience * 2 ** Math.min(trial.silent, 3)
    trial.nextAt = now + (--trial.eager > 0 ? Math.max(SPACING_MS, rtt / EAGER) : wait)
    trial.sentAt = now
    send(trial.size, pair.large)
    send(0, pair.small)
  }

  /** The next pair does not wait for the last one. */
  #hurry(trial: Trial, now: number): void {
    trial.silent = 0
    trial.nextAt = Math.min(trial.nextAt, Math.max(now, trial.sentAt + this.#spacing))
  }

  get #spacing(): number {
    return Math.max(SPACING_MS, this.components.rttMs() / 8)
  }

  /** Looks at what has come back: so many probes that were overtaken by a control are lost, and that of the controls themselves. */
  #isTooLarge(trial: Trial, now: number): boolean {
    const reorder = this.#reorder
    let decided = 0
    trial.reviewAt = Infinity
    for (const [i, { controlAt }] of trial.pairs.entries()) {
      if (controlAt === 0) continue
      if (controlAt + reorder <= now) decided = i + 1
      else trial.reviewAt = Math.min(trial.reviewAt, controlAt + reorder)
    }
    if (decided === 0) return false
    if (!trial.doubtful) {
      trial.doubtful = true
      this.#hurry(trial, now)
    }
    const controlsLost = trial.pairs.slice(0, decided).filter(({ controlAt }) => controlAt === 0).length
    const share = (this.#lost + controlsLost + 1) / (this.#sent + decided + 2)
    const surprise = -decided * Math.log(Math.min(LOSS_MAX, Math.max(LOSS_MIN, share)))
    if (decided < MAX_PROBES || surprise < (trial.size === this.mtu ? SURE_IN_USE : SURE)) return false
    this.#remember(decided, controlsLost)
    return true
  }

  /** So many probes or controls were sent that the path would have carried, and of them lost. */
  #remember(sent: number, lost: number): void {
    this.#sent += sent
    this.#lost += lost
    if (this.#sent <= HISTORY) return
    this.#lost *= HISTORY / this.#sent
    this.#sent = HISTORY
  }

  #carried(size: number, now: number): void {
    if (size < this.mtu) {
      // The link has grown meanwhile: what was asked is answered anyhow.
      this.#search(now)
      return
    }
    const confirmed = size === this.mtu
    this.mtu = size
    this.#unsure = false
    if (this.#tooLarge <= size) this.#tooLarge = this.#max + 1
    if (confirmed && this.phase === 'complete') {
      // What has come back may have been sent before there was reason to doubt.
      if (now >= this.#confirmAt) this.#confirm(now)
      return
    }
    if (!confirmed && size < this.#max) this.#raising = false
    this.phase = 'searching'
    this.#search(now)
  }

  #failed(size: number, now: number): void {
    if (size !== this.mtu) {
      this.#tooLarge = Math.min(this.#tooLarge, size)
      this.#search(now)
      return
    }
    this.#tooLarge = size
    this.#unsure = false
    if (size <= this.#min) {
      // Less there is not.
      this.#tooLarge = this.#max + 1
      this.phase = 'error'
      this.#confirmAt = now + this.#options.confirmMs
      return
    }
    this.shrunk++
    this.#raising = false
    this.#raiseIn = this.#options.raiseMinMs
    this.mtu = size > this.#base ? this.#base : this.#min
    this.phase = size > this.#base ? 'base' : 'error'
    this.#confirm(now)
  }

  #search(now: number): void {
    if (now >= this.#confirmAt) this.#confirm(now)
    else {
      const size = this.#candidate()
      if (size === undefined) this.#complete(now)
      else this.#try(size, now)
    }
  }

  /** The size to be tested next; undefined: what is in use is the largest. */
  #candidate(): number | undefined {
    const low = this.mtu
    const high = this.#tooLarge
    if (low >= this.#max) return undefined
    if (high > this.#max) return this.#max
    if (high - low <= GRANULARITY) return undefined
    const between = COMMON.filter((size) => size > low && size < high)
    if (!this.#raising) return between[between.length >> 1] ?? low + ((high - low) >> 1)
    // Does anything larger go at all? What is too large then ends the search.
    const next = between[0] ?? low + GRANULARITY
    return high === this.#max ? Math.min(next, high - 1) : undefined
  }

  #complete(now: number): void {
    this.phase = 'complete'
    this.#raising = false
    if (this.mtu >= this.#max) {
      this.#raiseAt = Infinity
      this.#raiseIn = this.#options.raiseMinMs
      return
    }
    this.#raiseAt = now + this.#raiseIn
    this.#raiseIn = Math.min(2 * this.#raiseIn, this.#options.raiseMs)
  }
}

function sameToken(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < TOKEN; i++) if (a[i] !== b[i]) return false
  return true
}
