import type { PeerTable } from '../path/peers.js'
import { Channel, type ControlChannel } from './control-channel.js'

/** How long a host that leaves waits for its last messages to arrive before it says farewell all the same. */
const WAIT_MS = 100
const NOTHING = new Uint8Array(0)

/** Tells the peers that this host leaves. Messages have no order, and after a farewell none is heard: it goes out when the others have arrived, or their time is up. */
export class Farewells {
  readonly #left = new Set<number>()
  /** When those that are left are told whatever is outstanding; Infinity: nobody is. */
  dueAt = Infinity

  constructor(
    private readonly peers: PeerTable,
    private readonly control: ControlChannel,
  ) {}

  /** To all peers with a session. */
  begin(now: number): void {
    for (let peer = 1; peer < this.peers.size; peer++) if (this.peers.sealSlot[peer]! >= 0) this.#left.add(peer)
    this.dueAt = now + WAIT_MS
    this.say(now)
  }

  /** After each message that came, and when it is due. */
  say(now: number): void {
    for (const peer of this.#left) {
      if (now < this.dueAt && this.control.pendingFor(peer)) continue
      this.#left.delete(peer)
      if (this.peers.sealSlot[peer]! >= 0) this.control.send(peer, Channel.farewell, NOTHING, now)
    }
    if (this.#left.size === 0) this.dueAt = Infinity
  }
}
