import type { PeerTable } from '../path/peers.js'
import type { PathProber } from '../path/prober.js'
import type { HostCondition } from '../service/choice.js'
import type { HostId } from '../wire/ids.js'
import type { FailureDetector } from './failure-detector.js'

/** What this host knows of the host an instance is on, for the choice among instances. */
export function conditionOf(
  host: HostId,
  known: {
    readonly id: HostId
    readonly peers: PeerTable
    readonly prober: PathProber
    readonly detector: FailureDetector
  },
  now: number,
): HostCondition {
  const { id, peers, prober, detector } = known
  if (host === id) return { liveness: 'alive', age: 0, rtt: 0 }
  const peer = peers.indexOf(host)
  const state = peer < 0 ? undefined : prober.liveness(peer)
  const said = detector.state(host, now)
  if (state === undefined) return { liveness: said ?? 'unknown', age: Infinity, rtt: 0 }
  const age = now - (prober.heardAt(peer) ?? -Infinity)
  const liveness = state === 'doubtful' || (state === 'alive' && said !== undefined) ? 'suspect' : state
  return { liveness, age, rtt: peers.leastRttMs[peer]! }
}
