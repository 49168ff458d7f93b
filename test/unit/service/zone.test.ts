import { test } from 'tap'
import { dnsAddress, formatAddress } from '../../../lib/service/address-plan.js'
import { Addresses } from '../../../lib/service/addresses.js'
import { answer, reverseZones, ZONE_NEGATIVE_TTL, type ZoneSources } from '../../../lib/service/zone.js'
import { host, idOf, network, primitives } from './fixtures.js'

const addresses = new Addresses({ network, self: host('h1') }, { hasher: primitives, mappingChanged: () => undefined })
const services = ['web', 'api.shop']
const hosts = ['h1', 'h2']
const sources: ZoneSources = {
  zone: 'svc.internal',
  plan: addresses.plan,
  synced: true,
  service: (name) => (services.includes(name) ? idOf(name) : undefined),
  findable: (name) => (name.kind === 'labels' && name.labels.at(-1) === 'corp' ? idOf(name.text) : undefined),
  hasDomain: (domain) => services.some((name) => name === domain || name.endsWith(`.${domain}`)),
  hasInstance: (service, id) => service === idOf('web') && id === host('h2'),
  hostNamed: (name) => (hosts.includes(name) ? host(name) : undefined),
  nameOfService: (service) => services.find((name) => idOf(name) === service),
  nameOfHost: (id) => hosts.find((name) => host(name) === id),
  address: (target, family) => addresses.dialledAddress(target, family),
  target: (address, family) => addresses.dialled(address, 0, family),
  dns: (family) => dnsAddress(addresses.plan, family),
}

const ask = (name: string, type = 'A', from = sources) => answer({ name, type }, from, 1_000)
/** `RCODE` and, for an answer, its data. */
function short(name: string, type = 'A', from = sources): string {
  const { rcode, answers } = ask(name, type, from)
  const [first] = answers
  if (first === undefined) return rcode
  return first.type === 'SOA' ? 'SOA' : `${first.type} ${first.data}`
}

test('services, pinned services and hosts have addresses in both families', async (t) => {
  for (const [name, target] of [
    ['web', { kind: 'service', service: idOf('web') }],
    ['api.shop', { kind: 'service', service: idOf('api.shop') }],
    ['web.at.h2', { kind: 'service', service: idOf('web'), host: host('h2') }],
    ['h2.host', { kind: 'host', host: host('h2') }],
  ] as const) {
    for (const [type, family] of [
      ['A', 4],
      ['AAAA', 6],
    ] as const) {
      t.equal(
        short(`${name}.svc.internal`, type),
        `${type} ${formatAddress(addresses.dialledAddress(target, family)!)}`,
      )
    }
  }
})

test('what only a rule may find has addresses too, also before the first synchronisation', async (t) => {
  const address = (text: string) =>
    formatAddress(addresses.dialledAddress({ kind: 'service', service: idOf(text) }, 4)!)
  t.equal(short('new.corp.svc.internal'), `A ${address('new.corp')}`)
  t.equal(short('corp.svc.internal', 'A', { ...sources, synced: false }), `A ${address('corp')}`)
  t.equal(short('new.corp.at.h2.svc.internal'), 'NXDOMAIN')
})

test('the case of the question is echoed and does not matter', async (t) => {
  const { answers } = ask('WeB.Svc.Internal.', 'a')
  t.equal(answers[0]?.name, 'WeB.Svc.Internal')
  t.equal(short('WEB.svc.INTERNAL'), short('web.svc.internal'))
})

test('what is not there is denied, what is there without that type is empty', async (t) => {
  for (const name of [
    'nothing',
    'h9.host',
    'web.at.h9',
    'api.shop.at.h2',
    'shop.web',
    'a_b',
    'web.at',
    '-',
    'x.h2.host',
    'web.at.h2.x',
  ]) {
    const { rcode, authority } = ask(`${name}.svc.internal`)
    t.equal(rcode, 'NXDOMAIN', name)
    t.equal(authority[0]?.type, 'SOA')
    t.ok(authority[0]!.ttl <= 2)
  }
  for (const [name, type] of [
    ['shop', 'A'],
    ['host', 'A'],
    ['at', 'A'],
    ['at.h2', 'A'],
    ['web', 'MX'],
    ['web', 'TXT'],
    ['h2.host', 'SRV'],
  ] as const) {
    const { rcode, answers, authority } = ask(`${name}.svc.internal`, type)
    t.strictSame([rcode, answers.length, authority[0]?.type], ['NOERROR', 0, 'SOA'], `${name} ${type}`)
  }
})

test('before the first synchronisation nothing is denied, and what is known is answered', async (t) => {
  const unsynced = { ...sources, synced: false }
  t.equal(short('nothing.svc.internal', 'A', unsynced), 'SERVFAIL')
  t.equal(short('h9.host.svc.internal', 'A', unsynced), 'SERVFAIL')
  t.equal(short('web.svc.internal', 'A', unsynced), short('web.svc.internal'))
  t.equal(short('a_b.svc.internal', 'A', unsynced), 'NXDOMAIN')
})

test('foreign names are refused', async (t) => {
  for (const name of [
    'example.com',
    'internal',
    'xsvc.internal',
    '',
    '.',
    '1.0.0.10.in-addr.arpa',
    '198.in-addr.arpa',
    'x.18.198.in-addr.arpa',
    '8.e.f.ip6.arpa',
    'ip6.arpa',
  ]) {
    t.equal(short(name), 'REFUSED', name)
  }
})

test('the apex has SOA and NS, and the server an address', async (t) => {
  const [soa] = ask('svc.internal', 'SOA').answers
  t.equal(soa?.type === 'SOA' && soa.data.minimum, ZONE_NEGATIVE_TTL)
  t.equal(short('svc.internal', 'NS'), 'NS _dns.svc.internal')
  t.equal(short('_dns.svc.internal'), 'A 198.18.0.53')
  t.equal(short('svc.internal', 'A'), 'NOERROR')
})

test('addresses given out have names', async (t) => {
  const reverse4 = (bytes: Uint8Array): string => `${[...bytes].toReversed().join('.')}.in-addr.arpa`
  const reverse6 = (bytes: Uint8Array): string =>
    `${[...Buffer.from(bytes).toString('hex')].toReversed().join('.')}.ip6.arpa`
  const pinned = { kind: 'service', service: idOf('web'), host: host('h2') } as const
  t.equal(short(reverse4(addresses.dialledAddress(pinned, 4)!), 'PTR'), 'PTR web.at.h2.svc.internal')
  t.equal(short(reverse6(addresses.dialledAddress(pinned, 6)!), 'PTR'), 'PTR web.at.h2.svc.internal')
  t.equal(
    short(reverse6(addresses.dialledAddress({ kind: 'host', host: host('h2') }, 6)!), 'PTR'),
    'PTR h2.host.svc.internal',
  )
  t.equal(short(reverse4(sources.dns(4)), 'PTR'), 'PTR _dns.svc.internal')
  t.equal(short('9.9.18.198.in-addr.arpa', 'PTR'), 'NXDOMAIN')
  t.equal(short('18.198.in-addr.arpa', 'PTR'), 'NOERROR')
  t.equal(ask('9.9.18.198.in-addr.arpa', 'PTR').authority[0]?.name, '18.198.in-addr.arpa')
  t.strictSame(reverseZones(addresses.plan).slice(0, 2), ['18.198.in-addr.arpa', '19.198.in-addr.arpa'])
})

test('an address that cannot be given is a failure, not a denial', async (t) => {
  t.equal(short('web.svc.internal', 'A', { ...sources, address: () => undefined }), 'SERVFAIL')
})
