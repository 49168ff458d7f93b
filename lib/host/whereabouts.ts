import { decodeHint, encodeHint, type HintedHost } from '../path/hint.js'
import { decodeLocator, formatLocator, type Locator } from '../path/locator.js'
import { SELF, type PeerTable } from '../path/peers.js'
import type { ServiceCatalogue } from '../service/catalogue.js'
import type { InstanceChoice } from '../service/choice.js'
import { Learned, type LearnedHost } from '../service/learned.js'
import { LocalRules, type LocalRule } from '../service/local-rules.js'
import type { Hasher } from '../service/service-id.js'
import type { ServiceTable } from '../service/service-table.js'
import type { DropReason } from '../wire/drop.js'
import type { HostId, NetworkId, ServiceId } from '../wire/ids.js'
import { Asking } from './asking.js'
import { ServiceLookup, type LookedUp, type Wanted } from './service-lookup.js'

export interface WhereaboutsComponents {
  readonly self: HostId
  readonly network: NetworkId
  readonly hasher: Hasher
  readonly peers: PeerTable
  readonly catalogue: ServiceCatalogue
  readonly choice: InstanceChoice
  readonly table: ServiceTable
  readonly random: () => number
  readonly randomBytes: (length: number) => Uint8Array
  /** What the host's own records say, then what others do. */
  readonly locatorsOf: (host: HostId) => readonly Locator[]
  /** The membership of the host is known. */
  readonly isMember: (host: HostId) => boolean
  readonly isRevoked: (host: HostId) => boolean
  /** Whether the policy lets the client's host reach it. */
  readonly allows: (client: HostId, service: ServiceId, protocol: number, port: number) => boolean
  /** Somebody says that the host is there. */
  readonly hint: (host: HostId, locator: Locator, now: number) => void
  /** A question or an answer to a peer. */
  readonly send: (peer: number, message: Uint8Array, now: number) => boolean
  /** An answer has come: first packets that are held are to be tried again. */
  readonly release: () => void
  readonly drop: (reason: DropReason) => void
}

/** Where services are, as far as this host can say or find out: by its rules and records, by hints of others, by asking. */
export class Whereabouts {
  readonly rules: LocalRules
  readonly learned = new Learned()
  readonly asking: Asking
  readonly #c: WhereaboutsComponents
  readonly #lookup: ServiceLookup

  constructor(components: WhereaboutsComponents) {
    this.#c = components
    this.rules = new LocalRules(components)
    this.#lookup = new ServiceLookup({ ...components, rules: this.rules, learned: this.learned })
    this.asking = new Asking({
      ...components,
      connected: () => this.#connected(),
      tell: (peer, wanted, now) => this.#answer(components.peers.hostId(peer), wanted, now),
      answered: (service, hint, now) => {
        if (this.take(service, hint, now).length > 0) components.release()
      },
    })
  }

  /** Puts these rules in force, and no others. */
  setRules(rules: readonly LocalRule[]): void {
    this.rules.replace(rules)
    this.#c.release()
  }

  /** For a flow of this host's programs. */
  find(wanted: Wanted, now: number, count: boolean): LookedUp {
    return this.#lookup.find(wanted, now, count)
  }

  /** For a flow of the client's, which has come here: a hint for it, or why there is none; 'hold': not yet. */
  tell(client: HostId, wanted: Wanted, now: number): Uint8Array | DropReason | 'hold' {
    return this.#tell(client, wanted, now, false)
  }

  /** Other hosts' instances that flows may go to. */
  hasOthers(client: HostId, { service, protocol, port }: Wanted): boolean {
    const { catalogue, self } = this.#c
    const instances = catalogue.eligible(service, protocol, port)
    return typeof instances !== 'string' && instances.some(({ host }) => host !== self && host !== client)
  }

  /** What a hint names, kept for later; empty: nothing that can be used. Bytes that are no hint are counted. */
  take(service: ServiceId, bytes: Uint8Array, now: number): readonly LearnedHost[] {
    const hosts = decodeHint(bytes)
    if (hosts === undefined) {
      this.#c.drop('bad-control')
      return []
    }
    const usable = hosts.filter((one) => this.#isUsable(one))
    for (const { host, locators } of usable) {
      // Where there is a session, what others say does not matter.
      if (this.#isConnected(this.#c.peers.indexOf(host))) continue
      for (const locator of locators.toReversed()) this.#c.hint(host, locator, now)
    }
    this.learned.learn(service, usable.toReversed(), now)
    return usable
  }

  #tell(client: HostId, wanted: Wanted, now: number, withSelf: boolean): Uint8Array | DropReason | 'hold' {
    const { self, allows } = this.#c
    if (!allows(client, wanted.service, wanted.protocol, wanted.port)) return 'denied'
    const found = this.#lookup.find(wanted, now, true)
    if (typeof found === 'string') return found
    const others = found.filter(({ host }) => host !== client && (withSelf || host !== self))
    if (others.length === 0) return 'no-instance'
    return encodeHint(others.map(({ kind, host }) => ({ kind, host, locators: this.#locators(host) })))
  }

  #answer(client: HostId, wanted: Wanted, now: number): Uint8Array | 'denied' | undefined {
    const told = this.#tell(client, wanted, now, true)
    return told === 'denied' || told instanceof Uint8Array ? told : undefined
  }

  /** Where its frames go to now, then what its records say. */
  #locators(host: HostId): Locator[] {
    const { peers, locatorsOf } = this.#c
    const peer = peers.indexOf(host)
    const slot = peer > SELF ? peers.pathSlot[peer]! : -1
    const current = slot < 0 ? undefined : decodeLocator(peers.addresses.record(slot))
    const all = [...(current === undefined ? [] : [current]), ...locatorsOf(host)]
    return [...new Map(all.map((locator) => [formatLocator(locator), locator])).values()]
  }

  #isUsable({ host }: HintedHost): boolean {
    const { self, peers, isMember, isRevoked } = this.#c
    if (host === self || isRevoked(host)) return false
    // An index among the peers is for good: half of them are members' alone.
    return peers.indexOf(host) >= 0 || isMember(host) || peers.size < peers.capacity / 2
  }

  #isConnected(peer: number): boolean {
    const { peers } = this.#c
    return peer > SELF && peers.sealSlot[peer]! >= 0 && peers.pathSlot[peer]! >= 0
  }

  #connected(): number[] {
    const connected: number[] = []
    for (let peer = SELF + 1; peer < this.#c.peers.size; peer++) if (this.#isConnected(peer)) connected.push(peer)
    return connected
  }
}
