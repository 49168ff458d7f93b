import type { HostId } from '../wire/ids.js'
import { liveHash, type SignedHeartbeat, type SignedRecord } from './record.js'
import type { Hasher } from './service-id.js'

export const RECORDS_PER_HOST = 256
export const BYTES_PER_HOST = 96 * 1024

interface Stored {
  readonly record: SignedRecord
  expires: number
}

/** A record that came, went or changed. Withdrawn ones count as gone. */
export interface RecordChange {
  readonly host: HostId
  readonly key: string
  readonly record: SignedRecord | undefined
  readonly before: SignedRecord | undefined
}

/** One host's records as known here: verified ones only, the caller sees to that. */
export class HostRecords {
  heartbeat: SignedHeartbeat | undefined
  /** When the host signed the heartbeat, on our clock, as far as we were told. */
  heardAt = 0
  /** Sequence numbers of the heartbeat's records; undefined: the hash is of records that we cannot name yet. */
  live: readonly number[] | undefined
  /** Our next question about what is missing, and whom to ask. */
  wantAt = Number.POSITIVE_INFINITY
  askedAt = Number.NEGATIVE_INFINITY
  source: HostId | undefined
  readonly #byKey = new Map<string, Stored>()
  readonly #bySequence = new Map<number, Stored>()
  #bytes = 0
  #sorted: readonly number[] | undefined

  constructor(
    readonly host: HostId,
    readonly hasher: Hasher,
  ) {}

  get size(): number {
    return this.#byKey.size
  }
  /** Highest sequence number of the host that is proven. */
  get sequence(): number {
    return this.heartbeat?.sequence ?? 0
  }
  /** A number that is another one whenever the host has published something else, its membership included; 0: no heartbeat. At most 2^48. */
  get version(): number {
    if (this.heartbeat === undefined) return 0
    const { live, membership } = this.heartbeat
    const word = new DataView(live.buffer, live.byteOffset).getUint32(0)
    return 1 + word * 65_536 + ((membership[0]! << 8) | membership[1]!)
  }
  /** Whether all records of the newest heartbeat are here, and no others. */
  get complete(): boolean {
    return this.live !== undefined && this.live.length === this.#bySequence.size
  }

  /** Sequence numbers of all records here, ascending. */
  sequences(): readonly number[] {
    return (this.#sorted ??= [...this.#bySequence.keys()].sort((a, b) => a - b))
  }
  has(sequence: number): boolean {
    return this.#bySequence.has(sequence)
  }
  /** The record under the key, unless it is withdrawn. */
  get(key: string): SignedRecord | undefined {
    const record = this.#byKey.get(key)?.record
    return record === undefined || record.lifetime === 0 ? undefined : record
  }
  /** Whatever is under the key, withdrawals included. */
  peek(key: string): SignedRecord | undefined {
    return this.#byKey.get(key)?.record
  }
  /** All records, withdrawals included. */
  *all(): IterableIterator<SignedRecord> {
    for (const { record } of this.#byKey.values()) yield record
  }

  /** Takes a newer heartbeat; false: it is not newer. */
  beat(heartbeat: SignedHeartbeat, heardAt: number): boolean {
    if (heartbeat.sequence <= this.sequence) return false
    this.heartbeat = heartbeat
    this.heardAt = heardAt
    this.live = undefined
    return true
  }

  /**
   * Takes the list of live records when the heartbeat's hash proves it, drops what is not on it and renews the leases of what is. Returns what
   * has gone; undefined: the list is another heartbeat's.
   */
  name(live: readonly number[]): RecordChange[] | undefined {
    const { heartbeat } = this
    if (
      heartbeat === undefined ||
      live.length > RECORDS_PER_HOST ||
      !equal(liveHash(live, this.hasher), heartbeat.live)
    ) {
      return undefined
    }
    this.live = live
    const named = new Set(live)
    const changes: RecordChange[] = []
    for (const stored of [...this.#byKey.values()]) {
      if (named.has(stored.record.sequence)) stored.expires = this.#lease(stored.record, stored.expires)
      else changes.push(...this.#remove(stored))
    }
    return changes
  }

  /** Whether a record with this number may be of use: not here, and live as far as is known. */
  lacks(sequence: number): boolean {
    if (this.#bySequence.has(sequence) || sequence > this.sequence) return false
    return this.live === undefined || this.live.includes(sequence)
  }

  /** Keeps a verified record; 'known': an equal or newer one is here, 'full': the host has too many or too large ones. */
  put(record: SignedRecord, now: number): RecordChange | 'known' | 'full' {
    const old = this.#byKey.get(record.key)
    if (old !== undefined && old.record.sequence >= record.sequence) return 'known'
    const size = record.blob.body.length - (old?.record.blob.body.length ?? 0)
    if ((old === undefined && this.#byKey.size >= RECORDS_PER_HOST) || this.#bytes + size > BYTES_PER_HOST)
      return 'full'
    const before = this.get(record.key)
    if (old !== undefined) this.#drop(old)
    const stored = { record, expires: this.#lease(record, now) }
    this.#byKey.set(record.key, stored)
    this.#bySequence.set(record.sequence, stored)
    this.#bytes += record.blob.body.length
    this.#sorted = undefined
    return { host: this.host, key: record.key, record: this.get(record.key), before }
  }

  /** Removes a record; for the host's own. */
  remove(key: string): void {
    const stored = this.#byKey.get(key)
    if (stored !== undefined) this.#drop(stored)
  }

  /** Removes what has expired. */
  expire(now: number): RecordChange[] {
    const changes: RecordChange[] = []
    for (const stored of [...this.#byKey.values()]) if (stored.expires <= now) changes.push(...this.#remove(stored))
    return changes
  }

  /** Removes everything. */
  clear(): RecordChange[] {
    return this.expire(Number.POSITIVE_INFINITY)
  }

  /** Earliest end of a lease, the heartbeat's own included. */
  nextExpiry(): number {
    let next = this.heardAt + (this.heartbeat?.lease ?? 0)
    for (const { expires } of this.#byKey.values()) if (expires < next) next = expires
    return next
  }

  #lease(record: SignedRecord, least: number): number {
    const lease = this.heartbeat?.lease ?? 0
    return Math.max(least, this.heardAt + (record.lifetime === 0 ? lease : Math.min(lease, record.lifetime)))
  }

  #remove(stored: Stored): RecordChange[] {
    const before = this.get(stored.record.key)
    this.#drop(stored)
    return before === undefined ? [] : [{ host: this.host, key: before.key, record: undefined, before }]
  }

  #drop(stored: Stored): void {
    this.#byKey.delete(stored.record.key)
    this.#bySequence.delete(stored.record.sequence)
    this.#bytes -= stored.record.blob.body.length
    this.#sorted = undefined
  }
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i])
}
