import type { Answer } from 'dns-packet'
import type { Host } from '../lib/host/host.js'
import { dnsAddress } from '../lib/service/address-plan.js'
import type { ServiceName } from '../lib/service/service-id.js'
import { answer, type ZoneRecord, type ZoneSources } from '../lib/service/zone.js'
import type { HostId, ServiceId } from '../lib/wire/ids.js'
import type { DnsAnswer, DnsResolver } from './dns/dns-message.js'

/** Names that were asked for and are remembered although no instance is known. */
const FINDABLE_MAX = 4_096

/** Names of hosts and services as this host knows them. */
export class Names {
  readonly #findable = new Map<ServiceId, string>()

  constructor(private readonly host: Host) {}

  hostNamed(name: string): HostId | undefined {
    return this.host.members.members().find((member) => member.name === name)?.host
  }
  nameOfHost(id: HostId): string | undefined {
    return this.host.members.member(id)?.name
  }
  /** For people, also for a host whose membership is not known. */
  showHost(id: HostId): string {
    return this.nameOfHost(id) ?? this.host.members.revokedMember(id)?.name ?? id.slice(0, 12)
  }
  peer(index: number): string | undefined {
    return index < 0 || index >= this.host.peers.size ? undefined : this.showHost(this.host.peers.hostId(index))
  }
  service(id: ServiceId): string | undefined {
    return this.host.catalogue.nameOf(id) ?? this.#findable.get(id)
  }
  /** ID of a service that only a rule may find, remembered by its name; undefined: no rule covers it, or too many were asked for. */
  findable(name: ServiceName): ServiceId | undefined {
    const id = this.host.whereabouts.rules.findable(name)
    if (id === undefined || this.#findable.has(id)) return id
    if (this.#findable.size >= FINDABLE_MAX) return undefined
    this.#findable.set(id, name.text)
    return id
  }
}

/** What the zone is answered from. */
export function zoneSources(host: Host, names: Names, zone: string): ZoneSources {
  const { catalogue, addresses, directory } = host
  return {
    zone,
    plan: addresses.plan,
    get synced() {
      return directory.synced
    },
    service: (name) => catalogue.byName(name)?.service,
    findable: (name) => names.findable(name),
    hasDomain: (domain) => catalogue.hasDomain(domain),
    hasInstance: (service, id) => catalogue.get(service)?.instances.some((instance) => instance.host === id) ?? false,
    hostNamed: (name) => names.hostNamed(name),
    nameOfService: (service) => names.service(service),
    nameOfHost: (id) => names.nameOfHost(id),
    address: (target, family) => addresses.dialledAddress(target, family),
    target: (address, family) => addresses.dialled(address, 0, family),
    dns: (family) => dnsAddress(addresses.plan, family),
  }
}

/**
 * The name server's answers. `mappingsWritten`: resolves when the address mappings are on disk, so that an address that was told means the same after a restart.
 */
export function zoneResolver(
  sources: ZoneSources,
  mappingsWritten: () => Promise<void>,
  nowMs: () => number,
): DnsResolver {
  return async (name, type): Promise<DnsAnswer> => {
    const result = answer({ name, type }, sources, nowMs())
    if (result.answers.length > 0) await mappingsWritten()
    return {
      code: result.rcode,
      answers: result.answers.map(toAnswer),
      authorities: result.authority.map(toAnswer),
      authoritative: result.rcode !== 'REFUSED' && result.rcode !== 'SERVFAIL',
    }
  }
}

function toAnswer(record: ZoneRecord): Answer {
  const { name, ttl } = record
  if (record.type === 'SOA') return { type: 'SOA', name, ttl, data: { ...record.data } }
  return { type: record.type, name, ttl, data: record.data }
}
