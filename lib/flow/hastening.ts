// After a peer was away for a while, the own kernel waits: with each repetition in vain it has doubled the time until the next one. That the way is back it does not know, so it is told
// that there was none: on a "host unreachable" about the oldest number under way Linux takes back one doubling each (RFC 6069, TCP-LCD; tcp_ld_RTO_revert), and repeats at once what
// is due by then. It ends no connection: of an established one it is a soft error (RFC 5461). A kernel that is not waiting takes no notice.
//
//   begin(peer) ──▶ the table is walked through, a part each TICK, at most FLOWS_A_TICK of them told ──▶ once round: done

import { Protocol } from '../wire/constants.js'
import { seconds, type FlowCore } from './flow-core.js'
import { FlowFlag, FlowState, ROW_WORDS, Row } from './flow-table.js'
import type { OwnKernel } from './own-kernel.js'

const TICK_MS = 1
const ROWS_A_TICK = 16_384
const FLOWS_A_TICK = 256
/** The first repetition comes after so many ms at least (TCP_RTO_MIN). */
const RTO_MIN_MS = 200
const DOUBLINGS_MAX = 10

export class Hastening {
  readonly #core: FlowCore
  readonly #kernel: OwnKernel
  /** By peer: rows that are still to be looked at. */
  readonly #peers = new Map<number, number>()
  #row = 0
  #next = Infinity

  constructor(core: FlowCore, kernel: OwnKernel) {
    this.#core = core
    this.#kernel = kernel
  }

  get nextTimeout(): number {
    return this.#next
  }

  /** The peer is there again, and what was sent to it before may be lost. */
  begin(peer: number, now: number): void {
    const rows = this.#core.table.highWater
    if (rows === 0) return
    this.#peers.set(peer, rows)
    this.#next = Math.min(this.#next, now)
  }

  handleTimeout(now: number): void {
    if (now < this.#next) return
    const { words, highWater: rows } = this.#core.table
    const most = Math.min(rows, ROWS_A_TICK, Math.max(...this.#peers.values()))
    let looked = 0
    for (let told = 0; looked < most && told < FLOWS_A_TICK; looked++) {
      if (this.#row >= rows) this.#row = 0
      const row = this.#row++
      const left = this.#peers.get(words[row * ROW_WORDS + Row.peer]!)
      if (left !== undefined && looked < left && this.#tell(row, now)) told++
    }
    for (const [peer, left] of this.#peers) {
      if (left > looked) this.#peers.set(peer, left - looked)
      else this.#peers.delete(peer)
    }
    this.#next = this.#peers.size === 0 ? Infinity : now + TICK_MS
  }

  #tell(row: number, now: number): boolean {
    const { table, counters } = this.#core
    const { words } = table
    const b = row * ROW_WORDS
    if (words[b + Row.state]! < FlowState.established || table.protocol(row) !== Protocol.tcp) return false
    if ((words[b + Row.flags]! & FlowFlag.reset) !== 0) return false
    const unacked = words[b + Row.unacked]!
    // Before its first acknowledgement the own kernel takes an error for the end.
    if (unacked === 0 || words[b + Row.acked] === 0 || unacked === words[b + Row.nextOut]) return false
    // Times in rows are whole seconds: one more may have passed.
    const silentMs = 1_000 * (seconds(now) - words[b + Row.lastIn]! + 1)
    const doublings = Math.ceil(Math.log2(silentMs / RTO_MIN_MS + 1))
    for (let i = Math.min(doublings, DOUBLINGS_MAX); i > 0; i--) this.#kernel.unreachable(row, unacked)
    counters.hastened++
    return true
  }
}
