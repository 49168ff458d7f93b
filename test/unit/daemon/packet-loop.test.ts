import { test, type Test } from 'tap'
import { FakeNetwork, FakeTun } from '../../../daemon/fake-devices.js'
import { DeviceIo, monotonicNow, PacketLoop, type Driven } from '../../../daemon/packet-loop.js'
import { Underlay } from '../../../daemon/underlay.js'
import { encodeLocator } from '../../../lib/path/locator.js'
import { datagramBatch, frameRuns, packetBatch, PACKET_WORDS } from '../../../lib/wire/batch.js'

const A = { address: '192.0.2.1', port: 1 }
const B = { address: '192.0.2.2', port: 2 }
const PATIENCE_MS = 10_000

/** A host that does what the test says. */
class Puppet implements Driven {
  readonly dataPath = { tunIn: packetBatch(512 * 1024, 128), wireIn: datagramBatch(8) }
  due = Infinity
  /** How often for its deadline. */
  asked = 0
  packets = 0
  datagrams = 0
  readonly timeouts: number[] = []
  onTun: () => void = () => undefined
  onWire: () => void = () => undefined
  onTimeout: () => void = () => undefined
  #waiting: { readonly holds: () => boolean; readonly resolve: () => void }[] = []

  tunRead(): void {
    this.packets += this.dataPath.tunIn.count
    this.onTun()
    this.look()
  }
  wireRead(): void {
    this.datagrams += this.dataPath.wireIn.count
    this.onWire()
    this.look()
  }
  nextTimeout(): number {
    this.asked++
    this.look()
    return this.due
  }
  handleTimeout(now: number): void {
    this.timeouts.push(now)
    this.due = Infinity
    this.onTimeout()
    this.look()
  }

  /** Rejects when it does not hold in time. */
  until(holds: () => boolean): Promise<void> {
    if (holds()) return Promise.resolve()
    return new Promise((resolve, reject) => {
      const limit = setTimeout(() => reject(new Error('it did not come about')), PATIENCE_MS)
      this.#waiting.push({
        holds,
        resolve: () => {
          clearTimeout(limit)
          resolve()
        },
      })
    })
  }

  /** Lets go who waits for what holds now. */
  look(): void {
    const met = this.#waiting.filter(({ holds }) => holds())
    this.#waiting = this.#waiting.filter((one) => !met.includes(one))
    for (const { resolve } of met) resolve()
  }
}

function rig(t: Test, tun = new FakeTun(), late: (ms: number) => void = () => undefined) {
  const network = new FakeNetwork()
  const host = new Puppet()
  const failures: unknown[] = []
  const underlay = new Underlay([network.open(A)])
  const other = new Underlay([network.open(B)])
  const faults: unknown[] = []
  const fault = (error: unknown) => {
    faults.push(error)
    host.look()
  }
  const failed = (error: unknown) => {
    failures.push(error)
    host.look()
  }
  const loop = new PacketLoop({ host, tun, underlay, fault, late, failed })
  t.teardown(() => loop.stop())
  const send = (bytes: Uint8Array) => {
    other.sendOne(bytes, encodeLocator(A))
    network.deliver()
  }
  return { host, tun, loop, faults, failures, send }
}

test('packets of both devices reach the host', async (t) => {
  const { host, tun, loop, send } = rig(t)
  tun.fromKernel(Uint8Array.of(1))
  loop.start()
  t.equal(host.packets, 1, 'what waited before the start')
  tun.fromKernel(Uint8Array.of(2))
  send(Uint8Array.of(3))
  t.equal(host.packets, 2)
  t.equal(host.datagrams, 1)
})

test('what has come to the sockets by now is dealt with when that is asked for', async (t) => {
  const { host, loop, send } = rig(t)
  for (let i = 0; i < 200; i++) send(Uint8Array.of(i))
  t.equal(host.datagrams, 0)
  loop.receive()
  t.equal(host.datagrams, 200)
  send(Uint8Array.of(1))
  loop.stop()
  loop.receive()
  t.equal(host.datagrams, 200, 'of a stopped loop nothing')
})

