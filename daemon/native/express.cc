#include "express.h"

#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "checksum.h"
#include "lone_packet.h"
#include "tun_offload.h"

namespace caracal {
namespace {

/** JavaScript hears so much later of a peer that it does not know as lively, or that has fallen silent. LIVELY_MS in lib/host/express.ts. */
constexpr int64_t kAccountMs = 30;
/** And so much later of all else. Less than any of its deadlines that depend on it. */
constexpr double kSettleMs = 1000;
constexpr size_t kPlainMax = 2048 - kFrameOverhead;
constexpr double kNone = -1;  // NONE in lib/session/liveness.ts
constexpr double kWindowMax = 1073741824;  // WINDOW_MAX in lib/flow/tcp-track.ts
constexpr int64_t kPathMtu = 1500;
/** Searches are short; one that is longer is JavaScript's. */
constexpr uint32_t kSlotsMax = 64;
/** A segment so large that was sent before may have been too large for its way: JavaScript looks into it. */
constexpr int64_t kRepeatedMin = 512;
constexpr size_t kLocalAt = 24;  // ADDRESS_LOCAL
constexpr uint8_t kAnyLocal[16] = {};

constexpr uint8_t kAckFlag = 16;

/** ExpressMemory.counters. */
enum Counter : size_t {
  kTunIn, kTunOut, kFramesOut, kBytesOut, kDatagramsIn, kFramesIn, kBytesIn,
  kPacketsOut, kInnerBytesOut, kPacketsIn, kInnerBytesIn, kDelivered, kFramesFailed, kNotWritten, kNotSealed, kCounters
};
/** ExpressMemory.state. */
enum State : size_t { kOn, kTouched, kStirred, kAttended, kStates };

uint32_t mix(uint32_t h, uint32_t word) {
  const uint32_t k = (word ^ h) * 0x9e3779b1u;
  return ((k << 15 | k >> 17) * 0x1b873593u) ^ (h >> 3);
}

/** Whether `sequence` is a number that a direction of so many bytes has used: isSent of lib/flow/tcp-track.ts. */
bool isSent(int32_t next, int32_t sequence, double bytes) {
  return static_cast<double>(static_cast<uint32_t>(next) - static_cast<uint32_t>(sequence)) <= std::min(bytes, kWindowMax);
}
int32_t plus(int32_t a, uint32_t b) { return static_cast<int32_t>(static_cast<uint32_t>(a) + b); }
int32_t minus(int32_t a, int32_t b) { return static_cast<int32_t>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b)); }

/** Traffic class of a packet out of a frame's inner and outer one, -1: it must be dropped. outerToInnerEcn of lib/flow/translate.ts. */
int32_t innerClass(int32_t inner, int32_t outer) {
  const int32_t mark = outer & 3, own = inner & 3;
  if (mark == 3) return own == 0 ? -1 : inner | 3;
  if (mark == 1 && own != 0 && own != 3) return (inner & ~3) | 1;
  return inner;
}

template <typename T>
constexpr napi_typedarray_type arrayType();
template <>
constexpr napi_typedarray_type arrayType<uint8_t>() { return napi_uint8_array; }
template <>
constexpr napi_typedarray_type arrayType<int32_t>() { return napi_int32_array; }
template <>
constexpr napi_typedarray_type arrayType<double>() { return napi_float64_array; }

/** Takes the typed arrays out of an object, and holds them. */
class Holder {
 public:
  Holder(napi_env env, napi_value object, std::vector<napi_ref>& references) : env_(env), object_(object), references_(references) {}

  template <typename T>
  Span<T> take(const char* name, size_t atLeast, size_t atMost = SIZE_MAX) {
    napi_value array;
    napi_typedarray_type type;
    size_t length = 0;
    void* data = nullptr;
    if (napi_get_named_property(env_, object_, name, &array) != napi_ok ||
        napi_get_typedarray_info(env_, array, &type, &length, &data, nullptr, nullptr) != napi_ok || type != arrayType<T>() || data == nullptr)
      badArgument(std::string("memory.") + name + " must be a typed array of another kind");
    if (length < atLeast || length > atMost) outOfRange(std::string("memory.") + name + " has a wrong length");
    napi_ref reference;
    must(napi_create_reference(env_, array, 1, &reference), name);
    references_.push_back(reference);
    return {static_cast<T*>(data), length};
  }

