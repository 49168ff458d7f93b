import { test } from 'tap'
import { OwnAddresses } from '../../../lib/path/candidates.js'
import { decodeLocator, encodeLocator } from '../../../lib/path/locator.js'
import type { Path } from '../../../lib/path/path.js'
import { PathSet } from '../../../lib/path/path-set.js'
import { PeerTable } from '../../../lib/path/peers.js'
import { ADDRESS_LOCAL } from '../../../lib/wire/batch.js'
import { hostId } from '../../../lib/wire/ids.js'

const MAX = 4
const record = (address: string) => encodeLocator({ address, port: 7474 })
const own = (address: string, deprecated = false) => ({ record: record(address), deprecated })

class World {
  readonly peers = new PeerTable(hostId(new Uint8Array(32).fill(1)), 8)
  readonly own = new OwnAddresses()
  readonly set = new PathSet(this.peers, this.own, MAX)

  /** `own>peer` of a path; `*` where the kernel chooses. */
  name(path: Path): string {
    const bytes = this.set.recordOf(path)
    const local = bytes.subarray(ADDRESS_LOCAL, ADDRESS_LOCAL + 4)
    return `${local.every((byte) => byte === 0) ? '*' : local.join('.')}>${decodeLocator(bytes)!.address}`
  }
  get names(): string[] {
    return this.set.paths.map((path) => this.name(path))
  }
  /** As something that came from there to an own address. */
  came(from: string, to: string): Path | undefined {
    const bytes = record(from)
    bytes.set(record(to).subarray(8, 24), ADDRESS_LOCAL)
    return this.set.cameBy(bytes, 0, 0)
  }
  get held(): number {
    const free: number[] = []
    for (let slot = 0; slot >= 0;) {
      slot = this.peers.addresses.acquire(record(`10.99.${free.length >> 8}.${free.length & 255}`))
      if (slot >= 0) free.push(slot)
    }
    for (const slot of free) this.peers.addresses.release(slot)
    return this.peers.addresses.capacity - free.length
  }
}

test('one own address: a path a remote address, whatever the own one was', async (t) => {
  const w = new World()
  w.own.set([own('10.0.0.1')])
  const path = w.came('10.9.0.1', '10.0.0.1')
  t.equal(w.came('10.9.0.1', '10.0.0.7'), path)
  t.strictSame(w.names, ['*>10.9.0.1'])
})

test('several: each pair is a path, and when but one is left the kernel chooses again', async (t) => {
  const w = new World()
  w.own.set([own('10.0.0.1'), own('10.1.0.1')])
  w.set.offer(record('10.9.0.1'), 'usable', 0)
  t.same(new Set(w.names), new Set(['10.0.0.1>10.9.0.1', '10.1.0.1>10.9.0.1']))
  w.own.set([own('10.1.0.1')])
  w.set.review(1)
  const usable = w.set.paths.filter((path) => path.usable).map((path) => w.name(path))
  t.strictSame(usable, ['*>10.9.0.1'])
  t.ok(w.set.paths.filter((path) => !path.usable).every((path) => path.state === 'dead'))
})

test('an own address that is about to go makes its paths no lasting ones', async (t) => {
  const w = new World()
  w.own.set([own('10.0.0.1'), own('10.1.0.1')])
  w.set.offer(record('10.9.0.1'), 'usable', 0)
  w.own.set([own('10.0.0.1', true), own('10.1.0.1')])
  w.set.review(1)
  for (const path of w.set.paths) t.equal(path.lasting, w.name(path).startsWith('10.1.'), w.name(path))
})

test('the peer’s word: what it names no longer does not last', async (t) => {
  const w = new World()
  w.set.offer(record('10.9.0.1'), 'usable', 0)
  w.set.offer(record('10.9.0.2'), 'usable', 0)
  w.set.announced([record('10.9.0.2')], 1)
  t.strictSame(
    w.set.paths.map(({ remote }) => remote.standing),
    ['deprecated', 'usable'],
  )
})

