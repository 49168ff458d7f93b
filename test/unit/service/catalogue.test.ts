import { test } from 'tap'
import { HostKey } from '../../../lib/crypto/host-key.js'
import { ServiceCatalogue } from '../../../lib/service/catalogue.js'
import { OwnerKey } from '../../../lib/crypto/owner.js'
import { proveName } from '../../../lib/service/name-proof.js'
import type { NameRule } from '../../../lib/service/ownership.js'
import { recordKey, type NameClaim, type RecordPayload } from '../../../lib/service/registration.js'
import { keyName } from '../../../lib/service/service-id.js'
import { ServiceTable } from '../../../lib/service/service-table.js'
import type { HostId } from '../../../lib/wire/ids.js'
import { host, idOf, network, primitives, registration } from './fixtures.js'

const [h1, h2, h3] = [host('h1'), host('h2'), host('h3')]

function claim(name: string, since: number, tags: string[] = [], hosts: HostId[] = []): NameClaim {
  return { kind: 'name', service: idOf(name), name, since, tags, hosts }
}

class World {
  readonly tags = new Map<HostId, readonly string[]>([h1, h2, h3].map((id) => [id, []]))
  readonly table = new ServiceTable()
  readonly catalogue = new ServiceCatalogue(
    { network, self: h1 },
    { primitives, tagsOf: (id) => this.tags.get(id), table: this.table },
  )
  readonly #records = new Map<string, RecordPayload>()

  set(id: HostId, payload: RecordPayload): void {
    this.#change(id, recordKey(payload), payload)
  }
  unset(id: HostId, payload: RecordPayload): void {
    this.#change(id, recordKey(payload), undefined)
  }
  #change(id: HostId, key: string, payload: RecordPayload | undefined): void {
    const before = this.#records.get(id + key)
    if (payload === undefined) this.#records.delete(id + key)
    else this.#records.set(id + key, payload)
    const record = (of: RecordPayload | undefined) =>
      of && {
        host: id,
        key,
        sequence: 1,
        lifetime: 1,
        payload: of,
        blob: { body: new Uint8Array(), signature: new Uint8Array() },
      }
    this.catalogue.apply({ host: id, key, record: record(payload), before: record(before) })
  }
  hosts(name: string): HostId[] {
    return this.catalogue.byName(name)?.instances.map((instance) => instance.host) ?? []
  }
}

test('instances come and go, and the service table with them', async (t) => {
  const { catalogue, table } = new World()
  t.equal(catalogue.byName('web'), undefined)
  const world = new World()
  world.set(h1, registration('web'))
  world.set(h2, registration('web', { priority: 50 }))
  t.strictSame(world.hosts('web').sort(), [h1, h2].sort())
  t.strictSame(
    world.table.lookup(idOf('web'))?.rules.map(({ action }) => action),
    [{ kind: 'forward', to: 'instance', host: h2 }, { kind: 'demux' }],
  )
  t.equal(world.catalogue.nameOf(idOf('web')), 'web')
  world.unset(h1, registration('web'))
  world.unset(h2, registration('web'))
  t.equal(world.catalogue.byName('web'), undefined)
  t.equal(world.table.size, 0)
  t.equal(world.catalogue.nameOf(idOf('web')), undefined)
  t.equal(table.size, 0)
})

test('new flows go to instances that are up and offer the port', async (t) => {
  const world = new World()
  const udp = [{ protocol: 'udp' as const, port: 53, localPort: 5353 }]
  world.set(h1, registration('web', { state: 'unhealthy' }))
  world.set(h2, registration('web', { state: 'draining' }))
  const { catalogue } = world
  t.equal(catalogue.eligible(idOf('nothing'), 6, 80), 'no-such-service')
  t.equal(catalogue.eligible(idOf('web'), 6, 80), 'no-instance')
  world.set(h3, registration('web', { ports: udp }))
  t.equal(catalogue.eligible(idOf('web'), 6, 80), 'no-instance')
  const hosts = (protocol: number, port: number): unknown => {
    const found = catalogue.eligible(idOf('web'), protocol, port)
    return typeof found === 'string' ? found : found.map((instance) => instance.host)
  }
  t.strictSame(hosts(17, 53), [h3])
  t.strictSame(hosts(1, 0), [h3])
  t.equal(catalogue.eligible(idOf('web'), 17, 53, h1), 'no-instance')
})

test('domains are known while there is a service below them', async (t) => {
  const world = new World()
  world.set(h1, registration('api.shop'))
  t.ok(world.catalogue.hasDomain('shop'))
  t.ok(world.catalogue.hasDomain('api.shop'))
  t.notOk(world.catalogue.hasDomain('api'))
  world.unset(h1, registration('api.shop'))
  t.notOk(world.catalogue.hasDomain('shop'))
})

test('the first claim decides, ties by ID; later ones are conflicts', async (t) => {
  const world = new World()
  world.tags.set(h1, ['web'])
  world.tags.set(h2, ['web'])
  world.tags.set(h3, ['db'])
  for (const id of [h1, h2, h3]) world.set(id, registration('shop'))
  t.equal(world.hosts('shop').length, 3, 'unclaimed')
  world.set(h3, claim('shop', 200, ['db']))
  t.strictSame(world.hosts('shop'), [h3])
  world.set(h1, claim('shop', 100, ['web']))
  t.strictSame(world.hosts('shop').sort(), [h1, h2].sort())
  t.strictSame(
    world.catalogue.conflicts().map(({ host: id, reason }) => [id, reason]),
    [[h3, 'not-owner']],
  )
  t.match(world.catalogue.conflicts()[0]!.detail, /belongs to tag web by the first claim, of host/)
  world.set(h2, claim('shop', 1, ['db']))
  t.strictSame(world.hosts('shop').sort(), [h1, h2].sort(), 'nobody claims for a tag that is not its own')
  world.unset(h1, claim('shop', 100))
  t.strictSame(world.hosts('shop'), [h3])
})

