// The service table: from prefixes of service IDs to rules, longest prefix first.
//
// Rules are records in typed arrays, not objects: a large table is no work for the garbage collector, and a lookup reads few lines of memory. A lookup turns the ID into
// words once, hashes them once, and then asks the index of each length that occurs, longest first (a handful: 256, the domain levels, the network, 0). No insertion
// or removal ever pays for a rebuild, whatever the size.

import type { HostId, ServiceId } from '../wire/ids.js'
import { hostId, serviceId } from '../wire/ids.js'
import { GrowingWords, plainMemory, type Memory } from './growing-words.js'
import { Interned } from './interned.js'
import { Field, FIRST, PREFIX_WORDS, PrefixIndex, RECORD_WORDS, runningHash } from './prefix-index.js'
import { SERVICE_ID_BITS, type ServicePrefix } from './service-id.js'

export type RuleAction =
  /** Bind to the instance on that host. */
  | { readonly kind: 'forward'; readonly to: 'instance' | 'resolver'; readonly host: HostId }
  /** Deliver on this host. */
  | { readonly kind: 'demux' }
  /** Hold the packet, ask neighbours or resolvers, then look again. */
  | { readonly kind: 'delay' }
  | { readonly kind: 'drop' }

export interface Rule {
  readonly action: RuleAction
  /** 0..65535, the lowest is used first. */
  readonly priority: number
  /** 0..65535, share among rules of the same priority; 0: only when all others are 0 too. */
  readonly weight: number
}

/** A rule in the table as it was when it was looked up, with what it has been used for. */
export interface CountedRule extends Rule {
  readonly key: string
  /** Binds that used it. */
  readonly hits: number
  /** When the last one did, s on the clock of {@link ServiceTable.hit}. */
  readonly lastHit: number
  /** Where it stands in the table. */
  readonly record: number
}

/** What {@link ServiceTable.lookup} found. To be read before the table is changed. */
export interface ServiceEntry {
  readonly prefix: ServicePrefix
  /** Best priority first, then in order of their keys. Never empty. */
  readonly rules: readonly CountedRule[]
}

export class ServiceTable {
  readonly #memory: Memory
  readonly #records: GrowingWords
  /** Records that were ever used, and the first free one of them plus 1. */
  #used = 0
  #free = 0
  #size = 0
  readonly #indexes = new Map<number, PrefixIndex>()
  /** Those that are not empty, longest first. */
  #present: readonly PrefixIndex[] = []
  readonly #keys = new Interned((text) => text)
  readonly #hosts = new Interned((text) => actionsOf(hostId(text)))
  readonly #id = new Int32Array(PREFIX_WORDS)
  readonly #running = new Int32Array(PREFIX_WORDS + 1)

  /** @param memory the table is read at random: what lies on large pages is found sooner */
  constructor(memory: Memory = plainMemory) {
    this.#memory = memory
    this.#records = new GrowingWords(RECORD_WORDS, memory)
  }

  /** Prefixes in the table. */
  get size(): number {
    return this.#size
  }

