// From super-packets to single frames' plaintexts, and from sealed frames to runs: see lib/crypto/segmenter.ts.
#pragma once

#include <cstdint>

#include "check.h"
#include "frame.h"

namespace caracal {

/** Longest header that is repeated in front of each segment. */
constexpr size_t kSegmentHeaderMax = 512;

/** Words of an entry of a SealBatch. */
enum SealWord { kOffset, kLength, kHeaderLength, kGsoSize, kGsoKindWord, kSealSlot, kAddressSlot, kTrafficClass };

/** One entry of a SealBatch, read out of its descriptor. */
class SealEntry {
 public:
  /** Throws CARACAL_E_RANGE for an entry that cannot be sealed into runs of `room` bytes. */
  void read(const Span<uint8_t>& data, const Span<int32_t>& desc, size_t index, size_t room);

  size_t segments() const { return segments_; }
  uint16_t sealSlot() const { return sealSlot_; }
  int32_t addressSlot() const { return addressSlot_; }
  int32_t trafficClass() const { return trafficClass_; }

  /** Length of the plaintext of frame i. */
  size_t length(size_t i) const { return headerLength_ + slice(i); }
  /** Plaintext of frame i, to be asked for in order: the repeated header is written over what has been sealed already. */
  const uint8_t* plaintext(size_t i);
  /** Makes descriptor and bytes say what is left after the first `done` frames. */
  void keepRest(size_t done);

 private:
  size_t slice(size_t i) const { return i + 1 < segments_ ? gsoSize_ : payload_ - i * gsoSize_; }
  uint8_t* writeHeader(size_t i, bool last, size_t payload);

  uint8_t* bytes_ = nullptr;
  int32_t* row_ = nullptr;
  size_t headerLength_ = 0, payload_ = 0, gsoSize_ = 0, segments_ = 0;
  bool udp_ = false;
  uint16_t sealSlot_ = 0;
  int32_t addressSlot_ = 0, trafficClass_ = 0;
  uint8_t header_[kSegmentHeaderMax];
};

/** Appends sealed frames to runs: consecutive ones of equal size, address, class and seal slot share a run, only its last may be shorter. */
class RunWriter {
 public:
  /** count and used have been checked against the arrays. */
  RunWriter(const Span<uint8_t>& data, const Span<int32_t>& desc, size_t count, size_t used)
      : data_(data), desc_(desc), rows_(desc.length / kRunWords), count_(count), used_(used) {}

  size_t count() const { return count_; }
  size_t used() const { return used_; }

  /** Where the next frame is to be written; null when the runs are full. */
  uint8_t* place(size_t length, const SealEntry& entry);
  /** The frame has been written where `place` said. */
  void commit(size_t length, const SealEntry& entry);

 private:
  Span<uint8_t> data_;
  Span<int32_t> desc_;
  size_t rows_, count_, used_;
  bool joins_ = false;
};

}  // namespace caracal
