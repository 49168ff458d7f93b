import { test, type Test } from 'tap'
import { FakeNetwork } from '../../../daemon/fake-devices.js'
import { Underlay } from '../../../daemon/underlay.js'
import { NativeUdp } from '../../../daemon/udp.js'
import { encodeLocator, type Locator } from '../../../lib/path/locator.js'
import {
  ADDRESS_LOCAL,
  ADDRESS_RECORD,
  datagramBatch,
  frameRuns,
  RUN_WORDS,
  type FrameRuns,
} from '../../../lib/wire/batch.js'

const A4 = { address: '192.0.2.1', port: 7474 }
const A6 = { address: '2001:db8::1', port: 7474 }
const B4 = { address: '192.0.2.2', port: 7474 }
const B6 = { address: '2001:db8::2', port: 7474 }

function records(...locators: readonly Locator[]): Uint8Array {
  const table = new Uint8Array(locators.length * ADDRESS_RECORD)
  locators.forEach((locator, i) => table.set(encodeLocator(locator), i * ADDRESS_RECORD))
  return table
}

/** Each run: its bytes, stride and address slot. */
function runsOf(...list: readonly (readonly [bytes: readonly number[], stride: number, slot: number])[]): FrameRuns {
  const runs = frameRuns(4096, 16)
  for (const [bytes, stride, slot] of list) {
    runs.data.set(bytes, runs.used)
    runs.desc.set([runs.used, bytes.length, stride, slot, 0, 0], runs.count * RUN_WORDS)
    runs.used += bytes.length
    runs.count++
  }
  return runs
}

/** What reaches these sockets, by its first byte. */
function delivered(network: FakeNetwork, ...at: readonly Locator[]): number[][] {
  const sockets = at.map((locator) => network.open(locator))
  network.settle()
  return sockets.map((socket) => {
    const batch = datagramBatch(8)
    socket.recvBatch(batch)
    return Array.from({ length: batch.count }, (_, i) => batch.data[batch.desc[i * 4]!]!)
  })
}

test('each run goes out by the socket of its family, in order', async (t) => {
  const network = new FakeNetwork()
  const underlay = new Underlay([network.open(A4), network.open(A6)])
  const sent = runsOf([[1, 1], 1, 0], [[2], 1, 1], [[3], 1, 0], [[4], 1, 1])
  underlay.send(sent, records(B4, B6))
  t.strictSame(delivered(network, B4, B6), [
    [1, 3],
    [2, 4],
  ])
  t.equal(underlay.framesFailed, 0)
  t.strictSame(underlay.locals, [A4, A6])
})

test('the first socket of a family has all its runs', async (t) => {
  const network = new FakeNetwork()
  const second = network.open({ address: '192.0.2.9', port: 1 })
  const underlay = new Underlay([network.open(A4), second])
  const from: string[] = []
  network.filter = (datagram) => {
    from.push(datagram.from.address)
    return [datagram]
  }
  underlay.send(runsOf([[1], 1, 0]), records(B4))
  delivered(network, B4)
  t.strictSame(from, ['192.0.2.1'])
})

test('a run that names its own address goes out by the socket bound to it', async (t) => {
  const network = new FakeNetwork()
  const underlay = new Underlay([network.open(A4), network.open({ address: '192.0.2.9', port: 1 })])
  const from: string[] = []
  network.filter = (datagram) => {
    from.push(datagram.from.address)
    return [datagram]
  }
  const table = records(B4, B4, B4)
  table.set([192, 0, 2, 9], ADDRESS_LOCAL)
  table.set([192, 0, 2, 200], ADDRESS_RECORD + ADDRESS_LOCAL)
  underlay.send(runsOf([[1], 1, 0], [[2], 1, 1], [[3], 1, 2]), table)
  delivered(network, B4)
  t.strictSame(from.sort(), ['192.0.2.1', '192.0.2.1', '192.0.2.9'], 'the first for one that no socket has')
})

for (const [family, wildcard, other, own, foreign] of [
  [4, '0.0.0.0', [127, 0, 0, 5], [127, 0, 0, 9], [192, 0, 2, 77]],
  [
    6,
    '::',
    [...new Array<number>(15).fill(0), 1],
    [...new Array<number>(15).fill(0), 1],
    [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7],
  ],
] as const) {
  test(`IPv${family}: what comes says to which own address; what goes may say from which`, async (t) => {
    const here = new NativeUdp({ address: wildcard, port: 0 })
    const there = new NativeUdp({ address: wildcard, port: 0 })
    t.teardown(() => {
      here.close()
      there.close()
    })
    const batch = datagramBatch(8)
    const heard = new Promise<void>((resolve) => there.onReadable(() => there.recvBatch(batch) > 0 && resolve()))
    const table = new Uint8Array(ADDRESS_RECORD)
    table.set([family, 0, there.local.port >> 8, there.local.port & 255])
    table.set(other, 8)
    table.set(own, ADDRESS_LOCAL)
    t.match(here.sendBatch(runsOf([[1, 1, 2, 2, 3], 2, 0]), table), { sent: 3, failed: 0 })
    await heard
    t.strictSame([...batch.addresses.subarray(8, 8 + own.length)], [...own], 'from where')
    t.strictSame([...batch.addresses.subarray(ADDRESS_LOCAL, ADDRESS_LOCAL + other.length)], [...other], 'to where')
    const { gso } = here
    table.set(foreign, ADDRESS_LOCAL)
    t.match(here.sendBatch(runsOf([[1, 1, 2, 2, 3], 2, 0]), table), { sent: 3, failed: 0 }, 'an address that is gone')
    t.equal(here.gso, gso)
  })
}

