// The peers that the directory talks with: what goes to which of them, at once or gathered.

import {
  beatBytes,
  BEATS_BYTES_MAX,
  BEATS_MAX,
  encodeDirectoryMessage,
  SUMMARY_ENTRIES,
  type Beat,
  type DirectoryMessage,
  type LateEntry,
  type SummaryEntry,
} from '../wire/directory-message.js'
import { CONTROL_MESSAGE_MAX } from '../wire/constants.js'
import type { HostId } from '../wire/ids.js'
import { bundlesOf, type BundleParts } from './bundles.js'
import type { HostRecords } from './host-records.js'
import type { DirectoryCounters } from './known-hosts.js'
import type { SignedRecord } from './record.js'

export interface SpreadOptions {
  /** News of others go at once to so many peers. */
  readonly fanOut: number
  /** ms that summaries are gathered, and that a gap may close by itself before we ask. */
  readonly gather: number
  /** ms that heartbeats which bring nothing new are gathered, and to how many peers they then go. */
  readonly beatGather: number
  readonly beatFanOut: number
}

export interface DirectoryPeersComponents {
  /** Uniform in [0, 1). */
  readonly random: () => number
  readonly counters: DirectoryCounters
  /** What is known of the host, this one included. */
  readonly set: (host: HostId) => HostRecords | undefined
  /** One control message of at most CONTROL_MESSAGE_MAX bytes. */
  readonly send: (to: HostId, message: Uint8Array) => void
}

interface Peer {
  /** Hosts to be mentioned in the next summary. */
  readonly offers: Set<HostId>
}

/** Hosts that there is a session with. */
export class DirectoryPeers {
  readonly #peers = new Map<HostId, Peer>()
  /** Heartbeats that are to be passed on, by host, and who told us. */
  readonly #fresh = new Map<HostId, HostId>()
  #passOnAt = Number.POSITIVE_INFINITY
  #offerAt = Number.POSITIVE_INFINITY

  constructor(
    private readonly options: SpreadOptions,
    private readonly components: DirectoryPeersComponents,
  ) {}

