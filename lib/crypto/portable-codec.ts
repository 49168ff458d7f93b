import { CLEAR_HEADER, FrameType, INNER_HEADER, PROTOCOL_VERSION, TAG_LENGTH } from '../wire/constants.js'
import {
  ADDRESS_RECORD,
  CLEAR,
  DATAGRAM_WORDS,
  OPEN_ENTRIES,
  OPEN_WORDS,
  SEAL_WORDS,
  SEGMENTS_READ_MAX,
} from '../wire/batch.js'
import type { DatagramBatch, FrameRuns, OpenBatch, SealBatch } from '../wire/batch.js'
import { dropNumber, type DropReason } from '../wire/drop.js'
import { Coalescer, ENTRY_OVERHEAD } from './coalescer.js'
import { CodecError, checkInteger } from './codec-error.js'
import type { AeadName, FrameCodec } from './codec.js'
import type { Primitives } from './primitives.js'
import { ReplayWindow } from './replay.js'
import { RunWriter, SealEntry } from './segmenter.js'

/** An AEAD with 32-byte key, 12-byte nonce and 16-byte tag, appended. Byte arrays in, fresh byte arrays out. */
export interface PortableAead {
  seal(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Uint8Array
  /** undefined when the tag is wrong. */
  open(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, ciphertext: Uint8Array): Uint8Array | undefined
}

/** The one AEAD that every host offers, over the primitives. */
export function portableAeads(primitives: Primitives): ReadonlyMap<AeadName, PortableAead> {
  return new Map([['chacha20-poly1305', { seal: primitives.chachaSeal, open: primitives.chachaOpen }]])
}

const KEY_LENGTH = 32
const NONCE_COUNTER = 4
const HEADER_LANE = 4
const HEADER_COUNTER = 8
const FRAME_MIN = CLEAR_HEADER + INNER_HEADER + TAG_LENGTH
/** Above this a counter is no exact number; no honest sender comes near. */
const COUNTER_HIGH_MAX = 2 ** 21

interface SealLane {
  readonly aead: PortableAead
  readonly key: Uint8Array
  readonly header: Uint8Array
  counter: number
}
interface OpenLane {
  readonly lane: number
  readonly aead: PortableAead
  readonly key: Uint8Array
  readonly window: ReplayWindow
}

/** The frame codec in plain TypeScript: for the simulator, for tests, and as the yardstick of the native one. */
export class PortableCodec implements FrameCodec {
  readonly aeads: readonly AeadName[]
  skipped = 0
  readonly #aeads: ReadonlyMap<AeadName, PortableAead>
  readonly #sealLanes = new Map<number, SealLane>()
  readonly #openLanes = new Map<number, OpenLane>()
  readonly #entry = new SealEntry()
  readonly #nonce = new Uint8Array(12)

  /** @param aeads what the codec offers, best first */
  constructor(aeads: ReadonlyMap<AeadName, PortableAead>) {
    this.#aeads = new Map(aeads)
    this.aeads = [...aeads.keys()]
  }

