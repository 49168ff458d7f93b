import { fromHex, hostId, type HostId } from '../wire/ids.js'
import type { Primitives } from './primitives.js'
import { SEED_LENGTH, SigningKey } from './signing-key.js'

/** The key a host is known by: Ed25519 for signatures, and the X25519 key derived from it for handshakes. */
export class HostKey extends SigningKey {
  readonly id: HostId
  /** X25519 public key; any host can derive it from the host ID, see {@link staticKeyOf}. */
  readonly staticKey: Uint8Array
  readonly #staticSecret: Uint8Array

  constructor(primitives: Primitives, seed: Uint8Array) {
    super(primitives, seed)
    this.id = hostId(this.publicKey)
    this.#staticSecret = primitives.ed25519SeedToX25519(seed)
    this.staticKey = primitives.x25519PublicKey(this.#staticSecret)
  }

  static generate(primitives: Primitives): HostKey {
    return new HostKey(primitives, primitives.randomBytes(SEED_LENGTH))
  }

  /** X25519 secret key for handshakes. */
  staticSecret(): Uint8Array {
    return this.#staticSecret.slice()
  }
}

/** X25519 public key of a host; undefined: the ID is no usable key. */
export function staticKeyOf(primitives: Primitives, host: HostId): Uint8Array | undefined {
  return primitives.ed25519PublicToX25519(fromHex(host))
}

/** Whether the static key a handshake has proven is this host's. */
export function isStaticKeyOf(primitives: Primitives, host: HostId, staticKey: Uint8Array): boolean {
  const expected = staticKeyOf(primitives, host)
  return expected !== undefined && primitives.equal(expected, staticKey)
}
