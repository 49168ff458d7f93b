// The catalogue: what the records in the directory mean. Which services there are, whose their names are, which instances count, and which are
// conflicts. Keeps the service table's rules for instances in step.

import type { Primitives } from '../crypto/primitives.js'
import type { Stamp } from '../crypto/stamp.js'
import { fromHex, type HostId, type NetworkId, type ServiceId } from '../wire/ids.js'
import type { RecordChange } from './host-records.js'
import { isProven } from './name-proof.js'
import {
  belongs,
  bounded,
  firstClaim,
  ownerOf,
  unowned,
  type ClaimOfName,
  type NameOwner,
  type NameRule,
  type Title,
} from './ownership.js'
import type { InstanceState, MoveKind, NameClaim, PortMapping, Registration } from './registration.js'
import { exactPrefix, parseServiceName, serviceIdOf, type ServiceName } from './service-id.js'
import type { ServiceTable } from './service-table.js'
import type { Stamps } from './stamps.js'

/** A registration that counts, its priority and weight within what its owner may ask for. */
export interface Instance {
  readonly service: ServiceId
  readonly name: string
  readonly host: HostId
  readonly ports: readonly PortMapping[]
  readonly priority: number
  readonly weight: number
  readonly state: InstanceState
  readonly epoch: number
  readonly move: MoveKind
  readonly load: number
}

/** A registration that is ignored, for `doctor`. */
export interface Conflict {
  readonly name: string
  readonly host: HostId
  readonly reason: 'bad-name' | 'bad-proof' | 'not-owner' | 'not-member'
  /** One sentence without a full stop. */
  readonly detail: string
}

export interface ServiceView {
  readonly service: ServiceId
  readonly name: string
  readonly owner: NameOwner
  /** In order of their hosts. */
  readonly instances: readonly Instance[]
}

/** A name that something is known of, whether or not it has an instance that counts. */
export interface KnownName {
  readonly name: string
  readonly kind: ServiceName['kind']
  readonly owner: NameOwner
  /** Wall time of the claim that counts, s. */
  readonly claimedSince: number | undefined
}

export interface CatalogueOptions {
  readonly network: NetworkId
  readonly self: HostId
}

export interface CatalogueComponents {
  readonly primitives: Primitives
  /** Tags of a member; undefined: no member (any more). */
  readonly tagsOf: (host: HostId) => readonly string[] | undefined
  /** Wall time since which the host is a member, s. */
  readonly memberSince?: (host: HostId) => number
  /** Left out: no claim is stamped. */
  readonly stamps?: Stamps
  readonly table: ServiceTable
}

interface Service {
  readonly id: ServiceId
  readonly name: ServiceName
  readonly registrations: Map<HostId, Registration>
  readonly claims: Map<HostId, { readonly claim: NameClaim; readonly stamp: Stamp | undefined }>
  owner: NameOwner
  view: ServiceView | undefined
  conflicts: readonly Conflict[]
  /** Where it stands in {@link ServiceCatalogue}'s list; -1: it has no instance that counts. */
  listed: number
}

const INSTANCE = 'instance/'

export class ServiceCatalogue {
  readonly #options: CatalogueOptions
  readonly #components: CatalogueComponents
  readonly #services = new Map<ServiceId, Service>()
  readonly #byName = new Map<string, ServiceId>()
  /** Those with an instance that counts: of one that leaves, the last takes the place. */
  readonly #listed: Service[] = []
  /** Services at or below each domain that have an instance. */
  readonly #domains = new Map<string, number>()
  /** Registrations whose name is not what their ID says. */
  readonly #misnamed = new Map<string, Conflict>()
  #rules: ReadonlyMap<string, NameRule> = new Map()

  constructor(options: CatalogueOptions, components: CatalogueComponents) {
    this.#options = options
    this.#components = components
  }

