import type { Tap, TapEvent, TapPoint } from '../../lib/host/tap.js'
import { parseFilter } from '../control/filter.js'
import type { DumpRequest } from '../control/protocol.js'

/** Events under way to the other thread; more are counted instead. */
const UNDER_WAY_MAX = 4_096
const BATCH_MAX = 64

interface Stream {
  readonly close: () => void
  events: TapEvent[]
  underWay: number
  lost: number
  scheduled: boolean
}

/** Dumps whose readers are in another thread: filtered here, handed over in batches, and never more than the reader keeps up with. */
export class DumpStreams {
  readonly #streams = new Map<number, Stream>()

  constructor(
    private readonly components: {
      readonly openTap: (tap: Tap, points: readonly TapPoint[]) => () => void
      readonly send: (stream: number, events: readonly TapEvent[], lost: number) => void
    },
  ) {}

  open(id: number, request: DumpRequest): void {
    const filter = parseFilter(request.filter)
    const passes = filter.ok ? filter.filter : () => true
    const tap: Tap = {
      snapLength: request.snapLength,
      event: (event) => {
        if (passes(event)) this.#event(id, event)
      },
    }
    const close = this.components.openTap(tap, request.points)
    this.#streams.set(id, { close, events: [], underWay: 0, lost: 0, scheduled: false })
  }

  taken(id: number, count: number): void {
    const stream = this.#streams.get(id)
    if (stream !== undefined) stream.underWay -= count
  }

  close(id: number): void {
    this.#flush(id)
    this.#streams.get(id)?.close()
    this.#streams.delete(id)
  }

  #event(id: number, event: TapEvent): void {
    const stream = this.#streams.get(id)
    if (stream === undefined) return
    if (stream.underWay >= UNDER_WAY_MAX) {
      stream.lost++
      return
    }
    stream.underWay++
    stream.events.push(event)
    if (stream.events.length >= BATCH_MAX) return this.#flush(id)
    if (stream.scheduled) return
    stream.scheduled = true
    setImmediate(() => {
      stream.scheduled = false
      this.#flush(id)
    })
  }

  #flush(id: number): void {
    const stream = this.#streams.get(id)
    if (stream === undefined || (stream.events.length === 0 && stream.lost === 0)) return
    this.components.send(id, stream.events, stream.lost)
    stream.events = []
    stream.lost = 0
  }
}
