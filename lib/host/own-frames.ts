import { INNER_HEADER, type Kind } from '../wire/constants.js'
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
