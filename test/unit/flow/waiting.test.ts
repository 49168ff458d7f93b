// What waits for a way to its peer.
import fc from 'fast-check'
import { test } from 'tap'
import { defaultFlowOptions, type FlowOptions } from '../../../lib/flow/flow-options.js'
import { Waiting } from '../../../lib/flow/waiting.js'
import { WaitingEntry, WaitingKind, waitingBytes } from '../../../lib/flow/waiting-ring.js'
import { Gso } from '../../../lib/wire/batch.js'
import { Kind } from '../../../lib/wire/constants.js'
import type { DropReason } from '../../../lib/wire/drop.js'
import { connect, fromClient, fromServer, ISN, SERVER_ISN, WEB } from './connection.js'
import { exchange, FlowHost, service } from './flow-host.js'
import { FIN, ACK, see, SYN } from './packets.js'

const ENDS = { clientFamily: 4, serverFamily: 6 } as const

/** A connection between two hosts, and a way between them that can be closed. */
function connected(options: Partial<FlowOptions> = {}) {
  const client = new FlowHost(1, options)
  const server = new FlowHost(2)
  const peer = client.meet(2)
  server.meet(1)
  client.catalogue.set(WEB, [{ peer, service: service(WEB), doubtful: false }])
  server.serve(WEB, 6, 8080)
  connect(client, server, ENDS)
  client.takeDrops()
  const say = (now: number, offset: number, length: number, gsoSize?: number) => {
    const payload = Array.from({ length }, (_, i) => (offset + i) & 255)
    const sequence = ISN + 1 + offset
    const segmented = gsoSize === undefined ? {} : { gsoSize }
    client.tun(now, fromClient(ENDS, { sequence, acknowledgement: SERVER_ISN + 1, payload, ...segmented }))
  }
  const open = (now: number) => {
    client.hold(peer, false)
    client.engine.sessionUp(peer, now)
  }
  return { client, server, peer, say, open, hosts: [client, server] }
}

test('packets wait as they are, super-packets too, and leave in their order, before newer ones', async (t) => {
  const { client, server, peer, say, open, hosts } = connected()
  client.hold(peer, true)
  say(1, 0, 10)
  say(2, 10, 30_000, 1_360)
  client.tun(3, fromClient(ENDS, { sequence: ISN + 30_011, acknowledgement: SERVER_ISN + 1, flags: FIN | ACK }))
  t.strictSame(client.sent, [])
  t.equal(client.engine.waiting.count, 3)
  t.strictSame(client.wanted, [], 'there is a session')
  open(100)
  t.strictSame(client.engine.waiting, { count: 0, bytes: 0 })
  const [, long] = client.sent
  t.strictSame([long!.gsoKind, long!.gsoSize], [Gso.tcp, 1_360])
  exchange(hosts, 100)
  const seen = server.takeWritten().map(see)
  t.strictSame(
    seen.map(({ sequence, payload, flags }) => [sequence, payload.length, flags & FIN]),
    [
      [ISN + 1, 10, 0],
      [(ISN + 11) >>> 0, 30_000, 0],
      [(ISN + 30_011) >>> 0, 0, FIN],
    ],
  )
  t.strictSame([...client.drops, ...server.drops], [])
})

test('what a path does not carry that is narrower than the one before is cut for it', async (t) => {
  const { client, server, peer, say, open, hosts } = connected()
  client.hold(peer, true)
  say(1, 0, 20_000, 1_360)
  client.peers.pathMtu[peer] = 1_000
  open(50)
  t.ok(client.sent[0]!.gsoSize < 1_000)
  exchange(hosts, 50)
  t.equal(see(server.takeWritten()[0]!).payload.length, 20_000)
})

test("a server's answer that waited until its flow was over is counted", async (t) => {
  const client = new FlowHost(1)
  const server = new FlowHost(2)
  const peer = client.meet(2)
  const back = server.meet(1)
  client.catalogue.set(WEB, [{ peer, service: service(WEB), doubtful: false }])
  server.serve(WEB, 6, 8080)
  client.tun(0, fromClient(ENDS, { flags: SYN, sequence: ISN }))
  exchange([client, server], 0)
  server.disconnect(back)
  const syn = see(server.takeWritten()[0]!)
  server.tun(1, fromServer(syn, { flags: SYN | ACK, sequence: SERVER_ISN, acknowledgement: ISN + 1 }))
  t.equal(server.engine.waiting.count, 1)
  t.equal(
    server.engine.cut(() => true, 2),
    1,
  )
  server.takeDrops()
  server.connect(back)
  server.engine.sessionUp(back, 3)
  t.strictSame(server.takeDrops(), ['flow-closed'])
  t.strictSame(
    server.takeSent().filter(({ kind }) => kind === Kind.accept),
    [],
  )
})

test('an answer that ends a flow waits behind its data', async (t) => {
  const { client, server, peer, say, open } = connected()
  client.hold(peer, true)
  say(1, 0, 5)
  client.engine.cut(() => true, 2)
  server.takeDrops()
  open(10)
  t.ok(client.sent.some(({ kind }) => kind === Kind.close))
  t.equal(client.sent.at(-1)!.kind, Kind.close)
})

