import { ADDRESS_LOCAL, ADDRESS_RECORD } from '../wire/batch.js'
import { PROBE_TOKEN } from '../wire/constants.js'
import { isPinned } from './address-record.js'
import {
  Cadence,
  CHALLENGE_MS,
  CHALLENGES_MAX,
  FOLLOW_MS,
  isSilent,
  MOVED_PROBE_BYTES,
  PROBE_BYTES,
} from './cadence.js'
import { OwnAddresses } from './candidates.js'
import { Holding } from './holding.js'
import { worksStill, type Path, type PathReason } from './path.js'
import { PathSet } from './path-set.js'
import { Hold, type PeerTable } from './peers.js'
import { proberDefaults, type ProberOptions } from './prober-options.js'
import type { Liveness, PathView, ProberSink } from './prober-sink.js'
import { announcedBytes, type AddressStanding, type Remote } from './remote.js'
import { SourceChoice } from './source-choice.js'
import { commitOf, enter, mayFollow, newWatch, prefer, sendsBy, sentBy, told, waitsForNothing } from './watch.js'
import type { Watch } from './watch.js'

/** A path must be better than the one in use at so many probes in a row. */
const BETTER_FOR = 4
/** A look that comes so much too late says more about this host than about its peers. */
const LATE_MS = 50

/**
 * Proves paths, watches peers, and chooses among the paths to each. A path is proven by our own probe and its echo, nothing else; frames go only where the peer has been proven to be,
 * except during the handshake that opened the session. Probe tokens are random, so an echo cannot be forged without having seen the probe.
 *
 *   unproven ──echo──▶ proven ──probes overdue──▶ suspect ──for long, or an address is gone──▶ dead      any ──echo──▶ proven
 *
 * Frames of flows wait while the path in use is known not to work and there is no other: an address of it is gone, or the peer does not answer any more.
 *
 * The path in use is left at once when it is silent, an address of it is gone or about to go, the peer has left it, or this host's routes have come to prefer another own address; for a
 * better one only when that is clear and lasts.
 */
export class PathProber {
  readonly own: OwnAddresses
  /** How often frames of a peer have gone another way since then, by why. */
  readonly commits = new Map<PathReason, number>()
  /** Probes of paths, and those that have come back. */
  readonly probes = { sent: 0, echoed: 0 }
  readonly #watches = new Map<number, Watch>()
  readonly #options: ProberOptions
  readonly #cadence: Cadence
  readonly #holding: Holding
  /** Not later than the next look at any peer; undefined: to be worked out anew. */
  #due: number | undefined

  constructor(
    private readonly components: {
      readonly peers: PeerTable
      readonly randomBytes: (length: number) => Uint8Array
      /** Whether this host has a route to the address of a record. */
      readonly isRouted: (record: Uint8Array) => boolean
      readonly sink: ProberSink
    },
    options: Partial<ProberOptions> = {},
  ) {
    this.#options = { ...proberDefaults, ...options }
    this.own = new OwnAddresses(components.isRouted)
    this.#cadence = new Cadence(components.peers, this.#options)
    this.#holding = new Holding(components.peers, components.sink)
  }

  /** A session came up over this address: the handshake has proven it. */
  established(peer: number, record: Uint8Array, now: number): void {
    const watch = this.#watch(peer, now)
    const path = watch.set.cameBy(record, 0, now)
    watch.heardAt = now
    waitsForNothing(watch)
    this.#schedule(watch, now)
    if (path !== undefined) {
      path.provenAt = now
      path.heardAt = now
      path.remote.validated = true
      path.set('proven', 'established', now)
      this.#use(peer, watch, path, 'established', now)
    }
    this.#setState(peer, watch, 'alive', now)
  }

  /** The session is gone for good: forget the peer's paths. */
  forget(peer: number): void {
    const { peers } = this.components
    const watch = this.#watches.get(peer)
    if (watch === undefined) return
    watch.set.release()
    watch.sourceChoice.release()
    this.#watches.delete(peer)
    this.#due = undefined
    peers.setPath(peer, -1)
    this.#holding.forget(peer)
  }

  /** A flow or bind concerns the peer: watch it closely for a while. */
  active(peer: number, now: number): void {
    const wasActive = this.#cadence.isActive(peer, now)
    this.#cadence.activeUntil[peer] = now + this.#options.activeForMs
    if (wasActive) return
    const watch = this.#watches.get(peer)
    if (watch !== undefined) this.#schedule(watch, now + this.#cadence.quiet(peer))
  }

