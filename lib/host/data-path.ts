import type { FrameCodec } from '../crypto/codec.js'
import type { PeerTable } from '../path/peers.js'
import {
  ADDRESS_RECORD,
  DATAGRAM_WORDS,
  datagramBatch,
  frameRuns,
  Gso,
  OPEN_BYTES,
  OPEN_ENTRIES,
  openBatch,
  packetBatch,
  PACKET_WORDS,
  Run,
  RUN_WORDS,
  Seal,
  SEAL_WORDS,
  sealBatch,
  type DatagramBatch,
  type FrameRuns,
  type OpenBatch,
  type PacketBatch,
  type SealBatch,
} from '../wire/batch.js'
import { VNET_HEADER } from '../wire/constants.js'
import type { DropReason } from '../wire/drop.js'
import { RECENT_RING } from '../wire/recent-ring.js'
import type { LaneInward, LaneOutward } from './lane-buffers.js'
import { Replay } from './replay.js'

/** The two devices as the host drives them. Nothing is kept: batches are reused as soon as a call returns. */
export interface HostIo {
  /** Packets to the own kernel. */
  writeTun(batch: PacketBatch): void
  /** Frames to the underlay, from the socket of this lane; address slots refer to `addresses` (AddressTable.records). */
  sendFrames(runs: FrameRuns, addresses: Uint8Array, lane: number): void
}

/** What decides about packets and frames: the flow engine, and the host around it. What it throws costs what it has decided of that batch. */
export interface DataPathDecisions {
  fromTun(batch: PacketBatch, seal: SealBatch, now: number): void
  fromPeers(open: OpenBatch, datagrams: DatagramBatch, tunOut: PacketBatch, now: number): void
  /** So many packets or frames are lost. Counts them. */
  lost(reason: DropReason, n: number): void
}

/** Sees traffic while a dump is open; see lib/host/traffic-tap.ts. Batches are only lent for the call. */
export interface DataPathTap {
  /** Packets from the own kernel, before anything is decided about them. */
  tunRead(batch: PacketBatch): void
  /** Packets about to be written to the own kernel. */
  tunWrite(batch: PacketBatch): void
  /** Before an entry is sealed, and the runs it became. */
  sealing(batch: SealBatch, entry: number): void
  sealed(runs: FrameRuns): void
  /** A datagram about to be sent in the clear, as one run. */
  clear(runs: FrameRuns): void
  /** One datagram of one frame, and what the codec made of it; nothing is decided about it yet. */
  opened(datagrams: DatagramBatch, open: OpenBatch): void
  /** Everything seen so far has been decided upon; also at the end of every input to the host. */
  settle(now: number): void
}

const TUN_READ_BYTES = 512 * 1024
const TUN_READ_PACKETS = 128
const DATAGRAMS = 8
const RUN_BYTES = 1024 * 1024
const RUNS = 512
const SCRATCH_BYTES = 512 * 1024
const SCRATCH_ENTRIES = 1024
const LANE_FRAME_BYTES = 256

/**
 * Owner of all packet buffers. Outward: `tunIn` is filled by the device, decided upon in place, sealed into `runs`, sent. Inward: `wireIn` is filled by the
 * device, opened into `#open`, decided upon in place, written. Frames and packets made outside the fast path are copied into the scratch batches. What was decided first
 * leaves first, whichever way it takes.
 */
