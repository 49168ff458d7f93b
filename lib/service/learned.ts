import type { HostId, ServiceId } from '../wire/ids.js'

export interface LearnedOptions {
  /** Services that something is kept of. */
  readonly servicesMax: number
  /** Hosts kept of each. */
  readonly hostsMax: number
  /** ms. */
  readonly lifetime: number
}

export const learnedDefaults: LearnedOptions = { servicesMax: 1_024, hostsMax: 8, lifetime: 30_000 }

export interface LearnedHost {
  readonly host: HostId
  readonly kind: 'instance' | 'resolver'
}

interface Memory {
  readonly found: Map<HostId, { readonly kind: LearnedHost['kind']; readonly until: number }>
  /** Hosts that said they do not have it, whatever their records say. */
  readonly left: Map<HostId, number>
}

/**
 * What others' hints said of where services are, for as long as it may be worth a try: so that only the first flow pays the trip. Whoever refuses is forgotten, and a new
 * record of a host says more than any hint.
 */
export class Learned {
  readonly #services = new Map<ServiceId, Memory>()
  readonly #options: LearnedOptions

  constructor(options: Partial<LearnedOptions> = {}) {
    this.#options = { ...learnedDefaults, ...options }
  }

  get size(): number {
    return this.#services.size
  }

  /** Somebody named these hosts. */
  learn(service: ServiceId, hosts: readonly LearnedHost[], now: number): void {
    if (hosts.length === 0) return
    const { found, left } = this.#memory(service)
    for (const { host, kind } of hosts) {
      left.delete(host)
      this.#put(found, host, { kind, until: now + this.#options.lifetime })
    }
  }

  /** The host says that it does not have the service. */
  leave(service: ServiceId, host: HostId, now: number): void {
    const { found, left } = this.#memory(service)
    found.delete(host)
    this.#put(left, host, now + this.#options.lifetime)
  }

  /** The host was named, and refused or did not answer. */
  refused(service: ServiceId, host: HostId): void {
    this.#services.get(service)?.found.delete(host)
  }

  /** The host has published something new about the service: what hints said of it is void. */
  forget(service: ServiceId, host: HostId): void {
    const memory = this.#services.get(service)
    if (memory === undefined) return
    memory.found.delete(host)
    memory.left.delete(host)
    if (memory.found.size === 0 && memory.left.size === 0) this.#services.delete(service)
  }

  /** Hosts worth asking, those named last first. */
  found(service: ServiceId, now: number): LearnedHost[] {
    const found = this.#services.get(service)?.found
    if (found === undefined) return []
    return [...found].flatMap(([host, { kind, until }]) => (until > now ? [{ host, kind }] : [])).reverse()
  }

  hasLeft(service: ServiceId, host: HostId, now: number): boolean {
    return (this.#services.get(service)?.left.get(host) ?? 0) > now
  }

  #memory(service: ServiceId): Memory {
    const known = this.#services.get(service)
    const memory = known ?? { found: new Map(), left: new Map() }
    // In the order of their last use, so that the first one is the one to go.
    this.#services.delete(service)
    this.#services.set(service, memory)
    const oldest = this.#services.keys().next().value
    if (this.#services.size > this.#options.servicesMax && oldest !== undefined) this.#services.delete(oldest)
    return memory
  }

  #put<T>(map: Map<HostId, T>, host: HostId, value: T): void {
    map.delete(host)
    map.set(host, value)
    const oldest = map.keys().next().value
    if (map.size > this.#options.hostsMax && oldest !== undefined) map.delete(oldest)
  }
}
