import { Protocol } from '../wire/constants.js'

/** Above every peer index. */
const PEERS_MAX = 2 ** 20

/** How many flows there are, kept as they come and go: nobody has to walk over the table to know. */
export class FlowCounts {
  tcp = 0
  udp = 0
  /** Echo. */
  icmp = 0
  readonly #instances = new Map<number, number>()

  get open(): number {
    return this.tcp + this.udp + this.icmp
  }

  /** One more (1) or less (-1) of the protocol. */
  add(protocol: number, change: 1 | -1): void {
    if (protocol === Protocol.tcp) this.tcp += change
    else if (protocol === Protocol.udp) this.udp += change
    else this.icmp += change
  }

  /** One more (1) or less (-1) to the service's instance on the host with this peer index. `service`: number of ServiceRefs. */
  addTo(service: number, peer: number, change: 1 | -1): void {
    const key = service * PEERS_MAX + peer
    const count = (this.#instances.get(key) ?? 0) + change
    if (count === 0) this.#instances.delete(key)
    else this.#instances.set(key, count)
  }

  /** Flows to an instance, numbered as for {@link addTo}. */
  to(service: number, peer: number): number {
    return this.#instances.get(service * PEERS_MAX + peer) ?? 0
  }
}
