import { test } from 'tap'
import {
  addressPlan,
  dnsAddress,
  formatAddress,
  POOL_DEFAULT,
  prefixesOverlap,
  rolePrefixes,
} from '../../../lib/service/address-plan.js'
import { Addresses, savedMappings } from '../../../lib/service/addresses.js'
import type { AddressClaim } from '../../../lib/service/registration.js'
import type { HostId } from '../../../lib/wire/ids.js'
import { host, idOf, network, primitives } from './fixtures.js'

const web = { kind: 'service', service: idOf('web') } as const

class Book extends Addresses {
  /** What was exported at each callback. */
  readonly saved: unknown[]
  constructor(name: string, pool = POOL_DEFAULT) {
    const saved: unknown[] = []
    super(
      { network, self: host(name), pool },
      { hasher: primitives, mappingChanged: () => saved.push(this.exportMappings()) },
    )
    this.saved = saved
  }
  text(target: Parameters<Addresses['dialledAddress']>[0], family: 4 | 6): string {
    const address = this.dialledAddress(target, family)
    return address === undefined ? 'none' : formatAddress(address)
  }
}

/** Everybody's claims to everybody, until nobody changes its own. */
function settle(books: ReadonlyMap<HostId, Addresses>, wall: number): void {
  for (let changed = true; changed;) {
    changed = false
    for (const [, book] of books) {
      for (const [id, other] of books) book.setClaims(id, other.ownClaims())
      changed = book.settle(wall).claims || changed
    }
  }
}

test('the plan: four roles that do not overlap', async (t) => {
  const plan = addressPlan(network, POOL_DEFAULT)
  if ('problem' in plan) throw new Error(plan.problem)
  t.equal(formatAddress(dnsAddress(plan, 4)), '198.18.0.53')
  t.match(formatAddress(dnsAddress(plan, 6)), /^fd.*::53$/)
  const prefixes = rolePrefixes(plan)
  t.strictSame(
    prefixes.filter(({ family }) => family === 4).map(({ prefix }) => prefix),
    ['198.18.128.0/17', '198.19.0.0/17', '198.19.128.0/17'],
  )
  for (const a of prefixes) for (const b of prefixes) t.equal(prefixesOverlap(a.prefix, b.prefix), a === b)
  t.ok(prefixes.every(({ prefix }) => prefixesOverlap(prefix, plan.pool) || prefixesOverlap(prefix, plan.v6)))
  for (const pool of ['10.0.0.0/21', '10.0.0.0/7', '10.1.0.0/8', 'fd00::/15', 'x', '10.0.0.0/15/1', '1.2/16']) {
    t.ok('problem' in addressPlan(network, pool), pool)
  }
})

test('prefixes overlap when one holds the other', async (t) => {
  t.ok(prefixesOverlap('198.18.0.0/15', '198.19.4.1'))
  t.ok(prefixesOverlap('0.0.0.0/0', '198.18.0.0/15'))
  t.notOk(prefixesOverlap('198.16.0.0/15', '198.18.0.0/15'))
  t.notOk(prefixesOverlap('::/0', '198.18.0.0/15'))
  t.ok(prefixesOverlap('fd00::/8', 'fd12:3456:789a::1'))
})

test('an address once given out is found again, in both families', async (t) => {
  const book = new Book('h1')
  for (const family of [4, 6] as const) {
    const address = book.dialledAddress(web, family)!
    t.strictSame(book.dialled(address, 0, family), web)
    t.strictSame(book.dialledAddress(web, family), address)
    const padded = new Uint8Array(40)
    padded.set(address, 13)
    t.strictSame(book.dialled(padded, 13, family), web)
    t.notOk(book.isLocal(address, 0, family))
    t.notOk(book.isPeer(address, 0, family))
    const other = address.slice()
    other[other.length - 1]! ^= 1
    t.equal(book.dialled(other, 0, family), undefined)
  }
  const pinned = { kind: 'service', service: idOf('web'), host: host('h2') } as const
  const self = { kind: 'host', host: host('h2') } as const
  t.equal(new Set([web, pinned, self].flatMap((target) => [book.text(target, 4), book.text(target, 6)])).size, 6)
  t.strictSame(book.dialled(book.dialledAddress(pinned, 6)!, 0, 6), pinned)
})

