import { test } from 'tap'
import { HostKey } from '../../../lib/crypto/host-key.js'
import { NameRuleList, ruleAsAuthority, ruleAsIssuer } from '../../../lib/crypto/name-rules.js'
import { RevocationList, revokeAsAuthority } from '../../../lib/crypto/revocations.js'
import { Directory, directoryDefaults } from '../../../lib/service/directory.js'
import { RECORDS_PER_HOST, type RecordChange } from '../../../lib/service/host-records.js'
import { encodeHeartbeat, encodeRecord, HEARTBEAT_LABEL, RECORD_LABEL } from '../../../lib/service/record.js'
import { recordKey } from '../../../lib/service/registration.js'
import { MemberTrust } from '../../../lib/service/trust.js'
import { decodeDirectoryMessage, encodeDirectoryMessage, type Bundle } from '../../../lib/wire/directory-message.js'
import { fromHex, hostId, type HostId } from '../../../lib/wire/ids.js'
import { NOW, primitives, TestNetwork } from '../crypto/identity.js'
import { registration } from './fixtures.js'

const LEASE = directoryDefaults.lease

/** A directory with real keys whose messages are handed over by the test. */
class TestHost {
  readonly key = HostKey.generate(primitives)
  readonly id = this.key.id
  readonly membership: Uint8Array
  readonly revocations: RevocationList
  readonly trust: MemberTrust
  readonly changes: RecordChange[] = []
  readonly sent: { to: HostId; bytes: Uint8Array }[] = []
  directory: Directory
  sequence = 0
  revoked = 0
  ruled = 0
  readonly rules: NameRuleList

  constructor(readonly network: TestNetwork) {
    this.membership = network.member(this.key)
    this.revocations = new RevocationList(primitives, network.authority.publicKey)
    this.rules = new NameRuleList(primitives, network.authority.publicKey, this.revocations)
    this.trust = new MemberTrust({
      primitives,
      key: this.key,
      authority: network.authority.publicKey,
      revocations: this.revocations,
      nameRules: this.rules,
      wallNow: () => NOW,
    })
    this.trust.learn(this.membership, this.id)
    this.directory = this.#start()
  }

  /** Another process, which remembers nothing but its sequence. */
  restart(): void {
    this.directory = this.#start()
  }

  #start(): Directory {
    const sequence = {
      next: () => ++this.sequence,
      raise: (above: number) => (this.sequence = Math.max(this.sequence, above)),
    }
    return new Directory(
      directoryDefaults,
      { trust: this.trust, sequence, hasher: primitives, random: () => 0 },
      {
        send: (to, bytes) => this.sent.push({ to, bytes }),
        changed: (change) => this.changes.push(change),
        revoked: () => this.revoked++,
        namesRuled: () => this.ruled++,
      },
    )
  }

  meet(other: TestHost, now: number): void {
    this.trust.learn(other.membership, other.id)
    this.directory.peerUp(other.id, now)
  }
}

/** Hands over everything that is said, until nobody says anything more. */
function talk(hosts: readonly TestHost[], now: number): void {
  for (let busy = true; busy;) {
    busy = false
    for (const from of hosts) {
      for (const { to, bytes } of from.sent.splice(0)) {
        busy = true
        hosts.find((host) => host.id === to)?.directory.receive(from.id, bytes, now)
      }
    }
  }
}

function pair(): [TestHost, TestHost] {
  const network = new TestNetwork()
  const [a, b] = [new TestHost(network), new TestHost(network)]
  a.meet(b, 0)
  b.meet(a, 0)
  talk([a, b], 0)
  return [a, b]
}

/** The bundle with a registration that `a` sends next. */
function nextBundle(a: TestHost, now: number): Bundle {
  a.directory.publish([{ payload: registration('web', { weight: Math.floor(now) + 1 }) }], now)
  const message = decodeDirectoryMessage(a.sent.pop()!.bytes)
  if (message?.kind !== 'bundle') throw new Error('no bundle')
  return message
}

test('what one publishes the other has, as a change, until it is withdrawn', async (t) => {
  const [a, b] = pair()
  const key = recordKey(registration('web'))
  a.directory.publish([{ payload: registration('web') }], 10)
  a.directory.publish([{ payload: registration('web') }], 11)
  t.equal(a.sent.length, 1, 'publishing the same again says nothing')
  talk([a, b], 10)
  t.strictSame(b.directory.record(a.id, key)?.payload, registration('web'))
  t.equal(b.directory.age(a.id, 25), 15)
  a.directory.withdraw([key], 20)
  talk([a, b], 20)
  t.equal(b.directory.record(a.id, key), undefined)
  t.strictSame(
    b.changes.map(({ record, before }) => [record?.key, before?.key]),
    [
      [key, undefined],
      [undefined, key],
    ],
  )
})

