import type { HostId } from '../wire/ids.js'
import { AddressTable } from './address-table.js'

/** Peer index of this host itself: flows whose client and server are the same host. */
export const SELF = 0

/**
 * The hosts this one deals with, by peer index, as the data path reads them: one typed-array load from a flow's peer to where its frames go,
 * so that moving all flows of a host is one write. The session layer writes `sealSlot`, the path layer `addressSlot` and `pathMtu`.
 */
export class PeerTable {
  readonly addresses: AddressTable
  /** Codec seal slot of the current session; -1: none. */
  readonly sealSlot: Int32Array
  /** Where frames go; -1: no path. */
  readonly addressSlot: Int32Array
  /** Largest underlay packet of the current path, IP header included. */
  readonly pathMtu: Int32Array
  /** Smoothed round trip, ms; 0: unknown. */
  readonly rttMs: Float64Array
  readonly #ids: HostId[] = []
  readonly #index = new Map<HostId, number>()

  constructor(
    self: HostId,
    readonly capacity: number,
  ) {
    this.addresses = new AddressTable(capacity * 4)
    this.sealSlot = new Int32Array(capacity).fill(-1)
    this.addressSlot = new Int32Array(capacity).fill(-1)
    this.pathMtu = new Int32Array(capacity)
    this.rttMs = new Float64Array(capacity)
    this.add(self)
  }

  get size(): number {
    return this.#ids.length
  }

  /** Index of the host, given one on first sight and for good; -1 when the table is full. */
  add(host: HostId): number {
    const known = this.#index.get(host)
    if (known !== undefined) return known
    const index = this.#ids.length
    if (index >= this.capacity) return -1
    this.#ids.push(host)
    this.#index.set(host, index)
    return index
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