  /** Takes a change of the directory; true: it is about a service, whose view may differ now. */
  apply(change: RecordChange): boolean {
    const { host, record, before } = change
    const old = before?.payload
    const payload = record?.payload
    let touched = false
    if (old?.kind === 'registration' && payload?.kind !== 'registration')
      touched = this.#remove(old, host, 'registrations')
    if (old?.kind === 'name' && payload?.kind !== 'name') touched = this.#remove(old, host, 'claims') || touched
    if (payload?.kind !== 'registration' && payload?.kind !== 'name') return touched
    if (old?.kind === 'registration') this.#misnamed.delete(misnamedKey(old, host))
    const service = this.#service(payload, host)
    if (service === undefined) return true
    if (payload.kind === 'registration') service.registrations.set(host, payload)
    else service.claims.set(host, { claim: payload, stamp: this.#components.stamps?.open(host, payload) })
    this.#review(service)
    return true
  }

  /** The rules in force, by name, have changed. */
  setRules(rules: ReadonlyMap<string, NameRule>): void {
    this.#rules = rules
    this.review()
  }

  /** Hosts' tags have changed. */
  review(): void {
    for (const service of this.#services.values()) this.#review(service)
  }

  /** The service, when it has an instance that counts. */
  get(service: ServiceId): ServiceView | undefined {
    return this.#services.get(service)?.view
  }
  /** By canonical name. */
  byName(name: string): ServiceView | undefined {
    const id = this.#byName.get(name)
    return id === undefined ? undefined : this.get(id)
  }
  /** Name of a service of which anything is known. */
  nameOf(service: ServiceId): string | undefined {
    return this.#services.get(service)?.name.text
  }
  /** Whose claim of the name comes first, whatever the rules say; undefined: nobody's. */
  firstClaim(service: ServiceId): ClaimOfName | undefined {
    const { tagsOf, memberSince } = this.#components
    return firstClaim(this.#claims(this.#services.get(service)), tagsOf, memberSince)
  }
  /** What the host's claim of the name is worth; undefined: it has no stamp that counts. */
  titleOf(service: ServiceId, host: HostId): Title | undefined {
    return this.#claims(this.#services.get(service)).find((one) => one.host === host)?.title
  }
  /** Whether a service has this name or one that ends in it. */
  hasDomain(domain: string): boolean {
    return this.#domains.has(domain)
  }
  /** How many services there are with an instance that counts. */
  get count(): number {
    return this.#listed.length
  }
  /** All services with an instance that counts. */
  services(): ServiceView[] {
    return this.#listed.flatMap((service) => service.view ?? [])
  }
  /**
   * Some of them, at most `most`, and where to go on; `from` undefined: the first, `next` undefined: the last. One that is there all the while is in one of the parts at least; in more than one it may be where others
   * leave meanwhile.
   */
  some(from: number | undefined, most: number): { readonly views: ServiceView[]; readonly next: number | undefined } {
    const end = Math.min(from ?? Infinity, this.#listed.length)
    const start = Math.max(0, end - most)
    const views = this.#listed.slice(start, end).flatMap((service) => service.view ?? [])
    return { views, next: start === 0 ? undefined : start }
  }
  /** Why the host's registration of the service is ignored; undefined: it is not, or is not known. */
  conflict(service: ServiceId, host: HostId): Conflict | undefined {
    return this.#services.get(service)?.conflicts.find((one) => one.host === host)
  }
  /** All names with a registration or a claim, whether it counts or not. */
  names(): KnownName[] {
    return [...this.#services.values()].map(({ name, owner, claims }) => {
      const claim = owner.claimant === undefined ? undefined : claims.get(owner.claimant)
      return { name: name.text, kind: name.kind, owner, claimedSince: owner.title?.time ?? claim?.claim.since }
    })
  }
  /** Registrations that are ignored. */
  conflicts(): Conflict[] {
    return [...this.#misnamed.values(), ...[...this.#services.values()].flatMap((service) => service.conflicts)]
  }

  /** Instances a new flow may go to, in no order. Protocol 1 (echo) matches any instance. A reason when there are none. */
  eligible(
    service: ServiceId,
    protocol: number,
    port: number,
    host?: HostId,
  ): readonly Instance[] | 'no-such-service' | 'no-instance' {
    const view = this.get(service)
    if (view === undefined) return 'no-such-service'
    const fitting = view.instances.filter(
      (instance) =>
        instance.state === 'up' &&
        (host === undefined || instance.host === host) &&
        (protocol === 1 || portOf(instance, protocol, port) !== undefined),
    )
    return fitting.length > 0 ? fitting : 'no-instance'
  }

  #service(payload: Registration | NameClaim, host: HostId): Service | undefined {
    const known = this.#services.get(payload.service)
    if (known?.name.text === payload.name) return known
    const name = parseServiceName(payload.name)
    const { network } = this.#options
    if (
      'problem' in name ||
      name.text !== payload.name ||
      serviceIdOf(name, network, this.#components.primitives) !== payload.service
    ) {
      const detail = 'problem' in name ? name.problem : 'the name is not canonical, or its service ID is another one'
      if (payload.kind === 'registration') {
        this.#misnamed.set(misnamedKey(payload, host), {
          name: payload.name.slice(0, 80),
          host,
          reason: 'bad-name',
          detail,
        })
      }
      return undefined
    }
    const service: Service = {
      id: payload.service,
      name,
      registrations: new Map(),
      claims: new Map(),
      owner: unowned,
      view: undefined,
      conflicts: [],
      listed: -1,
    }
    this.#services.set(payload.service, service)
    this.#byName.set(name.text, payload.service)
    return service
  }

  #remove(payload: Registration | NameClaim, host: HostId, from: 'registrations' | 'claims'): boolean {
    if (payload.kind === 'registration') this.#misnamed.delete(misnamedKey(payload, host))
    const service = this.#services.get(payload.service)
    if (service === undefined || !service[from].delete(host)) return false
    this.#review(service)
    if (service.registrations.size === 0 && service.claims.size === 0) {
      this.#services.delete(service.id)
      this.#byName.delete(service.name.text)
    }
    return true
  }

  #review(service: Service): void {
    const { tagsOf, memberSince, table } = this.#components
    const owner = ownerOf(service.name.text, this.#rules, this.#claims(service), tagsOf, memberSince)
    const instances: Instance[] = []
    const conflicts: Conflict[] = []
    for (const [host, registration] of [...service.registrations].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const conflict = this.#conflict(service, owner, host, registration)
      if (conflict !== undefined) {
        conflicts.push(conflict)
        continue
      }
      const { ports, state, epoch, move, load } = registration
      const name = service.name.text
      instances.push({
        service: service.id,
        name,
        host,
        ports,
        state,
        epoch,
        move,
        load,
        ...bounded(registration, owner),
      })
    }
    const prefix = exactPrefix(service.id)
    for (const { host } of service.view?.instances ?? []) {
      if (!instances.some((instance) => instance.host === host)) table.delete(prefix, ruleKey(host))
    }
    for (const { host, priority, weight } of instances) {
      const action =
        host === this.#options.self
          ? ({ kind: 'demux' } as const)
          : ({ kind: 'forward', to: 'instance', host } as const)
      table.set(prefix, ruleKey(host), { action, priority, weight })
    }
    const had = service.view !== undefined
    service.owner = owner
    service.conflicts = conflicts
    service.view =
      instances.length === 0 ? undefined : { service: service.id, name: service.name.text, owner, instances }
    if (had === (service.view !== undefined)) return
    this.#countDomains(service.name, had ? -1 : 1)
    if (had) this.#unlist(service)
    else service.listed = this.#listed.push(service) - 1
  }

  #unlist(service: Service): void {
    const last = this.#listed.pop()!
    if (last !== service) {
      this.#listed[service.listed] = last
      last.listed = service.listed
    }
    service.listed = -1
  }

  #claims(service: Service | undefined): ClaimOfName[] {
    const { stamps } = this.#components
    return [...(service?.claims ?? [])].map(([host, { claim, stamp }]) => ({
      ...{ host, claim },
      title: stamp === undefined ? undefined : stamps?.title(stamp),
    }))
  }

