// Two hosts, one name: flows through whole engines.
import { test } from 'tap'
import type { Family } from '../../../lib/flow/environment.js'
import { defaultFlowOptions } from '../../../lib/flow/flow-options.js'
import { SELF } from '../../../lib/path/peers.js'
import { Gso } from '../../../lib/wire/batch.js'
import { Kind } from '../../../lib/wire/constants.js'
import { connect, fromClient, fromServer, ISN, SERVER_ISN, WEB } from './connection.js'
import { address, exchange, FlowHost, SELF_ADDRESS, service } from './flow-host.js'
import { ACK, echoPacket, FIN, portUnreachable, PSH, RST, see, SYN, udpPacket } from './packets.js'

/** Host 1 is the client's, 2 has the service at `serverFamily`; each knows the other. */
function pair(serverFamily: Family = 4) {
  const client = new FlowHost(1)
  const server = new FlowHost(2)
  const peer = client.meet(2)
  server.meet(1)
  client.catalogue.set(WEB, [{ peer, service: service(WEB), doubtful: false }])
  server.serve(WEB, serverFamily, 8080)
  return { client, server, peer, hosts: [client, server] }
}
const equal = (bytes: Uint8Array, numbers: readonly number[]) =>
  bytes.length === numbers.length && bytes.every((byte, i) => byte === numbers[i])
const families: readonly [Family, Family][] = [
  [4, 4],
  [4, 6],
  [6, 4],
  [6, 6],
]

test('TCP over all four pairs of families', (t) => {
  for (const [clientFamily, serverFamily] of families) {
    const ends = { clientFamily, serverFamily }
    const { client, server, hosts } = pair(serverFamily)
    const { syn, synAck } = connect(client, server, ends)
    const name = `${clientFamily} to ${serverFamily}`
    t.equal(syn.family, serverFamily, name)
    t.same(syn.source, address('peer', serverFamily, 1), 'the server sees the host of the client')
    t.same(syn.destination, address('served', serverFamily, WEB))
    t.same(syn.ports, [40_000, 8080])
    t.equal(syn.sequence, ISN)
    t.equal(syn.hopLimit, 63)
    t.same(synAck.source, address('dialled', clientFamily, WEB), 'the client sees who it dialled')
    t.same(synAck.destination, SELF_ADDRESS[clientFamily])
    t.same(synAck.ports, [80, 40_000])
    t.same([synAck.sequence, synAck.acknowledgement, synAck.flags], [SERVER_ISN, (ISN + 1) >>> 0, SYN | ACK])

    const bytes = Array.from({ length: 1001 }, (_, i) => i & 255)
    for (const partial of [false, true]) {
      const packet = { flags: ACK | PSH, sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload: bytes, partial }
      client.tun(1, fromClient(ends, packet))
      const frames = client.takeSent()
      t.equal(frames[0]!.kind, Kind.data)
      client.sent = frames
      exchange(hosts, 1)
      const seen = see(server.takeWritten()[0]!)
      t.ok(equal(seen.payload, bytes))
      t.equal(seen.flags, ACK | PSH)
    }
    server.tun(2, fromServer(syn, { sequence: SERVER_ISN + 1, acknowledgement: ISN + 1002, payload: [9] }))
    exchange(hosts, 2)
    t.same([...see(client.takeWritten()[0]!).payload], [9])
    const [flow] = [...client.engine.flows()]
    t.match(flow, {
      state: 'established',
      role: 'initiator',
      protocol: 'tcp',
      family: clientFamily,
      service: service(WEB),
    })
    const [other] = [...server.engine.flows()]
    t.match(other, { state: 'established', role: 'acceptor', family: serverFamily, dialledPort: 80, localPort: 8080 })
    t.equal(flow!.remoteId, other!.id)
    t.equal(other!.remoteId, flow!.id)
    t.same([...client.drops, ...server.drops], [])
    t.same(client.outcomes, ['1 answered'])
  }
  t.end()
})

test('super-packets cross as one, in both directions', (t) => {
  for (const [clientFamily, serverFamily] of families) {
    const ends = { clientFamily, serverFamily }
    const { client, server, hosts } = pair(serverFamily)
    const { syn } = connect(client, server, ends)
    const payload = Array.from({ length: 30_000 }, (_, i) => (i * 7) & 255)
    client.tun(1, fromClient(ends, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload, gsoSize: 1360 }))
    t.equal(client.sent.length, 1)
    t.same([client.sent[0]!.gsoKind, client.sent[0]!.gsoSize], [Gso.tcp, 1360])
    exchange(hosts, 1)
    const [packet] = server.takeWritten().map(see)
    t.equal(packet!.gsoSize, 1360)
    t.ok(equal(packet!.payload, payload))
    server.tun(1, fromServer(syn, { sequence: SERVER_ISN + 1, acknowledgement: ISN + 30_001, payload, gsoSize: 1340 }))
    exchange(hosts, 1)
    t.equal(see(client.takeWritten()[0]!).gsoSize, 1340)
  }
  t.end()
})

