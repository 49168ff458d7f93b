import { z } from 'zod'
import { fields, pack, unpack } from './pack.js'

// What two hosts say to each other about the session they have. It ends when neither needs it: whoever finds it idle asks, the other agrees and both
// let go, or it is kept. Without the question, one would let go what the other makes anew at once.

export type SessionMessage = 'release' | 'agree' | 'keep'

const MESSAGES = ['release', 'agree', 'keep'] as const
const VERSION = 1
const LENGTH_MAX = 64
const shape = fields([
  z.literal(VERSION),
  z
    .number()
    .int()
    .min(0)
    .max(MESSAGES.length - 1),
])

export function encodeSessionMessage(message: SessionMessage): Uint8Array {
  return pack([VERSION, MESSAGES.indexOf(message)])
}

/** Total: undefined for anything that is no message of this version. */
export function decodeSessionMessage(bytes: Uint8Array): SessionMessage | undefined {
  const parsed = unpack(bytes, LENGTH_MAX, shape)
  return parsed && MESSAGES[parsed[1]]
}
