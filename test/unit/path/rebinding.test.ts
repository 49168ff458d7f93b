import { test } from 'tap'
import { decodeLocator, encodeLocator, formatLocator } from '../../../lib/path/locator.js'
import { PeerTable } from '../../../lib/path/peers.js'
import { PathProber } from '../../../lib/path/prober.js'
import { Rebinding } from '../../../lib/path/rebinding.js'
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
  readonly probes: { readonly to: string; readonly token: Uint8Array }[] = []
  readonly prober = new PathProber({
    peers: this.peers,
    randomBytes: (length) => new Uint8Array(length).fill(this.probes.length + 1),
    isRouted: () => this.routed,
    sink: {
      sendProbe: (_peer, slot, token) => this.probes.push({ to: this.#place(slot), token: token.slice() }),
      liveness: () => undefined,
      committed: () => undefined,
      settled: () => undefined,
      held: () => undefined,
      released: () => undefined,
      spend: () => 0,
      drop: (reason) => this.drops.push(reason),
    },
  })
  routed = true
  #sequence = 6
  readonly rebinding = new Rebinding({
    ...{ self: SELF, peers: this.peers, prober: this.prober },
    nextSequence: () => ++this.#sequence,
    send: (_peer, slot, body) => this.sent.push({ to: this.#place(slot), message: decodeMove(body)! }),
    datagramBytes: (body) => body.length + OVERHEAD,
    drop: (reason) => this.drops.push(reason),
  })

  constructor() {
    this.peers.sealSlot[this.peer] = 0
    this.prober.established(this.peer, record('10.0.0.2'), this.now)
    this.prober.active(this.peer, this.now)
    this.rebinding.setOwn([own('10.1.0.1')], this.now)
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
    if (probe !== undefined) this.prober.echoed(this.peer, probe.token, record(from), 0, this.now)
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

test('attack: addresses of others that a peer names get no more than three times what it said', async (t) => {
  const w = new World()
  const victims = Array.from({ length: 7 }, (_, i) => `10.66.0.${i + 1}`)
  const message = { kind: 'move' as const, host: PEER, sequence: 1, addresses: victims.map((one) => at(one)) }
  const bytes = encodeMove(message).length + OVERHEAD
  t.ok(w.receive(message))
  for (let ms = 0; ms < 2_000; ms += 10) {
    w.now += 10
    w.prober.heard(w.peer, record('10.0.0.2'), 0, w.now)
    w.prober.handleTimeout(w.now)
  }
  const probes = w.probes.filter(({ to }) => victims.includes(to))
  t.ok(probes.length > 0, 'they are tried')
  // A probe: 16 of clear header, 12 of inner header, token and its byte, 16 of tag.
  t.ok(probes.length * (16 + 12 + 17 + 16) <= 3 * bytes, `${probes.length} probes for ${bytes} bytes`)
  t.equal(w.current, '10.0.0.2')
})
