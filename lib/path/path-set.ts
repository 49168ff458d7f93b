import { ADDRESS_LOCAL, ADDRESS_RECORD } from '../wire/batch.js'
import { isSilent } from './cadence.js'
import { isPinned, remoteKey, sameRemote, sameWay } from './address-record.js'
import type { OwnAddresses } from './candidates.js'
import { Path, SAMPLES_MIN, type PathReason } from './path.js'
import type { PeerTable } from './peers.js'
import type { PathView } from './prober-sink.js'
import { Remote, type AddressStanding } from './remote.js'

/** Addresses that a peer says it has, at most. */
const REMOTES_MAX = 8
/** A path is left for one that is faster by this share and ms, and loses no more; or that loses so much less. */
const FASTER_SHARE = 0.8
const FASTER_MS = 2
const LOSS_MARGIN = 0.1
const LOSS_TOLERANCE = 0.03
/** All that two paths can have in common. */
const SHARED_MAX = 3
/** Probes of both by which losses are compared, at least. */
const COUNTED_MIN = 16

/** The paths to one peer: from each own address that matters to each of the peer's, bounded. */
export class PathSet {
  readonly paths: Path[] = []
  current: Path | undefined
  /** Where the peer says that it is, by address; of those that it has left, the last. */
  readonly #remotes = new Map<string, Remote>()

  constructor(
    private readonly peers: PeerTable,
    private readonly own: OwnAddresses,
    private readonly pathsMax: number,
    /** There is no path by this address slot any more, which was not in use. */
    private readonly gone: (addressSlot: number) => void = () => undefined,
  ) {}

  /** For display. */
  views(): PathView[] {
    return this.paths.map((path) => {
      const { slot, state, usedSince, localSeen, rttMs, rttVarMs, loss, provenAt, reason, changedAt, changes } = path
      const inUse = path === this.current
      return { slot, state, inUse, usedSince, localSeen, rttMs, rttVarMs, loss, provenAt, reason, changedAt, changes }
    })
  }

  find(records: Uint8Array, offset: number): Path | undefined {
    const { addresses } = this.peers
    return this.paths.find((path) => addresses.matches(path.slot, records, offset))
  }

