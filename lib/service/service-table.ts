// The service table: from prefixes of service IDs to rules, longest prefix first.
//
// One hash table holds the prefixes of all lengths; a lookup probes it once for each length that occurs, longest first (a handful: 256, the domain
// levels, the network, 0). It grows by linear hashing, one bucket split an insertion, and its storage by fixed pieces, so that no insertion or
// removal ever pays for a rebuild, whatever the size.

import type { HostId, ServiceId } from '../wire/ids.js'
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

/** A rule in the table, with what it has been used for. */
export interface CountedRule extends Rule {
  readonly key: string
  /** Binds that used it. */
  hits: number
  lastHit: number
}

export interface ServiceEntry {
  readonly prefix: ServicePrefix
  /** Best priority first, then in order of their keys. Never empty. */
  readonly rules: readonly CountedRule[]
}

interface Row {
  readonly prefix: ServicePrefix
  rules: CountedRule[]
}

const PIECE_BITS = 12
const PIECE = 1 << PIECE_BITS
const WORDS = 8
/** Two buckets a row: most probes for a prefix that is not there end at an empty bucket, one access to memory. */
const BUCKETS_PER_ROW = 2

export class ServiceTable {
  /** Rows by number; keys in pieces of Uint32Array, WORDS a row. */
  readonly #rows: (Row | undefined)[] = []
  readonly #keys: Uint32Array[] = []
  readonly #free: number[] = []
  /**
   * A link is two words: number of a row plus 1 (0: none), and that row's hash, so that rows with another hash are not touched. Buckets hold the
   * first link, rows the next.
   */
  readonly #next: Int32Array[] = []
  readonly #buckets: Int32Array[] = [new Int32Array(2 * PIECE)]
  /** Linear hashing: buckets 0..#mask + #split exist. */
  #mask = 15
  #split = 0
  #size = 0
  /** Prefixes of each length, and the lengths that occur, longest first. */
  readonly #lengths = new Uint32Array(SERVICE_ID_BITS + 1)
  #present: readonly number[] = []
  readonly #wanted = new Uint32Array(WORDS)
  readonly #masked = new Uint32Array(WORDS)

  /** Prefixes in the table. */
  get size(): number {
    return this.#size
  }

