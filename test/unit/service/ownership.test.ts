import { test } from 'tap'
import type { Issuer } from '../../../lib/crypto/authority.js'
import type { SignedNameRule } from '../../../lib/crypto/name-rules.js'
import { ruleFor, rulesInForce } from '../../../lib/service/ownership.js'
import { host, network } from './fixtures.js'

const issuer = (name: string, tags: readonly string[]): Issuer => ({
  ...{ network, host: host(name), tags, notBefore: 0, notAfter: 1_000, serial: 1 },
})
const any = issuer('any', ['*'])
const web = issuer('web', ['web'])

function rule(
  name: string,
  tag: string,
  by: Issuer | undefined,
  changes: Partial<SignedNameRule> = {},
): SignedNameRule {
  return {
    ...{ name, tags: [tag], hosts: [], minPriority: 0, maxWeight: 65_535, free: false, serial: 1, issuer: by },
    ...changes,
  }
}

const inForce = (...signed: SignedNameRule[]) =>
  [signed, signed.toReversed()].map((list) =>
    [...rulesInForce(list).values()].map(({ name, tags }) => `${name} ${tags.join()}`).sort(),
  )
const both = (...rules: string[]) => [rules, rules]

test('of several rules for a name one counts', async (t) => {
  t.strictSame(
    inForce(rule('pay', 'a', any), rule('pay', 'web', web, { serial: 2 })),
    both('pay web'),
    'highest serial',
  )
  const [first, second] = [any, web].sort((a, b) => (a.host < b.host ? -1 : 1))
  t.strictSame(inForce(rule('pay', 'x', first), rule('pay', 'y', second)), both('pay x'), 'ties by host ID')
  t.strictSame(inForce(rule('pay', 'bank', undefined), rule('pay', 'a', any, { serial: 9 })), both('pay bank'))
  const freed = rule('pay', 'bank', undefined, { free: true })
  t.strictSame(inForce(freed, rule('pay', 'a', any, { serial: 9 })), both(), 'the authority has said that it is free')
  t.strictSame(inForce(rule('pay', 'a', any), rule('pay', 'web', web, { serial: 2, free: true })), both())
})

test("below the authority's domains an issuer counts only where it could let in an owner", async (t) => {
  const bank = rule('pay', 'bank', undefined)
  t.strictSame(inForce(bank, rule('api.pay', 'web', web)), both('pay bank'))
  t.strictSame(inForce(bank, rule('api.pay', 'a', any)), both('api.pay a', 'pay bank'))
  t.strictSame(inForce(rule('shop', 'web', undefined), rule('api.shop', 'web', web)), both('api.shop web', 'shop web'))
  t.strictSame(inForce(rule('*', 'bank', undefined), rule('api', 'web', web)), both('* bank'))
  const everybody = rule('*', '', undefined, { tags: [] })
  t.strictSame(inForce(everybody, rule('api', 'web', web)), both('* ', 'api web'))
  const one = rule('pay', '', undefined, { tags: [], hosts: [host('h1')] })
  t.strictSame(inForce(one, rule('api.pay', 'a', any)), both('pay '), 'no issuer makes that host')
  const late = rule('api.pay', 'web', web, { serial: 9 })
  t.strictSame(
    inForce(bank, rule('api.pay', 'a', any), late),
    both('api.pay a', 'pay bank'),
    'nor does it hide another',
  )
  t.strictSame(inForce({ ...bank, free: true }, rule('api.pay', 'web', web)), both('api.pay web'))
})

test('the rule with the most labels counts', async (t) => {
  const rules = new Map(['*', 'shop', 'api.shop'].map((name) => [name, name]))
  t.strictSame(
    ['web', 'shop', 'x.shop', 'api.shop', 'v2.api.shop', 'workshop', 'shop.web'].map((name) => ruleFor(name, rules)),
    ['*', 'shop', 'shop', 'api.shop', 'api.shop', '*', '*'],
  )
  t.equal(ruleFor('web', new Map([['shop', 1]])), undefined)
})
