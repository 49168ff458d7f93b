import { test } from 'tap'
import { HostKey } from '../../../lib/crypto/host-key.js'
import { issueMembership } from '../../../lib/crypto/membership.js'
import { revokeAsAuthority } from '../../../lib/crypto/revocations.js'
import { TrustStore } from '../../../lib/crypto/trust.js'
import { IssuerDesk } from '../../../lib/host/issuer-desk.js'
import { issuingDefaults } from '../../../lib/host/issuing-options.js'
import { ServiceCatalogue } from '../../../lib/service/catalogue.js'
import { Directory, directoryDefaults } from '../../../lib/service/directory.js'
import type { RecordChange } from '../../../lib/service/host-records.js'
import type { NameClaim } from '../../../lib/service/registration.js'
import { parseServiceName, serviceIdOf } from '../../../lib/service/service-id.js'
import { ServiceTable } from '../../../lib/service/service-table.js'
import { Stamps } from '../../../lib/service/stamps.js'
import { MemberTrust } from '../../../lib/service/trust.js'
import type { ServiceId } from '../../../lib/wire/ids.js'
import { DAY, NOW, primitives, TestNetwork } from '../crypto/identity.js'

const profile = { name: 'home', ipv4Pool: '198.18.0.0/15', zone: 'svc.internal' }
const SECONDS = 60 * DAY

/** An issuer's desk, the members it knows, and the claims that have reached it. */
class Office {
  readonly network: TestNetwork
  readonly trust: TrustStore
  readonly members: MemberTrust
  readonly catalogue: ServiceCatalogue
  readonly desk: IssuerDesk
  readonly directory: Directory
  readonly #claims = new Set<string>()
  now = 1_000
  wall = NOW + DAY
  #serial = 10

  constructor(tags: readonly string[] = ['*'], issuer = true) {
    this.network = new TestNetwork(tags)
    const { issuer: key, authority } = this.network
    const trust = new TrustStore(primitives, { authority: authority.publicKey, profile })
    if (issuer) trust.adoptIssuerCertificate(this.network.certificate)
    this.trust = trust
    const wallNow = () => this.wall
    this.members = new MemberTrust({
      ...{ primitives, key, authority: authority.publicKey, revocations: trust.revocations, wallNow },
      nameRules: trust.nameRules,
    })
    const stamps = new Stamps({
      ...{ primitives, network: trust.network, authority: trust.authority, revocations: trust.revocations },
    })
    this.catalogue = new ServiceCatalogue(
      { network: trust.network, self: key.id },
      { primitives, stamps, table: new ServiceTable(), tagsOf: (host) => this.members.member(host)?.tags },
    )
    const silent = {
      ...{ send: () => undefined, changed: () => undefined, revoked: () => undefined, namesRuled: () => undefined },
    }
    const sequence = { next: () => 1, raise: () => undefined }
    const components = { trust: this.members, hasher: primitives, sequence, random: Math.random }
    this.directory = new Directory(directoryDefaults, components, silent)
    this.directory.record = (host, at) =>
      this.#claims.has(`${host} ${at}`)
        ? { host, key: at, sequence: 1, lifetime: 1, payload: { kind: 'withdrawn' }, blob: EMPTY }
        : undefined
    this.directory.markSynced()
    const options = { ...issuingDefaults, membershipSeconds: SECONDS }
    this.desk = new IssuerDesk(
      {
        ...{ primitives, hostKey: key, trust, wallNow },
        ...{ members: this.members, catalogue: this.catalogue, directory: this.directory },
      },
      options,
    )
  }