test('what a narrow path does not carry', (t) => {
  const ends = { clientFamily: 4, serverFamily: 4 } as const
  const { client, server, hosts, peer } = pair()
  connect(client, server, ends)
  client.peers.pathMtu[peer] = 1280
  const payload = new Array<number>(5000).fill(1)
  const common = { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1 }
  client.tun(1, fromClient(ends, { ...common, payload, gsoSize: 1360 }))
  const room = 1280 - 20 - 8 - 32
  t.equal(client.takeSent()[0]!.gsoSize, room - 12 - 16, 'a super-packet is cut smaller')

  client.tun(1, fromClient(ends, { ...common, payload: payload.slice(0, 1360) }))
  t.equal(client.sent.length, 0)
  const error = see(client.takeWritten()[0]!)
  t.same(error.icmp, [3, 4], 'a single packet is answered')
  t.same(error.source, address('dialled', 4, WEB))
  t.same(client.takeDrops(), ['too-big'])

  client.tun(1, fromClient(ends, { ...common, payload: payload.slice(0, 1360), mayFragment: true }))
  t.same(
    client.takeSent().map((f) => f.kind),
    [Kind.piece, Kind.piece],
    'one that may be fragmented goes in pieces',
  )

  const udp = { family: 4, source: SELF_ADDRESS[4], destination: address('dialled', 4, WEB), ports: [5, 53] } as const
  client.tun(1, udpPacket({ ...udp, payload: payload.slice(0, 3000) }))
  const pieces = client.takeSent()
  t.same(
    pieces.map((f) => f.kind),
    [Kind.piece, Kind.piece, Kind.piece],
    'a datagram goes in pieces',
  )
  t.ok(pieces.every((f) => f.bytes.length <= room))
  client.sent = pieces.reverse()
  exchange(hosts, 1)
  t.equal(see(server.takeWritten()[0]!).payload.length, 3000)
  t.same(server.drops, [])
  t.end()
})

test('pieces that a former process has sent are not put together with those of this one', (t) => {
  const ends = { clientFamily: 4, serverFamily: 4 } as const
  const { client: former, server, peer } = pair()
  connect(former, server, ends)
  const send = (host: FlowHost) => {
    host.peers.pathMtu[peer] = 1280
    const common = { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, mayFragment: true }
    host.tun(1, fromClient(ends, { ...common, payload: new Array<number>(1360).fill(1) }))
    return host.takeSent()
  }
  const before = send(former)
  const client = new FlowHost(1, {}, 64, 3, former.buffer)
  client.meet(2)
  const pieces = [before, send(client)]
  t.same(
    pieces.map((sent) => sent.map((f) => f.kind)),
    [
      [Kind.piece, Kind.piece],
      [Kind.piece, Kind.piece],
    ],
  )
  client.sent = [pieces[0]![0]!, pieces[1]![1]!]
  exchange([client, server], 1)
  t.same(server.takeWritten(), [], 'two halves of different packets')
  client.sent = [pieces[1]![0]!]
  exchange([client, server], 1)
  t.equal(see(server.takeWritten()[0]!).payload.length, 1360)
  t.end()
})

test("a SYN's MSS is lowered to what the path of its receiver carries", (t) => {
  const ends = { clientFamily: 4, serverFamily: 6 } as const
  const { client, server } = pair(6)
  server.peers.pathMtu[server.peers.indexOf(client.peers.hostId(SELF))] = 1280
  const { syn, synAck } = connect(client, server, ends)
  t.equal(syn.mss, 1280 - 20 - 8 - 32 - 12 - 16)
  t.equal(synAck.mss, 1360, 'the wider direction is left alone')

  const later = pair(6)
  const back = later.server.peers.indexOf(later.client.peers.hostId(SELF))
  later.server.peers.pathMtu[back] = 1280
  later.server.peers.pathMtuTaken[back] = 1500
  t.equal(connect(later.client, later.server, ends).syn.mss, 1380, 'not for the moment in which a path is measured')
  t.end()
})

