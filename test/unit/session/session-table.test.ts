import { test } from 'tap'
import { Authority } from '../../../lib/crypto/authority.js'
import { HostKey } from '../../../lib/crypto/host-key.js'
import { IPV4_POOL, ZONE } from '../../../lib/crypto/network-profile.js'
import { revokeAsAuthority } from '../../../lib/crypto/revocations.js'
import { TrustStore } from '../../../lib/crypto/trust.js'
import { FrameType } from '../../../lib/wire/constants.js'
import { COOKIE_REPLY_LENGTH, HANDSHAKE_MAX, HandshakeView } from '../../../lib/wire/handshake.js'
import { isType, record, VirtualNetwork, WALL_START, type HostOptions, type Passing } from '../../sim/session-host.js'
import { sodium } from '../../tools/sodium.js'

function pair(seed: number, options: HostOptions = {}) {
  const net = new VirtualNetwork(sodium, seed)
  return { net, a: net.host('A', options), b: net.host('B', options) }
}

/** Pair with the lower host ID first. */
function orderedPair(seed: number, options: HostOptions = {}) {
  const { net, a, b } = pair(seed, options)
  return a.key.id < b.key.id ? { net, low: a, high: b } : { net, low: b, high: a }
}

test('a handshake takes one round trip; then frames go both ways and both ends know', async (t) => {
  const { net, a, b } = pair(1)
  a.connect(b)
  net.runFor(9)
  t.same(a.events, [])
  net.runFor(2)
  t.same(a.events, ['established B'])
  t.equal(a.sessions[0]!.rttMs, 10)
  t.same(b.events, [], 'message 1 has no effect before its sender has proven itself')
  t.equal(b.send(a, 'too early'), false)
  net.runFor(5)
  t.same(b.events, ['established A', 'confirmed A'])
  net.runFor(5)
  t.same(a.events, ['established B', 'confirmed B'])

  t.ok(a.send(b, 'ping') && b.send(a, 'pong'))
  net.runFor(10)
  t.same(b.received, ['ping'])
  t.same(a.received, ['pong'])
  t.match(a.info(b), {
    connected: true,
    confirmed: true,
    role: 'initiator',
    aead: 'chacha20-poly1305',
    lanes: 1,
    rekeys: 0,
  })
  t.match(b.info(a), { connected: true, confirmed: true, role: 'responder', entriesReceived: 2 })
  t.equal(a.table.membershipOf(a.peer(b))?.name, 'b')
  t.equal(b.table.membershipOf(b.peer(a))?.host, a.key.id)
  t.same([a.table.count, b.table.count], [1, 1])
  const keys = /[0-9a-f]{32}/
  t.notMatch(JSON.stringify(a.info(b)), keys)
})

test('connect while connecting or connected makes no second session', async (t) => {
  const { net, a, b } = pair(2)
  let inits = 0
  net.filter = (passing) => {
    if (isType(passing, FrameType.init)) inits++
    return true
  }
  for (let i = 0; i < 5; i++) a.connect(b)
  net.runFor(100)
  a.connect(b)
  net.runFor(1000)
  t.equal(inits, 1)
  t.same(a.events, ['established B', 'confirmed B'])
})

test('several candidate addresses: the one that answers wins, quickly', async (t) => {
  const { net, a, b } = pair(3)
  a.connect(b, '10.9.9.1:1', '10.9.9.2:1', b.address)
  net.runFor(95)
  t.same(a.events, ['established B'])
  t.same(a.sessions[0]!.address, record(b.address))
  const c = net.host('C')
  a.connect(c, '10.9.9.1:1')
  net.runFor(300)
  a.connect(c, c.address)
  net.runFor(11)
  t.ok(a.events.includes('established C'), 'an address learnt later is asked at once')
})

