// Which hosts still answer, as far as this one's own looks (lib/path/prober.ts) do not tell. After SWIM (Das, Gupta, Motivala 2002).
//
//   own look   a peer falls silent ──▶ ask a few others that have a session with it ──┬▶ one hears it: our path is broken, not the host; nothing is said
//                                                                                     └▶ nobody does: a signed report to all peers, 'suspect', then 'dead'
//   a report   comes ──┬▶ a session with the host is here: look at once, and tell the host, which raises its heartbeat
//                      └▶ there is none: doubtful from now on; pass it on, and ask peers that have one
//   heartbeat  above the reported one: the host lives, whatever was said; it is passed on at once
//
// What the words of others come to, and why no liar can do harm for longer than that takes, is in suspicions.ts.

import { AnswerLimit } from '../flow/answer-limit.js'
import type { Liveness } from '../path/prober-sink.js'
import type { HostId } from '../wire/ids.js'
import {
  decodeLivenessMessage,
  decodeReport,
  encodeLivenessMessage,
  encodeReport,
  REPORT_LABEL,
  REPORTS_MAX,
  type LivenessMessage,
  type Report,
  type ReportFields,
  type ReportState,
  type Verdict,
} from '../wire/liveness-message.js'
import type { SignedBlob } from '../wire/signed.js'
import { Suspicions, suspicionsDefaults, type SuspicionsOptions } from './suspicions.js'

export interface FailureDetectorOptions extends SuspicionsOptions {
  /** Peers asked about a host that is silent. */
  readonly asked: number
  /** ms that their answers are waited for before anything is said. */
  readonly askMs: number
  /** ms by which reports of hosts that notice the same are spread, so that the first ones spare the others. */
  readonly spreadMs: number
  /** ms after which a host that is still silent to us, but was heard by others, is asked about again; doubles each time up to the maximum. */
  readonly againMinMs: number
  readonly againMaxMs: number
}

export const failureDetectorDefaults: FailureDetectorOptions = {
  ...suspicionsDefaults,
  asked: 3,
  askMs: 250,
  spreadMs: 150,
  againMinMs: 2_000,
  againMaxMs: 60_000,
}

export interface Look {
  readonly state: Liveness
  readonly heardAt: number
}

export interface FailureDetectorComponents {
  readonly self: HostId
  readonly sign: (label: typeof REPORT_LABEL, body: Uint8Array) => SignedBlob
  /** Whether a member with this ID has signed it. */
  readonly verify: (label: typeof REPORT_LABEL, blob: SignedBlob, host: HostId) => boolean
  /** What our own session with the host tells; undefined: there is none. */
  readonly look: (host: HostId) => Look | undefined
  /** Probe the host now. */
  readonly lookNow: (host: HostId, now: number) => void
  /** Peers that answer. */
  readonly peers: () => readonly HostId[]
  /** Whether the two keep a session with each other, as far as is known. */
  readonly adjacent: (a: HostId, b: HostId) => boolean
  readonly send: (to: HostId, message: Uint8Array, now: number) => void
  /** The newest heartbeat known of a host; undefined: none. */
  readonly heartbeatOf: (
    host: HostId,
  ) => { readonly sequence: number; readonly blob: SignedBlob; readonly signedAt: number } | undefined
  /** A heartbeat that came with a report, to be checked and taken. */
  readonly learn: (from: HostId, host: HostId, heartbeat: SignedBlob, age: number, now: number) => void
  /** This host is reported: a heartbeat above the sequence, to all. */
  readonly refute: (sequence: number, now: number) => void
  /** Uniform in [0, 1). */
  readonly random: () => number
}

/** What is under way about a host. */
interface Case {
  /** When the next step is due. */
  dueAt: number
  /** When others were asked; -Infinity: not yet. */
  askedAt: number
  readonly asked: Set<HostId>
  /** One of them hears it. */
  heard: boolean
  /** Rounds that ended with that. */
  rounds: number
  /** The sequence that the host itself was told of. */
  told: number
}

