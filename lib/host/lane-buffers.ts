// What a lane above the first and the thread that decides hand each other. A lane's thread fills and empties these; in between, the host decides upon them.

import {
  datagramBatch,
  OPEN_BYTES,
  OPEN_ENTRIES,
  openBatch,
  packetBatch,
  packetsOver,
  sealBatch,
  type Allocate,
  type DatagramBatch,
  type OpenBatch,
  type PacketBatch,
  type SealBatch,
} from '../wire/batch.js'

/** Packets of the own kernel become entries to be sealed, over the same bytes. */
export interface LaneOutward {
  /** Filled from the front, at most {@link LANE_READ_BYTES}; frames made while it is decided upon are put behind. */
  readonly tunIn: PacketBatch
  readonly seal: SealBatch
}
/** Datagrams, opened, become packets to the own kernel. */
export interface LaneInward {
  readonly wireIn: DatagramBatch
  readonly open: OpenBatch
  /** Over the bytes of `open`; packets made while it is decided upon are put behind. */
  readonly tunOut: PacketBatch
}

export const LANE_READ_BYTES = 512 * 1024
export const LANE_READ_PACKETS = 128
const SCRATCH_BYTES = 512 * 1024
const SCRATCH_ENTRIES = 1024
const DATAGRAMS = 8

export function laneOutward(allocate?: Allocate): LaneOutward {
  const tunIn = packetBatch(LANE_READ_BYTES + SCRATCH_BYTES, LANE_READ_PACKETS, allocate)
  return { tunIn, seal: sealBatch(tunIn.data, LANE_READ_PACKETS + SCRATCH_ENTRIES, allocate) }
}

export function laneInward(allocate?: Allocate): LaneInward {
  const wireIn = datagramBatch(DATAGRAMS, allocate)
  const open = openBatch(DATAGRAMS * OPEN_BYTES + SCRATCH_BYTES, DATAGRAMS * OPEN_ENTRIES, allocate)
  return { wireIn, open, tunOut: packetsOver(open, DATAGRAMS * OPEN_ENTRIES + SCRATCH_ENTRIES, allocate) }
}
