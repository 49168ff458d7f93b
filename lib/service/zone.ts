// The naming zone as a function: questions about our own names in, answers out. Speaks in names and addresses; the wire format and the sockets are
// the daemon's.
//
//   web.svc.internal         the service, bound late          web.at.h2.svc.internal   pinned to the host h2
//   h2.host.svc.internal     the host itself (echo)           and the reverse names of our addresses

import type { HostId, ServiceId } from '../wire/ids.js'
import type { DialledTarget, Family } from './address-book.js'
import { formatAddress, readU32, type AddressPlan } from './address-plan.js'
import { labelProblem, parseServiceName, plainLabels, type ServiceName } from './service-id.js'

export interface ZoneQuestion {
  /** As asked, with or without the last dot, in any case. */
  readonly name: string
  /** `A`, `AAAA`, `PTR`, … */
  readonly type: string
}

export type ZoneRecord =
  | { readonly name: string; readonly type: 'A' | 'AAAA' | 'PTR' | 'NS'; readonly ttl: number; readonly data: string }
  | { readonly name: string; readonly type: 'SOA'; readonly ttl: number; readonly data: ZoneSoa }

export interface ZoneSoa {
  readonly mname: string
  readonly rname: string
  readonly serial: number
  readonly refresh: number
  readonly retry: number
  readonly expire: number
  /** s for which a negative answer may be kept. */
  readonly minimum: number
}

export interface ZoneAnswer {
  readonly rcode: 'NOERROR' | 'NXDOMAIN' | 'SERVFAIL' | 'REFUSED'
  readonly answers: readonly ZoneRecord[]
  /** The SOA for negative answers. */
  readonly authority: readonly ZoneRecord[]
}

/** What the zone is answered from. */
export interface ZoneSources {
  /** Such as `svc.internal`, lower case, no last dot. */
  readonly zone: string
  readonly plan: AddressPlan
  /** Whether the directory is synchronised; before that nothing is denied. */
  readonly synced: boolean
  /** A service with an instance, by canonical name. */
  service(name: string): ServiceId | undefined
  /** A service of which nothing is known, but whose instances a rule may find. */
  findable(name: ServiceName): ServiceId | undefined
  /** Whether a service's name is or ends in this. */
  hasDomain(domain: string): boolean
  /** Whether that host has an instance of the service. */
  hasInstance(service: ServiceId, host: HostId): boolean
  hostNamed(name: string): HostId | undefined
  nameOfService(service: ServiceId): string | undefined
  nameOfHost(host: HostId): string | undefined
  /** Gives the target its address when it has none yet; undefined: none left. */
  address(target: DialledTarget, family: Family): Uint8Array | undefined
  /** What the dialled address stands for. */
  target(address: Uint8Array, family: Family): DialledTarget | undefined
  /** The daemon's DNS addresses. */
  dns(family: Family): Uint8Array
}

export const ZONE_TTL = 30
export const ZONE_NEGATIVE_TTL = 2
/** The name of the zone's server within the zone. Valid labels of services do not contain `_`. */
const SERVER_LABEL = '_dns'

/** Answers one question. Total. */
export function answer(question: ZoneQuestion, sources: ZoneSources, now: number): ZoneAnswer {
  const asked = question.name.endsWith('.') ? question.name.slice(0, -1) : question.name
  const name = asked.toLowerCase()
  const { zone } = sources
  const reply = new Reply(asked, question.type.toUpperCase(), sources, now)
  if (name === zone) return reply.apex()
  if (name.endsWith(`.${zone}`)) return reply.forward(name.slice(0, -zone.length - 1))
  const reverse = parseReverse(name, sources.plan)
  return reverse === undefined ? refused : reply.reverse(reverse)
}

const refused: ZoneAnswer = { rcode: 'REFUSED', answers: [], authority: [] }
const failed: ZoneAnswer = { rcode: 'SERVFAIL', answers: [], authority: [] }

