import { test } from 'tap'
import type { LocalEndpoint } from '../../../lib/flow/environment.js'
import { HostEnvironment } from '../../../lib/host/host-environment.js'
import { Loading } from '../../../lib/host/loading.js'
import { Whereabouts } from '../../../lib/host/whereabouts.js'
import { decodeHint, encodeHint } from '../../../lib/path/hint.js'
import { encodeLocator, formatLocator } from '../../../lib/path/locator.js'
import { PeerTable, SELF } from '../../../lib/path/peers.js'
import { Addresses } from '../../../lib/service/addresses.js'
import { ServiceCatalogue } from '../../../lib/service/catalogue.js'
import { choiceDefaults, InstanceChoice, type HostCondition } from '../../../lib/service/choice.js'
import { allowAll, parsePolicy, type Policy } from '../../../lib/service/policy.js'
import { recordKey, type Registration } from '../../../lib/service/registration.js'
import { networkPrefix, parseServiceName } from '../../../lib/service/service-id.js'
import type { LocalRule } from '../../../lib/service/local-rules.js'
import { ServiceTable, type RuleAction } from '../../../lib/service/service-table.js'
import { Protocol } from '../../../lib/wire/constants.js'
import type { DropReason } from '../../../lib/wire/drop.js'
import type { HostId, ServiceId } from '../../../lib/wire/ids.js'
import { decodeQuery, encodeQuery, type QueryMessage } from '../../../lib/wire/query.js'
import { host, idOf, network, primitives, registration } from '../service/fixtures.js'

const [h1, h2, h3, h4] = [host('h1'), host('h2'), host('h3'), host('h4')]
const NOW = 5_000

/** The environment of h1. */
class World {
  readonly peers: PeerTable
  readonly table = new ServiceTable()
  readonly catalogue: ServiceCatalogue
  readonly environment: HostEnvironment
  readonly whereabouts: Whereabouts
  readonly tags = new Map<HostId, readonly string[]>([h1, h2, h3].map((id) => [id, []]))
  readonly conditions = new Map<HostId, HostCondition>()
  readonly endpoints = new Map<string, LocalEndpoint>()
  readonly active: number[] = []
  readonly wanted: number[] = []
  readonly drops: DropReason[] = []
  readonly hints: string[] = []
  readonly queried: [number, QueryMessage | undefined][] = []
  queries = 0
  released = 0
  policy: Policy = allowAll

  constructor(peerCapacity = 8, loadingUntil = -Infinity) {
    const { table, peers } = { table: this.table, peers: new PeerTable(h1, peerCapacity) }
    this.peers = peers
    const tagsOf = (id: HostId) => this.tags.get(id)
    this.catalogue = new ServiceCatalogue({ network, self: h1 }, { primitives, tagsOf, table })
    const choice = new InstanceChoice(choiceDefaults, {
      random: () => 0,
      condition: (id) => this.conditions.get(id) ?? { liveness: 'alive', age: 0, rtt: 1 },
      openFlows: (service, id) => this.environment.openFlows(service, id),
    })
    this.whereabouts = new Whereabouts({
      self: h1,
      network,
      hasher: primitives,
      peers,
      catalogue: this.catalogue,
      choice,
      table,
      random: () => 0,
      randomBytes: (length) => new Uint8Array(length).fill(++this.queries),
      locatorsOf: (id) => [{ address: '192.0.2.1', port: 7000 + Number(this.nameOf(id).slice(1)) }],
      isMember: (id) => tagsOf(id) !== undefined,
      isRevoked: () => false,
      allows: (client, service, protocol, port) => this.environment.allows(client, service, protocol, port),
      hint: (id, locator) => this.hints.push(`${this.nameOf(id)} ${formatLocator(locator)}`),
      send: (peer, message) => this.queried.push([peer, decodeQuery(message)]) > 0,
      release: () => this.released++,
      drop: (reason) => this.drops.push(reason),
    })
    this.environment = new HostEnvironment({
      self: h1,
      peers,
      whereabouts: this.whereabouts,
      loading: new Loading(loadingUntil),
      addresses: new Addresses({ network, self: h1 }, { hasher: primitives, mappingChanged: () => undefined }),
      catalogue: this.catalogue,
      choice,
      endpoints: {
        find: (service, protocol, port) => this.endpoints.get(`${service}/${protocol}/${port}`) ?? 'no-instance',
      },
      tagsOf,
      policy: () => this.policy,
      afterwards: (action) => action(),
      active: (peer) => this.active.push(peer),
      wantSession: (peer) => this.wanted.push(peer),
      retransmitted: () => undefined,
      other: () => undefined,
      sendFrame: () => true,
      sendBatch: () => undefined,
      writePacket: () => undefined,
      drop: (reason) => this.drops.push(reason),
      fault: () => undefined,
    })
  }

