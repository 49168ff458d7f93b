import type { Config } from '../config.js'
import { ControlClient } from '../control/client.js'
import type { HandedCounters } from '../daemon.js'
import { CaracalError } from '../errors.js'

/** It has closed its control socket by then; a daemon that hangs at that is not waited for. */
const GONE_MS = 3_000

/** A daemon that has handed over. */
export interface HandedOver {
  readonly pid: number
  readonly counters: HandedCounters
  /** Resolves when its control socket is closed. */
  readonly gone: Promise<void>
}

/** Asks the daemon that runs with this configuration to hand everything over; undefined: none runs. Throws what that daemon says, and it goes on. */
export async function askToHandOver(config: Config): Promise<HandedOver | undefined> {
  const client = await connect(config.socket)
  if (client === undefined) return undefined
  try {
    // What both ends do for the first time takes several times as long: not while nobody moves packets.
    await client.call('rules', {})
    const { pid, counters } = await client.call('handover', { state: config.state })
    let limit: NodeJS.Timeout | undefined
    const late = new Promise<void>((resolve) => (limit = setTimeout(resolve, GONE_MS)))
    const gone = Promise.race([client.closed, late]).finally(() => {
      clearTimeout(limit)
      client.close()
    })
    return { pid, counters, gone }
  } catch (error) {
    client.close()
    if (error instanceof CaracalError && error.code === 'CARACAL_E_REQUEST') {
      const next = 'use `caracal down`, then `caracal up`'
      throw new CaracalError('CARACAL_E_UNSUPPORTED', 'the daemon that runs is too old to hand over', next)
    }
    throw error
  }
}

async function connect(path: string): Promise<ControlClient | undefined> {
  try {
    return await ControlClient.connect(path)
  } catch (error) {
    if (error instanceof CaracalError && error.code === 'CARACAL_E_NO_DAEMON') return undefined
    throw error
  }
}
