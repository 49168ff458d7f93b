import { test } from 'tap'
import { domainPrefix, exactPrefix, networkPrefix, type ServicePrefix } from '../../../lib/service/service-id.js'
import { ServiceTable, type Rule, type RuleAction } from '../../../lib/service/service-table.js'
import { serviceId, toHex } from '../../../lib/wire/ids.js'
import { seeded } from '../../sim/directory-world.js'
import { host, idOf, named, network, primitives } from './fixtures.js'

const drop: Rule = { action: { kind: 'drop' }, priority: 0, weight: 1 }
const forward = (name: string, priority: number): Rule => ({
  action: { kind: 'forward', to: 'instance', host: host(name) },
  priority,
  weight: 1,
})

test('the longest prefix wins, and the next longest when it goes', async (t) => {
  const table = new ServiceTable()
  const shop = domainPrefix(named('shop'), network, primitives)
  const exact = exactPrefix(idOf('api.shop'))
  const kinds = (name: string): string | undefined => table.lookup(idOf(name))?.rules[0]?.action.kind
  table.set(networkPrefix(network), 'default', { action: { kind: 'delay' }, priority: 0, weight: 1 })
  table.set(shop, 'domain', drop)
  table.set(exact, 'instance', forward('h1', 5))
  t.equal(kinds('api.shop'), 'forward')
  t.equal(kinds('x.api.shop'), 'drop')
  t.equal(kinds('web'), 'delay')
  t.ok(table.delete(exact, 'instance'))
  t.notOk(table.delete(exact, 'instance'))
  t.equal(kinds('api.shop'), 'drop')
  t.ok(table.delete(shop, 'domain'))
  t.equal(kinds('api.shop'), 'delay')
  table.set({ id: idOf('web'), length: 0 }, 'all', drop)
  t.equal(table.lookup(serviceId('f'.repeat(64)))?.rules[0]?.action.kind, 'drop', 'length 0 covers everything')
})

test('all that covers a service, the longest prefix first', async (t) => {
  const table = new ServiceTable()
  const prefixes = [
    networkPrefix(network),
    domainPrefix(named('shop'), network, primitives),
    exactPrefix(idOf('api.shop')),
  ]
  for (const prefix of prefixes) table.set(prefix, 'rule', drop)
  const lengths = (name: string) => table.covering(idOf(name)).map(({ prefix }) => prefix.length)
  t.strictSame(lengths('api.shop'), [256, 96, 64])
  t.strictSame(lengths('x.api.shop'), [96, 64])
  t.strictSame(lengths('web'), [64])
  t.strictSame(table.covering(serviceId('f'.repeat(64))), [])
})

test('rules of an entry are in order of priority and keep their counters when replaced', async (t) => {
  const table = new ServiceTable()
  const prefix = exactPrefix(idOf('web'))
  table.set(prefix, 'b', forward('h2', 20))
  table.set(prefix, 'a', forward('h1', 10))
  const [first] = table.lookup(idOf('web'))!.rules
  table.hit(first!, 123_456)
  table.set(prefix, 'a', forward('h1', 30))
  t.strictSame(
    table.lookup(idOf('web'))!.rules.map(({ key, priority, hits, lastHit }) => ({ key, priority, hits, lastHit })),
    [
      { key: 'b', priority: 20, hits: 0, lastHit: 0 },
      { key: 'a', priority: 30, hits: 1, lastHit: 123 },
    ],
  )
})

test('an entry says its prefix and what its rules do, also after others have gone', async (t) => {
  const table = new ServiceTable()
  const shop = domainPrefix(named('shop'), network, primitives)
  const actions: RuleAction[] = [
    { kind: 'forward', to: 'instance', host: host('h1') },
    { kind: 'forward', to: 'resolver', host: host('h1') },
    { kind: 'forward', to: 'instance', host: host('h2') },
    { kind: 'demux' },
    { kind: 'delay' },
    { kind: 'drop' },
  ]
  actions.forEach((action, i) => table.set(shop, `${i}`, { action, priority: 65_535, weight: i }))
  table.set(exactPrefix(idOf('shop')), 'x', drop)
  const found = () => table.lookup(idOf('api.shop'))
  t.strictSame(found()?.prefix, shop)
  t.strictSame(
    found()?.rules.map(({ action, priority, weight }) => ({ action, priority, weight })),
    actions.map((action, weight) => ({ action, priority: 65_535, weight })),
  )
  for (const key of ['0', '3', '5']) t.ok(table.delete(shop, key))
  table.set(networkPrefix(network), 'y', forward('h3', 1))
  t.strictSame(
    found()?.rules.map(({ action }) => action),
    [actions[1], actions[2], actions[4]],
  )
  t.strictSame(table.get(shop)?.rules, found()?.rules)
  t.equal(table.get(exactPrefix(idOf('api.shop'))), undefined)
  t.throws(() => table.set({ id: idOf('web'), length: 257 }, 'x', drop), RangeError)
})