  /** Adds the rule, or replaces the one with the same key (its counters go on). Bits of the prefix beyond its length are ignored. */
  set(prefix: ServicePrefix, key: string, rule: Rule): void {
    const { length } = prefix
    if (!Number.isInteger(length) || length < 0 || length > SERVICE_ID_BITS)
      throw new RangeError(`prefix length ${length}`)
    this.#take(prefix.id)
    const index = this.#indexes.get(length) ?? this.#newIndex(length)
    const hash = index.hash(this.#id, this.#running)
    const first = index.find(this.#id, hash)
    const action = this.#useAction(rule.action)
    const order = (rule.priority << 16) | rule.weight
    const old = first < 0 ? -1 : this.#findKey(first, key)
    if (old >= 0) {
      this.#leaveAction(this.#get(old, Field.action))
      this.#set(old, Field.action, action)
      if (this.#get(old, Field.order) === order) return
      this.#set(old, Field.order, order)
      const rest = old === first ? this.#get(old, Field.rule) - 1 : first
      if (rest < 0) return
      // It may be at another place among the prefix's rules from now on.
      this.#unlink(index, hash, first, old)
      this.#link(index, hash, rest, old)
      return
    }
    const record = this.#allocate()
    const words = this.#records.words(record)
    const at = this.#records.at(record)
    index.copy(this.#id, words, at)
    words[at + Field.action] = action
    words[at + Field.key] = this.#keys.use(key)
    words[at + Field.order] = order
    words[at + Field.state] = length + 1
    if (first >= 0) this.#link(index, hash, first, record)
    else this.#found(index, hash, record)
  }

  /** Removes the rule; false: there was none. */
  delete(prefix: ServicePrefix, key: string): boolean {
    const index = this.#indexes.get(prefix.length)
    if (index === undefined) return false
    this.#take(prefix.id)
    const hash = index.hash(this.#id, this.#running)
    const first = index.find(this.#id, hash)
    const record = first < 0 ? -1 : this.#findKey(first, key)
    if (record < 0) return false
    this.#unlink(index, hash, first, record)
    this.#leaveAction(this.#get(record, Field.action))
    this.#keys.leave(this.#get(record, Field.key))
    this.#release(record)
    return true
  }

  /** The entry of the longest prefix that covers the ID. */
  lookup(id: ServiceId): ServiceEntry | undefined {
    this.#take(id)
    const present = this.#present
    for (let i = 0; i < present.length; i++) {
      const index = present[i]!
      const record = index.find(this.#id, index.hash(this.#id, this.#running))
      if (record >= 0) return this.#entry(record)
    }
    return undefined
  }

  /** The entries of all prefixes that cover the ID, the longest first. */
  covering(id: ServiceId): ServiceEntry[] {
    this.#take(id)
    const entries: ServiceEntry[] = []
    for (const index of this.#present) {
      const record = index.find(this.#id, index.hash(this.#id, this.#running))
      if (record >= 0) entries.push(this.#entry(record))
    }
    return entries
  }

  /** The entry of exactly this prefix. */
  get(prefix: ServicePrefix): ServiceEntry | undefined {
    const index = this.#indexes.get(prefix.length)
    if (index === undefined) return undefined
    this.#take(prefix.id)
    const record = index.find(this.#id, index.hash(this.#id, this.#running))
    return record < 0 ? undefined : this.#entry(record)
  }

  /** Counts a bind by a rule that is still in the table. `now`: ms. */
  hit(rule: CountedRule, now: number): void {
    this.#set(rule.record, Field.hits, (this.#get(rule.record, Field.hits) + 1) | 0)
    this.#set(rule.record, Field.lastHit, Math.floor(now / 1000) | 0)
  }

  /** All entries, in no particular order. */
  *entries(): IterableIterator<ServiceEntry> {
    for (let record = 0; record < this.#used; record++) {
      if ((this.#get(record, Field.state) & FIRST) !== 0) yield this.#entry(record)
    }
  }

  // ---- The rules of one prefix: records in order, the first of which is in the index ----

  /** Puts the record among the prefix's others, from `first` on. */
  #link(index: PrefixIndex, hash: number, first: number, record: number): void {
    let before = -1
    let after = first
    while (after >= 0 && this.#isBefore(after, record)) {
      before = after
      after = this.#get(after, Field.rule) - 1
    }
    this.#set(record, Field.rule, after + 1)
    if (before >= 0) {
      this.#set(before, Field.rule, record + 1)
      return
    }
    index.replace(after, hash, record)
    this.#set(after, Field.state, this.#get(after, Field.state) & ~FIRST)
    this.#set(record, Field.state, this.#get(record, Field.state) | FIRST)
  }

  /** Takes the record out from the prefix's others, and the prefix out of the index when there are none. */
  #unlink(index: PrefixIndex, hash: number, first: number, record: number): void {
    const after = this.#get(record, Field.rule)
    if (record === first) {
      this.#set(record, Field.state, this.#get(record, Field.state) & ~FIRST)
      if (after === 0) {
        this.#lost(index, hash, record)
        return
      }
      index.replace(record, hash, after - 1)
      this.#set(after - 1, Field.state, this.#get(after - 1, Field.state) | FIRST)
      return
    }
    let before = first
    while (this.#get(before, Field.rule) !== record + 1) before = this.#get(before, Field.rule) - 1
    this.#set(before, Field.rule, after)
  }

  #findKey(first: number, key: string): number {
    const number = this.#keys.find(key)
    let record = first
    while (record >= 0 && this.#get(record, Field.key) !== number) record = this.#get(record, Field.rule) - 1
    return record
  }

  #isBefore(a: number, b: number): boolean {
    const orderA = this.#get(a, Field.order) >>> 16
    const orderB = this.#get(b, Field.order) >>> 16
    if (orderA !== orderB) return orderA < orderB
    return this.#keys.text(this.#get(a, Field.key)) < this.#keys.text(this.#get(b, Field.key))
  }

  /** The first rule of a prefix comes into the index. */
  #found(index: PrefixIndex, hash: number, record: number): void {
    this.#set(record, Field.rule, 0)
    this.#set(record, Field.state, this.#get(record, Field.state) | FIRST)
    index.add(record, hash)
    this.#size++
    if (index.size === 1) this.#indexesChanged()
  }

  /** The last rule of a prefix goes from the index. */
  #lost(index: PrefixIndex, hash: number, record: number): void {
    index.remove(record, hash)
    this.#size--
    if (index.size === 0) this.#indexesChanged()
  }

  #newIndex(length: number): PrefixIndex {
    const index = new PrefixIndex(this.#records, length, this.#memory)
    this.#indexes.set(length, index)
    return index
  }

  #indexesChanged(): void {
    const present = [...this.#indexes.values()].filter((index) => index.size > 0)
    this.#present = present.sort((a, b) => b.length - a.length)
  }

  // ---- Records ----

  #get(record: number, field: number): number {
    return this.#records.words(record)[this.#records.at(record) + field]!
  }

  #set(record: number, field: number, value: number): void {
    this.#records.words(record)[this.#records.at(record) + field] = value
  }

  /** A record of zeros. */
  #allocate(): number {
    const record = this.#free - 1
    if (record < 0) {
      this.#records.reserve(this.#used + 1)
      return this.#used++
    }
    this.#free = this.#get(record, Field.next)
    const at = this.#records.at(record)
    this.#records.words(record).fill(0, at, at + RECORD_WORDS)
    return record
  }

  #release(record: number): void {
    this.#set(record, Field.state, 0)
    this.#set(record, Field.next, this.#free)
    this.#free = record + 1
  }

  /** Number of the action, for one user more: kind, and the number of the host there is one in it. */
  #useAction(action: RuleAction): number {
    if (action.kind === 'forward') return (this.#hosts.use(action.host) << 1) | (action.to === 'instance' ? 0 : 1)
    return -1 - HOSTLESS.findIndex(({ kind }) => kind === action.kind)
  }

  #leaveAction(number: number): void {
    if (number >= 0) this.#hosts.leave(number >> 1)
  }

  #action(number: number): RuleAction {
    if (number < 0) return HOSTLESS[-1 - number]!
    const { instance, resolver } = this.#hosts.value(number >> 1)
    return (number & 1) === 0 ? instance : resolver
  }

  /** The ID to be looked for, as words, and their hashes. */
  #take(id: ServiceId): void {
    toWords(id, this.#id)
    runningHash(this.#id, this.#running)
  }

  #entry(first: number): ServiceEntry {
    const words = this.#records.words(first)
    const at = this.#records.at(first)
    const rules = [this.#rule(words, at, first)]
    for (let record = words[at + Field.rule]! - 1; record >= 0; record = this.#get(record, Field.rule) - 1) {
      rules.push(this.#rule(this.#records.words(record), this.#records.at(record), record))
    }
    return new Entry(words, at, rules)
  }

  #rule(words: Int32Array, at: number, record: number): CountedRule {
    const order = words[at + Field.order]!
    return {
      key: this.#keys.text(words[at + Field.key]!),
      action: this.#action(words[at + Field.action]!),
      priority: order >>> 16,
      weight: order & 0xffff,
      hits: words[at + Field.hits]! >>> 0,
      lastHit: words[at + Field.lastHit]!,
      record,
    }
  }
}

/** Makes the prefix's text only when somebody asks for it. */
class Entry implements ServiceEntry {
  constructor(
    private readonly words: Int32Array,
    private readonly at: number,
    readonly rules: readonly CountedRule[],
  ) {}

  get prefix(): ServicePrefix {
    let id = ''
    for (let i = 0; i < PREFIX_WORDS; i++) id += (this.words[this.at + i]! >>> 0).toString(16).padStart(8, '0')
    return { id: serviceId(id), length: (this.words[this.at + Field.state]! & (FIRST - 1)) - 1 }
  }
}

const HOSTLESS: readonly RuleAction[] = [{ kind: 'demux' }, { kind: 'delay' }, { kind: 'drop' }]

function actionsOf(host: HostId): { readonly instance: RuleAction; readonly resolver: RuleAction } {
  return { instance: { kind: 'forward', to: 'instance', host }, resolver: { kind: 'forward', to: 'resolver', host } }
}

function toWords(id: ServiceId, words: Int32Array): void {
  for (let i = 0, d = 0; i < PREFIX_WORDS; i++) {
    let word = 0
    for (const end = d + 8; d < end; d++) {
      const code = id.charCodeAt(d)
      // Digits are 0x30 and up, letters 0x61 and up.
      word = (word << 4) | ((code & 15) + 9 * (code >> 6))
    }
    words[i] = word
  }
}
