import { z } from 'zod'
import { concat, utf8 } from '../wire/bytes.js'
import { HOST_ID_LENGTH, NAME_LENGTH_MAX, NETWORK_ID_LENGTH, RANK_MAX } from '../wire/constants.js'
import { fromHex, hostId, networkId, toHex, type HostId } from '../wire/ids.js'
import { bytesOf, bytesUpTo, fields, pack, unpack } from '../wire/pack.js'
import { decodeSigned, SIGNED_OVERHEAD, type SignedBlob } from '../wire/signed.js'
import {
  forbiddenTag,
  ISSUER_CERTIFICATE_MAX,
  networkOf,
  openIssuer,
  Serial,
  type Authority,
  type Issuer,
} from './authority.js'
import type { HostKey } from './host-key.js'
import { ANY_TAG, isLabel, isTag } from './names.js'
import type { Primitives } from './primitives.js'
import type { RevocationList } from './revocations.js'
import { verifyBlob } from './signing.js'

/** Bytes of one signed rule, its issuer's certificate included: it fits a control message. */
export const NAME_RULE_MAX = 1_000
/** Rules a list can hold, `free` ones included. */
export const NAME_RULES_MAX = 1_024
/** Of these, so many by all issuers together, and by one of them: there is always room for the authority's. */
export const ISSUERS_RULES_MAX = 512
export const ISSUER_RULES_MAX = 128
/** Tags, and hosts, of one rule. */
export const OWNERS_MAX = 8
/** The name that stands for all. */
export const ALL_NAMES = '*'
const LABELS_MAX = 4
const LABEL = 'caracal/1 name rule'
const VERSION = 1

export interface NameRuleFields {
  /** A name, for itself and all names below it, or {@link ALL_NAMES}. */
  readonly name: string
  /** It belongs to hosts with one of the tags, and to these hosts; both empty: to every member. */
  readonly tags: readonly string[]
  readonly hosts: readonly HostId[]
  readonly minPriority: number
  readonly maxWeight: number
  /** The signer has no rule for the name any more: nothing of the above counts. */
  readonly free: boolean
  /** Wall ms when it was signed; of one signer's rules for a name the highest counts. */
  readonly serial: number
}

/** To whom a name belongs, as the authority or an issuer has signed it. */
export interface SignedNameRule extends NameRuleFields {
  /** Who signed it; undefined: the authority. */
  readonly issuer: Issuer | undefined
}

/** Signs a rule as the authority. Throws RangeError for fields no rule may have. */
export function ruleAsAuthority(authority: Authority, rule: NameRuleFields): Uint8Array {
  return bounded(authority.sign(LABEL, encodeBody(fromHex(authority.network), rule, null)))
}

/** Signs a rule as an issuer, whose certificate goes with it. Throws RangeError for fields no rule may have. */
export function ruleAsIssuer(
  key: HostKey,
  issuer: { readonly network: Uint8Array; readonly certificate: Uint8Array },
  rule: NameRuleFields,
): Uint8Array {
  return bounded(key.sign(LABEL, encodeBody(issuer.network, rule, issuer.certificate)))
}

const rank = z.number().int().min(0).max(RANK_MAX)
const Body = fields([
  z.literal(VERSION),
  bytesOf(NETWORK_ID_LENGTH),
  z.string().refine(isDomain),
  z.array(z.string().refine(isTag)).max(OWNERS_MAX),
  z.array(bytesOf(HOST_ID_LENGTH)).max(OWNERS_MAX),
  rank,
  rank,
  z.boolean(),
  Serial,
  z.union([z.null(), bytesUpTo(ISSUER_CERTIFICATE_MAX)]),
])

function isDomain(text: string): boolean {
  if (text === ALL_NAMES) return true
  const labels = text.split('.')
  return text.length <= NAME_LENGTH_MAX && labels.length <= LABELS_MAX && labels.every(isLabel)
}

function encodeBody(network: Uint8Array, rule: NameRuleFields, certificate: Uint8Array | null): Uint8Array {
  const { name, tags, hosts, minPriority, maxWeight, free, serial } = rule
  const ids = hosts.map((host) => fromHex(host))
  return pack([VERSION, network, name, tags, ids, minPriority, maxWeight, free, serial, certificate])
}

