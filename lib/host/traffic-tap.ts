// Shows the traffic of a host to whoever dumps it.
//
//   TUN ──▶ tunRead ──────────────▶ decisions ──▶ settle      underlay ──▶ opened ──▶ decisions ──▶ settle ──▶ tunWrite ──▶ TUN
//                                    │ dropped  └▶ sealing, sealed ──▶ underlay          │ dropped
//
// A packet's flow is often made, or ended, only while the packet is decided upon, and what becomes of it is known only then. So everything is copied when it
// is seen, kept in order, and shown when it has been decided upon: at `settle`, which ends every input to the host.

import type { AddressBook } from '../flow/environment.js'
import type { FlowEngine } from '../flow/flow-engine.js'
import type { PeerTable } from '../path/peers.js'
import {
  ADDRESS_RECORD,
  Open,
  OPENED,
  PACKET_WORDS,
  RUN_WORDS,
  Seal,
  SEAL_WORDS,
  type DatagramBatch,
  type FrameRuns,
  type OpenBatch,
  type PacketBatch,
  type SealBatch,
} from '../wire/batch.js'
import { LANE_SLOT_BITS, VNET_HEADER } from '../wire/constants.js'
import type { DropReason } from '../wire/drop.js'
import type { ServiceId } from '../wire/ids.js'
import type { DataPathTap } from './data-path.js'
import type { Tap, TapPoint } from './tap.js'
import { TapSet, type TapDraft } from './tap-set.js'
import { FlowLabels, packetEnds, protocolName, REMOTE_ADDRESS, type FlowLabel, type PacketEnds } from './tap-flows.js'
import {
  clearFrameName,
  describeFrame,
  flowOfFrame,
  isFrameDropped,
  LocatorText,
  peerAt,
  readFrame,
  type FrameLabel,
  type FrameSubject,
} from './tap-frames.js'

export interface TapNames {
  /** Name of the host with this peer index. */
  peer(index: number): string | undefined
  service(id: ServiceId): string | undefined
}

export interface TrafficTapComponents {
  readonly flows: Pick<FlowEngine, 'table' | 'flow'>
  readonly peers: PeerTable
  /** Peer index by the low 16 bits of our lane index, -1: none. */
  readonly lanePeer: Int32Array
  readonly addresses: Pick<AddressBook, 'dialled'>
  readonly names: TapNames
  /** `ADDR:PORT` of our end of the underlay in a family. */
  readonly local: (family: 4 | 6) => string | undefined
  /** ms since the epoch of a monotonic time. */
  readonly wallMs: (now: number) => number
  /** The first tap was opened: the data path and the host are to call from now on; or the last one was closed. */
  readonly switched: (on: boolean) => void
}

type Direction = TapDraft['direction']

/** A packet between a program and the TUN, until its flow is known. */
interface SeenPacket {
  readonly draft: TapDraft
  readonly ends: PacketEnds | undefined
  /** Where the IP packet lies in its batch, for as long as that is decided upon. */
  readonly offset: number
  readonly length: number
}

/** The frame that is being decided upon. */
interface SeenFrame {
  readonly datagrams: DatagramBatch
  readonly at: number
  readonly length: number
  readonly lane: number
  readonly subject: FrameSubject | undefined
  /** As it was before the decision, which may end the flow. */
  readonly label: FlowLabel | undefined
  readonly drafts: TapDraft[]
  verdict: TapDraft['verdict']
}

const LANE_MASK = (1 << LANE_SLOT_BITS) - 1
const NO_BYTES = new Uint8Array(0)
/** Offset of a packet that is in no batch. */
const NOWHERE = -1

export class TrafficTap implements DataPathTap {
  readonly #c: TrafficTapComponents
  readonly #labels: FlowLabels
  readonly #remotes = new LocatorText()
  readonly #taps: TapSet
  /** What was seen since the last `settle`, in order. */
  readonly #queue: TapDraft[] = []
  readonly #packets: SeenPacket[] = []
  /** The batch of the TUN that is being decided upon. */
  #reading: PacketBatch | undefined
  #frame: SeenFrame | undefined
  #sealing: { readonly peer: number; readonly label: FrameLabel } | undefined
  /** Peer by seal slot, where it was found last. */
  readonly #sealPeer = new Map<number, number>()

