// The keys of a codec, their counters and replay windows: what codec.cc gives JavaScript, and express.cc uses without it.
#pragma once

#include <cstring>
#include <memory>
#include <mutex>

#include "aead.h"
#include "check.h"
#include "frame.h"
#include "replay.h"

namespace caracal {

/** Above this no honest sender comes near, and JavaScript's numbers are not exact. */
constexpr uint64_t kCounterEnd = uint64_t{1} << 53;
constexpr size_t kSlots = 65536;

/** Rows 0..65535, in memory only where there are some. */
template <typename T>
class Table {
 public:
  T* get(size_t row) const {
    const auto& page = pages_[row / kPage];
    return page == nullptr ? nullptr : page->rows[row % kPage].get();
  }
  void set(size_t row, std::unique_ptr<T> value) {
    auto& page = pages_[row / kPage];
    if (page == nullptr) {
      if (value == nullptr) return;
      page = std::make_unique<Page>();
    }
    if (page->rows[row % kPage] != nullptr) page->used--;
    if (value != nullptr) page->used++;
    page->rows[row % kPage] = std::move(value);
    if (page->used == 0) page.reset();
  }

 private:
  static constexpr size_t kPage = 256;
  struct Page {
    size_t used = 0;
    std::unique_ptr<T> rows[kPage];
  };
  std::unique_ptr<Page> pages_[kSlots / kPage];
};

/** In one line of memory. */
struct alignas(64) SealLane {
  std::unique_ptr<AeadKey> key;
  Regions hot;
  uint64_t counter = 0;
  uint32_t receiverLane;
};
struct alignas(64) OpenLane {
  std::unique_ptr<AeadKey> key;
  Regions hot;
  uint32_t lane;
  ReplayWindow window;
};

enum class Library : uint8_t { openssl, ipsecMb };

/** The drop numbers that the codec reports, in the order in which JavaScript passes them. */
enum Drop { kTruncated, kBadVersion, kBadType, kUnknownLane, kBadTag, kReplayed, kBadFrame, kDrops };

/**
 * One codec. Owned by the functions of its JavaScript objects, each in an environment (thread) of its own: the last one that is collected takes it along.
 * Whoever touches its tables or keys holds its mutex.
 */
struct Codec {
  int32_t drops[kDrops];
  /** Who does AES-256-GCM; all else is OpenSSL's. */
  Library library = Library::openssl;
  std::mutex mutex;
  Table<SealLane> seals;
  Table<OpenLane> opens;

  int32_t status(Drop drop) const { return -(drops[drop] + 1); }
};

using SharedCodec = std::shared_ptr<Codec>;
using Lock = std::lock_guard<std::mutex>;

/** The codec that was shared under this token, once. CARACAL_E_CLOSED when nothing waits under it. */
SharedCodec takeCodec(int32_t token);

/** Writes length + kFrameOverhead bytes to `out`, which does not overlap the plaintext. False: it could not be sealed, and must not be sent. Never throws: it is called where nobody catches. */
[[nodiscard]] inline bool sealFrame(SealLane& lane, const uint8_t* plaintext, size_t length, uint8_t* out) noexcept {
  uint8_t nonce[kNonceLength] = {};
  out[0] = kTypeTransport;
  out[1] = kVersion;
  out[2] = out[3] = 0;
  writeLittle(out + kLaneAt, 4, lane.receiverLane);
  writeLittle(out + kCounterAt, 8, lane.counter);
  writeLittle(nonce + 4, 8, lane.counter);
  lane.counter++;
  return lane.key->seal(nonce, out, kClearHeader, plaintext, length, out + kClearHeader);
}

}  // namespace caracal
