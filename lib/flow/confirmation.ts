// Kind.confirm: "I have these flows of ours: are they still there?" Kind.confirmed: the answer, those that are. Sent about flows that have long been idle or whose other end was away,
// and by an initiator that only listens, to show that it has learnt the acceptor's flow ID. The body of both is a list of
//
//   receiver's flow ID 8 | sender's flow ID 8
//
// each two u32, little endian. Of what is not there NOT-HERE says so, as far as such answers may be given; what is missing in
// the answer besides is not confirmed, and ages out.

import { INNER_HEADER, Kind } from '../wire/constants.js'
import { seconds, type FlowCore } from './flow-core.js'
import { FlowFlag, FlowState, ROW_WORDS, Row } from './flow-table.js'
import type { FrameSender } from './frame-sender.js'

const ENTRY = 16
/** Fits the smallest path. */
export const CONFIRM_MAX = 64

export class Confirmation {
  readonly #core: FlowCore
  readonly #sender: FrameSender
  /** Rows to ask about, by peer. */
  readonly #ask = new Map<number, number[]>()
  /** Peers that were to be asked when nothing could go to them. */
  readonly #unasked = new Set<number>()

  constructor(core: FlowCore, sender: FrameSender) {
    this.#core = core
    this.#sender = sender
  }

  /** Asks about one flow at once. */
  prove(row: number): void {
    this.#sender.plain(this.#core.table.get(row, Row.peer), Kind.confirm, this.#list([row]))
  }

  /** Has the other end asked about the flow, with others of the same peer. */
  ask(row: number): void {
    const peer = this.#core.table.get(row, Row.peer)
    const rows = this.#ask.get(peer)
    if (rows === undefined) this.#ask.set(peer, [row])
    else rows.push(row)
    if (rows?.length === CONFIRM_MAX) this.#send(peer, rows)
  }

  /** Sends what {@link ask} gathered. */
  flush(): void {
    for (const [peer, rows] of this.#ask) this.#send(peer, rows)
    this.#ask.clear()
  }

  /** Whether the peer was to be asked when nothing could go to it, and has to be asked again; says so once. */
  takeUnasked(peer: number): boolean {
    return this.#unasked.delete(peer)
  }

  #send(peer: number, rows: number[]): void {
    if (rows.length === 0) return
    // Such questions do not wait in place of packets.
    if (this.#sender.connected(peer)) this.#sender.plain(peer, Kind.confirm, this.#list(rows))
    else this.#unasked.add(peer)
    rows.length = 0
  }

  /** A frame of Kind.confirm or Kind.confirmed. */
  receive(peer: number, kind: number, view: DataView, at: number, length: number, now: number): void {
    const { table } = this.#core
    const entries = Math.floor((length - INNER_HEADER) / ENTRY)
    if (entries < 1 || entries > CONFIRM_MAX) {
      this.#core.drop('bad-frame')
      return
    }
    const rows: number[] = []
    for (let i = 0; i < entries; i++) {
      const p = at + INNER_HEADER + i * ENTRY
      const [slot, generation] = [view.getUint32(p, true), view.getUint32(p + 4, true)]
      const row = table.resolve(slot, generation, peer)
      if (row < 0) {
        if (kind === Kind.confirm && generation !== 0) this.#sender.unknown(peer, slot, generation, now)
        continue
      }
      const state = table.get(row, Row.state)
      if (state !== FlowState.established && state !== FlowState.halfOpen) continue
      if (table.get(row, Row.remoteSlot) !== view.getInt32(p + 8, true)) continue
      if (table.get(row, Row.remoteGeneration) !== view.getInt32(p + 12, true)) continue
      table.set(row, Row.confirmed, seconds(now))
      table.flag(row, FlowFlag.confirmed)
      if (state === FlowState.halfOpen) this.#core.setState(row, FlowState.established)
      rows.push(row)
    }
    if (kind === Kind.confirm && rows.length > 0) this.#sender.plain(peer, Kind.confirmed, this.#list(rows))
  }

  #list(rows: readonly number[]): Uint8Array {
    const { words } = this.#core.table
    const body = new Uint8Array(rows.length * ENTRY)
    const view = new DataView(body.buffer)
    rows.forEach((row, i) => {
      const b = row * ROW_WORDS
      view.setInt32(i * ENTRY, words[b + Row.remoteSlot]!, true)
      view.setInt32(i * ENTRY + 4, words[b + Row.remoteGeneration]!, true)
      view.setUint32(i * ENTRY + 8, row, true)
      view.setInt32(i * ENTRY + 12, words[b + Row.generation]!, true)
    })
    return body
  }
}
