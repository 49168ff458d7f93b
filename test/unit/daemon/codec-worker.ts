// Seals with a codec that another thread shares.
import { parentPort, workerData } from 'node:worker_threads'
import { codecAddon, NativeCodec } from '../../../daemon/native-codec.js'
import { sealRounds } from './seal-rounds.js'

const { token, go } = workerData as { token: number; go: Int32Array }
parentPort?.postMessage(sealRounds(new NativeCodec(codecAddon(), undefined, token), go))
