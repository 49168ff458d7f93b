import { decodeLocal, decodeLocator, formatLocator, type Locator } from '../path/locator.js'
import type { PathReason } from '../path/path.js'
import type { PeerTable } from '../path/peers.js'
import type { PathCommit } from '../path/prober-sink.js'

/** The two ends of a path, `address:port`. */
export interface Way {
  /** undefined: as the kernel chooses among several. */
  readonly local: string | undefined
  readonly remote: string
}

/** Frames of a peer go another way. */
export interface HostMove {
  /** undefined: they had none. */
  readonly from: Way | undefined
  readonly to: Way
  readonly reason: PathReason
  /** How long nothing had come from the peer when the first frame came by the new way, ms; undefined: none has come yet. */
  readonly stallMs?: number
}

interface Note {
  readonly to: Way
  /** Where frames went before the first move of which nothing has been heard yet. */
  readonly left: Way | undefined
}

/** Remembers of each peer by which way its frames go, so that a move can be told with the addresses of both ways. */
export class MoveNotes {
  /** Moves after which the peer was heard, and for how long it was not, all together, ms. */
  heardAgain = 0
  stallMs = 0
  readonly #notes = new Map<number, Note>()
  #own: readonly Locator[] = []

  constructor(private readonly peers: PeerTable) {}

  /** This host's addresses from now on. */
  setOwn(own: readonly Locator[]): void {
    this.#own = own
  }

  /** undefined: the same addresses as before, as far as can be told. */
  committed({ peer, from, to, reason, lossy }: PathCommit): HostMove | undefined {
    const way = this.#wayOf(to)
    if (way === undefined) return undefined
    const note = this.#notes.get(peer)
    const before = from < 0 ? undefined : (note?.to ?? this.#wayOf(from))
    this.#notes.set(peer, { to: way, left: lossy ? (note?.left ?? before) : undefined })
    if (before?.local === way.local && before?.remote === way.remote) return undefined
    return { from: before, to: way, reason }
  }

  settled({ peer, reason }: PathCommit, stallMs: number): HostMove | undefined {
    const note = this.#notes.get(peer)
    if (note === undefined) return undefined
    this.heardAgain++
    this.stallMs += stallMs
    this.#notes.set(peer, { to: note.to, left: undefined })
    return { from: note.left, to: note.to, reason, stallMs }
  }

  /** The session with the peer is over. */
  forget(peer: number): void {
    this.#notes.delete(peer)
  }

  #wayOf(slot: number): Way | undefined {
    const record = this.peers.addresses.record(slot)
    const remote = decodeLocator(record)
    if (remote === undefined) return undefined
    const own = this.#own.filter(({ address }) => address.includes(':') === (record[0] === 6))
    const local = decodeLocal(record, own[0]?.port ?? 0) ?? (own.length === 1 ? own[0] : undefined)
    return { local: local && formatLocator(local), remote: formatLocator(remote) }
  }
}

/** For people: `10.0.0.2:7474 → 10.0.0.9:7474, silent, nothing came for 61.2 ms`; of the addresses only those that differ. */
export function moveText({ from, to, reason, stallMs }: HostMove): string {
  const stall = stallMs === undefined ? '' : `, nothing came for ${stallMs.toFixed(1)} ms`
  if (from === undefined) return `${to.remote}, ${reason}${stall}`
  const locals = `${from.local ?? 'any'} → ${to.local ?? 'any'}`
  const remotes = `${from.remote} → ${to.remote}`
  const own = from.local === to.local ? '' : from.remote === to.remote ? `from ${locals}` : `${remotes}, from ${locals}`
  return `${own === '' ? remotes : own}, ${reason}${stall}`
}
