import { CLEAR_HEADER, INNER_HEADER, PROBE_TOKEN, TAG_LENGTH } from '../wire/constants.js'
import type { Path } from './path.js'
import { SELF, type PeerTable } from './peers.js'
import type { ProberOptions } from './prober-options.js'
import type { Watch } from './watch.js'

/** A probe as a datagram, bytes, at most, unless it is padded. */
export const PROBE_BYTES = CLEAR_HEADER + INNER_HEADER + PROBE_TOKEN + 3 + TAG_LENGTH
/** An echo that takes longer than two round trips and this is overdue. */
const OVERDUE_MS = 20
/**
 * Between probes of a peer that has not answered: the second follows when a round trip and OVERDUE_MS have passed, for it may be lost, the others when the last one is overdue; none
 * sooner than the first of these two, and none but the first two sooner than the other.
 */
const AGAIN_MIN_MS = 40
const AGAIN_LATER_MS = 100
/** Challenges of a path, and the time between them: one may be lost, and together they are less than three times what came from there. */
export const CHALLENGES_MAX = 2
export const CHALLENGE_MS = 20
/** An idle peer that has probed this host just now need not be probed, but for so many times in a row: what one end asks tells the other one as much. */
const ASKED_INTERVALS = 3
/** Probes of idle peers go out together, this far apart: a host that has nothing else to do sleeps in between. */
const TOGETHER_MS = 2_000
/** Between probes of a peer whose frames keep coming: for the round trip, not for its life. */
const ATTENDED_INTERVALS = 5
/** Between probes of a path that nobody has proven yet, to an active peer: the first wait, doubled each time. */
const UNPROVEN_MS = 100
/** Of a probe by which a peer learns that this host is elsewhere: its bytes are what the peer may send there before it has proven it. */
export const MOVED_PROBE_BYTES = 1_200
/** The peer is followed to a proven path when nothing has come by the old one for so long, ms: frames overtake each other. */
export const FOLLOW_MS = 20
/** Overdue probes of a path that make it a silent one, since anything came by it; more where that many are lost anyway; and those that do although something comes by it. */
const SILENT_AFTER = 2
const SILENT_AFTER_LOSSY = 3
const LOSSY = 0.02
const DEAF_AFTER = 5
/** Between probes of a path by which nothing comes, while another one is proven, ms. */
const DOUBT_MS = 20
/** Share of a round trip after which a peer whose frames have stopped coming is probed. */
const QUIET_SHARE = 0.25

/** When a peer and its paths are to be looked at, and probed. All moments in ms. */
export class Cadence {
  /** By peer: until when it is watched closely. Not with the rest of the {@link Watch}: every batch to the peer puts it off. */
  readonly activeUntil: Float64Array
  readonly #peers: PeerTable
  readonly #options: ProberOptions
  /** Hosts do not probe at the same moments, or two would always ask each other. */
  readonly #phase: number

  constructor(peers: PeerTable, options: ProberOptions) {
    this.activeUntil = new Float64Array(peers.capacity)
    this.#peers = peers
    this.#options = options
    this.#phase = Number.parseInt(peers.hostId(SELF).slice(0, 8), 16) % TOGETHER_MS
  }

  quiet(peer: number): number {
    return this.#options.quietMs + QUIET_SHARE * this.#peers.rttMs[peer]!
  }

  nextLook(peer: number, watch: Watch, now: number): number {
    if (now < watch.restsUntil) return watch.restsUntil
    const { paths, current } = watch.set
    let next = Math.min(this.probeAt(peer, watch, now), watch.courtedUntil, watch.sourceChoice.dueAt)
    for (const path of paths) next = Math.min(next, this.challengeAt(path), this.besideAt(peer, watch, path, now))
    if (paths.length > 1 && current !== undefined && current.state === 'proven') {
      const at = silentAt(current)
      if (at > now) next = Math.min(next, at)
      next = Math.min(next, this.doubtAt(peer, watch, now), this.refugesAt(peer, watch, now))
    }
    if (watch.state === 'dead') return next
    const { doubtfulAfterMs, deadAfterMs } = this.#options
    return Math.min(next, this.silentAt(peer, watch, watch.state === 'alive' ? doubtfulAfterMs : deadAfterMs))
  }

