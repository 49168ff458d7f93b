import { test, type Test } from 'tap'
import { exposeRequestShape } from '../../../daemon/control/protocol.js'
import { namesShape } from '../../../daemon/control/shapes.js'
import { CaracalError } from '../../../daemon/errors.js'
import { giveName, namesView, ruledName, type NameWish } from '../../../daemon/name-rules.js'
import { monotonicNow } from '../../../daemon/packet-loop.js'
import { ISSUER_RULES_MAX, ruleAsIssuer } from '../../../lib/crypto/name-rules.js'
import { revokeAsAuthority } from '../../../lib/crypto/revocations.js'
import { fromHex } from '../../../lib/wire/ids.js'
import { primitives, RigNetwork, wallNow, type Rig } from './rig.js'

const give = (rig: Rig, name: string, changes: Partial<NameWish> = {}, wallMs = Date.now()) => {
  const wish = { name, tags: ['bank'], hosts: [], minPriority: 0, maxWeight: 65_535, free: false, ...changes }
  return giveName(rig.identity, wish, primitives, wallMs)
}
const free = (rig: Rig, name: string) => give(rig, name, { tags: [], free: true })

/** h1 has the authority's key; h2 is a member, and with `tags` an issuer that may give them. */
async function pair(t: Test, tags?: readonly string[], seconds = 3_600) {
  const network = new RigNetwork(t)
  const h1 = await network.create()
  const h2 = await network.join(h1, 'h2', ['web'])
  if (tags !== undefined) {
    const now = Math.floor(wallNow())
    const validity = { notBefore: now - 2 * 3_600, notAfter: now + seconds }
    const certificate = h1.identity.authority!.certifyIssuer({ host: h2.host.id, tags, ...validity, serial: 1 })
    h2.identity.trust.adoptIssuerCertificate(certificate)
  }
  return { network, h1, h2 }
}

function refusal(t: Test, what: () => unknown, code: string, message: RegExp): void {
  try {
    what()
    t.fail(`it was not refused: ${message}`)
  } catch (error) {
    t.ok(error instanceof CaracalError)
    t.match(error, { code, message })
  }
}

test('names of rules', async (t) => {
  t.equal(ruledName('*'), '*')
  t.equal(ruledName('API.Shop'), 'api.shop')
  refusal(t, () => ruledName('a..b'), 'CARACAL_E_NAME', /a label is empty/)
  refusal(t, () => ruledName(`~${'a'.repeat(52)}`), 'CARACAL_E_NAME', /belongs to the holder of its key/)
})

test('the authority gives, takes back and gives again; each time with a higher serial', async (t) => {
  const { h1 } = await pair(t)
  const now = Date.now()
  const first = give(h1, 'pay', {}, now).rule
  t.match(first, { name: 'pay', tags: ['bank'], serial: now, issuer: undefined })
  t.ok(free(h1, 'pay').rule.serial > now)
  refusal(t, () => free(h1, 'pay'), 'CARACAL_E_NO_SUCH_SERVICE', /no rule gives pay to anybody/)
  // A clock that was set back is no obstacle.
  t.ok(give(h1, 'pay', {}, now - 60_000).rule.serial > now + 1)
  t.equal(h1.identity.trust.nameRules.size, 1)
})

test('what cannot be said is refused, and nothing has changed', async (t) => {
  const { h1, h2 } = await pair(t)
  refusal(t, () => give(h2, 'pay'), 'CARACAL_E_NOT_ISSUER', /this host may not give names to anybody/)
  refusal(t, () => give(h1, 'pay', { tags: ['No Tag'] }), 'CARACAL_E_USAGE', /"No Tag" is no tag/)
  const many = Array.from({ length: 9 }, (_, i) => `t${i}`)
  refusal(t, () => give(h1, 'pay', { tags: many }), 'CARACAL_E_USAGE', /up to 8 tags and 8 hosts/)
  const long = 'x'.repeat(63)
  const hosts = Array.from({ length: 8 }, () => h1.host.id)
  const wide = { tags: many.slice(1).map((tag) => tag.padEnd(32, 'x')), hosts }
  const { h2: issuer } = await pair(t, ['*'])
  refusal(t, () => give(issuer, `${long}.${long}.${long}`, wide), 'CARACAL_E_USAGE', /too many tags and hosts/)
  t.equal(issuer.identity.trust.nameRules.size, 0)
  t.equal(h1.identity.trust.nameRules.size, 0)
})

