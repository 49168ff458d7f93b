import { test } from 'tap'
import { Neighbours, type NeighboursOptions } from '../../../lib/host/neighbours.js'
import { decodeLocator, formatLocator, type Locator } from '../../../lib/path/locator.js'
import { PeerTable } from '../../../lib/path/peers.js'
import { hostId, type HostId } from '../../../lib/wire/ids.js'

const id = (n: number): HostId => hostId(new Uint8Array(32).fill(n))
const at = (n: number): Locator => ({ address: `10.0.0.${n}`, port: 7474 })
const SELF = id(50)

class World {
  readonly peers = new PeerTable(SELF, 256)
  readonly records = new Map<HostId, Locator[]>()
  readonly excluded = new Set<HostId>()
  /** What was asked for, as `HOST ADDRESS ADDRESS`. */
  readonly connects: string[] = []
  readonly neighbours: Neighbours

  constructor(options: Partial<NeighboursOptions> = {}) {
    this.neighbours = new Neighbours(
      {
        self: SELF,
        peers: this.peers,
        connect: (peer, addresses) => {
          const places = addresses.map((address) => formatLocator(decodeLocator(address)!))
          this.connects.push([parseInt(this.peers.hostId(peer).slice(0, 2), 16), ...places].join(' '))
        },
        locatorsOf: (host) => this.records.get(host) ?? [],
        excluded: (host) => this.excluded.has(host),
        random: () => 0.5,
      },
      options,
    )
  }

  peer(n: number): number {
    return this.peers.indexOf(id(n))
  }
  taken(): string[] {
    return this.connects.splice(0)
  }
}

test('a hinted host is connected to where the hint says', (t) => {
  const w = new World()
  w.neighbours.hint(id(1), at(1), 0)
  w.neighbours.known([], 0)
  w.neighbours.handleTimeout(0)
  t.strictSame(w.taken(), ['1 10.0.0.1:7474'])
  t.equal(w.neighbours.nextTimeout(), Infinity, 'it is being connected to')
  w.neighbours.handleTimeout(1_000)
  t.strictSame(w.taken(), [], 'not twice')
  t.end()
})

test('a host with a session gives one that it has only heard of the time to be told of by others', (t) => {
  const w = new World({ strangerWaitMs: 10_000 })
  w.neighbours.hint(id(1), at(1), 0)
  w.neighbours.known([], 0)
  w.neighbours.handleTimeout(0)
  t.strictSame(w.taken(), ['1 10.0.0.1:7474'], 'the first one is tried at once')
  w.neighbours.established(w.peer(1), at(1), 100)
  w.records.set(id(1), [at(1)])
  for (const n of [2, 3, 4]) w.neighbours.hint(id(n), at(n), 100)
  w.neighbours.known([id(1)], 100)
  w.neighbours.hint(id(2), { address: '10.1.0.2', port: 7474 }, 200)
  w.neighbours.handleTimeout(200)
  t.strictSame(w.taken(), [], 'however often it is hinted')
  w.records.set(id(3), [at(3)])
  w.neighbours.located(id(3), 300)
  w.neighbours.known([id(1), id(3)], 300)
  w.neighbours.handleTimeout(300)
  t.strictSame(w.taken(), ['3 10.0.0.3:7474'], 'what it says itself has come')
  w.neighbours.want(w.peer(4), 400)
  t.strictSame(w.taken(), ['4 10.0.0.4:7474'], 'a flow does not wait')
  w.neighbours.handleTimeout(10_100)
  t.strictSame(w.taken(), ['2 10.1.0.2:7474 10.0.0.2:7474'], 'nobody else has told of it')
  t.end()
})

test('this host itself and excluded hosts are never connected to', (t) => {
  const w = new World()
  w.neighbours.hint(SELF, at(50), 0)
  w.neighbours.hint(id(1), at(1), 0)
  w.excluded.add(id(1))
  w.neighbours.known([SELF, id(1)], 0)
  w.neighbours.handleTimeout(0)
  t.strictSame(w.taken(), [])
  t.equal(w.peers.size, 1)
  w.neighbours.want(w.peers.add(id(1)), 0)
  t.strictSame(w.taken(), [], 'nor for a flow')
  t.end()
})

