import { SELF, type PeerTable } from '../path/peers.js'
import type { DropReason } from '../wire/drop.js'
import { AnswerLimit } from './answer-limit.js'
import type { ServiceId } from '../wire/ids.js'
import type { FlowEnvironment } from './environment.js'
import { FlowCounters } from './flow-counters.js'
import { FlowCounts } from './flow-counts.js'
import { PeerTraffic } from './peer-traffic.js'
import { FlowFlag, FlowState, ROW_WORDS, Row, type FlowTable } from './flow-table.js'
import type { FlowOptions } from './flow-options.js'
import type { FlowMemory } from './flow-memory.js'
import { renewChecksum } from './row-checksum.js'
import { ServiceRefs } from './service-refs.js'

/** A full table: how long a flow must have been over to give its row away, ms; rows looked at for one; and the rest after a round in vain, ms. */
const RECLAIM_AFTER = 1_000
const RECLAIM_ROWS = 4_096
const RECLAIM_REST = 1_000

/** What all parts of the flow layer share. */
export class FlowCore {
  readonly table: FlowTable
  readonly services: ServiceRefs
  readonly counters = new FlowCounters()
  readonly counts = new FlowCounts()
  /** Answers to packets and frames that fit nothing. */
  readonly answers: AnswerLimit
  readonly peers: PeerTable
  /** Of the call into the engine that is under way, or was last, ms. */
  now = 0
  /** Packets and frames dropped by the flow layer, whatever the reason. */
  dropped = 0
  /** Rows looked at in vain, the next one, and when the next round may begin. */
  #searched = 0
  #nextReclaimed = 0
  #reclaimAt = -Infinity
  /** Of flows that are forgotten. */
  readonly traffic: PeerTraffic
  readonly #halfOpen: Int32Array
  readonly #accepted: Int32Array

  constructor(
    readonly memory: FlowMemory,
    readonly env: FlowEnvironment,
    readonly options: FlowOptions,
  ) {
    this.table = memory.table
    this.services = new ServiceRefs(memory.services)
    this.answers = new AnswerLimit(options.answersPerSecond, options.answersBurst)
    this.peers = env.peers
    this.traffic = new PeerTraffic(env.peers.capacity)
    this.#halfOpen = new Int32Array(env.peers.capacity)
    this.#accepted = new Int32Array(env.peers.capacity)
  }

  drop(reason: DropReason, packet?: Uint8Array, n = 1): void {
    this.dropped += n
    this.env.drop(reason, packet, n)
  }

  /** Something was thrown over one packet, or so many frames. Those that were dropped before that, when so many had been, are counted already. */
  fault(error: unknown, dropped: number, frames = 1): void {
    if (this.dropped === dropped) this.drop('fault', undefined, frames)
    this.env.fault(error)
  }

  /** Flows of the peer that servers here have not answered. */
  halfOpen(peer: number): number {
    return this.#halfOpen[peer]!
  }

  /** Flows here that the peer began, but for those that are over. */
  accepted(peer: number): number {
    return this.#accepted[peer]!
  }

  /** A flow of the peer was accepted. */
  countAccepted(peer: number): void {
    this.#accepted[peer]!++
  }

  /**
   * A row for a new flow, or -1: the table is full. Flows that are over and only kept for stragglers make room for it, those that live never do.
   */
  allocate(state: FlowState, now: number): number {
    const row = this.table.allocate(state)
    return row >= 0 || !this.#reclaim(now) ? row : this.table.allocate(state)
  }

  /** Forgets a flow that has been over for a while. Looks at a part of the table a time, and after a round in vain rests. */
  #reclaim(now: number): boolean {
    if (now < this.#reclaimAt) return false
    const { table } = this
    const rows = table.highWater
    for (let i = 0; i < RECLAIM_ROWS; i++) {
      if (this.#searched >= rows) {
        this.#searched = 0
        this.#reclaimAt = now + RECLAIM_REST
        return false
      }
      this.#searched++
      const row = this.#nextReclaimed < rows ? this.#nextReclaimed : 0
      this.#nextReclaimed = row + 1
      if (table.get(row, Row.state) !== FlowState.closing) continue
      const last = Math.max(table.get(row, Row.lastIn), table.get(row, Row.lastOut))
      if (now - 1000 * last < RECLAIM_AFTER) continue
      this.release(row)
      this.#searched = 0
      return true
    }
    return false
  }

  /** A flow of a former process is one of this one, its peer and service being known: what is counted of flows counts it. */
  restored(row: number): void {
    const { table, env } = this
    const peer = table.get(row, Row.peer)
    this.begun(row)
    this.#countInstance(row, 1)
    if (table.get(row, Row.state) !== FlowState.established) return
    if (table.has(row, FlowFlag.acceptor)) this.countAccepted(peer)
    else env.flowRestored(peer, this.services.service(table.get(row, Row.service)))
  }

  /** A row was linked: there is one flow more. */
  begun(row: number): void {
    this.counts.add(this.table.protocol(row), 1)
  }

  /** Binds a flow to a service (undefined: the host itself) at a peer. An acceptor's role must be set before. */
  bind(row: number, peer: number, service: ServiceId | undefined): void {
    const { peers } = this.memory
    if (!peers.has(peer)) peers.keep(peer, this.peers.hostId(peer))
    this.#countInstance(row, -1)
    this.table.set(row, Row.peer, peer)
    this.table.set(row, Row.service, this.services.number(service))
    this.#countInstance(row, 1)
  }

  /** Sets the state of a flow and keeps count of half-open ones. The row's peer must be set. */
  setState(row: number, state: FlowState): void {
    const { words } = this.table
    const base = row * ROW_WORDS
    const peer = words[base + Row.peer]!
    if (words[base + Row.state] === FlowState.halfOpen) this.#halfOpen[peer]!--
    if (state === FlowState.halfOpen) this.#halfOpen[peer]!++
    words[base + Row.state] = state
    if (state >= FlowState.established) renewChecksum(this.table, row)
  }

  /** Forgets a flow; of one that is being opened nothing else may be left. */
  release(row: number): void {
    const state = this.table.get(row, Row.state)
    if (state === FlowState.halfOpen) {
      this.#halfOpen[this.table.get(row, Row.peer)]!--
      this.#accepted[this.table.get(row, Row.peer)]!--
    }
    if (state === FlowState.established) this.ended(row)
    this.traffic.add(this.table, row)
    if (state !== FlowState.free) {
      this.#countInstance(row, -1)
      this.counts.add(this.table.protocol(row), -1)
    }
    this.table.release(row)
  }

  /** An established flow is over, or begins to close. Once a flow. */
  ended(row: number): void {
    const { table } = this
    if (table.has(row, FlowFlag.acceptor)) {
      this.#accepted[table.get(row, Row.peer)]!--
      return
    }
    this.env.flowEnded(table.get(row, Row.peer), this.services.service(table.get(row, Row.service)))
  }

  #countInstance(row: number, change: 1 | -1): void {
    const { table } = this
    const peer = table.get(row, Row.peer)
    const service = table.get(row, Row.service)
    if (peer < 0 || service === 0) return
    if (!table.has(row, FlowFlag.acceptor)) this.counts.addTo(service, peer, change)
    // A flow between two ends on this host is counted once.
    else if (peer !== SELF) this.counts.addTo(service, SELF, change)
  }
}

/** Monotonic seconds as rows keep them. */
export function seconds(now: number): number {
  return Math.floor(now / 1000)
}
