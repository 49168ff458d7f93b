import { ADDRESS_LOCAL, ADDRESS_RECORD } from '../wire/batch.js'
import { wayKey } from './address-record.js'

/** Underlay addresses by slot, as the address records that a send run refers to. Slots are counted: one `acquire`, one `release`. */
export class AddressTable {
  /** Records of all slots; handed to the UDP socket with each send. */
  readonly records: Uint8Array
  readonly #slots = new Map<string, number>()
  readonly #keys: (string | undefined)[] = []
  readonly #uses: Uint32Array
  readonly #free: number[] = []

  /** @param records their memory, zeroed: `capacity` records */
  constructor(
    readonly capacity: number,
    records: Uint8Array = new Uint8Array(capacity * ADDRESS_RECORD),
  ) {
    if (records.length !== capacity * ADDRESS_RECORD) throw new RangeError('memory for another number of addresses')
    this.records = records
    this.#uses = new Uint32Array(capacity)
  }

  /** Slot of the record at `offset`, shared by all holders of that address; -1 when the table is full. */
  acquire(bytes: Uint8Array, offset = 0): number {
    const key = wayKey(bytes, offset)
    let slot = this.#slots.get(key)
    if (slot === undefined) {
      slot = this.#free.pop() ?? this.#keys.length
      if (slot >= this.capacity) return -1
      this.#slots.set(key, slot)
      this.#keys[slot] = key
      this.records.set(bytes.subarray(offset, offset + ADDRESS_RECORD), slot * ADDRESS_RECORD)
    }
    this.#uses[slot]!++
    return slot
  }

  release(slot: number): void {
    const key = this.#keys[slot]
    if (key === undefined || --this.#uses[slot]! > 0) return
    this.#slots.delete(key)
    this.#keys[slot] = undefined
    this.#free.push(slot)
  }

  /** A copy of the slot's record. */
  record(slot: number): Uint8Array {
    return this.records.slice(slot * ADDRESS_RECORD, (slot + 1) * ADDRESS_RECORD)
  }

  /** Whether what the record at `offset` says is where the slot's frames go: the own address counts only where the slot names one. No allocation. */
  matches(slot: number, bytes: Uint8Array, offset: number): boolean {
    const base = slot * ADDRESS_RECORD
    for (let i = 0; i < ADDRESS_LOCAL; i++) if (this.records[base + i] !== bytes[offset + i]) return false
    let pinned = 0
    let differs = 0
    for (let i = ADDRESS_LOCAL; i < ADDRESS_RECORD; i++) {
      const byte = this.records[base + i]!
      pinned |= byte
      differs |= byte ^ bytes[offset + i]!
    }
    return pinned === 0 || differs === 0
  }
}
