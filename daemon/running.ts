import type { HostId } from '../lib/wire/ids.js'

/** What is said of a daemon once it is up. */
export interface DaemonSummary {
  readonly network: string
  readonly name: string
  readonly id: HostId
}

/** A daemon that is up, in whatever thread. */
export interface RunningDaemon {
  readonly summary: DaemonSummary
  /** Resolves with why the daemon is to end. */
  readonly stopRequested: Promise<string>
  /** It ends because something went wrong. */
  readonly failed: boolean
  requestStop(reason: string): void
  /** Reads the configuration anew. Rejects with CARACAL_E_CONFIG, and nothing has changed. */
  reload(): Promise<unknown>
  /** Ends flows, tells the peers, takes everything back. Resolves with the number of flows that were open. */
  stop(): Promise<number>
}
