// The Internet checksum, and how it follows what changes in a packet: lib/wire/checksum.ts.
#pragma once

#include <cstddef>
#include <cstdint>

#include "frame.h"

namespace caracal {

inline uint32_t fold(uint64_t sum) {
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint32_t>(sum);
}
inline uint16_t checksumOf(uint64_t sum) { return static_cast<uint16_t>(~fold(sum)); }
inline uint64_t sumWords(const uint8_t* at, size_t length) {
  uint64_t sum = 0;
  size_t i = 0;
  for (; i + 1 < length; i += 2) sum += readU16(at + i);
  if (i < length) sum += static_cast<uint32_t>(at[i]) << 8;
  return sum;
}
inline uint16_t complement(uint32_t word) { return static_cast<uint16_t>(~word); }
inline uint16_t replaceWord(uint16_t checksum, uint32_t before, uint32_t after) {
  return checksumOf(uint64_t{complement(checksum)} + complement(before) + after);
}
inline uint16_t removeSum(uint16_t checksum, uint64_t sum) { return checksumOf(uint64_t{complement(checksum)} + complement(fold(sum))); }
inline uint16_t addSum(uint16_t checksum, uint64_t sum) { return checksumOf(uint64_t{complement(checksum)} + fold(sum)); }

}  // namespace caracal
