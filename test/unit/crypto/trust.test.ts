import { test } from 'tap'
import { HostKey } from '../../../lib/crypto/host-key.js'
import { isMembershipProblem } from '../../../lib/crypto/membership.js'
import { revokeAsAuthority } from '../../../lib/crypto/revocations.js'
import { FLOOR_AHEAD_SECONDS, TrustStore } from '../../../lib/crypto/trust.js'
import { DAY, NOW, primitives, TestNetwork } from './identity.js'

const profile = { name: 'home', ipv4Pool: '198.18.0.0/15', zone: 'svc.internal' }

function setUp() {
  const network = new TestNetwork()
  const key = HostKey.generate(primitives)
  const store = new TrustStore(primitives, { authority: network.authority.publicKey, profile })
  return { network, key, store }
}

test('a store verifies its own network’s members', (t) => {
  const { network, key, store } = setUp()
  t.equal(store.network, network.authority.network)
  t.match(store.verify(network.member(key), NOW), { host: key.id })
  t.match(store.verify(new TestNetwork().member(key), NOW), { problem: 'other-network' })
  store.revocations.add(revokeAsAuthority(network.authority, { host: key.id, serial: 10, time: NOW }))
  t.match(store.verify(network.member(key), NOW), { reason: 'revoked' })
  t.end()
})

test('time never goes back below the floor', (t) => {
  const { network, key, store } = setUp()
  const bytes = network.member(key)
  t.notOk(isMembershipProblem(store.verify(bytes, NOW)))
  t.equal(store.observe(NOW + 40 * DAY), NOW + 40 * DAY)
  t.match(store.verify(bytes, NOW), { problem: 'expired', detail: /clock says 2026-02-10/ }, 'the clock was set back')
  t.equal(store.observe(NOW), NOW + 40 * DAY)
  t.end()
})

test('the floor goes no further ahead of what has been signed than a membership has left in the end', (t) => {
  const { network, key, store } = setUp()
  store.adoptMembership(key.id, network.member(key), NOW)
  const ceiling = NOW + FLOOR_AHEAD_SECONDS
  t.equal(store.observe(NOW + 9_000 * DAY), NOW + 9_000 * DAY, 'the clock counts while it says so')
  t.equal(store.floor, ceiling)
  t.equal(store.observe(NOW + DAY), ceiling)
  const year = { notAfter: NOW + 300 * DAY }
  t.match(store.verify(network.member(HostKey.generate(primitives), year), NOW), { name: 'h2' }, 'most is valid still')
  store.revocations.add(
    revokeAsAuthority(network.authority, { host: network.issuer.id, serial: 0, time: NOW + 40 * DAY }),
  )
  store.observe(NOW + 9_000 * DAY)
  t.equal(store.floor, NOW + 40 * DAY + FLOOR_AHEAD_SECONDS, 'a revocation is signed at a time too')
  const again = TrustStore.decode(primitives, store.encode())
  t.equal(again?.floor, store.floor)
  t.end()
})

test('a store follows its file as long as only time goes on there', (t) => {
  const { network, key, store } = setUp()
  store.adoptMembership(key.id, network.member(key), NOW)
  const ahead = TrustStore.decode(primitives, store.encode())!
  ahead.observe(NOW + DAY)
  store.verify(network.member(HostKey.generate(primitives), { serial: 9 }), NOW)
  store.observe(NOW + 2 * DAY)
  t.ok(ahead.followed(store.encode()))
  t.same(ahead.encode(), store.encode())
  t.notOk(ahead.followed(store.encode().subarray(0, -1)))
  store.revocations.add(revokeAsAuthority(network.authority, { host: key.id, serial: 10, time: NOW }))
  store.observe(NOW + 3 * DAY)
  t.notOk(ahead.followed(store.encode()))
  t.equal(ahead.floor, NOW + 2 * DAY, 'it is as it was')
  t.end()
})

test('an expired member is taken for the grace where it is asked for', (t) => {
  const { network, key, store } = setUp()
  const end = NOW + 30 * DAY
  const bytes = network.member(key)
  t.match(store.verify(bytes, end + DAY), { problem: 'expired' })
  t.match(store.verify(bytes, end + DAY, DAY), { host: key.id })
  t.match(store.verify(bytes, end + 2 * DAY, DAY), { problem: 'expired' })
  store.revocations.add(revokeAsAuthority(network.authority, { host: key.id, serial: 10, time: NOW }))
  t.match(store.verify(bytes, end + 60, DAY), { reason: 'revoked' }, 'there is no grace for the revoked')
  t.end()
})

test('a store comes back from its file', (t) => {
  const { network, key, store } = setUp()
  t.match(store.adoptMembership(key.id, network.member(key), NOW), { host: key.id })
  t.match(store.adoptMembership(key.id, network.member(key), NOW + 40 * DAY), { problem: 'expired' })
  const other = HostKey.generate(primitives)
  t.match(store.adoptMembership(key.id, network.member(other), NOW), { problem: 'other-host' })
  t.equal(store.adoptIssuerCertificate(new TestNetwork().certificate), undefined)
  t.match(store.adoptIssuerCertificate(network.certificate), { host: network.issuer.id })
  const revoked = HostKey.generate(primitives)
  store.revocations.add(revokeAsAuthority(network.authority, { host: revoked.id, serial: 10, time: NOW }))
  store.observe(NOW + 5)
  const again = TrustStore.decode(primitives, store.encode())
  t.match(again, { network: store.network, profile, floor: NOW + 5 })
  t.same(again?.membership, network.member(key))
  t.same(again?.issuerCertificate, network.certificate)
  t.ok(again?.revocations.coversMembership(revoked.id, 10))
  t.equal(TrustStore.decode(primitives, store.encode().subarray(0, -1)), undefined)
  t.equal(TrustStore.decode(primitives, new Uint8Array(0)), undefined)
  t.equal(JSON.parse(JSON.stringify(store)).revocations, 1)
  t.end()
})
