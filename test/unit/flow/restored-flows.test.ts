// A daemon that begins with the memory of the one before it.
import { test } from 'tap'
import type { Family } from '../../../lib/flow/environment.js'
import { FlowMemory } from '../../../lib/flow/flow-memory.js'
import { Generations } from '../../../lib/flow/flow-id.js'
import { Count, FlowFlag, FlowState, Row, ROW_WORDS, type FlowTable } from '../../../lib/flow/flow-table.js'
import type { FlowSnapshot } from '../../../lib/flow/flow-snapshot.js'
import { renewChecksum } from '../../../lib/flow/row-checksum.js'
import { connect, fromClient, fromServer, ISN, SERVER_ISN, WEB, type Ends } from './connection.js'
import { address, exchange, FlowHost, host, SELF_ADDRESS, service } from './flow-host.js'
import { ACK, echoPacket, FIN, see, SYN, udpPacket, type Seen } from './packets.js'

const CAPACITY = 64
/** A service that is only pinged. */
const ECHO = 6
const ENDS: Ends = { clientFamily: 4, serverFamily: 4 }

/** Host 1 uses what host 2 serves. */
class Pair {
  client = new FlowHost(1)
  server = new FlowHost(2)

  constructor(readonly family: Family = 4) {
    this.#arm(this.client)
    this.#arm(this.server)
  }

  #arm(one: FlowHost): void {
    const other = one.meet(3 - one.number)
    if (one.number === 1) {
      for (const n of [WEB, ECHO]) one.catalogue.set(n, [{ peer: other, service: service(n), doubtful: false }])
    } else {
      one.serve(WEB, this.family, 8080)
      one.serve(ECHO, this.family, 0)
    }
  }

  /** The daemon of one end is another process from now on. */
  restart(which: 'client' | 'server', seed = 77, options = {}): FlowHost {
    const old = this[which]
    const fresh = new FlowHost(old.number, options, CAPACITY, seed, old.buffer)
    fresh.engine.resume(1_000)
    this.#arm(fresh)
    this[which] = fresh
    return fresh
  }

  go(now: number): void {
    exchange([this.client, this.server], now)
  }

  /** A byte there and one back; the packets as the other kernel saw them. */
  echo(ends: Ends, syn: Seen, now: number, offset = 0): { there: Seen[]; back: Seen[] } {
    const [sequence, answered] = [ISN + 1 + offset, SERVER_ISN + 1 + offset]
    this.client.tun(now, fromClient(ends, { sequence, acknowledgement: answered, payload: [1] }))
    this.go(now)
    const there = this.server.takeWritten().map(see)
    this.server.tun(now, fromServer(syn, { sequence: answered, acknowledgement: sequence + 1, payload: [2] }))
    this.go(now)
    return { there, back: this.client.takeWritten().map(see) }
  }
}

const flows = (of: FlowHost): FlowSnapshot[] => [...of.engine.flows()]
const only = (of: FlowHost): FlowSnapshot => flows(of)[0]!
const words = (table: FlowTable, row: number) => [...table.words.subarray(row * ROW_WORDS, (row + 1) * ROW_WORDS)]

for (const [clientFamily, serverFamily] of [
  [4, 4],
  [4, 6],
  [6, 4],
  [6, 6],
] as const) {
  test(`TCP from IPv${clientFamily} to IPv${serverFamily} goes on whichever end begins anew, and both`, (t) => {
    const ends: Ends = { clientFamily, serverFamily }
    const pair = new Pair(serverFamily)
    const { syn } = connect(pair.client, pair.server, ends)
    pair.echo(ends, syn, 10)
    for (const [i, which] of (['client', 'server', 'client'] as const).entries()) {
      const before = only(pair[which])
      const fresh = pair.restart(which, 100 + i)
      t.match(fresh.engine.restored, { why: undefined, kept: 1, torn: 0, unfinished: 0, nameless: 0 })
      t.same(only(fresh), before)
      const { there, back } = pair.echo(ends, syn, 20 + i, 1 + i)
      t.same([there.map((p) => p.payload), back.map((p) => p.payload)], [[Uint8Array.of(1)], [Uint8Array.of(2)]])
      t.same([pair.client.takeDrops(), pair.server.takeDrops()], [[], []])
    }
    t.match(pair.server.engine.counts, { open: 1, tcp: 1, udp: 0, icmp: 0 })
    t.equal(pair.client.engine.openTo(service(WEB), 1), 1)
    t.ok(pair.client.outcomes.includes('1 restored'), 'it counts as a flow to the instance')
    t.same(pair.server.keptPeers.size, serverFamily === 4 ? 1 : 0)
    t.end()
  })
}

