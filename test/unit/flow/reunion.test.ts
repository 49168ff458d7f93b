// What the own kernel is told when a peer is there again after it was away.
import { test } from 'tap'
import { connect, fromClient, fromServer, ISN, SERVER_ISN, WEB, type Ends } from './connection.js'
import { address, exchange, FlowHost, SELF_ADDRESS, service } from './flow-host.js'
import { ACK, FIN, see, SYN, udpPacket } from './packets.js'

function pair(family: 4 | 6) {
  const client = new FlowHost(1)
  const server = new FlowHost(2)
  client.catalogue.set(WEB, [{ peer: client.meet(2), service: service(WEB), doubtful: false }])
  server.meet(1)
  server.serve(WEB, family, 8080)
  const ends: Ends = { clientFamily: family, serverFamily: family }
  return { client, server, ends, hosts: [client, server] }
}
/** Time passes, as far as the engine wants it. */
function pass(host: FlowHost, until: number): void {
  for (let next = host.engine.nextTimeout(); next <= until; next = host.engine.nextTimeout())
    host.engine.handleTimeout(next)
}

for (const family of [4, 6] as const) {
  test(`IPv${family}: the oldest number under way is unreachable, as often as it may have been repeated in vain`, (t) => {
    const { client, server, ends, hosts } = pair(family)
    const { syn } = connect(client, server, ends)
    client.tun(10, fromClient(ends, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload: [1, 2, 3] }))
    client.takeSent()
    client.tun(210, fromClient(ends, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload: [1, 2, 3] }))
    client.takeSent()
    client.engine.reunite(1, 2_000)
    pass(client, 2_000)
    const errors = client.takeWritten().map(see)
    t.equal(errors.length, 4, '200 ms doubled: 0.2, 0.6, 1.4, 3.0')
    for (const error of errors) {
      t.same(error.icmp, family === 4 ? [3, 1] : [1, 0], 'host unreachable, no route')
      t.same([error.source, error.destination], [address('dialled', family, WEB), SELF_ADDRESS[family]])
      const quote = error.quote!
      const header = family === 4 ? 20 : 40
      const view = new DataView(quote.buffer, quote.byteOffset)
      t.equal(quote.length, header + 8)
      t.same(quote.subarray(family === 4 ? 12 : 8, header), [
        ...SELF_ADDRESS[family],
        ...address('dialled', family, WEB),
      ])
      t.equal(quote[family === 4 ? 9 : 6], 6)
      t.same([view.getUint16(header), view.getUint16(header + 2)], [40_000, 80])
      t.equal(view.getUint32(header + 4), (ISN + 1) >>> 0)
    }
    t.equal(client.engine.counters.hastened, 1)
    pass(client, 2_500)
    t.same(client.takeWritten(), [], 'once')

    // The server's end: its answer is under way too.
    client.tun(2_501, fromClient(ends, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload: [1, 2, 3] }))
    exchange(hosts, 2_501)
    server.takeWritten()
    server.tun(2_502, fromServer(syn, { sequence: SERVER_ISN + 1, acknowledgement: ISN + 4, payload: [9] }))
    server.takeSent()
    server.engine.reunite(1, 2_600)
    pass(server, 2_600)
    const [error] = server.takeWritten().map(see)
    t.equal(
      new DataView(error!.quote!.buffer).getUint32(error!.quote!.byteOffset + (family === 4 ? 24 : 44)),
      SERVER_ISN + 1,
    )
    t.end()
  })
}

test('nothing is said of what is not under way, not established, not TCP, or another peer’s', (t) => {
  const { client, server, ends, hosts } = pair(4)
  connect(client, server, ends)
  const third = { ...ends, clientPort: 40_002 }
  connect(client, server, third)
  client.tun(10, fromClient(ends, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload: [1, 2, 3] }))
  exchange(hosts, 10)
  const other = { ...ends, clientPort: 40_001 }
  client.tun(11, fromClient(other, { flags: SYN, sequence: ISN }))
  const udp = { family: 4, source: SELF_ADDRESS[4], destination: address('dialled', 4, WEB) } as const
  client.tun(12, udpPacket({ ...udp, ports: [9, 80], payload: [1] }))
  client.tun(13, fromClient(third, { flags: FIN | ACK, sequence: ISN + 1, acknowledgement: SERVER_ISN + 1 }))
  client.takeSent()
  client.takeWritten()
  client.engine.reunite(client.meet(3), 20)
  pass(client, 20)
  t.same(client.takeWritten(), [], 'another peer')
  client.engine.reunite(1, 30)
  pass(client, 30)
  // The first one's three bytes have not been acknowledged either: its server is slow.
  t.same(
    client
      .takeWritten()
      .map((packet) => new DataView(see(packet).quote!.buffer).getUint16(see(packet).quote!.byteOffset + 20)),
    [40_000, 40_000, 40_000, 40_002, 40_002, 40_002],
  )
  t.end()
})

