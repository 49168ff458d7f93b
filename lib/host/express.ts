// The memory that daemon/native/express.cc works on: packets that come alone, of flows that are established, pass without JavaScript being entered. It reads and writes what the layers
// here keep their state in, so that there is only one state; what it cannot bring up to date by itself it notes down, and `settle` does the rest before anything is decided by it.
//
//   a packet comes ──▶ express: ordinary? ──┬▶ yes: sealed and sent, or opened and written; rows, marks, ring and keys are up to date; peer and counts are noted down
//                                           └▶ no: the host gets it ──▶ settle ──▶ …
//   30 ms later at the latest, or a timer ────────────────────────────▶ settle ──▶ deadlines, paths, counters

import type { FlowCounters } from '../flow/flow-counters.js'
import { Count, FlowFlag, FlowState, ROW_WORDS, Row, type FlowTable } from '../flow/flow-table.js'
import type { PeerTable } from '../path/peers.js'
import { LaneRole } from '../session/lanes.js'
import type { SessionMarks } from '../session/session-table.js'
import { RECENT_BYTES, RECENT_ROW_WORDS, RECENT_ROWS, RECENT_RUN_MAX, type RecentRing } from '../wire/recent-ring.js'
import type { DataPath } from './data-path.js'

/** Peers that can be noted down before the host is asked. */
const TOUCHED = 256

/** Positions in ExpressMemory.state. */
const State = {
  /** 1: packets may be taken. */
  on: 0,
  /** Peers in `touched`. */
  touched: 1,
  /** 1: something is to be settled. */
  stirred: 2,
} as const
const STATES = 3

/** Positions in ExpressMemory.counters; each is added to the counter of that name and set to 0. */
const Counter = {
  tunPacketsIn: 0,
  tunPacketsOut: 1,
  framesOut: 2,
  bytesOut: 3,
  datagramsIn: 4,
  framesIn: 5,
  bytesIn: 6,
  packetsOut: 7,
  innerBytesOut: 8,
  packetsIn: 9,
  innerBytesIn: 10,
  framesDelivered: 11,
  framesFailed: 12,
  packetsNotWritten: 13,
} as const
const COUNTERS = 14

/** The arrays as native code reads them, by these names; they are never replaced. */
export interface ExpressMemory extends SessionMarks {
  /** Layout in daemon/native/express.h. */
  readonly layout: Int32Array
  /** Of the flow table. */
  readonly words: Int32Array
  readonly doubles: Float64Array
  /** Of the peer table. */
  readonly sealSlot: Int32Array
  readonly addressSlot: Int32Array
  readonly pathMtu: Int32Array
  readonly pathHeardAt: Float64Array
  readonly records: Uint8Array
  /** What the ring of what was sent lies in. */
  readonly ring: Uint8Array
  /** By peer: when something was last sent to it, and heard of it, since the last settling, ms; 0: nothing. */
  readonly sentAt: Float64Array
  readonly heardAt: Float64Array
  /** Peers with one of these. */
  readonly touched: Int32Array
  readonly state: Int32Array
  readonly counters: Float64Array
}

export interface ExpressComponents {
  readonly flows: FlowTable
  readonly peers: PeerTable
  readonly marks: SessionMarks
  readonly ring: RecentRing
  readonly dataPath: DataPath
  readonly counters: FlowCounters
  /** Something was sent to the peer, and heard of it, at these times; 0: nothing. Its marks say so already. */
  readonly passed: (peer: number, sentAt: number, heardAt: number) => void
}

export class Express {
  readonly memory: ExpressMemory
  /** Packets that passed since the start. */
  packetsOut = 0
  packetsIn = 0
  /** Of them those that the kernel did not take. */
  framesFailed = 0
  packetsNotWritten = 0
  readonly #c: ExpressComponents
  #wanted = false
  #held = false

