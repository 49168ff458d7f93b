// The layout of frames and of the batches they travel in: the same numbers as lib/wire/constants.ts and lib/wire/batch.ts.
#pragma once

#include <cstddef>
#include <cstdint>

namespace caracal {

constexpr uint8_t kTypeFirst = 1;
constexpr uint8_t kTypeTransport = 6;
constexpr uint8_t kTypeLast = 7;
constexpr uint8_t kVersion = 1;

/** Clear header: type 1, version 1, reserved 2, lane 4 (LE), counter 8 (LE). */
constexpr size_t kClearHeader = 16;
constexpr size_t kLaneAt = 4;
constexpr size_t kCounterAt = 8;
constexpr size_t kTag = 16;
constexpr size_t kFrameOverhead = kClearHeader + kTag;

constexpr size_t kInnerHeader = 12;
constexpr size_t kInnerKind = 8;
constexpr size_t kInnerProtocol = 11;
constexpr size_t kFrameMin = kFrameOverhead + kInnerHeader;
constexpr uint8_t kKindMask = 0x0f;
constexpr uint8_t kKindData = 1;
constexpr uint8_t kKindAccept = 3;
constexpr uint8_t kChecksumPartial = 0x10;
/** Kind byte of frames that may be coalesced: their checksum is the receiving kernel's to make. */
constexpr uint8_t kCoalescible = kKindData | kChecksumPartial;
/** The initiator's flow ID in front of the transport header of an accept frame. */
constexpr size_t kAcceptFlowId = 8;

constexpr uint8_t kIcmp = 1;
constexpr uint8_t kTcp = 6;
constexpr uint8_t kUdp = 17;
/** Positions in a TCP header without ports. */
constexpr size_t kTcpSequence = 0;
constexpr size_t kTcpAck = 4;
constexpr size_t kTcpDataOffset = 8;
constexpr size_t kTcpFlags = 9;
constexpr size_t kTcpWindow = 10;
constexpr size_t kTcpUrgent = 14;
constexpr size_t kTcpOptions = 16;
constexpr size_t kTcpHeaderMax = 56;
constexpr uint8_t kFin = 1, kSyn = 2, kRst = 4, kPsh = 8, kUrg = 32, kCwr = 128;
/** Only the last segment of a super-packet may carry these. */
constexpr uint8_t kTcpLast = kFin | kPsh;
/** Segments with one of these travel alone. */
constexpr uint8_t kTcpAlone = kSyn | kRst | kUrg | kCwr;
constexpr size_t kUdpLength = 0;
constexpr size_t kUdpHeader = 4;
constexpr size_t kUdpWithPorts = 8;
constexpr size_t kIcmpHeader = 8;

constexpr size_t kGsoBytesMax = 65507;
constexpr size_t kGsoSegmentsMax = 64;
constexpr size_t kReadSegmentsMax = 128;  // SEGMENTS_READ_MAX
constexpr size_t kHeadroom = 64;
constexpr size_t kAddressRecord = 40;
constexpr uint64_t kReplayWindow = 8192;

enum GsoKind : int32_t { kGsoNone = 0, kGsoTcp = 1, kGsoUdp = 2 };

constexpr size_t kDatagramWords = 4;
constexpr size_t kSealWords = 8;
constexpr size_t kRunWords = 6;
constexpr size_t kOpenWords = 8;

/** Length of a TCP header without ports, out of its data offset field. May be less than kTcpOptions in malformed ones. */
inline int tcpHeaderLength(const uint8_t* tcp) { return (tcp[kTcpDataOffset] >> 4) * 4 - 4; }

inline uint16_t readU16(const uint8_t* p) { return static_cast<uint16_t>(p[0] << 8 | p[1]); }
inline void writeU16(uint8_t* p, size_t value) {
  p[0] = static_cast<uint8_t>(value >> 8);
  p[1] = static_cast<uint8_t>(value);
}
inline uint32_t readU32(const uint8_t* p) {
  return static_cast<uint32_t>(p[0]) << 24 | static_cast<uint32_t>(p[1]) << 16 | static_cast<uint32_t>(p[2]) << 8 | p[3];
}
inline void writeU32(uint8_t* p, uint32_t value) {
  for (int i = 0; i < 4; i++) p[i] = static_cast<uint8_t>(value >> (24 - 8 * i));
}
inline uint64_t readLittle(const uint8_t* p, int bytes) {
  uint64_t value = 0;
  for (int i = 0; i < bytes; i++) value |= static_cast<uint64_t>(p[i]) << (8 * i);
  return value;
}
inline void writeLittle(uint8_t* p, int bytes, uint64_t value) {
  for (int i = 0; i < bytes; i++) p[i] = static_cast<uint8_t>(value >> (8 * i));
}

}  // namespace caracal
