import { ADDRESS_FLAGS, ADDRESS_RECORD, AddressFlag } from '../wire/batch.js'
import { CLEAR_HEADER, MIN_PLPMTU_IPV4, PATH_MTU, TAG_LENGTH } from '../wire/constants.js'
import { IPV4_HEADER, IPV6_HEADER } from '../wire/ip.js'
import { UDP_HEADER } from '../wire/udp.js'
import { PathMtu, type PathMtuOptions } from './path-mtu.js'
import type { PeerTable } from './peers.js'
import { proberDefaults } from './prober-options.js'

export interface PathMtusComponents {
  readonly peers: PeerTable
  readonly randomBytes: (length: number) => Uint8Array
  /** What this host's link to the address carries; 0: not known. */
  readonly linkMtu: (record: Uint8Array) => number
  /** Seals a probe and sends it to this address slot. `room`: length of its plaintext; 0: as short as it can be. `inUse`: frames to the peer go that way. */
  readonly sendProbe: (peer: number, addressSlot: number, token: Uint8Array, room: number, inUse: boolean) => void
}

/** Pairs of probes that go by a path before it is proven. */
const AHEAD_MAX = 2

/** Plaintext so long, inner header included, goes by any path in one piece. */
const SMALL = MIN_PLPMTU_IPV4 - IPV6_HEADER - UDP_HEADER - CLEAR_HEADER - TAG_LENGTH

/** Longest plaintext of a frame, inner header included, that fits into an IP packet of so many bytes. */
export function frameRoom(mtu: number, family: number): number {
  return mtu - (family === 4 ? IPV4_HEADER : IPV6_HEADER) - UDP_HEADER - CLEAR_HEADER - TAG_LENGTH
}

interface Path {
  /** Address slot of its own, by which it is known; and that of probes, which are never sent in fragments; -1: none yet. */
  slot: number
  wholeSlot: number
  /** Pairs of probes that went before it was proven. */
  ahead: number
  readonly mtu: PathMtu
  /** What was published of it last; 0: nothing yet. */
  published: number
}

interface Watch {
  /** Those that were heard of last, last. */
  readonly paths: Path[]
  current: Path | undefined
}

/** What the paths to all peers carry: that in use is measured at once, the others at the pace at which they are probed. The peer table has what holds for each peer. */
export class PathMtus {
  readonly #watches = new Map<number, Watch>()
  /** Peers of which a size is under test. */
  readonly #busy = new Set<number>()
  /** When a peer in use is to be looked at again, by peer; and when although only small frames go to it. */
  readonly #lookAt: Float64Array
  readonly #smallLookAt: Float64Array
  readonly #options: Partial<PathMtuOptions>
  /** How often a path turned out to carry more, or less, than was taken for true. */
  readonly changes = { raised: 0, lowered: 0 }

  constructor(
    private readonly components: PathMtusComponents,
    options: Partial<PathMtuOptions> = {},
    private readonly pathsMax = proberDefaults.pathsMax,
  ) {
    this.#options = options
    this.#lookAt = new Float64Array(components.peers.capacity)
    this.#smallLookAt = new Float64Array(components.peers.capacity)
  }

