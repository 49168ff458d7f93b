import { ADDRESS_RECORD } from '../wire/batch.js'
import type { PeerTable } from './peers.js'

/** How often, and how patiently, paths are probed. All ms. */
export interface ProberOptions {
  /** Between probes of a peer that has flows or binds. */
  readonly activeIntervalMs: number
  /** A peer with flows or binds whose frames stop coming is probed after this and a round trip. */
  readonly quietMs: number
  /** Between probes of an idle peer, at most: each wait is shorter by up to the share `idleJitter`, at random, so that a host's peers do not all look at it at the same moment. */
  readonly idleIntervalMs: number
  readonly idleJitter: number
  /** A peer counts as active this long after its last flow or bind. */
  readonly activeForMs: number
  /** How long a probe is unanswered, with two round trips, until the peer is doubtful, and until it is dead; others follow the first ever since it was overdue. */
  readonly doubtfulAfterMs: number
  readonly deadAfterMs: number
  /** Paths remembered per peer. */
  readonly pathsMax: number
}

export const proberDefaults: ProberOptions = {
  activeIntervalMs: 200,
  quietMs: 50,
  idleIntervalMs: 15_000,
  idleJitter: 0.3,
  activeForMs: 60_000,
  doubtfulAfterMs: 300,
  deadAfterMs: 700,
  pathsMax: 8,
}

export interface ProberSink {
  /** Seal and send a probe frame to this address slot. */
  sendProbe(peer: number, addressSlot: number, token: Uint8Array): void
  /** The peer's liveness changed. */
  liveness(peer: number, state: Liveness, now: number): void
  /** Frames of the peer go another way now. */
  moved(peer: number, addressSlot: number, now: number): void
}

export type Liveness = 'alive' | 'doubtful' | 'dead'

interface Path {
  readonly slot: number
  /** When our probe was last echoed from there; 0: never. */
  provenAt: number
  rttMs: number
  /** Probes not yet echoed, newest last; at most PENDING, so that a round trip longer than the interval is still measured. */
  pending: { readonly token: Uint8Array; readonly sentAt: number }[]
  sentAt: number
  /** When the peer last sent what it sends the way that it prefers, from there. */
  trafficAt: number
  /** Probes of a path that the peer has come to prefer, since it last did and as none has come back. */
  challenges: number
}

interface Watch {
  paths: Path[]
  state: Liveness
  /** Last authenticated frame of the peer, over any path; the last one that was no probe of another path and no echo. */
  heardAt: number
  trafficAt: number
  activeUntil: number
  /** Not later than the next look at the peer. */
  nextAt: number
  /** When the peer was probed last. */
  probedAt: number
  /** From then to the next one while the peer is idle, ms. */
  idleFor: number
  /** First probe sent since the peer was last heard; 0: none outstanding. */
  unansweredSince: number
  /** Probes sent since then. */
  tries: number
}

const TOKEN = 16
const PENDING = 16
/** An echo that takes longer than two round trips and this is overdue. */
const OVERDUE_MS = 20
/**
 * Between probes of a peer that has not answered: the second follows when a round trip and OVERDUE_MS have passed, for it may be lost, the others when the last one is overdue; none
 * sooner than the first of these two, and none but the first two sooner than the other.
 */
const AGAIN_MIN_MS = 40
const AGAIN_LATER_MS = 100
/** Challenges of a path, and the time between them: one may be lost, and together they are less than three times what came from there. */
const CHALLENGES_MAX = 2
const CHALLENGE_MS = 20
/** A look that comes so much too late says more about this host than about its peers. */
const LATE_MS = 50

/**
 * Proves paths and watches peers. A path is proven by our own probe and its echo, nothing else; frames go only to proven paths, except
 * during the handshake that opened the session. Probe tokens are random, so an echo cannot be forged without having seen the probe.
 */
export class PathProber {
  readonly #watches = new Map<number, Watch>()
  readonly #options: ProberOptions
  /** Not later than the next look at any peer; undefined: to be worked out anew. */
  #due: number | undefined

  constructor(
    private readonly components: {
      readonly peers: PeerTable
      readonly randomBytes: (length: number) => Uint8Array
      readonly sink: ProberSink
    },
    options: Partial<ProberOptions> = {},
  ) {
    this.#options = { ...proberDefaults, ...options }
  }

  /** A session came up over this address: the handshake has proven it. */
  established(peer: number, record: Uint8Array, now: number): void {
    const watch = this.#watch(peer, now)
    const path = this.#path(peer, watch, record, 0)
    watch.heardAt = now
    watch.unansweredSince = 0
    watch.tries = 0
    this.#schedule(watch, now)
    if (path !== undefined) {
      path.provenAt = now
      this.#use(peer, watch, path, now)
    }
    this.#setState(peer, watch, 'alive', now)
  }

