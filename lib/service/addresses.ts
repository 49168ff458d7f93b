import { z } from 'zod'
import { concat } from '../wire/bytes.js'
import { fromHex, hostId, serviceId, type HostId, type NetworkId, type ServiceId } from '../wire/ids.js'
import type { AddressBook, DialledTarget, Family } from './address-book.js'
import { AddressClaimBook, spanSize } from './address-claims.js'
import { AddressIndex } from './address-index.js'
import {
  addressPlan,
  DNS_NUMBER_V4,
  DNS_NUMBER_V6,
  POOL_DEFAULT,
  readU32,
  SELF_NUMBER,
  selfAddress,
  V6_ROLE,
  v4Bytes,
  v6Bytes,
  type AddressPlan,
} from './address-plan.js'
import type { AddressClaim, ClaimRole } from './registration.js'
import type { Hasher } from './service-id.js'

export interface AddressesOptions {
  readonly network: NetworkId
  readonly self: HostId
  /** CIDR; default 198.18.0.0/15. Throws RangeError when it cannot be cut up; check with addressPlan first. */
  readonly pool?: string
}

export interface AddressesComponents {
  readonly hasher: Hasher
  /** Called before a new mapping is used or returned; whoever keeps mappings across restarts writes them before the next answer goes out. */
  readonly mappingChanged: () => void
}

/** What survives a restart. Plain JSON. */
export const savedMappings = z.object({
  version: z.literal(1),
  pool: z.string(),
  /** Given-out dialled addresses: key of the target, and offset in the pool where IPv4 was given. */
  dialled: z.array(
    z.object({
      service: z.string().optional(),
      host: z.string().optional(),
      offset: z.number().int().min(0).optional(),
    }),
  ),
  /** Local addresses of the other roles. */
  local: z.array(z.object({ role: z.enum(['served', 'peer']), id: z.string(), offset: z.number().int().min(0) })),
  /** This host's own claims. */
  claims: z.array(
    z.object({
      role: z.enum(['dialled', 'served', 'peer']),
      id: z.string(),
      index: z.number().int().min(0),
      since: z.number().int().min(0),
    }),
  ),
})
export type SavedMappings = z.infer<typeof savedMappings>

interface Given {
  readonly target: DialledTarget
  v4: Uint8Array | undefined
  readonly v6: Uint8Array
}

const ID = /^[0-9a-f]{64}$/

/** The overlay addresses of this host, in their four roles. */
export class Addresses implements AddressBook {
  readonly plan: AddressPlan
  readonly #components: AddressesComponents
  readonly #claims: AddressClaimBook
  readonly #self: { readonly 4: Uint8Array; readonly 6: Uint8Array }
  readonly #prefixHigh: number
  readonly #prefixLow: number
  readonly #given = new Map<string, Given>()
  /** By offset in the pool, and by the last 64 bits of the IPv6 address. */
  readonly #dialled4 = new Map<number, DialledTarget>()
  readonly #dialled6 = new AddressIndex<DialledTarget>()
  /** Offsets that only this host knows, by role and ID, and their users. */
  readonly #local = new Map<string, number>()
  readonly #localUsers = new Map<number, string>()
  readonly #cache4 = new Map<string, Uint8Array>()
  readonly #cache6 = new Map<string, Uint8Array>()
  readonly #hosted = new Set<ServiceId>()
  /** Served addresses of hosted services. Old ones stay local until the service goes. */
  readonly #local4 = new Map<number, ServiceId>()
  readonly #local6 = new AddressIndex<ServiceId | undefined>()

  constructor(options: AddressesOptions, components: AddressesComponents) {
    const plan = addressPlan(options.network, options.pool ?? POOL_DEFAULT)
    if ('problem' in plan) throw new RangeError(plan.problem)
    this.plan = plan
    this.#components = components
    this.#claims = new AddressClaimBook(plan, options.self)
    this.#self = { 4: selfAddress(plan, 4), 6: selfAddress(plan, 6) }
    this.#prefixHigh = readU32(plan.v6Prefix, 0)
    this.#prefixLow = (plan.v6Prefix[4]! << 8) | plan.v6Prefix[5]!
  }

  // ---- The packet path: no allocation ----

  dialled(bytes: Uint8Array, offset: number, family: Family): DialledTarget | undefined {
    if (family === 4) return this.#dialled4.get(readU32(bytes, offset) - this.plan.base)
    return this.#role(bytes, offset) === V6_ROLE.dialled
      ? this.#dialled6.get(readU32(bytes, offset + 8), readU32(bytes, offset + 12))
      : undefined
  }