function decodeBody(blob: SignedBlob): z.output<typeof Body> | undefined {
  return unpack(blob.body, NAME_RULE_MAX - SIGNED_OVERHEAD, Body)
}

function bounded(bytes: Uint8Array): Uint8Array {
  const blob = decodeSigned(bytes, NAME_RULE_MAX)
  if (blob === undefined || decodeBody(blob) === undefined)
    throw new RangeError(`a rule names a service or "*", and at most ${OWNERS_MAX} tags and ${OWNERS_MAX} hosts`)
  return bytes
}

/**
 * Verifies a rule. An issuer's may give the name only to tags that the issuer may give, and `*` only when it may give any; it does not lapse with the issuer's
 * certificate, which must have been valid when it was signed: a name is not to fall to strangers because a date has passed. undefined: none of this network's.
 */
export function openNameRule(
  primitives: Primitives,
  bytes: Uint8Array,
  authority: Uint8Array,
): SignedNameRule | undefined {
  const blob = decodeSigned(bytes, NAME_RULE_MAX)
  const body = blob && decodeBody(blob)
  if (blob === undefined || body === undefined) return undefined
  const [, network, name, tags, hosts, minPriority, maxWeight, free, serial, certificate] = body
  if (networkId(network) !== networkOf(primitives, authority)) return undefined
  let issuer: Issuer | undefined
  if (certificate !== null) {
    issuer = openIssuer(primitives, certificate, authority)
    if (issuer === undefined || !mayGive(issuer, name, tags, serial)) return undefined
  }
  if (!verifyBlob(primitives, LABEL, blob, issuer === undefined ? authority : fromHex(issuer.host))) return undefined
  const ids = hosts.map((host) => hostId(host))
  return { name, tags, hosts: ids, minPriority, maxWeight, free, serial, issuer }
}

function mayGive(issuer: Issuer, name: string, tags: readonly string[], serial: number): boolean {
  const time = Math.floor(serial / 1000)
  if (time < issuer.notBefore || time > issuer.notAfter) return false
  return forbiddenTag(issuer, tags) === undefined && (name !== ALL_NAMES || issuer.tags.includes(ANY_TAG))
}

interface Held {
  readonly rule: SignedNameRule
  readonly bytes: Uint8Array
  /** Of the bytes, so that what is told again costs no verification. */
  readonly signature: string
}

/**
 * A network's rules for names: the union of what all hosts have seen, of which each signer's newest for a name is kept. What revoked issuers signed is left out.
 * When there are too many, those that come first in the order of signers and names stay, so that all hosts keep the same ones.
 */
export class NameRuleList {
  /** Rules that were not taken, by why: no rule of this network, its issuer is revoked, there is no room. */
  readonly refused = { invalid: 0, revoked: 0, full: 0 }
  readonly #held = new Map<string, Held>()
  readonly #signatures = new Set<string>()
  readonly #primitives: Primitives
  readonly #authority: Uint8Array
  readonly #revocations: RevocationList
  #digest: Uint8Array | undefined

  /** `authority`: public key. */
  constructor(primitives: Primitives, authority: Uint8Array, revocations: RevocationList) {
    this.#primitives = primitives
    this.#authority = authority
    this.#revocations = revocations
  }

  get size(): number {
    return this.#held.size
  }

  /** Adds one rule from anybody. A new one is returned: the caller's cue to review names and to tell the neighbours. What is refused is counted. */
  add(bytes: Uint8Array): SignedNameRule | 'known' | 'invalid' | 'revoked' | 'full' {
    const result = this.#add(bytes)
    if (typeof result === 'string' && result !== 'known') this.refused[result]++
    return result
  }

