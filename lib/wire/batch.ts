// The shapes in which packets and frames travel between the devices, the codec and the decisions: one byte array and one
// Int32Array of descriptors a batch, allocated once by their owner. No object is made per packet.

/**
 * Packets of the TUN, each preceded by its 10-byte virtio_net_hdr.
 * Descriptor: PACKET_WORDS words: offset of the vnet header, length including it, two words free for the owner.
 * An entry with negative length is skipped by writeBatch.
 */
export interface PacketBatch {
  readonly data: Uint8Array
  readonly view: DataView
  readonly desc: Int32Array
  count: number
  /** Bytes of `data` in use (writers append here). */
  used: number
}
export const PACKET_WORDS = 4

/**
 * Datagrams from the underlay. Descriptor: offset, length, segment size (0: one datagram; else GRO'd segments of that size,
 * the last may be shorter), traffic class of the outer header. `addresses` has one address record a datagram.
 */
export interface DatagramBatch {
  readonly data: Uint8Array
  readonly view: DataView
  readonly desc: Int32Array
  readonly addresses: Uint8Array
  count: number
}
export const DATAGRAM_WORDS = 4

/**
 * Address record: family 1 (4 or 6), flags 1 (0 in what comes), port 2 (BE), scope 4 (LE), address 16 (IPv4 in the first four, rest 0), own address 16 (likewise): where a datagram
 * came to, and where one goes from; all 0: not known, and as the kernel chooses.
 */
export const ADDRESS_RECORD = 40
export const ADDRESS_FLAGS = 1
/** `whole`: what is sent there is never fragmented, neither here nor on the way. */
export const AddressFlag = { whole: 1 } as const
/** Where the own address begins. */
export const ADDRESS_LOCAL = 24

/**
 * What the codec is to seal. An entry's bytes are: inner header, transport header without ports, payload. It is consumed (overwritten).
 * Descriptor: SEAL_WORDS words, see {@link Seal}.
 */
export interface SealBatch {
  readonly data: Uint8Array
  readonly view: DataView
  readonly desc: Int32Array
  count: number
  /** Lane whose batch it is. */
  lane: number
  /** Entries that go by the first lane although the batch is another's. */
  byFirst: number
}
export const SEAL_WORDS = 8
/** Word positions of a SealBatch descriptor. */
export const Seal = {
  offset: 0,
  length: 1,
  /** Inner and transport header together: what each segment repeats. */
  headerLength: 2,
  /** Payload bytes of a segment; 0: not segmented. */
  gsoSize: 3,
  /** {@link Gso} */
  gsoKind: 4,
  /** The codec's seal slot (keys, counter, receiver's lane index). */
  sealSlot: 5,
  /** Row of the address table the frames go to. */
  addressSlot: 6,
  /** Traffic class of the outer header. */
  trafficClass: 7,
} as const
export const Gso = { none: 0, tcp: 1, udp: 2 } as const

/**
 * Sealed frames in runs, each one UDP_SEGMENT send: equal-sized frames, the last may be shorter, one destination, one class, one key.
 * Descriptor: RUN_WORDS words, see {@link Run}.
 */
export interface FrameRuns {
  readonly data: Uint8Array
  readonly desc: Int32Array
  count: number
  used: number
}
export const RUN_WORDS = 6
/** Word positions of a FrameRuns descriptor. */
export const Run = {
  offset: 0,
  length: 1,
  /** Bytes of each frame but the last. */
  stride: 2,
  addressSlot: 3,
  trafficClass: 4,
  /** Seal slot of the codec that sealed it; -1: a datagram in the clear. */
  sealSlot: 5,
} as const

/**
 * What the codec opened: plaintexts (inner header, transport header, payload), consecutive segments of a flow coalesced, each with
 * HEADROOM bytes in front of it that belong to it. Frames that are not transport frames and failures are entries too.
 */
