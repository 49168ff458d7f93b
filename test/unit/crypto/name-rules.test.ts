import { test } from 'tap'
import { z } from 'zod'
import { Authority } from '../../../lib/crypto/authority.js'
import { HostKey } from '../../../lib/crypto/host-key.js'
import {
  ISSUER_RULES_MAX,
  ISSUERS_RULES_MAX,
  NAME_RULE_MAX,
  NAME_RULES_MAX,
  NameRuleList,
  openNameRule,
  ruleAsAuthority,
  ruleAsIssuer,
  type NameRuleFields,
} from '../../../lib/crypto/name-rules.js'
import { RevocationList, revokeAsAuthority } from '../../../lib/crypto/revocations.js'
import { TrustStore } from '../../../lib/crypto/trust.js'
import { fromHex, type HostId } from '../../../lib/wire/ids.js'
import { pack, unpack, type Packable } from '../../../lib/wire/pack.js'
import { CONTROL_MESSAGE_MAX } from '../../../lib/wire/constants.js'
import { encodeDirectoryMessage } from '../../../lib/wire/directory-message.js'
import { standInPrimitives } from '../../sim/stand-in-crypto.js'
import { DAY, NOW, primitives, TestNetwork } from './identity.js'

const profile = { name: 'home', ipv4Pool: '198.18.0.0/15', zone: 'svc.internal' }

function fields(name: string, changes: Partial<NameRuleFields> = {}): NameRuleFields {
  return {
    ...{ name, tags: ['bank'], hosts: [], minPriority: 0, maxWeight: 65_535, free: false, serial: NOW * 1000 },
    ...changes,
  }
}

function byIssuer(network: TestNetwork, rule: NameRuleFields, key = network.issuer, certificate = network.certificate) {
  return ruleAsIssuer(key, { network: fromHex(network.authority.network), certificate }, rule)
}

function listOf(network: TestNetwork): NameRuleList {
  return new NameRuleList(primitives, network.authority.publicKey, network.revocations)
}

/** One more issuer of the network, which may give these tags. */
function issuerOf({ authority }: TestNetwork, tags: readonly string[] = ['*'], notAfter = NOW + 365 * DAY) {
  const key = HostKey.generate(primitives)
  const certificate = authority.certifyIssuer({ host: key.id, tags, notBefore: NOW - DAY, notAfter, serial: 1 })
  return { key, certificate }
}

test('rules come back as they were signed, by the authority and by an issuer', async (t) => {
  const network = new TestNetwork()
  const hosts: HostId[] = [HostKey.generate(primitives).id]
  const rule = fields('pay', { hosts, minPriority: 3, maxWeight: 7 })
  const { publicKey } = network.authority
  t.strictSame(openNameRule(primitives, ruleAsAuthority(network.authority, rule), publicKey), {
    ...rule,
    issuer: undefined,
  })
  t.match(openNameRule(primitives, byIssuer(network, rule), publicKey), {
    ...rule,
    issuer: { host: network.issuer.id },
  })
  t.match(openNameRule(primitives, byIssuer(network, fields('*')), publicKey), { name: '*' })
})

test('what nobody entitled has signed is refused', async (t) => {
  const network = new TestNetwork()
  const list = listOf(network)
  t.equal(list.add(ruleAsAuthority(Authority.generate(primitives), fields('pay'))), 'invalid', 'another network')
  t.equal(list.add(byIssuer(new TestNetwork(), fields('pay'))), 'invalid')
  const member = HostKey.generate(primitives)
  t.equal(list.add(byIssuer(network, fields('pay'), member)), 'invalid', 'a member that is no issuer')
  const { key, certificate } = issuerOf(network, ['web'])
  t.equal(list.add(byIssuer(network, fields('pay'), key, certificate)), 'invalid', 'a tag it may not give')
  t.equal(list.add(byIssuer(network, fields('*', { tags: ['web'] }), key, certificate)), 'invalid', 'all names')
  t.match(list.add(byIssuer(network, fields('pay', { tags: ['web'] }), key, certificate)), { name: 'pay' })
  const late = fields('late', { serial: (NOW + 366 * DAY) * 1000 })
  t.equal(list.add(byIssuer(network, late)), 'invalid', 'signed after its certificate had expired')
  t.equal(list.add(new Uint8Array(10)), 'invalid')
  t.equal(list.size, 1)
})

test('a rule is in bounds, and the longest fits a message', async (t) => {
  const { authority } = new TestNetwork()
  const hosts = (n: number) => Array.from({ length: n }, () => HostKey.generate(primitives).id)
  for (const bad of [
    fields('a..b'),
    fields('A'),
    fields('~abc'),
    fields('a.b.c.d.e'),
    fields('pay', { tags: ['Bad tag'] }),
    fields('pay', { hosts: hosts(9) }),
    fields('pay', { maxWeight: 70_000 }),
    fields('pay', { serial: -1 }),
  ])
    t.throws(() => ruleAsAuthority(authority, bad), RangeError, JSON.stringify(bad).slice(0, 60))
  const tags = Array.from({ length: 8 }, (_, i) => `${'t'.repeat(31)}${i}`)
  const longest = ruleAsAuthority(authority, fields('x'.repeat(63), { tags, hosts: hosts(8) }))
  t.ok(longest.length <= NAME_RULE_MAX)
  const message = encodeDirectoryMessage({ kind: 'names', items: [new Uint8Array(NAME_RULE_MAX).fill(1)] })
  t.ok(message.length <= CONTROL_MESSAGE_MAX)
})

