import { test } from 'tap'
import { FailureDetector, failureDetectorDefaults, type Look } from '../../../lib/host/failure-detector.js'
import { hostId, type HostId } from '../../../lib/wire/ids.js'
import {
  decodeLivenessMessage,
  decodeReport,
  encodeLivenessMessage,
  encodeReport,
  type LivenessMessage,
  type Report,
  type ReportState,
  type Verdict,
} from '../../../lib/wire/liveness-message.js'

const id = (n: number): HostId => hostId(new Uint8Array(32).fill(n))
const SELF = id(50)
const HOST = id(9)
const { askMs, spreadMs } = failureDetectorDefaults
const heartbeat = { body: Uint8Array.of(1), signature: new Uint8Array(64) }

/** Signatures are the reporter's number. */
const signed = (by: number, body: Uint8Array) => ({ body, signature: new Uint8Array(64).fill(by) })

class World {
  now = 1_000
  readonly looks = new Map<HostId, Look>()
  readonly sequences = new Map<HostId, number>([
    [HOST, 5],
    [SELF, 5],
  ])
  living = [1, 2, 3, 4, 5].map(id)
  readonly sent: { readonly to: HostId; readonly message: LivenessMessage }[] = []
  readonly refuted: number[] = []
  readonly looked: HostId[] = []
  learned = 0
  readonly detector: FailureDetector

  constructor() {
    this.detector = new FailureDetector({
      self: SELF,
      sign: (_label, body) => signed(50, body),
      verify: (_label, blob, host) => blob.signature[0] === parseInt(host.slice(0, 2), 16),
      look: (host) => this.looks.get(host),
      lookNow: (host) => this.looked.push(host),
      peers: () => this.living,
      adjacent: () => true,
      send: (to, bytes) => this.sent.push({ to, message: decodeLivenessMessage(bytes)! }),
      heartbeatOf: (host) => {
        const sequence = this.sequences.get(host)
        return sequence === undefined ? undefined : { sequence, blob: heartbeat, signedAt: 0 }
      },
      learn: () => this.learned++,
      refute: (sequence) => this.refuted.push(sequence),
      random: () => 0.5,
    })
  }

  report(by: number, state: ReportState = 'dead', sequence = 5, host = HOST): Report {
    const report = signed(by, encodeReport({ host, sequence, state }))
    return { reporter: id(by), age: 0, report, heartbeatAge: 0, heartbeat }
  }
  hear(from: number, ...reports: readonly Report[]): void {
    this.detector.receive(id(from), encodeLivenessMessage({ kind: 'reports', reports }), this.now)
  }
  answer(from: HostId, verdict: Verdict): void {
    this.detector.receive(from, encodeLivenessMessage({ kind: 'answer', host: HOST, verdict }), this.now)
  }
  look(state: Look['state'], heardAt = 0): void {
    this.looks.set(HOST, { state, heardAt })
    this.detector.looked(HOST, state, this.now)
  }
  run(ms: number): void {
    const until = this.now + ms
    for (let due = this.detector.nextTimeout(); due <= until; due = this.detector.nextTimeout()) {
      this.now = Math.max(this.now, due)
      this.detector.handleTimeout(this.now)
    }
    this.now = until
  }
  taken(kind: LivenessMessage['kind']): HostId[] {
    const found = this.sent.filter(({ message }) => message.kind === kind).map(({ to }) => to)
    this.sent.length = 0
    return found
  }
  get state(): ReportState | undefined {
    return this.detector.state(HOST, this.now)
  }
}

/** The states that were reported in our own name. */
const reported = (w: World) =>
  w.sent.flatMap(({ message }) =>
    message.kind === 'reports' ? message.reports.map((r) => decodeReport(r.report.body)!.state) : [],
  )

