// Signed records: how a host's registrations and claims travel and are kept. Every record has a key within its host, a sequence number out of the
// host's single, ever growing row of numbers, and a lifetime, a duration on the receiver's monotonic clock; lifetime 0 withdraws the key. One signed
// heartbeat a host renews the leases of all its records: it holds the hash over the sequence numbers of the records that live.

import { z } from 'zod'
import type { SignedBlob } from '../wire/signed.js'
import { bytesOf, fields, pack, unpack } from '../wire/pack.js'
import type { HostId } from '../wire/ids.js'
import type { Hasher } from './service-id.js'
import { packPayload, recordKey, unpackPayload, type RecordPayload } from './registration.js'

/** Labels of the signatures: what one signs cannot be taken for another. */
export const RECORD_LABEL = 'caracal/1 record'
export const HEARTBEAT_LABEL = 'caracal/1 heartbeat'

export const RECORD_BODY_MAX = 720
export const HEARTBEAT_BODY_MAX = 128
export const LIFETIME_MAX_MS = 3_600_000
export const LIVE_HASH = 16
export const MEMBERSHIP_HASH = 8
const KEY_MAX = 96
const VERSION = 1

export interface RecordFields {
  readonly key: string
  readonly sequence: number
  /** ms; 0: withdrawn. */
  readonly lifetime: number
  readonly payload: RecordPayload
}

/** A record as it is kept: what was signed, and what it says. */
export interface SignedRecord extends RecordFields {
  readonly host: HostId
  readonly blob: SignedBlob
}

export interface HeartbeatFields {
  readonly sequence: number
  /** ms for which the records that live are renewed. */
  readonly lease: number
  /** {@link liveHash} of the records that live. */
  readonly live: Uint8Array
  /** First bytes of the hash of the host's current membership, so that others notice a renewed one. */
  readonly membership: Uint8Array
}

export interface SignedHeartbeat extends HeartbeatFields {
  readonly host: HostId
  readonly blob: SignedBlob
}

const sequence = z.number().int().min(1).max(Number.MAX_SAFE_INTEGER)
const recordShape = fields([
  z.literal(VERSION),
  z.number().int().min(0).max(255),
  z.string().min(1).max(KEY_MAX),
  sequence,
  z.number().int().min(0).max(LIFETIME_MAX_MS),
  z.unknown(),
])
const heartbeatShape = fields([
  z.literal(VERSION),
  sequence,
  z.number().int().min(1).max(LIFETIME_MAX_MS),
  bytesOf(LIVE_HASH),
  bytesOf(MEMBERSHIP_HASH),
])

/** Body of a record, to be signed under RECORD_LABEL. Throws RangeError for more than RECORD_BODY_MAX bytes. */
export function encodeRecord(record: RecordFields): Uint8Array {
  const [kind, payload] = packPayload(record.payload)
  const body = pack([VERSION, kind, record.key, record.sequence, record.lifetime, payload])
  if (body.length > RECORD_BODY_MAX) throw new RangeError(`record ${record.key} has ${body.length} bytes`)
  return body
}

/** Whether the payload fits a record, whatever its number. */
export function fitsRecord(payload: RecordPayload): boolean {
  const [kind, packed] = packPayload(payload)
  const fields = [VERSION, kind, recordKey(payload), Number.MAX_SAFE_INTEGER, LIFETIME_MAX_MS, packed]
  return pack(fields).length <= RECORD_BODY_MAX
}

/** Total: undefined for what is no record of this version, or published under a key that is not its own. */
export function decodeRecord(body: Uint8Array): RecordFields | undefined {
  const parsed = unpack(body, RECORD_BODY_MAX, recordShape)
  if (parsed === undefined) return undefined
  const [, kind, key, number, lifetime, value] = parsed
  const payload = unpackPayload(kind, value)
  if (payload === undefined || (payload.kind === 'withdrawn') !== (lifetime === 0)) return undefined
  if (
    payload.kind === 'claims' ? !key.startsWith('address/') : payload.kind !== 'withdrawn' && key !== recordKey(payload)
  ) {
    return undefined
  }
  return { key, sequence: number, lifetime, payload }
}

/** Body of a heartbeat, to be signed under HEARTBEAT_LABEL. */
export function encodeHeartbeat(heartbeat: HeartbeatFields): Uint8Array {
  return pack([VERSION, heartbeat.sequence, heartbeat.lease, heartbeat.live, heartbeat.membership])
}

/** Total. */
export function decodeHeartbeat(body: Uint8Array): HeartbeatFields | undefined {
  const parsed = unpack(body, HEARTBEAT_BODY_MAX, heartbeatShape)
  if (parsed === undefined) return undefined
  const [, number, lease, live, membership] = parsed
  return { sequence: number, lease, live, membership }
}

/** Hash over the sequence numbers (ascending) of a host's records. A sequence number names a record's content, because its host signed it once. */
export function liveHash(sequences: readonly number[], hasher: Hasher): Uint8Array {
  const bytes = new Uint8Array(8 * sequences.length + 1)
  const view = new DataView(bytes.buffer)
  sequences.forEach((number, i) => {
    view.setUint32(8 * i, Math.floor(number / 2 ** 32))
    view.setUint32(8 * i + 4, number >>> 0)
  })
  // Never empty: a library may refuse an empty message.
  bytes[bytes.length - 1] = 1
  return hasher.blake2b(bytes, 32).slice(0, LIVE_HASH)
}

export function membershipHash(membership: Uint8Array, hasher: Hasher): Uint8Array {
  return hasher.blake2b(membership, 32).slice(0, MEMBERSHIP_HASH)
}
