// The rules of the service table that people set on this host, beside those that registered instances make.
//
// Precedence. Among the rules set here the longest prefix decides: one for `api.shop` goes before one for `shop`, and that before `*`. The rules of that one prefix and the
// service's instances are then used in the order of their priorities, lowest first; at the same priority a rule set here comes before an instance. DROP and DELAY end
// the list: what stands behind them is not used.

import type { NetworkId, ServiceId } from '../wire/ids.js'
import { isInstanceRule } from './catalogue.js'
import {
  coversService,
  domainPrefix,
  exactPrefix,
  networkPrefix,
  parseServiceName,
  serviceIdOf,
  type Hasher,
  type ServiceName,
  type ServicePrefix,
} from './service-id.js'
import type { CountedRule, Rule, RuleAction, ServiceTable } from './service-table.js'

export interface LocalRule extends Rule {
  /** Undefined: every name of the network. */
  readonly name: ServiceName | undefined
  /** Covers the names below it too. */
  readonly below: boolean
}

/** Sorts before the keys of instances. */
const KEY = 'config/'

interface InForce {
  readonly prefix: ServicePrefix
  readonly key: string
  readonly text: string
}

export class LocalRules {
  #set: readonly InForce[] = []
  readonly #texts = new Map<string, string>()

  constructor(
    private readonly components: {
      readonly table: ServiceTable
      readonly network: NetworkId
      readonly hasher: Hasher
    },
  ) {}

  /** Puts these rules in force, and no others. A rule that was there before keeps its counters. */
  replace(rules: readonly LocalRule[]): void {
    const { table } = this.components
    const next = rules.map((rule) => ({
      rule,
      prefix: this.#prefix(rule),
      key: keyOf(rule.action),
      text: textOf(rule),
    }))
    const kept = new Set(next.map(placeOf))
    for (const old of this.#set) if (!kept.has(placeOf(old))) table.delete(old.prefix, old.key)
    for (const { rule, prefix, key } of next) {
      const { action, priority, weight } = rule
      table.set(prefix, key, { action, priority, weight })
    }
    this.#set = next
    this.#texts.clear()
    for (const { prefix, text } of next) this.#texts.set(prefixKey(prefix), text)
  }

  /** The rules for the service, best priority first; empty: none was set. */
  of(service: ServiceId): readonly CountedRule[] {
    for (const { rules } of this.components.table.covering(service)) {
      const local = rules.filter(({ key }) => !isInstanceRule(key))
      if (local.length > 0) return local
    }
    return []
  }

  /** ID of the service of this name, when a rule set here may find an instance of it although nothing is known of it yet. */
  findable(name: ServiceName): ServiceId | undefined {
    if (this.#set.length === 0) return undefined
    const { network, hasher } = this.components
    const service = serviceIdOf(name, network, hasher)
    const first = this.of(service).find(({ key }) => isLocalRule(key))
    return first === undefined || first.action.kind === 'drop' ? undefined : service
  }

  /** Whether the service has this name or one below it, as its ID tells. */
  covers(text: string, service: ServiceId): boolean {
    const { network, hasher } = this.components
    const name = parseServiceName(text)
    return !('problem' in name) && coversService(domainPrefix(name, network, hasher), service)
  }

  /** The name as people see it, such as `shop and below`; undefined: no rule set here has this prefix. */
  textOf(prefix: ServicePrefix): string | undefined {
    return this.#texts.get(prefixKey(prefix))
  }

  #prefix({ name, below }: LocalRule): ServicePrefix {
    const { network, hasher } = this.components
    if (name === undefined) return networkPrefix(network)
    return below ? domainPrefix(name, network, hasher) : exactPrefix(serviceIdOf(name, network, hasher))
  }
}

/** Whether the rule was set by people. */
export function isLocalRule(key: string): boolean {
  return key.startsWith(KEY)
}

function keyOf(action: RuleAction): string {
  return action.kind === 'forward' ? `${KEY}${action.to}/${action.host}` : `${KEY}${action.kind}`
}

function textOf({ name, below }: LocalRule): string {
  if (name === undefined) return '*'
  return below && name.kind === 'labels' ? `${name.text} and below` : name.text
}

function prefixKey({ id, length }: ServicePrefix): string {
  return `${id}/${length}`
}

function placeOf({ prefix, key }: Pick<InForce, 'prefix' | 'key'>): string {
  return `${prefixKey(prefix)}/${key}`
}
