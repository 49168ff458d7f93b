// Frames outside the fast path: built one by one, cut into pieces where the path is narrower, kept while there is no session, and handed round to
// ourselves when the other end is this same host.
import { ADDRESS_RECORD, Gso } from '../wire/batch.js'
import { HEADROOM, INNER_HEADER, Kind, PATH_MTU, Protocol } from '../wire/constants.js'
import type { ServiceId } from '../wire/ids.js'
import { writeInnerHeader } from '../wire/inner.js'
import {
  ACCEPT_HEADER,
  CLOSE_HEADER,
  CloseFrame,
  ICMP_ERROR_HEADER,
  ICMP_QUOTE_MAX,
  NOT_HERE_HEADER,
  NotHereCode,
  NotHereFrame,
  OPEN_HEADER,
  OpenFrame,
  writeAccept,
  writeClose,
  writeIcmpErrorFrame,
  writeNotHere,
  writeOpen,
  type CloseCode,
  type IcmpErrorFrame,
} from '../wire/open.js'
import { frameRoom } from '../path/path-mtus.js'
import { SELF } from '../path/peers.js'
import type { Family } from './environment.js'
import type { FlowCore } from './flow-core.js'
import { ROW_WORDS, Row } from './flow-table.js'
import { piecesNeeded, writePiece } from './pieces.js'
import type { Segment } from './segment.js'
import { Waiting } from './waiting.js'

/** Frames to ourselves never touch a path. */
const SELF_ROOM = 65_535 + 256
/** Any segment with the longest header of its own that a frame gives it. */
const FRAME_MAX = HEADROOM + INNER_HEADER + SELF_ROOM
const OWN_HOP_LIMIT = 64
/** Where what follows the inner header begins in a frame that is being built. */
const BODY = HEADROOM + INNER_HEADER

/** A frame to this host itself. Owned by the queue. */
export interface LoopbackFrame {
  /** HEADROOM, then the frame. */
  readonly bytes: Uint8Array
  /** As in an OpenBatch. */
  readonly gsoSize: number
  readonly gsoKind: number
}

/** What an OPEN says besides the first packet. */
export interface OpenDetails {
  readonly slot: number
  readonly generation: number
  readonly service: ServiceId | undefined
  readonly family: Family
  readonly attempt: number
  readonly flags: number
  readonly clientPort: number
  readonly dialledPort: number
}

export class FrameSender {
  readonly waiting: Waiting
  /** Frames to this host itself; taken out by the engine. */
  readonly loopback: LoopbackFrame[] = []
  readonly #core: FlowCore
  /** The frame that is being built, HEADROOM in front of it. Free again when it is sent: whoever keeps it takes a copy. */
  readonly #bytes = new Uint8Array(FRAME_MAX)
  readonly #view = viewOf(this.#bytes)
  readonly #open = new OpenFrame()
  #pieceId = 0

  constructor(core: FlowCore) {
    this.#core = core
    this.waiting = new Waiting(core.options, (reason) => core.drop(reason))
  }

  /** Whether frames to the peer can be sent now. */
  connected(peer: number): boolean {
    const { peers } = this.#core
    return peer === SELF || (peers.sealSlot[peer]! >= 0 && peers.addressSlot[peer]! >= 0)
  }

  /** Longest plaintext of a frame that the peer's path carries, inner header included. */
  room(peer: number): number {
    if (peer === SELF) return SELF_ROOM
    const { peers } = this.#core
    const slot = peers.addressSlot[peer]!
    const family = slot >= 0 ? peers.addresses.records[slot * ADDRESS_RECORD]! : 6
    return frameRoom(peers.pathMtu[peer]! || PATH_MTU, family)
  }