  /** The peer has a path, or another one: `PeerTable.pathSlot` says which. */
  use(peer: number, now: number): void {
    const current = this.components.peers.pathSlot[peer]!
    if (current < 0) return
    const before = this.#watches.get(peer)?.current
    if (before?.slot === current) return
    before?.mtu.rest()
    const { watch, path } = this.#find(peer, current, now)
    watch.current = path
    path.mtu.linksChanged(this.#linkMtu(path), now)
    path.mtu.enter(now)
    this.#lookAgain(peer)
    this.#publish(peer, watch)
  }

  /** The path by that address slot works beside the one in use; or, not `proven`, it is about to be probed for the first time, or again. */
  beside(peer: number, addressSlot: number, proven: boolean, now: number): void {
    const known = this.#watches.get(peer)
    if (known === undefined || addressSlot === known.current?.slot) return
    const { watch, path } = this.#find(peer, addressSlot, now)
    if (!proven && (path.mtu.measured || path.ahead++ >= AHEAD_MAX)) return
    path.mtu.beside(now)
    this.#publish(peer, watch)
  }

  /** The path is known by another address slot from now on, and is the same way. */
  renamed(peer: number, from: number, to: number): void {
    const watch = this.#watches.get(peer)
    const path = watch?.paths.find(({ slot }) => slot === from)
    if (path === undefined || from === to) return
    this.gone(peer, to)
    const { addresses } = this.components.peers
    this.#release(path)
    path.slot = addresses.acquire(addresses.record(to))
  }

  /** There is no such path any more. */
  gone(peer: number, addressSlot: number): void {
    const watch = this.#watches.get(peer)
    const at = watch?.paths.findIndex((path) => path.slot === addressSlot && path !== watch.current) ?? -1
    if (watch !== undefined && at >= 0) this.#release(watch.paths.splice(at, 1)[0])
  }

  /** What is known of the path, nothing on first sight. */
  #find(peer: number, addressSlot: number, now: number): { readonly watch: Watch; readonly path: Path } {
    const { peers, linkMtu, randomBytes } = this.components
    const { addresses } = peers
    let watch = this.#watches.get(peer)
    if (watch === undefined) this.#watches.set(peer, (watch = { paths: [], current: undefined }))
    const record = addresses.record(addressSlot)
    const at = watch.paths.findIndex(({ slot }) => slot === addressSlot)
    const known = at < 0 ? undefined : watch.paths.splice(at, 1)[0]
    if (known !== undefined) {
      watch.paths.push(known)
      return { watch, path: known }
    }
    const { current, paths } = watch
    const spare = paths.find((path) => path !== current)
    if (paths.length >= this.pathsMax && spare !== undefined) this.gone(peer, spare.slot)
    const path: Path = {
      slot: addresses.acquire(record),
      wholeSlot: -1,
      ahead: 0,
      mtu: new PathMtu(
        {
          send: (size, token) => this.#send(peer, path, size, token),
          randomBytes,
          rttMs: () => peers.rttMs[peer]!,
        },
        record[0] === 4 ? 4 : 6,
        linkMtu(record) || PATH_MTU,
        now,
        this.#options,
      ),
      published: 0,
    }
    paths.push(path)
    return { watch, path }
  }

  /** Frames go to the peer, their plaintext so long at most. Called once a batch. */
  used(peer: number, now: number, longest: number): void {
    const small = longest <= SMALL
    const lookAt = small ? this.#smallLookAt : this.#lookAt
    if (now < lookAt[peer]!) return
    const watch = this.#watches.get(peer)
    const path = watch?.current
    if (watch === undefined || path === undefined) return
    lookAt[peer] = path.mtu.used(now, small)
    this.#publish(peer, watch)
  }

