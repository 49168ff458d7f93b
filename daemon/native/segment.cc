#include "segment.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace caracal {
namespace {

enum RunWord { kRunOffset, kRunLength, kRunStride, kRunAddress, kRunClass, kRunSealSlot };

[[noreturn]] void reject(size_t index, const char* what) { outOfRange("seal entry " + std::to_string(index) + " " + what); }

size_t transportOffset(uint8_t kind) { return (kind & kKindMask) == kKindAccept ? kInnerHeader + kAcceptFlowId : kInnerHeader; }

void checkSegmented(const uint8_t* bytes, size_t headerLength, int32_t gsoKind, size_t index) {
  const uint8_t kind = bytes[kInnerKind];
  if (gsoKind == kGsoNone) reject(index, "has a segment size but no kind");
  if ((kind & kChecksumPartial) == 0) reject(index, "is to be segmented but has a complete checksum");
  if (headerLength > kSegmentHeaderMax) reject(index, "has too long a header to be repeated");
  if (gsoKind == kGsoUdp) {
    if (headerLength < kInnerHeader + kUdpHeader) reject(index, "has no UDP header");
    return;
  }
  const size_t at = transportOffset(kind);
  if ((kind & kKindMask) != kKindData && (kind & kKindMask) != kKindAccept) reject(index, "is of a kind that has no TCP segments");
  if (headerLength < at + kTcpOptions || static_cast<int>(at) + tcpHeaderLength(bytes + at) != static_cast<int>(headerLength))
    reject(index, "has a wrong TCP header length");
}

}  // namespace

void SealEntry::read(const Span<uint8_t>& data, const Span<int32_t>& desc, size_t index, size_t room) {
  // Copied first: whoever shares the array with another thread may spoil the bytes, never the bounds.
  int32_t* const row = desc.data + index * kSealWords;
  int32_t words[kSealWords];
  std::memcpy(words, row, sizeof words);
  const int64_t offset = words[kOffset], length = words[kLength], header = words[kHeaderLength];
  const int64_t gsoSize = words[kGsoSize];
  const int32_t gsoKind = words[kGsoKindWord];
  if (offset < 0 || length < static_cast<int64_t>(kInnerHeader) || offset + length > static_cast<int64_t>(data.length))
    reject(index, "lies outside the batch");
  if (header < static_cast<int64_t>(kInnerHeader) || header > length) reject(index, "has a wrong header length");
  if (gsoSize < 0 || gsoKind < kGsoNone || gsoKind > kGsoUdp) reject(index, "has a wrong segment size or kind");
  if (words[kSealSlot] < 0 || words[kSealSlot] > UINT16_MAX) reject(index, "has a wrong seal slot");
  if (words[kAddressSlot] < 0 || words[kTrafficClass] < 0 || words[kTrafficClass] > UINT8_MAX)
    reject(index, "has a wrong address slot or traffic class");
  bytes_ = data.data + offset;
  row_ = row;
  headerLength_ = static_cast<size_t>(header);
  payload_ = static_cast<size_t>(length - header);
  const bool segmented = gsoSize > 0 && payload_ > static_cast<size_t>(gsoSize);
  if (segmented) checkSegmented(bytes_, headerLength_, gsoKind, index);
  gsoSize_ = segmented ? static_cast<size_t>(gsoSize) : payload_;
  segments_ = segmented ? (payload_ + gsoSize_ - 1) / gsoSize_ : 1;
  udp_ = gsoKind == kGsoUdp;
  sealSlot_ = static_cast<uint16_t>(words[kSealSlot]);
  addressSlot_ = words[kAddressSlot];
  trafficClass_ = words[kTrafficClass];
  if (headerLength_ + gsoSize_ + kFrameOverhead > std::min(kGsoBytesMax, room)) reject(index, "has frames larger than fit into a run");
  if (segmented) std::memcpy(header_, bytes_, headerLength_);
}

const uint8_t* SealEntry::plaintext(size_t i) {
  return segments_ == 1 ? bytes_ : writeHeader(i, i + 1 == segments_, slice(i));
}

void SealEntry::keepRest(size_t done) {
  if (done == 0) return;
  const size_t rest = payload_ - done * gsoSize_;
  writeHeader(done, true, rest);
  row_[kOffset] += static_cast<int32_t>(done * gsoSize_);
  row_[kLength] = static_cast<int32_t>(headerLength_ + rest);
}

uint8_t* SealEntry::writeHeader(size_t i, bool last, size_t payload) {
  uint8_t* const start = bytes_ + i * gsoSize_;
  std::memcpy(start, header_, headerLength_);
  if (udp_) {
    writeU16(start + headerLength_ - kUdpHeader + kUdpLength, kUdpWithPorts + payload);
    return start;
  }
  uint8_t* const tcp = start + transportOffset(header_[kInnerKind]);
  writeU32(tcp + kTcpSequence, readU32(tcp + kTcpSequence) + static_cast<uint32_t>(i * gsoSize_));
  if (!last) tcp[kTcpFlags] &= static_cast<uint8_t>(~kTcpLast);
  if (i > 0) tcp[kTcpFlags] &= static_cast<uint8_t>(~kCwr);
  return start;
}

uint8_t* RunWriter::place(size_t length, const SealEntry& entry) {
  if (length > data_.length - used_) return nullptr;
  joins_ = false;
  if (count_ > 0) {
    // A run that ends with a shorter frame is closed: its length is then no multiple of the stride.
    const int32_t* const run = desc_.data + (count_ - 1) * kRunWords;
    const int64_t offset = run[kRunOffset], bytes = run[kRunLength], stride = run[kRunStride];
    joins_ = run[kRunAddress] == entry.addressSlot() && run[kRunClass] == entry.trafficClass() &&
             run[kRunSealSlot] == entry.sealSlot() && offset >= 0 && bytes > 0 && stride > 0 &&
             offset + bytes == static_cast<int64_t>(used_) && bytes % stride == 0 && static_cast<int64_t>(length) <= stride &&
             bytes / stride < static_cast<int64_t>(kGsoSegmentsMax) && static_cast<size_t>(bytes) + length <= kGsoBytesMax;
  }
  if (!joins_ && count_ >= rows_) return nullptr;
  return data_.data + used_;
}

void RunWriter::commit(size_t length, const SealEntry& entry) {
  if (joins_) {
    desc_.data[(count_ - 1) * kRunWords + kRunLength] += static_cast<int32_t>(length);
  } else {
    int32_t* const run = desc_.data + count_++ * kRunWords;
    run[kRunOffset] = static_cast<int32_t>(used_);
    run[kRunLength] = static_cast<int32_t>(length);
    run[kRunStride] = static_cast<int32_t>(length);
    run[kRunAddress] = entry.addressSlot();
    run[kRunClass] = entry.trafficClass();
    run[kRunSealSlot] = entry.sealSlot();
  }
  used_ += length;
}

}  // namespace caracal
