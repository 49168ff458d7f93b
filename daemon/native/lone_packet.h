// One packet of the TUN as its flow sees it, and one of a flow as the own kernel is to see it: what lib/wire/packet.ts and headers.ts do, for packets that are in no way special.
#pragma once

#include <cstddef>
#include <cstdint>

#include "frame.h"

namespace caracal {

constexpr uint8_t kChecksumFree = 0x20;
constexpr uint8_t kIcmp6 = 58;
/** Segments with one of these change more than numbers. */
constexpr uint8_t kTcpSpecial = kFin | kSyn | kRst | kUrg;

/** What is read off a packet of the TUN. */
struct LonePacket {
  bool partial, v6;
  uint8_t protocol;  // echo of both families is 1
  uint8_t trafficClass, hopLimit, tcpFlags;
  uint8_t* ip;
  uint8_t* transport;
  uint8_t* wire;
  uint8_t* payload;
  uint8_t* end;
  const uint8_t* source;
  const uint8_t* destination;
  uint32_t ports;
  /** Of ICMPv4. */
  uint8_t echoType;

  size_t addressBytes() const { return v6 ? 16 : 4; }
  /** `vnet`: the packet, vnet header in front; it is pointed into. False for anything but a whole UDP datagram, echo or TCP segment without SYN, FIN, RST and URG. */
  bool read(uint8_t* vnet, size_t length);
};

/** What the own kernel is to see in front of what came. */
struct LocalHead {
  bool v6;
  uint8_t protocol, kind, hopLimit, trafficClass;
  const uint8_t* source;
  const uint8_t* destination;
  /** As in the row: the own one first. */
  uint32_t ports;

  /** Completes what has come, with room in front, to a packet of the TUN: writeHeaders of lib/wire/headers.ts. */
  uint8_t* write(uint8_t* wire, uint8_t* end) const;
};

}  // namespace caracal
