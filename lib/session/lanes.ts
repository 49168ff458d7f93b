import type { AeadName, FrameCodec } from '../crypto/codec.js'
import { exportTransportKey } from '../crypto/noise.js'
import type { Primitives } from '../crypto/primitives.js'
import { LANE_SLOT_BITS } from '../wire/constants.js'

export const LANE_SLOTS = 2 ** LANE_SLOT_BITS
const SLOT_MASK = LANE_SLOTS - 1

/** What a lane's session is to us at the moment, as the data path reads it. */
export const LaneRole = {
  free: 0,
  /** Promised in a handshake; no keys yet. */
  reserved: 1,
  /** Responder's, before the initiator's first frame. */
  unconfirmed: 2,
  /** Initiator's: we send on it, nothing has come back yet. */
  unproven: 3,
  current: 4,
  /** Still opened for frames on their way; nothing is sent on it. */
  previous: 5,
} as const
export type LaneRole = (typeof LaneRole)[keyof typeof LaneRole]

/**
 * Our lane indexes: low 16 bits a slot of these tables, the rest random, so that frames of an earlier holder of the slot are not mistaken. The slot is also
 * the codec's seal slot of the lane. All tables are bounded by the number of slots.
 */
export class LaneTable {
  /** Peer index by slot; -1: none. */
  readonly peer = new Int32Array(LANE_SLOTS).fill(-1)
  /** {@link LaneRole} by slot. */
  readonly role = new Uint8Array(LANE_SLOTS)
  /** Position of the lane in its session, by slot: whose codec has its keys. */
  readonly number = new Uint8Array(LANE_SLOTS)
  /** Entries opened, by slot. */
  readonly opened = new Float64Array(LANE_SLOTS)
  #cursor = 0
  #used = 0

  constructor(
    readonly primitives: Primitives,
    /** By number of the lane. */
    readonly codecs: readonly FrameCodec[],
  ) {}

  get used(): number {
    return this.#used
  }

  /** So many lane indexes (u32) for the peer; undefined: there are not as many slots left. */
  reserve(peer: number, count: number): readonly number[] | undefined {
    if (LANE_SLOTS - this.#used < count) return undefined
    return Array.from({ length: count }, (_, number) => this.#take(peer, number))
  }

  #take(peer: number, number: number): number {
    while (this.role[this.#cursor] !== LaneRole.free) this.#cursor = (this.#cursor + 1) & SLOT_MASK
    const slot = this.#cursor
    this.#cursor = (slot + 1) & SLOT_MASK
    this.#used++
    this.role[slot] = LaneRole.reserved
    this.peer[slot] = peer
    this.number[slot] = number
    this.opened[slot] = 0
    const random = this.primitives.randomBytes(2)
    return (slot | (random[0]! << 16) | (random[1]! << 24)) >>> 0
  }

  /** Gives the lane its keys. `remote`: the other end's index of it. */
  install(lane: number, aead: AeadName, exporter: Uint8Array, initiator: boolean, remote: number): void {
    const { primitives } = this
    const number = this.number[lane & SLOT_MASK]!
    const codec = this.#codec(lane & SLOT_MASK)
    const outbound = initiator ? 'initiator-to-responder' : 'responder-to-initiator'
    const inbound = initiator ? 'responder-to-initiator' : 'initiator-to-responder'
    const sealKey = exportTransportKey(primitives, exporter, { direction: outbound, lane: number, aead })
    const openKey = exportTransportKey(primitives, exporter, { direction: inbound, lane: number, aead })
    codec.installSeal(lane & SLOT_MASK, aead, sealKey, remote)
    codec.installOpen(lane, aead, openKey)
    sealKey.fill(0)
    openKey.fill(0)
  }

  /** Forgets a lane and its keys. */
  free(lane: number): void {
    const slot = lane & SLOT_MASK
    const role = this.role[slot]
    if (role === LaneRole.free) return
    if (role !== LaneRole.reserved) {
      this.#codec(slot).removeSeal(slot)
      this.#codec(slot).removeOpen(lane)
    }
    this.role[slot] = LaneRole.free
    this.peer[slot] = -1
    this.#used--
  }

  /** Frames sealed on a lane so far. */
  sealed(lane: number): number {
    const slot = lane & SLOT_MASK
    return this.#codec(slot).sealed(slot)
  }

  #codec(slot: number): FrameCodec {
    const codec = this.codecs[this.number[slot]!]
    if (codec === undefined) throw new RangeError(`no codec for lane ${this.number[slot]}`)
    return codec
  }
}

export function laneSlot(lane: number): number {
  return lane & SLOT_MASK
}
