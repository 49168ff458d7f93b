import { allowAll, type Policy } from '../lib/service/policy.js'
import type { PolicySetting } from './config.js'

/** The policy of a configuration: what one of its rules allows is allowed, and nothing else; without the setting, everything. */
export function policyOf(settings: readonly PolicySetting[] | undefined): Policy {
  if (settings === undefined) return allowAll
  const rules = settings.map(({ from, to, ports }) => ({
    allow: true,
    from,
    to: to.length > 0 ? to : ['*'],
    ports: ports.map(({ protocol, port }) => ({ protocol, from: port ?? 0, to: port ?? 65_535 })),
  }))
  return { rules, otherwise: false }
}
