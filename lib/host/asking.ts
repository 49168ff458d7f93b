// Questions to neighbours about a service that nothing is known of, and answers to theirs:
//
//   a first packet is held ─▶ ask ─▶ up to PEERS_MAX neighbours ─▶ one that knows answers; one that does not passes it on, once
//   answer ─▶ ours: its hint is learned, what is held is tried again; another's: goes back to whom the question came from
//
// A question is known by its ID: one that comes back, by whatever way, goes no further. So it passes each host at most once, and at most QUERY_HOPS_MAX on any way.

import { AnswerLimit } from '../flow/answer-limit.js'
import type { ServiceId } from '../wire/ids.js'
import { toHex } from '../wire/ids.js'
import { decodeQuery, encodeQuery, QUERY_HOPS_MAX, QUERY_ID_LENGTH, type Question } from '../wire/query.js'
import type { DropReason } from '../wire/drop.js'
import type { Wanted } from './service-lookup.js'

export interface AskingComponents {
  readonly random: () => number
  readonly randomBytes: (length: number) => Uint8Array
  /** Peers with a session. */
  readonly connected: () => readonly number[]
  /** A message on the control channel of questions; false: not taken. */
  readonly send: (peer: number, message: Uint8Array, now: number) => boolean
  /** What this host can tell the peer about it: a hint; why not: undefined; 'denied': the policy keeps the peer from the service. */
  readonly tell: (peer: number, wanted: Wanted, now: number) => Uint8Array | 'denied' | undefined
  /** An answer to a question of this host. */
  readonly answered: (service: ServiceId, hint: Uint8Array, now: number) => void
  readonly drop: (reason: DropReason) => void
}

interface Asked {
  /** Whom the question came from; undefined: this host's own. */
  readonly from: number | undefined
  readonly service: ServiceId
  /** Who may answer. */
  readonly to: ReadonlySet<number>
  answers: number
  readonly until: number
}

/** Neighbours asked, by whoever asks. */
const PEERS_MAX = 8
/** Questions remembered, and for how long, ms. */
const REMEMBERED_MAX = 1_024
const REMEMBERED_MS = 5_000
/** The same question is not asked again for so long, ms. */
const AGAIN_MS = 1_000
/** Answers that are taken to one question. */
const ANSWERS_MAX = 3
/** Questions of one peer, and of this host, per second and in a burst. */
const PER_SECOND = 20
const BURST = 40

export class Asking {
  readonly #c: AskingComponents
  /** By ID, oldest first. */
  readonly #asked = new Map<string, Asked>()
  /** When this host asked last, by what it asked for; oldest first. */
  readonly #own = new Map<string, number>()
  readonly #ownLimit = new AnswerLimit(PER_SECOND, BURST)
  readonly #limits = new Map<number, AnswerLimit>()
  /** Questions of this host, questions of others that it answered, that it passed on; answers that were of use here. */
  readonly counters = { asked: 0, told: 0, passed: 0, answered: 0, limited: 0 }

  constructor(components: AskingComponents) {
    this.#c = components
  }

  /** Asks the neighbours, unless that was done a moment ago. */
  ask({ service, protocol, port }: Wanted, now: number): void {
    const key = `${service}/${protocol}/${port}`
    if (now - (this.#own.get(key) ?? -Infinity) < AGAIN_MS) return
    const peers = this.#some(this.#c.connected())
    if (peers.length === 0) return
    if (!this.#ownLimit.take(now)) {
      this.counters.limited++
      return
    }
    this.#own.delete(key)
    this.#own.set(key, now)
    bound(this.#own)
    const id = this.#c.randomBytes(QUERY_ID_LENGTH)
    this.counters.asked++
    this.#send({ kind: 'question', id, service, protocol, port, hops: QUERY_HOPS_MAX }, undefined, peers, now)
  }

  /** A message from a peer, which the session has proven to be who it is. */
  receive(peer: number, body: Uint8Array, now: number): void {
    const message = decodeQuery(body)
    if (message === undefined) return this.#c.drop('bad-control')
    if (message.kind === 'question') this.#question(peer, message, now)
    else this.#answer(peer, message.id, message.hint, now)
  }

  /** The session with the peer is lost. */
  forget(peer: number): void {
    this.#limits.delete(peer)
  }

  #question(peer: number, question: Question, now: number): void {
    const { connected, drop, send, tell } = this.#c
    const limit = this.#limits.get(peer) ?? new AnswerLimit(PER_SECOND, BURST)
    this.#limits.set(peer, limit)
    if (!limit.take(now)) {
      this.counters.limited++
      return drop('rate-limited')
    }
    const { id, service, hops } = question
    if (this.#remembered(id, now) !== undefined) return
    const told = tell(peer, question, now)
    if (told instanceof Uint8Array) {
      this.#remember(id, { from: peer, service, to: new Set(), answers: ANSWERS_MAX, until: now + REMEMBERED_MS })
      this.counters.told++
      send(peer, encodeQuery({ kind: 'answer', id, hint: told }), now)
      return
    }
    const others = told === 'denied' || hops <= 1 ? [] : this.#some(connected().filter((other) => other !== peer))
    if (others.length > 0) this.counters.passed++
    this.#send({ ...question, hops: hops - 1 }, peer, others, now)
  }

  #answer(peer: number, id: Uint8Array, hint: Uint8Array, now: number): void {
    const asked = this.#remembered(id, now)
    // Only from whom it was asked, and no more than are of use.
    if (asked?.to.has(peer) === false) return this.#c.drop('not-entitled')
    if (asked === undefined || asked.answers >= ANSWERS_MAX) return
    asked.answers++
    if (asked.from !== undefined) {
      this.#c.send(asked.from, encodeQuery({ kind: 'answer', id, hint }), now)
      return
    }
    this.counters.answered++
    this.#c.answered(asked.service, hint, now)
  }

  #send(question: Question, from: number | undefined, peers: readonly number[], now: number): void {
    const { id, service } = question
    this.#remember(id, { from, service, to: new Set(peers), answers: 0, until: now + REMEMBERED_MS })
    if (peers.length === 0) return
    const message = encodeQuery(question)
    for (const peer of peers) this.#c.send(peer, message, now)
  }

  #remember(id: Uint8Array, asked: Asked): void {
    this.#asked.set(toHex(id), asked)
    bound(this.#asked)
  }

  #remembered(id: Uint8Array, now: number): Asked | undefined {
    const key = toHex(id)
    const asked = this.#asked.get(key)
    if (asked === undefined || asked.until > now) return asked
    this.#asked.delete(key)
    return undefined
  }

  /** At most PEERS_MAX of them, at random. */
  #some(peers: readonly number[]): number[] {
    const left = [...peers]
    const some: number[] = []
    while (left.length > 0 && some.length < PEERS_MAX)
      some.push(...left.splice(Math.floor(this.#c.random() * left.length), 1))
    return some
  }
}

function bound(map: Map<string, unknown>): void {
  const oldest = map.keys().next().value
  if (map.size > REMEMBERED_MAX && oldest !== undefined) map.delete(oldest)
}
