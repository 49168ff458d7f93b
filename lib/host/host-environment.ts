import type { Candidate, DialledTarget, FlowEnvironment, LocalEndpoint, NotHere } from '../flow/environment.js'
import type { FlowSnapshot } from '../flow/flow-snapshot.js'
import { SELF, type PeerTable } from '../path/peers.js'
import type { AddressBook } from '../service/address-book.js'
import type { ServiceCatalogue } from '../service/catalogue.js'
import type { InstanceChoice } from '../service/choice.js'
import { checkPolicy, type Policy } from '../service/policy.js'
import type { OpenBatch, SealBatch } from '../wire/batch.js'
import { Protocol } from '../wire/constants.js'
import type { DropReason } from '../wire/drop.js'
import type { HostId, ServiceId } from '../wire/ids.js'
import type { Loading } from './loading.js'
import type { Wanted } from './service-lookup.js'
import type { Whereabouts } from './whereabouts.js'

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
  readonly whereabouts: Whereabouts
  readonly loading: Loading
  readonly endpoints: LocalEndpoints
  readonly tagsOf: (host: HostId) => readonly string[] | undefined
  readonly policy: () => Policy
  /** A flow or bind concerns the peer. */
  readonly active: (peer: number, now: number) => void
  readonly wantSession: (peer: number, now: number) => void
  /** Does something with the network once the flow engine has done its work. */
  readonly afterwards: (action: () => void) => void
  readonly retransmitted: (peer: number, now: number) => void
  readonly other: (batch: OpenBatch, entry: number, peer: number, now: number) => void
  readonly sendFrame: (peer: number, plaintext: Uint8Array, trafficClass: number) => boolean
  readonly sendBatch: (seal: SealBatch, now: number) => void
  readonly writePacket: (packet: Uint8Array) => void
  readonly drop: (reason: DropReason, packet: Uint8Array | undefined, n: number) => void
  readonly fault: (error: unknown) => void
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
    return this.look(target, protocol, port, now, true)
  }

  /** As {@link candidates}. `count`: a flow depends on it, whose rule is counted and whose first host is watched. */
  look(
    target: DialledTarget,
    protocol: number,
    port: number,
    now: number,
    count: boolean,
  ): readonly Candidate[] | DropReason | 'hold' {
    const { self, whereabouts, tagsOf } = this.#c
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
    const found = whereabouts.find({ service, protocol, port, host }, now, count)
    if (typeof found === 'string') return found
    const candidates: Candidate[] = []
    for (const { host: id, kind, doubtful } of found) {
      const candidate = this.#candidate(id, service, doubtful)
      if (candidate === undefined) continue
      candidates.push({
        ...candidate,
        ...(kind === 'resolver' ? { resolver: true } : {}),
        ...(host === undefined ? {} : { pinned: true }),
      })
      if (count && candidates.length === 1 && candidate.peer !== SELF) this.#c.active(candidate.peer, now)
    }
    return candidates.length > 0 ? candidates : 'no-instance'
  }

  ask(target: DialledTarget, protocol: number, port: number, now: number): void {
    if (target.kind !== 'service' || target.host !== undefined) return
    this.#ask({ service: target.service, protocol, port }, now)
  }

  moved({ service, resolver, peer }: Candidate, hint: Uint8Array, now: number): readonly Candidate[] {
    const { whereabouts } = this.#c
    if (service === undefined) return []
    if (resolver !== true) whereabouts.learned.leave(service, this.peers.hostId(peer), now)
    return whereabouts.take(service, hint, now).flatMap(({ host, kind }) => {
      const candidate = this.#candidate(host, service, false)
      return candidate === undefined ? [] : { ...candidate, ...(kind === 'resolver' ? { resolver: true } : {}) }
    })
  }

  loading(now: number): boolean {
    return this.#c.loading.is(now)
  }

  outcome(candidate: Candidate, outcome: 'answered' | 'refused' | 'silent', since: number, now: number): void {
    if (candidate.service === undefined) return
    const host = this.peers.hostId(candidate.peer)
    if (outcome !== 'answered') this.#c.whereabouts.learned.refused(candidate.service, host)
    // A resolver that does not have the service has done what it is for.
    if (candidate.resolver !== true || outcome === 'answered')
      this.#c.choice.outcome(candidate.service, host, outcome, since, now)
    if (outcome === 'answered') this.#count(candidate.service, host, 1)
  }

  flowRestored(peer: number, service: ServiceId | undefined): void {
    if (service !== undefined) this.#count(service, this.peers.hostId(peer), 1)
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
    now: number,
  ): LocalEndpoint | NotHere | DropReason {
    const { endpoints, addresses, tagsOf, self } = this.#c
    const client = this.peers.hostId(peer)
    // A session outlives its hosts' memberships by a grace: what is open may go on that long, nothing new begins.
    if (tagsOf(client) === undefined || tagsOf(self) === undefined) return 'denied'
    if (!this.allows(client, service, protocol, port)) return 'denied'
    if (service === undefined)
      return protocol === Protocol.icmp ? { family: 4, address: addresses.self(4), port: 0 } : 'refused'
    const endpoint = endpoints.find(service, protocol, port)
    if (peer === SELF) return endpoint
    const wanted = { service, protocol, port }
    if (typeof endpoint !== 'string')
      return this.#isWell(service) ? endpoint : (this.#elsewhere(client, wanted, now) ?? endpoint)
    if (endpoint === 'no-instance') return this.#resolve(client, wanted, now)
    return endpoint === 'refused' ? (this.#elsewhere(client, wanted, now) ?? endpoint) : endpoint
  }

  /** The registered state of this host's instance. */
  #isWell(service: ServiceId): boolean {
    const { catalogue, self } = this.#c
    return catalogue.get(service)?.instances.some(({ host, state }) => host === self && state !== 'up') !== true
  }

  /** This host has the service, and others have it better. */
  #elsewhere(client: HostId, wanted: Wanted, now: number): NotHere | undefined {
    const { whereabouts } = this.#c
    if (!whereabouts.hasOthers(client, wanted)) return undefined
    const told = whereabouts.tell(client, wanted, now)
    return told instanceof Uint8Array ? { notHere: 'moved', hint: told } : undefined
  }

  /** This host does not have the service: it says what it knows of it. */
  #resolve(client: HostId, wanted: Wanted, now: number): NotHere | DropReason {
    if (this.loading(now)) return { notHere: 'loading' }
    const told = this.#c.whereabouts.tell(client, wanted, now)
    if (told instanceof Uint8Array) return { notHere: 'moved', hint: told }
    if (told !== 'hold') return told
    this.#ask(wanted, now)
    return { notHere: 'loading' }
  }

  #ask(wanted: Wanted, now: number): void {
    const { afterwards, whereabouts } = this.#c
    afterwards(() => whereabouts.asking.ask(wanted, now))
  }

  wantSession(peer: number, now: number): void {
    this.#c.wantSession(peer, now)
  }

  retransmitted(peer: number, now: number): void {
    this.#c.retransmitted(peer, now)
  }
  other(batch: OpenBatch, entry: number, peer: number, now: number): void {
    this.#c.other(batch, entry, peer, now)
  }
  sendFrame(peer: number, plaintext: Uint8Array, trafficClass: number): boolean {
    return this.#c.sendFrame(peer, plaintext, trafficClass)
  }
  sendBatch(seal: SealBatch, now: number): void {
    this.#c.sendBatch(seal, now)
  }
  writePacket(packet: Uint8Array): void {
    this.#c.writePacket(packet)
  }
  drop(reason: DropReason, packet: Uint8Array | undefined, n: number): void {
    this.#c.drop(reason, packet, n)
  }

  fault(error: unknown): void {
    this.#c.fault(error)
  }

  #candidate(host: HostId, service: ServiceId | undefined, doubtful: boolean): Candidate | undefined {
    const peer = host === this.#c.self ? SELF : this.peers.add(host)
    return peer < 0 ? undefined : { peer, service, doubtful: doubtful && peer !== SELF }
  }

  /** Whether the policy lets the client's host reach it. */
  allows(client: HostId, service: ServiceId | undefined, protocol: number, port: number): boolean {
    const { catalogue, tagsOf, policy, whereabouts } = this.#c
    const rules = policy()
    if (rules.rules.length === 0) return rules.otherwise
    const tags = tagsOf(client) ?? []
    const name = service === undefined ? undefined : catalogue.nameOf(service)
    const unnamed = service !== undefined && name === undefined
    const covered = unnamed ? { covered: (text: string) => whereabouts.rules.covers(text, service) } : {}
    return checkPolicy(rules, { tags, service: name, protocol, port, ...covered }).allowed
  }

  /** {@link allows} of a flow that is there. */
  allowsFlow({ role, peer, service, protocol, dialledPort }: FlowSnapshot): boolean {
    if (peer < 0) return true
    const number = protocol === 'tcp' ? Protocol.tcp : protocol === 'udp' ? Protocol.udp : Protocol.icmp
    return this.allows(role === 'initiator' ? this.#c.self : this.peers.hostId(peer), service, number, dialledPort)
  }

  #count(service: ServiceId, host: HostId, step: number): void {
    const key = `${service}/${host}`
    const count = (this.#open.get(key) ?? 0) + step
    if (count <= 0) this.#open.delete(key)
    else this.#open.set(key, count)
  }
}