test('without an answer it tries again, at growing intervals, and gives up', async (t) => {
  const { net, a, b } = pair(4)
  const times: number[] = []
  net.filter = (passing) => {
    if (isType(passing, FrameType.init)) times.push(net.now - 1000)
    return false
  }
  const peer = a.connect(b)
  net.run(5999)
  t.same(a.events, [])
  net.run(6000)
  t.same(a.events, ['failed B no-answer'])
  t.equal(times.length, 6)
  for (let i = 1; i < times.length; i++) {
    const interval = times[i]! - times[i - 1]!
    const nominal = 250 * 2 ** Math.max(0, i - 2)
    t.ok(interval >= 0.9 * nominal && interval <= 1.1 * nominal, `interval ${interval}`)
  }
  net.runFor(60_000)
  t.equal(times.length, 6, 'nothing goes on after that')
  t.equal(a.table.nextTimeout(), Infinity)
  net.filter = () => true
  a.connect(b)
  net.runFor(100)
  t.ok(a.table.info(peer, net.now).confirmed)
  const none = a.peers.add(HostKey.generate(net.primitives).id)
  a.table.connect(none, [], net.now)
  net.runFor(5000)
  t.ok(a.events.includes('failed stranger no-address'))
})

test('a lost init, response or proof only delays', async (t) => {
  for (const lost of [FrameType.init, FrameType.response, FrameType.transport]) {
    const { net, a, b } = pair(5 + lost)
    let left = 1
    net.filter = (passing) => !(isType(passing, lost) && left-- > 0)
    a.connect(b)
    net.runFor(1000)
    t.ok(a.info(b).confirmed && b.info(a).confirmed, `type ${lost}`)
  }
})

test('simultaneous initiation ends with one session, the same at both ends, and nothing is lost meanwhile', async (t) => {
  const { net, low, high } = orderedPair(20)
  low.connect(high)
  high.connect(low)
  net.runFor(11)
  t.ok(low.send(high, 'from low') && high.send(low, 'from high'))
  net.runFor(100)
  t.same(low.received, ['from high'])
  t.same(high.received, ['from low'])
  t.equal(low.info(high).role, 'initiator', "the lower ID's initiation wins")
  t.equal(high.info(low).role, 'responder')
  t.ok(low.info(high).confirmed && high.info(low).confirmed)
  t.equal(low.info(high).generation, high.info(low).generation)
  t.equal(low.drops.get('unknown-lane') + high.drops.get('unknown-lane'), 0)
})

test('simultaneous initiation when the lower one cannot get through', async (t) => {
  const { net, low, high } = orderedPair(21)
  net.filter = (passing) => !(isType(passing, FrameType.init) && passing.from === low.address)
  low.connect(high)
  high.connect(low)
  net.runFor(50)
  t.ok(low.send(high, 'x') && high.send(low, 'y'))
  net.runFor(6000)
  t.same([low.received, high.received], [['y'], ['x']])
  t.same([low.info(high).role, high.info(low).role], ['responder', 'initiator'])
  t.notOk(
    low.events.some((event) => event.startsWith('failed')),
    'its own initiation is not needed any more',
  )
})

test('a replayed init is dropped and does nothing', async (t) => {
  const { net, a, b } = pair(30)
  const inits: Passing[] = []
  let answers = 0
  net.filter = (passing) => {
    if (isType(passing, FrameType.init)) inits.push(passing)
    if (isType(passing, FrameType.response)) answers++
    return true
  }
  a.connect(b)
  net.runFor(100)
  t.equal(answers, 1)
  net.send('10.0.0.99:5', b.address, inits[0]!.bytes)
  net.runFor(100)
  t.equal(b.drops.get('handshake-replayed'), 1)
  t.equal(answers, 1)

  // B has forgotten everything: the replay is answered, but nobody proves himself.
  b.start()
  net.send('10.0.0.99:5', b.address, inits[0]!.bytes)
  net.runFor(30_000)
  t.same(b.events, [])
  t.equal(b.table.nextTimeout(), Infinity)
})

test('a stamp that is not above the last is refused, a later one taken', async (t) => {
  const { net, a, b } = pair(31)
  const held: Passing[] = []
  net.filter = (passing) => {
    if (isType(passing, FrameType.init) && held.length < 2) {
      held.push(passing)
      return false
    }
    return true
  }
  a.connect(b)
  net.runFor(300)
  t.equal(held.length, 2)
  net.send(a.address, b.address, held[1]!.bytes)
  net.send(a.address, b.address, held[0]!.bytes)
  net.runFor(50)
  t.equal(b.drops.get('handshake-replayed'), 1)
  t.ok(a.info(b).confirmed)
})