export class DataPath {
  readonly tunIn = packetBatch(TUN_READ_BYTES, TUN_READ_PACKETS)
  readonly wireIn = datagramBatch(DATAGRAMS)
  tap: DataPathTap | undefined
  /** Packets read from and written to the TUN; a super-packet is one. */
  tunPacketsIn = 0
  tunPacketsOut = 0
  framesOut = 0
  /** Of them those that are not a packet of the TUN on the fast path: handshakes, probes, control messages, first packets, pieces. */
  singleFramesOut = 0
  framesIn = 0
  bytesOut = 0
  datagramsIn = 0
  bytesIn = 0
  readonly #tunSeal = sealBatch(this.tunIn.data, TUN_READ_PACKETS)
  readonly #open = openBatch(DATAGRAMS * OPEN_BYTES, DATAGRAMS * OPEN_ENTRIES)
  readonly #tunOut: PacketBatch = {
    data: this.#open.data,
    view: this.#open.view,
    desc: new Int32Array(DATAGRAMS * OPEN_ENTRIES * PACKET_WORDS),
    count: 0,
    used: 0,
  }
  readonly #sendMemory = new Uint8Array(RUN_BYTES + RECENT_RING)
  readonly #runs = frameRuns(RUN_BYTES, RUNS, this.#sendMemory.subarray(0, RUN_BYTES))
  /** What was lately sent. */
  readonly replay: Replay
  /** Entries of `#tunSeal` that have been sealed. */
  #sealedEntries = 0
  #fault: { readonly error: unknown } | undefined
  #now = 0
  readonly #scratchSeal = sealBatch(new Uint8Array(SCRATCH_BYTES), SCRATCH_ENTRIES)
  #scratchSealUsed = 0
  /** Whether its entries are kept for Replay. */
  #scratchKept = true
  readonly #scratchPackets = packetBatch(SCRATCH_BYTES, SCRATCH_ENTRIES)
  /** The batch of another lane that is being decided upon, and where what is made meanwhile is put behind it. */
  #outward: LaneOutward | undefined
  #inward: LaneInward | undefined
  #behind = 0
  readonly #laneSeal = sealBatch(new Uint8Array(LANE_FRAME_BYTES), 1)
  readonly #single: DatagramBatch = { ...this.wireIn, desc: new Int32Array(DATAGRAM_WORDS), count: 1 }

  constructor(
    private readonly components: {
      readonly codec: FrameCodec
      /** Of the lanes above the first. */
      readonly laneCodecs?: readonly FrameCodec[]
      readonly peers: PeerTable
      readonly io: HostIo
      readonly decisions: DataPathDecisions
    },
  ) {
    this.replay = new Replay(this.#sendMemory, components.peers, components.codec)
  }

  /** The device has filled `tunIn`. */
  tunRead(now: number): void {
    const { tunIn } = this
    this.tunPacketsIn += tunIn.count
    this.tap?.tunRead(tunIn)
    this.#tunSeal.count = 0
    this.#sealedEntries = 0
    this.#now = now
    try {
      this.components.decisions.fromTun(tunIn, this.#tunSeal, now)
    } catch (error) {
      // A batch that was half decided is not to be sent with what comes next.
      this.#discardEntries(this.#tunSeal, this.#sealedEntries)
      throw error
    }
    this.tap?.settle(now)
    this.flush(now)
    this.#sealEntries()
    this.#tunSeal.count = 0
    this.tap?.settle(now)
    this.#throwFault()
  }

  /** Something was thrown over a packet or frame, which is counted: it is thrown on when all else of the batch has gone its way. */
  fault(error: unknown): void {
    this.#fault ??= { error }
  }

  #throwFault(): void {
    const fault = this.#fault
    if (fault === undefined) return
    this.#fault = undefined
    throw fault.error
  }

  #discardEntries(seal: SealBatch, from: number): void {
    this.components.decisions.lost('fault', seal.count - from)
    seal.count = 0
  }

  #discardPackets(tunOut: PacketBatch): void {
    this.components.decisions.lost('fault', tunOut.count)
    tunOut.count = 0
  }

  /** The device has filled `wireIn`; `lane`: it was the socket of another lane. */
  wireRead(now: number, lane = 0): void {
    const { wireIn } = this
    this.#now = now
    const codec = this.#codec(lane)
    this.#countIn(wireIn)
    if (this.tap === undefined) this.#receive(codec, wireIn, now)
    else this.#receiveTapped(this.tap, codec, now)
    this.flush(now)
    this.#throwFault()
  }

  /**
   * The thread of a lane has filled `tunIn`: decides. The entries of `seal` are that lane's to seal and send, in this order, but for those whose keys it does not have: they have
   * left already, by the first lane.
   */
  decideOutward(lane: number, outward: LaneOutward, now: number): void {
    const { tunIn, seal } = outward
    this.#now = now
    this.tunPacketsIn += tunIn.count
    this.tap?.tunRead(tunIn)
    seal.count = 0
    seal.lane = lane
    seal.byFirst = 0
    this.#outward = outward
    this.#behind = tunIn.used
    try {
      this.components.decisions.fromTun(tunIn, seal, now)
    } catch (error) {
      this.#discardEntries(seal, 0)
      throw error
    } finally {
      this.#outward = undefined
    }
    this.flush(now)
    if (seal.byFirst > 0) this.#seal(seal)
    this.tap?.settle(now)
    this.#throwFault()
  }

  /** The thread of a lane has filled `wireIn` and opened it into `open`: decides. The packets of `tunOut` are that thread's to write. */
  decideInward(inward: LaneInward, now: number): void {
    const { wireIn, open, tunOut } = inward
    this.#now = now
    this.#countIn(wireIn)
    tunOut.count = 0
    this.#inward = inward
    this.#behind = open.used
    try {
      this.components.decisions.fromPeers(open, wireIn, tunOut, now)
    } catch (error) {
      this.#discardPackets(tunOut)
      throw error
    } finally {
      this.#inward = undefined
    }
    this.tunPacketsOut += tunOut.count
    this.flush(now)
    this.#throwFault()
  }

  #countIn(datagrams: DatagramBatch): void {
    this.datagramsIn += datagrams.count
    for (let i = 0; i < datagrams.count; i++) {
      const length = datagrams.desc[i * DATAGRAM_WORDS + 1]!
      const size = datagrams.desc[i * DATAGRAM_WORDS + 2]!
      this.bytesIn += length
      this.framesIn += size > 0 ? Math.max(1, Math.ceil(length / size)) : 1
    }
  }

  #codec(lane: number): FrameCodec {
    const { codec, laneCodecs } = this.components
    const found = lane === 0 ? codec : laneCodecs?.[lane - 1]
    if (found === undefined) throw new RangeError(`no lane ${lane}`)
    return found
  }

  /**
   * Queues one plaintext (copied) of a flow: as {@link frameTo}, but among the packets of the batch that is being decided upon, for what was decided first leaves first.
   */
  flowFrameTo(peer: number, plaintext: Uint8Array, trafficClass: number): boolean {
    const { peers } = this.components
    const outward = this.#outward
    let sealSlot = peers.sealSlot[peer]!
    let addressSlot = peers.addressSlot[peer]!
    if (outward === undefined || sealSlot < 0 || addressSlot < 0)
      return this.frameTo(peer, addressSlot, plaintext, trafficClass)
    const { seal } = outward
    const at = this.#behind
    const full = (seal.count + 1) * SEAL_WORDS > seal.desc.length || at + plaintext.length > seal.data.length
    if (full) return this.frameTo(peer, addressSlot, plaintext, trafficClass)
    const lane = peers.useLane(peer, seal.lane)
    if (lane >= 0) {
      sealSlot = peers.laneSealSlot[lane]!
      addressSlot = peers.laneAddressSlot[lane]!
    } else seal.byFirst++
    seal.data.set(plaintext, at)
    this.#behind = at + plaintext.length
    putSingle(seal, at, plaintext.length, sealSlot, addressSlot, trafficClass)
    this.singleFramesOut++
    return true
  }

  /** Seals one short plaintext on a lane above the first and sends it there at once; false: the peer's session has no such lane. */
  laneFrame(peer: number, lane: number, addressSlot: number, plaintext: Uint8Array, trafficClass: number): boolean {
    const { peers } = this.components
    const sealSlot = lane < peers.lanes ? peers.laneSealSlot[peers.laneAt(peer, lane)]! : -1
    if (sealSlot < 0 || addressSlot < 0 || plaintext.length > LANE_FRAME_BYTES) return false
    const batch = this.#laneSeal
    const runs = this.#runs
    batch.data.set(plaintext)
    batch.count = 0
    putSingle(batch, 0, plaintext.length, sealSlot, addressSlot, trafficClass)
    runs.count = 0
    runs.used = 0
    this.#codec(lane).seal(batch, 0, runs)
    this.singleFramesOut += runs.count
    this.#send(runs, lane)
    return true
  }

  /** As {@link frameTo} of what is about the way that it goes, a probe or an echo: it is never sent again by another. */
  wayFrame(peer: number, addressSlot: number, plaintext: Uint8Array, trafficClass: number): boolean {
    return this.frameTo(peer, addressSlot, plaintext, trafficClass, false)
  }

  /** Queues one plaintext (copied) for a peer's current session to an address slot; false: there is neither. `kept`: for {@link Replay}. */
  frameTo(peer: number, addressSlot: number, plaintext: Uint8Array, trafficClass: number, kept = true): boolean {
    const sealSlot = this.components.peers.sealSlot[peer]!
    if (sealSlot < 0 || addressSlot < 0) return false
    this.#sealDecided()
    const full = this.#scratchSeal.count >= SCRATCH_ENTRIES || this.#scratchSealUsed + plaintext.length > SCRATCH_BYTES
    if (full || this.#scratchKept !== kept) this.#flushFrames()
    this.#scratchKept = kept
    this.#scratchSeal.data.set(plaintext, this.#scratchSealUsed)
    putSingle(this.#scratchSeal, this.#scratchSealUsed, plaintext.length, sealSlot, addressSlot, trafficClass)
    this.#scratchSealUsed += plaintext.length
    return true
  }

  /** Sends what {@link frameTo} has queued; else it goes when all of the host's input is dealt with. */
  sendFrames(): void {
    this.#sealDecided()
    this.#flushFrames()
  }

  /** Seals and sends a batch whose bytes are its owner's, after all that was decided before. */
  sendBatch(seal: SealBatch): void {
    this.#sealDecided()
    this.#flushFrames()
    this.#seal(seal)
  }

  /** Sends copies of what lately went to the peer to this address slot, up to so many bytes, oldest first. Returns whether all were sent. */
  copyTo(peer: number, addressSlot: number, bytes: number, now: number): boolean {
    const before = this.framesOut
    const all = this.replay.copy(peer, addressSlot, bytes, now, (runs) => this.#transmit(runs, 0))
    this.singleFramesOut += this.framesOut - before
    return all
  }

  /** What has been decided upon so far leaves before what is made now. */
  #sealDecided(): void {
    if (this.#sealedEntries >= this.#tunSeal.count) return
    this.#flushFrames()
    this.tap?.settle(this.#now)
    this.#sealEntries()
  }

  /** Queues one packet, vnet header and all (copied), for the own kernel. */
  packet(packet: Uint8Array): void {
    if (this.#inward !== undefined && this.#packetBehind(this.#inward.tunOut, packet)) return
    if (this.#tunOut.count > 0) {
      this.#flushPackets()
      this.#write(this.#tunOut)
      this.#tunOut.count = 0
    }
    const batch = this.#scratchPackets
    if (batch.count >= SCRATCH_ENTRIES || align(batch.used) + packet.length > SCRATCH_BYTES) this.#flushPackets()
    const offset = align(batch.used)
    batch.data.set(packet, offset)
    batch.desc[batch.count * PACKET_WORDS] = offset
    batch.desc[batch.count * PACKET_WORDS + 1] = packet.length
    batch.count++
    batch.used = offset + packet.length
  }

  #packetBehind(batch: PacketBatch, packet: Uint8Array): boolean {
    const offset = align(this.#behind)
    const entry = batch.count * PACKET_WORDS
    if (entry + PACKET_WORDS > batch.desc.length || offset + packet.length > batch.data.length) return false
    batch.data.set(packet, offset)
    batch.desc[entry] = offset
    batch.desc[entry + 1] = packet.length
    batch.count++
    this.#behind = offset + packet.length
    return true
  }

  /** Sends one datagram in the clear (handshakes). */
  clear(bytes: Uint8Array, addressSlot: number): void {
    const runs = this.#runs
    runs.data.set(bytes)
    runs.desc.set([0, bytes.length, bytes.length, addressSlot, 0, -1])
    runs.count = 1
    runs.used = bytes.length
    this.singleFramesOut++
    this.tap?.clear(runs)
    this.#send(runs)
  }

  /** Seals and sends, writes what was queued. Called after every input to the host. */
  flush(now: number): void {
    this.#now = now
    if (this.replay.due) this.#sendAgain()
    this.#flushFrames()
    this.#flushPackets()
    this.tap?.settle(now)
  }

  #receive(codec: FrameCodec, datagrams: DatagramBatch, now: number): void {
    codec.open(datagrams, this.#open)
    this.#tunOut.count = 0
    this.#decide(datagrams, now)
    this.#flushPackets()
    if (this.#tunOut.count === 0) return
    this.#write(this.#tunOut)
    this.#tunOut.count = 0
  }

  #decide(datagrams: DatagramBatch, now: number): void {
    try {
      this.components.decisions.fromPeers(this.#open, datagrams, this.#tunOut, now)
    } catch (error) {
      this.#discardPackets(this.#tunOut)
      throw error
    }
  }

  /** As without a tap, one frame at a time, so that each can be shown with what became of it. */
  #receiveTapped(tap: DataPathTap, codec: FrameCodec, now: number): void {
    const { wireIn } = this
    const single = this.#single
    for (let i = 0; i < wireIn.count; i++) {
      const base = i * DATAGRAM_WORDS
      const [start, total, size] = [wireIn.desc[base]!, wireIn.desc[base + 1]!, wireIn.desc[base + 2]!]
      single.addresses.copyWithin(0, i * ADDRESS_RECORD, (i + 1) * ADDRESS_RECORD)
      const step = size > 0 ? size : Math.max(total, 1)
      for (let at = 0; at < Math.max(total, 1); at += step) {
        single.desc.set([start + at, Math.min(step, total - at), 0, wireIn.desc[base + 3]!])
        codec.open(single, this.#open)
        tap.opened(single, this.#open)
        this.#tunOut.count = 0
        this.#decide(single, now)
        tap.settle(now)
        this.#flushPackets()
        if (this.#tunOut.count === 0) continue
        this.#write(this.#tunOut)
        this.#tunOut.count = 0
      }
    }
  }

  #flushFrames(): void {
    if (this.#scratchSeal.count === 0) return
    const before = this.framesOut
    this.#seal(this.#scratchSeal, 0, this.#scratchKept)
    this.singleFramesOut += this.framesOut - before
    this.#scratchSeal.count = 0
    this.#scratchSealUsed = 0
  }

  #flushPackets(): void {
    const batch = this.#scratchPackets
    if (batch.count === 0) return
    this.#write(batch)
    batch.count = 0
    batch.used = 0
  }

  #write(batch: PacketBatch): void {
    this.tunPacketsOut += batch.count
    this.tap?.tunWrite(batch)
    this.components.io.writeTun(batch)
  }

  /** What the TUN's packets have become since the last time. */
  #sealEntries(): void {
    const from = this.#sealedEntries
    this.#sealedEntries = this.#tunSeal.count
    this.#seal(this.#tunSeal, from)
  }

  #seal(batch: SealBatch, from = 0, kept = true): void {
    if (this.tap !== undefined && batch.lane === 0) return this.#sealTapped(this.tap, batch, from, kept)
    const { codec, decisions } = this.components
    const runs = this.#runs
    let skipped = 0
    let left = from
    try {
      for (let next = from; next < batch.count; left = next) {
        runs.count = 0
        runs.used = 0
        next = codec.seal(batch, next, runs)
        skipped += codec.skipped
        if (runs.count === 0) break
        this.#send(runs, 0, kept)
      }
    } catch (error) {
      decisions.lost('fault', batch.count - left)
      throw error
    }
    // Those of another lane's batch that are sealed by that one are no loss.
    const others = batch.lane > 0 ? batch.count - batch.byFirst : 0
    if (skipped > others) decisions.lost('no-session', skipped - others)
  }

  #sealTapped(tap: DataPathTap, batch: SealBatch, from: number, kept: boolean): void {
    const { codec } = this.components
    const runs = this.#runs
    const entries = batch.count
    for (let entry = from; entry < entries; entry++) {
      batch.count = entry + 1
      // More than once for an entry that the runs do not hold as a whole.
      for (let next = entry; next <= entry;) {
        tap.sealing(batch, entry)
        runs.count = 0
        runs.used = 0
        next = codec.seal(batch, entry, runs)
        tap.sealed(runs)
        if (codec.skipped > 0) this.components.decisions.lost('no-session', codec.skipped)
        if (runs.count === 0) break
        this.#send(runs, 0, kept)
      }
    }
    batch.count = entries
  }

  #send(runs: FrameRuns, lane = 0, kept = true): void {
    // What was sent first arrives first.
    if (this.replay.due) this.#sendAgain()
    if (lane === 0 && kept) this.replay.sent(runs, this.#now)
    this.#transmit(runs, lane)
    runs.used = 0
  }

  #sendAgain(): void {
    const before = this.framesOut
    this.replay.flush(this.#now, (runs) => this.#transmit(runs, 0))
    this.singleFramesOut += this.framesOut - before
  }

  #transmit(runs: FrameRuns, lane: number): void {
    for (let i = 0; i < runs.count; i++) {
      const length = runs.desc[i * RUN_WORDS + Run.length]!
      this.bytesOut += length
      this.framesOut += Math.ceil(length / Math.max(runs.desc[i * RUN_WORDS + Run.stride]!, 1))
    }
    this.components.io.sendFrames(runs, this.components.peers.addresses.records, lane)
    runs.count = 0
  }
}

/** One more entry of a batch: a frame that is not segmented. */
function putSingle(
  batch: SealBatch,
  offset: number,
  length: number,
  sealSlot: number,
  addressSlot: number,
  trafficClass: number,
): void {
  const { desc } = batch
  const base = batch.count++ * SEAL_WORDS
  desc[base + Seal.offset] = offset
  desc[base + Seal.length] = length
  desc[base + Seal.headerLength] = length
  desc[base + Seal.gsoSize] = 0
  desc[base + Seal.gsoKind] = Gso.none
  desc[base + Seal.sealSlot] = sealSlot
  desc[base + Seal.addressSlot] = addressSlot
  desc[base + Seal.trafficClass] = trafficClass
}

/** The IP header behind the vnet header lies on a multiple of four. */
function align(offset: number): number {
  return ((offset + VNET_HEADER + 3) & ~3) - VNET_HEADER
}
