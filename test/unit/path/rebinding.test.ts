import { test } from 'tap'
import { decodeLocal, decodeLocator, encodeLocator, formatLocator } from '../../../lib/path/locator.js'
import { PeerTable } from '../../../lib/path/peers.js'
import { PathProber } from '../../../lib/path/prober.js'
import { Rebinding } from '../../../lib/path/rebinding.js'
import { ADDRESS_LOCAL } from '../../../lib/wire/batch.js'
import { hostId, type HostId } from '../../../lib/wire/ids.js'
import { decodeMove, encodeMove, type MovedAddress, type MoveMessage } from '../../../lib/wire/move.js'

const OVERHEAD = 50
const SELF = hostId(new Uint8Array(32).fill(1))
const PEER = hostId(new Uint8Array(32).fill(2))
const OTHER = hostId(new Uint8Array(32).fill(3))

const record = (address: string) => encodeLocator({ address, port: 7474 })
const own = (address: string, deprecated = false) => ({ record: record(address), deprecated })
const at = (address: string, standing: MovedAddress['standing'] = 'usable'): MovedAddress => ({
  address: Uint8Array.from(address.split('.').map(Number)),
  port: 7474,
  standing,
})

/** A host with one peer at 10.0.0.2, whose messages and probes are written down. */
class World {
  now = 1_000
  readonly peers = new PeerTable(SELF, 8)
  readonly peer = this.peers.add(PEER)
  readonly drops: string[] = []
  readonly sent: { readonly to: string; readonly message: MoveMessage }[] = []
  readonly probes: { readonly from: string; readonly to: string; readonly token: Uint8Array }[] = []
  readonly prober = new PathProber({
    peers: this.peers,
    randomBytes: (length) => new Uint8Array(length).fill(this.probes.length + 1),
    isRouted: () => this.routed,
    sink: {
      sendProbe: (_peer, slot, token) => {
        const { address = '*' } = decodeLocal(this.peers.addresses.record(slot), 7474) ?? {}
        this.probes.push({ from: address, to: this.#place(slot), token: token.slice() })
      },
      liveness: () => undefined,
      committed: () => undefined,
      settled: () => undefined,
      gone: () => undefined,
      held: () => undefined,
      released: () => undefined,
      spend: () => 0,
      drop: (reason) => this.drops.push(reason),
    },
  })
  routed = true
  #sequence = 6
  /** There is no number to be had. */
  exhausted = false
  readonly rebinding = new Rebinding({
    ...{ self: SELF, peers: this.peers, prober: this.prober },
    nextSequence: () => {
      if (this.exhausted) throw new Error('no number')
      return ++this.#sequence
    },
    send: (_peer, slot, body) => this.sent.push({ to: this.#place(slot), message: decodeMove(body)! }),
    datagramBytes: (body) => body.length + OVERHEAD,
    drop: (reason) => this.drops.push(reason),
  })

  /** Of so many own addresses. */
  constructor(several = 1) {
    this.peers.sealSlot[this.peer] = 0
    this.prober.established(this.peer, record('10.0.0.2'), this.now)
    this.prober.active(this.peer, this.now)
    this.rebinding.setOwn(
      Array.from({ length: several }, (_, i) => own(`10.1.0.${i + 1}`)),
      this.now,
    )
    this.receipt()
    this.sent.length = 0
    this.probes.length = 0
  }

  /** The peer says so, from that address of it. */
  receive(message: MoveMessage, from = '10.0.0.2'): boolean {
    const body = encodeMove(message)
    return this.rebinding.receive(this.peer, body, body.length + OVERHEAD, record(from), 0, this.now)
  }
  move(sequence: number, addresses: readonly MovedAddress[], host: HostId = PEER, from?: string): boolean {
    return this.receive({ kind: 'move', host, sequence, addresses }, from)
  }
  receipt(): void {
    const last = this.sent.at(-1)
    if (last !== undefined) this.receive({ kind: 'receipt', sequence: last.message.sequence })
  }
  /** The last probe to there comes back. */
  echo(from: string): void {
    const probe = this.probes.findLast(({ to }) => to === from)
    if (probe === undefined) return
    const came = record(from)
    if (probe.from !== '*') came.set(record(probe.from).subarray(8, ADDRESS_LOCAL), ADDRESS_LOCAL)
    this.prober.echoed(this.peer, probe.token, came, 0, this.now)
  }
  get current(): string {
    return this.#place(this.peers.pathSlot[this.peer]!)
  }
  runFor(ms: number): void {
    for (const until = this.now + ms; ; this.rebinding.handleTimeout(this.now)) {
      const next = this.rebinding.nextTimeout()
      if (next > until) return void (this.now = until)
      this.now = Math.max(next, this.now)
    }
  }

  #place(slot: number): string {
    return formatLocator(decodeLocator(this.peers.addresses.record(slot))!).replace(':7474', '')
  }
}

test('one message a peer tells of this host’s addresses, those that are gone too, until it is acknowledged', async (t) => {
  const w = new World()
  t.notOk(w.rebinding.setOwn([own('10.1.0.1')], w.now), 'the same as before is nothing to tell')
  t.ok(w.rebinding.setOwn([own('10.1.0.9')], w.now))
  t.equal(w.sent.length, 1)
  t.strictSame(w.sent[0]!.message, {
    kind: 'move',
    host: SELF,
    sequence: 8,
    addresses: [at('10.1.0.9'), at('10.1.0.1', 'gone')],
  })
  w.runFor(60)
  t.ok(w.sent.length >= 2, 'repeated while nobody says that it has come')
  t.ok(w.sent.every(({ message }) => message.sequence === 8))
  w.receipt()
  const { length } = w.sent
  w.runFor(60_000)
  t.equal(w.sent.length, length)
  t.equal(w.rebinding.nextTimeout(), Infinity)
})

test('what could not be said for want of a route is said when there is one', async (t) => {
  const w = new World()
  w.routed = false
  w.rebinding.setOwn([own('10.1.0.9')], w.now)
  w.runFor(300)
  const { length } = w.sent
  w.rebinding.routesChanged(w.now)
  t.equal(w.sent.length, length)
  w.routed = true
  w.rebinding.routesChanged(w.now)
  t.equal(w.sent.length, length + 1)
  w.rebinding.routesChanged(w.now)
  t.equal(w.sent.length, length + 1)
})

test('a peer that never answers is told a bounded number of times', async (t) => {
  const w = new World()
  w.rebinding.setOwn([own('10.1.0.9')], w.now)
  w.runFor(600_000)
  t.equal(w.sent.length, 12)
  t.equal(w.rebinding.nextTimeout(), Infinity)
})

test('between two addresses nothing is said', async (t) => {
  const w = new World()
  w.rebinding.setOwn([], w.now)
  w.runFor(1_000)
  t.strictSame(w.sent, [])
  w.rebinding.setOwn([own('10.1.0.9')], w.now)
  t.match(w.sent, [{ to: '10.0.0.2', message: { addresses: [{ standing: 'usable' }, { standing: 'gone' }] } }])
})

test('a message moves nothing by itself: the way it names is proven first', async (t) => {
  const w = new World()
  t.ok(w.move(1, [at('10.0.0.3'), at('10.0.0.2', 'gone')]))
  t.strictSame(
    w.probes.map(({ to }) => to),
    ['10.0.0.3'],
  )
  t.equal(w.current, '10.0.0.2')
  t.match(w.sent, [{ message: { kind: 'receipt', sequence: 1 } }])
  w.echo('10.0.0.3')
  t.equal(w.current, '10.0.0.3')
})

test('a way that is proven already is taken at once when the other is gone', async (t) => {
  const w = new World()
  w.move(1, [at('10.0.0.2'), at('10.0.0.3')])
  w.echo('10.0.0.3')
  t.equal(w.current, '10.0.0.2', 'both work: the one in use stays')
  w.move(2, [at('10.0.0.2', 'gone'), at('10.0.0.3')], PEER, '10.0.0.3')
  t.equal(w.current, '10.0.0.3')
})

test('attack: an old message is refused, and counted', async (t) => {
  const w = new World()
  w.move(5, [at('10.0.0.3'), at('10.0.0.2', 'gone')])
  w.echo('10.0.0.3')
  w.move(6, [at('10.0.0.2'), at('10.0.0.3', 'gone')], PEER, '10.0.0.2')
  w.echo('10.0.0.2')
  t.equal(w.current, '10.0.0.2')
  t.notOk(w.move(5, [at('10.0.0.3'), at('10.0.0.2', 'gone')]))
  t.strictSame(w.drops, ['stale-move'])
  t.equal(w.current, '10.0.0.2')
  t.notOk(w.move(6, [at('10.0.0.2'), at('10.0.0.3', 'gone')]), 'a repetition changes nothing')
  t.equal(w.sent.filter(({ message }) => message.kind === 'receipt').length, 3, 'but is acknowledged')
})

test('attack: nobody moves another host', async (t) => {
  const w = new World()
  t.notOk(w.move(1, [at('10.0.0.3'), at('10.0.0.2', 'gone')], OTHER))
  t.strictSame(w.drops, ['not-entitled'])
  t.strictSame(w.probes, [])
  t.strictSame(w.sent, [], 'not even acknowledged')
  t.equal(w.current, '10.0.0.2')
})

test('attack: bytes that are no message', async (t) => {
  const w = new World()
  t.notOk(w.rebinding.receive(w.peer, Uint8Array.of(1, 2, 3), 60, record('10.0.0.2'), 0, w.now))
  t.strictSame(w.drops, ['bad-control'])
})

/** A probe: 16 of clear header, 12 of inner header, token and its byte, 16 of tag. */
const PROBE = 16 + 12 + 17 + 16

/** Time goes by, while the peer goes on from where it is. */
function run(w: World, ms: number): void {
  for (const until = w.now + ms; w.now < until;) {
    w.now += 10
    w.prober.heard(w.peer, record('10.0.0.2'), 0, w.now)
    w.prober.handleTimeout(w.now)
  }
}

const probesTo = (w: World, ...places: string[]) => w.probes.filter(({ to }) => places.includes(to)).length

test('attack: addresses of others that a peer names get no more than three times what it said', async (t) => {
  const victims = Array.from({ length: 7 }, (_, i) => `10.66.0.${i + 1}`)
  for (const own of [1, 2, 8]) {
    const w = new World(own)
    const message = { kind: 'move' as const, host: PEER, sequence: 1, addresses: victims.map((one) => at(one)) }
    const bytes = encodeMove(message).length + OVERHEAD
    t.ok(w.receive(message))
    run(w, 2_000)
    const probes = probesTo(w, ...victims)
    t.ok(probes > 0, 'they are tried')
    t.ok(probes * PROBE <= 3 * bytes, `${own} own addresses: ${probes} probes for ${bytes} bytes`)
    t.equal(w.current, '10.0.0.2')
  }
})

test('attack: one address that a peer names, once and again and again, gets three times that from all own addresses together', async (t) => {
  for (const own of [1, 2, 8]) {
    const w = new World(own)
    let bytes = 0
    for (let sequence = 1; sequence <= 5; sequence++) {
      const message = { kind: 'move' as const, host: PEER, sequence, addresses: [at('10.66.0.1')] }
      bytes += encodeMove(message).length + OVERHEAD
      w.receive(message)
      run(w, 800)
      const probes = probesTo(w, '10.66.0.1')
      t.ok(probes > 0, 'it is tried')
      t.ok(probes * PROBE <= 3 * bytes, `${own} own addresses: ${probes} probes for ${bytes} bytes`)
    }
  }
})

test('attack: a message from an address of somebody else is not good for more there, nor for others besides', async (t) => {
  for (const own of [1, 8])
    for (const named of [['10.66.0.1'], ['10.66.0.1', '10.66.0.2', '10.66.0.3']]) {
      const w = new World(own)
      const message = { kind: 'move' as const, host: PEER, sequence: 1, addresses: named.map((one) => at(one)) }
      const bytes = encodeMove(message).length + OVERHEAD
      w.prober.heard(w.peer, record('10.66.0.1'), 0, w.now, true, bytes)
      w.receive(message, '10.66.0.1')
      run(w, 800)
      const receipts = w.sent.filter(({ to }) => to === '10.66.0.1')
      const answer = receipts.reduce((sum, { message: one }) => sum + encodeMove(one).length + OVERHEAD, 0)
      t.equal(receipts.length, 1)
      const sent = probesTo(w, ...named) * PROBE + answer
      t.ok(sent <= 3 * bytes, `${own} own addresses, ${named.length} named: ${sent} bytes for ${bytes}`)
    }
})

test('an address that does not answer is tried for ever, more and more seldom, from each own address in turn', async (t) => {
  const w = new World(4)
  w.move(1, [at('10.66.0.1')])
  run(w, 2_000)
  const before = w.probes.length
  w.prober.active(w.peer, w.now)
  run(w, 50_000)
  const later = w.probes.slice(before).filter(({ to }) => to === '10.66.0.1')
  t.equal(later.length, 3, 'after 5, 10 and 20 s')
  t.equal(new Set(later.map(({ from }) => from)).size, 3)
  t.notOk(w.drops.length > 2, `${w.drops.length} were refused`)
})

test('an address that is proven from one own address is free for all of them', async (t) => {
  const w = new World(4)
  w.move(1, [at('10.0.0.3')])
  w.echo('10.0.0.3')
  run(w, 2_000)
  const probes = w.probes.filter(({ to }) => to === '10.0.0.3')
  t.equal(new Set(probes.map(({ from }) => from)).size, 4)
  t.strictSame(w.drops, [])
})

test('a move that could not be told for want of a number is told when the addresses are set again', (t) => {
  const world = new World()
  world.exhausted = true
  t.throws(() => world.rebinding.setOwn([own('10.1.0.9')], world.now), { message: 'no number' })
  t.throws(() => world.rebinding.setOwn([own('10.1.0.9')], world.now), { message: 'no number' })
  t.strictSame(world.sent, [])
  world.exhausted = false
  t.ok(world.rebinding.setOwn([own('10.1.0.9')], world.now))
  t.match(world.sent, [
    { to: '10.0.0.2', message: { kind: 'move', addresses: [at('10.1.0.9'), at('10.1.0.1', 'gone')] } },
  ])
  t.notOk(world.rebinding.setOwn([own('10.1.0.9')], world.now), 'once')
  t.equal(world.sent.length, 1)
  t.end()
})
