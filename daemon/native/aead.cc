// Which AEADs are offered: those that give known answers in this process, on this CPU.

#include "aead.h"

#include <cstring>
#include <string>
#include <vector>

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace caracal {
namespace {

using Bytes = std::vector<uint8_t>;

struct KnownAnswer {
  const char* key;
  const char* nonce;
  const char* aad;
  const char* plaintext;
  const char* sealed;
};

/** AES-256-GCM: test case 16 of McGrew and Viega's specification. ChaCha20-Poly1305: RFC 8439, section 2.8.2. */
const KnownAnswer kPublished[kAeads] = {
    {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525"
     "b16aedf5aa0de657ba637b39",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838"
     "c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"},
    {"808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f", "070000004041424344454647",
     "50515253c0c1c2c3c4c5c6c7",
     "4c616469657320616e642047656e746c656d656e206f662074686520636c617373206f66202739393a20496620492063"
     "6f756c64206f6666657220796f75206f6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73"
     "637265656e20776f756c642062652069742e",
     "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b"
     "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
     "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691"},
};

/**
 * Tags of a message as long as a usual frame, which takes the wide code paths: key 00..1f, nonce twelve 24, AAD sixteen 42,
 * plaintext of 1,400 bytes 7 * i. From other implementations of the two.
 */
const char* const kLongTag[kAeads] = {"d70a3c76e7eeec4cdbeff0ef35903387", "88f0d3d03f2c16084d4b49936b20b3e1"};

Bytes fromHex(const char* hex) {
  Bytes bytes(std::strlen(hex) / 2);
  for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<uint8_t>(std::stoi(std::string(hex + 2 * i, 2), nullptr, 16));
  return bytes;
}

/** Seals and opens twice with the same keys (contexts are reused), and must refuse a changed tag in between. */
bool answers(Aead aead, const Bytes& key, const Bytes& nonce, const Bytes& aad, const Bytes& plaintext, const Bytes& end) {
  const auto sealer = makeAeadKey(aead, Direction::seal, key.data());
  const auto opener = makeAeadKey(aead, Direction::open, key.data());
  if (sealer == nullptr || opener == nullptr) return false;
  for (int round = 0; round < 2; round++) {
    Bytes sealed(plaintext.size() + kTagLength);
    if (!sealer->seal(nonce.data(), aad.data(), aad.size(), plaintext.data(), plaintext.size(), sealed.data())) return false;
    if (std::memcmp(sealed.data() + sealed.size() - end.size(), end.data(), end.size()) != 0) return false;
    Bytes opened(plaintext.size());
    if (!opener->open(nonce.data(), aad.data(), aad.size(), sealed.data(), sealed.size(), opened.data())) return false;
    if (opened != plaintext) return false;
    sealed.back() ^= 1;
    if (opener->open(nonce.data(), aad.data(), aad.size(), sealed.data(), sealed.size(), opened.data())) return false;
  }
  return true;
}

bool selfTest(Aead aead) {
  const KnownAnswer& known = kPublished[static_cast<size_t>(aead)];
  if (!answers(aead, fromHex(known.key), fromHex(known.nonce), fromHex(known.aad), fromHex(known.plaintext), fromHex(known.sealed)))
    return false;
  Bytes key(kKeyLength), plaintext(1400);
  for (size_t i = 0; i < key.size(); i++) key[i] = static_cast<uint8_t>(i);
  for (size_t i = 0; i < plaintext.size(); i++) plaintext[i] = static_cast<uint8_t>(7 * i);
  return answers(aead, key, Bytes(kNonceLength, 0x24), Bytes(16, 0x42), plaintext, fromHex(kLongTag[static_cast<size_t>(aead)]));
}

/** AES in tables would be slow and tell its timing: without instructions for it (and for GCM's multiplication) it is not offered. */
bool cpuHasAes() {
#if defined(__x86_64__) || defined(__i386__)
  return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
  constexpr unsigned long kAes = 1ul << 3, kPmull = 1ul << 4;
  return (getauxval(AT_HWCAP) & (kAes | kPmull)) == (kAes | kPmull);
#else
  return false;
#endif
}

}  // namespace

const char* aeadName(Aead aead) { return aead == Aead::aes256Gcm ? "aes-256-gcm" : "chacha20-poly1305"; }

bool aeadOffered(Aead aead) {
  static const bool gcm = cpuHasAes() && selfTest(Aead::aes256Gcm);
  static const bool chacha = selfTest(Aead::chacha20Poly1305);
  return aead == Aead::aes256Gcm ? gcm : chacha;
}

}  // namespace caracal