test('hints come first, newest in front, then what the host’s records say; each place once, and not too many', (t) => {
  const w = new World({ locatorsMax: 3 })
  w.records.set(id(1), [at(9), at(2), at(8)])
  w.neighbours.hint(id(1), at(1), 0)
  w.neighbours.hint(id(1), at(2), 0)
  w.neighbours.known([id(1)], 0)
  w.neighbours.handleTimeout(0)
  t.strictSame(w.taken(), ['1 10.0.0.2:7474 10.0.0.1:7474 10.0.0.9:7474'])
  t.end()
})

test('failures are repeated at growing intervals up to a limit', (t) => {
  const w = new World({ retryMinMs: 100, retryMaxMs: 1_000 })
  w.neighbours.hint(id(1), at(1), 0)
  w.neighbours.known([], 0)
  const gaps: number[] = []
  let now = 0
  for (let i = 0; i < 6; i++) {
    w.neighbours.handleTimeout(now)
    t.equal(w.taken().length, 1)
    w.neighbours.failed(w.peer(1), now)
    gaps.push(w.neighbours.nextTimeout() - now)
    w.neighbours.handleTimeout(w.neighbours.nextTimeout() - 1)
    t.equal(w.taken().length, 0, 'not before its time')
    now = w.neighbours.nextTimeout()
  }
  t.strictSame(gaps, [100, 200, 400, 800, 1_000, 1_000])
  t.end()
})

test('a new hint is tried at once, whatever failed before', (t) => {
  const w = new World()
  w.neighbours.hint(id(1), at(1), 0)
  w.neighbours.known([], 0)
  for (let i = 0; i < 5; i++) {
    const now = Math.max(0, w.neighbours.nextTimeout())
    w.neighbours.handleTimeout(now)
    w.neighbours.failed(w.peer(1), now)
  }
  w.taken()
  w.neighbours.hint(id(1), at(1), 100)
  t.ok(w.neighbours.nextTimeout() > 100, 'an old one tells nothing')
  w.neighbours.hint(id(1), at(2), 100)
  t.equal(w.neighbours.nextTimeout(), 100)
  w.neighbours.handleTimeout(100)
  t.strictSame(w.taken(), ['1 10.0.0.2:7474 10.0.0.1:7474'])
  t.end()
})

test('a lost session is made again soon, where it was', (t) => {
  const w = new World({ retryMinMs: 500 })
  w.neighbours.hint(id(1), at(1), 0)
  w.neighbours.known([], 0)
  w.neighbours.handleTimeout(0)
  w.neighbours.established(w.peer(1), at(7), 10)
  t.equal(w.neighbours.nextTimeout(), Infinity)
  w.neighbours.failed(w.peer(1), 20)
  t.equal(w.neighbours.nextTimeout(), Infinity, 'a failed renewal is not the end of the session')
  w.taken()
  w.neighbours.lost(w.peer(1), 1_000)
  t.ok(w.neighbours.nextTimeout() <= 1_500)
  w.neighbours.handleTimeout(1_500)
  t.strictSame(w.taken(), ['1 10.0.0.7:7474 10.0.0.1:7474'])
  t.end()
})

test('a host that said farewell is left alone for a while, unless it is needed', (t) => {
  const w = new World({ retryMinMs: 500, retryMaxMs: 15_000 })
  w.neighbours.hint(id(1), at(1), 0)
  w.neighbours.known([], 0)
  w.neighbours.handleTimeout(0)
  w.neighbours.established(w.peer(1), at(1), 10)
  w.neighbours.lost(w.peer(1), 1_000)
  w.neighbours.left(w.peer(1), 1_000)
  w.taken()
  t.equal(w.neighbours.nextTimeout(), 16_000)
  w.neighbours.want(w.peer(1), 2_000)
  t.strictSame(w.taken(), ['1 10.0.0.1:7474'])
  t.end()
})

