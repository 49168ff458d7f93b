import { Worker } from 'node:worker_threads'
import { builtFile } from '../our-files.js'

/** Newly made objects of the packet thread, MB: it makes none for a packet, and a large space for them is memory without use. */
const YOUNG_GENERATION_MB = 3

let early: Worker | undefined

/** Has the next packet thread load its code already, while this thread loads its own. */
export function startEarly(): void {
  early ??= start()
}

/** A packet thread that waits for its first call. */
export function packetWorker(): Worker {
  const worker = early ?? start()
  early = undefined
  return worker
}

function start(): Worker {
  return new Worker(builtFile('daemon/thread/packets.js'), {
    name: 'packets',
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MB },
  })
}
