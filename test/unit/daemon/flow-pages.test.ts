import { test } from 'tap'
import type { FlowPage } from '../../../daemon/control/protocol.js'
import { collectFlows, collectTraffic, visitFlows, type FlowRows } from '../../../daemon/flow-pages.js'
import { Generations } from '../../../lib/flow/flow-id.js'
import { Count, FlowState, FlowTable, Row, ROW_WORDS } from '../../../lib/flow/flow-table.js'
import { PeerTraffic } from '../../../lib/flow/peer-traffic.js'
import type { FlowSnapshot } from '../../../lib/flow/flow-snapshot.js'
import { sampleFlow } from '../cli/fake-daemon.js'

/** A table of as many rows, of which some have a flow, named by their rows. */
class Rows implements FlowRows {
  readonly taken = new Set<number>()
  visited = 0

  constructor(readonly table: { highWater: number }) {}

  flow(row: number): FlowSnapshot | undefined {
    this.visited++
    if (!this.taken.has(row)) return undefined
    const address = Uint8Array.of(192, 0, 2, 1)
    return {
      id: String(row),
      remoteId: undefined,
      state: 'established',
      role: 'initiator',
      protocol: row % 2 === 0 ? 'tcp' : 'udp',
      family: 4,
      local: address,
      remote: address,
      localPort: 1,
      remotePort: 2,
      dialledPort: 2,
      clientPort: 1,
      peer: 1,
      service: undefined,
      since: 0,
      lastOut: 0,
      lastIn: 0,
      packetsOut: 0,
      bytesOut: 0,
      packetsIn: 0,
      bytesIn: 0,
      bindingSequence: 0,
    }
  }
}

test('flows are visited in pieces of bounded work, each exactly once', (t) => {
  const rows = new Rows({ highWater: 100_000 })
  for (let row = 0; row < 100_000; row += row < 50_000 ? 1 : 100) rows.taken.add(row)
  const seen: string[] = []
  let pieces = 0
  for (let from: number | undefined = 0; from !== undefined; pieces++) {
    rows.visited = 0
    const before = seen.length
    from = visitFlows(rows, from, (flow) => seen.push(flow.id))
    t.ok(seen.length - before <= 300 && rows.visited <= 10_000, `${seen.length - before} flows, ${rows.visited} rows`)
  }
  t.strictSame(
    seen,
    [...rows.taken].map((row) => String(row)),
  )
  t.ok(pieces > 50, String(pieces))
  t.end()
})

test('flows that come and go between the pieces change nothing for those that stay', async (t) => {
  const rows = new Rows({ highWater: 10_000 })
  for (let row = 0; row < 10_000; row++) rows.taken.add(row)
  let turn = 0
  const { flows } = await collectFlows(async (from, left = 100_000): Promise<FlowPage> => {
    const page: FlowPage['flows'][number][] = []
    const next = visitFlows(rows, from, ({ id }) => page.push({ ...sampleFlow, id }))
    // Every odd row changes hands all the time; new rows are taken at the end.
    for (let row = 1; row < 10_000; row += 2) rows.taken[turn % 2 === 0 ? 'delete' : 'add'](row)
    rows.taken.add(rows.table.highWater++)
    turn++
    return { flows: page, matched: page.length, next, left: left - page.length, total: undefined }
  })
  const ids = flows.map(({ id }) => Number(id))
  t.equal(new Set(ids).size, ids.length, 'none twice')
  t.strictSame(
    ids.filter((row) => row < 10_000 && row % 2 === 0),
    Array.from({ length: 5_000 }, (_, i) => 2 * i),
  )
  t.ok(turn > 10, `${turn} pieces`)
})

test('no more are listed than asked for; where the number is known nobody walks on for it', async (t) => {
  const rows = new Rows({ highWater: 10_000 })
  for (let row = 0; row < 10_000; row++) rows.taken.add(row)
  const ask = (limit: number, total: number | undefined) => {
    rows.visited = 0
    return collectFlows(async (from, left = limit) => {
      const page: FlowPage['flows'][number][] = []
      let matched = 0
      const next = visitFlows(rows, from, ({ id }) => {
        matched++
        if (page.length < left) page.push({ ...sampleFlow, id })
      })
      return { flows: page, matched, next, left: left - page.length, total }
    })
  }
  const known = await ask(10, 10_000)
  t.equal(known.total, 10_000)
  t.equal(known.flows.length, 10)
  t.ok(rows.visited < 1_000)
  const walked = await ask(1_000, undefined)
  t.equal(walked.total, 10_000)
  t.strictSame(
    walked.flows.map(({ id }) => id),
    Array.from({ length: 1_000 }, (_, i) => String(i)),
  )
  t.equal(rows.visited, 10_000)
})

test('what has passed with each peer is added up a piece at a time', async (t) => {
  const rows = 20_000
  const table = new FlowTable(
    new ArrayBuffer(FlowTable.bytesFor(rows)),
    rows,
    new Generations((length) => new Uint8Array(length).fill(1)),
  )
  for (let i = 0; i < rows; i++) {
    const row = table.allocate(i % 2 === 0 ? FlowState.established : FlowState.opening)
    table.set(row, Row.peer, 1 + (i % 4))
    table.doubles[(row * ROW_WORDS) / 2 + Count.bytesIn] = 3
  }
  const ended = new PeerTraffic(5, Float64Array.of(0, 100, 0, 0, 0))
  let pauses = 0
  const { bytesIn, bytesOut } = await collectTraffic({ table, endedTraffic: ended }, async () => pauses++)
  t.same([...bytesIn], [0, 100 + 15_000, 0, 15_000, 0])
  t.same([...bytesOut], [0, 0, 0, 0, 0])
  t.equal(pauses, 2)
})
