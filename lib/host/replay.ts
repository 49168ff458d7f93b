import type { FrameCodec } from '../crypto/codec.js'
import type { PeerTable } from '../path/peers.js'
import { frameRuns, Run, RUN_WORDS, type FrameRuns } from '../wire/batch.js'
import { REPLAY_WINDOW } from '../wire/constants.js'
import { Recent, RECENT_RING, RECENT_RUN_MAX, RecentRing } from '../wire/recent-ring.js'

/** What was sent longer ago is of no use to anybody, ms. */
const AGE_MAX = 1_000
/** On top of a round trip, ms: what the other end takes to answer, and what the round trip varies by. */
const SLACK_MS = 10
/** Runs that one call sends. */
const RUNS = 256
/** The receiver remembers so many frames before the newest, less what is on its way. */
const WINDOW = REPLAY_WINDOW - 64
/** Of a frame's clear header. */
const COUNTER = 8

/** Copies of runs, all to one address: of those that were sent since `from`, up to the one with the number `next`. */
interface Copies {
  readonly to: number
  /** When the first copy was sent, there or elsewhere. */
  readonly since: number
  from: number
  next: number
}

/**
 * What was lately sent, exactly as it went out, and what of it is sent again when a peer's frames go another way because the old one was silent or gone: a way that dies takes
 * with it what was sent until that is noticed. The receiver's replay window drops what had arrived, so no program sees a datagram twice. Bulk is not kept: what its sender sends
 * to find out what is missing is small.
 *
 * A peer that seems to be elsewhere is sent copies there, no more than may go before that is proven; when it is, only the rest follows, if the probe that proves it went before them.
 *
 *   send ──▶ [ ring of runs, all peers ] ──▶ moved: those to the old address, since the peer was last heard there less a round trip ──▶ the new address
 */
export class Replay {
  readonly ring: RecentRing
  /** Frames that were sent again. */
  framesAgain = 0
  /** Moves after which some of what was to be sent again was not there any more. */
  overrun = 0
  /** Somebody's frames are to be sent again. */
  due = false
  readonly #peers: PeerTable
  readonly #codec: FrameCodec
  /** By peer: where its frames went before and go now, -1: nowhere; and from when on they are to be sent again, Infinity: not. */
  readonly #from: Int32Array
  readonly #to: Int32Array
  readonly #since: Float64Array
  /** By peer: since when its frames wait; Infinity: they do not. */
  readonly #heldAt: Float64Array
  readonly #wanted: number[] = []
  /** By peer: what was copied to where it seems to be, before that is proven. */
  readonly #copied = new Map<number, Copies>()
  /** By peer: those of them that went where it turned out to be. */
  readonly #arrived = new Map<number, Copies>()
  /** By peer: since when what went elsewhere than to its path went ahead of a proof that has not come; Infinity: nothing did. */
  readonly #astraySince: Float64Array
  readonly #runs: FrameRuns

  /** @param memory the runs to be sent are made in it; the ring takes its last RECENT_RING bytes */
  constructor(memory: Uint8Array, peers: PeerTable, codec: FrameCodec) {
    this.ring = new RecentRing(memory, memory.length - RECENT_RING)
    this.#peers = peers
    this.#codec = codec
    this.#runs = frameRuns(0, RUNS, memory)
    this.#from = new Int32Array(peers.capacity).fill(-1)
    this.#to = new Int32Array(peers.capacity).fill(-1)
    this.#astraySince = new Float64Array(peers.capacity).fill(Infinity)
    this.#since = new Float64Array(peers.capacity).fill(Infinity)
    this.#heldAt = new Float64Array(peers.capacity).fill(Infinity)
  }

  /** These runs are being sent. */
  sent(runs: FrameRuns, now: number): void {
    const { desc } = runs
    for (let i = 0; i < runs.count; i++) {
      const base = i * RUN_WORDS
      if (desc[base + Run.length]! <= RECENT_RUN_MAX && desc[base + Run.sealSlot]! >= 0)
        this.ring.append(desc, base, now)
    }
  }

  /**
   * The peer's frames go where `peers.pathSlot` says from now on. `again`: what was sent to where they went before, since the peer was last heard from there less a
   * round trip, and since `reachedAt`, is to be sent again: a way may be dead in one direction only. False: that way is as good as ever. What goes where they go now arrives
   * since `openSince`.
   */
  moved(peer: number, now: number, again = true, reachedAt = Infinity, openSince = Infinity): void {
    const { pathSlot, heardAt } = this.#peers
    const before = this.#to[peer]!
    const to = pathSlot[peer]!
    if (to < 0) return
    this.#to[peer] = to
    const copied = this.#copied.get(peer)
    if (copied?.to === to && openSince <= copied.since) this.#arrived.set(peer, copied)
    const since = this.#lostSince(peer, now, reachedAt)
    if (this.#takeBack(peer)) again = true
    heardAt[peer] = now
    this.#heldAt[peer] = Infinity
    if (before < 0 || !again) return
    this.#want(peer, before, since)
  }

  /** Frames of the peer wait no more, and go where they went before. What went elsewhere meanwhile, in the hope that it would be proven, is to be sent again. */
  stayed(peer: number): void {
    this.#heldAt[peer] = Infinity
    const since = this.#copied.get(peer)?.since ?? Infinity
    if (this.#to[peer]! >= 0 && this.#takeBack(peer)) this.#want(peer, -1, since)
  }

  /** Whether something went ahead. */
  #takeBack(peer: number): boolean {
    const copied = this.#copied.get(peer)
    if (copied === undefined) return false
    this.#copied.delete(peer)
    this.#astraySince[peer] = copied.since
    return true
  }

  #want(peer: number, from: number, since: number): void {
    if (this.#since[peer] === Infinity) {
      this.#wanted.push(peer)
      this.#from[peer] = from
    }
    this.#since[peer] = Math.min(this.#since[peer]!, since)
    this.due = true
  }

