// NOT-HERE with `moved` and `loading`: who is asked instead, and who is asked again.
import { test } from 'tap'
import type { Candidate } from '../../../lib/flow/environment.js'
import type { FlowOptions } from '../../../lib/flow/flow-options.js'
import { Kind } from '../../../lib/wire/constants.js'
import { connect, fromClient, fromServer, ISN, SERVER_ISN, WEB } from './connection.js'
import { address, exchange, FlowHost, SELF_ADDRESS, service } from './flow-host.js'
import { ACK, echoPacket, RST, see, SYN, udpPacket } from './packets.js'

const ENDS = { clientFamily: 4, serverFamily: 4 } as const
const SYN_PACKET = fromClient(ENDS, { flags: SYN, sequence: ISN })
const datagram = (payload: number) =>
  udpPacket({
    family: 4,
    source: SELF_ADDRESS[4],
    destination: address('dialled', 4, WEB),
    ports: [5000, 53],
    payload: [payload],
  })

/** Host 1, and hosts 2.. of which the first one is asked first; a host's hint is its number. */
function several(count: number, first: Partial<Candidate> = {}, options: Partial<FlowOptions> = {}) {
  const client = new FlowHost(1, options)
  const others = Array.from({ length: count }, (_, i) => {
    const host = new FlowHost(2 + i)
    host.meet(1)
    return host
  })
  const candidates = others.map(({ number }) => ({ peer: client.meet(number), service: service(WEB), doubtful: false }))
  client.catalogue.set(WEB, [{ ...candidates[0]!, ...first }])
  const hosts = [client, ...others]
  return { client, others, candidates, hosts, go: (now = 0) => exchange(hosts, now) }
}
const sendsOn = (host: FlowHost) =>
  host.endpoints.set(WEB, { notHere: 'moved', hint: Uint8Array.of(host.number, 1, 2) })
const opens = (host: FlowHost) => host.engine.counters.accepted
const answer = (server: FlowHost, now: number) => {
  const syn = see(server.takeWritten()[0]!)
  server.tun(now, fromServer(syn, { flags: SYN | ACK, sequence: SERVER_ISN, acknowledgement: ISN + 1 }))
}

test('a hint is followed before the program notices, from host to host', (t) => {
  const { client, others, candidates, go } = several(3, { resolver: true })
  const [a, b, c] = others as [FlowHost, FlowHost, FlowHost]
  for (const host of [a, b]) sendsOn(host)
  client.hinted.set(2, [{ ...candidates[1]!, resolver: true }])
  client.hinted.set(3, [candidates[2]!])
  c.serve(WEB, 4, 8080)
  client.tun(0, SYN_PACKET)
  go()
  t.same(client.written, [])
  answer(c, 1)
  go(1)
  t.equal(see(client.takeWritten()[0]!).flags, SYN | ACK)
  t.match(client.engine.counters, { followed: 2, retried: 2, refused: 0 })
  t.same(a.takeDrops(), ['moved'])
  t.equal([...client.engine.flows()].length, 1)
  t.equal([...a.engine.flows()].length, 0)
  t.end()
})

test('datagrams and echo follow too, with all that came meanwhile', (t) => {
  const { client, others, candidates, go } = several(2)
  const [a, b] = others as [FlowHost, FlowHost]
  sendsOn(a)
  client.hinted.set(2, [candidates[1]!])
  b.serve(WEB, 4, 53)
  const ends = { family: 4, source: SELF_ADDRESS[4], destination: address('dialled', 4, WEB) } as const
  const echo = echoPacket({ ...ends, ports: [9, 0] })
  client.tun(0, datagram(1), datagram(2), echo)
  go()
  t.equal(b.takeWritten().length, 3)
  t.equal(opens(b), 2)
  t.end()
})

test('nobody is asked twice: hints that name each other end in a refusal', (t) => {
  const { client, others, candidates, go } = several(3)
  for (const host of others) {
    sendsOn(host)
    client.hinted.set(host.number, candidates)
  }
  client.tun(0, SYN_PACKET)
  go()
  t.same(client.takeDrops(), ['no-instance'])
  t.equal(client.takeWritten().length, 1, 'an ICMP error')
  t.same(
    others.map((host) => host.takeDrops()),
    [['moved'], ['moved'], ['moved']],
  )
  t.equal(client.engine.table.count, 0)
  t.end()
})

test('a chain of hints has an end, and so has their number', (t) => {
  const { client, others, candidates, go } = several(6, {}, { hopsMax: 3 })
  others.forEach((host, i) => {
    sendsOn(host)
    client.hinted.set(host.number, candidates.slice(i + 1, i + 2))
  })
  client.tun(0, SYN_PACKET)
  go()
  t.equal(client.engine.counters.followed, 3)
  t.same(client.takeDrops(), ['no-instance'])
  const wide = several(6, {}, { followedMax: 2 })
  for (const host of wide.others) sendsOn(host)
  wide.client.hinted.set(2, wide.candidates)
  wide.client.tun(0, SYN_PACKET)
  wide.go()
  t.equal(wide.client.engine.counters.followed, 2)
  t.end()
})

test('who was to be asked anyhow is asked next, once', (t) => {
  const { client, others, candidates, go } = several(3)
  client.catalogue.set(WEB, candidates)
  const [a, b, c] = others as [FlowHost, FlowHost, FlowHost]
  sendsOn(a)
  client.hinted.set(2, [candidates[2]!])
  c.serve(WEB, 4, 8080)
  b.serve(WEB, 4, 8080)
  client.tun(0, SYN_PACKET)
  go()
  t.equal(client.engine.counters.followed, 0)
  t.same([opens(b), opens(c)], [0, 1])
  t.end()
})