test('of what waits no more goes to where nothing is proven than may', async (t) => {
  const { client, peer, say } = connected()
  client.hold(peer, true)
  for (let i = 0; i < 10; i++) say(i, 100 * i, 100)
  const slot = client.peers.pathSlot[peer]!
  const spend = (bytes: number) => {
    client.peers.lend(peer, slot)
    const spent = client.engine.sendWaiting(peer, bytes, 20)
    client.peers.lend(peer, -1)
    return spent
  }
  t.equal(spend(50), 0)
  const spent = spend(500)
  const sent = client.takeSent()
  t.ok(sent.length >= 2, `${sent.length} went`)
  const OVERHEAD = 16 + 16
  const real = sent.reduce((sum, { bytes }) => sum + bytes.length + OVERHEAD, 0)
  t.ok(real <= spent && spent <= 500, `${real} of ${spent}`)
  t.equal(client.engine.waiting.count, 10 - sent.length)
  say(30, 1_000, 100)
  t.equal(client.engine.waiting.count, 11 - sent.length, 'what is newer waits, too')
})

test('one peer cannot take the room of all; what has no room is counted, the oldest first', async (t) => {
  const limits = { waitingBytes: 64 * 1024, waitingBytesTotal: 96 * 1024 }
  const drops: string[] = []
  const waiting = new Waiting({ ...defaultFlowOptions, ...limits }, (reason, { length }) =>
    drops.push(`${reason} ${length}`),
  )
  const add = (peer: number, length: number, since: number) =>
    waiting.add(peer, { ...new WaitingEntry(), length, since }, new Uint8Array(70_000), 0)
  for (let i = 0; i < 1_000; i++) add(1, 1_000 + i, i)
  t.equal(waiting.countFor(1) + drops.length, 1_000)
  t.ok(waiting.bytes <= limits.waitingBytes && waiting.bytes > limits.waitingBytes - 4_096)
  t.equal(drops[0], 'queue-full 1000', 'the oldest')
  drops.length = 0
  add(2, 14_000, 1_000)
  add(3, 10, 1_000)
  t.strictSame(drops, [])
  add(4, 10, 1_000)
  t.strictSame(drops, ['queue-full 10'], 'there is no room for another peer')
  drops.length = 0
  add(1, 65_000, 1_000)
  t.equal(waiting.countFor(1), 1, 'a long one takes the place of all that were there')
  drops.length = 0
  add(1, 66_000, 1_000)
  t.strictSame(drops, ['queue-full 66000'], 'one that is too long for any room takes none')
  drops.length = 0
  waiting.expire(5_999)
  t.strictSame(drops, [])
  t.equal(waiting.next, 6_000)
  waiting.expire(6_000)
  t.strictSame(drops, ['queue-expired 65000', 'queue-expired 14000', 'queue-expired 10'])
  t.equal(waiting.next, Infinity)
  add(4, 14_000, 6_000)
  t.equal(waiting.countFor(4), 1, 'the room is there again')
})

test('the ring gives back what was put in, in its order, whatever the sizes and the order of steps', async () => {
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.record({ add: fc.integer({ min: 0, max: 9_000 }), frame: fc.boolean() }) },
    { weight: 2, arbitrary: fc.record({ take: fc.integer({ min: 1, max: 6 }) }) },
  )
  const limits = { waitingBytes: 40_000, waitingBytesTotal: 40_000 }
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const dropped: DropReason[] = []
      const model: { length: number; mark: number; kind: number; since: number }[] = []
      const waiting = new Waiting({ ...defaultFlowOptions, ...limits }, (reason, { length, since }) => {
        dropped.push(reason)
        const oldest = model.shift()
        if (oldest?.length !== length || oldest.since !== since) throw new Error('another one was dropped')
      })
      const entry = new WaitingEntry()
      for (const [n, one] of steps.entries()) {
        if ('add' in one) {
          const mark = n & 255
          const kind = one.frame ? WaitingKind.frame : WaitingKind.packet
          model.push({ length: one.add, mark, kind, since: n })
          const bytes = new Uint8Array(one.add + 3).fill(mark)
          const fields = { kind, length: one.add, since: n, trafficClass: mark, slot: n, generation: -n }
          waiting.add(7, { ...entry, ...fields }, bytes, 3)
        } else
          for (let i = 0; i < one.take && model.length > 0; i++) {
            const ring = waiting.ring(7)
            const wanted = model.shift()!
            if (ring === undefined) return false
            ring.oldest(entry)
            const bytes = ring.data.subarray(entry.offset, entry.offset + entry.length)
            const same =
              entry.kind === wanted.kind && entry.since === wanted.since && entry.trafficClass === wanted.mark
            if (!same || entry.slot !== wanted.since || entry.length !== wanted.length) return false
            if (entry.generation !== -wanted.since || !bytes.every((byte) => byte === wanted.mark)) return false
            ring.shift()
            waiting.emptied(7)
          }
        const bytes = model.reduce((sum, { length }) => sum + waitingBytes(length), 0)
        if (waiting.countFor(7) !== model.length || waiting.bytes !== bytes || bytes > limits.waitingBytes) return false
      }
      return dropped.every((reason) => reason === 'queue-full')
    }),
    { numRuns: 500 },
  )
})
