import { once } from 'node:events'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Worker } from 'node:worker_threads'
import { t as tap, test } from 'tap'
import {
  NativeCodec,
  chooseLibrary,
  codecAddon,
  type AddonCodec,
  type AeadLibrary,
} from '../../../daemon/native-codec.js'
import type { AeadName } from '../../../lib/crypto/codec.js'
import type { PortableAead } from '../../../lib/crypto/portable-codec.js'
import { aeadVectors } from '../../tools/aead-vectors.js'
import { nodeAeads, pattern } from '../../tools/frames.js'
import { codecContract } from '../crypto/codec-contract.js'
import { codecMisuse } from '../crypto/codec-misuse.js'
import { SEAL_ROUNDS, sealRounds } from './seal-rounds.js'

// 4 s on an idle machine; a busy one may need a multiple.
tap.setTimeout(120_000)

const addon = codecAddon()
const offered = addon.codecAeads()
/** AES-256-GCM has a second one where it is installed. */
const libraries: AeadLibrary[] = addon.ipsecMb().problem === '' ? ['openssl', 'ipsec-mb'] : ['openssl']
const variants = offered.flatMap((name) =>
  libraries.filter((library) => library === 'openssl' || name === 'aes-256-gcm').map((library) => ({ name, library })),
)

function raw(name: AeadName, library: AeadLibrary): PortableAead {
  return {
    seal: (key, nonce, aad, plaintext) => addon.aeadSeal(name, key, nonce, aad, plaintext, library),
    open: (key, nonce, aad, ciphertext) => addon.aeadOpen(name, key, nonce, aad, ciphertext, library),
  }
}

test('ChaCha20-Poly1305 is always offered, AES-256-GCM first where it is', async (t) => {
  t.equal(offered.at(-1), 'chacha20-poly1305')
  t.ok(offered.length === 1 || (offered.length === 2 && offered[0] === 'aes-256-gcm'))
  t.same(new NativeCodec(addon).aeads, offered)
})

test('libipsec-mb does AES-256-GCM where it can be used and is not switched off', async (t) => {
  const { version, problem, failed } = addon.ipsecMb()
  const openssl = `OpenSSL ${process.versions.openssl}`
  t.notOk(failed, problem)
  const best =
    problem === ''
      ? { library: 'ipsec-mb', title: `libipsec-mb ${version}`, openssl, passedOver: undefined, failed }
      : { library: 'openssl', title: openssl, openssl, passedOver: problem, failed }
  t.strictSame(chooseLibrary(addon, 'auto'), best)
  t.strictSame(chooseLibrary(addon, 'ipsec-mb'), best)
  t.match(chooseLibrary(addon, 'openssl'), { library: 'openssl', passedOver: undefined })
})

for (const { name, library } of variants) {
  const make = () => new NativeCodec(addon, { offer: offered, implementation: library })
  const both = `${name} of ${library}`
  test(`published vectors: ${both}`, async (t) => aeadVectors(t, name, raw(name, library)))
  test(`contract: ${both}`, async (t) => codecContract(t, make, name))
  test(`misuse: ${both}`, async (t) => codecMisuse(t, make, name))

  test(`${both} agrees with node:crypto at every length`, async (t) => {
    const reference = nodeAeads().get(name)
    if (reference === undefined) throw new Error('no reference')
    const [key, nonce] = [pattern(32, 1), pattern(12, 2)]
    let wrong = 0
    for (let length = 0; length < 1500; length += length < 600 ? 1 : 37) {
      const plaintext = pattern(length, length)
      const aad = pattern(length % 40)
      const sealed = addon.aeadSeal(name, key, nonce, aad, plaintext, library)
      if (Buffer.compare(sealed, reference.seal(key, nonce, aad, plaintext)) !== 0) wrong++
      const opened = addon.aeadOpen(name, key, nonce, aad, sealed, library)
      if (opened === undefined || Buffer.compare(opened, plaintext) !== 0) wrong++
    }
    t.equal(wrong, 0)
  })
}

/** CLOSED: nothing is shared under that token. */
const CODES = new Set<unknown>(['CARACAL_E_ARGUMENT', 'CARACAL_E_RANGE', 'CARACAL_E_AEAD', 'CARACAL_E_CLOSED'])

