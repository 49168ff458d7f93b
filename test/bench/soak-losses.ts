// Whether daemons lost or reordered what was given to them, told from what everybody on the way has counted. TCP also sends again what was never lost: a probe when an acknowledgement is
// late (RFC 8985 section 7), or after a timeout; on a busy machine that is a matter of the processors. What it sends again because later segments came is a hole that somebody made.

import type { SoakReport } from './soak-run.js'

/** Segments of the largest super-packet, which a full queue loses as one. */
const SEGMENTS = 52
/** Of the segments sent: what late acknowledgements may bring forth. */
const GUESSES_MAX = 0.01
/** Packets of connections that are over, and what kernels say by themselves: no loss. */
const harmless: ReadonlySet<string> = new Set(['mid-stream', 'unknown-flow', 'flow-closed', 'not-dialled'])

export interface Losses {
  /** undefined: the link lost, doubled or reordered frames itself, so that nothing can be said. */
  readonly kept: boolean | undefined
  /** Frames that daemons dropped or did not read in time. */
  readonly byDaemons: number
  /** Segments sent again because a hole was seen, and how many of them the load's own queues and sockets account for at most. */
  readonly intoHoles: number
  readonly explained: number
  /** All segments sent again, of so many. */
  readonly retransmitted: number
  readonly segments: number
  /** Datagrams that did not come back, when no queue or socket of the load's own was full. */
  readonly datagrams: number
}

type Counted = Pick<SoakReport, 'kernel' | 'dropped' | 'overrun' | 'linkFaults' | 'datagrams'>

export function lossesOf({ kernel, dropped, overrun, linkFaults, datagrams }: Counted): Losses {
  const sum = (...names: readonly string[]) =>
    kernel.reduce((total, counts) => names.reduce((n, name) => n + (counts[name] ?? 0), total), 0)
  const drops = dropped.flatMap((one) => Object.entries(one)).filter(([reason]) => !harmless.has(reason))
  const byDaemons = [...drops.map(([, count]) => count), ...overrun].reduce((total, count) => total + count, 0)
  const own = sum('TUN:tx_dropped', 'TcpExt:RcvPruned', 'TcpExt:TCPBacklogDrop', 'TcpExt:TCPRcvQDrop')
  const losses = {
    byDaemons,
    intoHoles: sum('TcpExt:TCPFastRetrans'),
    explained: own * SEGMENTS,
    retransmitted: sum('Tcp:RetransSegs'),
    segments: sum('Tcp:OutSegs'),
    datagrams: own + sum('Udp:RcvbufErrors', 'Udp6RcvbufErrors') > 0 ? 0 : datagrams.lost - datagrams.late,
  }
  const { intoHoles, explained, retransmitted, segments } = losses
  const guesses = retransmitted - intoHoles - explained
  const kept = byDaemons === 0 && losses.datagrams === 0 && intoHoles <= explained && guesses <= GUESSES_MAX * segments
  return { kept: linkFaults > 0 ? undefined : kept, ...losses }
}

/** A line for people. */
export function lossesText({
  kept,
  byDaemons,
  intoHoles,
  explained,
  retransmitted,
  segments,
  datagrams,
}: Losses): string {
  const verdict = kept === undefined ? 'not judged, the link lost frames itself' : kept ? 'none' : 'SOME'
  const counts = [
    `${byDaemons} frames dropped or not read by daemons`,
    `${datagrams} datagrams lost`,
    `${intoHoles} segments sent again into holes, ${explained} of them at most by the load's own full queues`,
    `${retransmitted} of ${segments} sent again in all`,
  ]
  return `losses by the daemons: ${verdict} (${counts.join('; ')})`
}
