// What a flow remembers of its TCP connection: enough to reset the own kernel with the exact number and to know when the connection is over.
// Called once a super-packet; no allocation. True: with this packet the flow has begun to close.
//
// A reset that the receiving kernel will not take ends nothing. Kernels send such ones: to a SYN that meets an older connection's TIME-WAIT the server answers with that one's
// numbers, which the client resets, and repeats its SYN.

import { TcpFlag } from '../wire/tcp.js'
import { Count, FlowFlag, FlowState, ROW_WORDS, Row, type FlowTable } from './flow-table.js'
import { renewChecksum } from './row-checksum.js'

/** The largest window of TCP (RFC 7323 section 2.2): what can be under way at most. */
const WINDOW_MAX = 2 ** 30

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
  if ((flags & TcpFlag.rst) !== 0) {
    const answers = (flags & TcpFlag.ack) !== 0 && view.getInt32(wire + 4) === words[b + Row.nextIn]
    if (!answers && !isSent(words[b + Row.nextOut]!, sequence, table.doubles[b / 2 + Count.bytesOut]!)) return false
  }
  let end = (sequence + payload) | 0
  if ((flags & TcpFlag.syn) !== 0) end = (end + 1) | 0
  if ((flags & TcpFlag.fin) !== 0) end = (end + 1) | 0
  const nextOut = words[b + Row.nextOut]!
  const begins = (flags & TcpFlag.syn) !== 0 && !isSent(nextOut, end, table.doubles[b / 2 + Count.bytesOut]!)
  if (nextOut === 0 || begins || ((end - nextOut) | 0) > 0) words[b + Row.nextOut] = end
  if ((flags & TcpFlag.ack) !== 0) {
    const ack = view.getInt32(wire + 4)
    words[b + Row.acked] = ack
    // A gap was filled: the kernel expects more than the last packet in order said.
    if (isSent(ack, words[b + Row.nextIn]!, table.doubles[b / 2 + Count.bytesIn]!)) words[b + Row.nextIn] = ack
  }
  return (flags & (TcpFlag.fin | TcpFlag.rst)) !== 0 && ended(table, row, flags, FlowFlag.finOut, Row.finOut, end)
}

/** Shorter packets say nothing of what a path carries. */
const REPEATED_MIN = 512

/** Whether a packet from the own kernel, not yet given to {@link trackOut}, is a large one that it has sent before. */
export function isRepeated(table: FlowTable, row: number, view: DataView, wire: number, payload: number): boolean {
  if (payload < REPEATED_MIN) return false
  const nextOut = table.words[row * ROW_WORDS + Row.nextOut]!
  return nextOut !== 0 && ((view.getInt32(wire) + payload - nextOut) | 0) <= 0
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
  if ((flags & TcpFlag.rst) !== 0) {
    const answers = (flags & TcpFlag.ack) !== 0 && view.getInt32(wire + 4) === words[b + Row.nextOut]
    if (!answers && !isSent(words[b + Row.nextIn]!, sequence, table.doubles[b / 2 + Count.bytesIn]!)) return false
  }
  let end = (sequence + payload) | 0
  if ((flags & TcpFlag.syn) !== 0) end = (end + 1) | 0
  if ((flags & TcpFlag.fin) !== 0) end = (end + 1) | 0
  const begins =
    (flags & TcpFlag.syn) !== 0 && !isSent(words[b + Row.nextIn]!, end, table.doubles[b / 2 + Count.bytesIn]!)
  if (begins || (words[b + Row.flags]! & FlowFlag.sequenced) === 0) {
    words[b + Row.flags]! |= FlowFlag.sequenced
    words[b + Row.nextIn] = end
  } else {
    const next = words[b + Row.nextIn]!
    // Beyond a gap the kernel keeps expecting the gap.
    if (((sequence - next) | 0) <= 0 && ((end - next) | 0) > 0) words[b + Row.nextIn] = end
  }
  if ((flags & TcpFlag.ack) !== 0) {
    const ack = view.getInt32(wire + 4)
    const unacked = words[b + Row.unacked]!
    if ((unacked === 0 || ((ack - unacked) | 0) > 0) && ((words[b + Row.nextOut]! - ack) | 0) >= 0)
      words[b + Row.unacked] = ack
  }
  return (flags & (TcpFlag.fin | TcpFlag.rst)) !== 0 && ended(table, row, flags, FlowFlag.finIn, Row.finIn, end)
}

/** Whether `sequence` is a number that a direction of so many bytes has used, of which `next` is the next one. A reset with another is refused (RFC 5961 section 3.2). */
function isSent(next: number, sequence: number, bytes: number): boolean {
  return (next - sequence) >>> 0 <= Math.min(bytes, WINDOW_MAX)
}

function ended(table: FlowTable, row: number, flags: number, finFlag: number, finField: number, end: number): boolean {
  const { words } = table
  const b = row * ROW_WORDS
  if ((flags & TcpFlag.rst) !== 0) words[b + Row.flags]! |= FlowFlag.reset
  else {
    words[b + Row.flags]! |= finFlag
    words[b + finField] = end
  }
  const now = words[b + Row.flags]!
  const both = FlowFlag.finIn | FlowFlag.finOut
  const over = (now & FlowFlag.reset) !== 0 || (now & both) === both
  const closes = words[b + Row.state] === FlowState.established && over
  if (closes) words[b + Row.state] = FlowState.closing
  renewChecksum(table, row)
  return closes
}
