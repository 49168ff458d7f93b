import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { test } from 'tap'
import { native } from '../../../daemon/native.js'
import { NativeUdp } from '../../../daemon/udp.js'
import { hammer } from './native-hammer.js'

test('wrong arguments throw coded errors and nothing worse', async (t) => {
  const addon = native()
  const { handle } = addon.udpOpen('127.0.0.1', 0, 1 << 16, 0)
  hammer(addon, [handle], 4000)
  t.doesNotThrow(() => addon.close(handle), 'the socket has survived')
})

test('each kind of mistake has its code', async (t) => {
  const addon = native()
  const { handle } = addon.udpOpen('127.0.0.1', 0, 1 << 16, 0)
  const data = new Uint8Array(65_536)
  const desc = new Int32Array(6)
  const records = new Uint8Array(24)
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
