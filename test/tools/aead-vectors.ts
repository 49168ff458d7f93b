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
/** At least so many are checked of each. */
const VECTORS: Record<AeadName, number> = { 'chacha20-poly1305': 316, 'aes-256-gcm': 66 }

/** Checks an AEAD against the published vectors of its key, nonce and tag lengths. */
export function aeadVectors(t: Test, name: AeadName, aead: PortableAead): void {
  const { testGroups } = vectorFile.parse(readVectors(files[name]))
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
  t.ok(checked >= VECTORS[name], `${checked} vectors`)
  t.equal(wrong, 0)
}
