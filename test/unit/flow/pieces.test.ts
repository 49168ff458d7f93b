import { test } from 'tap'
import { PIECE_HEADER, PieceAssembler, piecesNeeded, writePiece, type PieceLimits } from '../../../lib/flow/pieces.js'
import { HEADROOM, INNER_HEADER, Kind, KindFlag } from '../../../lib/wire/constants.js'
import { innerKind, writeInnerHeader } from '../../../lib/wire/inner.js'
import { viewOf } from '../wire/sample-packets.js'

const ROOM = 1188

function frameOf(length: number, slot = 1): Uint8Array {
  const frame = Uint8Array.from({ length: INNER_HEADER + length }, (_, i) => (i * 7) & 255)
  writeInnerHeader(viewOf(frame), 0, slot, 2, Kind.data | KindFlag.checksumFree, 3, 60, 17)
  return frame
}

function cut(frame: Uint8Array, id: number, room = ROOM): Uint8Array[] {
  const out = new Uint8Array(room + 20)
  return Array.from({ length: piecesNeeded(frame.length, room) }, (_, index) => {
    const length = writePiece(frame, 0, frame.length, index, id, room, out, viewOf(out), 10)
    return out.slice(10, 10 + length)
  })
}

function assembler(limits?: PieceLimits) {
  const dropped: [string, number][] = []
  const subject = new PieceAssembler((reason, pieces) => dropped.push([reason, pieces]), limits)
  const add = (piece: Uint8Array, peer = 1, now = 0) => {
    const data = new Uint8Array(piece.length + 7)
    data.set(piece, 5)
    return subject.add(peer, data, viewOf(data), 5, piece.length, now)
  }
  return { subject, add, dropped }
}

test('a frame of any length comes together again, in any order', (t) => {
  for (const length of [1, ROOM - INNER_HEADER, ROOM, 5_000, 65_535]) {
    for (const reverse of [false, true]) {
      const { subject, add, dropped } = assembler()
      const frame = frameOf(length)
      const pieces = cut(frame, 77)
      t.ok(pieces.every((piece) => piece.length <= ROOM && innerKind(piece, 0) === Kind.piece))
      if (reverse) pieces.reverse()
      const results = pieces.map((piece) => add(piece))
      const last = results.pop()
      t.ok(results.every((result) => result === 'held'))
      if (!(last instanceof Uint8Array)) return t.fail('not whole')
      t.same(last.subarray(HEADROOM), frame, `${length} bytes`)
      t.equal(subject.bytes, 0)
      t.same(dropped, [])
    }
  }
  t.end()
  return undefined
})

test('what needs too many pieces cannot be sent so', (t) => {
  t.equal(piecesNeeded(INNER_HEADER + 65_535, ROOM), 57)
  t.equal(piecesNeeded(INNER_HEADER + 65_535, 900), 0)
  t.equal(piecesNeeded(INNER_HEADER + 70_000, 9_000), 0)
  t.equal(piecesNeeded(INNER_HEADER + 100, INNER_HEADER + PIECE_HEADER), 0, 'no room at all')
  t.equal(piecesNeeded(INNER_HEADER, ROOM), 0, 'nothing to cut')
  t.end()
})

test('frames, flows and peers are kept apart', (t) => {
  const { add } = assembler()
  const one = frameOf(2000, 1)
  const two = frameOf(2000, 2)
  for (const [pieces, peer] of [
    [cut(one, 1), 1],
    [cut(one, 2), 1],
    [cut(one, 1), 2],
    [cut(two, 1), 1],
  ] as const) {
    t.equal(add(pieces[0]!, peer), 'held')
  }
  t.ok(add(cut(one, 1)[1]!, 1) instanceof Uint8Array)
  t.ok(add(cut(one, 2)[1]!, 1) instanceof Uint8Array)
  t.ok(add(cut(one, 1)[1]!, 2) instanceof Uint8Array)
  t.ok(add(cut(two, 1)[1]!, 1) instanceof Uint8Array)
  t.end()
})

test('nonsense is refused', (t) => {
  const { add, subject } = assembler()
  const pieces = cut(frameOf(3000), 5)
  const first = pieces[0]!
  const changed = (at: number, value: number) => {
    const piece = first.slice()
    piece[at] = value
    return add(piece)
  }
  t.equal(add(first.subarray(0, INNER_HEADER + PIECE_HEADER)), 'bad-frame', 'no bytes')
  t.equal(add(first.subarray(0, first.length - 1)), 'bad-frame', 'shorter than it says')
  t.equal(changed(INNER_HEADER + 6, 0xff), 'bad-frame', 'longer than any datagram')
  t.equal(changed(INNER_HEADER + 10, 3), 'bad-frame', 'index behind the last')
  t.equal(changed(INNER_HEADER + 11, Kind.piece), 'bad-frame', 'pieces of pieces')
  t.equal(subject.bytes, 0)
  t.equal(add(first), 'held')
  t.equal(add(first), 'bad-frame', 'again')
  t.equal(changed(INNER_HEADER + 11, Kind.open), 'bad-frame', 'another kind than before')
  t.equal(add(pieces[1]!), 'held')
  t.ok(add(pieces[2]!) instanceof Uint8Array, 'and the frame still becomes whole')
  t.end()
})

test('what takes too long is dropped and counted', (t) => {
  const { subject, add, dropped } = assembler({ peerBytes: 1e6, bytes: 1e6, entries: 10, timeout: 50 })
  const pieces = cut(frameOf(3000), 5)
  add(pieces[0]!, 1, 100)
  add(pieces[1]!, 1, 140)
  t.equal(subject.nextTimeout(), 150)
  subject.expire(149)
  t.same(dropped, [])
  subject.expire(150)
  t.same(dropped, [['fragment-timeout', 2]])
  t.equal(subject.bytes, 0)
  t.equal(add(pieces[2]!, 1, 151), 'held')
  t.end()
})

test('memory is bounded for each peer and in all', (t) => {
  const { subject, add, dropped } = assembler({ peerBytes: 8_000, bytes: 14_000, entries: 100, timeout: 50 })
  const first = (id: number) => cut(frameOf(3000), id)[0]!
  t.equal(add(first(1), 1), 'held')
  t.equal(add(first(2), 2), 'held')
  t.equal(add(first(3), 2), 'held')
  t.equal(add(first(4), 2), 'held')
  t.same(dropped, [['fragment-overflow', 1]], "the peer's own oldest")
  t.ok(
    cut(frameOf(3000), 1)
      .slice(1)
      .map((piece) => add(piece, 1))
      .pop() instanceof Uint8Array,
    'others are not touched',
  )
  t.equal(add(first(5), 3), 'held')
  t.equal(add(first(6), 4), 'held')
  t.equal(add(first(7), 5), 'held')
  t.equal(dropped.length, 2, 'then the oldest of all')
  t.ok(subject.bytes <= 14_000)
  t.equal(add(cut(frameOf(9_000), 8)[0]!, 6), 'fragment-overflow', 'more than a peer may have')
  const few = assembler({ peerBytes: 1e6, bytes: 1e6, entries: 2, timeout: 50 })
  for (const id of [1, 2, 3]) few.add(first(id))
  t.same(few.dropped, [['fragment-overflow', 1]])
  t.end()
})

test('a peer that is gone is forgotten', (t) => {
  const { subject, add, dropped } = assembler()
  add(cut(frameOf(3000), 1)[0]!, 1)
  add(cut(frameOf(3000), 1)[0]!, 2)
  const held = subject.bytes
  subject.forget(1)
  t.equal(subject.bytes, held / 2)
  t.same(dropped, [])
  t.end()
})