test('up to the limit a session is kept with every host', (t) => {
  const w = new World({ meshMax: 10 })
  for (let n = 1; n <= 10; n++) w.records.set(id(n), [at(n)])
  w.neighbours.known(w.records.keys(), 0)
  w.neighbours.handleTimeout(0)
  t.equal(w.taken().length, 10)
  t.end()
})

/** The hosts connected to, in the order of their numbers. */
function numbers(w: World): number[] {
  return w
    .taken()
    .map((text) => parseInt(text))
    .sort((a, b) => a - b)
}

test('beyond the limit sessions are kept at distances that double, both ways round', (t) => {
  const w = new World({ meshMax: 10 })
  for (let n = 1; n <= 100; n++) if (n !== 50) w.records.set(id(n), [at(n)])
  w.neighbours.known(w.records.keys(), 0)
  w.neighbours.handleTimeout(0)
  t.strictSame(numbers(w), [18, 34, 42, 46, 48, 49, 51, 52, 54, 58, 66, 82])
  t.end()
})

test('the ring closes at its ends', (t) => {
  const w = new World({ meshMax: 3 })
  for (let n = 45; n <= 55; n++) if (n !== 50) w.records.set(id(n), [at(n)])
  w.records.delete(id(55))
  w.records.delete(id(54))
  w.neighbours.known(w.records.keys(), 0)
  w.neighbours.handleTimeout(0)
  t.strictSame(numbers(w), [45, 46, 48, 49, 51, 52], '50 and 45 are four apart by way of 53, and 46 by way of 47')
  t.end()
})

test('a session is wanted from both its ends, or from neither, and few steps lead anywhere', (t) => {
  for (const count of [12, 33, 64, 101, 200]) {
    const hosts = Array.from({ length: count }, (_, n) => id(n + 1))
    const all = hosts.map((self) => {
      const neighbours = new Neighbours(
        {
          self,
          peers: new PeerTable(self, 256),
          connect: () => undefined,
          locatorsOf: () => [],
          excluded: () => false,
          random: () => 0.5,
        },
        { meshMax: 10 },
      )
      neighbours.known(hosts, 0)
      return neighbours
    })
    let most = 0
    for (const [i, neighbours] of all.entries()) {
      const wanted = hosts.filter((host) => neighbours.wants(host))
      most = Math.max(most, wanted.length)
      for (const [j, host] of hosts.entries()) {
        const both = neighbours.wants(host) === all[j]!.wants(hosts[i]!)
        const told = all[0]!.adjacent(hosts[i]!, host) === neighbours.wants(host)
        if (!both || !told) t.fail(`${count} hosts: ${i} and ${j} do not agree`)
      }
    }
    t.ok(most <= 2 * Math.log2(count), `${count} hosts: ${most} sessions`)
    let reached = new Set([hosts[0]!])
    let steps = 0
    for (; reached.size < count && steps < count; steps++) {
      const next = [...reached].flatMap((from) => hosts.filter((to) => all[hosts.indexOf(from)]!.wants(to)))
      reached = new Set([...reached, ...next])
    }
    t.ok(steps <= Math.ceil(Math.log2(count) / 2) + 1, `${count} hosts: ${steps} steps`)
  }
  t.end()
})

test('who is to be connected to is only worked out anew when something has changed', (t) => {
  const w = new World({ strangersTried: 1 })
  t.ok(w.neighbours.reviewDue, 'at first')
  w.neighbours.known([id(1)], 0)
  t.notOk(w.neighbours.reviewDue)
  w.neighbours.hint(id(1), at(1), 0)
  t.ok(w.neighbours.reviewDue, 'a host was hinted')
  w.neighbours.known([id(1)], 0)
  w.neighbours.hint(id(1), at(2), 0)
  w.neighbours.handleTimeout(0)
  w.neighbours.established(w.peer(1), at(1), 0)
  w.neighbours.known([id(1)], 0)
  w.neighbours.lost(w.peer(1), 0)
  w.neighbours.failed(w.peer(1), 0)
  t.notOk(w.neighbours.reviewDue, 'a known host comes and goes')
  w.neighbours.hint(id(2), at(2), 0)
  w.neighbours.known([id(1)], 0)
  w.neighbours.failed(w.peer(2), 0)
  t.ok(w.neighbours.reviewDue, 'a stranger did not answer: it is the next one’s turn')
  t.end()
})

