// What is done about each flow with a peer that is there again after it was away, or has begun anew.
//
// The own kernel waits: with each repetition in vain it has doubled the time until the next one, and that the way is back it does not know. So it is told that there was none: on a
// "host unreachable" about the oldest number under way Linux takes back one doubling each (RFC 6069, TCP-LCD; tcp_ld_RTO_revert), and repeats at once what is due by then. It ends no
// connection: of an established one it is a soft error (RFC 5461), which only a program hears of that has asked for it (IP_RECVERR). A kernel that is not waiting takes no notice.
//
// The other end is asked whether it has the flow still: what it does not know it says is not here, and a program that only listens hears of its end.
//
//   begin(peer) ──▶ the table is walked through, a part each TICK, at most so many flows of it ──▶ once round: done
//   NOT-HERE from the peer ──▶ later(peer) ──▶ the same again after AGAIN_MS: it may be loading, or not have answered for all

import { Protocol } from '../wire/constants.js'
import type { Confirmation } from './confirmation.js'
import { seconds, type FlowCore } from './flow-core.js'
import { FlowFlag, FlowState, ROW_WORDS, Row } from './flow-table.js'
import type { OwnKernel } from './own-kernel.js'

const TICK_MS = 1
const ROWS_A_TICK = 16_384
const FLOWS_A_TICK = 256
const AGAIN_MS = 1_000
const UNTIL_MS = 60_000
/** The first repetition comes after so many ms at least (TCP_RTO_MIN). */
const RTO_MIN_MS = 200
const DOUBLINGS_MAX = 10

export class Reunion {
  readonly #core: FlowCore
  readonly #kernel: OwnKernel
  readonly #confirmation: Confirmation
  /** By peer: rows that are still to be looked at. */
  readonly #peers = new Map<number, number>()
  /** By peer: when it is asked again, and until when it is. */
  readonly #again = new Map<number, number>()
  readonly #until = new Map<number, number>()
  #row = 0
  #next = Infinity

  constructor(core: FlowCore, kernel: OwnKernel, confirmation: Confirmation) {
    this.#core = core
    this.#kernel = kernel
    this.#confirmation = confirmation
  }

  get nextTimeout(): number {
    return this.#next
  }

  /** There is a session with the peer, and what was sent to it before may be lost. */
  begin(peer: number, now: number): void {
    this.#until.set(peer, now + UNTIL_MS)
    this.#start(peer, now)
  }

  /** The peer does not have a flow, or does not know yet. */
  later(peer: number, now: number): void {
    if (this.#again.has(peer) || now > (this.#until.get(peer) ?? -Infinity)) return
    this.#again.set(peer, now + AGAIN_MS)
    this.#next = Math.min(this.#next, now + AGAIN_MS)
  }

  #start(peer: number, now: number): void {
    const rows = this.#core.table.highWater
    if (rows === 0) return
    this.#peers.set(peer, rows)
    this.#next = Math.min(this.#next, now)
  }

  handleTimeout(now: number): void {
    if (now < this.#next) return
    for (const [peer, at] of this.#again) {
      if (now < at) continue
      this.#again.delete(peer)
      this.#start(peer, now)
    }
    this.#walk(now)
    this.#next = this.#peers.size === 0 ? Math.min(Infinity, ...this.#again.values()) : now + TICK_MS
  }

  #walk(now: number): void {
    const { words, highWater: rows } = this.#core.table
    const most = Math.min(rows, ROWS_A_TICK, Math.max(0, ...this.#peers.values()))
    let looked = 0
    for (let flows = 0; looked < most && flows < FLOWS_A_TICK; looked++) {
      if (this.#row >= rows) this.#row = 0
      const row = this.#row++
      const left = this.#peers.get(words[row * ROW_WORDS + Row.peer]!)
      if (left === undefined || looked >= left || words[row * ROW_WORDS + Row.state]! < FlowState.established) continue
      flows++
      this.#hasten(row, now)
      this.#ask(row)
    }
    this.#confirmation.flush()
    for (const [peer, left] of this.#peers) {
      if (left > looked) this.#peers.set(peer, left - looked)
      else this.#peers.delete(peer)
    }
  }

  #hasten(row: number, now: number): void {
    const { table, counters } = this.#core
    const { words } = table
    const b = row * ROW_WORDS
    if (table.protocol(row) !== Protocol.tcp || (words[b + Row.flags]! & FlowFlag.reset) !== 0) return
    const unacked = words[b + Row.unacked]!
    // Before its first acknowledgement the own kernel takes an error for the end.
    if (unacked === 0 || words[b + Row.acked] === 0 || unacked === words[b + Row.nextOut]) return
    // Times in rows are whole seconds: one more may have passed.
    const silentMs = 1_000 * (seconds(now) - words[b + Row.lastIn]! + 1)
    const doublings = Math.ceil(Math.log2(silentMs / RTO_MIN_MS + 1))
    for (let i = Math.min(doublings, DOUBLINGS_MAX); i > 0; i--) this.#kernel.unreachable(row, unacked)
    counters.hastened++
  }

  #ask(row: number): void {
    const { table } = this.#core
    if (table.get(row, Row.state) !== FlowState.established) return
    // Of one that the initiator has not used yet it may not know the ID.
    if (!table.has(row, FlowFlag.acceptor) || table.has(row, FlowFlag.confirmed)) this.#confirmation.ask(row)
  }
}