 private:
  napi_env env_;
  napi_value object_;
  std::vector<napi_ref>& references_;
};

void checkLayout(const Layout& l, size_t words, size_t ringBytes) {
  const auto within = [](int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high) outOfRange("memory.layout does not fit");
  };
  within(l.rowWords, 8, 256);
  within(l.rowWords % 2, 0, 0);
  within(l.capacity, 1, 1 << 24);
  within(static_cast<int64_t>(l.capacity) * l.rowWords, 0, static_cast<int64_t>(words));
  for (const int64_t mask : {l.slotMask, l.rowMask}) within(mask & (mask + 1), 0, 0);
  within(l.rowMask, l.capacity, INT32_MAX);
  within(l.slots, 0, static_cast<int64_t>(words) - l.slotMask - 1);
  for (const int32_t word : {l.state, l.kind, l.ports, l.generation, l.peer, l.remoteSlot, l.remoteGeneration, l.flags, l.lastOut, l.lastIn, l.acked, l.nextIn, l.nextOut, l.unacked})
    within(word, 0, l.rowWords - 1);
  for (const int32_t word : {l.remote, l.local}) within(word, 0, l.rowWords - 4);
  for (const int32_t word : {l.packetsOut, l.bytesOut, l.packetsIn, l.bytesIn}) within(word, 0, l.rowWords / 2 - 1);
  within(l.ringRows, 1, 1 << 20);
  within(l.ringWords, 10, 64);
  within(l.ringWords % 2, 0, 0);
  within(l.ringBytes, 2048, 1 << 30);
  within(l.ringLongest, 1, l.ringBytes);
  within(l.ringAt % 8, 0, 0);
  within(int64_t{l.ringAt} + 16 + int64_t{l.ringRows} * l.ringWords * 4 + l.ringBytes, 0, static_cast<int64_t>(ringBytes));
}

}  // namespace

Express::Express(int timer, napi_env env, SharedCodec codec, napi_value memory, double now)
    : Descriptor(kKind, timer), env_(env), codec_(std::move(codec)) {
  clockBase_ = static_cast<int64_t>(uv_hrtime()) - static_cast<int64_t>(now * 1e6);
  Holder held(env, memory, references_);
  try {
    const Span<int32_t> layout = held.take<int32_t>("layout", kLayoutWords, kLayoutWords);
    memcpy(&layout_, layout.data, sizeof layout_);
    words_ = held.take<int32_t>("words", 1);
    ring_ = held.take<uint8_t>("ring", 1);
    checkLayout(layout_, words_.length, ring_.length);
    doubles_ = held.take<double>("doubles", static_cast<size_t>(layout_.capacity) * static_cast<size_t>(layout_.rowWords) / 2);
    sealSlot_ = held.take<int32_t>("sealSlot", 1);
    const size_t peers = sealSlot_.length;
    addressSlot_ = held.take<int32_t>("addressSlot", peers, peers);
    pathMtu_ = held.take<int32_t>("pathMtu", peers, peers);
    waitingSince_ = held.take<double>("waitingSince", peers, peers);
    owedSince_ = held.take<double>("owedSince", peers, peers);
    usedAt_ = held.take<double>("usedAt", peers, peers);
    pathHeardAt_ = held.take<double>("pathHeardAt", peers, peers);
    sentAt_ = held.take<double>("sentAt", peers, peers);
    heardAt_ = held.take<double>("heardAt", peers, peers);
    longest_ = held.take<int32_t>("longest", peers, peers);
    records_ = held.take<uint8_t>("records", kAddressRecord);
    lanePeer_ = held.take<int32_t>("lanePeer", kSlots, kSlots);
    laneRole_ = held.take<uint8_t>("laneRole", kSlots, kSlots);
    laneOpened_ = held.take<double>("laneOpened", kSlots, kSlots);
    touched_ = held.take<int32_t>("touched", 1);
    attended_ = held.take<int32_t>("attended", 1);
    state_ = held.take<int32_t>("state", kStates, kStates);
    counters_ = held.take<double>("counters", kCounters, kCounters);
    if (reinterpret_cast<uintptr_t>(ring_.data + layout_.ringAt) % 8 != 0) outOfRange("memory.ring is not aligned");
  } catch (...) {
    for (const napi_ref reference : references_) napi_delete_reference(env, reference);
    references_.clear();
    throw;
  }
  uint8_t* const ring = ring_.data + layout_.ringAt;
  ringHead_ = {reinterpret_cast<double*>(ring), 2};
  ringWords_ = {reinterpret_cast<int32_t*>(ring + 16), static_cast<size_t>(layout_.ringRows) * static_cast<size_t>(layout_.ringWords)};
  ringDoubles_ = {reinterpret_cast<double*>(ring + 16), ringWords_.length / 2};
}

