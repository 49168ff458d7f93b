// A lane whose thread ends while packets go by it. usage: node lane-probe.js; the device is made by root, in a network namespace of its own. Says one line of JSON, see TakenOver.

import { spawnSync } from 'node:child_process'
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import type { Worker } from 'node:worker_threads'
import { Lanes, type LanesHost } from '../../daemon/lanes/lanes.js'
import { noLog } from '../../daemon/log.js'
import { PacketLoop, type Driven } from '../../daemon/packet-loop.js'
import { NativeTun } from '../../daemon/tun.js'
import { Underlay } from '../../daemon/underlay.js'
import { encodeLocator } from '../../lib/path/locator.js'
import { ADDRESS_RECORD, datagramBatch, packetBatch, PACKET_WORDS, Seal, SEAL_WORDS } from '../../lib/wire/batch.js'
import { INNER_HEADER, VNET_HEADER } from '../../lib/wire/constants.js'

export interface TakenOver {
  /** Datagrams of programs, and where they came by: the first queue, or the lane's, read by its thread or, when that had ended, by the one that decides. */
  readonly sent: number
  readonly first: number
  readonly decided: number
  readonly taken: number
  /** Frames of those that were decided upon: how many were received, whether in their order, and how many the lane counted as failed. */
  readonly received: number
  readonly inOrder: boolean
  readonly failed: number
}

const SLOT = 3
const RECORDS = 4
const LANE_ADDRESS = 1
const SOCKETS = 16
/** Datagrams of each program at once: more than the lane's buffers hold. */
const BURST = 12
const BURSTS_BEFORE = 50
const TAKEN_MIN = 500
const FRAME_BYTES = INNER_HEADER + 8
/** Of a frame's clear header. */
const COUNTER = 8

const counts = { sent: 0, first: 0, decided: 0, taken: 0, received: 0, inOrder: true }
const device = { name: 'over0', mtu: 1400, multiQueue: true }
const queue = new NativeTun(device)
const lanes = new Lanes({
  count: 1,
  sockets: {},
  aead: { offer: ['chacha20-poly1305'], implementation: 'openssl' },
  recordBytes: RECORDS * ADDRESS_RECORD,
})
lanes.open([{ address: '127.0.0.1', port: 7474 }], undefined)
if (!lanes.attach(queue, device)) throw new Error('flows do not keep to a queue')
const { status, stderr } = spawnSync('ip', ['addr', 'add', '198.18.0.1/24', 'dev', 'over0'], { encoding: 'utf8' })
if (status !== 0) throw new Error(stderr)

const sink = createSocket({ type: 'udp4', recvBufferSize: 1024 * 1024 })
sink.bind(0, '127.0.0.1')
await once(sink, 'listening')
let counter = -1n
sink.on('message', (frame) => {
  const next = frame.readBigUInt64LE(COUNTER)
  counts.inOrder &&= next > counter
  counter = next
  counts.received++
})
const to = encodeLocator({ address: '127.0.0.1', port: (sink.address() as AddressInfo).port })
lanes.host.records.set(to, LANE_ADDRESS * ADDRESS_RECORD)
lanes.host.codecs[0]!.installSeal(SLOT, 'chacha20-poly1305', new Uint8Array(32).fill(1), 1)

const dataPath = { tunIn: packetBatch(1 << 19, 128), wireIn: datagramBatch(8) }
const host: LanesHost & Driven = {
  dataPath,
  lanePaths: { joining: () => false },
  sessions: { laneNumber: () => 1 },
  tunRead: () => void (counts.taken += ours(dataPath.tunIn.data, dataPath.tunIn.desc, dataPath.tunIn.count)),
  wireRead: () => undefined,
  decideOutward: (_, { tunIn, seal }) => {
    seal.count = 0
    for (let i = 0; i < tunIn.count; i++) {
      if (ours(tunIn.data, tunIn.desc.subarray(i * PACKET_WORDS), 1) === 0) continue
      const base = seal.count++ * SEAL_WORDS
      seal.desc.fill(0, base, base + SEAL_WORDS)
      seal.desc[base + Seal.offset] = tunIn.desc[i * PACKET_WORDS]! + VNET_HEADER
      seal.desc[base + Seal.length] = FRAME_BYTES
      seal.desc[base + Seal.headerLength] = FRAME_BYTES
      seal.desc[base + Seal.sealSlot] = SLOT
      seal.desc[base + Seal.addressSlot] = LANE_ADDRESS
      counts.decided++
    }
  },
  decideInward: ({ tunOut }) => void (tunOut.count = 0),
  nextTimeout: () => Infinity,
  handleTimeout: () => undefined,
}
const loop = new PacketLoop({
  host,
  tun: queue,
  underlay: new Underlay([]),
  fault: (error) => fail(error),
  failed: (error) => fail(error),
})

function fail(error: unknown): never {
  console.error(error)
  process.exit(1)
}

/** Of these packets those that the programs here sent; the kernel says something by itself, too. */
function ours(data: Uint8Array, desc: Int32Array, count: number): number {
  let found = 0
  for (let i = 0; i < count; i++) {
    const at = desc[i * PACKET_WORDS]! + VNET_HEADER
    if (data[at]! >> 4 === 4 && data[at + 16] === 198 && data[at + 19] === 9) found++
  }
  return found
}

function drainFirst(): void {
  const { tunIn } = dataPath
  while (queue.readBatch(tunIn) > 0) counts.first += ours(tunIn.data, tunIn.desc, tunIn.count)
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))
const programs = await Promise.all(
  Array.from({ length: SOCKETS }, async (): Promise<Socket> => {
    const program = createSocket('udp4')
    program.connect(9000, '198.18.0.9')
    await once(program, 'connect')
    return program
  }),
)

/** Some datagrams of each program; no more than the queues hold are on their way. */
async function burst(): Promise<void> {
  for (let i = 0; i < BURST; i++)
    for (const program of programs) {
      counts.sent++
      program.send(Buffer.alloc(100))
    }
  do {
    await turn()
    drainFirst()
  } while (!isQuiet())
}

/** All that was sent has been read from its queue, and what became of it is known. */
function isQuiet(): boolean {
  const { sent, first, decided, taken, received } = counts
  return first + decided + taken === sent && received + lanes.framesFailed >= decided
}

let thread: Worker | undefined
process.once('worker', (worker) => (thread = worker))
lanes.start(host, loop, noLog)
while (counts.decided === 0 || thread === undefined) await burst()
for (let i = 0; i < BURSTS_BEFORE; i++) await burst()
let ended = false
thread.once('exit', () => (ended = true))
const inHand = burst()
void thread.terminate()
await inHand
while (!ended || counts.taken < TAKEN_MIN) await burst()
for (const program of programs) program.close()
sink.close()
const result: TakenOver = { ...counts, failed: lanes.framesFailed }
console.log(JSON.stringify(result))
await lanes.close()
queue.close()
process.exit(0)
