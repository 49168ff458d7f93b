// The directory: every host's records, spread from host to host until all have them.
//
//   push     what this host changes goes to all connected peers at once; news of others go on to some of them, to the rest as a summary
//   repair   now and then, and at each new session, two hosts compare digests, then summaries; whoever lacks something asks for it
//   lease    a host's heartbeat renews its records; without one they expire, on our monotonic clock. Heartbeats that bring nothing else are gathered and
//            passed on to a few peers; whoever misses one for long asks for it
//
// Nothing is kept that is not signed by its host, and no host is believed whose membership is not known and valid.

import {
  decodeDirectoryMessage,
  listBytes,
  LIST_DIGEST,
  LIVE_BYTES_MAX,
  type Beat,
  type Bundle,
  type DirectoryMessage,
  type LateEntry,
  type SummaryEntry,
} from '../wire/directory-message.js'
import type { Locator } from '../path/locator.js'
import type { HostId } from '../wire/ids.js'
import type { SignedBlob } from '../wire/signed.js'
import { DirectoryDigest } from './digest.js'
import { DirectoryPeers, summaryOf, type SpreadOptions } from './directory-peers.js'
import type { HostRecords, RecordChange } from './host-records.js'
import { KnownHosts, type DirectoryCounters } from './known-hosts.js'
import { OwnRecords, type OwnRecordsComponents } from './own-records.js'
import type { SignedRecord } from './record.js'
import { recordKey, type RecordPayload } from './registration.js'

export interface DirectoryOptions extends SpreadOptions {
  /** ms that others keep our records after a heartbeat; heartbeats come three times as often. */
  readonly lease: number
  /** ms between comparisons with one peer, in turn. */
  readonly compareEvery: number
  /** ms between questions about the same host. */
  readonly askEvery: number
  /** ms after the first session from which we count as synchronised, whatever has come. */
  readonly syncWithin: number
  readonly hostsMax: number
}

export const directoryDefaults: DirectoryOptions = {
  lease: 120_000,
  compareEvery: 10_000,
  fanOut: 6,
  gather: 50,
  beatGather: 2_000,
  beatFanOut: 4,
  askEvery: 500,
  syncWithin: 2_000,
  hostsMax: 16_384,
}

export interface DirectoryComponents extends OwnRecordsComponents {
  /** Uniform in [0, 1). */
  readonly random: () => number
}

export interface DirectorySink {
  /** One control message of at most CONTROL_MESSAGE_MAX bytes; it may be lost with its session. */
  send(to: HostId, message: Uint8Array): void
  /** A record, ours or another's, came, changed or went. Not called for what stays the same. */
  changed(change: RecordChange): void
  /** A heartbeat of another host, newer than all before. True: others are to have it at once. */
  heartbeat?(host: HostId, now: number): boolean
  /** Revocations have come from others: sessions with hosts they cover are to end, the list is to be kept. */
  revoked(): void
  /** Rules for names have come from others: names are to be reviewed, the list is to be kept. */
  namesRuled(): void
}

const STRANGERS_MAX = 1_024

export class Directory {
  readonly counters: DirectoryCounters = {
    ...{ malformed: 0, 'not-member': 0, 'bad-signature': 0, stale: 0, full: 0 },
    ...{ sent: 0, received: 0, stored: 0, expired: 0, asked: 0 },
  }
  readonly #options: DirectoryOptions
  readonly #components: DirectoryComponents
  readonly #sink: DirectorySink
  readonly #own: OwnRecords
  readonly #hosts: KnownHosts
  readonly #peers: DirectoryPeers
  readonly #digest = new DirectoryDigest()
  /** When we last asked for the membership of hosts we know none of. */
  readonly #strangers = new Map<HostId, number>()
  #synced = false
  #quiet = false
  #beatAt = Number.POSITIVE_INFINITY
  #compareAt = Number.POSITIVE_INFINITY
  #syncAt = Number.POSITIVE_INFINITY
  #expireAt = Number.POSITIVE_INFINITY
  #wantAt = Number.POSITIVE_INFINITY

  constructor(options: DirectoryOptions, components: DirectoryComponents, sink: DirectorySink) {
    this.#options = options
    this.#components = components
    this.#sink = sink
    const { trust, hasher, random } = components
    this.#own = new OwnRecords(components, options.lease)
    const send = (to: HostId, message: Uint8Array) => sink.send(to, message)
    const { counters } = this
    this.#peers = new DirectoryPeers(options, { random, counters, set: (host) => this.#set(host), send })
    this.#hosts = new KnownHosts(trust, hasher, this.#digest, this.counters, options.hostsMax)
  }