test('a rule of the authority beats claims and bounds what hosts may ask for', async (t) => {
  const world = new World()
  world.tags.set(h2, ['web'])
  world.set(h1, claim('api.shop', 1))
  for (const id of [h1, h2]) world.set(id, registration('api.shop', { priority: 0, weight: 60_000 }))
  const rules: NameRule[] = [
    { name: '*', tags: ['nobody'], hosts: [], minPriority: 0, maxWeight: 65_535, serial: 1 },
    { name: 'shop', tags: ['web'], hosts: [], minPriority: 10, maxWeight: 500, serial: 1, issuer: h3 },
  ]
  world.catalogue.setRules(new Map(rules.map((rule) => [rule.name, rule])))
  const [instance, ...others] = world.catalogue.byName('api.shop')!.instances
  t.strictSame(others, [])
  t.strictSame([instance!.host, instance!.priority, instance!.weight], [h2, 10, 500])
  t.match(world.catalogue.conflicts(), [
    { host: h1, detail: `belongs to tag web by a rule of the issuer ${h3.slice(0, 8)}` },
  ])
  t.match(world.catalogue.names(), [
    { name: 'api.shop', owner: { by: 'authority', issuer: h3 }, claimedSince: undefined },
  ])
  world.catalogue.setRules(new Map())
  t.match(world.catalogue.names(), [{ owner: { by: 'claim', claimant: h1 }, claimedSince: 1 }])
  t.equal(world.hosts('api.shop').length, 2, 'free again')
})

test("an ID that is not its name's, and hosts that are no members, do not count", async (t) => {
  const world = new World()
  world.set(h1, registration('web', { service: idOf('bank') }))
  t.equal(world.catalogue.get(idOf('bank')), undefined)
  t.strictSame(
    world.catalogue.conflicts().map(({ reason }) => reason),
    ['bad-name'],
  )
  world.unset(h1, registration('web', { service: idOf('bank') }))
  t.strictSame(world.catalogue.conflicts(), [])
  world.set(h1, registration('web', { service: idOf('bank') }))
  world.set(h1, registration('bank'))
  t.strictSame(world.catalogue.conflicts(), [], 'the same record, put right')
  world.unset(h1, registration('bank'))
  world.set(h2, registration('web'))
  world.tags.delete(h2)
  world.catalogue.review()
  t.strictSame(world.hosts('web'), [])
})

test("a self-certifying name is registered by the key's host, or with the key's proof", async (t) => {
  const world = new World()
  const seed = primitives.randomBytes(32)
  const [key, owner] = [new HostKey(primitives, seed), new OwnerKey(primitives, seed)]
  const name = keyName(key.publicKey).text
  world.tags.set(key.id, [])
  world.set(h1, registration(name))
  t.strictSame(world.hosts(name), [])
  t.equal(world.catalogue.conflicts()[0]?.reason, 'bad-proof')
  world.set(key.id, registration(name))
  t.strictSame(world.hosts(name), [key.id])
  const proof = proveName(owner, idOf(name), h1).signature
  world.set(h1, registration(name, { proof }))
  world.set(h2, registration(name, { proof }))
  t.strictSame(world.hosts(name).sort(), [key.id, h1].sort(), 'the proof is for one host')
})

test('services are counted as they come and go, and listed in parts that miss none', (t) => {
  const world = new World()
  const { catalogue } = world
  const names = Array.from({ length: 100 }, (_, i) => `s${i}`)
  t.strictSame(catalogue.some(undefined, 10), { views: [], next: undefined })
  for (const name of names) world.set(h2, registration(name))
  world.set(h3, registration('s5'))
  world.set(h3, claim('claimed-only', 1))
  t.equal(catalogue.count, 100)
  t.strictSame(
    catalogue
      .services()
      .map(({ name }) => name)
      .sort(),
    [...names].sort(),
  )
  // Some go between two parts, some come; all the others are listed.
  const seen = new Set<string>()
  let parts = 0
  for (let from: number | undefined, first = true; first || from !== undefined; first = false, parts++) {
    const { views, next } = catalogue.some(from, 7)
    t.ok(views.length <= 7)
    for (const { name } of views) seen.add(name)
    from = next
    if (parts < 5) for (const i of [parts, 50 + parts, 99 - parts]) world.unset(h2, registration(`s${i}`))
    if (parts < 5) world.set(h2, registration(`late${parts}`))
  }
  const stayed = names.filter((name) => catalogue.byName(name) !== undefined)
  t.strictSame(
    stayed.filter((name) => !seen.has(name)),
    [],
  )
  t.equal(catalogue.count, catalogue.services().length)
  t.equal(catalogue.count, stayed.length + 5)
  for (const { name } of catalogue.services()) for (const id of [h2, h3]) world.unset(id, registration(name))
  t.equal(catalogue.count, 0)
  t.end()
})
