import { GrowingWords, type Memory } from './growing-words.js'

/** Words of a record; see {@link Field}. */
export const RECORD_WORDS = 16
/**
 * One rule of one prefix. The records of a prefix are linked, best rule first; the first one is in the index of its length. 64 bytes, so that a lookup reads little
 * more than one line of memory.
 */
export const Field = {
  /** Eight words, the first bits of the ID; the rest is 0. */
  prefix: 0,
  /** In the index: the next record of the same bucket, in the free list: the next free one; plus 1, 0: none. */
  next: 8,
  /** The prefix's next rule, plus 1; 0: none. */
  rule: 9,
  /** Numbers of the action and of the key. */
  action: 10,
  key: 11,
  /** priority << 16 | weight */
  order: 12,
  /** Length of the prefix plus 1, and {@link FIRST} in the record that is in the index; 0: free. */
  state: 13,
  hits: 14,
  lastHit: 15,
} as const
export const FIRST = 1 << 16
export const PREFIX_WORDS = 8

/**
 * A bucket is the number of its first record plus 1, negative when others may follow, 0: empty; and that record's hash, so that a record with another hash is seldom
 * touched.
 */
const BUCKET_WORDS = 2
/** Most searches for a prefix that is not there end at an empty bucket, one access to memory; and hardly any bucket has so many records that they would make the slowest lookups. */
const BUCKETS_PER_PREFIX = 4
const BUCKETS_MIN = 16

/** The prefixes of one length, by linear hashing: an insertion splits at most four buckets, whatever the size, and a removal none. */
export class PrefixIndex {
  readonly #records: GrowingWords
  readonly #whole: number
  readonly #mask: number
  readonly #buckets: GrowingWords
  /** Buckets 0..#split + #last exist; #last + 1 is a power of two. */
  #last = BUCKETS_MIN - 1
  #split = 0
  #size = 0

  /** @param length of the prefixes, in bits */
  constructor(
    records: GrowingWords,
    readonly length: number,
    memory: Memory,
  ) {
    this.#records = records
    this.#buckets = new GrowingWords(BUCKET_WORDS, memory)
    this.#whole = length >> 5
    this.#mask = (length & 31) === 0 ? 0 : -1 << (32 - (length & 31))
    this.#buckets.reserve(BUCKETS_MIN)
  }

  get size(): number {
    return this.#size
  }

