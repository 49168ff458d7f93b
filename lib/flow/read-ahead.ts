// With many flows open a packet's row lies far away, and so does its place in the index: the processor would wait for the one, then for the other, and then for those of the next packet.
// So before a batch is decided upon, the places of all its packets are read, and then all their rows, each in a loop so short that many reads are on their way at a time.
// Nothing is decided here, and nothing kept.

import { Open, OPEN_WORDS, OPENED, PACKET_WORDS, type OpenBatch, type PacketBatch } from '../wire/batch.js'
import { INNER_HEADER, Kind, Protocol, VNET_HEADER } from '../wire/constants.js'
import { innerKind, innerSlot } from '../wire/inner.js'
import { ROW_WORDS, type FlowTable } from './flow-table.js'

/** So many rows stay near by themselves: a processor's own cache holds them. */
const ROWS_NEAR = 4_096
/** Packets of a batch that are read ahead for. */
const PACKETS = 128
/** An IP header without options and the ports behind it. */
const IPV4_AND_PORTS = 24
const IPV6_AND_PORTS = 44
/** Words of a line of memory. */
const LINE_WORDS = 16

export class ReadAhead {
  readonly #table: FlowTable
  readonly #slots: number
  readonly #slotMask: number
  readonly #rowMask: number
  readonly #hashes = new Int32Array(PACKETS)
  readonly #places = new Int32Array(PACKETS)
  /** Something of what was read goes here: else it would not be read. */
  readonly #read = new Int32Array(1)

  constructor(table: FlowTable) {
    const { slots, slotMask, rowMask } = table.tupleIndex
    this.#table = table
    this.#slots = slots
    this.#slotMask = slotMask
    this.#rowMask = rowMask
  }

  /** Packets of the TUN, by what their headers say. Those that are anything but plain TCP or UDP are left out. */
  packets(batch: PacketBatch): void {
    if (batch.count < 2 || this.#table.highWater < ROWS_NEAR) return
    const hashes = this.#hashes
    const places = this.#places
    const { words } = this.#table
    const slots = this.#slots
    const slotMask = this.#slotMask
    const rowMask = this.#rowMask
    const count = this.#hash(batch)
    for (let i = 0; i < count; i++) places[i] = words[slots + (hashes[i]! & slotMask)]!
    let read = 0
    for (let i = 0; i < count; i++) {
      const hash = hashes[i]!
      let place = places[i]!
      for (let slot = hash & slotMask; place !== 0 && ((place ^ hash) & ~rowMask) !== 0;) {
        slot = (slot + 1) & slotMask
        place = words[slots + slot]!
      }
      if (place !== 0) read ^= row(words, (place & rowMask) - 1)
    }
    this.#read[0]! ^= read
  }

  /** Frames that were opened, by the flow IDs in them. */
  frames(open: OpenBatch): void {
    const { words, capacity, highWater } = this.#table
    if (open.count < 2 || highWater < ROWS_NEAR) return
    const { data, view, desc } = open
    let read = 0
    for (let i = 0; i < open.count; i++) {
      const entry = i * OPEN_WORDS
      if (desc[entry + Open.status] !== OPENED || desc[entry + Open.length]! < INNER_HEADER) continue
      const at = desc[entry + Open.offset]!
      const slot = innerSlot(view, at)
      if (innerKind(data, at) === Kind.data && slot < capacity) read ^= row(words, slot)
    }
    this.#read[0]! ^= read
  }

  /** The hashes by which the packets' flows are looked up; returns how many there are. */
  #hash(batch: PacketBatch): number {
    const table = this.#table
    const hashes = this.#hashes
    const { data, view, desc } = batch
    let count = 0
    for (let i = 0; i < batch.count && count < PACKETS; i++) {
      const vnet = desc[i * PACKET_WORDS]!
      const ip = vnet + VNET_HEADER
      const end = vnet + desc[i * PACKET_WORDS + 1]!
      if (end > data.length) continue
      if (ip + IPV4_AND_PORTS <= end && data[ip] === 0x45) {
        const protocol = data[ip + 9]!
        if (protocol === Protocol.tcp || protocol === Protocol.udp)
          hashes[count++] = table.hashOf(view, ip + 16, 4, protocol, view.getInt32(ip + 20))
      } else if (ip + IPV6_AND_PORTS <= end && data[ip]! >> 4 === 6) {
        const protocol = data[ip + 6]!
        if (protocol === Protocol.tcp || protocol === Protocol.udp)
          hashes[count++] = table.hashOf(view, ip + 24, 6, protocol, view.getInt32(ip + 40))
      }
    }
    return count
  }
}

/** Something of each line of memory that the row lies in. */
function row(words: Int32Array, number: number): number {
  const base = number * ROW_WORDS
  return words[base]! ^ words[base + LINE_WORDS]! ^ words[base + 2 * LINE_WORDS]! ^ words[base + ROW_WORDS - 1]!
}
