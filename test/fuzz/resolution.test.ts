// Any bytes, and any change to good ones, give a hint or a question or nothing; and no stream of questions and answers makes a host say more than it was asked.
import fc from 'fast-check'
import { test } from 'tap'
import { Asking } from '../../lib/host/asking.js'
import { decodeHint, encodeHint, HINT_HOSTS_MAX, HINT_LOCATORS_MAX, type HintedHost } from '../../lib/path/hint.js'
import { hostId, serviceId } from '../../lib/wire/ids.js'
import { HINT_MAX } from '../../lib/wire/open.js'
import { decodeQuery, encodeQuery, QUERY_HOPS_MAX, type QueryMessage } from '../../lib/wire/query.js'

const runs = { numRuns: 4_000 }
const bytes32 = fc.uint8Array({ minLength: 32, maxLength: 32 })
const locator = fc.record({
  address: fc.oneof(fc.ipV4(), fc.constantFrom('::1', '2001:db8::7', 'fe80::1')),
  port: fc.integer({ min: 1, max: 65_535 }),
})
const hinted: fc.Arbitrary<HintedHost> = fc.record({
  kind: fc.constantFrom('instance' as const, 'resolver' as const),
  host: bytes32.map((bytes) => hostId(bytes)),
  locators: fc.array(locator, { maxLength: HINT_LOCATORS_MAX }),
})
const hosts = fc.array(hinted, { maxLength: HINT_HOSTS_MAX })
const id = fc.uint8Array({ minLength: 8, maxLength: 8 })
const message: fc.Arbitrary<QueryMessage> = fc.oneof(
  fc.record({
    kind: fc.constant('question' as const),
    id,
    service: bytes32.map((bytes) => serviceId(bytes)),
    protocol: fc.nat(255),
    port: fc.nat(65_535),
    hops: fc.integer({ min: 1, max: QUERY_HOPS_MAX }),
  }),
  fc.record({ kind: fc.constant('answer' as const), id, hint: fc.uint8Array({ maxLength: HINT_MAX }) }),
)
/** Good bytes with some of them replaced, cut or added. */
const bent = (good: fc.Arbitrary<Uint8Array>) =>
  fc
    .tuple(
      good,
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 }),
      fc.option(fc.nat(), { nil: undefined }),
      fc.uint8Array({ maxLength: 8 }),
    )
    .map(([bytes, changes, cut, tail]) => {
      const copy = bytes.slice()
      for (const [at, byte] of changes) copy[at % copy.length] = byte
      return Uint8Array.from([...copy.subarray(0, cut === undefined ? copy.length : cut % copy.length), ...tail])
    })
const anyBytes = fc.uint8Array({ maxLength: 700 })

test('hints', async (t) => {
  fc.assert(
    fc.property(hosts, (list) => {
      const bytes = encodeHint(list)
      return bytes.length <= HINT_MAX && JSON.stringify(decodeHint(bytes)) === JSON.stringify(list)
    }),
    runs,
  )
  fc.assert(
    fc.property(fc.oneof(anyBytes, bent(hosts.map(encodeHint))), (bytes) => {
      const hint = decodeHint(bytes)
      if (hint === undefined) return true
      // What is read can be written, and is then read the same.
      return hint.length <= HINT_HOSTS_MAX && JSON.stringify(decodeHint(encodeHint(hint))) === JSON.stringify(hint)
    }),
    runs,
  )
  t.pass()
})

test('questions and answers', async (t) => {
  fc.assert(
    fc.property(message, (one) => JSON.stringify(decodeQuery(encodeQuery(one))) === JSON.stringify(one)),
    runs,
  )
  fc.assert(
    fc.property(fc.oneof(anyBytes, bent(message.map(encodeQuery))), (bytes) => {
      const read = decodeQuery(bytes)
      return read === undefined || decodeQuery(encodeQuery(read)) !== undefined
    }),
    runs,
  )
  t.pass()
})

test('whatever comes, a host passes a question on at most once, to at most eight', async (t) => {
  // Few IDs, so that they meet.
  const few = message.map((one) => ({ ...one, id: one.id.map((byte, i) => (i === 0 ? byte % 3 : 0)) }))
  const input = fc.tuple(
    fc.integer({ min: 1, max: 12 }),
    fc.oneof(few.map(encodeQuery), bent(few.map(encodeQuery))),
    fc.nat(50),
  )
  fc.assert(
    fc.property(fc.array(input, { maxLength: 60 }), fc.boolean(), (inputs, knows) => {
      const passed = new Map<string, number>()
      let answers = 0
      const asking = new Asking({
        random: () => 0.5,
        randomBytes: (length) => new Uint8Array(length).fill(255),
        connected: () => Array.from({ length: 12 }, (_, i) => i + 1),
        send: (_, bytes) => {
          const sent = decodeQuery(bytes)
          if (sent?.kind === 'question') passed.set(sent.id.join(), (passed.get(sent.id.join()) ?? 0) + 1)
          else answers++
          return sent !== undefined
        },
        tell: () => (knows ? Uint8Array.of(1) : undefined),
        answered: () => undefined,
        drop: () => undefined,
      })
      let now = 0
      for (const [peer, bytes, wait] of inputs) asking.receive(peer, bytes, (now += wait))
      return [...passed.values()].every((count) => count <= 8) && answers <= inputs.length
    }),
    { numRuns: 500 },
  )
  t.pass()
})