  #add(bytes: Uint8Array): SignedNameRule | 'known' | 'invalid' | 'revoked' | 'full' {
    const signature = toHex(bytes.subarray(0, SIGNED_OVERHEAD))
    if (this.#signatures.has(signature)) return 'known'
    const rule = openNameRule(this.#primitives, bytes, this.#authority)
    if (rule === undefined) return 'invalid'
    if (this.#isRevoked(rule)) return 'revoked'
    const key = listKey(rule)
    const before = this.#held.get(key)
    if (before !== undefined && !isNewer(rule.serial, signature, before)) return 'known'
    this.#keep(key, { rule, bytes: new Uint8Array(bytes), signature })
    return before === undefined && this.#makeRoom(rule) === key ? 'full' : rule
  }

  /** Whether one more name by this issuer (undefined: the authority) takes the place of none that is here. */
  hasRoom(issuer: HostId | undefined): boolean {
    const signers = this.list().map((rule) => rule.issuer?.host)
    const issuers = signers.filter((host) => host !== undefined)
    if (issuer === undefined) return signers.length - issuers.length < NAME_RULES_MAX - ISSUERS_RULES_MAX
    return issuers.length < ISSUERS_RULES_MAX && issuers.filter((host) => host === issuer).length < ISSUER_RULES_MAX
  }

  /** Leaves out what issuers have signed that are revoked by now; whether anything was. */
  prune(): boolean {
    const before = this.#held.size
    for (const [key, { rule }] of [...this.#held]) if (this.#isRevoked(rule)) this.#drop(key)
    return this.#held.size !== before
  }

  /** Signed bytes of all rules, each at most NAME_RULE_MAX, in an order that depends on the content only. */
  entries(): Uint8Array[] {
    return this.#keys().map((key) => this.#held.get(key)!.bytes)
  }

  /** The rules, `free` ones included. */
  list(): SignedNameRule[] {
    return [...this.#held.values()].map(({ rule }) => rule)
  }

  /** 32 bytes; lists of the same rules have the same, so hosts compare before they exchange. */
  digest(): Uint8Array {
    if (this.#digest === undefined) {
      const lines = this.#keys().map((key) => utf8(`${key} ${this.#held.get(key)!.signature}\n`))
      this.#digest = this.#primitives.blake2b(concat(lines), 32)
    }
    return this.#digest
  }

  #keys(): string[] {
    return [...this.#held.keys()].sort()
  }

  #isRevoked({ issuer }: SignedNameRule): boolean {
    return issuer !== undefined && this.#revocations.coversIssuer(issuer.host, issuer.serial)
  }

  #keep(key: string, held: Held): void {
    this.#drop(key)
    this.#held.set(key, held)
    this.#signatures.add(held.signature)
  }

  #drop(key: string): void {
    const held = this.#held.get(key)
    if (held === undefined) return
    this.#held.delete(key)
    this.#signatures.delete(held.signature)
    this.#digest = undefined
  }

  /** Key of the rule that had to go; undefined: there was room. */
  #makeRoom({ issuer }: SignedNameRule): string | undefined {
    this.#digest = undefined
    const group = (belongs: (key: string) => boolean, max: number) =>
      lastOfMany([...this.#held.keys()].filter(belongs), max)
    const isAuthority = (key: string) => key.startsWith(AUTHORITY)
    const last =
      issuer === undefined
        ? group(isAuthority, NAME_RULES_MAX - ISSUERS_RULES_MAX)
        : (group((key) => key.startsWith(issuer.host), ISSUER_RULES_MAX) ??
          group((key) => !isAuthority(key), ISSUERS_RULES_MAX))
    if (last !== undefined) this.#drop(last)
    return last
  }
}

/** Of two with one serial all hosts keep the same. */
function isNewer(serial: number, signature: string, { rule, signature: other }: Held): boolean {
  return serial > rule.serial || (serial === rule.serial && signature > other)
}

/** The last of the keys in their order when they are more than `max`. */
function lastOfMany(keys: readonly string[], max: number): string | undefined {
  return keys.length > max ? keys.reduce((last, key) => (key > last ? key : last)) : undefined
}

/** Before all hosts' IDs. */
const AUTHORITY = '*'

function listKey({ issuer, name }: SignedNameRule): string {
  return `${issuer?.host ?? AUTHORITY} ${name}`
}