test('a flow ends as it would have: FINs, the CLOSE of the other end, a reset that the kernel believes', (t) => {
  const pair = new Pair()
  const { syn } = connect(pair.client, pair.server, ENDS)
  pair.client.tun(5, fromClient(ENDS, { flags: FIN | ACK, sequence: ISN + 1, acknowledgement: SERVER_ISN + 1 }))
  pair.go(5)
  pair.restart('server')
  pair.server.takeWritten()
  pair.server.tun(6, fromServer(syn, { flags: FIN | ACK, sequence: SERVER_ISN + 1, acknowledgement: ISN + 2 }))
  pair.go(6)
  t.equal(only(pair.server).state, 'closing')
  t.equal(only(pair.client).state, 'closing')
  pair.restart('client')
  t.equal(only(pair.client).state, 'closing', 'kept for stragglers')
  t.match(pair.client.outcomes, [], 'and not counted as open')
  pair.client.engine.handleTimeout(pair.client.engine.nextTimeout())
  pair.client.engine.handleTimeout(200_000)
  t.equal(pair.client.engine.table.count, 0)

  const other = new Pair()
  connect(other.client, other.server, ENDS)
  other.restart('client')
  other.server.engine.closeAll(10)
  other.go(10)
  const reset = see(other.client.takeWritten()[0]!)
  t.equal(reset.sequence, SERVER_ISN + 1)
  t.equal(other.client.engine.table.count, 0)
  t.end()
})

test('the other end has really lost its flows: a packet of one resets both programs', (t) => {
  const pair = new Pair()
  connect(pair.client, pair.server, ENDS)
  pair.restart('client')
  pair.server = new FlowHost(2, {}, CAPACITY, 5)
  pair.server.meet(1)
  pair.client.tun(20, fromClient(ENDS, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload: [1] }))
  pair.go(20)
  t.match(pair.client.takeWritten().map(see), [{ sequence: SERVER_ISN + 1 }])
  t.equal(pair.client.engine.table.count, 0)
  t.end()
})

test('what was not established is forgotten, and the program tries again', (t) => {
  const pair = new Pair()
  const syn = fromClient(ENDS, { flags: SYN, sequence: ISN })
  pair.client.tun(0, syn)
  pair.go(0)
  pair.server.takeWritten()
  pair.restart('client')
  pair.restart('server')
  t.match(pair.client.engine.restored, { kept: 0, unfinished: 1 })
  t.match(pair.server.engine.restored, { kept: 0, unfinished: 1 })
  t.equal(pair.client.engine.table.count + pair.server.engine.table.count, 0)
  t.equal(connect(pair.client, pair.server, ENDS, 10).syn.ports[0], 40_000, 'by the same port')
  t.end()
})

test('a server that has answered goes on saying so until the client uses the flow', (t) => {
  const pair = new Pair()
  pair.client.tun(0, fromClient(ENDS, { flags: SYN, sequence: ISN }))
  pair.go(0)
  const syn = see(pair.server.takeWritten()[0]!)
  const synAck = fromServer(syn, { flags: SYN | ACK, sequence: SERVER_ISN, acknowledgement: ISN + 1 })
  pair.server.tun(1, synAck)
  pair.server.takeSent()
  pair.restart('server')
  pair.server.tun(2, synAck)
  pair.go(2)
  t.equal(pair.client.takeWritten().length, 1)
  pair.client.tun(3, fromClient(ENDS, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1 }))
  pair.go(3)
  t.equal(pair.server.takeWritten().length, 1)
  t.end()
})