  register(id: HostId, payload: Registration): void {
    const key = recordKey(payload)
    const blob = { body: new Uint8Array(), signature: new Uint8Array() }
    this.catalogue.apply({
      host: id,
      key,
      before: undefined,
      record: { host: id, key, sequence: 1, lifetime: 1, payload, blob },
    })
  }

  /** Names of the hosts asked for the service, in their order; `?` behind a doubtful one; or why there are none. */
  ask(service: ServiceId, protocol: number = Protocol.tcp, port = 80, at?: HostId): readonly string[] | string {
    const target = { kind: 'service' as const, service, ...(at === undefined ? {} : { host: at }) }
    const found = this.environment.candidates(target, protocol, port, NOW)
    return typeof found === 'string'
      ? found
      : found.map(({ peer, doubtful }) => this.name(peer) + (doubtful ? '?' : ''))
  }

  name(peer: number): string {
    return this.nameOf(this.peers.hostId(peer))
  }

  nameOf(id: HostId): string {
    return { [h1]: 'h1', [h2]: 'h2', [h3]: 'h3', [h4]: 'h4' }[id]!
  }

  /** What an OPEN from the host finds here. */
  endpoint(from: HostId, service: ServiceId | undefined, protocol: number = Protocol.tcp, port = 80, now = NOW) {
    return this.environment.localEndpoint(this.peers.add(from), service, protocol, port, now)
  }
}

const WEB = idOf('web')

test('instances in the order of choice; the first one’s host is watched', (t) => {
  const w = new World()
  w.register(h3, registration('web', { priority: 10 }))
  w.register(h2, registration('web', { priority: 20 }))
  t.strictSame(w.ask(WEB), ['h3', 'h2'])
  t.strictSame(w.active, [w.peers.indexOf(h3)])
  t.end()
})

test('an instance on this host needs no peer, and is never in doubt', (t) => {
  const w = new World()
  w.conditions.set(h1, { liveness: 'unknown', age: Infinity, rtt: 0 })
  w.register(h1, registration('web'))
  t.strictSame(w.ask(WEB), ['h1'])
  t.strictSame(w.active, [])
  const found = w.environment.candidates({ kind: 'service', service: WEB }, Protocol.tcp, 80, NOW)
  t.equal(typeof found === 'string' ? -1 : found[0]!.peer, SELF)
  t.end()
})

test('what has not been heard of lately is in doubt; what is dead comes last', (t) => {
  const w = new World()
  w.register(h2, registration('web', { priority: 10 }))
  w.register(h3, registration('web', { priority: 20 }))
  w.conditions.set(h2, { liveness: 'alive', age: 60_000, rtt: 1 })
  t.strictSame(w.ask(WEB), ['h2?', 'h3'])
  w.conditions.set(h2, { liveness: 'dead', age: 60_000, rtt: 1 })
  t.strictSame(w.ask(WEB), ['h3', 'h2?'])
  t.end()
})

test('refusals and silence are remembered for the choice', (t) => {
  const w = new World()
  w.register(h2, registration('web', { priority: 10 }))
  w.register(h3, registration('web', { priority: 20 }))
  const candidate = { peer: w.peers.add(h2), service: WEB, doubtful: false }
  for (const outcome of ['refused', 'silent'] as const) {
    w.environment.outcome(candidate, outcome, NOW, NOW)
    t.strictSame(w.ask(WEB), ['h3', 'h2?'], outcome)
    w.environment.outcome(candidate, 'answered', NOW, NOW)
    t.strictSame(w.ask(WEB), ['h2', 'h3'])
  }
  t.end()
})

