import type { SignedNameRule } from '../crypto/name-rules.js'
import { forbiddenTag } from '../crypto/authority.js'
import { RANK_MAX } from '../wire/constants.js'
import type { HostId } from '../wire/ids.js'
import type { NameClaim, Registration } from './registration.js'

/** Who may register a name and all names below it, by the word of the authority or of one of its issuers. */
export interface NameRule {
  /** A service name, or `*` for all. The rule with the most labels counts. */
  readonly name: string
  /** Hosts with one of the tags, and these hosts; both empty: every member. */
  readonly tags: readonly string[]
  readonly hosts: readonly HostId[]
  /** Best priority that may be asked for; better ones count as this. */
  readonly minPriority: number
  readonly maxWeight: number
  /** The issuer whose word it is; undefined: the authority's own. */
  readonly issuer?: HostId
  /** Wall ms when it was signed. */
  readonly serial: number
}

/** A claim that an issuer has stamped. */
export interface Title {
  /** Wall time of the stamp, s since the epoch. */
  readonly time: number
  /** The issuer's certificate stands; else it was revoked after the stamp. */
  readonly firm: boolean
}

export interface ClaimOfName {
  readonly host: HostId
  readonly claim: NameClaim
  /** undefined: its `since` is the host's own word. */
  readonly title?: Title | undefined
}

export interface NameOwner {
  readonly by: 'authority' | 'claim' | 'nobody'
  /** The issuer who gave it, where it was not the authority itself. */
  readonly issuer?: HostId
  /** The host whose claim it is. */
  readonly claimant?: HostId
  /** Of the claimant. */
  readonly title?: Title | undefined
  readonly tags: readonly string[]
  readonly hosts: readonly HostId[]
  readonly minPriority: number
  readonly maxWeight: number
}

const UNBOUNDED = { minPriority: 0, maxWeight: RANK_MAX } as const
/** Of a name that nobody has claimed. */
export const unowned: NameOwner = { by: 'nobody', tags: [], hosts: [], ...UNBOUNDED }

/**
 * Whose the name is: by the most specific rule, else by the first claim of a host that is covered by its own claim, else nobody's, which every member may
 * register. First are stamped claims, by the time of the stamp; then those stamped by an issuer that was revoked later, who may have back-dated them; then the others, by their own
 * word. Ties by host ID. `tagsOf`: undefined for hosts that are no members. `memberSince`: wall time, s; a host can have claimed nothing before it was a member, whatever it says.
 */
export function ownerOf(
  name: string,
  rules: ReadonlyMap<string, NameRule>,
  claims: readonly ClaimOfName[],
  tagsOf: (host: HostId) => readonly string[] | undefined,
  memberSince: (host: HostId) => number = () => 0,
): NameOwner {
  const best = ruleFor(name, rules)
  if (best !== undefined) {
    const { tags, hosts, minPriority, maxWeight, issuer } = best
    return { by: 'authority', tags, hosts, minPriority, maxWeight, ...(issuer === undefined ? {} : { issuer }) }
  }
  const first = firstClaim(claims, tagsOf, memberSince)
  if (first === undefined) return unowned
  const { host, claim, title } = first
  return { by: 'claim', claimant: host, title, tags: claim.tags, hosts: claim.hosts, ...UNBOUNDED }
}

/** The claim that comes before all others; undefined: there is none that counts. */
export function firstClaim(
  claims: readonly ClaimOfName[],
  tagsOf: (host: HostId) => readonly string[] | undefined,
  memberSince: (host: HostId) => number = () => 0,
): ClaimOfName | undefined {
  let first: { one: ClaimOfName; rank: number; time: number } | undefined
  for (const one of claims) {
    const { host, claim, title } = one
    const tags = tagsOf(host)
    if (tags === undefined || !belongs(claim, host, tags)) continue
    const rank = title === undefined ? 2 : title.firm ? 0 : 1
    const time = title?.time ?? Math.max(claim.since, memberSince(host))
    const order = first === undefined ? -1 : rank - first.rank || time - first.time || (host < first.one.host ? -1 : 1)
    if (order < 0) first = { one, rank, time }
  }
  return first?.one
}

/**
 * The rules that count, by name, of all that were signed. For one name the authority's word goes before any issuer's whatever their serials, also where it says `free`; among issuers' the
 * highest serial counts, ties by host ID. Below a name that the authority has given away, an issuer's rules count only when it could let in an owner of that name anyway.
 */
export function rulesInForce(signed: readonly SignedNameRule[]): Map<string, NameRule> {
  const authority = new Map<string, SignedNameRule>()
  for (const rule of signed) if (rule.issuer === undefined && !rule.free) authority.set(rule.name, rule)
  const best = new Map<string, SignedNameRule>()
  for (const rule of signed) {
    const before = best.get(rule.name)
    if (isEntitled(rule, authority) && (before === undefined || overrides(rule, before))) best.set(rule.name, rule)
  }
  const inForce = new Map<string, NameRule>()
  for (const { name, tags, hosts, minPriority, maxWeight, serial, issuer, free } of best.values()) {
    const by = issuer === undefined ? {} : { issuer: issuer.host }
    if (!free) inForce.set(name, { name, tags, hosts, minPriority, maxWeight, serial, ...by })
  }
  return inForce
}

/** The rule with the most labels that covers the name. `rules`: by name. */
export function ruleFor<R>(name: string, rules: ReadonlyMap<string, R>): R | undefined {
  for (let at = 0; at >= 0;) {
    const rule = rules.get(name.slice(at))
    if (rule !== undefined) return rule
    const dot = name.indexOf('.', at)
    at = dot < 0 ? -1 : dot + 1
  }
  return rules.get('*')
}

function overrides(rule: SignedNameRule, other: SignedNameRule): boolean {
  if (rule.issuer === undefined || other.issuer === undefined) return rule.issuer === undefined
  if (rule.serial !== other.serial) return rule.serial > other.serial
  return rule.issuer.host < other.issuer.host
}

function isEntitled({ name, issuer }: SignedNameRule, authority: ReadonlyMap<string, SignedNameRule>): boolean {
  const above = issuer && ruleFor(name, authority)
  if (issuer === undefined || above === undefined) return true
  if (above.tags.length === 0 && above.hosts.length === 0) return true
  return above.tags.some((tag) => forbiddenTag(issuer, [tag]) === undefined)
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
