// One line of a client, before anything is known about what it asks. The main thread reads these, which is why no schema library is needed for it.

/** Where the daemon listens unless told otherwise. */
export const DEFAULT_SOCKET = '/run/caracal.sock'
export const CONTROL_VERSION = 1
export const REQUEST_LINE_MAX = 65_536
const OPERATION_MAX = 32

export interface RequestLine {
  readonly v: number
  /** The client's, 0 or above. */
  readonly id: number
  readonly op: string
  readonly args: object
}

/** The line, or what is wrong with it. */
export function readRequestLine(json: unknown): RequestLine | string {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return 'expected an object'
  const { v, id, op, args = {} }: { v?: unknown; id?: unknown; op?: unknown; args?: unknown } = json
  if (typeof v !== 'number' || !Number.isSafeInteger(v)) return 'v: expected an integer'
  if (typeof id !== 'number' || !Number.isSafeInteger(id) || id < 0) return 'id: expected an integer of 0 or above'
  if (typeof op !== 'string' || op.length > OPERATION_MAX) return `op: expected a string of up to ${OPERATION_MAX}`
  if (typeof args !== 'object' || args === null || Array.isArray(args)) return 'args: expected an object'
  return { v, id, op, args }
}

/** Flows that one answer may list. */
export const FLOWS_MAX = 100_000
/** Services that one answer may list. */
export const SERVICES_MAX = 100_000