  constructor(components: TrafficTapComponents) {
    this.#c = components
    this.#labels = new FlowLabels(components.flows)
    this.#taps = new TapSet((on) => {
      if (!on) this.#forget()
      components.switched(on)
    })
  }

  /** Opens a tap at these points; the function returned closes it. */
  add(tap: Tap, points: Iterable<TapPoint>): () => void {
    return this.#taps.add(tap, points)
  }

  /** Something was dropped (HostEvents.dropped): the IP packet, where there is one, is copied. */
  dropped(reason: DropReason, packet: Uint8Array | undefined): void {
    if (this.#taps.size === 0) return
    if (packet !== undefined) this.#packetDropped(reason, packet)
    else if (this.#frame !== undefined) this.#frameDropped(this.#frame, reason)
    else if (this.#taps.wanted('drop') >= 0) {
      this.#queue.push({ point: 'drop', direction: 'out', bytes: NO_BYTES, length: 0, verdict: reason })
    }
  }

  // ---- DataPathTap ----

  tunRead(batch: PacketBatch): void {
    this.#reading = batch
    if (this.#taps.wanted('tun') >= 0) this.#tunPackets(batch, 'out')
  }

  tunWrite(batch: PacketBatch): void {
    if (this.#taps.wanted('tun') >= 0) this.#tunPackets(batch, 'in')
  }

  sealing(batch: SealBatch, entry: number): void {
    if (this.#taps.wanted('wire') < 0) return
    const { data, view, desc } = batch
    const base = entry * SEAL_WORDS
    const peer = this.#peerOfSlot(desc[base + Seal.sealSlot]!)
    const subject = readFrame(data, view, desc[base + Seal.offset]!, desc[base + Seal.length]!)
    if (subject === undefined) this.#sealing = { peer, label: { name: undefined } }
    else {
      const label = flowOfFrame(subject, peer, 'out', this.#labels)
      this.#sealing = { peer, label: describeFrame(subject, 'out', label) }
    }
  }

  sealed(runs: FrameRuns): void {
    const { peer, label } = this.#sealing ?? { peer: -1, label: { name: undefined } }
    this.#sealing = undefined
    this.#runs(runs, peer, label)
  }

  clear(runs: FrameRuns): void {
    if (this.#taps.wanted('wire') < 0) return
    const records = this.#c.peers.addresses.records
    const slot = runs.desc[3]!
    this.#runs(runs, peerAt(this.#c.peers, records, slot * ADDRESS_RECORD), {
      name: clearFrameName(runs.data[runs.desc[0]!]),
    })
  }

  opened(datagrams: DatagramBatch, open: OpenBatch): void {
    if (this.#taps.wanted('wire') < 0 && this.#taps.wanted('drop') < 0) return
    const status = open.desc[Open.status]!
    const lane = open.count > 0 ? open.desc[Open.lane]! : 0
    const isOpened = open.count > 0 && status === OPENED
    const subject = isOpened
      ? readFrame(open.data, open.view, open.desc[Open.offset]!, open.desc[Open.length]!)
      : undefined
    const peer = isOpened ? this.#peerOfLane(lane) : -1
    const frame: SeenFrame = {
      datagrams,
      at: datagrams.desc[0]!,
      length: datagrams.desc[1]!,
      lane: isOpened ? lane : -1,
      subject,
      label: subject === undefined ? undefined : flowOfFrame(subject, peer, 'in', this.#labels),
      drafts: [],
      verdict: 'pass',
    }
    this.#frame = frame
    if (this.#taps.wanted('wire') >= 0) this.#draftFrame(frame, 'wire')
  }

  settle(now: number): void {
    this.#reading = undefined
    if (this.#frame !== undefined) this.#settleFrame(this.#frame)
    this.#frame = undefined
    for (const packet of this.#packets) this.#settlePacket(packet)
    this.#packets.length = 0
    if (this.#queue.length === 0) return
    const time = this.#c.wallMs(now)
    const drafts = this.#queue.splice(0)
    for (const draft of drafts) this.#taps.show(draft, time)
  }

  // ---- Packets of the TUN ----

  #tunPackets(batch: PacketBatch, direction: Direction): void {
    const { data, view, desc } = batch
    for (let i = 0; i < batch.count; i++) {
      const offset = desc[i * PACKET_WORDS]!
      const length = desc[i * PACKET_WORDS + 1]!
      if (length > VNET_HEADER) this.#packet('tun', direction, data, view, offset, length, 'pass')
    }
  }

  /** Takes the packet whose virtio_net_hdr stands at `offset`. */
  #packet(
    point: 'tun' | 'drop',
    direction: Direction,
    data: Uint8Array,
    view: DataView,
    offset: number,
    length: number,
    verdict: TapDraft['verdict'],
  ): void {
    const at = offset + VNET_HEADER
    const kept = Math.min(length - VNET_HEADER, this.#taps.wanted(point))
    const bytes = data.slice(at, at + kept)
    const draft: TapDraft = { point, direction, bytes, length: length - VNET_HEADER, verdict }
    const ends = packetEnds(data, view, offset, length, direction)
    const read = point === 'tun' && direction === 'out'
    const seen = { draft, ends, offset: read ? at : NOWHERE, length: length - VNET_HEADER }
    this.#queue.push(draft)
    if (direction === 'out') this.#packets.push(seen)
    else this.#settlePacket(seen)
  }

  #packetDropped(reason: DropReason, packet: Uint8Array): void {
    const whole = new Uint8Array(VNET_HEADER + packet.length)
    whole.set(packet, VNET_HEADER)
    const view = new DataView(whole.buffer)
    const direction = this.#frame === undefined ? 'out' : 'in'
    const seen = this.#seenAs(packet) ?? this.#segmentOf(packetEnds(whole, view, 0, whole.length, 'out'))
    if (seen?.draft.verdict === 'pass') seen.draft.verdict = reason
    if (this.#taps.wanted('drop') >= 0) this.#packet('drop', direction, whole, view, 0, whole.length, reason)
  }

  /** The packet of the batch that lies where these bytes do. */
  #seenAs(packet: Uint8Array): SeenPacket | undefined {
    if (this.#reading === undefined || packet.buffer !== this.#reading.data.buffer) return undefined
    const at = packet.byteOffset - this.#reading.data.byteOffset
    return this.#packets.find(({ offset, length }) => offset >= 0 && at >= offset && at < offset + length)
  }

  /** The super-packet of the batch that a packet between these ends was cut from. */
  #segmentOf(ends: PacketEnds | undefined): SeenPacket | undefined {
    if (ends === undefined || this.#reading === undefined) return undefined
    return this.#packets.find((seen) => seen.offset >= 0 && seen.ends !== undefined && sameEnds(seen.ends, ends))
  }

  #settlePacket({ draft, ends }: SeenPacket): void {
    if (ends === undefined) return
    const protocol = protocolName(ends.protocol)
    if (protocol !== undefined) draft.protocol = protocol
    if (ends.localPort >= 0 && protocol !== 'icmp') {
      const out = draft.direction === 'out'
      draft.sourcePort = out ? ends.localPort : ends.remotePort
      draft.destinationPort = out ? ends.remotePort : ends.localPort
    }
    const label = this.#labels.ofPacket(ends)
    if (label !== undefined) {
      draft.flow = label.flow
      this.#name(draft, label.peer, label.service)
      return
    }
    const target = this.#c.addresses.dialled(ends.addresses, REMOTE_ADDRESS, ends.family)
    if (target === undefined) return
    const peer = target.host === undefined ? -1 : this.#c.peers.indexOf(target.host)
    this.#name(draft, peer, target.kind === 'service' ? target.service : undefined)
  }

  // ---- Frames ----

  #runs(runs: FrameRuns, peer: number, label: FrameLabel): void {
    const kept = this.#taps.wanted('wire')
    if (kept < 0) return
    const { records } = this.#c.peers.addresses
    for (let run = 0; run < runs.count; run++) {
      const base = run * RUN_WORDS
      const [offset, length, stride] = [runs.desc[base]!, runs.desc[base + 1]!, Math.max(1, runs.desc[base + 2]!)]
      const record = runs.desc[base + 3]! * ADDRESS_RECORD
      for (let at = 0; at < length; at += stride) {
        const size = Math.min(stride, length - at)
        const bytes = runs.data.slice(offset + at, offset + at + Math.min(size, kept))
        const draft: TapDraft = { point: 'wire', direction: 'out', bytes, length: size, verdict: 'pass' }
        this.#ends(draft, records, record)
        this.#describe(draft, peer, label)
        this.#queue.push(draft)
      }
    }
  }

  #draftFrame(frame: SeenFrame, point: 'wire' | 'drop'): TapDraft {
    const { datagrams, at, length } = frame
    const bytes = datagrams.data.slice(at, at + Math.min(length, this.#taps.wanted(point)))
    const draft: TapDraft = { point, direction: 'in', bytes, length, verdict: 'pass' }
    this.#ends(draft, datagrams.addresses, 0)
    frame.drafts.push(draft)
    this.#queue.push(draft)
    return draft
  }

  #frameDropped(frame: SeenFrame, reason: DropReason): void {
    if (frame.verdict === 'pass' && isFrameDropped(frame.subject, reason)) frame.verdict = reason
    if (this.#taps.wanted('drop') >= 0) this.#draftFrame(frame, 'drop').verdict = reason
  }

  #settleFrame(frame: SeenFrame): void {
    const { datagrams, subject, lane } = frame
    // Not a host's word where the frame was not opened, but where it came from.
    const peer = lane === -1 ? peerAt(this.#c.peers, datagrams.addresses, 0) : this.#peerOfLane(lane)
    let label: FrameLabel = { name: clearFrameName(datagrams.data[frame.at]) }
    if (subject !== undefined) {
      label = describeFrame(subject, 'in', frame.label ?? flowOfFrame(subject, peer, 'in', this.#labels))
    }
    for (const draft of frame.drafts) {
      this.#describe(draft, peer, label)
      if (draft.point === 'wire') draft.verdict = frame.verdict
    }
  }

  #describe(draft: TapDraft, peer: number, label: FrameLabel): void {
    const { name, flow, service, protocol, localPort, remotePort } = label
    if (name !== undefined) draft.frame = name
    if (flow !== undefined) draft.flow = flow
    if (protocol !== undefined) draft.protocol = protocol
    if (localPort !== undefined && remotePort !== undefined && protocol !== 'icmp') {
      draft.sourcePort = draft.direction === 'out' ? localPort : remotePort
      draft.destinationPort = draft.direction === 'out' ? remotePort : localPort
    }
    this.#name(draft, peer, service)
  }

  #ends(draft: TapDraft, records: Uint8Array, offset: number): void {
    const remote = this.#remotes.of(records, offset)
    const local = this.#c.local(records[offset] === 6 ? 6 : 4)
    if (remote !== undefined) draft.remote = remote
    if (local !== undefined) draft.local = local
  }

  #name(draft: TapDraft, peer: number, service: ServiceId | undefined): void {
    const { names } = this.#c
    const host = peer < 0 ? undefined : names.peer(peer)
    const title = service === undefined ? undefined : names.service(service)
    if (host !== undefined) draft.peer = host
    if (title !== undefined) draft.service = title
  }

  #peerOfLane(lane: number): number {
    return this.#c.lanePeer[lane & LANE_MASK] ?? -1
  }

  #peerOfSlot(slot: number): number {
    const { sealSlot, size } = this.#c.peers
    const known = this.#sealPeer.get(slot)
    if (known !== undefined && sealSlot[known] === slot) return known
    const peer = sealSlot.subarray(0, size).indexOf(slot)
    if (peer >= 0) this.#sealPeer.set(slot, peer)
    return peer
  }

  #forget(): void {
    this.#queue.length = 0
    this.#packets.length = 0
    this.#reading = undefined
    this.#frame = undefined
    this.#sealing = undefined
    this.#sealPeer.clear()
    this.#labels.clear()
  }
}

function sameEnds(a: PacketEnds, b: PacketEnds): boolean {
  if (a.localPort !== b.localPort || a.remotePort !== b.remotePort || a.flowProtocol !== b.flowProtocol) return false
  return a.addresses.every((byte, i) => byte === b.addresses[i])
}