/** A peer that waits for our answer about a host. */
interface Question {
  readonly from: HostId
  readonly host: HostId
  readonly at: number
}

/** A frame so young answers the question whether we hear the host. */
const FRESH_MS = 500
const QUESTION_MS = 700
const QUESTIONS_MAX = 256
const LOOK_EVERY_MS = 50
const GATHER_MS = 20
const PER_PEER = { perSecond: 50, burst: 200 } as const
/** This host's own answers to what is said about it: what liars can make it say, and all others pass on. */
const REFUTATIONS = { perSecond: 1, burst: 5 } as const
const REFUTE_AGAIN_MS = 1_000

export class FailureDetector {
  readonly counters = { reported: 0, accepted: 0, refused: 0, forwarded: 0, refuted: 0, asked: 0 }
  readonly suspicions: Suspicions
  readonly #c: FailureDetectorComponents
  readonly #options: FailureDetectorOptions
  readonly #cases = new Map<HostId, Case>()
  readonly #outbox = new Map<HostId, Report[]>()
  readonly #limits = new Map<HostId, AnswerLimit>()
  readonly #refutations = new AnswerLimit(REFUTATIONS.perSecond, REFUTATIONS.burst)
  #questions: Question[] = []
  #due = Infinity
  #flushAt = Infinity
  #refuteAt = Infinity
  #reported = 0