const datagram = (port: number, payload: number) =>
  udpPacket({
    family: 4,
    source: SELF_ADDRESS[4],
    destination: address('dialled', 4, WEB),
    ports: [port, 80],
    payload: [payload],
  })
const reply = ({ source, destination, ports: [from, to] }: Seen, payload: number) =>
  udpPacket({ family: 4, source: destination, destination: source, ports: [to, from], payload: [payload] })

test('datagrams and echo go on, and return to the same host after they were idle', (t) => {
  const pair = new Pair()
  pair.client.tun(0, datagram(5_000, 1))
  const pinged = address('dialled', 4, ECHO)
  const ping = echoPacket({ family: 4, source: SELF_ADDRESS[4], destination: pinged, ports: [9, 0] })
  pair.client.tun(0, ping)
  pair.go(0)
  const [seen, asked] = pair.server.takeWritten().map(see)
  pair.server.tun(1, reply(seen!, 2))
  const pong = echoPacket({
    family: 4,
    source: asked!.destination,
    destination: asked!.source,
    ports: [0, 9],
  })
  pair.server.tun(1, pong)
  pair.go(1)
  pair.client.takeWritten()
  for (const which of ['server', 'client'] as const) {
    pair.restart(which)
    t.equal(pair[which].engine.restored.kept, 2)
    pair.client.tun(2, datagram(5_000, 3), ping)
    pair.go(2)
    const again = pair.server.takeWritten().map(see)
    t.same([again[0]!.ports, again[1]!.ports], [seen!.ports, asked!.ports])
    pair.server.tun(2, reply(seen!, 4), pong)
    pair.go(2)
    t.equal(pair.client.takeWritten().length, 2)
  }
  t.same([pair.client.takeDrops(), pair.server.takeDrops()], [[], []])
  // Another instance would be asked first by now.
  const other = new FlowHost(3)
  other.meet(1)
  other.serve(WEB, 4, 8080)
  const { client } = pair
  client.catalogue.set(WEB, [
    { peer: client.meet(3), service: service(WEB), doubtful: false },
    ...(client.catalogue.get(WEB) as []),
  ])
  for (let now = 2_000; now < 700_000; now += 1_000) client.engine.handleTimeout(now)
  t.equal(client.engine.table.count, 0)
  client.tun(700_000, datagram(5_000, 5))
  t.same(
    client.sent.map(({ peer }) => peer),
    [1],
  )
  t.end()
})

test('the port that a clash has given to a client stays its port', (t) => {
  const pair = new Pair()
  pair.client.catalogue.set(7, pair.client.catalogue.get(WEB)!)
  const [a, b] = [ENDS, { ...ENDS, number: 7 }]
  const first = connect(pair.client, pair.server, a)
  const second = connect(pair.client, pair.server, b)
  t.not(second.syn.ports[0], first.syn.ports[0])
  pair.restart('server')
  t.same(
    pair.echo(b, second.syn, 20).there.map((p) => p.ports),
    [second.syn.ports],
  )
  t.same(
    pair.echo(a, first.syn, 21).there.map((p) => p.ports),
    [first.syn.ports],
  )
  t.end()
})

test('a flow of this host with itself has both its ends again', (t) => {
  const one = new FlowHost(1)
  one.serve(WEB, 4, 8080)
  one.catalogue.set(WEB, [{ peer: 0, service: service(WEB), doubtful: false }])
  connect(one, one, ENDS)
  const fresh = new FlowHost(1, {}, CAPACITY, 9, one.buffer)
  t.equal(fresh.engine.restored.kept, 2)
  fresh.tun(5, fromClient(ENDS, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload: [7] }))
  t.same(
    fresh.takeWritten().map((p) => [...see(p).payload]),
    [[7]],
  )
  t.end()
})