test('heartbeats keep records, silence ends them', async (t) => {
  const [a, b] = pair()
  a.directory.publish([{ payload: registration('web') }], 0)
  talk([a, b], 0)
  let now = 0
  for (; now < 3 * LEASE; now = Math.min(a.directory.nextTimeout(), b.directory.nextTimeout())) {
    a.directory.handleTimeout(now)
    b.directory.handleTimeout(now)
    talk([a, b], now)
  }
  t.equal(b.directory.recordsOf(a.id).length, 1)
  b.directory.peerDown(a.id)
  const end = now + LEASE + 2_000
  for (; now < end; now = Math.max(now + 1, b.directory.nextTimeout())) b.directory.handleTimeout(now)
  t.strictSame(b.directory.recordsOf(a.id), [])
  t.equal(b.changes.at(-1)?.record, undefined)
})

test('changed bytes, foreign signatures and replayed records are refused', async (t) => {
  const [a, b] = pair()
  const old = nextBundle(a, 10)
  const { records } = old
  const bent = records.map((blob) => ({
    ...blob,
    body: blob.body.map((byte, i) => (i === blob.body.length - 1 ? byte ^ 1 : byte)),
  }))
  b.directory.receive(a.id, encodeDirectoryMessage({ ...old, records: bent }), 10)
  t.equal(b.directory.recordsOf(a.id).length, 0)
  const forged = { ...registration('web'), weight: 9 }
  const body = encodeRecord({ key: recordKey(forged), sequence: old.live![0]!, lifetime: 1_000, payload: forged })
  const signed = b.trust.sign(RECORD_LABEL, body)
  b.directory.receive(a.id, encodeDirectoryMessage({ ...old, records: [signed] }), 10)
  t.equal(b.directory.recordsOf(a.id).length, 0)
  t.equal(b.directory.counters['bad-signature'] + b.directory.counters.malformed, 2)

  b.directory.receive(a.id, encodeDirectoryMessage(old), 10)
  t.equal(b.directory.recordsOf(a.id).length, 1)
  const newer = nextBundle(a, 20)
  b.directory.receive(a.id, encodeDirectoryMessage(newer), 20)
  b.directory.receive(a.id, encodeDirectoryMessage(old), 30)
  const payload = b.directory.recordsOf(a.id)[0]?.payload
  t.equal(payload?.kind === 'registration' && payload.weight, 21)
  t.equal(b.directory.counters.stale, 1)
})

test('a third host is believed by its membership, a stranger is not', async (t) => {
  const network = new TestNetwork()
  const [a, b, c] = [new TestHost(network), new TestHost(network), new TestHost(network)]
  const stranger = new TestHost(new TestNetwork())
  a.meet(b, 0)
  b.meet(a, 0)
  b.meet(c, 0)
  c.meet(b, 0)
  a.directory.publish([{ payload: registration('web') }], 0)
  talk([a, b, c], 0)
  t.equal(c.trust.membership(a.id) !== undefined, true, 'learnt from b')
  t.equal(c.directory.recordsOf(a.id).length, 1)

  stranger.trust.learn(c.membership, c.id)
  stranger.directory.peerUp(c.id, 0)
  const said = nextBundle(stranger, 5)
  c.directory.receive(b.id, encodeDirectoryMessage({ ...said, records: [] }), 5)
  c.directory.receive(
    b.id,
    encodeDirectoryMessage({ ...said, live: [], records: [], membership: stranger.membership }),
    5,
  )
  t.strictSame(c.directory.recordsOf(stranger.id), [])
  t.equal(c.directory.counters['not-member'] > 0, true)
})

test('a host that lost its disk goes on above its old numbers, and what it no longer offers goes', async (t) => {
  const [a, b] = pair()
  a.directory.publish([{ payload: registration('web') }, { payload: registration('old') }], 1)
  for (let i = 2; i < 50; i++) a.directory.publish([{ payload: registration('web', { weight: i }) }], i)
  talk([a, b], 50)
  b.directory.peerDown(a.id)
  const again = new TestHost(a.network)
  Object.assign(again, { key: a.key, id: a.id })
  const sequence = {
    next: () => ++again.sequence,
    raise: (above: number) => (again.sequence = Math.max(again.sequence, above)),
  }
  const restarted = new Directory(
    directoryDefaults,
    { trust: a.trust, sequence, hasher: primitives, random: () => 0 },
    {
      send: (to, bytes) => again.sent.push({ to, bytes }),
      changed: () => undefined,
      revoked: () => undefined,
      namesRuled: () => undefined,
    },
  )
  Object.assign(again, { directory: restarted })
  restarted.publish([{ payload: registration('web', { weight: 1_000 }) }], 60)
  restarted.peerUp(b.id, 60)
  b.directory.peerUp(a.id, 60)
  talk([again, b], 60)
  t.ok(again.sequence > a.sequence)
  t.strictSame(
    b.directory.recordsOf(a.id).map(({ payload }) => payload),
    [registration('web', { weight: 1_000 })],
  )
})