test('open flows are counted by instance, and never below none', (t) => {
  const w = new World()
  const peer = w.peers.add(h2)
  const candidate = { peer, service: WEB, doubtful: false }
  w.environment.outcome(candidate, 'answered', NOW, NOW)
  w.environment.outcome(candidate, 'answered', NOW, NOW)
  w.environment.outcome(candidate, 'refused', NOW, NOW)
  w.environment.outcome({ ...candidate, service: undefined }, 'answered', NOW, NOW)
  t.equal(w.environment.openFlows(WEB, h2), 2)
  t.equal(w.environment.openFlows(WEB, h3), 0)
  for (let i = 0; i < 3; i++) w.environment.flowEnded(peer, WEB)
  w.environment.flowEnded(peer, undefined)
  w.environment.flowEnded(-1, WEB)
  t.equal(w.environment.openFlows(WEB, h2), 0)
  w.environment.outcome(candidate, 'answered', NOW, NOW)
  t.equal(w.environment.openFlows(WEB, h2), 1)
  t.end()
})

test('why there is nobody: unknown, no healthy instance, another port', (t) => {
  const w = new World()
  t.equal(w.ask(idOf('nothing')), 'no-such-service')
  w.register(h2, registration('web'))
  t.equal(w.ask(WEB, Protocol.tcp, 81), 'refused', 'an instance is there, the port is not')
  t.equal(w.ask(WEB, Protocol.udp, 80), 'refused')
  t.strictSame(w.ask(WEB, Protocol.icmp, 0), ['h2'], 'echo goes to any instance')
  w.register(h3, registration('sick', { state: 'unhealthy' }))
  t.equal(w.ask(idOf('sick')), 'no-instance')
  t.equal(w.ask(WEB, Protocol.tcp, 80, h3), 'no-instance', 'pinned to a host without an instance')
  t.strictSame(w.ask(WEB, Protocol.tcp, 80, h2), ['h2'])
  t.end()
})

test('rules of the service table come first: held, or dropped', (t) => {
  const w = new World()
  w.table.set(networkPrefix(network), 'wait', { action: { kind: 'delay' }, priority: 65_535, weight: 0 })
  t.equal(w.ask(idOf('later')), 'hold')
  w.register(h2, registration('web'))
  t.strictSame(w.ask(WEB), ['h2'], 'the longer prefix decides')
  w.table.set(networkPrefix(network), 'no', { action: { kind: 'drop' }, priority: 1, weight: 0 })
  t.equal(w.ask(idOf('later')), 'denied')
  t.end()
})

test('a host itself answers echo only', (t) => {
  const w = new World()
  const target = { kind: 'host' as const, host: h2 }
  t.equal(w.environment.candidates(target, Protocol.tcp, 22, NOW), 'refused')
  t.strictSame(w.environment.candidates(target, Protocol.icmp, 0, NOW), [
    { peer: w.peers.indexOf(h2), service: undefined, doubtful: false },
  ])
  const endpoint = w.environment.localEndpoint(w.peers.add(h2), undefined, Protocol.icmp, 0, NOW)
  t.strictSame(endpoint, { family: 4, address: w.environment.addresses.self(4), port: 0 })
  t.equal(w.environment.localEndpoint(w.peers.add(h2), undefined, Protocol.tcp, 22, NOW), 'refused')
  t.end()
})

test('both ends ask the policy', (t) => {
  const w = new World()
  const policy = parsePolicy({
    default: 'deny',
    rules: [{ action: 'allow', from: ['web'], to: ['web'], ports: ['tcp/80'] }],
  })
  if ('problems' in policy) throw new Error(policy.problems.join())
  w.register(h2, registration('web'))
  w.endpoints.set(`${WEB}/6/80`, { family: 4, address: Uint8Array.of(127, 0, 0, 1), port: 8080 })
  const peer = w.peers.add(h3)
  t.notMatch(w.environment.localEndpoint(peer, WEB, Protocol.tcp, 80, NOW), 'denied')
  w.policy = policy
  t.equal(w.ask(WEB), 'denied', 'as the client’s host')
  t.equal(w.environment.localEndpoint(peer, WEB, Protocol.tcp, 80, NOW), 'denied', 'as the server’s')
  t.equal(w.environment.localEndpoint(peer, undefined, Protocol.icmp, 0, NOW), 'denied')
  w.tags.set(h1, ['web'])
  w.tags.set(h3, ['web', 'other'])
  t.strictSame(w.ask(WEB), ['h2'])
  t.match(w.environment.localEndpoint(peer, WEB, Protocol.tcp, 80, NOW), { port: 8080 })
  t.equal(w.environment.localEndpoint(peer, WEB, Protocol.udp, 80, NOW), 'denied')
  w.tags.delete(h3)
  t.equal(w.environment.localEndpoint(peer, WEB, Protocol.tcp, 80, NOW), 'denied', 'no member any more')
  t.end()
})

