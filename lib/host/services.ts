// The services of the network, as a host knows them and offers its own.
//
//   Directory ──▶ records ──┬▶ ServiceCatalogue, Whereabouts ──▶ InstanceChoice: where a first packet may go
//                           ├▶ Claims ──▶ Addresses: what addresses services have
//                           └▶ Issuing: whose names are whose, who stays a member
//   Offers ──▶ Directory: what this host has

import type { Membership } from '../crypto/membership.js'
import { Addresses } from '../service/addresses.js'
import { ServiceCatalogue } from '../service/catalogue.js'
import { choiceDefaults, InstanceChoice } from '../service/choice.js'
import type { Directory } from '../service/directory.js'
import type { RecordChange } from '../service/host-records.js'
import type { LocalRule } from '../service/local-rules.js'
import { rulesInForce } from '../service/ownership.js'
import { ServiceTable } from '../service/service-table.js'
import { Stamps } from '../service/stamps.js'
import type { MemberTrust } from '../service/trust.js'
import type { DropReason } from '../wire/drop.js'
import type { HostId, ServiceId } from '../wire/ids.js'
import { Claims } from './claims.js'
import { conditionOf } from './condition.js'
import { Channel } from './control-channel.js'
import type { HostClock } from './host-clock.js'
import type { HostComponents, HostOptions } from './host-options.js'
import { Issuing } from './issuing.js'
import { issuingDefaults } from './issuing-options.js'
import { Loading } from './loading.js'
import { Offers, OFFERS_MAX, type Offer } from './offers.js'
import type { Peering } from './peering.js'
import { SyncHold } from './sync-hold.js'
import { Whereabouts } from './whereabouts.js'

export interface ServicesComponents {
  readonly host: HostComponents
  readonly clock: HostClock
  readonly members: MemberTrust
  readonly directory: Directory
  readonly peering: Peering
  /** Whether the policy lets the client's host reach it. */
  readonly allows: (client: HostId, service: ServiceId, protocol: number, port: number) => boolean
  /** Flows of this host's programs to the instance. */
  readonly openFlows: (service: ServiceId, host: HostId) => number
  /** First packets that are held are tried again. */
  readonly release: (now: number) => void
  readonly drop: (reason: DropReason) => void
}

export class Services {
  readonly table: ServiceTable
  readonly catalogue: ServiceCatalogue
  readonly addresses: Addresses
  readonly choice: InstanceChoice
  readonly whereabouts: Whereabouts
  readonly loading: Loading
  readonly issuing: Issuing
  readonly #c: ServicesComponents
  readonly #claims: Claims
  readonly #offers: Offers
  readonly #syncHold: SyncHold
  /** Rules for names have come: reviewed once a batch, as they come in many messages. */
  #namesRuled = false