Express::~Express() {
  if (packets != nullptr) packets->leaveExpress();
  for (const Socket& socket : sockets_) socket.sink->leaveExpress();
  for (const napi_ref reference : references_) napi_delete_reference(env_, reference);
}

std::unique_ptr<Descriptor> Express::with(int fd) const {
  ::close(fd);
  throw Fault{"CARACAL_E_ARGUMENT", "an express belongs to one thread"};
}

bool Express::on() const { return state_.data[kOn] == 1 && static_cast<size_t>(state_.data[kTouched]) + 1 < touched_.length && state_.data[kTouched] >= 0; }

double Express::now() const {
  if (frozenAt_ >= 0) return frozenAt_;
  return static_cast<double>(static_cast<int64_t>(uv_hrtime()) - clockBase_) / 1e6;
}

Descriptor* Express::step() {
  uint64_t times;
  [[maybe_unused]] const ssize_t done = read(fd, &times, sizeof times);
  armed_ = false;
  const bool due = isDue(now());
  // JavaScript may find somebody to attend to.
  if (due || state_.data[kStirred] != 0 || state_.data[kAttended] > 0) arm();
  return due ? this : nullptr;
}

bool Express::isDue(double moment) const {
  const auto silent = [&](int32_t peer) {
    return peer < 0 || static_cast<size_t>(peer) >= pathHeardAt_.length || pathHeardAt_.data[peer] <= moment - static_cast<double>(kAccountMs);
  };
  const auto attended = std::min(static_cast<size_t>(std::max(state_.data[kAttended], 0)), attended_.length);
  const auto touched = std::min(static_cast<size_t>(std::max(state_.data[kTouched], 0)), touched_.length);
  const int32_t* const all = attended_.data;
  if (std::any_of(all, all + attended, silent)) return true;
  if (state_.data[kStirred] == 0) return false;
  if (moment - stirredAt_ >= kSettleMs) return true;
  return std::any_of(touched_.data, touched_.data + touched, [&](int32_t peer) { return std::find(all, all + attended, peer) == all + attended; });
}

void Express::arm() {
  if (armed_) return;
  armed_ = true;
  itimerspec in = {};
  in.it_value.tv_nsec = kAccountMs * 1000000;
  timerfd_settime(fd, 0, &in, nullptr);
}

void Express::addSocket(FrameSink* sink, uint8_t family, const uint8_t* local) {
  Socket socket = {sink, family, memcmp(local, kAnyLocal, sizeof kAnyLocal) != 0, {}};
  memcpy(socket.local, local, sizeof socket.local);
  sockets_.push_back(socket);
}

void Express::removeSocket(FrameSink* sink) {
  sockets_.erase(std::remove_if(sockets_.begin(), sockets_.end(), [sink](const Socket& socket) { return socket.sink == sink; }), sockets_.end());
}

FrameSink* Express::socketFor(const uint8_t* record) const {
  FrameSink* first = nullptr;
  for (const Socket& socket : sockets_) {
    if (socket.family != record[0]) continue;
    if (socket.bound && memcmp(socket.local, record + kLocalAt, sizeof socket.local) == 0) return socket.sink;
    if (first == nullptr) first = socket.sink;
  }
  return first;
}

// ---- The flow ----

uint32_t Express::hash(uint32_t kind, uint32_t ports, const int32_t* remote, bool v6) const {
  uint32_t h = static_cast<uint32_t>(layout_.seed);
  h = mix(h, kind);
  h = mix(h, ports);
  h = mix(h, static_cast<uint32_t>(remote[0]));
  if (v6)
    for (int i = 1; i < 4; i++) h = mix(h, static_cast<uint32_t>(remote[i]));
  h = (h ^ (h >> 16)) * 0x85ebca6bu;
  return h ^ (h >> 13);
}

