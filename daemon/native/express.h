// Lone packets of established flows, without JavaScript: what a thread that has just woken takes to run JavaScript for one packet is longer than all the rest of its way.
//
// This is no second truth: it reads and writes the rows of the flow table (lib/flow/flow-table.ts), the peer table (lib/path/peers.ts), the session layer's marks, the ring of what
// was sent (lib/wire/recent-ring.ts) and the codec's keys where they are, on the thread of JavaScript and between its turns, so there is nothing to fill, to invalidate or to
// lock. A packet that is anything but ordinary is not touched: JavaScript gets it as it was read. What becomes of an ordinary one is byte for byte what
// lib/flow/outbound.ts and inbound.ts make of it; test/fuzz/express.test.ts compares.
//
//   outward: TUN ─▶ parse ─▶ row by 5-tuple ─▶ established? fits the path? ─▶ TCP's numbers ─▶ inner header ─▶ seal ─▶ UDP
//   inward:  UDP ─▶ open ─▶ by the path in use? ─▶ row by flow ID ─▶ replay window ─▶ TCP's numbers ─▶ local headers ─▶ TUN
#pragma once

#include <vector>

#include "codec.h"
#include "descriptor.h"

namespace caracal {

struct LonePacket;

/** A UDP socket. */
class FrameSink {
 public:
  /** `record`: an address record of the socket's family. False: the kernel did not take it. */
  virtual bool sendFrame(uint8_t* frame, size_t length, const uint8_t* record, int32_t trafficClass) = 0;
  /** The express is gone. */
  virtual void leaveExpress() = 0;

 protected:
  ~FrameSink() = default;
};
/** A queue of the TUN device. */
class PacketSink {
 public:
  /** The packet has its vnet header in front. False: the kernel did not take it. */
  virtual bool takePacket(const uint8_t* packet, size_t length) = 0;
  /** The express is gone. */
  virtual void leaveExpress() = 0;

 protected:
  ~PacketSink() = default;
};

/** What comes so long, ns, after what came before had been seen to is tried without JavaScript. What follows more closely is better worked on in batches. */
constexpr uint64_t kPauseNs = 30000;

/** How rows and the index over them lie in the words: ExpressMemory.layout in lib/host/express.ts, in this order. */
struct Layout {
  int32_t rowWords, capacity, slots, slotMask, rowMask, seed;
  /** Word positions in a row. */
  int32_t state, kind, ports, remote, local, generation, peer, remoteSlot, remoteGeneration, flags, lastOut, lastIn, acked, nextIn, nextOut, unacked;
  /** Positions of doubles in a row. */
  int32_t packetsOut, bytesOut, packetsIn, bytesIn;
  /** Values: the state of an established flow, flags of a flow, the role of a lane in use. */
  int32_t established, acceptor, confirmed, sequenced, current;
  /** The ring of what was sent: where it begins in its bytes, rows, bytes, longest run, words and doubles of a row. */
  int32_t ringAt, ringRows, ringBytes, ringLongest, ringWords;
};
constexpr size_t kLayoutWords = sizeof(Layout) / sizeof(int32_t);

/** Its descriptor is a timer, which tells JavaScript a little later that there is something to account for, or that a peer has fallen silent. */
class Express : public Descriptor {
 public:
  static constexpr Kind kKind = Kind::express;
  enum class Way { missed, taken, echo };

  /** @param memory ExpressMemory, which is checked; its arrays are held. @param now ms, of the clock that JavaScript asks. Throws Fault. */
  Express(int timer, napi_env env, SharedCodec codec, napi_value memory, double now);
  ~Express() override;

  /** Whether a packet that comes alone is to be tried. */
  bool on() const;
  /** A packet read from the TUN, vnet header in front. Missed: not a byte has changed. */
  Way outward(uint8_t* packet, size_t length);
  /** A datagram from the address in `record`. Missed: nothing has changed. Echo: what was written asks the own kernel for an answer, which is there already. */
  Way inward(const uint8_t* frame, size_t length, int32_t trafficClass, const uint8_t* record);

  /** Frames go by the socket that is bound to their own address (`local`, 16 bytes), else by the first one of the family, as in daemon/underlay.ts. */
  void addSocket(FrameSink* sink, uint8_t family, const uint8_t* local);
  void removeSocket(FrameSink* sink);

  /** Keeps typed arrays alive that devices read into, as long as this lives. */
  template <typename... Values>
  void hold(Values... arrays) {
    for (const napi_value array : {arrays...}) {
      napi_ref reference;
      must(napi_create_reference(env_, array, 1, &reference), "batch");
      references_.push_back(reference);
    }
  }

  /** It is looked soon whether JavaScript is to be told. */
  void arm();

  /** For tests: time stands still at this moment, ms; negative: it goes on. */
  void freeze(double at) { frozenAt_ = at; }

  Descriptor* step() override;
  void environmentEnds() override { references_.clear(); }

  /** Null while there is none. */
  PacketSink* packets = nullptr;
  Descriptor* tun = nullptr;

 protected:
  std::unique_ptr<Descriptor> with(int fd) const override;

 private:
  struct Socket {
    FrameSink* sink;
    uint8_t family;
    bool bound;
    uint8_t local[16];
  };

  double now() const;
  int32_t* row(int32_t index) const { return words_.data + static_cast<size_t>(index) * static_cast<size_t>(layout_.rowWords); }
  double* counts(int32_t index) const { return doubles_.data + static_cast<size_t>(index) * static_cast<size_t>(layout_.rowWords / 2); }
  const uint8_t* record(int32_t slot) const { return records_.data + static_cast<size_t>(slot) * kAddressRecord; }
  uint32_t hash(uint32_t kind, uint32_t ports, const int32_t* remote, bool v6) const;
  int32_t find(const LonePacket& packet) const;
  bool isBound(const int32_t* flow) const;
  bool isUnconfirmed(const int32_t* flow) const;
  bool hasPath(int32_t peer) const;
  int64_t room(int32_t peer) const;
  FrameSink* socketFor(const uint8_t* record) const;
  void trackOut(int32_t index, const LonePacket& packet);
  void trackIn(int32_t index, const uint8_t* wire, size_t payload);
  void remember(const uint8_t* frame, size_t length, int32_t addressSlot, int32_t trafficClass, int32_t sealSlot, double at);
  void count(size_t counter, double by) { counters_.data[counter] += by; }
  void mark(Span<double>& marks, int32_t peer, double at);
  /** There is something to account for. */
  void stir(double at);
  /** Whether JavaScript is to be told now. */
  bool isDue(double moment) const;

  napi_env env_;
  SharedCodec codec_;
  std::vector<napi_ref> references_;
  std::vector<Socket> sockets_;
  int64_t clockBase_;
  double frozenAt_ = -1;
  bool armed_ = false;
  /** When the first of what JavaScript has not accounted for yet passed, ms. */
  double stirredAt_ = 0;

  Layout layout_;
  Span<int32_t> words_, sealSlot_, addressSlot_, pathMtu_, lanePeer_, longest_, touched_, attended_, state_, ringWords_;
  Span<double> doubles_, laneOpened_, waitingSince_, owedSince_, usedAt_, pathHeardAt_, sentAt_, heardAt_, counters_, ringHead_, ringDoubles_;
  Span<uint8_t> records_, laneRole_, ring_;
  uint8_t sealed_[2048];
  /** Headroom, then a plaintext. */
  alignas(8) uint8_t opened_[kHeadroom + 2048];
};

}  // namespace caracal
