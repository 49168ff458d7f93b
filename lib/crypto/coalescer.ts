// From single plaintexts to super-packets. The addon's coalesce.cc does the same without copying the payload a second time.

import { ADDRESS_RECORD, DATAGRAM_WORDS, Gso, OPENED, OPEN_WORDS, Open } from '../wire/batch.js'
import type { DatagramBatch, OpenBatch } from '../wire/batch.js'
import { GSO_SEGMENTS_MAX, HEADROOM, INNER_HEADER } from '../wire/constants.js'
import {
  TCP_FLAGS,
  TCP_LAST,
  TCP_SEQUENCE,
  UDP_LENGTH,
  UDP_WITH_PORTS,
  readFrameHeader,
  readU32,
  sameBytes,
  sameTcpStream,
  writeU16,
  type FrameHeader,
} from './transport-header.js'

/** Transport header and payload of a TCP super-packet at most: 64 KB less an IPv6 header, the ports, and some. */
export const TCP_COALESCED_MAX = 65_535 - 60
export const UDP_COALESCED_MAX = 65_000
/** Entries begin at multiples of this, and so do their transport headers. */
const ALIGNMENT = 4
/** What an entry may take in `data` besides its plaintext. */
export const ENTRY_OVERHEAD = HEADROOM + ALIGNMENT - 1

/** Fills one OpenBatch from the plaintexts of one DatagramBatch. */
export class Coalescer {
  readonly #out: OpenBatch
  readonly #datagrams: DatagramBatch
  readonly #header: FrameHeader = { headerLength: 0, gsoKind: Gso.none }
  /** Row of the entry under construction; negative: nothing may be added to the last one. */
  #row = -1
  #datagram = 0
  #gsoKind = 0
  #gsoSize = 0
  #headerLength = 0
  #segments = 0
  #expected = 0

  constructor(datagrams: DatagramBatch, out: OpenBatch) {
    this.#datagrams = datagrams
    this.#out = out
    out.count = 0
    out.used = 0
  }

  /** An entry that points into the datagrams: a clear frame or a failure. `size`: it stands for frames of so many bytes each. */
  reject(offset: number, length: number, lane: number, datagram: number, status: number, size = 0): void {
    this.#out.desc[this.#append(offset, length, 0, lane, datagram, status) + Open.gsoSize] = size
  }

  /** Adds an authentic plaintext, at least an inner header long; false when it is no frame. */
  add(plaintext: Uint8Array, lane: number, datagram: number): boolean {
    if (!readFrameHeader(plaintext, this.#header)) return false
    if (!this.#extend(plaintext, lane, datagram)) this.#start(plaintext, lane, datagram)
    return true
  }

  #start(plaintext: Uint8Array, lane: number, datagram: number): void {
    const out = this.#out
    const { headerLength, gsoKind } = this.#header
    const offset = Math.ceil((out.used + HEADROOM) / ALIGNMENT) * ALIGNMENT
    out.data.set(plaintext, offset)
    out.used = offset + plaintext.length
    const row = this.#append(offset, plaintext.length, headerLength, lane, datagram, OPENED)
    const last = gsoKind === Gso.tcp && (plaintext[INNER_HEADER + TCP_FLAGS]! & TCP_LAST) !== 0
    this.#row = gsoKind === Gso.none || last ? -1 : row
    this.#datagram = datagram
    this.#gsoKind = gsoKind
    this.#headerLength = headerLength
    this.#gsoSize = plaintext.length - headerLength
    this.#segments = 1
    this.#expected = readU32(plaintext, INNER_HEADER + TCP_SEQUENCE) + this.#gsoSize
  }

  #extend(plaintext: Uint8Array, lane: number, datagram: number): boolean {
    const { data, desc } = this.#out
    const row = this.#row
    if (row < 0 || this.#gsoKind !== this.#header.gsoKind || this.#headerLength !== this.#header.headerLength)
      return false
    if (desc[row + Open.lane] !== lane || !this.#sameSource(datagram)) return false
    const headerLength = this.#headerLength
    const payload = plaintext.length - headerLength
    const offset = desc[row + Open.offset]!
    const length = desc[row + Open.length]! + payload
    if (payload > this.#gsoSize) return false
    const first = data.subarray(offset, offset + headerLength)
    let last = payload < this.#gsoSize
    if (this.#gsoKind === Gso.tcp) {
      if (length - INNER_HEADER > TCP_COALESCED_MAX || !sameTcpStream(first, plaintext, headerLength)) return false
      if (readU32(plaintext, INNER_HEADER + TCP_SEQUENCE) !== this.#expected >>> 0) return false
      const flags = plaintext[INNER_HEADER + TCP_FLAGS]! & TCP_LAST
      first[INNER_HEADER + TCP_FLAGS]! |= flags
      last ||= flags !== 0
      this.#expected += payload
    } else {
      if (length - INNER_HEADER > UDP_COALESCED_MAX || this.#segments === GSO_SEGMENTS_MAX) return false
      if (!sameBytes(first, plaintext, 0, INNER_HEADER)) return false
      writeU16(first, INNER_HEADER + UDP_LENGTH, length - headerLength + UDP_WITH_PORTS)
    }
    data.set(plaintext.subarray(headerLength), this.#out.used)
    this.#out.used += payload
    this.#segments++
    desc[row + Open.length] = length
    desc[row + Open.gsoSize] = this.#gsoSize
    desc[row + Open.gsoKind] = this.#gsoKind
    if (last) this.#row = -1
    return true
  }

  /** Super-packets may span datagrams from one address with one traffic class. */
  #sameSource(datagram: number): boolean {
    const first = this.#datagram
    if (first === datagram) return true
    const { desc, addresses } = this.#datagrams
    if (desc[first * DATAGRAM_WORDS + 3] !== desc[datagram * DATAGRAM_WORDS + 3]) return false
    for (let i = 0; i < ADDRESS_RECORD; i++)
      if (addresses[first * ADDRESS_RECORD + i] !== addresses[datagram * ADDRESS_RECORD + i]) return false
    return true
  }

  #append(
    offset: number,
    length: number,
    headerLength: number,
    lane: number,
    datagram: number,
    status: number,
  ): number {
    const { desc } = this.#out
    const row = this.#out.count++ * OPEN_WORDS
    desc[row + Open.offset] = offset
    desc[row + Open.length] = length
    desc[row + Open.headerLength] = headerLength
    desc[row + Open.gsoSize] = 0
    desc[row + Open.gsoKind] = Gso.none
    desc[row + Open.lane] = lane
    desc[row + Open.datagram] = datagram
    desc[row + Open.status] = status
    return row
  }
}
