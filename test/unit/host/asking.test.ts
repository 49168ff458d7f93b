import { test } from 'tap'
import { Asking } from '../../../lib/host/asking.js'
import type { DropReason } from '../../../lib/wire/drop.js'
import { decodeQuery, encodeQuery, QUERY_HOPS_MAX, type QueryMessage, type Question } from '../../../lib/wire/query.js'
import { idOf } from '../service/fixtures.js'

const WEB = { service: idOf('web'), protocol: 6, port: 80 }
const HINT = Uint8Array.of(1, 2, 3)

/** A host with so many neighbours, 1.., that knows what it is told to. */
class Node {
  readonly sent: [peer: number, message: QueryMessage][] = []
  readonly learned: Uint8Array[] = []
  readonly drops: DropReason[] = []
  knows: Uint8Array | 'denied' | undefined
  readonly asking: Asking
  #random = 0

  constructor(neighbours: number) {
    const connected = Array.from({ length: neighbours }, (_, i) => i + 1)
    this.asking = new Asking({
      random: () => (this.#random = (this.#random + 0.37) % 1),
      randomBytes: (length) => new Uint8Array(length).fill(Math.floor(this.#random * 256)),
      connected: () => connected,
      send: (peer, bytes) => {
        const message = decodeQuery(bytes)
        if (message === undefined) throw new Error('no message')
        return this.sent.push([peer, message]) > 0
      },
      tell: () => this.knows,
      answered: (_, hint) => this.learned.push(hint),
      drop: (reason) => this.drops.push(reason),
    })
  }

  take(): [peer: number, message: QueryMessage][] {
    return this.sent.splice(0)
  }
}
const id = (n: number) => new Uint8Array(8).fill(n)
const question = (n: number, hops = QUERY_HOPS_MAX): Uint8Array =>
  encodeQuery({ kind: 'question', id: id(n), ...WEB, hops })
const answer = (n: number): Uint8Array => encodeQuery({ kind: 'answer', id: id(n), hint: HINT })
const asked = (node: Node): Question => {
  const [, message] = node.take()[0] ?? []
  if (message?.kind !== 'question') throw new Error('nothing was asked')
  return message
}

test('up to eight neighbours are asked, each once; and not again at once', async (t) => {
  const node = new Node(20)
  node.asking.ask(WEB, 0)
  const peers = node.take().map(([peer]) => peer)
  t.equal(new Set(peers).size, 8)
  t.equal(peers.length, 8)
  node.asking.ask(WEB, 999)
  t.strictSame(node.take(), [])
  node.asking.ask({ ...WEB, port: 81 }, 999)
  node.asking.ask(WEB, 1_000)
  t.equal(node.take().length, 16)
})

test('without neighbours nothing is asked, and with one it is asked at once', async (t) => {
  const node = new Node(0)
  node.asking.ask(WEB, 0)
  t.equal(node.asking.counters.asked, 0)
})

test('an answer counts only from who was asked, and only a few', async (t) => {
  const node = new Node(2)
  node.asking.ask(WEB, 0)
  const { id: number, hops } = asked(node)
  t.equal(hops, QUERY_HOPS_MAX)
  const bytes = encodeQuery({ kind: 'answer', id: number, hint: HINT })
  node.asking.receive(3, bytes, 10)
  t.strictSame(node.drops, ['not-entitled'])
  for (let i = 0; i < 5; i++) node.asking.receive(1, bytes, 10)
  t.strictSame(node.learned, [HINT, HINT, HINT])
  node.asking.receive(2, answer(99), 10)
  t.equal(node.learned.length, 3, 'to no question')
  t.equal(node.drops.length, 1)
})

test('who knows answers, and asks nobody else', async (t) => {
  const node = new Node(3)
  node.knows = HINT
  node.asking.receive(1, question(7), 0)
  t.strictSame(node.take(), [[1, { kind: 'answer', id: id(7), hint: HINT }]])
  node.asking.receive(2, question(7), 1)
  t.strictSame(node.take(), [], 'the same question by another way')
})

test('who does not know passes it on once, one hop less, and the answer back', async (t) => {
  const node = new Node(3)
  node.asking.receive(1, question(7), 0)
  const passed = node.take()
  t.strictSame(passed.map(([peer]) => peer).sort(), [2, 3], 'not to whom it came from')
  t.ok(passed.every(([, message]) => message.kind === 'question' && message.hops === QUERY_HOPS_MAX - 1))
  node.asking.receive(2, question(7), 1)
  t.strictSame(node.take(), [], 'a loop ends')
  node.asking.receive(1, answer(7), 2)
  t.strictSame(node.drops, ['not-entitled'], 'who asked does not answer')
  node.asking.receive(3, answer(7), 3)
  t.strictSame(node.take(), [[1, { kind: 'answer', id: id(7), hint: HINT }]])
  t.strictSame(node.learned, [], 'it was not ours')
  node.asking.receive(2, answer(7), 6_000)
  t.strictSame(node.take(), [], 'too late')
})

test('the last hop and who may not know go no further', async (t) => {
  const node = new Node(3)
  node.asking.receive(1, question(7, 1), 0)
  node.knows = 'denied'
  node.asking.receive(1, question(8), 0)
  t.strictSame(node.take(), [])
  t.equal(node.asking.counters.passed, 0)
})

test('questions are limited by peer, and our own too', async (t) => {
  const node = new Node(1)
  node.knows = HINT
  for (let n = 0; n < 100; n++) node.asking.receive(1, question(n), 0)
  t.equal(node.take().length, 40)
  t.equal(node.drops.filter((reason) => reason === 'rate-limited').length, 60)
  node.asking.receive(2, question(200), 0)
  t.equal(node.take().length, 1, 'another peer')
  node.asking.receive(1, question(201), 1_000)
  t.equal(node.take().length, 1, 'a second later')
  for (let port = 1; port <= 100; port++) node.asking.ask({ ...WEB, port }, 5_000)
  t.equal(node.take().length, 40)
})

test('bytes that are no message are counted', async (t) => {
  const node = new Node(1)
  node.asking.receive(1, Uint8Array.of(1, 2, 3), 0)
  t.strictSame(node.drops, ['bad-control'])
})
