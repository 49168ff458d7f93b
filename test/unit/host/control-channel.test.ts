import { test } from 'tap'
import { Channel, ControlChannel, type ControlChannelOptions } from '../../../lib/host/control-channel.js'
import { PeerTable } from '../../../lib/path/peers.js'
import { decodeControl, encodeControl } from '../../../lib/wire/control.js'
import type { DropReason } from '../../../lib/wire/drop.js'
import { hostId } from '../../../lib/wire/ids.js'
import { seededRandom } from '../../tools/seeded-random.js'

const PEER = 1
const PATH = 1_280

/** One end, with what it sent and what came to it. */
class End {
  readonly sent: Uint8Array[] = []
  readonly messages: string[] = []
  readonly drops: DropReason[] = []
  readonly peers = new PeerTable(hostId(new Uint8Array(32).fill(1)), 8)
  session = true
  channel: ControlChannel

  constructor(
    epoch: number,
    readonly options: Partial<ControlChannelOptions> = {},
  ) {
    this.peers.add(hostId(new Uint8Array(32).fill(2)))
    this.channel = this.#start(epoch)
  }

  restart(epoch: number): void {
    this.channel = this.#start(epoch)
  }

  send(text: string, now: number): boolean {
    return this.channel.send(PEER, Channel.directory, new TextEncoder().encode(text), now)
  }

  /** Takes frames, and answers. */
  take(frames: readonly Uint8Array[], now: number): void {
    for (const frame of frames) this.channel.receive(PEER, frame, now)
    this.channel.flush(now)
  }

  #start(epoch: number): ControlChannel {
    return new ControlChannel(
      {
        peers: this.peers,
        epoch,
        sink: {
          sendControl: (_peer, message) => {
            if (this.session) this.sent.push(message.slice())
            return this.session
          },
          message: (_peer, _channel, body) => this.messages.push(new TextDecoder().decode(body)),
          drop: (reason) => this.drops.push(reason),
        },
      },
      this.options,
    )
  }
}

/** Hands over what both have sent until nobody has anything to say. */
function settle(a: End, b: End, now: number): void {
  while (a.sent.length > 0 || b.sent.length > 0) {
    b.take(a.sent.splice(0), now)
    a.take(b.sent.splice(0), now)
  }
}

test('a message arrives once, with its channel, and is acknowledged', (t) => {
  const [a, b] = [new End(11), new End(22)]
  a.send('hello', 0)
  t.equal(a.channel.pending, 1)
  t.ok(a.channel.pendingFor(PEER))
  settle(a, b, 5)
  t.strictSame(b.messages, ['hello'])
  t.equal(a.channel.pending, 0)
  t.notOk(a.channel.pendingFor(PEER))
  t.equal(a.channel.nextTimeout(), Infinity, 'nothing is left to do')
  t.end()
})

test('over a link that loses, doubles and reorders, each message arrives exactly once', (t) => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = seededRandom(seed)
    const ends = [new End(11), new End(22)] as const
    const loss = [0, 0.1, 0.4][seed % 3]!
    const flying: { readonly at: number; readonly to: number; readonly frame: Uint8Array }[] = []
    let sent = 0
    let now = 0
    for (; now < 120_000; now += 5) {
      if (now < 1_000 && random() < 0.5) {
        ends[0].send(`a${sent}`, now)
        ends[1].send(`b${sent++}`, now)
      }
      for (const from of [0, 1] as const) {
        for (const frame of ends[from].sent.splice(0)) {
          for (let copies = random() < 0.2 ? 2 : 1; copies > 0; copies--) {
            if (random() >= loss) flying.push({ at: now + random() * 80, to: 1 - from, frame })
          }
        }
      }
      for (const due of flying.filter(({ at }) => at <= now)) {
        flying.splice(flying.indexOf(due), 1)
        ends[due.to]!.take([due.frame], now)
      }
      for (const { channel } of ends) if (channel.nextTimeout() <= now) channel.handleTimeout(now)
      if (now > 1_000 && flying.length === 0 && ends.every(({ channel }) => channel.pending === 0)) break
    }
    const expected = (letter: string) => Array.from({ length: sent }, (_, i) => `${letter}${i}`).sort()
    const whole =
      ends[1].messages.slice().sort().join() === expected('a').join() &&
      ends[0].messages.slice().sort().join() === expected('b').join()
    if (!whole)
      t.fail(`seed ${seed}: lost or repeated`, { a: ends[1].messages.length, b: ends[0].messages.length, sent })
    if (ends.some(({ drops }) => drops.length > 0))
      t.fail(`seed ${seed}: drops`, { drops: ends.map(({ drops }) => drops) })
    if (ends.some(({ channel }) => channel.pending > 0)) t.fail(`seed ${seed}: not acknowledged after ${now} ms`)
  }
  t.pass('200 seeds')
  t.end()
})

