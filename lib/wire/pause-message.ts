// What a host that is about to be restarted says to its peers: hold what goes to me for so long, or until a new session with me stands.
//
//   [version, sequence, ms]     packed

import { z } from 'zod'
import { PAUSE_MAX_MS } from './constants.js'
import { fields, pack, unpack } from './pack.js'

export interface PauseMessage {
  /** Above all that the host has sent before, also by former processes of it; lower ones are old. */
  readonly sequence: number
  /** For how long at most, ms, up to PAUSE_MAX_MS; 0: go on. */
  readonly ms: number
}

const VERSION = 1
const LENGTH_MAX = 64
const whole = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const shape = fields([z.literal(VERSION), whole, whole])

export function encodePause({ sequence, ms }: PauseMessage): Uint8Array {
  return pack([VERSION, sequence, Math.min(Math.max(Math.ceil(ms), 0), PAUSE_MAX_MS)])
}

/** Total: undefined for anything that is no message of this version. A longer pause is one of PAUSE_MAX_MS. */
export function decodePause(bytes: Uint8Array): PauseMessage | undefined {
  const parsed = unpack(bytes, LENGTH_MAX, shape)
  return parsed && { sequence: parsed[1], ms: Math.min(parsed[2], PAUSE_MAX_MS) }
}
