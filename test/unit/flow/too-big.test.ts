// Packets of open flows that the path does not carry: who sends them learns what it does, in its own family.
import { test, type Test } from 'tap'
import type { Family } from '../../../lib/flow/environment.js'
import { INNER_HEADER, Kind } from '../../../lib/wire/constants.js'
import { connect, fromClient, fromServer, ISN, SERVER_ISN, WEB } from './connection.js'
import { address, exchange, FlowHost, SELF_ADDRESS, service } from './flow-host.js'
import { echoPacket, see, udpPacket, type Packet, type Seen } from './packets.js'

const MTU = 1400
/** Of a frame on an IPv4 underlay, without the inner header. */
const ROOM = MTU - 20 - 8 - 32 - INNER_HEADER
/** The inner header stands for the IP header and the ports. */
const FITS = { tcp: { 4: ROOM + 20 + 4, 6: ROOM + 40 + 4 }, icmp: { 4: ROOM + 20, 6: ROOM + 40 } }
const IP_HEADER = { 4: 20, 6: 40 }
const TOO_BIG = {
  4: [3, 4],
  6: [2, 0],
}
/** A sender of datagrams is told of every so manieth that is too large, of those within 10 s. */
const TOLD_EVERY = 4
const families: readonly [Family, Family][] = [
  [4, 4],
  [4, 6],
  [6, 4],
  [6, 6],
]

function pair(serverFamily: Family, port = 8080) {
  const client = new FlowHost(1)
  const server = new FlowHost(2)
  const peer = client.meet(2)
  const back = server.meet(1)
  client.catalogue.set(WEB, [{ peer, service: service(WEB), doubtful: false }])
  server.serve(WEB, serverFamily, port)
  return { client, server, peer, back, hosts: [client, server] }
}
const payloadOf = (length: number) => Array.from({ length }, (_, i) => (i * 7) & 255)
const same = (bytes: Uint8Array, numbers: readonly number[]) =>
  bytes.length === numbers.length && bytes.every((byte, i) => byte === numbers[i])

/** The sender's kernel is told, of the packet that it sent, as by a router on the way. */
function told(t: Test, error: Seen, packet: Uint8Array, fits: number): void {
  const sent = see(packet)
  t.equal(error.family, sent.family, 'in its own family')
  t.strictSame(error.icmp, TOO_BIG[sent.family])
  t.equal(error.mtu, fits)
  t.strictSame([error.source, error.destination], [sent.destination, sent.source])
  const quoted = packet.subarray(10, 10 + IP_HEADER[sent.family] + 8)
  t.strictSame(error.quote?.slice(0, quoted.length), quoted.slice(), 'it can tell of which flow')
}

test('the path of an open TCP connection becomes narrower', (t) => {
  for (const [clientFamily, serverFamily] of families) {
    const ends = { clientFamily, serverFamily }
    const { client, server, hosts, peer, back } = pair(serverFamily)
    const { syn } = connect(client, server, ends)
    const ways = [
      {
        name: `client to server, ${clientFamily} to ${serverFamily}`,
        ...{ from: client, to: server, family: clientFamily, path: peer },
        packet: (payload: readonly number[]) =>
          fromClient(ends, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload }),
      },
      {
        name: `server to client, ${serverFamily} to ${clientFamily}`,
        ...{ from: server, to: client, family: serverFamily, path: back },
        packet: (payload: readonly number[]) =>
          fromServer(syn, { sequence: SERVER_ISN + 1, acknowledgement: ISN + 1, payload }),
      },
    ]
    for (const { name, from, to, family, path, packet } of ways) {
      const fits = FITS.tcp[family]
      const largest = payloadOf(fits - IP_HEADER[family] - 20)
      const larger = packet([...largest, 1])
      from.tun(1, larger)
      t.equal(from.takeSent()[0]?.kind, Kind.data, `${name}: the wide path carries it`)
      from.peers.pathMtu[path] = MTU
      from.tun(1, larger)
      t.strictSame(from.takeSent(), [], `${name}: the narrow one does not`)
      t.strictSame(from.takeDrops(), ['too-big'])
      const errors = from.takeWritten()
      t.equal(errors.length, 1)
      told(t, see(errors[0]!), larger, fits)
      from.tun(1, packet(largest))
      t.strictSame(
        from.sent.map(({ kind, bytes }) => [kind, bytes.length]),
        [[Kind.data, ROOM + INNER_HEADER]],
        `${name}: what it is told fits, whole`,
      )
      exchange(hosts, 1)
      t.ok(same(see(to.takeWritten()[0]!).payload, largest))
      t.strictSame([...from.drops, ...from.takeWritten()], [])
    }
  }
  t.end()
})

