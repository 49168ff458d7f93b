import type { HostId } from '../lib/wire/ids.js'

/** Why a daemon is to end, and whether another one is to go on with what it has. */
export interface StopRequest {
  readonly reason: string
  readonly keep: boolean
}

/** What a daemon that ends because of a fault of its own says to do. */
export const AFTER_FAULT =
  'this daemon ends; start it again, and it goes on with what is open; report this line if it comes again'

/** What is said of a daemon once it is up. */
export interface DaemonSummary {
  readonly network: string
  readonly name: string
  readonly id: HostId
}

/** A daemon that is up, in whatever thread. */
export interface RunningDaemon {
  readonly summary: DaemonSummary
  /** Resolves with why, and how, the daemon is to end. */
  readonly stopRequested: Promise<StopRequest>
  /** It ends because something went wrong. */
  readonly failed: boolean
  requestStop(reason: string, keep?: boolean): void
  /** Reads the configuration anew. Rejects with CARACAL_E_CONFIG, and nothing has changed. */
  reload(): Promise<unknown>
  /**
   * Ends flows, tells the peers, takes everything back. Resolves with the number of flows that were open. `keep`: they go on, nobody is told, and everything waits with the keeper for the next daemon.
   */
  stop(keep: boolean): Promise<number>
}
