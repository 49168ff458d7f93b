import { test } from 'tap'
import { z } from 'zod'
import { fromBase64url, toBase64url } from '../../../lib/wire/bytes.js'
import {
  bytesOf,
  bytesUpTo,
  fields,
  pack,
  PACK_DEPTH_MAX,
  unpack,
  unpackTagged,
  type Packable,
} from '../../../lib/wire/pack.js'
import { decodeSigned, encodeSigned, SIGNED_OVERHEAD } from '../../../lib/wire/signed.js'

const bytes = (...values: number[]) => Uint8Array.from(values)

test('packed values come back as they were', (t) => {
  const value = [null, true, -1, 0, 127, 128, 2 ** 40, 1.5, 'text', 'ä'.repeat(300), bytes(1, 2, 3), { a: [1], b: {} }]
  t.same(unpack(pack(value), 10_000, z.unknown()), value)
  const many = Array.from({ length: 70_000 }, (_, i) => i)
  t.same(unpack(pack(many), 1e6, z.unknown()), many)
  t.end()
})

test('byte arrays are copies, and the input is left alone', (t) => {
  const packed = pack([bytes(1, 2, 3)])
  const before = Object.keys(packed).length
  const value = unpack(packed, 100, fields([bytesOf(3)]))
  packed.fill(0)
  t.same(value?.[0], bytes(1, 2, 3))
  t.equal(Object.keys(packed).length, before)
  t.end()
})

test('later versions may append elements and keys', (t) => {
  t.same(unpack(pack([1, 'x', 'later']), 100, fields([z.number(), z.string()]))?.slice(0, 2), [1, 'x'])
  t.same(unpack(pack({ a: 1, later: 2 }), 100, z.object({ a: z.number() })), { a: 1 })
  t.end()
})

test('what is not asked for is refused', (t) => {
  t.equal(unpack(pack([1]), 1, z.unknown()), undefined, 'too long')
  t.equal(unpack(pack([1]), 100, fields([z.string()])), undefined, 'wrong type')
  t.equal(unpack(pack([bytes(1)]), 100, fields([bytesUpTo(5, 2)])), undefined, 'too short')
  t.equal(unpack(new Uint8Array(0), 100, z.unknown()), undefined, 'nothing')
  t.equal(unpack(Uint8Array.of(...pack(1), 0), 100, z.unknown()), undefined, 'something after the end')
  t.equal(unpack(pack('text').subarray(0, -1), 100, z.unknown()), undefined, 'cut')
  t.end()
})

test('what would make the library do more than read data is refused', (t) => {
  for (const [what, input] of [
    ['a timestamp', bytes(0xd6, 0xff, 0, 0, 0, 0)],
    ['an extension', bytes(0xc7, 1, 0x78, 0)],
    ['a record definition', bytes(0xd4, 0x72, 0x40, 0x91, 0xa1, 0x61, 1)],
    ['the unused token', bytes(0xc1)],
    ['an array of 2^32 - 1 elements', bytes(0xdd, 0xff, 0xff, 0xff, 0xff)],
    ['a map of 2^32 - 1 entries', bytes(0xdf, 0xff, 0xff, 0xff, 0xff)],
    ['a string of 2^32 - 1 bytes', bytes(0xdb, 0xff, 0xff, 0xff, 0xff, 0x61)],
    ['a map with a number as key', bytes(0x81, 1, 1)],
    ['a size that is not all there', bytes(0xdc, 0)],
    ['a deep nest', new Uint8Array(5000).fill(0x91)],
  ] as const)
    t.equal(unpack(input, 10_000, z.unknown()), undefined, what)
  let nested: Packable = 1
  for (let i = 0; i < PACK_DEPTH_MAX; i++) nested = [nested]
  t.same(unpack(pack(nested), 100, z.unknown()), nested)
  t.throws(() => pack([nested]), RangeError)
  const prototype = unpack(bytes(0x81, 0xa9, ...new TextEncoder().encode('__proto__'), 0x80), 100, z.unknown())
  t.equal(Object.getPrototypeOf(prototype), Object.prototype)
  t.end()
})

test('signed blobs', (t) => {
  const blob = { body: bytes(1, 2, 3), signature: new Uint8Array(64).fill(5) }
  const encoded = encodeSigned(blob)
  t.equal(encoded.length, SIGNED_OVERHEAD + 3)
  t.same(decodeSigned(encoded, 100), blob)
  t.equal(decodeSigned(encoded, encoded.length - 1), undefined, 'too long')
  t.equal(decodeSigned(encoded.subarray(0, SIGNED_OVERHEAD), 100), undefined, 'no body')
  t.equal(decodeSigned(Uint8Array.of(2, ...encoded.subarray(1)), 100), undefined, 'another version')
  t.throws(() => encodeSigned({ ...blob, signature: new Uint8Array(63) }), RangeError)
  t.end()
})

test('base64url', (t) => {
  for (const input of ['', 'f', 'fo', 'foo', 'foob', '\xff\xfe\xfd']) {
    const raw = Uint8Array.from(input, (c) => c.charCodeAt(0))
    const text = Buffer.from(raw).toString('base64url')
    t.equal(toBase64url(raw), text)
    t.same(fromBase64url(text), raw)
  }
  for (const wrong of ['A', 'Zg==', 'Zh', 'Z+8', 'Z g']) t.equal(fromBase64url(wrong), undefined, wrong)
  t.end()
})

test('of several shapes the one is read that the first number names, and no other', (t) => {
  const shapes = {
    1: fields([z.literal(1), z.string()]),
    2: fields([z.literal(2), z.number()]),
    3: fields([z.literal(2), z.string()]),
  } as const
  const read = (value: Packable) => unpackTagged(pack(value), 100, shapes)
  t.strictSame(read([1, 'a']), [1, 'a'])
  t.strictSame(read([2, 7, 'of a later version']), [2, 7, 'of a later version'])
  for (const bad of [[1, 7], [2, 'a'], [3, 'a'], [4, 'a'], [], ['1', 'a'], [[1], 'a'], [null], 1, 'toString', { 0: 1 }])
    t.equal(read(bad), undefined, JSON.stringify(bad))
  t.equal(unpackTagged(pack([1, 'a'.repeat(100)]), 100, shapes), undefined, 'too long')
  t.equal(unpackTagged(Uint8Array.of(0x92, 1), 100, shapes), undefined, 'cut off')
  t.end()
})
