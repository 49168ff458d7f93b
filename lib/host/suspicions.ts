import type { Report, ReportState } from '../wire/liveness-message.js'
import type { HostId } from '../wire/ids.js'

/** What somebody has said about a host. */
export interface Word {
  readonly reporter: HostId
  readonly state: ReportState
  /** When it came, and when it was signed. */
  readonly at: number
  readonly signedAt: number
  /** As it is passed on; undefined: an answer to us alone. */
  readonly report: Report | undefined
}

export interface SuspicionsOptions {
  /** ms that words count. */
  readonly lifeMs: number
  /** Words of different hosts by which another one is dead. */
  readonly quorum: number
  /** Refuted words within `strikesForMs` after which nothing of a reporter counts until they are past. */
  readonly strikesMax: number
  readonly strikesForMs: number
  /** Hosts that one reporter can have words about at a time, and hosts there can be words about at all. */
  readonly perReporter: number
  readonly hostsMax: number
}

export const suspicionsDefaults: SuspicionsOptions = {
  lifeMs: 120_000,
  quorum: 2,
  strikesMax: 3,
  strikesForMs: 600_000,
  perReporter: 64,
  hostsMax: 4_096,
}

/** Words of one host that are kept. */
const WORDS_MAX = 4
const SEEN_MAX = 8_192
const REPORTERS_MAX = 4_096

/**
 * Who says that which host is silent, and what that comes to.
 *
 * One reporter makes a host suspect, never dead: its instances are tried after the others and hedged, which costs no connection. It takes two reporters to make it dead, or our own look.
 * The host itself ends both with a heartbeat above the one that the reports are about, which nobody else can sign; a report names a heartbeat that exists, so that no report can be about
 * one to come. What a liar gains is therefore the time until the host has heard of it and its heartbeat is back, and that a few times only: refuted words are remembered, and a reporter
 * with several of them counts no more.
 */
export class Suspicions {
  readonly #options: SuspicionsOptions
  readonly #words = new Map<HostId, Map<HostId, Word>>()
  /** Reports that have been here, refuted ones among them: later copies change nothing. */
  readonly #seen = new Set<string>()
  /** When a reporter was refuted. */
  readonly #strikes = new Map<HostId, number[]>()
  readonly #held = new Map<HostId, number>()

  constructor(options: Partial<SuspicionsOptions> = {}) {
    this.#options = { ...suspicionsDefaults, ...options }
  }

  get size(): number {
    return this.#words.size
  }

  /** Whether a report with this content has been here. */
  seen(reporter: HostId, host: HostId, sequence: number, state: ReportState): boolean {
    return this.#seen.has(`${reporter}/${host}/${sequence}/${state}`)
  }

  /** Remembers that it has. */
  see(reporter: HostId, host: HostId, sequence: number, state: ReportState): void {
    if (this.#seen.size >= SEEN_MAX)
      for (const first of [...this.#seen].slice(0, SEEN_MAX / 4)) this.#seen.delete(first)
    this.#seen.add(`${reporter}/${host}/${sequence}/${state}`)
  }

  /** Takes a word; false: there are enough already, or too many of this reporter. */
  add(host: HostId, word: Word): boolean {
    const { perReporter, hostsMax } = this.#options
    const words = this.#words.get(host)
    const before = words?.get(word.reporter)
    if (before === undefined) {
      const held = this.#held.get(word.reporter) ?? 0
      if (held >= perReporter || (words?.size ?? 0) >= WORDS_MAX || (words === undefined && this.size >= hostsMax))
        return false
      this.#held.set(word.reporter, held + 1)
    } else if (before.state === 'dead' && word.state === 'suspect') return false
    if (words === undefined) this.#words.set(host, new Map([[word.reporter, word]]))
    else words.set(word.reporter, word)
    return true
  }

  words(host: HostId): readonly Word[] {
    return [...(this.#words.get(host)?.values() ?? [])]
  }

  /** When the latest word about the host came; undefined: there is none. */
  at(host: HostId): number | undefined {
    const words = this.#words.get(host)
    if (words === undefined) return undefined
    let at = -Infinity
    for (const word of words.values()) at = Math.max(at, word.at)
    return at
  }

  /** What the words about the host come to. */
  state(host: HostId, now: number): ReportState | undefined {
    const words = this.#words.get(host)
    if (words === undefined) return undefined
    let dead = 0
    let counted = 0
    for (const { reporter, state } of words.values()) {
      if (this.discredited(reporter, now)) continue
      counted++
      if (state === 'dead') dead++
    }
    return dead >= this.#options.quorum ? 'dead' : counted > 0 ? 'suspect' : undefined
  }

  /** Hosts, besides those that count no more, that say the host is dead. */
  deadWords(host: HostId, now: number): number {
    return this.words(host).filter(({ reporter, state }) => state === 'dead' && !this.discredited(reporter, now)).length
  }

  /** The host lives: nothing that was said about it counts any more, and against those who said it. */
  refute(host: HostId, now: number): void {
    for (const { reporter } of this.words(host)) {
      const strikes = this.#strikesOf(reporter, now)
      if (this.#strikes.size >= REPORTERS_MAX)
        for (const first of [...this.#strikes.keys()].slice(0, 1)) this.#strikes.delete(first)
      this.#strikes.set(reporter, [...strikes.slice(-this.#options.strikesMax), now])
    }
    this.forget(host)
  }

  /** Nothing was said about the host. */
  forget(host: HostId): void {
    for (const { reporter } of this.words(host)) {
      const held = (this.#held.get(reporter) ?? 1) - 1
      if (held > 0) this.#held.set(reporter, held)
      else this.#held.delete(reporter)
    }
    this.#words.delete(host)
  }

  discredited(reporter: HostId, now: number): boolean {
    return this.#strikesOf(reporter, now).length >= this.#options.strikesMax
  }

  #strikesOf(reporter: HostId, now: number): readonly number[] {
    const strikes = this.#strikes.get(reporter)
    return strikes === undefined ? [] : strikes.filter((at) => now - at < this.#options.strikesForMs)
  }
}