test('a flow gets its session on demand, also outside the ring and before the next retry', (t) => {
  const w = new World({ meshMax: 3 })
  for (let n = 1; n <= 9; n++) w.records.set(id(n), [at(n)])
  w.neighbours.known(w.records.keys(), 0)
  w.neighbours.handleTimeout(0)
  w.taken()
  const far = w.peers.add(id(5))
  w.neighbours.want(far, 1)
  t.strictSame(w.taken(), ['5 10.0.0.5:7474'])
  w.neighbours.want(far, 2)
  t.strictSame(w.taken(), [], 'one handshake at a time')
  w.neighbours.failed(far, 3)
  w.neighbours.want(far, 4)
  t.equal(w.taken().length, 1, 'a flow does not wait for the pause between retries')
  w.neighbours.established(far, at(5), 5)
  w.neighbours.want(far, 6)
  t.strictSame(w.taken(), [], 'there is a session')
  w.neighbours.lost(far, 7)
  w.neighbours.handleTimeout(100_000)
  t.notOk(
    w.taken().some((text) => text.startsWith('5 ')),
    'nobody wants it back',
  )
  t.end()
})

test('a host that nobody can say where it is fails at once', (t) => {
  const w = new World()
  w.neighbours.known([id(1)], 0)
  w.neighbours.handleTimeout(0)
  t.strictSame(w.taken(), [])
  t.ok(w.neighbours.nextTimeout() > 0, 'and is looked at again later')
  w.records.set(id(1), [at(1)])
  w.neighbours.handleTimeout(w.neighbours.nextTimeout())
  t.strictSame(w.taken(), ['1 10.0.0.1:7474'])
  t.end()
})

test('hints are bounded, and remembered for the next start', (t) => {
  const w = new World({ hintsMax: 2, locatorsMax: 2 })
  for (let n = 1; n <= 3; n++) for (const place of [1, 2, 3]) w.neighbours.hint(id(n), at(10 * n + place), 0)
  const hints = w.neighbours.remembered()
  t.strictSame(
    hints.map(({ host, locators }) => [parseInt(host.slice(0, 2), 16), ...locators.map(({ address }) => address)]),
    [
      [1, '10.0.0.13', '10.0.0.12'],
      [2, '10.0.0.23', '10.0.0.22'],
    ],
  )
  t.end()
})

test('hosts that are only hinted do not crowd out members, nor fill the peer table', (t) => {
  const w = new World({ meshMax: 10, strangersMax: 100, strangersTried: 4 })
  for (let n = 1; n <= 8; n++) w.records.set(id(n), [at(n)])
  const madeUp = (n: number) =>
    hostId(Uint8Array.from({ length: 32 }, (_, i) => (i === 31 ? 0 : i === 0 ? n & 0xff : n >> 8)))
  let asked = 0
  let now = 0
  for (let n = 0; n < 2_000; n++) {
    w.neighbours.hint(madeUp(n + 256), at(200), now)
    if (n % 20 > 0) continue
    now += 1_000
    w.neighbours.known(w.records.keys(), now)
    w.neighbours.handleTimeout(now)
    const taken = w.taken().map((text) => parseInt(text))
    if (n === 0) t.strictSame(taken.filter((host) => host >= 1 && host <= 8).length, 8, 'every member is connected to')
    asked = Math.max(asked, taken.length)
    for (let peer = 1; peer < w.peers.size; peer++) w.neighbours.failed(peer, now)
  }
  t.ok(asked <= 12, 'few strangers at a time')
  t.ok(w.peers.size <= w.peers.capacity / 2 + 4)
  t.ok(w.neighbours.remembered().length <= 100)
  t.end()
})