class Reply {
  constructor(
    readonly asked: string,
    readonly type: string,
    readonly sources: ZoneSources,
    readonly now: number,
  ) {}

  apex(): ZoneAnswer {
    const { zone } = this.sources
    if (this.type === 'SOA') return this.#positive(this.#soa(this.asked))
    if (this.type === 'NS')
      return this.#positive({ name: this.asked, type: 'NS', ttl: ZONE_TTL, data: `${SERVER_LABEL}.${zone}` })
    return this.#negative('NOERROR')
  }

  /** `inside`: the name without the zone, lower case. */
  forward(inside: string): ZoneAnswer {
    if (inside === SERVER_LABEL) return this.#address((family) => this.sources.dns(family))
    const found = this.#find(inside)
    if (found === 'unsynced') return failed
    if (found === 'nothing') return this.#negative('NXDOMAIN')
    if (found === 'between') return this.#negative('NOERROR')
    return this.#address((family) => this.sources.address(found, family))
  }

  reverse(reverse: Reverse): ZoneAnswer {
    if (reverse === 'between') return this.#negative('NOERROR')
    const { address, family } = reverse
    const { zone } = this.sources
    let name: string | undefined
    if (equal(address, this.sources.dns(family))) name = `${SERVER_LABEL}.${zone}`
    else {
      const target = this.sources.target(address, family)
      name = target && this.#nameOf(target)
    }
    if (name === undefined) return this.sources.synced ? this.#negative('NXDOMAIN') : failed
    if (this.type !== 'PTR') return this.#negative('NOERROR')
    return this.#positive({ name: this.asked, type: 'PTR', ttl: ZONE_TTL, data: name })
  }

  /** between: nothing of its own, but names below it. */
  #find(inside: string): DialledTarget | 'nothing' | 'between' | 'unsynced' {
    const { sources } = this
    const nothing = sources.synced ? 'nothing' : 'unsynced'
    const labels = inside.split('.')
    const last = labels.at(-1)!
    if (last === 'host') {
      if (labels.length === 1) return 'between'
      const host = labels.length === 2 ? sources.hostNamed(labels[0]!) : undefined
      return host === undefined ? nothing : { kind: 'host', host }
    }
    if (labels.length >= 2 && labels.at(-2) === 'at') return this.#pinned(labels.slice(0, -2).join('.'), last, nothing)
    if (last === 'at') return labels.length === 1 ? 'between' : 'nothing'
    const parsed = parseServiceName(inside)
    if ('problem' in parsed) return 'nothing'
    const service = sources.service(parsed.text) ?? sources.findable(parsed)
    if (service !== undefined) return { kind: 'service', service }
    return sources.hasDomain(parsed.text) ? 'between' : nothing
  }

  #pinned(
    name: string,
    hostName: string,
    nothing: 'nothing' | 'unsynced',
  ): DialledTarget | 'nothing' | 'between' | 'unsynced' {
    const { sources } = this
    const host = labelProblem(hostName) === undefined ? sources.hostNamed(hostName) : undefined
    if (host === undefined) return nothing
    if (name === '') return 'between'
    const parsed = parseServiceName(name)
    if ('problem' in parsed) return 'nothing'
    const service = sources.service(parsed.text)
    if (service !== undefined && sources.hasInstance(service, host)) return { kind: 'service', service, host }
    return sources.hasDomain(parsed.text) && service === undefined ? 'between' : nothing
  }

  #address(of: (family: Family) => Uint8Array | undefined): ZoneAnswer {
    if (this.type !== 'A' && this.type !== 'AAAA') return this.#negative('NOERROR')
    const address = of(this.type === 'A' ? 4 : 6)
    if (address === undefined) return failed
    return this.#positive({ name: this.asked, type: this.type, ttl: ZONE_TTL, data: formatAddress(address) })
  }

  #nameOf(target: DialledTarget): string | undefined {
    const { sources } = this
    const host = target.host === undefined ? undefined : sources.nameOfHost(target.host)
    if (target.kind === 'host') return host && `${host}.host.${sources.zone}`
    const name = sources.nameOfService(target.service)
    if (name === undefined) return undefined
    const service = plainLabels(name)
    if (target.host === undefined) return `${service}.${sources.zone}`
    return host && `${service}.at.${host}.${sources.zone}`
  }

  #positive(record: ZoneRecord): ZoneAnswer {
    return { rcode: 'NOERROR', answers: [record], authority: [] }
  }

  #negative(rcode: 'NOERROR' | 'NXDOMAIN'): ZoneAnswer {
    const { zone } = this.sources
    const inZone = this.asked.toLowerCase().endsWith(zone)
    return {
      rcode,
      answers: [],
      authority: [this.#soa(inZone ? zone : apexOfReverse(this.asked.toLowerCase(), this.sources.plan))],
    }
  }

  #soa(name: string): ZoneRecord {
    const { zone } = this.sources
    const data: ZoneSoa = {
      mname: `${SERVER_LABEL}.${zone}`,
      rname: `hostmaster.${zone}`,
      serial: Math.floor(this.now / 1000) >>> 0,
      refresh: 3600,
      retry: 600,
      expire: 86_400,
      minimum: ZONE_NEGATIVE_TTL,
    }
    return { name, type: 'SOA', ttl: ZONE_NEGATIVE_TTL, data }
  }
}

