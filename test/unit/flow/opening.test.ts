// Late binding: which candidate a flow ends up with, and what the program sees meanwhile.
import { test } from 'tap'
import type { Candidate, Family } from '../../../lib/flow/environment.js'
import type { FlowOptions } from '../../../lib/flow/flow-options.js'
import { Kind } from '../../../lib/wire/constants.js'
import { connect, fromClient, fromServer, ISN, SERVER_ISN, WEB } from './connection.js'
import { address, exchange, FlowHost, SELF_ADDRESS, service } from './flow-host.js'
import { ACK, portUnreachable, RST, see, SYN, udpPacket } from './packets.js'

const ENDS = { clientFamily: 4, serverFamily: 4 } as const
const SYN_PACKET = fromClient(ENDS, { flags: SYN, sequence: ISN })
const DATAGRAM = {
  family: 4,
  source: SELF_ADDRESS[4],
  destination: address('dialled', 4, WEB),
  ports: [5000, 53],
  payload: [1],
} as const

/** Host 1 and `count` others, 2.., that serve, in this order of choice. */
function several(count: number, options: Partial<FlowOptions> = {}, doubtful: readonly number[] = [], capacity = 64) {
  const client = new FlowHost(1, options, capacity)
  const servers: FlowHost[] = []
  const candidates: Candidate[] = []
  for (let i = 0; i < count; i++) {
    const server = new FlowHost(2 + i)
    server.meet(1)
    server.serve(WEB, 4, 8080)
    servers.push(server)
    candidates.push({ peer: client.meet(2 + i), service: service(WEB), doubtful: doubtful.includes(i) })
  }
  client.catalogue.set(WEB, candidates)
  return { client, servers, hosts: [client, ...servers] }
}
const kinds = (host: FlowHost) => host.sent.map((frame) => [frame.peer, frame.kind])
const refusing = (server: FlowHost, now: number) => {
  for (const syn of server.takeWritten().map(see)) {
    server.tun(now, fromServer(syn, { flags: RST | ACK, acknowledgement: syn.sequence + 1 }))
  }
}
const answering = (server: FlowHost, now: number) => {
  for (const syn of server.takeWritten().map(see)) {
    if (syn.flags !== SYN) continue
    server.tun(now, fromServer(syn, { flags: SYN | ACK, sequence: SERVER_ISN, acknowledgement: syn.sequence + 1 }))
  }
}

test('a refusal goes on to the next candidate before the client sees it', (t) => {
  const { client, servers, hosts } = several(3)
  client.tun(0, SYN_PACKET)
  for (const server of servers.slice(0, 2)) {
    exchange(hosts, 0)
    refusing(server, 0)
    exchange(hosts, 0)
    t.same(client.written, [])
  }
  answering(servers[2]!, 1)
  exchange(hosts, 1)
  t.equal(see(client.takeWritten()[0]!).flags, SYN | ACK)
  t.same(client.outcomes, ['1 refused', '2 refused', '3 answered'])
  t.same(
    servers.map((s) => [...s.engine.flows()].length),
    [0, 0, 1],
    'those who refused keep nothing',
  )
  t.end()
})

test('the last refusal is shown as the server would have', (t) => {
  const { client, servers, hosts } = several(2)
  client.tun(0, SYN_PACKET)
  for (const server of servers) {
    exchange(hosts, 0)
    refusing(server, 0)
    exchange(hosts, 0)
  }
  const reset = see(client.takeWritten()[0]!)
  t.same([reset.flags, reset.acknowledgement], [RST | ACK, (ISN + 1) >>> 0])
  t.same(reset.source, address('dialled', 4, WEB))
  t.same(client.takeDrops(), ['refused'])
  t.equal(client.engine.table.count, 0)
  t.equal(client.engine.nextTimeout() < Infinity, true, 'an old deadline may be left')
  client.engine.handleTimeout(60_000)
  t.equal(client.engine.nextTimeout(), Infinity)
  t.end()
})