test('UDP: every datagram opens until the flow is accepted, and none is delivered twice', (t) => {
  for (const [clientFamily, serverFamily] of families) {
    const { client, server, hosts } = pair(serverFamily)
    const source = SELF_ADDRESS[clientFamily]
    const out = {
      family: clientFamily,
      source,
      destination: address('dialled', clientFamily, WEB),
      ports: [5000, 53],
    } as const
    client.tun(0, udpPacket({ ...out, payload: [1] }))
    t.equal(client.sent[0]!.kind, Kind.open)
    exchange(hosts, 0)
    const [first] = server.takeWritten().map(see)
    t.same([...first!.payload], [1])
    const reply = {
      family: serverFamily,
      source: first!.destination,
      destination: first!.source,
      ports: [8080, 5000],
    } as const
    server.tun(1, udpPacket({ ...reply, payload: [2] }))
    t.equal(server.sent[0]!.kind, Kind.accept)
    exchange(hosts, 1)
    t.same([...see(client.takeWritten()[0]!).payload], [2])
    client.tun(2, udpPacket({ ...out, payload: [3], partial: true }))
    t.equal(client.sent[0]!.kind, Kind.data)
    exchange(hosts, 2)
    t.same([...see(server.takeWritten()[0]!).payload], [3])
    server.tun(3, udpPacket({ ...reply, payload: [4, 4, 5, 5, 6], gsoSize: 2 }))
    t.same([server.sent[0]!.kind, server.sent[0]!.gsoKind], [Kind.data, Gso.udp])
    exchange(hosts, 3)
    t.equal(see(client.takeWritten()[0]!).gsoSize, 2)
    t.equal(server.engine.counters.accepted, 1)
    t.same([...client.drops, ...server.drops], [])
  }
  t.end()
})

test('a UDP sender that is never answered, and a listener that never speaks again, get past OPEN and ACCEPT', (t) => {
  const { client, server, hosts } = pair()
  const out = {
    family: 4,
    source: SELF_ADDRESS[4],
    destination: address('dialled', 4, WEB),
    ports: [5000, 53],
  } as const
  client.tun(0, udpPacket({ ...out, payload: [1] }), udpPacket({ ...out, payload: [2] }))
  exchange(hosts, 0)
  client.tun(1, udpPacket({ ...out, payload: [3] }))
  t.equal(client.sent[0]!.kind, Kind.data, 'the second OPEN was answered')
  exchange(hosts, 1)
  t.same(
    server.takeWritten().map((p) => [...see(p).payload]),
    [[1], [2], [3]],
  )

  const other = pair()
  other.client.tun(0, udpPacket({ ...out, payload: [1] }))
  exchange(other.hosts, 0)
  const seen = see(other.server.takeWritten()[0]!)
  const reply = { family: 4, source: seen.destination, destination: seen.source, ports: [8080, 5000] } as const
  for (let i = 0; i < 3; i++) {
    other.server.tun(i, udpPacket({ ...reply, payload: [i] }))
    exchange(other.hosts, i)
  }
  other.server.tun(4, udpPacket({ ...reply, payload: [1, 2, 3, 4], gsoSize: 2 }))
  t.equal(other.server.sent[0]!.kind, Kind.data, 'the second ACCEPT was answered')
  exchange(other.hosts, 4)
  t.equal(other.client.takeWritten().length, 4)
  t.end()
})

test('a UDP super-packet before its flow is there is taken apart', (t) => {
  const { client, server, hosts } = pair(6)
  const out = {
    family: 4,
    source: SELF_ADDRESS[4],
    destination: address('dialled', 4, WEB),
    ports: [5000, 53],
  } as const
  client.tun(0, udpPacket({ ...out, payload: [1, 1, 2, 2, 3], gsoSize: 2 }))
  exchange(hosts, 0)
  t.same(
    server.takeWritten().map((p) => [...see(p).payload]),
    [[1, 1], [2, 2], [3]],
  )
  t.end()
})

test('echo over all four pairs of families, and to a host itself', (t) => {
  for (const [clientFamily, serverFamily] of families) {
    const { client, server, hosts, peer } = pair(serverFamily)
    const self = { family: serverFamily, address: SELF_ADDRESS[serverFamily], port: 0 }
    server.endpoints.set(-1, self)
    server.endpoints.set(WEB, { ...self, address: address('served', serverFamily, WEB) })
    client.catalogue.set(-1, [{ peer, service: undefined, doubtful: false }])
    for (const n of [WEB, 202]) {
      const destination = address('dialled', clientFamily, n)
      const source = SELF_ADDRESS[clientFamily]
      for (const round of [0, 1]) {
        client.tun(round, echoPacket({ family: clientFamily, source, destination, ports: [77, 0], payload: [1, 2, 3] }))
        exchange(hosts, round)
        const request = see(server.takeWritten()[0]!)
        t.equal(request.family, serverFamily)
        t.same(request.source, address('peer', serverFamily, 1))
        const back = { source: request.destination, destination: request.source, ports: [0, request.ports[0]] } as const
        server.tun(round, echoPacket({ family: serverFamily, ...back, payload: [1, 2, 3] }))
        exchange(hosts, round)
        const reply = see(client.takeWritten()[0]!)
        t.same(reply.source, destination)
        t.same(
          [reply.ports, [...reply.payload]],
          [
            [0, 77],
            [1, 2, 3],
          ],
        )
      }
      if (n === WEB) t.equal(client.engine.counters.opened, 1, 'the second request is of the same flow')
    }
    t.equal([...server.engine.flows()].length, 2)
    t.equal(server.engine.counters.clashes, 1, 'the same identifier towards two addresses is translated')
    t.same([...client.drops, ...server.drops], [])
  }
  t.end()
})

