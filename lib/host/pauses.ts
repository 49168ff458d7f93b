import { Hold, type PeerTable } from '../path/peers.js'
import { PAUSE_MAX_MS } from '../wire/constants.js'
import { decodePause, encodePause } from '../wire/pause-message.js'
import { Channel, type ControlChannel } from './control-channel.js'

/**
 * A host that is about to be restarted asks its peers to hold what goes to it, so that nothing arrives where nobody has the keys:
 *
 *   begin ── pause ──▶ peers hold their flows' frames, then acknowledge ──▶ pending is 0: what had been on its way is here
 *                      … its socket is read to the end; another process takes over …
 *   new session ─────▶ what was held goes out with the new keys; likewise when the time is up, or the host says that it goes on
 *
 * Messages that come late or twice change nothing: the one with the highest sequence counts.
 */
export class Pauses {
  /** Pauses of peers that were heeded. */
  received = 0
  /** Until when the pause of this host lasts that peers were told last. */
  #until = -Infinity
  /** By peer: until when it rests. */
  readonly #resting = new Map<number, number>()
  /** Highest sequence heard, by peer. */
  readonly #heard = new Map<number, number>()
  #due = Infinity

  constructor(
    private readonly components: {
      readonly peers: PeerTable
      readonly control: ControlChannel
      /** Above all that were given before, also by former processes of this host. */
      readonly nextSequence: () => number
      /** The peer answers nothing until then; {@link PathProber.rest}. */
      readonly rest: (peer: number, until: number, now: number) => void
      /** Frames of the peer's flows go again. */
      readonly released: (peer: number, now: number) => void
    },
  ) {}

  /** Tells all peers with a session, and those that get one meanwhile. `ms`: at most PAUSE_MAX_MS. */
  begin(ms: number, now: number): void {
    this.#until = now + Math.min(ms, PAUSE_MAX_MS)
    this.#tellAll(now)
  }

  /** This host goes on after all. */
  end(now: number): void {
    if (this.#until <= now) return
    this.#until = now
    this.#tellAll(now)
  }

  /** Peers that were told and have not acknowledged it yet. */
  get pending(): number {
    const { peers, control } = this.components
    let pending = 0
    for (let peer = 1; peer < peers.size; peer++) if (control.pendingFor(peer, Channel.pause)) pending++
    return pending
  }

  /** False: it was not understood. */
  receive(peer: number, body: Uint8Array, now: number): boolean {
    const message = decodePause(body)
    if (message === undefined) return false
    const { sequence, ms } = message
    if (sequence <= (this.#heard.get(peer) ?? -1)) return true
    this.#heard.set(peer, sequence)
    this.received++
    if (ms === 0) this.#release(peer, now)
    else {
      const until = now + ms
      this.#resting.set(peer, until)
      this.#due = Math.min(this.#due, until)
      this.components.peers.hold(peer, Hold.paused, true)
      this.components.rest(peer, until, now)
    }
    return true
  }

  /** A new session with the peer stands. */
  sessionUp(peer: number, now: number): void {
    this.#release(peer, now)
    if (this.#until > now) this.#tell(peer, now)
  }

  /** The session with the peer is over. */
  forget(peer: number): void {
    this.#resting.delete(peer)
    this.components.peers.hold(peer, Hold.paused, false)
  }

  nextTimeout(): number {
    return this.#due
  }

  handleTimeout(now: number): void {
    if (now < this.#due) return
    this.#due = Infinity
    for (const [peer, until] of this.#resting) {
      if (now >= until) this.#release(peer, now)
      else this.#due = Math.min(this.#due, until)
    }
  }

  #release(peer: number, now: number): void {
    if (!this.#resting.delete(peer)) return
    this.components.rest(peer, now, now)
    if (this.components.peers.hold(peer, Hold.paused, false)) this.components.released(peer, now)
  }

  #tellAll(now: number): void {
    const { peers } = this.components
    for (let peer = 1; peer < peers.size; peer++) if (peers.sealSlot[peer]! >= 0) this.#tell(peer, now)
  }

  #tell(peer: number, now: number): void {
    const { control, nextSequence } = this.components
    control.send(peer, Channel.pause, encodePause({ sequence: nextSequence(), ms: this.#until - now }), now)
  }
}
