import { z } from 'zod'
import type { HostId } from '../wire/ids.js'
import { RANK_MAX, type NameClaim, type Registration } from './registration.js'
import { parseServiceName } from './service-id.js'

/** The authority's word on who may register a name and all names below it. */
export interface NameRule {
  /** A service name, or `*` for all. The rule with the most labels counts. */
  readonly name: string
  /** Hosts with one of the tags, and these hosts; both empty: every member. */
  readonly tags: readonly string[]
  readonly hosts: readonly HostId[]
  /** Best priority that may be asked for; better ones count as this. */
  readonly minPriority: number
  readonly maxWeight: number
}

export interface NameOwner {
  readonly by: 'authority' | 'claim' | 'nobody'
  /** The host whose claim it is. */
  readonly claimant?: HostId
  readonly tags: readonly string[]
  readonly hosts: readonly HostId[]
  readonly minPriority: number
  readonly maxWeight: number
}

const rank = z.number().int().min(0).max(RANK_MAX)
const hostText = z.custom<HostId>(
  (value) => typeof value === 'string' && /^[0-9a-f]{64}$/.test(value),
  'must be a host ID',
)
const nameText = z
  .string()
  .refine((name) => name === '*' || !('problem' in parseServiceName(name)), 'must be a service name or "*"')
  .transform((name) => name.toLowerCase())

/** Rules as plain configuration. */
export const nameRules: z.ZodType<NameRule[]> = z.array(
  z.strictObject({
    name: nameText,
    tags: z.array(z.string()).default([]),
    hosts: z.array(hostText).default([]),
    minPriority: rank.default(0),
    maxWeight: rank.default(RANK_MAX),
  }),
)

const UNBOUNDED = { minPriority: 0, maxWeight: RANK_MAX } as const

/**
 * Whose the name is: by the most specific rule, else by the oldest claim (ties by host ID) of a host that is covered by its own claim, else nobody's,
 * which every member may register. `tagsOf`: undefined for hosts that are no members. `memberSince`: wall time, s; a host can have claimed nothing before it was
 * a member, whatever it says.
 */
export function ownerOf(
  name: string,
  rules: readonly NameRule[],
  claims: readonly { readonly host: HostId; readonly claim: NameClaim }[],
  tagsOf: (host: HostId) => readonly string[] | undefined,
  memberSince: (host: HostId) => number = () => 0,
): NameOwner {
  let best: NameRule | undefined
  for (const rule of rules)
    if (covers(rule.name, name) && (best === undefined || depth(rule.name) > depth(best.name))) best = rule
  if (best !== undefined) return { by: 'authority', ...best }
  let first: { host: HostId; claim: NameClaim; since: number } | undefined
  for (const one of claims) {
    const tags = tagsOf(one.host)
    if (tags === undefined || !belongs(one.claim, one.host, tags)) continue
    const since = Math.max(one.claim.since, memberSince(one.host))
    const earlier = first === undefined || since < first.since
    if (earlier || (since === first?.since && one.host < first.host)) first = { ...one, since }
  }
  if (first === undefined) return { by: 'nobody', tags: [], hosts: [], ...UNBOUNDED }
  const { host, claim } = first
  return { by: 'claim', claimant: host, tags: claim.tags, hosts: claim.hosts, ...UNBOUNDED }
}

/** Whether a host with these tags is among the owners. */
export function belongs(owner: Pick<NameOwner, 'tags' | 'hosts'>, host: HostId, tags: readonly string[]): boolean {
  if (owner.tags.length === 0 && owner.hosts.length === 0) return true
  return owner.hosts.includes(host) || owner.tags.some((tag) => tags.includes(tag))
}

/** Priority and weight as far as the owner's rule allows. */
export function bounded(registration: Registration, owner: NameOwner): { priority: number; weight: number } {
  return {
    priority: Math.max(registration.priority, owner.minPriority),
    weight: Math.min(registration.weight, owner.maxWeight),
  }
}

/** Whether a name or domain (`*`: all) covers the name. */
export function covers(domain: string, name: string): boolean {
  return domain === '*' || domain === name || name.endsWith(`.${domain}`)
}

function depth(domain: string): number {
  return domain === '*' ? 0 : domain.split('.').length
}
