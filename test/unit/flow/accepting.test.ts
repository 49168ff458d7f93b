import { test } from 'tap'
import { SELF } from '../../../lib/path/peers.js'
import { Kind } from '../../../lib/wire/constants.js'
import { fromClient, fromServer, ISN, SERVER_ISN, WEB } from './connection.js'
import { exchange, FlowHost, service } from './flow-host.js'
import { ACK, RST, see, SYN } from './packets.js'

const ENDS = { clientFamily: 4, serverFamily: 4 } as const
function pair(options = {}) {
  const client = new FlowHost(1)
  const server = new FlowHost(2, options)
  client.catalogue.set(WEB, [{ peer: client.meet(2), service: service(WEB), doubtful: false }])
  server.meet(1)
  server.serve(WEB, 4, 8080)
  return { client, server, hosts: [client, server] }
}

test('the same OPEN twice is one flow, and the server is not started twice', (t) => {
  const { client, server } = pair()
  client.tun(0, fromClient(ENDS, { flags: SYN, sequence: ISN }))
  const [open] = client.takeSent()
  server.receive(0, 1, open!)
  server.receive(0, 1, open!)
  t.equal(server.engine.counters.accepted, 1)
  const seen = server.takeWritten().map(see)
  t.same(
    seen.map((p) => [p.ports[0], p.sequence]),
    [
      [40_000, ISN],
      [40_000, ISN],
    ],
  )
  server.tun(1, fromServer(seen[0]!, { flags: SYN | ACK, sequence: SERVER_ISN, acknowledgement: ISN + 1 }))
  exchange([client, server], 1)
  client.tun(2, fromClient(ENDS, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1 }))
  exchange([client, server], 2)
  server.takeWritten()
  server.receive(3, 1, open!)
  t.same([server.takeWritten(), server.takeDrops()], [[], ['flow-closed']], 'a late copy is not delivered')
  t.equal(server.engine.table.count, 1)
  t.end()
})

test('the same flow ID from another peer is another flow', (t) => {
  const { client, server } = pair()
  const other = server.meet(3)
  client.tun(0, fromClient(ENDS, { flags: SYN, sequence: ISN }))
  const [open] = client.takeSent()
  server.receive(0, 1, open!)
  server.receive(0, other, open!)
  t.equal(server.engine.table.count, 2)
  t.same(
    server.takeWritten().map((p) => see(p).source[3]),
    [1, 3],
  )
  t.end()
})

test('ACCEPT goes on until the initiator uses our flow ID', (t) => {
  const { client, server, hosts } = pair()
  client.tun(0, fromClient(ENDS, { flags: SYN, sequence: ISN }))
  exchange(hosts, 0)
  const seen = see(server.takeWritten()[0]!)
  const synAck = fromServer(seen, { flags: SYN | ACK, sequence: SERVER_ISN, acknowledgement: ISN + 1 })
  server.tun(1, synAck)
  server.tun(2, synAck)
  t.same(
    server.sent.map((f) => f.kind),
    [Kind.accept, Kind.accept],
  )
  exchange(hosts, 2)
  t.equal(client.takeWritten().length, 2, "the kernel's own repetition arrives as such")
  client.tun(3, fromClient(ENDS, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1 }))
  exchange(hosts, 3)
  server.tun(4, fromServer(seen, { sequence: SERVER_ISN + 1, acknowledgement: ISN + 1, payload: [1] }))
  t.same(
    server.sent.map((f) => f.kind),
    [Kind.data],
  )
  t.end()
})

test('half-open flows are bounded by peer and by time', (t) => {
  const { client, server, hosts } = pair({ halfOpenPerPeer: 2 })
  for (let i = 0; i < 3; i++)
    client.tun(0, fromClient({ ...ENDS, clientPort: 40_000 + i }, { flags: SYN, sequence: i }))
  exchange(hosts, 0)
  t.same(server.takeDrops(), ['flow-table-full'])
  t.equal(server.engine.table.count, 2)
  server.engine.handleTimeout(30_000)
  t.equal(server.engine.table.count, 0)
  server.takeWritten()
  client.tun(30_001, fromClient({ ...ENDS, clientPort: 50_000 }, { flags: SYN, sequence: 9 }))
  exchange(hosts, 30_001)
  t.equal(server.takeWritten().length, 1, 'there is room again')
  t.end()
})

test('what is not offered, denied or unhealthy is refused as such', (t) => {
  const expected = { 'no-such-service': [3, 1], denied: [3, 10], 'no-instance': [3, 1] } as const
  for (const reason of ['no-such-service', 'denied', 'no-instance'] as const) {
    const { client, server, hosts } = pair()
    server.endpoints.set(WEB, reason)
    client.tun(0, fromClient(ENDS, { flags: SYN, sequence: ISN }))
    exchange(hosts, 0)
    t.same(see(client.takeWritten()[0]!).icmp, expected[reason])
    t.same([server.takeDrops(), server.takeWritten()], [[reason], []])
    t.same(client.outcomes, ['1 refused'])
  }
  t.end()
})

test('a connection may not begin in the middle', (t) => {
  const { client, server } = pair()
  client.tun(0, fromClient(ENDS, { flags: SYN, sequence: ISN }))
  const [open] = client.takeSent()
  const flags = open!.bytes.length - 16 + 9
  for (const bad of [ACK, RST, SYN | ACK, 0]) {
    const bytes = open!.bytes.slice()
    bytes[flags] = bad
    server.receive(0, 1, { ...open!, bytes })
    t.same(server.takeDrops(), ['bad-frame'])
  }
  t.equal(server.engine.table.count, 0)
  t.end()
})

test('a refusal on the same host', (t) => {
  const only = new FlowHost(1)
  only.catalogue.set(WEB, [{ peer: SELF, service: service(WEB), doubtful: false }])
  only.serve(WEB, 6, 8080)
  only.tun(0, fromClient(ENDS, { flags: SYN, sequence: ISN }))
  const seen = see(only.takeWritten()[0]!)
  only.tun(1, fromServer(seen, { flags: RST | ACK, acknowledgement: ISN + 1 }))
  const reset = see(only.takeWritten()[0]!)
  t.same([reset.family, reset.flags, reset.acknowledgement], [4, RST | ACK, (ISN + 1) >>> 0])
  t.equal(only.engine.table.count, 0)
  t.end()
})