test('strangers get not one packet', async (t) => {
  const { net, b } = pair(40)
  const other = Authority.generate(net.primitives)
  const profile = { name: 'other', ipv4Pool: IPV4_POOL, zone: ZONE }
  const trust = new TrustStore(net.primitives, { authority: other.publicKey, profile })
  const stranger = net.host('S', { trust })
  let fromB = 0
  net.filter = (passing) => {
    if (passing.from === b.address) fromB++
    return true
  }
  stranger.connect(b)
  net.runFor(10_000)
  t.same(stranger.events, ['failed B no-answer'])
  t.ok(b.drops.get('handshake-failed') > 0, 'the network is in the transcript')

  // Knows the network, but has only a membership that another authority signed.
  const imposter = net.host('I', { trust: b.trust, membership: stranger.key.sign('caracal/1 x', new Uint8Array(50)) })
  imposter.connect(b)
  net.runFor(10_000)
  t.ok(b.drops.get('membership-invalid') > 0)
  // Does not know whom it talks to: aims at another host's key.
  const lost = net.host('L')
  const peer = lost.peers.add(HostKey.generate(net.primitives).id)
  lost.table.connect(peer, [record(b.address)], net.now)
  net.runFor(10_000)
  t.ok(b.drops.get('bad-mac') > 0)
  t.equal(fromB, 0)
})

test("another host's membership is no use", async (t) => {
  const { net, a, b } = pair(41)
  const thief = net.host('T', { membership: net.membership(a.key.id, 'a') })
  thief.connect(b)
  net.runFor(6000)
  t.same(thief.events, ['failed B no-answer'])
  t.equal(b.drops.get('membership-invalid'), 6)
  // And the other way round: the one who answers shows a wrong membership.
  a.connect(thief)
  net.runFor(6000)
  t.same(a.events, ['failed T membership-invalid'])
})

test('expired and revoked memberships', async (t) => {
  const { net, b } = pair(42)
  const seed = net.primitives.randomBytes(32)
  const key = new HostKey(net.primitives, seed)
  const late = net.host('E', { seed, membership: net.membership(key.id, 'e', WALL_START + 60) })
  late.connect(b)
  net.runFor(1000)
  t.ok(late.info(b).confirmed)
  late.table.dropPeer(late.peer(b), 'expired', net.now)
  net.run(600_000)
  late.connect(b)
  net.runFor(6000)
  t.equal(b.drops.get('membership-invalid'), 6)

  const c = net.host('C')
  c.connect(b)
  net.runFor(1000)
  t.ok(b.info(c).confirmed)
  b.trust.revocations.add(revokeAsAuthority(net.authority, { host: c.key.id, serial: 10 ** 9, time: WALL_START }))
  b.table.dropPeer(b.peer(c), 'revoked', net.now)
  t.ok(b.events.includes('lost C revoked'))
  t.equal(b.table.membershipOf(b.peer(c)), undefined)
  c.send(b, 'let me in')
  net.runFor(10_000)
  t.same(b.received, [])
  t.ok(b.drops.get('unknown-lane') > 0)
  t.ok(b.drops.get('revoked') > 0, 'the one who was cut off notices and is refused')
  t.equal(b.info(c).connected, false)
})

test('rekey under traffic: not one frame is lost on an in-order link, and both ends change over', async (t) => {
  const { net, a, b } = pair(50)
  a.connect(b)
  net.runFor(100)
  let sent = 0
  for (let i = 0; i < 10_000; i++) {
    a.send(b, `${i}`)
    b.send(a, `${i}`)
    sent++
    net.runFor(50)
  }
  net.runFor(100)
  const expected = Array.from({ length: sent }, (_, i) => `${i}`)
  t.same(b.received, expected)
  t.same(a.received, expected)
  t.equal(a.info(b).rekeys, 4, '500 s, one rekey each 120 s')
  t.equal(b.info(a).rekeys, 4)
  t.equal(a.info(b).role, 'initiator')
  t.ok(a.sessions.slice(1).every((session) => session.rekey))
  t.notOk(
    [...a.sessions, ...b.sessions].some((session) => session.afresh),
    'nothing was lost',
  )
})

test('rekey after as many frames as are allowed, whoever sends them', async (t) => {
  const { net, a, b } = pair(51, { options: { rekeyAfterFrames: 500 } })
  a.connect(b)
  net.runFor(100)
  for (let i = 0; i < 1000; i++) {
    b.send(a, `${i}`)
    net.runFor(10)
  }
  t.ok(a.info(b).rekeys >= 1)
  t.equal(a.received.length, 1000 - 1 + 1)
  t.ok(b.info(a).framesSent! < 1000)
})