  get size(): number {
    return this.#peers.size
  }
  all(): IterableIterator<HostId> {
    return this.#peers.keys()
  }
  has(host: HostId): boolean {
    return this.#peers.has(host)
  }
  /** A random one; undefined: there is none. */
  any(): HostId | undefined {
    const peers = [...this.#peers.keys()]
    return peers[Math.floor(this.components.random() * peers.length)]
  }

  add(host: HostId): void {
    this.#peers.set(host, { offers: new Set() })
  }
  delete(host: HostId): void {
    this.#peers.delete(host)
  }

  /** When {@link handleTimeout} is to be called; Infinity: not before something else happens. */
  nextTimeout(): number {
    return Math.min(this.#offerAt, this.#passOnAt)
  }

  handleTimeout(now: number): void {
    if (this.#offerAt <= now) this.#sendOffers()
    if (this.#passOnAt <= now) this.#passOn(now)
  }

  /** What `from` said of another host goes to some peers at once, to the rest as a summary. */
  forward(set: HostRecords, records: readonly SignedRecord[], from: HostId, now: number): void {
    const others = [...this.#peers.keys()].filter((peer) => peer !== set.host && peer !== from)
    this.#shuffle(others, this.options.fanOut)
    for (const peer of others.splice(0, this.options.fanOut)) this.sendBundles(peer, set, { live: true, records }, now)
    for (const peer of others) this.#offer(peer, set.host, now)
  }

  /** A heartbeat of the host, which `from` told us and which brings nothing else, is passed on later with others. */
  passOnLater(host: HostId, from: HostId, now: number): void {
    this.#fresh.set(host, from)
    this.#passOnAt = Math.min(this.#passOnAt, now + this.options.beatGather)
  }

  // ---- Messages, cut to what one has room for ----

  sendToAll(set: HostRecords, parts: BundleParts, now: number): void {
    for (const peer of this.#peers.keys()) this.sendBundles(peer, set, parts, now)
  }

  sendBundles(to: HostId, set: HostRecords, parts: BundleParts, now: number): void {
    for (const bundle of bundlesOf(set, parts, now)) this.send(to, bundle)
  }

  sendSummary(to: HostId, entries: readonly SummaryEntry[]): void {
    for (const part of inParts(entries)) this.send(to, { kind: 'summary', entries: part })
  }

  sendLate(to: HostId, entries: readonly LateEntry[]): void {
    for (const part of inParts(entries)) this.send(to, { kind: 'late', entries: part })
  }

  /** The hosts' heartbeats, as far as they are known. */
  sendBeats(to: HostId, hosts: readonly HostId[], now: number): void {
    let beats: Beat[] = []
    let bytes = 0
    for (const host of hosts) {
      const set = this.components.set(host)
      if (set?.heartbeat === undefined) continue
      const beat = { host, age: Math.max(0, Math.round(now - set.heardAt)), heartbeat: set.heartbeat.blob }
      if (beats.length >= BEATS_MAX || bytes + beatBytes(beat) > BEATS_BYTES_MAX) {
        this.send(to, { kind: 'beats', beats })
        beats = []
        bytes = 0
      }
      beats.push(beat)
      bytes += beatBytes(beat)
    }
    if (beats.length > 0) this.send(to, { kind: 'beats', beats })
  }

  /** Signed items to all peers, but to whom they came from. */
  sendItemsToAll(kind: 'revocations' | 'names', items: readonly Uint8Array[], from?: HostId): void {
    for (const peer of this.#peers.keys()) if (peer !== from) this.sendItems(peer, kind, items)
  }

  sendItems(to: HostId, kind: 'revocations' | 'names', items: readonly Uint8Array[]): void {
    let part: Uint8Array[] = []
    let size = 0
    for (const item of items) {
      if (part.length > 0 && size + item.length > CONTROL_MESSAGE_MAX - 64) {
        this.send(to, { kind, items: part })
        part = []
        size = 0
      }
      part.push(item)
      size += item.length + 3
    }
    if (part.length > 0) this.send(to, { kind, items: part })
  }

  send(to: HostId, message: DirectoryMessage): void {
    this.components.counters.sent++
    this.components.send(to, encodeDirectoryMessage(message))
  }

  // ---- What is gathered ----

  /** The gathered heartbeats go to a few peers. */
  #passOn(now: number): void {
    this.#passOnAt = Number.POSITIVE_INFINITY
    const { beatFanOut } = this.options
    for (const peer of this.#shuffle([...this.#peers.keys()], beatFanOut).slice(0, beatFanOut)) {
      const news = [...this.#fresh].filter(([host, from]) => host !== peer && from !== peer)
      this.sendBeats(
        peer,
        news.map(([host]) => host),
        now,
      )
    }
    this.#fresh.clear()
  }

  #offer(peer: HostId, host: HostId, now: number): void {
    this.#peers.get(peer)?.offers.add(host)
    this.#offerAt = Math.min(this.#offerAt, now + this.options.gather)
  }

  #sendOffers(): void {
    this.#offerAt = Number.POSITIVE_INFINITY
    for (const [to, { offers }] of this.#peers) {
      const entries = [...offers].flatMap((host) => {
        const set = this.components.set(host)
        return set?.heartbeat === undefined ? [] : summaryOf(set)
      })
      offers.clear()
      this.sendSummary(to, entries)
    }
  }

  /** Puts a random choice of so many in front. */
  #shuffle(hosts: HostId[], count: number): HostId[] {
    for (let i = 0; i < hosts.length - 1 && i < count; i++) {
      const j = i + Math.floor(this.components.random() * (hosts.length - i))
      ;[hosts[i], hosts[j]] = [hosts[j]!, hosts[i]!]
    }
    return hosts
  }
}

export function summaryOf(set: HostRecords): SummaryEntry {
  return { host: set.host, sequence: set.sequence, complete: set.complete }
}

function* inParts<T>(entries: readonly T[]): Generator<readonly T[]> {
  for (let i = 0; i < entries.length; i += SUMMARY_ENTRIES) yield entries.slice(i, i + SUMMARY_ENTRIES)
}
