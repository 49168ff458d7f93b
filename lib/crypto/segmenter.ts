// From super-packets to single frames' plaintexts, and from sealed frames to runs. The addon's segment.cc does the same.

import {
  CLEAR_HEADER,
  GSO_BYTES_MAX,
  GSO_SEGMENTS_MAX,
  INNER_HEADER,
  INNER_KIND,
  Kind,
  KindFlag,
  TAG_LENGTH,
} from '../wire/constants.js'
import { Gso, Run, RUN_WORDS, SEAL_WORDS, Seal, type FrameRuns, type SealBatch } from '../wire/batch.js'
import { CodecError, checkInteger } from './codec-error.js'
import {
  TCP_FLAGS,
  TCP_LAST,
  TCP_OPTIONS,
  TCP_SEQUENCE,
  TcpFlag,
  UDP_HEADER,
  UDP_LENGTH,
  UDP_WITH_PORTS,
  readU32,
  tcpHeaderLength,
  writeU16,
  writeU32,
} from './transport-header.js'

/** Longest header that is repeated in front of each segment. */
export const SEGMENT_HEADER_MAX = 512
const OVERHEAD = CLEAR_HEADER + TAG_LENGTH
/** The initiator's flow ID in front of the transport header of an `accept` frame. */
const ACCEPT_FLOW_ID = 8

/** One entry of a SealBatch, read out of its descriptor. */
export class SealEntry {
  #data: Uint8Array = new Uint8Array(0)
  #desc: Int32Array = new Int32Array(0)
  #row = 0
  #offset = 0
  #headerLength = 0
  #payload = 0
  #gsoSize = 0
  #gsoKind = 0
  readonly #header = new Uint8Array(SEGMENT_HEADER_MAX)
  sealSlot = 0
  addressSlot = 0
  trafficClass = 0
  /** Frames the entry becomes. */
  segments = 0
  /** Length of its largest frame, sealed. */
  frameLength = 0

  /** Reads entry `i`; throws CARACAL_E_RANGE for one that cannot be sealed into runs of `room` bytes. */
  read(batch: SealBatch, i: number, room: number): void {
    const { data, desc } = batch
    const row = i * SEAL_WORDS
    const offset = desc[row + Seal.offset]!
    const length = desc[row + Seal.length]!
    const headerLength = desc[row + Seal.headerLength]!
    const gsoSize = desc[row + Seal.gsoSize]!
    const gsoKind = desc[row + Seal.gsoKind]!
    this.sealSlot = desc[row + Seal.sealSlot]!
    this.addressSlot = desc[row + Seal.addressSlot]!
    this.trafficClass = desc[row + Seal.trafficClass]!
    if (offset < 0 || length < INNER_HEADER || offset > data.length - length) reject(i, 'lies outside the batch')
    if (headerLength < INNER_HEADER || headerLength > length) reject(i, 'has a wrong header length')
    if (gsoSize < 0 || gsoKind < Gso.none || gsoKind > Gso.udp) reject(i, 'has a wrong segment size or kind')
    if (this.sealSlot < 0 || this.sealSlot > 0xffff) reject(i, 'has a wrong seal slot')
    if (this.addressSlot < 0 || this.trafficClass < 0 || this.trafficClass > 255)
      reject(i, 'has a wrong address slot or traffic class')
    const payload = length - headerLength
    const segmented = gsoSize > 0 && payload > gsoSize
    if (segmented) checkSegmented(data, offset, headerLength, gsoKind, i)
    this.frameLength = (segmented ? headerLength + gsoSize : length) + OVERHEAD
    if (this.frameLength > Math.min(GSO_BYTES_MAX, room)) reject(i, 'has frames larger than fit into a run')
    this.segments = segmented ? Math.ceil(payload / gsoSize) : 1
    this.#data = data
    this.#desc = desc
    this.#row = row
    this.#offset = offset
    this.#headerLength = headerLength
    this.#payload = payload
    this.#gsoSize = segmented ? gsoSize : payload
    this.#gsoKind = segmented ? gsoKind : Gso.none
    if (segmented) this.#header.set(data.subarray(offset, offset + headerLength))
  }

  /** Sealed length of frame `i` of the entry. */
  sealedLength(i: number): number {
    return this.#headerLength + this.#slice(i) + OVERHEAD
  }

  /** Plaintext of frame `i`: to be asked for in order, valid until the next. Overwrites what lies in front of the payload. */
  plaintext(i: number): Uint8Array {
    const start = this.#offset + i * this.#gsoSize
    if (this.segments > 1) this.#writeHeader(start, i, i === this.segments - 1, this.#slice(i))
    return this.#data.subarray(start, start + this.#headerLength + this.#slice(i))
  }

  /** Makes the descriptor and the bytes say what is left after the first `done` frames. */
  keepRest(done: number): void {
    if (done === 0) return
    const start = this.#offset + done * this.#gsoSize
    const rest = this.#payload - done * this.#gsoSize
    this.#writeHeader(start, done, true, rest)
    this.#desc[this.#row + Seal.offset] = start
    this.#desc[this.#row + Seal.length] = this.#headerLength + rest
  }

