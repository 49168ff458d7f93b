// Real sockets on the loopback of a namespace of their own (MTU 1,400), for test/net/sockets.test.ts. Prints `result JSON` for each scenario.

import { NativeTun } from '../../daemon/tun.js'
import { NativeUdp } from '../../daemon/udp.js'
import { native } from '../../daemon/native.js'
import { decodeLocator, encodeLocator, type Locator } from '../../lib/path/locator.js'
import {
  ADDRESS_RECORD,
  datagramBatch,
  DATAGRAM_WORDS,
  frameRuns,
  packetBatch,
  RUN_WORDS,
  type FrameRuns,
} from '../../lib/wire/batch.js'
import { hammer } from '../unit/daemon/native-hammer.js'

export interface Received {
  readonly from: Locator | undefined
  readonly trafficClass: number
  /** Sizes of the datagrams, and whether their bytes were what was sent, in order. */
  readonly sizes: readonly number[]
  readonly intact: boolean
}
export interface ProbeResult {
  readonly sent: number
  readonly failed: number
  readonly gso: boolean
  readonly received: readonly Received[]
}

const runs = frameRuns(1 << 20, 400)
for (let i = 0; i < runs.data.length; i++) runs.data[i] = (i * 31 + (i >> 8)) & 0xff

interface RunSpec {
  readonly length: number
  readonly stride: number
  readonly slot?: number
  readonly trafficClass?: number
}
function fill(specs: readonly RunSpec[]): FrameRuns {
  runs.count = 0
  runs.used = 0
  for (const { length, stride, slot = 0, trafficClass = 0 } of specs) {
    runs.desc.set([runs.used, length, stride, slot, trafficClass, 0], runs.count++ * RUN_WORDS)
    runs.used += length
  }
  return runs
}

/** Everything that reaches the socket until `bytes` have come. */
async function receive(socket: NativeUdp, bytes: number): Promise<Received[]> {
  const batch = datagramBatch(8)
  const received: Received[] = []
  let at = 0
  const take = () => {
    socket.recvBatch(batch)
    for (let i = 0; i < batch.count; i++) {
      const [offset, length, segment, trafficClass] = batch.desc.subarray(i * DATAGRAM_WORDS, (i + 1) * DATAGRAM_WORDS)
      const sizes: number[] = []
      for (let left = length!; left > 0; left -= segment || length!) sizes.push(Math.min(left, segment || length!))
      const intact = Buffer.compare(
        batch.data.subarray(offset, offset! + length!),
        runs.data.subarray(at, at + length!),
      )
      at += length!
      received.push({
        from: decodeLocator(batch.addresses, i * ADDRESS_RECORD),
        trafficClass: trafficClass!,
        sizes,
        intact: intact === 0,
      })
    }
  }
  if (bytes > 0) {
    await new Promise<void>((resolve) =>
      socket.onReadable(() => {
        take()
        if (at >= bytes) resolve()
      }),
    )
  }
  return received
}

async function exchange(
  address: string,
  specs: readonly RunSpec[],
  options: { readonly gso?: boolean; readonly gro?: boolean } = {},
): Promise<ProbeResult> {
  const to = new NativeUdp({ address, port: 2000, ...options })
  const from = new NativeUdp({ address, port: 1000, ...options })
  const { sent, failed } = from.sendBatch(fill(specs), encodeLocator(to.local))
  const received = await receive(to, runs.used)
  const { gso } = from
  to.close()
  from.close()
  return { sent, failed, gso, received }
}

const results: Record<string, unknown> = {}

for (const address of ['127.0.0.1', '::1']) {
  results[`run ${address}`] = await exchange(address, [{ length: 45 * 1200 + 7, stride: 1200, trafficClass: 0xb9 }])
  results[`plain ${address}`] = await exchange(address, [{ length: 3000, stride: 1200, trafficClass: 2 }], {
    gso: false,
    gro: false,
  })
  results[`too long ${address}`] = await exchange(address, [{ length: 6500, stride: 1500 }], { gro: false })
}
results['many'] = await exchange(
  '127.0.0.1',
  Array.from({ length: 300 }, (_, i) => ({ length: 100 + i, stride: 60 })),
)

// Destinations that fail, among one that does not.
const listener = new NativeUdp({ address: '127.0.0.1', port: 3000 })
const sender = new NativeUdp({ address: '127.0.0.1', port: 0 })
const records = Buffer.concat([
  encodeLocator(listener.local),
  encodeLocator({ address: '127.0.0.1', port: 9 }),
  encodeLocator({ address: '192.0.2.1', port: 9 }),
  encodeLocator({ address: '::1', port: 9 }),
  new Uint8Array(ADDRESS_RECORD),
])
const mixed = [0, 2, 0, 3, 4, 2, 2, 0].map((slot) => ({ length: 300, stride: 100, slot }))
const outcome = sender.sendBatch(fill(mixed), records)
results['mixed'] = { sent: outcome.sent, failed: outcome.failed, gso: sender.gso }
for (let i = 0; i < 20; i++) sender.sendBatch(fill([{ length: 10, stride: 10, slot: 1 }]), records)
const after = datagramBatch(8)
results['refused'] = { received: sender.recvBatch(after), sent: sender.sendBatch(fill([mixed[0]!]), records).sent }

const large = new NativeUdp({ address: '::', port: 7474, bufferBytes: 1 << 24 })
const both = new NativeUdp({ address: '0.0.0.0', port: 7474, bufferBytes: 1 << 24 })
results['buffers'] = [large.bufferSizes, both.bufferSizes]

// Wrong arguments, with a live device and live sockets.
const addon = native()
const device = addon.tunOpen('hammer0', 0, 3)
const socket = addon.udpOpen('::1', 0, 1 << 16, 0)
addon.tunConfigure(device.handle, 1400, true)
hammer(addon, [device.handle, socket.handle], 6000)
addon.close(device.handle)
addon.close(socket.handle)

// What a device takes: nothing while it is down, and never an entry of negative length or a packet that is not what its vnet header says.
const batch = packetBatch(1 << 17, 4)
batch.data.set([0x45, 0, 0, 28], 12)
batch.data.set([1, 5, 0, 0, 0, 0, 20, 0, 6, 0, 0x45, 0, 0, 28], 100)
batch.desc.set([2, 38, 0, 0, 2, -1, 0, 0, 2, 38, 0, 0, 100, 38, 0, 0])
batch.count = 4
for (const up of [true, false]) {
  const device = new NativeTun({ name: up ? 'up0' : 'down0', mtu: 1400, up, offload: 'tso' })
  results[device.name] = device.writeBatch(batch)
  device.close()
}

for (const one of [listener, sender, large, both]) one.close()
console.log(`result ${JSON.stringify(results)}`)
process.exit(0)
