import type { NativeCodec } from '../../../daemon/native-codec.js'
import { frameRuns, Gso, Seal, sealBatch } from '../../../lib/wire/batch.js'

export const SEAL_ROUNDS = 20_000
const LENGTH = 100
const COUNTER = 8

/** Seals frames on slot 3 one by one, once the other thread does so too; their counters. */
export function sealRounds(codec: NativeCodec, ready: Int32Array): number[] {
  Atomics.add(ready, 0, 1)
  Atomics.notify(ready, 0)
  while (Atomics.load(ready, 0) < 2) Atomics.wait(ready, 0, 1, 1_000)
  const batch = sealBatch(new Uint8Array(LENGTH), 1)
  const runs = frameRuns(1_000, 1)
  const view = new DataView(runs.data.buffer)
  return Array.from({ length: SEAL_ROUNDS }, () => {
    batch.count = 1
    batch.desc[Seal.length] = LENGTH
    batch.desc[Seal.headerLength] = LENGTH
    batch.desc[Seal.gsoKind] = Gso.none
    batch.desc[Seal.sealSlot] = 3
    runs.count = 0
    runs.used = 0
    codec.seal(batch, 0, runs)
    return Number(view.getBigUint64(COUNTER, true))
  })
}
