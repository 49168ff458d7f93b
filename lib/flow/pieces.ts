// A datagram (UDP, ICMP echo; TCP has its segments) whose frame is too large for the path travels in pieces, each a frame of Kind.piece:
//
//   inner header 12 | ID 4 | length of the whole 4 | size of every piece but the last 2 | index 1 | kind byte of the whole 1 | bytes
//
// little endian. The whole is what stands behind the inner header of the original frame, whose other fields each piece repeats.
// A piece stands for nothing until all are there.
import { HEADROOM, INNER_HEADER, INNER_KIND, Kind } from '../wire/constants.js'
import { innerGeneration, innerSlot } from '../wire/inner.js'

export const PIECE_HEADER = 12
export const PIECES_MAX = 64
/** Behind the inner header: the longest datagram with the prefix of an OPEN. */
const WHOLE_MAX = 65_535 + 256

const ID = INNER_HEADER
const WHOLE = INNER_HEADER + 4
const SIZE = INNER_HEADER + 8
const INDEX = INNER_HEADER + 10
const WHOLE_KIND = INNER_HEADER + 11
const BYTES = INNER_HEADER + PIECE_HEADER

/** Pieces that a frame of `length` bytes (inner header and all) makes when a frame may have `room`; 0: it cannot be sent so ('too-big'). */
export function piecesNeeded(length: number, room: number): number {
  const size = room - BYTES
  const whole = length - INNER_HEADER
  if (size < 8 || whole < 1 || whole > WHOLE_MAX) return 0
  const count = Math.ceil(whole / size)
  return count > PIECES_MAX ? 0 : count
}

/**
 * Writes piece `index` of the frame at `offset` to `at` in `out`, which needs `room` bytes there, and returns its length. `id` is the same for the
 * pieces of a frame and differs between frames of one flow that are under way together, those of a former process included. The frame must not overlap what is written.
 */
export function writePiece(
  data: Uint8Array,
  offset: number,
  length: number,
  index: number,
  id: number,
  room: number,
  out: Uint8Array,
  outView: DataView,
  at: number,
): number {
  const size = room - BYTES
  const whole = length - INNER_HEADER
  const from = offset + INNER_HEADER + index * size
  const to = Math.min(from + size, offset + length)
  for (let i = 0; i < INNER_HEADER; i++) out[at + i] = data[offset + i]!
  out[at + INNER_KIND] = Kind.piece
  outView.setUint32(at + ID, id, true)
  outView.setUint32(at + WHOLE, whole, true)
  outView.setUint16(at + SIZE, size, true)
  out[at + INDEX] = index
  out[at + WHOLE_KIND] = data[offset + INNER_KIND]!
  out.set(data.subarray(from, to), at + BYTES)
  return BYTES + to - from
}

export interface PieceLimits {
  /** Bytes held for one peer and in all, and frames under way in all. */
  readonly peerBytes: number
  readonly bytes: number
  readonly entries: number
  /** How long a frame may take to become whole, ms. */
  readonly timeout: number
}
export const PIECE_LIMITS: PieceLimits = {
  peerBytes: 512 * 1024,
  bytes: 8 * 1024 * 1024,
  entries: 1024,
  timeout: 2_000,
}

interface Entry {
  readonly key: string
  readonly peer: number
  readonly bytes: Uint8Array
  readonly whole: number
  readonly size: number
  readonly kind: number
  readonly missing: Set<number>
  arrived: number
  readonly deadline: number
}

/** Puts pieces together in bounded memory; what does not become whole in time, or is the oldest when memory is short, is dropped and counted. */
export class PieceAssembler {
  /** In order of their beginning. */
  readonly #entries = new Map<string, Entry>()
  readonly #peerBytes = new Map<number, number>()
  readonly #limits: PieceLimits
  readonly #dropped: (reason: 'fragment-timeout' | 'fragment-overflow', pieces: number) => void
  #bytes = 0

  constructor(
    dropped: (reason: 'fragment-timeout' | 'fragment-overflow', pieces: number) => void,
    limits: PieceLimits = PIECE_LIMITS,
  ) {
    this.#dropped = dropped
    this.#limits = limits
  }

  /** Bytes held now. */
  get bytes(): number {
    return this.#bytes
  }

