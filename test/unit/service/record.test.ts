import { test } from 'tap'
import { decodeHeartbeat, decodeRecord, encodeHeartbeat, encodeRecord, liveHash } from '../../../lib/service/record.js'
import { recordKey, type RecordPayload } from '../../../lib/service/registration.js'
import { keyName } from '../../../lib/service/service-id.js'
import { pack } from '../../../lib/wire/pack.js'
import { host, idOf, primitives, registration } from './fixtures.js'

const payloads: RecordPayload[] = [
  registration('web'),
  registration(keyName(new Uint8Array(32).fill(7)).text, { proof: new Uint8Array(64).fill(1), state: 'draining' }),
  {
    kind: 'claims',
    claims: [
      { role: 'dialled', id: idOf('web'), index: 77, since: 1_767_225_600 },
      { role: 'peer', id: host('h1'), index: 1, since: 0 },
    ],
  },
  {
    kind: 'locators',
    locators: [
      { address: '2001:db8::1', port: 7474 },
      { address: '203.0.113.9', port: 40_001, reflexive: true },
    ],
    relays: [host('relay')],
  },
  { kind: 'name', service: idOf('web'), name: 'web', since: 5, tags: ['web'], hosts: [host('h1')] },
]

test('records are read as they were written', async (t) => {
  for (const payload of payloads) {
    const fields = { key: recordKey(payload, 3), sequence: 2 ** 40, lifetime: 120_000, payload }
    t.strictSame(decodeRecord(encodeRecord(fields)), fields)
  }
  const withdrawn = { key: 'locators', sequence: 1, lifetime: 0, payload: { kind: 'withdrawn' as const } }
  t.strictSame(decodeRecord(encodeRecord(withdrawn)), withdrawn)
})

test('a record under a key that is not its own, or with half a withdrawal, is none', async (t) => {
  const payload = registration('web')
  t.equal(decodeRecord(encodeRecord({ key: 'service/x', sequence: 1, lifetime: 1, payload })), undefined)
  t.equal(decodeRecord(encodeRecord({ key: recordKey(payload), sequence: 1, lifetime: 0, payload })), undefined)
  t.equal(
    decodeRecord(encodeRecord({ key: 'locators', sequence: 1, lifetime: 1, payload: { kind: 'withdrawn' } })),
    undefined,
  )
})

test('ports, states and kinds out of bounds are no records', async (t) => {
  const good = registration('web')
  t.equal(decodeRecord(pack([1, 99, 'locators', 1, 1, null])), undefined, 'unknown kind')
  t.equal(decodeRecord(pack([2, 3, 'locators', 1, 1, [[], []]])), undefined, 'unknown version')
  t.ok(decodeRecord(pack([1, 3, 'locators', 1, 1, [[], [], 'later'], 'later'])), 'unknown fields are ignored')
  t.equal(decodeRecord(pack([1, 3, 'locators', 1, 1, [[['::1', 0]], []]])), undefined, 'port 0')
  const ports = Array.from({ length: 33 }, (_, i) => ({ protocol: 'tcp' as const, port: i + 1, localPort: 1 }))
  const many = encodeRecord({ key: recordKey(good), sequence: 1, lifetime: 1, payload: { ...good, ports } })
  t.equal(decodeRecord(many), undefined)
})

test('heartbeats', async (t) => {
  const live = liveHash([1, 2, 3], primitives)
  t.not(Buffer.compare(live, liveHash([1, 3], primitives)), 0)
  t.not(Buffer.compare(liveHash([2 ** 33], primitives), liveHash([2 ** 34], primitives)), 0)
  const fields = { sequence: 9, lease: 60_000, live, membership: new Uint8Array(8) }
  t.strictSame(decodeHeartbeat(encodeHeartbeat(fields)), fields)
  t.equal(decodeHeartbeat(encodeHeartbeat({ ...fields, lease: 0 })), undefined)
})
