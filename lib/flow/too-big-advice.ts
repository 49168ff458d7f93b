/** Packets of a flow within that time after which its sender is told: a few large ones are not worth an error that a program may stumble over. */
const PACKETS = 4
const WITHIN_MS = 10_000
const FLOWS_MAX = 1_024

/** When to tell the sender of datagrams that have to be cut into pieces that smaller ones would go whole. */
export class TooBigAdvice {
  /** By row of the flow. A row may have become another flow's meanwhile, which then is told sooner or later. */
  readonly #flows = new Map<number, { packets: number; since: number }>()

  /** One more packet of the flow was too large. */
  isDue(row: number, now: number): boolean {
    let flow = this.#flows.get(row)
    if (flow === undefined) {
      if (this.#flows.size >= FLOWS_MAX) this.#flows.clear()
      this.#flows.set(row, (flow = { packets: 0, since: now }))
    }
    if (now - flow.since >= WITHIN_MS) {
      flow.packets = 0
      flow.since = now
    }
    return ++flow.packets % PACKETS === 0
  }
}
