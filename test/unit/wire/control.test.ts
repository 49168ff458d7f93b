import { test } from 'tap'
import { CONTROL_MESSAGE_MAX } from '../../../lib/wire/constants.js'
import { decodeControl, encodeControl, type ControlMessage } from '../../../lib/wire/control.js'
import { pack } from '../../../lib/wire/pack.js'

const message: ControlMessage = {
  epoch: 2 ** 40,
  id: 7,
  base: 5,
  acksEpoch: 2 ** 41,
  acks: [1, 2, 70_000],
  channel: 3,
  body: Uint8Array.of(1, 2, 3),
}

test('a message comes back as it was', (t) => {
  t.same(decodeControl(encodeControl(message)), message)
  const full = {
    ...message,
    acks: new Array<number>(64).fill(2 ** 31),
    body: new Uint8Array(CONTROL_MESSAGE_MAX).fill(9),
  }
  t.same(decodeControl(encodeControl(full)), full)
  t.end()
})

test('a body that is too long is not sent', (t) => {
  t.throws(() => encodeControl({ ...message, body: new Uint8Array(CONTROL_MESSAGE_MAX + 1) }), RangeError)
  t.end()
})

test('fields that a later version adds are ignored', (t) => {
  const later = pack([1, 1, 2, 1, 0, [], 4, Uint8Array.of(5), 'new', { more: true }])
  t.same(decodeControl(later), { epoch: 1, id: 2, base: 1, acksEpoch: 0, acks: [], channel: 4, body: Uint8Array.of(5) })
  t.end()
})

test('anything else is no message', (t) => {
  const bytes = encodeControl(message)
  for (let length = 0; length < bytes.length; length++) t.equal(decodeControl(bytes.subarray(0, length)), undefined)
  for (const value of [
    [2, 1, 2, 1, 0, [], 4, Uint8Array.of(5)],
    [1, -1, 2, 1, 0, [], 4, Uint8Array.of(5)],
    [1, 1.5, 2, 1, 0, [], 4, Uint8Array.of(5)],
    [1, 1, 2, 1, 0, new Array<number>(65).fill(1), 4, Uint8Array.of(5)],
    [1, 1, 2, 1, 0, ['1'], 4, Uint8Array.of(5)],
    [1, 1, 2, 1, 0, [], 4, 'text'],
    [1, 1, 2, 1, 0, [], 4, new Uint8Array(CONTROL_MESSAGE_MAX + 1)],
    [1, 1, 2, 1],
    { 0: 1 },
    null,
  ]) {
    t.equal(decodeControl(pack(value)), undefined)
  }
  t.equal(decodeControl(new Uint8Array(5000)), undefined, 'too long')
  t.end()
})
