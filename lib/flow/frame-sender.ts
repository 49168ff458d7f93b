// Frames outside the fast path: built one by one, cut into pieces where the path is narrower, kept while there is no way to the peer, and handed round to
// ourselves when the other end is this same host.
import {
  ADDRESS_RECORD,
  Gso,
  PACKET_WORDS,
  packetBatch,
  sealBatch,
  type PacketBatch,
  type SealBatch,
} from '../wire/batch.js'
import {
  CLEAR_HEADER,
  HEADROOM,
  INNER_HEADER,
  Kind,
  PATH_MTU,
  Protocol,
  TAG_LENGTH,
  VNET_HEADER,
} from '../wire/constants.js'
import type { ServiceId } from '../wire/ids.js'
import { innerKind, writeInnerHeader } from '../wire/inner.js'
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
import { Vnet } from '../wire/packet.js'
import { frameRoom } from '../path/path-mtus.js'
import { SELF } from '../path/peers.js'
import type { Family } from './environment.js'
import type { FlowCore } from './flow-core.js'
import { ROW_WORDS, Row } from './flow-table.js'
import { piecesNeeded, writePiece } from './pieces.js'
import type { Segment } from './segment.js'
import { Waiting } from './waiting.js'
import { WaitingEntry, WaitingKind, type WaitingRing } from './waiting-ring.js'

