import { ADDRESS_FLAGS, ADDRESS_RECORD, AddressFlag } from '../wire/batch.js'
import { CLEAR_HEADER, MIN_PLPMTU_IPV4, PATH_MTU, TAG_LENGTH } from '../wire/constants.js'
import { IPV4_HEADER, IPV6_HEADER } from '../wire/ip.js'
import { UDP_HEADER } from '../wire/udp.js'
import { PathMtu, type PathMtuOptions } from './path-mtu.js'
import type { PeerTable } from './peers.js'

export interface PathMtusComponents {
  readonly peers: PeerTable
  readonly randomBytes: (length: number) => Uint8Array
  /** What this host's link to the address carries; 0: not known. */
  readonly linkMtu: (record: Uint8Array) => number
  /** Seals a probe of the way that frames to the peer go and sends it to this address slot. `room`: length of its plaintext; 0: as short as it can be. */
  readonly sendProbe: (peer: number, addressSlot: number, token: Uint8Array, room: number) => void
}

/** Paths of a peer that are remembered when another one is in use. */
const PATHS_MAX = 4

/** Plaintext so long, inner header included, goes by any path in one piece. */
const SMALL = MIN_PLPMTU_IPV4 - IPV6_HEADER - UDP_HEADER - CLEAR_HEADER - TAG_LENGTH

/** Longest plaintext of a frame, inner header included, that fits into an IP packet of so many bytes. */
export function frameRoom(mtu: number, family: number): number {
  return mtu - (family === 4 ? IPV4_HEADER : IPV6_HEADER) - UDP_HEADER - CLEAR_HEADER - TAG_LENGTH
}

interface Path {
  /** Address slot of its own, by which it is known; and that of probes, which are never sent in fragments; -1: none yet. */
  readonly slot: number
  wholeSlot: number
  readonly mtu: PathMtu
  /** What was published of it last; 0: nothing yet. */
  published: number
}

interface Watch {
  /** The one in use last. */
  readonly paths: Path[]
}

/** What the paths to all peers carry: each path is measured while it is in use. The peer table has what holds for each peer. */
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
  ) {
    this.#options = options
    this.#lookAt = new Float64Array(components.peers.capacity)
    this.#smallLookAt = new Float64Array(components.peers.capacity)
  }

  /** The peer has a path, or another one: `PeerTable.pathSlot` says which. */
  use(peer: number, now: number): void {
    const { peers, linkMtu } = this.components
    const { addresses } = peers
    const current = peers.pathSlot[peer]!
    if (current < 0) return
    const record = addresses.record(current)
    let watch = this.#watches.get(peer)
    if (watch?.paths.at(-1)?.slot === current) return
    if (watch === undefined) this.#watches.set(peer, (watch = { paths: [] }))
    watch.paths.at(-1)?.mtu.rest()
    const at = watch.paths.findIndex(({ slot }) => slot === current)
    const known = at < 0 ? undefined : watch.paths.splice(at, 1)[0]
    if (known !== undefined) {
      watch.paths.push(known)
      known.mtu.linksChanged(linkMtu(record) || PATH_MTU, now)
    } else {
      if (watch.paths.length >= PATHS_MAX) this.#release(watch.paths.shift())
      const path: Path = {
        slot: addresses.acquire(record),
        wholeSlot: -1,
        mtu: new PathMtu(
          {
            send: (size, token) => this.#send(peer, path, size, token),
            randomBytes: this.components.randomBytes,
            rttMs: () => peers.rttMs[peer]!,
          },
          record[0] === 4 ? 4 : 6,
          linkMtu(record) || PATH_MTU,
          now,
          this.#options,
        ),
        published: 0,
      }
      watch.paths.push(path)
    }
    this.#lookAgain(peer)
    this.#publish(peer, watch)
  }

  /** Frames go to the peer, their plaintext so long at most. Called once a batch. */
  used(peer: number, now: number, longest: number): void {
    const small = longest <= SMALL
    const lookAt = small ? this.#smallLookAt : this.#lookAt
    if (now < lookAt[peer]!) return
    const watch = this.#watches.get(peer)
    const path = watch?.paths.at(-1)
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
    return this.#watches.get(peer)?.paths.at(-1)?.mtu.isHintDue(now) ?? false
  }

  /** Something makes it doubtful that large frames reach the peer; `renewed`: a session with it has begun, or this host is elsewhere. */
  hint(peer: number, now: number, renewed = false): void {
    const watch = this.#watches.get(peer)
    const mtu = watch?.paths.at(-1)?.mtu
    if (watch === undefined || mtu === undefined) return
    if (renewed) mtu.renewed(now)
    else mtu.hint(now)
    this.#lookAgain(peer)
    this.#publish(peer, watch)
  }

  /** An echo has come from the peer. False: of no probe of ours. */
  echoed(peer: number, token: Uint8Array, now: number): boolean {
    if (!this.#busy.has(peer)) return false
    const watch = this.#watches.get(peer)
    if (watch === undefined) return false
    const known = watch.paths.at(-1)?.mtu.probeAcknowledged(token, now) ?? false
    if (known) this.#publish(peer, watch)
    return known
  }

  /** The host's links have changed. */
  linksChanged(now: number): void {
    const { peers, linkMtu } = this.components
    for (const [peer, watch] of this.#watches) {
      for (const { slot, mtu } of watch.paths) mtu.linksChanged(linkMtu(peers.addresses.record(slot)) || PATH_MTU, now)
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
  }

  /** What the path by that address slot is taken to carry, and in which state that is; undefined: it has not been in use. */
  of(peer: number, addressSlot: number): Pick<PathMtu, 'mtu' | 'phase' | 'shrunk'> | undefined {
    return this.#watches.get(peer)?.paths.find(({ slot }) => slot === addressSlot)?.mtu
  }

  nextTimeout(): number {
    let next = Infinity
    for (const peer of this.#busy)
      next = Math.min(next, this.#watches.get(peer)?.paths.at(-1)?.mtu.nextTimeout() ?? Infinity)
    return next
  }

  handleTimeout(now: number): void {
    for (const peer of [...this.#busy]) {
      const watch = this.#watches.get(peer)
      if (watch === undefined) continue
      watch.paths.at(-1)?.mtu.handleTimeout(now)
      this.#publish(peer, watch)
    }
  }

  #publish(peer: number, watch: Watch): void {
    const { pathMtu } = this.components.peers
    const path = watch.paths.at(-1)
    pathMtu[peer] = path?.mtu.mtu ?? 0
    if (path !== undefined) this.#count(path)
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
    if (slot >= 0) this.components.sendProbe(peer, slot, token, room)
  }

  #release(path: Path | undefined): void {
    const { addresses } = this.components.peers
    if (path === undefined) return
    if (path.slot >= 0) addresses.release(path.slot)
    if (path.wholeSlot >= 0) addresses.release(path.wholeSlot)
  }
}
