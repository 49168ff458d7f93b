import type { ServiceId } from '../wire/ids.js'
import type { Family } from './environment.js'

/** One flow as `caracal flows --json` shows it. Counters are of this end. */
export interface FlowSnapshot {
  /** Our flow ID, 16 hex digits, and the other end's once known. */
  readonly id: string
  readonly remoteId: string | undefined
  readonly state: 'opening' | 'half-open' | 'established' | 'closing'
  readonly role: 'initiator' | 'acceptor'
  readonly protocol: 'tcp' | 'udp' | 'icmp'
  readonly family: Family
  /** As our own kernel sees the flow, in network order. */
  readonly local: Uint8Array
  readonly remote: Uint8Array
  readonly localPort: number
  readonly remotePort: number
  /** The port the client dialled, and its own port before any translation. */
  readonly dialledPort: number
  readonly clientPort: number
  /** Peer index; 0: the same host. An opening flow: the candidate asked first; -1: none yet. */
  readonly peer: number
  /** undefined: the host itself. */
  readonly service: ServiceId | undefined
  /** Monotonic seconds. */
  readonly since: number
  readonly lastOut: number
  readonly lastIn: number
  readonly packetsOut: number
  readonly bytesOut: number
  readonly packetsIn: number
  readonly bytesIn: number
  readonly bindingSequence: number
}
