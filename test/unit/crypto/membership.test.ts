import { inspect } from 'node:util'
import { test } from 'tap'
import { Authority, nextSerial, openIssuer } from '../../../lib/crypto/authority.js'
import { HostKey, isStaticKeyOf, staticKeyOf } from '../../../lib/crypto/host-key.js'
import {
  isMembershipProblem,
  issueMembership,
  MEMBERSHIP_MAX,
  verifyMembership,
} from '../../../lib/crypto/membership.js'
import { isLabel, isTag, labelFrom } from '../../../lib/crypto/names.js'
import { OwnerKey } from '../../../lib/crypto/owner.js'
import { openBody } from '../../../lib/crypto/signing.js'
import { utf8 } from '../../../lib/wire/bytes.js'
import { hostId, toHex } from '../../../lib/wire/ids.js'
import { DAY, NOW, primitives, TestNetwork } from './identity.js'

test('a membership says who the host is', (t) => {
  const network = new TestNetwork()
  const host = HostKey.generate(primitives)
  const bytes = network.member(host)
  t.match(verifyMembership(primitives, bytes, network.check()), {
    network: network.authority.network,
    host: host.id,
    name: 'h2',
    tags: ['web'],
    notBefore: NOW,
    notAfter: NOW + 30 * DAY,
    serial: 10,
    issuer: network.issuer.id,
    bytes,
  })
  t.end()
})

test('the greatest membership fits', (t) => {
  const tags = Array.from({ length: 16 }, (_, i) => `tag-number-${i}`)
  const network = new TestNetwork(tags)
  const bytes = network.member(HostKey.generate(primitives), { name: 'x'.repeat(63), tags })
  t.ok(bytes.length <= MEMBERSHIP_MAX)
  t.notOk(isMembershipProblem(verifyMembership(primitives, bytes, network.check())))
  t.end()
})

test('validity: within the skew, and the text shows which clock is wrong', (t) => {
  const network = new TestNetwork()
  const bytes = network.member(HostKey.generate(primitives))
  const at = (wallNow: number) => verifyMembership(primitives, bytes, network.check(wallNow))
  t.notOk(isMembershipProblem(at(NOW - 300)))
  t.notOk(isMembershipProblem(at(NOW + 30 * DAY + 300)))
  t.same(at(NOW - 301), {
    reason: 'membership-invalid',
    problem: 'not-yet-valid',
    detail:
      "the membership of h2 is not valid before 2026-01-01T00:00:00Z (this host's clock says 2025-12-31T23:54:59Z)",
  })
  t.match(at(NOW + 30 * DAY + 301), {
    problem: 'expired',
    detail: /^the membership of h2 expired at 2026-01-31T00:00:00Z/,
  })
  const exact = verifyMembership(primitives, bytes, { ...network.check(NOW - 1), skewSeconds: 0 })
  t.match(exact, { problem: 'not-yet-valid' })
  t.end()
})

test('a membership ends with its issuer', (t) => {
  const network = new TestNetwork()
  const bytes = network.member(HostKey.generate(primitives), { notAfter: NOW + 1000 * DAY })
  t.match(verifyMembership(primitives, bytes, network.check()), { notAfter: NOW + 365 * DAY })
  t.match(verifyMembership(primitives, bytes, network.check(NOW + 366 * DAY)), { problem: 'expired' })
  t.end()
})

test('memberships of other networks, issuers and signers are refused', (t) => {
  const network = new TestNetwork()
  const other = new TestNetwork()
  const host = HostKey.generate(primitives)
  t.match(verifyMembership(primitives, other.member(host), network.check()), {
    reason: 'membership-invalid',
    problem: 'other-network',
  })
  // A certificate that another authority made for our network's ID cannot be had; one signed by a stranger in our issuer's place:
  const stranger = HostKey.generate(primitives)
  const issuer = { certificate: network.certificate, authority: network.authority.publicKey }
  const fields = { host: host.id, name: 'h2', tags: [], notBefore: NOW, notAfter: NOW + DAY, serial: 1 }
  t.throws(() => issueMembership(primitives, stranger, issuer, fields), RangeError)
  const genuine = network.member(host)
  const body = genuine.subarray(65)
  const resigned = stranger.sign('caracal/1 membership', body)
  t.match(verifyMembership(primitives, resigned, network.check()), { problem: 'signature' })
  const otherLabel = network.issuer.sign('caracal/1 other', body)
  t.match(
    verifyMembership(primitives, otherLabel, network.check()),
    { problem: 'signature' },
    'signed for another purpose',
  )
  t.match(verifyMembership(primitives, new Uint8Array(0), network.check()), { problem: 'malformed' })
  t.match(verifyMembership(primitives, new Uint8Array(2000), network.check()), { problem: 'malformed' })
  for (let i = 0; i < genuine.length; i += 5) {
    const forged = genuine.slice()
    forged[i]! ^= 4
    const result = verifyMembership(primitives, forged, network.check())
    if (!isMembershipProblem(result)) t.fail(`byte ${i} changed`)
  }
  t.end()
})

