// AEADs with 32-byte keys, 12-byte nonces and 16-byte tags, appended.
#pragma once

#include <array>
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

/** Bytes that are about to be read. */
struct Region {
  const void* at = nullptr;
  size_t length = 0;

  /** Asks for them without waiting. */
  void prefetch() const {
    for (size_t i = 0; i < length; i += 64) __builtin_prefetch(static_cast<const uint8_t*>(at) + i);
  }
};
using Regions = std::array<Region, 3>;

/** One key in one direction, with everything derived from it kept ready. The destructor leaves nothing of it in memory. */
class AeadKey {
 public:
  virtual ~AeadKey() = default;
  /** Writes length + 16 bytes. in and out are the same or do not overlap. False: the library failed, out is not to be used. */
  virtual bool seal(const uint8_t* nonce, const uint8_t* aad, size_t aadLength, const uint8_t* in, size_t length, uint8_t* out) = 0;
  /** `length` includes the tag; writes length - 16 bytes even when it returns false, which it does when the tag is wrong. */
  virtual bool open(const uint8_t* nonce, const uint8_t* aad, size_t aadLength, const uint8_t* in, size_t length, uint8_t* out) = 0;
  /** What of its memory a short frame is worked on with, as far as that is known. */
  virtual Regions hot() const = 0;
};

enum class Direction { seal, open };

/** By OpenSSL. Null when it failed. The key is copied. */
std::unique_ptr<AeadKey> makeAeadKey(Aead aead, Direction direction, const uint8_t* key);

}  // namespace caracal
