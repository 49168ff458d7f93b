// Garbage of a thread. V8 would look for it by itself some seconds after anything has happened, and packets that come meanwhile wait for up to 10 ms several times in a row; so its "memory reducer" is
// switched off (V8_FLAGS in daemon/bundle/load.ts), and what it is good for, that a daemon that rests holds no more than it needs, is done here, when no packets come. V8's own limits hold as ever.

import { getHeapStatistics } from 'node:v8'
import { native } from './native.js'

/** Between looks, ms. */
const LOOK_MS = 10_000
/** More than this above what was left the last time, bytes, is worth a collection. */
const WORTH_BYTES = 3 << 20
/** No more packets than this between two looks: hosts that rest, and probe each other. */
const QUIET_PACKETS = 1_000

export interface HeapCareComponents {
  /** Packets that this thread has moved; 0 for one that moves none. */
  readonly packets: () => number
  /** Bytes that this thread's objects take, garbage included. */
  readonly used: () => number
  readonly collect: () => void
}

/** Of the thread that it runs in. */
export const ownHeap: Pick<HeapCareComponents, 'used' | 'collect'> = {
  used: () => {
    const { used_heap_size, external_memory } = getHeapStatistics()
    return used_heap_size + external_memory
  },
  collect: () => native().trimMemory(),
}

/** From construction to `stop`; does not keep the process alive. */
export class HeapCare {
  readonly #timer: NodeJS.Timeout
  #left: number
  #packets: number

  /** `idle`: nobody waits yet, so what the start has left behind is collected at once; else at the first occasion. */
  constructor(
    private readonly components: HeapCareComponents,
    idle: boolean,
  ) {
    if (idle) components.collect()
    this.#left = idle ? components.used() : 0
    this.#packets = components.packets()
    this.#timer = setInterval(() => this.look(), LOOK_MS).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  look(): void {
    const { packets, used, collect } = this.components
    const moved = packets()
    const came = moved - this.#packets
    this.#packets = moved
    if (came > QUIET_PACKETS || used() < this.#left + WORTH_BYTES) return
    collect()
    this.#left = used()
  }
}