test('a path that is just being measured: what it may turn out to carry goes in pieces, and nobody is told', (t) => {
  for (const [clientFamily, serverFamily] of families) {
    const ends = { clientFamily, serverFamily }
    const { client, server, hosts, peer } = pair(serverFamily)
    connect(client, server, ends)
    client.peers.pathMtu[peer] = 1280
    client.peers.pathMtuTaken[peer] = MTU
    const largest = payloadOf(FITS.tcp[clientFamily] - IP_HEADER[clientFamily] - 20)
    const packet = (payload: readonly number[]) =>
      fromClient(ends, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload })
    for (let n = 0; n < 2 * TOLD_EVERY; n++) {
      client.tun(n, packet(largest))
      t.ok(client.sent.length === 2 && client.sent.every(({ kind }) => kind === Kind.piece))
      exchange(hosts, n)
      t.ok(same(see(server.takeWritten()[0]!).payload, largest), 'it arrives whole')
    }
    t.strictSame([...client.drops, ...server.drops, ...client.written], [])
    client.tun(100, packet([...largest, 1]))
    t.strictSame(client.takeDrops(), ['too-big'], 'what is too large in any case is refused')
  }
  t.end()
})

test('the path is narrower than anybody heeds: what their kernels send at the smallest goes in pieces', (t) => {
  const least = { 4: 576, 6: 1280 } as const
  for (const [clientFamily, serverFamily] of families) {
    const ends = { clientFamily, serverFamily }
    const { client, server, hosts, peer } = pair(serverFamily)
    connect(client, server, ends)
    client.peers.pathMtu[peer] = 560
    const packet = (payload: readonly number[]) =>
      fromClient(ends, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload })
    const smallest = payloadOf(least[clientFamily] - IP_HEADER[clientFamily] - 20)
    const larger = packet([...smallest, 1])
    client.tun(1, larger)
    const [error] = client.takeWritten().map(see)
    t.ok(error!.mtu <= least[clientFamily], `told ${error!.mtu}`)
    if (clientFamily === 6) t.equal(error!.mtu, 1280, 'IPv6 is never told less')
    t.strictSame(client.takeDrops(), ['too-big'])
    client.tun(1, packet(smallest))
    t.ok(client.sent.every(({ kind }) => kind === Kind.piece))
    exchange(hosts, 1)
    t.ok(same(see(server.takeWritten()[0]!).payload, smallest))
    t.strictSame([...client.drops, ...server.drops, ...client.written], [])
  }
  t.end()
})

for (const protocol of ['udp', 'icmp'] as const) {
  test(`${protocol} that must not be fragmented: all arrive, and who goes on sending such is told`, (t) => {
    for (const [clientFamily, serverFamily] of families) {
      const { client, server, hosts, peer } = pair(serverFamily, protocol === 'udp' ? 8080 : 0)
      const make = protocol === 'udp' ? udpPacket : echoPacket
      const packet = (changes: Partial<Packet>) =>
        make({
          family: clientFamily,
          source: SELF_ADDRESS[clientFamily],
          destination: address('dialled', clientFamily, WEB),
          ports: protocol === 'udp' ? [5000, 53] : [77, 0],
          mayFragment: false,
          ...changes,
        })
      client.tun(0, packet({ payload: [1] }))
      exchange(hosts, 0)
      const first = see(server.takeWritten()[0]!)
      const ends = { family: serverFamily, source: first.destination, destination: first.source, payload: [2] }
      const ports = [first.ports[1], first.ports[0]] as const
      server.tun(0, make({ ...ends, ports }))
      exchange(hosts, 0)
      client.takeWritten()

      client.peers.pathMtu[peer] = MTU
      const name = `${clientFamily} to ${serverFamily}`
      const fits = FITS[protocol === 'udp' ? 'tcp' : 'icmp'][clientFamily]
      const payload = payloadOf(fits - IP_HEADER[clientFamily] - 8 + 1)
      const larger = packet({ payload })
      const arrives = (now: number, what: string) => {
        t.ok(
          client.sent.every(({ kind }) => kind === Kind.piece),
          'in pieces',
        )
        exchange(hosts, now)
        const came = server.takeWritten()
        t.ok(came.length === 1 && same(see(came[0]!).payload, payload), `${name}: ${what} arrives whole`)
      }
      for (let n = 1; n <= 2 * TOLD_EVERY; n++) {
        client.tun(n, larger)
        const errors = client.takeWritten()
        t.equal(errors.length, n % TOLD_EVERY === 0 ? 1 : 0, `${name}: number ${n}`)
        for (const error of errors) told(t, see(error), larger, fits)
        arrives(n, `number ${n}`)
      }
      client.tun(100, packet({ payload: payload.slice(1) }))
      t.strictSame(
        client.sent.map(({ kind, bytes }) => [kind, bytes.length]),
        [[Kind.data, ROOM + INNER_HEADER]],
        `${name}: what it is told fits, whole`,
      )
      exchange(hosts, 100)
      server.takeWritten()
      for (let n = 0; n < 2 * TOLD_EVERY; n++) {
        const now = 20_000 * (n + 1)
        client.tun(now, larger)
        t.strictSame(client.takeWritten(), [], 'who sends one now and then is not')
        arrives(now, 'it')
      }
      if (clientFamily === 4) {
        for (let n = 0; n < 2 * TOLD_EVERY; n++) client.tun(500_000, packet({ payload, mayFragment: true }))
        t.strictSame(client.takeWritten(), [], 'nor is who lets routers fragment')
      }
      t.strictSame([...client.drops, ...server.drops], [])
    }
    t.end()
  })
}
