// What a lane's thread and the thread that decides share. A buffer is one thread's at a time; the turn says whose, and giving it away makes everything written before visible.

import { DATAGRAM_WORDS, PACKET_WORDS, type PacketBatch } from '../../lib/wire/batch.js'
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
  /** The lane's thread is about it. */
  leaving: 3,
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
/** Of a packet's or datagram's descriptor. Those of a buffer that may be filled are 0. */
const LENGTH = 1

const Header = { turn: 0, first: 1, second: 2, third: 3, fourth: 4, sent: 5 } as const
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
    if (turn === Turn.fill) clear(batches.tunIn.desc, batches.tunIn.count, PACKET_WORDS)
    pass(header, turn)
  }

  /** Of a buffer that a thread was filling when it ended: gives what had been read into it to be decided upon. */
  rescue(): void {
    const { tunIn } = this.batches
    if (!this.is(Turn.fill)) return
    tunIn.count = filled(tunIn.desc, PACKET_WORDS)
    if (tunIn.count === 0) return
    const last = (tunIn.count - 1) * PACKET_WORDS
    tunIn.used = tunIn.desc[last]! + tunIn.desc[last + LENGTH]!
    this.give(Turn.decide)
  }

  /** Entries of the seal batch that have been sent, while they leave. */
  get sent(): number {
    return this.header[Header.sent]!
  }
  set sent(entries: number) {
    this.header[Header.sent] = entries
  }

  /** Waits until what was decided upon has left, at most until then, ms of {@link performance}. Returns whether it has. */
  hasLeft(until: number): boolean {
    const { header } = this
    for (;;) {
      const turn = Atomics.load(header, Header.turn)
      if (turn !== Turn.leave && turn !== Turn.leaving) return true
      const rest = until - performance.now()
      if (rest <= 0) return false
      Atomics.wait(header, Header.turn, turn, rest)
    }
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
    if (turn === Turn.fill) clear(batches.wireIn.desc, batches.wireIn.count, DATAGRAM_WORDS)
    pass(header, turn)
  }

  /** See {@link OutwardBuffer.rescue}. `open`: of the datagrams that had come. */
  rescue(open: (batches: LaneInward) => void): void {
    const { batches } = this
    if (!this.is(Turn.fill)) return
    batches.wireIn.count = filled(batches.wireIn.desc, DATAGRAM_WORDS)
    if (batches.wireIn.count === 0) return
    batches.tunOut.count = 0
    open(batches)
    this.give(Turn.decide)
  }
}

function clear(desc: Int32Array, count: number, words: number): void {
  for (let i = 0; i < count; i++) desc[i * words + LENGTH] = 0
}

/** Descriptors from the first one on that have a length. */
function filled(desc: Int32Array, words: number): number {
  let count = 0
  while ((count + 1) * words <= desc.length && desc[count * words + LENGTH] !== 0) count++
  return count
}

function pass(header: Int32Array, turn: Turn): void {
  Atomics.store(header, Header.turn, turn)
  Atomics.notify(header, Header.turn)
}

/** Both threads make one of these over the same memory. */
export class LaneMemory {
  readonly outward: readonly OutwardBuffer[]
  readonly inward: readonly InwardBuffer[]
  readonly #words: Int32Array
  /** Written by the lane's thread only, and by the deciding one when that has ended. */
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
