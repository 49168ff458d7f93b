import { pack } from '../wire/pack.js'
import { listBytes, LIVE_BYTES_MAX } from '../wire/directory-message.js'
import { HostRecords, RECORDS_PER_HOST, type RecordChange } from './host-records.js'
import {
  decodeHeartbeat,
  encodeHeartbeat,
  encodeRecord,
  HEARTBEAT_LABEL,
  liveHash,
  membershipHash,
  RECORD_LABEL,
  type SignedRecord,
} from './record.js'
import { packPayload, type RecordPayload } from './registration.js'
import type { Hasher } from './service-id.js'
import type { Trust } from './trust.js'
import type { SignedBlob } from '../wire/signed.js'

/** This host's row of sequence numbers, persisted ahead: a number is never given out twice, whatever happens. */
export interface SequenceSource {
  next(): number
  /** Later numbers are above this one. */
  raise(above: number): void
}

export interface OwnRecordsComponents {
  readonly trust: Trust
  readonly sequence: SequenceSource
  readonly hasher: Hasher
}

/** What this host publishes: signs its records and the heartbeats over them. */
export class OwnRecords {
  readonly set: HostRecords
  readonly #components: OwnRecordsComponents
  readonly #lease: number
  /** When withdrawals may be forgotten. */
  readonly #withdrawn = new Map<string, number>()

  /** `lease`: ms for which others keep the records after a heartbeat. */
  constructor(components: OwnRecordsComponents, lease: number) {
    this.#components = components
    this.#lease = lease
    this.set = new HostRecords(components.trust.self, components.hasher)
  }

  /** Publishes or replaces; undefined: it says the same already. Throws RangeError for too many or too large records. */
  publish(
    key: string,
    payload: RecordPayload,
    now: number,
  ): { change: RecordChange; record: SignedRecord } | undefined {
    const old = this.set.get(key)
    if (old !== undefined && samePayload(old.payload, payload)) return undefined
    if (this.set.peek(key) === undefined && this.set.size >= RECORDS_PER_HOST) this.#forgetWithdrawal()
    const signed = this.#put(key, payload, now)
    this.#withdrawn.delete(key)
    return signed
  }

  /** undefined: nothing is published under the key. */
  withdraw(key: string, now: number): { change: RecordChange; record: SignedRecord } | undefined {
    if (this.set.get(key) === undefined) return undefined
    const signed = this.#put(key, { kind: 'withdrawn' }, now)
    this.#withdrawn.set(key, now + this.#lease)
    return signed
  }

  /** Signs a heartbeat over what is published now. */
  beat(now: number): void {
    for (const [key, until] of this.#withdrawn) {
      if (until > now) continue
      this.set.remove(key)
      this.#withdrawn.delete(key)
    }
    // Numbers far apart make a long list: then all records get new ones in a row.
    if (listBytes(this.set.sequences()) > LIVE_BYTES_MAX) this.#renumber(now)
    const { trust, hasher, sequence } = this.#components
    const live = this.set.sequences()
    const body = encodeHeartbeat({
      sequence: sequence.next(),
      lease: this.#lease,
      live: liveHash(live, hasher),
      membership: membershipHash(trust.membership(trust.self) ?? new Uint8Array(), hasher),
    })
    const fields = decodeHeartbeat(body)
    if (fields === undefined) throw new RangeError('heartbeat out of bounds')
    this.set.beat({ ...fields, host: trust.self, blob: trust.sign(HEARTBEAT_LABEL, body) }, now)
    this.set.live = live
  }

  /** An own heartbeat that others still have; true: it is above our numbers, and all has been signed anew above it. */
  overtake(blob: SignedBlob, now: number): boolean {
    const { trust, sequence } = this.#components
    const fields = decodeHeartbeat(blob.body)
    if (fields === undefined || fields.sequence <= this.set.sequence) return false
    if (!trust.verify(HEARTBEAT_LABEL, blob, trust.self)) return false
    sequence.raise(fields.sequence)
    this.#renumber(now)
    this.beat(now)
    return true
  }

  #renumber(now: number): void {
    for (const { key, payload } of [...this.set.all()]) this.#put(key, payload, now)
  }

  #put(key: string, payload: RecordPayload, now: number): { change: RecordChange; record: SignedRecord } {
    const { trust, sequence } = this.#components
    const lifetime = payload.kind === 'withdrawn' ? 0 : this.#lease
    const fields = { key, sequence: sequence.next(), lifetime, payload }
    const record = { ...fields, host: trust.self, blob: trust.sign(RECORD_LABEL, encodeRecord(fields)) }
    const change = this.set.put(record, now)
    if (typeof change === 'string') throw new RangeError(`record ${key} cannot be published: ${change}`)
    return { change, record }
  }

  #forgetWithdrawal(): void {
    const oldest = this.#withdrawn.keys().next().value
    if (oldest === undefined) return
    this.set.remove(oldest)
    this.#withdrawn.delete(oldest)
  }
}

function samePayload(a: RecordPayload, b: RecordPayload): boolean {
  const [x, y] = [pack(packPayload(a)), pack(packPayload(b))]
  return x.length === y.length && x.every((byte, i) => byte === y[i])
}