  member(tags: readonly string[] = []): HostKey {
    const key = HostKey.generate(primitives)
    const bytes = this.network.member(key, { tags, serial: ++this.#serial, notAfter: NOW + SECONDS })
    if (!this.members.learn(bytes, key.id)) throw new Error('no member')
    return key
  }

  service(name: string): ServiceId {
    const parsed = parseServiceName(name)
    if ('problem' in parsed) throw new Error(parsed.problem)
    return serviceIdOf(parsed, this.trust.network, primitives)
  }

  /** The host's claim comes, or goes. */
  claims(host: HostKey, name: string, stamp?: Uint8Array): void {
    this.#change(host, name, { claims: true, withdrawn: false, stamp })
  }
  gives(host: HostKey, name: string, withdrawn: boolean): void {
    this.#change(host, name, { claims: false, withdrawn, stamp: undefined })
  }
  stamp(host: HostKey, name: string): Uint8Array | string {
    const outcome = this.desk.stamp(host.id, this.service(name), this.now)
    return outcome instanceof Uint8Array ? outcome : outcome.reason
  }

  #change(
    { id: host }: HostKey,
    name: string,
    { claims, withdrawn, stamp }: { claims: boolean; withdrawn: boolean; stamp: Uint8Array | undefined },
  ): void {
    const service = this.service(name)
    const key = `name/${service}`
    const claim: NameClaim = { kind: 'name', service, name, since: 1, tags: [], hosts: [host], ...(stamp && { stamp }) }
    const record = { host, key, sequence: 1, lifetime: 1, payload: claim, blob: EMPTY }
    const change: RecordChange = { host, key, record: claims ? record : undefined, before: claims ? undefined : record }
    if (claims) this.#claims.add(`${host} ${key}`)
    else this.#claims.delete(`${host} ${key}`)
    this.catalogue.apply(change)
    this.desk.recordChanged(change, withdrawn, this.now)
  }
}
const EMPTY = { body: new Uint8Array(), signature: new Uint8Array(64) }

test('the first that is heard of gets the stamp, again and again the same', (t) => {
  const office = new Office()
  const [first, second] = [office.member(), office.member()]
  t.equal(office.stamp(first, 'web'), 'not-synced', 'a claim that is not published is none')
  office.claims(first, 'web')
  office.claims(second, 'web')
  t.equal(office.stamp(second, 'web'), 'claimed')
  const stamp = office.stamp(first, 'web')
  t.type(stamp, Uint8Array)
  office.wall += 100
  t.equal(office.stamp(first, 'web'), stamp)
  office.claims(second, 'shop')
  t.type(office.stamp(second, 'shop'), Uint8Array)
  t.end()
})

test('what expired is remembered for a while, what was given up is not', (t) => {
  const office = new Office()
  const [first, second] = [office.member(), office.member()]
  office.claims(first, 'web')
  office.claims(second, 'web')
  office.gives(first, 'web', false)
  t.equal(office.stamp(second, 'web'), 'claimed', 'it may be back in a minute')
  office.now += issuingDefaults.rememberMs
  t.type(office.stamp(second, 'web'), Uint8Array)

  office.claims(first, 'shop')
  office.claims(second, 'shop')
  office.gives(first, 'shop', true)
  t.type(office.stamp(second, 'shop'), Uint8Array)
  t.end()
})

test('a stamp of another issuer counts, whatever came first here', (t) => {
  const office = new Office()
  const [first, second] = [office.member(), office.member()]
  office.claims(second, 'web')
  t.type(office.stamp(second, 'web'), Uint8Array)
  const restarted = new IssuerDesk(
    {
      ...{ primitives, hostKey: office.network.issuer, trust: office.trust, wallNow: () => office.wall },
      ...{ members: office.members, catalogue: office.catalogue, directory: office.directory },
    },
    issuingDefaults,
  )
  const stamp = office.stamp(second, 'web')
  if (typeof stamp === 'string') throw new Error(stamp)
  office.claims(second, 'web', stamp)
  office.claims(first, 'web')
  t.match(restarted.stamp(first.id, office.service('web'), office.now), { reason: 'claimed' })
  t.type(restarted.stamp(second.id, office.service('web'), office.now), Uint8Array, 'its holder may have another')
  t.end()
})

test('who is no issuer, or asks for too much, gets nothing', (t) => {
  const office = new Office()
  const host = office.member()
  const stranger = HostKey.generate(primitives)
  office.claims(host, 'web')
  office.claims(stranger, 'web')
  t.equal(office.stamp(stranger, 'web'), 'not-member')
  for (let n = 0; n < 128; n++) {
    office.claims(host, `s${n}`)
    t.type(office.stamp(host, `s${n}`), Uint8Array)
  }
  t.equal(office.stamp(host, 'web'), 'busy')
  office.now += 10_000
  t.type(office.stamp(host, 'web'), Uint8Array)

  const plain = new Office(['*'], false)
  const member = plain.member()
  plain.claims(member, 'web')
  t.equal(plain.stamp(member, 'web'), 'not-issuer')
  t.match(plain.desk.renew(member.id, 0), { reason: 'not-issuer' })

  const { issuer, authority } = office.network
  office.trust.revocations.add(revokeAsAuthority(authority, { host: issuer.id, serial: 1, time: NOW }))
  t.equal(office.stamp(host, 'web'), 'not-issuer', 'revoked')
  t.end()
})

test('a membership is renewed when half of it is over, once, with what it says', (t) => {
  const office = new Office()
  const host = office.member(['web'])
  t.match(office.desk.renew(host.id, office.now), { reason: 'too-early' })
  office.wall = NOW + SECONDS - 20 * DAY
  const bytes = office.desk.renew(host.id, office.now)
  if (!(bytes instanceof Uint8Array)) throw new Error(bytes.detail)
  const renewed = office.trust.verify(bytes, office.wall)
  t.match(renewed, { host: host.id, name: 'h2', tags: ['web'], notBefore: NOW, notAfter: office.wall + SECONDS })
  t.equal(office.desk.renew(host.id, office.now + 1_000), bytes, 'the answer was lost')
  t.ok(office.members.learn(bytes, host.id))
  t.match(office.desk.renew(host.id, office.now + 2_000), { reason: 'too-early' })
  const late = office.member()
  office.wall = NOW + SECONDS + DAY
  t.match(office.desk.renew(late.id, office.now), { reason: 'not-member' })
  t.end()
})

test('the revoked are not renewed, and nobody beyond what the issuer may give', (t) => {
  const office = new Office()
  const [host, revoked] = [office.member(), office.member()]
  office.wall = NOW + SECONDS - DAY
  office.members.revoke(revokeAsAuthority(office.network.authority, { host: revoked.id, serial: 1_000, time: NOW }))
  t.match(office.desk.renew(revoked.id, office.now), { reason: 'not-member' })
  t.type(office.desk.renew(host.id, office.now), Uint8Array)
  // A membership with a tag that only another issuer may give.
  const narrow = new Office(['db'])
  const [key, issuer] = [HostKey.generate(primitives), HostKey.generate(primitives)]
  const { authority } = narrow.network
  const validity = { notBefore: NOW, notAfter: NOW + SECONDS }
  const certificate = authority.certifyIssuer({ host: issuer.id, tags: ['*'], serial: 1, ...validity })
  const member = { host: key.id, name: 'h3', tags: ['web'], serial: 1, ...validity }
  const from = { certificate, authority: authority.publicKey }
  t.ok(narrow.members.learn(issueMembership(primitives, issuer, from, member), key.id))
  narrow.wall = NOW + SECONDS - DAY
  t.match(narrow.desk.renew(key.id, narrow.now), { reason: 'not-entitled', detail: /may not give the tag web/ })
  t.end()
})
