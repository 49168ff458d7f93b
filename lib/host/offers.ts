import type { Addresses } from '../service/addresses.js'
import type { Directory } from '../service/directory.js'
import { recordKey, type Registration } from '../service/registration.js'
import type { HostId, ServiceId } from '../wire/ids.js'
import type { Claims } from './claims.js'
import type { NameClaims } from './name-claims.js'

/** What a host publishes about one of its services. */
export type Offer = Pick<
  Registration,
  'service' | 'name' | 'ports' | 'priority' | 'weight' | 'state' | 'move' | 'proof'
>

/** Services that a host may offer: with their names and addresses they fit the records that it may publish. */
export const OFFERS_MAX = 100

/** What this host offers, as the records that say so: the registration, the claim of the name, the claims of its addresses. */
export class Offers {
  constructor(
    private readonly components: {
      readonly self: HostId
      readonly directory: Directory
      readonly addresses: Addresses
      readonly claims: Claims
      readonly names: NameClaims
      /** Seconds since the epoch. */
      readonly wallNow: () => number
    },
  ) {}

  has(service: ServiceId): boolean {
    const { directory, self } = this.components
    return directory.record(self, `service/${service}`) !== undefined
  }

  get room(): boolean {
    return this.registered().length < OFFERS_MAX
  }

  /** Keys of the registrations that are published. */
  registered(): string[] {
    const { directory, self } = this.components
    return directory.recordsOf(self).flatMap(({ payload, key }) => (payload.kind === 'registration' ? [key] : []))
  }

  /** Publishes or replaces; returns the service's served addresses, IPv4 first. */
  publish(offer: Offer, now: number): readonly [Uint8Array, Uint8Array] {
    const { directory, addresses, names, claims, wallNow } = this.components
    const { service, name } = offer
    const registration: Registration = { kind: 'registration', ...offer, epoch: 0, load: 0 }
    addresses.claimService(service, Math.floor(wallNow()))
    claims.ownChanged()
    const served = addresses.host(service)
    directory.publish([{ payload: registration }, { payload: names.claim(service, name) }], now)
    claims.settle(now)
    names.look(service, now)
    return served
  }

  withdraw(service: ServiceId, name: string, now: number): void {
    const { directory, addresses, names, claims } = this.components
    names.drop(service)
    directory.withdraw([`service/${service}`, nameKey(service, name)], now)
    addresses.releaseService(service)
    claims.ownChanged()
    claims.settle(now)
  }
}

function nameKey(service: ServiceId, name: string): string {
  return recordKey({ kind: 'name', service, name, since: 0, tags: [], hosts: [] })
}
