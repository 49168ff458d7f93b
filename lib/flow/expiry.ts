// A slow walk over the table that frees flows whose time is over: the whole table once a ROUND, a part each TICK.

import { Protocol } from '../wire/constants.js'
import type { Confirmation } from './confirmation.js'
import type { FlowCore } from './flow-core.js'
import { FlowFlag, FlowState, ROW_WORDS, Row } from './flow-table.js'
import type { OwnKernel } from './own-kernel.js'

const TICK = 1_000
const ROUND = 8_000
/** A tick may be so much late: it goes along with something else that is due, as a turn for it alone would keep packets waiting. */
const LATE = 1_000
const ROWS_MIN = 4_096

export class Expiry {
  readonly #core: FlowCore
  readonly #kernel: OwnKernel
  readonly #confirmation: Confirmation
  #row = 0
  /** Infinity: there were no flows when last looked at. */
  #next = Infinity
  #walkedAt = -Infinity
  /** When the other end was last asked about a row, ms; only long idle ones are in it. */
  readonly #asked = new Map<number, number>()

  constructor(core: FlowCore, kernel: OwnKernel, confirmation: Confirmation) {
    this.#core = core
    this.#kernel = kernel
    this.#confirmation = confirmation
  }

  get nextTimeout(): number {
    return this.#next + LATE
  }

  /** Begins to walk when there are flows and it did not. */
  wake(now: number): void {
    if (this.#next < Infinity || this.#core.table.count === 0) return
    this.#next = now + TICK
    this.#walkedAt = now
  }

  handleTimeout(now: number): void {
    if (now < this.#next) return
    this.#next = now + TICK
    const { table } = this.#core
    const rows = table.highWater
    const part = Math.min(rows, Math.max(ROWS_MIN, Math.ceil((rows * (now - this.#walkedAt)) / ROUND)))
    this.#walkedAt = now
    for (let i = 0; i < part; i++) {
      if (this.#row >= rows) this.#row = 0
      this.#visit(this.#row++, now)
    }
    this.#confirmation.flush()
    if (this.#core.table.count === 0) this.#next = Infinity
  }

  #visit(row: number, now: number): void {
    const { table, options } = this.#core
    const { words } = table
    const b = row * ROW_WORDS
    const state = words[b + Row.state]!
    if (state === FlowState.free || state === FlowState.opening) {
      this.#asked.delete(row)
      return
    }
    const last = Math.max(words[b + Row.lastOut]!, words[b + Row.lastIn]!)
    const idle = now - 1000 * last
    if (state === FlowState.closing) {
      const reset = (words[b + Row.flags]! & FlowFlag.reset) !== 0
      if (idle >= (reset ? options.lingerReset : options.lingerFin)) this.#core.release(row)
      return
    }
    if (state === FlowState.halfOpen) {
      if (idle >= options.halfOpenTimeout) this.#age(row)
      return
    }
    const protocol = table.protocol(row)
    if (protocol === Protocol.tcp) this.#visitTcp(row, b, idle, now)
    else if (idle >= (protocol === Protocol.udp ? options.udpIdle : options.echoIdle)) this.#age(row)
  }

  #visitTcp(row: number, b: number, idle: number, now: number): void {
    const { options, table } = this.#core
    const { words } = table
    const acceptor = (words[b + Row.flags]! & FlowFlag.acceptor) !== 0
    if (acceptor && (words[b + Row.flags]! & FlowFlag.confirmed) === 0) {
      if (idle >= options.unconfirmedTimeout) this.#age(row)
      return
    }
    if (idle < options.tcpConfirmEvery) {
      this.#asked.delete(row)
      return
    }
    if (Math.min(idle, now - 1000 * words[b + Row.confirmed]!) >= options.tcpUnconfirmed) {
      this.#kernel.reset(row)
      this.#age(row)
      return
    }
    const asked = this.#asked.get(row) ?? -Infinity
    if (now - asked < options.tcpConfirmEvery) return
    this.#asked.set(row, now)
    this.#confirmation.ask(row)
  }

  #age(row: number): void {
    this.#asked.delete(row)
    this.#core.counters.aged++
    this.#core.release(row)
  }
}
