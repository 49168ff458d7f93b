// What a flow remembers of its TCP connection: enough to reset the own kernel with the exact number and to know when the connection is over.
// Called once a super-packet; no allocation. True: with this packet the flow has begun to close.

import { TcpFlag } from '../wire/tcp.js'
import { FlowFlag, FlowState, ROW_WORDS, Row, type FlowTable } from './flow-table.js'

/** A packet from the own kernel. `wire`: position of the header without ports. */
export function trackOut(
  table: FlowTable,
  row: number,
  view: DataView,
  wire: number,
  flags: number,
  payload: number,
): boolean {
  const { words } = table
  const b = row * ROW_WORDS
  const sequence = view.getInt32(wire)
  let end = (sequence + payload) | 0
  if ((flags & TcpFlag.syn) !== 0) end = (end + 1) | 0
  if ((flags & TcpFlag.fin) !== 0) end = (end + 1) | 0
  if (words[b + Row.nextOut] === 0 || ((end - words[b + Row.nextOut]!) | 0) > 0) words[b + Row.nextOut] = end
  if ((flags & TcpFlag.ack) !== 0) {
    const ack = view.getInt32(wire + 4)
    words[b + Row.acked] = ack
    // A gap was filled: the kernel expects more than the last packet in order said.
    if (((ack - words[b + Row.nextIn]!) | 0) > 0) words[b + Row.nextIn] = ack
  }
  return (flags & (TcpFlag.fin | TcpFlag.rst)) !== 0 && ended(table, b, flags, FlowFlag.finOut, Row.finOut, end)
}

/** A packet to the own kernel. */
export function trackIn(
  table: FlowTable,
  row: number,
  view: DataView,
  wire: number,
  flags: number,
  payload: number,
): boolean {
  const { words } = table
  const b = row * ROW_WORDS
  const sequence = view.getInt32(wire)
  let end = (sequence + payload) | 0
  if ((flags & TcpFlag.syn) !== 0) end = (end + 1) | 0
  if ((flags & TcpFlag.fin) !== 0) end = (end + 1) | 0
  if ((words[b + Row.flags]! & FlowFlag.sequenced) === 0) {
    words[b + Row.flags]! |= FlowFlag.sequenced
    words[b + Row.nextIn] = end
  } else {
    const next = words[b + Row.nextIn]!
    // Beyond a gap the kernel keeps expecting the gap.
    if (((sequence - next) | 0) <= 0 && ((end - next) | 0) > 0) words[b + Row.nextIn] = end
  }
  return (flags & (TcpFlag.fin | TcpFlag.rst)) !== 0 && ended(table, b, flags, FlowFlag.finIn, Row.finIn, end)
}

function ended(table: FlowTable, b: number, flags: number, finFlag: number, finField: number, end: number): boolean {
  const { words } = table
  if ((flags & TcpFlag.rst) !== 0) words[b + Row.flags]! |= FlowFlag.reset
  else {
    words[b + Row.flags]! |= finFlag
    words[b + finField] = end
  }
  const now = words[b + Row.flags]!
  const both = FlowFlag.finIn | FlowFlag.finOut
  const over = (now & FlowFlag.reset) !== 0 || (now & both) === both
  if (words[b + Row.state] !== FlowState.established || !over) return false
  words[b + Row.state] = FlowState.closing
  return true
}
