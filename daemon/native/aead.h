// AEADs with 32-byte keys, 12-byte nonces and 16-byte tags, appended.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace caracal {

enum class Aead : uint8_t { aes256Gcm, chacha20Poly1305 };
constexpr size_t kAeads = 2;
constexpr size_t kKeyLength = 32;
constexpr size_t kNonceLength = 12;
constexpr size_t kTagLength = 16;

const char* aeadName(Aead aead);

/** Whether the implementation passed its self-test (made once a process) and this CPU runs it fast. */
bool aeadOffered(Aead aead);

/** One key in one direction, with everything derived from it kept ready. The destructor leaves nothing of it in memory. */
class AeadKey {
 public:
  virtual ~AeadKey() = default;
  /** Writes length + 16 bytes. in and out are the same or do not overlap. False: the library failed, out is not to be used. */
  virtual bool seal(const uint8_t* nonce, const uint8_t* aad, size_t aadLength, const uint8_t* in, size_t length, uint8_t* out) = 0;
  /** `length` includes the tag; writes length - 16 bytes even when it returns false, which it does when the tag is wrong. */
  virtual bool open(const uint8_t* nonce, const uint8_t* aad, size_t aadLength, const uint8_t* in, size_t length, uint8_t* out) = 0;
};

enum class Direction { seal, open };

/** By OpenSSL. Null when it failed. The key is copied. */
std::unique_ptr<AeadKey> makeAeadKey(Aead aead, Direction direction, const uint8_t* key);

}  // namespace caracal
