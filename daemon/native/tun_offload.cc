#include "tun_offload.h"

#include <cstring>

namespace caracal {
namespace {

constexpr size_t kHeadersMax = 256;
/** As the kernel's: a super-packet of more segments is malformed. */
constexpr size_t kSegmentsMax = 4096;
constexpr uint8_t kTcp = 6, kUdp = 17;
constexpr uint8_t kFin = 0x01, kPsh = 0x08, kCwr = 0x80;

uint16_t little16(const uint8_t* at) { return static_cast<uint16_t>(at[0] | at[1] << 8); }
void putLittle16(uint8_t* at, size_t value) {
  at[0] = static_cast<uint8_t>(value);
  at[1] = static_cast<uint8_t>(value >> 8);
}
void put16(uint8_t* at, size_t value) {
  at[0] = static_cast<uint8_t>(value >> 8);
  at[1] = static_cast<uint8_t>(value);
}
uint32_t get32(const uint8_t* at) {
  return static_cast<uint32_t>(at[0]) << 24 | static_cast<uint32_t>(at[1]) << 16 | static_cast<uint32_t>(at[2]) << 8 | at[3];
}
void put32(uint8_t* at, uint32_t value) {
  put16(at, value >> 16);
  put16(at + 2, value & 0xffff);
}

/** Adds 16-bit words in network order; an odd last byte is padded. `at` is at an even position of what is summed. */
uint64_t sum(const uint8_t* at, size_t length, uint64_t start) {
  uint64_t total = start;
  for (; length >= 2; at += 2, length -= 2) total += static_cast<uint64_t>(at[0] << 8 | at[1]);
  if (length == 1) total += static_cast<uint64_t>(at[0] << 8);
  return total;
}
uint16_t fold(uint64_t total) {
  while (total >> 16) total = (total & 0xffff) + (total >> 16);
  return static_cast<uint16_t>(total);
}
/** A complemented checksum; UDP has no zero. */
uint16_t finish(uint64_t total, bool udp) {
  const uint16_t value = static_cast<uint16_t>(~fold(total));
  return udp && value == 0 ? 0xffff : value;
}

/** Where things are in an IP packet with a TCP or UDP header at `l4`. */
struct Layout {
  bool v6;
  bool udp;
  size_t l4;
  size_t headers;
};

bool layoutOf(const uint8_t* ip, size_t length, const VnetHeader& vnet, Layout& out) {
  if (length < 20) return false;
  out.v6 = ip[0] >> 4 == 6;
  if (!out.v6 && ip[0] >> 4 != 4) return false;
  out.udp = vnet.gsoType == VnetHeader::kGsoUdp;
  out.l4 = vnet.checksumStart;
  const size_t ipHeader = out.v6 ? 40 : static_cast<size_t>(ip[0] & 15) * 4;
  if (ipHeader < 20 || out.l4 < ipHeader || out.l4 + (out.udp ? 8 : 20) > length) return false;
  const size_t l4Header = out.udp ? 8 : static_cast<size_t>(ip[out.l4 + 12] >> 4) * 4;
  if (l4Header < (out.udp ? 8u : 20u)) return false;
  out.headers = out.l4 + l4Header;
  return out.headers <= length && kVnetHeader + out.headers <= kHeadersMax;
}

uint64_t pseudoHeader(const uint8_t* ip, const Layout& layout, size_t l4Length) {
  const uint64_t addresses = layout.v6 ? sum(ip + 8, 32, 0) : sum(ip + 12, 8, 0);
  return addresses + (layout.udp ? kUdp : kTcp) + l4Length;
}

/** A packet of which only the checksum is missing; its field holds the sum of the pseudo-header. */
bool writeWhole(const uint8_t* ip, size_t length, const VnetHeader& vnet, PacketWriter write, void* context) {
  uint8_t head[kHeadersMax] = {};
  if (!(vnet.flags & VnetHeader::kNeedsChecksum)) return write(context, head, kVnetHeader, ip, length);
  const size_t start = vnet.checksumStart, field = start + vnet.checksumOffset;
  if (field + 2 > length || kVnetHeader + field + 2 > kHeadersMax) return false;
  memcpy(head + kVnetHeader, ip, field + 2);
  put16(head + kVnetHeader + field, finish(sum(ip + start, length - start, 0), vnet.checksumOffset == 6));
  return write(context, head, kVnetHeader + field + 2, ip + field + 2, length - field - 2);
}

}  // namespace

VnetHeader VnetHeader::read(const uint8_t* at) {
  VnetHeader header;
  header.flags = at[0];
  header.gsoType = static_cast<uint8_t>(at[1] & ~kGsoEcn);
  header.gsoSize = little16(at + 4);
  header.checksumStart = little16(at + 6);
  header.checksumOffset = little16(at + 8);
  return header;
}

bool writeSegments(const uint8_t* packet, size_t length, bool complete, PacketWriter write, void* context) {
  if (length <= kVnetHeader) return false;
  const VnetHeader vnet = VnetHeader::read(packet);
  const uint8_t* ip = packet + kVnetHeader;
  length -= kVnetHeader;
  if (vnet.gsoType == VnetHeader::kGsoNone) return writeWhole(ip, length, vnet, write, context);

  Layout layout;
  if (vnet.gsoSize == 0 || !layoutOf(ip, length, vnet, layout)) return false;
  const uint8_t* payload = ip + layout.headers;
  const size_t total = length - layout.headers, l4Header = layout.headers - layout.l4;
  if (total / vnet.gsoSize >= kSegmentsMax) return false;
  const size_t field = layout.l4 + (layout.udp ? 6 : 16);
  const uint32_t sequence = layout.udp ? 0 : get32(ip + layout.l4 + 4);
  const size_t id = static_cast<size_t>(ip[4] << 8 | ip[5]);
  uint8_t head[kHeadersMax] = {};
  bool all = true;
  for (size_t at = 0, i = 0; at < total || i == 0; at += vnet.gsoSize, i++) {
    const size_t body = total - at < vnet.gsoSize ? total - at : vnet.gsoSize;
    const bool last = at + body >= total;
    uint8_t* header = head + kVnetHeader;
    memcpy(header, ip, layout.headers);
    if (layout.v6) {
      put16(header + 4, layout.headers - 40 + body);
    } else {
      put16(header + 2, layout.headers + body);
      put16(header + 4, id + i);
      put16(header + 10, 0);
      put16(header + 10, finish(sum(header, static_cast<size_t>(header[0] & 15) * 4, 0), false));
    }
    if (layout.udp) {
      put16(header + layout.l4 + 4, 8 + body);
    } else {
      put32(header + layout.l4 + 4, sequence + static_cast<uint32_t>(at));
      uint8_t& flags = header[layout.l4 + 13];
      if (!last) flags &= static_cast<uint8_t>(~(kFin | kPsh));
      if (i > 0) flags &= static_cast<uint8_t>(~kCwr);
    }
    const uint64_t pseudo = pseudoHeader(header, layout, l4Header + body);
    put16(header + field, 0);
    if (complete) {
      put16(header + field, finish(sum(payload + at, body, sum(header + layout.l4, l4Header, pseudo)), layout.udp));
    } else {
      put16(header + field, fold(pseudo));
      head[0] = VnetHeader::kNeedsChecksum;
      putLittle16(head + 2, layout.headers);
      putLittle16(head + 6, layout.l4);
      putLittle16(head + 8, field - layout.l4);
    }
    all = write(context, head, kVnetHeader + layout.headers, payload + at, body) && all;
  }
  return all;
}

}  // namespace caracal
