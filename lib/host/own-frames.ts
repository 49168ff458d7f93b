import { ADDRESS_LOCAL, ADDRESS_RECORD } from '../wire/batch.js'
import {
  CLEAR_HEADER,
  INNER_HEADER,
  Kind,
  PROBE_HEARD,
  PROBE_IN_USE,
  PROBE_TOKEN,
  TAG_LENGTH,
} from '../wire/constants.js'
import { writeInnerHeader } from '../wire/inner.js'
import { isReceipt } from '../wire/move.js'

/** Traffic class of the host's own frames: CS6, network control. */
export const CONTROL_CLASS = 0xc0
/** What sealing adds to a plaintext. */
export const SEALED_MORE = CLEAR_HEADER + TAG_LENGTH
const NOTHING = new Uint8Array(0)
/** ms; two bytes */
const HEARD_AGO_MAX = 0xffff
/** Positions of an address record. */
const RECORD_PORT = 2
const RECORD_ADDRESS = 8

/** A frame of the host itself, which belongs to no flow: empty, control, probe, echo. */
export function ownFrame(kind: Kind, body: Uint8Array = NOTHING): Uint8Array {
  const frame = new Uint8Array(INNER_HEADER + body.length)
  writeInnerHeader(new DataView(frame.buffer), 0, 0, 0, kind, 0, 0, 0)
  frame.set(body, INNER_HEADER)
  return frame
}

/** `inUse`: the sender's frames to the peer go the way of this probe. `length`: what it is padded to. `heardAgo`: see {@link heardAgoIn}, ms; not said where it is too long ago. */
export function probeFrame(token: Uint8Array, inUse: boolean, length = 0, heardAgo = Infinity): Uint8Array {
  const ago = Math.ceil(heardAgo)
  const says = ago <= HEARD_AGO_MAX
  const body = new Uint8Array(Math.max(PROBE_TOKEN + (says ? 3 : 1), length - INNER_HEADER))
  body.set(token)
  if (inUse) body[PROBE_TOKEN] = PROBE_IN_USE
  if (says) {
    body[PROBE_TOKEN]! |= PROBE_HEARD
    body[PROBE_TOKEN + 1] = ago & 0xff
    body[PROBE_TOKEN + 2] = ago >> 8
  }
  return ownFrame(Kind.probe, body)
}

/** How long before it sent this probe its sender last heard us by the way that it leaves, ms; undefined: the probe does not say. */
export function heardAgoIn(body: Uint8Array): number | undefined {
  const [flags = 0, low = 0, high] = body.subarray(PROBE_TOKEN, PROBE_TOKEN + 3)
  return (flags & PROBE_HEARD) === 0 || high === undefined ? undefined : low | (high << 8)
}

/** Whether the sender of this probe sends by the way that it has come. */
export function isOfWayInUse(body: Uint8Array): boolean {
  return ((body[PROBE_TOKEN] ?? 0) & PROBE_IN_USE) !== 0
}

/** Answer to a probe that came from the record at `record`, which it says. */
export function echoFrame(token: Uint8Array, records: Uint8Array, record: number): Uint8Array {
  const family = records[record]!
  const address = record + RECORD_ADDRESS
  const body = new Uint8Array(PROBE_TOKEN + 3 + addressLength(family))
  body.set(token)
  body[PROBE_TOKEN] = family
  body.set(records.subarray(record + RECORD_PORT, record + RECORD_PORT + 2), PROBE_TOKEN + 1)
  body.set(records.subarray(address, address + addressLength(family)), PROBE_TOKEN + 3)
  return ownFrame(Kind.probeEcho, body)
}

/** Where the probe came from that is echoed, as a record; undefined: the echo does not say it. */
export function seenByEcho(body: Uint8Array): Uint8Array | undefined {
  const family = body[PROBE_TOKEN]
  if (family !== 4 && family !== 6) return undefined
  const address = PROBE_TOKEN + 3
  if (body.length < address + addressLength(family)) return undefined
  const record = new Uint8Array(ADDRESS_RECORD)
  record[0] = family
  record.set(body.subarray(PROBE_TOKEN + 1, address), RECORD_PORT)
  record.set(body.subarray(address, address + addressLength(family)), RECORD_ADDRESS)
  return record
}

function addressLength(family: number): number {
  return family === 4 ? 4 : ADDRESS_LOCAL - RECORD_ADDRESS
}

/** Whether the frame says by which way its sender wants to be answered: all do but echoes, receipts, which go back the way of what they answer, and probes of other ways. `at`: its inner header. */
export function prefersItsWay(kind: number, data: Uint8Array, at: number, length: number): boolean {
  if (kind === Kind.probeEcho) return false
  if (kind === Kind.move && isReceipt(data.subarray(at + INNER_HEADER, at + length))) return false
  const flags = INNER_HEADER + PROBE_TOKEN
  return kind !== Kind.probe || (length > flags && (data[at + flags]! & PROBE_IN_USE) !== 0)
}