test('a mapping is told before it is used, and survives a restart', async (t) => {
  const book = new Book('h1')
  const address = book.dialledAddress(web, 4)!
  const last = savedMappings.parse(JSON.parse(JSON.stringify(book.saved.at(-1))))
  t.equal(last.dialled[0]?.offset !== undefined, true)
  const before = book.saved.length
  book.dialledAddress(web, 4)
  t.equal(book.saved.length, before, 'nothing new')
  book.claimService(idOf('shop'), 7)
  book.settle(7)
  const peer = book.peer(host('h9'), 4)

  const again = new Book('h1')
  again.importMappings(savedMappings.parse(JSON.parse(JSON.stringify(book.exportMappings()))))
  t.strictSame(again.dialled(address, 0, 4), web, 'known before anybody asks')
  t.strictSame(again.dialledAddress(web, 4), address)
  t.strictSame(again.peer(host('h9'), 4), peer)
  t.strictSame(again.ownClaims(), book.ownClaims())
  const moved = new Book('h1', '10.0.0.0/16')
  moved.importMappings(book.exportMappings())
  t.match(moved.text(web, 4), /^10\.0\./, 'another pool: new addresses')
  t.equal(moved.text(web, 6), book.text(web, 6))
})

test('local addresses: self, DNS and what is served', async (t) => {
  const book = new Book('h1')
  for (const family of [4, 6] as const) {
    t.ok(book.isLocal(book.self(family), 0, family))
    t.ok(book.isLocal(dnsAddress(book.plan, family), 0, family))
    t.notOk(book.isLocal(book.served(idOf('web'), family), 0, family))
  }
  const [v4, v6] = book.host(idOf('web'))
  t.ok(book.isLocal(v4, 0, 4) && book.isLocal(v6, 0, 6))
  t.equal(book.localAddresses().length, 4)
  book.unhost(idOf('web'))
  t.notOk(book.isLocal(v4, 0, 4) || book.isLocal(v6, 0, 6))
  t.ok(book.isPeer(book.peer(host('h2'), 4), 0, 4) && book.isPeer(book.peer(host('h2'), 6), 0, 6))
  t.notOk(book.isPeer(Uint8Array.of(192, 0, 2, 1), 0, 4))
})

test('claims make served and dialled addresses the same everywhere', async (t) => {
  const books = new Map(['h1', 'h2', 'h3'].map((name) => [host(name), new Book(name)]))
  const [a, b, c] = [...books.values()]
  t.notOk(a!.isMovable(idOf('web')))
  const early = c!.dialledAddress(web, 4)!
  a!.claimService(idOf('web'), 100)
  b!.claimService(idOf('web'), 200)
  for (const book of books.values()) book.claimPeer(100)
  settle(books, 300)
  t.ok(c!.isMovable(idOf('web')))
  t.equal(new Set([...books.values()].map((book) => formatAddress(book.served(idOf('web'), 4)))).size, 1)
  t.equal(new Set([...books.values()].map((book) => book.text(web, 4))).size, 1)
  t.strictSame(c!.dialled(early, 0, 4), web, 'the earlier local one goes on meaning the same')
  t.equal(formatAddress(a!.peer(host('h2'), 4)), formatAddress(c!.peer(host('h2'), 4)))
})

test('the oldest claim wins an address, the loser takes another and all agree', async (t) => {
  const books = new Map(['h1', 'h2', 'h3'].map((name) => [host(name), new Book(name)]))
  const [a, b, c] = [...books.values()]
  const [x, y] = [idOf('x'), idOf('y')]
  const claim = (id: string, since: number): AddressClaim => ({ role: 'served', id, index: 77, since })
  // Both begin at the same index, as they may before they have heard of each other.
  a!.importMappings({ ...a!.exportMappings(), claims: [claim(x, 200)] })
  b!.importMappings({ ...b!.exportMappings(), claims: [claim(y, 100)] })
  a!.settle(200)
  const [first] = a!.host(x)
  settle(books, 300)
  const offset = b!.plan.claimed.served.start + 77
  for (const book of [a!, b!, c!]) {
    t.equal(formatAddress(book.served(y, 4)), `198.19.0.${offset & 0xff}`)
    t.equal(formatAddress(book.served(x, 4)), formatAddress(c!.served(x, 4)))
  }
  t.not(formatAddress(a!.served(x, 4)), formatAddress(first))
  t.ok(a!.isLocal(first, 0, 4) && a!.isLocal(a!.served(x, 4), 0, 4), 'the old address stays local while flows use it')
})