  isLocal(bytes: Uint8Array, offset: number, family: Family): boolean {
    if (family === 4) {
      const at = readU32(bytes, offset) - this.plan.base
      return at === SELF_NUMBER || at === DNS_NUMBER_V4 || this.#local4.has(at)
    }
    const role = this.#role(bytes, offset)
    const high = readU32(bytes, offset + 8)
    const low = readU32(bytes, offset + 12)
    if (role === V6_ROLE.self) return high === 0 && (low === SELF_NUMBER || low === DNS_NUMBER_V6)
    return role === V6_ROLE.served && this.#local6.get(high, low) !== undefined
  }

  isPeer(bytes: Uint8Array, offset: number, family: Family): boolean {
    if (family === 6) return this.#role(bytes, offset) === V6_ROLE.peer
    const at = readU32(bytes, offset) - this.plan.base
    const { claimed, local } = this.plan
    return (at >= claimed.peer.start && at < claimed.peer.end) || (at >= local.peer.start && at < local.peer.end)
  }

  // ---- Once a flow ----

  self(family: Family): Uint8Array {
    return this.#self[family]
  }

  /** Throws RangeError when the pool has no address left for another service. */
  served(service: ServiceId, family: Family): Uint8Array {
    if (family === 6) return this.#v6('served', service)
    return this.#v4('served', service) ?? exhausted('served')
  }

  peer(host: HostId, family: Family): Uint8Array {
    if (family === 6) return this.#v6('peer', host)
    // With no address left, hosts share one: flows differ in their ports, which are translated on a clash.
    const span = this.plan.local.peer
    return this.#v4('peer', host) ?? v4Bytes(this.plan, span.start + (this.#hash(host)[0] % spanSize(span)))
  }

  /** The address that DNS answers for the target; undefined: the pool has none left. Stable from the first answer on. */
  dialledAddress(target: DialledTarget, family: Family): Uint8Array | undefined {
    const key = targetKey(target)
    let given = this.#given.get(key)
    if (given === undefined) {
      const [high, low] = this.#hash(key)
      given = { target, v4: undefined, v6: v6Bytes(this.plan.v6Prefix, V6_ROLE.dialled, high, low) }
      this.#given.set(key, given)
      this.#dialled6.set(high, low, target)
      if (family === 6) this.#components.mappingChanged()
    }
    if (family === 6) return given.v6
    if (given.v4 === undefined) {
      const settled = target.kind === 'service' && target.host === undefined && this.#settled('dialled', target.service)
      const offset = typeof settled === 'number' ? settled : this.#allocate('dialled', key)
      if (offset === undefined) return undefined
      given.v4 = v4Bytes(this.plan, offset)
      this.#dialled4.set(offset, target)
      this.#components.mappingChanged()
    }
    return given.v4
  }

  // ---- What this host serves ----

  /** This host has an instance of the service from now on: its served addresses are local. Returns them, IPv4 first. */
  host(service: ServiceId): [Uint8Array, Uint8Array] {
    this.#hosted.add(service)
    const [v4, v6] = [this.served(service, 4), this.served(service, 6)]
    this.#local4.set(readU32(v4, 0) - this.plan.base, service)
    this.#local6.set(readU32(v6, 8), readU32(v6, 12), service)
    return [v4, v6]
  }