  /** When a probe has been unanswered for so long. */
  silentAt(peer: number, { unansweredSince }: Watch, after: number): number {
    return unansweredSince > 0 ? unansweredSince + (after + 2 * this.#peers.rttMs[peer]!) : Infinity
  }

  /** Something has concerned the peer lately. */
  isActive(peer: number, now: number): boolean {
    return this.activeUntil[peer]! > now
  }

  /** A peer that has not answered the last probe is probed more closely than an active one: no single loss makes it a doubtful one, and no few a dead one. */
  probeAt(peer: number, watch: Watch, now: number): number {
    const { activeIntervalMs, idleIntervalMs } = this.#options
    const { probedAt, askedAt, flowedAt, state } = watch
    if (watch.unansweredSince > 0 && state !== 'dead') {
      const rtt = this.#peers.rttMs[peer]!
      const least = watch.tries > 2 ? AGAIN_LATER_MS : AGAIN_MIN_MS
      const again = Math.max((watch.tries > 1 ? 2 : 1) * rtt + OVERDUE_MS, least)
      return probedAt + Math.min(again, activeIntervalMs)
    }
    if (!this.isActive(peer, now)) {
      if (state === 'dead') return this.#together(probedAt + idleIntervalMs)
      const seen = Math.min(Math.max(probedAt, askedAt), probedAt + ASKED_INTERVALS * idleIntervalMs)
      return this.#together(seen + watch.idleFor)
    }
    if (watch.attended) return Math.max(probedAt, watch.attendedAt) + ATTENDED_INTERVALS * activeIntervalMs
    const next = probedAt + activeIntervalMs
    // What has come lately, and has stopped.
    return flowedAt > probedAt ? Math.min(next, flowedAt + this.quiet(peer)) : next
  }

  /** When the path in use is to be probed once more, as nothing has come by it since the last probe, and another one is proven. */
  doubtAt(peer: number, { set: { current, paths } }: Watch, now: number): number {
    if (current === undefined || !this.isActive(peer, now)) return Infinity
    if (!paths.some((path) => path !== current && path.proven)) return Infinity
    let probes = 0
    for (const { sentAt } of current.pending) if (sentAt >= current.heardAt) probes++
    return probes > 0 && probes < silentAfter(current) ? current.sentAt + DOUBT_MS : Infinity
  }

  /** When the proven paths beside the one in use are probed since that one may have fallen silent: as soon as a probe of it is overdue. What comes back tells which of them still work. */
  refugesAt(peer: number, { set: { current, paths } }: Watch, now: number): number {
    if (current === undefined || !this.isActive(peer, now)) return Infinity
    const overdue = current.pending.find(({ sentAt }) => sentAt >= current.heardAt)
    if (overdue === undefined || !paths.some((path) => isUnasked(path, current, overdue.sentAt))) return Infinity
    return overdue.sentAt + current.patience
  }

  /** When a path that the peer prefers, and that was challenged for it, is to be challenged again. */
  challengeAt(path: Path): number {
    const open = path.trafficAt > path.provenAt && path.challenges > 0 && path.challenges < CHALLENGES_MAX
    return open ? path.sentAt + CHALLENGE_MS : Infinity
  }

  /** When a path may be probed, as far as it leads to an address that is not proven; Infinity: not before something comes from there. */
  opensAt(watch: Watch, path: Path): number {
    const opensAt = path.remote.opensAt(PROBE_BYTES)
    return opensAt === -Infinity || watch.set.isNext(path) ? opensAt : Infinity
  }

  /** When a path beside the one in use is to be probed, so that it is proven when it is needed. */
  besideAt(peer: number, watch: Watch, path: Path, now: number): number {
    if (path === watch.set.current || !path.usable) return Infinity
    const { standbyActiveMs, standbyIdleMs, idleIntervalMs } = this.#options
    const { validated, announced } = path.remote
    const opensAt = this.opensAt(watch, path)
    if (opensAt > -Infinity) return opensAt
    if (!this.isActive(peer, now)) return this.#together(path.sentAt + (validated ? standbyIdleMs : idleIntervalMs))
    if (path.state === 'proven') return path.sentAt + Math.max(standbyActiveMs, 10 * path.rttMs)
    if (validated || announced)
      return path.sentAt + Math.min(UNPROVEN_MS * 2 ** Math.min(path.tries, 10) + path.rttMs, idleIntervalMs)
    return Infinity
  }

  /** Of the moments at which idle peers are probed the last one till then. */
  #together(at: number): number {
    return Math.floor((at - this.#phase) / TOGETHER_MS) * TOGETHER_MS + this.#phase
  }
}

/** Whether the path is proven beside the one in use, and was not probed since then. */
function isUnasked(path: Path, current: Path, since: number): boolean {
  return path !== current && path.proven && path.sentAt <= since
}

/** Whether probes of the path stay unanswered, and nothing else comes by it. */
export function isSilent(path: Path, now: number): boolean {
  return path.misses(now, path.heardAt) >= silentAfter(path) || path.misses(now) >= DEAF_AFTER
}

/** When the path becomes a silent one unless something comes by it; Infinity: more probes have to be sent first. */
function silentAt(path: Path): number {
  let left = silentAfter(path)
  for (const { sentAt } of path.pending) if (sentAt >= path.heardAt && --left === 0) return sentAt + path.patience
  const deaf = path.pending[DEAF_AFTER - 1]
  return deaf === undefined ? Infinity : deaf.sentAt + path.patience
}

function silentAfter(path: Path): number {
  return path.loss > LOSSY ? SILENT_AFTER_LOSSY : SILENT_AFTER
}