test('an issuer gives only the tags it may', (t) => {
  const network = new TestNetwork(['web', 'db'])
  const host = HostKey.generate(primitives)
  t.throws(() => network.member(host, { tags: ['admin'] }), /may not give the tag admin/)
  t.notOk(
    isMembershipProblem(verifyMembership(primitives, network.member(host, { tags: ['db', 'web'] }), network.check())),
  )
  // An issuer that signs it all the same, under a certificate with fewer tags.
  const generous = new TestNetwork()
  const narrow = generous.authority.certifyIssuer({
    host: generous.issuer.id,
    tags: ['web'],
    notBefore: NOW,
    notAfter: NOW + DAY,
    serial: 2,
  })
  const wide = generous.member(host, { tags: ['admin'], notAfter: NOW + DAY })
  const at = wide.length - generous.certificate.length
  const body = Uint8Array.from([...wide.subarray(65, at), ...narrow])
  // Same layout, but the certificate's length changed with its tags.
  const lengthAt = at - 65 - 2
  t.equal(body[lengthAt], 0xc4)
  body[lengthAt + 1] = narrow.length
  const cheat = generous.issuer.sign('caracal/1 membership', body)
  t.match(verifyMembership(primitives, cheat, generous.check()), { problem: 'tags', detail: /admin/ })
  t.end()
})

test('fields out of bounds are not signed', (t) => {
  const network = new TestNetwork()
  const host = HostKey.generate(primitives)
  for (const changes of [
    { name: '' },
    { name: 'UPPER' },
    { name: 'x'.repeat(64) },
    { tags: ['no space'] },
    { tags: Array.from({ length: 17 }, (_, i) => `t${i}`) },
    { notBefore: -1 },
    { serial: 0.5 },
  ])
    t.throws(() => network.member(host, changes), RangeError, JSON.stringify(changes))
  const issuer = { host: host.id, tags: ['a b'], notBefore: NOW, notAfter: NOW, serial: 1 }
  t.throws(() => network.authority.certifyIssuer(issuer), RangeError)
  const longTags = Array.from({ length: 16 }, (_, i) => `${i}`.padEnd(32, 'x'))
  t.throws(() => network.authority.certifyIssuer({ ...issuer, tags: longTags }), RangeError)
  t.end()
})

test('issuer certificates', (t) => {
  const network = new TestNetwork(['web'])
  t.match(openIssuer(primitives, network.certificate, network.authority.publicKey), {
    host: network.issuer.id,
    tags: ['web'],
    network: network.authority.network,
    serial: 1,
  })
  t.equal(openIssuer(primitives, network.certificate, new TestNetwork().authority.publicKey), undefined)
  t.equal(nextSerial(1000.7), 1000)
  t.equal(nextSerial(1000, 1000), 1001, 'also when the clock stands still')
  t.end()
})

test('host keys', (t) => {
  const key = HostKey.generate(primitives)
  const again = new HostKey(primitives, key.seed())
  t.equal(again.id, key.id)
  t.same(staticKeyOf(primitives, key.id), key.staticKey)
  t.same(primitives.x25519PublicKey(key.staticSecret()), key.staticKey)
  t.ok(isStaticKeyOf(primitives, key.id, key.staticKey))
  t.notOk(isStaticKeyOf(primitives, HostKey.generate(primitives).id, key.staticKey))
  t.notOk(isStaticKeyOf(primitives, hostId(new Uint8Array(32)), key.staticKey))
  t.same(key.derive('cookie'), again.derive('cookie'))
  t.notSame(key.derive('cookie'), key.derive('other'))
  t.throws(() => new HostKey(primitives, new Uint8Array(31)), RangeError)
  t.end()
})

test('a signature is for one purpose', (t) => {
  const owner = OwnerKey.generate(primitives)
  const bytes = owner.sign('caracal/1 a', utf8('body'))
  t.same(openBody(primitives, 'caracal/1 a', bytes, 200, owner.publicKey), utf8('body'))
  t.equal(openBody(primitives, 'caracal/1 b', bytes, 200, owner.publicKey), undefined)
  t.equal(openBody(primitives, 'caracal/1 a', bytes, 200, OwnerKey.generate(primitives).publicKey), undefined)
  t.end()
})

test('no secret shows', (t) => {
  for (const key of [HostKey.generate(primitives), Authority.generate(primitives), OwnerKey.generate(primitives)]) {
    const shown = inspect(key, { depth: 9, showHidden: true }) + JSON.stringify(key) + String(key)
    const seed = key.seed()
    for (const form of [
      toHex(seed),
      Buffer.from(seed).toString('base64'),
      inspect(seed).slice(14, 80),
      [...seed].join(),
    ])
      t.notOk(shown.includes(form))
  }
  t.end()
})

test('names', (t) => {
  for (const good of ['h2', 'a', 'a-b', '0', 'x'.repeat(63)]) t.ok(isLabel(good), good)
  for (const wrong of ['', '-a', 'a-', 'A', 'a.b', 'a_b', 'ä', 'x'.repeat(64)]) t.notOk(isLabel(wrong), wrong)
  t.ok(isTag('x'.repeat(32)))
  t.notOk(isTag('x'.repeat(33)))
  t.equal(labelFrom('Kitchen.local'), 'kitchen')
  t.equal(labelFrom('my_host'), 'my-host')
  t.equal(labelFrom('___'), undefined)
  t.equal(labelFrom(''), undefined)
  t.end()
})
