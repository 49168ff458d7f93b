// Which of the queues of a TUN device packets come by. usage: node steer-probe.js; the device has to be made by root in a network namespace of its own. Says one line of JSON, see Steered.

import { spawnSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect } from 'node:net'
import { NativeTun } from '../../daemon/tun.js'
import { packetBatch, PACKET_WORDS } from '../../lib/wire/batch.js'
import { VNET_HEADER } from '../../lib/wire/constants.js'

export interface Steered {
  readonly steered: boolean
  /** By family: packets of one UDP flow with large and small datagrams, and first packets of TCP connections, by queue. */
  readonly udp: readonly (readonly number[])[]
  readonly tcp: readonly (readonly number[])[]
}

const QUEUES = 4
const DATAGRAMS = 40
const CONNECTIONS = 64
const TCP = 6
const FAMILIES = [
  { family: 4, own: '198.18.0.1/24', other: '198.18.0.9' },
  { family: 6, own: 'fd12:3456::1/64', other: 'fd12:3456::9' },
] as const

const options = { name: 'over0', mtu: 1400, multiQueue: true }
const queues = Array.from({ length: QUEUES }, () => new NativeTun(options))
const steered = queues[0]!.steer()
for (const { own } of FAMILIES) {
  const { status, stderr } = spawnSync('ip', ['addr', 'add', own, 'dev', 'over0', 'nodad'], { encoding: 'utf8' })
  if (status !== 0) throw new Error(stderr)
}
const counts = { udp: FAMILIES.map(() => queues.map(() => 0)), tcp: FAMILIES.map(() => queues.map(() => 0)) }
const batch = packetBatch(1 << 19, 64)

function drain(): void {
  for (const [queue, tun] of queues.entries()) {
    while (tun.readBatch(batch) > 0) for (let i = 0; i < batch.count; i++) count(queue, batch.desc[i * PACKET_WORDS]!)
  }
}

function count(queue: number, offset: number): void {
  const at = offset + VNET_HEADER
  const version = batch.data[at]! >> 4
  const protocol = batch.data[at + (version === 4 ? 9 : 6)]!
  const [family, target] = version === 4 ? [0, 16] : [1, 24]
  // What the kernel says by itself goes elsewhere.
  if (batch.data[at + target] !== (version === 4 ? 198 : 0xfd)) return
  counts[protocol === TCP ? 'tcp' : 'udp'][family]![queue]!++
}

for (const { family, other } of FAMILIES) {
  const socket = createSocket(family === 4 ? 'udp4' : 'udp6')
  socket.connect(9000, other)
  await once(socket, 'connect')
  for (let i = 0; i < DATAGRAMS; i++) {
    await new Promise<void>((resolve) => socket.send(Buffer.alloc(i % 2 === 0 ? 10 : 4000), () => resolve()))
    drain()
  }
  socket.close()
  const connections = Array.from({ length: CONNECTIONS }, () => connect(80, other).on('error', () => undefined))
  while (counts.tcp[family === 4 ? 0 : 1]!.reduce((sum, n) => sum + n) < CONNECTIONS) {
    drain()
    await new Promise<void>((resolve) => setImmediate(resolve))
  }
  for (const connection of connections) connection.destroy()
}
drain()
for (const tun of queues) tun.close()
const result: Steered = { steered, ...counts }
console.log(JSON.stringify(result))
