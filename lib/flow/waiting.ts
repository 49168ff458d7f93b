import type { DropReason } from '../wire/drop.js'
import type { FlowOptions } from './flow-options.js'

/** A frame that waits for a session with its peer. Owned by the queue. */
export interface WaitingFrame {
  readonly bytes: Uint8Array
  readonly trafficClass: number
  /** Our flow ID that it belongs to: it is only sent while that flow or attempt lives. */
  readonly slot: number
  readonly generation: number
  readonly since: number
}

interface Queue {
  frames: WaitingFrame[]
  bytes: number
}

/**
 * Frames by peer, in order, until its session is there. Bounded in number, bytes and age:
 *
 *   add ──▶ [oldest … newest] ──▶ take (session up) or drop (session failed, too old, no room for a new one)
 */
export class Waiting {
  readonly #queues = new Map<number, Queue>()
  #bytes = 0

  constructor(
    readonly options: FlowOptions,
    readonly drop: (reason: DropReason) => void,
  ) {}

  get bytes(): number {
    return this.#bytes
  }

  /** Keeps the frame; one that finds no room is dropped as 'queue-full'. */
  add(peer: number, frame: WaitingFrame): void {
    const { options } = this
    const queue = this.#queues.get(peer) ?? { frames: [], bytes: 0 }
    const size = frame.bytes.length
    if (
      queue.frames.length >= options.waitingPackets ||
      queue.bytes + size > options.waitingBytes ||
      this.#bytes + size > options.waitingBytesTotal
    ) {
      this.drop('queue-full')
      return
    }
    queue.frames.push(frame)
    queue.bytes += size
    this.#bytes += size
    this.#queues.set(peer, queue)
  }

  /** Takes out what waits for the peer, oldest first. */
  take(peer: number): readonly WaitingFrame[] {
    const queue = this.#queues.get(peer)
    if (queue === undefined) return []
    this.#queues.delete(peer)
    this.#bytes -= queue.bytes
    return queue.frames
  }

  /** Drops what has waited too long. */
  expire(now: number): void {
    const limit = now - this.options.waitingTimeout
    for (const [peer, queue] of this.#queues) {
      let n = 0
      while (n < queue.frames.length && queue.frames[n]!.since <= limit) {
        const size = queue.frames[n]!.bytes.length
        queue.bytes -= size
        this.#bytes -= size
        n++
        this.drop('queue-expired')
      }
      if (n > 0) queue.frames.splice(0, n)
      if (queue.frames.length === 0) this.#queues.delete(peer)
    }
  }

  /** When {@link expire} has something to do; Infinity: nothing waits. */
  get next(): number {
    let at = Infinity
    for (const queue of this.#queues.values()) at = Math.min(at, queue.frames[0]!.since + this.options.waitingTimeout)
    return at
  }
}
