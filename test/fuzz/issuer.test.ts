// What members and issuers say to each other, stamps, and claims kept on disk: any bytes give a value or nothing, and nothing that was changed is believed.
import fc from 'fast-check'
import tap, { test } from 'tap'
import { openIssuer } from '../../lib/crypto/authority.js'
import { openStamp, signStamp } from '../../lib/crypto/stamp.js'
import { Channel } from '../../lib/host/control-channel.js'
import { areClaims } from '../../lib/host/name-claims.js'
import { pack } from '../../lib/wire/pack.js'
import { fromHex } from '../../lib/wire/ids.js'
import { decodeIssuerMessage, encodeIssuerMessage, type IssuerMessage } from '../../lib/wire/issuer-message.js'
import { HostWorld } from '../sim/host-world.js'
import { NOW, primitives, TestNetwork } from '../unit/crypto/identity.js'
import { host, idOf } from '../unit/service/fixtures.js'

tap.setTimeout(120_000)

const messages: IssuerMessage[] = [
  { kind: 'stamp', request: 1, service: idOf('web') },
  { kind: 'renew', request: 2 ** 40 },
  { kind: 'stamped', request: 0, stamp: new Uint8Array(500).fill(7) },
  { kind: 'renewed', request: 3, membership: new Uint8Array(900).fill(8) },
  { kind: 'refused', request: 4, reason: 'claimed', detail: 'host h1 claimed the name before' },
]
const network = new TestNetwork()
const subject = { network: network.authority.network, service: idOf('web'), host: host('h1') }
const stamp = signStamp(network.issuer, network.certificate, subject, NOW)
const saved = pack([1, [[fromHex(idOf('web')), NOW, stamp]]])

/** Good bytes with some of them replaced, cut or added. */
const bent = (good: readonly Uint8Array[]) =>
  fc
    .tuple(
      fc.constantFrom(...good),
      fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })), { maxLength: 6 }),
      fc.option(fc.nat(), { nil: undefined }),
      fc.uint8Array({ maxLength: 8 }),
    )
    .map(([bytes, changes, cut, tail]) => {
      const copy = bytes.slice()
      for (const [at, byte] of changes) copy[at % copy.length]! ^= byte
      return Uint8Array.from([...copy.subarray(0, cut === undefined ? copy.length : cut % copy.length), ...tail])
    })
const anyBytes = fc.uint8Array({ maxLength: 1_200 })

test('messages are read as they were written, and any bytes give one or nothing', (t) => {
  for (const message of messages) t.strictSame(decodeIssuerMessage(encodeIssuerMessage(message)), message)
  fc.assert(
    fc.property(fc.oneof(anyBytes, bent(messages.map(encodeIssuerMessage))), (bytes) => {
      const message = decodeIssuerMessage(bytes)
      if (message !== undefined) encodeIssuerMessage(message)
    }),
    { numRuns: 5_000 },
  )
  t.throws(() => encodeIssuerMessage({ kind: 'stamped', request: 1, stamp: new Uint8Array(1_200) }), RangeError)
  t.match(decodeIssuerMessage(pack([1, 5, 9, 200, 'later'])), { reason: 'other' }, 'a reason of a later version')
  t.equal(decodeIssuerMessage(pack([2, 2, 9])), undefined, 'another version')
  t.end()
})

test('no stamp that was changed says anything', (t) => {
  const issuerOf = (bytes: Uint8Array) => openIssuer(primitives, bytes, network.authority.publicKey)
  const read = (bytes: Uint8Array) => openStamp(primitives, bytes, subject, issuerOf)
  const original = read(stamp)
  t.match(original, { time: NOW })
  fc.assert(
    fc.property(fc.oneof(anyBytes, bent([stamp])), (bytes) => {
      const value = read(bytes)
      // Encodings of the same value are many; what they say is one.
      return value === undefined || (value.time === NOW && value.issuer.host === network.issuer.id)
    }),
    { numRuns: 2_000 },
  )
  t.end()
})

test('claims on disk are whole or none', (t) => {
  t.ok(areClaims(saved))
  fc.assert(
    fc.property(fc.oneof(anyBytes, bent([saved])), (bytes) => void areClaims(bytes)),
    { numRuns: 2_000 },
  )
  t.notOk(areClaims(saved.subarray(0, -1)))
  t.end()
})

test('a member that says anything on the channel gets nothing by it, and harms nobody', (t) => {
  const world = new HostWorld(primitives, 5, { issuer: true, membershipSeconds: 86_400 })
  const [issuer, member, forger] = [world.add(['a']), world.add(['b']), world.add(['c'])]
  for (const one of [member, forger]) one.hints.push(issuer)
  for (const one of world.hosts) one.start()
  t.ok(world.until(() => world.converged, 10_000))
  member.expose('web', 80)
  world.runFor(2_000)
  const key = `name/${world.service('web')}`
  const claimOf = () => issuer.host.directory.record(member.id, key)?.payload
  const [before, until] = [claimOf(), member.host.members.member(member.id)]
  const ask = { kind: 'stamp' as const, request: 1, service: world.service('web') }
  const forged = [...messages, ask, { kind: 'stamped' as const, request: 1, stamp }].map(encodeIssuerMessage)
  fc.assert(
    fc.property(fc.oneof(anyBytes, bent(forged), fc.constantFrom(...forged)), (bytes) => {
      if (bytes.length > 1_100) return
      forger.enter(({ control, peers }) => {
        for (const to of [issuer, member]) control.send(peers.indexOf(to.id), Channel.issuing, bytes, world.now)
      })
      world.runFor(20)
    }),
    { numRuns: 1_500 },
  )
  world.runFor(5_000)
  t.strictSame(claimOf(), before)
  t.strictSame(member.host.members.member(member.id), until)
  t.equal(issuer.host.catalogue.byName('web')?.owner.claimant, member.id)
  t.equal(issuer.host.directory.record(forger.id, key), undefined)
  t.equal(issuer.host.control.pending + member.host.control.pending, 0)
  t.end()
})
