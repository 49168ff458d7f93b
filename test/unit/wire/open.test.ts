import { test } from 'tap'
import { IcmpKind } from '../../../lib/wire/icmp.js'
import {
  innerGeneration,
  innerKind,
  innerFlags,
  innerClass,
  innerHopLimit,
  innerProtocol,
  innerSlot,
  writeInnerHeader,
} from '../../../lib/wire/inner.js'
import {
  ACCEPT_HEADER,
  CLOSE_HEADER,
  CloseCode,
  CloseFrame,
  ICMP_ERROR_HEADER,
  ICMP_QUOTE_MAX,
  IcmpErrorFrame,
  namesService,
  NotHereCode,
  NotHereFrame,
  OPEN_HEADER,
  OpenFlag,
  OpenFrame,
  readClose,
  readIcmpErrorFrame,
  readNotHere,
  readOpen,
  writeAccept,
  writeClose,
  writeIcmpErrorFrame,
  writeNotHere,
  writeOpen,
} from '../../../lib/wire/open.js'
import { viewOf } from './sample-packets.js'

const AT = 12

test('the inner header', (t) => {
  const data = new Uint8Array(20)
  writeInnerHeader(viewOf(data), 3, 0xfffffff0, -1, 0x21, 0xb8, 63, 6)
  t.equal(innerSlot(viewOf(data), 3), 0xfffffff0)
  t.equal(innerGeneration(viewOf(data), 3), 0xffffffff)
  t.equal(innerKind(data, 3), 1)
  t.equal(innerFlags(data, 3), 0x20)
  t.equal(innerClass(data, 3), 0xb8)
  t.equal(innerHopLimit(data, 3), 63)
  t.equal(innerProtocol(data, 3), 6)
  t.same([...data.slice(0, 3), ...data.slice(15)], new Array(8).fill(0))
  t.end()
})

function openFrame() {
  const frame = new OpenFrame()
  frame.slot = 0xfedcba98
  frame.generation = 0x12345678
  frame.service = Uint8Array.from({ length: 40 }, (_, i) => i)
  frame.serviceOffset = 8
  frame.family = 6
  frame.attempt = 2
  frame.flags = OpenFlag.hedged
  frame.clientPort = 51_000
  frame.dialledPort = 443
  return frame
}

test('OPEN', (t) => {
  const data = new Uint8Array(AT + OPEN_HEADER + 3)
  writeOpen(data, viewOf(data), AT, openFrame())
  const read = new OpenFrame()
  t.equal(readOpen(data, viewOf(data), AT, data.length - AT, read), 'ok')
  t.match(read, {
    slot: 0xfedcba98,
    generation: 0x12345678,
    family: 6,
    attempt: 2,
    flags: 1,
    clientPort: 51_000,
    dialledPort: 443,
    segmentOffset: AT + OPEN_HEADER,
  })
  t.same(
    [...read.service.slice(read.serviceOffset, read.serviceOffset + 32)],
    Array.from({ length: 32 }, (_, i) => i + 8),
  )
  t.equal(namesService(read), true)

  for (let length = 0; length < OPEN_HEADER; length++)
    t.equal(readOpen(data, viewOf(data), AT, length, read), 'bad-frame')
  t.equal(readOpen(data, viewOf(data), AT, data.length, read), 'bad-frame', 'longer than the buffer')
  data[AT + 40] = 5
  t.equal(readOpen(data, viewOf(data), AT, data.length - AT, read), 'bad-frame', 'no such family')
  t.end()
})

test('OPEN to the host itself', (t) => {
  const frame = openFrame()
  frame.service = new Uint8Array(32)
  frame.serviceOffset = 0
  t.equal(namesService(frame), false)
  t.end()
})

test('fields that a later version adds to OPEN are skipped', (t) => {
  const data = new Uint8Array(AT + OPEN_HEADER + 10)
  writeOpen(data, viewOf(data), AT, openFrame())
  data[AT + 43] = 4
  const read = new OpenFrame()
  t.equal(readOpen(data, viewOf(data), AT, data.length - AT, read), 'ok')
  t.equal(read.segmentOffset, AT + OPEN_HEADER + 4)
  data[AT + 43] = 11
  t.equal(readOpen(data, viewOf(data), AT, data.length - AT, read), 'bad-frame')
  t.end()
})