test('an issuer gives names to tags it may give, and the authority goes before it', async (t) => {
  const { h1, h2 } = await pair(t, ['web'])
  refusal(t, () => give(h2, 'pay'), 'CARACAL_E_NOT_ENTITLED', /may not give anything to the tag bank/)
  refusal(t, () => give(h2, '*', { tags: ['web'] }), 'CARACAL_E_NOT_ENTITLED', /not all names/)
  t.match(give(h2, 'shop', { tags: ['web'] }).rule, { issuer: { host: h2.host.id } })
  h2.identity.trust.nameRules.add(give(h1, 'pay').bytes)
  refusal(t, () => give(h2, 'pay', { tags: ['web'] }), 'CARACAL_E_NOT_ENTITLED', /authority has decided about pay/)
  refusal(t, () => give(h2, 'api.pay', { tags: ['web'] }), 'CARACAL_E_NOT_ENTITLED', /given pay to hosts that this/)
  t.equal(h2.identity.trust.nameRules.size, 2)
  const revocation = { host: h2.host.id, serial: Date.now(), time: Math.floor(wallNow()) }
  h2.identity.trust.revocations.add(revokeAsAuthority(h1.identity.authority!, revocation))
  refusal(t, () => give(h2, 'shop', { tags: ['web'] }), 'CARACAL_E_NOT_ISSUER', /no issuer any more/)
})

test('an issuer whose certificate has expired gives nothing', async (t) => {
  const { h2 } = await pair(t, ['web'], -3_600)
  refusal(t, () => give(h2, 'shop', { tags: ['web'] }), 'CARACAL_E_NOT_ISSUER', /expired at/)
})

test('one rule too many takes the place of none', async (t) => {
  const { h2 } = await pair(t, ['*'])
  const { hostKey, trust } = h2.identity
  const issuer = { network: fromHex(trust.network), certificate: trust.issuerCertificate! }
  const fields = { tags: [], hosts: [], minPriority: 0, maxWeight: 1, free: false, serial: Date.now() }
  for (let i = 0; i < ISSUER_RULES_MAX; i++)
    trust.nameRules.add(ruleAsIssuer(hostKey, issuer, { ...fields, name: `n${i}` }))
  refusal(t, () => give(h2, 'a'), 'CARACAL_E_BUSY', /as many rules as may be/)
  t.equal(trust.nameRules.size, ISSUER_RULES_MAX)
  t.match(give(h2, 'n5').rule, { name: 'n5', tags: ['bank'] }, 'what is there may change')
})

test('whose the names are', async (t) => {
  const { network, h1, h2 } = await pair(t, ['web'])
  const request = (name: string) =>
    exposeRequestShape.parse({ name, ports: [{ protocol: 'tcp', port: 80, local: 80 }] })
  await h1.expose(request('pay'))
  await h2.expose(request('shop'))
  await network.connect()
  await network.until(() => h1.host.catalogue.byName('shop') !== undefined)
  const rows = (rig: Rig) => {
    const { names } = namesShape.parse({ names: namesView(rig.viewed) })
    return new Map(names.map((one) => [one.name, one]))
  }
  t.match(rows(h1).get('pay'), { by: 'claim', rule: null, signer: 'h1', tags: [], serial: null, ignored: [] })
  t.match(rows(h1).get('shop'), { by: 'claim', signer: 'h2', tags: ['web'] })
  const add = (rig: Rig, { bytes }: ReturnType<typeof give>) => {
    rig.host.nameRuleAdded(bytes, monotonicNow())
    rig.loop.wake()
  }
  const all = give(h1, '*', { tags: [], hosts: [h2.host.id], maxWeight: 9 })
  add(h1, all)
  add(h1, give(h1, 'bank.pay'))
  await network.until(() => h2.identity.trust.nameRules.size === 2)
  for (const rig of [h1, h2]) {
    const ignored = [{ host: 'h1', hostId: h1.host.id, reason: 'not-owner' }]
    const byAll = { by: 'authority', rule: '*', signer: null, hosts: ['h2'], maxWeight: 9, serial: all.rule.serial }
    t.match(rows(rig).get('pay'), { ...byAll, sinceAt: all.rule.serial / 1000, ignored })
    t.match(rows(rig).get('shop'), { ...byAll, ignored: [] })
    t.match(rows(rig).get('bank.pay'), { rule: 'bank.pay', tags: ['bank'], ignored: [] })
    t.strictSame([...rows(rig).keys()], ['*', 'bank.pay', 'pay', 'shop'])
    t.equal(rig.host.catalogue.byName('pay'), undefined)
  }
  add(h1, free(h1, '*'))
  await network.until(() => rows(h2).get('*') === undefined)
  add(h2, give(h2, 'shop', { tags: ['web'] }))
  await network.until(() => h2.host.catalogue.byName('pay') !== undefined && h1.identity.trust.nameRules.size === 3)
  t.match(rows(h1).get('shop'), { by: 'issuer', signer: 'h2', tags: ['web'] })
  t.equal(rows(h1).get('*'), undefined)
  t.equal(h1.host.catalogue.byName('pay')?.instances.length, 1)
})
