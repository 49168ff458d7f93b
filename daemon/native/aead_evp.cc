// The AEADs over the OpenSSL that Node itself contains. Its symbols resolve from the node binary.

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include <climits>

#include "aead.h"

namespace caracal {
namespace {

/** Fetched once a process and kept: fetching takes longer than sealing a frame. Null when this OpenSSL does not have it. */
EVP_CIPHER* cipher(Aead aead) {
  static EVP_CIPHER* const gcm = EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr);
  static EVP_CIPHER* const chacha = EVP_CIPHER_fetch(nullptr, "ChaCha20-Poly1305", nullptr);
  return aead == Aead::aes256Gcm ? gcm : chacha;
}

/** Of a context, what every call reads. */
constexpr size_t kContextStart = 192;

struct FreeContext {
  // Freeing a context overwrites the key schedule in it.
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_CIPHER_CTX, FreeContext>;

class EvpKey final : public AeadKey {
 public:
  EvpKey(Context context, bool nonceAsParameter) : context_(std::move(context)), nonceAsParameter_(nonceAsParameter) {
    parameters_[0] = OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, tag_, sizeof tag_);
    if (nonceAsParameter) parameters_[1] = OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TLS1_SET_IV_INV, nonce_, sizeof nonce_);
    parameters_[nonceAsParameter ? 2 : 1] = OSSL_PARAM_construct_end();
  }

  bool seal(const uint8_t* nonce, const uint8_t* aad, size_t aadLength, const uint8_t* in, size_t length, uint8_t* out) override {
    EVP_CIPHER_CTX* c = context_.get();
    int n = 0;
    if (length > INT_MAX || aadLength > INT_MAX) return false;
    if (EVP_EncryptInit_ex(c, nullptr, nullptr, nullptr, nonce) != 1 || !update(aad, aadLength, nullptr, &n) ||
        !update(in, length, out, &n) || EVP_EncryptFinal_ex(c, out + length, &n) != 1 || n != 0)
      return failed();
    // The parameter instead of EVP_CIPHER_CTX_ctrl: the latter translates into it at every call.
    if (EVP_CIPHER_CTX_get_params(c, parameters_) != 1) return failed();
    for (size_t i = 0; i < kTagLength; i++) out[length + i] = tag_[i];
    return true;
  }

  bool open(const uint8_t* nonce, const uint8_t* aad, size_t aadLength, const uint8_t* in, size_t length, uint8_t* out) override {
    EVP_CIPHER_CTX* c = context_.get();
    int n = 0;
    if (length < kTagLength || length > INT_MAX || aadLength > INT_MAX) return false;
    length -= kTagLength;
    for (size_t i = 0; i < kTagLength; i++) tag_[i] = in[length + i];
    for (size_t i = 0; i < kNonceLength; i++) nonce_[i] = nonce[i];
    uint8_t none[kTagLength];
    if ((!nonceAsParameter_ && EVP_DecryptInit_ex(c, nullptr, nullptr, nullptr, nonce) != 1) || EVP_CIPHER_CTX_set_params(c, parameters_) != 1 ||
        !update(aad, aadLength, nullptr, &n) || !update(in, length, out, &n) || EVP_DecryptFinal_ex(c, none, &n) != 1)
      return failed();
    return true;
  }

  /** The rest of it, round keys and all, OpenSSL does not show. */
  Regions hot() const override { return {Region{this, sizeof *this}, {context_.get(), kContextStart}, {}}; }

 private:
  bool update(const uint8_t* in, size_t length, uint8_t* out, int* n) {
    return length == 0 || EVP_CipherUpdate(context_.get(), out, n, in, static_cast<int>(length)) == 1;
  }

  /** Wrong tags are everyday: they must not fill OpenSSL's error queue, which node:crypto reads too. */
  static bool failed() {
    ERR_clear_error();
    return false;
  }

  Context context_;
  const bool nonceAsParameter_;
  uint8_t tag_[kTagLength] = {};
  uint8_t nonce_[kNonceLength] = {};
  /** What is set, or asked for, per frame: the tag; to open perhaps the nonce; the end. */
  OSSL_PARAM parameters_[3];
};

/**
 * GCM's decryption takes the nonce as a parameter beside the tag too, as TLS does it: that saves the initialisation, which asks for the length of
 * the nonce at every frame. It wants the part that stays to have been set; what is set per frame then covers all of it.
 */
bool takesNonceAsParameter(EVP_CIPHER_CTX* context) {
  uint8_t fixed[4] = {};
  const OSSL_PARAM parameters[] = {OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED, fixed, sizeof fixed),
                                   OSSL_PARAM_construct_end()};
  return EVP_CIPHER_CTX_set_params(context, parameters) == 1;
}

}  // namespace

std::unique_ptr<AeadKey> makeAeadKey(Aead aead, Direction direction, const uint8_t* key) {
  EVP_CIPHER* const algorithm = cipher(aead);
  Context context(EVP_CIPHER_CTX_new());
  if (algorithm == nullptr || context == nullptr ||
      EVP_CipherInit_ex2(context.get(), algorithm, key, nullptr, direction == Direction::seal ? 1 : 0, nullptr) != 1) {
    ERR_clear_error();
    return nullptr;
  }
  const bool nonceAsParameter = aead == Aead::aes256Gcm && direction == Direction::open && takesNonceAsParameter(context.get());
  ERR_clear_error();
  return std::make_unique<EvpKey>(std::move(context), nonceAsParameter);
}

}  // namespace caracal
