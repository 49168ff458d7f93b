import { createCipheriv, createDecipheriv } from 'node:crypto'
import { test } from 'tap'
import { z } from 'zod'
import {
  exportKey,
  exportTransportKey,
  Handshake,
  hmac,
  ikpsk2,
  NO_PSK,
  type NoiseSuite,
} from '../../../lib/crypto/noise.js'
import { fromHex, toHex } from '../../../lib/wire/ids.js'
import { sodium as primitives } from '../../tools/sodium.js'
import { readVectors } from '../../tools/vectors.js'

const text = (s: string) => new TextEncoder().encode(s)

const Vector = z.object({
  protocol_name: z.string(),
  init_prologue: z.string(),
  init_psks: z.array(z.string()).optional(),
  init_static: z.string(),
  init_ephemeral: z.string(),
  init_remote_static: z.string(),
  resp_static: z.string(),
  resp_ephemeral: z.string(),
  handshake_hash: z.string(),
  messages: z.array(z.object({ payload: z.string(), ciphertext: z.string() })),
})
type Vector = z.infer<typeof Vector>

function aesNonce(counter: number): Buffer {
  const nonce = Buffer.alloc(12)
  nonce.writeBigUInt64BE(BigInt(counter), 4)
  return nonce
}
const aesgcm: Pick<NoiseSuite, 'seal' | 'open'> = {
  seal(key, counter, aad, plaintext) {
    const cipher = createCipheriv('aes-256-gcm', key, aesNonce(counter)).setAAD(aad)
    return new Uint8Array(Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]))
  },
  open(key, counter, aad, ciphertext) {
    const body = ciphertext.subarray(0, -16)
    const decipher = createDecipheriv('aes-256-gcm', key, aesNonce(counter)).setAAD(aad)
    decipher.setAuthTag(ciphertext.subarray(-16))
    try {
      return new Uint8Array(Buffer.concat([decipher.update(body), decipher.final()]))
    } catch {
      return undefined
    }
  },
}

/** The vector's variant, or undefined for patterns that the class does not have (IK1, psk1). */
function suiteOf(name: string): NoiseSuite | undefined {
  const match = /^Noise_(IK|IKpsk2)_25519_(ChaChaPoly|AESGCM)_BLAKE2b$/.exec(name)
  if (match === null) return undefined
  return { ...ikpsk2(primitives), ...(match[2] === 'AESGCM' ? aesgcm : {}), name, psk: match[1] === 'IKpsk2' }
}

const { vectors } = z.object({ vectors: z.array(Vector) }).parse(readVectors('noise-ik-25519-blake2b.json'))
/** The pattern that hosts speak. */
const SPOKEN = 'Noise_IKpsk2_25519_ChaChaPoly_BLAKE2b'
test('the pattern that hosts speak has a published vector', async (t) => {
  t.ok(vectors.some((vector) => vector.protocol_name === SPOKEN))
})
for (const vector of vectors) {
  const suite = suiteOf(vector.protocol_name)
  if (suite === undefined) continue
  test(`published vector ${vector.protocol_name}`, (t) => {
    const prologue = fromHex(vector.init_prologue)
    const psk = vector.init_psks === undefined ? NO_PSK : fromHex(vector.init_psks[0]!)
    const initiator = Handshake.initiate({
      primitives,
      suite,
      prologue,
      psk,
      staticSecret: fromHex(vector.init_static),
      ephemeralSecret: fromHex(vector.init_ephemeral),
      remoteStatic: fromHex(vector.init_remote_static),
    })
    const responder = Handshake.respond({
      primitives,
      suite,
      prologue,
      staticSecret: fromHex(vector.resp_static),
      ephemeralSecret: fromHex(vector.resp_ephemeral),
    })
    const [first, second, ...transport] = vector.messages
    const message1 = initiator.writeMessage1(fromHex(first!.payload))
    t.equal(message1 && toHex(message1), first!.ciphertext)
    const read1 = responder.readMessage1(fromHex(first!.ciphertext))
    t.equal(read1 && toHex(read1.payload), first!.payload)
    t.equal(read1 && toHex(read1.remoteStatic), toHex(primitives.x25519PublicKey(fromHex(vector.init_static))))
    const message2 = responder.writeMessage2(fromHex(second!.payload), psk)
    t.equal(message2 && toHex(message2), second!.ciphertext)
    const read2 = initiator.readMessage2(fromHex(second!.ciphertext))
    t.equal(read2 && toHex(read2), second!.payload)
    const ends = [initiator.split()!, responder.split()!]
    t.same(
      ends.map((end) => toHex(end.handshakeHash)),
      [vector.handshake_hash, vector.handshake_hash],
    )
    transport.forEach((message, i) => {
      const counter = Math.floor(i / 2)
      const sender = ends[i % 2]!
      const receiver = ends[(i + 1) % 2]!
      const sealed = suite.seal(sender.sendKey, counter, new Uint8Array(0), fromHex(message.payload))
      t.equal(toHex(sealed), message.ciphertext, `transport message ${i}`)
      const opened = suite.open(receiver.receiveKey, counter, new Uint8Array(0), sealed)
      t.equal(opened && toHex(opened), message.payload)
    })
    t.end()
  })
}

