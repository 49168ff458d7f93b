import type { PeerTable } from '../path/peers.js'
import type { PathProber } from '../path/prober.js'
import type { HostCondition } from '../service/choice.js'
import type { HostId } from '../wire/ids.js'

/** What this host knows of the host an instance is on, for the choice among instances. */
export function conditionOf(
  host: HostId,
  known: { readonly id: HostId; readonly peers: PeerTable; readonly prober: PathProber },
  now: number,
): HostCondition {
  const { id, peers, prober } = known
  if (host === id) return { liveness: 'alive', age: 0, rtt: 0 }
  const peer = peers.indexOf(host)
  const state = peer < 0 ? undefined : prober.liveness(peer)
  if (state === undefined) return { liveness: 'unknown', age: Infinity, rtt: 0 }
  const age = now - (prober.heardAt(peer) ?? -Infinity)
  return { liveness: state === 'doubtful' ? 'suspect' : state, age, rtt: peers.rttMs[peer]! }
}
