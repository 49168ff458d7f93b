// Which counters of a lane have been seen: see lib/crypto/replay.ts.
#pragma once

#include <cstdint>
#include <cstring>

#include "frame.h"

namespace caracal {

class ReplayWindow {
 public:
  /** Whether the counter is new and not older than the window; marks it as seen. To be asked after the tag has been checked. */
  bool accept(uint64_t counter) {
    if (counter > highest_) {
      advance(counter);
    } else if (highest_ - counter >= kReplayWindow) {
      return false;
    }
    uint64_t& word = bits_[counter / 64 % kWords];
    const uint64_t bit = uint64_t{1} << (counter % 64);
    if (word & bit) return false;
    word |= bit;
    return true;
  }

  /** Asks for the memory that {@link accept} is going to look at. */
  void prefetch(uint64_t counter) const { __builtin_prefetch(&bits_[counter / 64 % kWords], 1); }

 private:
  /** One word more than the window, so that the word being filled never holds counters that are still in the window. */
  static constexpr uint64_t kWords = kReplayWindow / 64 + 1;

  void advance(uint64_t counter) {
    const uint64_t from = highest_ / 64;
    const uint64_t steps = counter / 64 - from;
    if (steps >= kWords) {
      std::memset(bits_, 0, sizeof bits_);
    } else {
      for (uint64_t step = 1; step <= steps; step++) bits_[(from + step) % kWords] = 0;
    }
    highest_ = counter;
  }

  uint64_t highest_ = 0;
  uint64_t bits_[kWords] = {};
};

}  // namespace caracal
