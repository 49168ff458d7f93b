// Any bytes, and any change to good ones, give a message or nothing; and no message brings a directory down or makes it believe what was not signed.
import fc from 'fast-check'
import { test } from 'tap'
import { decodeHeartbeat, decodeRecord, encodeHeartbeat, encodeRecord, liveHash } from '../../lib/service/record.js'
import { recordKey } from '../../lib/service/registration.js'
import { OwnerKey } from '../../lib/crypto/owner.js'
import { formatProof, isProven, parseProof, proveName } from '../../lib/service/name-proof.js'
import { keyName, parseServiceName } from '../../lib/service/service-id.js'
import { checkPolicy, parsePolicy } from '../../lib/service/policy.js'
import {
  decodeDirectoryMessage,
  encodeDirectoryMessage,
  type DirectoryMessage,
} from '../../lib/wire/directory-message.js'
import { DirectoryWorld, view } from '../sim/directory-world.js'
import { host, idOf, primitives, registration } from '../unit/service/fixtures.js'

const payload = registration('web')
const body = encodeRecord({ key: recordKey(payload), sequence: 5, lifetime: 1_000, payload })
const beat = encodeHeartbeat({
  sequence: 6,
  lease: 1_000,
  live: liveHash([5], primitives),
  membership: new Uint8Array(8),
})
const signed = (bytes: Uint8Array) => ({ body: bytes, signature: new Uint8Array(64).fill(3) })
const messages: DirectoryMessage[] = [
  { kind: 'hello', revocations: new Uint8Array(8) },
  { kind: 'hello', revocations: new Uint8Array(8), yours: signed(beat) },
  { kind: 'hello', revocations: new Uint8Array(8), names: new Uint8Array(8).fill(2) },
  { kind: 'hello', revocations: new Uint8Array(8), yours: signed(beat), names: new Uint8Array(8) },
  { kind: 'revocations', items: [new Uint8Array(100).fill(1)] },
  { kind: 'names', items: [new Uint8Array(100).fill(1), new Uint8Array(7)] },
  { kind: 'digest', reply: true, groups: new Uint8Array(512).fill(9) },
  { kind: 'summary', entries: [{ host: host('h1'), sequence: 2 ** 45, complete: true }] },
  { kind: 'want', host: host('h1'), membership: true, have: [1, 2, 500, 2 ** 40] },
  {
    kind: 'bundle',
    host: host('h1'),
    age: 17,
    membership: new Uint8Array(200),
    heartbeat: signed(beat),
    live: [5],
    records: [signed(body)],
  },
  { kind: 'beats', beats: [{ host: host('h1'), age: 3, heartbeat: signed(beat) }] },
  { kind: 'late', entries: [{ host: host('h1'), sequence: 2 ** 45 }] },
]
/** Good bytes with some of them replaced, cut or added. */
const bent = (good: readonly Uint8Array[]) =>
  fc
    .tuple(
      fc.constantFrom(...good),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 }),
      fc.option(fc.nat(), { nil: undefined }),
      fc.uint8Array({ maxLength: 8 }),
    )
    .map(([bytes, changes, cut, tail]) => {
      const copy = bytes.slice()
      for (const [at, byte] of changes) copy[at % copy.length] = byte
      return Uint8Array.from([...copy.subarray(0, cut === undefined ? copy.length : cut % copy.length), ...tail])
    })
const anyBytes = fc.uint8Array({ maxLength: 1_200 })
const runs = { numRuns: 4_000 }

test('messages, records and heartbeats are read as they were written', async (t) => {
  for (const message of messages) t.strictSame(decodeDirectoryMessage(encodeDirectoryMessage(message)), message)
})

