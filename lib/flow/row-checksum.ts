// What tells a row of a former process that is whole from one that was being written when it died. The checksum covers what a flow is; what changes with every packet is a single
// word each, which is never half written, and costs nothing here. It is renewed wherever something of the first kind is written to a flow that is established.

import { FlowFlag, Row, ROW_WORDS, type FlowTable } from './flow-table.js'
import { mixed } from './saved-names.js'

const COVERED = [
  ...[Row.state, Row.kind, Row.ports],
  ...[Row.remote, Row.remote + 1, Row.remote + 2, Row.remote + 3],
  ...[Row.local, Row.local + 1, Row.local + 2, Row.local + 3],
  ...[Row.generation, Row.peer, Row.remoteSlot, Row.remoteGeneration],
  ...[Row.service, Row.dialled, Row.since, Row.initial, Row.bindingSequence, Row.hostMoveSequence],
]
/** Of the flags those that change with the flow's state, and not in passing or with the index. */
const COVERED_FLAGS = FlowFlag.acceptor | FlowFlag.finOut | FlowFlag.finIn | FlowFlag.reset

/** After each change of what the checksum covers in the row of an established flow. */
export function renewChecksum(table: FlowTable, row: number): void {
  table.words[row * ROW_WORDS + Row.checksum] = rowChecksum(table, row)
}

export function isWhole(table: FlowTable, row: number): boolean {
  return table.words[row * ROW_WORDS + Row.checksum] === rowChecksum(table, row)
}

/** The row's number is part of it: a row that lies elsewhere is another. */
function rowChecksum({ words }: FlowTable, row: number): number {
  const base = row * ROW_WORDS
  let sum = mixed(row, words[base + Row.flags]! & COVERED_FLAGS)
  for (const word of COVERED) sum = mixed(sum, words[base + word]!)
  return sum
}