function pair(changes: { prologue?: string; wrongServer?: boolean } = {}) {
  const secrets = { a: primitives.randomBytes(32), b: primitives.randomBytes(32), c: primitives.randomBytes(32) }
  const prologue = text('network')
  const remoteStatic = primitives.x25519PublicKey(changes.wrongServer ? secrets.c : secrets.b)
  return {
    secrets,
    initiator: Handshake.initiate({ primitives, prologue, staticSecret: secrets.a, remoteStatic, psk: NO_PSK }),
    responder: Handshake.respond({
      primitives,
      prologue: text(changes.prologue ?? 'network'),
      staticSecret: secrets.b,
    }),
  }
}

test('both ends derive the same transport keys, and a different one for each use', (t) => {
  const { initiator, responder } = pair()
  responder.readMessage1(initiator.writeMessage1(text('hello'))!)
  t.same(initiator.readMessage2(responder.writeMessage2(text('welcome'), NO_PSK)!), text('welcome'))
  const a = initiator.split()!
  const b = responder.split()!
  t.same(a.sendKey, b.receiveKey)
  t.same(a.receiveKey, b.sendKey)
  t.same(a.exporter, b.exporter)
  const keys = new Set<string>([toHex(exportKey(primitives, a.exporter, 'other'))])
  for (const aead of ['chacha20-poly1305', 'aes-256-gcm'] as const)
    for (const direction of ['initiator-to-responder', 'responder-to-initiator'] as const)
      for (const lane of [0, 1, 65_535]) {
        const use = { aead, direction, lane }
        const key = exportTransportKey(primitives, a.exporter, use)
        t.same(key, exportTransportKey(primitives, b.exporter, use))
        t.equal(key.length, 32)
        keys.add(toHex(key))
      }
  t.equal(keys.size, 13)
  t.throws(
    () =>
      exportTransportKey(primitives, a.exporter, {
        aead: 'aes-256-gcm',
        direction: 'initiator-to-responder',
        lane: -1,
      }),
    RangeError,
  )
  t.equal(initiator.split(), undefined, 'keys are handed out once')
  t.end()
})

test('a handshake between the wrong ends fails without a value', (t) => {
  const strangers = pair({ wrongServer: true })
  t.equal(strangers.responder.readMessage1(strangers.initiator.writeMessage1(text('x'))!), undefined)
  const networks = pair({ prologue: 'other network' })
  t.equal(networks.responder.readMessage1(networks.initiator.writeMessage1(text('x'))!), undefined)
  t.equal(networks.responder.writeMessage2(text('y'), NO_PSK), undefined, 'nothing more comes out of it')
  t.end()
})

test('the psk decides at message 2', (t) => {
  const { initiator, responder } = pair()
  t.ok(responder.readMessage1(initiator.writeMessage1(text('x'))!))
  const answer = responder.writeMessage2(text('y'), primitives.randomBytes(32))!
  t.equal(initiator.readMessage2(answer), undefined)
  t.equal(initiator.split(), undefined)
  t.end()
})

test('every changed byte of either message is refused, and a forged answer does not spoil the true one', (t) => {
  const { initiator, responder, secrets } = pair()
  const message1 = initiator.writeMessage1(text('payload'))!
  for (let i = 0; i < message1.length; i += 7) {
    const forged = message1.slice()
    forged[i]! ^= 1
    const other = Handshake.respond({ primitives, prologue: text('network'), staticSecret: secrets.b })
    t.equal(other.readMessage1(forged), undefined, `byte ${i}`)
  }
  responder.readMessage1(message1)
  const message2 = responder.writeMessage2(text('answer'), NO_PSK)!
  for (let i = 0; i < message2.length; i += 7) {
    const forged = message2.slice()
    forged[i]! ^= 1
    t.equal(initiator.readMessage2(forged), undefined, `byte ${i}`)
  }
  for (const length of [0, 31, 47, message2.length - 1])
    t.equal(initiator.readMessage2(message2.subarray(0, length)), undefined)
  t.same(initiator.readMessage2(message2), text('answer'))
  t.end()
})

test('low-order points and messages out of turn yield nothing', (t) => {
  const { initiator, responder } = pair()
  t.equal(responder.writeMessage2(text(''), NO_PSK), undefined, 'nothing to answer yet')
  t.equal(initiator.readMessage2(new Uint8Array(80)), undefined)
  t.equal(initiator.split(), undefined)
  t.equal(responder.readMessage1(new Uint8Array(96)), undefined, 'ephemeral key zero')
  const options = { primitives, prologue: text(''), staticSecret: primitives.randomBytes(32) }
  const toNobody = Handshake.initiate({ ...options, remoteStatic: new Uint8Array(32), psk: NO_PSK })
  t.equal(toNobody.writeMessage1(text('')), undefined)
  t.throws(() => Handshake.initiate({ ...options, remoteStatic: new Uint8Array(31), psk: NO_PSK }), RangeError)
  t.equal(JSON.stringify(pair().initiator), '{"state":"write1"}', 'no key material in JSON')
  t.end()
})

test('HMAC-BLAKE2b', (t) => {
  // Key and text of RFC 2202, test 2; the value is what Python's hmac gives over hashlib.blake2b.
  t.equal(
    toHex(hmac(primitives, text('Jefe'), text('what do ya want for nothing?'))),
    '6ff884f8ddc2a6586b3c98a4cd6ebdf14ec10204b6710073eb5865ade37a2643b8807c1335d107ecdb9ffeaeb6828c4625ba172c66379efcd222c2de11727ab4',
  )
  t.throws(() => hmac(primitives, new Uint8Array(129), text('')), RangeError)
  t.end()
})