test('a revocation spreads, ends the membership and drops what was published', async (t) => {
  const network = new TestNetwork()
  const [a, b, bad] = [new TestHost(network), new TestHost(network), new TestHost(network)]
  for (const [x, y] of [
    [a, b],
    [b, a],
    [b, bad],
    [bad, b],
  ] as const)
    x.meet(y, 0)
  bad.directory.publish([{ payload: registration('web') }], 0)
  talk([a, b, bad], 0)
  t.equal(a.directory.recordsOf(bad.id).length, 1)
  a.revocations.add(revokeAsAuthority(network.authority, { host: bad.id, serial: 10, time: NOW }))
  a.trust.recheck()
  a.directory.revocationsChanged()
  talk([a, b, bad], 1)
  for (const host of [a, b]) {
    t.strictSame(host.directory.recordsOf(bad.id), [])
    t.ok(host.trust.isRevoked(bad.id))
  }
  t.equal(b.revoked, 1)
  bad.directory.publish([{ payload: registration('other') }], 2)
  talk([a, b, bad], 2)
  t.strictSame(b.directory.recordsOf(bad.id), [])
})

const rule = (name: string, serial = NOW * 1000) => ({
  ...{ name, tags: ['web'], hosts: [], minPriority: 0, maxWeight: 65_535, free: false },
  serial,
})

test('rules for names are exchanged at each new session, and spread', async (t) => {
  const network = new TestNetwork()
  const [a, b, c] = [new TestHost(network), new TestHost(network), new TestHost(network)]
  const many = Array.from({ length: 40 }, (_, i) => ruleAsAuthority(network.authority, rule(`service-${i}`)))
  for (const bytes of many) a.rules.add(bytes)
  b.rules.add(ruleAsAuthority(network.authority, rule('other')))
  a.meet(b, 0)
  b.meet(a, 0)
  talk([a, b], 0)
  t.equal(a.rules.size, 41)
  t.strictSame(a.rules.entries(), b.rules.entries())
  t.ok(a.ruled > 0 && b.ruled > 0)
  for (const [x, y] of [
    [b, c],
    [c, b],
  ] as const)
    x.meet(y, 1)
  talk([a, b, c], 1)
  t.equal(c.rules.size, 41)
  const told = [a.ruled, b.ruled, c.ruled]
  const fresh = ruleAsIssuer(
    network.issuer,
    { network: fromHex(network.authority.network), certificate: network.certificate },
    rule('late'),
  )
  a.rules.add(fresh)
  a.directory.nameRuleAdded(fresh)
  talk([a, b, c], 2)
  t.equal(c.rules.size, 42, 'passed on by the host in between')
  t.strictSame([a.ruled, b.ruled - told[1]!, c.ruled - told[2]!], [told[0], 1, 1])
  a.revocations.add(revokeAsAuthority(network.authority, { host: network.issuer.id, serial: 10, time: NOW }))
  a.trust.recheck()
  a.directory.revocationsChanged()
  talk([a, b, c], 3)
  for (const host of [a, b, c]) t.equal(host.rules.size, 41, 'what a revoked issuer signed is gone')
})

test('a host of a version without rules is told none', async (t) => {
  const network = new TestNetwork()
  const [a, b] = [new TestHost(network), new TestHost(network)]
  a.rules.add(ruleAsAuthority(network.authority, rule('pay')))
  a.meet(b, 0)
  a.sent.length = 0
  const { revocations } = a
  const hello = { kind: 'hello' as const, revocations: revocations.digest().slice(0, 8) }
  a.directory.receive(b.id, encodeDirectoryMessage(hello), 1)
  t.strictSame(a.sent, [])
  a.directory.receive(b.id, encodeDirectoryMessage({ ...hello, names: new Uint8Array(8) }), 1)
  t.strictSame(
    a.sent.map(({ bytes }) => decodeDirectoryMessage(bytes)?.kind),
    ['names'],
  )
})

test('a renewed membership is fetched by those who have the old one', async (t) => {
  const [a, b] = pair()
  const renewed = a.network.member(a.key, { serial: 11, tags: ['db'] })
  a.trust.learn(renewed, a.id)
  a.directory.membershipRenewed(5)
  talk([a, b], 5)
  t.strictSame(b.trust.member(a.id)?.tags, ['db'])
})