test("ACCEPT has the acceptor's flow ID", (t) => {
  const data = new Uint8Array(ACCEPT_HEADER)
  writeAccept(viewOf(data), 0, 5, 0xabcdef01)
  t.equal(innerSlot(viewOf(data), 0), 5)
  t.equal(innerGeneration(viewOf(data), 0), 0xabcdef01)
  t.end()
})

test('NOT-HERE', (t) => {
  const frame = new NotHereFrame()
  frame.slot = 9
  frame.generation = 10
  frame.code = NotHereCode.moved
  frame.attempt = 3
  frame.hint = Uint8Array.of(0, 1, 2, 3)
  frame.hintOffset = 1
  frame.hintLength = 3
  const data = new Uint8Array(AT + 40)
  const length = writeNotHere(data, viewOf(data), AT, frame)
  const read = new NotHereFrame()
  t.equal(readNotHere(data, viewOf(data), AT, length + 5, read), 'ok', 'what follows is ignored')
  t.match(read, { slot: 9, generation: 10, code: NotHereCode.moved, attempt: 3, hintLength: 3 })
  t.same([...read.hint.slice(read.hintOffset, read.hintOffset + 3)], [1, 2, 3])
  for (let cut = 0; cut < length; cut++) t.equal(readNotHere(data, viewOf(data), AT, cut, read), 'bad-frame')
  data[AT + 8] = 200
  t.equal(readNotHere(data, viewOf(data), AT, length, read), 'ok')
  t.equal(read.code, NotHereCode.gone, 'an unknown code')
  frame.hintLength = 513
  t.throws(() => writeNotHere(data, viewOf(data), AT, frame), RangeError)
  t.end()
})

test('CLOSE', (t) => {
  const frame = new CloseFrame()
  frame.slot = 1
  frame.generation = 2
  frame.code = CloseCode.lost
  const data = new Uint8Array(AT + 20)
  t.equal(writeClose(data, viewOf(data), AT, frame), CLOSE_HEADER)
  const read = new CloseFrame()
  t.equal(readClose(data, viewOf(data), AT, CLOSE_HEADER + 4, read), 'ok')
  t.match(read, { slot: 1, generation: 2, code: CloseCode.lost })
  t.equal(readClose(data, viewOf(data), AT, CLOSE_HEADER - 1, read), 'bad-frame')
  data[AT + 8] = 99
  t.equal(readClose(data, viewOf(data), AT, CLOSE_HEADER, read), 'ok')
  t.equal(read.code, CloseCode.gone)
  t.end()
})

test('ICMP errors', (t) => {
  const frame = new IcmpErrorFrame()
  frame.kind = IcmpKind.tooBig
  frame.transportMtu = 1380
  frame.quote = new Uint8Array(1000).fill(7)
  frame.quoteOffset = 100
  frame.quoteLength = 900
  const data = new Uint8Array(AT + 600)
  const length = writeIcmpErrorFrame(data, viewOf(data), AT, frame)
  t.equal(length, ICMP_ERROR_HEADER + ICMP_QUOTE_MAX, 'the quote is cut')
  const read = new IcmpErrorFrame()
  t.equal(readIcmpErrorFrame(data, viewOf(data), AT, length, read), 'ok')
  t.match(read, {
    kind: IcmpKind.tooBig,
    transportMtu: 1380,
    quoteLength: ICMP_QUOTE_MAX,
    quoteOffset: AT + ICMP_ERROR_HEADER,
  })
  t.equal(readIcmpErrorFrame(data, viewOf(data), AT, length - 1, read), 'bad-frame')
  t.equal(readIcmpErrorFrame(data, viewOf(data), AT, 5, read), 'bad-frame')
  data[AT] = 77
  t.equal(readIcmpErrorFrame(data, viewOf(data), AT, length, read), 'bad-frame', 'an unknown kind')
  t.end()
})