test('a pinned candidate and a host itself are not followed', (t) => {
  for (const first of [{ pinned: true }, { service: undefined }]) {
    const { client, others, candidates, go } = several(2, first)
    sendsOn(others[0]!)
    others[0]!.endpoints.set(-1, { notHere: 'moved', hint: Uint8Array.of(2) })
    client.hinted.set(2, [candidates[1]!])
    others[1]!.serve(WEB, 4, 8080)
    client.tun(0, SYN_PACKET)
    go()
    t.equal(opens(others[1]!), 0)
    t.same(client.takeDrops(), ['no-instance'])
  }
  t.end()
})

test('who is loading is asked again, and answers', (t) => {
  const { client, others, go } = several(1)
  const server = others[0]!
  server.endpoints.set(WEB, { notHere: 'loading' })
  client.tun(0, SYN_PACKET, datagram(1))
  go()
  client.tun(10, datagram(2))
  client.engine.handleTimeout(99)
  t.same(client.takeSent(), [], 'it is spared meanwhile')
  client.engine.handleTimeout(100)
  go(100)
  t.same(server.takeDrops(), new Array(5).fill('loading'), 'two packets, then all three')
  server.serve(WEB, 4, 8080)
  client.engine.handleTimeout(299)
  t.same(client.takeSent(), [])
  client.engine.handleTimeout(300)
  go(300)
  t.equal(opens(server), 2)
  t.equal(server.takeWritten().length, 3, 'the SYN and both datagrams')
  t.equal(client.engine.counters.askedAgain, 4)
  t.same(client.takeDrops(), [])
  t.end()
})

test('the next candidate is asked while one is loading', (t) => {
  const { client, others, candidates, go } = several(2)
  client.catalogue.set(WEB, candidates)
  others[0]!.endpoints.set(WEB, { notHere: 'loading' })
  others[1]!.serve(WEB, 4, 8080)
  client.tun(0, SYN_PACKET)
  go()
  answer(others[1]!, 1)
  go(1)
  t.equal(see(client.takeWritten()[0]!).flags, SYN | ACK)
  client.engine.handleTimeout(100)
  t.same(client.takeSent(), [], 'it is not asked again')
  t.end()
})

test('who goes on loading is given up after a time', (t) => {
  for (const packet of [SYN_PACKET, datagram(1)]) {
    const { client, others, go } = several(1, {}, { heldTimeout: 3_000 })
    others[0]!.endpoints.set(WEB, { notHere: 'loading' })
    client.tun(0, packet)
    go()
    let now = 0
    for (let i = 0; i < 100 && client.drops.length === 0; i++) {
      now = client.engine.nextTimeout()
      client.engine.handleTimeout(now)
      go(now)
    }
    t.ok(now >= 3_000 && now < 4_000, `${now} ms`)
    t.same(client.takeDrops(), ['no-instance'])
    t.equal(client.takeWritten().length, 1, 'the program is told')
    t.ok(client.engine.counters.askedAgain < 10)
    t.equal(client.engine.table.count, 0)
  }
  t.end()
})

test('an unknown flow of a host that is loading is left alone, and gone afterwards', (t) => {
  const { client, others, go } = several(1)
  others[0]!.serve(WEB, 4, 8080)
  connect(client, others[0]!, ENDS)
  // Its daemon has been started anew.
  const again = new FlowHost(2)
  again.meet(1)
  again.isLoading = true
  const packet = fromClient(ENDS, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload: [1] })
  const hosts = [client, again]
  client.tun(10, packet)
  exchange(hosts, 10)
  t.same(again.takeDrops(), ['unknown-flow'])
  t.equal(again.engine.counters.notHereSent, 1)
  t.same(client.takeWritten(), [])
  t.equal([...client.engine.flows()].length, 1)
  again.isLoading = false
  client.tun(20, packet)
  exchange(hosts, 20)
  t.equal(see(client.takeWritten()[0]!).flags & RST, RST)
  t.equal([...client.engine.flows()].length, 0)
  go(30)
  t.end()
})

test('packets of the own kernel that fit no flow get no reset while we are loading', (t) => {
  const host = new FlowHost(1)
  host.isLoading = true
  const packet = fromClient(ENDS, { sequence: 5, acknowledgement: 6 })
  host.tun(0, packet)
  t.same([host.takeWritten(), host.takeDrops()], [[], ['loading']])
  host.isLoading = false
  host.tun(1, packet)
  t.equal(see(host.takeWritten()[0]!).flags & RST, RST)
  t.same(host.takeDrops(), ['mid-stream'])
  t.end()
})

test('a held packet has others asked', (t) => {
  const host = new FlowHost(1)
  host.catalogue.set(WEB, 'hold')
  host.tun(0, SYN_PACKET)
  t.same(host.asked, [WEB])
  t.end()
})

test('frames of other kinds are none', (t) => {
  const { client, others, go } = several(1)
  others[0]!.endpoints.set(WEB, { notHere: 'loading' })
  client.tun(0, SYN_PACKET)
  const [open] = client.takeSent()
  t.equal(open?.kind, Kind.open)
  others[0]!.receive(0, 1, open!)
  const [answered] = others[0]!.takeSent()
  t.equal(answered?.kind, Kind.notHere)
  // The same answer twice waits once.
  client.receive(1, 1, answered!)
  client.receive(1, 1, answered!)
  client.engine.handleTimeout(100)
  t.same(client.takeSent(), [])
  client.engine.handleTimeout(101)
  t.equal(client.takeSent().length, 1)
  go(1)
  t.end()
})
