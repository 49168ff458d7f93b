// Entry of a lane's thread.

import { parentPort, workerData } from 'node:worker_threads'
import { NativeEvent } from '../event.js'
import { native } from '../native.js'
import { codecAddon, NativeCodec } from '../native-codec.js'
import { NativeTun, type SharedTun } from '../tun.js'
import { NativeUdp, type SharedUdp } from '../udp.js'
import { LaneMemory } from './lane-memory.js'
import { LaneWork } from './lane-work.js'

export interface LaneStart {
  readonly memory: SharedArrayBuffer
  readonly records: Uint8Array
  readonly codec: number
  readonly tun: SharedTun
  readonly sockets: readonly SharedUdp[]
  readonly awake: number
  readonly decider: number
  /** As the thread is that decides for it. */
  readonly realTime: boolean
}

if (parentPort === null) throw new Error('this is the entry of a thread')
const start: LaneStart = workerData
if (start.realTime) native().setRealTime(true)
const work = new LaneWork({
  memory: new LaneMemory(start.memory),
  records: start.records,
  codec: new NativeCodec(codecAddon(), undefined, start.codec),
  tun: new NativeTun(start.tun),
  sockets: start.sockets.map((shared) => new NativeUdp(shared)),
  awake: new NativeEvent(start.awake),
  decider: new NativeEvent(start.decider),
})
work.start()