test('a large table is walked through in parts, each flow is told once, and no more than so many a turn', (t) => {
  const capacity = 512
  const client = new FlowHost(1, {}, capacity)
  const server = new FlowHost(2, { acceptedShare: 1 }, capacity)
  client.catalogue.set(WEB, [{ peer: client.meet(2), service: service(WEB), doubtful: false }])
  server.meet(1)
  server.serve(WEB, 4, 8080)
  for (let i = 0; i < 300; i++) {
    const ends: Ends = { clientFamily: 4, serverFamily: 4, clientPort: 20_000 + i }
    connect(client, server, ends)
    client.tun(1, fromClient(ends, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload: [1] }))
    client.takeSent()
  }
  client.engine.reunite(1, 100)
  const turns: number[] = []
  for (let next = 100; next <= 110; next = client.engine.nextTimeout()) {
    client.engine.handleTimeout(next)
    turns.push(
      new Set(
        client.takeWritten().map((p) => new DataView(see(p).quote!.buffer).getUint16(see(p).quote!.byteOffset + 20)),
      ).size,
    )
  }
  t.same(
    turns.filter((count) => count > 0),
    [256, 44],
  )
  t.equal(client.engine.counters.hastened, 300)
  t.end()
})

test('the other end is asked for all flows; those that it does not have end, programs that only listen hear of it', (t) => {
  const { client, server, ends, hosts } = pair(4)
  connect(client, server, ends)
  connect(client, server, { ...ends, clientPort: 40_001 })
  const forgetful = new FlowHost(2, {}, 64, 9)
  forgetful.meet(1)
  forgetful.isLoading = true
  client.engine.reunite(1, 10)
  pass(client, 10)
  exchange([client, forgetful], 10)
  t.equal(client.engine.table.count, 2, 'it is loading, and does not know')
  forgetful.isLoading = false
  pass(client, 1_100)
  exchange([client, forgetful], 1_100)
  t.same(
    client.takeWritten().map((packet) => see(packet).ports[1]),
    [40_000, 40_001],
    'each is reset',
  )
  t.equal(client.engine.table.count, 0)

  connect(client, server, { ...ends, clientPort: 40_002 })
  server.engine.reunite(1, 3_000)
  pass(server, 3_000)
  exchange(hosts, 3_000)
  t.same([client.engine.table.count, server.engine.table.count], [1, 1], 'of three one is there')
  t.match([...server.engine.flows()], [{ clientPort: 40_002 }])
  pass(server, 100_000)
  t.same([client.takeDrops(), server.takeDrops()], [[], []])
  t.end()
})

test('so many flows are gone that not all may be answered for at once: they are asked about again', (t) => {
  const server = new FlowHost(2, { acceptedShare: 1 }, 512)
  const client = new FlowHost(1, {}, 512)
  client.catalogue.set(WEB, [{ peer: client.meet(2), service: service(WEB), doubtful: false }])
  server.meet(1)
  server.serve(WEB, 4, 8080)
  for (let i = 0; i < 300; i++) connect(client, server, { clientFamily: 4, serverFamily: 4, clientPort: 20_000 + i })
  const forgetful = new FlowHost(2, {}, 512, 9)
  forgetful.meet(1)
  client.engine.reunite(1, 10)
  for (let now = 10; now < 2_000; now += 10) {
    pass(client, now)
    exchange([client, forgetful], now)
  }
  t.equal(client.engine.table.count, 0)
  t.equal(client.takeWritten().length, 300)
  t.end()
})

test('a peer to which nothing can go when its flows are looked at is asked about them when it can be reached again', (t) => {
  const capacity = 512
  const server = new FlowHost(2, { acceptedShare: 1 }, capacity)
  const client = new FlowHost(1, {}, capacity)
  const peer = client.meet(2)
  client.catalogue.set(WEB, [{ peer, service: service(WEB), doubtful: false }])
  server.meet(1)
  server.serve(WEB, 4, 8080)
  for (let i = 0; i < 300; i++) connect(client, server, { clientFamily: 4, serverFamily: 4, clientPort: 20_000 + i })
  const forgetful = new FlowHost(2, {}, capacity, 9)
  forgetful.meet(1)
  client.engine.reunite(peer, 10)
  // The first part of the table is looked at while the peer is there, the second one when it is not any more.
  client.engine.handleTimeout(10)
  client.takeSent()
  client.hold(peer, true)
  pass(client, 1_000)
  t.same(client.takeSent(), [], 'nothing goes there')
  client.engine.sessionUp(peer, 1_000)
  pass(client, 1_001)
  t.same(client.takeSent(), [], 'nor while it is still so')
  client.hold(peer, false)
  client.engine.sessionUp(peer, 2_000)
  for (let now = 2_000; now < 5_000; now += 10) {
    pass(client, now)
    exchange([client, forgetful], now)
  }
  t.equal(client.engine.table.count, 0, 'the other end has said of all that they are not there')
  t.equal(client.takeWritten().length, 300, 'and each program hears of it')
  client.engine.sessionUp(peer, 6_000)
  t.equal(client.engine.nextTimeout(), Infinity, 'it is done once')
  t.end()
})
