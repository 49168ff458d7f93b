// Messages between the directories of two hosts. Each is one control message; they travel in any order, each at most once.
//
//   hello        shows the receiver its own newest heartbeat, and the digests of the sender's revocations and rules for names
//   revocations  signed revocations the receiver may lack
//   names        signed rules for names the receiver may lack
//   digest       one hash for each of 64 groups of hosts: equal means nothing to do
//   summary      for hosts: the sequence of the newest heartbeat known
//   want         asks for a host's records, less those the sender has
//   bundle       one host's heartbeat, and records, membership and list of live records as there is need and room
//   beats        the newest heartbeats of several hosts, nothing else
//   late         hosts whose next heartbeat has not come: whoever has a newer one answers with beats

import { z } from 'zod'
import { CONTROL_MESSAGE_MAX, HOST_ID_LENGTH } from './constants.js'
import { fromHex, hostId, type HostId } from './ids.js'
import { bytesOf, bytesUpTo, fields, pack, unpackTagged, type Packable } from './pack.js'
import { decodeSigned, encodeSigned, SIGNED_OVERHEAD, type SignedBlob } from './signed.js'

export const DIGEST_GROUPS = 64
export const DIGEST_BYTES = DIGEST_GROUPS * 8
/** Bytes of the digest of a signed list. */
export const LIST_DIGEST = 8
/** Entries of one summary and numbers of one list that always fit. */
export const SUMMARY_ENTRIES = 22
export const LIVE_BYTES_MAX = 800
/** Bytes of heartbeats ({@link beatBytes}) that fit into one message of at most BEATS_MAX of them. */
export const BEATS_BYTES_MAX = CONTROL_MESSAGE_MAX - 16
export const BEATS_MAX = 7
const BLOB_MAX = CONTROL_MESSAGE_MAX
const MEMBERSHIP_MAX = 1_000

export interface SummaryEntry {
  readonly host: HostId
  readonly sequence: number
  /** The sender has all records of that heartbeat. */
  readonly complete: boolean
}

export interface Bundle {
  readonly kind: 'bundle'
  readonly host: HostId
  readonly membership?: Uint8Array
  /** ms since the host signed the heartbeat, as far as the sender knows. */
  readonly age: number
  readonly heartbeat: SignedBlob
  /** Sequence numbers of the heartbeat's records, ascending; proven by the heartbeat's hash. */
  readonly live?: readonly number[]
  readonly records: readonly SignedBlob[]
}

/** A heartbeat on its way, as in a {@link Bundle}. */
export type Beat = Pick<Bundle, 'host' | 'age' | 'heartbeat'>

/** The newest heartbeat of a host that the sender knows. */
export type LateEntry = Omit<SummaryEntry, 'complete'>

export type DirectoryMessage =
  | {
      readonly kind: 'hello'
      /** The receiver's own newest heartbeat that the sender knows: after a loss of state it must go on above it. */
      readonly yours?: SignedBlob
      readonly revocations: Uint8Array
      /** undefined: the sender's version knows of no rules for names. */
      readonly names?: Uint8Array
    }
  | { readonly kind: 'revocations' | 'names'; readonly items: readonly Uint8Array[] }
  | { readonly kind: 'digest'; /** Answer with your own. */ readonly reply: boolean; readonly groups: Uint8Array }
  | { readonly kind: 'summary'; readonly entries: readonly SummaryEntry[] }
  | {
      readonly kind: 'want'
      readonly host: HostId
      readonly membership: boolean
      /** Sequence numbers the sender has, ascending. */
      readonly have: readonly number[]
    }
  | { readonly kind: 'beats'; readonly beats: readonly Beat[] }
  | { readonly kind: 'late'; readonly entries: readonly LateEntry[] }
  | Bundle

const Type = {
  hello: 1,
  revocations: 2,
  digest: 3,
  summary: 4,
  want: 5,
  bundle: 6,
  names: 7,
  beats: 8,
  late: 9,
} as const

const whole = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const host = bytesOf(HOST_ID_LENGTH)
/** First number, then differences: small numbers pack into one byte. */
const list = z.array(whole).max(LIVE_BYTES_MAX)
const blob = bytesUpTo(BLOB_MAX, SIGNED_OVERHEAD + 1)
const shapes = {
  [Type.hello]: fields([z.literal(Type.hello), blob.nullable(), bytesOf(LIST_DIGEST), bytesOf(LIST_DIGEST).optional()]),
  [Type.revocations]: fields([z.literal(Type.revocations), z.array(bytesUpTo(BLOB_MAX, 1))]),
  [Type.names]: fields([z.literal(Type.names), z.array(bytesUpTo(BLOB_MAX, 1))]),
  [Type.digest]: fields([z.literal(Type.digest), z.boolean(), bytesOf(DIGEST_BYTES)]),
  [Type.summary]: fields([
    z.literal(Type.summary),
    z.array(fields([host, whole, z.boolean()])).max(SUMMARY_ENTRIES * 2),
  ]),
  [Type.want]: fields([z.literal(Type.want), host, z.boolean(), list]),
  [Type.bundle]: fields([
    z.literal(Type.bundle),
    host,
    bytesUpTo(MEMBERSHIP_MAX, 1).nullable(),
    whole,
    blob,
    list.nullable(),
    z.array(blob),
  ]),
  [Type.beats]: fields([z.literal(Type.beats), z.array(fields([host, whole, blob])).max(BEATS_MAX)]),
  [Type.late]: fields([z.literal(Type.late), z.array(fields([host, whole])).max(SUMMARY_ENTRIES * 2)]),
} as const

