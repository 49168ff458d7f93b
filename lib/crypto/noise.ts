// Noise_IKpsk2_25519_ChaChaPoly_BLAKE2b, after revision 34 of the Noise specification (noiseprotocol.org):
//
//   <- s                      the initiator knows the responder's static key beforehand
//   -> e, es, s, ss           message 1
//   <- e, ee, se, psk         message 2
//
// The pattern is unchanged. A handshake runs once: after a failure, or out of order, it answers `undefined` and is of no further use.

import type { AeadName } from './codec.js'
import type { Primitives } from './primitives.js'
import { concat, utf8 } from '../wire/bytes.js'
import { NOISE_NAME, TAG_LENGTH } from '../wire/constants.js'

export const KEY_LENGTH = 32
const HASH_LENGTH = 64
const BLOCK_LENGTH = 128

/** Bytes that message 1 and message 2 have beyond their payloads. */
export const NOISE_OVERHEAD_1 = KEY_LENGTH + (KEY_LENGTH + TAG_LENGTH) + TAG_LENGTH
export const NOISE_OVERHEAD_2 = KEY_LENGTH + TAG_LENGTH
/** psk between members: they are known by their static keys. */
export const NO_PSK = new Uint8Array(KEY_LENGTH)

const EMPTY = new Uint8Array(0)

/** The variant of the IK pattern: its cipher and whether a psk is mixed at the end of message 2. caracal speaks {@link ikpsk2} only. */
export interface NoiseSuite {
  readonly name: string
  readonly psk: boolean
  seal(key: Uint8Array, counter: number, aad: Uint8Array, plaintext: Uint8Array): Uint8Array
  open(key: Uint8Array, counter: number, aad: Uint8Array, ciphertext: Uint8Array): Uint8Array | undefined
}

/** The suite between hosts. */
export function ikpsk2(primitives: Primitives): NoiseSuite {
  return {
    name: NOISE_NAME,
    psk: true,
    seal: (key, counter, aad, plaintext) => primitives.chachaSeal(key, littleEndianNonce(counter), aad, plaintext),
    open: (key, counter, aad, ciphertext) => primitives.chachaOpen(key, littleEndianNonce(counter), aad, ciphertext),
  }
}

/** Four zero bytes, then the counter (u64 LE). */
function littleEndianNonce(counter: number): Uint8Array {
  const nonce = new Uint8Array(12)
  new DataView(nonce.buffer).setBigUint64(4, BigInt(counter), true)
  return nonce
}

export interface NoiseOptions {
  readonly primitives: Primitives
  /** What both ends must agree on, mixed into the transcript. */
  readonly prologue: Uint8Array
  /** Our X25519 secret key, 32 bytes. */
  readonly staticSecret: Uint8Array
  /** Fixed ephemeral secret; only for test vectors. */
  readonly ephemeralSecret?: Uint8Array
  /** Default: {@link ikpsk2}. */
  readonly suite?: NoiseSuite
}

/** What a finished handshake leaves. Byte arrays belong to the caller. */
export interface NoiseResult {
  /** Keys of the specification's Split(), 32 bytes each: what this end sends and receives with. */
  readonly sendKey: Uint8Array
  readonly receiveKey: Uint8Array
  /** 64 bytes, the same at both ends; identifies the session. */
  readonly handshakeHash: Uint8Array
  /** 64 bytes, the same at both ends; secret. Root of everything {@link exportKey} derives. */
  readonly exporter: Uint8Array
}

type State = 'write1' | 'read1' | 'write2' | 'read2' | 'done' | 'failed'

/** One handshake, seen from one end. Make it with {@link Handshake.initiate} or {@link Handshake.respond}. */
export class Handshake {
  readonly #primitives: Primitives
  readonly #suite: NoiseSuite
  readonly #initiator: boolean
  readonly #staticSecret: Uint8Array
  #ephemeralSecret: Uint8Array
  #remoteStatic: Uint8Array | undefined
  #remoteEphemeral: Uint8Array = EMPTY
  #psk: Uint8Array
  // SymmetricState of the specification, section 5.2.
  #chainingKey: Uint8Array
  #hash: Uint8Array
  #key: Uint8Array | undefined
  #counter = 0
  #state: State

