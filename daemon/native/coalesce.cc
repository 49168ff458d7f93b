#include "coalesce.h"

#include <algorithm>
#include <cstring>

namespace caracal {
namespace {

enum OpenWord { kOffset, kLength, kHeaderLength, kGsoSize, kGsoKindWord, kLane, kDatagram, kStatus };
constexpr int32_t kOpened = 0;

/** Whether two plaintexts agree in inner header and, but for what differs from segment to segment, in the TCP header. */
bool sameTcpStream(const uint8_t* a, const uint8_t* b, size_t headerLength) {
  const auto same = [=](size_t from, size_t to) { return std::memcmp(a + from, b + from, to - from) == 0; };
  constexpr size_t t = kInnerHeader;
  return same(0, kInnerHeader) && same(t + kTcpAck, t + kTcpFlags) &&
         (a[t + kTcpFlags] & ~kTcpLast) == (b[t + kTcpFlags] & ~kTcpLast) && same(t + kTcpWindow, t + kTcpWindow + 2) &&
         same(t + kTcpUrgent, headerLength);
}

}  // namespace

void Coalescer::datagram(size_t index, bool sameSource) {
  datagram_ = index;
  sameSource_ = sameSource;
}

void Coalescer::reject(size_t offset, size_t length, int32_t lane, int32_t status, size_t size) {
  append(offset, length, 0, lane, status)[kGsoSize] = static_cast<int32_t>(size);
}

uint8_t* Coalescer::place(size_t length, int32_t lane) {
  const bool mayExtend = row_ != nullptr && lane_ == lane && sameSource_;
  savedLength_ = mayExtend ? headerLength_ : 0;
  const size_t at = mayExtend ? used_ - headerLength_ : align(used_ + kHeadroom);
  // Should it not continue the super-packet it is moved behind a headroom: that must fit too.
  if (align(used_ + kHeadroom) + length > data_.length) return nullptr;
  placed_ = data_.data + at;
  std::memcpy(saved_, placed_, savedLength_);
  return placed_;
}

void Coalescer::discard() { std::memcpy(placed_, saved_, savedLength_); }

bool Coalescer::add(size_t length, int32_t lane) {
  Header header;
  if (!readHeader(placed_, length, &header)) {
    discard();
    return false;
  }
  if (savedLength_ > 0) {
    // The new header aside, the super-packet under construction is whole again, and the rest of the plaintext lies behind it.
    uint8_t next[sizeof saved_];
    std::memcpy(next, placed_, savedLength_);
    discard();
    if (extend(next, length, header)) return true;
    placed_ = data_.data + align(used_ + kHeadroom);
    if (length > savedLength_) std::memmove(placed_ + savedLength_, data_.data + used_, length - savedLength_);
    std::memcpy(placed_, next, std::min(length, savedLength_));
  }
  start(placed_, length, header, lane);
  return true;
}

bool Coalescer::readHeader(const uint8_t* plaintext, size_t length, Header* header) {
  *header = {kInnerHeader, kGsoNone};
  const uint8_t kind = plaintext[kInnerKind];
  if ((kind & kKindMask) != kKindData) return true;
  const uint8_t* const transport = plaintext + kInnerHeader;
  const size_t room = length - kInnerHeader;
  switch (plaintext[kInnerProtocol]) {
    case kTcp: {
      if (room < kTcpOptions) return false;
      const int tcp = tcpHeaderLength(transport);
      if (tcp < static_cast<int>(kTcpOptions) || static_cast<size_t>(tcp) > room) return false;
      header->length += static_cast<size_t>(tcp);
      const bool alone = (transport[kTcpFlags] & kTcpAlone) != 0;
      if (kind == kCoalescible && !alone && static_cast<size_t>(tcp) < room) header->gsoKind = kGsoTcp;
      return true;
    }
    case kUdp: {
      if (room < kUdpHeader) return false;
      header->length += kUdpHeader;
      const size_t payload = room - kUdpHeader;
      if (kind == kCoalescible && payload > 0 && readU16(transport + kUdpLength) == payload + kUdpWithPorts) header->gsoKind = kGsoUdp;
      return true;
    }
    case kIcmp:
      if (room < kIcmpHeader) return false;
      header->length += kIcmpHeader;
      return true;
    default:
      return false;
  }
}

bool Coalescer::extend(const uint8_t* next, size_t length, const Header& header) {
  if (header.gsoKind != gsoKind_ || header.length != headerLength_) return false;
  const size_t payload = length - headerLength_;
  if (payload > gsoSize_) return false;
  uint8_t* const first = data_.data + offset_;
  const size_t total = used_ - offset_ + payload;
  bool last = payload < gsoSize_;
  if (gsoKind_ == kGsoTcp) {
    if (total - kInnerHeader > kTcpCoalescedMax || !sameTcpStream(first, next, headerLength_)) return false;
    if (readU32(next + kInnerHeader + kTcpSequence) != expected_) return false;
    const uint8_t flags = next[kInnerHeader + kTcpFlags] & kTcpLast;
    first[kInnerHeader + kTcpFlags] |= flags;
    last = last || flags != 0;
    expected_ += static_cast<uint32_t>(payload);
  } else {
    if (total - kInnerHeader > kUdpCoalescedMax || segments_ == kGsoSegmentsMax) return false;
    if (std::memcmp(first, next, kInnerHeader) != 0) return false;
    writeU16(first + kInnerHeader + kUdpLength, total - headerLength_ + kUdpWithPorts);
  }
  used_ += payload;
  segments_++;
  row_[kLength] = static_cast<int32_t>(total);
  row_[kGsoSize] = static_cast<int32_t>(gsoSize_);
  row_[kGsoKindWord] = gsoKind_;
  if (last) row_ = nullptr;
  return true;
}

void Coalescer::start(const uint8_t* plaintext, size_t length, const Header& header, int32_t lane) {
  offset_ = static_cast<size_t>(plaintext - data_.data);
  used_ = offset_ + length;
  int32_t* const row = append(offset_, length, header.length, lane, kOpened);
  const uint8_t* const transport = plaintext + kInnerHeader;
  const bool last = header.gsoKind == kGsoTcp && (transport[kTcpFlags] & kTcpLast) != 0;
  row_ = header.gsoKind == kGsoNone || last ? nullptr : row;
  if (row_ == nullptr) return;
  first_ = datagram_;
  sameSource_ = true;
  lane_ = lane;
  gsoKind_ = header.gsoKind;
  headerLength_ = header.length;
  gsoSize_ = length - header.length;
  segments_ = 1;
  if (gsoKind_ == kGsoTcp) expected_ = readU32(transport + kTcpSequence) + static_cast<uint32_t>(gsoSize_);
}

int32_t* Coalescer::append(size_t offset, size_t length, size_t headerLength, int32_t lane, int32_t status) {
  int32_t* const row = desc_.data + count_++ * kOpenWords;
  row[kOffset] = static_cast<int32_t>(offset);
  row[kLength] = static_cast<int32_t>(length);
  row[kHeaderLength] = static_cast<int32_t>(headerLength);
  row[kGsoSize] = 0;
  row[kGsoKindWord] = kGsoNone;
  row[kLane] = lane;
  row[kDatagram] = static_cast<int32_t>(datagram_);
  row[kStatus] = status;
  return row;
}

}  // namespace caracal
