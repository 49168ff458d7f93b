import { ADDRESS_LOCAL, ADDRESS_RECORD } from '../wire/batch.js'
import { isPinned, wayKey } from './address-record.js'
import type { AddressStanding } from './remote.js'

/** An address of this host's underlay, as records have it, with whether it lasts. */
export interface OwnAddress {
  readonly family: number
  /** 16 bytes; IPv4 in the first four. */
  readonly bytes: Uint8Array
  readonly standing: AddressStanding
}

const ADDRESS = 8
/** Ways without a route that are remembered; of more, what is sent is lost as long as there is none. */
const UNROUTED_MAX = 1_024

/**
 * This host's own addresses. With one a family, paths leave the choice of it to the kernel, which costs nothing and follows changes by itself; with several, each path names its own.
 */
export class OwnAddresses {
  #all: readonly OwnAddress[] = []
  /** Families of which there was an address, and is none. */
  readonly #lost = new Set<number>()
  /** Records of ways that this host has no route for. */
  readonly #unrouted = new Map<string, Uint8Array>()

  /** Replaces them by those of the address records. */
  set(records: readonly { readonly record: Uint8Array; readonly deprecated: boolean }[]): void {
    for (const { family } of this.#all) this.#lost.add(family)
    for (const { record } of records) this.#lost.delete(record[0]!)
    this.#all = records.map(({ record, deprecated }) => ({
      family: record[0]!,
      bytes: record.slice(ADDRESS, ADDRESS_LOCAL),
      standing: deprecated ? 'deprecated' : 'usable',
    }))
  }

  /** Whether paths of the family name their own address. */
  several(family: number): boolean {
    let count = 0
    for (const own of this.#all) if (own.family === family) count++
    return count > 1
  }

  constructor(private readonly isRouted: (record: Uint8Array) => boolean = () => true) {}

  /** Whether it turns out that there is no route for the way of this record, which was any good until now. */
  misses(record: Uint8Array): boolean {
    if (this.#unrouted.size >= UNROUTED_MAX || this.standing(record) === 'gone' || this.isRouted(record)) return false
    this.#unrouted.set(wayKey(record), record.slice())
    return true
  }

  isUnrouted(record: Uint8Array, offset = 0): boolean {
    return this.#unrouted.size > 0 && this.#unrouted.has(wayKey(record, offset))
  }

  /** Routes have changed. Returns whether there is one again for a way that had none. */
  reroute(): boolean {
    const before = this.#unrouted.size
    for (const [key, record] of this.#unrouted) if (this.isRouted(record)) this.#unrouted.delete(key)
    return this.#unrouted.size < before
  }

  /**
   * Of the own address that a record names; where it names none, or none is known: 'usable' unless the last of its family is gone. Without a route none is any
   * good.
   */
  standing(record: Uint8Array, offset = 0): AddressStanding {
    if (this.#lost.has(record[offset]!)) return 'gone'
    if (this.isUnrouted(record, offset)) return 'gone'
    if (!isPinned(record, offset) || this.#all.length === 0) return 'usable'
    return this.#find(record[offset]!, record, offset + ADDRESS_LOCAL)?.standing ?? 'gone'
  }

  has(family: number, bytes: Uint8Array): boolean {
    return this.#find(family, bytes, 0) !== undefined
  }

  /** The ways to a peer's address: from each own address of its family, the one that is nearest first. At most `max`. */
  ways(remote: Uint8Array, max: number): Uint8Array[] {
    const family = remote[0]!
    const free = remote.slice(0, ADDRESS_RECORD).fill(0, ADDRESS_LOCAL)
    if (!this.several(family)) return [free]
    const address = remote.subarray(ADDRESS, ADDRESS_LOCAL)
    return this.#all
      .filter((own) => own.family === family && own.standing === 'usable')
      .map((own) => ({ own, shared: sharedBits(own.bytes, address) }))
      .sort((a, b) => b.shared - a.shared)
      .slice(0, max)
      .map(({ own }) => {
        const record = free.slice()
        record.set(own.bytes, ADDRESS_LOCAL)
        return record
      })
  }

  #find(family: number, bytes: Uint8Array, offset: number): OwnAddress | undefined {
    return this.#all.find((own) => own.family === family && own.bytes.every((byte, i) => byte === bytes[offset + i]))
  }
}

/** Bits that two addresses have in common from the front. */
function sharedBits(a: Uint8Array, b: Uint8Array): number {
  const at = a.findIndex((byte, i) => byte !== b[i])
  return at < 0 ? 8 * a.length : 8 * at + Math.clz32(a[at]! ^ b[at]!) - 24
}
