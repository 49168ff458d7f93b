import { utf8 } from '../wire/bytes.js'
import { toHex } from '../wire/ids.js'
import type { Primitives } from './primitives.js'
import { signBody, type SignLabel } from './signing.js'

export const SEED_LENGTH = 32

/** An Ed25519 key pair whose secret half shows in no text, JSON or inspection. */
export class SigningKey {
  readonly publicKey: Uint8Array
  readonly #primitives: Primitives
  readonly #seed: Uint8Array

  /** `seed`: 32 bytes, copied. Throws RangeError for another length. */
  constructor(primitives: Primitives, seed: Uint8Array) {
    if (seed.length !== SEED_LENGTH) throw new RangeError(`a secret key has ${SEED_LENGTH} bytes`)
    this.#primitives = primitives
    this.#seed = new Uint8Array(seed)
    this.publicKey = primitives.ed25519PublicKey(this.#seed)
  }

  /** A copy of the secret, for its file only. */
  seed(): Uint8Array {
    return this.#seed.slice()
  }

  /** A signed blob (lib/wire/signed.ts) of the body. */
  sign(label: SignLabel, body: Uint8Array): Uint8Array {
    return signBody(this.#primitives, label, body, this.#seed)
  }

  /** A secret of 32 bytes for a local use; it lasts as long as the key. */
  derive(label: string): Uint8Array {
    return this.#primitives.blake2b(utf8(`caracal/1 derive ${label}`), 32, this.#seed)
  }

  toJSON(): { publicKey: string } {
    return { publicKey: toHex(this.publicKey) }
  }
}
