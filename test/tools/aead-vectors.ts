import type { Test } from 'tap'
import { z } from 'zod'
import type { AeadName } from '../../lib/crypto/codec.js'
import type { PortableAead } from '../../lib/crypto/portable-codec.js'
import { readVectors } from './vectors.js'

const hex = z.string().transform((s) => Uint8Array.from(Buffer.from(s, 'hex')))
const vectorFile = z.object({
  testGroups: z.array(
    z.object({
      ivSize: z.number(),
      keySize: z.number(),
      tagSize: z.number(),
      tests: z.array(
        z.object({
          tcId: z.number(),
          comment: z.string(),
          key: hex,
          iv: hex,
          aad: hex,
          msg: hex,
          ct: hex,
          tag: hex,
          result: z.enum(['valid', 'invalid', 'acceptable']),
        }),
      ),
    }),
  ),
})
const files: Record<AeadName, string> = {
  'chacha20-poly1305': 'wycheproof-chacha20_poly1305.json',
  'aes-256-gcm': 'wycheproof-aes_gcm.json',
}
/** For clones without the vectors: RFC 8439 section 2.8.2; the GCM specification's test case 14 (one zero block). */
const few: Record<AeadName, unknown> = {
  'chacha20-poly1305': one(
    '808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f',
    '070000004041424344454647',
    '50515253c0c1c2c3c4c5c6c7',
    '4c616469657320616e642047656e746c656d656e206f662074686520636c617373206f66202739393a204966204920636f756c64206f6666657220796f75206f6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73637265656e20776f756c642062652069742e',
    'd31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b6116',
    '1ae10b594f09e26a7e902ecbd0600691',
  ),
  'aes-256-gcm': one(
    '00'.repeat(32),
    '00'.repeat(12),
    '',
    '00'.repeat(16),
    'cea7403d4d606b6e074ec5d3baf39d18',
    'd0d1c8a799996bf0265b98b5d48ab919',
  ),
}

function one(key: string, iv: string, aad: string, msg: string, ct: string, tag: string): unknown {
  const tests = [{ tcId: 1, comment: '', key, iv, aad, msg, ct, tag, result: 'valid' }]
  return { testGroups: [{ ivSize: 96, keySize: 256, tagSize: 128, tests }] }
}

/** Checks an AEAD against the published vectors of its key, nonce and tag lengths. */
export function aeadVectors(t: Test, name: AeadName, aead: PortableAead): void {
  const { testGroups } = vectorFile.parse(readVectors(files[name]) ?? few[name])
  let checked = 0
  let wrong = 0
  for (const group of testGroups) {
    if (group.ivSize !== 96 || group.keySize !== 256 || group.tagSize !== 128) continue
    for (const v of group.tests) {
      checked++
      const sealed = Uint8Array.from(Buffer.concat([v.ct, v.tag]))
      const opened = aead.open(v.key, v.iv, v.aad, sealed)
      const fine =
        v.result === 'valid'
          ? opened !== undefined &&
            Buffer.compare(opened, v.msg) === 0 &&
            Buffer.compare(aead.seal(v.key, v.iv, v.aad, v.msg), sealed) === 0
          : opened === undefined
      if (!fine) {
        wrong++
        t.fail(`vector ${v.tcId} ${v.comment} (${v.result})`)
      }
    }
  }
  t.ok(checked > 0, `${checked} vectors`)
  t.equal(wrong, 0)
}
