import { CHALLENGE_MS, FOLLOW_MS, PROBE_BYTES } from './cadence.js'
import type { Path } from './path.js'
import { Hold, type PeerTable } from './peers.js'
import type { ProberSink } from './prober-sink.js'
import type { Watch } from './watch.js'

/** A peer that sends from elsewhere without proof makes frames wait no oftener than this, ms: whoever hears its frames could do that. */
const SHY_MS = 1_000

/**
 * When frames of a peer's flows wait for a way:
 *
 *   noWay     the path in use is known not to work, and there is no other      until something comes by it, or another one is taken into use
 *   courted   the peer sends from elsewhere, which is being proven             until that is proven, or not in time, or the peer sends from where it was
 *
 * Meanwhile three times what came from where the peer seems to be may go there.
 */
export class Holding {
  constructor(
    private readonly peers: PeerTable,
    private readonly sink: Pick<ProberSink, 'held' | 'released' | 'spend'>,
  ) {}

  begin(peer: number, why: Hold, now: number): void {
    if (this.peers.isHeld(peer, why)) return
    this.peers.hold(peer, why, true)
    this.sink.held(peer, now)
  }

  /** The path in use works, or may. */
  end(peer: number, watch: Watch, now: number): void {
    watch.courtedUntil = Infinity
    this.#end(peer, Hold.noWay | Hold.courted, now)
  }

  /** Something has come by the path in use. */
  heardAgain(peer: number, watch: Watch, current: Path, traffic: boolean, now: number): void {
    // It has come to an own address that this host is not supposed to have, and was not on its way when that went.
    if (current.local === 'gone' && now - current.changedAt > FOLLOW_MS) current.local = 'usable'
    if (!current.usable) return
    if (traffic) this.end(peer, watch, now)
    else this.#end(peer, Hold.noWay, now)
  }

  /** The peer seems to be at the other end of this path, which has been probed, and no more where its frames go. Returns whether they wait, until `watch.courtedUntil`. */
  court(peer: number, watch: Watch, path: Path, now: number): boolean {
    const { pathSlot, rttMs } = this.peers
    if (now < watch.shyUntil || pathSlot[peer]! < 0) return false
    watch.courtedUntil = now + CHALLENGE_MS + Math.max(path.patience, 2 * rttMs[peer]! + CHALLENGE_MS)
    watch.shyUntil = watch.courtedUntil + SHY_MS
    this.begin(peer, Hold.courted, now)
    return true
  }

  /** What goes to where the peer seems to be before that is proven, in bytes of datagrams; what the next probe takes is left. */
  spend(peer: number, path: Path, now: number): void {
    const { remote } = path
    const bytes = remote.credit - PROBE_BYTES
    if (remote.validated || bytes <= 0 || this.peers.isHeld(peer, Hold.paused)) return
    remote.credit -= this.sink.spend(peer, path.slot, bytes, now)
  }

  look(peer: number, watch: Watch, now: number): void {
    if (now < watch.courtedUntil) return
    watch.courtedUntil = Infinity
    this.#end(peer, Hold.courted, now)
  }

  forget(peer: number): void {
    this.peers.hold(peer, Hold.noWay | Hold.courted, false)
  }

  #end(peer: number, why: number, now: number): void {
    if (this.peers.hold(peer, why, false)) this.sink.released(peer, now)
  }
}
