import type { HostId } from '../wire/ids.js'
import { ADDRESS_RECORD } from '../wire/batch.js'
import { AddressTable } from './address-table.js'

/** Peer index of this host itself: flows whose client and server are the same host. */
export const SELF = 0
/** Addresses that are known at a time, for each peer there may be. */
const ADDRESSES_A_PEER = 6

/** Why frames of a peer's flows are to wait, although there is a path: bits. */
export const Hold = {
  /** The way is known not to work, and there is no other one. */
  noWay: 1,
  /** The peer has asked for it: it is being restarted. */
  paused: 2,
  /** The peer sends from elsewhere and no more from where frames to it go, which is being proven. */
  courted: 4,
} as const
export type Hold = (typeof Hold)[keyof typeof Hold]

/**
 * The hosts this one deals with, by peer index, as the data path reads them: one typed-array load from a flow's peer to where its frames go,
 * so that moving all flows of a host is one write. The session layer writes `sealSlot`, the path layer the path and `pathMtu`.
 */
export class PeerTable {
  readonly addresses: AddressTable
  /** Codec seal slot of the current session; -1: none. */
  readonly sealSlot: Int32Array
  /** Where frames of flows go; -1: no path, or they are to wait. */
  readonly addressSlot: Int32Array
  /** The path in use, by which the host's own frames go also while those of flows wait; -1: none. */
  readonly pathSlot: Int32Array
  /** Largest underlay packet that is to go by the path in use, IP header included; and what that is taken to carry, which is more only as long as it is being found out. */
  readonly pathMtu: Int32Array
  readonly pathMtuTaken: Int32Array
  /** Smoothed round trip, ms; 0: unknown. */
  readonly rttMs: Float64Array
  /** Shortest of the path's last round trips, ms: how far the peer is; 0: unknown. */
  readonly leastRttMs: Float64Array
  /** When the peer was last heard by the path in use, ms. */
  readonly heardAt: Float64Array
  /** Whose sessions the codec's seal slots are or were last; -1: nobody's yet. */
  readonly sealPeer = new Int32Array(65_536).fill(-1)
  /** Of a peer's lane above the first, at {@link laneAt}: codec seal slot in the current session; -1: none. The session layer writes it. */
  readonly laneSealSlot: Int32Array
  /** Where the lane's frames go; -1: it is not proven to work. */
  readonly laneAddressSlot: Int32Array
  /** 1: something has gone out on the lane since the path layer looked. */
  readonly laneUsed: Uint8Array
  /** Hold bits by peer. */
  readonly #held: Uint8Array
  readonly #ids: (HostId | undefined)[] = []
  /** Indexes below `size` that nobody has. */
  readonly #gaps: number[] = []
  readonly #index = new Map<HostId, number>()

  constructor(
    self: HostId,
    readonly capacity: number,
    /** Lanes that this host has. */
    readonly lanes = 1,
    /** Memory of the address records, for a host whose lanes are other threads'. Zeroed. */
    records?: Uint8Array<ArrayBufferLike>,
  ) {
    this.addresses = new AddressTable(capacity * ADDRESSES_A_PEER, records)
    this.laneSealSlot = new Int32Array(capacity * (lanes - 1)).fill(-1)
    this.laneAddressSlot = new Int32Array(capacity * (lanes - 1)).fill(-1)
    this.laneUsed = new Uint8Array(capacity * (lanes - 1))
    this.sealSlot = new Int32Array(capacity).fill(-1)
    this.addressSlot = new Int32Array(capacity).fill(-1)
    this.pathSlot = new Int32Array(capacity).fill(-1)
    this.#held = new Uint8Array(capacity)
    this.pathMtu = new Int32Array(capacity)
    this.pathMtuTaken = new Int32Array(capacity)
    this.rttMs = new Float64Array(capacity)
    this.leastRttMs = new Float64Array(capacity)
    this.heardAt = new Float64Array(capacity).fill(-Infinity)
    this.add(self)
  }

  /** Bytes of the address records of so many peers. */
  static recordBytes(capacity: number): number {
    return capacity * ADDRESSES_A_PEER * ADDRESS_RECORD
  }

  /** The peer's path is this one from now on; -1: none. */
  setPath(peer: number, slot: number): void {
    this.pathSlot[peer] = slot
    this.addressSlot[peer] = this.#held[peer] === 0 ? slot : -1
  }

  /** Frames of the peer's flows wait for this reason from now on, or for these (Hold bits) no more. Returns whether they go now and did not before. */
  hold(peer: number, why: number, on: boolean): boolean {
    const before = this.#held[peer]!
    const held = on ? before | why : before & ~why
    this.#held[peer] = held
    this.addressSlot[peer] = held === 0 ? this.pathSlot[peer]! : -1
    return before !== 0 && held === 0
  }

  /** What is known of the path in use. */
  measured(peer: number, rttMs: number, leastRttMs: number): void {
    this.rttMs[peer] = rttMs
    this.leastRttMs[peer] = leastRttMs
  }

  /** Frames of a peer's flows that wait may go to this address slot for now; -1: no more. */
  lend(peer: number, slot: number): void {
    if (this.#held[peer] !== 0) this.addressSlot[peer] = slot
  }

  /** Whether frames of the peer's flows are to wait for this reason. */
  isHeld(peer: number, why: number): boolean {
    return (this.#held[peer]! & why) !== 0
  }

  /** Position of a lane above the first in {@link laneSealSlot} and {@link laneAddressSlot}. */
  laneAt(peer: number, lane: number): number {
    return peer * (this.lanes - 1) + lane - 1
  }

  /** As {@link laneAt}, for a lane that frames can go by, which is noted as used; -1: they cannot. */
  useLane(peer: number, lane: number): number {
    const at = this.laneAt(peer, lane)
    if (this.laneAddressSlot[at]! < 0 || this.laneSealSlot[at]! < 0) return -1
    this.laneUsed[at] = 1
    return at
  }

  /** Indexes from 0 that may be somebody's. */
  get size(): number {
    return this.#ids.length
  }

  /** Whether the index is somebody's. */
  has(index: number): boolean {
    return this.#ids[index] !== undefined
  }

  /** Index of the host, given one on first sight and for good; -1 when the table is full. */
  add(host: HostId): number {
    const known = this.#index.get(host)
    if (known !== undefined) return known
    const index = this.#gaps.pop() ?? this.#ids.length
    if (index >= this.capacity) return -1
    this.#ids[index] = host
    this.#index.set(host, index)
    return index
  }

  /** Gives the host the index that it had in a former process; in ascending order, before there are others. False: that cannot be. */
  restore(index: number, host: HostId): boolean {
    if (this.#ids[index] === host) return true
    if (index < this.#ids.length || index >= this.capacity || this.#index.has(host)) return false
    for (let gap = this.#ids.length; gap < index; gap++) {
      this.#ids.push(undefined)
      this.#gaps.push(gap)
    }
    this.#ids.push(host)
    this.#index.set(host, index)
    return true
  }

  /** Index of a known host, or -1. */
  indexOf(host: HostId): number {
    return this.#index.get(host) ?? -1
  }

  hostId(index: number): HostId {
    const id = this.#ids[index]
    if (id === undefined) throw new RangeError(`no peer ${index}`)
    return id
  }
}
