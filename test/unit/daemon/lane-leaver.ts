// As a lane's thread: lets what was decided upon leave, once.
import { workerData } from 'node:worker_threads'
import { LaneMemory, Turn } from '../../../daemon/lanes/lane-memory.js'

const { outward } = new LaneMemory(workerData as SharedArrayBuffer)
for (const buffer of outward) {
  if (!buffer.is(Turn.leave)) continue
  buffer.give(Turn.leaving)
  buffer.give(Turn.fill)
}