  constructor(components: FailureDetectorComponents, options: Partial<FailureDetectorOptions> = {}) {
    this.#c = components
    this.#options = { ...failureDetectorDefaults, ...options }
    this.suspicions = new Suspicions(this.#options)
  }

  /** What others say about the host, as far as it counts and nothing was heard of it here since. */
  state(host: HostId, now: number): ReportState | undefined {
    if (this.suspicions.size === 0) return undefined
    const state = this.suspicions.state(host, now)
    const look = state && this.#c.look(host)
    if (look === undefined) return state
    // Our own look decides, once there is one that is newer than what was said.
    return look.heardAt > (this.suspicions.at(host) ?? -Infinity) ? undefined : 'suspect'
  }

  /** Our own look at a peer has changed. */
  looked(host: HostId, state: Liveness, now: number): void {
    const open = this.#cases.get(host)
    if (state === 'alive') {
      if (open !== undefined) this.#heard(host, open, now)
    } else if (state === 'doubtful' || open === undefined) {
      const current = this.#open(host, now)
      if (current.askedAt === -Infinity) this.#ask(host, current, now)
    } else this.#arm(open, Math.max(now, open.askedAt + this.#options.askMs) + this.#spread())
    this.#answerQuestions(now)
  }

  /** A heartbeat of the host that is newer than all before. True: it refutes what was said, and everybody is to have it at once. */
  heartbeat(host: HostId, now: number): boolean {
    const open = this.#cases.get(host)
    const said = this.suspicions.words(host).length > 0
    if (open === undefined || !said) return said
    this.counters.refuted++
    this.suspicions.refute(host, now)
    const look = this.#c.look(host)
    if (look === undefined || look.state === 'alive') this.#cases.delete(host)
    // Silent to us all the same: it is asked about again, for it may have died since.
    else this.#again(open, now)
    return true
  }

  /** A message of a peer. False: it was not understood. */
  receive(from: HostId, bytes: Uint8Array, now: number): boolean {
    const message = decodeLivenessMessage(bytes)
    if (message === undefined) return false
    let limit = this.#limits.get(from)
    if (limit === undefined) this.#limits.set(from, (limit = new AnswerLimit(PER_PEER.perSecond, PER_PEER.burst)))
    const parts = message.kind === 'reports' ? message.reports : [message]
    for (const part of parts) {
      if (!limit.take(now)) this.counters.refused++
      else if (!('kind' in part)) this.#report(from, part, now)
      else if (part.kind === 'ask') this.#question(from, part.host, now)
      else if (part.kind === 'answer') this.#answer(from, part.host, part.verdict, now)
    }
    return true
  }

  /** The session with the peer is over. */
  peerDown(host: HostId): void {
    this.#limits.delete(host)
    this.#outbox.delete(host)
  }

  /** It may turn out that there is nothing to do. */
  nextTimeout(): number {
    return Math.min(this.#due, this.#flushAt, this.#refuteAt)
  }

  handleTimeout(now: number): void {
    if (now >= this.#refuteAt) {
      this.#refuteAt = Infinity
      this.#refute(this.#reported, now)
    }
    if (now >= this.#due) {
      this.#due = Infinity
      for (const [host, open] of [...this.#cases]) {
        if (now >= open.dueAt) this.#step(host, open, now)
        if (this.#cases.get(host) === open) this.#due = Math.min(this.#due, open.dueAt)
      }
      this.#answerQuestions(now)
    }
    if (now >= this.#flushAt) this.#flush(now)
  }

  // ---- What others say ----

  #report(from: HostId, report: Report, now: number): void {
    const { self } = this.#c
    const said = decodeReport(report.report.body)
    const { reporter } = report
    if (said === undefined || reporter === self || reporter === said.host || report.age >= this.#options.lifeMs) {
      this.counters.refused++
      return
    }
    if (said.host === self) return this.#reportedSelf(report, said, now)
    const { host, sequence, state } = said
    const { suspicions } = this
    if (suspicions.seen(reporter, host, sequence, state) || suspicions.deadWords(host, now) >= this.#options.quorum)
      return
    if (sequence > this.#sequenceOf(host)) this.#c.learn(from, host, report.heartbeat, report.heartbeatAge, now)
    // About a heartbeat that the host has since gone beyond, or one that there is not.
    if (sequence !== this.#sequenceOf(host)) return
    if (!this.#c.verify(REPORT_LABEL, report.report, reporter)) {
      this.counters.refused++
      return
    }
    suspicions.see(reporter, host, sequence, state)
    const known = suspicions.words(host).some((word) => word.state === state && word.report !== undefined)
    if (!suspicions.add(host, { reporter, state, at: now, signedAt: now - report.age, report })) {
      this.counters.refused++
      return
    }
    this.counters.accepted++
    const open = this.#open(host, now)
    const look = this.#c.look(host)
    if (look?.state === 'alive') {
      this.#c.lookNow(host, now)
      this.#tell(host, open, sequence, now)
      this.#arm(open, now + LOOK_EVERY_MS)
      return
    }
    if (open.askedAt === -Infinity) this.#ask(host, open, now)
    if ((state === 'dead' || !known) && !suspicions.discredited(reporter, now)) this.#forward(report, host, from, now)
  }

  /** Somebody says that this host is silent: our next heartbeat tells everybody otherwise. */
  #reportedSelf(report: Report, { host, sequence }: ReportFields, now: number): void {
    if (sequence !== this.#sequenceOf(host) || !this.#c.verify(REPORT_LABEL, report.report, report.reporter)) return
    this.#refute(sequence, now)
  }

  #refute(sequence: number, now: number): void {
    this.#reported = sequence
    if (sequence < this.#sequenceOf(this.#c.self)) return
    if (!this.#refutations.take(now)) {
      this.#refuteAt = Math.min(this.#refuteAt, now + REFUTE_AGAIN_MS)
      return
    }
    this.counters.refuted++
    this.#c.refute(sequence, now)
  }

  #question(from: HostId, host: HostId, now: number): void {
    const { self, look, lookNow } = this.#c
    const seen = host === self ? undefined : look(host)
    if (seen === undefined)
      return this.#say(from, { kind: 'answer', host, verdict: host === self ? 'heard' : 'unknown' }, now)
    if (seen.state === 'alive' && now - seen.heardAt > FRESH_MS) {
      lookNow(host, now)
      if (this.#questions.length >= QUESTIONS_MAX) this.#questions.shift()
      this.#questions.push({ from, host, at: now })
      this.#due = Math.min(this.#due, now + LOOK_EVERY_MS)
    } else this.#say(from, { kind: 'answer', host, verdict: seen.state === 'alive' ? 'heard' : 'silent' }, now)
  }

  /** Answers what our own looks have decided by now. */
  #answerQuestions(now: number): void {
    if (this.#questions.length === 0) return
    this.#questions = this.#questions.filter(({ from, host, at }) => {
      const look = this.#c.look(host)
      const verdict: Verdict | undefined =
        look === undefined
          ? 'unknown'
          : look.heardAt > at
            ? 'heard'
            : look.state !== 'alive' || now - at >= QUESTION_MS
              ? 'silent'
              : undefined
      if (verdict !== undefined) this.#say(from, { kind: 'answer', host, verdict }, now)
      return verdict === undefined
    })
    if (this.#questions.length > 0) this.#due = Math.min(this.#due, now + LOOK_EVERY_MS)
  }

  #answer(from: HostId, host: HostId, verdict: Verdict, now: number): void {
    const open = this.#cases.get(host)
    // Only who was asked is listened to, once.
    if (open?.asked.delete(from) !== true || verdict === 'unknown') return
    const look = this.#c.look(host)
    if (verdict === 'heard') {
      open.heard = true
      // Against one reporter it is word against word, and the host gets its chance; two are believed until the host itself speaks.
      if (look === undefined && this.suspicions.deadWords(host, now) < this.#options.quorum) this.#clear(host, now)
    } else if (look === undefined) {
      this.suspicions.add(host, { reporter: from, state: 'dead', at: now, signedAt: now, report: undefined })
    }
  }

  // ---- What we find out ----

  #step(host: HostId, open: Case, now: number): void {
    const look = this.#c.look(host)
    const at = this.suspicions.at(host)
    if (look === undefined) {
      if (at === undefined || now - at >= this.#options.lifeMs) this.#close(host)
      else this.#wait(open, at + this.#options.lifeMs)
    } else if (look.state === 'alive') {
      if (at === undefined) this.#close(host)
      else if (look.heardAt > at) this.#heard(host, open, now)
      else if (now - at >= this.#options.lifeMs) this.#close(host)
      else this.#wait(open, now + LOOK_EVERY_MS)
    } else if (open.askedAt === -Infinity) this.#ask(host, open, now)
    else if (now < open.askedAt + this.#options.askMs) this.#wait(open, open.askedAt + this.#options.askMs)
    else if (open.heard) this.#again(open, now)
    else {
      // Still silent, as nobody has contradicted.
      this.#accuse(host, look.state === 'dead' ? 'dead' : 'suspect', now)
      this.#wait(open, now + this.#options.lifeMs)
    }
  }

  /** Says in our own name that the host is silent, unless enough others have; and passes on what they have said. */
  #accuse(host: HostId, state: ReportState, now: number): void {
    const { self, sign, heartbeatOf } = this.#c
    const { suspicions } = this
    const words = suspicions.words(host)
    const enough = state === 'dead' ? suspicions.deadWords(host, now) >= this.#options.quorum : words.length > 0
    if (enough) {
      for (const { report } of words) if (report !== undefined) this.#forward(report, host, self, now)
      return
    }
    const heartbeat = heartbeatOf(host)
    if (heartbeat === undefined || words.some((word) => word.reporter === self && word.state === state)) return
    const { sequence } = heartbeat
    const report: Report = {
      reporter: self,
      age: 0,
      report: sign(REPORT_LABEL, encodeReport({ host, sequence, state })),
      heartbeatAge: Math.max(0, Math.round(now - heartbeat.signedAt)),
      heartbeat: heartbeat.blob,
    }
    if (!suspicions.add(host, { reporter: self, state, at: now, signedAt: now, report })) return
    this.counters.reported++
    this.#forward(report, host, self, now)
  }

  #ask(host: HostId, open: Case, now: number): void {
    const { peers, adjacent, random } = this.#c
    open.askedAt = now
    open.heard = false
    open.asked.clear()
    const candidates = peers()
      .filter((peer) => peer !== host && adjacent(peer, host))
      .map((peer) => ({ peer, rank: random() }))
      .sort((a, b) => a.rank - b.rank)
    for (const { peer } of candidates.slice(0, this.#options.asked)) {
      open.asked.add(peer)
      this.counters.asked++
      this.#say(peer, { kind: 'ask', host }, now)
    }
    this.#wait(open, now + this.#options.askMs + this.#spread())
  }

  /** The host is heard here: the words about it are void, and it is told of them, so that it can say so to everybody. */
  #heard(host: HostId, open: Case, now: number): void {
    this.#tell(host, open, this.#sequenceOf(host), now)
    this.#clear(host, now)
  }

  #clear(host: HostId, now: number): void {
    this.suspicions.refute(host, now)
    this.#cases.delete(host)
  }

  #close(host: HostId): void {
    this.suspicions.forget(host)
    this.#cases.delete(host)
  }

  #again(open: Case, now: number): void {
    const { againMinMs, againMaxMs } = this.#options
    open.askedAt = -Infinity
    this.#wait(open, now + Math.min(againMinMs * 2 ** Math.min(open.rounds++, 10), againMaxMs))
  }

  /** Shows the host what is said about it. */
  #tell(host: HostId, open: Case, sequence: number, now: number): void {
    if (open.told >= sequence) return
    for (const { report, signedAt } of this.suspicions.words(host)) {
      if (report === undefined) continue
      open.told = sequence
      this.#say(host, { kind: 'reports', reports: [{ ...report, age: Math.max(0, Math.round(now - signedAt)) }] }, now)
    }
  }

  // ---- Sending ----

  #forward(report: Report, host: HostId, from: HostId, now: number): void {
    for (const peer of this.#c.peers()) {
      if (peer === host || peer === from || peer === report.reporter) continue
      this.counters.forwarded++
      const waiting = this.#outbox.get(peer)
      if (waiting === undefined) this.#outbox.set(peer, [report])
      else if (!waiting.includes(report)) waiting.push(report)
    }
    this.#flushAt = Math.min(this.#flushAt, now + GATHER_MS)
  }

  #flush(now: number): void {
    this.#flushAt = Infinity
    for (const [peer, reports] of this.#outbox) {
      for (let i = 0; i < reports.length; i += REPORTS_MAX)
        this.#say(peer, { kind: 'reports', reports: reports.slice(i, i + REPORTS_MAX) }, now)
    }
    this.#outbox.clear()
  }

  #say(to: HostId, message: LivenessMessage, now: number): void {
    this.#c.send(to, encodeLivenessMessage(message), now)
  }

  // ---- Inside ----

  #open(host: HostId, now: number): Case {
    let open = this.#cases.get(host)
    if (open === undefined) {
      open = { dueAt: now, askedAt: -Infinity, asked: new Set(), heard: false, rounds: 0, told: 0 }
      this.#cases.set(host, open)
      this.#due = Math.min(this.#due, now)
    }
    return open
  }

  #wait(open: Case, until: number): void {
    open.dueAt = until
    this.#due = Math.min(this.#due, until)
  }

  #arm(open: Case, at: number): void {
    this.#wait(open, Math.min(open.dueAt, at))
  }

  #spread(): number {
    return this.#c.random() * this.#options.spreadMs
  }

  #sequenceOf(host: HostId): number {
    return this.#c.heartbeatOf(host)?.sequence ?? 0
  }
}
