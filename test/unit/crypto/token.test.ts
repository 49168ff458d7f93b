import { inspect } from 'node:util'
import { test } from 'tap'
import { HostKey } from '../../../lib/crypto/host-key.js'
import { NetworkProfile } from '../../../lib/crypto/network-profile.js'
import { TokenLedger } from '../../../lib/crypto/token-ledger.js'
import { InviteToken, parseToken, tokenPsk, type TokenFields } from '../../../lib/crypto/token.js'
import { toHex } from '../../../lib/wire/ids.js'
import { DAY, NOW, primitives, TestNetwork } from './identity.js'

const network = new TestNetwork()
const secret = new Uint8Array(32).map((_, i) => i + 100)

function token(changes: Partial<TokenFields> = {}): InviteToken {
  const fields = {
    network: network.authority.network,
    authority: network.authority.publicKey,
    profile: { name: 'home', ipv4Pool: '198.18.0.0/15', zone: 'svc.internal' },
    issuer: network.issuer.id,
    locators: ['192.0.2.1:7474', '[2001:db8::1]:7474'],
    expiry: NOW + 3600,
    tokenId: new Uint8Array(16).fill(3),
    tags: ['web'],
  }
  return new InviteToken({ ...fields, ...changes }, secret)
}
const parse = (text: string, wallNow = NOW) => parseToken(primitives, text, wallNow)

test('a token says everything needed to join', (t) => {
  const text = token().text(primitives)
  t.match(text, /^caracal1-[A-Za-z0-9_-]+$/)
  const parsed = parse(text)
  t.ok(parsed instanceof InviteToken)
  t.same(JSON.stringify(parsed), JSON.stringify(token()))
  if (parsed instanceof InviteToken) t.same(parsed.psk(primitives), tokenPsk(primitives, secret))
  t.ok(parse(`  ${text.slice(0, 70)}\n${text.slice(70)}\n`) instanceof InviteToken, 'as a terminal wrapped it')
  t.end()
})

test('every cut is called a cut', (t) => {
  const text = token().text(primitives)
  for (let length = 1; length < text.length; length++) {
    const result = parse(text.slice(0, length))
    if (!('problem' in result) || result.problem !== 'truncated') t.fail(`cut at ${length}: ${JSON.stringify(result)}`)
  }
  t.match(parse(text.slice(0, -1)), { problem: 'truncated', detail: /is cut short/ })
  t.end()
})

test('other damage is told apart', (t) => {
  const text = token().text(primitives)
  const at = 60
  const changed = text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1)
  t.match(parse(changed), { problem: 'malformed' })
  t.match(parse(`${text}A`), { problem: 'malformed', detail: /after the end/ })
  t.match(parse(''), { problem: 'malformed' })
  t.match(parse('hello'), { problem: 'malformed', detail: /caracal1-/ })
  t.match(parse('caracal1-!!!!'), { problem: 'malformed' })
  t.match(parse('caracal1-____'), { problem: 'malformed' })
  t.match(parse(text.replace('caracal1', 'caracal2')), { problem: 'unsupported-version' })
  t.match(parse(text, NOW + 3601), { problem: 'expired', detail: /2026-01-01T01:00:00Z.*01:00:01Z/ })
  const stolen = token({ authority: new TestNetwork().authority.publicKey })
  t.match(parse(stolen.text(primitives)), { problem: 'malformed' }, 'the authority is not the network’s')
  t.end()
})

