import { test, type Test } from 'tap'
import { exposeRequestShape, responseShapes } from '../../../daemon/control/protocol.js'
import {
  flowView,
  hostsView,
  hostView,
  metricsSample,
  pathsView,
  peersUp,
  serviceView,
  statusView,
} from '../../../daemon/views.js'
import type { FlowSnapshot } from '../../../lib/flow/flow-snapshot.js'
import { PeerTraffic } from '../../../lib/flow/peer-traffic.js'
import { encodeLocator } from '../../../lib/path/locator.js'
import { SELF } from '../../../lib/path/peers.js'
import { monotonicNow } from '../../../daemon/packet-loop.js'
import { MetricsText } from '../../../daemon/metrics-text.js'
import { pathReasons } from '../../../lib/path/path.js'
import { RigNetwork } from './rig.js'
import { row } from './socket-tables.js'

const web = exposeRequestShape.parse({
  name: 'web',
  ports: [{ protocol: 'tcp', port: 80, local: 8080 }],
  weight: 3,
  priority: 1,
})

async function pair(t: Test, tags: readonly string[] = []) {
  const network = new RigNetwork(t)
  const h1 = await network.create()
  const h2 = await network.join(h1, 'h2', tags)
  return { network, h1, h2 }
}

const snapshot = (changes: Partial<FlowSnapshot>): FlowSnapshot => ({
  id: '00000001000000ff',
  remoteId: undefined,
  state: 'established',
  role: 'initiator',
  protocol: 'tcp',
  family: 4,
  local: Uint8Array.of(198, 18, 0, 1),
  remote: Uint8Array.of(198, 18, 128, 9),
  localPort: 40_000,
  remotePort: 80,
  dialledPort: 80,
  clientPort: 40_000,
  peer: SELF,
  service: undefined,
  since: monotonicNow() / 1000 - 10,
  lastOut: monotonicNow() / 1000 - 4,
  lastIn: monotonicNow() / 1000 - 2,
  packetsOut: 1,
  bytesOut: 2,
  packetsIn: 3,
  bytesIn: 4,
  bindingSequence: 0,
  ...changes,
})

test('the status of a lone host', async (t) => {
  const h1 = await new RigNetwork(t).create()
  const status = statusView(h1.viewed)
  t.match(status, {
    state: 'ready',
    pid: process.pid,
    network: { name: 'home', id: h1.identity.trust.network },
    host: { name: 'h1', id: h1.host.id, tags: [], issuer: true, revoked: null },
    zone: 'svc.internal',
    addresses: { self: { v4: '198.18.0.1' }, dns: { v4: '198.18.0.53' }, pool: '198.18.0.0/15' },
    tun: { name: 'caracal0', mtu: 1420, up: true },
    listen: ['192.0.2.1:7474'],
    locators: ['192.0.2.1:7474'],
    seenAt: [],
    dns: { mode: 'none', detail: 'names are not wired in' },
    sessions: { up: 0, known: 0 },
    services: { local: 0, known: 0 },
    flows: { open: 0, tcp: 0, udp: 0, icmp: 0, capacity: 256 },
    sealing: [{ aead: 'chacha20-poly1305', by: `OpenSSL ${process.versions.openssl}` }],
  })
  t.ok(status.uptimeMs >= 1_000)
  t.strictSame(responseShapes.status.parse(status), status, 'as the control socket promises it')
  const before = { ...h1.viewed, linkReport: undefined, resolver: undefined, state: 'starting' as const }
  t.match(statusView(before), { state: 'starting', tun: { up: false }, dns: { detail: '' } })
})

test('the status says where other hosts see this one', async (t) => {
  const { host, viewed } = await new RigNetwork(t).create()
  const now = monotonicNow()
  const outside = encodeLocator({ address: '203.0.113.9', port: 40_001 })
  for (const peer of [1, 2]) host.peering.ways.reflexive.seen(peer, outside, now)
  host.handleTimeout(now + 10_000)
  const status = statusView(viewed)
  t.match(status, { locators: ['192.0.2.1:7474'], seenAt: ['203.0.113.9:40001'] })
  t.strictSame(responseShapes.status.parse(status), status)
})