  #slice(i: number): number {
    return i < this.segments - 1 ? this.#gsoSize : this.#payload - i * this.#gsoSize
  }

  /** Header of what begins with segment `i` and has `payload` bytes, in front of its slice: over what has been sealed already. */
  #writeHeader(start: number, i: number, last: boolean, payload: number): void {
    const data = this.#data
    const headerLength = this.#headerLength
    data.set(this.#header.subarray(0, headerLength), start)
    if (this.#gsoKind === Gso.udp) {
      writeU16(data, start + headerLength - UDP_HEADER + UDP_LENGTH, UDP_WITH_PORTS + payload)
      return
    }
    const tcp = start + transportOffset(this.#header[INNER_KIND]!)
    writeU32(data, tcp + TCP_SEQUENCE, readU32(data, tcp + TCP_SEQUENCE) + i * this.#gsoSize)
    const cleared = (last ? 0 : TCP_LAST) | (i > 0 ? TcpFlag.cwr : 0)
    data[tcp + TCP_FLAGS]! &= ~cleared
  }
}

function reject(i: number, what: string): never {
  throw new CodecError('CARACAL_E_RANGE', `seal entry ${i} ${what}`)
}

function transportOffset(kind: number): number {
  return (kind & 15) === Kind.accept ? INNER_HEADER + ACCEPT_FLOW_ID : INNER_HEADER
}

function checkSegmented(data: Uint8Array, offset: number, headerLength: number, gsoKind: number, i: number): void {
  const kind = data[offset + INNER_KIND]!
  if (gsoKind === Gso.none) reject(i, 'has a segment size but no kind')
  if ((kind & KindFlag.checksumPartial) === 0) reject(i, 'is to be segmented but has a complete checksum')
  if (headerLength > SEGMENT_HEADER_MAX) reject(i, 'has too long a header to be repeated')
  if (gsoKind === Gso.udp) {
    if (headerLength < INNER_HEADER + UDP_HEADER) reject(i, 'has no UDP header')
    return
  }
  const at = transportOffset(kind)
  if ((kind & 15) !== Kind.data && (kind & 15) !== Kind.accept) reject(i, 'is of a kind that has no TCP segments')
  if (headerLength < at + TCP_OPTIONS || at + tcpHeaderLength(data, offset + at) !== headerLength)
    reject(i, 'has a wrong TCP header length')
}

/** Appends sealed frames to runs: consecutive ones of equal size, address, traffic class and seal slot share a run, only its last may be shorter. */
export class RunWriter {
  #runs: FrameRuns
  #row = 0
  #joins = false

  constructor(runs: FrameRuns) {
    const rows = Math.floor(runs.desc.length / RUN_WORDS)
    checkInteger(runs.count, 'runs.count', 0, rows)
    checkInteger(runs.used, 'runs.used', 0, runs.data.length)
    if (rows === 0) throw new CodecError('CARACAL_E_RANGE', 'runs must have room for a run')
    this.#runs = runs
  }

  /** Where the next frame is to be written; undefined when the runs are full. */
  place(length: number, entry: SealEntry): number | undefined {
    const { data, desc, count, used } = this.#runs
    if (length > data.length - used) return undefined
    const row = (count - 1) * RUN_WORDS
    this.#joins =
      count > 0 &&
      desc[row + Run.addressSlot] === entry.addressSlot &&
      desc[row + Run.trafficClass] === entry.trafficClass &&
      desc[row + Run.sealSlot] === entry.sealSlot &&
      hasRoom(desc[row]!, desc[row + Run.length]!, desc[row + Run.stride]!, used, length)
    if (this.#joins) this.#row = row
    else if ((count + 1) * RUN_WORDS > desc.length) return undefined
    return used
  }

  /** The frame has been written where `place` said. */
  commit(length: number, entry: SealEntry): void {
    const runs = this.#runs
    if (this.#joins) runs.desc[this.#row + Run.length]! += length
    else {
      const row = runs.count++ * RUN_WORDS
      runs.desc[row] = runs.used
      runs.desc[row + Run.length] = length
      runs.desc[row + Run.stride] = length
      runs.desc[row + Run.addressSlot] = entry.addressSlot
      runs.desc[row + Run.trafficClass] = entry.trafficClass
      runs.desc[row + Run.sealSlot] = entry.sealSlot
    }
    runs.used += length
  }
}

/** Whether a frame may join the run: a run that ends with a shorter frame is closed, its length is then no multiple of the stride. */
function hasRoom(offset: number, length: number, stride: number, used: number, frame: number): boolean {
  return (
    offset >= 0 &&
    length > 0 &&
    stride > 0 &&
    offset + length === used &&
    length % stride === 0 &&
    frame <= stride &&
    length / stride < GSO_SEGMENTS_MAX &&
    length + frame <= GSO_BYTES_MAX
  )
}