test('frames to a family without a socket are counted as failed', async (t) => {
  const network = new FakeNetwork()
  const underlay = new Underlay([network.open(A4)])
  underlay.send(runsOf([[1, 1, 1, 1, 1], 2, 1], [[9], 1, 0]), records(B4, B6))
  t.equal(underlay.framesFailed, 3)
  t.strictSame(delivered(network, B4), [[9]])
})

test('what the kernel does not take is counted', async (t) => {
  const network = new FakeNetwork()
  const socket = network.open(A4)
  socket.sendBatch = () => ({ sent: 1, failed: 4 })
  const underlay = new Underlay([socket])
  underlay.send(runsOf([[1, 1, 1, 1, 1], 1, 0]), records(B4))
  underlay.send(runsOf([[1, 1, 1, 1, 1], 1, 0]), records(B4))
  t.equal(underlay.framesFailed, 8)
})

test('one datagram by itself', async (t) => {
  const network = new FakeNetwork()
  const underlay = new Underlay([network.open(A4), network.open(A6)])
  underlay.sendOne(Uint8Array.of(6, 6, 6), encodeLocator(B6))
  underlay.sendOne(Uint8Array.of(4), encodeLocator(B4))
  t.strictSame(delivered(network, B4, B6), [[4], [6]])
})

test('a socket gives its batches in rounds', async (t) => {
  const network = new FakeNetwork()
  const socket = network.open(A4)
  const underlay = new Underlay([socket])
  const other = new Underlay([network.open(B4)])
  for (let i = 0; i < 40; i++) other.sendOne(Uint8Array.of(i), encodeLocator(A4))
  network.settle()
  const batch = datagramBatch(8)
  let rounds = 0
  let datagrams = 0
  underlay.onReadable(
    batch,
    () => {
      rounds++
      datagrams += batch.count
    },
    3,
  )
  t.equal(rounds, 3, 'then others have their turn')
  t.equal(datagrams, 24)
})

test('real sockets: a port of the kernel, and back', async (t) => {
  const [a, b] = [open(t), open(t)]
  const received = new Promise<number[]>((resolve) => {
    const batch = datagramBatch(8)
    b.onReadable(batch, () => resolve([...batch.data.subarray(batch.desc[0]!, batch.desc[0]! + batch.desc[1]!)]))
  })
  a.sendOne(Uint8Array.of(1, 2, 3), encodeLocator(b.locals[0]!))
  t.strictSame(await received, [1, 2, 3])
  t.ok(b.bufferSizes[0]!.receive > 0)
})

test('an address that is taken, or is not this host’s, is refused and nothing stays open', async (t) => {
  const first = new NativeUdp({ address: '127.0.0.1', port: 0 })
  t.teardown(() => first.close())
  const free = new NativeUdp({ address: '127.0.0.1', port: 0 })
  const { port } = free.local
  free.close()
  t.throws(() => Underlay.open([{ address: '127.0.0.1', port }, first.local]), { code: 'CARACAL_E_LISTEN' })
  Underlay.open([{ address: '127.0.0.1', port }]).close()
  t.throws(() => Underlay.open([{ address: '192.0.2.77', port: 0 }]), { code: 'CARACAL_E_LISTEN', message: /--listen/ })
})

test('the IPv6 wildcard is left out only where there is no IPv6', async (t) => {
  const taken = ipv6Wildcard()
  if (taken === undefined) {
    const underlay = Underlay.open([
      { address: '127.0.0.1', port: 0 },
      { address: '::', port: 0 },
    ])
    t.equal(underlay.sockets.length, 1)
    underlay.close()
    return
  }
  t.teardown(() => taken.close())
  const both = [
    { address: '127.0.0.1', port: 0 },
    { address: '::', port: taken.local.port },
  ]
  t.throws(() => Underlay.open(both), { code: 'CARACAL_E_LISTEN', message: /another process/ }, 'taken is not missing')
})

function ipv6Wildcard(): NativeUdp | undefined {
  try {
    return new NativeUdp({ address: '::', port: 0 })
  } catch {
    return undefined
  }
}

function open(t: Test): Underlay {
  const underlay = Underlay.open([{ address: '127.0.0.1', port: 0 }])
  t.teardown(() => underlay.close())
  return underlay
}