test('hosts: itself first, then by name, with their sessions', async (t) => {
  const { network, h1, h2 } = await pair(t, ['web'])
  t.match(
    hostsView(h1.viewed, h1.host.flows.endedTraffic).find(({ id }) => id === h2.host.id),
    { name: 'h2', state: /down|connecting/, session: null },
  )
  await network.connect()
  await network.until(() => h1.host.peers.rttMs[1]! > 0)
  const hosts = hostsView(h1.viewed, h1.host.flows.endedTraffic)
  t.match(hosts, [
    { name: 'h1', self: true, state: 'self', locators: ['192.0.2.1:7474'], session: null, rttMs: null },
    {
      name: 'h2',
      self: false,
      state: 'up',
      tags: ['web'],
      locators: ['192.0.2.2:7474'],
      session: { aead: 'chacha20-poly1305', lanes: 1, local: '192.0.2.1:7474', remote: '192.0.2.2:7474' },
    },
  ])
  const traffic = new PeerTraffic(2, Float64Array.of(0, 1_200), Float64Array.of(0, 34))
  t.match(hostView(h1.viewed, h2.host.id, traffic).session, { bytesIn: 1_200, bytesOut: 34 })
  t.ok(hosts[1]!.rttMs! > 0)
  t.ok(hosts[1]!.membershipExpiresAt! > Date.now() / 1000)
  t.strictSame(responseShapes.hosts.parse({ hosts }), { hosts })
  t.match(statusView(h1.viewed).sessions, { up: 1, known: 1 })
  t.strictSame(peersUp(h1.viewed), [h1.host.peers.indexOf(h2.host.id)])
  t.match(pathsView(h1.viewed), [
    {
      host: 'h2',
      local: '192.0.2.1:7474',
      remote: '192.0.2.2:7474',
      state: 'proven',
      inUse: true,
      reason: /established|proven/,
    },
  ])
  const paths = pathsView(h1.viewed)
  t.strictSame(responseShapes.paths.parse({ paths }), { paths })
  t.equal(paths[0]!.mtu, h1.host.peers.pathMtu[peersUp(h1.viewed)[0]!])
  t.ok(paths[0]!.usedMs! >= 0 && paths[0]!.changedMs >= 0)
  const { counters } = statusView(h1.viewed)
  t.ok(counters['probesSent']! >= counters['probesEchoed']! && counters['probesEchoed']! >= 1)
  for (const name of [
    'movesSent',
    'movesSettled',
    'moveStallMs',
    'pathCommitsSilent',
    'pathMtuRaised',
    'pathMtuLowered',
  ])
    t.type(counters[name], 'number', name)
  h2.host.leave(monotonicNow())
  h2.loop.wake()
  await network.until(() => peersUp(h1.viewed).length === 0)
  t.match(hostView(h1.viewed, h2.host.id, h1.host.flows.endedTraffic), { state: 'down', session: null })
  t.strictSame(pathsView(h1.viewed), [])
})

test('a service with an instance here and one elsewhere', async (t) => {
  const { network, h1, h2 } = await pair(t)
  await network.connect()
  h1.listening('tcp', row('0.0.0.0', 8080))
  const service = await h1.expose(web)
  h2.listening('tcp')
  await h2.expose(web)
  await network.until(() => h1.host.catalogue.get(service)?.instances.length === 2)
  const view = serviceView(h1.viewed, h1.host.catalogue.get(service)!)
  t.match(view, { name: 'web', id: service, dialled: { v4: /^198\./, v6: /^fd/ }, served: { v4: /^198\./, v6: /^fd/ } })
  const byHost = new Map(view.instances.map((instance) => [instance.host, instance]))
  t.match(byHost.get('h1'), {
    self: true,
    state: 'up',
    flows: 0,
    weight: 3,
    priority: 1,
    rttMs: 0,
    ports: [{ protocol: 'tcp', port: 80, local: 8080 }],
    health: { kind: 'none', detail: '' },
  })
  t.match(byHost.get('h2'), { self: false, state: 'unhealthy', flows: 0 })
  t.match(statusView(h1.viewed).services, { local: 1, known: 1 })
  const own = serviceView(h2.viewed, h2.host.catalogue.get(service)!)
  t.match(own.instances.find(({ self }) => self)?.health, { detail: 'nothing listens on TCP port 8080' })
  const services = { services: [view, own], total: 2 }
  t.strictSame(responseShapes.services.parse(services), services)
})

