import { test, type Test } from 'tap'
import type { RuleSetting } from '../../../daemon/config.js'
import { exposeRequestShape, responseShapes } from '../../../daemon/control/protocol.js'
import { noLog } from '../../../daemon/log.js'
import { zoneResolver, zoneSources } from '../../../daemon/names.js'
import { monotonicNow } from '../../../daemon/packet-loop.js'
import { ConfiguredRules } from '../../../daemon/rules.js'
import { rulesView } from '../../../daemon/views.js'
import { hostId } from '../../../lib/wire/ids.js'
import { RigNetwork, type Rig } from './rig.js'
import { row } from './socket-tables.js'

const setting = (name: string, changes: Partial<RuleSetting>): RuleSetting => ({
  name,
  below: true,
  action: 'delay',
  host: undefined,
  priority: 10,
  weight: 1,
  ...changes,
})
const rulesOf = ({ host, names }: Rig) => new ConfiguredRules({ host, names, log: noLog, now: monotonicNow })
const short = (rig: Rig, name?: string) =>
  rulesView(rig.viewed, name === undefined ? undefined : rig.service(name))
    .filter(({ by }) => by !== 'daemon')
    .map(({ name: text, length, action, host }) => [text, length, action, host].join(' ').trim())

async function alone(t: Test): Promise<Rig> {
  const h1 = await new RigNetwork(t).create()
  h1.host.directory.markSynced()
  return h1
}

test('a resolver that is not known by name yet has what its rule covers held', async (t) => {
  const network = new RigNetwork(t)
  const h1 = await network.create()
  const rules = rulesOf(h1)
  rules.set([setting('corp', { action: 'resolver', host: 'h2' }), setting('ads', { action: 'drop' })])
  t.strictSame(short(h1), ['ads and below 96 drop', 'corp and below 96 delay'])
  rules.look()
  t.strictSame(short(h1), ['ads and below 96 drop', 'corp and below 96 delay'])
  const h2 = await network.join(h1, 'h2')
  await network.connect()
  rules.look()
  t.strictSame(short(h1), ['ads and below 96 drop', 'corp and below 96 resolver h2'])
  const id = 'ab'.repeat(32)
  rules.set([
    setting('*', { action: 'resolver', host: h2.host.id }),
    setting('one', { action: 'resolver', host: id, below: false }),
  ])
  t.strictSame(short(h1), [`one 256 resolver ${id.slice(0, 12)}`, '* 64 resolver h2'])
  t.equal(
    h1.host.whereabouts.rules.of(h1.service('one'))[0]?.action.kind,
    'forward',
    'by its ID a host is always known',
  )
  rules.set([])
  t.strictSame(short(h1), [])
})

test('the service table as people see it', async (t) => {
  const h1 = await alone(t)
  rulesOf(h1).set([
    setting('shop', { action: 'resolver', host: 'ab'.repeat(32), priority: 7, weight: 3 }),
    setting('*', {}),
  ])
  h1.listening('tcp', row('0.0.0.0', 8080))
  const request = { name: 'api.shop', ports: [{ protocol: 'tcp', port: 80, local: 8080 }], weight: 2, priority: 1 }
  const service = await h1.expose(exposeRequestShape.parse(request))
  const target = { kind: 'service' as const, service }
  h1.host.environment.candidates(target, 6, 80, monotonicNow())
  h1.host.environment.look(target, 6, 80, monotonicNow(), false)
  const all = rulesView(h1.viewed)
  t.match(responseShapes.rules.parse({ rules: all }), { rules: all }, 'as the control socket tells it')
  t.match(all, [
    {
      name: 'api.shop',
      length: 256,
      action: 'deliver',
      host: 'h1',
      priority: 1,
      weight: 2,
      hits: 1,
      by: 'registration',
    },
    { name: 'shop and below', length: 96, action: 'resolver', hostId: hostId('ab'.repeat(32)), priority: 7, weight: 3 },
    { name: '*', length: 64, action: 'delay', host: null, hits: 0, lastHitMs: null, by: 'settings' },
  ])
  t.ok(all[0]!.lastHitMs! < 5_000)
  t.equal(all[1]!.prefix.length, 24)
  t.strictSame(short(h1, 'x.shop'), [`shop and below 96 resolver ${'ab'.repeat(6)}`, '* 64 delay'])
  t.equal(short(h1, 'api.shop').length, 3)
})

test('names that only a rule may find have addresses, and are known by them afterwards', async (t) => {
  const h1 = await alone(t)
  const resolve = zoneResolver(
    zoneSources(h1.host, h1.names, 'svc.internal'),
    () => Promise.resolve(),
    () => 1_000,
  )
  t.match(await resolve('x.corp.svc.internal', 'A'), { code: 'NXDOMAIN' })
  rulesOf(h1).set([setting('corp', {}), setting('no.corp', { action: 'drop' })])
  const answer = await resolve('x.corp.svc.internal', 'A')
  t.match(answer, { code: 'NOERROR', answers: [{ type: 'A' }] })
  t.match(await resolve('x.corp.svc.internal', 'AAAA'), { code: 'NOERROR', answers: [{ type: 'AAAA' }] })
  t.match(await resolve('corp.svc.internal', 'A'), { answers: [{ type: 'A' }] })
  t.match(await resolve('no.corp.svc.internal', 'A'), { code: 'NXDOMAIN' }, 'what is dropped is only there where it is')
  t.match(await resolve('x.corp.at.h1.svc.internal', 'A'), { code: 'NXDOMAIN' }, 'nor is an instance of a host')
  const id = h1.service('x.corp')
  t.equal(h1.names.service(id), 'x.corp')
  const v4 = String(answer.answers[0]?.type === 'A' ? answer.answers[0].data : '')
  const reverse = `${v4.split('.').toReversed().join('.')}.in-addr.arpa`
  t.match(await resolve(reverse, 'PTR'), { answers: [{ data: 'x.corp.svc.internal' }] })
  // Bounded: with `*` any program could fill the pool.
  for (let i = 0; i < 5_000; i++) h1.names.findable({ kind: 'labels', text: `n${i}.corp`, labels: [`n${i}`, 'corp'] })
  t.match(await resolve('one-more.corp.svc.internal', 'A'), { code: 'NXDOMAIN' })
  t.match(await resolve('x.corp.svc.internal', 'A'), answer)
})