test('a silent peer: some others are asked; nobody hears it, so all are told, first of the doubt, then of the death', (t) => {
  const w = new World()
  w.look('doubtful')
  t.equal(w.taken('ask').length, 3)
  w.run(askMs - 1)
  t.strictSame(w.sent, [], 'their answers are waited for')
  w.run(spreadMs + 100)
  t.strictSame([...new Set(reported(w))], ['suspect'])
  t.equal(w.taken('reports').length, 5)
  w.look('dead')
  w.run(spreadMs + 100)
  t.strictSame([...new Set(reported(w))], ['dead'])
  w.sent.length = 0
  w.run(60_000)
  t.strictSame(w.sent, [], 'once')
  t.end()
})

test('another hears it: nothing is said, however long it is silent to us; the question is put again, ever more seldom', (t) => {
  const w = new World()
  w.look('doubtful')
  const asks: number[] = []
  const said: ReportState[] = []
  for (let i = 0; i < 2_000; i++) {
    said.push(...reported(w))
    const asked = w.taken('ask')
    if (asked.length > 0) asks.push(w.now)
    for (const peer of asked) w.answer(peer, 'heard')
    if (i === 5) w.look('dead')
    w.run(100)
  }
  t.strictSame(said, [])
  t.ok(asks.length >= 4 && asks.length < 10, `${asks.length} rounds in 200 s`)
  w.look('alive', w.now)
  w.run(100_000)
  t.strictSame(w.sent, [], 'and no more when it answers')
  t.equal(w.detector.nextTimeout(), Infinity)
  t.end()
})

test('without a session: one report makes it suspect, the second reporter dead; each is passed on to the others', (t) => {
  const w = new World()
  w.hear(1, w.report(20))
  t.equal(w.state, 'suspect')
  w.run(50)
  t.strictSame(
    w.sent.filter(({ message }) => message.kind === 'reports').map(({ to }) => to),
    [2, 3, 4, 5].map(id),
  )
  t.equal(w.taken('ask').length, 3)
  w.hear(2, w.report(20))
  w.run(50)
  t.strictSame(w.sent, [], 'a copy is not news')
  w.hear(2, w.report(21))
  t.equal(w.state, 'dead')
  w.run(50)
  t.equal(w.taken('reports').length, 4)
  w.hear(3, w.report(22))
  w.run(50)
  t.strictSame(w.sent, [], 'two are enough')
  t.end()
})

test('a newer heartbeat ends it, and old reports do not come back', (t) => {
  const w = new World()
  w.hear(1, w.report(20), w.report(21))
  t.equal(w.state, 'dead')
  w.sequences.set(HOST, 6)
  t.ok(w.detector.heartbeat(HOST, w.now), 'it is to be passed on at once')
  t.equal(w.state, undefined)
  t.notOk(w.detector.heartbeat(HOST, w.now), 'the next one is not')
  w.hear(2, w.report(22), w.report(23))
  t.equal(w.state, undefined)
  t.end()
})

test('a report about a heartbeat that there is not counts for nothing', (t) => {
  const w = new World()
  w.hear(1, w.report(20, 'dead', 6))
  t.equal(w.learned, 1, 'the one that it brings is looked at')
  t.equal(w.state, undefined)
  t.end()
})

test('what is not signed by its reporter, or is about itself, changes nothing', (t) => {
  const w = new World()
  w.hear(1, { ...w.report(20), reporter: id(21) }, w.report(9), { ...w.report(20), age: 1e9 })
  t.equal(w.state, undefined)
  t.equal(w.detector.counters.refused, 3)
  t.notOk(w.detector.receive(id(1), Uint8Array.of(9, 9), w.now))
  t.end()
})

test('with a session: a look decides; what was said is void as soon as the host is heard, and it is told', (t) => {
  const w = new World()
  w.looks.set(HOST, { state: 'alive', heardAt: w.now - 100 })
  w.hear(1, w.report(20))
  t.equal(w.state, 'suspect', 'until it is heard')
  t.strictSame(w.looked, [HOST])
  t.strictSame(w.taken('reports'), [HOST], 'the host is told, nobody else')
  w.now += 20
  w.looks.set(HOST, { state: 'alive', heardAt: w.now })
  t.equal(w.state, undefined)
  w.run(1_000)
  t.equal(w.detector.suspicions.size, 0)
  t.strictSame(w.taken('reports'), [])
  t.end()
})