test('silence goes on to the next candidate; the first to answer wins, the other is closed and resets its server', (t) => {
  const { client, servers, hosts } = several(2)
  client.tun(0, SYN_PACKET)
  exchange(hosts, 0)
  t.equal(client.engine.nextTimeout(), 60)
  client.engine.handleTimeout(59)
  t.same(client.sent, [])
  client.engine.handleTimeout(60)
  t.same(kinds(client)[0], [2, Kind.open])
  t.same(client.outcomes, ['1 silent'])
  exchange(hosts, 60)
  answering(servers[1]!, 61)
  exchange(hosts, 61)
  t.equal(see(client.takeWritten()[0]!).flags, SYN | ACK)
  const reset = see(servers[0]!.takeWritten().at(-1)!)
  t.same([reset.flags, reset.sequence], [RST | ACK, (ISN + 1) >>> 0])
  t.same(
    servers.map((s) => [...s.engine.flows()].length),
    [0, 1],
  )
  t.same(client.outcomes, ['1 silent', '2 answered'])
  t.equal(client.engine.counters.retried, 1)
  t.end()
})

test('an OPEN that nothing answers is repeated several times within the first second', (t) => {
  const { client } = several(1)
  client.tun(0, SYN_PACKET)
  const times = [0]
  client.takeSent()
  for (let now = 1; now < 1_000; now++) {
    client.engine.handleTimeout(now)
    if (client.takeSent().some(({ kind }) => kind === Kind.open)) times.push(now)
  }
  t.same(times, [0, 60, 60 + 120, 60 + 120 + 240])
  t.end()
})

test('an answer that comes after another won is refused, and its server reset', (t) => {
  const { client, servers, hosts } = several(2)
  client.tun(0, SYN_PACKET)
  const kept = client.takeSent()
  client.engine.handleTimeout(60)
  exchange(hosts, 60)
  answering(servers[1]!, 61)
  exchange(hosts, 61)
  client.takeWritten()
  // The first OPEN was only slow, and overtaken by the CLOSE.
  client.sent = kept
  exchange(hosts, 62)
  answering(servers[0]!, 63)
  exchange(hosts, 63)
  t.same(client.takeWritten(), [], 'the client sees one SYN-ACK only')
  t.equal(see(servers[0]!.takeWritten().at(-1)!).flags, RST | ACK)
  t.equal([...servers[0]!.engine.flows()].length, 0)
  t.end()
})

test('a doubtful candidate is hedged', (t) => {
  const { client, hosts } = several(2, { hedgeAfter: 20 }, [0])
  client.tun(0, SYN_PACKET)
  exchange(hosts, 0)
  client.engine.handleTimeout(20)
  t.same(kinds(client)[0], [2, Kind.open])
  t.equal(client.engine.counters.hedged, 1)
  t.same(client.outcomes, [], 'it is not silent yet')
  t.end()
})

test('no more than so many candidates are asked at the same time', (t) => {
  const { client } = several(5, { attemptsMax: 3 })
  client.tun(0, SYN_PACKET)
  for (let now = 0; now < 900; now += 20) client.engine.handleTimeout(now)
  t.same([...new Set(client.sent.filter((f) => f.kind === Kind.open).map((f) => f.peer))], [1, 2, 3])
  t.same(client.written, [])
  t.end()
})

test('one candidate alone is asked again', (t) => {
  const { client, servers, hosts } = several(1)
  client.tun(0, SYN_PACKET)
  t.equal(client.takeSent().length, 1)
  let now = 0
  while (client.sent.length === 0 && now < 1000) client.engine.handleTimeout(++now)
  t.ok(now <= 300, 'before a kernel repeats its SYN')
  exchange(hosts, now)
  answering(servers[0]!, now)
  exchange(hosts, now)
  t.equal(client.takeWritten().length, 1)
  t.end()
})

