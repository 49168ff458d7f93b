import { frameRuns, Run, RUN_WORDS, Seal, SEAL_WORDS, type FrameRuns, type SealBatch } from '../../lib/wire/batch.js'
import type { NativeCodec } from '../native-codec.js'
import type { NativeTun } from '../tun.js'
import type { Underlay } from '../underlay.js'
import { Turn, type InwardBuffer, type LaneMemory, type OutwardBuffer } from './lane-memory.js'

const RUN_BYTES = 1024 * 1024
const RUNS = 512

/** What a lane reads from and leaves by. */
export interface LaneParts {
  readonly memory: LaneMemory
  readonly records: Uint8Array
  readonly codec: NativeCodec
  readonly tun: NativeTun
}

/** By which what has been decided upon leaves a lane: seals and sends, or writes. The lane's thread has one, and for the rest of its buffers the deciding one when that has ended. */
export class LaneExit {
  readonly #runs: FrameRuns = frameRuns(RUN_BYTES, RUNS)

  constructor(private readonly c: LaneParts & { readonly underlay: Underlay }) {}

  send(buffer: OutwardBuffer): void {
    const { memory, codec, records, underlay } = this.c
    const { seal } = buffer.batches
    const runs = this.#runs
    buffer.sent = 0
    buffer.give(Turn.leaving)
    // Those that the first lane has sent have no key here.
    let skipped = -seal.byFirst
    for (let next = 0; next < seal.count;) {
      runs.count = 0
      runs.used = 0
      next = codec.seal(seal, next, runs)
      skipped += codec.skipped
      if (runs.count === 0) break
      for (let i = 0; i < runs.count; i++) {
        const length = runs.desc[i * RUN_WORDS + Run.length]!
        memory.countSent(Math.ceil(length / Math.max(runs.desc[i * RUN_WORDS + Run.stride]!, 1)), length)
      }
      const failed = underlay.framesFailed
      underlay.send(runs, records)
      memory.countFailed(underlay.framesFailed - failed)
      buffer.sent = next
    }
    if (skipped > 0) memory.countNotSealed(skipped)
    buffer.give(Turn.fill)
  }

  write(buffer: InwardBuffer): void {
    const { memory, tun } = this.c
    const { tunOut } = buffer.batches
    buffer.give(Turn.leaving)
    if (tunOut.count > 0) memory.countNotWritten(tunOut.count - tun.writeBatch(tunOut))
    buffer.give(Turn.fill)
  }
}

/** Frames that entries of a batch would be, from this one on, of those that are `wanted` by their seal slot. */
export function framesOf({ desc, count }: SealBatch, from: number, wanted: (sealSlot: number) => boolean): number {
  let frames = 0
  for (let entry = from; entry < count; entry++) {
    const base = entry * SEAL_WORDS
    if (!wanted(desc[base + Seal.sealSlot]!)) continue
    const size = desc[base + Seal.gsoSize]!
    const payload = desc[base + Seal.length]! - desc[base + Seal.headerLength]!
    frames += size > 0 ? Math.max(1, Math.ceil(payload / size)) : 1
  }
  return frames
}
