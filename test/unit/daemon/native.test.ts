import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { test } from 'tap'
import { NativeEvent } from '../../../daemon/event.js'
import { native } from '../../../daemon/native.js'
import { NativeTimer } from '../../../daemon/native-timer.js'
import { tableMemory } from '../../../daemon/table-memory.js'
import { NativeUdp } from '../../../daemon/udp.js'
import { encodeLocator } from '../../../lib/path/locator.js'
import { datagramBatch, frameRuns } from '../../../lib/wire/batch.js'
import { hammer } from './native-hammer.js'
import { ADDRESS_RECORD } from '../../../lib/wire/batch.js'

test('wrong arguments throw coded errors and nothing worse', async (t) => {
  const addon = native()
  const { handle } = addon.udpOpen('127.0.0.1', 0, 1 << 16, 0)
  hammer(addon, [handle], 4000)
  // What the right arguments among them may have done.
  addon.setRealTime(false)
  t.doesNotThrow(() => addon.close(handle), 'the socket has survived')
})

test('each kind of mistake has its code', async (t) => {
  const addon = native()
  const { handle } = addon.udpOpen('127.0.0.1', 0, 1 << 16, 0)
  const data = new Uint8Array(65_536)
  const desc = new Int32Array(6)
  const records = new Uint8Array(ADDRESS_RECORD)
  const result = new Int32Array(4)
  t.throws(() => addon.udpSend(handle, data, desc, 2, records, result), { code: 'CARACAL_E_RANGE' }, 'count')
  t.throws(() => addon.udpSend(handle, data, Int32Array.of(65_000, 1000, 1000, 0, 0, 0), 1, records, result), {
    code: 'CARACAL_E_RANGE',
    message: 'run 0: lies outside its buffer',
  })
  t.throws(() => addon.udpSend(handle, data, Int32Array.of(0, 100, 100, 1, 0, 0), 1, records, result), {
    code: 'CARACAL_E_RANGE',
    message: 'run 0: no such address',
  })
  t.throws(() => addon.udpSend(handle, data, Int32Array.of(0, 6500, 100, 0, 0, 0), 1, records, result), {
    code: 'CARACAL_E_RANGE',
    message: 'run 0: too many frames',
  })
  t.throws(() => addon.udpReceive(handle, data.subarray(1), desc, records), { code: 'CARACAL_E_RANGE' })
  t.throws(() => addon.tunRead(handle, data, desc), { code: 'CARACAL_E_ARGUMENT' }, 'not a TUN')
  addon.watch(handle, () => undefined)
  t.throws(() => addon.watch(handle, () => undefined), { code: 'CARACAL_E_WATCHED' })
  addon.close(handle)
  t.throws(() => addon.close(handle), { code: 'CARACAL_E_CLOSED' })
  t.throws(() => addon.udpReceive(handle, data, desc, records), { code: 'CARACAL_E_CLOSED' })
  const next = addon.udpOpen('127.0.0.1', 0, 1 << 16, 0)
  t.not(next.handle, handle, 'a handle is not used again at once')
  addon.close(next.handle)
})

test('a socket that cannot be opened says why', async (t) => {
  const first = new NativeUdp({ address: '127.0.0.1', port: 0 })
  t.throws(() => new NativeUdp({ address: '127.0.0.1', port: first.local.port }), {
    code: 'CARACAL_E_LISTEN',
    message: `cannot listen on UDP 127.0.0.1:${first.local.port}: another process has the port; choose one with --listen ADDR:PORT`,
  })
  t.throws(() => new NativeUdp({ address: 'localhost', port: 0 }), { code: 'CARACAL_E_LISTEN' })
  first.close()
  first.close()
})

test('a worker that watches a socket can be terminated', async (t) => {
  const worker = new Worker(new URL('native-worker.js', import.meta.url))
  const [port] = (await once(worker, 'message')) as [number]
  await worker.terminate()
  const again = new NativeUdp({ address: '127.0.0.1', port })
  t.equal(again.local.port, port, 'its socket was closed')
  again.close()
})

test('a socket that two threads share is closed when both have closed it', async (t) => {
  const first = new NativeUdp({ address: '127.0.0.1', port: 0 })
  const shared = first.share()
  const second = new NativeUdp(shared)
  t.throws(() => new NativeUdp(shared), { code: 'CARACAL_E_CLOSED' }, 'a token is good for once')
  t.strictSame(second.local, first.local)
  first.close()
  t.throws(() => new NativeUdp({ address: '127.0.0.1', port: second.local.port }), { code: 'CARACAL_E_LISTEN' })
  second.close()
  new NativeUdp({ address: '127.0.0.1', port: second.local.port }).close()
})

