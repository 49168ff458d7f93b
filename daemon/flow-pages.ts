// The list of flows, made a piece at a time: a table of a hundred thousand rows takes longer to list than a packet may wait.

import type { FlowEngine } from '../lib/flow/flow-engine.js'
import type { FlowSnapshot } from '../lib/flow/flow-snapshot.js'
import type { PeerTraffic } from '../lib/flow/peer-traffic.js'
import type { FlowPage, FlowsResponse } from './control/protocol.js'

/** Work of one piece: a flow that is shown or compared costs as much as many rows without one. */
const PAGE_WORK = 2_048
const FLOW_WORK = 32
/** Rows of which the bytes are added up in one piece. */
const TRAFFIC_ROWS = 8_192

/** A host's flows by row, as the flow engine has them. */
export interface FlowRows {
  readonly table: { readonly highWater: number }
  flow(row: number): FlowSnapshot | undefined
}

/**
 * Visits flows from the row `from` on, as many as one piece of work allows. Returns the row to go on from; undefined: the end. A flow that is there all the while is visited
 * exactly once over all pieces.
 */
export function visitFlows(rows: FlowRows, from: number, visit: (flow: FlowSnapshot) => void): number | undefined {
  let work = 0
  for (let row = from; row < rows.table.highWater; row++) {
    if (work >= PAGE_WORK) return row
    const flow = rows.flow(row)
    work += flow === undefined ? 1 : FLOW_WORK
    if (flow !== undefined) visit(flow)
  }
  return undefined
}

/** What has passed in flows with each peer: in those that are there, and those that have ended since the start. Between two pieces whatever `pause` awaits gets its turn. */
export async function collectTraffic(
  { table, endedTraffic }: Pick<FlowEngine, 'table' | 'endedTraffic'>,
  pause: () => Promise<unknown>,
): Promise<PeerTraffic> {
  for (let row = 0; row < table.highWater; row++) {
    if (row > 0 && row % TRAFFIC_ROWS === 0) await pause()
    endedTraffic.add(table, row)
  }
  return endedTraffic
}

/** All pages as one answer. Between two of them whatever `page` awaits, and so other work, gets its turn. */
export async function collectFlows(
  page: (from: number, left: number | undefined) => Promise<FlowPage>,
): Promise<FlowsResponse> {
  const flows: FlowsResponse['flows'] = []
  let matched = 0
  let left: number | undefined
  for (let from: number | undefined = 0; from !== undefined;) {
    const one: FlowPage = await page(from, left)
    flows.push(...one.flows)
    left = one.left
    from = one.next
    matched = one.total === undefined ? matched + one.matched : Math.max(one.total, flows.length)
    if (left === 0 && one.total !== undefined) break
  }
  return { flows, total: matched }
}
