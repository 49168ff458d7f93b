// Whatever stands in the memory that a former process has left, the next one takes up what is whole and sound, and nothing else: it never throws, and its table is one.
import fc from 'fast-check'
import { test } from 'tap'
import { FlowState, FlowTable, ROW_WORDS, Row } from '../../lib/flow/flow-table.js'
import { Generations } from '../../lib/flow/flow-id.js'
import { isWhole, renewChecksum } from '../../lib/flow/row-checksum.js'
import { connect, fromClient, fromServer, ISN, SERVER_ISN } from '../unit/flow/connection.js'
import { address, exchange, FlowHost, SELF_ADDRESS, service } from '../unit/flow/flow-host.js'
import { ACK, FIN, see, udpPacket } from '../unit/flow/packets.js'

const CAPACITY = 16
const HEADER_BYTES = 64

/** What host 1 leaves: connections in both families, open and over, to several hosts, to itself and from another; datagrams; one that is being opened; free rows. */
const left = (() => {
  const one = new FlowHost(1, {}, CAPACITY)
  const others = [2, 3].map((n) => new FlowHost(n, {}, CAPACITY))
  for (const other of others) {
    const n = other.number
    one.catalogue.set(n, [{ peer: one.meet(n), service: service(n), doubtful: false }])
    other.meet(1)
    other.serve(n, n === 2 ? 4 : 6, 8080)
    other.catalogue.set(9, [{ peer: 1, service: service(9), doubtful: false }])
  }
  one.serve(9, 4, 8080)
  one.catalogue.set(9, [{ peer: 0, service: service(9), doubtful: false }])
  const [two, three] = others as [FlowHost, FlowHost]
  connect(one, two, { clientFamily: 4, serverFamily: 4, number: 2 })
  connect(one, three, { clientFamily: 6, serverFamily: 6, number: 3 })
  connect(one, one, { clientFamily: 4, serverFamily: 4, number: 9, clientPort: 40_007 })
  connect(two, one, { clientFamily: 4, serverFamily: 4, number: 9 })
  const over = { clientFamily: 4, serverFamily: 4, number: 2, clientPort: 40_009 } as const
  const { syn } = connect(one, two, over)
  one.tun(1, fromClient(over, { flags: FIN | ACK, sequence: ISN + 1, acknowledgement: SERVER_ISN + 1 }))
  exchange([one, two], 1)
  two.tun(2, fromServer(syn, { flags: FIN | ACK, sequence: SERVER_ISN + 1, acknowledgement: ISN + 2 }))
  exchange([one, two], 2)
  const datagram = (port: number) =>
    udpPacket({
      family: 4,
      source: SELF_ADDRESS[4],
      destination: address('dialled', 4, 2),
      ports: [port, 80],
      payload: [1],
    })
  two.takeWritten()
  one.tun(3, datagram(5_000))
  exchange([one, two], 3)
  const seen = see(two.takeWritten()[0]!)
  const { source, destination, ports } = seen
  two.tun(
    4,
    udpPacket({ family: 4, source: destination, destination: source, ports: [ports[1], ports[0]], payload: [2] }),
  )
  exchange([one, two], 4)
  one.tun(5, datagram(5_001), datagram(5_002))
  one.engine.cut((flow) => flow.clientPort === 5_001, 6)
  return one.buffer
})()

/** Words of the memory and what is written there; `renewed`: whether the rows are given checksums that fit. */
const mutation = fc.record({
  words: fc.array(
    fc.tuple(fc.nat(), fc.oneof(fc.integer(), fc.integer({ min: -2, max: 20 }), fc.constant('flip' as const))),
    {
      maxLength: 12,
    },
  ),
  renewed: fc.boolean(),
  /** The row from which another one is copied, and where to; the same twice: none. */
  copy: fc.tuple(fc.nat(CAPACITY - 1), fc.nat(CAPACITY - 1)),
  where: fc.constantFrom('rows', 'anywhere' as const),
})
type Mutation = typeof mutation extends fc.Arbitrary<infer T> ? T : never

const tableOver = (buffer: ArrayBuffer) => {
  const memory = new FlowTable(buffer, CAPACITY, new Generations((n) => new Uint8Array(n).fill(1)), HEADER_BYTES)
  return memory
}