test('a window of messages is on its way, the rest waits, and what does not fit is refused', (t) => {
  const a = new End(11, { windowMax: 4, queueMax: 6 })
  const b = new End(22, { windowMax: 4 })
  const taken = Array.from({ length: 14 }, (_, i) => a.send(String(i), 0))
  t.equal(a.sent.length, 4)
  t.equal(taken.filter(Boolean).length, 10)
  t.equal(a.channel.refused, 4)
  t.equal(a.channel.pending, 10)
  settle(a, b, 1)
  t.strictSame(b.messages, ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
  t.ok(a.send('more', 2))
  t.end()
})

test('one message that is lost again and again does not let the others run out of the receiver’s window', (t) => {
  const a = new End(11, { windowMax: 4 })
  const b = new End(22, { windowMax: 4 })
  for (let i = 0; i < 100; i++) a.send(String(i), 0)
  const [first] = a.sent
  const isFirst = (frame: Uint8Array) => decodeControl(frame)?.id === 1
  for (let now = 0; now < 50; now++) {
    b.take(
      a.sent.splice(0).filter((frame) => !isFirst(frame)),
      now,
    )
    a.take(b.sent.splice(0), now)
  }
  t.strictSame(b.drops, [], 'nothing arrives that has to be refused')
  t.ok(b.messages.length < 20, 'the sender waits')
  b.take([first!], 60)
  a.take(b.sent.splice(0), 60)
  settle(a, b, 61)
  t.equal(b.messages.length, 100)
  t.equal(new Set(b.messages).size, 100)
  t.end()
})

test('repeats follow the measured round trip, at doubling intervals up to a limit', (t) => {
  const a = new End(11, { retransmitMinMs: 60, retransmitMaxMs: 500 })
  a.peers.rttMs[PEER] = 50
  a.send('x', 1_000)
  const times: number[] = []
  for (let i = 0; i < 5; i++) {
    const due = a.channel.nextTimeout()
    times.push(due)
    a.channel.handleTimeout(due - 1)
    t.equal(a.sent.length, i + 1, 'not before its time')
    a.channel.handleTimeout(due)
  }
  t.strictSame(times, [1_100, 1_300, 1_700, 2_200, 2_700])
  a.peers.rttMs[PEER] = 0
  const fast = new End(12)
  fast.send('y', 0)
  t.equal(fast.channel.nextTimeout(), 60, 'never sooner than the minimum')
  t.end()
})

test('a frame never outgrows the smallest path, however much there is to acknowledge', (t) => {
  const [a, b] = [new End(11), new End(22)]
  for (let i = 0; i < 64; i++) a.send(String(i), 0)
  for (const frame of a.sent.splice(0)) b.channel.receive(PEER, frame, 1)
  b.channel.send(PEER, Channel.directory, new Uint8Array(1_100), 1)
  b.channel.flush(1)
  for (const frame of b.sent) t.ok(frame.length <= PATH - 40 - 8 - 16 - 16 - 12, `${frame.length} bytes`)
  a.take(b.sent.splice(0), 2)
  t.equal(a.channel.pending, 0, 'all are acknowledged all the same')
  t.throws(() => a.channel.send(PEER, Channel.directory, new Uint8Array(1_101), 3), RangeError)
  t.end()
})

test('a restarted sender is heard at once, and what is left of its former life is not', (t) => {
  const [a, b] = [new End(11), new End(22)]
  for (const text of ['one', 'two', 'three']) a.send(text, 0)
  const old = a.sent.splice(0)
  b.take(old.slice(0, 2), 1)
  a.restart(33)
  a.send('new', 2)
  const fresh = a.sent.splice(0)
  b.take(fresh, 3)
  t.strictSame(b.messages, ['one', 'two', 'new'])
  b.take([old[2]!, old[0]!], 4)
  b.take(fresh, 5)
  t.strictSame(b.messages, ['one', 'two', 'new'], 'neither late nor repeated')
  a.send('newer', 6)
  settle(a, b, 7)
  t.strictSame(b.messages, ['one', 'two', 'new', 'newer'])
  t.equal(a.channel.pending, 0)
  t.end()
})

test('acknowledgements of a former life do not count', (t) => {
  const [a, b] = [new End(11), new End(22)]
  a.send('lost with the daemon', 0)
  b.take(a.sent.splice(0), 1)
  const late = b.sent.splice(0)
  a.restart(33)
  a.send('new', 2)
  a.sent.length = 0
  a.take(late, 3)
  t.equal(a.channel.pending, 1)
  t.end()
})

test('what waits is given up with the session; numbers go on', (t) => {
  const [a, b] = [new End(11), new End(22)]
  a.send('one', 0)
  settle(a, b, 1)
  a.send('given up', 2)
  a.sent.length = 0
  a.channel.clear(PEER)
  t.equal(a.channel.pending, 0)
  a.send('two', 3)
  settle(a, b, 4)
  t.strictSame(b.messages, ['one', 'two'])
  t.end()
})

test('without a session messages wait, and go out when there is one', (t) => {
  const [a, b] = [new End(11), new End(22)]
  a.session = false
  t.ok(a.send('patient', 0))
  t.equal(a.sent.length, 0)
  a.session = true
  a.channel.sessionUp(PEER, 10)
  settle(a, b, 11)
  t.strictSame(b.messages, ['patient'])
  t.end()
})

test('acknowledgements wait for a session, too', (t) => {
  const [a, b] = [new End(11), new End(22)]
  a.send('x', 0)
  b.session = false
  b.take(a.sent.splice(0), 1)
  b.session = true
  b.channel.flush(2)
  a.take(b.sent.splice(0), 3)
  t.equal(a.channel.pending, 0)
  t.end()
})

test('what is no control message, or far ahead, is dropped and counted', (t) => {
  const b = new End(22, { windowMax: 4 })
  b.take([new Uint8Array(0), Uint8Array.of(1, 2, 3), new Uint8Array(1_000).fill(0x91)], 0)
  const far = { epoch: 7, id: 1_000_000, base: 1, acksEpoch: 22, acks: [1, 2, 3], channel: 0, body: new Uint8Array(0) }
  b.take([encodeControl(far)], 0)
  t.strictSame(b.drops, ['bad-control', 'bad-control', 'bad-control', 'bad-control'])
  t.strictSame(b.messages, [])
  t.end()
})
