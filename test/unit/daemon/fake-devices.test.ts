import { test } from 'tap'
import { FakeNetwork, FakeTun } from '../../../daemon/fake-devices.js'
import { decodeLocator, encodeLocator } from '../../../lib/path/locator.js'
import {
  ADDRESS_RECORD,
  datagramBatch,
  frameRuns,
  packetBatch,
  PACKET_WORDS,
  type FrameRuns,
} from '../../../lib/wire/batch.js'

const A = { address: '192.0.2.1', port: 1000 }
const B = { address: '192.0.2.2', port: 2000 }

function run(bytes: readonly number[], stride: number, slot = 0, trafficClass = 0): FrameRuns {
  const runs = frameRuns(1024, 4)
  runs.data.set(bytes)
  runs.desc.set([0, bytes.length, stride, slot, trafficClass, 0])
  runs.count = 1
  return runs
}

test('packets of the test reach the reader, with their IP header aligned', async (t) => {
  const tun = new FakeTun()
  const batch = packetBatch(1 << 18, 64)
  let calls = 0
  tun.fromKernel(Uint8Array.of(1, 2, 3))
  tun.onReadable(() => calls++)
  tun.fromKernel(Uint8Array.of(4, 5, 6, 7, 8), Uint8Array.of(1, 0, 0, 0, 0, 0, 20, 0, 16, 0))
  t.equal(calls, 2, 'once for what waited, once for what came')
  t.equal(tun.readBatch(batch), 2)
  for (const i of [0, 1]) t.equal((batch.desc[i * PACKET_WORDS]! + 10) % 4, 0)
  const [offset, length] = batch.desc.subarray(PACKET_WORDS)
  t.strictSame([...batch.data.subarray(offset, offset! + length!)], [1, 0, 0, 0, 0, 0, 20, 0, 16, 0, 4, 5, 6, 7, 8])
  t.equal(batch.used, offset! + length!)
  t.equal(tun.readBatch(batch), 0)
})

test('a reader gets what its buffer has room for, and the rest later', async (t) => {
  const tun = new FakeTun()
  for (let i = 0; i < 100; i++) tun.fromKernel(new Uint8Array(1000))
  t.equal(tun.readBatch(packetBatch(1 << 18, 100)), 64, 'no more than 64')
  t.equal(tun.readBatch(packetBatch(1 << 18, 5)), 5, 'no more than descriptors')
  t.equal(tun.readBatch(packetBatch(65_547, 64)), 1, 'never into less room than one super-packet needs')
  t.equal(tun.readBatch(packetBatch(1 << 18, 64)), 30)
})

test('entries of negative length are not written', async (t) => {
  const tun = new FakeTun()
  const batch = packetBatch(1 << 17, 4)
  batch.desc.set([2, 12, 0, 0, 20, -1, 0, 0, 40, 15, 0, 0])
  batch.count = 3
  t.equal(tun.writeBatch(batch), 2)
  t.strictSame(
    tun.toKernel.map((packet) => packet.length),
    [12, 15],
  )
  batch.desc[0] = 1 << 17
  t.throws(() => tun.writeBatch(batch), RangeError)
  tun.close()
  t.throws(() => tun.readBatch(batch), /closed/)
})

test('datagrams move when the network delivers, never before', async (t) => {
  const network = new FakeNetwork()
  const [a, b] = [network.open(A), network.open(B)]
  const batch = datagramBatch(8)
  let calls = 0
  b.onReadable(() => calls++)
  t.match(a.sendBatch(run([1, 2, 3, 4, 5], 2, 0, 0xb8), encodeLocator(B)), { sent: 3, failed: 0 })
  t.equal(b.recvBatch(batch), 0)
  t.equal(network.deliver(), 1)
  t.equal(calls, 1)
  t.equal(b.recvBatch(batch), 1)
  t.strictSame([...batch.desc.subarray(0, 4)], [0, 5, 2, 0xb8], 'a run arrives as one buffer of segments')
  t.strictSame(decodeLocator(batch.addresses), A)
  t.equal(network.deliver(), 0)
  t.throws(() => network.open(A), { code: 'CARACAL_E_LISTEN' })
})

test('what has nowhere to go is counted', async (t) => {
  const network = new FakeNetwork()
  const a = network.open(A)
  const records = new Uint8Array(2 * ADDRESS_RECORD)
  records.set(encodeLocator({ address: '2001:db8::1', port: 1 }), ADDRESS_RECORD)
  t.match(a.sendBatch(run([1, 2, 3], 2, 0), records), { sent: 0, failed: 2 }, 'an empty slot')
  t.match(a.sendBatch(run([1, 2, 3], 2, 1), records), { sent: 0, failed: 2 }, 'the other family')
  t.throws(() => a.sendBatch(run([1], 1, 2), records), RangeError)
  t.match(a.sendBatch(run([1], 1), encodeLocator(B)), { sent: 1, failed: 0 })
  t.equal(network.deliver(), 0, 'nobody listens there')
})

test('a filter loses, doubles and re-addresses', async (t) => {
  const network = new FakeNetwork()
  const [a, b] = [network.open(A), network.open(B)]
  const batch = datagramBatch(8)
  network.filter = (one) => (one.bytes[0] === 0 ? [] : [one, { ...one, from: { address: '203.0.113.9', port: 9 } }])
  a.sendBatch(run([0], 1), encodeLocator(B))
  a.sendBatch(run([1], 1), encodeLocator(B))
  t.ok(network.settle())
  t.equal(b.recvBatch(batch), 2)
  t.strictSame(decodeLocator(batch.addresses, ADDRESS_RECORD), { address: '203.0.113.9', port: 9 })
  network.filter = undefined
  b.onReadable(() => {
    b.recvBatch(batch)
    b.sendBatch(run([1], 1), encodeLocator(A))
  })
  a.onReadable(() => {
    a.recvBatch(batch)
    a.sendBatch(run([1], 1), encodeLocator(B))
  })
  a.sendBatch(run([1], 1), encodeLocator(B))
  t.notOk(network.settle(50), 'two that answer each other for ever do not hang the test')
})