/** Flows of host 1 to hosts 2 to 5 and services of the same numbers, of which each process sees another part. */
function several(): { client: FlowHost; peers: number[] } {
  const client = new FlowHost(1)
  const peers = [2, 3, 4, 5].map((n) => client.meet(n))
  peers.forEach((peer, i) => client.catalogue.set(i + 2, [{ peer, service: service(i + 2), doubtful: false }]))
  for (const [i, peer] of peers.entries()) {
    const server = new FlowHost(i + 2)
    server.meet(1)
    server.serve(i + 2, 4, 8080)
    connect(client, server, { ...ENDS, number: i + 2, clientPort: 40_000 + peer })
  }
  return { client, peers }
}

test('hosts and services keep their numbers; those that no flow needs are free', (t) => {
  const { client, peers } = several()
  client.engine.peerLost(peers[1]!, 5)
  client.engine.peerLost(peers[2]!, 5)
  const fresh = new FlowHost(1, {}, CAPACITY, 9, client.buffer)
  t.equal(fresh.engine.restored.kept, 2)
  t.same(
    flows(fresh).map(({ peer, service: id }) => [fresh.peers.hostId(peer), id]),
    [
      [host(2), service(2)],
      [host(5), service(5)],
    ],
  )
  t.same([...fresh.engine.restored.rows.keys()].sort(), [peers[0], peers[3]])
  t.notOk(fresh.peers.has(peers[1]!))
  t.same([fresh.meet(9), fresh.meet(10), fresh.meet(11)].sort(), [peers[1], peers[2], 5])
  t.throws(() => fresh.peers.hostId(6), RangeError)
  t.equal(fresh.peers.size, 6)
  t.end()
})

test('a row that was being written is left out and counted, the others go on', (t) => {
  const { client } = several()
  const { table } = client.engine
  const torn: [number, number, number][] = [
    [0, Row.remoteGeneration, 1],
    [1, Row.state, FlowState.closing],
    [2, Row.flags, table.get(2, Row.flags) | FlowFlag.finIn],
  ]
  for (const [row, field, value] of torn) table.set(row, field, value)
  const fresh = new FlowHost(1, {}, CAPACITY, 9, client.buffer)
  t.match(fresh.engine.restored, { kept: 1, torn: 3 })
  t.same(
    flows(fresh).map(({ service: id }) => id),
    [service(5)],
  )
  t.equal(fresh.engine.table.count, 1)
  const again = new FlowHost(1, {}, CAPACITY, 10, client.buffer)
  t.match(again.engine.restored, { kept: 1, torn: 0 })
  t.end()
})

test('a whole row that makes no sense, or whose host or service is not known, is left out', (t) => {
  const { client } = several()
  const { table } = client.engine
  const wrong: [number, number, number][] = [
    [0, Row.kind, (99 << 8) | 4],
    [1, Row.peer, 15],
    [2, Row.service, 3],
    [3, Row.remoteGeneration, 0],
  ]
  for (const [row, field, value] of wrong) {
    table.set(row, field, value)
    renewChecksum(table, row)
  }
  const fresh = new FlowHost(1, {}, CAPACITY, 9, client.buffer)
  t.match(fresh.engine.restored, { kept: 1, torn: 2, nameless: 1 })
  t.end()
})

test('two rows with one 5-tuple or one flow ID of the peer: the second is left out, and one that is over gives way', (t) => {
  const { client } = several()
  const { table } = client.engine
  const copy = (from: number, to: number) => {
    table.words.copyWithin(to * ROW_WORDS, from * ROW_WORDS, (from + 1) * ROW_WORDS)
    renewChecksum(table, to)
  }
  copy(0, 1)
  copy(2, 3)
  table.set(2, Row.state, FlowState.closing)
  renewChecksum(table, 2)
  const fresh = new FlowHost(1, {}, CAPACITY, 9, client.buffer)
  t.match(fresh.engine.restored, { kept: 3, torn: 1 })
  t.same(
    flows(fresh)
      .map(({ state }) => state)
      .sort(),
    ['closing', 'established', 'established'],
  )
  const packet = fromClient({ ...ENDS, number: 4, clientPort: 40_003 }, {})
  const view = new DataView(packet.buffer, packet.byteOffset)
  const ports = (40_003 << 16) | 80
  t.equal(fresh.engine.table.find(view, 10 + 12, 10 + 16, 4, 6, ports), 3)
  fresh.engine.closeAll(10)
  t.equal(fresh.engine.table.count, 0)
  t.end()
})

