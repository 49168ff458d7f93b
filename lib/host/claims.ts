import type { Addresses } from '../service/addresses.js'
import type { ServiceCatalogue } from '../service/catalogue.js'
import type { Directory } from '../service/directory.js'
import type { RecordChange } from '../service/host-records.js'
import { CLAIMS_MAX, recordKey, type AddressClaim } from '../service/registration.js'
import type { MemberTrust } from '../service/trust.js'
import { serviceId, type HostId } from '../wire/ids.js'

export interface ClaimsComponents {
  readonly self: HostId
  readonly directory: Directory
  readonly catalogue: ServiceCatalogue
  readonly addresses: Addresses
  readonly members: MemberTrust
  /** Seconds since the epoch. */
  readonly wallNow: () => number
  /** The kernel's local addresses are to be brought in line. */
  readonly localChanged: () => void
}

/**
 * Keeps the address book in step with what all hosts claim, and publishes what this one claims. A claim counts only from whom it concerns: a host's own
 * peer address, the addresses of services it has an instance of; and nobody can have claimed anything before being a member.
 */
export class Claims {
  readonly #c: ClaimsComponents
  #records = 0
  /** Others' claims, or whether they count, may have changed. */
  #unsettled = true
  /** Own claims have changed since they were published. */
  #unpublished = true

  constructor(components: ClaimsComponents) {
    this.#c = components
  }

  get due(): boolean {
    return this.#unsettled
  }

  /** Own claims were made or given up. */
  ownChanged(): void {
    this.#unpublished = true
  }

  /** A record came, changed or went; after the catalogue has taken it. */
  recordChanged({ host, record, before }: RecordChange): void {
    const { kind } = record?.payload ?? before?.payload ?? { kind: 'withdrawn' }
    if (kind !== 'claims' && kind !== 'registration') return
    if (host !== this.#c.self) this.#c.addresses.setClaims(host, this.#claimsOf(host))
    this.#unsettled = true
  }

  /** Which instances count may have changed for any service, and with it whose claims do. */
  reviewAll(): void {
    const { directory, self, addresses } = this.#c
    for (const host of directory.hosts()) if (host !== self) addresses.setClaims(host, this.#claimsOf(host))
    this.#unsettled = true
  }

  /** Works out who has what, and publishes own claims when they have changed. */
  settle(now: number): void {
    this.#unsettled = false
    const { addresses, wallNow, localChanged } = this.#c
    const { claims, local } = addresses.settle(Math.floor(wallNow()))
    if (claims || this.#unpublished) this.#publish(now)
    if (local) localChanged()
  }

  #claimsOf(host: HostId): AddressClaim[] {
    const { directory, members } = this.#c
    const since = members.member(host)?.notBefore ?? 0
    const claims: AddressClaim[] = []
    for (const { payload } of directory.recordsOf(host)) {
      if (payload.kind !== 'claims') continue
      for (const claim of payload.claims) {
        if (this.#concerns(host, claim)) claims.push({ ...claim, since: Math.max(claim.since, since) })
      }
    }
    return claims
  }

  #concerns(host: HostId, { role, id }: AddressClaim): boolean {
    if (role === 'peer') return id === host
    return this.#c.catalogue.get(serviceId(id))?.instances.some((instance) => instance.host === host) ?? false
  }

  #publish(now: number): void {
    this.#unpublished = false
    const { addresses, directory } = this.#c
    const own = addresses.ownClaims()
    const records = []
    for (let i = 0; i < own.length; i += CLAIMS_MAX) {
      const claims = own.slice(i, i + CLAIMS_MAX)
      records.push({ payload: { kind: 'claims' as const, claims }, number: i / CLAIMS_MAX })
    }
    if (records.length > 0) directory.publish(records, now)
    const gone = []
    for (let n = records.length; n < this.#records; n++) gone.push(recordKey({ kind: 'claims', claims: [] }, n))
    if (gone.length > 0) directory.withdraw(gone, now)
    this.#records = records.length
  }
}
