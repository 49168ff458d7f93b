import sodium from 'libsodium-wrappers'
import type { Primitives } from './primitives.js'

/**
 * The primitives over libsodium (portable, WebAssembly), with randomBytes as given. Resolves once the library is ready (some 10 ms); keep it out of packet
 * workers.
 */
export async function loadSodium(randomBytes: Primitives['randomBytes']): Promise<Primitives> {
  await sodium.ready
  return {
    randomBytes,
    blake2b: (message, length, key) => sodium.crypto_generichash(length, message, key ?? null),
    x25519PublicKey: (secretKey) => sodium.crypto_scalarmult_base(secretKey),
    x25519: (secretKey, publicKey) => {
      if (publicKey.length !== 32) return undefined
      // The library throws for points of low order.
      return attempt(() => sodium.crypto_scalarmult(secretKey, publicKey))
    },
    ed25519PublicKey: (seed) => sodium.crypto_sign_seed_keypair(seed).publicKey,
    ed25519Sign: (message, seed) => {
      const { privateKey } = sodium.crypto_sign_seed_keypair(seed)
      const signature = sodium.crypto_sign_detached(message, privateKey)
      sodium.memzero(privateKey)
      return signature
    },
    ed25519Verify: (signature, message, publicKey) =>
      signature.length === 64 &&
      publicKey.length === 32 &&
      sodium.crypto_sign_verify_detached(signature, message, publicKey),
    ed25519SeedToX25519: (seed) => {
      const { privateKey } = sodium.crypto_sign_seed_keypair(seed)
      const secret = sodium.crypto_sign_ed25519_sk_to_curve25519(privateKey)
      sodium.memzero(privateKey)
      return secret
    },
    ed25519PublicToX25519: (publicKey) => {
      if (publicKey.length !== 32) return undefined
      return attempt(() => sodium.crypto_sign_ed25519_pk_to_curve25519(publicKey))
    },
    chachaSeal: (key, nonce, aad, plaintext) =>
      sodium.crypto_aead_chacha20poly1305_ietf_encrypt(plaintext, aad, null, nonce, key),
    chachaOpen: (key, nonce, aad, ciphertext) => {
      if (ciphertext.length < 16) return undefined
      return attempt(() => sodium.crypto_aead_chacha20poly1305_ietf_decrypt(null, ciphertext, aad, nonce, key))
    },
    xchachaSeal: (key, nonce, aad, plaintext) =>
      sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, aad, null, nonce, key),
    xchachaOpen: (key, nonce, aad, ciphertext) => {
      if (ciphertext.length < 16) return undefined
      return attempt(() => sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(null, ciphertext, aad, nonce, key))
    },
    equal: (a, b) => a.length === b.length && sodium.memcmp(a, b),
  }
}

/** The binding reports a bad tag or point by throwing an Error; wrong lengths of our own arguments (TypeError) stay exceptions. */
function attempt(operation: () => Uint8Array): Uint8Array | undefined {
  try {
    return operation()
  } catch (error) {
    if (error instanceof TypeError) throw error
    return undefined
  }
}