test('fields out of bounds make no token', (t) => {
  t.throws(() => token({ locators: [] }).text(primitives), RangeError)
  t.throws(() => token({ tokenId: new Uint8Array(3) }).text(primitives), RangeError)
  t.throws(() => new InviteToken(token(), new Uint8Array(31)), RangeError)
  t.ok(
    parse(
      token({ tags: [], locators: Array.from({ length: 8 }, () => '[2001:db8::1]:7474') }).text(primitives),
    ) instanceof InviteToken,
  )
  for (const ipv4Pool of ['198.18.0.0', '198.18.0.0/33', '300.1.1.1/8', '01.1.1.1/8', '10.0.0.0/25'])
    t.notOk(NetworkProfile.safeParse({ name: 'x', ipv4Pool, zone: 'svc.internal' }).success, ipv4Pool)
  for (const zone of ['', '.internal', 'svc.', 'SVC', 'a b'])
    t.notOk(NetworkProfile.safeParse({ name: 'x', ipv4Pool: '10.0.0.0/8', zone }).success, zone)
  t.end()
})

test('the secret shows in the text only', (t) => {
  const shown = inspect(token(), { depth: 9, showHidden: true }) + JSON.stringify(token()) + String(token())
  for (const form of [toHex(secret), Buffer.from(secret).toString('base64url'), [...secret].join(), '100, 101, 102'])
    t.notOk(shown.includes(form))
  const problem = parse(token().text(primitives).slice(0, -5))
  t.notOk(JSON.stringify(problem).includes(token().text(primitives).slice(30, 60)))
  t.end()
})

const tokenId = new Uint8Array(16).fill(1)
const psk = tokenPsk(primitives, secret)
const [a, b, c] = [1, 2, 3].map(() => HostKey.generate(primitives).id) as [
  ReturnType<typeof HostKey.generate>['id'],
  ReturnType<typeof HostKey.generate>['id'],
  ReturnType<typeof HostKey.generate>['id'],
]

test('uses are counted once a host, over restarts', (t) => {
  let ledger = new TokenLedger()
  t.ok(ledger.add({ tokenId, psk, tags: ['web'], expiry: NOW + 60, uses: 2 }, NOW))
  t.same(ledger.find(tokenId, a, NOW), { psk, tags: ['web'], expiry: NOW + 60, usesLeft: 2 })
  t.match(ledger.redeem(tokenId, a, NOW), { usesLeft: 1 })
  const restarted = TokenLedger.decode(ledger.encode())
  t.ok(restarted)
  ledger = restarted ?? ledger
  t.match(ledger.redeem(tokenId, a, NOW), { usesLeft: 1 }, 'the same host again')
  t.match(ledger.redeem(tokenId, b, NOW), { usesLeft: 0 })
  t.equal(ledger.redeem(tokenId, c, NOW), 'used-up')
  t.match(ledger.redeem(tokenId, b, NOW + 60), { usesLeft: 0 })
  t.equal(ledger.redeem(tokenId, b, NOW + 61), 'expired')
  t.equal(ledger.redeem(new Uint8Array(16), a, NOW), 'unknown')
  t.ok(ledger.withdraw(tokenId))
  t.equal(ledger.redeem(tokenId, a, NOW), 'unknown')
  t.end()
})

test('the ledger is bounded and forgets old tokens', (t) => {
  const ledger = new TokenLedger()
  const id = (n: number) => new Uint8Array(new Uint32Array([n, 0, 0, 0]).buffer)
  let n = 0
  while (n < 5000 && ledger.add({ tokenId: id(n), psk, tags: [], expiry: NOW, uses: 1 }, NOW)) n++
  t.equal(n, 1024)
  t.ok(ledger.add({ tokenId: id(n), psk, tags: [], expiry: NOW + 9 * DAY, uses: 1000 }, NOW + DAY + 1))
  t.equal(ledger.size, 1)
  t.throws(() => ledger.add({ tokenId, psk, tags: [], expiry: NOW, uses: 1001 }, NOW), RangeError)
  t.throws(() => ledger.add({ tokenId, psk, tags: [], expiry: NOW, uses: 0 }, NOW), RangeError)
  t.equal(TokenLedger.decode(ledger.encode().subarray(0, -1)), undefined)
  t.notOk(inspect(ledger, { depth: 9 }).includes(inspect(psk).slice(16, 40)))
  t.end()
})
