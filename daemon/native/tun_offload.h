// What a kernel does with a packet whose virtio_net_hdr asks for segmentation or a checksum, for kernels or devices that do not.
#pragma once

#include <cstddef>
#include <cstdint>

namespace caracal {

constexpr size_t kVnetHeader = 10;

/** struct virtio_net_hdr (linux/virtio_net.h does not compile as C++); little-endian in the buffer. */
struct VnetHeader {
  static constexpr uint8_t kNeedsChecksum = 1;
  static constexpr uint8_t kGsoNone = 0, kGsoTcp4 = 1, kGsoTcp6 = 4, kGsoUdp = 5, kGsoEcn = 0x80;

  uint8_t flags;
  /** Without the ECN bit. */
  uint8_t gsoType;
  uint16_t gsoSize;
  uint16_t checksumStart;
  uint16_t checksumOffset;

  static VnetHeader read(const uint8_t* at);
};

/** Writes one packet: `head`, which starts with a vnet header, then `body`. Returns false when the device did not take it. */
using PacketWriter = bool (*)(void* context, const uint8_t* head, size_t headLength, const uint8_t* body, size_t bodyLength);

/**
 * Cuts the packet (vnet header in front) into segments and writes each. With `complete` every checksum is computed and the vnet header of
 * what is written is zero; else checksums are left partial and the vnet header says so. Total: false for any packet that is not
 * what its vnet header says, and when a write failed; nothing outside [packet, packet + length) is read.
 */
bool writeSegments(const uint8_t* packet, size_t length, bool complete, PacketWriter write, void* context);

}  // namespace caracal