/** FlowTable.find: the row whose own kernel sends this packet, or -1. */
int32_t Express::find(const LonePacket& packet) const {
  const Layout& l = layout_;
  const size_t bytes = packet.addressBytes();
  int32_t remote[4] = {};
  memcpy(remote, packet.destination, bytes);
  const uint32_t kind = static_cast<uint32_t>(packet.protocol) << 8 | (packet.v6 ? 6 : 4);
  const uint32_t wanted = hash(kind, packet.ports, remote, packet.v6), rowMask = static_cast<uint32_t>(l.rowMask);
  for (uint32_t steps = 0; steps < kSlotsMax; steps++) {
    const auto slot = static_cast<uint32_t>(words_.data[static_cast<size_t>(l.slots) + ((wanted + steps) & static_cast<uint32_t>(l.slotMask))]);
    if (slot == 0) return -1;
    const uint32_t index = (slot & rowMask) - 1;
    if (((slot ^ wanted) & ~rowMask) != 0 || index >= static_cast<uint32_t>(l.capacity)) continue;
    const int32_t* const flow = row(static_cast<int32_t>(index));
    if (static_cast<uint32_t>(flow[l.ports]) == packet.ports && static_cast<uint32_t>(flow[l.kind]) == kind &&
        memcmp(flow + l.remote, packet.destination, bytes) == 0 && memcmp(flow + l.local, packet.source, bytes) == 0)
      return static_cast<int32_t>(index);
  }
  return -1;
}

/** Established, and its other end's flow ID known here. */
bool Express::isBound(const int32_t* flow) const {
  return flow[layout_.state] == layout_.established && flow[layout_.remoteGeneration] != 0;
}

/** This end has accepted it, and does not know whether the other has heard of it. */
bool Express::isUnconfirmed(const int32_t* flow) const {
  const Layout& l = layout_;
  return (flow[l.flags] & (l.acceptor | l.confirmed)) == l.acceptor;
}

bool Express::hasPath(int32_t peer) const {
  if (peer <= 0 || static_cast<size_t>(peer) >= sealSlot_.length) return false;
  const int32_t slot = addressSlot_.data[peer];
  return sealSlot_.data[peer] >= 0 && static_cast<size_t>(sealSlot_.data[peer]) < kSlots && slot >= 0 &&
         static_cast<size_t>(slot) < records_.length / kAddressRecord;
}

/** FrameSender.room: longest plaintext that the peer's path carries. */
int64_t Express::room(int32_t peer) const {
  const int64_t mtu = pathMtu_.data[peer];
  const int64_t ip = record(addressSlot_.data[peer])[0] == 4 ? 20 : 40;
  return (mtu > 0 ? mtu : kPathMtu) - ip - 8 - static_cast<int64_t>(kFrameOverhead);
}

/** trackOut and trackIn of lib/flow/tcp-track.ts, for segments without SYN, FIN and RST. */
void Express::trackOut(int32_t index, const LonePacket& packet) {
  int32_t* const flow = row(index);
  const Layout& l = layout_;
  const int32_t end = plus(static_cast<int32_t>(readU32(packet.wire + kTcpSequence)), static_cast<uint32_t>(packet.end - packet.payload));
  if (flow[l.nextOut] == 0 || minus(end, flow[l.nextOut]) > 0) flow[l.nextOut] = end;
  if ((packet.tcpFlags & kAckFlag) == 0) return;
  const auto acked = static_cast<int32_t>(readU32(packet.wire + kTcpAck));
  flow[l.acked] = acked;
  if (isSent(acked, flow[l.nextIn], counts(index)[l.bytesIn])) flow[l.nextIn] = acked;
}

void Express::trackIn(int32_t index, const uint8_t* wire, size_t payload) {
  int32_t* const flow = row(index);
  const Layout& l = layout_;
  const auto sequence = static_cast<int32_t>(readU32(wire + kTcpSequence));
  const int32_t end = plus(sequence, static_cast<uint32_t>(payload));
  if ((flow[l.flags] & l.sequenced) == 0) {
    flow[l.flags] |= l.sequenced;
    flow[l.nextIn] = end;
  } else if (minus(sequence, flow[l.nextIn]) <= 0 && minus(end, flow[l.nextIn]) > 0) {
    flow[l.nextIn] = end;
  }
  if ((wire[kTcpFlags] & kAckFlag) == 0) return;
  const auto acked = static_cast<int32_t>(readU32(wire + kTcpAck));
  if ((flow[l.unacked] == 0 || minus(acked, flow[l.unacked]) > 0) && minus(flow[l.nextOut], acked) >= 0) flow[l.unacked] = acked;
}