test('a flow, seen from either end', async (t) => {
  const { network, h1, h2 } = await pair(t)
  await network.connect()
  const service = await h1.expose(web)
  const peer = h1.host.peers.indexOf(h2.host.id)
  const client = flowView(h1.viewed, snapshot({ peer, service }))
  t.match(client, {
    role: 'client',
    client: 'h1',
    service: 'web',
    instance: 'h2',
    source: '198.18.0.1:40000',
    destination: '198.18.128.9:80',
    path: '192.0.2.2:7474',
  })
  t.ok(client.pathMs !== null && client.pathMs >= 0)
  t.match(flowView(h1.viewed, snapshot({ service })), { instance: 'h1', path: null, pathMs: null }, 'both ends here')
  t.ok(
    client.ageMs >= 10_000 && client.idleMs >= 2_000 && client.idleMs < 3_500,
    'idle since the last packet of either way',
  )
  const ends = {
    local: Uint8Array.of(198, 19, 0, 2),
    localPort: 8080,
    remote: Uint8Array.of(198, 19, 128, 3),
    remotePort: 40_000,
  }
  t.match(flowView(h1.viewed, snapshot({ ...ends, role: 'acceptor', peer, service })), {
    role: 'server',
    client: 'h2',
    instance: 'h1',
    source: '198.19.128.3:40000',
    destination: '198.19.0.2:8080',
  })
  t.match(flowView(h1.viewed, snapshot({ peer: -1, service, state: 'opening' })), { instance: null })
  t.match(flowView(h1.viewed, snapshot({ protocol: 'icmp' })), { client: 'h1', instance: 'h1', service: null })
})

test('what metrics are made of', async (t) => {
  const h1 = await new RigNetwork(t).create()
  h1.listening('tcp')
  await h1.expose(web)
  const sample = metricsSample(h1.viewed)
  t.match(sample, { services: { local: 1, unhealthy: 1 }, sessions: { up: 0 }, loopDelay: { p99Ms: 2 } })
  t.notOk(Object.keys(sample.counters).some((name) => name.startsWith('directory')))
  t.equal(sample.counters['logLinesDropped'], 0)
  t.ok(sample.startedAt < Date.now() / 1000 && sample.startedAt > Date.now() / 1000 - 60)
  const text = await new MetricsText().write(sample)
  const commits = pathReasons.map((reason) => `path_commits_${reason.replaceAll('-', '_')}`)
  const moves = [
    'moves_sent',
    'moves_unanswered',
    'moves_received',
    'moves_settled',
    'move_stall_ms',
    'wire_again_frames',
    'held',
    'held_sent',
  ]
  const paths = ['probes_sent', 'probes_echoed', 'path_mtu_raised', 'path_mtu_lowered']
  for (const name of [...commits, ...moves, ...paths])
    t.match(text, new RegExp(`^# HELP caracal_${name}_total (?!.*since the start$).+$`, 'm'), name)
})

test('what the kernel dropped before it was read is told, and why packets could not be sealed', async (t) => {
  const { h1 } = await pair(t)
  h1.tun.packetsLost = 3
  const [socket] = h1.underlay.sockets
  Object.assign(socket!, { datagramsLost: 5 })
  const { viewed } = h1
  const lanes = { ...viewed.lanes, datagramsLost: 2, packetsNotSealed: 4 }
  const daemon = { ...viewed, lanes }
  const before = viewed.host.drops.get('no-session')
  const { counters, drops } = statusView(daemon)
  t.match(counters, { tunPacketsLost: 3, wireDatagramsLost: 7 })
  t.equal(drops['no-session'], before + 4)
  const text = await new MetricsText().write(metricsSample(daemon))
  t.match(text, /# HELP caracal_tun_lost_packets_total Packets of own programs that the kernel dropped/)
  t.match(text, /^caracal_tun_lost_packets_total 3$/m)
  t.match(text, /# HELP caracal_wire_lost_datagrams_total Datagrams of other hosts that the kernel dropped/)
  t.match(text, /^caracal_wire_lost_datagrams_total 7$/m)
})

test('a scrape counts services without going through them; a list goes through no more than it shows', async (t) => {
  const h1 = await new RigNetwork(t).create()
  const { catalogue } = h1.host
  for (let i = 0; i < 90; i++) await h1.expose({ ...web, name: `s${i}` })
  t.equal(metricsSample(h1.viewed).services.known, 90)
  let looked = 0
  for (const service of catalogue.services()) {
    const { instances } = service
    Object.defineProperty(service, 'instances', { get: () => (looked++, instances) })
  }
  const list = catalogue.services.bind(catalogue)
  catalogue.services = () => (looked++, list())
  catalogue.names = () => (looked++, [])
  catalogue.conflicts = () => (looked++, [])
  t.equal(metricsSample(h1.viewed).services.known, 90)
  t.equal(statusView(h1.viewed).services.known, 90)
  t.equal(looked, 0)
  const page = catalogue.some(undefined, 64).views.map((view) => serviceView(h1.viewed, view))
  t.equal(page.length, 64)
  t.ok(looked <= 64, `${looked} were looked at`)
})