test('two clients with the same port towards the same server port', (t) => {
  const { client, server, hosts, peer } = pair()
  const pinned = 6
  client.catalogue.set(pinned, [{ peer, service: service(WEB), doubtful: false }])
  const one = { clientFamily: 4, serverFamily: 4 } as const
  const two = { ...one, number: pinned }
  const first = connect(client, server, one)
  const second = connect(client, server, two)
  t.equal(first.syn.ports[0], 40_000)
  t.not(second.syn.ports[0], 40_000, 'the second one is translated')
  t.ok(second.syn.ports[0] >= 1024)
  t.same(second.synAck.ports, [80, 40_000], 'and the client does not notice')
  server.tun(1, fromServer(second.syn, { sequence: SERVER_ISN + 1, acknowledgement: ISN + 1, payload: [2] }))
  server.tun(1, fromServer(first.syn, { sequence: SERVER_ISN + 1, acknowledgement: ISN + 1, payload: [1] }))
  exchange(hosts, 1)
  const seen = client.takeWritten().map(see)
  t.same(
    seen.map((p) => [p.source[3], ...p.payload]),
    [
      [pinned, 2],
      [WEB, 1],
    ],
  )
  t.equal(server.engine.counters.clashes, 1)
  const flows = [...server.engine.flows()]
  t.same(
    flows.map((f) => f.clientPort),
    [40_000, 40_000],
  )
  t.end()
})

test('client and server on the same host, in all four pairs of families', (t) => {
  for (const [clientFamily, serverFamily] of families) {
    const only = new FlowHost(1)
    only.catalogue.set(WEB, [{ peer: SELF, service: service(WEB), doubtful: false }])
    only.serve(WEB, serverFamily, 8080)
    const ends = { clientFamily, serverFamily }
    const { syn } = connect(only, only, ends)
    t.same(syn.source, address('peer', serverFamily, 1), 'the source is no local address')
    const payload = Array.from({ length: 20_000 }, (_, i) => i & 255)
    only.tun(1, fromClient(ends, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload, gsoSize: 1360 }))
    const seen = see(only.takeWritten()[0]!)
    t.equal(seen.gsoSize, 1360, 'super-packets stay whole')
    t.ok(equal(seen.payload, payload))
    t.same(only.sent, [], 'nothing goes to the wire')
    t.equal([...only.engine.flows()].length, 2)
    t.same(only.drops, [])
  }
  t.end()
})

test('a UDP server answers from another of its addresses', (t) => {
  for (const family of [4, 6] as const) {
    const { client, server, hosts } = pair(family)
    server.serve(9, family, 53)
    const out = {
      family,
      source: SELF_ADDRESS[family],
      destination: address('dialled', family, WEB),
      ports: [5000, 53],
    } as const
    client.tun(0, udpPacket({ ...out, payload: [1] }))
    exchange(hosts, 0)
    const seen = see(server.takeWritten()[0]!)
    const wrong = {
      family,
      source: address('served', family, 9),
      destination: seen.source,
      ports: [8080, 5000],
    } as const
    for (const payload of [[2], [3]]) {
      server.tun(1, udpPacket({ ...wrong, payload }))
      exchange(hosts, 1)
      const reply = see(client.takeWritten()[0]!)
      t.same(reply.source, address('dialled', family, WEB))
      t.same([...reply.payload], payload)
      client.tun(1, udpPacket({ ...out, payload }))
      exchange(hosts, 1)
      server.takeWritten()
    }
    server.tun(1, udpPacket({ ...wrong, ports: [8081, 5000] }))
    t.same(server.takeDrops(), ['mid-stream'], 'another port is nobody')
    server.tun(1, udpPacket({ ...wrong, source: address('served', family, 77) }))
    t.same(server.takeDrops(), ['foreign-source'], 'another host cannot speak for it')
  }
  t.end()
})

test('a server on loopback', (t) => {
  const { client, server, hosts } = pair()
  server.serve(WEB, 4, 8080, Uint8Array.of(127, 0, 0, 1))
  const { syn, synAck } = connect(client, server, { clientFamily: 6, serverFamily: 4 })
  t.same([...syn.destination], [127, 0, 0, 1])
  t.same(synAck.source, address('dialled', 6, WEB))
  exchange(hosts, 0)
  t.same([...client.drops, ...server.drops], [])
  t.end()
})