  constructor(components: ExpressComponents) {
    this.#c = components
    const { flows, peers, marks, ring } = components
    this.memory = {
      ...marks,
      layout: layoutOf(flows, ring),
      words: flows.words,
      doubles: flows.doubles,
      sealSlot: peers.sealSlot,
      addressSlot: peers.addressSlot,
      pathMtu: peers.pathMtu,
      pathHeardAt: peers.heardAt,
      records: peers.addresses.records,
      ring: ring.memory,
      sentAt: new Float64Array(peers.capacity),
      heardAt: new Float64Array(peers.capacity),
      touched: new Int32Array(TOUCHED),
      state: new Int32Array(STATES),
      counters: new Float64Array(COUNTERS),
    }
  }

  /** Whether packets pass: somebody does it, and nothing keeps it. */
  get on(): boolean {
    return this.memory.state[State.on] === 1
  }

  /** There is somebody who lets packets pass, or not any more. */
  use(on: boolean): void {
    this.#wanted = on
    this.#switch()
  }

  /** On hold everything comes to the host, for whoever wants to see it. */
  hold(on: boolean): void {
    this.#held = on
    this.#switch()
  }

  #switch(): void {
    this.memory.state[State.on] = this.#wanted && !this.#held ? 1 : 0
  }

  /** Catches up with what has passed. Whatever goes by counters, or by when a peer was heard or needed, comes after. */
  settle(): void {
    const { state, touched, sentAt, heardAt } = this.memory
    if (state[State.stirred] === 0) return
    state[State.stirred] = 0
    const count = state[State.touched]!
    state[State.touched] = 0
    this.#count()
    for (let i = 0; i < count; i++) {
      const peer = touched[i]!
      const sent = sentAt[peer]!
      const heard = heardAt[peer]!
      sentAt[peer] = 0
      heardAt[peer] = 0
      this.#c.passed(peer, sent, heard)
    }
  }

  #count(): void {
    const { dataPath, counters: flows } = this.#c
    const { counters } = this.memory
    dataPath.tunPacketsIn += counters[Counter.tunPacketsIn]!
    dataPath.tunPacketsOut += counters[Counter.tunPacketsOut]!
    dataPath.framesOut += counters[Counter.framesOut]!
    dataPath.bytesOut += counters[Counter.bytesOut]!
    dataPath.datagramsIn += counters[Counter.datagramsIn]!
    dataPath.framesIn += counters[Counter.framesIn]!
    dataPath.bytesIn += counters[Counter.bytesIn]!
    flows.packetsOut += counters[Counter.packetsOut]!
    flows.bytesOut += counters[Counter.innerBytesOut]!
    flows.packetsIn += counters[Counter.packetsIn]!
    flows.bytesIn += counters[Counter.innerBytesIn]!
    flows.framesDelivered += counters[Counter.framesDelivered]!
    this.packetsOut += counters[Counter.packetsOut]!
    this.packetsIn += counters[Counter.packetsIn]!
    this.framesFailed += counters[Counter.framesFailed]!
    this.packetsNotWritten += counters[Counter.packetsNotWritten]!
    counters.fill(0)
  }
}

function layoutOf(flows: FlowTable, ring: RecentRing): Int32Array {
  const { slots, slotMask, rowMask, seed } = flows.tupleIndex
  return Int32Array.of(
    ROW_WORDS,
    flows.capacity,
    slots,
    slotMask,
    rowMask,
    seed,
    Row.state,
    Row.kind,
    Row.ports,
    Row.remote,
    Row.local,
    Row.generation,
    Row.peer,
    Row.remoteSlot,
    Row.remoteGeneration,
    Row.flags,
    Row.lastOut,
    Row.lastIn,
    Row.acked,
    Row.nextIn,
    Row.nextOut,
    Count.packetsOut,
    Count.bytesOut,
    Count.packetsIn,
    Count.bytesIn,
    FlowState.established,
    FlowFlag.acceptor,
    FlowFlag.confirmed,
    FlowFlag.sequenced,
    LaneRole.current,
    ring.head.byteOffset - ring.memory.byteOffset,
    RECENT_ROWS,
    RECENT_BYTES,
    RECENT_RUN_MAX,
    RECENT_ROW_WORDS,
  )
}
