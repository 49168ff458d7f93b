// Real sockets on the loopback of a namespace of their own (MTU 1,400), for test/net/sockets.test.ts. Prints `result JSON` for each scenario.

import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
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
  PACKET_WORDS,
  RUN_WORDS,
  type FrameRuns,
} from '../../lib/wire/batch.js'
import { VNET_HEADER } from '../../lib/wire/constants.js'
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

const SET_OPTION = `
import ctypes, os, socket, sys
process, number, value = map(int, sys.argv[1:])
number = ctypes.CDLL(None, use_errno=True).syscall(438, os.pidfd_open(process), number, 0)
assert number >= 0, os.strerror(ctypes.get_errno())
socket.socket(fileno=number).setsockopt(socket.SOL_SOCKET, 11, value)
`
/** Switches SO_NO_CHECK of a socket of this process. */
function withoutChecksums(descriptor: string, on: boolean): void {
  execFileSync('python3', ['-c', SET_OPTION, String(process.pid), descriptor, String(Number(on))])
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

/** Everything that reaches the socket until `bytes` have come. `watched`: it says when it is readable, which it can be asked once. */
async function receive(socket: NativeUdp, bytes: number, watched = true): Promise<Received[]> {
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
  while (!watched && at < bytes) {
    take()
    await new Promise((resolve) => setImmediate(resolve))
  }
  if (watched && bytes > 0) {
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

// A destination that GSO is refused for, and another one: the kernel cuts nothing for a socket without checksums (SO_NO_CHECK), which we switch from outside.
// The folder itself is open while it is read.
const openFiles = () => readdirSync('/proc/self/fd').filter((name) => existsSync(`/proc/self/fd/${name}`))
const known = new Set(openFiles())
const cut = new NativeUdp({ address: '127.0.0.1', port: 0, gro: false })
const descriptor = openFiles().find((name) => !known.has(name))!
const [here, there] = [4001, 4002].map((port) => new NativeUdp({ address: '127.0.0.1', port }))
const ends = Buffer.concat([encodeLocator(here!.local), encodeLocator(there!.local)])
const three = (slot: number) => fill([{ length: 300, stride: 100, slot }])
const gso = async (to: NativeUdp, slot: number, times: number) => {
  let [sent, failed] = [0, 0]
  const received: Received[] = []
  for (let i = 0; i < times; i++) {
    const result = cut.sendBatch(three(slot), ends)
    sent += result.sent
    failed += result.failed
    received.push(...(await receive(to, 300, false)))
  }
  return { sent, failed, gso: cut.gso, gsoRefused: cut.gsoRefused, received }
}
withoutChecksums(descriptor, true)
const refused = await gso(here!, 0, 2)
withoutChecksums(descriptor, false)
const other = await gso(there!, 1, 1)
for (let i = 0; i < 4096; i++) {
  cut.sendBatch(three(0), ends)
  if (!cut.gsoRefused) break
  await receive(here!, 300, false)
}
await receive(here!, 300, false)
results['gso'] = { refused, other, again: await gso(here!, 0, 1) }

// More than a socket's buffer and a device's queue hold, which nobody reads.
const small = new NativeUdp({ address: '127.0.0.1', port: 4003, bufferBytes: 1 << 16 })
const before = small.datagramsLost
const flood = cut.sendBatch(
  fill(Array.from({ length: 400 }, () => ({ length: 1000, stride: 1000 }))),
  Buffer.from(encodeLocator(small.local)),
)
const waiting = datagramBatch(8)
let read = 0
while (small.recvBatch(waiting) > 0) read += waiting.count
results['lost'] = { before, room: read > 0, all: read + small.datagramsLost === flood.sent }
small.close()
if (small.datagramsLost !== flood.sent - read) throw new Error('the count is not kept')

const busy = new NativeTun({ name: 'busy0', mtu: 1400, offload: 'tso' })
execFileSync('ip', ['addr', 'add', '198.51.100.1/24', 'dev', 'busy0'])
const full = { before: busy.packetsLost, all: false }
const idle = packetBatch(1 << 20, 64)
// What the kernel says of itself on a new device is read first.
while (busy.readBatch(idle) > 0);
const first = busy.packetsLost
const towards = Buffer.from(encodeLocator({ address: '198.51.100.2', port: 9 }))
const outside = new NativeUdp({ address: '0.0.0.0', port: 0 })
let wentOut = 0
for (let i = 0; i < 10; i++)
  wentOut += outside.sendBatch(fill(Array.from({ length: 200 }, () => ({ length: 100, stride: 100 }))), towards).sent
let came = 0
while (busy.readBatch(idle) > 0) {
  for (let i = 0; i < idle.count; i++) if (idle.data[idle.desc[i * PACKET_WORDS]! + VNET_HEADER + 9] === 17) came++
}
full.all = busy.packetsLost > first && came + busy.packetsLost - first >= wentOut
results['lost by the device'] = full
for (const one of [cut, here!, there!, outside]) one.close()
busy.close()

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
