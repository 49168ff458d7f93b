// Any bytes and any text give a value or a reason, never an exception; and what was changed on its way is never taken for what was signed.
import fc from 'fast-check'
import { test } from 'tap'
import { z } from 'zod'
import { openIssuer } from '../../lib/crypto/authority.js'
import { HostKey } from '../../lib/crypto/host-key.js'
import { isMembershipProblem, verifyMembership } from '../../lib/crypto/membership.js'
import { NameRuleList, openNameRule, ruleAsAuthority, ruleAsIssuer } from '../../lib/crypto/name-rules.js'
import { Handshake, NO_PSK } from '../../lib/crypto/noise.js'
import { OwnerKey } from '../../lib/crypto/owner.js'
import { openRevocation, revokeAsAuthority } from '../../lib/crypto/revocations.js'
import { TokenLedger } from '../../lib/crypto/token-ledger.js'
import { InviteToken, parseToken, tokenPsk } from '../../lib/crypto/token.js'
import { TrustStore } from '../../lib/crypto/trust.js'
import { utf8 } from '../../lib/wire/bytes.js'
import { fromHex } from '../../lib/wire/ids.js'
import { pack, unpack } from '../../lib/wire/pack.js'
import { decodeSigned } from '../../lib/wire/signed.js'
import { NOW, primitives, TestNetwork } from '../unit/crypto/identity.js'

const network = new TestNetwork()
const host = HostKey.generate(primitives)
const authority = network.authority.publicKey
const profile = { name: 'home', ipv4Pool: '198.18.0.0/15', zone: 'svc.internal' }

const membership = network.member(host)
const revocation = revokeAsAuthority(network.authority, { host: host.id, serial: 1, time: NOW })
const ruleFields = {
  ...{ name: 'api.shop', tags: ['web'], hosts: [host.id], minPriority: 1, maxWeight: 9, free: false },
  serial: NOW * 1000,
}
const rule = ruleAsAuthority(network.authority, ruleFields)
const issuersRule = ruleAsIssuer(
  network.issuer,
  { network: fromHex(network.authority.network), certificate: network.certificate },
  ruleFields,
)
const secret = primitives.randomBytes(32)
const token = new InviteToken(
  {
    network: network.authority.network,
    authority,
    profile,
    issuer: network.issuer.id,
    locators: ['192.0.2.1:7474'],
    expiry: NOW + 60,
    tokenId: primitives.randomBytes(16),
    tags: ['web'],
  },
  secret,
).text(primitives)
const ledger = new TokenLedger()
ledger.add(
  { tokenId: primitives.randomBytes(16), psk: tokenPsk(primitives, secret), tags: [], expiry: NOW, uses: 3 },
  NOW,
)
const store = new TrustStore(primitives, { authority, profile })
store.adoptMembership(host.id, membership, NOW)
store.revocations.add(revocation)
store.nameRules.add(rule)
store.nameRules.add(issuersRule)

/** The bytes with some of them changed, and perhaps cut or lengthened. */
function mutated(original: Uint8Array): fc.Arbitrary<Uint8Array> {
  const edit = fc.tuple(fc.nat(original.length - 1), fc.integer({ min: 1, max: 255 }))
  const edits = fc.array(edit, { minLength: 1, maxLength: 4 })
  return fc
    .tuple(edits, fc.option(fc.nat(original.length - 1)), fc.uint8Array({ maxLength: 3 }))
    .map(([changes, cut, tail]) => {
      const bytes = original.slice()
      for (const [at, change] of changes) bytes[at]! ^= change
      return cut === null ? Uint8Array.from([...bytes, ...tail]) : bytes.subarray(0, cut)
    })
}
const anyBytes = fc.uint8Array({ maxLength: 300 })
const isOriginal = (bytes: Uint8Array, original: Uint8Array) => Buffer.from(bytes).equals(original)

function fuzz(what: string, runs: number, original: Uint8Array, accepts: (bytes: Uint8Array) => boolean): void {
  test(what, (t) => {
    t.ok(accepts(original), 'the original is taken')
    fc.assert(
      fc.property(fc.oneof(anyBytes, mutated(original)), (bytes) => isOriginal(bytes, original) || !accepts(bytes)),
      { numRuns: runs },
    )
    t.end()
  })
}

fuzz(
  'memberships',
  3000,
  membership,
  (bytes) => !isMembershipProblem(verifyMembership(primitives, bytes, network.check())),
)
fuzz(
  'issuer certificates',
  2000,
  network.certificate,
  (bytes) => openIssuer(primitives, bytes, authority) !== undefined,
)
fuzz('revocations', 2000, revocation, (bytes) => openRevocation(primitives, bytes, authority) !== undefined)

fuzz("rules of the authority's", 2000, rule, (bytes) => openNameRule(primitives, bytes, authority) !== undefined)
fuzz("rules of an issuer's", 2000, issuersRule, (bytes) => openNameRule(primitives, bytes, authority) !== undefined)