  /** Adds the rule, or replaces the one with the same key (its counters go on). Bits of the prefix beyond its length are ignored. */
  set(prefix: ServicePrefix, key: string, rule: Rule): void {
    const { length } = prefix
    if (!Number.isInteger(length) || length < 0 || length > SERVICE_ID_BITS)
      throw new RangeError(`prefix length ${length}`)
    toWords(prefix.id, this.#wanted)
    maskInto(this.#masked, this.#wanted, length)
    const hash = hashOf(this.#masked, length)
    let row = this.#rows[this.#find(hash, length)]
    if (row === undefined) {
      row = { prefix, rules: [] }
      this.#insert(row, hash)
      if (this.#lengths[length]!++ === 0) this.#countLengths()
    }
    const old = row.rules.find((r) => r.key === key)
    const { action, priority, weight } = rule
    const counted: CountedRule = { key, action, priority, weight, hits: old?.hits ?? 0, lastHit: old?.lastHit ?? 0 }
    row.rules = [...row.rules.filter((r) => r.key !== key), counted].sort(inOrder)
  }

  /** Removes the rule; false: there was none. */
  delete(prefix: ServicePrefix, key: string): boolean {
    const { length } = prefix
    toWords(prefix.id, this.#wanted)
    maskInto(this.#masked, this.#wanted, length)
    const hash = hashOf(this.#masked, length)
    const number = this.#find(hash, length)
    const row = this.#rows[number]
    if (row === undefined || !row.rules.some((rule) => rule.key === key)) return false
    row.rules = row.rules.filter((rule) => rule.key !== key)
    if (row.rules.length === 0) {
      this.#remove(number, hash)
      if (--this.#lengths[length]! === 0) this.#countLengths()
    }
    return true
  }

  /** The entry of the longest prefix that covers the ID. */
  lookup(id: ServiceId): ServiceEntry | undefined {
    toWords(id, this.#wanted)
    for (const length of this.#present) {
      maskInto(this.#masked, this.#wanted, length)
      const row = this.#rows[this.#find(hashOf(this.#masked, length), length)]
      if (row !== undefined) return row
    }
    return undefined
  }

  /** The entry of exactly this prefix. */
  get(prefix: ServicePrefix): ServiceEntry | undefined {
    toWords(prefix.id, this.#wanted)
    maskInto(this.#masked, this.#wanted, prefix.length)
    return this.#rows[this.#find(hashOf(this.#masked, prefix.length), prefix.length)]
  }

  /** Counts a bind. */
  hit(rule: CountedRule, now: number): void {
    rule.hits++
    rule.lastHit = now
  }

  *entries(): IterableIterator<ServiceEntry> {
    for (const row of this.#rows) if (row !== undefined) yield row
  }

  /** Number of the row with the masked key, or -1. */
  #find(hash: number, length: number): number {
    const masked = this.#masked
    let links = this.#buckets
    let at = this.#address(hash)
    for (;;) {
      const piece = links[at >> PIECE_BITS]!
      const place = 2 * (at & (PIECE - 1))
      const number = piece[place]! - 1
      if (number < 0) return -1
      if (piece[place + 1] === hash) {
        const keys = this.#keys[number >> PIECE_BITS]!
        const base = (number & (PIECE - 1)) * WORDS
        let i = 0
        while (i < WORDS && keys[base + i] === masked[i]) i++
        if (i === WORDS && this.#rows[number]!.prefix.length === length) return number
      }
      links = this.#next
      at = number
    }
  }

  #insert(row: Row, hash: number): void {
    const number = this.#free.pop() ?? this.#rows.length
    const piece = number >> PIECE_BITS
    if (piece === this.#keys.length) {
      this.#keys.push(new Uint32Array(PIECE * WORDS))
      this.#next.push(new Int32Array(2 * PIECE))
    }
    this.#rows[number] = row
    this.#keys[piece]!.set(this.#masked, (number & (PIECE - 1)) * WORDS)
    this.#link(number, hash)
    this.#size++
    if (this.#size * BUCKETS_PER_ROW > this.#mask + 1 + this.#split) this.#grow()
    if (this.#size * BUCKETS_PER_ROW > this.#mask + 1 + this.#split) this.#grow()
  }

  #remove(number: number, hash: number): void {
    let links = this.#buckets
    let at = this.#address(hash)
    for (;;) {
      const piece = links[at >> PIECE_BITS]!
      const place = 2 * (at & (PIECE - 1))
      const linked = piece[place]! - 1
      if (linked === number) {
        const next = this.#next[number >> PIECE_BITS]!
        const from = 2 * (number & (PIECE - 1))
        piece[place] = next[from]!
        piece[place + 1] = next[from + 1]!
        break
      }
      links = this.#next
      at = linked
    }
    this.#rows[number] = undefined
    this.#free.push(number)
    this.#size--
  }

  /** Splits one bucket in two. */
  #grow(): void {
    const from = this.#split
    const to = from + this.#mask + 1
    if (to >> PIECE_BITS === this.#buckets.length) this.#buckets.push(new Int32Array(2 * PIECE))
    const bucket = this.#buckets[from >> PIECE_BITS]!
    const place = 2 * (from & (PIECE - 1))
    let number = bucket[place]! - 1
    let hash = bucket[place + 1]!
    bucket[place] = 0
    this.#split++
    if (this.#split > this.#mask) {
      this.#mask = this.#mask * 2 + 1
      this.#split = 0
    }
    while (number >= 0) {
      const next = this.#next[number >> PIECE_BITS]!
      const at = 2 * (number & (PIECE - 1))
      const [nextNumber, nextHash] = [next[at]! - 1, next[at + 1]!]
      this.#link(number, hash)
      number = nextNumber
      hash = nextHash
    }
  }

  #address(hash: number): number {
    const bucket = hash & this.#mask
    return bucket < this.#split ? hash & (this.#mask * 2 + 1) : bucket
  }

  /** Puts a row at the front of its bucket. */
  #link(number: number, hash: number): void {
    const bucket = this.#address(hash)
    const piece = this.#buckets[bucket >> PIECE_BITS]!
    const place = 2 * (bucket & (PIECE - 1))
    const next = this.#next[number >> PIECE_BITS]!
    const at = 2 * (number & (PIECE - 1))
    next[at] = piece[place]!
    next[at + 1] = piece[place + 1]!
    piece[place] = number + 1
    piece[place + 1] = hash
  }

  #countLengths(): void {
    const present: number[] = []
    for (let length = SERVICE_ID_BITS; length >= 0; length--) if (this.#lengths[length]! > 0) present.push(length)
    this.#present = present
  }
}

function inOrder(a: CountedRule, b: CountedRule): number {
  return a.priority - b.priority || (a.key < b.key ? -1 : a.key > b.key ? 1 : 0)
}

function toWords(id: ServiceId, words: Uint32Array): void {
  for (let i = 0; i < WORDS; i++) {
    let word = 0
    for (let d = 8 * i; d < 8 * i + 8; d++) {
      const code = id.charCodeAt(d)
      word = (word << 4) | (code < 58 ? code - 48 : code - 87)
    }
    words[i] = word
  }
}

function maskInto(masked: Uint32Array, words: Uint32Array, length: number): void {
  const whole = length >> 5
  for (let i = 0; i < WORDS; i++) masked[i] = i < whole ? words[i]! : 0
  if ((length & 31) !== 0) masked[whole] = words[whole]! & (-1 << (32 - (length & 31)))
}

/** The IDs are hashes already; the mixing is for prefixes that share most of their words. */
function hashOf(masked: Uint32Array, length: number): number {
  let h = Math.imul(length + 1, 0x9e3779b1)
  for (let i = 0; i < WORDS; i++) {
    h = Math.imul(h ^ masked[i]!, 0x85ebca6b)
    h ^= h >>> 15
  }
  h = Math.imul(h, 0xc2b2ae35)
  return h ^ (h >>> 16)
}
