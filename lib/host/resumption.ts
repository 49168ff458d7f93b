import type { FlowEngine } from '../flow/flow-engine.js'
import type { FlowSnapshot } from '../flow/flow-snapshot.js'
import { SELF, type PeerTable } from '../path/peers.js'
import type { HostId } from '../wire/ids.js'

export interface ResumptionComponents {
  readonly flows: FlowEngine
  readonly peers: PeerTable
  readonly isRevoked: (host: HostId) => boolean
  /** Whether the policy in force lets the flow go on. */
  readonly allowsFlow: (flow: FlowSnapshot) => boolean
  /** Sessions are to be had with these hosts, and no later than with others. */
  readonly connect: (hosts: readonly HostId[], now: number) => void
}

/**
 * Flows of a former process go on when there is a session with their peer again, and what has changed since is applied to them before: with a host that was revoked, or against the
 * policy, none does. Whom they are with is not known before its session says so.
 */
export class Resumption {
  #begun = false

  constructor(private readonly components: ResumptionComponents) {}

  /** Rows that nothing was asked about yet, by peer. */
  get #rows(): Map<number, readonly number[]> {
    return this.components.flows.restored.rows
  }

  /** Infinity: {@link begin} has nothing to do. */
  nextTimeout(): number {
    return this.#begun || this.#rows.size === 0 ? Infinity : -Infinity
  }

  /** Once the policy is in force and the devices are there. */
  begin(now: number): void {
    if (this.#begun || this.#rows.size === 0) return
    this.#begun = true
    const { flows, peers, isRevoked, connect } = this.components
    flows.resume(now)
    const hosts: HostId[] = []
    for (const peer of this.#rows.keys()) {
      if (peer === SELF) continue
      const host = peers.hostId(peer)
      if (!isRevoked(host)) hosts.push(host)
      else {
        this.#rows.delete(peer)
        flows.peerLost(peer, now)
      }
    }
    this.sessionUp(SELF, now)
    connect(hosts, now)
  }

  /** Before anything of the peer's flows comes or goes. False: there are none of a former process. */
  sessionUp(peer: number, now: number): boolean {
    const rows = this.#rows.get(peer)
    if (rows === undefined) return false
    this.#rows.delete(peer)
    const { flows, allowsFlow } = this.components
    flows.cut((flow) => flow.peer === peer && !allowsFlow(flow), now, rows)
    return true
  }
}
