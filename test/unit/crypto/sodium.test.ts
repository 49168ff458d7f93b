import { test } from 'tap'
import { z } from 'zod'
import { loadPrimitives } from '../../../daemon/node-primitives.js'
import type { Primitives } from '../../../lib/crypto/primitives.js'
import { utf8 } from '../../../lib/wire/bytes.js'
import { fromHex, toHex } from '../../../lib/wire/ids.js'
import { sodium } from '../../tools/sodium.js'
import { readVectors } from '../../tools/vectors.js'

const hex = (bytes: Uint8Array | undefined) => bytes && toHex(bytes)

const X25519 = z.object({
  testGroups: z.array(
    z.object({
      tests: z.array(
        z.object({ tcId: z.number(), public: z.string(), private: z.string(), shared: z.string(), result: z.string() }),
      ),
    }),
  ),
})

test('x25519', (t) => {
  // The first value of the published vectors.
  const a = fromHex('c8a9d5a91091ad851c668b0736c1c9a02936c0d3ad62670858088047ba057475')
  t.equal(
    hex(sodium.x25519(a, fromHex('504a36999f489cd2fdbc08baff3d88fa00569ba986cba22548ffde80f9806829'))),
    '436a2c040cf45fea9b29a0cb81b1f41458f863d0d61b453d0a982720d6d61320',
  )
  const b = sodium.randomBytes(32)
  t.same(sodium.x25519(a, sodium.x25519PublicKey(b)), sodium.x25519(b, sodium.x25519PublicKey(a)))
  t.equal(sodium.x25519(a, new Uint8Array(32)), undefined, 'a low-order point')
  t.equal(sodium.x25519(a, new Uint8Array(31)), undefined, 'no point at all')

  const { testGroups } = X25519.parse(readVectors('wycheproof-x25519.json'))
  let zero = 0
  for (const group of testGroups)
    for (const vector of group.tests) {
      const shared = sodium.x25519(fromHex(vector.private), fromHex(vector.public))
      const allZero = /^0+$/.test(vector.shared)
      if (allZero) zero++
      if (hex(shared) !== (allZero ? undefined : vector.shared)) t.fail(`vector ${vector.tcId}`)
    }
  t.ok(zero > 0, 'the vectors have low-order points')
  t.end()
})

const Ed25519 = z.object({
  testGroups: z.array(
    z.object({
      publicKey: z.object({ pk: z.string() }),
      tests: z.array(z.object({ tcId: z.number(), msg: z.string(), sig: z.string(), result: z.string() })),
    }),
  ),
})

for (const [name, primitives] of [
  ['libsodium', sodium],
  ['node:crypto', await loadPrimitives()],
] satisfies [string, Primitives][])
  test(`ed25519 verification by ${name}`, (t) => {
    // RFC 8032, section 7.1, test 2.
    const seed = fromHex('4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb')
    const publicKey = primitives.ed25519PublicKey(seed)
    t.equal(toHex(publicKey), '3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c')
    const signature = primitives.ed25519Sign(Uint8Array.of(0x72), seed)
    t.equal(
      toHex(signature),
      '92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00',
    )
    t.ok(primitives.ed25519Verify(signature, Uint8Array.of(0x72), publicKey))
    t.notOk(primitives.ed25519Verify(signature, Uint8Array.of(0x73), publicKey))
    t.notOk(primitives.ed25519Verify(signature.subarray(1), Uint8Array.of(0x72), publicKey))
    t.notOk(primitives.ed25519Verify(signature, Uint8Array.of(0x72), publicKey.subarray(1)))
    t.notOk(primitives.ed25519Verify(signature, Uint8Array.of(0x72), new Uint8Array(32).fill(0xff)))

    let valid = 0
    for (const group of Ed25519.parse(readVectors('wycheproof-ed25519.json')).testGroups)
      for (const vector of group.tests) {
        const key = fromHex(group.publicKey.pk)
        const accepted = primitives.ed25519Verify(fromHex(vector.sig), fromHex(vector.msg), key)
        if (accepted) valid++
        if (accepted !== (vector.result === 'valid')) t.fail(`vector ${vector.tcId}`)
      }
    t.ok(valid > 50, `${valid} valid signatures among the vectors`)
    t.end()
  })

