import type { Bundle } from '../wire/directory-message.js'
import type { HostId } from '../wire/ids.js'
import type { DirectoryDigest } from './digest.js'
import { HostRecords, type RecordChange } from './host-records.js'
import {
  decodeHeartbeat,
  decodeRecord,
  HEARTBEAT_LABEL,
  membershipHash,
  RECORD_LABEL,
  type SignedHeartbeat,
  type SignedRecord,
} from './record.js'
import type { Hasher } from './service-id.js'
import type { Trust } from './trust.js'

/** What can be wrong with what others send, and what was kept of it; counted. */
export interface DirectoryCounters {
  malformed: number
  'not-member': number
  'bad-signature': number
  stale: number
  full: number
  sent: number
  received: number
  stored: number
  expired: number
  asked: number
}

export type BundleResult =
  /** Its host's membership is not known. */
  | { readonly kind: 'stranger' }
  /** Older than what is here. */
  | { readonly kind: 'stale' }
  | { readonly kind: 'refused' }
  | {
      readonly kind: 'taken'
      readonly set: HostRecords
      /** The heartbeat was new. */
      readonly fresh: boolean
      /** A list told us which records live. */
      readonly named: boolean
      readonly stored: readonly SignedRecord[]
      readonly changes: readonly RecordChange[]
      /** The host has another membership than the one we know. */
      readonly oldMembership: boolean
    }

/** Last heartbeats of hosts that are gone, kept so that late copies of their records do not come back. */
const FORGOTTEN_MAX = 4_096

/** The records of all other hosts, verified and bounded. */
export class KnownHosts {
  readonly #hosts = new Map<HostId, HostRecords>()
  readonly #forgotten = new Map<HostId, SignedHeartbeat>()

  constructor(
    readonly trust: Trust,
    readonly hasher: Hasher,
    readonly digest: DirectoryDigest,
    readonly counters: DirectoryCounters,
    readonly hostsMax: number,
  ) {}

  /** Goes up when a host comes or goes. */
  version = 0

  get size(): number {
    return this.#hosts.size
  }
  get(host: HostId): HostRecords | undefined {
    return this.#hosts.get(host)
  }
  all(): IterableIterator<HostRecords> {
    return this.#hosts.values()
  }
  ids(): IterableIterator<HostId> {
    return this.#hosts.keys()
  }
  /** Newest heartbeat ever seen of the host, also when its records are gone. */
  lastHeartbeat(host: HostId): SignedHeartbeat | undefined {
    return this.#hosts.get(host)?.heartbeat ?? this.#forgotten.get(host)
  }

  /** Takes what is new and proven in a bundle about another host. */
  take(bundle: Bundle, now: number): BundleResult {
    const { host } = bundle
    if (bundle.membership !== undefined) this.trust.learn(bundle.membership, host)
    const membership = this.trust.membership(host)
    if (membership === undefined) {
      this.counters['not-member']++
      return { kind: 'stranger' }
    }
    const heartbeat = this.#read(bundle)
    if (typeof heartbeat === 'string') return { kind: heartbeat }
    const set = this.#hosts.get(host) ?? this.#admit(host)
    if (set === undefined) return { kind: 'refused' }
    const before = set.version
    const fresh = set.beat(heartbeat, now - bundle.age)
    if (fresh) this.digest.change(host, before, set.version)

    const changes: RecordChange[] = []
    const named = bundle.live !== undefined && name(set, bundle.live, changes)
    const stored = this.#store(set, bundle, changes, now)
    // Without a list, the records that are here may be the very ones the hash is of.
    name(set, set.sequences(), changes)
    const oldMembership = fresh && !equal(heartbeat.membership, membershipHash(membership, this.hasher))
    return {
      kind: 'taken',
      set,
      fresh,
      named,
      stored,
      changes: changes.filter((c) => c.before !== c.record),
      oldMembership,
    }
  }

  /** Removes what has expired. */
  expire(now: number): RecordChange[] {
    const gone: RecordChange[] = []
    for (const set of [...this.#hosts.values()]) {
      if (set.nextExpiry() > now) continue
      gone.push(...set.expire(now))
      if (set.size === 0 && set.nextExpiry() <= now) this.#forget(set)
    }
    this.counters.expired += gone.length
    return gone
  }

  nextExpiry(): number {
    let next = Number.POSITIVE_INFINITY
    for (const set of this.#hosts.values()) next = Math.min(next, set.nextExpiry())
    return next
  }

  /** Removes hosts that are members no more. */
  dropStrangers(): RecordChange[] {
    const gone: RecordChange[] = []
    for (const set of [...this.#hosts.values()]) {
      if (this.trust.membership(set.host) !== undefined) continue
      gone.push(...set.clear())
      this.#forget(set)
    }
    return gone
  }

  /** The bundle's heartbeat when it is as new as the one we have; a newer one has been verified. */
  #read(bundle: Bundle): SignedHeartbeat | 'stale' | 'refused' {
    const { host } = bundle
    const fields = decodeHeartbeat(bundle.heartbeat.body)
    if (fields === undefined) {
      this.counters.malformed++
      return 'refused'
    }
    const known = this.#hosts.get(host)?.heartbeat
    if (fields.sequence === known?.sequence) return known
    if (fields.sequence <= (this.lastHeartbeat(host)?.sequence ?? 0) || bundle.age >= fields.lease) {
      this.counters.stale++
      return 'stale'
    }
    if (!this.trust.verify(HEARTBEAT_LABEL, bundle.heartbeat, host)) {
      this.counters['bad-signature']++
      return 'refused'
    }
    return { ...fields, host, blob: bundle.heartbeat }
  }

  #store(set: HostRecords, bundle: Bundle, changes: RecordChange[], now: number): SignedRecord[] {
    const stored: SignedRecord[] = []
    for (const blob of bundle.records) {
      const fields = decodeRecord(blob.body)
      if (fields === undefined) {
        this.counters.malformed++
        continue
      }
      if (!set.lacks(fields.sequence)) continue
      if (!this.trust.verify(RECORD_LABEL, blob, set.host)) {
        this.counters['bad-signature']++
        continue
      }
      const record = { ...fields, host: set.host, blob }
      const change = set.put(record, now)
      if (change === 'full') this.counters.full++
      if (typeof change === 'string') continue
      this.counters.stored++
      stored.push(record)
      merge(changes, change)
    }
    return stored
  }

  #admit(host: HostId): HostRecords | undefined {
    if (this.#hosts.size >= this.hostsMax) {
      this.counters.full++
      return undefined
    }
    const set = new HostRecords(host, this.hasher)
    this.#hosts.set(host, set)
    this.version++
    this.#forgotten.delete(host)
    return set
  }

  #forget(set: HostRecords): void {
    this.#hosts.delete(set.host)
    this.version++
    this.digest.change(set.host, set.version, 0)
    const oldest = this.#forgotten.keys().next().value
    if (this.#forgotten.size >= FORGOTTEN_MAX && oldest !== undefined) this.#forgotten.delete(oldest)
    if (set.heartbeat !== undefined) this.#forgotten.set(set.host, set.heartbeat)
  }
}

function name(set: HostRecords, live: readonly number[], changes: RecordChange[]): boolean {
  if (set.live !== undefined) return false
  const gone = set.name(live)
  for (const change of gone ?? []) merge(changes, change)
  return gone !== undefined
}

/** Several changes of one key within one message are one change. */
function merge(changes: RecordChange[], change: RecordChange): void {
  const at = changes.findIndex((other) => other.key === change.key)
  if (at < 0) changes.push(change)
  else changes[at] = { ...change, before: changes[at]!.before }
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i])
}