  constructor(components: ServicesComponents, options: HostOptions) {
    const { host, clock, members, directory, peering } = components
    const { primitives, hostKey, trust, random, wallNow, events } = host
    const { peers, control, neighbours } = peering
    const { network } = trust
    const self = hostKey.id
    this.#c = components
    this.table = new ServiceTable(host.tableMemory)
    const stamps = new Stamps({ primitives, network, authority: trust.authority, revocations: trust.revocations })
    const tagsOf = (id: HostId) => members.member(id)?.tags
    this.catalogue = new ServiceCatalogue(
      { network, self },
      { primitives, tagsOf, stamps, table: this.table, memberSince: (id) => members.member(id)?.notBefore ?? 0 },
    )
    this.catalogue.setRules(rulesInForce(trust.nameRules.list()))
    this.addresses = new Addresses(
      { network, self, pool: trust.profile.ipv4Pool },
      { hasher: primitives, mappingChanged: () => events.mappingChanged() },
    )
    if (options.mappings !== undefined) this.addresses.importMappings(options.mappings)
    const { catalogue, addresses, table } = this
    this.#claims = new Claims({
      ...{ self, directory, catalogue, addresses, members, wallNow },
      localChanged: () => events.localAddressesChanged(),
    })
    this.issuing = new Issuing(
      {
        ...{ primitives, hostKey, trust, authority: host.authority, wallNow, stamps },
        ...{ peers, control, members, catalogue, directory, drop: components.drop },
        wantSession: (peer, now) => neighbours.want(peer, now),
        renewed: (membership, now) => this.#renewed(membership, now),
        certified: () => events.renewed('certificate'),
        renewalFailed: (detail) => events.renewalFailed(detail),
        claimsChanged: () => events.claimsChanged(),
      },
      { ...issuingDefaults, ...options.issuing },
      options.claims,
    )
    this.#offers = new Offers({
      ...{ self, directory, addresses, wallNow },
      ...{ claims: this.#claims, names: this.issuing.claims },
    })
    this.choice = new InstanceChoice(choiceDefaults, {
      random,
      condition: (id) => conditionOf(id, peering, clock.now),
      openFlows: (service, id) => components.openFlows(service, id),
    })
    this.whereabouts = new Whereabouts({
      ...{ self, network, hasher: primitives, peers, catalogue, choice: this.choice, table, random },
      randomBytes: (length) => primitives.randomBytes(length),
      locatorsOf: (id) => [...directory.locatorsOf(id), ...neighbours.hintsOf(id)],
      isMember: (id) => tagsOf(id) !== undefined,
      isRevoked: (id) => members.isRevoked(id),
      allows: components.allows,
      hint: (id, locator, now) => neighbours.hint(id, locator, now),
      send: (peer, message, now) => control.send(peer, Channel.query, message, now),
      release: () => (this.#syncHold.due = true),
      drop: components.drop,
    })
    this.loading = new Loading(options.loadingUntil ?? -Infinity)
    if (options.loadingUntil !== undefined) directory.hush()
    addresses.claimPeer(Math.floor(wallNow()))
    this.#syncHold = new SyncHold(table, network)
  }

  // ---- What this host offers ----

  /** Whether the service is offered already, or there is room for one more; nothing is offered by a host that was revoked. */
  mayOffer(service: ServiceId): boolean {
    return this.#c.peering.revocation === undefined && (this.#offers.has(service) || this.#offers.room)
  }

  /** As {@link Host.offer}. */
  offer(offer: Offer, now: number): readonly [Uint8Array, Uint8Array] {
    if (!this.mayOffer(offer.service)) throw new RangeError(`a host may offer ${OFFERS_MAX} services`)
    const served = this.#offers.publish(offer, now)
    this.#c.host.events.localAddressesChanged()
    return served
  }

  withdraw(service: ServiceId, name: string, now: number): void {
    this.#offers.withdraw(service, name, now)
  }

  withdrawAll(now: number): void {
    this.#c.directory.withdraw(this.#offers.registered(), now)
  }

  /** What this host has is restored. */
  loaded(now: number): void {
    this.loading.done()
    this.#c.directory.speak(now)
  }

  // ---- What is learned of others ----

  /** There is a session with the peer; `rekey`: it takes the place of another one. */
  sessionUp(peer: number, rekey: boolean, now: number): void {
    // One more who may know what is waited for.
    if (!rekey) this.#syncHold.due = true
    this.issuing.sessionUp(peer, now)
  }

  sessionLost(peer: number): void {
    this.whereabouts.asking.forget(peer)
  }

  message(peer: number, channel: number, body: Uint8Array, now: number): void {
    switch (channel) {
      case Channel.issuing:
        return this.issuing.receive(peer, body, now)
      case Channel.query:
        return this.whereabouts.asking.receive(peer, body, now)
      default:
        this.#c.drop('bad-control')
    }
  }

  /** A record, ours or another's, came, changed or went. */
  recordChanged(change: RecordChange): void {
    const payload = change.record?.payload ?? change.before?.payload
    if (this.catalogue.apply(change)) this.#syncHold.due = true
    if (payload?.kind === 'registration') this.whereabouts.learned.forget(payload.service, change.host)
    this.#claims.recordChanged(change)
    this.issuing.recordChanged(change, this.#c.clock.now)
  }

  /** Rules for names have come from others. */
  namesRuled(): void {
    this.#namesRuled = true
  }

  /** Whose names are whose, by the rules and the hosts' tags as they are now. */
  reviewNames(): void {
    this.#namesRuled = false
    this.catalogue.setRules(rulesInForce(this.#c.host.trust.nameRules.list()))
    this.#claims.reviewAll()
    this.#syncHold.due = true
  }

  /** The revocation list has grown. */
  revoked(now: number): void {
    this.reviewNames()
    this.issuing.revocationsChanged(now)
  }

  /** Puts the rules in force that people set, and no others. */
  setRules(rules: readonly LocalRule[]): void {
    this.whereabouts.setRules(rules)
  }

  // ---- Time ----

  nextTimeout(): number {
    return Math.min(
      this.#c.directory.nextTimeout(),
      this.issuing.nextTimeout(),
      this.loading.next,
      this.#claims.due ? this.#c.clock.now : Infinity,
    )
  }

  handleTimeout(now: number): void {
    this.#c.directory.handleTimeout(now)
    this.issuing.handleTimeout(now)
  }

  /** Who has which address, once many records have come. */
  settleClaims(now: number): void {
    if (this.#claims.due) this.#claims.settle(now)
  }

  /** First packets that wait for a service are tried again, and refused once nothing more is to come. */
  release(now: number): void {
    if (this.#namesRuled) {
      this.reviewNames()
      this.#c.host.events.namesRuled()
    }
    this.#syncHold.look(this.#c.directory.synced)
    if (!this.#syncHold.due) return
    this.#syncHold.due = false
    this.#c.release(now)
  }

  // ---- Inside ----

  /** The trust store has a new membership of ours. */
  #renewed(membership: Membership, now: number): void {
    this.#c.host.events.renewed('membership')
    this.#c.peering.membershipRenewed(membership)
    this.#c.directory.membershipRenewed(now)
  }
}