test('a repeated SYN is the same flow, another number a new one', (t) => {
  const { client, servers, hosts } = several(1)
  client.tun(0, SYN_PACKET)
  client.tun(1, SYN_PACKET)
  t.equal(client.engine.counters.opened, 1)
  exchange(hosts, 1)
  t.equal(servers[0]!.engine.counters.accepted, 1)
  t.equal(servers[0]!.takeWritten().length, 2, "the server's kernel knows what to do with a repeated SYN")
  client.tun(2, fromClient(ENDS, { flags: SYN, sequence: 99 }))
  exchange(hosts, 2)
  t.equal(client.engine.counters.opened, 2)
  t.equal(client.engine.table.count, 1)
  t.same(
    servers[0]!.takeWritten().map((p) => see(p).flags),
    [RST | ACK, SYN],
  )
  t.end()
})

test('a client that gives up while the flow is being opened', (t) => {
  const { client, servers, hosts } = several(1)
  client.tun(0, SYN_PACKET)
  exchange(hosts, 0)
  servers[0]!.takeWritten()
  client.tun(1, fromClient(ENDS, { flags: RST, sequence: ISN + 1 }))
  exchange(hosts, 1)
  t.equal(see(servers[0]!.takeWritten()[0]!).flags, RST | ACK)
  t.same([client.engine.table.count, servers[0]!.engine.table.count], [0, 0])
  t.end()
})

test('no candidates: the program is told why', (t) => {
  for (const family of [4, 6] as Family[]) {
    const expected = {
      'no-such-service': [
        [3, 1],
        [1, 3],
      ],
      'no-instance': [
        [3, 1],
        [1, 3],
      ],
      denied: [
        [3, 10],
        [1, 1],
      ],
    } as const
    for (const reason of ['no-such-service', 'no-instance', 'denied'] as const) {
      const { client } = several(0)
      client.catalogue.set(WEB, reason)
      client.tun(0, fromClient({ clientFamily: family, serverFamily: 4 }, { flags: SYN }))
      t.same(see(client.takeWritten()[0]!).icmp, expected[reason][family === 4 ? 0 : 1], `${reason} ${family}`)
      t.same(client.drops, [reason])
      t.equal(client.engine.table.count, 0)
    }
  }
  t.end()
})

test('a port that nobody offers is refused as a server without it would', (t) => {
  const { client } = several(0)
  client.catalogue.set(WEB, 'refused')
  client.tun(0, SYN_PACKET, udpPacket(DATAGRAM))
  const [reset, error] = client.takeWritten().map(see)
  t.same([reset!.flags, reset!.acknowledgement], [RST | ACK, (ISN + 1) >>> 0])
  t.same(error!.icmp, [3, 3])
  t.end()
})

test('a full table refuses new flows and keeps the old ones', (t) => {
  const { client, servers, hosts } = several(1, {}, [], 2)
  connect(client, servers[0]!, ENDS)
  connect(client, servers[0]!, { ...ENDS, clientPort: 40_001 })
  client.tun(1, fromClient({ ...ENDS, clientPort: 40_002 }, { flags: SYN }))
  t.same(client.takeDrops(), ['flow-table-full'])
  t.same(see(client.takeWritten().at(-1)!).icmp, [3, 1], 'and the program is told')
  client.tun(2, fromClient(ENDS, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload: [1] }))
  exchange(hosts, 2)
  t.same([...see(servers[0]!.takeWritten()[0]!).payload], [1])

  const small = new FlowHost(9, {}, 1)
  small.meet(1)
  small.serve(WEB, 4, 8080)
  client.catalogue.set(WEB, [{ peer: client.meet(9), service: service(WEB), doubtful: false }])
  const roomy = several(0).client
  roomy.catalogue.set(WEB, [{ peer: roomy.meet(9), service: service(WEB), doubtful: false }])
  const pair = [roomy, small]
  roomy.tun(0, SYN_PACKET)
  exchange(pair, 0)
  roomy.tun(0, fromClient({ ...ENDS, clientPort: 2 }, { flags: SYN }))
  exchange(pair, 0)
  t.same(small.takeDrops(), ['flow-table-full'], "the acceptor's table is full")
  t.same(see(roomy.takeWritten()[0]!).icmp, [3, 1])
  t.end()
})

