import type { ServiceCatalogue } from '../service/catalogue.js'
import { ruleKey } from '../service/catalogue.js'
import { drawByWeight, type InstanceChoice } from '../service/choice.js'
import type { Instance } from '../service/catalogue.js'
import type { Learned } from '../service/learned.js'
import type { LocalRules } from '../service/local-rules.js'
import { exactPrefix } from '../service/service-id.js'
import type { CountedRule, ServiceTable } from '../service/service-table.js'
import { Protocol } from '../wire/constants.js'
import type { DropReason } from '../wire/drop.js'
import type { HostId, ServiceId } from '../wire/ids.js'

/** A host that a first packet may go to. */
export interface FoundHost {
  readonly host: HostId
  /** resolver: it may know who has the service. */
  readonly kind: 'instance' | 'resolver'
  /** Not heard of lately: ask the next one shortly after. */
  readonly doubtful: boolean
  /** The rule that named it; undefined: a hint did. */
  readonly rule: CountedRule | undefined
}

export interface Wanted {
  readonly service: ServiceId
  /** As in IP (echo of both families: 1), and the port as dialled. */
  readonly protocol: number
  readonly port: number
  /** Only this host's instance will do. */
  readonly host?: HostId | undefined
}

/** Never empty, in the order to be tried; or why there is nobody; or a DELAY rule says that somebody may still come. */
export type LookedUp = readonly FoundHost[] | DropReason | 'hold'

/** What the service table, the instances behind it and the hints of others say of where a service is. Precedence: lib/service/local-rules.ts. */
export class ServiceLookup {
  constructor(
    private readonly components: {
      readonly self: HostId
      readonly catalogue: ServiceCatalogue
      readonly choice: InstanceChoice
      readonly table: ServiceTable
      readonly rules: LocalRules
      readonly learned: Learned
      /** Uniform in [0, 1). */
      readonly random: () => number
    },
  ) {}

  /** `count`: the rule that decided is counted as used. */
  find(wanted: Wanted, now: number, count: boolean): LookedUp {
    const { catalogue, rules, table } = this.components
    const { service, protocol, port, host } = wanted
    const eligible = catalogue.eligible(service, protocol, port, host)
    let left: readonly Instance[] = typeof eligible === 'string' ? [] : eligible
    const found: FoundHost[] = []
    let end: CountedRule | undefined
    const local = byPriority(rules.of(service))
    for (const group of local) {
      const { priority } = group[0]!
      const before = left.filter((instance) => instance.priority < priority)
      left = left.filter((instance) => instance.priority >= priority)
      found.push(...this.#ordered(before, now))
      end = group.find(({ action }) => action.kind === 'drop')
      if (end === undefined && host === undefined) found.push(...this.#resolvers(group))
      end ??= group.find(({ action }) => action.kind === 'delay')
      if (end !== undefined) break
    }
    if (end === undefined) found.push(...this.#ordered(left, now))
    const all = host === undefined ? this.#withLearned(service, found, end, now) : found
    if (count) {
      const used = all.length > 0 ? all[0]!.rule : end
      if (used !== undefined) table.hit(used, now)
    }
    if (all.length > 0) return all
    if (end?.action.kind === 'drop') return 'denied'
    const reason = typeof eligible === 'string' ? this.#reason(wanted, eligible) : 'no-instance'
    // Whoever has the service does not have the port: that is an answer.
    return end === undefined || reason === 'refused' ? reason : 'hold'
  }

  #reason({ service, protocol, host }: Wanted, reason: 'no-such-service' | 'no-instance'): DropReason {
    if (reason === 'no-such-service' || protocol === Protocol.icmp) return reason
    const any = this.components.catalogue.eligible(service, Protocol.icmp, 0, host)
    return typeof any === 'string' ? any : 'refused'
  }

  #ordered(instances: readonly Instance[], now: number): FoundHost[] {
    if (instances.length === 0) return []
    const { choice, table } = this.components
    const rules = table.get(exactPrefix(instances[0]!.service))?.rules ?? []
    return choice.order(instances, now).map(({ instance: { host }, doubtful }) => {
      const rule = rules.find(({ key }) => key === ruleKey(host))
      return { host, kind: 'instance', doubtful, rule }
    })
  }

  /** In an order that follows the weights. This host itself knows no more than it has looked up. */
  #resolvers(group: readonly CountedRule[]): FoundHost[] {
    const { self, random } = this.components
    const left = group.flatMap((rule) =>
      rule.action.kind === 'forward' && rule.action.host !== self
        ? { rule, host: rule.action.host, weight: rule.weight }
        : [],
    )
    const ordered: FoundHost[] = []
    while (left.length > 0) {
      const [drawn] = left.splice(drawByWeight(left, random), 1)
      if (drawn !== undefined) ordered.push({ host: drawn.host, kind: 'resolver', doubtful: false, rule: drawn.rule })
    }
    return ordered
  }

  /** What hints named comes behind the instances that are known and before resolvers; who said that it does not have the service comes last. */
  #withLearned(service: ServiceId, found: readonly FoundHost[], end: CountedRule | undefined, now: number) {
    const { self, learned } = this.components
    const known = found.filter(({ kind }) => kind === 'instance')
    const resolvers = found.filter(({ kind }) => kind === 'resolver')
    const [gone, here] = partition(known, ({ host }) => learned.hasLeft(service, host, now))
    if (end?.action.kind === 'drop' && resolvers.length === 0) return [...here, ...gone]
    const hinted = learned
      .found(service, now)
      .filter(({ host }) => host !== self && !found.some((one) => one.host === host))
      .map(({ host, kind }) => ({ host, kind, doubtful: true, rule: undefined }))
    const first = found.findIndex(({ kind }) => kind === 'resolver')
    // Instances that a resolver's rule goes before stay behind it.
    const after = first < 0 ? [] : here.filter((one) => found.indexOf(one) > first)
    const before = here.filter((one) => !after.includes(one))
    return [...before, ...hinted, ...resolvers, ...after, ...gone]
  }
}

/** Rules come in the order of their priorities; those of one make a group. */
function byPriority(rules: readonly CountedRule[]): CountedRule[][] {
  const groups: CountedRule[][] = []
  for (const rule of rules) {
    const last = groups.at(-1)
    if (last?.[0]?.priority === rule.priority) last.push(rule)
    else groups.push([rule])
  }
  return groups
}

function partition<T>(items: readonly T[], first: (item: T) => boolean): [T[], T[]] {
  return [items.filter(first), items.filter((item) => !first(item))]
}