test('an idle session is not renewed and ends after 180 s; a used one is renewed by the responder if need be', async (t) => {
  const { net, a, b } = pair(52)
  a.connect(b)
  net.runFor(179_000)
  t.ok(a.info(b).connected)
  net.runFor(2000)
  t.ok(a.events.includes('lost B expired') && b.events.includes('lost A expired'))
  t.equal(a.send(b, 'x'), false)
  t.equal(a.table.count, 0)
  t.equal(a.table.nextTimeout(), Infinity)

  a.connect(b)
  net.runFor(100)
  net.filter = (passing) => !(isType(passing, FrameType.init) && passing.from === a.address)
  for (let i = 0; i < 150; i++) {
    a.send(b, `${i}`)
    net.runFor(1000)
  }
  t.equal(a.info(b).role, 'responder')
  t.equal(b.received.length, 150)
})

test('nothing is accepted or sent on keys older than 180 s', async (t) => {
  const { net, a, b } = pair(53)
  a.connect(b)
  net.runFor(100)
  net.filter = (passing) => isType(passing, FrameType.transport)
  for (let i = 0; i < 200; i++) {
    a.send(b, `${i}`)
    net.runFor(1000)
  }
  t.ok(b.received.length >= 178 && b.received.length <= 181, `${b.received.length} frames`)
  t.same([a.info(b).connected, b.info(a).connected], [false, false])
})

test('either side may restart: the survivor takes the newcomer in', async (t) => {
  const { net, a, b } = pair(60)
  a.connect(b)
  net.runFor(100)
  // The responder restarts and calls again.
  b.start()
  b.connect(a)
  net.runFor(100)
  t.match(a.sessions.at(-1), { rekey: true, afresh: true }, 'and what it had been sent is known to be lost')
  t.match(b.sessions.at(-1), { rekey: false, afresh: false })
  t.ok(b.send(a, '1') && a.send(b, '2'))
  net.runFor(20)
  t.same([a.received, b.received], [['1'], ['2']])
  t.same(a.events, ['established B', 'confirmed B', 'established B', 'confirmed B'])
  // Now it restarts and stays silent: the survivor notices when it sends.
  b.start()
  a.send(b, 'lost')
  net.runFor(2500)
  t.ok(b.info(a).confirmed, 'within 2 s and a round trip')
  t.match(a.sessions.at(-1), { rekey: true, afresh: true })
  t.ok(b.drops.get('unknown-lane') > 0)
  a.send(b, '3')
  net.runFor(20)
  t.same(b.received, ['3'])
  // Both restart.
  a.start()
  b.start()
  a.connect(b)
  b.connect(a)
  net.runFor(100)
  t.ok(a.send(b, '4') && b.send(a, '5'))
  net.runFor(20)
  t.same([a.received, b.received], [['5'], ['4']])
  t.equal(a.info(b).generation, b.info(a).generation)
})

test('one-way traffic is answered by empty frames, so that it makes no handshakes', async (t) => {
  const { net, a, b } = pair(61)
  let inits = 0
  let back = 0
  net.filter = (passing) => {
    if (isType(passing, FrameType.init)) inits++
    if (passing.from === b.address) back++
    return true
  }
  a.connect(b)
  net.runFor(100)
  back = 0
  for (let i = 0; i < 500; i++) {
    a.send(b, `${i}`)
    net.runFor(100)
  }
  t.equal(inits, 1)
  t.ok(back > 0 && back <= 110, `${back} empty frames in 50 s`)
  net.runFor(2000)
  const before = back
  net.runFor(50_000)
  t.equal(back, before, 'nothing is sent when nothing is to be said')
})