test('a stranger gets its turn, though others were hinted before it and do not answer', (t) => {
  const w = new World({ strangersTried: 2 })
  for (let n = 1; n <= 9; n++) w.neighbours.hint(id(n), at(n), 0)
  let now = 0
  for (let i = 0; i < 20; i++) {
    w.neighbours.known([], now)
    w.neighbours.handleTimeout(now)
    for (const text of w.taken()) {
      if (text.startsWith('9 ')) w.neighbours.established(w.peer(9), at(9), now)
      else w.neighbours.failed(w.peer(parseInt(text)), now)
    }
    now += 1_000
  }
  w.neighbours.lost(w.peer(9), now)
  w.neighbours.known([], now)
  w.neighbours.handleTimeout(now + 10_000)
  t.ok(
    w.taken().some((text) => text.startsWith('9 ')),
    'and is a member from then on',
  )
  t.equal(
    w.neighbours.remembered().at(-1)?.host,
    id(9),
    'members are the first to be tried after a restart, which begins at the end',
  )
  t.end()
})

test('false hints of a member do not hide where it says it is', (t) => {
  const w = new World()
  w.records.set(id(1), [at(1)])
  for (let n = 100; n < 150; n++) w.neighbours.hint(id(1), at(n), 0)
  w.neighbours.known([id(1)], 0)
  w.neighbours.handleTimeout(0)
  t.match(w.taken(), [/ 10\.0\.0\.1:7474/])
  t.end()
})

test('a full peer table is no error', (t) => {
  const neighbours = new World().neighbours
  for (let n = 1; n < 256; n++) neighbours.hint(hostId(Uint8Array.from({ length: 32 }, () => n)), at(1), 0)
  const more = hostId(Uint8Array.from({ length: 32 }, (_, i) => i))
  neighbours.hint(more, at(2), 0)
  neighbours.known([], 0)
  neighbours.handleTimeout(0)
  t.ok(neighbours.nextTimeout() >= 0)
  t.end()
})

test('hosts with which flows are open are connected to all at once, whoever else is wanted, until they have been', (t) => {
  const w = new World({ meshMax: 1, strangersTried: 1 })
  const owed = [3, 5, 7, 9]
  w.neighbours.owe(
    owed.map((n) => id(n)),
    0,
  )
  for (const n of [...owed, 2, 4]) w.neighbours.hint(id(n), at(n), 0)
  w.neighbours.known([], 0)
  w.neighbours.handleTimeout(0)
  t.strictSame(w.taken().slice(0, 4), ['3 10.0.0.3:7474', '5 10.0.0.5:7474', '7 10.0.0.7:7474', '9 10.0.0.9:7474'])
  w.neighbours.failed(w.peer(3), 10)
  w.neighbours.handleTimeout(w.neighbours.nextTimeout())
  t.strictSame(w.taken(), ['3 10.0.0.3:7474'], 'again and again')
  w.neighbours.established(w.peer(5), at(5), 20)
  t.ok(w.neighbours.reviewDue)
  w.neighbours.known([], 20)
  t.ok(w.neighbours.wants(id(7)))
  t.end()
})

test('where a host is said to be while it is being connected to is tried as well, and at once', (t) => {
  const w = new World()
  w.records.set(id(1), [at(1)])
  w.neighbours.known([id(1)], 0)
  w.neighbours.handleTimeout(0)
  w.taken()
  w.records.set(id(1), [at(2)])
  w.neighbours.located(id(1), 5)
  w.neighbours.hint(id(1), at(3), 6)
  t.strictSame(w.taken(), ['1 10.0.0.2:7474', '1 10.0.0.3:7474 10.0.0.2:7474'])
  w.neighbours.hint(id(2), at(4), 7)
  w.neighbours.known([id(1)], 7)
  w.neighbours.handleTimeout(7)
  w.taken()
  w.neighbours.hint(id(2), at(5), 8)
  t.strictSame(w.taken(), [], 'but of one that nothing else is known of')
  t.end()
})