test('an event wakes whoever watches it, also for a signal of before', async (t) => {
  const ours = new NativeEvent()
  const theirs = new NativeEvent(ours.share())
  theirs.signal()
  theirs.signal()
  let woken: () => void = () => undefined
  let times = 0
  const wake = () => new Promise<void>((resolve) => (woken = resolve))
  let next = wake()
  ours.onSignal(() => {
    times++
    woken()
  })
  await next
  t.equal(times, 1, 'signals that nobody has seen yet are one')
  next = wake()
  theirs.signal()
  await next
  t.equal(times, 2)
  ours.close()
  theirs.close()
  theirs.close()
})

test('a timer goes off once, when it was set to last', async (t) => {
  const times: number[] = []
  let off: () => void = () => undefined
  const timer = new NativeTimer(() => {
    times.push(performance.now())
    off()
  })
  t.teardown(() => timer.close())
  const goesOff = () => new Promise<void>((resolve) => (off = resolve))
  let next = goesOff()
  const began = performance.now()
  timer.set(2)
  timer.set(60)
  await next
  t.ok(times[0]! - began >= 59.9, `it was moved on: ${times[0]! - began} ms`)

  next = goesOff()
  timer.set(5)
  // It is due, and set anew before anybody has looked.
  for (const end = performance.now() + 10; performance.now() < end;);
  timer.set(30)
  const again = performance.now()
  await next
  t.ok(times[1]! - again >= 29.9, `${times[1]! - again} ms`)

  timer.set(3)
  timer.set(Infinity)
  next = goesOff()
  const other = new NativeTimer(() => off())
  t.teardown(() => other.close())
  other.set(20)
  await next
  t.equal(times.length, 2, 'one that is not set does not go off')
  timer.close()
  timer.close()
  t.throws(() => timer.set(1), { code: 'CARACAL_E_CLOSED' })
  t.throws(() => other.set(86_400_001), { code: 'CARACAL_E_RANGE' })
})

test('a watch on hold says nothing, and what has come meanwhile afterwards', async (t) => {
  const socket = new NativeUdp({ address: '127.0.0.1', port: 0 })
  const datagrams = datagramBatch(8)
  let come = 0
  let told: () => void = () => undefined
  socket.onReadable(() => {
    come += socket.recvBatch(datagrams)
    told()
  })
  socket.pause(true)
  const runs = frameRuns(64, 1)
  runs.desc.set([0, 10, 10, 0, 0, 0])
  runs.count = 1
  socket.sendBatch(runs, encodeLocator(socket.local))
  // The event loop has turned, more than once, with the datagram waiting.
  for (let i = 0; i < 3; i++) {
    const turned = new Promise<void>((resolve) => setImmediate(resolve))
    await turned
  }
  t.equal(come, 0)
  const arrived = new Promise<void>((resolve) => (told = resolve))
  socket.pause(false)
  await arrived
  t.equal(come, 1)
  socket.close()
})

test('a thread is made real-time and ordinary again, and programs that it starts are ordinary', (t) => {
  const addon = native()
  t.equal(addon.isRealTime(), false)
  // Field 41 of /proc/PID/stat, of which the second may have spaces in it: the scheduling policy.
  const policyOfChild = () =>
    spawnSync('cat', ['/proc/self/stat'], { encoding: 'utf8' }).stdout.split(') ')[1]!.split(' ')[38]
  try {
    addon.setRealTime(true)
  } catch (error) {
    t.match(error, { code: 'CARACAL_E_PRIORITY' }, 'who may not')
    t.equal(addon.isRealTime(), false)
    t.end()
    return
  }
  t.equal(addon.isRealTime(), true)
  t.equal(policyOfChild(), '0')
  addon.setRealTime(false)
  t.equal(addon.isRealTime(), false)
  t.end()
})

test('memory of any size may be asked to lie on large pages', (t) => {
  const addon = native()
  for (const size of [0, 1, 4_096, 6 << 20]) {
    const bytes = new Uint8Array(size).fill(7)
    addon.adviseHugePages(bytes)
    t.ok(bytes.every((byte) => byte === 7))
  }
  t.equal(
    new Uint8Array(tableMemory(5 << 20)).findIndex((byte) => byte !== 0),
    -1,
    'zeroed',
  )
  t.end()
})
