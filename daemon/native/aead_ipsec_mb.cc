// libipsec-mb is loaded at run time and used by its direct API: functions for whole messages, exported by name. Its manager with the table of
// function pointers, whose layout changes from version to version, is left alone. What remains of layout are the sizes of two opaque
// structures; they hold for the versions below and are checked in the self-test. Other versions are not used.

#include "aead_ipsec_mb.h"

#include <cstring>

#if defined(__x86_64__)
#include <dlfcn.h>
#include <openssl/crypto.h>
#include <sys/random.h>

#include <algorithm>
#include <climits>
#include <vector>
#endif

namespace caracal {

#if defined(__x86_64__)
namespace {

constexpr char kFile[] = "libIPSec_MB.so.1";
constexpr const char* kVersions[] = {"1.3.0"};

/** struct gcm_key_data: 15 round keys and up to 48 powers of the hash key, of which a short message takes the last. */
constexpr size_t kRoundKeys = 16 * 15;
constexpr size_t kKeyData = kRoundKeys + 16 * 48;
constexpr size_t kShortPowers = 16 * 8;
/** struct gcm_context_data */
constexpr size_t kContextData = 88;
constexpr uint8_t kCanary = 0xa5;

struct alignas(64) Memory {
  uint8_t key[1024];
  uint8_t context[128];
};
static_assert(kKeyData < sizeof Memory::key && kContextData < sizeof Memory::context, "there is room for canaries");

using Prepare = void(const void* key, void* keyData);
using Process = void(const void* keyData, void* context, uint8_t* out, const uint8_t* in, uint64_t length, const uint8_t* nonce,
                     const uint8_t* aad, uint64_t aadLength, uint8_t* tag, uint64_t tagLength);
struct Functions {
  Prepare* prepare = nullptr;
  Process* seal = nullptr;
  Process* open = nullptr;
};

/** Stands for the address of no bytes: the library takes a null pointer for a mistake, and then writes nothing. */
const uint8_t kNothing = 0;
const uint8_t* there(const uint8_t* bytes, size_t length) { return length == 0 ? &kNothing : bytes; }

class IpsecMbKey final : public AeadKey {
 public:
  IpsecMbKey(const Functions& functions, const uint8_t* key) : functions_(functions) {
    std::memset(&memory_, kCanary, sizeof memory_);
    functions_.prepare(key, memory_.key);
  }
  ~IpsecMbKey() override { OPENSSL_cleanse(&memory_, sizeof memory_); }
  IpsecMbKey(const IpsecMbKey&) = delete;
  IpsecMbKey& operator=(const IpsecMbKey&) = delete;

  bool seal(const uint8_t* nonce, const uint8_t* aad, size_t aadLength, const uint8_t* in, size_t length, uint8_t* out) override {
    if (length > INT_MAX || aadLength > INT_MAX) return false;
    functions_.seal(memory_.key, memory_.context, out, there(in, length), length, nonce, there(aad, aadLength), aadLength, out + length,
                    kTagLength);
    return true;
  }

  bool open(const uint8_t* nonce, const uint8_t* aad, size_t aadLength, const uint8_t* in, size_t length, uint8_t* out) override {
    if (length < kTagLength || length > INT_MAX || aadLength > INT_MAX) return false;
    length -= kTagLength;
    uint8_t none = 0, tag[kTagLength];
    // A tag that the library did not compute, for whatever reason, is then a wrong one.
    for (size_t i = 0; i < kTagLength; i++) tag[i] = static_cast<uint8_t>(~in[length + i]);
    functions_.open(memory_.key, memory_.context, length == 0 ? &none : out, there(in, length), length, nonce, there(aad, aadLength),
                    aadLength, tag, kTagLength);
    return CRYPTO_memcmp(tag, in + length, kTagLength) == 0;
  }

  Regions hot() const override {
    return {Region{this, sizeof(AeadKey) + sizeof functions_}, {memory_.key, kRoundKeys}, {memory_.key + kKeyData - kShortPowers, kShortPowers + 16 + kContextData}};
  }

  /** The library wrote nothing outside what its structures are taken to be. */
  bool inBounds() const {
    const auto whole = [](const uint8_t* from, const uint8_t* to) { return std::all_of(from, to, [](uint8_t b) { return b == kCanary; }); };
    return whole(memory_.key + kKeyData, std::end(memory_.key)) && whole(memory_.context + kContextData, std::end(memory_.context));
  }

 private:
  const Functions functions_;
  Memory memory_;
};

using Bytes = std::vector<uint8_t>;

/** Random enough for a test: xorshift from a seed of the kernel. */
class Noise {
 public:
  Noise() {
    if (getrandom(&state_, sizeof state_, GRND_NONBLOCK) != sizeof state_) state_ = 1;
    state_ |= 1;
  }
  void fill(uint8_t* bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
      state_ ^= state_ << 13;
      state_ ^= state_ >> 7;
      state_ ^= state_ << 17;
      bytes[i] = static_cast<uint8_t>(state_ >> 32);
    }
  }
  size_t below(size_t end) {
    uint8_t bytes[4];
    fill(bytes, sizeof bytes);
    return (bytes[0] | bytes[1] << 8 | bytes[2] << 16) % end;
  }