test('a dialled address that another service wins means that one, and its loser gets another', async (t) => {
  const book = new Book('h1')
  const [x, y] = [idOf('x'), idOf('y')]
  const target = { kind: 'service', service: x } as const
  book.importMappings({ ...book.exportMappings(), claims: [{ role: 'dialled', id: x, index: 77, since: 200 }] })
  book.settle(200)
  const lost = book.dialledAddress(target, 4)!
  t.equal(formatAddress(lost), '198.18.128.77')
  book.setClaims(host('h2'), [{ role: 'dialled', id: y, index: 77, since: 100 }])
  t.ok(book.settle(300).claims)
  t.strictSame(book.dialled(lost, 0, 4), { kind: 'service', service: y })
  const next = book.dialledAddress(target, 4)!
  t.not(formatAddress(next), formatAddress(lost))
  t.strictSame(book.dialled(next, 0, 4), target)
  // Then one that is not claimed any more, and was lost before it was asked for again.
  const other = new Book('h3')
  other.setClaims(host('h1'), [{ role: 'dialled', id: x, index: 77, since: 200 }])
  other.settle(200)
  t.equal(other.text(target, 4), '198.18.128.77')
  other.setClaims(host('h1'), [])
  other.setClaims(host('h2'), [{ role: 'dialled', id: y, index: 77, since: 300 }])
  other.settle(300)
  t.not(other.text(target, 4), '198.18.128.77')
})

test('nobody claims a peer address for another host, or outside the part', async (t) => {
  const book = new Book('h1')
  book.setClaims(host('h2'), [{ role: 'peer', id: host('h3'), index: 5, since: 0 }])
  book.setClaims(host('h3'), [{ role: 'served', id: idOf('web'), index: 32_768, since: 0 }])
  book.settle(1)
  t.notOk(book.isMovable(idOf('web')))
  t.not(formatAddress(book.peer(host('h3'), 4)), '198.19.128.5')
})

test('a full pool says so', async (t) => {
  const book = new Book('h1', '10.0.0.0/20')
  const texts = new Set<string>()
  for (let i = 0; i < 400; i++) texts.add(book.text({ kind: 'host', host: host(`host ${i}`) }, 4))
  t.equal(texts.size, 257, '256 addresses, then none')
  t.equal(book.text({ kind: 'host', host: host('host 0') }, 4) === 'none', false)
  for (let i = 0; i < 400; i++) t.ok(book.isPeer(book.peer(host(`host ${i}`), 4), 0, 4))
})

test('after a restart addresses are what they were before anybody else has been heard', async (t) => {
  const books = new Map<HostId, Book>(['a', 'b'].map((name) => [host(name), new Book(name)]))
  const before = books.get(host('a'))!
  before.host(web.service)
  before.claimService(web.service, 1)
  books.get(host('b'))!.claimPeer(1)
  settle(books, 2)
  const [served, peer] = [before.served(web.service, 4), before.peer(host('b'), 4)]
  const [local, other] = [before.peer(host('c'), 4), before.peer(host('d'), 4)]
  const book = (mappings: boolean) => {
    const fresh = new Book('a')
    if (mappings) fresh.importMappings(savedMappings.parse(before.exportMappings()))
    return fresh
  }
  const after = book(true)
  t.same(after.host(web.service)[0], served, 'its own claim counts at once')
  after.keepPeer(host('b'), peer)
  t.same(after.peer(host('b'), 4), peer)
  after.setClaims(host('b'), books.get(host('b'))!.ownClaims())
  after.settle(3)
  t.same(after.peer(host('b'), 4), peer)

  // The mappings had not reached the disk.
  const lost = book(false)
  lost.keepPeer(host('c'), local)
  t.same(lost.peer(host('c'), 4), local)
  lost.keepPeer(host('e'), local)
  t.notSame(lost.peer(host('e'), 4), local, 'nobody else gets it')
  lost.keepPeer(host('d'), Uint8Array.of(10, 0, 0, 1))
  t.same(lost.peer(host('d'), 4), other, 'an address that cannot be one is none')
  // A claim that is known by now goes before.
  const late = book(true)
  late.setClaims(host('b'), [{ role: 'peer', id: host('b'), index: 77, since: 1 }])
  late.settle(3)
  const claimed = late.peer(host('b'), 4)
  late.keepPeer(host('b'), peer)
  t.same(late.peer(host('b'), 4), claimed)
  t.end()
})