  #conflict(service: Service, owner: NameOwner, host: HostId, registration: Registration): Conflict | undefined {
    const name = service.name.text
    const tags = this.#components.tagsOf(host)
    if (tags === undefined) return { name, host, reason: 'not-member', detail: 'its host is no member of the network' }
    if (service.name.kind === 'key') {
      const proven =
        service.name.key.every((byte, i) => byte === fromHex(host)[i]) ||
        this.#proven(service.id, service.name.key, host, registration)
      if (proven) return undefined
      return { name, host, reason: 'bad-proof', detail: "its host has no proof from the holder of the name's key" }
    }
    if (belongs(owner, host, tags)) return undefined
    const owners = [
      ...owner.tags.map((tag) => `tag ${tag}`),
      ...owner.hosts.map((one) => `host ${one.slice(0, 8)}`),
    ].join(', ')
    const by =
      owner.by === 'authority'
        ? `by a rule of ${owner.issuer === undefined ? 'the authority' : `the issuer ${owner.issuer.slice(0, 8)}`}`
        : `by the first claim, of host ${owner.claimant?.slice(0, 8)}`
    return { name, host, reason: 'not-owner', detail: `the name belongs to ${owners} ${by}` }
  }

  #proven(service: ServiceId, key: Uint8Array, host: HostId, { proof }: Registration): boolean {
    return proof !== undefined && isProven(this.#components.primitives, key, { service, host, signature: proof })
  }

  #countDomains(name: ServiceName, step: number): void {
    const labels = name.kind === 'labels' ? name.labels : [name.text]
    for (let i = 0; i < labels.length; i++) {
      const domain = labels.slice(i).join('.')
      const count = (this.#domains.get(domain) ?? 0) + step
      if (count === 0) this.#domains.delete(domain)
      else this.#domains.set(domain, count)
    }
  }
}

/** The mapping of a dialled port; undefined: the instance does not offer it. */
export function portOf(instance: Pick<Instance, 'ports'>, protocol: number, port: number): PortMapping | undefined {
  const wanted = protocol === 6 ? 'tcp' : 'udp'
  return instance.ports.find((mapping) => mapping.protocol === wanted && mapping.port === port)
}

/** Whether a rule of the service table stands for a registered instance. */
export function isInstanceRule(key: string): boolean {
  return key.startsWith(INSTANCE)
}

/** Key of the rule in the service table that stands for the host's instance. */
export function ruleKey(host: HostId): string {
  return INSTANCE + host
}

function misnamedKey(registration: Registration, host: HostId): string {
  return `${host}/${registration.service}`
}
