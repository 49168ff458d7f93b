// What follows the inner header in frames that open, refuse and end flows. Our own integers are little endian. Each body has a stated
// length or a length byte for fields that later versions add, which readers of today skip. Readers return 'ok' or 'bad-frame' and
// fill a reusable object; offsets are positions in the buffer that was read.
import { SERVICE_ID_LENGTH } from './constants.js'
import { isIcmpKind } from './icmp.js'

type Read = 'ok' | 'bad-frame'

// ---- OPEN: initiator's flow ID 8, service ID 32, client's family 1, attempt 1, flags 1, length of tail 1, client's port 2, dialled port 2, tail, segment

export const OPEN_HEADER = 8 + SERVICE_ID_LENGTH + 8

export const OpenFlag = {
  /** Another candidate has been asked at the same time; the loser gets CLOSE. */
  hedged: 1,
} as const

/** First frame of a flow; what follows is the first packet's transport header without ports and its payload. Protocol: inner header. */
export class OpenFrame {
  /** Flow ID that the initiator chose for itself. */
  slot = 0
  generation = 0
  /** 32 bytes; all zero: the host itself. Borrowed: when read, the frame's buffer. */
  service: Uint8Array = new Uint8Array(SERVICE_ID_LENGTH)
  serviceOffset = 0
  /** Family of the client's packet: 4 or 6. */
  family: 4 | 6 = 4
  /** Counts the candidates asked for this flow, from 0. */
  attempt = 0
  /** OpenFlag bits; unknown ones are ignored. */
  flags = 0
  /** The client's own port (echo: its identifier). */
  clientPort = 0
  dialledPort = 0
  /** Read: position of the first transport segment, which reaches to the end of the frame. */
  segmentOffset = 0
}

/** Writes OPEN_HEADER bytes at `at` (behind the inner header); the segment follows. */
export function writeOpen(data: Uint8Array, view: DataView, at: number, frame: OpenFrame): void {
  view.setUint32(at, frame.slot, true)
  view.setUint32(at + 4, frame.generation, true)
  for (let i = 0; i < SERVICE_ID_LENGTH; i++) data[at + 8 + i] = frame.service[frame.serviceOffset + i]!
  const rest = at + 8 + SERVICE_ID_LENGTH
  data[rest] = frame.family
  data[rest + 1] = frame.attempt
  data[rest + 2] = frame.flags
  data[rest + 3] = 0
  view.setUint16(rest + 4, frame.clientPort, true)
  view.setUint16(rest + 6, frame.dialledPort, true)
}

export function readOpen(data: Uint8Array, view: DataView, offset: number, length: number, into: OpenFrame): Read {
  if (length < OPEN_HEADER || offset < 0 || offset + length > data.length) return 'bad-frame'
  const rest = offset + 8 + SERVICE_ID_LENGTH
  const family = data[rest]!
  const segment = OPEN_HEADER + data[rest + 3]!
  if ((family !== 4 && family !== 6) || segment > length) return 'bad-frame'
  into.slot = view.getUint32(offset, true)
  into.generation = view.getUint32(offset + 4, true)
  into.service = data
  into.serviceOffset = offset + 8
  into.family = family
  into.attempt = data[rest + 1]!
  into.flags = data[rest + 2]!
  into.clientPort = view.getUint16(rest + 4, true)
  into.dialledPort = view.getUint16(rest + 6, true)
  into.segmentOffset = offset + segment
  return 'ok'
}

/** Whether an OPEN names a service; else it is for the host itself. */
export function namesService(frame: OpenFrame): boolean {
  for (let i = 0; i < SERVICE_ID_LENGTH; i++) if (frame.service[frame.serviceOffset + i] !== 0) return true
  return false
}

// ---- ACCEPT: acceptor's flow ID 8, then as DATA

export const ACCEPT_HEADER = 8

/** Writes ACCEPT_HEADER bytes at `at` (behind the inner header). Read them with innerSlot and innerGeneration of inner.ts. */
export function writeAccept(view: DataView, at: number, slot: number, generation: number): void {
  view.setUint32(at, slot, true)
  view.setUint32(at + 4, generation, true)
}

// ---- NOT-HERE: subject's flow ID 8, code 1, attempt 1, length of hint 2, hint; the rest is ignored

/** Why a frame's flow is not here. Append only; an unknown code counts as `gone`. */
export const NotHereCode = {
  /** Ask again: the journal is still being read. */
  loading: 1,
  /** The hint says where it went. */
  moved: 2,
  /** Each end resets its own kernel. */
  gone: 3,
  /** The server's kernel refused. */
  refused: 4,
  denied: 5,
  noService: 6,
  full: 7,
  unhealthy: 8,
} as const
export type NotHereCode = (typeof NotHereCode)[keyof typeof NotHereCode]
const NOT_HERE_CODES: ReadonlySet<number> = new Set(Object.values(NotHereCode))

export const NOT_HERE_HEADER = 12
export const HINT_MAX = 512

export class NotHereFrame {
  /**
   * The flow ID that the sender of this frame was addressed by and does not know. Zero in the answer to an OPEN, where the inner header
   * names the initiator's flow.
   */
  slot = 0
  generation = 0
  code: NotHereCode = NotHereCode.gone
  /** Answer to an OPEN: its attempt. */
  attempt = 0
  /** Opaque here; borrowed: when read, the frame's buffer. */
  hint: Uint8Array = new Uint8Array(0)
  hintOffset = 0
  hintLength = 0
}