  /** The session is gone for good: forget the peer's paths. */
  forget(peer: number): void {
    const { peers } = this.components
    const watch = this.#watches.get(peer)
    if (watch === undefined) return
    for (const path of watch.paths) peers.addresses.release(path.slot)
    this.#watches.delete(peer)
    this.#due = undefined
    peers.addressSlot[peer] = -1
  }

  /** A flow or bind concerns the peer: watch it closely for a while. */
  active(peer: number, now: number): void {
    const watch = this.#watches.get(peer)
    if (watch === undefined) return
    const wasIdle = watch.activeUntil <= now
    watch.activeUntil = now + this.#options.activeForMs
    if (wasIdle) this.#schedule(watch, now + this.#quiet(peer))
  }

  /**
   * An authenticated frame came from the record at `offset`. Called once a batch entry; allocates nothing when the address is the
   * one in use. An unknown address is challenged with a probe of about the size of what came: never more than three times the bytes.
   * `traffic`: it was no echo, and no probe of another path than the one in use there, so the peer itself prefers to send from there.
   */
  heard(peer: number, records: Uint8Array, offset: number, now: number, traffic = true): void {
    const { peers } = this.components
    const watch = this.#watches.get(peer)
    if (watch === undefined) return
    this.#alive(peer, watch, now, traffic)
    const current = peers.addressSlot[peer]!
    if (current >= 0 && peers.addresses.matches(current, records, offset)) {
      peers.heardAt[peer] = now
      return
    }
    const path = this.#path(peer, watch, records, offset)
    if (path === undefined) return
    if (traffic) {
      path.trafficAt = now
      path.challenges = 0
    }
    // Probes and echoes must not bring forth others in turns.
    if (now - path.sentAt < (traffic ? CHALLENGE_MS : this.#options.idleIntervalMs)) return
    path.challenges++
    this.#probe(peer, path, now)
    this.#schedule(watch, now + CHALLENGE_MS)
  }

  /** An authenticated frame came by a lane that says nothing of the peer's paths. `traffic` as for {@link heard}. */
  heardAside(peer: number, now: number, traffic = true): void {
    const watch = this.#watches.get(peer)
    if (watch !== undefined) this.#alive(peer, watch, now, traffic)
  }

  #alive(peer: number, watch: Watch, now: number, traffic: boolean): void {
    watch.heardAt = now
    if (traffic) {
      watch.trafficAt = now
      if (watch.activeUntil > now && watch.nextAt > now + this.#quiet(peer))
        this.#schedule(watch, now + this.#quiet(peer))
    }
    if (watch.unansweredSince > 0) {
      watch.unansweredSince = 0
      watch.tries = 0
      if (watch.state !== 'alive') this.#setState(peer, watch, 'alive', now)
      // No need to look whether an answer has come.
      this.#arm(peer, watch, now)
    } else if (watch.state !== 'alive') this.#setState(peer, watch, 'alive', now)
  }

  /** Our probe came back from the record at `offset`. */
  echoed(peer: number, token: Uint8Array, records: Uint8Array, offset: number, now: number): void {
    const { peers } = this.components
    const watch = this.#watches.get(peer)
    if (watch === undefined || token.length < TOKEN) return
    const path = watch.paths.find((p) => peers.addresses.matches(p.slot, records, offset))
    const index = path?.pending.findIndex((probe) => sameBytes(probe.token, token)) ?? -1
    if (path === undefined || index < 0) return
    const { sentAt } = path.pending[index]!
    path.pending.splice(0, index + 1)
    const sample = Math.max(now - sentAt, 0.01)
    path.rttMs = path.rttMs === 0 ? sample : path.rttMs * 0.875 + sample * 0.125
    path.provenAt = now
    const current = watch.paths.find((p) => p.slot === peers.addressSlot[peer])
    if (current === path) peers.rttMs[peer] = path.rttMs
    else if (current === undefined) this.#use(peer, watch, path, now)
    else if (sentAt >= current.provenAt && this.#isBetter(path, current, sentAt, now)) this.#use(peer, watch, path, now)
  }

  /** Of two paths that work the one in use stays, for frames overtake each other on every change: unless it is silent, or the peer has left it. */
  #isBetter(path: Path, current: Path, sentAt: number, now: number): boolean {
    return path.trafficAt >= sentAt - this.#options.activeIntervalMs || this.#silent(current, now)
  }

  /** Whether an echo of the path is overdue. */
  #silent(path: Path, now: number): boolean {
    const first = path.pending[0]
    return first !== undefined && now >= first.sentAt + (2 * path.rttMs + OVERDUE_MS)
  }

  #quiet(peer: number): number {
    return this.#options.quietMs + this.components.peers.rttMs[peer]!
  }