  /**
   * An authenticated frame of so many bytes came from the record at `offset`. Called once a batch entry; allocates nothing when the address is the
   * one in use. An unknown address is challenged with a probe: never more than three times the bytes.
   * `traffic`: it was no echo, and no probe of another path than the one in use there, so the peer itself prefers to send from there.
   */
  heard(peer: number, records: Uint8Array, offset: number, now: number, traffic = true, bytes = PROBE_BYTES): void {
    const { peers } = this.components
    const watch = this.#watches.get(peer)
    if (watch === undefined) return
    this.#alive(peer, watch, now)
    const { current } = watch.set
    if (current !== undefined && peers.addresses.matches(current.slot, records, offset)) {
      peers.heardAt[peer] = now
      current.heardAt = now
      if (traffic) sentBy(current, watch, now)
      if (peers.addressSlot[peer]! < 0) this.#holding.heardAgain(peer, watch, current, traffic, now)
      if (watch.moving !== undefined) this.#settle(watch, now)
      return
    }
    const path = watch.set.cameBy(records, offset, now)
    if (path === undefined) return
    path.heardAt = now
    path.remote.came(bytes)
    const left = traffic && mayFollow(path, watch, now) && (current?.trafficAt ?? -Infinity) < now - FOLLOW_MS
    if (traffic) {
      sentBy(path, watch, now)
      path.challenges = 0
      if (path.proven && left) return this.#use(peer, watch, path, 'peer-moved', now)
    }
    // Probes and echoes must not bring forth others in turns.
    if (now - path.sentAt >= (traffic ? CHALLENGE_MS : this.#options.idleIntervalMs)) {
      path.challenges++
      this.#probe(peer, path, now)
      this.#schedule(watch, now + CHALLENGE_MS)
      if (left && path.pending.length > 0 && this.#holding.court(peer, watch, path, now))
        this.#schedule(watch, watch.courtedUntil)
    }
    if (!left) return
    watch.strayedAt = now
    this.#holding.spend(peer, path, now)
  }

  /** The peer's frames keep coming, and somebody else notices when they stop; or no more. */
  attend(peer: number, on: boolean, now: number): void {
    const watch = this.#watches.get(peer)
    if (watch === undefined || watch.attended === on) return
    watch.attended = on
    if (on) watch.attendedAt = now
    this.#arm(peer, watch, now)
  }

  /** An authenticated frame came by a lane that says nothing of the peer's paths. */
  heardAside(peer: number, now: number): void {
    const watch = this.#watches.get(peer)
    if (watch !== undefined) this.#alive(peer, watch, now)
  }

  /** Of the frames that were heard at least one was of a flow: when no more of those come, the peer is probed soon. Probes and what answers them must not bring forth others in turns. */
  flowed(peer: number, now: number): void {
    const watch = this.#watches.get(peer)
    if (watch === undefined) return
    watch.flowedAt = now
    if (this.#cadence.isActive(peer, now) && !watch.attended) this.#schedule(watch, now + this.#cadence.quiet(peer))
  }

  #alive(peer: number, watch: Watch, now: number): void {
    watch.heardAt = now
    const waited = watch.unansweredSince > 0
    if (waited) waitsForNothing(watch)
    this.#setState(peer, watch, 'alive', now)
    // No need to look whether an answer has come.
    if (waited) this.#arm(peer, watch, now)
  }

  /** Our probe came back from the record at `offset`. Returns the address slot of the path, if that is now one beside the one in use; else -1. */
  echoed(peer: number, token: Uint8Array, records: Uint8Array, offset: number, now: number): number {
    const { peers } = this.components
    const watch = this.#watches.get(peer)
    if (watch === undefined || token.length < PROBE_TOKEN) return -1
    const path = watch.set.find(records, offset)
    const askedAt = watch.sourceChoice.answered(token)
    if (askedAt !== undefined) path?.probed(token, askedAt)
    const sentAt = path?.echoed(token, now)
    if (path === undefined || sentAt === undefined) return -1
    this.probes.echoed++
    path.localSeen = records.slice(offset + ADDRESS_LOCAL, offset + ADDRESS_RECORD)
    const rerouted = askedAt !== undefined && watch.sourceChoice.answer(watch.set.recordOf(path), path.localSeen)
    if (path.usable) path.set('proven', 'proven', now)
    const { current } = watch.set
    if (current === path && rerouted) prefer(path, watch, now)
    if (current === path) peers.measured(peer, path.rttMs, path.leastRttMs)
    else if (current === undefined) this.#use(peer, watch, path, 'proven', now)
    else if (rerouted && path.lasting && watch.set.leadsAlike(path)) this.#use(peer, watch, path, 'rerouted', now)
    else this.#consider(peer, watch, path, current, sentAt, now)
    return path.proven && path !== watch.set.current ? path.slot : -1
  }

  /** A probe came from the record at `offset`. `heardAgo`: how long before it went, as it says, the peer last heard what this host sends by the way in use, which works, ms. */
  asked(peer: number, heardAgo: number | undefined, records: Uint8Array, offset: number, now: number): void {
    const watch = this.#watches.get(peer)
    if (watch === undefined) return
    watch.askedAt = now
    const path = heardAgo === undefined ? undefined : watch.set.find(records, offset)
    if (path !== undefined) told(path, watch, now - heardAgo!)
  }

  /** Of two paths that work the one in use stays, for frames overtake each other on every change: unless it is silent or about to go, the peer has left it, or the other is clearly better. */
  #consider(peer: number, watch: Watch, path: Path, current: Path, sentAt: number, now: number): void {
    if (!path.usable) return
    if (!current.usable) return this.#use(peer, watch, path, 'address-gone', now)
    if (path.lasting && !current.lasting) return this.#use(peer, watch, path, 'deprecated', now)
    if (sentAt >= current.provenAt) {
      if (sendsBy(path, watch, sentAt - this.#options.activeIntervalMs) && mayFollow(path, watch, now))
        return this.#use(peer, watch, path, 'peer-moved', now)
      if (isSilent(current, now)) return this.#use(peer, watch, path, 'silent', now)
    }
    path.betterFor = watch.set.isBetter(path) ? path.betterFor + 1 : 0
    // One end decides, and the other follows, so that both do not go opposite ways.
    if (path.betterFor >= BETTER_FOR && this.components.peers.hostId(peer) > this.components.peers.hostId(0))
      this.#use(peer, watch, path, 'better', now)
  }

  /** Address slots of the ways by which the peer may hear this host: the one in use, and with `all` every other one that a datagram of so many bytes may go. */
  ways(peer: number, all: boolean, bytes: number): number[] {
    return this.#watches.get(peer)?.set.ways(all, bytes) ?? []
  }

  /** Address slot for a control message of so many bytes: of the path in use, or, when that is known not to work, of the one from which the peer was heard last. */
  controlSlot(peer: number, bytes: number, now: number): number {
    const watch = this.#watches.get(peer)
    const current = watch?.set.current
    if (watch === undefined || current === undefined || watch.set.paths.length === 1 || current.works(now))
      return this.components.peers.pathSlot[peer]!
    const other = watch.set.heardLast()
    return other !== undefined && other.remote.mayCarry(bytes) ? other.slot : current.slot
  }

  /**
   * Address slot of the record at `offset` among the peer's paths, for an answer of so many bytes to where something came from; -1: not watched, too many, or more than may go there before
   * it is proven.
   */
  slotOf(peer: number, records: Uint8Array, offset: number, now: number, bytes = 0): number {
    const path = this.#watches.get(peer)?.set.cameBy(records, offset, now)
    if (path === undefined) return -1
    if (path.remote.mayCarry(bytes)) return path.slot
    this.components.sink.drop('amplification')
    return -1
  }

  /** The peer's address in the record at `offset`, from which something came; undefined: it is not among its paths. */
  remoteOf(peer: number, records: Uint8Array, offset: number): Remote | undefined {
    return this.#watches.get(peer)?.set.find(records, offset)?.remote
  }

  /**
   * The peer says that it can be reached there, too, or no longer: paths to be proven. `bytes`: of the message that says so, shared by the addresses in it: three times as many may go there.
   * `from`: where that message came from. Nothing is done about it before {@link review}.
   */
  candidate(
    peer: number,
    record: Uint8Array,
    now: number,
    bytes = PROBE_BYTES,
    standing: AddressStanding = 'usable',
    from?: Remote,
  ): void {
    const watch = this.#watches.get(peer)
    if (watch === undefined) return
    const remote = watch.set.offer(record, standing, now)
    if (standing === 'usable') remote.named(bytes, from, PROBE_BYTES)
    if (watch.state !== 'alive') this.#schedule(watch, now)
  }

  /** The peer's record names these addresses, and no others: those that it named before are about to go. */
  announced(peer: number, records: readonly Uint8Array[], now: number): void {
    const watch = this.#watches.get(peer)
    if (watch === undefined) return
    watch.set.announced(records, now)
    for (const record of records) this.candidate(peer, record, now, announcedBytes(records.length))
    this.review(peer, now)
  }

  /** What the peer says of its addresses, or this host's own are, has changed: the way to it is chosen anew, and new ones are proven at once when it matters. */
  review(peer: number, now: number): void {
    const watch = this.#watches.get(peer)
    if (watch === undefined) return
    this.#choose(peer, watch, now)
    const { current } = watch.set
    const urgent = current === undefined || !current.lasting || watch.state !== 'alive'
    if (!this.#cadence.isActive(peer, now) && !urgent) return
    for (const path of watch.set.paths)
      if (path.state !== 'proven' && now - path.sentAt >= CHALLENGE_MS) this.#probeOther(peer, watch, path, now)
    this.#schedule(watch, now)
  }

  /** This host has these addresses now; `moved`: it has left some. All peers' paths follow. */
  setOwn(
    records: readonly { readonly record: Uint8Array; readonly deprecated: boolean }[],
    moved: boolean,
    now: number,
  ): void {
    this.own.set(records)
    this.own.reroute()
    this.#followOwn(moved, now)
  }

  /** This host's routes have changed. Returns whether there is one again where there was none. */
  routesChanged(now: number): boolean {
    const found = this.own.reroute()
    if (found) this.#followOwn(false, now)
    return found
  }

  /** Whether this host has no route to the peer, which matters, any more: one may come after the address, and go before it. */
  #missesRoute(peer: number, { set }: Watch, now: number): boolean {
    return set.current !== undefined && this.#cadence.isActive(peer, now) && this.own.misses(set.recordOf(set.current))
  }

  /** All paths are those that this host's addresses and routes make of them. */
  #followOwn(moved: boolean, now: number): void {
    for (const [peer, watch] of this.#watches) {
      const before = watch.set.current
      const slot = before?.slot ?? -1
      const wasUsable = before?.usable ?? true
      if (before?.localSeen !== undefined && !isPinned(watch.set.recordOf(before)))
        watch.sourceChoice.learnt(watch.set.recordOf(before), before.localSeen)
      watch.set.review(now)
      if (this.#missesRoute(peer, watch, now)) watch.set.review(now)
      const { current } = watch.set
      if (current !== undefined && current.slot !== slot) {
        this.components.peers.setPath(peer, current.slot)
        this.#commit(peer, watch, slot, current, current, 'links-changed', now)
      } else if (current !== undefined && current.usable && (moved || !wasUsable)) {
        // The kernel chooses where from; until now it may have had nothing to choose.
        this.#commit(peer, watch, slot, current, current, 'address-gone', now)
      }
      this.review(peer, now)
      this.#askSource(peer, watch, now)
    }
  }

  /** The host's routes may prefer another own address to the peer now: the kernel is asked, of a peer that matters at once. */
  #askSource(peer: number, watch: Watch, now: number): void {
    const { current } = watch.set
    if (current === undefined || !isPinned(watch.set.recordOf(current))) return
    watch.sourceChoice.ask(now)
    this.#schedule(watch, this.#cadence.isActive(peer, now) ? now : watch.nextAt)
  }

  /** Leaves the path in use when there is a reason to and a better one is proven; where there is none, frames wait. */
  #choose(peer: number, watch: Watch, now: number): void {
    this.#leave(peer, watch, now)
    const { current } = watch.set
    if (current === undefined) return
    if (!current.usable || (watch.state !== 'alive' && isSilent(current, now)))
      this.#holding.begin(peer, Hold.noWay, now)
  }

  #leave(peer: number, watch: Watch, now: number): void {
    const { set } = watch
    const { current } = set
    const successor = set.successor(now)
    if (current?.usable === false) current.set('dead', 'address-gone', now)
    else if (current?.state === 'proven' && successor?.reason !== 'deprecated' && isSilent(current, now))
      current.set('suspect', 'silent', now)
    if (successor !== undefined) return this.#use(peer, watch, successor.path, successor.reason, now)
    if (current?.local !== 'gone') return
    const { slot } = current
    if (!set.unpin()) return
    this.components.peers.setPath(peer, current.slot)
    this.#commit(peer, watch, slot, current, current, 'address-gone', now)
  }

