import type { DropReason } from '../wire/drop.js'
import type { FlowOptions } from './flow-options.js'
import { waitingBytes, WaitingEntry, WaitingRing } from './waiting-ring.js'

/** A ring begins with so many bytes, and is doubled as long as it may. */
const RING_BYTES = 16 * 1024

/**
 * What waits for a way to its peer: for a session, or for a path that works. By peer, in the order in which it came, bounded in bytes and age: the oldest makes room.
 *
 *   add ──▶ [oldest … newest] ──▶ oldest, shift (there is a way), or dropped: no room, too old, nobody wants it any more
 */
export class Waiting {
  readonly #rings = new Map<number, WaitingRing>()
  /** Bytes of all rings. */
  #capacity = 0
  /** Not later than when the next entry is too old. */
  #due = Infinity
  readonly #entry = new WaitingEntry()

  constructor(
    readonly options: FlowOptions,
    /** `packet`: of a packet of the TUN; only valid during the call. */
    readonly drop: (reason: DropReason, entry: Readonly<WaitingEntry>, data: Uint8Array) => void,
  ) {}

  /** Packets and frames that wait. */
  get count(): number {
    let count = 0
    for (const ring of this.#rings.values()) count += ring.count
    return count
  }
  /** Bytes that they take. */
  get bytes(): number {
    let bytes = 0
    for (const ring of this.#rings.values()) bytes += ring.used
    return bytes
  }
  /** Of them those for the peer. */
  countFor(peer: number): number {
    return this.#rings.get(peer)?.count ?? 0
  }

  /** Keeps a copy of the bytes at `offset`. Where there is no room, the oldest that waits for the peer is dropped as 'queue-full', or, where that would not help, this. */
  add(peer: number, entry: Readonly<WaitingEntry>, bytes: Uint8Array, offset: number): void {
    const size = waitingBytes(entry.length)
    let ring = this.#rings.get(peer) ?? this.#grow(peer, undefined, size)
    while (ring !== undefined && !ring.append(entry, bytes, offset)) {
      const larger = this.#grow(peer, ring, size)
      if (larger === undefined && ring.count > 0 && size <= ring.capacity) this.#dropOldest(ring, 'queue-full')
      else ring = larger
    }
    if (ring === undefined) this.drop('queue-full', { ...entry, offset }, bytes)
    else this.#due = Math.min(this.#due, entry.since + this.options.waitingTimeout)
  }

  /** The ring of what waits for the peer, to be emptied from its old end; undefined: nothing waits. */
  ring(peer: number): WaitingRing | undefined {
    const ring = this.#rings.get(peer)
    return ring === undefined || ring.count === 0 ? undefined : ring
  }

  /** The peer's ring has been emptied, or as much of it as was wanted. */
  emptied(peer: number): void {
    const ring = this.#rings.get(peer)
    if (ring === undefined || ring.count > 0) return
    this.#rings.delete(peer)
    this.#capacity -= ring.capacity
  }

  /** Drops what waits for the peer, as far as it is `wanted`; the rest is forgotten. */
  dropAll(peer: number, reason: DropReason, wanted: (entry: Readonly<WaitingEntry>) => boolean): void {
    const ring = this.#rings.get(peer)
    while (ring !== undefined && ring.count > 0) {
      ring.oldest(this.#entry)
      if (wanted(this.#entry)) this.drop(reason, this.#entry, ring.data)
      ring.shift()
    }
    this.emptied(peer)
  }

  /** Drops what has waited too long. */
  expire(now: number): void {
    if (now < this.#due) return
    this.#due = Infinity
    const { waitingTimeout } = this.options
    for (const [peer, ring] of this.#rings) {
      // The same sum as for when it is due: another one may be rounded to another moment.
      while (ring.since + waitingTimeout <= now) this.#dropOldest(ring, 'queue-expired')
      this.emptied(peer)
      this.#due = Math.min(this.#due, ring.since + this.options.waitingTimeout)
    }
  }

  /** When {@link expire} has something to do, or earlier; Infinity: nothing waits. */
  get next(): number {
    return this.#rings.size === 0 ? Infinity : this.#due
  }

  #dropOldest(ring: WaitingRing, reason: DropReason): void {
    ring.oldest(this.#entry)
    this.drop(reason, this.#entry, ring.data)
    ring.shift()
  }

  /** A larger ring for the peer, with what is in `ring`, and room for so many bytes more; undefined: it may have no such. */
  #grow(peer: number, ring: WaitingRing | undefined, size: number): WaitingRing | undefined {
    const { waitingBytes: most, waitingBytesTotal } = this.options
    let capacity = ring === undefined ? RING_BYTES : 2 * ring.capacity
    while (capacity < (ring?.used ?? 0) + size) capacity *= 2
    capacity = Math.min(capacity, most & ~7)
    const before = ring?.capacity ?? 0
    if (capacity <= before || capacity < size) return undefined
    if (this.#capacity - before + capacity > waitingBytesTotal) return undefined
    const larger = new WaitingRing(capacity)
    if (ring !== undefined) larger.take(ring)
    this.#capacity += capacity - before
    this.#rings.set(peer, larger)
    return larger
  }
}