test('word against word: one reporter is outweighed by a peer that hears the host, two are not', (t) => {
  const w = new World()
  w.hear(1, w.report(20))
  const [first] = w.taken('ask')
  w.answer(id(40), 'heard')
  t.equal(w.state, 'suspect', 'who was not asked is not listened to')
  w.answer(first!, 'heard')
  t.equal(w.state, undefined)
  const v = new World()
  v.hear(1, v.report(20), v.report(21))
  for (const peer of v.taken('ask')) v.answer(peer, 'heard')
  t.equal(v.state, 'dead', 'only the host itself can refute them')
  t.end()
})

test('a peer that was asked and does not hear it either is the second reporter', (t) => {
  const w = new World()
  w.hear(1, w.report(20))
  const [first] = w.taken('ask')
  w.answer(first!, 'unknown')
  t.equal(w.state, 'suspect')
  w.answer(id(2), 'silent')
  t.equal(w.state, first === id(2) ? 'suspect' : 'dead')
  t.end()
})

test('this host itself is reported: it answers with a heartbeat, so often and no more', (t) => {
  const w = new World()
  w.hear(1, { ...w.report(20, 'dead', 5, SELF), reporter: id(21) })
  t.strictSame(w.refuted, [], 'not to what nobody has signed')
  w.hear(1, w.report(20, 'dead', 5, SELF))
  t.strictSame(w.refuted, [5])
  w.hear(1, w.report(20, 'dead', 4, SELF))
  t.strictSame(w.refuted, [5], 'nor to what is refuted already')
  for (let n = 6; n < 1_000; n++) {
    w.sequences.set(SELF, n)
    w.hear(1 + (n % 40), w.report(20, 'dead', n, SELF))
    w.run(10)
  }
  t.ok(w.refuted.length <= 17, `${w.refuted.length} in 10 s`)
  const last = w.refuted.length
  w.run(3_000)
  t.equal(w.refuted.length, last + 1, 'the last one is answered, though later')
  t.end()
})

test('whoever asks is answered: at once, or when a look has decided', (t) => {
  const w = new World()
  const ask = (from: number, host = HOST) =>
    w.detector.receive(id(from), encodeLivenessMessage({ kind: 'ask', host }), w.now)
  const verdicts = () =>
    w.sent.splice(0).map(({ message }) => (message.kind === 'answer' ? message.verdict : message.kind))
  ask(1)
  ask(1, SELF)
  t.strictSame(verdicts(), ['unknown', 'heard'])
  w.looks.set(HOST, { state: 'dead', heardAt: 0 })
  ask(1)
  t.strictSame(verdicts(), ['silent'])
  w.looks.set(HOST, { state: 'alive', heardAt: w.now - 10 })
  ask(1)
  t.strictSame(verdicts(), ['heard'])
  w.looks.set(HOST, { state: 'alive', heardAt: w.now - 5_000 })
  ask(1)
  t.strictSame(verdicts(), [])
  t.strictSame(w.looked, [HOST])
  w.run(200)
  w.looks.set(HOST, { state: 'alive', heardAt: w.now })
  w.run(100)
  t.strictSame(verdicts(), ['heard'])
  w.now += 5_000
  ask(1)
  w.run(2_000)
  t.strictSame(verdicts(), ['silent'])
  t.end()
})

test('a flood of messages is cut off', (t) => {
  const w = new World()
  for (let i = 0; i < 1_000; i++) w.detector.receive(id(1), encodeLivenessMessage({ kind: 'ask', host: HOST }), w.now)
  t.ok(w.sent.length <= 200)
  t.ok(w.detector.counters.refused >= 800)
  t.end()
})
