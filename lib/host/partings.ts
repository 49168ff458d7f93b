import type { PeerTable } from '../path/peers.js'
import type { ControlChannel } from './control-channel.js'

/** How long a host that is revoked has to take what was said to it last: why. */
const WAIT_MS = 250

/** Sessions with revoked hosts. They are told of their revocation like all peers, and cut when that has arrived, or its time is up. */
export class Partings {
  readonly #peers = new Map<number, number>()

  constructor(
    private readonly components: {
      readonly peers: PeerTable
      readonly control: ControlChannel
      readonly cut: (peer: number, now: number) => void
    },
  ) {}

  begin(peer: number, now: number): void {
    if (!this.#peers.has(peer)) this.#peers.set(peer, now + WAIT_MS)
  }

  get pending(): boolean {
    return this.#peers.size > 0
  }

  nextTimeout(): number {
    const [first] = this.#peers.values()
    return first ?? Infinity
  }

  /** After each message that came, and when it is due. */
  look(now: number): void {
    const { peers, control, cut } = this.components
    for (const [peer, until] of this.#peers) {
      if (now < until && peers.sealSlot[peer]! >= 0 && control.pendingFor(peer)) continue
      this.#peers.delete(peer)
      cut(peer, now)
    }
  }
}