/** RecentRing.append. */
void Express::remember(const uint8_t* frame, size_t length, int32_t addressSlot, int32_t trafficClass, int32_t sealSlot, double at) {
  const Layout& l = layout_;
  if (length > static_cast<size_t>(l.ringLongest) || length > static_cast<size_t>(l.ringBytes)) return;
  double position = ringHead_.data[1];
  const double number = ringHead_.data[0];
  if (!(position >= 0 && position < 9e15 && number >= 0 && number < 9e15)) return;
  size_t offset = static_cast<size_t>(static_cast<uint64_t>(position) % static_cast<uint64_t>(l.ringBytes));
  if (offset + length > static_cast<size_t>(l.ringBytes)) {
    position += static_cast<double>(static_cast<size_t>(l.ringBytes) - offset);
    offset = 0;
  }
  memcpy(ring_.data + l.ringAt + 16 + ringWords_.length * 4 + offset, frame, length);
  const size_t line = static_cast<size_t>(static_cast<uint64_t>(number) % static_cast<uint64_t>(l.ringRows)) * static_cast<size_t>(l.ringWords);
  double* const doubles = ringDoubles_.data + line / 2;
  int32_t* const words = ringWords_.data + line;
  doubles[0] = position;
  doubles[1] = at;
  words[4] = words[5] = static_cast<int32_t>(length);
  words[6] = addressSlot;
  words[7] = trafficClass;
  words[8] = sealSlot;
  ringHead_.data[1] = position + static_cast<double>(length);
  ringHead_.data[0] = number + 1;
}

/** What JavaScript is to account for, and when at the latest. */
void Express::mark(Span<double>& marks, int32_t peer, double at) {
  if (sentAt_.data[peer] == 0 && heardAt_.data[peer] == 0) touched_.data[state_.data[kTouched]++] = peer;
  marks.data[peer] = at;
  stir(at);
}

void Express::stir(double at) {
  if (state_.data[kStirred] == 0) stirredAt_ = at;
  state_.data[kStirred] = 1;
  arm();
}

// ---- From the own programs to the network: the stages of lib/flow/outbound.ts ----