test('thousands of prefixes, each with several rules, agree with a plain list', async (t) => {
  const table = new ServiceTable()
  const random = seeded(9)
  const pick = (n: number) => Math.floor(random() * n)
  const prefixes = Array.from({ length: 3_000 }, () =>
    exactPrefix(serviceId(Uint8Array.from({ length: 32 }, () => pick(256)))),
  )
  const plain = new Map<ServicePrefix, Map<string, { priority: number; hits: number }>>()
  for (let i = 0; i < 40_000; i++) {
    const prefix = prefixes[pick(prefixes.length)]!
    const rules = plain.get(prefix) ?? new Map<string, { priority: number; hits: number }>()
    plain.set(prefix, rules)
    const key = `k${pick(5)}`
    if (random() < 0.4) {
      if (table.delete(prefix, key) !== rules.delete(key)) t.fail('deleted what was not there, or not what was')
    } else {
      const priority = pick(3)
      table.set(prefix, key, { ...forward(`h${pick(4)}`, priority), weight: 7 })
      rules.set(key, { priority, hits: rules.get(key)?.hits ?? 0 })
    }
    const first = table.lookup(prefix.id)?.rules.at(-1)
    if (first === undefined) continue
    table.hit(first, 0)
    rules.get(first.key)!.hits++
  }
  let wrong = 0
  for (const [{ id }, rules] of plain) {
    const expected = [...rules].sort(([a, x], [b, y]) => x.priority - y.priority || (a < b ? -1 : 1))
    const found = table.lookup(id)?.rules ?? []
    const text = found.map(({ key, priority, hits, weight }) => `${key} ${priority} ${hits} ${weight}`).join()
    if (text !== expected.map(([key, { priority, hits }]) => `${key} ${priority} ${hits} 7`).join()) wrong++
  }
  t.equal(wrong, 0)
  for (const prefix of prefixes) for (let key = 0; key < 5; key++) table.delete(prefix, `k${key}`)
  t.equal(table.size, 0)
  t.strictSame([...table.entries()], [])
})

test('thousands of prefixes of any length agree with a plain search', async (t) => {
  const table = new ServiceTable()
  const random = seeded(5)
  const masked = ({ id, length }: ServicePrefix): string =>
    [...id]
      .map((digit) => Number.parseInt(digit, 16).toString(2).padStart(4, '0'))
      .join('')
      .slice(0, length)
  const plain = new Map<string, string>()
  // Few distinct bytes, so that prefixes nest.
  const anyId = () => serviceId(Uint8Array.from({ length: 32 }, () => (random() < 0.5 ? 0 : 255)))
  for (let i = 0; i < 20_000; i++) {
    const prefix = { id: anyId(), length: Math.floor(257 * random() ** 3) }
    if (random() < 0.3) {
      const known = plain.delete(masked(prefix))
      if (table.delete(prefix, 'x') !== known) t.fail('deleted what was not there, or not what was')
    } else {
      table.set(prefix, 'x', { ...drop, priority: i % 1000 })
      plain.set(masked(prefix), `${i % 1000}`)
    }
  }
  t.equal(table.size, plain.size)
  t.equal([...table.entries()].length, plain.size)
  let wrong = 0
  for (let i = 0; i < 2_000; i++) {
    const bits = masked({ id: anyId(), length: 256 })
    let expected: string | undefined
    for (let length = 256; length >= 0 && expected === undefined; length--) expected = plain.get(bits.slice(0, length))
    const bytes = Uint8Array.from({ length: 32 }, (_, at) => Number.parseInt(bits.slice(8 * at, 8 * at + 8), 2))
    const found = table.lookup(serviceId(toHex(bytes)))?.rules[0]?.priority
    if (expected !== (found === undefined ? undefined : `${found}`)) wrong++
  }
  t.equal(wrong, 0)
})
