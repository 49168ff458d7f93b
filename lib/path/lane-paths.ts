import { ADDRESS_LOCAL, ADDRESS_RECORD } from '../wire/batch.js'
import { sameRemote } from './address-record.js'
import { CHALLENGE_MS, PROBE_BYTES } from './cadence.js'
import type { PeerTable } from './peers.js'

/** An unanswered probe is repeated after this and twice this, ms; then the lane rests. */
const RETRY_MS = 250
const TRIES = 3
const REST_MS = 60_000
/** A lane in use is looked at this often, and is given up when that many looks in a row stay without an echo. */
const LOOK_MS = 1_000
const UNANSWERED_MAX = 2
const TOKEN = 16
/** Positions of an address record. */
const PORT = 2
const ADDRESS = 8
/** Bytes that may go to an address before it is proven, for each that came from there. */
const AMPLIFICATION = 3
/** A peer that tries its lanes begins to use them within this, ms. */
const JOINING_MS = 3_000

interface Lane {
  /** Address slot of the other end's port; -1: none yet. */
  slot: number
  token: Uint8Array | undefined
  /** Probes since the last echo. */
  tries: number
  nextAt: number
  /** Where the peer's frames on the lane came from last; `isHeard`: any have. */
  readonly from: Uint8Array
  isHeard: boolean
  /** When the peer was asked to speak on its first lane. */
  askedAt: number
}

/**
 * Finds out which lanes above the first work: each has a UDP port of its own at both ends, which a firewall or NAT on the way may not let through. Lanes follow the path
 * of the first one to the peer's address. A lane is used once our probe on it has been echoed on it, and until probes stay without an echo.
 *
 * Packets of a flow keep their order when they go another way. What the lanes' threads have in hand leaves before anything goes by the first lane instead, and before an address slot
 * that it may name is another address's. Before a lane is used it is tried, and from then on the other end reads what has come by the first lane before what comes by that one.
 */
export class LanePaths {
  readonly #peers = new Map<number, Lane[]>()
  /** Address slots that what the lanes have in hand may still name. */
  readonly #parting: number[] = []
  #due = Infinity
  #joiningUntil = -Infinity

  constructor(
    private readonly components: {
      readonly peers: PeerTable
      readonly randomBytes: (length: number) => Uint8Array
      /** Seal a probe on this lane and send it there. `inUse`: frames go by the lane already. */
      readonly sendProbe: (peer: number, lane: number, addressSlot: number, token: Uint8Array, inUse: boolean) => void
      /** Waits until what was decided upon for the lanes has left; false: it has not, or something is being decided upon. */
      readonly settle: () => boolean
    },
  ) {}

  /** The peer's session is another one, and its lanes above the first have these ports: those that lead where they did go on as they are. */
  offer(peer: number, ports: readonly number[], now: number): void {
    this.#replace(peer, ports, now, true)
  }

  /** The way to the peer is another one: the lanes are tried anew. */
  renew(peer: number, ports: readonly number[], now: number): void {
    this.#replace(peer, ports, now, false)
  }

  /** Packets that waited go out now, by the first lane, before newer ones: lanes are used again when they have been tried again. */
  stepBack(peer: number, now: number): void {
    const lanes = this.#peers.get(peer) ?? []
    for (const [i, lane] of lanes.entries()) {
      if (!this.#leave(peer, i + 1)) continue
      lane.tries = 0
      lane.nextAt = now
    }
    this.#advance(peer, lanes, now)
  }

  #replace(peer: number, ports: readonly number[], now: number, keep: boolean): void {
    const { peers } = this.components
    const path = peers.pathSlot[peer]!
    const former = this.#peers.get(peer) ?? []
    const lanes = path < 0 ? [] : ports.slice(0, peers.lanes - 1).map((port) => this.#lane(path, port, now))
    for (const [i, lane] of former.entries()) {
      if (keep && lane.slot >= 0 && lanes[i]?.slot === lane.slot) {
        lanes[i] = lane
        peers.addresses.release(lane.slot)
        continue
      }
      this.#leave(peer, i + 1)
      if (lane.slot >= 0) this.#parting.push(lane.slot)
    }
    if (lanes.length === 0) this.#peers.delete(peer)
    else this.#peers.set(peer, lanes)
    this.#part(now)
    this.#advance(peer, lanes, now)
  }

  #lane(path: number, port: number, now: number): Lane {
    const { addresses } = this.components.peers
    const record = addresses.record(path)
    record[PORT] = port >> 8
    record[PORT + 1] = port & 0xff
    const from = new Uint8Array(ADDRESS_LOCAL)
    const slot = addresses.acquire(record)
    return { slot, token: undefined, tries: 0, nextAt: now, from, isHeard: false, askedAt: -Infinity }
  }