test('flows that are over make room for new ones, on either side', (t) => {
  for (const [clientRows, serverRows] of [
    [2, 64],
    [64, 4],
  ] as const) {
    const { client, servers, hosts } = several(1, {}, [], clientRows)
    const server = serverRows === 64 ? servers[0]! : new FlowHost(2, {}, serverRows)
    if (server !== servers[0]) {
      server.meet(client.number)
      server.serve(WEB, 4, 8080)
      hosts[hosts.indexOf(servers[0]!)] = server
    }
    connect(client, server, ENDS)
    connect(client, server, { ...ENDS, clientPort: 40_001 })
    const third = (now: number) => {
      client.takeDrops()
      server.takeDrops()
      client.tun(now, fromClient({ ...ENDS, clientPort: 40_002 }, { flags: SYN }))
      exchange(hosts, now)
      return [...client.takeDrops(), ...server.takeDrops()]
    }
    t.ok(third(10).includes('flow-table-full'), 'all of them live')
    client.tun(20, fromClient(ENDS, { flags: RST, sequence: ISN + 1 }))
    exchange(hosts, 20)
    t.equal([...client.engine.flows((flow) => flow.state === 'closing')].length, 1)
    client.takeWritten()
    server.takeWritten()
    t.same(third(3_000), [], `with ${clientRows} and ${serverRows} rows`)
    t.same(
      server.takeWritten().map((packet) => see(packet).flags),
      [SYN],
    )
  }
  t.end()
})

test('without a session the first packet waits for it', (t) => {
  const { client, servers, hosts } = several(1)
  client.disconnect(1)
  client.tun(0, SYN_PACKET)
  client.tun(0, udpPacket(DATAGRAM), udpPacket({ ...DATAGRAM, payload: [2] }))
  t.same(client.sent, [])
  t.ok(client.wanted.includes(1))
  client.connect(1)
  client.engine.sessionUp(1, 40)
  exchange(hosts, 40)
  t.same(
    servers[0]!.takeWritten().map((p) => see(p).protocol),
    [6, 17, 17],
  )
  client.engine.sessionUp(1, 41)
  t.same(client.sent, [], 'once')
  t.same(client.drops, [])
  t.end()
})

test('what waits is bounded in bytes and age', (t) => {
  const { client } = several(1, { waitingBytes: 1_024 })
  client.disconnect(1)
  client.tun(0, udpPacket({ ...DATAGRAM, ports: [5000, 53] }))
  const { bytes } = client.engine.waiting
  const room = Math.floor(1_024 / bytes)
  for (let i = 1; i < room + 2; i++) client.tun(i, udpPacket({ ...DATAGRAM, ports: [5000 + i, 53] }))
  t.same(client.takeDrops(), ['queue-full', 'queue-full'])
  t.same(client.engine.waiting, { count: room, bytes: room * bytes })
  client.engine.handleTimeout(5_001)
  t.same(client.drops, [], 'the oldest went first')
  client.engine.handleTimeout(5_004)
  t.same(client.takeDrops(), ['queue-expired', 'queue-expired', 'queue-expired'])
  client.connect(1)
  client.engine.sessionUp(1, 5_005)
  t.equal(client.takeSent().length, room - 3)
  t.match(client.engine.counters, { held: room + 2, heldSent: room - 3 }, 'and counted')
  t.end()
})

test('a session that fails goes on to the next candidate; without one the program is told', (t) => {
  const { client, servers, hosts } = several(2)
  client.disconnect(1)
  client.tun(0, SYN_PACKET)
  client.tun(0, udpPacket(DATAGRAM))
  client.engine.sessionFailed(1, 50)
  exchange(hosts, 50)
  t.same(
    servers[1]!.takeWritten().map((p) => see(p).protocol),
    [6, 17],
  )
  t.same(client.takeWritten(), [])
  const alone = several(1).client
  alone.disconnect(1)
  alone.tun(0, SYN_PACKET)
  alone.engine.sessionFailed(1, 50)
  t.same(see(alone.takeWritten()[0]!).icmp, [3, 1])
  t.same(alone.takeDrops(), ['session-timeout', 'session-timeout'], 'the frame that waited, and the flow')
  t.end()
})