/** Throws RangeError for a message that does not fit into a control message: senders split first. */
export function encodeDirectoryMessage(message: DirectoryMessage): Uint8Array {
  const bytes = pack(toPackable(message))
  if (bytes.length > CONTROL_MESSAGE_MAX) throw new RangeError(`${message.kind} of ${bytes.length} bytes`)
  return bytes
}

/** Total: undefined for anything that is no message of this version. Signatures are not checked here. */
export function decodeDirectoryMessage(bytes: Uint8Array): DirectoryMessage | undefined {
  const parsed = unpackTagged(bytes, CONTROL_MESSAGE_MAX, shapes)
  if (parsed === undefined) return undefined
  switch (parsed[0]) {
    case Type.hello: {
      const [, own, revocations, names] = parsed
      const digests = { revocations, ...(names === undefined ? {} : { names }) }
      if (own === null) return { kind: 'hello', ...digests }
      const yours = decodeSigned(own, BLOB_MAX)
      return yours && { kind: 'hello', yours, ...digests }
    }
    case Type.revocations:
      return { kind: 'revocations', items: parsed[1] }
    case Type.names:
      return { kind: 'names', items: parsed[1] }
    case Type.digest:
      return { kind: 'digest', reply: parsed[1], groups: parsed[2] }
    case Type.summary: {
      const entries = parsed[1].map(([id, sequence, complete]) => ({ host: hostId(id), sequence, complete }))
      return { kind: 'summary', entries }
    }
    case Type.want: {
      const have = summed(parsed[3])
      if (have === undefined) return undefined
      return { kind: 'want', host: hostId(parsed[1]), membership: parsed[2], have }
    }
    case Type.bundle:
      return decodeBundle(parsed[1], parsed[2], parsed[3], parsed[4], parsed[5], parsed[6])
    case Type.beats: {
      const beats: Beat[] = []
      for (const [id, age, bytes] of parsed[1]) {
        const heartbeat = decodeSigned(bytes, BLOB_MAX)
        if (heartbeat === undefined) return undefined
        beats.push({ host: hostId(id), age, heartbeat })
      }
      return { kind: 'beats', beats }
    }
    case Type.late:
      return { kind: 'late', entries: parsed[1].map(([id, sequence]) => ({ host: hostId(id), sequence })) }
  }
}

/** Bytes that a heartbeat takes in a message of several, at most. */
export function beatBytes({ heartbeat }: Beat): number {
  return HOST_ID_LENGTH + SIGNED_OVERHEAD + heartbeat.body.length + 16
}

/** Bytes that an ascending list takes in a message, at most. */
export function listBytes(numbers: readonly number[]): number {
  let bytes = 3
  let last = 0
  for (const number of numbers) {
    const step = number - last
    bytes += step < 128 ? 1 : step < 65_536 ? 3 : step < 2 ** 32 ? 5 : 9
    last = number
  }
  return bytes
}

function decodeBundle(
  id: Uint8Array,
  membership: Uint8Array | null,
  age: number,
  heartbeat: Uint8Array,
  live: readonly number[] | null,
  records: readonly Uint8Array[],
): Bundle | undefined {
  const beat = decodeSigned(heartbeat, BLOB_MAX)
  const blobs: SignedBlob[] = []
  for (const bytes of records) {
    const record = decodeSigned(bytes, BLOB_MAX)
    if (record === undefined) return undefined
    blobs.push(record)
  }
  const numbers = live === null ? null : summed(live)
  if (beat === undefined || numbers === undefined) return undefined
  return {
    kind: 'bundle',
    host: hostId(id),
    age,
    heartbeat: beat,
    records: blobs,
    ...(membership === null ? {} : { membership }),
    ...(numbers === null ? {} : { live: numbers }),
  }
}

function toPackable(message: DirectoryMessage): Packable {
  switch (message.kind) {
    case 'hello': {
      const yours = message.yours === undefined ? null : encodeSigned(message.yours)
      return [Type.hello, yours, message.revocations, ...(message.names === undefined ? [] : [message.names])]
    }
    case 'revocations':
    case 'names':
      return [Type[message.kind], message.items]
    case 'digest':
      return [Type.digest, message.reply, message.groups]
    case 'summary':
      return [Type.summary, message.entries.map((e) => [fromHex(e.host), e.sequence, e.complete])]
    case 'want':
      return [Type.want, fromHex(message.host), message.membership, differences(message.have)]
    case 'bundle':
      return [
        Type.bundle,
        fromHex(message.host),
        message.membership ?? null,
        message.age,
        encodeSigned(message.heartbeat),
        message.live === undefined ? null : differences(message.live),
        message.records.map((record) => encodeSigned(record)),
      ]
    case 'beats':
      return [Type.beats, message.beats.map((b) => [fromHex(b.host), b.age, encodeSigned(b.heartbeat)])]
    case 'late':
      return [Type.late, message.entries.map((e) => [fromHex(e.host), e.sequence])]
  }
}

function differences(numbers: readonly number[]): number[] {
  return numbers.map((number, i) => number - (i === 0 ? 0 : numbers[i - 1]!))
}

/** undefined: not strictly ascending, or too large. */
function summed(steps: readonly number[]): number[] | undefined {
  const numbers: number[] = []
  let sum = 0
  for (const step of steps) {
    sum += step
    if (step === 0 || sum > Number.MAX_SAFE_INTEGER) return undefined
    numbers.push(sum)
  }
  return numbers
}
