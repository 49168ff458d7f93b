import { z } from 'zod'
import { CONTROL_MESSAGE_MAX } from './constants.js'
import { bytesUpTo, fields, pack, unpack } from './pack.js'

/** The envelope of a control message inside a frame of Kind.control. Reliability is lib/host/control-channel.ts. */
export interface ControlMessage {
  /** The sender's epoch: random, fresh at each start of its process. */
  readonly epoch: number
  /** Position in the sender's epoch, from 1; 0: acknowledgements only. */
  readonly id: number
  /** Lowest ID the sender still repeats. */
  readonly base: number
  /** IDs of the receiver's epoch `acksEpoch` that have arrived. */
  readonly acksEpoch: number
  readonly acks: readonly number[]
  readonly channel: number
  readonly body: Uint8Array
}

const VERSION = 1
const ACKS_MAX = 64
/** Body, and room for the envelope with a full list of acknowledgements. */
const MESSAGE_MAX = CONTROL_MESSAGE_MAX + 64 + 5 * ACKS_MAX

const number = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const Envelope = fields([
  z.literal(VERSION),
  number,
  number,
  number,
  number,
  z.array(number).max(ACKS_MAX),
  number,
  bytesUpTo(CONTROL_MESSAGE_MAX),
])

/** Throws RangeError for a body of more than CONTROL_MESSAGE_MAX bytes. */
export function encodeControl(message: ControlMessage): Uint8Array {
  if (message.body.length > CONTROL_MESSAGE_MAX) throw new RangeError(`control message of ${message.body.length} bytes`)
  const { epoch, id, base, acksEpoch, acks, channel, body } = message
  return pack([VERSION, epoch, id, base, acksEpoch, acks, channel, body])
}

/** Total: undefined for anything that is no control message of this version. */
export function decodeControl(bytes: Uint8Array): ControlMessage | undefined {
  const envelope = unpack(bytes, MESSAGE_MAX, Envelope)
  if (envelope === undefined) return undefined
  const [, epoch, id, base, acksEpoch, acks, channel, body] = envelope
  return { epoch, id, base, acksEpoch, acks, channel, body }
}
