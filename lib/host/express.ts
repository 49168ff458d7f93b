// The memory that daemon/native/express.cc works on: packets that come alone, of flows that are established, pass without JavaScript being entered. It reads and writes what the layers
// here keep their state in, so that there is only one state; what it cannot bring up to date by itself it notes down, and `settle` does the rest before anything is decided by it.
//
//   a packet comes ──▶ express: ordinary? ──┬▶ yes: sealed and sent, or opened and written; rows, marks, ring and keys are up to date; peer and counts are noted down
//                                           └▶ no: the host gets it ──▶ settle ──▶ …
//   1 s later at the latest, or a timer ──────────────────────────────▶ settle ──▶ deadlines, paths, counters
//   30 ms, when a peer that was lively has fallen silent ─────────────▶ settle ──▶ paths
//
// Each turn of JavaScript makes the packets that meet it late. So as long as packets of a peer keep coming, native code watches that they do, and JavaScript does not look for it.

import type { FlowCounters } from '../flow/flow-counters.js'
import { Count, FlowFlag, FlowState, ROW_WORDS, Row, type FlowTable } from '../flow/flow-table.js'
import type { PeerTable } from '../path/peers.js'
import { LaneRole } from '../session/lanes.js'
import type { SessionMarks } from '../session/session-table.js'
import { RECENT_BYTES, RECENT_ROW_WORDS, RECENT_ROWS, RECENT_RUN_MAX, type RecentRing } from '../wire/recent-ring.js'
import type { DataPath } from './data-path.js'

/** Peers that can be noted down before the host is asked, and that can be attended to. */
const TOUCHED = 256
/** A peer is lively as long as its packets follow each other so closely, ms: `kAccountMs` of daemon/native/express.cc. */
const LIVELY_MS = 30

/** Positions in ExpressMemory.state. */
const State = {
  /** 1: packets may be taken. */
  on: 0,
  /** Peers in `touched`. */
  touched: 1,
  /** 1: something is to be settled. */
  stirred: 2,
  /** Peers in `attended`. */
  attended: 3,
} as const
const STATES = 4

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
  packetsNotSealed: 14,
} as const
const COUNTERS = 15

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
  /** Longest plaintext of what was sent. */
  readonly longest: Int32Array
  /** Peers with one of these. */
  readonly touched: Int32Array
  /** Lively peers: to be told of when one falls silent. */
  readonly attended: Int32Array
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
  /** Something was sent to the peer, its plaintext so long at most, and heard of it, at these times; 0: nothing. Its marks say so already. */
  readonly passed: (peer: number, sentAt: number, longest: number, heardAt: number) => void
  /** From now on it is noticed here when the peer falls silent, or not any more. */
  readonly attend: (peer: number, on: boolean, now: number) => void
}

export class Express {
  readonly memory: ExpressMemory
  /** Packets that passed since the start. */
  packetsOut = 0
  packetsIn = 0
  /** Of them those that the kernel did not take. */
  framesFailed = 0
  packetsNotWritten = 0
  /** Packets that could not be sealed. */
  packetsNotSealed = 0
  readonly #c: ExpressComponents
  /** By peer: 1 while it is attended to. */
  readonly #isAttended: Uint8Array
  /** When those that are attended to are to be looked at again. */
  #lookAt = -Infinity
  #wanted = false
  #watch: (() => void) | undefined
  #held = false

  constructor(components: ExpressComponents) {
    this.#c = components
    const { flows, peers, marks, ring } = components
    this.#isAttended = new Uint8Array(peers.capacity)
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
      longest: new Int32Array(peers.capacity),
      touched: new Int32Array(TOUCHED),
      attended: new Int32Array(TOUCHED),
      state: new Int32Array(STATES),
      counters: new Float64Array(COUNTERS),
    }
  }

  /** Whether packets pass: somebody does it, and nothing keeps it. */
  get on(): boolean {
    return this.memory.state[State.on] === 1
  }

  /** There is somebody who lets packets pass, or not any more; `watch`: and who notices when a lively peer falls silent, from when it is called on while there is one. */
  use(on: boolean, now: number, watch?: () => void): void {
    this.#wanted = on
    this.#watch = watch
    this.#switch(now)
  }

  /** A packet of a flow has come from the peer, alone, to the host itself: others may follow that pass, and the host need not be told of that first. */
  came(peer: number, now: number): void {
    if (!this.on || this.#watch === undefined) return
    this.#attend(peer, now)
    this.#watch()
  }

  /** On hold everything comes to the host, for whoever wants to see it. */
  hold(on: boolean, now: number): void {
    this.#held = on
    this.#switch(now)
  }

  #switch(now: number): void {
    const on = this.#wanted && !this.#held
    this.memory.state[State.on] = on ? 1 : 0
    if (!on) this.#review(now, -Infinity)
  }

  /** Catches up with what has passed. Whatever goes by counters, or by when a peer was heard or needed, comes after. */
  settle(now: number): void {
    const { state } = this.memory
    if (state[State.stirred] !== 0) this.#takeIn(now)
    else if (state[State.attended] === 0 || now < this.#lookAt) return
    this.#lookAt = now + LIVELY_MS
    this.#review(now, now - LIVELY_MS)
  }

  #takeIn(now: number): void {
    const { state, touched, sentAt, heardAt, longest } = this.memory
    state[State.stirred] = 0
    const count = state[State.touched]!
    state[State.touched] = 0
    this.#count()
    for (let i = 0; i < count; i++) {
      const peer = touched[i]!
      const sent = sentAt[peer]!
      const heard = heardAt[peer]!
      const length = longest[peer]!
      sentAt[peer] = 0
      heardAt[peer] = 0
      longest[peer] = 0
      this.#c.passed(peer, sent, length, heard)
      if (this.#watch !== undefined && heard > now - LIVELY_MS) this.#attend(peer, now)
    }
  }

  #attend(peer: number, now: number): void {
    const { state, attended } = this.memory
    if (this.#isAttended[peer] === 1 || state[State.attended] === attended.length) return
    this.#isAttended[peer] = 1
    attended[state[State.attended]!++] = peer
    this.#c.attend(peer, true, now)
  }

  /** Those of whom nothing has come since then are attended to no more. */
  #review(now: number, since: number): void {
    const { state, attended, pathHeardAt } = this.memory
    const count = state[State.attended]!
    let left = 0
    for (let i = 0; i < count; i++) {
      const peer = attended[i]!
      if (this.memory.state[State.on] === 1 && pathHeardAt[peer]! > since) attended[left++] = peer
      else {
        this.#isAttended[peer] = 0
        this.#c.attend(peer, false, now)
      }
    }
    state[State.attended] = left
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
    this.packetsNotSealed += counters[Counter.packetsNotSealed]!
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
    Row.unacked,
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