test('flood from many addresses: cookies, and who can receive still gets in', async (t) => {
  const net = new VirtualNetwork(sodium, 70)
  const b = net.host('B', { options: { loadThreshold: 20 } })
  const attacker = net.host('X')
  const captured: Uint8Array[] = []
  let cookies = 0
  net.filter = (passing) => {
    if (passing.from === attacker.address && isType(passing, FrameType.init)) {
      captured.push(passing.bytes)
      return false
    }
    if (isType(passing, FrameType.cookie)) {
      cookies++
      t.equal(passing.bytes.length, COOKIE_REPLY_LENGTH)
    }
    return true
  }
  attacker.connect(b)
  net.runFor(4000)
  // Valid MAC1, forged sources.
  const flood = (from: number, n: number) => {
    for (let i = 0; i < n; i++) {
      const source = `10.1.${(from + i) >> 8}.${(from + i) & 255}:9`
      b.table.receive(captured[0]!, 0, captured[0]!.length, record(source), net.now, net.wallNow)
    }
  }
  flood(0, 30)
  t.ok(cookies > 0 && cookies <= 11)
  t.ok(b.table.guard.underLoad(net.now))
  t.ok(b.drops.get('cookie-required') >= 10)

  const c = net.host('C')
  cookies = 0
  c.connect(b)
  net.runFor(30)
  t.ok(c.info(b).confirmed, 'one more round trip')
  t.equal(cookies, 1)
  net.runFor(3000)
  t.notOk(b.table.guard.underLoad(net.now), 'the load has gone')
  const d = net.host('D')
  d.connect(b)
  net.runFor(30)
  t.equal(cookies, 1)
  t.ok(d.info(b).confirmed)
})

test('one source has its rate, and does not make others need cookies', async (t) => {
  const net = new VirtualNetwork(sodium, 71)
  const b = net.host('B', { options: { loadThreshold: 100 } })
  const x = net.host('X')
  let init: Uint8Array | undefined
  net.filter = (passing) => {
    if (isType(passing, FrameType.init) && passing.from === x.address) init = passing.bytes
    return passing.from !== x.address
  }
  x.connect(b)
  const start = net.now
  for (let ms = 0; ms < 2000; ms++)
    b.table.receive(init!, 0, init!.length, record(`10.5.5.5:${ms + 1}`), start + ms, net.wallNow)
  const passed = 2000 - b.drops.get('rate-limited')
  t.ok(passed >= 40 && passed <= 46, `${passed} of 2000 in 2 s`)
  t.notOk(b.table.guard.underLoad(start + 2000))
})

test('no answer is more than three times what it answers, and all fit the smallest path', async (t) => {
  const net = new VirtualNetwork(sodium, 72)
  const a = net.host('A')
  const long = net.host('B')
  const answers: number[] = []
  const inits: number[] = []
  net.filter = (passing) => {
    if (isType(passing, FrameType.init)) inits.push(passing.bytes.length)
    if (isType(passing, FrameType.response)) answers.push(passing.bytes.length)
    return true
  }
  // As long as a membership may be.
  long.table.setMembership(new Uint8Array(900))
  a.connect(long)
  long.connect(a)
  net.runFor(200)
  t.ok(answers.length > 0)
  for (const answer of answers) t.ok(answer <= 3 * Math.min(...inits))
  for (const length of [...answers, ...inits]) t.ok(length <= HANDSHAKE_MAX, `${length}`)
  t.throws(() => long.table.setMembership(new Uint8Array(901)), RangeError)
})

test('forged answers do not disturb a handshake under way', async (t) => {
  const { net, a, b } = pair(80)
  let forged = 0
  net.filter = (passing) => {
    if (isType(passing, FrameType.response)) {
      for (const at of [20, 60, passing.bytes.length - 40]) {
        const copy = passing.bytes.slice()
        copy[at]! ^= 1
        // Who knows A's public key can make the MAC right.
        a.table.guard.macs.sign(asView(copy))
        a.receive(copy, b.address)
        forged++
      }
    }
    return true
  }
  a.connect(b)
  net.runFor(100)
  t.equal(forged, 3)
  t.equal(a.drops.get('handshake-failed'), 3)
  t.same(a.events, ['established B', 'confirmed B'])
})

test('a wrong order of hosts: nobody answers himself', async (t) => {
  const net = new VirtualNetwork(sodium, 81)
  const seed = net.primitives.randomBytes(32)
  const one = net.host('one', { seed })
  const clone = net.host('clone', { seed })
  const c = net.host('C')
  t.equal(one.connect(clone), 0, 'it is ourselves')
  net.runFor(100)
  t.same(one.events, [])
  c.connect(one, clone.address)
  net.runFor(100)
  t.ok(c.events.includes('established one'))
})

function asView(bytes: Uint8Array) {
  const view = HandshakeView.check(bytes, 0, bytes.length)
  if (typeof view === 'string') throw new Error(view)
  return view
}