test('foreign sources, strangers to us, and packets that go nowhere', (t) => {
  const { client } = pair()
  const out = {
    family: 4,
    source: SELF_ADDRESS[4],
    destination: address('dialled', 4, WEB),
    ports: [5000, 53],
  } as const
  client.tun(0, udpPacket({ ...out, source: Uint8Array.of(192, 168, 1, 1) }))
  client.tun(0, udpPacket({ ...out, source: address('served', 4, WEB) }))
  t.same(client.takeDrops(), ['foreign-source', 'foreign-source'])
  t.same(client.takeWritten(), [])
  client.tun(0, udpPacket({ ...out, destination: address('dialled', 4, 0) }))
  t.same(client.takeDrops(), ['not-dialled'])
  t.same(see(client.takeWritten()[0]!).icmp, [3, 1])
  client.tun(0, udpPacket({ ...out, destination: Uint8Array.of(224, 0, 0, 251) }))
  t.same([client.takeDrops(), client.takeWritten()], [['not-dialled'], []], 'a multicast is not answered')
  client.tun(0, udpPacket({ ...out, hopLimit: 1 }))
  t.same(client.takeDrops(), ['hop-limit'])
  t.same(see(client.takeWritten()[0]!).icmp, [11, 0])
  client.tun(0, Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x45))
  t.same(client.takeDrops(), ['malformed-packet'])
  t.same(client.sent, [])
  t.end()
})

test('congestion marks of the outer header reach the program, or end the packet', (t) => {
  const ends = { clientFamily: 4, serverFamily: 4 } as const
  const { client, server } = pair()
  connect(client, server, ends)
  const send = (trafficClass: number) => {
    client.tun(1, fromClient(ends, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload: [1], trafficClass }))
    return client.takeSent()[0]!
  }
  const capable = send(0x2a)
  t.equal(capable.trafficClass, 0x2a)
  server.receive(1, 1, capable, 0x2b)
  t.equal(see(server.takeWritten()[0]!).trafficClass, 0x2b)
  server.receive(1, 1, send(0x28), 0x2b)
  t.same([server.takeWritten(), server.takeDrops()], [[], ['congestion-marked']])
  t.end()
})

test('fragments become one datagram', (t) => {
  const { client, server, hosts } = pair(6)
  const payload = Array.from({ length: 40 }, (_, i) => i)
  const out = {
    family: 4,
    source: SELF_ADDRESS[4],
    destination: address('dialled', 4, WEB),
    ports: [5000, 53],
  } as const
  const whole = udpPacket({ ...out, payload })
  const ip = [...whole.subarray(10)]
  const fragment = (from: number, to: number, more: boolean) => {
    const bytes = Uint8Array.from([
      ...new Array<number>(10).fill(0),
      ...ip.slice(0, 20),
      ...ip.slice(20 + from, 20 + to),
    ])
    bytes[12] = 0
    bytes[13] = 20 + to - from
    bytes[16] = (more ? 0x20 : 0) | ((from / 8) >> 8)
    bytes[17] = from / 8
    return bytes
  }
  client.tun(0, fragment(32, 48, false))
  t.same([client.sent, client.drops], [[], []])
  client.tun(0, fragment(0, 32, true))
  exchange(hosts, 0)
  t.same([...see(server.takeWritten()[0]!).payload], payload)
  t.same(client.drops, [])
  t.end()
})

test('an ICMP error of the server reaches the client, as if from whom it dialled', (t) => {
  for (const [clientFamily, serverFamily] of families) {
    const { client, server, hosts } = pair(serverFamily)
    const out = {
      family: clientFamily,
      source: SELF_ADDRESS[clientFamily],
      destination: address('dialled', clientFamily, WEB),
      ports: [5000, 53],
    } as const
    client.tun(0, udpPacket({ ...out, payload: [1] }))
    exchange(hosts, 0)
    const seen = see(server.takeWritten()[0]!)
    const reply = {
      family: serverFamily,
      source: seen.destination,
      destination: seen.source,
      ports: [8080, 5000],
    } as const
    server.tun(0, udpPacket({ ...reply, payload: [2] }))
    exchange(hosts, 0)
    client.takeWritten()
    client.tun(0, udpPacket({ ...out, payload: [3, 3, 3, 3] }))
    exchange(hosts, 0)
    server.tun(1, portUnreachable(server.takeWritten()[0]!))
    exchange(hosts, 1)
    const error = see(client.takeWritten()[0]!)
    t.same(error.icmp, clientFamily === 4 ? [3, 3] : [1, 4])
    t.same(error.source, out.destination)
    t.same(error.destination, out.source)
    const quote = error.quote!
    const header = clientFamily === 4 ? 20 : 40
    t.same(quote.subarray(clientFamily === 4 ? 12 : 8, header), Uint8Array.from([...out.source, ...out.destination]))
    t.same([...quote.subarray(header, header + 4)], [5000 >> 8, 5000 & 255, 0, 53], 'the ports as the client has them')
  }
  t.end()
})

