// Takes up the flows that a former process has left in the table's memory. Nothing in it is trusted: a row is kept when it is whole, makes sense and has what it refers to; the index
// over the rows, the free rows and all that is counted of flows are worked out anew. What the checksum of a row that is kept covers is not written to, so that this may be broken
// off at any point, and begun again by the next process.

import { SELF } from '../path/peers.js'
import { Protocol } from '../wire/constants.js'
import { hostId, serviceId } from '../wire/ids.js'
import type { FlowCore } from './flow-core.js'
import { Count, FlowFlag, FlowState, ROW_WORDS, Row, type FlowTable } from './flow-table.js'
import { isWhole } from './row-checksum.js'

/** What has become of the rows of a former process. */
export class RestoredFlows {
  /** Flows that go on, and those that are over and kept for stragglers. */
  kept = 0
  /** Flows that were not established yet: their programs try again. */
  unfinished = 0
  /** Rows that were being written when the process died, or make no sense. */
  torn = 0
  /** Rows whose host or service is not known any more. */
  nameless = 0
  /** Rows that are kept, by peer index; those of a peer go when its flows go on. */
  readonly rows = new Map<number, readonly number[]>()

  /** `why`: why there is nothing to take up, a clause; undefined: there is. */
  constructor(readonly why: string | undefined) {}
}

/** Before anything else is done with the table, or peers are given indexes. */
export function restoreFlows(core: FlowCore): RestoredFlows {
  const { table, memory, env } = core
  const restored = new RestoredFlows(memory.found === 'rows' ? undefined : memory.found)
  if (memory.found !== 'rows') return restored
  const peers = new Set<number>()
  const services = new Set<number>()
  table.rebuild((row) => {
    const state = table.get(row, Row.state)
    if (state === FlowState.free) return false
    if (state === FlowState.opening || state === FlowState.halfOpen) {
      restored.unfinished++
      return false
    }
    if (!isWhole(table, row) || !makesSense(table, row)) {
      restored.torn++
      return false
    }
    peers.add(table.get(row, Row.peer))
    services.add(table.get(row, Row.service))
    return true
  })
  restoreNames(core, peers, services)
  const rows = new Map<number, number[]>()
  // Of two flows with the same 5-tuple the one that goes on has it.
  for (const state of [FlowState.established, FlowState.closing]) {
    for (let row = 0; row < table.highWater; row++) {
      if (table.get(row, Row.state) !== state) continue
      const peer = table.get(row, Row.peer)
      const named = peers.has(peer) && services.has(table.get(row, Row.service))
      if (named && link(table, row)) {
        heal(table, row)
        core.restored(row)
        restored.kept++
        const others = rows.get(peer)
        if (others === undefined) rows.set(peer, [row])
        else others.push(row)
        if (table.has(row, FlowFlag.acceptor) && table.family(row) === 4)
          env.addresses.keepPeer(env.peers.hostId(peer), table.address(row, Row.remote))
        continue
      }
      if (named) restored.torn++
      else restored.nameless++
      table.release(row)
    }
  }
  for (const [peer, list] of rows) restored.rows.set(peer, list)
  return restored
}

/** Has hosts and services keep their numbers; those of which that cannot be are taken out of the sets. */
function restoreNames(core: FlowCore, peers: Set<number>, services: Set<number>): void {
  const { memory, peers: table } = core
  for (const peer of [...peers].sort((a, b) => a - b)) {
    const id = memory.peers.read(peer)
    if (id === undefined || !table.restore(peer, hostId(id))) peers.delete(peer)
  }
  for (const service of [...services].sort((a, b) => a - b)) {
    const id = service === 0 ? undefined : memory.services.read(service)
    if (service !== 0 && (id === undefined || !core.services.restore(service, serviceId(id)))) services.delete(service)
  }
}

/** What a row that is whole must be besides, so that nothing falls over it: somebody else may have written it. */
function makesSense(table: FlowTable, row: number): boolean {
  const kind = table.get(row, Row.kind)
  const [protocol, family] = [kind >> 8, kind & 0xff]
  const state = table.get(row, Row.state)
  return (
    (state === FlowState.established || state === FlowState.closing) &&
    (protocol === Protocol.tcp || protocol === Protocol.udp || protocol === Protocol.icmp) &&
    (family === 4 || family === 6) &&
    table.get(row, Row.generation) !== 0 &&
    table.get(row, Row.remoteGeneration) !== 0 &&
    table.get(row, Row.peer) >= SELF &&
    table.get(row, Row.service) >= 0
  )
}

/** Takes the row into the index. A flow that is over may have left its 5-tuple to another. False: somebody else has what must be its own. */
function link(table: FlowTable, row: number): boolean {
  const { words, bytes } = table
  const b = row * ROW_WORDS
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const [local, remote] = [table.addressOffset(row, Row.local), table.addressOffset(row, Row.remote)]
  const other = table.find(view, local, remote, table.family(row), table.protocol(row), words[b + Row.ports]!)
  const over = words[b + Row.state] === FlowState.closing
  const slot = words[b + Row.remoteSlot]!
  const named = table.findRemote(words[b + Row.peer]!, slot, words[b + Row.remoteGeneration]!)
  if (!over && (other >= 0 || named >= 0)) return false
  if (other < 0) table.linkTuple(row)
  if (named < 0) table.linkRemote(row)
  return true
}

/** What changes with every packet is not under the checksum. */
function heal(table: FlowTable, row: number): void {
  const { words, doubles } = table
  const b = row * ROW_WORDS
  for (const field of Object.values(Count)) {
    const count = doubles[b / 2 + field]!
    if (!(count >= 0 && count <= Number.MAX_SAFE_INTEGER)) doubles[b / 2 + field] = 0
  }
  words[b + Row.mss]! &= 0xffff
  words[b + Row.flags]! &= KNOWN_FLAGS
}

const KNOWN_FLAGS = Object.values(FlowFlag).reduce((all, flag) => all | flag, 0)
