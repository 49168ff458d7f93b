// To whom names are given by the authority's word: what `caracal own` signs, and what it lists.

import { forbiddenTag, nextSerial, openIssuer } from '../lib/crypto/authority.js'
import {
  ALL_NAMES,
  openNameRule,
  OWNERS_MAX,
  ruleAsAuthority,
  ruleAsIssuer,
  type NameRuleFields,
  type NameRuleList,
  type SignedNameRule,
} from '../lib/crypto/name-rules.js'
import { ANY_TAG, isTag } from '../lib/crypto/names.js'
import type { Primitives } from '../lib/crypto/primitives.js'
import { checkValidity, SKEW_SECONDS } from '../lib/crypto/validity.js'
import type { Conflict, KnownName } from '../lib/service/catalogue.js'
import { ruleFor, rulesInForce, type NameRule } from '../lib/service/ownership.js'
import { parseServiceName } from '../lib/service/service-id.js'
import { fromHex, type HostId } from '../lib/wire/ids.js'
import type { NameInfo } from './control/shapes.js'
import { CaracalError } from './errors.js'
import type { Identity } from './identity.js'
import type { Viewed } from './views.js'

export type NameWish = Omit<NameRuleFields, 'serial'>

/** The name of a rule in its canonical text: a service's, or `*`. Throws CARACAL_E_NAME. */
export function ruledName(text: string): string {
  if (text === ALL_NAMES) return text
  const name = parseServiceName(text)
  if ('problem' in name)
    throw new CaracalError('CARACAL_E_NAME', name.problem, 'give a name such as web or shop, or "*" for all')
  if (name.kind === 'labels') return name.text
  throw new CaracalError('CARACAL_E_NAME', `${name.text} belongs to the holder of its key`, 'give another name')
}

/** Signs a rule as the authority where its key is here, else as an issuer, and adds it to the list. Throws, and nothing has changed, when it would not count. */
export function giveName(
  { trust, authority, hostKey }: Identity,
  wish: NameWish,
  primitives: Primitives,
  wallMs: number,
): { readonly bytes: Uint8Array; readonly rule: SignedNameRule } {
  const { name, tags, hosts, free } = wish
  const list = trust.nameRules
  const before = list.list().filter((rule) => rule.name === name)
  const certificate = trust.issuerCertificate
  checkOwners(tags, hosts.length)
  if (authority === undefined) checkIssuer({ trust, hostKey }, wish, before, primitives, wallMs / 1000)
  if (free && before.every((rule) => rule.free))
    throw new CaracalError('CARACAL_E_NO_SUCH_SERVICE', `no rule gives ${name} to anybody`, 'see `caracal own`')
  const serial = nextSerial(wallMs, Math.max(0, ...before.map((rule) => rule.serial)))
  let bytes: Uint8Array
  try {
    bytes =
      authority !== undefined
        ? ruleAsAuthority(authority, { ...wish, serial })
        : ruleAsIssuer(hostKey, { network: fromHex(trust.network), certificate: certificate! }, { ...wish, serial })
  } catch {
    throw new CaracalError('CARACAL_E_USAGE', 'these are too many tags and hosts for one rule', 'give fewer')
  }
  const rule = openNameRule(primitives, bytes, trust.authority)
  if (rule === undefined)
    throw new CaracalError('CARACAL_E_CLOCK', 'a rule signed now would not be believed', "check this host's clock")
  if (!free && !inForce(rule, list)) {
    const above = ruleFor(name, rulesInForce(list.list()))?.name ?? name
    throw notEntitled(`the authority has given ${above} to hosts that this issuer cannot let in`)
  }
  const replaces = before.some(({ issuer }) => issuer?.host === rule.issuer?.host)
  if (!replaces && !list.hasRoom(rule.issuer?.host))
    throw new CaracalError(
      'CARACAL_E_BUSY',
      'there are as many rules as may be',
      'give a whole domain, or `*`, at once',
    )
  list.add(bytes)
  return { bytes, rule }
}

function inForce(rule: SignedNameRule, list: NameRuleList): boolean {
  return rulesInForce([...list.list(), rule]).get(rule.name)?.serial === rule.serial
}

function checkOwners(tags: readonly string[], hosts: number): void {
  const bad = tags.find((tag) => !isTag(tag))
  if (bad !== undefined) {
    const what = `${JSON.stringify(bad)} is no tag`
    throw new CaracalError('CARACAL_E_USAGE', what, 'a tag is 1 to 32 of a-z, 0-9 and inner hyphens')
  }
  if (tags.length > OWNERS_MAX || hosts > OWNERS_MAX)
    throw new CaracalError(
      'CARACAL_E_USAGE',
      'too many owners',
      `give up to ${OWNERS_MAX} tags and ${OWNERS_MAX} hosts`,
    )
}