  installSeal(slot: number, aead: AeadName, key: Uint8Array, receiverLane: number): void {
    checkInteger(slot, 'slot', 0, 0xffff)
    checkInteger(receiverLane, 'receiverLane', 0, 0xffffffff)
    const header = new Uint8Array(CLEAR_HEADER)
    header[0] = FrameType.transport
    header[1] = PROTOCOL_VERSION
    new DataView(header.buffer).setUint32(HEADER_LANE, receiverLane, true)
    const lane = { aead: this.#aead(aead), key: copyKey(key), header, counter: 0 }
    this.removeSeal(slot)
    this.#sealLanes.set(slot, lane)
  }

  removeSeal(slot: number): void {
    checkInteger(slot, 'slot', 0, 0xffff)
    this.#sealLanes.get(slot)?.key.fill(0)
    this.#sealLanes.delete(slot)
  }

  sealed(slot: number): number {
    checkInteger(slot, 'slot', 0, 0xffff)
    return this.#sealLanes.get(slot)?.counter ?? 0
  }

  installOpen(lane: number, aead: AeadName, key: Uint8Array): void {
    checkInteger(lane, 'lane', 0, 0xffffffff)
    const installed = { lane, aead: this.#aead(aead), key: copyKey(key), window: new ReplayWindow() }
    this.#openLanes.get(lane & 0xffff)?.key.fill(0)
    this.#openLanes.set(lane & 0xffff, installed)
  }

  /** Does nothing when the row has another lane by now. */
  removeOpen(lane: number): void {
    checkInteger(lane, 'lane', 0, 0xffffffff)
    const installed = this.#openLanes.get(lane & 0xffff)
    if (installed?.lane !== lane) return
    installed.key.fill(0)
    this.#openLanes.delete(lane & 0xffff)
  }

  /** An entry that only half fits is shortened to what is left of it. Throws CARACAL_E_RANGE for any descriptor out of range, before it touches anything. */
  seal(batch: SealBatch, from: number, runs: FrameRuns): number {
    checkInteger(batch.count, 'batch.count', 0, Math.floor(batch.desc.length / SEAL_WORDS))
    checkInteger(from, 'from', 0, batch.count)
    checkApart(batch.data, runs.data)
    const writer = new RunWriter(runs)
    const entry = this.#entry
    for (let i = from; i < batch.count; i++) entry.read(batch, i, runs.data.length)
    this.skipped = 0
    for (let i = from; i < batch.count; i++) {
      entry.read(batch, i, runs.data.length)
      const lane = this.#sealLanes.get(entry.sealSlot)
      if (lane === undefined) {
        this.skipped++
        continue
      }
      for (let segment = 0; segment < entry.segments; segment++) {
        const length = entry.sealedLength(segment)
        const place = writer.place(length, entry)
        if (place === undefined) {
          entry.keepRest(segment)
          return i
        }
        this.#sealFrame(lane, entry.plaintext(segment), runs.data, place)
        writer.commit(length, entry)
      }
    }
    return batch.count
  }

  /** Throws CARACAL_E_RANGE for a descriptor out of range or an `out` without room for every entry, before it touches anything. */
  open(datagrams: DatagramBatch, out: OpenBatch): void {
    checkDatagrams(datagrams, out)
    const { data, desc, count } = datagrams
    const coalescer = new Coalescer(datagrams, out)
    for (let datagram = 0; datagram < count; datagram++) {
      const row = datagram * DATAGRAM_WORDS
      const end = desc[row]! + desc[row + 1]!
      const stride = segmentSize(desc, row)
      let offset = desc[row]!
      let segment = 0
      do {
        if (segment++ === SEGMENTS_READ_MAX) {
          coalescer.reject(offset, end - offset, 0, datagram, -(dropNumber('bad-frame') + 1), stride)
          break
        }
        const length = Math.min(stride, end - offset)
        const frame = data.subarray(offset, offset + length)
        const lane = length >= HEADER_COUNTER && frame[0] === FrameType.transport ? readLane(frame) : 0
        const result = this.#openFrame(frame, lane)
        if (result === 'clear') coalescer.reject(offset, length, 0, datagram, CLEAR)
        else if (typeof result === 'string')
          coalescer.reject(offset, length, lane | 0, datagram, -(dropNumber(result) + 1))
        else if (!coalescer.add(result, lane | 0, datagram))
          coalescer.reject(offset, length, lane | 0, datagram, -(dropNumber('bad-frame') + 1))
        offset += stride
      } while (offset < end)
    }
  }

  #openFrame(frame: Uint8Array, lane: number): Uint8Array | 'clear' | DropReason {
    if (frame.length < 2) return 'truncated'
    const type = frame[0]!
    if (type < FrameType.init || type > FrameType.relay) return 'bad-type'
    if (type !== FrameType.transport) return 'clear'
    if (frame[1] !== PROTOCOL_VERSION) return 'bad-version'
    if (frame.length < FRAME_MIN) return 'truncated'
    const installed = this.#openLanes.get(lane & 0xffff)
    if (installed?.lane !== lane) return 'unknown-lane'
    const header = frame.subarray(0, CLEAR_HEADER)
    this.#nonce.set(header.subarray(HEADER_COUNTER), NONCE_COUNTER)
    const plaintext = installed.aead.open(installed.key, this.#nonce, header, frame.subarray(CLEAR_HEADER))
    if (plaintext === undefined) return 'bad-tag'
    const view = new DataView(frame.buffer, frame.byteOffset + HEADER_COUNTER, 8)
    const high = view.getUint32(4, true)
    if (high >= COUNTER_HIGH_MAX) return 'bad-frame'
    return installed.window.accept(high * 2 ** 32 + view.getUint32(0, true)) ? plaintext : 'replayed'
  }

  #sealFrame(lane: SealLane, plaintext: Uint8Array, out: Uint8Array, offset: number): void {
    const view = new DataView(lane.header.buffer)
    view.setUint32(HEADER_COUNTER, lane.counter >>> 0, true)
    view.setUint32(HEADER_COUNTER + 4, Math.floor(lane.counter / 2 ** 32), true)
    lane.counter++
    this.#nonce.set(lane.header.subarray(HEADER_COUNTER), NONCE_COUNTER)
    out.set(lane.header, offset)
    out.set(lane.aead.seal(lane.key, this.#nonce, lane.header, plaintext), offset + CLEAR_HEADER)
  }

  #aead(name: AeadName): PortableAead {
    const aead = this.#aeads.get(name)
    if (aead === undefined) throw new CodecError('CARACAL_E_AEAD', `this codec does not offer ${name}`)
    return aead
  }
}

function copyKey(key: Uint8Array): Uint8Array {
  if (key.length !== KEY_LENGTH) throw new CodecError('CARACAL_E_RANGE', `key must have ${KEY_LENGTH} bytes`)
  return key.slice()
}

function readLane(frame: Uint8Array): number {
  return new DataView(frame.buffer, frame.byteOffset + HEADER_LANE, 4).getUint32(0, true)
}

/** Bytes from one frame of the datagram to the next. */
function segmentSize(desc: Int32Array, row: number): number {
  const length = desc[row + 1]!
  const size = desc[row + 2]!
  return size === 0 || size > length ? length : size
}

function checkApart(a: Uint8Array, b: Uint8Array): void {
  const overlap =
    a.buffer === b.buffer && a.byteOffset < b.byteOffset + b.length && b.byteOffset < a.byteOffset + a.length
  if (overlap) throw new CodecError('CARACAL_E_ARGUMENT', 'input and output must not overlap')
}

function checkDatagrams(datagrams: DatagramBatch, out: OpenBatch): void {
  const { data, desc, addresses, count } = datagrams
  const rows = Math.min(Math.floor(desc.length / DATAGRAM_WORDS), Math.floor(addresses.length / ADDRESS_RECORD))
  checkInteger(count, 'datagrams.count', 0, rows)
  checkApart(data, out.data)
  let entries = 0
  let bytes = 0
  for (let datagram = 0; datagram < count; datagram++) {
    const row = datagram * DATAGRAM_WORDS
    const offset = desc[row]!
    const length = desc[row + 1]!
    if (offset < 0 || length < 0 || offset > data.length - length || desc[row + 2]! < 0)
      throw new CodecError('CARACAL_E_RANGE', `datagram ${datagram} lies outside the batch`)
    entries += length === 0 ? 1 : Math.min(Math.ceil(length / segmentSize(desc, row)), OPEN_ENTRIES)
    bytes += length
  }
  if (entries * OPEN_WORDS > out.desc.length || bytes + entries * ENTRY_OVERHEAD > out.data.length)
    throw new CodecError('CARACAL_E_RANGE', 'out must have room for every entry')
}