test('decoders are total', async (t) => {
  const goodMessages = messages.map((message) => encodeDirectoryMessage(message))
  fc.assert(
    fc.property(fc.oneof(anyBytes, bent(goodMessages)), (bytes) => {
      const message = decodeDirectoryMessage(bytes)
      // What is read can be written, up to the size of a control message that later fields may have filled.
      return message === undefined || encodeDirectoryMessage(message).length <= bytes.length + 64
    }),
    runs,
  )
  fc.assert(
    fc.property(fc.oneof(anyBytes, bent([body])), (bytes) => {
      const record = decodeRecord(bytes)
      return record === undefined || decodeRecord(encodeRecord(record)) !== undefined
    }),
    runs,
  )
  fc.assert(
    fc.property(fc.oneof(anyBytes, bent([beat])), (bytes) => {
      const heartbeat = decodeHeartbeat(bytes)
      return heartbeat === undefined || heartbeat.sequence > 0
    }),
    runs,
  )
  t.pass('no exception')
})

test('names are parsed or refused with a text', async (t) => {
  const text = fc.oneof(
    fc.string(),
    fc.stringMatching(/^[~a-zA-Z0-9.-]{0,60}$/),
    fc.stringMatching(/^k--[a-z2-7]{51,53}$/),
  )
  fc.assert(
    fc.property(text, (name) => {
      const parsed = parseServiceName(name)
      if ('problem' in parsed) return parsed.problem.length > 10
      const again = parseServiceName(parsed.text)
      return 'text' in again && again.text === parsed.text
    }),
    runs,
  )
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (key) => {
      const parsed = parseServiceName(keyName(key).text)
      return 'kind' in parsed && parsed.kind === 'key' && parsed.key.every((byte, i) => byte === key[i])
    }),
  )
  t.pass('no exception')
})

test('proofs are read or refused, and a changed one proves nothing', async (t) => {
  const key = OwnerKey.generate(primitives)
  const proof = proveName(key, idOf(keyName(key.publicKey).text), host('h1'))
  const text = formatProof(proof)
  const edited = fc
    .tuple(fc.nat(text.length - 1), fc.stringMatching(/^[A-Za-z0-9_-]$/))
    .map(([at, character]) => text.slice(0, at) + character + text.slice(at + 1))
  fc.assert(
    fc.property(fc.oneof(fc.string(), edited), (given) => {
      const read = parseProof(given)
      return read === undefined || given === text || !isProven(primitives, key.publicKey, read)
    }),
    runs,
  )
  t.ok(isProven(primitives, key.publicKey, parseProof(text)!))
})

test('policies are parsed or refused', async (t) => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.anything(),
        fc.record({
          rules: fc.array(
            fc.record({
              action: fc.constantFrom('allow', 'deny'),
              ports: fc.array(fc.string()),
              to: fc.array(fc.string()),
            }),
          ),
        }),
      ),
      (config) => {
        const policy = parsePolicy(config)
        if ('problems' in policy) return policy.problems.length > 0
        return typeof checkPolicy(policy, { tags: [], service: 'web', protocol: 6, port: 80 }).allowed === 'boolean'
      },
    ),
  )
  t.pass('no exception')
})

test('a directory under a hail of bent messages keeps what is true', async (t) => {
  const world = new DirectoryWorld(primitives, 1, 3, () => 5)
  const [a, b, c] = world.hosts
  const heard: Uint8Array[] = []
  const send = world.send.bind(world)
  world.send = (from, to, bytes) => {
    heard.push(bytes)
    send(from, to, bytes)
  }
  a!.directory.publish([{ payload }, { payload: registration('api.shop') }], 0)
  world.connect(a!, b!)
  world.connect(b!, c!)
  world.run(6_000)
  const before = view(c!)
  t.equal(before.length, 2)
  fc.assert(
    fc.property(fc.oneof(anyBytes, bent(heard)), (bytes) => {
      c!.directory.receive(b!.id, bytes, world.now)
      return c!.directory.recordsOf(a!.id).length === 2
    }),
    runs,
  )
  world.run(world.now + 10_000)
  t.strictSame(view(c!), before)
  t.strictSame(c!.directory.record(a!.id, recordKey(payload))?.payload, { ...payload, service: idOf('web') })
  t.ok(c!.directory.hosts().length <= 3)
})