 private:
  uint64_t state_ = 1;
};

/** The same key in both libraries. */
struct Pair {
  Pair(const Functions& functions, const uint8_t* key)
      : sealer(functions, key),
        opener(functions, key),
        reference(makeAeadKey(Aead::aes256Gcm, Direction::seal, key)) {}
  IpsecMbKey sealer, opener;
  std::unique_ptr<AeadKey> reference;
};

constexpr size_t kLengths = 2000;
constexpr size_t kLengthsPerKey = 40;
constexpr size_t kAadMax = 48;
constexpr size_t kSlack = 64;

/** Messages of all lengths at all alignments, into a buffer whose rest must stay as it is; every second one in place. */
bool agrees(const Functions& functions) {
  Noise noise;
  Bytes plain(kLengths + 1 + kSlack), sealed(kLengths + 1 + kTagLength + 2 * kSlack), opened = sealed, expected = sealed;
  noise.fill(plain.data(), plain.size());
  std::unique_ptr<Pair> pair;
  for (size_t length = 0; length <= kLengths; length++) {
    if (length % kLengthsPerKey == 0) {
      if (pair != nullptr && !(pair->sealer.inBounds() && pair->opener.inBounds())) return false;
      uint8_t key[kKeyLength];
      noise.fill(key, sizeof key);
      pair = std::make_unique<Pair>(functions, key);
      if (pair->reference == nullptr) return false;
    }
    uint8_t nonce[kNonceLength], aad[kAadMax];
    noise.fill(nonce, sizeof nonce);
    noise.fill(aad, sizeof aad);
    const size_t aadLength = noise.below(kAadMax + 1), whole = length + kTagLength;
    const uint8_t* const in = plain.data() + noise.below(kSlack);
    uint8_t* const out = sealed.data() + 1 + noise.below(kSlack - 1);
    uint8_t* const back = opened.data() + 1 + noise.below(kSlack - 1);

    if (!pair->reference->seal(nonce, aad, aadLength, in, length, expected.data())) return false;
    out[-1] = out[whole] = kCanary;
    const bool inPlace = length % 2 == 1;
    if (inPlace) std::memcpy(out, in, length);
    if (!pair->sealer.seal(nonce, aad, aadLength, inPlace ? out : in, length, out)) return false;
    if (std::memcmp(out, expected.data(), whole) != 0 || out[-1] != kCanary || out[whole] != kCanary) return false;

    back[-1] = back[length] = kCanary;
    if (!pair->opener.open(nonce, aad, aadLength, out, whole, back)) return false;
    if (std::memcmp(back, in, length) != 0 || back[-1] != kCanary || back[length] != kCanary) return false;

    // One bit anywhere, the tag included, makes it a forgery.
    out[noise.below(whole)] ^= static_cast<uint8_t>(1u << noise.below(8));
    if (pair->opener.open(nonce, aad, aadLength, out, whole, back)) return false;
    if (std::memcmp(out, expected.data(), whole) == 0) return false;
    std::memcpy(out, expected.data(), whole);
    out[whole - 1 - noise.below(kTagLength)] ^= static_cast<uint8_t>(1u << noise.below(8));
    if (pair->opener.open(nonce, aad, aadLength, out, whole, inPlace ? out : back)) return false;
  }
  return pair->sealer.inBounds() && pair->opener.inBounds();
}

/** What is compiled into the library for CPUs of a kind. GCM's AVX2 code is also the best without AVX-512 where there is VAES. */
const char* bestVariant() {
#if defined(__clang__) || __GNUC__ >= 11
  if (__builtin_cpu_supports("vaes") && __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("gfni") &&
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512ifma") &&
      __builtin_cpu_supports("bmi2"))
    return "vaes_avx512";
#endif
  if (__builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"))
    return "avx_gen4";
  return nullptr;
}

template <typename T>
bool find(void* library, const std::string& name, T** function) {
  *function = reinterpret_cast<T*>(dlsym(library, name.c_str()));
  return *function != nullptr;
}

struct Loaded {
  IpsecMb about;
  Functions functions;
};

Loaded load() {
  Loaded loaded;
  IpsecMb& about = loaded.about;
  Functions& f = loaded.functions;
  const auto without = [&](const std::string& problem) {
    about.problem = problem;
    return loaded;
  };
  const char* const variant = bestVariant();
  if (variant == nullptr || !aeadOffered(Aead::aes256Gcm)) return without("this processor lacks the instructions that libipsec-mb is used for");
  void* const library = dlopen(kFile, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return without("libipsec-mb is not installed");
  const char* (*versionOf)() = nullptr;
  if (!find(library, "imb_get_version_str", &versionOf)) return without("libipsec-mb does not tell its version");
  about.version = versionOf();
  if (std::none_of(std::begin(kVersions), std::end(kVersions), [&](const char* known) { return about.version == known; }))
    return without("libipsec-mb " + about.version + " is not a version that is known to fit");
  const std::string end = std::string("_256_") + variant;
  if (!find(library, "aes_gcm_pre" + end, &f.prepare) || !find(library, "aes_gcm_enc" + end, &f.seal) ||
      !find(library, "aes_gcm_dec" + end, &f.open))
    return without("libipsec-mb " + about.version + " lacks aes_gcm_enc" + end);
  about.variant = variant;
  about.failed = !agrees(f);
  return about.failed ? without("libipsec-mb " + about.version + " did not agree with OpenSSL in its self-test") : loaded;
}

const Loaded& loaded() {
  static const Loaded once = load();
  return once;
}

}  // namespace

const IpsecMb& ipsecMb() { return loaded().about; }

std::unique_ptr<AeadKey> makeIpsecMbKey(const uint8_t* key) {
  return loaded().about.problem.empty() ? std::make_unique<IpsecMbKey>(loaded().functions, key) : nullptr;
}

#else

const IpsecMb& ipsecMb() {
  static const IpsecMb none{"", "", "libipsec-mb is for x86-64 only", false};
  return none;
}

std::unique_ptr<AeadKey> makeIpsecMbKey(const uint8_t*) { return nullptr; }

#endif

}  // namespace caracal
