import { FOLLOW_MS } from './cadence.js'
import { lossless, OVERTAKING_MS, type Path, type PathReason } from './path.js'
import type { PathSet } from './path-set.js'
import type { Liveness, PathCommit } from './prober-sink.js'
import type { SourceChoice } from './source-choice.js'

/** Round trips that a peer needs to follow, at most: to prove the way, and until its frames come by it. */
const FOLLOWED_ROUNDS = 2

/** For so long what went elsewhere than to the path in use may be on its way, ms. */
const STRAYED_MS = 1_000

/** What the prober knows of a peer. */
export interface Watch {
  readonly set: PathSet
  readonly sourceChoice: SourceChoice
  state: Liveness
  /** Last authenticated frame of the peer, over any path; and of a flow. */
  heardAt: number
  flowedAt: number
  /** The path by which the last frame came that was no probe of another path and no echo. */
  trafficBy: Path | undefined
  /** Not later than the next look at the peer. */
  nextAt: number
  /** When the peer was probed last. */
  probedAt: number
  /** When the peer has probed this host last. */
  askedAt: number
  /** From then to the next one while the peer is idle, ms. */
  idleFor: number
  /** First probe sent since the peer was last heard; 0: none outstanding. */
  unansweredSince: number
  /** Probes sent since then. */
  tries: number
  /** Until when the peer answers nothing, as it has said: it is left alone. */
  restsUntil: number
  /** Somebody else looks after it, and says so when it falls silent. */
  attended: boolean
  /** Since when, ms, the last time. */
  attendedAt: number
  /** While frames wait for the proof of where the peer sends from: until when at most, else Infinity; and until when that is not done again. */
  courtedUntil: number
  shyUntil: number
  /** When frames went elsewhere than to the path in use, in the hope that it would be proven, the last time, ms. */
  strayedAt: number
  /** The path that was in use before; and the one that this host has left by itself for the one in use. */
  before: Path | undefined
  left: Path | undefined
  /** A move of which nothing has been heard yet. */
  moving: PathCommit | undefined
}

/** Of a peer that was heard just now. */
export function newWatch(set: PathSet, sourceChoice: SourceChoice, idleFor: number, now: number): Watch {
  return {
    set,
    sourceChoice,
    state: 'alive',
    heardAt: now,
    flowedAt: -Infinity,
    trafficBy: undefined,
    nextAt: now,
    probedAt: -Infinity,
    askedAt: -Infinity,
    idleFor,
    unansweredSince: 0,
    tries: 0,
    restsUntil: 0,
    attended: false,
    attendedAt: -Infinity,
    courtedUntil: Infinity,
    shyUntil: -Infinity,
    strayedAt: -Infinity,
    before: undefined,
    left: undefined,
    moving: undefined,
  }
}

/** That frames go by `path` from now on, and went to the address slot `from`, -1: nowhere, and by the path `before`. */
export function commitOf(
  peer: number,
  from: number,
  path: Path,
  before: Path | undefined,
  reason: PathReason,
  now: number,
): PathCommit {
  return {
    ...{ peer, from, to: path.slot, reason },
    heardAt: before?.heardAt ?? -Infinity,
    lossy: from >= 0 && !lossless.has(reason),
    reachedAt: before === undefined ? Infinity : reachedBefore(path, before, reason, now),
    openSince: path.reachedAt > -Infinity ? path.reachedAt : Infinity,
  }
}

/**
 * Until when what went the way before has arrived, as far as anybody knows, ms. A peer that goes another way says when it last heard what came by that one. One that does not say it, goes a
 * way that had been proven before, and has not given up the old one, hears nothing by that. Else what comes by a way is answered by it.
 */
function reachedBefore(path: Path, before: Path, reason: PathReason, now: number): number {
  const roundTrip = before.rttMs + 4 * before.rttVarMs + OVERTAKING_MS
  if (reason === 'peer-moved' && path.toldAt > -Infinity) return path.toldAt - path.rttMs - roundTrip
  const forSilence =
    reason === 'silent' || (reason === 'peer-moved' && before.lasting && (path.samples > 1 || path.changedAt < now))
  return forSilence ? before.reachedAt : before.heardAt - roundTrip
}

/** The peer says by this path that by then it had what went to it by the one in use. */
export function told(path: Path, { set: { current }, strayedAt }: Watch, at: number): void {
  // What went elsewhere, or by the way before, may be what it has heard.
  const unsure = Math.max(strayedAt, current?.usedSince ?? -Infinity)
  if (path !== current && at > unsure + STRAYED_MS) path.toldAt = at
}

/** No answer of the peer is outstanding: it has come, or is not to be expected. */
export function waitsForNothing(watch: Watch): void {
  watch.unansweredSince = 0
  watch.tries = 0
}

/** What came by that path shows that the peer prefers it. */
export function sentBy(path: Path, watch: Watch, now: number): void {
  path.trafficAt = now
  watch.trafficBy = path
}

/** The path is in use from now on. */
export function enter(path: Path, watch: Watch, reason: PathReason): void {
  watch.before = watch.set.current
  watch.left = reason === 'peer-moved' ? undefined : watch.before
  watch.shyUntil = -Infinity
  watch.set.current = path
}

/** This host would have gone by the path in use without the peer, which was quicker: what it has not sent to there yet does not lead back. */
export function prefer(path: Path, watch: Watch, now: number): void {
  watch.left = watch.before
  path.usedSince = now
}

/** Whether the peer, as far as can be seen, sends by that path since then: what was still on its way when it left another one does not call back there. */
export function sendsBy(path: Path, { trafficBy }: Watch, since: number): boolean {
  return trafficBy === path && path.trafficAt >= since
}

/** A peer that has not heard yet that an address is about to go, or that has not had the time to follow, is not followed back. */
export function mayFollow(path: Path, { set: { current }, left }: Watch, now: number): boolean {
  if (current === undefined) return true
  if (path === left && now < current.usedSince + FOLLOWED_ROUNDS * current.patience + FOLLOW_MS) return false
  return path.lasting || !current.lasting
}