test("of a signer's rules for a name the newest is kept, whatever the order", async (t) => {
  const network = new TestNetwork()
  const second = issuerOf(network)
  const signed = [
    ruleAsAuthority(network.authority, fields('pay', { serial: NOW * 1000 })),
    ruleAsAuthority(network.authority, fields('pay', { serial: NOW * 1000 + 5, free: true })),
    byIssuer(network, fields('pay')),
    byIssuer(network, fields('pay', { serial: NOW * 1000 + 1, tags: ['web'] })),
    // One serial, two contents: all hosts keep the same one.
    byIssuer(network, fields('twice', { tags: ['a'] })),
    byIssuer(network, fields('twice', { tags: ['b'] })),
    byIssuer(network, fields('pay'), second.key, second.certificate),
  ]
  const [a, b] = [listOf(network), listOf(network)]
  for (const bytes of signed) a.add(bytes)
  for (const bytes of signed.toReversed()) b.add(bytes)
  t.equal(a.size, 4)
  t.strictSame(a.digest(), b.digest())
  t.strictSame(a.entries(), b.entries())
  t.equal(a.add(signed[0]!), 'known', 'an older one')
  t.equal(a.add(signed[1]!), 'known', 'the same one')
})

test("a revoked issuer's rules are gone, and refused from then on", async (t) => {
  const network = new TestNetwork()
  const list = listOf(network)
  list.add(ruleAsAuthority(network.authority, fields('mine')))
  const bytes = byIssuer(network, fields('pay'))
  list.add(bytes)
  const before = list.digest()
  t.notOk(list.prune())
  network.revocations.add(revokeAsAuthority(network.authority, { host: network.issuer.id, serial: 1, time: NOW }))
  t.ok(list.prune())
  t.strictSame(
    list.list().map(({ name }) => name),
    ['mine'],
  )
  t.notSame(list.digest(), before)
  t.equal(list.add(bytes), 'revoked')
  t.equal(list.add(bytes.slice(1)), 'invalid')
  t.strictSame(list.refused, { invalid: 1, revoked: 1, full: 0 }, 'and counted')
})

test('a full list keeps the same rules whatever the order, and always has room for the authority', async (t) => {
  const fast = standInPrimitives(primitives)
  const authority = Authority.generate(fast)
  const revocations = new RevocationList(fast, authority.publicKey)
  const issuers = Array.from({ length: 5 }, () => {
    const key = HostKey.generate(fast)
    const validity = { notBefore: NOW - DAY, notAfter: NOW + DAY }
    return { key, certificate: authority.certifyIssuer({ host: key.id, tags: ['*'], ...validity, serial: 1 }) }
  })
  const signed = issuers.flatMap(({ key, certificate }) =>
    Array.from({ length: ISSUER_RULES_MAX + 2 }, (_, i) =>
      ruleAsIssuer(key, { network: fromHex(authority.network), certificate }, fields(`name-${1_000 + i}`)),
    ),
  )
  const list = () => new NameRuleList(fast, authority.publicKey, revocations)
  const [a, b] = [list(), list()]
  const results = signed.map((bytes) => a.add(bytes))
  for (const bytes of signed.toReversed()) b.add(bytes)
  t.ok(results.includes('full'))
  t.equal(a.size, ISSUERS_RULES_MAX)
  t.notOk(a.hasRoom(issuers[0]!.key.id))
  t.ok(a.hasRoom(undefined))
  t.strictSame(a.digest(), b.digest())
  for (let i = 0; i < NAME_RULES_MAX - ISSUERS_RULES_MAX; i++)
    if (typeof a.add(ruleAsAuthority(authority, fields(`own-${1_000 + i}`))) === 'string') t.fail('no room')
  t.equal(a.size, NAME_RULES_MAX)
  t.notOk(a.hasRoom(undefined))
  const { full } = a.refused
  t.equal(a.add(ruleAsAuthority(authority, fields('own-9999'))), 'full')
  t.equal(a.refused.full, full + 1)
  t.match(a.add(ruleAsAuthority(authority, fields('own-1000', { serial: NOW * 1000 + 1 }))), {
    name: 'own-1000',
  })
})

test('a trust store keeps the rules, and reads files of before there were any', async (t) => {
  const network = new TestNetwork()
  const store = new TrustStore(primitives, { authority: network.authority.publicKey, profile })
  const before = unpack(store.encode(), 10_000, z.array(z.custom<Packable>()))!.slice(0, 7)
  store.nameRules.add(ruleAsAuthority(network.authority, fields('pay')))
  const again = TrustStore.decode(primitives, store.encode())
  t.match(again?.nameRules.list(), [{ name: 'pay', tags: ['bank'] }])
  t.equal(TrustStore.decode(primitives, pack(before))?.nameRules.size, 0)
  t.equal(TrustStore.decode(primitives, pack([...before, [new Uint8Array(9)]])), undefined, 'damaged')
})