  private constructor(options: NoiseOptions, initiator: boolean, responderStatic: Uint8Array, psk: Uint8Array) {
    const { primitives, prologue, staticSecret, ephemeralSecret } = options
    requireKey(staticSecret, 'static secret')
    requireKey(psk, 'psk')
    this.#primitives = primitives
    this.#suite = options.suite ?? ikpsk2(primitives)
    this.#initiator = initiator
    this.#staticSecret = staticSecret
    this.#ephemeralSecret = ephemeralSecret?.slice() ?? primitives.randomBytes(KEY_LENGTH)
    requireKey(this.#ephemeralSecret, 'ephemeral secret')
    this.#psk = psk
    this.#state = initiator ? 'write1' : 'read1'
    const name = utf8(this.#suite.name)
    this.#hash = new Uint8Array(HASH_LENGTH)
    if (name.length <= HASH_LENGTH) this.#hash.set(name)
    else this.#hash = primitives.blake2b(name, HASH_LENGTH)
    this.#chainingKey = this.#hash
    this.#mixHash(prologue)
    this.#mixHash(responderStatic)
  }

  /** The initiator's end. `remoteStatic`: the responder's X25519 public key. `psk`: 32 bytes, {@link NO_PSK} between members. Throws RangeError for wrong lengths. */
  static initiate(options: NoiseOptions & { readonly remoteStatic: Uint8Array; readonly psk: Uint8Array }): Handshake {
    requireKey(options.remoteStatic, 'remote static key')
    const handshake = new Handshake(options, true, options.remoteStatic, options.psk)
    handshake.#remoteStatic = options.remoteStatic
    return handshake
  }

  /** The responder's end. It says the psk in {@link writeMessage2}, when it knows who asks. */
  static respond(options: NoiseOptions): Handshake {
    return new Handshake(options, false, options.primitives.x25519PublicKey(options.staticSecret), NO_PSK)
  }

  /** Initiator. undefined: the responder's key is no usable point, or not this message's turn. */
  writeMessage1(payload: Uint8Array): Uint8Array | undefined {
    return this.#step('write1', 'read2', () => {
      const remote = this.#remoteStatic
      if (remote === undefined) return undefined
      const ephemeral = this.#primitives.x25519PublicKey(this.#ephemeralSecret)
      this.#mixEphemeral(ephemeral)
      if (!this.#mixDh(this.#ephemeralSecret, remote)) return undefined
      const own = this.#sealAndHash(this.#primitives.x25519PublicKey(this.#staticSecret))
      if (!this.#mixDh(this.#staticSecret, remote)) return undefined
      return concat([ephemeral, own, this.#sealAndHash(payload)])
    })
  }

  /** Responder. Who asks (X25519 public key) and its payload; undefined: not a message 1 to us. Nothing in it is fresh yet: it may be a replay. */
  readMessage1(bytes: Uint8Array): { readonly remoteStatic: Uint8Array; readonly payload: Uint8Array } | undefined {
    return this.#step('read1', 'write2', () => {
      if (bytes.length < NOISE_OVERHEAD_1) return undefined
      this.#remoteEphemeral = bytes.slice(0, KEY_LENGTH)
      this.#mixEphemeral(this.#remoteEphemeral)
      if (!this.#mixDh(this.#staticSecret, this.#remoteEphemeral)) return undefined
      const remoteStatic = this.#openAndHash(bytes.subarray(KEY_LENGTH, 2 * KEY_LENGTH + TAG_LENGTH))
      if (remoteStatic === undefined) return undefined
      this.#remoteStatic = remoteStatic
      if (!this.#mixDh(this.#staticSecret, remoteStatic)) return undefined
      const payload = this.#openAndHash(bytes.subarray(2 * KEY_LENGTH + TAG_LENGTH))
      return payload === undefined ? undefined : { remoteStatic: remoteStatic.slice(), payload }
    })
  }

  /** Responder. `psk` as the initiator has it. undefined: the initiator's keys are no usable points, or not this message's turn. */
  writeMessage2(payload: Uint8Array, psk: Uint8Array): Uint8Array | undefined {
    requireKey(psk, 'psk')
    return this.#step('write2', 'done', () => {
      const remote = this.#remoteStatic
      if (remote === undefined) return undefined
      const ephemeral = this.#primitives.x25519PublicKey(this.#ephemeralSecret)
      this.#mixEphemeral(ephemeral)
      if (!this.#mixDh(this.#ephemeralSecret, this.#remoteEphemeral)) return undefined
      if (!this.#mixDh(this.#ephemeralSecret, remote)) return undefined
      this.#psk = psk
      this.#mixPsk()
      return concat([ephemeral, this.#sealAndHash(payload)])
    })
  }

  /**
   * Initiator. The payload; undefined: not the answer to our message 1 from the host we asked. Unlike the other messages this one may be tried
   * again: a forged answer leaves the handshake as it was.
   */
  readMessage2(bytes: Uint8Array): Uint8Array | undefined {
    if (this.#state !== 'read2' || bytes.length < NOISE_OVERHEAD_2) return undefined
    const before = { chainingKey: this.#chainingKey, hash: this.#hash }
    const ephemeral = bytes.subarray(0, KEY_LENGTH)
    this.#mixEphemeral(ephemeral)
    if (this.#mixDh(this.#ephemeralSecret, ephemeral) && this.#mixDh(this.#staticSecret, ephemeral)) {
      this.#mixPsk()
      const payload = this.#openAndHash(bytes.subarray(KEY_LENGTH))
      if (payload !== undefined) {
        this.#state = 'done'
        return payload
      }
    }
    this.#chainingKey = before.chainingKey
    this.#hash = before.hash
    return undefined
  }

  /** What the finished handshake leaves; undefined before its end. Ephemeral and chaining keys are forgotten: call it once. */
  split(): NoiseResult | undefined {
    if (this.#state !== 'done') return undefined
    this.#state = 'failed'
    const [first, second] = this.#hkdf(EMPTY, 2)
    const exporter = keyed(this.#primitives, this.#chainingKey, concat([EXPORT_LABEL, this.#hash]))
    const handshakeHash = this.#hash
    this.#forget()
    return {
      sendKey: (this.#initiator ? first : second)!.slice(0, KEY_LENGTH),
      receiveKey: (this.#initiator ? second : first)!.slice(0, KEY_LENGTH),
      handshakeHash,
      exporter,
    }
  }

  /** Hides the key material from JSON and inspection. */
  toJSON(): { state: string } {
    return { state: this.#state }
  }

  #step<T>(from: State, to: State, body: () => T | undefined): T | undefined {
    if (this.#state !== from) return undefined
    const result = body()
    this.#state = result === undefined ? 'failed' : to
    if (result === undefined) this.#forget()
    return result
  }

  #forget(): void {
    this.#ephemeralSecret.fill(0)
    this.#ephemeralSecret = EMPTY
    this.#chainingKey = EMPTY
    this.#key = undefined
    this.#psk = NO_PSK
  }

  #mixHash(data: Uint8Array): void {
    this.#hash = this.#primitives.blake2b(concat([this.#hash, data]), HASH_LENGTH)
  }

  #mixKey(input: Uint8Array): void {
    const [chainingKey, key] = this.#hkdf(input, 2)
    this.#chainingKey = chainingKey!
    this.#key = key!.subarray(0, KEY_LENGTH)
    this.#counter = 0
  }

  /** Token e: in psk patterns the ephemeral key is mixed into the key too (section 9.2). */
  #mixEphemeral(ephemeral: Uint8Array): void {
    this.#mixHash(ephemeral)
    if (this.#suite.psk) this.#mixKey(ephemeral)
  }

  #mixDh(secret: Uint8Array, publicKey: Uint8Array): boolean {
    const shared = this.#primitives.x25519(secret, publicKey)
    if (shared === undefined) return false
    this.#mixKey(shared)
    return true
  }

  /** Token psk: MixKeyAndHash. */
  #mixPsk(): void {
    if (!this.#suite.psk) return
    const [chainingKey, hash, key] = this.#hkdf(this.#psk, 3)
    this.#chainingKey = chainingKey!
    this.#mixHash(hash!)
    this.#key = key!.subarray(0, KEY_LENGTH)
    this.#counter = 0
  }

  #sealAndHash(plaintext: Uint8Array): Uint8Array {
    const ciphertext = this.#suite.seal(this.#key ?? EMPTY, this.#counter++, this.#hash, plaintext)
    this.#mixHash(ciphertext)
    return ciphertext
  }

  #openAndHash(ciphertext: Uint8Array): Uint8Array | undefined {
    const plaintext = this.#suite.open(this.#key ?? EMPTY, this.#counter++, this.#hash, ciphertext)
    if (plaintext !== undefined) this.#mixHash(ciphertext)
    return plaintext
  }

  /** HKDF of section 4.3: up to three outputs of 64 bytes. */
  #hkdf(input: Uint8Array, outputs: number): Uint8Array[] {
    const temporary = hmac(this.#primitives, this.#chainingKey, input)
    const result: Uint8Array[] = []
    let last: Uint8Array = EMPTY
    for (let i = 1; i <= outputs; i++) {
      last = hmac(this.#primitives, temporary, concat([last, Uint8Array.of(i)]))
      result.push(last)
    }
    return result
  }
}

const EXPORT_LABEL = utf8('caracal/1 export')

/** What a transport key is for. `direction` is seen from the handshake's initiator, so both ends name a key alike. */
export interface TransportKeyUse {
  readonly direction: 'initiator-to-responder' | 'responder-to-initiator'
  /** 0..65535. */
  readonly lane: number
  readonly aead: AeadName
}

/** Key of 32 bytes for one AEAD, direction and lane. A pure function of its arguments: both ends of a handshake get the same. */
export function exportTransportKey(primitives: Primitives, exporter: Uint8Array, use: TransportKeyUse): Uint8Array {
  if (!Number.isInteger(use.lane) || use.lane < 0 || use.lane > 0xffff)
    throw new RangeError(`no such lane: ${use.lane}`)
  return exportKey(primitives, exporter, `transport ${use.aead} ${use.direction} ${use.lane}`)
}

/** Key of 32 bytes for another use; equal labels give equal keys at both ends, different labels independent ones. */
export function exportKey(primitives: Primitives, exporter: Uint8Array, label: string): Uint8Array {
  return keyed(primitives, exporter, utf8(label)).subarray(0, KEY_LENGTH)
}

/** HMAC-BLAKE2b (RFC 2104 over 128-byte blocks), 64 bytes. Keys here are never longer than a block. */
export function hmac(primitives: Primitives, key: Uint8Array, message: Uint8Array): Uint8Array {
  if (key.length > BLOCK_LENGTH) throw new RangeError('HMAC key longer than a block')
  const inner = new Uint8Array(BLOCK_LENGTH).fill(0x36)
  const outer = new Uint8Array(BLOCK_LENGTH).fill(0x5c)
  for (let i = 0; i < key.length; i++) {
    inner[i]! ^= key[i]!
    outer[i]! ^= key[i]!
  }
  const digest = primitives.blake2b(concat([inner, message]), HASH_LENGTH)
  return primitives.blake2b(concat([outer, digest]), HASH_LENGTH)
}

/** BLAKE2b's own keyed mode, 64 bytes. */
function keyed(primitives: Primitives, key: Uint8Array, message: Uint8Array): Uint8Array {
  return primitives.blake2b(message, HASH_LENGTH, key)
}

function requireKey(key: Uint8Array, what: string): void {
  if (key.length !== KEY_LENGTH) throw new RangeError(`${what} must be ${KEY_LENGTH} bytes`)
}
