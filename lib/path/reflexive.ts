import { ADDRESS_RECORD } from '../wire/batch.js'
import { remoteKey, sameRemote } from './address-record.js'

/** Peers that must see this host at an address until it is believed. */
const AGREE_MIN = 2
/** Addresses that are believed at a time. */
const BELIEVED_MAX = 2
/** What a peer saw longer ago counts no more, ms: idle peers are probed every 15 s. */
const AGE_MAX = 300_000
/** Between reviews, ms, when a peer sees this host elsewhere than before, and when none does. */
const REVIEW_MS = 5_000
const IDLE_REVIEW_MS = 60_000

interface Seen {
  readonly record: Uint8Array
  at: number
}

/**
 * Where peers see this host, behind a NAT: its reflexive addresses, which third hosts may try. A peer is not believed alone: it could name any address, and a NAT may show this host to
 * each peer at another port, where nobody else gets through.
 */
export class ReflexiveAddresses {
  readonly #seen = new Map<number, Seen>()
  #own: ReadonlySet<string> = new Set()
  #believed: readonly Uint8Array[] = []
  #reviewAt = Infinity

  /** @param changed these address records are believed from now on */
  constructor(private readonly changed: (records: readonly Uint8Array[], now: number) => void) {}

  /** This host's own addresses are these: being seen there is no news. What was seen before was seen of other ones, and nothing is believed now. */
  setOwn(records: readonly Uint8Array[]): void {
    this.#own = new Set(records.map((record) => remoteKey(record)))
    this.#seen.clear()
    this.#believed = []
  }

  /** The peer has seen a frame of this host come from the record. Copied. */
  seen(peer: number, record: Uint8Array, now: number): void {
    const before = this.#seen.get(peer)
    if (before !== undefined && sameRemote(before.record, record)) {
      before.at = now
      return
    }
    this.#seen.set(peer, { record: record.slice(0, ADDRESS_RECORD), at: now })
    this.#reviewAt = Math.min(this.#reviewAt, now + REVIEW_MS)
  }

  /** The session with the peer is over. */
  forget(peer: number): void {
    this.#seen.delete(peer)
  }

  nextTimeout(): number {
    return this.#reviewAt
  }

  handleTimeout(now: number): void {
    if (now < this.#reviewAt) return
    const counts = new Map<string, { readonly record: Uint8Array; peers: number }>()
    for (const [peer, { record, at }] of this.#seen) {
      if (at + AGE_MAX <= now) this.#seen.delete(peer)
      else {
        const key = remoteKey(record)
        const count = counts.get(key) ?? { record, peers: 0 }
        count.peers++
        counts.set(key, count)
      }
    }
    const believed = [...counts]
      .filter(([key, { peers }]) => peers >= AGREE_MIN && !this.#own.has(key))
      .sort(([, a], [, b]) => b.peers - a.peers)
      .slice(0, BELIEVED_MAX)
      .map(([, { record }]) => record)
    this.#reviewAt = this.#seen.size === 0 && believed.length === 0 ? Infinity : now + IDLE_REVIEW_MS
    const known = this.#believed
    if (believed.length === known.length && believed.every((record, i) => sameRemote(record, known[i]!))) return
    this.#believed = believed
    this.changed(believed, now)
  }
}