test('a closed connection is kept for stragglers, and its port can begin anew', (t) => {
  const ends = { clientFamily: 4, serverFamily: 4 } as const
  const { client, server, hosts } = pair()
  const { syn } = connect(client, server, ends)
  client.tun(1, fromClient(ends, { flags: FIN | ACK, sequence: ISN + 1, acknowledgement: SERVER_ISN + 1 }))
  exchange(hosts, 1)
  t.equal([...client.engine.flows()][0]!.state, 'established', 'half closed')
  t.same(client.outcomes, ['1 answered'])
  server.tun(2, fromServer(syn, { flags: FIN | ACK, sequence: SERVER_ISN + 1, acknowledgement: ISN + 2 }))
  exchange(hosts, 2)
  client.tun(3, fromClient(ends, { sequence: ISN + 2, acknowledgement: SERVER_ISN + 2 }))
  exchange(hosts, 3)
  t.same([[...client.engine.flows()][0]!.state, [...server.engine.flows()][0]!.state], ['closing', 'closing'])
  t.same([client.outcomes, server.outcomes], [['1 answered', '1 ended'], []], 'the initiator counts its flows')
  t.equal(server.takeWritten().length, 2, 'the last acknowledgement arrives')
  client.takeWritten()

  client.tun(4, fromClient(ends, { flags: SYN, sequence: 5 }))
  exchange(hosts, 4)
  const again = see(server.takeWritten()[0]!)
  t.equal(again.sequence, 5)
  t.not(again.ports[0], 40_000, "the server's kernel may still remember the port")
  t.equal([...client.engine.flows()].length, 2)
  for (const host of hosts) {
    host.engine.handleTimeout(70_000)
    t.equal([...host.engine.flows((f) => f.state === 'closing')].length, 0)
  }
  t.same(client.outcomes, ['1 answered', '1 ended'], 'once')
  t.end()
})

test('a reset that the other kernel will not take ends nothing', (t) => {
  const ends = { clientFamily: 4, serverFamily: 4 } as const
  const { client, server, hosts } = pair()
  // The SYN meets an older connection's TIME-WAIT: the answer is about that one.
  client.tun(0, fromClient(ends, { flags: SYN, sequence: ISN }))
  exchange(hosts, 0)
  const syn = see(server.takeWritten()[0]!)
  server.tun(1, fromServer(syn, { sequence: 77_000, acknowledgement: 99_000 }))
  exchange(hosts, 1)
  t.same(see(client.takeWritten()[0]!).acknowledgement, 99_000)
  client.tun(2, fromClient(ends, { flags: RST, sequence: 99_000 }))
  exchange(hosts, 2)
  t.equal(see(server.takeWritten()[0]!).flags, RST)
  const states = () => hosts.map((host) => [...host.engine.flows()].map((flow) => flow.state))
  t.same(states(), [['established'], ['established']])
  client.tun(1_000, fromClient(ends, { flags: SYN, sequence: ISN }))
  exchange(hosts, 1_000)
  t.same(see(server.takeWritten()[0]!).sequence, ISN, 'the SYN is repeated')
  server.tun(1_001, fromServer(syn, { flags: SYN | ACK, sequence: SERVER_ISN, acknowledgement: ISN + 1 }))
  exchange(hosts, 1_001)
  client.tun(1_002, fromClient(ends, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload: [1, 2, 3] }))
  exchange(hosts, 1_002)
  for (const number of [SERVER_ISN - 5_000, SERVER_ISN + 5_000]) {
    server.tun(1_003, fromServer(syn, { flags: RST, sequence: number }))
    exchange(hosts, 1_003)
    t.same(states(), [['established'], ['established']])
  }
  server.tun(1_004, fromServer(syn, { flags: RST, sequence: SERVER_ISN + 1 }))
  exchange(hosts, 1_004)
  t.same(states(), [['closing'], ['closing']])
  t.end()
})

test('the port of a connection that is over is not given to the next one', (t) => {
  const { client, server, hosts, peer } = pair()
  const pinned = 6
  client.catalogue.set(pinned, [{ peer, service: service(WEB), doubtful: false }])
  const one = { clientFamily: 4, serverFamily: 4, clientPort: 700 } as const
  const first = connect(client, server, one)
  client.tun(1, fromClient(one, { flags: FIN | ACK, sequence: ISN + 1, acknowledgement: SERVER_ISN + 1 }))
  exchange(hosts, 1)
  const fin = { flags: FIN | ACK, sequence: SERVER_ISN + 1, acknowledgement: ISN + 2 }
  server.tun(2, fromServer(first.syn, fin))
  exchange(hosts, 2)
  server.takeWritten()
  client.takeWritten()
  const second = connect(client, server, { ...one, number: pinned }, 3)
  t.ok(
    second.syn.ports[0] !== 700 && second.syn.ports[0] >= 512 && second.syn.ports[0] < 1_024,
    'as privileged as it was',
  )
  t.same(second.synAck.ports, [80, 700])
  server.tun(4, fromServer(first.syn, fin))
  exchange(hosts, 4)
  t.equal(see(client.takeWritten()[0]!).source[3], WEB, "what repeats is the first one's")
  t.end()
})

