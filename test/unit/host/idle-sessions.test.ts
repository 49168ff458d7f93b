import { test } from 'tap'
import { IdleSessions } from '../../../lib/host/idle-sessions.js'
import { decodeSessionMessage, encodeSessionMessage, type SessionMessage } from '../../../lib/wire/session-message.js'

const IDLE = 10_000
const PEER = 3

class World {
  readonly wanted = new Set<number>()
  readonly inUse = new Set<number>()
  readonly pending = new Set<number>()
  readonly said: (SessionMessage | undefined)[] = []
  readonly ended: number[] = []
  looks = 0
  readonly idle = new IdleSessions(
    {
      capacity: 8,
      wanted: (peer) => this.wanted.has(peer),
      inUse: () => {
        this.looks++
        return new Set(this.inUse)
      },
      send: (_peer, body) => this.said.push(decodeSessionMessage(body)),
      pending: (peer) => this.pending.has(peer),
      end: (peer) => {
        this.ended.push(peer)
        this.idle.down(peer)
      },
    },
    { idleMs: IDLE },
  )

  hear(message: SessionMessage, now: number): void {
    this.idle.receive(PEER, encodeSessionMessage(message), now)
  }
  run(until: number): void {
    for (let due = this.idle.nextTimeout(); due <= until; due = this.idle.nextTimeout()) this.idle.handleTimeout(due)
  }
}

test('an idle session ends when the other end agrees, not before', (t) => {
  const w = new World()
  w.idle.up(PEER, 0)
  w.run(IDLE - 1)
  t.strictSame(w.said, [])
  w.run(IDLE)
  t.strictSame(w.said, ['release'])
  t.strictSame(w.ended, [])
  w.hear('agree', IDLE + 10)
  t.strictSame(w.ended, [PEER])
  t.equal(new World().idle.nextTimeout(), Infinity)
  t.end()
})

test('the other end keeps it: it is asked again only after the same time', (t) => {
  const w = new World()
  w.idle.up(PEER, 0)
  w.run(IDLE)
  w.hear('keep', IDLE + 10)
  w.hear('agree', IDLE + 20)
  t.strictSame(w.ended, [], 'what was not asked for is not taken for an answer')
  w.run(2 * IDLE)
  t.equal(w.said.length, 1)
  w.run(2 * IDLE + 10)
  t.equal(w.said.length, 2)
  t.end()
})

test('a session that is wanted, used or has flows is neither asked about nor given up', (t) => {
  for (const reason of ['wanted', 'inUse', 'used'] as const) {
    const w = new World()
    w.idle.up(PEER, 0)
    if (reason !== 'used') w[reason].add(PEER)
    for (let at = 0; reason === 'used' && at < 100_000; at += 5_000) {
      w.idle.used(PEER, at)
      w.run(at)
    }
    w.run(99_000)
    t.strictSame(w.said, [], reason)
    w.hear('release', 99_500)
    t.strictSame(w.said, ['keep'], reason)
    t.strictSame(w.ended, [], reason)
  }
  t.end()
})

test('who agrees lets go when the other end has heard of it, or after a second', (t) => {
  const w = new World()
  w.idle.up(PEER, 0)
  w.pending.add(PEER)
  w.hear('release', IDLE)
  t.strictSame(w.said, ['agree'])
  w.idle.flush(IDLE + 10)
  t.strictSame(w.ended, [])
  w.pending.delete(PEER)
  w.idle.flush(IDLE + 20)
  t.strictSame(w.ended, [PEER])
  w.idle.up(PEER, IDLE + 100)
  w.pending.add(PEER)
  w.hear('release', 3 * IDLE)
  w.run(3 * IDLE + 1_000)
  t.strictSame(w.ended, [PEER, PEER])
  t.end()
})

test('however often it is asked, the flows are looked through once a second', (t) => {
  const w = new World()
  w.idle.up(PEER, 0)
  w.inUse.add(PEER)
  for (let i = 0; i < 1_000; i++) w.hear('release', 2 * IDLE + i)
  t.equal(w.looks, 1)
  t.notOk(w.idle.receive(PEER, Uint8Array.of(1, 2, 3), 0), 'what is no message is told')
  t.end()
})