test('paths are bounded: unproven ones give way, the one in use and proven ones do not for what is only said', async (t) => {
  const w = new World()
  const paths = [1, 2, 3, 4].map((i) => w.came(`10.9.0.${i}`, '10.0.0.1')!)
  w.set.current = paths[0]
  for (const path of paths.slice(1)) path.set('proven', 'proven', 1)
  w.set.offer(record('10.9.0.5'), 'usable', 2)
  t.strictSame(w.set.paths, paths)
  t.ok(w.came('10.9.0.6', '10.0.0.1'), 'what comes from there is another matter')
  t.equal(w.set.paths.length, MAX)
  t.ok(w.set.paths.includes(paths[0]!))
  w.set.release()
  t.equal(w.held, 0, 'no address is held')
})

test('the standby is the proven path that is fastest for what it loses; a lasting one first', async (t) => {
  const w = new World()
  const [current, slow, fast] = [1, 2, 3].map((i) => w.came(`10.9.0.${i}`, '10.0.0.1')!)
  w.set.current = current
  t.equal(w.set.standby(), undefined)
  for (const [path, rtt] of [
    [slow, 50],
    [fast, 20],
  ] as const) {
    path!.set('proven', 'proven', 1)
    path!.rttMs = rtt
  }
  t.equal(w.set.standby(), fast)
  fast!.remote.standing = 'deprecated'
  t.equal(w.set.standby(), slow)
})

test('a silent path is left for one that shares as little with it as can be, and is in no doubt itself', async (t) => {
  const w = new World()
  w.own.set([own('10.0.0.1'), own('10.1.0.1')])
  const [current, sameRemote, sameOwn, apart] = [
    w.came('10.9.0.1', '10.0.0.1')!,
    w.came('10.9.0.1', '10.1.0.1')!,
    w.came('10.8.0.1', '10.0.0.1')!,
    w.came('10.8.0.1', '10.1.0.1')!,
  ]
  w.set.current = current
  for (const [path, rtt] of [
    [sameRemote, 1],
    [sameOwn, 2],
    [apart, 3],
  ] as const) {
    path.set('proven', 'proven', 1)
    path.rttMs = rtt
  }
  t.equal(w.set.refuge(2), apart)
  apart.probed(Uint8Array.of(1), 2)
  t.equal(w.set.refuge(1_000), sameOwn)
  sameRemote.probed(Uint8Array.of(2), 3)
  sameRemote.echoed(Uint8Array.of(2), 4)
  t.equal(w.set.refuge(1_000), sameRemote, 'it has answered since')
  current.heardAt = 5
  t.equal(w.set.refuge(1_000), sameOwn)
  sameOwn.set('suspect', 'silent', 1_000)
  t.equal(w.set.refuge(1_000), sameRemote)
})

test('better is what is clearly faster, or loses clearly less, over some probes', async (t) => {
  const w = new World()
  const [current, other] = [1, 2].map((i) => w.came(`10.9.0.${i}`, '10.0.0.1')!)
  w.set.current = current
  for (const path of [current!, other!]) path.samples = 4
  current!.rttMs = 20
  for (const [rtt, better] of [
    [19, false],
    [17, false],
    [15, true],
  ] as const) {
    other!.rttMs = rtt
    t.equal(w.set.isBetter(other!), better, `${rtt} against 20 ms`)
  }
  other!.samples = 3
  t.notOk(w.set.isBetter(other!), 'too few to tell')
})

test('one lost probe of a few does not make a way a bad one', async (t) => {
  const w = new World()
  const [current, other] = [1, 2].map((i) => w.came(`10.9.0.${i}`, '10.0.0.1')!)
  w.set.current = current
  const probe = (path: Path, at: number, comes: boolean) => {
    path.probed(Uint8Array.of(at), 100 * at)
    if (comes) path.echoed(Uint8Array.of(at), 100 * at + 20)
  }
  for (const path of [current!, other!]) path.set('proven', 'proven', 0)
  for (let i = 0; i < 20; i++) probe(other!, i, true)
  for (let i = 0; i < 5; i++) probe(current!, i, i > 0)
  t.ok(current!.loss > 0.1)
  t.notOk(w.set.isBetter(other!))
  for (let i = 5; i < 21; i++) probe(current!, i, i % 4 > 0)
  t.ok(w.set.isBetter(other!))
})