test('a busy device lets the other one have its turn', async (t) => {
  const { host, tun, loop } = rig(t)
  let left = 10_000
  const packet = Uint8Array.of(1)
  host.onTun = () => {
    if (left-- <= 0) return
    tun.fromKernel(packet)
    tun.fromKernel(packet)
  }
  // Only its own reading brings more, as from a kernel that is never short of packets.
  const onReadable = tun.onReadable.bind(tun)
  let readable: () => void = () => undefined
  tun.onReadable = (callback) => {
    readable = callback
    onReadable(() => undefined)
  }
  loop.start()
  tun.fromKernel(packet)
  tun.fromKernel(packet)
  readable()
  t.ok(host.packets > 2 && host.packets < 100, `${host.packets} packets in one turn`)
})

test('the answer of the own kernel to what was written is taken in the same turn', async (t) => {
  const { host, tun, loop, send } = rig(t)
  tun.onReadable = () => undefined
  host.onWire = () => tun.fromKernel(Uint8Array.of(2))
  loop.start()
  send(Uint8Array.of(1))
  t.same([host.datagrams, host.packets], [1, 1])
})

test('the clock: a deadline is kept, and not before its time', async (t) => {
  const { host, loop } = rig(t)
  const due = monotonicNow() + 40
  host.due = due
  loop.start()
  await host.until(() => host.timeouts.length > 0)
  t.ok(host.timeouts[0]! >= due)
  t.equal(host.timeouts.length, 1, 'none before')
})

test('a loop that stood still reads what has come before it deals with what was due meanwhile', async (t) => {
  const { host, loop, send } = rig(t)
  const read: number[] = []
  host.onTimeout = () => read.push(host.datagrams)
  for (let i = 0; i < 200; i++) send(Uint8Array.of(i))
  host.due = monotonicNow() - 50
  loop.wake()
  await host.until(() => read.length > 0)
  t.strictSame(read, [200])
})

test('each deadline brings the next', async (t) => {
  const { host, loop } = rig(t)
  host.due = monotonicNow()
  host.onTimeout = () => {
    if (host.timeouts.length < 5) host.due = monotonicNow() + 3
  }
  loop.start()
  await host.until(() => host.timeouts.length === 5)
  for (let i = 1; i < 5; i++) t.ok(host.timeouts[i]! - host.timeouts[i - 1]! >= 3)
})

test('a deadline that was set from outside is kept once the loop is woken', async (t) => {
  const { host, loop } = rig(t)
  host.due = monotonicNow() + 50_000
  loop.start()
  await host.until(() => host.asked === 1)
  await new Promise((resolve) => setImmediate(resolve))
  host.due = monotonicNow()
  loop.wake()
  await host.until(() => host.timeouts.length > 0)
  t.equal(host.timeouts.length, 1)
})

test('a deadline that a packet has set is noticed', async (t) => {
  const { host, tun, loop, send } = rig(t)
  host.due = monotonicNow() + 50_000
  loop.start()
  host.due = monotonicNow()
  tun.fromKernel(Uint8Array.of(1))
  await host.until(() => host.timeouts.length === 1)
  host.due = monotonicNow()
  send(Uint8Array.of(1))
  await host.until(() => host.timeouts.length === 2)
  t.pass()
})

test('a deadline that has moved on wakes nobody', async (t) => {
  const { host, loop, send } = rig(t)
  host.due = monotonicNow() + 20
  loop.start()
  host.onWire = () => (host.due = monotonicNow() + 100)
  send(Uint8Array.of(1))
  const asked = host.asked
  await host.until(() => host.timeouts.length === 1)
  t.equal(host.asked, asked + 2, 'only when it was due: before and after')
})

