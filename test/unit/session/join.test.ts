import { test } from 'tap'
import { HostKey } from '../../../lib/crypto/host-key.js'
import { IPV4_POOL, ZONE } from '../../../lib/crypto/network-profile.js'
import { TokenLedger } from '../../../lib/crypto/token-ledger.js'
import { InviteToken, tokenPsk } from '../../../lib/crypto/token.js'
import { JoinClient, type Joined, type JoinFailure, type JoinWish } from '../../../lib/session/join-client.js'
import { JoinIssuer } from '../../../lib/session/join-issuer.js'
import type { JoinGrant, JoinRefusal } from '../../../lib/session/join-payload.js'
import { FrameType } from '../../../lib/wire/constants.js'
import { FIRST_MESSAGE_MIN, HANDSHAKE_MAX } from '../../../lib/wire/handshake.js'
import { record, VirtualNetwork, WALL_START } from '../../sim/session-host.js'
import { sodium } from '../../tools/sodium.js'

const CLIENT = '10.0.0.200:7474'

/** An issuer, its ledger, and joining hosts at CLIENT. */
function office(seed: number, uses = 1, loadThreshold = 1000) {
  const net = new VirtualNetwork(sodium, seed)
  const ledger = new TokenLedger()
  const names = new Map<string, string>([['taken', 'somebody']])
  let admitted = 0
  let deliver: (bytes: Uint8Array) => void = () => undefined
  const issuer = net.host('I', {
    options: { loadThreshold },
    issuer: ({ send, key }) =>
      new JoinIssuer({
        primitives: net.primitives,
        hostKey: key,
        network: net.authority.network,
        sendDatagram: send,
        authority: {
          find: (tokenId, host, wallNow) => ledger.find(tokenId, host, wallNow),
          admit: (request, _token, wallNow): JoinGrant | JoinRefusal => {
            admitted++
            const holder = names.get(request.name)
            if (holder !== undefined && holder !== request.host)
              return { refusal: 'name-taken', detail: `${request.name} is taken` }
            const token = ledger.redeem(request.tokenId, request.host, wallNow)
            if (typeof token === 'string') return { refusal: 'denied', detail: token }
            names.set(request.name, request.host)
            const locators = Array.from({ length: 16 }, (_, i) => ({ host: key.id, locator: `192.0.2.${i}:7474` }))
            const profile = { name: 'home', ipv4Pool: IPV4_POOL, zone: ZONE }
            return { membership: net.membership(request.host, request.name), profile, locators }
          },
        },
      }),
  })
  const secret = net.primitives.randomBytes(32)
  const tokenId = net.primitives.randomBytes(16)
  const expiry = WALL_START + 3600
  ledger.add({ tokenId, psk: tokenPsk(net.primitives, secret), tags: [], expiry, uses }, WALL_START)
  const fields = {
    network: net.authority.network,
    authority: net.authority.publicKey,
    profile: { name: 'home', ipv4Pool: IPV4_POOL, zone: ZONE },
    issuer: issuer.key.id,
    locators: [issuer.address],
    expiry,
    tokenId,
    tags: [],
  }
  const token = new InviteToken(fields, secret)

  const join = (
    key = HostKey.generate(net.primitives),
    wish: JoinWish = { name: 'newcomer' },
    using = token,
    clockOffset = 0,
  ) => {
    const outcomes: (Joined | JoinFailure)[] = []
    const client = new JoinClient(
      {
        primitives: net.primitives,
        hostKey: key,
        token: using,
        sink: {
          sendDatagram: (bytes, address) => {
            const to = [...net.hosts.keys()].find((known) => record(known).every((byte, i) => byte === address[i]))
            net.send(CLIENT, to ?? 'nowhere', bytes)
          },
          joined: (result) => outcomes.push(result),
          failed: (failure) => outcomes.push(failure),
        },
      },
      wish,
    )
    // The network's loop knows tables only: the client looks at the clock every 10 ms.
    const tick = () => {
      if (net.now >= client.nextTimeout()) client.handleTimeout(net.now)
      if (client.running) net.at(net.now + 10, tick)
    }
    const wall = () => net.wallNow + clockOffset
    deliver = (bytes) => void client.receive(bytes, 0, bytes.length, net.now, wall())
    client.start(net.now, wall())
    tick()
    return { client, outcomes, key }
  }
  const send = net.send.bind(net)
  net.send = (from, to, bytes) => {
    if (to !== CLIENT) return send(from, to, bytes)
    const copy = bytes.slice()
    if (!net.filter({ from, to, bytes: copy })) return
    net.at(net.now + 5, () => deliver(copy))
  }
  return { net, ledger, issuer, token, fields, secret, join, admitted: () => admitted }
}