test('a new connection over one that its kernel has given up', (t) => {
  const ends = { clientFamily: 4, serverFamily: 4 } as const
  const { client, server, hosts } = pair()
  connect(client, server, ends)
  client.tun(1, fromClient(ends, { flags: SYN, sequence: 5 }))
  exchange(hosts, 1)
  const written = server.takeWritten().map(see)
  t.same(
    written.map((p) => p.flags),
    [RST | ACK, SYN],
    'the old server is reset, the new one asked',
  )
  t.same(written[0]!.sequence, (ISN + 1) >>> 0)
  t.equal([...server.engine.flows()].length, 1)
  t.end()
})

test('a forgotten flow: each end resets its own kernel, with the number it expects', (t) => {
  const ends = { clientFamily: 6, serverFamily: 4 } as const
  const { client, server, peer } = pair()
  const { syn } = connect(client, server, ends)
  // The server's daemon starts again and has lost its table.
  const restarted = new FlowHost(2, {}, 64, 99)
  restarted.meet(1)
  restarted.serve(WEB, 4, 8080)
  client.tun(1, fromClient(ends, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload: [1] }))
  exchange([client, restarted], 1)
  t.same(restarted.takeDrops(), ['unknown-flow'])
  t.same(restarted.takeWritten(), [], 'nobody else is reset')
  const reset = see(client.takeWritten()[0]!)
  t.same([reset.flags, reset.sequence], [RST | ACK, SERVER_ISN + 1])
  t.same(reset.source, address('dialled', 6, WEB))
  t.equal([...client.engine.flows()].length, 0)
  restarted.tun(2, fromServer(syn, { sequence: SERVER_ISN + 1, acknowledgement: 4242, payload: [1] }))
  const own = see(restarted.takeWritten()[0]!)
  t.same([own.flags, own.sequence], [RST, 4242])
  t.same(restarted.takeDrops(), ['mid-stream'])
  t.equal(restarted.sent.length, 0)
  t.ok(peer > 0)
  t.end()
})

test('a reset is exact when bytes are under way that the kernel has not acknowledged', (t) => {
  const ends = { clientFamily: 4, serverFamily: 4 } as const
  const { client, server, hosts } = pair()
  const { syn } = connect(client, server, ends)
  server.tun(1, fromServer(syn, { sequence: SERVER_ISN + 1, acknowledgement: ISN + 1, payload: [1, 2, 3] }))
  // A gap, and bytes behind it.
  server.tun(1, fromServer(syn, { sequence: SERVER_ISN + 100, acknowledgement: ISN + 1, payload: [1, 2, 3] }))
  exchange(hosts, 1)
  client.takeWritten()
  client.engine.closeAll(2)
  const resets = client.takeWritten().map(see)
  t.same(
    resets.map((p) => p.sequence),
    [SERVER_ISN + 4, SERVER_ISN + 1],
  )
  t.ok(resets.every((p) => p.flags === (RST | ACK) && p.acknowledgement === (ISN + 1) >>> 0))
  exchange(hosts, 2)
  const other = see(server.takeWritten()[0]!)
  t.same([other.flags, other.sequence], [RST | ACK, (ISN + 1) >>> 0], 'CLOSE resets the server')
  t.same([[...client.engine.flows()], [...server.engine.flows()]], [[], []])
  t.end()
})

test('a policy that now denies cuts its flows and no others', (t) => {
  const ends = { clientFamily: 4, serverFamily: 4 } as const
  const { client, server, hosts } = pair()
  connect(client, server, ends)
  connect(client, server, { ...ends, clientPort: 40_001 })
  t.equal(
    server.engine.cut((flow) => flow.clientPort === 40_001, 1),
    1,
  )
  exchange(hosts, 1)
  t.same(
    client.takeWritten().map((p) => see(p).ports),
    [[80, 40_001]],
  )
  t.same(
    [...client.engine.flows()].map((f) => f.clientPort),
    [40_000],
  )
  t.same(client.outcomes, ['1 answered', '1 answered', '1 ended'])
  client.engine.peerLost(1, 2)
  t.same(
    client.takeWritten().map((p) => see(p).ports),
    [[80, 40_000]],
  )
  t.same([...client.engine.flows()], [])
  t.end()
})