/** Writes at `at` (behind the inner header) and returns the length. Throws RangeError when the hint is longer than HINT_MAX. */
export function writeNotHere(data: Uint8Array, view: DataView, at: number, frame: NotHereFrame): number {
  if (frame.hintLength > HINT_MAX) throw new RangeError(`hint longer than ${String(HINT_MAX)} bytes`)
  view.setUint32(at, frame.slot, true)
  view.setUint32(at + 4, frame.generation, true)
  data[at + 8] = frame.code
  data[at + 9] = frame.attempt
  view.setUint16(at + 10, frame.hintLength, true)
  for (let i = 0; i < frame.hintLength; i++) data[at + NOT_HERE_HEADER + i] = frame.hint[frame.hintOffset + i]!
  return NOT_HERE_HEADER + frame.hintLength
}

export function readNotHere(
  data: Uint8Array,
  view: DataView,
  offset: number,
  length: number,
  into: NotHereFrame,
): Read {
  if (length < NOT_HERE_HEADER || offset < 0 || offset + length > data.length) return 'bad-frame'
  const hint = view.getUint16(offset + 10, true)
  if (hint > HINT_MAX || NOT_HERE_HEADER + hint > length) return 'bad-frame'
  const code = data[offset + 8]!
  into.slot = view.getUint32(offset, true)
  into.generation = view.getUint32(offset + 4, true)
  into.code = isNotHereCode(code) ? code : NotHereCode.gone
  into.attempt = data[offset + 9]!
  into.hint = data
  into.hintOffset = offset + NOT_HERE_HEADER
  into.hintLength = hint
  return 'ok'
}

function isNotHereCode(value: number): value is NotHereCode {
  return NOT_HERE_CODES.has(value)
}

// ---- CLOSE: sender's flow ID 8, code 1; the rest is ignored

/** Why a flow is over. Append only; an unknown code counts as `gone`. */
export const CloseCode = {
  /** Both directions finished, or idle for its time. */
  finished: 1,
  /** Another candidate won. */
  lost: 2,
  /** Policy or membership no longer allow it. */
  denied: 3,
  /** The sender's end is being shut down or has no state. */
  gone: 4,
} as const
export type CloseCode = (typeof CloseCode)[keyof typeof CloseCode]
const CLOSE_CODES: ReadonlySet<number> = new Set(Object.values(CloseCode))

export const CLOSE_HEADER = 9

export class CloseFrame {
  /** The sender's own flow ID: names the flow when the sender has not learnt the receiver's (inner header's ID zero). */
  slot = 0
  generation = 0
  code: CloseCode = CloseCode.gone
}

/** Writes CLOSE_HEADER bytes at `at` (behind the inner header) and returns the length. */
export function writeClose(data: Uint8Array, view: DataView, at: number, frame: CloseFrame): number {
  view.setUint32(at, frame.slot, true)
  view.setUint32(at + 4, frame.generation, true)
  data[at + 8] = frame.code
  return CLOSE_HEADER
}

export function readClose(data: Uint8Array, view: DataView, offset: number, length: number, into: CloseFrame): Read {
  if (length < CLOSE_HEADER || offset < 0 || offset + length > data.length) return 'bad-frame'
  const code = data[offset + 8]!
  into.slot = view.getUint32(offset, true)
  into.generation = view.getUint32(offset + 4, true)
  into.code = isCloseCode(code) ? code : CloseCode.gone
  return 'ok'
}

function isCloseCode(value: number): value is CloseCode {
  return CLOSE_CODES.has(value)
}

// ---- ICMP error: IcmpKind 1, reserved 1, transport MTU 2, length of quote 2, quote; the rest is ignored

export const ICMP_ERROR_HEADER = 6
export const ICMP_QUOTE_MAX = 512

/** An ICMP error about a flow, from the end where a packet of it was refused to the end that sent the packet. */
export class IcmpErrorFrame {
  /** IcmpKind. */
  kind = 0
  /** tooBig: largest transport header and payload, bytes, that would fit (MTU less IP header: independent of family); else 0. */
  transportMtu = 0
  /** Start of the refused packet as it travelled: transport header without ports ... Borrowed: when read, the frame's buffer. */
  quote: Uint8Array = new Uint8Array(0)
  quoteOffset = 0
  quoteLength = 0
}

/** Writes at `at` (behind the inner header) and returns the length; a quote beyond ICMP_QUOTE_MAX is cut. */
export function writeIcmpErrorFrame(data: Uint8Array, view: DataView, at: number, frame: IcmpErrorFrame): number {
  const quote = Math.min(frame.quoteLength, ICMP_QUOTE_MAX)
  data[at] = frame.kind
  data[at + 1] = 0
  view.setUint16(at + 2, frame.transportMtu, true)
  view.setUint16(at + 4, quote, true)
  for (let i = 0; i < quote; i++) data[at + ICMP_ERROR_HEADER + i] = frame.quote[frame.quoteOffset + i]!
  return ICMP_ERROR_HEADER + quote
}

/** An unknown kind is 'bad-frame'. */
export function readIcmpErrorFrame(
  data: Uint8Array,
  view: DataView,
  offset: number,
  length: number,
  into: IcmpErrorFrame,
): Read {
  if (length < ICMP_ERROR_HEADER || offset < 0 || offset + length > data.length) return 'bad-frame'
  const quote = view.getUint16(offset + 4, true)
  const kind = data[offset]!
  if (quote > ICMP_QUOTE_MAX || ICMP_ERROR_HEADER + quote > length || !isIcmpKind(kind)) return 'bad-frame'
  into.kind = kind
  into.transportMtu = view.getUint16(offset + 2, true)
  into.quote = data
  into.quoteOffset = offset + ICMP_ERROR_HEADER
  into.quoteLength = quote
  return 'ok'
}