test('counters and times that cannot be are put right', (t) => {
  const { client } = several()
  const { table } = client.engine
  table.doubles[Count.bytesIn] = Number.NaN
  table.doubles[Count.bytesOut] = -5
  table.set(0, Row.lastIn, 2 ** 31 - 1)
  table.set(0, Row.flags, table.get(0, Row.flags) | (1 << 20))
  const fresh = new FlowHost(1, {}, CAPACITY, 9, client.buffer)
  fresh.engine.resume(60_000)
  t.match(fresh.engine.restored, { kept: 4, torn: 0 })
  t.match(fresh.engine.flow(0), { bytesIn: 0, bytesOut: 0, lastIn: 60 })
  t.end()
})

test('restoring changes nothing of a row that is kept, and may be broken off and done again', (t) => {
  const { client } = several()
  const still = (of: FlowHost) =>
    [0, 1, 2, 3].map((row) =>
      words(of.engine.table, row).map((word, i) => (i === Row.nextFree || i === Row.nextRemote ? 0 : word)),
    )
  const before = still(client)
  for (let i = 0; i < 3; i++) t.same(still(new FlowHost(1, {}, CAPACITY, 20 + i, client.buffer)), before)
  t.end()
})

test('memory of another size, host or version is not read: the table is empty, and says why', (t) => {
  const shape = { flows: CAPACITY, peers: 16, host: host(1) }
  const generations = new Generations((length) => new Uint8Array(length).fill(1))
  const left = (change: (header: Int32Array) => void) => {
    const { buffer } = several().client
    change(new Int32Array(buffer, 0, 16))
    return buffer
  }
  const open = (buffer: ArrayBuffer, other = {}) => {
    const memory = new FlowMemory(buffer, { ...shape, ...other }, generations)
    memory.open(true)
    return memory
  }
  const cases: [string, FlowMemory][] = [
    ['there is no flow table', open(new ArrayBuffer(FlowMemory.bytesFor(CAPACITY, 16)))],
    ['there is no flow table', open(left((header) => (header[0] = 1)))],
    ['another version wrote it', open(left((header) => header[1]!++))],
    ['another version wrote it', open(left((header) => header[2]!++))],
    [
      'it is of another size',
      open(
        left(() => undefined),
        { flows: CAPACITY / 2 },
      ),
    ],
    [
      'it is of another size',
      open(
        left(() => undefined),
        { peers: 8 },
      ),
    ],
    [
      'another host wrote it',
      open(
        left(() => undefined),
        { host: host(2) },
      ),
    ],
    ['its header is damaged', open(left((header) => header[14]!++))],
  ]
  for (const [why, memory] of cases) {
    t.equal(memory.found, why)
    t.same([memory.table.count, memory.table.highWater], [0, 0])
    t.not(memory.table.allocate(FlowState.opening), -1)
  }
  const again = left((header) => (header[0] = 1))
  open(again)
  t.equal(open(again).found, 'rows', 'what was begun anew is good for the next time')
  t.throws(() => open(new ArrayBuffer(100)), RangeError)
  t.end()
})

test('memory that is another process’s still is not touched before it is opened', (t) => {
  const { client } = several()
  const before = new Uint8Array(client.buffer.slice(0))
  const generations = new Generations((length) => new Uint8Array(length).fill(1))
  const memory = new FlowMemory(client.buffer, { flows: CAPACITY, peers: 16, host: host(1) }, generations)
  memory.table.preview()
  t.same(new Uint8Array(client.buffer), before)
  memory.open(true)
  t.equal(memory.found, 'rows')
  t.end()
})