  /** What is known of the path is not what it was. */
  #lookAgain(peer: number): void {
    this.#lookAt[peer] = 0
    this.#smallLookAt[peer] = 0
  }

  /** Whether a hint would change anything now. */
  isHintDue(peer: number, now: number): boolean {
    return this.#watches.get(peer)?.current?.mtu.isHintDue(now) ?? false
  }

  /** Something makes it doubtful that large frames reach the peer; `renewed`: a session with it has begun, or this host is elsewhere. */
  hint(peer: number, now: number, renewed = false): void {
    const watch = this.#watches.get(peer)
    const mtu = watch?.current?.mtu
    if (watch === undefined || mtu === undefined) return
    if (renewed) mtu.renewed(now)
    else mtu.hint(now)
    this.#lookAgain(peer)
    this.#publish(peer, watch)
  }

  /** An echo has come from the peer. False: of no probe of ours. */
  echoed(peer: number, token: Uint8Array, now: number): boolean {
    const watch = this.#watches.get(peer)
    if (watch === undefined) return false
    const known = watch.paths.some(({ mtu }) => mtu.probeAcknowledged(token, now))
    if (known) this.#publish(peer, watch)
    return known
  }

  /** The host's links have changed. */
  linksChanged(now: number): void {
    for (const [peer, watch] of this.#watches) {
      for (const path of watch.paths) path.mtu.linksChanged(this.#linkMtu(path), now)
      this.#lookAgain(peer)
      this.#publish(peer, watch)
    }
  }

  /** The peer's session is over. */
  forget(peer: number): void {
    const watch = this.#watches.get(peer)
    if (watch === undefined) return
    for (const path of watch.paths) this.#release(path)
    this.#watches.delete(peer)
    this.#busy.delete(peer)
    this.components.peers.pathMtu[peer] = 0
    this.components.peers.pathMtuTaken[peer] = 0
  }

  /** What the path by that address slot is taken to carry, and in which state that is; undefined: it is not in use, and not measured yet. */
  of(peer: number, addressSlot: number): Pick<PathMtu, 'mtu' | 'phase' | 'shrunk'> | undefined {
    const watch = this.#watches.get(peer)
    const path = watch?.paths.find(({ slot }) => slot === addressSlot)
    return path === watch?.current || path?.mtu.measured === true ? path?.mtu : undefined
  }

  nextTimeout(): number {
    let next = Infinity
    for (const peer of this.#busy)
      next = Math.min(next, this.#watches.get(peer)?.current?.mtu.nextTimeout() ?? Infinity)
    return next
  }

  handleTimeout(now: number): void {
    for (const peer of [...this.#busy]) {
      const watch = this.#watches.get(peer)
      if (watch === undefined) continue
      watch.current?.mtu.handleTimeout(now)
      this.#publish(peer, watch)
    }
  }

  #publish(peer: number, watch: Watch): void {
    const { pathMtu, pathMtuTaken } = this.components.peers
    const path = watch.current
    pathMtu[peer] = path?.mtu.safe ?? 0
    pathMtuTaken[peer] = path?.mtu.mtu ?? 0
    for (const each of watch.paths) {
      this.#count(each)
      // Slots are few, and such a path is seldom probed.
      if (each !== path && !each.mtu.testing) this.#releaseWhole(each)
    }
    if (path?.mtu.phase !== 'complete' && this.#smallLookAt[peer] === Infinity) this.#smallLookAt[peer] = 0
    if (path !== undefined && path.mtu.nextTimeout() < Infinity) this.#busy.add(peer)
    else this.#busy.delete(peer)
  }

  #count(path: Path): void {
    const { mtu } = path.mtu
    if (path.published > 0 && mtu > path.published) this.changes.raised++
    else if (mtu < path.published) this.changes.lowered++
    path.published = mtu
  }

  #send(peer: number, path: Path, size: number, token: Uint8Array): void {
    const { addresses } = this.components.peers
    if (path.slot < 0) return
    if (path.wholeSlot < 0 && size > 0) {
      const record = addresses.record(path.slot)
      record[ADDRESS_FLAGS] = AddressFlag.whole
      path.wholeSlot = addresses.acquire(record)
    }
    const slot = size > 0 ? path.wholeSlot : path.slot
    const room = size > 0 ? frameRoom(size, addresses.records[path.slot * ADDRESS_RECORD]!) : 0
    if (slot >= 0) this.components.sendProbe(peer, slot, token, room, this.#watches.get(peer)?.current === path)
  }

  #linkMtu({ slot }: Path): number {
    return this.components.linkMtu(this.components.peers.addresses.record(slot)) || PATH_MTU
  }

  #release(path: Path | undefined): void {
    const { addresses } = this.components.peers
    if (path === undefined) return
    if (path.slot >= 0) addresses.release(path.slot)
    this.#releaseWhole(path)
  }

  #releaseWhole(path: Path): void {
    if (path.wholeSlot >= 0) this.components.peers.addresses.release(path.wholeSlot)
    path.wholeSlot = -1
  }
}
