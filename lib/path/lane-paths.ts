import type { PeerTable } from './peers.js'

/** An unanswered probe is repeated after this and twice this, ms; then the lane rests. */
const RETRY_MS = 250
const TRIES = 3
const REST_MS = 60_000
/** A lane in use is looked at this often, and is given up when that many looks in a row stay without an echo. */
const LOOK_MS = 1_000
const UNANSWERED_MAX = 2
const TOKEN = 16
const PORT = 2

interface Lane {
  /** Address slot of the other end's port; -1: none yet. */
  slot: number
  token: Uint8Array | undefined
  /** Probes since the last echo. */
  tries: number
  nextAt: number
}

/**
 * Finds out which lanes above the first work: each has a UDP port of its own at both ends, which a firewall or NAT on the way may not let through. Lanes follow the path
 * of the first one to the peer's address. A lane is used once our probe on it has been echoed on it, and until probes stay without an echo.
 */
export class LanePaths {
  readonly #peers = new Map<number, Lane[]>()
  #due = Infinity

  constructor(
    private readonly components: {
      readonly peers: PeerTable
      readonly randomBytes: (length: number) => Uint8Array
      /** Seal a probe on this lane and send it there. */
      readonly sendProbe: (peer: number, lane: number, addressSlot: number, token: Uint8Array) => void
    },
  ) {}

  /** The peer's session or path is another one, and its lanes above the first have these ports: they are tried anew. */
  offer(peer: number, ports: readonly number[], now: number): void {
    const { peers } = this.components
    this.forget(peer)
    const path = peers.pathSlot[peer]!
    if (path < 0) return
    const lanes = ports.slice(0, peers.lanes - 1).map((port): Lane => {
      const record = peers.addresses.record(path)
      record[PORT] = port >> 8
      record[PORT + 1] = port & 0xff
      return { slot: peers.addresses.acquire(record), token: undefined, tries: 0, nextAt: now }
    })
    if (lanes.length === 0) return
    this.#peers.set(peer, lanes)
    this.#advance(peer, lanes, now)
  }

  /** A probe's echo came on this lane. False: of no probe of ours. */
  echoed(peer: number, lane: number, token: Uint8Array, now: number): boolean {
    const { peers } = this.components
    const state = this.#peers.get(peer)?.[lane - 1]
    if (state?.token === undefined || !sameToken(state.token, token)) return false
    state.token = undefined
    state.tries = 0
    state.nextAt = now + LOOK_MS
    this.#due = Math.min(this.#due, state.nextAt)
    peers.laneAddressSlot[peers.laneAt(peer, lane)] = state.slot
    return true
  }

  /** The peer's lanes are of no use any more. */
  forget(peer: number): void {
    const { peers } = this.components
    for (const [i, lane] of (this.#peers.get(peer) ?? []).entries()) {
      peers.laneAddressSlot[peers.laneAt(peer, i + 1)] = -1
      if (lane.slot >= 0) peers.addresses.release(lane.slot)
    }
    this.#peers.delete(peer)
  }

  /** Lanes above the first that work. */
  working(peer: number): number {
    const { peers } = this.components
    const lanes = this.#peers.get(peer) ?? []
    return lanes.filter((_, i) => peers.laneAddressSlot[peers.laneAt(peer, i + 1)]! >= 0).length
  }

  nextTimeout(): number {
    return this.#due
  }

  handleTimeout(now: number): void {
    if (now < this.#due) return
    this.#due = Infinity
    for (const [peer, lanes] of this.#peers) this.#advance(peer, lanes, now)
  }

  #advance(peer: number, lanes: readonly Lane[], now: number): void {
    for (const [i, lane] of lanes.entries()) {
      if (lane.slot >= 0 && now >= lane.nextAt) this.#look(peer, i + 1, lane, now)
      if (lane.slot >= 0) this.#due = Math.min(this.#due, lane.nextAt)
    }
  }

  #look(peer: number, number: number, lane: Lane, now: number): void {
    const { peers } = this.components
    const at = peers.laneAt(peer, number)
    if (peers.laneAddressSlot[at]! < 0) {
      const rests = lane.tries >= TRIES
      if (rests) lane.tries = 0
      lane.nextAt = rests ? now + REST_MS : now + RETRY_MS * 2 ** lane.tries
      if (!rests) this.#probe(peer, number, lane)
      return
    }
    lane.nextAt = now + LOOK_MS
    if (lane.tries >= UNANSWERED_MAX) {
      // Frames go by the first lane until this one has answered again.
      peers.laneAddressSlot[at] = -1
      lane.tries = 0
      this.#look(peer, number, lane, now)
    } else if (peers.laneUsed[at] === 1 || lane.tries > 0) {
      peers.laneUsed[at] = 0
      this.#probe(peer, number, lane)
    }
  }

  #probe(peer: number, number: number, lane: Lane): void {
    lane.token = this.components.randomBytes(TOKEN)
    lane.tries++
    this.components.sendProbe(peer, number, lane.slot, lane.token)
  }
}

function sameToken(a: Uint8Array, b: Uint8Array): boolean {
  if (b.length < TOKEN) return false
  for (let i = 0; i < TOKEN; i++) if (a[i] !== b[i]) return false
  return true
}