const Aead = z.object({
  testGroups: z.array(
    z.object({
      ivSize: z.number(),
      tests: z.array(
        z.object({
          tcId: z.number(),
          key: z.string(),
          iv: z.string(),
          aad: z.string(),
          msg: z.string(),
          ct: z.string(),
          tag: z.string(),
          result: z.string(),
        }),
      ),
    }),
  ),
})

test('AEADs', (t) => {
  for (const group of Aead.parse(readVectors('wycheproof-chacha20_poly1305.json')).testGroups) {
    if (group.ivSize !== 96) continue
    for (const v of group.tests) {
      const [key, nonce, aad] = [fromHex(v.key), fromHex(v.iv), fromHex(v.aad)]
      const opened = hex(sodium.chachaOpen(key, nonce, aad, fromHex(v.ct + v.tag)))
      if (opened !== (v.result === 'valid' ? v.msg : undefined)) t.fail(`vector ${v.tcId} opens`)
      if (v.result === 'valid' && hex(sodium.chachaSeal(key, nonce, aad, fromHex(v.msg))) !== v.ct + v.tag)
        t.fail(`vector ${v.tcId} seals`)
    }
  }
  // RFC 8439, section 2.8.2.
  const sunscreen = fromHex(
    'd31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691',
  )
  const opened = sodium.chachaOpen(
    fromHex('808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f'),
    fromHex('070000004041424344454647'),
    fromHex('50515253c0c1c2c3c4c5c6c7'),
    sunscreen,
  )
  t.match(opened && new TextDecoder().decode(opened), /sunscreen would be it\.$/)
  const key = new Uint8Array(32).fill(7)
  for (const [length, seal, open] of [
    [12, sodium.chachaSeal, sodium.chachaOpen],
    [24, sodium.xchachaSeal, sodium.xchachaOpen],
  ] as const) {
    const nonce = new Uint8Array(length).fill(9)
    const sealed = seal(key, nonce, utf8('aad'), utf8('text'))
    t.equal(sealed.length, 20)
    t.same(open(key, nonce, utf8('aad'), sealed), utf8('text'))
    t.equal(open(key, nonce, utf8('aaD'), sealed), undefined)
    t.equal(open(key, nonce, utf8('aad'), sealed.subarray(0, 15)), undefined)
    t.equal(open(key, nonce, utf8('aad'), new Uint8Array(0)), undefined)
    t.throws(() => seal(key.subarray(1), nonce, utf8('aad'), utf8('text')), 'our own mistakes do throw')
  }
  t.end()
})

test('BLAKE2b, comparison, conversion of keys', (t) => {
  // RFC 7693, appendix A.
  t.match(toHex(sodium.blake2b(utf8('abc'), 64)), /^ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1/)
  t.notSame(sodium.blake2b(utf8('abc'), 32), sodium.blake2b(utf8('abc'), 32, utf8('key')))
  t.equal(sodium.blake2b(utf8('abc'), 4).length, 4, 'as short as a checksum')
  t.ok(sodium.equal(Uint8Array.of(1, 2), Uint8Array.of(1, 2)))
  t.notOk(sodium.equal(Uint8Array.of(1, 2), Uint8Array.of(1, 3)))
  t.notOk(sodium.equal(Uint8Array.of(1, 2), Uint8Array.of(1)))
  const seed = sodium.randomBytes(32)
  const secret = sodium.ed25519SeedToX25519(seed)
  t.same(sodium.ed25519PublicToX25519(sodium.ed25519PublicKey(seed)), sodium.x25519PublicKey(secret))
  t.equal(sodium.ed25519PublicToX25519(new Uint8Array(32)), undefined)
  t.equal(sodium.ed25519PublicToX25519(new Uint8Array(5)), undefined)
  t.notSame(sodium.randomBytes(32), sodium.randomBytes(32))
  t.end()
})