  unhost(service: ServiceId): void {
    this.#hosted.delete(service)
    for (const [offset, owner] of this.#local4) if (owner === service) this.#local4.delete(offset)
    const v6 = this.served(service, 6)
    this.#local6.set(readU32(v6, 8), readU32(v6, 12), undefined)
  }

  /** All addresses that our kernel is to have on the TUN: self and served ones. */
  localAddresses(): { readonly family: Family; readonly address: Uint8Array; readonly service?: ServiceId }[] {
    const v4 = [...this.#local4].map(([at, service]) => ({
      family: 4 as const,
      address: v4Bytes(this.plan, at),
      service,
    }))
    const v6 = [...this.#hosted].map((service) => ({ family: 6 as const, address: this.served(service, 6), service }))
    const own = ([4, 6] as const).map((family) => ({ family, address: this.#self[family] }))
    return [...own, ...v4, ...v6]
  }

  /** Whether the service has the same served IPv4 address on every host, so that its sockets can move. */
  isMovable(service: ServiceId): boolean {
    return this.#claims.indexOf('served', service) !== undefined
  }

  // ---- Claims ----

  /** Claims the network-wide IPv4 addresses of a service this host has an instance of. Call {@link settle} afterwards. */
  claimService(service: ServiceId, wallNow: number): void {
    const [high, low] = this.#hash(service)
    this.#claims.claim('dialled', service, high & 0xffffff, wallNow)
    this.#claims.claim('served', service, low & 0xffffff, wallNow)
  }
  releaseService(service: ServiceId): void {
    this.#claims.release('dialled', service)
    this.#claims.release('served', service)
  }
  /** Claims this host's own peer address. Call {@link settle} afterwards. */
  claimPeer(wallNow: number): void {
    this.#claims.claim('peer', this.#claims.self, this.#hash(this.#claims.self)[0] & 0xffffff, wallNow)
  }
  /** What another host claims now; empty: nothing any more. Call {@link settle} after a batch. */
  setClaims(host: HostId, claims: readonly AddressClaim[]): void {
    if (host !== this.#claims.self) this.#claims.set(host, claims)
  }
  /** This host's claims, to be published in records of at most CLAIMS_MAX. */
  ownClaims(): AddressClaim[] {
    return this.#claims.own()
  }

  /**
   * Takes the claims into use. Returns whether own claims have changed (publish them) and whether local addresses have (see {@link localAddresses}).
   * An address once given out goes on meaning the same until another service wins it.
   */
  settle(wallNow: number): { readonly claims: boolean; readonly local: boolean } {
    const before = this.#local4.size
    const claims = this.#claims.settle(wallNow)
    for (const [key] of this.#cache4) {
      const [role, id] = splitKey(key)
      const index = this.#claims.indexOf(role, id)
      if (index !== undefined) this.#cache4.set(key, v4Bytes(this.plan, this.plan.claimed[role].start + index))
    }
    for (const [id, index] of this.#claims.settled('dialled')) {
      const offset = this.plan.claimed.dialled.start + index
      const service = serviceId(id)
      const target: DialledTarget = { kind: 'service', service }
      const given = this.#given.get(targetKey(target))
      const old = this.#dialled4.get(offset)
      if (old?.kind !== 'service' || old.service !== service) {
        this.#dialled4.set(offset, target)
        // Whoever had this address from us gets another one.
        const loser = old && this.#given.get(targetKey(old))
        if (loser !== undefined) loser.v4 = undefined
      }
      if (given !== undefined) given.v4 = v4Bytes(this.plan, offset)
    }
    for (const service of this.#hosted) this.#local4.set(readU32(this.served(service, 4), 0) - this.plan.base, service)
    if (claims) this.#components.mappingChanged()
    return { claims, local: this.#local4.size !== before }
  }

  // ---- Restarts ----

  exportMappings(): SavedMappings {
    const dialled = [...this.#given.values()].map(({ target, v4 }) => ({
      ...(target.kind === 'service' ? { service: target.service } : {}),
      ...(target.host === undefined ? {} : { host: target.host }),
      ...(v4 === undefined ? {} : { offset: readU32(v4, 0) - this.plan.base }),
    }))
    const local = [...this.#local].flatMap(([key, offset]) => {
      const [role, id] = splitKey(key)
      return role === 'dialled' ? [] : [{ role, id, offset }]
    })
    return { version: 1, pool: this.plan.pool, dialled, local, claims: this.#claims.own() }
  }

  /** Takes up what {@link exportMappings} gave before a restart; call before anything else. What does not fit (another pool) is left out. */
  importMappings(saved: SavedMappings): void {
    const samePool = saved.pool === this.plan.pool
    for (const { service, host, offset } of saved.dialled) {
      const target = targetOf(service, host)
      if (target === undefined) continue
      const key = targetKey(target)
      const [high, low] = this.#hash(key)
      const usable =
        samePool && offset !== undefined && offset >= 256 && offset < this.plan.size && !this.#dialled4.has(offset)
      const v4 = usable ? v4Bytes(this.plan, offset) : undefined
      this.#given.set(key, { target, v4, v6: v6Bytes(this.plan.v6Prefix, V6_ROLE.dialled, high, low) })
      this.#dialled6.set(high, low, target)
      if (!usable) continue
      this.#dialled4.set(offset, target)
      if (offset < this.plan.local.dialled.end) this.#keep('dialled', key, offset)
    }
    if (!samePool) return
    for (const { role, id, offset } of saved.local) {
      const span = this.plan.local[role]
      if (ID.test(id) && offset >= span.start && offset < span.end && !this.#localUsers.has(offset))
        this.#keep(role, id, offset)
    }
    for (const claim of saved.claims) if (ID.test(claim.id)) this.#claims.restore(claim)
    this.#claims.resolve()
  }

  /** Servers here know the client's host by this IPv4 address, from before a restart: it keeps it until its claim, which is not known yet, says another. */
  keepPeer(host: HostId, address: Uint8Array): void {
    const key = `peer/${host}`
    const offset = readU32(address, 0) - this.plan.base
    const { claimed, local } = this.plan
    if (this.#cache4.has(key) || this.#settled('peer', host) !== undefined) return
    if (offset >= local.peer.start && offset < local.peer.end) {
      if (this.#local.has(key) || this.#localUsers.has(offset)) return
      this.#keep('peer', host, offset)
    } else if (offset < claimed.peer.start || offset >= claimed.peer.end) return
    this.#cache4.set(key, v4Bytes(this.plan, offset))
  }

  /** The role group of an IPv6 address of this network, or -1. */
  #role(bytes: Uint8Array, offset: number): number {
    if (readU32(bytes, offset) !== this.#prefixHigh) return -1
    if (((bytes[offset + 4]! << 8) | bytes[offset + 5]!) !== this.#prefixLow) return -1
    return (bytes[offset + 6]! << 8) | bytes[offset + 7]!
  }

  #v4(role: 'served' | 'peer', id: string): Uint8Array | undefined {
    const key = `${role}/${id}`
    const cached = this.#cache4.get(key)
    if (cached !== undefined) return cached
    const settled = this.#settled(role, id)
    const offset = settled ?? this.#allocate(role, id)
    if (offset === undefined) return undefined
    const address = v4Bytes(this.plan, offset)
    this.#cache4.set(key, address)
    return address
  }

  #v6(role: 'served' | 'peer', id: string): Uint8Array {
    const key = `${role}/${id}`
    let address = this.#cache6.get(key)
    if (address === undefined) {
      const [high, low] = this.#hash(id)
      address = v6Bytes(this.plan.v6Prefix, V6_ROLE[role], high, low)
      this.#cache6.set(key, address)
    }
    return address
  }

  #settled(role: ClaimRole, id: string): number | undefined {
    const index = this.#claims.indexOf(role, id)
    return index === undefined ? undefined : this.plan.claimed[role].start + index
  }

  /** An offset that only this host knows, for good. */
  #allocate(role: ClaimRole, id: string): number | undefined {
    const known = this.#local.get(`${role}/${id}`)
    if (known !== undefined) return known
    const span = this.plan.local[role]
    const size = spanSize(span)
    const from = this.#hash(id)[1] % size
    for (let i = 0; i < size; i++) {
      const offset = span.start + ((from + i) % size)
      if (this.#localUsers.has(offset)) continue
      this.#keep(role, id, offset)
      if (role !== 'dialled') this.#components.mappingChanged()
      return offset
    }
    return undefined
  }

  #keep(role: ClaimRole, id: string, offset: number): void {
    this.#local.set(`${role}/${id}`, offset)
    this.#localUsers.set(offset, id)
  }

  /** 64 bits of hash of an ID, or of two joined by a slash. */
  #hash(key: string): [number, number] {
    const hash = this.#components.hasher.blake2b(concat(key.split('/').map((id) => fromHex(id))), 32)
    return [readU32(hash, 0), readU32(hash, 4)]
  }
}

function targetKey(target: DialledTarget): string {
  if (target.kind === 'host') return target.host
  return target.host === undefined ? target.service : `${target.service}/${target.host}`
}

function targetOf(service: string | undefined, host: string | undefined): DialledTarget | undefined {
  if ((service !== undefined && !ID.test(service)) || (host !== undefined && !ID.test(host))) return undefined
  if (service === undefined) return host === undefined ? undefined : { kind: 'host', host: hostId(host) }
  return { kind: 'service', service: serviceId(service), ...(host === undefined ? {} : { host: hostId(host) }) }
}

function splitKey(key: string): [ClaimRole, string] {
  const at = key.indexOf('/')
  const role = key.slice(0, at)
  return [role === 'dialled' || role === 'served' ? role : 'peer', key.slice(at + 1)]
}

function exhausted(role: string): never {
  throw new RangeError(`the IPv4 pool has no ${role} address left`)
}