Express::Way Express::outward(uint8_t* packet, size_t length) {
  const Layout& l = layout_;
  LonePacket p;
  if (!on() || !p.read(packet, length)) return Way::missed;
  const int32_t index = find(p);
  if (index < 0) return Way::missed;
  int32_t* const flow = row(index);
  const int32_t peer = flow[l.peer];
  if (!isBound(flow) || isUnconfirmed(flow) || !hasPath(peer)) return Way::missed;
  uint8_t* const at = p.wire - kInnerHeader;
  const size_t plain = static_cast<size_t>(p.end - at), payload = static_cast<size_t>(p.end - p.payload);
  if (static_cast<int64_t>(plain) > room(peer) || plain > kPlainMax) return Way::missed;
  if (p.protocol == kTcp && static_cast<int64_t>(payload) >= kRepeatedMin && flow[l.nextOut] != 0 &&
      minus(plus(static_cast<int32_t>(readU32(p.wire + kTcpSequence)), static_cast<uint32_t>(payload)), flow[l.nextOut]) <= 0)
    return Way::missed;
  const int32_t sealSlot = sealSlot_.data[peer], addressSlot = addressSlot_.data[peer];
  FrameSink* const socket = socketFor(record(addressSlot));
  if (socket == nullptr) return Way::missed;
  bool sealed;
  {
    const Lock lock(codec_->mutex);
    SealLane* const lane = codec_->seals.get(static_cast<size_t>(sealSlot));
    if (lane == nullptr) return Way::missed;

    if (p.protocol == kTcp) trackOut(index, p);
    uint8_t kind = kKindData;
    if (p.protocol == kIcmp) {
      const uint32_t before = readU16(p.wire), after = static_cast<uint32_t>(p.echoType) << 8;
      writeU16(p.wire, after);
      if (p.partial) {
        writeU16(p.wire + 2, 0);
        writeU16(p.wire + 2, checksumOf(sumWords(p.wire, static_cast<size_t>(p.end - p.wire))));
      } else if (p.v6) {
        const uint64_t pseudo = sumWords(p.source, 32) + kIcmp6 + static_cast<uint64_t>(p.end - p.wire);
        writeU16(p.wire + 2, removeSum(replaceWord(readU16(p.wire + 2), before, after), pseudo));
      }
    } else {
      uint8_t* const field = p.transport + (p.protocol == kUdp ? 6 : 16);
      const uint16_t checksum = readU16(field);
      if (p.partial || (p.protocol == kUdp && checksum == 0)) {
        writeU16(field, 0);
        kind |= kChecksumPartial;
      } else {
        const uint64_t own = sumWords(p.source, 2 * p.addressBytes()) + (p.ports >> 16) + (p.ports & 0xffff);
        writeU16(field, removeSum(checksum, own));
        kind |= kChecksumFree;
      }
    }
    // The inner header goes over the end of the IP header, which is of no use any more.
    writeLittle(at, 4, static_cast<uint32_t>(flow[l.remoteSlot]));
    writeLittle(at + 4, 4, static_cast<uint32_t>(flow[l.remoteGeneration]));
    at[8] = kind;
    at[9] = p.trafficClass;
    at[10] = static_cast<uint8_t>(p.hopLimit - 1);
    at[11] = p.protocol;
    sealed = sealFrame(*lane, at, plain, sealed_);
  }
  if (!sealed) {
    // The packet has been written over: it is nobody's any more.
    count(kTunIn, 1);
    count(kNotSealed, 1);
    stir(now());
    return Way::taken;
  }
  const double moment = now();
  const size_t frame = plain + kFrameOverhead;
  const auto bytes = static_cast<double>(p.end - p.ip);
  remember(sealed_, frame, addressSlot, p.trafficClass, sealSlot, moment);
  if (!socket->sendFrame(sealed_, frame, record(addressSlot), p.trafficClass)) count(kFramesFailed, 1);

  flow[l.lastOut] = static_cast<int32_t>(std::floor(moment / 1000));
  counts(index)[l.packetsOut] += 1;
  counts(index)[l.bytesOut] += bytes;
  count(kTunIn, 1);
  count(kPacketsOut, 1);
  count(kInnerBytesOut, bytes);
  count(kFramesOut, 1);
  count(kBytesOut, static_cast<double>(frame));
  // Liveness.sent of lib/session/liveness.ts.
  usedAt_.data[peer] = moment;
  owedSince_.data[peer] = kNone;
  if (waitingSince_.data[peer] == kNone) waitingSince_.data[peer] = moment;
  mark(sentAt_, peer, moment);
  longest_.data[peer] = std::max(longest_.data[peer], static_cast<int32_t>(plain));
  return Way::taken;
}

// ---- From the network to the own programs: the stages of lib/flow/inbound.ts ----