function checkIssuer(
  { trust, hostKey }: Pick<Identity, 'trust' | 'hostKey'>,
  { name, tags }: NameWish,
  before: readonly SignedNameRule[],
  primitives: Primitives,
  wallNow: number,
): void {
  const issuer = trust.issuerCertificate && openIssuer(primitives, trust.issuerCertificate, trust.authority)
  const where = 'run it on the host that created the network'
  if (issuer === undefined || issuer.host !== hostKey.id)
    throw new CaracalError('CARACAL_E_NOT_ISSUER', 'this host may not give names to anybody', where)
  const late = checkValidity("this host's certificate as an issuer", issuer, wallNow, SKEW_SECONDS)
  if (late !== undefined) throw new CaracalError('CARACAL_E_NOT_ISSUER', late.detail, where)
  if (trust.revocations.coversIssuer(issuer.host, issuer.serial))
    throw new CaracalError('CARACAL_E_NOT_ISSUER', 'this host is no issuer any more', where)
  const tag = forbiddenTag(issuer, tags)
  if (tag !== undefined) throw notEntitled(`this issuer may not give anything to the tag ${tag}`)
  if (name === ALL_NAMES && !issuer.tags.includes(ANY_TAG))
    throw notEntitled('this issuer may not give any tag, and so not all names')
  if (before.some((rule) => rule.issuer === undefined))
    throw notEntitled(`the authority has decided about ${name}, and its word goes before an issuer's`)
}

function notEntitled(what: string): CaracalError {
  return new CaracalError('CARACAL_E_NOT_ENTITLED', what, 'run it on the host that created the network')
}

/** Every name that a rule is about or a host has registered or claimed: whose it is, since when, and who is ignored. By name. */
export function namesView({ host, identity, names }: Pick<Viewed, 'host' | 'identity' | 'names'>): NameInfo[] {
  const rules = rulesInForce(identity.trust.nameRules.list())
  const showHost = (id: HostId) => names.showHost(id)
  const rows = new Map<string, NameInfo>()
  for (const rule of rules.values()) rows.set(rule.name, ruleRow(rule.name, rule, showHost))
  for (const known of host.catalogue.names()) {
    const rule = known.kind === 'key' ? undefined : ruleFor(known.name, rules)
    rows.set(known.name, rule === undefined ? claimRow(known, showHost) : ruleRow(known.name, rule, showHost))
  }
  for (const conflict of host.catalogue.conflicts()) {
    const row = rows.get(conflict.name) ?? { ...nobody, name: conflict.name }
    rows.set(conflict.name, { ...row, ignored: [...row.ignored, ignoredView(conflict, showHost)] })
  }
  return [...rows.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
}

type ShowHost = (id: HostId) => string

const nobody: Omit<NameInfo, 'name'> = {
  by: 'nobody',
  rule: null,
  signer: null,
  tags: [],
  hosts: [],
  minPriority: null,
  maxWeight: null,
  serial: null,
  sinceAt: null,
  ignored: [],
}

function ruleRow(name: string, rule: NameRule, showHost: ShowHost): NameInfo {
  const { tags, hosts, minPriority, maxWeight, serial, issuer } = rule
  return {
    ...nobody,
    name,
    by: issuer === undefined ? 'authority' : 'issuer',
    rule: rule.name,
    signer: issuer === undefined ? null : showHost(issuer),
    tags: [...tags],
    hosts: hosts.map(showHost),
    minPriority,
    maxWeight,
    serial,
    sinceAt: serial / 1000,
  }
}

function claimRow({ name, kind, owner, claimedSince }: KnownName, showHost: ShowHost): NameInfo {
  if (kind === 'key') return { ...nobody, name, by: 'key' }
  if (owner.claimant === undefined) return { ...nobody, name }
  return {
    ...nobody,
    name,
    by: 'claim',
    signer: showHost(owner.claimant),
    tags: [...owner.tags],
    hosts: owner.hosts.map(showHost),
    sinceAt: claimedSince ?? null,
  }
}

function ignoredView({ host, reason, detail }: Conflict, showHost: ShowHost): NameInfo['ignored'][number] {
  return { host: showHost(host), hostId: host, reason, detail }
}