  /** Address slot of the record at `offset` among the peer's paths, for an answer to where something came from; -1: not watched, or too many. */
  slotOf(peer: number, records: Uint8Array, offset: number): number {
    const watch = this.#watches.get(peer)
    return (watch && this.#path(peer, watch, records, offset)?.slot) ?? -1
  }

  /** The peer says that it can be reached there, too: a path to be proven when the one in use falls silent. */
  candidate(peer: number, record: Uint8Array, now: number): void {
    const watch = this.#watches.get(peer)
    const path = watch && this.#path(peer, watch, record, 0)
    if (watch !== undefined && path !== undefined && watch.state !== 'alive') this.#schedule(watch, now)
  }

  /** Somebody suspects the peer: look at it closely now. */
  suspect(peer: number, now: number): void {
    const watch = this.#watches.get(peer)
    if (watch === undefined) return
    watch.activeUntil = Math.max(watch.activeUntil, now + 2 * this.#options.deadAfterMs)
    this.#schedule(watch, now)
  }

  /** The host's links have changed: all paths of the peers that matter now are probed at once. */
  linksChanged(now: number): void {
    for (const watch of this.#watches.values()) {
      if (watch.activeUntil <= now) continue
      watch.probedAt = -Infinity
      for (const path of watch.paths) path.sentAt = -Infinity
      this.#schedule(watch, now)
    }
  }

  liveness(peer: number): Liveness | undefined {
    return this.#watches.get(peer)?.state
  }

  /** When the peer was last heard, ms; undefined: not watched. */
  heardAt(peer: number): number | undefined {
    return this.#watches.get(peer)?.heardAt
  }

  /** What is known of the peer's paths, for display. */
  paths(peer: number): { readonly slot: number; readonly rttMs: number; readonly provenAt: number }[] {
    return (this.#watches.get(peer)?.paths ?? []).map(({ slot, rttMs, provenAt }) => ({ slot, rttMs, provenAt }))
  }

  handleTimeout(now: number): void {
    const due = this.nextTimeout()
    if (now < due) return
    const late = now - due > LATE_MS ? now - due : 0
    let next = Infinity
    for (const [peer, watch] of this.#watches) {
      if (watch.unansweredSince > 0) watch.unansweredSince += late
      if (now >= watch.nextAt) this.#look(peer, watch, now)
      next = Math.min(next, watch.nextAt)
    }
    this.#due = next
  }

  /** It may turn out that there is nothing to do. */
  nextTimeout(): number {
    if (this.#due !== undefined) return this.#due
    let due = Infinity
    for (const { nextAt } of this.#watches.values()) due = Math.min(due, nextAt)
    return (this.#due = due)
  }

  /** The peer is to be looked at then, or earlier. */
  #schedule(watch: Watch, at: number): void {
    if (at >= watch.nextAt) return
    watch.nextAt = at
    if (this.#due !== undefined) this.#due = Math.min(this.#due, at)
  }

  /** The peer is to be looked at when there is something to do. */
  #arm(peer: number, watch: Watch, now: number): void {
    if (watch.nextAt === this.#due) this.#due = undefined
    watch.nextAt = this.#nextLook(peer, watch, now)
    if (this.#due !== undefined) this.#due = Math.min(this.#due, watch.nextAt)
  }

  #look(peer: number, watch: Watch, now: number): void {
    const { doubtfulAfterMs, deadAfterMs } = this.#options
    if (now >= this.#silentAt(peer, watch, deadAfterMs)) this.#setState(peer, watch, 'dead', now)
    else if (now >= this.#silentAt(peer, watch, doubtfulAfterMs)) this.#setState(peer, watch, 'doubtful', now)
    if (now >= this.#probeAt(peer, watch, now)) this.#probeAll(peer, watch, now)
    for (const path of watch.paths) {
      if (now < this.#challengeAt(path)) continue
      path.challenges++
      this.#probe(peer, path, now)
    }
    watch.nextAt = this.#nextLook(peer, watch, now)
  }

  #nextLook(peer: number, watch: Watch, now: number): number {
    let next = this.#probeAt(peer, watch, now)
    for (const path of watch.paths) next = Math.min(next, this.#challengeAt(path))
    if (watch.state === 'dead') return next
    const { doubtfulAfterMs, deadAfterMs } = this.#options
    return Math.min(next, this.#silentAt(peer, watch, watch.state === 'alive' ? doubtfulAfterMs : deadAfterMs))
  }

  /** When a probe has been unanswered for so long. */
  #silentAt(peer: number, { unansweredSince }: Watch, after: number): number {
    return unansweredSince > 0 ? unansweredSince + (after + 2 * this.components.peers.rttMs[peer]!) : Infinity
  }

  /** A peer that has not answered the last probe is probed more closely than an active one: no single loss makes it a doubtful one, and no few a dead one. */
  #probeAt(peer: number, watch: Watch, now: number): number {
    const { activeIntervalMs, idleIntervalMs } = this.#options
    const { probedAt, trafficAt, state } = watch
    if (watch.unansweredSince > 0 && state !== 'dead') {
      const rtt = this.components.peers.rttMs[peer]!
      const least = watch.tries > 2 ? AGAIN_LATER_MS : AGAIN_MIN_MS
      const again = Math.max((watch.tries > 1 ? 2 : 1) * rtt + OVERDUE_MS, least)
      return probedAt + Math.min(again, activeIntervalMs)
    }
    if (watch.activeUntil <= now) return probedAt + (state === 'dead' ? idleIntervalMs : watch.idleFor)
    const next = probedAt + activeIntervalMs
    // What has come lately, and has stopped.
    return trafficAt > probedAt ? Math.min(next, trafficAt + this.#quiet(peer)) : next
  }

  /** When a path that the peer prefers, and that was challenged for it, is to be challenged again. */
  #challengeAt(path: Path): number {
    const open = path.trafficAt > path.provenAt && path.challenges < CHALLENGES_MAX
    return open ? path.sentAt + CHALLENGE_MS : Infinity
  }

  #probeAll(peer: number, watch: Watch, now: number): void {
    const { idleIntervalMs, idleJitter } = this.#options
    const current = this.components.peers.addressSlot[peer]
    const random = this.components.randomBytes(2)
    watch.probedAt = now
    watch.idleFor = idleIntervalMs * (1 - (idleJitter * (random[0]! * 256 + random[1]!)) / 65_536)
    const inUse = watch.paths.find(({ slot }) => slot === current)
    const others = watch.state !== 'alive' || inUse === undefined || this.#silent(inUse, now)
    // Traffic that comes in proves the peer as well as an echo would; a busy path is still probed now and then for its RTT.
    for (const path of watch.paths) {
      if (path === inUse || others || now - path.sentAt >= idleIntervalMs) this.#probe(peer, path, now)
    }
    if (watch.unansweredSince === 0) watch.unansweredSince = now
    watch.tries++
  }

  #probe(peer: number, path: Path, now: number): void {
    const token = this.components.randomBytes(TOKEN)
    path.pending.push({ token, sentAt: now })
    if (path.pending.length > PENDING) path.pending.shift()
    path.sentAt = now
    this.components.sink.sendProbe(peer, path.slot, token)
  }

  #use(peer: number, watch: Watch, path: Path, now: number): void {
    const { peers, sink } = this.components
    const before = peers.addressSlot[peer]
    peers.addressSlot[peer] = path.slot
    if (path.rttMs > 0) peers.rttMs[peer] = path.rttMs
    if (before !== path.slot) sink.moved(peer, path.slot, now)
    this.#schedule(watch, now + this.#options.activeIntervalMs)
  }

  #setState(peer: number, watch: Watch, state: Liveness, now: number): void {
    if (watch.state === state) return
    watch.state = state
    this.components.sink.liveness(peer, state, now)
  }

  #watch(peer: number, now: number): Watch {
    let watch = this.#watches.get(peer)
    if (watch === undefined) {
      watch = {
        paths: [],
        state: 'alive',
        heardAt: now,
        trafficAt: -Infinity,
        activeUntil: 0,
        nextAt: now,
        probedAt: -Infinity,
        idleFor: this.#options.idleIntervalMs,
        unansweredSince: 0,
        tries: 0,
      }
      this.#watches.set(peer, watch)
      this.#due = undefined
    }
    return watch
  }

  /** The path to the record, made on first sight; the least recently proven unused one gives way when there are too many. */
  #path(peer: number, watch: Watch, records: Uint8Array, offset: number): Path | undefined {
    const { addresses, addressSlot } = this.components.peers
    const known = watch.paths.find((p) => addresses.matches(p.slot, records, offset))
    if (known !== undefined) return known
    if (watch.paths.length >= this.#options.pathsMax) {
      const unused = watch.paths.filter((p) => p.slot !== addressSlot[peer]).sort((a, b) => a.provenAt - b.provenAt)[0]
      if (unused === undefined) return undefined
      addresses.release(unused.slot)
      watch.paths.splice(watch.paths.indexOf(unused), 1)
    }
    const slot = addresses.acquire(records.subarray(offset, offset + ADDRESS_RECORD))
    if (slot < 0) return undefined
    const path: Path = {
      slot,
      provenAt: 0,
      rttMs: 0,
      pending: [],
      sentAt: -Infinity,
      trafficAt: -Infinity,
      challenges: 0,
    }
    watch.paths.push(path)
    return path
  }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < TOKEN; i++) if (a[i] !== b[i]) return false
  return true
}
