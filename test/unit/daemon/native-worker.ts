// Opens a socket in a worker and watches it until it is terminated.
import { parentPort } from 'node:worker_threads'
import { NativeUdp } from '../../../daemon/udp.js'

const socket = new NativeUdp({ address: '127.0.0.1', port: 0 })
socket.onReadable(() => undefined)
parentPort?.postMessage(socket.local.port)