  /** The path by which something came, made on first sight; an unused one gives way when there are too many. Undefined: there is no room. */
  cameBy(records: Uint8Array, offset: number, now: number): Path | undefined {
    const known = this.find(records, offset)
    if (known !== undefined) return known
    if (this.paths.length >= this.pathsMax && !this.#makeRoom(true)) return undefined
    const record = records.slice(offset, offset + ADDRESS_RECORD)
    const local = isPinned(record) ? record.slice(ADDRESS_LOCAL) : undefined
    if (local === undefined || !this.own.several(record[0]!) || !this.own.has(record[0]!, local))
      record.fill(0, ADDRESS_LOCAL)
    const path = this.#add(record, now)
    if (path !== undefined) path.localSeen = local
    return path
  }

  /** The peer says that it is there, and how long. */
  offer(record: Uint8Array, standing: AddressStanding, now: number): Remote {
    const key = remoteKey(record)
    const remote = this.#remoteOf(record)
    this.#remotes.delete(key)
    this.#remotes.set(key, remote)
    if (this.#remotes.size > REMOTES_MAX) {
      const oldest = [...this.#remotes].find(([, remote]) => remote.standing === 'gone') ?? [...this.#remotes][0]
      if (oldest !== undefined) this.#remotes.delete(oldest[0])
    }
    remote.standing = standing
    remote.announce(now)
    if (standing === 'usable') this.#waysTo(record, now)
    return remote
  }

  /** The peer names these addresses, and none of those besides that it named before. */
  announced(records: readonly Uint8Array[], now: number): void {
    const keys = new Set(records.map((record) => remoteKey(record)))
    for (const [key, { record, standing }] of [...this.#remotes])
      if (standing === 'usable' && !keys.has(key)) this.offer(record, 'deprecated', now)
  }

  /** Own addresses have changed. Returns whether the address slot of the path in use is another one now. */
  review(now: number): boolean {
    const before = this.current?.slot
    for (const path of [...this.paths]) this.#repin(path, now)
    for (const { record, standing } of this.#remotes.values()) if (standing === 'usable') this.#waysTo(record, now)
    if (this.current !== undefined) this.#waysTo(this.recordOf(this.current), now)
    return this.current?.slot !== before
  }

  /** The best path but the one in use that is proven. */
  standby(): Path | undefined {
    return this.#best((path) => path.proven)
  }

  /**
   * Of the paths that are proven the one to leave a silent one for: one that has answered since, else one that is in no doubt. Whatever fell silent lies between two addresses, so that it shares as few of
   * them as can be.
   */
  refuge(now: number): Path | undefined {
    const since = Math.max(this.current?.heardAt ?? Infinity, this.current?.usedSince ?? Infinity)
    return (
      this.#mostApart((path) => path.proven && path.reachedAt > since) ??
      this.#mostApart((path) => path.proven && path.misses(now) === 0)
    )
  }

  #mostApart(fits: (path: Path) => boolean): Path | undefined {
    for (let shared = 0; shared <= SHARED_MAX; shared++) {
      const path = this.#best((each) => fits(each) && this.#shared(each) === shared)
      if (path !== undefined) return path
    }
    return undefined
  }

  /** Of the others the one from which the peer was heard last, if that is later than by the one in use; what still comes by one that it has left does not speak for that. */
  heardLast(): Path | undefined {
    const { current } = this
    let last = current?.usable === true ? current : undefined
    for (const path of this.paths)
      if (path !== current && path.usable && (last === undefined || path.heardAt > last.heardAt)) last = path
    return last === current ? undefined : last
  }

  /** The path to be taken in the place of the one in use, and why; undefined: there is no reason to leave that one, or no other. */
  successor(now: number): { readonly path: Path; readonly reason: PathReason } | undefined {
    const { current } = this
    const standby = this.standby()
    const to = (path: Path | undefined, reason: PathReason) => path && { path, reason }
    if (current === undefined) return to(standby, 'proven')
    if (!current.usable) return to(standby ?? this.hope(), 'address-gone')
    if (!current.lasting && standby?.lasting === true) return to(standby, 'deprecated')
    return isSilent(current, now) ? to(this.refuge(now), 'silent') : undefined
  }

  /** The best path by which frames may go although nothing is proven about it: to where the peer is known to be. */
  hope(): Path | undefined {
    return this.#best((path) => path.usable && path.remote.validated && path.state !== 'dead')
  }

  /** No address of the path in use is any good: it goes as the kernel chooses. Returns whether it has changed. */
  unpin(): boolean {
    const path = this.current
    return path !== undefined && this.#reslot(path, undefined)
  }

  /** Whether the path leads to the same address of the peer as the one in use. */
  leadsAlike(path: Path): boolean {
    return this.current !== undefined && this.#leadsTo(path, this.recordOf(this.current))
  }

  /** Whether of the paths to the same address of the peer none was probed longer ago: where few probes may go, they go by turns. */
  isNext(path: Path): boolean {
    return this.paths.every((other) => other.remote !== path.remote || !other.usable || other.sentAt >= path.sentAt)
  }

  /** Whether it is worth while to leave the path in use for this one, both of which work. */
  isBetter(path: Path): boolean {
    const { current } = this
    if (current === undefined || path.samples < SAMPLES_MIN || current.samples < SAMPLES_MIN) return false
    if (!path.lasting && current.lasting) return false
    const faster = path.rttMs < current.rttMs * FASTER_SHARE && path.rttMs < current.rttMs - FASTER_MS
    if (faster && path.loss <= current.loss + LOSS_TOLERANCE) return true
    if (path.counted < COUNTED_MIN || current.counted < COUNTED_MIN) return false
    return path.loss < current.loss - LOSS_MARGIN && path.rttMs < 1.5 * current.rttMs + FASTER_MS
  }

  /** As {@link PathProber.ways}. */
  ways(all: boolean, bytes: number): number[] {
    const { current } = this
    const others = all || current?.usable !== true
    const leads = (path: Path) => path === current || (others && path.usable && path.remote.mayCarry(bytes))
    return this.paths.filter(leads).map(({ slot }) => slot)
  }

  recordOf(path: Path): Uint8Array {
    return this.peers.addresses.record(path.slot)
  }

  release(): void {
    for (const path of this.paths) this.peers.addresses.release(path.slot)
    this.paths.length = 0
    this.current = undefined
  }

  #best(fits: (path: Path) => boolean): Path | undefined {
    let best: Path | undefined
    for (const path of this.paths) {
      if (path === this.current || !fits(path)) continue
      if (best === undefined || isPreferred(path, best)) best = path
    }
    return best
  }

  /** How much a path has in common with the one in use: 1 for the own address, 2 for the peer's, which has more of the way behind it. */
  #shared(path: Path): number {
    const { current } = this
    if (current === undefined) return 0
    const [ours, theirs] = [this.recordOf(path), this.recordOf(current)]
    const local = isPinned(ours) && ours.subarray(ADDRESS_LOCAL).every((byte, i) => byte === theirs[ADDRESS_LOCAL + i])
    return Number(local) + (sameRemote(ours, theirs) ? 2 : 0)
  }

  #waysTo(remote: Uint8Array, now: number): void {
    for (const record of this.own.ways(remote, this.pathsMax)) {
      if (this.#exact(record) !== undefined) continue
      if (this.paths.length >= this.pathsMax && !this.#makeRoom(false)) break
      if (this.#add(record, now) === undefined) break
    }
  }

  /** The peer's address in the record, as far as it is known. */
  #remoteOf(record: Uint8Array): Remote {
    const known = this.#remotes.get(remoteKey(record)) ?? this.paths.find((path) => this.#leadsTo(path, record))?.remote
    return known ?? new Remote(record)
  }

  #add(record: Uint8Array, now: number): Path | undefined {
    const slot = this.peers.addresses.acquire(record)
    if (slot < 0) return undefined
    // Whether the peer is there does not depend on where we send from.
    const path = new Path(slot, this.#remoteOf(record), now)
    path.local = this.own.standing(record)
    this.paths.push(path)
    return path
  }

  /** Removes a path of least use; false: there is none. `any`: also one that is proven. */
  #makeRoom(any: boolean): boolean {
    const spare = this.paths
      .filter((path) => path !== this.current && (any || !path.proven))
      .sort((a, b) => Number(a.usable) - Number(b.usable) || a.provenAt - b.provenAt)[0]
    if (spare !== undefined) this.#drop(spare)
    return spare !== undefined
  }

  #drop(path: Path): void {
    this.gone(path.slot)
    this.peers.addresses.release(path.slot)
    this.paths.splice(this.paths.indexOf(path), 1)
  }

  /** Paths name their own address while there are several, and only then. */
  #repin(path: Path, now: number): void {
    const record = this.recordOf(path)
    const several = this.own.several(record[0]!)
    const pinned = isPinned(record)
    if (several && !pinned && path.localSeen !== undefined && this.own.has(record[0]!, path.localSeen)) {
      if (!this.#reslot(path, path.localSeen) && path !== this.current) return this.#drop(path)
    } else if (!several && pinned && this.own.standing(record) !== 'gone') this.#reslot(path, undefined)
    const way = this.recordOf(path)
    const standing = this.own.standing(way)
    if (standing === path.local) return
    path.local = standing
    if (standing === 'gone') path.set('dead', this.own.isUnrouted(way) ? 'no-route' : 'address-gone', now)
  }

  /** Gives the path another own address, or none; false: nothing has changed, as there is no room or there is such a path already. */
  #reslot(path: Path, local: Uint8Array | undefined): boolean {
    const { addresses } = this.peers
    const record = this.recordOf(path)
    record.fill(0, ADDRESS_LOCAL)
    if (local !== undefined) record.set(local, ADDRESS_LOCAL)
    const same = this.#exact(record)
    if (same === path) return false
    if (same !== undefined) {
      if (path !== this.current) return false
      this.#drop(same)
    }
    const slot = addresses.acquire(record)
    if (slot < 0) return false
    if (path !== this.current) this.gone(path.slot)
    addresses.release(path.slot)
    path.slot = slot
    path.local = this.own.standing(record)
    return true
  }

  #exact(record: Uint8Array): Path | undefined {
    const { records } = this.peers.addresses
    return this.paths.find(({ slot }) => sameWay(record, records, 0, slot * ADDRESS_RECORD))
  }

  /** Whether the path goes to the peer's address in the record. */
  #leadsTo(path: Path, record: Uint8Array): boolean {
    return sameRemote(record, this.peers.addresses.records, 0, path.slot * ADDRESS_RECORD)
  }
}

function isPreferred(a: Path, b: Path): boolean {
  if (a.lasting !== b.lasting) return a.lasting
  return costOf(a) < costOf(b)
}

/** ms that a frame takes, with what a lost one costs. */
function costOf(path: Path): number {
  return path.rttMs + path.loss * 400
}