  /** Hash of the ID's prefix, given the running hashes of all its words (see {@link runningHash}). */
  hash(id: Int32Array, running: Int32Array): number {
    const h = running[this.#whole]!
    return finish(this.#mask === 0 ? h : step(h, id[this.#whole]! & this.#mask))
  }

  /** Sets the words of the record at `at` to the ID's prefix. */
  copy(id: Int32Array, words: Int32Array, at: number): void {
    for (let i = 0; i < PREFIX_WORDS; i++) words[at + i] = i < this.#whole ? id[i]! : 0
    if (this.#mask !== 0) words[at + this.#whole] = id[this.#whole]! & this.#mask
  }

  /** First record of the ID's prefix, or -1. */
  find(id: Int32Array, hash: number): number {
    const bucket = this.#bucket(hash)
    const buckets = this.#buckets.words(bucket)
    const place = this.#buckets.at(bucket)
    const link = buckets[place]!
    const same = buckets[place + 1] === hash
    if (link === 0 || (link > 0 && !same)) return -1
    const whole = this.#whole
    let record = Math.abs(link) - 1
    // The hashes of the others are not kept; their prefixes tell.
    for (let compare = same; record >= 0; compare = true) {
      const words = this.#records.words(record)
      const at = this.#records.at(record)
      if (compare) {
        let i = 0
        while (i < whole && words[at + i] === id[i]) i++
        if (i === whole && (this.#mask === 0 || words[at + i] === (id[i]! & this.#mask))) return record
      }
      record = words[at + Field.next]! - 1
    }
    return -1
  }

  add(record: number, hash: number): void {
    this.#link(record, hash)
    this.#size++
    for (let i = 0; i < BUCKETS_PER_PREFIX && this.#size * BUCKETS_PER_PREFIX > this.#last + 1 + this.#split; i++)
      this.#grow()
  }

  remove(record: number, hash: number): void {
    const words = this.#records.words(record)
    const next = words[this.#records.at(record) + Field.next]!
    this.#size--
    this.#relink(record, hash, next)
    words[this.#records.at(record) + Field.next] = 0
  }

  /** Another record stands for the prefix. */
  replace(record: number, hash: number, by: number): void {
    const words = this.#records.words(record)
    const at = this.#records.at(record) + Field.next
    this.#records.words(by)[this.#records.at(by) + Field.next] = words[at]!
    words[at] = 0
    this.#relink(record, hash, by + 1)
  }

  /** Lets whatever refers to the record refer to `link`. */
  #relink(record: number, hash: number, link: number): void {
    const bucket = this.#bucket(hash)
    const buckets = this.#buckets.words(bucket)
    const place = this.#buckets.at(bucket)
    let before = Math.abs(buckets[place]!) - 1
    if (before === record) {
      const more = link > 0 && this.#records.words(link - 1)[this.#records.at(link - 1) + Field.next] !== 0
      buckets[place] = more ? -link : link
      if (link > 0) buckets[place + 1] = this.#hashOf(link - 1)
      return
    }
    while (before >= 0) {
      const words = this.#records.words(before)
      const at = this.#records.at(before) + Field.next
      if (words[at] === record + 1) {
        words[at] = link
        return
      }
      before = words[at]! - 1
    }
  }

  /** Splits one bucket in two. */
  #grow(): void {
    const from = this.#split
    this.#buckets.reserve(from + this.#last + 2)
    const buckets = this.#buckets.words(from)
    const place = this.#buckets.at(from)
    const link = buckets[place]!
    this.#split++
    if (this.#split > this.#last) {
      this.#last = 2 * this.#last + 1
      this.#split = 0
    }
    if (link > 0) {
      // One record by itself moves or stays without being touched.
      const hash = buckets[place + 1]!
      const bucket = this.#bucket(hash)
      if (bucket === from) return
      const words = this.#buckets.words(bucket)
      const to = this.#buckets.at(bucket)
      words[to] = link
      words[to + 1] = hash
      buckets[place] = 0
      return
    }
    buckets[place] = 0
    let record = -link - 1
    while (record >= 0) {
      const next = this.#records.words(record)[this.#records.at(record) + Field.next]! - 1
      this.#link(record, this.#hashOf(record))
      record = next
    }
  }

  #bucket(hash: number): number {
    const bucket = hash & this.#last
    return bucket < this.#split ? hash & (2 * this.#last + 1) : bucket
  }

  /** Puts a record at the front of its bucket. */
  #link(record: number, hash: number): void {
    const bucket = this.#bucket(hash)
    const buckets = this.#buckets.words(bucket)
    const place = this.#buckets.at(bucket)
    const behind = Math.abs(buckets[place]!)
    this.#records.words(record)[this.#records.at(record) + Field.next] = behind
    buckets[place] = behind === 0 ? record + 1 : -(record + 1)
    buckets[place + 1] = hash
  }

  #hashOf(record: number): number {
    const words = this.#records.words(record)
    const at = this.#records.at(record)
    let h = 0
    for (let i = 0; i < this.#whole; i++) h = step(h, words[at + i]!)
    return finish(this.#mask === 0 ? h : step(h, words[at + this.#whole]!))
  }
}

/** Hashes of the first 0, 1, … 8 words of the ID, from which each length's hash is one step away. */
export function runningHash(id: Int32Array, running: Int32Array): void {
  let h = 0
  running[0] = h
  for (let i = 0; i < PREFIX_WORDS; i++) {
    h = step(h, id[i]!)
    running[i + 1] = h
  }
}

/** The IDs are hashes already; the mixing is for prefixes that share most of their words. */
function step(h: number, word: number): number {
  const mixed = Math.imul(h ^ word, 0x85ebca6b)
  return mixed ^ (mixed >>> 15)
}

function finish(h: number): number {
  const mixed = Math.imul(h, 0xc2b2ae35)
  return mixed ^ (mixed >>> 16)
}
