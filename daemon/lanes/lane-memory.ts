// What a lane's thread and the thread that decides share. A buffer is one thread's at a time; the turn says whose, and giving it away makes everything written before visible.

import type { PacketBatch } from '../../lib/wire/batch.js'
import {
  LANE_READ_BYTES,
  laneInward,
  laneOutward,
  type LaneInward,
  type LaneOutward,
} from '../../lib/host/lane-buffers.js'

/** Whose turn a buffer is. */
export const Turn = {
  /** The lane's thread may fill it. */
  fill: 0,
  /** The host is to decide. */
  decide: 1,
  /** The lane's thread is to seal and send, or to write, what has been decided. */
  leave: 2,
} as const
export type Turn = (typeof Turn)[keyof typeof Turn]

/** What a lane does; the deciding thread writes the wish, the lane's thread what is so. */
export const Mode = { rest: 0, work: 1 } as const

/** Buffers a direction: while one is decided upon the next one is filled. */
const BUFFERS = 2
/** More than the buffers of both directions take. */
const BYTES = 8 * 1024 * 1024
const HEADER_WORDS = 8
const ALIGNMENT = 64

const Header = { turn: 0, first: 1, second: 2, third: 3, fourth: 4 } as const
const Word = { wanted: 0, is: 1 } as const
const Counter = { framesOut: 0, bytesOut: 1, framesFailed: 2, packetsNotWritten: 3, packetsNotSealed: 4 } as const

export class OutwardBuffer {
  /** The part of the batch that packets are read into. */
  readonly reading: PacketBatch

  constructor(
    private readonly header: Int32Array,
    readonly batches: LaneOutward,
  ) {
    this.reading = { ...batches.tunIn, data: batches.tunIn.data.subarray(0, LANE_READ_BYTES) }
  }

  /** Whether it is this turn; then the batches' counts are up to date. */
  is(turn: Turn): boolean {
    const { header, batches } = this
    if (Atomics.load(header, Header.turn) !== turn) return false
    batches.tunIn.count = header[Header.first]!
    batches.tunIn.used = header[Header.second]!
    batches.seal.count = header[Header.third]!
    batches.seal.byFirst = header[Header.fourth]!
    return true
  }

  give(turn: Turn): void {
    const { header, batches } = this
    header[Header.first] = batches.tunIn.count
    header[Header.second] = batches.tunIn.used
    header[Header.third] = batches.seal.count
    header[Header.fourth] = batches.seal.byFirst
    Atomics.store(header, Header.turn, turn)
  }
}

export class InwardBuffer {
  constructor(
    private readonly header: Int32Array,
    readonly batches: LaneInward,
  ) {}

  /** See {@link OutwardBuffer.is}. */
  is(turn: Turn): boolean {
    const { header, batches } = this
    if (Atomics.load(header, Header.turn) !== turn) return false
    batches.wireIn.count = header[Header.first]!
    batches.open.count = header[Header.second]!
    batches.open.used = header[Header.third]!
    batches.tunOut.count = header[Header.fourth]!
    return true
  }

  give(turn: Turn): void {
    const { header, batches } = this
    header[Header.first] = batches.wireIn.count
    header[Header.second] = batches.open.count
    header[Header.third] = batches.open.used
    header[Header.fourth] = batches.tunOut.count
    Atomics.store(header, Header.turn, turn)
  }
}

/** Both threads make one of these over the same memory. */
export class LaneMemory {
  readonly outward: readonly OutwardBuffer[]
  readonly inward: readonly InwardBuffer[]
  readonly #words: Int32Array
  /** Written by the lane's thread only. */
  readonly #counters: Float64Array

  constructor(readonly memory = new SharedArrayBuffer(BYTES)) {
    let used = 0
    const allocate = (bytes: number) => {
      const offset = used
      used = (used + bytes + ALIGNMENT - 1) & -ALIGNMENT
      if (used > memory.byteLength) throw new RangeError('the memory of a lane is too small for its buffers')
      return { buffer: memory, offset }
    }
    const words = (count: number) => new Int32Array(memory, allocate(count * 4).offset, count)
    this.#words = words(HEADER_WORDS)
    this.#counters = new Float64Array(memory, allocate(HEADER_WORDS * 8).offset, HEADER_WORDS)
    const each = <T>(make: () => T) => Array.from({ length: BUFFERS }, make)
    this.outward = each(() => new OutwardBuffer(words(HEADER_WORDS), laneOutward(allocate)))
    this.inward = each(() => new InwardBuffer(words(HEADER_WORDS), laneInward(allocate)))
  }

  get wanted(): number {
    return Atomics.load(this.#words, Word.wanted)
  }
  set wanted(mode: number) {
    Atomics.store(this.#words, Word.wanted, mode)
  }
  /** What the lane's thread does. Resting, it has nothing in hand. */
  get mode(): number {
    return Atomics.load(this.#words, Word.is)
  }
  set mode(mode: number) {
    Atomics.store(this.#words, Word.is, mode)
  }

  get framesOut(): number {
    return this.#counters[Counter.framesOut]!
  }
  get bytesOut(): number {
    return this.#counters[Counter.bytesOut]!
  }
  get framesFailed(): number {
    return this.#counters[Counter.framesFailed]!
  }
  get packetsNotWritten(): number {
    return this.#counters[Counter.packetsNotWritten]!
  }

  get packetsNotSealed(): number {
    return this.#counters[Counter.packetsNotSealed]!
  }

  countSent(frames: number, bytes: number): void {
    this.#counters[Counter.framesOut]! += frames
    this.#counters[Counter.bytesOut]! += bytes
  }
  countFailed(frames: number): void {
    this.#counters[Counter.framesFailed]! += frames
  }
  countNotWritten(packets: number): void {
    this.#counters[Counter.packetsNotWritten]! += packets
  }
  countNotSealed(packets: number): void {
    this.#counters[Counter.packetsNotSealed]! += packets
  }
}