test('a host has a bounded number of records, and all of them arrive', async (t) => {
  const [a, b] = pair()
  const all = Array.from({ length: RECORDS_PER_HOST }, (_, i) => ({ payload: registration(`service-${i}`) }))
  a.directory.publish(all, 1)
  talk([a, b], 1)
  t.equal(b.directory.recordsOf(a.id).length, RECORDS_PER_HOST)
  t.throws(() => a.directory.publish([{ payload: registration('one-more') }], 2), RangeError)
  a.directory.withdraw([recordKey(registration('service-0'))], 3)
  a.directory.publish([{ payload: registration('one-more') }], 4)
  talk([a, b], 4)
  t.ok(b.directory.record(a.id, recordKey(registration('one-more'))))
})

test('synchronised once both agree', async (t) => {
  const network = new TestNetwork()
  const [a, b] = [new TestHost(network), new TestHost(network)]
  a.directory.publish([{ payload: registration('web') }], 0)
  a.meet(b, 0)
  b.meet(a, 0)
  t.notOk(b.directory.synced)
  for (let now = 0; now < 1_000; now = Math.min(a.directory.nextTimeout(), b.directory.nextTimeout())) {
    talk([a, b], now)
    a.directory.handleTimeout(now)
    b.directory.handleTimeout(now)
  }
  t.ok(a.directory.synced && b.directory.synced)
  t.equal(b.directory.recordsOf(a.id).length, 1)
  t.strictSame(b.directory.recordsOf(hostId('00'.repeat(32))), [])
})

test('a member that numbers its records far apart does not bring others down', async (t) => {
  const [a, b] = pair()
  const step = 2 ** 33
  const body = encodeHeartbeat({
    sequence: 300 * step,
    lease: LEASE,
    live: new Uint8Array(16),
    membership: new Uint8Array(8),
  })
  const heartbeat = a.trust.sign(HEARTBEAT_LABEL, body)
  for (let i = 1; i <= 200; i++) {
    const payload = registration(`service-${i}`)
    const record = encodeRecord({ key: recordKey(payload), sequence: i * step, lifetime: LEASE, payload })
    const bundle: Bundle = {
      kind: 'bundle',
      host: a.id,
      age: 0,
      heartbeat,
      records: [a.trust.sign(RECORD_LABEL, record)],
    }
    b.directory.receive(a.id, encodeDirectoryMessage(bundle), 10)
  }
  t.equal(b.directory.recordsOf(a.id).length, 200)
  b.sent.length = 0
  b.directory.handleTimeout(b.directory.nextTimeout())
  const wants = b.sent.map(({ bytes }) => decodeDirectoryMessage(bytes)).filter((message) => message?.kind === 'want')
  t.equal(wants.length, 1, 'it is asked for what is missing')
})

test('a revocation of before a restart reaches a peer to whom the restart is only another handshake', async (t) => {
  const [a, b] = pair()
  const bad = new TestHost(a.network)
  b.trust.learn(bad.membership, bad.id)
  a.revocations.add(revokeAsAuthority(a.network.authority, { host: bad.id, serial: 10, time: NOW }))
  a.trust.recheck()
  a.directory.peerUp(b.id, 5)
  talk([a, b], 5)
  b.directory.peerRenewed(a.id)
  talk([a, b], 6)
  t.ok(b.trust.isRevoked(bad.id))
})

test('a host that is starting says nothing of itself until it has all together', async (t) => {
  const [a, b] = pair()
  const locators = { kind: 'locators' as const, locators: [{ address: '192.0.2.1', port: 7 }], relays: [] }
  a.directory.publish([{ payload: registration('web') }, { payload: locators }], 0)
  talk([a, b], 0)
  const known = () =>
    b.directory
      .recordsOf(a.id)
      .map(({ key }) => key)
      .sort()
  const keys = known()
  t.equal(keys.length, 2)
  // The process is another one, on the same disk.
  a.sequence = 1_000
  a.restart()
  a.directory.hush()
  b.directory.peerDown(a.id)
  a.meet(b, 100)
  b.meet(a, 100)
  talk([a, b], 100)
  a.directory.publish([{ payload: locators }], 200)
  a.directory.handleTimeout(LEASE / 2)
  talk([a, b], 200)
  t.strictSame(known(), keys, 'what it had published stands')
  t.equal(a.directory.recordsOf(a.id).length, 1, 'it knows its own already')
  a.directory.publish([{ payload: registration('web') }], 300)
  a.directory.speak(400)
  talk([a, b], 400)
  t.strictSame(known(), keys)
  t.strictSame(
    b.directory.recordsOf(a.id).map(({ sequence }) => sequence > 1_000),
    [true, true],
    'as it is now',
  )
  a.directory.withdraw([recordKey(locators)], 500)
  talk([a, b], 500)
  t.equal(known().length, 1, 'from now on at once')
})
