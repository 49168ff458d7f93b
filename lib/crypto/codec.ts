import type { DatagramBatch, FrameRuns, OpenBatch, SealBatch } from '../wire/batch.js'

export type AeadName = 'chacha20-poly1305' | 'aes-256-gcm'

/**
 * Turns plaintexts into sealed frames and back, a batch a call. The addon has the fast implementation, `portable-codec.ts` the portable one;
 * both produce and accept the same bytes.
 *
 * Nonce: 4 zero bytes, then the 64-bit counter (LE for ChaCha20-Poly1305 and for AES-256-GCM alike); one counter a seal slot, starting at 0, advanced per frame even
 * when the send fails. The clear header is the AAD. Replay is checked after the tag, in a window of REPLAY_WINDOW per lane.
 */
export interface FrameCodec {
  /** What this codec offers in a handshake, best first. */
  readonly aeads: readonly AeadName[]

  /** Sets keys and receiver's lane index of a seal slot (0..65535) and its counter to 0. The key is copied. */
  installSeal(slot: number, aead: AeadName, key: Uint8Array, receiverLane: number): void
  removeSeal(slot: number): void
  /** Frames sealed with the slot so far. */
  sealed(slot: number): number

  /** Accepts frames with this lane index (u32; its low 16 bits are the row). The key is copied. */
  installOpen(lane: number, aead: AeadName, key: Uint8Array): void
  removeOpen(lane: number): void

  /**
   * Segments and seals entries `from`.. of the batch and appends to `runs` (gathering consecutive equal-sized frames to one address into one run).
   * Returns the first entry not consumed: `batch.count`, or less when `runs` is full (send, reset `count` and `used`, call again).
   * TCP segments: sequence number advances, FIN and PSH only on the last, CWR only on the first. UDP segments: length per segment.
   * An entry whose seal slot is empty is skipped: see {@link skipped}.
   */
  seal(batch: SealBatch, from: number, runs: FrameRuns): number

  /** Entries that the last call of {@link seal} consumed without sealing all of them: there was no key any more. */
  readonly skipped: number

  /**
   * Opens all datagrams into `out` (emptied first), coalescing consecutive data segments of one flow (same lane, inner header, and TCP in sequence with equal ack,
   * window, options; UDP of equal length, at most 64). `out` must have room for every entry: OPEN_ENTRIES and OPEN_BYTES a datagram
   * are enough whatever it holds. What is behind SEGMENTS_READ_MAX segments of one is not opened.
   */
  open(datagrams: DatagramBatch, out: OpenBatch): void
}