function mutated({ words, renewed, copy: [from, to], where }: Mutation): ArrayBuffer {
  const buffer = left.slice(0)
  const all = new Int32Array(buffer)
  const rows = new Int32Array(buffer, HEADER_BYTES, CAPACITY * ROW_WORDS)
  rows.copyWithin(to * ROW_WORDS, from * ROW_WORDS, (from + 1) * ROW_WORDS)
  const target = where === 'rows' ? rows : all
  for (const [at, value] of words) {
    const word = at % target.length
    target[word] = value === 'flip' ? target[word]! ^ (1 << (at & 31)) : value
  }
  if (renewed) {
    const table = tableOver(buffer.slice(0))
    for (let row = 0; row < CAPACITY; row++) {
      renewChecksum(table, row)
      rows[row * ROW_WORDS + Row.checksum] = table.get(row, Row.checksum)
    }
  }
  return buffer
}

/** What is wrong with the table of a host that has taken up what was left. */
function problemsOf(one: FlowHost, before: FlowTable): string[] {
  const { table, restored } = one.engine
  const { words } = table
  const view = new DataView(table.bytes.buffer, table.bytes.byteOffset)
  const problems: string[] = []
  let kept = 0
  for (let row = 0; row < table.highWater; row++) {
    const state = table.get(row, Row.state)
    if (state === FlowState.free) continue
    kept++
    if (!isWhole(before, row)) problems.push(`row ${row} was not whole`)
    if (state !== before.get(row, Row.state) || state < FlowState.established)
      problems.push(`row ${row}: state ${state}`)
    if (!one.peers.has(table.get(row, Row.peer))) problems.push(`row ${row}: nobody's`)
    if (state !== FlowState.established) continue
    const b = row * ROW_WORDS
    const [local, remote] = [table.addressOffset(row, Row.local), table.addressOffset(row, Row.remote)]
    if (table.find(view, local, remote, table.family(row), table.protocol(row), words[b + Row.ports]!) !== row)
      problems.push(`row ${row} is not found by its 5-tuple`)
    if (table.findRemote(words[b + Row.peer]!, words[b + Row.remoteSlot]!, words[b + Row.remoteGeneration]!) !== row)
      problems.push(`row ${row} is not found by its flow ID`)
  }
  if (kept !== restored.kept || kept !== table.count) problems.push(`${kept} rows, ${restored.kept}, ${table.count}`)
  // All others are free, each once.
  const taken: number[] = []
  for (let row = table.allocate(FlowState.opening); row >= 0; row = table.allocate(FlowState.opening)) taken.push(row)
  if (new Set(taken).size !== taken.length || taken.length !== CAPACITY - kept) problems.push(`free: ${taken.join()}`)
  for (const row of taken) table.release(row)
  return problems
}

test('what is not whole is not taken up, and what is taken up is a table', (t) => {
  fc.assert(
    fc.property(mutation, (how) => {
      const buffer = mutated(how)
      // Tables begin with writing their header.
      const before = tableOver(buffer.slice(0))
      const one = new FlowHost(1, {}, CAPACITY, 5, buffer)
      one.engine.resume(1_000)
      const problems = problemsOf(one, before)
      if (problems.length > 0) throw new Error(problems.join('; '))
      one.serve(9, 4, 8080)
      const peer = one.meet(2)
      if (peer >= 0) one.catalogue.set(2, [{ peer, service: service(2), doubtful: false }])
      one.tun(2_000, fromClient({ clientFamily: 4, serverFamily: 4, number: 2 }, { sequence: ISN + 1, payload: [1] }))
      if (peer >= 0) one.engine.reunite(peer, 2_000)
      for (let now = 2_000; now < 400_000; now += 20_000) one.engine.handleTimeout(now)
      one.engine.closeAll(500_000)
      if (one.engine.table.count !== 0) throw new Error('flows are left')
    }),
    { numRuns: 1_500 },
  )
  t.pass()
  t.end()
})

test('what nobody has touched is taken up whole', (t) => {
  const one = new FlowHost(1, {}, CAPACITY, 5, left.slice(0))
  t.match(one.engine.restored, { kept: 7, torn: 0, nameless: 0, unfinished: 1 })
  t.end()
})