  /** Frames go by the first lane from now on. Returns whether they did not. */
  #leave(peer: number, lane: number): boolean {
    const { peers, settle } = this.components
    const at = peers.laneAt(peer, lane)
    if (peers.laneAddressSlot[at]! < 0) return false
    peers.laneAddressSlot[at] = -1
    settle()
    return true
  }

  /** Gives back the address slots that nothing names any more. */
  #part(now: number): void {
    if (this.#parting.length === 0) return
    if (!this.components.settle()) this.#due = Math.min(this.#due, now + LOOK_MS)
    else for (const slot of this.#parting.splice(0)) this.components.peers.addresses.release(slot)
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

  /**
   * A frame of so many bytes came on this lane from the record at `offset`. Nothing is done about it unless its frames came from elsewhere before: by another address of the peer its
   * first lane may come, too, and a NAT that has given this lane another port may have given that one another, too, which its next frame tells: the peer is asked for one, by a probe.
   * Returns the record, where the first lane may come from now, that is to be challenged; undefined: none is. `bytes`: what is left of what may be answered there.
   */
  heardAside(
    peer: number,
    lane: number,
    records: Uint8Array,
    offset: number,
    now: number,
    bytes: number,
  ): { readonly record: Uint8Array; readonly bytes: number } | undefined {
    const { peers } = this.components
    const state = this.#peers.get(peer)?.[lane - 1]
    if (state === undefined || (state.isHeard && sameRemote(state.from, records, 0, offset))) return undefined
    const { addresses, pathSlot } = peers
    const before = state.isHeard ? state.from : addresses.record(pathSlot[peer]!)
    const isElsewhere = !sameHost(before, records, offset)
    const isKnown = state.isHeard
    for (let i = 0; i < ADDRESS_LOCAL; i++) state.from[i] = records[offset + i]!
    state.isHeard = true
    if (!isElsewhere && !isKnown) return undefined
    const asks = now - state.askedAt >= CHALLENGE_MS && AMPLIFICATION * bytes >= 2 * PROBE_BYTES
    if (asks) this.#ask(peer, lane, state, records, offset, now)
    if (!isElsewhere) return undefined
    const record = records.slice(offset, offset + ADDRESS_RECORD)
    record.set(addresses.record(pathSlot[peer]!).subarray(PORT, PORT + 2), PORT)
    return { record, bytes: asks ? bytes - Math.ceil(PROBE_BYTES / AMPLIFICATION) : bytes }
  }

  #ask(peer: number, number: number, lane: Lane, records: Uint8Array, offset: number, now: number): void {
    const { peers, randomBytes, sendProbe } = this.components
    const slot = peers.addresses.acquire(records, offset)
    if (slot < 0) return
    lane.askedAt = now
    sendProbe(peer, number, slot, randomBytes(TOKEN), false)
    peers.addresses.release(slot)
  }

  /** A peer tries a lane, which it may use from now on. */
  joins(now: number): void {
    this.#joiningUntil = now + JOINING_MS
  }

  /** Whether frames that come by a lane may have been sent after others that have come by the first one and are not read yet. */
  joining(now: number): boolean {
    return now < this.#joiningUntil
  }

  /** The peer's lanes are of no use any more. */
  forget(peer: number, now: number): void {
    this.#replace(peer, [], now, false)
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
    this.#part(now)
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
      // Until it has answered again.
      this.#leave(peer, number)
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
    const { peers, sendProbe } = this.components
    sendProbe(peer, number, lane.slot, lane.token, peers.laneAddressSlot[peers.laneAt(peer, number)]! >= 0)
  }
}

/** Whether both records name the same address of a peer, whatever its port. */
function sameHost(a: Uint8Array, b: Uint8Array, offset: number): boolean {
  if (a[0] !== b[offset]) return false
  for (let i = ADDRESS; i < ADDRESS_LOCAL; i++) if (a[i] !== b[offset + i]) return false
  return true
}

function sameToken(a: Uint8Array, b: Uint8Array): boolean {
  if (b.length < TOKEN) return false
  for (let i = 0; i < TOKEN; i++) if (a[i] !== b[i]) return false
  return true
}