test('by how much a deadline was late is told', async (t) => {
  const late: number[] = []
  const { host, loop } = rig(t, new FakeTun(), (ms) => late.push(ms))
  host.due = monotonicNow() + 5
  loop.start()
  for (const end = monotonicNow() + 40; monotonicNow() < end;);
  await host.until(() => host.timeouts.length === 1)
  t.equal(late.length, 1)
  t.ok(late[0]! >= 34, `${late[0]} ms`)
})

test('what is thrown reaches the owner, and the loop goes on', async (t) => {
  const { host, tun, loop, faults, failures } = rig(t)
  loop.start()
  const problem = new Error('from a packet')
  host.onTun = () => {
    throw problem
  }
  tun.fromKernel(Uint8Array.of(1))
  t.strictSame(faults, [problem])
  host.onTun = () => undefined
  tun.fromKernel(Uint8Array.of(1))
  t.equal(host.packets, 2)
  host.due = monotonicNow()
  host.onTimeout = () => {
    throw new Error('from a timer')
  }
  loop.wake()
  await host.until(() => faults.length === 2)
  t.match(faults[1], { message: 'from a timer' })
  t.same(failures, [])
})

test('faults that do not end stop the loop', async (t) => {
  const { host, tun, loop, faults, failures } = rig(t)
  loop.start()
  host.onTun = () => {
    throw new Error('again')
  }
  for (let i = 0; i < 100; i++) tun.fromKernel(Uint8Array.of(1))
  t.ok(faults.length >= 10 && faults.length < 100, `${faults.length} batches were given up`)
  t.match(failures, [{ message: 'again' }])
  t.equal(host.packets, faults.length + 1, 'nothing is read any more')
})

test('a device that is gone ends the loop', async (t) => {
  class Gone extends Error {
    readonly code = 'CARACAL_E_GONE'
  }
  const tun = new FakeTun()
  const { host, loop, failures, send } = rig(t, tun)
  loop.start()
  tun.readBatch = () => {
    throw new Gone('no such device')
  }
  tun.fromKernel(Uint8Array.of(1))
  t.match(failures, [{ code: 'CARACAL_E_GONE' }])
  tun.fromKernel(Uint8Array.of(1))
  send(Uint8Array.of(1))
  t.equal(failures.length, 1, 'told of once')
  t.equal(host.datagrams, 0)
})

test('a stopped loop does nothing more', async (t) => {
  const { host, tun, loop, send } = rig(t)
  host.due = monotonicNow() + 10
  loop.start()
  loop.stop()
  tun.fromKernel(Uint8Array.of(1))
  send(Uint8Array.of(1))
  loop.wake()
  const clock = rig(t)
  clock.host.due = monotonicNow() + 30
  clock.loop.start()
  await clock.host.until(() => clock.host.timeouts.length > 0)
  t.equal(host.packets + host.datagrams + host.timeouts.length, 0)
})

test('the devices as the host writes to them', async (t) => {
  const network = new FakeNetwork()
  const underlay = new Underlay([network.open(A)])
  const io = new DeviceIo()
  io.underlay = underlay
  const batch = packetBatch(1024, 4)
  const add = (length: number) => {
    batch.desc[batch.count * PACKET_WORDS] = batch.used
    batch.desc[batch.count * PACKET_WORDS + 1] = length
    batch.count++
    batch.used += 100
  }
  add(50)
  add(60)
  io.writeTun(batch)
  t.equal(io.tunWriteFailed, 2, 'while there is no device')
  const tun = new FakeTun()
  io.tun = tun
  io.writeTun(batch)
  t.strictSame(
    tun.toKernel.map(({ length }) => length),
    [50, 60],
  )
  t.equal(io.tunWriteFailed, 2)
  const runs = frameRuns(64, 1)
  runs.desc.set([0, 8, 8, 0, 0, 0])
  runs.count = 1
  io.sendFrames(runs, encodeLocator(B), 0)
  t.equal(network.flying, 1)
})
