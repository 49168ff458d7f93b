import { test } from 'tap'
import { openIssuer } from '../../../lib/crypto/authority.js'
import { HostKey } from '../../../lib/crypto/host-key.js'
import { isMembershipProblem, renewMembership, verifyMembership } from '../../../lib/crypto/membership.js'
import { openStamp, signStamp, STAMP_MAX, type StampSubject } from '../../../lib/crypto/stamp.js'
import { hostId, serviceId } from '../../../lib/wire/ids.js'
import { DAY, NOW, primitives, TestNetwork } from './identity.js'

const network = new TestNetwork()
const authority = network.authority.publicKey
const subject: StampSubject = {
  network: network.authority.network,
  service: serviceId(primitives.randomBytes(32)),
  host: hostId(primitives.randomBytes(32)),
}
const issuerOf = (certificate: Uint8Array) => openIssuer(primitives, certificate, authority)
const open = (bytes: Uint8Array, about = subject) => openStamp(primitives, bytes, about, issuerOf)

test('a stamp says when an issuer saw whose claim of what, to anybody who knows the authority', (t) => {
  const stamp = signStamp(network.issuer, network.certificate, subject, NOW)
  t.ok(stamp.length <= STAMP_MAX)
  t.match(open(stamp), { time: NOW, issuer: { host: network.issuer.id } })
  t.equal(open(stamp, { ...subject, host: network.issuer.id }), undefined, 'of another host')
  t.equal(open(stamp, { ...subject, service: serviceId(primitives.randomBytes(32)) }), undefined, 'of another name')
  const elsewhere = new TestNetwork()
  const about = { ...subject, network: elsewhere.authority.network }
  t.equal(open(signStamp(elsewhere.issuer, elsewhere.certificate, about, NOW), about), undefined, 'of another network')
  t.equal(open(signStamp(HostKey.generate(primitives), network.certificate, subject, NOW)), undefined, 'of no issuer')
  t.end()
})

test('it is signed within its certificate’s time, which may end later', (t) => {
  t.equal(open(signStamp(network.issuer, network.certificate, subject, NOW - 2 * DAY)), undefined)
  t.equal(open(signStamp(network.issuer, network.certificate, subject, NOW + 366 * DAY)), undefined)
  t.throws(() => signStamp(network.issuer, network.certificate, subject, -1), RangeError)
  t.throws(() => signStamp(network.issuer, network.certificate, subject, 1.5), RangeError)
  t.end()
})

test('a renewed membership says the same for longer, and what revokes the old one revokes it', (t) => {
  const key = HostKey.generate(primitives)
  const old = verifyMembership(primitives, network.member(key), network.check())
  if (isMembershipProblem(old)) throw new Error(old.detail)
  t.equal(old.issuedAt, old.notBefore)
  const issuer = { certificate: network.certificate, authority }
  const later = NOW + 20 * DAY
  const bytes = renewMembership(primitives, network.issuer, issuer, old, later, 30 * DAY)
  const renewed = verifyMembership(primitives, bytes, network.check(later))
  if (isMembershipProblem(renewed)) throw new Error(renewed.detail)
  const { host, name, tags, notBefore } = old
  t.match(renewed, { host, name, tags, notBefore, notAfter: later + 30 * DAY, serial: old.serial + 1, issuedAt: later })
  t.throws(
    () => renewMembership(primitives, key, issuer, old, later),
    { message: "not this host's issuer certificate" },
    'by its issuer only',
  )
  const capped = renewMembership(primitives, network.issuer, issuer, old, later, 900 * DAY)
  t.match(verifyMembership(primitives, capped, network.check(later)), { notAfter: NOW + 365 * DAY })
  t.end()
})