test('a list of rules holds what was signed and nothing else', (t) => {
  const list = new NameRuleList(primitives, authority, network.revocations)
  fc.assert(
    fc.property(
      fc.oneof(anyBytes, mutated(rule), mutated(issuersRule), fc.constantFrom(rule, issuersRule)),
      (bytes) => {
        const added = typeof list.add(bytes) === 'object'
        return !added || isOriginal(bytes, rule) || isOriginal(bytes, issuersRule)
      },
    ),
    { numRuns: 1000 },
  )
  t.equal(list.size, 2)
  t.end()
})

test("files of names' keys", (t) => {
  const key = OwnerKey.generate(primitives)
  const original = `# a key\n${key.text(primitives)}\n`
  const at = original.indexOf(' ', 8) + 1
  const edited = fc
    .tuple(fc.integer({ min: at, max: original.length - 2 }), fc.stringMatching(/^[A-Za-z0-9_-]{0,3}$/), fc.nat(3))
    .map(([from, text, skip]) => original.slice(0, from) + text + original.slice(from + skip))
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.string().map((text) => `caracal-key-1 ${text}`),
        edited,
      ),
      (text) => {
        const read = OwnerKey.parse(primitives, text)
        return read === undefined || isOriginal(read.publicKey, key.publicKey)
      },
    ),
    { numRuns: 3000 },
  )
  t.ok(OwnerKey.parse(primitives, original))
  t.end()
})

test('decoders of own files, and of signed blobs, give a value or undefined', (t) => {
  const inputs = [ledger.encode(), store.encode(), membership]
  const any = fc.oneof(anyBytes, ...inputs.map(mutated))
  fc.assert(
    fc.property(any, (bytes) => {
      TokenLedger.decode(bytes)?.encode()
      TrustStore.decode(primitives, bytes)?.encode()
      decodeSigned(bytes, 1000)
    }),
    { numRuns: 5000 },
  )
  t.pass()
  t.end()
})

test('packed values: any bytes, and all that can be packed comes back', (t) => {
  const depths = {
    maxDepth: 4,
    values: [fc.string(), fc.integer(), fc.double({ noNaN: true }), fc.boolean(), fc.uint8Array()],
  }
  const value = fc.array(fc.anything({ ...depths, key: fc.stringMatching(/^[a-z]{1,8}$/), withNullPrototype: false }))
  const schema = z.json().or(z.unknown())
  fc.assert(
    fc.property(fc.oneof(anyBytes, mutated(pack({ a: [1, 'x', utf8('bytes')], b: null }))), (bytes) => {
      unpack(bytes, 1000, schema)
    }),
    { numRuns: 10_000 },
  )
  const Plain: z.ZodType<Parameters<typeof pack>[0]> = z.lazy(() =>
    z.union([
      z.string(),
      z.number(),
      z.boolean(),
      z.null(),
      z.instanceof(Uint8Array),
      z.array(Plain),
      z.record(z.string(), Plain),
    ]),
  )
  let checked = 0
  fc.assert(
    fc.property(value, (candidate) => {
      const plain = Plain.safeParse(candidate)
      if (!plain.success) return
      checked++
      t.same(unpack(pack(plain.data), 1e6, z.unknown()), plain.data)
    }),
    { numRuns: 500 },
  )
  t.ok(checked > 100, 'enough of them can be packed')
  t.end()
})

test('tokens', (t) => {
  const edited = fc
    .tuple(fc.nat(token.length - 1), fc.string({ maxLength: 3 }), fc.nat(3))
    .map(([at, text, skip]) => token.slice(0, at) + text + token.slice(at + skip))
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.string().map((s) => `caracal1-${s}`),
        edited,
      ),
      (text) => {
        const parsed = parseToken(primitives, text, NOW)
        return 'problem' in parsed || text.replace(/\s/g, '') === token
      },
    ),
    { numRuns: 5000 },
  )
  t.ok(parseToken(primitives, token, NOW) instanceof InviteToken)
  t.end()
})

test('handshake messages', (t) => {
  const prologue = utf8('fuzz')
  const psk = NO_PSK
  const remoteStatic = host.staticKey
  const ours = () => ({ primitives, prologue, staticSecret: host.staticSecret() })
  const initiator = Handshake.initiate({
    primitives,
    prologue,
    psk,
    staticSecret: network.issuer.staticSecret(),
    remoteStatic,
  })
  const message1 = initiator.writeMessage1(utf8('payload'))
  const responder = Handshake.respond(ours())
  if (message1 === undefined || responder.readMessage1(message1) === undefined)
    throw new Error('the original is refused')
  const message2 = responder.writeMessage2(utf8('answer'), psk)
  if (message2 === undefined) throw new Error('no answer')
  fc.assert(
    fc.property(fc.oneof(anyBytes, mutated(message1)), (bytes) => {
      return isOriginal(bytes, message1) || Handshake.respond(ours()).readMessage1(bytes) === undefined
    }),
    { numRuns: 1000 },
  )
  fc.assert(
    fc.property(fc.oneof(anyBytes, mutated(message2)), (bytes) => {
      return isOriginal(bytes, message2) || initiator.readMessage2(bytes) === undefined
    }),
    { numRuns: 1000 },
  )
  t.same(initiator.readMessage2(message2), utf8('answer'), 'the true answer is still taken')
  t.end()
})