test('UDP goes on to the next candidate only on a refusal, with what was sent', (t) => {
  const { client, servers, hosts } = several(2)
  client.tun(0, udpPacket(DATAGRAM), udpPacket({ ...DATAGRAM, payload: [2] }))
  const [first, second] = client.takeSent()
  client.engine.handleTimeout(2_000)
  t.same(client.sent, [], 'silence is no reason')
  client.sent = [first!]
  exchange(hosts, 1)
  t.ok(second)
  servers[0]!.tun(2, portUnreachable(servers[0]!.takeWritten()[0]!))
  exchange(hosts, 2)
  t.same(
    servers[1]!.takeWritten().map((p) => [...see(p).payload]),
    [[1], [2]],
  )
  t.same(client.written, [])
  t.end()
})

test('a UDP refusal by the last candidate', (t) => {
  const { client, servers, hosts } = several(1)
  client.tun(0, udpPacket(DATAGRAM))
  exchange(hosts, 0)
  servers[0]!.tun(1, portUnreachable(servers[0]!.takeWritten()[0]!))
  exchange(hosts, 1)
  t.same(see(client.takeWritten()[0]!).icmp, [3, 3])
  t.same([client.engine.table.count, servers[0]!.engine.table.count], [0, 0])
  t.end()
})

test('an idle UDP flow returns to the instance that it had', (t) => {
  const { client, servers, hosts } = several(2)
  const both = client.catalogue.get(WEB)
  if (!Array.isArray(both)) throw new Error('no candidates')
  client.tun(0, udpPacket(DATAGRAM))
  exchange(hosts, 0)
  client.engine.handleTimeout(40_000)
  t.equal(client.engine.table.count, 0)
  client.catalogue.set(WEB, [...both].reverse())
  client.tun(600_000, udpPacket(DATAGRAM))
  exchange(hosts, 600_000)
  t.same(
    servers.map((s) => s.takeWritten().length),
    [2, 0],
  )
  client.engine.handleTimeout(700_000)
  client.tun(5_000_000, udpPacket(DATAGRAM))
  exchange(hosts, 5_000_000)
  t.same(
    servers.map((s) => s.takeWritten().length),
    [0, 1],
    'not after more than an hour',
  )
  t.end()
})

test('an established flow whose session is away for a moment', (t) => {
  const { client, servers, hosts } = several(1)
  connect(client, servers[0]!, ENDS)
  client.disconnect(1)
  const packet = { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload: [1] }
  client.tun(1, fromClient(ENDS, packet))
  t.same([client.sent, client.drops], [[], []])
  client.connect(1)
  client.engine.sessionUp(1, 2)
  exchange(hosts, 2)
  t.same([...see(servers[0]!.takeWritten()[0]!).payload], [1])
  t.end()
})

test('when one refuses and the other stays silent, the client is told after three seconds', (t) => {
  const { client, servers, hosts } = several(2)
  client.tun(0, SYN_PACKET)
  exchange(hosts, 0)
  for (let now = 0; now <= 100; now += 10) client.engine.handleTimeout(now)
  exchange(hosts, 100)
  refusing(servers[1]!, 100)
  exchange(hosts, 100)
  t.same(client.written, [])
  for (let now = 100; now <= 2_990; now += 10) client.engine.handleTimeout(now)
  t.same(client.written, [])
  for (let now = 2_990; now <= 3_100; now += 10) client.engine.handleTimeout(now)
  t.equal(see(client.takeWritten()[0]!).flags, RST | ACK)
  exchange(hosts, 3_100)
  t.equal(servers[0]!.engine.table.count, 0, 'the silent one is closed')
  t.end()
})

test('CLOSE of a candidate before it answered counts as its refusal', (t) => {
  const { client, servers, hosts } = several(2)
  client.tun(0, SYN_PACKET)
  exchange(hosts, 0)
  servers[0]!.engine.closeAll(1)
  exchange(hosts, 1)
  answering(servers[1]!, 1)
  exchange(hosts, 1)
  t.equal(see(client.takeWritten()[0]!).flags, SYN | ACK)
  t.end()
})