  /** The peer answers nothing until then, as it has said itself, and is not looked at meanwhile. */
  rest(peer: number, until: number, now: number): void {
    const watch = this.#watches.get(peer)
    if (watch === undefined) return
    watch.restsUntil = until
    waitsForNothing(watch)
    for (const path of watch.set.paths) path.forgetProbes()
    this.#arm(peer, watch, now)
  }

  /** Somebody suspects the peer: look at it closely now. */
  suspect(peer: number, now: number): void {
    const watch = this.#watches.get(peer)
    if (watch === undefined) return
    const { activeUntil } = this.#cadence
    activeUntil[peer] = Math.max(activeUntil[peer]!, now + 2 * this.#options.deadAfterMs)
    this.#schedule(watch, now)
  }

  /** The host's links have changed: all paths of the peers that matter now are probed at once. */
  linksChanged(now: number): void {
    const missed = [...this.#watches].filter(([peer, watch]) => this.#missesRoute(peer, watch, now))
    if (missed.length > 0) this.#followOwn(false, now)
    for (const [peer, watch] of this.#watches) {
      if (!this.#cadence.isActive(peer, now)) continue
      watch.probedAt = -Infinity
      for (const path of watch.set.paths) path.sentAt = -Infinity
      this.#askSource(peer, watch, now)
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
  paths(peer: number): PathView[] {
    return this.#watches.get(peer)?.set.views() ?? []
  }

  handleTimeout(now: number): void {
    const due = this.nextTimeout()
    if (now < due) return
    const late = now - due > LATE_MS ? now - due : 0
    let next = Infinity
    for (const [peer, watch] of this.#watches) {
      if (watch.unansweredSince > 0) watch.unansweredSince += late
      if (now >= watch.nextAt) this.#look(peer, watch, now, late > 0)
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
    watch.nextAt = this.#cadence.nextLook(peer, watch, now)
    if (this.#due !== undefined) this.#due = Math.min(this.#due, watch.nextAt)
  }

  #look(peer: number, watch: Watch, now: number, late: boolean): void {
    const { doubtfulAfterMs, deadAfterMs } = this.#options
    if (now < watch.restsUntil) return this.#arm(peer, watch, now)
    if (now >= this.#cadence.silentAt(peer, watch, deadAfterMs)) this.#setState(peer, watch, 'dead', now)
    else if (now >= this.#cadence.silentAt(peer, watch, doubtfulAfterMs)) this.#setState(peer, watch, 'doubtful', now)
    // What has come while this host slept is not read yet.
    if (!late) this.#choose(peer, watch, now)
    this.#holding.look(peer, watch, now)
    if (now >= this.#cadence.probeAt(peer, watch, now)) this.#probeAll(peer, watch, now)
    const { current, paths } = watch.set
    if (current !== undefined && now >= watch.sourceChoice.dueAt) this.#probeSource(peer, watch, current, now)
    if (now >= this.#cadence.refugesAt(peer, watch, now))
      for (const path of paths) if (path !== current && path.proven) this.#probe(peer, path, now)
    if (current !== undefined && now >= this.#cadence.doubtAt(peer, watch, now)) this.#probe(peer, current, now)
    for (const path of paths) {
      if (now >= this.#cadence.challengeAt(path)) {
        path.challenges++
        this.#probe(peer, path, now)
      } else if (now >= this.#cadence.besideAt(peer, watch, path, now)) this.#probe(peer, path, now)
    }
    watch.nextAt = this.#cadence.nextLook(peer, watch, now)
  }

  #probeAll(peer: number, watch: Watch, now: number): void {
    const { idleIntervalMs, idleJitter } = this.#options
    const [high = 0, low = 0] = this.components.randomBytes(2)
    watch.probedAt = now
    watch.idleFor = idleIntervalMs * (1 - (idleJitter * (high * 256 + low)) / 65_536)
    const { current, paths } = watch.set
    const others = watch.state !== 'alive' || current === undefined || !current.usable || current.misses(now) > 0
    // Traffic that comes in proves the peer as well as an echo would; a busy path is still probed now and then for its RTT.
    for (const path of paths)
      if (path === current) this.#probe(peer, path, now)
      else if (others) this.#probeOther(peer, watch, path, now)
    if (watch.unansweredSince === 0) watch.unansweredSince = now
    watch.tries++
  }

  /** Sends a probe of which the kernel chooses where from. */
  #probeSource(peer: number, watch: Watch, current: Path, now: number): void {
    const token = this.components.randomBytes(PROBE_TOKEN)
    const slot = watch.sourceChoice.probed(watch.set.recordOf(current), token, now, current.patience)
    if (slot < 0) return
    this.probes.sent++
    this.components.sink.sendProbe(peer, slot, token)
  }

  /** Probes a path beside the one in use, unless that is of no use or has to wait. */
  #probeOther(peer: number, watch: Watch, path: Path, now: number): void {
    if (path.usable && now >= this.#cadence.opensAt(watch, path)) this.#probe(peer, path, now)
  }

  /** Sends a probe, unless more has gone there than may before it is proven. `bytes`: of the datagram, where the way is known to carry them. `heardAgo`: as in {@link ProberSink}. */
  #probe(peer: number, path: Path, now: number, bytes = 0, heardAgo?: number): void {
    if (!path.remote.mayProbe(PROBE_BYTES, now)) {
      this.components.sink.drop('amplification')
      path.challenges = CHALLENGES_MAX
      return
    }
    const token = this.components.randomBytes(PROBE_TOKEN)
    path.probed(token, now)
    this.probes.sent++
    if (path.pending.length > 0 && now - path.pending[0]!.sentAt > this.#options.deadAfterMs + 2 * path.patience)
      path.set(path.state === 'unproven' ? 'unproven' : 'dead', 'silent', now)
    this.components.sink.sendProbe(peer, path.slot, token, bytes, heardAgo)
  }

  #use(peer: number, watch: Watch, path: Path, reason: PathReason, now: number): void {
    const { peers } = this.components
    const before = watch.set.current
    const from = peers.pathSlot[peer]!
    enter(path, watch, reason)
    peers.setPath(peer, path.slot)
    if (path.rttMs > 0) peers.measured(peer, path.rttMs, path.leastRttMs)
    for (const each of watch.set.paths) each.betterFor = 0
    if (from === path.slot) this.#holding.end(peer, watch, now)
    else {
      this.#commit(peer, watch, from, path, before, reason, now)
      path.changed(reason, now)
      // By this the peer learns of it, and whether it works.
      if (from >= 0) {
        this.#probe(peer, path, now, 0, worksStill(reason) ? now - (before?.trafficAt ?? -Infinity) : Infinity)
        this.#schedule(watch, now + path.patience)
      }
    }
    this.#schedule(watch, now + this.#options.activeIntervalMs)
    if (!watch.sourceChoice.knows(watch.set.recordOf(path))) this.#askSource(peer, watch, now)
  }

  #commit(
    peer: number,
    watch: Watch,
    from: number,
    path: Path,
    before: Path | undefined,
    reason: PathReason,
    now: number,
  ): void {
    const commit = commitOf(peer, from, path, before, reason, now)
    path.usedSince = now
    for (const each of watch.set.paths) each.toldAt = -Infinity
    if (from >= 0) this.commits.set(reason, (this.commits.get(reason) ?? 0) + 1)
    this.components.sink.committed(commit, now)
    if (path.usable) this.#holding.end(peer, watch, now)
    if (!commit.lossy) return
    // By this the peer may send back more than a little before it has proven where this host is.
    if (reason === 'address-gone' && path.remote.validated && this.#cadence.isActive(peer, now))
      this.#probe(peer, path, now, MOVED_PROBE_BYTES)
    watch.moving = { ...commit, heardAt: watch.moving?.heardAt ?? commit.heardAt }
    if (path.heardAt > commit.heardAt && from !== path.slot) this.#settle(watch, path.heardAt)
  }

  #settle(watch: Watch, now: number): void {
    const { moving } = watch
    watch.moving = undefined
    if (moving !== undefined) this.components.sink.settled(moving, Math.max(0, now - moving.heardAt))
  }

  #setState(peer: number, watch: Watch, state: Liveness, now: number): void {
    if (watch.state === state) return
    watch.state = state
    this.components.sink.liveness(peer, state, now)
  }

  #watch(peer: number, now: number): Watch {
    let watch = this.#watches.get(peer)
    if (watch === undefined) {
      const gone = (slot: number) => this.components.sink.gone(peer, slot)
      const set = new PathSet(this.components.peers, this.own, this.#options.pathsMax, gone)
      watch = newWatch(set, new SourceChoice(this.components.peers.addresses), this.#options.idleIntervalMs, now)
      this.#cadence.activeUntil[peer] = 0
      this.#watches.set(peer, watch)
      this.#due = undefined
    }
    return watch
  }
}