test('a token is all that joining needs', async (t) => {
  const { net, ledger, token, join } = office(1)
  const sizes: Record<number, number> = {}
  net.filter = ({ bytes }) => {
    sizes[bytes[0]!] = bytes.length
    return true
  }
  const { outcomes, key } = join()
  net.runFor(11)
  t.equal(outcomes.length, 1)
  t.match(outcomes[0], { membership: { host: key.id, name: 'newcomer' }, profile: { name: 'home', zone: ZONE } })
  const joined = outcomes[0]
  t.ok(joined !== undefined && 'locators' in joined && joined.locators.length > 8, 'as many locators as fit')
  t.equal(ledger.find(token.tokenId, HostKey.generate(net.primitives).id, WALL_START), 'used-up')
  t.ok(sizes[FrameType.join]! >= FIRST_MESSAGE_MIN && sizes[FrameType.joined]! <= 3 * sizes[FrameType.join]!)
  t.ok(sizes[FrameType.joined]! <= HANDSHAKE_MAX)
})

test('a lost answer uses nothing up', async (t) => {
  const { net, join, admitted } = office(2)
  let answers = 0
  net.filter = ({ bytes }) => !(bytes[0] === FrameType.joined && ++answers <= 2)
  const { outcomes, key } = join()
  net.runFor(2000)
  t.equal(answers, 3)
  t.match(outcomes, [{ membership: { host: key.id } }])
  t.equal(admitted(), 1)
  // The client's daemon was killed before it wrote the membership down: same key, same token, later.
  net.runFor(120_000)
  const again = join(key)
  net.runFor(100)
  t.match(again.outcomes, [{ membership: { host: key.id } }])
  // Another host with the same token is refused.
  const other = join()
  net.runFor(100)
  t.match(other.outcomes, [{ problem: 'used-up' }])
})

test('refusals say why', async (t) => {
  const { net, fields, secret, join, ledger, token, issuer } = office(3, 5)
  const cases: [string, ReturnType<typeof join>][] = []
  const run = (problem: string, attempt: ReturnType<typeof join>) => {
    net.runFor(1000)
    cases.push([problem, attempt])
  }
  run('name-taken', join(undefined, { name: 'taken' }))
  run('clock-skew', join(undefined, undefined, undefined, -3600))
  run('unknown-token', join(undefined, undefined, new InviteToken({ ...fields, tokenId: new Uint8Array(16) }, secret)))
  run('unknown-token', join(undefined, undefined, new InviteToken(fields, new Uint8Array(32))))
  net.run(net.now + 4000 * 1000)
  run('expired', join())
  for (const [problem, { outcomes }] of cases) {
    t.match(outcomes, [{ problem }])
    const [outcome] = outcomes
    t.ok(outcome !== undefined && 'detail' in outcome && outcome.detail.length > 10)
  }
  t.match(cases[1]![1].outcomes[0], { detail: /2027-01-15T07:.*2027-01-15T08:/ }, 'both clocks are named')
  const known = ledger.find(token.tokenId, issuer.key.id, WALL_START)
  t.ok(typeof known === 'object' && known.usesLeft === 5, 'no refusal uses the token up')
})

test('no answer is a failure too', async (t) => {
  const { net, fields, secret, join } = office(4)
  const away = new InviteToken({ ...fields, locators: ['10.77.0.1:1'] }, secret)
  const { outcomes } = join(undefined, undefined, away)
  net.runFor(9900)
  t.same(outcomes, [])
  net.runFor(200)
  t.match(outcomes, [{ problem: 'no-answer', detail: /10\.77\.0\.1:1/ }])
  // The token names another issuer than the one who is there: it keeps silent.
  const wrong = new InviteToken({ ...fields, issuer: HostKey.generate(net.primitives).id }, secret)
  const second = join(undefined, undefined, wrong)
  net.runFor(11_000)
  t.match(second.outcomes, [{ problem: 'no-answer' }])
})

test('under load a joining host needs a cookie and gets it', async (t) => {
  const { net, join } = office(5, 5, 1)
  let cookies = 0
  net.filter = ({ bytes }) => {
    if (bytes[0] === FrameType.cookie) cookies++
    return true
  }
  join()
  net.runFor(50)
  const second = join(undefined, { name: 'second' })
  net.runFor(50)
  t.equal(cookies, 1)
  t.match(second.outcomes, [{ membership: { name: 'second' } }])
})

test('a joining host believes nobody but its issuer', async (t) => {
  const { net, join } = office(6)
  let forged = 0
  net.filter = (passing) => {
    if (passing.bytes[0] === FrameType.joined && forged < 1) {
      passing.bytes[50]! ^= 1
      forged++
    }
    return true
  }
  const { outcomes } = join()
  net.runFor(200)
  t.same(outcomes, [], 'a damaged answer is not an answer')
  net.runFor(200)
  t.match(outcomes, [{ membership: {} }], 'the next one is')
})

test('a bad wish is an error of the caller', async (t) => {
  const { join } = office(7)
  t.throws(() => join(undefined, { name: 'No Name' }), RangeError)
})