  /** Whether what is known is likely whole: we have agreed with a peer once, or waited for it long enough. */
  get synced(): boolean {
    return this.#synced
  }
  /** For a host that has nobody to ask: a new network. */
  markSynced(): void {
    this.#synced = true
    this.#syncAt = Number.POSITIVE_INFINITY
  }

  /** From now on nothing is said of this host: what it published before a restart stands with the others until {@link speak}. */
  hush(): void {
    this.#quiet = true
  }
  /** What was published meanwhile is told to all peers at once. */
  speak(now: number): void {
    if (!this.#quiet) return
    this.#quiet = false
    this.#own.beat(now)
    this.#pushOwn(now)
  }

  /** Publishes records, or replaces those with the same keys, and tells all peers. `number` tells several records of claims apart. */
  publish(records: readonly { readonly payload: RecordPayload; readonly number?: number }[], now: number): void {
    this.#announce(
      records.map(({ payload, number }) => this.#own.publish(recordKey(payload, number), payload, now)),
      now,
    )
  }

  /** Withdraws what was published under these keys ({@link recordKey}). */
  withdraw(keys: readonly string[], now: number): void {
    this.#announce(
      keys.map((key) => this.#own.withdraw(key, now)),
      now,
    )
  }

  /** This host's membership was renewed: others are to fetch it. */
  membershipRenewed(now: number): void {
    this.#beat(now)
  }

  /** The revocation list has grown by another way than from others through here. Tells the peers, drops what the revoked have published. */
  revocationsChanged(): void {
    const items = this.#components.trust.revocations()
    this.#peers.sendItemsToAll('revocations', items)
    this.#recheck()
  }

  /** A rule for a name was added by another way than from others through here. Tells the peers. */
  nameRuleAdded(item: Uint8Array): void {
    this.#peers.sendItemsToAll('names', [item])
  }

  /** There is a session with the host now. */
  peerUp(host: HostId, now: number): void {
    this.#peers.add(host)
    this.#hello(host)
    if (this.#own.set.heartbeat === undefined) this.#beat(now)
    else if (!this.#quiet)
      this.#peers.sendBundles(host, this.#own.set, { live: true, records: [...this.#own.set.all()] }, now)
    this.#peers.send(host, { kind: 'digest', reply: false, groups: this.#digest.bytes() })
    this.#compareAt = Math.min(this.#compareAt, now + this.#compareInterval())
    if (!this.#synced) this.#syncAt = Math.min(this.#syncAt, now + this.#options.syncWithin)
  }

  /** The session with the host was made anew. It may have been restarted in between, and we would not know: what was said before may be lost. */
  peerRenewed(host: HostId): void {
    if (this.#peers.has(host)) this.#hello(host)
  }

  peerDown(host: HostId): void {
    this.#peers.delete(host)
    if (this.#peers.size === 0) this.#compareAt = Number.POSITIVE_INFINITY
  }

  /** A message from a host we have a session with. Any bytes are allowed. */
  receive(from: HostId, bytes: Uint8Array, now: number): void {
    const message = decodeDirectoryMessage(bytes)
    this.counters.received++
    if (message === undefined) {
      this.counters.malformed++
      return
    }
    switch (message.kind) {
      case 'hello':
        if (message.yours !== undefined && this.#overtakes(message.yours, now)) this.#pushOwn(now)
        if (!equal(message.revocations, this.#revocationDigest())) {
          this.#peers.sendItems(from, 'revocations', this.#components.trust.revocations())
        }
        if (message.names !== undefined && !equal(message.names, this.#nameRuleDigest())) {
          this.#peers.sendItems(from, 'names', this.#components.trust.nameRules())
        }
        return
      case 'revocations':
        return this.#receiveRevocations(from, message.items)
      case 'names':
        return this.#receiveNames(from, message.items)
      case 'digest':
        return this.#receiveDigest(from, message.groups, message.reply)
      case 'summary':
        for (const entry of message.entries) this.#receiveSummary(from, entry, now)
        if (this.#wantAt <= now) this.#askForMissing(now)
        return
      case 'want':
        return this.#receiveWant(from, message, now)
      case 'bundle':
        return this.#receiveBundle(from, message, now)
      case 'beats':
        for (const beat of message.beats) this.learn(from, beat, now)
        return
      case 'late':
        return this.#receiveLate(from, message.entries, now)
    }
  }

  /** When {@link handleTimeout} is to be called; Infinity: not before something else happens. */
  nextTimeout(): number {
    const spreading = Math.min(this.#beatAt, this.#compareAt, this.#peers.nextTimeout())
    return Math.min(spreading, this.#syncAt, this.#expireAt, this.#wantAt)
  }

  handleTimeout(now: number): void {
    if (this.#beatAt <= now) this.#beat(now)
    if (this.#expireAt <= now) this.#expire(now)
    if (this.#wantAt <= now) this.#askForMissing(now)
    this.#peers.handleTimeout(now)
    if (this.#compareAt <= now) this.#compare(now)
    if (this.#syncAt <= now) this.markSynced()
  }

  /** The newest heartbeat known of the host, this one included, and when it was signed. */
  heartbeatOf(
    host: HostId,
  ): { readonly sequence: number; readonly blob: SignedBlob; readonly signedAt: number } | undefined {
    const set = this.#set(host)
    return set?.heartbeat && { sequence: set.sequence, blob: set.heartbeat.blob, signedAt: set.heardAt }
  }
  /** Takes a heartbeat that came by another way than in a message to {@link receive}, if it is valid and new. */
  learn(from: HostId, beat: Beat, now: number): void {
    this.#receiveBundle(from, { kind: 'bundle', ...beat, records: [] }, now)
  }
  /** Signs a heartbeat above the sequence, and tells all peers at once: this host lives. */
  refute(sequence: number, now: number): void {
    if (sequence >= this.#own.set.sequence) this.#beat(now)
  }

  /** Goes up when a host comes to {@link hosts} or goes. */
  get hostsVersion(): number {
    return this.#hosts.version
  }
  /** All hosts with records here, this one included. */
  hosts(): HostId[] {
    return [this.#components.trust.self, ...this.#hosts.ids()]
  }
  /** The host's records that are not withdrawn. */
  recordsOf(host: HostId): SignedRecord[] {
    return [...(this.#set(host)?.all() ?? [])].filter((record) => record.lifetime > 0)
  }
  record(host: HostId, key: string): SignedRecord | undefined {
    return this.#set(host)?.get(key)
  }
  /** Whether what the host published under the key is gone because it took it back. */
  withdrew(host: HostId, key: string): boolean {
    return this.#set(host)?.peek(key)?.lifetime === 0
  }
  /** Where the host says that it can be reached. */
  locatorsOf(host: HostId): readonly Locator[] {
    const payload = this.record(host, 'locators')?.payload
    return payload?.kind === 'locators' ? payload.locators : []
  }
  /** ms since the host signed its newest heartbeat, as far as we were told; undefined: none known. */
  age(host: HostId, now: number): number | undefined {
    const set = this.#set(host)
    return set?.heartbeat === undefined ? undefined : now - set.heardAt
  }

  // ---- What this host says ----

  #announce(signed: readonly ({ change: RecordChange; record: SignedRecord } | undefined)[], now: number): void {
    const news = signed.filter((one) => one !== undefined)
    if (news.length === 0) return
    if (!this.#quiet) {
      this.#own.beat(now)
      this.#ownChanged(now)
      const records = news.map(({ record }) => this.#own.set.peek(record.key) ?? record)
      this.#peers.sendToAll(this.#own.set, { live: true, records }, now)
    }
    for (const { change } of news) this.#sink.changed(change)
  }

  #beat(now: number): void {
    if (this.#quiet) return
    this.#own.beat(now)
    this.#ownChanged(now)
    this.#peers.sendToAll(this.#own.set, { live: false, records: [] }, now)
  }

  /** Others have a heartbeat of ours that is above our numbers, and all was signed anew. Asked again when we speak. */
  #overtakes(heartbeat: SignedBlob, now: number): boolean {
    return !this.#quiet && this.#own.overtake(heartbeat, now)
  }

  #pushOwn(now: number): void {
    this.#ownChanged(now)
    const records = [...this.#own.set.all()]
    this.#peers.sendToAll(this.#own.set, { live: true, records }, now)
  }

  #ownVersion = 0
  #ownChanged(now: number): void {
    const { version, host } = this.#own.set
    this.#digest.change(host, this.#ownVersion, version)
    this.#ownVersion = version
    this.#beatAt = now + this.#options.lease / 3
  }

  #hello(to: HostId): void {
    const yours = this.#hosts.lastHeartbeat(to)?.blob
    const digests = { revocations: this.#revocationDigest(), names: this.#nameRuleDigest() }
    this.#peers.send(to, { kind: 'hello', ...digests, ...(yours === undefined ? {} : { yours }) })
  }

  // ---- What others say ----

  #receiveRevocations(from: HostId, items: readonly Uint8Array[]): void {
    const fresh = items.filter((item) => this.#components.trust.revoke(item))
    if (fresh.length === 0) return
    this.#peers.sendItemsToAll('revocations', fresh, from)
    this.#recheck()
    this.#sink.revoked()
  }

  #receiveNames(from: HostId, items: readonly Uint8Array[]): void {
    const fresh = items.filter((item) => this.#components.trust.addNameRule(item))
    if (fresh.length === 0) return
    this.#peers.sendItemsToAll('names', fresh, from)
    this.#sink.namesRuled()
  }

  #receiveDigest(from: HostId, groups: Uint8Array, reply: boolean): void {
    const differing = this.#digest.differing(groups)
    if (reply) this.#peers.send(from, { kind: 'digest', reply: false, groups: this.#digest.bytes() })
    if (differing.size === 0) return this.#agreed()
    const entries: SummaryEntry[] = []
    for (const host of this.hosts()) {
      const set = this.#set(host)
      if (set?.heartbeat !== undefined && differing.has(DirectoryDigest.group(host))) entries.push(summaryOf(set))
    }
    this.#peers.sendSummary(from, entries)
  }

  #receiveSummary(from: HostId, entry: SummaryEntry, now: number): void {
    if (entry.host === this.#components.trust.self) {
      // It may be our own from before a loss of state: then we need to see it.
      if (entry.sequence > this.#own.set.sequence) this.#ask(from, entry.host)
      return
    }
    const known = this.#hosts.get(entry.host)
    if (known === undefined) {
      if (entry.sequence > (this.#hosts.lastHeartbeat(entry.host)?.sequence ?? 0))
        this.#askStranger(from, entry.host, now)
    } else if (
      entry.sequence > known.sequence ||
      (entry.sequence === known.sequence && !known.complete && entry.complete)
    ) {
      known.source = from
      this.#wantSoon(known, now)
    }
  }

  #receiveWant(from: HostId, want: Extract<DirectoryMessage, { kind: 'want' }>, now: number): void {
    const set = this.#set(want.host)
    if (set === undefined) return
    const have = new Set(want.have)
    const records = [...set.all()].filter((record) => !have.has(record.sequence))
    const membership = want.membership ? this.#components.trust.membership(want.host) : undefined
    this.#peers.sendBundles(from, set, { live: true, records, membership }, now)
  }

  #receiveBundle(from: HostId, bundle: Bundle, now: number): void {
    const { host } = bundle
    if (host === this.#components.trust.self) {
      if (this.#overtakes(bundle.heartbeat, now)) this.#pushOwn(now)
      return
    }
    const result = this.#hosts.take(bundle, now)
    if (result.kind === 'stranger' && bundle.membership === undefined) this.#askStranger(from, host, now)
    // A host that has lost its state speaks with numbers of the past: show it where it was.
    if (result.kind === 'stale' && from === host) this.#hello(host)
    if (result.kind !== 'taken') return
    const { set, fresh, named, stored } = result
    this.#strangers.delete(host)
    for (const change of result.changes) this.#sink.changed(change)
    this.#expireAt = Math.min(this.#expireAt, set.nextExpiry())
    if (result.oldMembership)
      this.#peers.send(from, { kind: 'want', host, membership: true, have: fitting(set.sequences()) })
    if (set.complete) {
      set.wantAt = Number.POSITIVE_INFINITY
    } else {
      // Not whoever spoke last: two that lack the same would ask each other for ever.
      if (fresh || from === host) set.source = from
      this.#wantSoon(set, now + this.#options.gather)
    }
    const urgent = fresh && this.#sink.heartbeat?.(host, now) === true
    if (stored.length > 0 || named || urgent) this.#peers.forward(set, stored, from, now)
    else if (fresh && !(from === host && this.#isMesh)) this.#peers.passOnLater(host, from, now)
  }

  /** Every host that is known here has a session with us: so it is, presumably, with all others, and what a host says itself need not be repeated. */
  get #isMesh(): boolean {
    return this.#peers.size >= this.#hosts.size
  }

  #receiveLate(from: HostId, entries: readonly LateEntry[], now: number): void {
    const newer = entries.filter(({ host, sequence }) => (this.#set(host)?.sequence ?? 0) > sequence)
    this.#peers.sendBeats(
      from,
      newer.map(({ host }) => host),
      now,
    )
  }

  // ---- Repair ----

  /** Asks for heartbeats that have not come although they should have: one is missed, with some time for it to spread. */
  #askForLate(to: HostId, now: number): void {
    const late: LateEntry[] = []
    for (const { host, heardAt, sequence, heartbeat } of this.#hosts.all()) {
      if (heartbeat !== undefined && now - heardAt >= heartbeat.lease / 2) late.push({ host, sequence })
    }
    this.#peers.sendLate(to, late)
  }

  #compareInterval(): number {
    return this.#synced ? this.#options.compareEvery : 4 * this.#options.gather
  }

  #compare(now: number): void {
    this.#compareAt = now + this.#compareInterval()
    const peer = this.#peers.any()
    if (peer !== undefined) {
      this.#peers.send(peer, { kind: 'digest', reply: true, groups: this.#digest.bytes() })
      this.#askForLate(peer, now)
    }
    this.#recheck()
  }

  #wantSoon(set: HostRecords, earliest: number): void {
    const at = Math.max(earliest, set.askedAt + this.#options.askEvery)
    if (set.wantAt === Number.POSITIVE_INFINITY || at < set.wantAt) set.wantAt = at
    this.#wantAt = Math.min(this.#wantAt, set.wantAt)
  }

  #askForMissing(now: number): void {
    this.#wantAt = Number.POSITIVE_INFINITY
    for (const set of this.#hosts.all()) {
      if (set.wantAt <= now) {
        const source = this.#sourceOf(set)
        set.wantAt = source === undefined ? Number.POSITIVE_INFINITY : now + this.#options.askEvery
        if (source !== undefined) {
          set.askedAt = now
          this.#ask(source, set.host)
        }
      }
      this.#wantAt = Math.min(this.#wantAt, set.wantAt)
    }
  }

  /** Whom to ask for what is missing: the host itself, else who told us first of its newest heartbeat, else anybody; undefined: there is nobody. */
  #sourceOf(set: HostRecords): HostId | undefined {
    if (this.#peers.has(set.host)) return set.host
    if (set.source !== undefined && this.#peers.has(set.source)) return set.source
    return this.#peers.any()
  }

  #ask(from: HostId, host: HostId): void {
    this.counters.asked++
    const set = this.#hosts.get(host)
    const membership = this.#components.trust.membership(host) === undefined
    this.#peers.send(from, { kind: 'want', host, membership, have: fitting(set?.sequences() ?? []) })
  }

  #askStranger(from: HostId, host: HostId, now: number): void {
    if (now - (this.#strangers.get(host) ?? Number.NEGATIVE_INFINITY) < this.#options.askEvery) return
    if (this.#strangers.size >= STRANGERS_MAX) dropFirst(this.#strangers)
    this.#strangers.set(host, now)
    this.#ask(from, host)
  }

  // ---- Keeping ----

  #expire(now: number): void {
    for (const change of this.#hosts.expire(now)) this.#sink.changed(change)
    this.#expireAt = Math.max(this.#hosts.nextExpiry(), now + 1_000)
  }

  /** Drops the records of hosts that are members no more. */
  #recheck(): void {
    for (const change of this.#hosts.dropStrangers()) this.#sink.changed(change)
  }

  #set(host: HostId): HostRecords | undefined {
    return host === this.#components.trust.self ? this.#own.set : this.#hosts.get(host)
  }

  #revocationDigest(): Uint8Array {
    return this.#components.trust.revocationDigest().slice(0, LIST_DIGEST)
  }

  #nameRuleDigest(): Uint8Array {
    return this.#components.trust.nameRuleDigest().slice(0, LIST_DIGEST)
  }

  #agreed(): void {
    for (const set of this.#hosts.all()) if (!set.complete) return
    this.markSynced()
  }
}

/** The numbers that a message has room for, the lowest: whoever numbers its records far apart gets some of them told again. */
function fitting(numbers: readonly number[]): readonly number[] {
  let count = numbers.length
  while (listBytes(numbers.slice(0, count)) > LIVE_BYTES_MAX) count = Math.floor((count * 3) / 4)
  return count === numbers.length ? numbers : numbers.slice(0, count)
}

function dropFirst<K, V>(map: Map<K, V>): void {
  for (const key of map.keys()) {
    map.delete(key)
    return
  }
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i])
}