test('a full peer table leaves those who found room', (t) => {
  const w = new World(2)
  w.register(h2, registration('web', { priority: 1 }))
  w.register(h3, registration('web', { priority: 2 }))
  t.strictSame(w.ask(WEB), ['h2'])
  t.equal(w.environment.candidates({ kind: 'host', host: h3 }, Protocol.icmp, 0, NOW), 'no-instance')
  t.end()
})

test('a host that is a member no more begins nothing, and nothing begins with it', (t) => {
  const world = new World()
  world.register(h1, registration('web'))
  world.register(h2, registration('shop'))
  world.endpoints.set(`${idOf('web')}/6/80`, { family: 4, address: new Uint8Array(4), port: 8080 })
  const peer = world.peers.add(h2)
  t.type(world.ask(idOf('shop')), Array)
  t.match(world.environment.localEndpoint(peer, idOf('web'), Protocol.tcp, 80, 0), { port: 8080 })
  world.tags.delete(h1)
  t.equal(world.ask(idOf('shop')), 'denied')
  t.equal(world.environment.localEndpoint(peer, idOf('web'), Protocol.tcp, 80, 0), 'denied')
  world.tags.set(h1, [])
  world.tags.delete(h2)
  t.equal(world.environment.localEndpoint(peer, idOf('web'), Protocol.tcp, 80, 0), 'denied')
  t.end()
})

const name = (text: string) => {
  const parsed = parseServiceName(text)
  if ('problem' in parsed) throw new Error(parsed.problem)
  return parsed
}
const local = (action: RuleAction, priority: number, weight = 1): LocalRule => ({
  name: name('web'),
  below: true,
  action,
  priority,
  weight,
})
const resolver = (id: HostId): RuleAction => ({ kind: 'forward', to: 'resolver', host: id })
const DROP: RuleAction = { kind: 'drop' }
const DELAY: RuleAction = { kind: 'delay' }
const kindsOf = (w: World, service = WEB) => {
  const found = w.environment.candidates({ kind: 'service', service }, Protocol.tcp, 80, NOW)
  return typeof found === 'string' ? found : found.map((one) => `${w.name(one.peer)}${one.resolver ? ' resolver' : ''}`)
}

test('rules that are set and instances are used by priority, a rule before an instance of the same', (t) => {
  const w = new World()
  w.register(h2, registration('web', { priority: 10 }))
  w.register(h3, registration('web', { priority: 20 }))
  const cases: [LocalRule[], readonly string[] | string][] = [
    [[local(DROP, 10)], 'denied'],
    [[local(DROP, 11)], ['h2']],
    [[local(DROP, 21)], ['h2', 'h3']],
    [[local(DELAY, 5)], 'hold'],
    [[local(DELAY, 20)], ['h2']],
    [[local(resolver(h4), 10)], ['h4 resolver', 'h2', 'h3']],
    [[local(resolver(h4), 15)], ['h2', 'h4 resolver', 'h3']],
    [[local(resolver(h4), 65_535)], ['h2', 'h3', 'h4 resolver']],
    [[local(resolver(h4), 5), local(DROP, 5)], 'denied'],
    [[local(resolver(h4), 5), local(DELAY, 5)], ['h4 resolver']],
    [[local(resolver(h4), 5), local(DROP, 6)], ['h4 resolver']],
    [[local(resolver(h1), 5)], ['h2', 'h3']],
  ]
  for (const [rules, expected] of cases) {
    w.whereabouts.setRules(rules)
    t.strictSame(kindsOf(w), expected, JSON.stringify(rules.map(({ action, priority }) => [action.kind, priority])))
  }
  w.whereabouts.setRules([local(DELAY, 5)])
  t.equal(w.ask(WEB, Protocol.tcp, 81), 'refused', 'who has the service does not have the port: that is an answer')
  t.equal(w.ask(idOf('x.web')), 'hold', 'names below')
  w.whereabouts.setRules([local(resolver(h4), 5), local(DROP, 30)])
  t.strictSame(w.ask(WEB, Protocol.tcp, 80, h3), ['h3'], 'a pinned name is not asked of resolvers')
  w.whereabouts.setRules([local(DROP, 0)])
  t.equal(w.ask(WEB, Protocol.tcp, 80, h3), 'denied', 'but dropped')
  t.end()
})

