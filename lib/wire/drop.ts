/**
 * Why a packet was not delivered. One closed list, shared by counters, dump and trace; a packet has exactly one reason.
 * The position is the number used in typed arrays; append only.
 */
export const dropReasons = [
  // frames from the underlay
  'truncated',
  'bad-version',
  'bad-type',
  'not-ours',
  'bad-mac',
  'cookie-required',
  'rate-limited',
  'handshake-failed',
  'handshake-replayed',
  'membership-invalid',
  'revoked',
  'unknown-lane',
  'bad-tag',
  'replayed',
  'bad-frame',
  'bad-control',
  'not-entitled',
  'amplification',
  // packets from the TUN
  'malformed-packet',
  'unsupported-protocol',
  'foreign-source',
  'not-dialled',
  'hop-limit',
  'too-big',
  'fragment-timeout',
  'fragment-overflow',
  'mid-stream',
  // binding and flows
  'no-such-service',
  'no-instance',
  'denied',
  'refused',
  'flow-table-full',
  'unknown-flow',
  'flow-closed',
  'no-session',
  'session-timeout',
  'queue-full',
  'queue-expired',
  // local resources
  'tun-write-failed',
  'send-failed',
  // congestion marked on a packet whose sender does not understand the mark (RFC 6040)
  'congestion-marked',
  // an OPEN that was answered with where else the service is, or with: ask again
  'moved',
  'loading',
  // a MOVE that is older than another one of the same host
  'stale-move',
  // the daemon's own code failed over it
  'fault',
] as const

export type DropReason = (typeof dropReasons)[number]

const numbers = new Map<DropReason, number>(dropReasons.map((reason, i) => [reason, i]))

/** Position of a reason in {@link dropReasons}. */
export function dropNumber(reason: DropReason): number {
  return numbers.get(reason) as number
}

/** One counter a reason; cheap enough for the data path. */
export class DropCounters {
  readonly counts = new Float64Array(dropReasons.length)

  add(reason: DropReason, n = 1): void {
    this.counts[dropNumber(reason)]! += n
  }

  get(reason: DropReason): number {
    return this.counts[dropNumber(reason)]!
  }

  toJSON(): Record<string, number> {
    return Object.fromEntries(dropReasons.map((reason, i) => [reason, this.counts[i]!]))
  }
}