test('wrong arguments throw coded errors and nothing else', async (t) => {
  const codec = addon.createCodec(new Int32Array(7), 'openssl')
  const functions: [string, unknown][] = [
    ['createCodec', addon.createCodec],
    ['aeadSeal', addon.aeadSeal],
    ['aeadOpen', addon.aeadOpen],
    ['adoptCodec', addon.adoptCodec],
    // It takes none.
    ...Object.entries(codec).filter(([name]) => name !== 'share'),
  ]
  t.equal(functions.length, 11)
  const detached = new Uint8Array(64)
  structuredClone(detached, { transfer: [detached.buffer] })
  const junk: unknown[] = [
    ...[
      undefined,
      null,
      true,
      '',
      'aes-256-gcm',
      'chacha20-poly1305',
      'openssl',
      'ipsec-mb',
      Symbol('s'),
      1n,
      {},
      [],
      () => 0,
      new Proxy({}, {}),
    ],
    ...[0, -1, 1, 0.5, NaN, Infinity, 2 ** 31, 2 ** 32, 2 ** 53, -(2 ** 60), 65_536],
    ...[new Uint8Array(0), new Uint8Array(12), new Uint8Array(32), new Uint8Array(64), detached, new Int32Array(0)],
    ...[new Int32Array(6), new Int32Array(8).fill(-1), new Int32Array(64).fill(0x7fffffff), new Float64Array(8)],
    ...[new DataView(new ArrayBuffer(8)), new ArrayBuffer(8), new Uint8Array(new SharedArrayBuffer(32))],
  ]
  let state = 7
  const pick = () => {
    state = (state * 1103515245 + 12345) & 0x7fffffff
    return junk[(state >>> 8) % junk.length]
  }
  let threw = 0
  const strange: string[] = []
  for (const [name, f] of functions) {
    if (typeof f !== 'function') throw new TypeError(name)
    for (let round = 0; round < 4_000; round++) {
      const args = Array.from({ length: round % 11 }, pick)
      try {
        Reflect.apply(f, round % 2 === 0 ? undefined : codec, args)
      } catch (error) {
        threw++
        const code = error instanceof Error && 'code' in error ? error.code : undefined
        if (!CODES.has(code)) strange.push(`${name}: ${String(error)}`)
      }
    }
  }
  t.same(strange.slice(0, 5), [])
  t.ok(threw > 30_000, `${threw} of the calls threw`)
})

test('drop numbers must be there and not negative', async (t) => {
  t.throws(() => addon.createCodec(new Int32Array(6), 'openssl'), { code: 'CARACAL_E_RANGE' })
  t.throws(() => addon.createCodec(new Int32Array(7).fill(-1), 'openssl'), { code: 'CARACAL_E_RANGE' })
})

test('the codec lives as long as any of its functions', async (t) => {
  setFlagsFromString('--expose-gc')
  const gc: unknown = runInNewContext('gc')
  if (typeof gc !== 'function') throw new TypeError('no gc')
  const { sealed } = installed()
  for (let i = 0; i < 5; i++) {
    installed()
    await new Promise((resolve) => setImmediate(resolve))
    Reflect.apply(gc, undefined, [])
  }
  t.equal(sealed(3), 0)
})

function installed(): AddonCodec {
  const codec = addon.createCodec(new Int32Array(7), 'openssl')
  codec.installSeal(3, 'chacha20-poly1305', pattern(32), 1)
  codec.installOpen(3, 'chacha20-poly1305', pattern(32))
  return codec
}

test('65,536 slots and lanes, in memory only while they are there', async (t) => {
  const codec = new NativeCodec(addon)
  const key = pattern(32)
  for (let slot = 0; slot < 65_536; slot += 64) {
    codec.installSeal(slot, 'chacha20-poly1305', key, slot)
    codec.installOpen(slot, 'chacha20-poly1305', key)
  }
  const full = process.memoryUsage().rss
  const empty = Array.from({ length: 200 }, () => new NativeCodec(addon))
  t.ok(process.memoryUsage().rss - full < 20 * 2 ** 20, 'an empty codec takes next to nothing')
  t.equal(empty.length, 200)
  for (let slot = 0; slot < 65_536; slot += 64) {
    codec.removeSeal(slot)
    codec.removeOpen(slot)
  }
})

test('threads that share a codec never use a counter twice', async (t) => {
  const codec = new NativeCodec(addon)
  codec.installSeal(3, 'chacha20-poly1305', new Uint8Array(32).fill(7), 0x1234)
  const token = codec.share()
  t.throws(() => new NativeCodec(addon, undefined, token + 1), { code: 'CARACAL_E_CLOSED' })
  const ours = new Int32Array(new SharedArrayBuffer(4))
  const worker = new Worker(new URL('codec-worker.js', import.meta.url), { workerData: { token, go: ours } })
  await once(worker, 'online')
  const counters = sealRounds(codec, ours)
  const [theirs] = (await once(worker, 'message')) as [number[]]
  await worker.terminate()
  t.throws(() => new NativeCodec(addon, undefined, token), { code: 'CARACAL_E_CLOSED' }, 'a token is good for once')
  t.equal(counters.length, SEAL_ROUNDS)
  t.equal(theirs.length, SEAL_ROUNDS)
  t.equal(new Set([...counters, ...theirs]).size, 2 * SEAL_ROUNDS)
  t.equal(codec.sealed(3), 2 * SEAL_ROUNDS)
})
