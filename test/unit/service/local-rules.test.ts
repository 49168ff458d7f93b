import { test } from 'tap'
import { LocalRules, type LocalRule } from '../../../lib/service/local-rules.js'
import { exactPrefix, parseServiceName } from '../../../lib/service/service-id.js'
import { ServiceTable, type RuleAction } from '../../../lib/service/service-table.js'
import { host, idOf, network, primitives } from './fixtures.js'

function name(text: string) {
  const parsed = parseServiceName(text)
  if ('problem' in parsed) throw new Error(parsed.problem)
  return parsed
}
const to = (id: string): RuleAction => ({ kind: 'forward', to: 'resolver', host: host(id) })
const rule = (text: string, action: RuleAction, options: Partial<LocalRule> = {}): LocalRule => ({
  name: text === '*' ? undefined : name(text),
  below: true,
  action,
  priority: 10,
  weight: 1,
  ...options,
})
const drop: RuleAction = { kind: 'drop' }
const delay: RuleAction = { kind: 'delay' }

function rules(...list: readonly LocalRule[]) {
  const table = new ServiceTable()
  const local = new LocalRules({ table, network, hasher: primitives })
  local.replace(list)
  return { table, local, of: (text: string) => local.of(idOf(text)).map(({ action }) => action) }
}

test('the most specific name that is set decides, and instances are no names that are set', async (t) => {
  const { table, of } = rules(rule('*', delay), rule('shop', drop), rule('api.shop', to('h2')))
  table.set(exactPrefix(idOf('web.shop')), `instance/${host('h3')}`, { action: drop, priority: 0, weight: 1 })
  t.strictSame(of('x'), [delay])
  t.strictSame(of('shop'), [drop])
  t.strictSame(of('web.shop'), [drop])
  t.strictSame(of('api.shop'), [to('h2')])
  t.strictSame(of('v1.api.shop'), [to('h2')])
})

test('a rule without what is below covers only its name', async (t) => {
  const { of } = rules(rule('shop', drop, { below: false }))
  t.strictSame(of('shop'), [drop])
  t.strictSame(of('api.shop'), [])
})

test('rules of one name stand in the order of their priorities', async (t) => {
  const { of } = rules(rule('a', to('h3'), { priority: 9 }), rule('a', delay, { priority: 20 }), rule('a', to('h2')))
  t.strictSame(of('a'), [to('h3'), to('h2'), delay])
})

test('what is replaced goes, what stays keeps its counters, what others set stays', async (t) => {
  const { table, local, of } = rules(rule('a', drop), rule('b', drop))
  const key = `instance/${host('h3')}`
  table.set(exactPrefix(idOf('b')), key, { action: drop, priority: 0, weight: 1 })
  table.hit(local.of(idOf('a'))[0]!, 5_000)
  local.replace([rule('a', drop, { priority: 3 })])
  t.strictSame(of('b'), [])
  t.match(local.of(idOf('a')), [{ priority: 3, hits: 1, lastHit: 5 }])
  t.equal(table.get(exactPrefix(idOf('b')))?.rules[0]?.key, key)
  local.replace([])
  t.equal(table.size, 1)
})

test('names that only a rule may find', async (t) => {
  const { local } = rules(rule('corp', to('h2')), rule('no.corp', drop), rule('later', delay))
  t.equal(local.findable(name('x.corp')), idOf('x.corp'))
  t.equal(local.findable(name('later')), idOf('later'))
  t.equal(local.findable(name('no.corp')), undefined, 'what is dropped is not found')
  t.equal(local.findable(name('other')), undefined)
  t.equal(rules().local.findable(name('other')), undefined)
})

test('names as people see them', async (t) => {
  const { table, local } = rules(rule('*', delay), rule('shop', drop), rule('web', drop, { below: false }))
  const texts = [...table.entries()].map(({ prefix }) => `${prefix.length} ${local.textOf(prefix)}`)
  t.strictSame(texts.sort(), ['256 web', '64 *', '96 shop and below'])
})
