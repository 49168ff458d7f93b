import { INNER_HEADER, Kind, PROBE_IN_USE, PROBE_TOKEN } from '../wire/constants.js'
import { writeInnerHeader } from '../wire/inner.js'

/** Traffic class of the host's own frames: CS6, network control. */
export const CONTROL_CLASS = 0xc0
const NOTHING = new Uint8Array(0)

/** A frame of the host itself, which belongs to no flow: empty, control, probe, echo. */
export function ownFrame(kind: Kind, body: Uint8Array = NOTHING): Uint8Array {
  const frame = new Uint8Array(INNER_HEADER + body.length)
  writeInnerHeader(new DataView(frame.buffer), 0, 0, 0, kind, 0, 0, 0)
  frame.set(body, INNER_HEADER)
  return frame
}

/** `inUse`: the sender's frames to the peer go the way of this probe. `length`: what it is padded to. */
export function probeFrame(token: Uint8Array, inUse: boolean, length = 0): Uint8Array {
  const body = new Uint8Array(Math.max(PROBE_TOKEN + 1, length - INNER_HEADER))
  body.set(token)
  if (inUse) body[PROBE_TOKEN] = PROBE_IN_USE
  return ownFrame(Kind.probe, body)
}

/** Whether the frame says by which way its sender wants to be answered: all do but echoes, and probes of other ways. `at`: its inner header. */
export function prefersItsWay(kind: number, data: Uint8Array, at: number, length: number): boolean {
  if (kind === Kind.probeEcho) return false
  const flags = INNER_HEADER + PROBE_TOKEN
  return kind !== Kind.probe || (length > flags && (data[at + flags]! & PROBE_IN_USE) !== 0)
}