  /**
   * Sends copies of what went to the peer since it was last heard, less a round trip, to this address slot, up to so many bytes, and none twice. The runs are lent. Returns whether
   * all were sent.
   */
  copy(peer: number, addressSlot: number, bytes: number, now: number, send: (runs: FrameRuns) => void): boolean {
    const { ring } = this
    const from = this.#to[peer]!
    if (from < 0) return true
    let copied = this.#copied.get(peer)
    if (copied?.to !== addressSlot)
      this.#copied.set(peer, (copied = { to: addressSlot, since: copied?.since ?? now, from: -Infinity, next: 0 }))
    const since = this.#lostSince(peer, now)
    copied.from = Math.max(copied.from, since)
    for (let n = Math.max(copied.next, ring.oldest); n < ring.next; n++) {
      copied.next = n + 1
      const sealSlot = ring.word(n, Recent.sealSlot)
      if (this.#peers.sealPeer[sealSlot] !== peer || ring.sentAt(n) < since) continue
      if (ring.word(n, Recent.addressSlot) !== from) continue
      const offset = ring.offset(n)
      if (offset < 0 || this.#isTooOld(peer, sealSlot, offset)) continue
      const length = ring.word(n, Recent.length)
      if (length > bytes) {
        copied.next = n
        this.#send(send)
        return false
      }
      bytes -= length
      this.#add(n, offset, addressSlot)
      if (this.#runs.count === RUNS) this.#send(send)
    }
    this.#send(send)
    return true
  }

  /** The peer's frames wait from now on: what went to it before is of use as long as they are. */
  held(peer: number, now: number): void {
    this.#heldAt[peer] = Math.min(this.#heldAt[peer]!, now)
  }

  /** From when on what went to the peer may not have arrived. */
  #lostSince(peer: number, now: number, reachedAt = Infinity): number {
    const { heardAt, rttMs } = this.#peers
    const arrivedUntil = Math.min(heardAt[peer]! - rttMs[peer]! - SLACK_MS, reachedAt)
    return Math.max(arrivedUntil, Math.min(now, this.#heldAt[peer]!) - AGE_MAX)
  }

  /** The peer's paths are gone, and its addresses may be others' soon. */
  forget(peer: number): void {
    this.#to[peer] = -1
    this.#since[peer] = Infinity
    this.#copied.delete(peer)
    this.#arrived.delete(peer)
  }

  /** Sends again what is to be, in the order in which it was sent first. The runs are lent. */
  flush(now: number, send: (runs: FrameRuns) => void): void {
    this.due = false
    const { ring } = this
    const runs = this.#runs
    for (let n = ring.oldest; n < ring.next; n++) {
      const sealSlot = ring.word(n, Recent.sealSlot)
      const peer = this.#peers.sealPeer[sealSlot]!
      if (peer <= 0 || this.#since[peer]! > ring.sentAt(n)) continue
      const went = ring.word(n, Recent.addressSlot)
      const isAstray = went !== this.#to[peer] && ring.sentAt(n) >= this.#astraySince[peer]!
      if (went !== this.#from[peer] && !isAstray) continue
      const offset = ring.offset(n)
      if (offset < 0 || this.#isTooOld(peer, sealSlot, offset)) continue
      const arrived = isAstray ? undefined : this.#arrived.get(peer)
      if (arrived === undefined || n >= arrived.next || ring.sentAt(n) < arrived.from)
        this.#add(n, offset, this.#to[peer]!)
      ring.moved(n, this.#to[peer]!, now)
      if (runs.count === RUNS) this.#send(send)
    }
    this.#send(send)
    const first = this.#firstSentAt()
    for (const peer of this.#wanted) {
      if (this.#since[peer]! < first) this.overrun++
      this.#astraySince[peer] = Infinity
      this.#since[peer] = Infinity
    }
    this.#wanted.length = 0
    this.#arrived.clear()
  }

  /** When the oldest run was sent that has not been overwritten, if any has been. */
  #firstSentAt(): number {
    const { ring } = this
    if (ring.oldest > 0) return ring.sentAt(ring.oldest)
    let n = 0
    while (n < ring.next && ring.offset(n) < 0) n++
    return n > 0 && n < ring.next ? ring.sentAt(n) : -Infinity
  }

  /** Whether the receiver does not remember any more if it has had the frame. */
  #isTooOld(peer: number, sealSlot: number, offset: number): boolean {
    if (sealSlot !== this.#peers.sealSlot[peer]) return false
    const { memory } = this.ring
    let counter = 0
    for (let i = 7; i >= 0; i--) counter = counter * 256 + memory[offset + COUNTER + i]!
    return counter + WINDOW < this.#codec.sealed(sealSlot)
  }

  #add(n: number, offset: number, addressSlot: number): void {
    const { ring } = this
    const { desc } = this.#runs
    const base = this.#runs.count++ * RUN_WORDS
    const length = ring.word(n, Recent.length)
    const stride = ring.word(n, Recent.stride)
    desc[base + Run.offset] = offset
    desc[base + Run.length] = length
    desc[base + Run.stride] = stride
    desc[base + Run.addressSlot] = addressSlot
    desc[base + Run.trafficClass] = ring.word(n, Recent.trafficClass)
    desc[base + Run.sealSlot] = ring.word(n, Recent.sealSlot)
    this.framesAgain += Math.ceil(length / stride)
  }

  #send(send: (runs: FrameRuns) => void): void {
    if (this.#runs.count > 0) send(this.#runs)
    this.#runs.count = 0
  }
}
