import { test } from 'tap'
import { exposeRequestShape } from '../../../daemon/control/protocol.js'
import { zoneResolver, zoneSources } from '../../../daemon/names.js'
import { SELF } from '../../../lib/path/peers.js'
import { formatAddress } from '../../../lib/service/address-plan.js'
import { hostId } from '../../../lib/wire/ids.js'
import { RigNetwork } from './rig.js'
import { row } from './socket-tables.js'

const web = exposeRequestShape.parse({ name: 'web', ports: [{ protocol: 'tcp', port: 80, local: 8080 }] })

test('hosts and services by name', async (t) => {
  const network = new RigNetwork(t)
  const h1 = await network.create()
  const h2 = await network.join(h1, 'h2')
  await network.connect()
  const { names } = h1
  t.equal(names.hostNamed('h2'), h2.host.id)
  t.equal(names.hostNamed('h3'), undefined)
  t.equal(names.nameOfHost(h1.host.id), 'h1')
  const stranger = hostId('ab'.repeat(32))
  t.equal(names.nameOfHost(stranger), undefined)
  t.equal(names.showHost(stranger), 'abababababab', 'enough to tell it from others')
  t.equal(names.peer(SELF), 'h1')
  t.equal(names.peer(h1.host.peers.indexOf(h2.host.id)), 'h2')
  t.equal(names.peer(-1), undefined)
  t.equal(names.peer(60), undefined)
  h2.listening('tcp', row('0.0.0.0', 8080))
  const service = await h2.expose(web)
  await network.until(() => names.service(service) !== undefined)
  t.equal(names.service(service), 'web')
  t.equal(names.service(h1.service('other')), undefined)
})

test('the zone is answered from the directory, once the mapping is on disk', async (t) => {
  const network = new RigNetwork(t)
  const h1 = await network.create()
  const sources = zoneSources(h1.host, h1.names, 'svc.internal')
  let written = 0
  const resolve = zoneResolver(
    sources,
    () => {
      written++
      return Promise.resolve()
    },
    () => 1_000,
  )
  t.match(await resolve('web.svc.internal', 'A'), { code: 'SERVFAIL', authoritative: false }, 'before the first sync')
  h1.host.directory.markSynced()
  const missing = await resolve('web.svc.internal', 'A')
  t.match(missing, { code: 'NXDOMAIN', answers: [], authoritative: true, authorities: [{ type: 'SOA' }] })
  t.match(await resolve('example.org', 'A'), { code: 'REFUSED', authoritative: false })
  t.equal(written, 0, 'nothing was told')
  h1.listening('tcp', row('0.0.0.0', 8080))
  const service = await h1.expose(web)
  const dialled = (family: 4 | 6) =>
    formatAddress(h1.host.addresses.dialledAddress({ kind: 'service', service }, family)!)
  const a = await resolve('Web.svc.internal', 'A')
  t.match(a, { code: 'NOERROR', authoritative: true, answers: [{ type: 'A', data: dialled(4) }] })
  t.match(await resolve('web.svc.internal', 'AAAA'), { answers: [{ type: 'AAAA', data: dialled(6) }] })
  t.match(await resolve('web.svc.internal', 'MX'), { code: 'NOERROR', answers: [], authorities: [{ type: 'SOA' }] })
  t.equal(written, 2)
  const pinned = await resolve('web.at.h1.svc.internal', 'A')
  t.match(pinned, { code: 'NOERROR', answers: [{ type: 'A' }] })
  t.notSame(pinned.answers, a.answers)
  t.match(await resolve('web.at.h9.svc.internal', 'A'), { code: 'NXDOMAIN' })
  t.match(await resolve('h1.host.svc.internal', 'AAAA'), { code: 'NOERROR', answers: [{ type: 'AAAA' }] })
  const reverse = `${dialled(4).split('.').toReversed().join('.')}.in-addr.arpa`
  t.match(await resolve(reverse, 'PTR'), { answers: [{ type: 'PTR', data: 'web.svc.internal' }] })
})

test('an address whose mapping could not be written is not told', async (t) => {
  const h1 = await new RigNetwork(t).create()
  h1.host.directory.markSynced()
  const resolve = zoneResolver(
    zoneSources(h1.host, h1.names, 'svc.internal'),
    () => Promise.reject(new Error('disk full')),
    () => 0,
  )
  await t.rejects(async () => resolve('h1.host.svc.internal', 'A'), { message: 'disk full' })
})