/** Frames to ourselves never touch a path. */
const SELF_ROOM = 65_535 + 256
/** Any segment with the longest header of its own that a frame gives it. */
const FRAME_MAX = HEADROOM + INNER_HEADER + SELF_ROOM
const OWN_HOP_LIMIT = 64
/** What waited goes out by so many packets and bytes at a time. */
const RELEASED_PACKETS = 128
const RELEASED_BYTES = 512 * 1024
/** What sealing adds to a frame, or to a packet less its IP header; and to each further segment or piece, with the headers that are repeated in it, at most. */
const SEALED_MORE = CLEAR_HEADER + TAG_LENGTH
const SEGMENT_MORE = SEALED_MORE + 84
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
  readonly #entry = new WaitingEntry()
  /** Packets that waited, on their way out. */
  #released: { readonly packets: PacketBatch; readonly seal: SealBatch } | undefined
  /** Begins anywhere: pieces that a former process sent of a frame of the same flow may still wait for the rest. */
  #pieceId: number

  constructor(core: FlowCore) {
    this.#core = core
    this.#pieceId = core.table.newGeneration() >>> 0
    this.waiting = new Waiting(core.options, (reason, { kind, offset, length }, data) => {
      if (kind === WaitingKind.frame) core.drop(reason)
      else core.drop(reason, data.subarray(offset + VNET_HEADER, offset + length))
    })
  }

  /** Whether frames to the peer can be sent now. */
  connected(peer: number): boolean {
    const { peers } = this.#core
    return peer === SELF || (peers.sealSlot[peer]! >= 0 && peers.addressSlot[peer]! >= 0)
  }

  /** Longest plaintext of a frame that the peer's path carries, inner header included. */
  room(peer: number): number {
    return this.#room(peer, 0)
  }

  /** And of one that it is taken to carry: until that is certain, what is longer than {@link room} goes in pieces. */
  roomTaken(peer: number): number {
    return this.#room(peer, this.#core.peers.pathMtuTaken[peer]!)
  }

  #room(peer: number, least: number): number {
    if (peer === SELF) return SELF_ROOM
    const { peers } = this.#core
    const slot = peers.addressSlot[peer]!
    const family = slot >= 0 ? peers.addresses.records[slot * ADDRESS_RECORD]! : 6
    return frameRoom(Math.max(peers.pathMtu[peer]! || PATH_MTU, least), family)
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
    this.#sendNow(peer, length, 0)
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
    this.#sendNow(peer, length, 0)
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
    this.#sendNow(table.words[base + Row.peer]!, length, 0)
  }

  /** A frame whose body is given, about no flow in particular. */
  plain(peer: number, kind: Kind, body: Uint8Array): void {
    const length = this.#begin(body.length, kind, OWN, 0, 0)
    this.#bytes.set(body, BODY)
    this.#sendNow(peer, length, 0)
  }

  /** Keeps the packet of the TUN, vnet header and all, until there is a way to the peer. */
  hold(peer: number, data: Uint8Array, offset: number, length: number, now: number): void {
    const entry = this.#entry
    entry.kind = WaitingKind.packet
    entry.length = length
    entry.since = now
    entry.slot = -1
    this.#core.counters.held++
    this.waiting.add(peer, entry, data, offset)
    if (this.#core.peers.sealSlot[peer]! < 0) this.#core.env.wantSession(peer, now)
  }

  /**
   * Sends what waited for the peer, in its order: frames that are still `wanted`; packets are decided upon anew by `run`, for much may have changed meanwhile. `bytes`: of
   * datagrams that may go. Returns how many those that went are at most.
   */
  flush(
    peer: number,
    wanted: (slot: number, generation: number) => boolean,
    run: (packets: PacketBatch, seal: SealBatch) => void,
    bytes: number,
  ): number {
    if (!this.connected(peer)) return 0
    const entry = this.#entry
    const room = this.room(peer)
    let spent = 0
    // What has to wait again meanwhile does not come up again at once.
    for (let left = this.waiting.countFor(peer); left > 0;) {
      const ring = this.waiting.ring(peer)
      if (ring === undefined) break
      const { packets } = (this.#released ??= releasedBatches())
      spent += takePackets(ring, packets, Math.min(left, RELEASED_PACKETS), bytes - spent, room)
      left -= packets.count
      if (packets.count > 0) {
        this.#core.counters.heldSent += packets.count
        this.#run(run)
        continue
      }
      ring.oldest(entry)
      const { kind, length, trafficClass, slot, generation, offset } = entry
      const cost = datagramBytes(entry, ring.data, room)
      if (kind === WaitingKind.packet || spent + cost > bytes) break
      this.#bytes.set(ring.data.subarray(offset, offset + length), HEADROOM)
      ring.shift()
      left--
      if (slot >= 0 && !wanted(slot, generation)) {
        // The packet of an OPEN has gone to another candidate, or was refused.
        if (this.#carriesAnswer(length)) this.#core.drop('flow-closed')
        continue
      }
      spent += cost
      this.#core.counters.heldSent++
      this.#sendNow(peer, length, trafficClass)
    }
    this.waiting.emptied(peer)
    return spent
  }

  /** Whether the frame that was built is an ACCEPT or DATA with a packet of a program. */
  #carriesAnswer(length: number): boolean {
    const kind = innerKind(this.#bytes, HEADROOM)
    return kind === Kind.accept ? length > INNER_HEADER + ACCEPT_HEADER : kind === Kind.data
  }

  #run(run: (packets: PacketBatch, seal: SealBatch) => void): void {
    const { packets, seal } = (this.#released ??= releasedBatches())
    const { env, now } = this.#core
    seal.count = 0
    run(packets, seal)
    if (seal.count > 0) env.sendBatch(seal, now)
  }

  #sendFor(row: number, length: number, trafficClass: number, now: number): void {
    const { words } = this.#core.table
    const base = row * ROW_WORDS
    this.#send(words[base + Row.peer]!, length, trafficClass, row, words[base + Row.generation]!, now)
  }

  /** Sends the frame that was built, or keeps it until there is a session. */
  #send(peer: number, length: number, trafficClass: number, slot: number, generation: number, now: number): void {
    if (this.connected(peer)) {
      this.#sendNow(peer, length, trafficClass)
      return
    }
    this.#wait(peer, length, trafficClass, slot, generation, now)
    this.#core.env.wantSession(peer, now)
  }

  /** Keeps the frame that was built. */
  #wait(peer: number, length: number, trafficClass: number, slot: number, generation: number, now: number): void {
    const entry = this.#entry
    entry.kind = WaitingKind.frame
    entry.length = length
    entry.since = now
    entry.trafficClass = trafficClass
    entry.slot = slot
    entry.generation = generation
    this.#core.counters.held++
    this.waiting.add(peer, entry, this.#bytes, HEADROOM)
  }

  /** Sends the frame that was built, unless what goes to the peer is held. */
  #sendNow(peer: number, length: number, trafficClass: number): void {
    const bytes = this.#bytes
    const { env, counters, peers, now } = this.#core
    if (peer === SELF) {
      this.loopback.push({ bytes: this.#copy(length), gsoSize: 0, gsoKind: Gso.none })
      return
    }
    if (peers.addressSlot[peer]! < 0 && peers.sealSlot[peer]! >= 0) {
      this.#wait(peer, length, trafficClass, -1, 0, now)
      return
    }
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

function releasedBatches(): { readonly packets: PacketBatch; readonly seal: SealBatch } {
  const packets = packetBatch(RELEASED_BYTES, RELEASED_PACKETS)
  return { packets, seal: sealBatch(packets.data, RELEASED_PACKETS) }
}

/** Fills the batch with packets of the ring, up to the next frame, and so many packets and bytes of datagrams. Returns those bytes. */
function takePackets(ring: WaitingRing, packets: PacketBatch, most: number, bytes: number, room: number): number {
  const entry = new WaitingEntry()
  let spent = 0
  packets.count = 0
  packets.used = 0
  while (packets.count < most && ring.count > 0) {
    ring.oldest(entry)
    const cost = datagramBytes(entry, ring.data, room)
    if (entry.kind !== WaitingKind.packet || spent + cost > bytes) break
    if (!putPacket(packets, ring.data, entry)) break
    ring.shift()
    spent += cost
  }
  return spent
}

/** Bytes of the datagrams that it becomes, at most. `room`: longest plaintext of one. */
function datagramBytes({ kind, offset, length }: WaitingEntry, data: Uint8Array, room: number): number {
  const size = kind === WaitingKind.packet ? data[offset + Vnet.gsoSize]! | (data[offset + Vnet.gsoSize + 1]! << 8) : 0
  const segments = Math.max(size > 0 ? Math.ceil(length / size) : 1, length > room ? piecesNeeded(length, room) : 1)
  return length + SEALED_MORE + SEGMENT_MORE * (segments - 1)
}

/** One packet more, its IP header on a multiple of four; false: there is no room. */
function putPacket(batch: PacketBatch, data: Uint8Array, { offset, length }: WaitingEntry): boolean {
  const at = ((batch.used + VNET_HEADER + 3) & ~3) - VNET_HEADER
  if (at + length > batch.data.length) return false
  batch.data.set(data.subarray(offset, offset + length), at)
  batch.desc[batch.count * PACKET_WORDS] = at
  batch.desc[batch.count * PACKET_WORDS + 1] = length
  batch.count++
  batch.used = at + length
  return true
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
