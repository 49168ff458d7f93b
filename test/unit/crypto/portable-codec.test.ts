import { test } from 'tap'
import { PortableCodec, portableAeads } from '../../../lib/crypto/portable-codec.js'
import { aeadVectors } from '../../tools/aead-vectors.js'
import { nodeAeads } from '../../tools/frames.js'
import { sodium } from '../../tools/sodium.js'
import { codecContract } from './codec-contract.js'
import { codecMisuse } from './codec-misuse.js'

const aeads = portableAeads(sodium)

test('published vectors of the portable ChaCha20-Poly1305', async (t) => {
  const chacha = aeads.get('chacha20-poly1305')
  if (chacha === undefined) throw new Error('not offered')
  aeadVectors(t, 'chacha20-poly1305', chacha)
})

test('offers what it was given', async (t) => {
  const codec = new PortableCodec(aeads)
  t.same(codec.aeads, ['chacha20-poly1305'])
  t.throws(() => codec.installSeal(0, 'aes-256-gcm', new Uint8Array(32), 0), { code: 'CARACAL_E_AEAD' })
  t.throws(() => codec.installOpen(0, 'aes-256-gcm', new Uint8Array(32)), { code: 'CARACAL_E_AEAD' })
  t.same(new PortableCodec(nodeAeads()).aeads, ['aes-256-gcm', 'chacha20-poly1305'])
})

test('contract with libsodium', async (t) => codecContract(t, () => new PortableCodec(aeads), 'chacha20-poly1305'))
test('contract with AES-256-GCM', async (t) => codecContract(t, () => new PortableCodec(nodeAeads()), 'aes-256-gcm'))
test('misuse', async (t) => codecMisuse(t, () => new PortableCodec(aeads), 'chacha20-poly1305'))
