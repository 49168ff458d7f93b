import { test } from 'tap'
import { echoFrame, heardAgoIn, ownFrame, prefersItsWay, probeFrame, seenByEcho } from '../../../lib/host/own-frames.js'
import { encodeLocator } from '../../../lib/path/locator.js'
import { ADDRESS_RECORD } from '../../../lib/wire/batch.js'
import { HOST_ID_LENGTH, INNER_HEADER, Kind, PROBE_TOKEN } from '../../../lib/wire/constants.js'
import { hostId } from '../../../lib/wire/ids.js'
import { innerKind } from '../../../lib/wire/inner.js'
import { encodeMove, type MoveMessage } from '../../../lib/wire/move.js'

const TOKEN = Uint8Array.from({ length: PROBE_TOKEN }, (_, i) => i + 1)

function prefers(frame: Uint8Array, length = frame.length): boolean {
  const at = 3
  const data = new Uint8Array(at + frame.length)
  data.set(frame, at)
  return prefersItsWay(innerKind(data, at), data, at, length)
}

test('a probe says whether its sender’s frames go the same way', (t) => {
  t.ok(prefers(probeFrame(TOKEN, true)))
  t.notOk(prefers(probeFrame(TOKEN, false)))
  t.notOk(prefers(ownFrame(Kind.probe, TOKEN)), 'one without flags says nothing')
  t.notOk(prefers(probeFrame(TOKEN, true), probeFrame(TOKEN, true).length - 1), 'nor do bytes behind its end')
  t.end()
})

test('a probe says how long ago its sender heard the receiver, or nothing of it', (t) => {
  const said = (frame: Uint8Array) => heardAgoIn(frame.subarray(INNER_HEADER))
  t.equal(said(probeFrame(TOKEN, true)), undefined)
  t.equal(said(probeFrame(TOKEN, true, 0, 0)), 0)
  t.equal(said(probeFrame(TOKEN, false, 0, 299.2)), 300, 'rather too long')
  t.equal(said(probeFrame(TOKEN, true, 500, 65_535)), 65_535)
  t.equal(probeFrame(TOKEN, true, 500, 65_535).length, 500)
  for (const ago of [65_536, Infinity]) t.equal(said(probeFrame(TOKEN, true, 500, ago)), undefined)
  t.ok(prefers(probeFrame(TOKEN, true, 0, 7)))
  t.notOk(prefers(probeFrame(TOKEN, false, 0, 7)))
  const cut = probeFrame(TOKEN, true, 0, 7)
  for (let length = INNER_HEADER; length < cut.length; length++) t.equal(said(cut.subarray(0, length)), undefined)
  t.end()
})

test('all other frames go the way that their sender prefers, but echoes where the question came from', (t) => {
  for (const kind of Object.values(Kind)) {
    if (kind !== Kind.probe) t.equal(prefers(ownFrame(kind, TOKEN)), kind !== Kind.probeEcho)
  }
  t.end()
})

test('a receipt goes back the way of the message, and a message the way that its sender prefers', (t) => {
  const frame = (message: MoveMessage) => ownFrame(Kind.move, encodeMove(message))
  const host = hostId('01'.repeat(HOST_ID_LENGTH))
  for (const sequence of [0, 1, 70_000, Number.MAX_SAFE_INTEGER]) {
    const receipt = frame({ kind: 'receipt', sequence })
    t.notOk(prefers(receipt))
    t.ok(prefers(receipt, INNER_HEADER + 2), 'what is behind its end says nothing')
    t.ok(prefers(frame({ kind: 'move', host, sequence, addresses: [] })))
  }
  t.end()
})

test('an echo says where the probe came from; one of an older version says nothing', (t) => {
  for (const address of ['203.0.113.9', '2001:db8::7']) {
    const record = encodeLocator({ address, port: 40_001 })
    const records = new Uint8Array(3 * ADDRESS_RECORD)
    records.set(record, ADDRESS_RECORD)
    const body = echoFrame(TOKEN, records, ADDRESS_RECORD).slice(INNER_HEADER)
    t.strictSame(body.subarray(0, PROBE_TOKEN), TOKEN)
    t.strictSame(seenByEcho(body), record)
    for (let length = 0; length < body.length; length++) t.equal(seenByEcho(body.slice(0, length)), undefined)
    t.strictSame(seenByEcho(Uint8Array.of(...body, 0, 0, 7)), record, 'padded')
  }
  t.equal(seenByEcho(new Uint8Array(100)), undefined)
  t.equal(seenByEcho(new Uint8Array(100).fill(5)), undefined, 'of another family')
  t.end()
})