  /**
   * Takes the plaintext (inner header and all) of a piece from `peer`; the bytes are copied. Returns the whole frame once its last piece is there: a fresh
   * array with HEADROOM bytes in front of the inner header. 'bad-frame': this piece is nonsense, or contradicts those that came before (which are kept).
   */
  add(
    peer: number,
    data: Uint8Array,
    view: DataView,
    offset: number,
    length: number,
    now: number,
  ): Uint8Array | 'held' | 'bad-frame' | 'fragment-overflow' {
    this.expire(now)
    if (length <= BYTES || offset < 0 || offset + length > data.length) return 'bad-frame'
    const whole = view.getUint32(offset + WHOLE, true)
    const size = view.getUint16(offset + SIZE, true)
    const index = data[offset + INDEX]!
    const kind = data[offset + WHOLE_KIND]!
    if (size === 0 || whole === 0 || whole > WHOLE_MAX || (kind & 0x0f) === Kind.piece) return 'bad-frame'
    const count = Math.ceil(whole / size)
    if (count > PIECES_MAX || index >= count) return 'bad-frame'
    if (length - BYTES !== (index === count - 1 ? whole - index * size : size)) return 'bad-frame'
    const id = view.getUint32(offset + ID, true)
    const key = `${peer}/${innerSlot(view, offset)}/${innerGeneration(view, offset)}/${id}`
    let entry = this.#entries.get(key)
    if (entry === undefined) {
      const bytes = HEADROOM + INNER_HEADER + whole
      if (!this.#makeRoom(peer, bytes)) return 'fragment-overflow'
      entry = {
        key,
        peer,
        bytes: new Uint8Array(bytes),
        whole,
        size,
        kind,
        missing: new Set(Array.from({ length: count }, (_, i) => i)),
        arrived: 0,
        deadline: now + this.#limits.timeout,
      }
      entry.bytes.set(data.subarray(offset, offset + INNER_HEADER), HEADROOM)
      entry.bytes[HEADROOM + INNER_KIND] = kind
      this.#entries.set(key, entry)
      this.#bytes += bytes
      this.#peerBytes.set(peer, (this.#peerBytes.get(peer) ?? 0) + bytes)
    } else if (entry.whole !== whole || entry.size !== size || entry.kind !== kind || !entry.missing.has(index)) {
      return 'bad-frame'
    }
    entry.missing.delete(index)
    entry.arrived++
    entry.bytes.set(data.subarray(offset + BYTES, offset + length), HEADROOM + INNER_HEADER + index * size)
    if (entry.missing.size > 0) return 'held'
    this.#remove(entry)
    return entry.bytes
  }

  /** Forgets what a peer that is gone has under way; not counted. */
  forget(peer: number): void {
    for (const entry of this.#entries.values()) if (entry.peer === peer) this.#remove(entry)
  }

  /** When {@link expire} is to be called next, ms; Infinity: never. */
  nextTimeout(): number {
    for (const entry of this.#entries.values()) return entry.deadline
    return Infinity
  }

  /** Drops what has taken too long. */
  expire(now: number): void {
    for (const entry of this.#entries.values()) {
      if (entry.deadline > now) return
      this.#drop(entry, 'fragment-timeout')
    }
  }

  #makeRoom(peer: number, bytes: number): boolean {
    const { peerBytes, bytes: most, entries } = this.#limits
    if (bytes > peerBytes || bytes > most) return false
    if ((this.#peerBytes.get(peer) ?? 0) + bytes > peerBytes) {
      for (const entry of this.#entries.values()) {
        if (entry.peer !== peer) continue
        this.#drop(entry, 'fragment-overflow')
        if ((this.#peerBytes.get(peer) ?? 0) + bytes <= peerBytes) break
      }
    }
    for (const entry of this.#entries.values()) {
      if (this.#bytes + bytes <= most && this.#entries.size < entries) break
      this.#drop(entry, 'fragment-overflow')
    }
    return true
  }

  #drop(entry: Entry, reason: 'fragment-timeout' | 'fragment-overflow'): void {
    this.#remove(entry)
    this.#dropped(reason, entry.arrived)
  }

  #remove(entry: Entry): void {
    this.#entries.delete(entry.key)
    this.#bytes -= entry.bytes.length
    const left = (this.#peerBytes.get(entry.peer) ?? 0) - entry.bytes.length
    if (left > 0) this.#peerBytes.set(entry.peer, left)
    else this.#peerBytes.delete(entry.peer)
  }
}
