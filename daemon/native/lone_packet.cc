#include "lone_packet.h"

#include <cstring>

#include "checksum.h"
#include "tun_offload.h"

namespace caracal {
namespace {

inline uint16_t little16(const uint8_t* at) { return static_cast<uint16_t>(at[0] | at[1] << 8); }
inline void putLittle16(uint8_t* at, size_t value) {
  at[0] = static_cast<uint8_t>(value);
  at[1] = static_cast<uint8_t>(value >> 8);
}

}  // namespace

/** parsePacket of lib/wire/packet.ts, but for what is out of the ordinary. */
bool LonePacket::read(uint8_t* vnet, size_t length) {
  if (length < kVnetHeader + 28 || vnet[1] != 0) return false;
  partial = vnet[0] & 1;
  ip = vnet + kVnetHeader;
  const size_t room = length - kVnetHeader;
  size_t total;
  uint8_t next;
  tcpFlags = echoType = 0;
  v6 = ip[0] >> 4 == 6;
  if (ip[0] == 0x45) {
    total = readU16(ip + 2);
    if (readU16(ip + 6) & 0x3fff) return false;
    next = ip[9];
    trafficClass = ip[1];
    hopLimit = ip[8];
    source = ip + 12;
    destination = ip + 16;
    transport = ip + 20;
  } else if (v6 && room >= 40) {
    total = 40 + readU16(ip + 4);
    next = ip[6];
    trafficClass = static_cast<uint8_t>(ip[0] << 4 | ip[1] >> 4);
    hopLimit = ip[7];
    source = ip + 8;
    destination = ip + 24;
    transport = ip + 40;
  } else {
    return false;
  }
  if (hopLimit <= 1 || total > room || ip + total < transport + 8) return false;
  end = ip + total;
  const size_t carried = static_cast<size_t>(end - transport);
  size_t field;
  if (next == kTcp) {
    if (carried < 20) return false;
    const size_t header = static_cast<size_t>(transport[12] >> 4) * 4;
    tcpFlags = transport[13];
    if (header < 20 || header > carried || (tcpFlags & kTcpSpecial)) return false;
    payload = transport + header;
    field = 16;
  } else if (next == kUdp) {
    const size_t bytes = readU16(transport + 4);
    if (bytes < 8 || bytes > carried) return false;
    end = transport + bytes;
    payload = transport + 8;
    field = 6;
  } else if (next == (v6 ? kIcmp6 : kIcmp)) {
    const uint8_t request = v6 ? 128 : 8, reply = v6 ? 129 : 0;
    if ((transport[0] != request && transport[0] != reply) || transport[1] != 0) return false;
    echoType = transport[0] == request ? 8 : 0;
    payload = transport + 8;
    field = 2;
  } else {
    return false;
  }
  if (partial && (little16(vnet + 6) != transport - ip || little16(vnet + 8) != field)) return false;
  if (next == kTcp || next == kUdp) {
    protocol = next;
    ports = static_cast<uint32_t>(readU16(transport)) << 16 | readU16(transport + 2);
    wire = transport + 4;
  } else {
    const uint32_t identifier = readU16(transport + 4);
    protocol = kIcmp;
    ports = echoType == 8 ? identifier << 16 : identifier;
    wire = transport;
  }
  return true;
}

uint8_t* LocalHead::write(uint8_t* wire, uint8_t* end) const {
  uint8_t* const transport = protocol == kIcmp ? wire : wire - 4;
  uint8_t* const ip = transport - (v6 ? 40 : 20);
  uint8_t* const vnet = ip - kVnetHeader;
  const size_t addressBytes = v6 ? 16 : 4;
  const auto carried = static_cast<size_t>(end - transport);
  const uint64_t addresses = sumWords(source, addressBytes) + sumWords(destination, addressBytes);
  uint8_t ipProtocol = protocol;
  memset(vnet, 0, kVnetHeader);
  if (protocol == kIcmp) {
    const uint32_t word = readU16(wire);
    const bool request = word == 0x0800;
    const uint32_t identifier = request ? ports & 0xffff : ports >> 16;
    uint16_t checksum = replaceWord(readU16(wire + 2), readU16(wire + 4), identifier);
    writeU16(wire + 4, identifier);
    if (v6) {
      ipProtocol = kIcmp6;
      const uint32_t type = request ? 128 : 129;
      checksum = replaceWord(checksum, word, type << 8);
      wire[0] = static_cast<uint8_t>(type);
      checksum = addSum(checksum, addresses + kIcmp6 + carried);
    }
    writeU16(wire + 2, checksum);
  } else {
    const size_t field = protocol == kUdp ? 6 : 16;
    if (protocol == kUdp) writeU16(transport + 4, carried);
    // From the other end: its port is the source.
    const uint32_t from = ports & 0xffff, to = ports >> 16;
    writeU16(transport, from);
    writeU16(transport + 2, to);
    if (kind & kChecksumPartial) {
      writeU16(transport + field, fold(addresses + protocol + carried));
      vnet[0] = 1;
      putLittle16(vnet + 6, static_cast<size_t>(transport - ip));
      putLittle16(vnet + 8, field);
    } else {
      writeU16(transport + field, addSum(readU16(transport + field), addresses + from + to));
      if (protocol == kUdp && readU16(transport + field) == 0) writeU16(transport + field, 0xffff);
    }
  }
  if (v6) {
    writeU32(ip, 0x60000000u | static_cast<uint32_t>(trafficClass) << 20);
    writeU16(ip + 4, carried);
    ip[6] = ipProtocol;
    ip[7] = hopLimit;
    memcpy(ip + 8, source, 16);
    memcpy(ip + 24, destination, 16);
  } else {
    const uint32_t first = 0x4500u | trafficClass, total = static_cast<uint32_t>(20 + carried), fifth = static_cast<uint32_t>(hopLimit) << 8 | ipProtocol;
    writeU16(ip, first);
    writeU16(ip + 2, total);
    writeU16(ip + 4, 0);
    writeU16(ip + 6, 0x4000);
    writeU16(ip + 8, fifth);
    writeU16(ip + 10, checksumOf(uint64_t{first} + total + 0x4000 + fifth + addresses));
    memcpy(ip + 12, source, 4);
    memcpy(ip + 16, destination, 4);
  }
  return vnet;
}

}  // namespace caracal
