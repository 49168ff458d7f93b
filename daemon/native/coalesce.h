// From single plaintexts to super-packets, opened in place so that no payload is copied: see lib/crypto/coalescer.ts.
//
//     first frame         second frame is opened so that its header lands on the end of the first's payload:
//     [header][payload 1]                [header][payload 2]
//              bytes saved ^^^^^^^^ from here, put back when the second continues the first:
//     [header][payload 1][payload 2]     else the second is moved behind a headroom of its own, and they are put back too.
#pragma once

#include <cstdint>

#include "check.h"
#include "frame.h"

namespace caracal {

/** Transport header and payload of a super-packet at most. */
constexpr size_t kTcpCoalescedMax = 65535 - 60;
constexpr size_t kUdpCoalescedMax = 65000;
/** Entries begin at multiples of this, and so do their transport headers. */
constexpr size_t kAlignment = 4;
/** What an entry may take besides its plaintext. */
constexpr size_t kEntryOverhead = kHeadroom + kAlignment - 1;

/** Fills one OpenBatch. Its arrays have been checked to have room for every segment. */
class Coalescer {
 public:
  Coalescer(const Span<uint8_t>& data, const Span<int32_t>& desc) : data_(data), desc_(desc) {}

  size_t count() const { return count_; }
  size_t used() const { return used_; }
  bool full() const { return (count_ + 1) * kOpenWords > desc_.length; }

  /** The frames to come are of this datagram. `sameSource`: address and traffic class are those of `first()`. */
  void datagram(size_t index, bool sameSource);
  /** Datagram with which the super-packet under construction began. */
  size_t first() const { return first_; }

  /** An entry that points into the datagrams: a clear frame or a failure. `size`: it stands for frames of so many bytes each. */
  void reject(size_t offset, size_t length, int32_t lane, int32_t status, size_t size = 0);

  /** Where a plaintext of this length is to be opened; null when there is no room. Followed by `add` or `discard`. */
  uint8_t* place(size_t length, int32_t lane);
  /** The plaintext where `place` said is not authentic, or not wanted. */
  void discard();
  /** Takes the plaintext (at least an inner header) where `place` said; false, and discarded, when it is no frame. */
  bool add(size_t length, int32_t lane);

 private:
  struct Header {
    size_t length;
    int32_t gsoKind;
  };
  static bool readHeader(const uint8_t* plaintext, size_t length, Header* header);
  /** `next`: the header of the new segment, whose payload lies behind the super-packet already. */
  bool extend(const uint8_t* next, size_t length, const Header& header);
  void start(const uint8_t* plaintext, size_t length, const Header& header, int32_t lane);
  int32_t* append(size_t offset, size_t length, size_t headerLength, int32_t lane, int32_t status);
  static size_t align(size_t offset) { return (offset + kAlignment - 1) / kAlignment * kAlignment; }

  Span<uint8_t> data_;
  Span<int32_t> desc_;
  size_t count_ = 0, used_ = 0;
  size_t datagram_ = 0;
  bool sameSource_ = true;

  /** Descriptor of the entry under construction; null: nothing may be added to the last one. */
  int32_t* row_ = nullptr;
  size_t first_ = 0;
  int32_t gsoKind_ = kGsoNone, lane_ = 0;
  size_t offset_ = 0, gsoSize_ = 0, headerLength_ = 0, segments_ = 0;
  uint32_t expected_ = 0;

  uint8_t* placed_ = nullptr;
  /** The end of the entry under construction where `place` lets the next header land; empty when it is opened elsewhere. */
  size_t savedLength_ = 0;
  uint8_t saved_[kInnerHeader + kTcpHeaderMax];
};

}  // namespace caracal
