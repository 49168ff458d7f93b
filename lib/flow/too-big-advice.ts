import { seconds } from './flow-core.js'

/** Packets of a flow within that time after which its sender is told: a few large ones are not worth an error that a program may stumble over. */
const PACKETS = 4
const WITHIN_S = 10
/** Rows that are counted for at first. */
const ROWS = 1_024

/** When to tell the sender of datagrams that have to be cut into pieces that smaller ones would go whole. Each row of the flow table has a count, from the first packet on that is too large. */
export class TooBigAdvice {
  /** By row of the flow: its packets, and since when, s. A row may have become another flow's meanwhile, which then is told sooner or later. */
  #packets = new Uint8Array(0)
  #since = new Uint32Array(0)

  /** One more packet of the flow was too large. */
  isDue(row: number, now: number): boolean {
    if (row >= this.#packets.length) this.#grow(row)
    const second = seconds(now)
    if (second - this.#since[row]! >= WITHIN_S) {
      this.#packets[row] = 0
      this.#since[row] = second
    }
    const packets = this.#packets[row]! + 1
    this.#packets[row] = packets % PACKETS
    return packets === PACKETS
  }

  #grow(row: number): void {
    const rows = Math.max(ROWS, 2 ** Math.ceil(Math.log2(row + 1)))
    const [packets, since] = [new Uint8Array(rows), new Uint32Array(rows)]
    packets.set(this.#packets)
    since.set(this.#since)
    this.#packets = packets
    this.#since = since
  }
}