  open(peer: number, details: OpenDetails, segment: Segment, now: number): void {
    const frame = this.#open
    frame.slot = details.slot
    frame.generation = details.generation >>> 0
    const { services } = this.#core
    frame.service = services.bytes(services.number(details.service))
    frame.family = details.family
    frame.attempt = details.attempt
    frame.flags = details.flags
    frame.clientPort = details.clientPort
    frame.dialledPort = details.dialledPort
    const length = this.#begin(OPEN_HEADER + segment.bytes.length, Kind.open | segment.checksum, segment, 0, 0)
    writeOpen(this.#bytes, this.#view, BODY, frame)
    this.#bytes.set(segment.bytes, BODY + OPEN_HEADER)
    this.#send(peer, length, segment.trafficClass, details.slot, details.generation, now)
  }

  /** The acceptor's packet, or nothing, with its flow ID. */
  accept(row: number, segment: Segment | undefined, now: number): void {
    const { table } = this.#core
    const base = row * ROW_WORDS
    const inner = segment ?? { trafficClass: 0, hopLimit: OWN_HOP_LIMIT, protocol: table.protocol(row) }
    const length = this.#begin(
      ACCEPT_HEADER + (segment?.bytes.length ?? 0),
      Kind.accept | (segment?.checksum ?? 0),
      inner,
      table.words[base + Row.remoteSlot]!,
      table.words[base + Row.remoteGeneration]!,
    )
    writeAccept(this.#view, BODY, row, table.words[base + Row.generation]!)
    if (segment !== undefined) this.#bytes.set(segment.bytes, BODY + ACCEPT_HEADER)
    this.#sendFor(row, length, inner.trafficClass, now)
  }

  /** A packet of an established flow. */
  data(row: number, segment: Segment, now: number): void {
    this.#sendFor(row, this.#data(row, segment), segment.trafficClass, now)
  }

  /** As {@link data} to this same host; `gsoSize`: payload bytes of a segment of a super-packet, else 0. */
  dataToSelf(row: number, segment: Segment, gsoSize: number): void {
    const gsoKind = gsoSize === 0 ? Gso.none : segment.protocol === Protocol.tcp ? Gso.tcp : Gso.udp
    this.loopback.push({ bytes: this.#copy(this.#data(row, segment)), gsoSize, gsoKind })
  }

  #data(row: number, segment: Segment): number {
    const { words } = this.#core.table
    const base = row * ROW_WORDS
    const slot = words[base + Row.remoteSlot]!
    const generation = words[base + Row.remoteGeneration]!
    const length = this.#begin(segment.bytes.length, Kind.data | segment.checksum, segment, slot, generation)
    this.#bytes.set(segment.bytes, BODY)
    return length
  }

  /** Answer to an OPEN, named by the initiator's flow ID. */
  refuse(peer: number, slot: number, generation: number, attempt: number, code: NotHereCode, hint?: Uint8Array): void {
    const frame = new NotHereFrame()
    frame.code = code
    frame.attempt = attempt
    if (hint !== undefined) {
      frame.hint = hint
      frame.hintLength = hint.length
    }
    this.#notHere(peer, slot, generation, frame)
  }

  /** Answer to what was addressed to a flow ID that is not ours, unless there were too many of late. */
  unknown(peer: number, slot: number, generation: number, now: number): void {
    const { answers, env } = this.#core
    if (generation === 0 || !answers.take(now)) return
    const frame = new NotHereFrame()
    frame.slot = slot
    frame.generation = generation
    frame.code = env.loading(now) ? NotHereCode.loading : NotHereCode.gone
    this.#notHere(peer, 0, 0, frame)
  }

  #notHere(peer: number, slot: number, generation: number, frame: NotHereFrame): void {
    const length = this.#begin(NOT_HERE_HEADER + frame.hintLength, Kind.notHere, OWN, slot, generation)
    writeNotHere(this.#bytes, this.#view, BODY, frame)
    this.#core.counters.notHereSent++
    this.#sendNow(peer, this.#bytes, length, 0)
  }

  /** Ends a flow at the other end. `slot`, `generation`: our flow ID; `remote…`: the other end's, 0 while not known. */
  close(
    peer: number,
    slot: number,
    generation: number,
    remoteSlot: number,
    remoteGeneration: number,
    code: CloseCode,
  ): void {
    const frame = new CloseFrame()
    frame.slot = slot
    frame.generation = generation >>> 0
    frame.code = code
    const length = this.#begin(CLOSE_HEADER, Kind.close, OWN, remoteSlot, remoteGeneration)
    writeClose(this.#bytes, this.#view, BODY, frame)
    this.#sendNow(peer, this.#bytes, length, 0)
  }

  /** {@link close} of a flow in the table. */
  closeFlow(row: number, code: CloseCode): void {
    const { words } = this.#core.table
    const b = row * ROW_WORDS
    this.close(
      words[b + Row.peer]!,
      row,
      words[b + Row.generation]!,
      words[b + Row.remoteSlot]!,
      words[b + Row.remoteGeneration]!,
      code,
    )
  }

  icmpError(row: number, frame: IcmpErrorFrame): void {
    const { table } = this.#core
    const base = row * ROW_WORDS
    const inner = { trafficClass: 0, hopLimit: OWN_HOP_LIMIT, protocol: table.protocol(row) }
    const length = this.#begin(
      ICMP_ERROR_HEADER + Math.min(frame.quoteLength, ICMP_QUOTE_MAX),
      Kind.icmpError,
      inner,
      table.words[base + Row.remoteSlot]!,
      table.words[base + Row.remoteGeneration]!,
    )
    writeIcmpErrorFrame(this.#bytes, this.#view, BODY, frame)
    this.#sendNow(table.words[base + Row.peer]!, this.#bytes, length, 0)
  }

  /** A frame whose body is given, about no flow in particular. */
  plain(peer: number, kind: Kind, body: Uint8Array): void {
    const length = this.#begin(body.length, kind, OWN, 0, 0)
    this.#bytes.set(body, BODY)
    this.#sendNow(peer, this.#bytes, length, 0)
  }

  /** Sends what waited for the peer and is still `wanted`. */
  flush(peer: number, wanted: (slot: number, generation: number) => boolean): void {
    if (!this.connected(peer)) return
    for (const frame of this.waiting.take(peer)) {
      if (!wanted(frame.slot, frame.generation)) continue
      this.#sendNow(peer, frame.bytes, frame.bytes.length - HEADROOM, frame.trafficClass)
    }
  }

  #sendFor(row: number, length: number, trafficClass: number, now: number): void {
    const { words } = this.#core.table
    const base = row * ROW_WORDS
    this.#send(words[base + Row.peer]!, length, trafficClass, row, words[base + Row.generation]!, now)
  }

  /** Sends the frame that was built, or keeps it until there is a session. */
  #send(peer: number, length: number, trafficClass: number, slot: number, generation: number, now: number): void {
    if (this.connected(peer)) {
      this.#sendNow(peer, this.#bytes, length, trafficClass)
      return
    }
    this.waiting.add(peer, { bytes: this.#copy(length), trafficClass, slot, generation, since: now })
    this.#core.env.wantSession(peer, now)
  }

  /** `bytes` has HEADROOM in front, and `length` bytes behind it. They are the caller's again afterwards. */
  #sendNow(peer: number, bytes: Uint8Array, length: number, trafficClass: number): void {
    if (peer === SELF) {
      this.loopback.push({ bytes: bytes.slice(0, HEADROOM + length), gsoSize: 0, gsoKind: Gso.none })
      return
    }
    const { env, counters } = this.#core
    const room = this.room(peer)
    if (length <= room) {
      env.sendFrame(peer, bytes.subarray(HEADROOM, HEADROOM + length), trafficClass)
      return
    }
    const pieces = piecesNeeded(length, room)
    if (pieces === 0) this.#core.drop('too-big')
    const id = this.#pieceId
    this.#pieceId = (id + 1) >>> 0
    const out = new Uint8Array(room)
    const view = viewOf(out)
    for (let i = 0; i < pieces; i++) {
      const used = writePiece(bytes, HEADROOM, length, i, id, room, out, view, 0)
      env.sendFrame(peer, out.subarray(0, used), trafficClass)
      counters.piecesOut++
    }
  }

  /** Begins a frame whose body, from BODY on, has `length` bytes. Returns the frame's own length. */
  #begin(length: number, kind: number, inner: InnerFields, slot: number, generation: number): number {
    const { trafficClass, hopLimit, protocol } = inner
    writeInnerHeader(this.#view, HEADROOM, slot, generation, kind, trafficClass, hopLimit, protocol)
    return INNER_HEADER + length
  }

  #copy(length: number): Uint8Array {
    return this.#bytes.slice(0, HEADROOM + length)
  }
}

interface InnerFields {
  readonly trafficClass: number
  readonly hopLimit: number
  readonly protocol: number
}

/** Of frames that carry no packet. */
const OWN: InnerFields = { trafficClass: 0, hopLimit: OWN_HOP_LIMIT, protocol: 0 }

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
