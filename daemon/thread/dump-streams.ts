import type { TapEvent } from '../../lib/host/tap.js'
import type { Requests } from '../control/requests.js'

/** Events under way to the other thread; more are counted instead. */
const UNDER_WAY_MAX = 4_096
const BATCH_MAX = 64

/** A dump whose reader is in another thread: its events are handed over in batches, and never more than the reader keeps up with. */
class DumpStream {
  readonly ending = new AbortController()
  #events: TapEvent[] = []
  #underWay = 0
  #lost = 0
  #scheduled: NodeJS.Immediate | undefined

  constructor(private readonly send: (events: readonly TapEvent[], lost: number) => void) {}

  event(event: TapEvent): void {
    if (this.#underWay >= UNDER_WAY_MAX) return this.lost(1)
    this.#underWay++
    this.#events.push(event)
    if (this.#events.length >= BATCH_MAX) this.flush()
    else this.#scheduled ??= setImmediate(() => this.flush())
  }

  lost(count: number): void {
    this.#lost += count
    this.#scheduled ??= setImmediate(() => this.flush())
  }

  taken(count: number): void {
    this.#underWay -= count
  }

  flush(): void {
    clearImmediate(this.#scheduled)
    this.#scheduled = undefined
    if (this.#events.length === 0 && this.#lost === 0) return
    this.send(this.#events, this.#lost)
    this.#events = []
    this.#lost = 0
  }
}

/** The dumps that another thread has asked for, by its numbers. */
export class DumpStreams {
  readonly #streams = new Map<number, DumpStream>()

  constructor(private readonly send: (stream: number, events: readonly TapEvent[], lost: number) => void) {}

  /** Resolves when the dump has ended and everything has been sent. */
  async run(id: number, args: unknown, requests: Requests): Promise<void> {
    const stream = new DumpStream((events, lost) => this.send(id, events, lost))
    this.#streams.set(id, stream)
    try {
      await requests.dump(
        args,
        (event) => stream.event(event),
        stream.ending.signal,
        (count) => stream.lost(count),
      )
    } finally {
      stream.flush()
      this.#streams.delete(id)
    }
  }

  taken(id: number, count: number): void {
    this.#streams.get(id)?.taken(count)
  }

  end(id: number): void {
    this.#streams.get(id)?.ending.abort()
  }
}
