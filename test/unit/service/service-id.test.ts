import { test } from 'tap'
import { domainPrefix, keyName, networkPrefix, parseServiceName } from '../../../lib/service/service-id.js'
import { idOf, named, network, primitives } from './fixtures.js'

test('names are canonical, and what is wrong with others is said', async (t) => {
  t.equal(named('API.Shop').text, 'api.shop')
  t.strictSame(named('x.api.shop'), { kind: 'labels', text: 'x.api.shop', labels: ['x', 'api', 'shop'] })
  const problem = (text: string): string => {
    const result = parseServiceName(text)
    return 'problem' in result ? result.problem : 'none'
  }
  t.match(problem(''), /empty/)
  t.match(problem('a..b'), /"a\.\.b": a label is empty/)
  t.match(problem('web_1'), /"_" is not allowed/)
  t.match(problem('-web'), /begins or ends with "-"/)
  t.match(problem('a.b.c.d.e'), /5 labels, at most 4/)
  t.match(problem('a'.repeat(64)), /64 characters, at most 63/)
  t.match(problem('web.at'), /"at" is reserved/)
  t.match(problem('~abc'), /52 base32 digits/)
  t.match(problem(`~${'1'.repeat(52)}`), /"1" is no base32 digit/)
})

test('an ID has the network, a level for each label from the top, and the hash of the name', async (t) => {
  const id = idOf('api.shop')
  t.equal(id.slice(0, 16), network.slice(0, 16))
  t.equal(id.slice(16, 24), idOf('shop').slice(16, 24), 'the top level is the last label')
  t.equal(id.slice(32, 48), '0'.repeat(16), 'no third and fourth level')
  t.not(id.slice(48), idOf('shop').slice(48))
  t.equal(Number.parseInt(id[16]!, 16) & 8, 0)
  t.equal(idOf('API.shop'), id)
})

test('the prefix of a domain covers the names in it and no others', async (t) => {
  const { id, length } = domainPrefix(named('shop'), network, primitives)
  t.equal(length, 96)
  const digits = length / 4
  for (const name of ['shop', 'api.shop', 'x.api.shop']) t.equal(idOf(name).slice(0, digits), id.slice(0, digits), name)
  for (const name of ['shops', 'shop.api', 'web']) t.not(idOf(name).slice(0, digits), id.slice(0, digits), name)
  t.equal(domainPrefix(named('api.shop'), network, primitives).length, 128)
  t.strictSame(networkPrefix(network), { id: `${network.slice(0, 16)}${'0'.repeat(48)}`, length: 64 })
})

test('a self-certifying name is its key, and its ID the hash of it', async (t) => {
  const key = primitives.randomBytes(32)
  const name = keyName(key)
  t.equal(name.text.length, 53)
  const parsed = named(name.text.toUpperCase())
  t.strictSame(parsed.kind === 'key' ? parsed.key : undefined, key)
  t.equal(Number.parseInt(idOf(name.text)[16]!, 16) & 8, 8, 'the first bit after the network is set')
  t.equal(domainPrefix(parsed, network, primitives).length, 256)
  const bent = name.text.slice(0, -1) + (name.text.endsWith('a') ? 'b' : 'a')
  const result = parseServiceName(bent)
  t.ok('problem' in result || idOf(bent) !== idOf(name.text))
})
