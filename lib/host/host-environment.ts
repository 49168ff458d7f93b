import type { Candidate, DialledTarget, FlowEnvironment, LocalEndpoint } from '../flow/environment.js'
import { SELF, type PeerTable } from '../path/peers.js'
import type { AddressBook } from '../service/address-book.js'
import type { ServiceCatalogue } from '../service/catalogue.js'
import type { InstanceChoice } from '../service/choice.js'
import { checkPolicy, type Policy } from '../service/policy.js'
import type { ServiceTable } from '../service/service-table.js'
import type { OpenBatch } from '../wire/batch.js'
import { Protocol } from '../wire/constants.js'
import type { DropReason } from '../wire/drop.js'
import type { HostId, ServiceId } from '../wire/ids.js'

/** Where the servers of this host are; the process around the host knows. */
export interface LocalEndpoints {
  /** `protocol` as in IP (echo: 1), `port` as dialled. */
  find(service: ServiceId, protocol: number, port: number): LocalEndpoint | DropReason
}

export interface HostEnvironmentComponents {
  readonly self: HostId
  readonly peers: PeerTable
  readonly addresses: AddressBook
  readonly catalogue: ServiceCatalogue
  readonly choice: InstanceChoice
  readonly table: ServiceTable
  readonly endpoints: LocalEndpoints
  readonly tagsOf: (host: HostId) => readonly string[] | undefined
  readonly policy: () => Policy
  /** A flow or bind concerns the peer. */
  readonly active: (peer: number, now: number) => void
  readonly wantSession: (peer: number, now: number) => void
  readonly other: (batch: OpenBatch, entry: number, peer: number, now: number) => void
  readonly sendFrame: (peer: number, plaintext: Uint8Array, trafficClass: number) => boolean
  readonly writePacket: (packet: Uint8Array) => void
  readonly drop: (reason: DropReason, packet?: Uint8Array) => void
}

/** What the flow layer gets to see of its host: the meeting point of directory, choice, policy and the data path. */
export class HostEnvironment implements FlowEnvironment {
  readonly peers: PeerTable
  readonly addresses: AddressBook
  readonly #c: HostEnvironmentComponents
  /** Flows this host has open, by service and instance's host. */
  readonly #open = new Map<string, number>()

  constructor(components: HostEnvironmentComponents) {
    this.#c = components
    this.peers = components.peers
    this.addresses = components.addresses
  }

  candidates(
    target: DialledTarget,
    protocol: number,
    port: number,
    now: number,
  ): readonly Candidate[] | DropReason | 'hold' {
    const { self, catalogue, choice, table, tagsOf } = this.#c
    // Nothing new begins once this host is a member no more.
    if (tagsOf(self) === undefined) return 'denied'
    if (target.kind === 'host') {
      if (protocol !== Protocol.icmp) return 'refused'
      if (!this.allows(self, undefined, protocol, port)) return 'denied'
      const candidate = this.#candidate(target.host, undefined, false)
      return candidate === undefined ? 'no-instance' : [candidate]
    }
    const { service, host } = target
    if (!this.allows(self, service, protocol, port)) return 'denied'
    const rule = table.lookup(service)?.rules[0]
    if (rule === undefined) return 'no-such-service'
    table.hit(rule, now)
    if (rule.action.kind === 'drop') return 'denied'
    if (rule.action.kind === 'delay') return 'hold'
    const instances = catalogue.eligible(service, protocol, port, host)
    if (instances === 'no-instance' && protocol !== Protocol.icmp) {
      const any = catalogue.eligible(service, Protocol.icmp, 0, host)
      return typeof any === 'string' ? any : 'refused'
    }
    if (typeof instances === 'string') return instances
    const candidates: Candidate[] = []
    for (const { instance, doubtful } of choice.order(instances, now)) {
      const candidate = this.#candidate(instance.host, service, doubtful)
      if (candidate === undefined) continue
      candidates.push(candidate)
      if (candidates.length === 1 && candidate.peer !== SELF) this.#c.active(candidate.peer, now)
    }
    return candidates.length > 0 ? candidates : 'no-instance'
  }

  outcome(candidate: Candidate, outcome: 'answered' | 'refused' | 'silent', now: number): void {
    if (candidate.service === undefined) return
    const host = this.peers.hostId(candidate.peer)
    this.#c.choice.outcome(candidate.service, host, outcome, now)
    if (outcome === 'answered') this.#count(candidate.service, host, 1)
  }

  flowEnded(peer: number, service: ServiceId | undefined): void {
    if (service !== undefined && peer >= 0) this.#count(service, this.peers.hostId(peer), -1)
  }

  /** Flows of this host's programs to the instance. */
  openFlows(service: ServiceId, host: HostId): number {
    return this.#open.get(`${service}/${host}`) ?? 0
  }

  localEndpoint(
    peer: number,
    service: ServiceId | undefined,
    protocol: number,
    port: number,
  ): LocalEndpoint | DropReason {
    const { endpoints, addresses, tagsOf, self } = this.#c
    const client = this.peers.hostId(peer)
    // A session outlives its hosts' memberships by a grace: what is open may go on that long, nothing new begins.
    if (tagsOf(client) === undefined || tagsOf(self) === undefined) return 'denied'
    if (!this.allows(client, service, protocol, port)) return 'denied'
    if (service !== undefined) return endpoints.find(service, protocol, port)
    return protocol === Protocol.icmp ? { family: 4, address: addresses.self(4), port: 0 } : 'refused'
  }

  wantSession(peer: number, now: number): void {
    this.#c.wantSession(peer, now)
  }
  other(batch: OpenBatch, entry: number, peer: number, now: number): void {
    this.#c.other(batch, entry, peer, now)
  }
  sendFrame(peer: number, plaintext: Uint8Array, trafficClass: number): boolean {
    return this.#c.sendFrame(peer, plaintext, trafficClass)
  }
  writePacket(packet: Uint8Array): void {
    this.#c.writePacket(packet)
  }
  drop(reason: DropReason, packet?: Uint8Array): void {
    this.#c.drop(reason, packet)
  }

  #candidate(host: HostId, service: ServiceId | undefined, doubtful: boolean): Candidate | undefined {
    const peer = host === this.#c.self ? SELF : this.peers.add(host)
    return peer < 0 ? undefined : { peer, service, doubtful: doubtful && peer !== SELF }
  }

  /** Whether the policy lets the client's host reach it. */
  allows(client: HostId, service: ServiceId | undefined, protocol: number, port: number): boolean {
    const { catalogue, tagsOf, policy } = this.#c
    const rules = policy()
    if (rules.rules.length === 0) return rules.otherwise
    const name = service === undefined ? undefined : (catalogue.nameOf(service) ?? '')
    return checkPolicy(rules, { tags: tagsOf(client) ?? [], service: name, protocol, port }).allowed
  }

  #count(service: ServiceId, host: HostId, step: number): void {
    const key = `${service}/${host}`
    const count = (this.#open.get(key) ?? 0) + step
    if (count <= 0) this.#open.delete(key)
    else this.#open.set(key, count)
  }
}
