/** The cryptographic primitives the protocol is built from; implemented over libsodium in `sodium.ts`. Byte arrays in, fresh byte arrays out. */
export interface Primitives {
  randomBytes(length: number): Uint8Array
  /** BLAKE2b of 1..64 bytes, optionally keyed (≤ 64 bytes). */
  blake2b(message: Uint8Array, length: number, key?: Uint8Array): Uint8Array
  x25519PublicKey(secretKey: Uint8Array): Uint8Array
  /** undefined for a low-order point (an all-zero result). */
  x25519(secretKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined
  /** Secret keys of Ed25519 are 32-byte seeds throughout. */
  ed25519PublicKey(seed: Uint8Array): Uint8Array
  ed25519Sign(message: Uint8Array, seed: Uint8Array): Uint8Array
  ed25519Verify(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean
  ed25519SeedToX25519(seed: Uint8Array): Uint8Array
  /** undefined when the key is no valid point. */
  ed25519PublicToX25519(publicKey: Uint8Array): Uint8Array | undefined
  /** ChaCha20-Poly1305 (RFC 8439), tag appended. nonce 12 bytes. */
  chachaSeal(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Uint8Array
  chachaOpen(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, ciphertext: Uint8Array): Uint8Array | undefined
  /** XChaCha20-Poly1305, nonce 24 bytes: cookies. */
  xchachaSeal(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Uint8Array
  xchachaOpen(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, ciphertext: Uint8Array): Uint8Array | undefined
  /** Constant time. */
  equal(a: Uint8Array, b: Uint8Array): boolean
}
