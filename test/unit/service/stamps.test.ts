import { test } from 'tap'
import { Authority } from '../../../lib/crypto/authority.js'
import { HostKey } from '../../../lib/crypto/host-key.js'
import { revokeAsAuthority, RevocationList } from '../../../lib/crypto/revocations.js'
import { signStamp } from '../../../lib/crypto/stamp.js'
import { ownerOf, type ClaimOfName, type Title } from '../../../lib/service/ownership.js'
import { decodeRecord, encodeRecord, fitsRecord, RECORD_BODY_MAX } from '../../../lib/service/record.js'
import { recordKey, type NameClaim } from '../../../lib/service/registration.js'
import { Stamps } from '../../../lib/service/stamps.js'
import { pack, unpack } from '../../../lib/wire/pack.js'
import type { HostId } from '../../../lib/wire/ids.js'
import { z } from 'zod'
import { host, idOf, primitives } from './fixtures.js'

const NOW = 1_767_225_600
const [h1, h2] = [host('h1'), host('h2')]

function claim(name: string, changes: Partial<NameClaim> = {}): NameClaim {
  return { kind: 'name', service: idOf(name), name, since: NOW, tags: [], hosts: [], ...changes }
}

function office() {
  const authority = Authority.generate(primitives)
  const revocations = new RevocationList(primitives, authority.publicKey)
  const stamps = new Stamps({
    ...{ primitives, network: authority.network, authority: authority.publicKey, revocations },
  })
  const issuer = () => {
    const key = HostKey.generate(primitives)
    const validity = { notBefore: NOW - 1_000, notAfter: NOW + 1_000 }
    const certificate = authority.certifyIssuer({ host: key.id, tags: ['*'], serial: 5, ...validity })
    const stamp = (name: string, of: HostId, time: number) =>
      signStamp(key, certificate, { network: authority.network, service: idOf(name), host: of }, time)
    const revoke = (time: number) => revocations.add(revokeAsAuthority(authority, { host: key.id, serial: 5, time }))
    return { stamp, revoke }
  }
  return { stamps, issuer }
}

test('claims rank by stamp, then by the stamps of issuers revoked later, then by their own word', (t) => {
  const one = (of: HostId, since: number, title?: Title): ClaimOfName => ({
    ...{ host: of, title, claim: claim('web', { since, hosts: [of] }) },
  })
  const first = (...claims: ClaimOfName[]) => ownerOf('web', new Map(), claims, () => []).claimant
  const [firm, weak] = [(time: number) => ({ time, firm: true }), (time: number) => ({ time, firm: false })]
  t.equal(first(one(h1, 1), one(h2, 100, firm(100))), h2, 'back-dated')
  t.equal(first(one(h1, 1, firm(101)), one(h2, 100, firm(100))), h2, 'by time')
  t.equal(first(one(h1, 1, weak(10)), one(h2, 100, firm(100))), h2)
  t.equal(first(one(h1, 100, weak(10)), one(h2, 1)), h1)
  t.equal(first(one(h1, 1, weak(11)), one(h2, 1, weak(10))), h2)
  t.equal(first(one(h1, 1), one(h2, 2)), h1)
  const lower = h1 < h2 ? h1 : h2
  t.equal(first(one(h1, 1, firm(9)), one(h2, 2, firm(9))), lower)
  t.equal(first(one(h2, 1, firm(9)), one(h1, 2, firm(9))), lower)
  const stranger = ownerOf('web', new Map(), [one(h1, 1, firm(1)), one(h2, 2)], (of) => (of === h1 ? undefined : []))
  t.equal(stranger.claimant, h2, 'a stamp makes nobody a member')
  t.end()
})

test('what a stamp is worth when its issuer is revoked depends on when', (t) => {
  const { stamps, issuer } = office()
  const { stamp, revoke } = issuer()
  const [before, after] = [NOW - 10, NOW + 10].map((time) =>
    stamps.open(h1, claim('web', { stamp: stamp('web', h1, time) })),
  )
  t.strictSame(stamps.title(before!), { time: NOW - 10, firm: true })
  t.strictSame(stamps.title(after!), { time: NOW + 10, firm: true })
  revoke(NOW)
  t.strictSame(stamps.title(before!), { time: NOW - 10, firm: false })
  t.equal(stamps.title(after!), undefined)
  t.equal(stamps.open(h2, claim('web', { stamp: stamp('web', h1, NOW) })), undefined, 'another host’s')
  t.equal(stamps.open(h1, claim('shop', { stamp: stamp('web', h1, NOW) })), undefined, 'another name’s')
  t.equal(stamps.open(h1, claim('web')), undefined)
  t.end()
})

test('a stamp travels in the record of the claim, which older versions read without', (t) => {
  const { issuer } = office()
  const stamp = issuer().stamp('web', h1, NOW)
  const payload = claim('web', { stamp })
  const body = encodeRecord({ key: recordKey(payload), sequence: 7, lifetime: 1_000, payload })
  t.ok(body.length <= RECORD_BODY_MAX)
  t.strictSame(decodeRecord(body)?.payload, payload)
  const value = unpack(body, RECORD_BODY_MAX, z.array(z.unknown()))!
  const fields = z.array(z.unknown()).parse(value[5])
  t.equal(fields.length, 6, 'at the end, where it is ignored')
  // A later version's stamp is none for us, and the claim counts without.
  const other = pack([
    1,
    4,
    recordKey(payload),
    7,
    1_000,
    [Buffer.from(idOf('web'), 'hex'), 'web', NOW, [], [], ['later']],
  ])
  t.strictSame(decodeRecord(other)?.payload, claim('web'))
  t.end()
})

test('the longest claim that fits is known beforehand', (t) => {
  const { issuer } = office()
  const stamp = issuer().stamp('web', h1, NOW)
  const tags = Array.from({ length: 8 }, (_, n) => `${n}`.padEnd(32, 'x'))
  t.ok(fitsRecord(claim('web', { stamp })))
  t.notOk(fitsRecord(claim(`${'a'.repeat(60)}.${'b'.repeat(60)}.${'c'.repeat(60)}`, { stamp, tags })))
  t.ok(fitsRecord(claim(`${'a'.repeat(60)}.${'b'.repeat(60)}.${'c'.repeat(60)}`, { tags })))
  t.end()
})