test('resolvers of one priority share by weight; what decided is counted', (t) => {
  const w = new World()
  w.whereabouts.setRules([local(resolver(h3), 9, 0), local(resolver(h2), 9, 5), local(resolver(h4), 4)])
  t.strictSame(kindsOf(w), ['h4 resolver', 'h2 resolver', 'h3 resolver'])
  t.strictSame(kindsOf(w), ['h4 resolver', 'h2 resolver', 'h3 resolver'])
  const look = w.environment.look({ kind: 'service', service: WEB }, Protocol.tcp, 80, NOW, false)
  t.equal(look.length, 3)
  const hits = w.whereabouts.rules
    .of(WEB)
    .map(({ action, hits }) => [action.kind === 'forward' ? w.nameOf(action.host) : '', hits])
  t.strictSame(hits, [
    ['h4', 2],
    ['h2', 0],
    ['h3', 0],
  ])
  t.end()
})

test('what hints name comes after what is known and before resolvers, until it refuses', (t) => {
  const w = new World()
  w.register(h2, registration('web'))
  w.whereabouts.setRules([local(resolver(h4), 65_535)])
  const candidate = { peer: w.peers.add(h4), service: WEB, doubtful: false, resolver: true }
  const hint = encodeHint([
    { kind: 'instance', host: h3, locators: [{ address: '192.0.2.9', port: 9 }] },
    { kind: 'instance', host: h1, locators: [] },
  ])
  const next = w.environment.moved(candidate, hint, NOW)
  t.strictSame(
    next.map(({ peer }) => w.name(peer)),
    ['h3'],
    'not this host itself',
  )
  t.strictSame(w.hints, ['h3 192.0.2.9:9'])
  t.strictSame(kindsOf(w), ['h2', 'h3', 'h4 resolver'])
  w.environment.outcome({ ...candidate, peer: w.peers.add(h3), resolver: false }, 'refused', NOW, NOW)
  t.strictSame(kindsOf(w), ['h2', 'h4 resolver'])
  // An instance that sends us on comes last, whatever its record says.
  const instance = { peer: w.peers.add(h2), service: WEB, doubtful: false }
  w.environment.moved(instance, encodeHint([{ kind: 'instance', host: h3, locators: [] }]), NOW)
  w.environment.outcome(instance, 'refused', NOW, NOW)
  t.strictSame(kindsOf(w), ['h3', 'h4 resolver', 'h2'])
  t.strictSame(w.environment.moved(candidate, Uint8Array.of(1, 2), NOW), [])
  t.strictSame(w.drops, ['bad-control'])
  t.end()
})

test('hints of hosts that nothing is known of take only so much room', (t) => {
  const w = new World(4)
  w.tags.delete(h3)
  w.tags.delete(h4)
  const resolverPeer = { peer: w.peers.add(h2), service: WEB, doubtful: false, resolver: true }
  const hint = encodeHint([{ kind: 'instance', host: h3, locators: [] }])
  t.strictSame(w.environment.moved(resolverPeer, hint, NOW), [], 'half of the room is for members')
  w.tags.set(h3, [])
  t.equal(w.environment.moved(resolverPeer, hint, NOW).length, 1)
  t.end()
})