Express::Way Express::inward(const uint8_t* frame, size_t length, int32_t outerClass, const uint8_t* from) {
  const Layout& l = layout_;
  if (!on() || packets == nullptr || length < kFrameMin || length > kPlainMax + kFrameOverhead) return Way::missed;
  if (frame[0] != kTypeTransport || frame[1] != kVersion) return Way::missed;
  const auto lane = static_cast<uint32_t>(readLittle(frame + kLaneAt, 4));
  const size_t slot = lane & (kSlots - 1);
  const int32_t peer = lanePeer_.data[slot];
  if (laneRole_.data[slot] != l.current || !hasPath(peer)) return Way::missed;
  // AddressTable.matches: the own address counts only where the path names one.
  const uint8_t* const path = record(addressSlot_.data[peer]);
  if (memcmp(path, from, kLocalAt) != 0) return Way::missed;
  if (memcmp(path + kLocalAt, kAnyLocal, sizeof kAnyLocal) != 0 && memcmp(path + kLocalAt, from + kLocalAt, sizeof kAnyLocal) != 0) return Way::missed;

  uint8_t* const at = opened_ + kHeadroom;
  uint8_t* const wire = at + kInnerHeader;
  const size_t plain = length - kFrameOverhead;
  uint8_t* const end = at + plain;
  int32_t index;
  LocalHead head;
  size_t payload = 0;
  {
    const Lock lock(codec_->mutex);
    OpenLane* const installed = codec_->opens.get(slot);
    if (installed == nullptr || installed->lane != lane) return Way::missed;
    const uint64_t counter = readLittle(frame + kCounterAt, 8);
    uint8_t nonce[kNonceLength] = {};
    writeLittle(nonce + 4, 8, counter);
    if (!installed->key->open(nonce, frame, kClearHeader, frame + kClearHeader, length - kClearHeader, at)) return Way::missed;

    head.kind = at[kInnerKind];
    head.protocol = at[kInnerProtocol];
    head.hopLimit = at[10];
    if ((head.kind & kKindMask) != kKindData || head.hopLimit == 0) return Way::missed;
    const uint64_t flowSlot = readLittle(at, 4);
    if (flowSlot >= static_cast<uint64_t>(l.capacity)) return Way::missed;
    index = static_cast<int32_t>(flowSlot);
    const int32_t* const flow = row(index);
    const auto generation = static_cast<uint32_t>(readLittle(at + 4, 4));
    if (generation == 0 || static_cast<uint32_t>(flow[l.generation]) != generation || flow[l.peer] != peer || !isBound(flow)) return Way::missed;
    const int32_t kind = flow[l.kind];
    if (kind >> 8 != head.protocol) return Way::missed;
    const int32_t trafficClass = innerClass(at[9], outerClass);
    if (trafficClass < 0) return Way::missed;
    const size_t room = plain - kInnerHeader;
    const bool checksum = (head.kind & (kChecksumPartial | kChecksumFree)) != 0;
    if (head.protocol == kTcp) {
      if (room < kTcpOptions || !checksum) return Way::missed;
      const int header = tcpHeaderLength(wire);
      if (header < static_cast<int>(kTcpOptions) || static_cast<size_t>(header) > room || (wire[kTcpFlags] & kTcpSpecial)) return Way::missed;
      payload = room - static_cast<size_t>(header);
    } else if (head.protocol == kUdp) {
      if (room < kUdpHeader || !checksum) return Way::missed;
    } else if (head.protocol == kIcmp) {
      if (room < kIcmpHeader || (readU16(wire) != 0x0800 && readU16(wire) != 0)) return Way::missed;
    } else {
      return Way::missed;
    }
    if (counter >= kCounterEnd || !installed->window.accept(counter)) return Way::missed;
    head.trafficClass = static_cast<uint8_t>(trafficClass);
    head.v6 = (kind & 0xff) != 4;
    head.source = reinterpret_cast<const uint8_t*>(flow + l.remote);
    head.destination = reinterpret_cast<const uint8_t*>(flow + l.local);
    head.ports = static_cast<uint32_t>(flow[l.ports]);
  }
  const bool request = head.protocol == kIcmp && wire[0] == 8;
  const double moment = now();
  int32_t* const flow = row(index);
  if (isUnconfirmed(flow)) flow[l.flags] |= l.confirmed;
  uint8_t* const vnet = head.write(wire, end);
  if (head.protocol == kTcp) trackIn(index, wire, payload);
  if (!packets->takePacket(vnet, static_cast<size_t>(end - vnet))) count(kNotWritten, 1);

  const auto bytes = static_cast<double>(static_cast<size_t>(end - vnet) - kVnetHeader);
  flow[l.lastIn] = static_cast<int32_t>(std::floor(moment / 1000));
  counts(index)[l.packetsIn] += 1;
  counts(index)[l.bytesIn] += bytes;
  count(kDatagramsIn, 1);
  count(kFramesIn, 1);
  count(kBytesIn, static_cast<double>(length));
  count(kDelivered, 1);
  count(kPacketsIn, 1);
  count(kInnerBytesIn, bytes);
  count(kTunOut, 1);
  laneOpened_.data[slot] += 1;
  // Liveness.heard and .received of lib/session/liveness.ts; the rest of PathProber.heard is JavaScript's when it accounts.
  waitingSince_.data[peer] = kNone;
  usedAt_.data[peer] = moment;
  if (owedSince_.data[peer] == kNone) owedSince_.data[peer] = moment;
  pathHeardAt_.data[peer] = moment;
  mark(heardAt_, peer, moment);
  return request ? Way::echo : Way::taken;
}

}  // namespace caracal
