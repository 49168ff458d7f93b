// A UDP socket of the underlay: what receiving (udp.cc) and sending (udp_send.cc) share. Addresses are the 40-byte records of lib/wire/batch.ts: on receive with the own address
// that was asked, on send with the one to send from, if it matters.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>

#include "descriptor.h"
#include "express.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

namespace caracal {

constexpr size_t kLocal = 24;           // ADDRESS_LOCAL
constexpr uint8_t kAnyLocal[16] = {};   // no own address is named
constexpr size_t kSendBatch = 64;

union Address {
  sockaddr any;
  sockaddr_in v4;
  sockaddr_in6 v6;
};
union Control {
  char bytes[128];
  cmsghdr align;
};

/**
 * Destinations whose runs the kernel does not take as one message: the device on the way there does not cut them. Theirs go frame by frame, all others' do not suffer by it; and after so many
 * runs it is tried again, for the way may be another one by then.
 */
class GsoRefusals {
 public:
  /** Whether a run to the record is to go frame by frame. */
  bool has(const uint8_t* record) const {
    if (lasting_ == 0) return false;
    const uint32_t key = hash(record);
    const Line& line = lines_[key % kLines];
    return line.left > 0 && line.key == key;
  }
  /** A run to a record that it has goes. */
  void passed(const uint8_t* record) {
    if (--lines_[hash(record) % kLines].left == 0) lasting_--;
  }
  void add(const uint8_t* record) {
    const uint32_t key = hash(record);
    Line& line = lines_[key % kLines];
    if (line.left == 0) lasting_++;
    line = {key, kRuns};
  }
  bool any() const { return lasting_ > 0; }

 private:
  static constexpr size_t kLines = 64;
  static constexpr uint32_t kRuns = 4096;
  /** Two destinations of one line put each other out, which costs a refused send now and then. */
  struct Line {
    uint32_t key = 0;
    uint32_t left = 0;
  };
  static uint32_t hash(const uint8_t* record) {
    uint32_t h = 0;
    for (size_t at = 0; at < kAddressRecord; at += sizeof h) {
      uint32_t word;
      memcpy(&word, record + at, sizeof word);
      h = (h ^ word) * 0x9e3779b1u;
      h ^= h >> 15;
    }
    return h;
  }
  Line lines_[kLines];
  size_t lasting_ = 0;
};

struct Udp : Descriptor, FrameSink {
  static constexpr Kind kKind = Kind::udp;
  Udp(int fd, bool v6) : Descriptor(kKind, fd), v6(v6) {}
  ~Udp() override {
    if (express != nullptr) express->removeSocket(this);
  }
  const bool v6;
  bool gro = false;
  /** The kernel cuts runs, as far as the device on the way does. */
  bool gso = false;
  GsoRefusals refusals;
  // Scratch of one call each.
  mmsghdr messages[kSendBatch] = {};
  iovec parts[kSendBatch] = {};
  Address addresses[kSendBatch] = {};
  Control controls[kSendBatch] = {};
  /** Is tried first with what comes alone; null: nobody is. */
  Express* express = nullptr;
  /** What JavaScript receives into; what was received there for it, and is what it gets next. */
  Span<uint8_t> data = {};
  Span<int32_t> desc = {};
  Span<uint8_t> records = {};
  int32_t waiting = 0;

  Descriptor* step() override;
  bool sendFrame(uint8_t* frame, size_t length, const uint8_t* record, int32_t trafficClass) override;
  void leaveExpress() override { express = nullptr; }

 protected:
  std::unique_ptr<Descriptor> with(int fd) const override {
    auto copy = std::make_unique<Udp>(fd, v6);
    copy->gro = gro;
    copy->gso = gso;
    return copy;
  }
};

/** Length of the socket address; 0 when the record is empty or of the other family. */
socklen_t fromRecord(const uint8_t* record, bool v6, Address& to);

/**
 * Whether what is sent is never fragmented. Either way only the device's own MTU counts: what the kernel has heard of the path anybody may have said, and it would cut our frames, or
 * refuse our probes, by it.
 */
void setWhole(const Udp& udp, bool whole);

napi_value udpSend(const Arguments& args);

}  // namespace caracal
