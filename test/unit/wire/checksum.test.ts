import fc from 'fast-check'
import { test } from 'tap'
import {
  addSum,
  checksumOf,
  fold,
  pseudoHeaderSum,
  removeSum,
  replaceWord,
  replaceWordAt,
  sumBytes,
} from '../../../lib/wire/checksum.js'
import { client, pseudoHeader, server, slowSum, viewOf } from './sample-packets.js'

/** +0 and -0 of one's complement arithmetic. */
const same = (a: number, b: number) => a === b || (a % 0xffff === 0 && b % 0xffff === 0)

test('the example of RFC 1071', (t) => {
  const bytes = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7)
  t.equal(fold(sumBytes(bytes, viewOf(bytes), 0, 8)), 0xddf2)
  t.equal(checksumOf(0xddf2), 0x220d)
  t.end()
})

test('sums equal the obvious ones, at any position and length', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), fc.nat(5), (bytes, shift) => {
      const shifted = new Uint8Array(bytes.length + shift + 3).fill(0xee)
      shifted.set(bytes, shift)
      return same(fold(sumBytes(shifted, viewOf(shifted), shift, bytes.length)), slowSum([...bytes]))
    }),
  )
  t.pass()
  t.end()
})

test('a packet of the greatest length does not overflow', (t) => {
  const bytes = new Uint8Array(65_535).fill(0xff)
  t.equal(fold(sumBytes(bytes, viewOf(bytes), 0, bytes.length)), slowSum([...bytes]))
  t.equal(fold(2 ** 46 + 3), 0x4003)
  t.end()
})

test('changing, removing and adding words keeps a checksum right', (t) => {
  const word = fc.integer({ min: 0, max: 0xffff })
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 8, maxLength: 64 }), fc.nat(5), word, (bytes, at, value) => {
      const view = viewOf(bytes)
      const before = checksumOf(slowSum([...bytes]))
      const old = view.getUint16(at)
      const others = [...bytes]
      if (at % 2 === 0) {
        others[at] = 0
        others[at + 1] = 0
        if (!same(removeSum(before, old), checksumOf(slowSum(others)))) return false
        if (!same(addSum(removeSum(before, old), old), before)) return false
      }
      view.setUint16(at, value)
      const after = checksumOf(slowSum([...bytes]))
      if (at % 2 === 0 && !same(replaceWord(before, old, value), after)) return false
      return same(replaceWordAt(before, old, value, at & 1), after)
    }),
  )
  t.pass()
  t.end()
})

test('pseudo headers of both families', (t) => {
  for (const family of [4, 6] as const) {
    const sum = pseudoHeaderSum(family, client(family), 0, server(family), 0, 17, 70_000)
    const expected = family === 6 ? slowSum(pseudoHeader(client(6), server(6), 17, 70_000)) : undefined
    if (expected !== undefined) t.equal(fold(sum), expected)
    t.equal(
      fold(pseudoHeaderSum(family, client(family), 0, server(family), 0, 6, 1400)),
      slowSum(pseudoHeader(client(family), server(family), 6, 1400)),
    )
  }
  t.end()
})
