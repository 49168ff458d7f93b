import { test } from 'tap'
import { HostKey } from '../../../lib/crypto/host-key.js'
import { isMembershipProblem, verifyMembership } from '../../../lib/crypto/membership.js'
import { REVOCATION_MAX, revokeAsAuthority, revokeAsIssuer, RevocationList } from '../../../lib/crypto/revocations.js'
import { fromHex } from '../../../lib/wire/ids.js'
import { DAY, NOW, primitives, TestNetwork } from './identity.js'

function byIssuer(network: TestNetwork, host: HostKey, serial: number, time = NOW): Uint8Array {
  const issuer = { network: fromHex(network.authority.network), certificate: network.certificate }
  return revokeAsIssuer(network.issuer, issuer, { host: host.id, serial, time })
}

test('a revoked membership is refused, a newer one is not', (t) => {
  const network = new TestNetwork()
  const host = HostKey.generate(primitives)
  const old = network.member(host, { serial: 10 })
  t.match(network.revocations.add(byIssuer(network, host, 10)), {
    host: host.id,
    serial: 10,
    time: NOW,
    byAuthority: false,
  })
  t.same(verifyMembership(primitives, old, network.check()), {
    reason: 'revoked',
    problem: 'revoked',
    detail: 'the membership of h2 has been revoked',
  })
  t.notOk(isMembershipProblem(verifyMembership(primitives, network.member(host, { serial: 11 }), network.check())))
  t.end()
})

test('only the authority revokes an issuer, and with it what it signed', (t) => {
  const network = new TestNetwork()
  const host = HostKey.generate(primitives)
  const bytes = network.member(host)
  network.revocations.add(byIssuer(network, network.issuer, 100))
  t.notOk(isMembershipProblem(verifyMembership(primitives, bytes, network.check())))
  network.revocations.add(revokeAsAuthority(network.authority, { host: network.issuer.id, serial: 1, time: NOW }))
  t.match(verifyMembership(primitives, bytes, network.check()), { reason: 'revoked', detail: /^the issuer of h2/ })
  t.end()
})

test('the list only grows, and is the same whatever the order', (t) => {
  const network = new TestNetwork()
  const hosts = [1, 2, 3].map(() => HostKey.generate(primitives))
  const signed = [
    byIssuer(network, hosts[0]!, 5),
    byIssuer(network, hosts[0]!, 9),
    byIssuer(network, hosts[1]!, 5),
    revokeAsAuthority(network.authority, { host: hosts[2]!.id, serial: 5, time: NOW }),
  ]
  const list = () => new RevocationList(primitives, network.authority.publicKey)
  const [a, b, c] = [list(), list(), list()]
  for (const bytes of signed) a.add(bytes)
  for (const bytes of signed.toReversed()) b.add(bytes)
  t.same(a.digest(), b.digest())
  t.same(a.entries(), b.entries())
  t.equal(a.size, 3)
  t.equal(a.add(signed[0]!), 'known', 'covered by a later one')
  t.ok(a.coversMembership(hosts[0]!.id, 9))
  c.add(signed[0]!)
  t.notSame(c.digest(), a.digest())
  t.same(
    c.merge(a).map((revocation) => revocation.host),
    a
      .list()
      .map((revocation) => revocation.host)
      .sort(),
  )
  t.same(c.digest(), a.digest())
  t.same(c.merge(a), [])
  t.ok(a.entries().every((bytes) => bytes.length <= REVOCATION_MAX))
  t.end()
})

test('revocations by strangers are refused', (t) => {
  const network = new TestNetwork()
  const host = HostKey.generate(primitives)
  const other = new TestNetwork()
  t.equal(network.revocations.add(byIssuer(other, host, 5)), 'invalid')
  t.equal(
    network.revocations.add(revokeAsAuthority(other.authority, { host: host.id, serial: 5, time: NOW })),
    'invalid',
  )
  const member = HostKey.generate(primitives)
  const issuer = { network: fromHex(network.authority.network), certificate: network.certificate }
  const cheat = revokeAsIssuer(member, issuer, { host: host.id, serial: 5, time: NOW })
  t.equal(network.revocations.add(cheat), 'invalid', 'a member that is no issuer')
  t.equal(network.revocations.add(byIssuer(network, host, 5, NOW + 366 * DAY)), 'invalid', 'after the issuer expired')
  t.equal(network.revocations.add(new Uint8Array(10)), 'invalid')
  t.equal(network.revocations.size, 0)
  t.end()
})