test('flows age by their kind; TCP lives while the other end confirms it', (t) => {
  const ends = { clientFamily: 4, serverFamily: 4 } as const
  const { client, server, hosts } = pair()
  connect(client, server, ends)
  const out = {
    family: 4,
    source: SELF_ADDRESS[4],
    destination: address('dialled', 4, WEB),
    ports: [5000, 53],
  } as const
  client.tun(0, udpPacket({ ...out, payload: [1] }))
  exchange(hosts, 0)
  const seen = see(server.takeWritten()[0]!)
  server.tun(0, udpPacket({ family: 4, source: seen.destination, destination: seen.source, ports: [8080, 5000] }))
  exchange(hosts, 0)
  const run = (from: number, to: number, also: readonly FlowHost[] = hosts) => {
    for (let now = from; now <= to; now += 5_000) {
      for (const host of also) if (host.engine.nextTimeout() <= now) host.engine.handleTimeout(now)
      exchange(also, now)
    }
  }
  run(1_000, 295_000)
  t.equal([...client.engine.flows()].length, 2)
  run(300_000, 310_000)
  t.same(
    [...client.engine.flows()].map((f) => f.protocol),
    ['tcp'],
    'idle UDP goes after 300 s',
  )
  const hours = 3_600_000
  run(320_000, 5 * hours)
  t.equal([...client.engine.flows()].length, 1, 'confirmed for five hours')
  t.equal([...server.engine.flows()].length, 1)
  t.same(client.drops, [])
  client.takeWritten()
  // The server's end is gone and says nothing.
  run(5 * hours, 7 * hours, [client])
  t.equal([...client.engine.flows()].length, 1, 'not before 2 h 4 min')
  run(7 * hours, 7 * hours + defaultFlowOptions.tcpConfirmEvery, [client])
  t.equal([...client.engine.flows()].length, 0)
  t.equal(see(client.takeWritten()[0]!).flags, RST | ACK)
  t.equal(client.engine.nextTimeout(), Infinity, 'nothing is left to do')
  t.end()
})

test('what has passed in flows with a peer is counted while they are there, and when they are gone', (t) => {
  const ends = { clientFamily: 4, serverFamily: 4 } as const
  const { client, server, hosts, peer } = pair()
  const of = ({ engine }: FlowHost) => {
    const traffic = engine.endedTraffic
    for (let row = 0; row < engine.table.highWater; row++) traffic.add(engine.table, row)
    const { bytesIn, bytesOut } = traffic
    return [bytesIn[1], bytesOut[1]]
  }
  t.equal(peer, 1)
  t.same(of(client), [0, 0])
  connect(client, server, ends)
  const payload = new Array<number>(500).fill(1)
  client.tun(1, fromClient(ends, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload }))
  exchange(hosts, 1)
  const [flow] = [...client.engine.flows()]
  const seen = [flow!.bytesIn, flow!.bytesOut]
  t.ok(flow!.bytesIn >= 40 && flow!.bytesOut >= 580)
  t.same(of(client), seen)
  t.ok(of(server)[0]! >= 580)
  client.engine.cut(() => true, 2)
  exchange(hosts, 2)
  const ended = of(client)
  for (let now = 1_000; now < 300_000; now += 1_000)
    if (client.engine.nextTimeout() <= now) client.engine.handleTimeout(now)
  t.equal([...client.engine.flows()].length, 0)
  t.same(of(client), ended)
  connect(client, server, ends, 300_000)
  t.ok(of(client)[1]! > ended[1]!, 'and of the next ones')
  t.end()
})

test('frames that are not ours to decide, and nonsense', (t) => {
  const { client, server } = pair()
  connect(client, server, { clientFamily: 4, serverFamily: 4 })
  const frame = (kind: number, length = 40) => {
    const bytes = new Uint8Array(length)
    if (length > 8) bytes[8] = kind
    return { bytes, gsoKind: 0, gsoSize: 0 }
  }
  for (const kind of [Kind.empty, Kind.control, Kind.probe, Kind.probeEcho]) server.receive(1, 1, frame(kind))
  t.equal(server.others, 4)
  t.same(server.drops, [])
  server.receive(1, 1, frame(0, 5))
  for (const kind of [Kind.open, Kind.accept, Kind.notHere, Kind.close, Kind.icmpError, Kind.piece, Kind.confirm]) {
    server.receive(1, 1, frame(kind, 13))
  }
  t.same(server.takeDrops(), new Array(8).fill('bad-frame'))
  server.receive(1, 9, frame(Kind.data))
  t.same(server.takeDrops(), ['unknown-lane'])
  t.same([server.takeSent(), server.takeWritten()], [[], []])
  t.end()
})

test('another peer cannot speak for a flow', (t) => {
  const ends = { clientFamily: 4, serverFamily: 4 } as const
  const { client, server } = pair()
  const stranger = server.meet(3)
  connect(client, server, ends)
  client.tun(1, fromClient(ends, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload: [1] }))
  const [frame] = client.takeSent()
  server.receive(1, stranger, frame!)
  t.same([server.takeWritten(), server.takeDrops()], [[], ['unknown-flow']])
  t.same(
    server.takeSent().map((f) => [f.peer, f.kind]),
    [[stranger, Kind.notHere]],
  )
  t.end()
})