type Reverse = { readonly address: Uint8Array; readonly family: Family } | 'between'

/** The zones of our reverse names: `198.18.0.0/15` gives `18.198.in-addr.arpa` and `19.198.in-addr.arpa`. */
export function reverseZones(plan: AddressPlan): string[] {
  const whole = plan.size >= 65_536 ? 2 : 3
  const step = 2 ** (32 - 8 * whole)
  const zones: string[] = []
  for (let base = plan.base; base < plan.base + plan.size; base += step) {
    const octets = [base >>> 24, (base >>> 16) & 0xff, (base >>> 8) & 0xff].slice(0, whole)
    zones.push(`${octets.toReversed().join('.')}.in-addr.arpa`)
  }
  const nibbles = [...plan.v6Prefix].flatMap((byte) => [byte >> 4, byte & 15]).map((nibble) => nibble.toString(16))
  return [...zones, `${nibbles.toReversed().join('.')}.ip6.arpa`]
}

function apexOfReverse(name: string, plan: AddressPlan): string {
  return reverseZones(plan).find((zone) => name === zone || name.endsWith(`.${zone}`)) ?? name
}

/** A reverse name within our prefixes; undefined: not ours, or malformed. */
function parseReverse(name: string, plan: AddressPlan): Reverse | undefined {
  if (name.endsWith('.in-addr.arpa')) {
    const octets = name.slice(0, -'.in-addr.arpa'.length).split('.').toReversed()
    if (octets.length > 4 || !octets.every((octet) => /^(0|[1-9]\d{0,2})$/.test(octet) && Number(octet) < 256))
      return undefined
    const bytes = new Uint8Array(4)
    octets.forEach((octet, i) => (bytes[i] = Number(octet)))
    const at = readU32(bytes, 0) - plan.base
    if (at < 0 || at >= plan.size) return undefined
    return octets.length === 4 ? { address: bytes, family: 4 } : 'between'
  }
  if (!name.endsWith('.ip6.arpa')) return undefined
  const nibbles = name.slice(0, -'.ip6.arpa'.length).split('.').toReversed()
  if (nibbles.length > 32 || !nibbles.every((nibble) => /^[0-9a-f]$/.test(nibble))) return undefined
  const bytes = new Uint8Array(16)
  nibbles.forEach((nibble, i) => (bytes[i >> 1]! |= Number.parseInt(nibble, 16) << (i % 2 === 0 ? 4 : 0)))
  if (nibbles.length < 12 || !plan.v6Prefix.every((byte, i) => byte === bytes[i])) return undefined
  return nibbles.length === 32 ? { address: bytes, family: 6 } : 'between'
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i])
}