export interface OpenBatch {
  readonly data: Uint8Array
  readonly view: DataView
  readonly desc: Int32Array
  count: number
  used: number
}
export const OPEN_WORDS = 8
/** Word positions of an OpenBatch descriptor. */
export const Open = {
  /** Into OpenBatch.data for a plaintext; into DatagramBatch.data for the other two. */
  offset: 0,
  length: 1,
  headerLength: 2,
  /** Of a failed entry: size of the frames that it stands for, 0: it is one. */
  gsoSize: 3,
  gsoKind: 4,
  /** Our lane index that it came in on (as signed 32 bit). */
  lane: 5,
  /** Datagram it came in (row of DatagramBatch.addresses). */
  datagram: 6,
  /** OPENED, CLEAR (a type other than transport, unchecked) or -(drop number + 1). */
  status: 7,
} as const
export const OPENED = 0
export const CLEAR = 1
/** Segments of a datagram that are opened one by one: as many as a kernel joins (UDP_MAX_SEGMENTS of Linux 6.9). What is behind them is one failed entry, which has their size as `gsoSize`. */
export const SEGMENTS_READ_MAX = 128
/** What a datagram takes in an OpenBatch at most, whatever it holds. */
export const OPEN_ENTRIES = SEGMENTS_READ_MAX + 1
export const OPEN_BYTES = 128 * 1024

/** Gives memory for the arrays of a batch, in its order: zeroed, at an offset that its elements allow. */
export type Allocate = (bytes: number) => { readonly buffer: ArrayBufferLike; readonly offset: number }

const ownMemory: Allocate = (bytes) => ({ buffer: new ArrayBuffer(bytes), offset: 0 })

function byteArray(length: number, allocate: Allocate): Uint8Array {
  const { buffer, offset } = allocate(length)
  return new Uint8Array(buffer, offset, length)
}
function wordArray(length: number, allocate: Allocate): Int32Array {
  const { buffer, offset } = allocate(length * Int32Array.BYTES_PER_ELEMENT)
  return new Int32Array(buffer, offset, length)
}
function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength)
}

/** Allocates a PacketBatch. */
export function packetBatch(bytes: number, packets: number, allocate = ownMemory): PacketBatch {
  const data = byteArray(bytes, allocate)
  return { data, view: viewOf(data), desc: wordArray(packets * PACKET_WORDS, allocate), count: 0, used: 0 }
}
/** Allocates a DatagramBatch of `datagrams` buffers of 64 KB. */
export function datagramBatch(datagrams: number, allocate = ownMemory): DatagramBatch {
  const data = byteArray(datagrams * 65_536, allocate)
  const addresses = byteArray(datagrams * ADDRESS_RECORD, allocate)
  return { data, view: viewOf(data), desc: wordArray(datagrams * DATAGRAM_WORDS, allocate), addresses, count: 0 }
}
/** A SealBatch over bytes that its owner already has. */
export function sealBatch(data: Uint8Array, entries: number, allocate = ownMemory): SealBatch {
  return { data, view: viewOf(data), desc: wordArray(entries * SEAL_WORDS, allocate), count: 0, lane: 0, byFirst: 0 }
}
/** Allocates FrameRuns; `data`: over these bytes. */
export function frameRuns(bytes: number, runs: number, data: Uint8Array = new Uint8Array(bytes)): FrameRuns {
  return { data, desc: new Int32Array(runs * RUN_WORDS), count: 0, used: 0 }
}
/** Allocates an OpenBatch. */
export function openBatch(bytes: number, entries: number, allocate = ownMemory): OpenBatch {
  const data = byteArray(bytes, allocate)
  return { data, view: viewOf(data), desc: wordArray(entries * OPEN_WORDS, allocate), count: 0, used: 0 }
}
/** A PacketBatch over the bytes of an OpenBatch: what is opened is written from where it lies. */
export function packetsOver(open: OpenBatch, packets: number, allocate = ownMemory): PacketBatch {
  return { data: open.data, view: open.view, desc: wordArray(packets * PACKET_WORDS, allocate), count: 0, used: 0 }
}
