import type { Tap, TapEvent, TapPoint } from './tap.js'

/** An event on its way to the taps, while what it says may still change. */
export type TapDraft = { -readonly [Key in keyof Omit<TapEvent, 'time'>]: TapEvent[Key] }

interface OpenTap {
  readonly tap: Tap
  readonly points: ReadonlySet<TapPoint>
}

/** The taps that are open, each at its points. */
export class TapSet {
  readonly #open = new Set<OpenTap>()
  readonly #snapLength: Record<TapPoint, number> = { tun: -1, wire: -1, drop: -1 }

  /** `switched`: the first tap was opened, or the last one closed. */
  constructor(private readonly switched: (on: boolean) => void) {}

  get size(): number {
    return this.#open.size
  }

  /** Bytes wanted of each packet at the point; -1: nobody looks. */
  wanted(point: TapPoint): number {
    return this.#snapLength[point]
  }

  add(tap: Tap, points: Iterable<TapPoint>): () => void {
    const opened: OpenTap = { tap, points: new Set(points) }
    this.#open.add(opened)
    this.#measure()
    if (this.#open.size === 1) this.switched(true)
    return () => {
      if (!this.#open.delete(opened)) return
      this.#measure()
      if (this.#open.size === 0) this.switched(false)
    }
  }

  /** Hands the event, whose bytes become the receivers', to the taps at its point. */
  show(draft: TapDraft, time: number): void {
    for (const { tap, points } of this.#open) {
      if (!points.has(draft.point)) continue
      const cut = draft.bytes.subarray(0, tap.snapLength)
      tap.event({ ...draft, bytes: this.#open.size === 1 ? cut : cut.slice(), time })
    }
  }

  #measure(): void {
    for (const point of ['tun', 'wire', 'drop'] as const) {
      this.#snapLength[point] = -1
      for (const { tap, points } of this.#open) {
        if (points.has(point)) this.#snapLength[point] = Math.max(this.#snapLength[point], tap.snapLength)
      }
    }
  }
}
