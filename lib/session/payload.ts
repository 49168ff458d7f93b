// What travels inside the Noise messages between members: a packed array behind its length, padded where the datagram has a minimum.

import { z } from 'zod'
import type { AeadName } from '../crypto/codec.js'
import { FrameType } from '../wire/constants.js'
import { HANDSHAKE_MAX, payloadMin, payloadRoom, type HandshakeType } from '../wire/handshake.js'
import { bytesUpTo, fields, pack, unpack, type Packable } from '../wire/pack.js'

/** Lanes of a session at most. */
export const LANES_MAX = 16
/** Bound of a generation; a peer that lies about it harms only its own sessions. */
export const GENERATION_MAX = 2 ** 48

/** Inside an init. */
export interface InitPayload {
  /** The initiator's membership, as signed. */
  readonly membership: Uint8Array
  /** Greater in every init of this initiator, over restarts too. */
  readonly stamp: bigint
  /** What the initiator can, best first. */
  readonly aeads: readonly AeadName[]
  /** The initiator's lane indexes (u32), as many as it would like. */
  readonly lanes: readonly number[]
  /** One above that of the initiator's session with the responder; see {@link ResponsePayload.generation}. */
  readonly generation: number
  /** UDP ports of the initiator's lanes above the first, in their order; the first one's is where it is reached anyway. */
  readonly ports: readonly number[]
}

/** Inside a response. */
export interface ResponsePayload {
  readonly membership: Uint8Array
  readonly aeads: readonly AeadName[]
  /** The choice: the responder's best that both have. */
  readonly aead: AeadName
  /** The responder's lane indexes, as many as the session has. */
  readonly lanes: readonly number[]
  /** The session's place in the order of this pair's sessions, known to both ends: a later handshake has a greater one, crossing handshakes have equal ones. */
  readonly generation: number
  /** UDP ports of the responder's lanes above the first. */
  readonly ports: readonly number[]
}

const KNOWN_AEADS: readonly AeadName[] = ['chacha20-poly1305', 'aes-256-gcm']

const membership = bytesUpTo(HANDSHAKE_MAX, 1)
const aeads = z.array(z.string().max(32)).max(16)
const lanes = z.array(z.number().int().min(0).max(0xffff_ffff)).min(1).max(LANES_MAX)
const generation = z.number().int().min(1).max(GENERATION_MAX)
const stamp = bytesUpTo(8, 8)
const ports = z.array(z.number().int().min(1).max(0xffff)).max(LANES_MAX - 1)

const initShape = fields([membership, stamp, aeads, lanes, generation])
const responseShape = fields([membership, aeads, z.string().max(32), lanes, generation])

/** Throws RangeError when it does not fit a datagram: a membership too large. */
export function encodeInit(payload: InitPayload): Uint8Array {
  const stampBytes = new Uint8Array(8)
  new DataView(stampBytes.buffer).setBigUint64(0, payload.stamp)
  const { membership, aeads, lanes, generation, ports } = payload
  return packPayload(FrameType.init, [membership, stampBytes, aeads, lanes, generation, ...given(ports)])
}

export function decodeInit(bytes: Uint8Array): InitPayload | undefined {
  const value = unpackPayload(bytes, initShape)
  if (value === undefined) return undefined
  const [membership, stamp, aeads, lanes, generation, rest] = value
  const view = new DataView(stamp.buffer, stamp.byteOffset, 8)
  return {
    membership,
    stamp: view.getBigUint64(0),
    aeads: aeads.filter(isAead),
    lanes,
    generation,
    ports: portsIn(rest),
  }
}

/** Throws RangeError when it does not fit a datagram. */
export function encodeResponse(payload: ResponsePayload): Uint8Array {
  const { membership, aeads, aead, lanes, generation, ports } = payload
  return packPayload(FrameType.response, [membership, aeads, aead, lanes, generation, ...given(ports)])
}

export function decodeResponse(bytes: Uint8Array): ResponsePayload | undefined {
  const value = unpackPayload(bytes, responseShape)
  if (value === undefined) return undefined
  const [membership, aeads, aead, lanes, generation, rest] = value
  if (!isAead(aead)) return undefined
  return { membership, aeads: aeads.filter(isAead), aead, lanes, generation, ports: portsIn(rest) }
}

/** An optional field: a host with one lane leaves it out, as hosts did that knew of one lane only. */
function given(ports: readonly number[]): (readonly number[])[] {
  return ports.length === 0 ? [] : [ports]
}

function portsIn(field: unknown): readonly number[] {
  return ports.safeParse(field).data ?? []
}

/** Length (2, LE), packed value, zeros up to the least length of this type. Throws RangeError when it does not fit. */
export function packPayload(type: HandshakeType, value: Packable): Uint8Array {
  const packed = pack(value)
  const length = 2 + packed.length
  if (length > payloadRoom(type)) throw new RangeError(`handshake payload of ${packed.length} bytes does not fit`)
  const bytes = new Uint8Array(Math.max(length, payloadMin(type)))
  bytes[0] = packed.length & 0xff
  bytes[1] = packed.length >> 8
  bytes.set(packed, 2)
  return bytes
}

/** The value, or undefined when it is none that the schema wants. */
export function unpackPayload<T>(bytes: Uint8Array, schema: z.ZodType<T>): T | undefined {
  if (bytes.length < 2) return undefined
  const length = bytes[0]! | (bytes[1]! << 8)
  return 2 + length > bytes.length ? undefined : unpack(bytes.subarray(2, 2 + length), length, schema)
}

function isAead(name: string): name is AeadName {
  return KNOWN_AEADS.some((known) => known === name)
}
