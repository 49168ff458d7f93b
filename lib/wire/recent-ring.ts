// The ring of what was lately sent, as it lies in memory: the one description for all who append to it, native code included.
//
//   head    2 doubles                        runs appended so far; position of the next byte, counted from the beginning of time
//   rows    RECENT_ROWS rows of ROW_BYTES    run n lies in row n % RECENT_ROWS
//   bytes   RECENT_BYTES                     position p lies at p % RECENT_BYTES; a run lies in one piece: one that would reach beyond the end begins at 0 again
//
// A row: position (double), when it was sent, ms of the host's monotonic clock (double), then the words of Recent (32 bits each). All in the machine's byte order.
//
// To append a run of `length` bytes, 1 to RECENT_RUN_MAX: p = head[1]; if p % RECENT_BYTES + length > RECENT_BYTES, p is the next multiple of RECENT_BYTES; copy the sealed
// frames to p % RECENT_BYTES; fill the row; head[1] = p + length; head[0] += 1. One thread owns the ring, so there is nothing to lock. A run is there as long as
// it is one of the last RECENT_ROWS and its position is not below head[1] - RECENT_BYTES.

import { RUN_WORDS } from './batch.js'

/** As many as a receiver's replay window has frames: older ones would be of no use. A power of two, as RECENT_BYTES is: a remainder of doubles takes longer than all the rest. */
export const RECENT_ROWS = 8192
export const RECENT_BYTES = 2 * 1024 * 1024
/** Longer runs are bulk, whose sender notices by itself what is missing and has no timer to wait for. */
export const RECENT_RUN_MAX = 4096

const HEAD_DOUBLES = 2
const ROW_BYTES = 40
const ROW_DOUBLES = ROW_BYTES / 8
/** Words of a row. */
export const RECENT_ROW_WORDS = ROW_BYTES / 4
/** Words of a row; its first four are the two doubles. */
export const Recent = { length: 4, stride: 5, addressSlot: 6, trafficClass: 7, sealSlot: 8 } as const

/** Bytes that a {@link RecentRing} takes. */
export const RECENT_RING = HEAD_DOUBLES * 8 + RECENT_ROWS * ROW_BYTES + RECENT_BYTES

/** A view of the ring. */
export class RecentRing {
  readonly head: Float64Array
  readonly doubles: Float64Array
  readonly words: Int32Array
  /** Where its bytes begin in `memory`. */
  readonly bytesAt: number

  /**
   * @param memory what runs are appended from, and are sent from again: the runs' bytes first, the ring last. One array, so that to append is to copy within it, without
   * an object
   * @param at where the ring begins, a multiple of 8
   */
  constructor(
    readonly memory: Uint8Array,
    at: number,
  ) {
    const { buffer, byteOffset } = memory
    const rows = byteOffset + at + HEAD_DOUBLES * 8
    this.head = new Float64Array(buffer, byteOffset + at, HEAD_DOUBLES)
    this.doubles = new Float64Array(buffer, rows, RECENT_ROWS * ROW_DOUBLES)
    this.words = new Int32Array(buffer, rows, RECENT_ROWS * RECENT_ROW_WORDS)
    this.bytesAt = at + HEAD_DOUBLES * 8 + RECENT_ROWS * ROW_BYTES
  }

  /** Appends the run of the descriptor at `base`, whose bytes lie in {@link memory}. */
  append(desc: Int32Array, base: number, now: number): void {
    const { head, doubles, words } = this
    const offset = desc[base]!
    const length = desc[base + 1]!
    let position = head[1]!
    let at = position & (RECENT_BYTES - 1)
    if (at + length > RECENT_BYTES) {
      position += RECENT_BYTES - at
      at = 0
    }
    this.memory.copyWithin(this.bytesAt + at, offset, offset + length)
    const row = head[0]! & (RECENT_ROWS - 1)
    doubles[row * ROW_DOUBLES] = position
    doubles[row * ROW_DOUBLES + 1] = now
    for (let w = 1; w < RUN_WORDS; w++) words[row * RECENT_ROW_WORDS + Recent.length + w - 1] = desc[base + w]!
    head[1] = position + length
    head[0]!++
  }

  /** Number of the oldest run that may still be there. */
  get oldest(): number {
    return Math.max(0, this.head[0]! - RECENT_ROWS)
  }
  /** Number of the next run. */
  get next(): number {
    return this.head[0]!
  }

  /** Where the bytes of run `n`, one of the last RECENT_ROWS, lie in {@link memory}; -1: they have been overwritten. */
  offset(n: number): number {
    const position = this.doubles[(n % RECENT_ROWS) * ROW_DOUBLES]!
    return position < this.head[1]! - RECENT_BYTES ? -1 : this.bytesAt + (position % RECENT_BYTES)
  }

  sentAt(n: number): number {
    return this.doubles[(n % RECENT_ROWS) * ROW_DOUBLES + 1]!
  }

  /** A word of run `n`, out of {@link Recent}. */
  word(n: number, word: number): number {
    return this.words[(n % RECENT_ROWS) * RECENT_ROW_WORDS + word]!
  }

  /** Run `n` has been sent again, to another address. */
  moved(n: number, addressSlot: number, now: number): void {
    this.doubles[(n % RECENT_ROWS) * ROW_DOUBLES + 1] = now
    this.words[(n % RECENT_ROWS) * RECENT_ROW_WORDS + Recent.addressSlot] = addressSlot
  }
}
