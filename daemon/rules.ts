import type { Host } from '../lib/host/host.js'
import type { LocalRule } from '../lib/service/local-rules.js'
import { parseServiceName } from '../lib/service/service-id.js'
import type { RuleAction } from '../lib/service/service-table.js'
import { hostId, type HostId } from '../lib/wire/ids.js'
import type { RuleSetting } from './config.js'
import type { Log } from './log.js'
import type { Names } from './names.js'

const HOST_ID = /^[0-9a-f]{64}$/

/** The rules of the settings, put in force. A resolver is known by name only once its membership is: until then what its rule covers is held. */
export class ConfiguredRules {
  #settings: readonly RuleSetting[] = []
  /** Names of resolvers that are not known. */
  #missing: readonly string[] = []

  constructor(
    private readonly components: {
      readonly host: Host
      readonly names: Pick<Names, 'hostNamed'>
      readonly log: Log
      readonly now: () => number
    },
  ) {}

  /** Puts these in force, and no others. */
  set(settings: readonly RuleSetting[]): void {
    this.#settings = settings
    const missing = this.#apply()
    if (missing.length > 0) {
      const note = 'resolvers of rules are not known yet: what the rules cover is held'
      this.components.log.warn({ hosts: missing }, note)
    }
  }

  /** More hosts may be known by name. */
  look(): void {
    const { log, names } = this.components
    if (!this.#missing.some((name) => names.hostNamed(name) !== undefined)) return
    const missing = this.#apply()
    log.info({ missing }, 'resolvers of rules are known')
  }

  #apply(): readonly string[] {
    const { host, now } = this.components
    const missing: string[] = []
    const rules = this.#settings.flatMap((setting): LocalRule[] => {
      const { name: text, below, priority, weight } = setting
      const name = text === '*' ? undefined : parseServiceName(text)
      // Checked when the settings were read.
      if (name !== undefined && 'problem' in name) return []
      return [{ name, below, priority, weight, action: this.#action(setting, missing) }]
    })
    this.#missing = missing
    host.setRules(rules, now())
    return missing
  }

  #action({ action, host: text }: RuleSetting, missing: string[]): RuleAction {
    if (action !== 'resolver' || text === undefined) return { kind: action === 'drop' ? 'drop' : 'delay' }
    const host = this.#hostId(text)
    if (host !== undefined) return { kind: 'forward', to: 'resolver', host }
    missing.push(text)
    return { kind: 'delay' }
  }

  #hostId(text: string): HostId | undefined {
    return HOST_ID.test(text) ? hostId(text) : this.components.names.hostNamed(text)
  }
}
