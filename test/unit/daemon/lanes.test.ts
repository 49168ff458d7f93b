import { Worker } from 'node:worker_threads'
import { test } from 'tap'
import { framesOf } from '../../../daemon/lanes/lane-exit.js'
import { LaneMemory, Turn } from '../../../daemon/lanes/lane-memory.js'
import { lanesFor } from '../../../daemon/lanes/lanes.js'
import { Gso, SEAL_WORDS, sealBatch } from '../../../lib/wire/batch.js'

const LONG_MS = 30_000

test('so many lanes are for so many processors', (t) => {
  const auto = [1, 2, 3, 4, 5, 6, 8, 15, 16, 17, 64].map((cores) => [cores, lanesFor('auto', cores)])
  t.strictSame(auto, [
    [1, 1],
    [2, 1],
    [3, 1],
    [4, 2],
    [5, 2],
    [6, 3],
    [8, 4],
    [15, 7],
    [16, 8],
    [17, 8],
    [64, 8],
  ])
  for (const cores of [1, 2, 64]) t.equal(lanesFor(3, cores), 3, 'a number is taken at its word')
  t.equal(lanesFor(1, 64), 1)
  t.end()
})

test('what was decided upon is waited for until the lane has let it leave', async (t) => {
  const memory = new LaneMemory()
  const [first, second] = memory.outward
  t.ok(first!.hasLeft(performance.now()), 'nothing is in hand')
  first!.give(Turn.decide)
  t.ok(first!.hasLeft(performance.now()), 'nor decided upon')
  for (const turn of [Turn.leave, Turn.leaving] as const) {
    first!.give(turn)
    t.notOk(first!.hasLeft(performance.now()), 'it is not waited for longer than that')
  }
  for (const buffer of memory.outward) buffer.give(Turn.leave)
  const worker = new Worker(new URL('lane-leaver.js', import.meta.url), { workerData: memory.memory })
  t.teardown(() => worker.terminate())
  const until = performance.now() + LONG_MS
  t.ok(first!.hasLeft(until))
  t.ok(second!.hasLeft(until))
  for (const buffer of memory.outward) t.ok(buffer.is(Turn.fill))
})

test('frames that entries would have been are counted', (t) => {
  const batch = sealBatch(new Uint8Array(100_000), 8)
  const put = (length: number, header: number, size: number, slot: number) =>
    batch.desc.set([0, length, header, size, size > 0 ? Gso.tcp : Gso.none, slot, 0, 0], batch.count++ * SEAL_WORDS)
  put(500, 40, 0, 1)
  put(40 + 10_000, 40, 1_000, 1)
  put(40 + 10_001, 40, 1_000, 1)
  put(40, 40, 1_000, 1)
  put(500, 40, 0, 2)
  t.equal(
    framesOf(batch, 0, () => true),
    1 + 10 + 11 + 1 + 1,
  )
  t.equal(
    framesOf(batch, 2, () => true),
    11 + 1 + 1,
    'from the third one on',
  )
  t.equal(
    framesOf(batch, 0, (slot) => slot === 2),
    1,
    'of one key',
  )
  t.end()
})
