import { Count, FlowState, Row, ROW_WORDS, type FlowTable } from './flow-table.js'

/** Bytes of the packets of flows, by peer index, as the own kernel sends and gets them. */
export class PeerTraffic {
  constructor(
    capacity: number,
    readonly bytesIn = new Float64Array(capacity),
    readonly bytesOut = new Float64Array(capacity),
  ) {}

  /** What has passed in the flow of this row; nothing, where there is none. */
  add({ words, doubles }: FlowTable, row: number): void {
    const base = row * ROW_WORDS
    if (words[base + Row.state]! < FlowState.established) return
    const peer = words[base + Row.peer]!
    this.bytesIn[peer]! += doubles[base / 2 + Count.bytesIn]!
    this.bytesOut[peer]! += doubles[base / 2 + Count.bytesOut]!
  }

  copy(): PeerTraffic {
    return new PeerTraffic(this.bytesIn.length, this.bytesIn.slice(), this.bytesOut.slice())
  }
}
