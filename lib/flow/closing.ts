// How flows end otherwise than by themselves: the other end says so, its daemon has forgotten them, or this one is leaving. In every case the program's
// kernel is told by a reset that it believes, and never one of a flow that lives.

import { CloseCode, NotHereCode, type CloseFrame, type NotHereFrame } from '../wire/open.js'
import type { FlowCore } from './flow-core.js'
import { FlowState, Row } from './flow-table.js'
import type { FrameSender } from './frame-sender.js'
import type { Opening } from './opening.js'
import type { OwnKernel } from './own-kernel.js'
import type { Reunion } from './reunion.js'

const NO_HINT = new Uint8Array(0)

export class Closing {
  readonly #core: FlowCore
  readonly #sender: FrameSender
  readonly #kernel: OwnKernel
  readonly #opening: Opening
  readonly #reunion: Reunion

  constructor(core: FlowCore, sender: FrameSender, kernel: OwnKernel, opening: Opening, reunion: Reunion) {
    this.#core = core
    this.#sender = sender
    this.#kernel = kernel
    this.#opening = opening
    this.#reunion = reunion
  }

  /** CLOSE from `peer`; `slot`, `generation`: our flow ID as the inner header has it, 0 when the peer does not know it. */
  closed(peer: number, slot: number, generation: number, frame: CloseFrame, now: number): void {
    const { table } = this.#core
    const attempt = this.#opening.find(slot, generation, peer)
    if (attempt !== undefined) {
      this.#opening.refused(attempt.pending, attempt.attempt, NotHereCode.refused, NO_HINT, now)
      return
    }
    const row =
      generation === 0 ? table.findRemote(peer, frame.slot, frame.generation) : table.resolve(slot, generation, peer)
    if (row >= 0) this.#forget(row)
  }

  /** NOT-HERE from `peer`. */
  notHere(peer: number, slot: number, generation: number, frame: NotHereFrame, now: number): void {
    const { table, counters } = this.#core
    counters.notHereReceived++
    if (generation !== 0) {
      const found = this.#opening.find(slot, generation, peer)
      const hint = frame.hint.subarray(frame.hintOffset, frame.hintOffset + frame.hintLength)
      if (found !== undefined) this.#opening.refused(found.pending, found.attempt, frame.code, hint, now)
      return
    }
    if (frame.generation === 0) return
    this.#reunion.later(peer, now)
    if (frame.code === NotHereCode.loading) return
    const row = table.findRemote(peer, frame.slot, frame.generation)
    if (row >= 0) this.#forget(row)
  }

  /** Ends a flow from this side: the other end is told and the own kernel reset. */
  end(row: number, code: CloseCode): void {
    const state = this.#core.table.get(row, Row.state)
    if (state === FlowState.free) return
    if (state === FlowState.opening) {
      this.#kernel.reset(row)
      this.#opening.abandon(row)
      return
    }
    if (state !== FlowState.closing) {
      this.#sender.closeFlow(row, code)
      this.#kernel.reset(row)
      this.#core.counters.closed++
    }
    this.#core.release(row)
  }

  /** The program has begun another connection on this flow's 5-tuple: the old one only lives on at the other end, if at all. */
  supersede(row: number): void {
    if (this.#core.table.get(row, Row.state) === FlowState.closing) {
      // What is still under way for it comes by flow ID; the linger frees it.
      this.#core.table.unlinkTuple(row)
      return
    }
    this.#sender.closeFlow(row, CloseCode.gone)
    this.#core.release(row)
  }

  /** The peer is gone for good. */
  peerLost(peer: number): void {
    const { table } = this.#core
    for (let row = 0; row < table.highWater; row++) {
      const state = table.get(row, Row.state)
      if (state === FlowState.free || state === FlowState.opening || table.get(row, Row.peer) !== peer) continue
      this.#forget(row)
    }
  }

  closeAll(): void {
    const { table } = this.#core
    for (let row = 0; row < table.highWater; row++) this.end(row, CloseCode.gone)
  }

  /** The other end has no such flow. */
  #forget(row: number): void {
    const core = this.#core
    if (core.table.get(row, Row.state) !== FlowState.closing) {
      this.#kernel.reset(row)
      core.counters.closed++
    }
    core.release(row)
  }
}
