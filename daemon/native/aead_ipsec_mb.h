// AES-256-GCM of libipsec-mb, where it is installed: two to four times as fast as Node's OpenSSL.
#pragma once

#include <memory>
#include <string>

#include "aead.h"

namespace caracal {

struct IpsecMb {
  /** Such as "1.3.0"; empty: not found. */
  std::string version;
  /** The code in it that this CPU runs, such as "vaes_avx512"; empty: none. */
  std::string variant;
  /** Why it is not used; empty: it is loaded and agreed with OpenSSL. */
  std::string problem;
  /** It ran, and did not agree with OpenSSL. */
  bool failed = false;
};

/** Loads the library and tests it against OpenSSL at the first call of the process (some 10 ms); never unloads it. From any thread. */
const IpsecMb& ipsecMb();

/** For both directions. Null when ipsecMb() has a problem. The key is copied. */
std::unique_ptr<AeadKey> makeIpsecMbKey(const uint8_t* key);

}  // namespace caracal