test('who asks for what is not here is told where it is, as far as the policy lets it', (t) => {
  const w = new World()
  t.equal(w.endpoint(h3, WEB), 'no-such-service')
  w.register(h2, registration('web'))
  const told = w.endpoint(h3, WEB)
  if (typeof told === 'string' || !('notHere' in told)) throw new Error('nothing was told')
  t.equal(told.notHere, 'moved')
  t.strictSame(decodeHint(told.hint!), [
    { kind: 'instance', host: h2, locators: [{ address: '192.0.2.1', port: 7002 }] },
  ])
  t.equal(w.endpoint(h2, WEB), 'no-instance', 'not who asks')
  w.whereabouts.setRules([local(DROP, 0)])
  t.equal(w.endpoint(h3, WEB), 'denied')
  w.whereabouts.setRules([local(DELAY, 0)])
  t.strictSame(w.endpoint(h3, WEB), { notHere: 'loading' })
  w.whereabouts.setRules([local(resolver(h4), 0)])
  const further = w.endpoint(h3, idOf('x.web'))
  t.match(typeof further === 'object' && 'notHere' in further && decodeHint(further.hint!), [
    { kind: 'resolver', host: h4 },
  ])
  const policy = parsePolicy({ default: 'deny', rules: [{ action: 'allow', from: ['staff'], to: ['web'] }] })
  if ('problems' in policy) throw new Error(policy.problems.join())
  w.policy = policy
  t.equal(w.endpoint(h3, idOf('x.web')), 'denied', 'also of a name that nobody has told us')
  w.tags.set(h3, ['staff'])
  t.match(w.endpoint(h3, idOf('x.web')), { notHere: 'moved' })
  t.equal(w.endpoint(h3, idOf('other')), 'denied')
  t.end()
})

test('an instance that is not well sends others on when there is a better one', (t) => {
  const w = new World()
  w.endpoints.set(`${WEB}/6/80`, { family: 4, address: Uint8Array.of(127, 0, 0, 1), port: 8080 })
  w.register(h1, registration('web', { state: 'unhealthy' }))
  t.match(w.endpoint(h3, WEB), { port: 8080 }, 'nobody else')
  w.register(h2, registration('web'))
  t.match(w.endpoint(h3, WEB), { notHere: 'moved' })
  t.match(w.endpoint(h2, WEB), { port: 8080 }, 'the better one is who asks')
  t.match(w.environment.localEndpoint(SELF, WEB, Protocol.tcp, 80, NOW), { port: 8080 }, 'own programs chose it')
  t.end()
})

test('while services are restored, who asks is to ask again', (t) => {
  const w = new World(8, NOW + 100)
  t.strictSame(w.endpoint(h3, WEB), { notHere: 'loading' })
  t.ok(w.environment.loading(NOW))
  w.endpoints.set(`${WEB}/6/80`, { family: 4, address: Uint8Array.of(127, 0, 0, 1), port: 8080 })
  t.match(w.endpoint(h3, WEB), { port: 8080 }, 'what is here already is served')
  t.equal(w.endpoint(h3, idOf('other'), Protocol.tcp, 80, NOW + 100), 'no-such-service', 'but not for ever')
  t.end()
})

test('a packet that is held has the neighbours asked, and their answer releases it', (t) => {
  const w = new World()
  const peer = w.peers.add(h2)
  w.peers.sealSlot[peer] = 1
  w.peers.setPath(peer, w.peers.addresses.acquire(encodeLocator({ address: '192.0.2.7', port: 7 })))
  w.whereabouts.setRules([local(DELAY, 0)])
  w.environment.ask({ kind: 'service', service: WEB, host: h3 }, Protocol.tcp, 80, NOW)
  t.strictSame(w.queried, [], 'a pinned name is not asked for')
  w.environment.ask({ kind: 'service', service: WEB }, Protocol.tcp, 80, NOW)
  const [to, question] = w.queried[0]!
  t.equal(to, peer)
  if (question?.kind !== 'question') throw new Error('no question')
  const { released } = w
  const hint = encodeHint([{ kind: 'instance', host: h3, locators: [] }])
  w.whereabouts.asking.receive(peer, encodeQuery({ kind: 'answer', id: question.id, hint }), NOW + 1)
  t.equal(w.released, released + 1)
  t.strictSame(kindsOf(w), ['h3'])
  // And the other way round: this host is the neighbour, and has it itself.
  w.whereabouts.setRules([])
  w.register(h1, registration('api'))
  const id = new Uint8Array(8).fill(200)
  const asked = { kind: 'question' as const, id, service: idOf('api'), protocol: 6, port: 80, hops: 1 }
  w.whereabouts.asking.receive(peer, encodeQuery(asked), NOW)
  const [, answer] = w.queried.at(-1)!
  t.match(answer?.kind === 'answer' && decodeHint(answer.hint), [{ kind: 'instance', host: h1 }])
  t.end()
})
