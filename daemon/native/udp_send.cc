// What goes out by a UDP socket: runs of equal frames, one message each where the kernel cuts them (GSO), many messages a call.

#include <errno.h>
#include <netinet/ip.h>
#include <netinet/udp.h>

#include <algorithm>

#include "udp.h"

namespace caracal {
namespace {

constexpr auto kSegmentsMax = static_cast<int32_t>(kGsoSegmentsMax);
constexpr auto kBytesMax = static_cast<int32_t>(kGsoBytesMax);
/** A frame that every path carries: GSO refused for less has nothing to do with the MTU. */
constexpr int32_t kSureStride = 1232;
constexpr uint8_t kWhole = 1;           // AddressFlag.whole

/** What a send call did, in frames. */
struct Outcome {
  int32_t sent = 0;
  int32_t failed = 0;
  int32_t error = 0;
};

/** Prepares message `m`: `length` bytes at `at` to the address in slot `m` of the scratch, in segments of `segment` unless 0, from the own address `local` unless that is null. */
void prepare(Udp& udp, size_t m, uint8_t* at, int32_t length, socklen_t addressLength, int32_t segment, int32_t trafficClass,
             const uint8_t* local) {
  udp.parts[m] = {at, static_cast<size_t>(length)};
  msghdr& header = udp.messages[m].msg_hdr;
  header = {};
  header.msg_name = &udp.addresses[m];
  header.msg_namelen = addressLength;
  header.msg_iov = &udp.parts[m];
  header.msg_iovlen = 1;
  if (segment == 0 && trafficClass == 0 && local == nullptr) return;
  memset(&udp.controls[m], 0, sizeof udp.controls[m]);
  header.msg_control = &udp.controls[m];
  header.msg_controllen = sizeof udp.controls[m];
  cmsghdr* c = CMSG_FIRSTHDR(&header);
  size_t used = 0;
  if (segment != 0) {
    const auto value = static_cast<uint16_t>(segment);
    c->cmsg_level = SOL_UDP;
    c->cmsg_type = UDP_SEGMENT;
    c->cmsg_len = CMSG_LEN(sizeof value);
    memcpy(CMSG_DATA(c), &value, sizeof value);
    used += CMSG_SPACE(sizeof value);
    c = CMSG_NXTHDR(&header, c);
  }
  if (trafficClass != 0) {
    const int value = trafficClass;
    c->cmsg_level = udp.v6 ? IPPROTO_IPV6 : IPPROTO_IP;
    c->cmsg_type = udp.v6 ? IPV6_TCLASS : IP_TOS;
    c->cmsg_len = CMSG_LEN(sizeof value);
    memcpy(CMSG_DATA(c), &value, sizeof value);
    used += CMSG_SPACE(sizeof value);
    c = CMSG_NXTHDR(&header, c);
  }
  if (local != nullptr && udp.v6) {
    in6_pktinfo value = {};
    memcpy(&value.ipi6_addr, local, sizeof value.ipi6_addr);
    c->cmsg_level = IPPROTO_IPV6;
    c->cmsg_type = IPV6_PKTINFO;
    c->cmsg_len = CMSG_LEN(sizeof value);
    memcpy(CMSG_DATA(c), &value, sizeof value);
    used += CMSG_SPACE(sizeof value);
  } else if (local != nullptr) {
    in_pktinfo value = {};
    memcpy(&value.ipi_spec_dst, local, sizeof value.ipi_spec_dst);
    c->cmsg_level = IPPROTO_IP;
    c->cmsg_type = IP_PKTINFO;
    c->cmsg_len = CMSG_LEN(sizeof value);
    memcpy(CMSG_DATA(c), &value, sizeof value);
    used += CMSG_SPACE(sizeof value);
  }
  header.msg_controllen = used;
}

/** Sends `count` prepared messages from `from`; returns how many went, and the error that stopped it, if any. */
int sendSome(Udp& udp, size_t from, size_t count, int& error) {
  int done;
  do done = sendmmsg(udp.fd, udp.messages + from, static_cast<unsigned>(count), 0);
  while (done < 0 && errno == EINTR);
  error = done < 0 ? errno : 0;
  return done < 0 ? 0 : done;
}

struct Run {
  uint8_t* at;
  int32_t length;
  int32_t stride;
  int32_t trafficClass;
  const uint8_t* record;
  /** The own address it is to go from; null: the kernel chooses. */
  const uint8_t* local;
  bool whole() const { return record[1] & kWhole; }
  int32_t frames() const { return length == 0 ? 0 : (length + stride - 1) / stride; }
};

/** The run in words of a descriptor, checked. */
Run runAt(const Span<uint8_t>& data, const Span<int32_t>& desc, const Span<uint8_t>& records, size_t i) {
  const int32_t* w = desc.data + i * kRunWords;
  const auto bad = [i](const char* what) { outOfRange("run " + std::to_string(i) + ": " + what); };
  if (w[0] < 0 || w[1] < 0 || static_cast<size_t>(w[0]) + static_cast<size_t>(w[1]) > data.length) bad("lies outside its buffer");
  if (w[1] > kBytesMax) bad("longer than one send carries");
  if (w[1] > 0 && (w[2] <= 0 || w[2] > kBytesMax)) bad("stride out of range");
  if (w[3] < 0 || static_cast<size_t>(w[3]) >= records.length / kAddressRecord) bad("no such address");
  if (w[4] < 0 || w[4] > 255) bad("traffic class out of range");
  const uint8_t* const record = records.data + static_cast<size_t>(w[3]) * kAddressRecord;
  const uint8_t* const local = record + kLocal;
  const Run run{data.data + w[0], w[1], w[2], w[4], record, memcmp(local, kAnyLocal, sizeof kAnyLocal) == 0 ? nullptr : local};
  if (run.frames() > kSegmentsMax) bad("too many frames");
  return run;
}

/** Whether an error may come of the own address that was named, or of the link it is on. */
bool blamesLocal(int error) {
  return error == EINVAL || error == EADDRNOTAVAIL || error == ENETUNREACH || error == EHOSTUNREACH || error == ENETDOWN;
}

/** One message a frame. */
void sendFrames(Udp& udp, const Run& run, Outcome& outcome) {
  Address to;
  const socklen_t addressLength = fromRecord(run.record, udp.v6, to);
  const auto frames = static_cast<size_t>(run.frames());
  const uint8_t* local = run.local;
  const auto prepareFrame = [&](size_t i) {
    const int32_t at = static_cast<int32_t>(i) * run.stride;
    udp.addresses[i] = to;
    prepare(udp, i, run.at + at, std::min(run.stride, run.length - at), addressLength, 0, run.trafficClass, local);
  };
  for (size_t i = 0; i < frames; i++) prepareFrame(i);
  for (size_t from = 0; from < frames;) {
    int error;
    const int done = sendSome(udp, from, frames - from, error);
    outcome.sent += done;
    from += static_cast<size_t>(done);
    if (error == 0) continue;
    if (local != nullptr && blamesLocal(error)) {
      local = nullptr;
      for (size_t i = from; i < frames; i++) prepareFrame(i);
      continue;
    }
    // A full buffer is full for the rest too.
    const size_t lost = error == EAGAIN ? frames - from : 1;
    outcome.failed += static_cast<int32_t>(lost);
    outcome.error = error;
    from += lost;
  }
}

/** Probes of what a path carries. One that is too large for our own link is no fault: nothing comes back, and that is what it was to find out. */
void sendWhole(Udp& udp, const Run& run, Outcome& outcome) {
  Outcome unused;
  setWhole(udp, true);
  sendFrames(udp, run, unused);
  setWhole(udp, false);
  outcome.sent += unused.sent;
}

/** A run that did not go as one message: GSO refused for this route or this size, or the message failed. */
void sendRefused(Udp& udp, const Run& run, int error, Outcome& outcome) {
  const bool segmented = run.frames() > 1;
  if (run.local != nullptr && blamesLocal(error)) {
    // The own address is gone, and we are to be told: meanwhile the kernel chooses.
    Run free = run;
    free.local = nullptr;
    const socklen_t addressLength = fromRecord(run.record, udp.v6, udp.addresses[0]);
    prepare(udp, 0, run.at, run.length, addressLength, segmented ? run.stride : 0, run.trafficClass, nullptr);
    if (sendSome(udp, 0, 1, error) == 1) {
      outcome.sent += run.frames();
      return;
    }
    return sendRefused(udp, free, error, outcome);
  }
  if (segmented && (error == EIO || error == EOPNOTSUPP || (error == EINVAL && run.stride <= kSureStride))) udp.refusals.add(run.record);
  if (segmented && (error == EIO || error == EOPNOTSUPP || error == EINVAL || error == EMSGSIZE)) return sendFrames(udp, run, outcome);
  outcome.failed += run.frames();
  outcome.error = error;
}

}  // namespace

bool Udp::sendFrame(uint8_t* frame, size_t length, const uint8_t* record, int32_t trafficClass) {
  const uint8_t* const local = record + kLocal;
  const auto bytes = static_cast<int32_t>(length);
  const Run run{frame, bytes, bytes, trafficClass, record, memcmp(local, kAnyLocal, sizeof kAnyLocal) == 0 ? nullptr : local};
  const socklen_t addressLength = fromRecord(record, v6, addresses[0]);
  if (addressLength == 0) return false;
  prepare(*this, 0, frame, bytes, addressLength, 0, trafficClass, run.local);
  int error;
  if (sendSome(*this, 0, 1, error) == 1) return true;
  Outcome outcome;
  if (error != EAGAIN) sendRefused(*this, run, error, outcome);
  return outcome.sent == 1;
}

/**
 * udpSend(handle, data, desc, count, records, result): sends the runs; result (Int32Array of 4) becomes frames sent, frames failed, the last error
 * (errno, 0 for none), GSO in use: 0 no, 1 yes, 2 but to some destinations. Errors of the network never throw. All descriptors are checked before the first send.
 */
napi_value udpSend(const Arguments& args) {
  Udp& udp = descriptor<Udp>(args);
  const Span<uint8_t> data = args.bytes(1, "data");
  const Span<int32_t> desc = args.words(2, "desc");
  const auto count = static_cast<size_t>(args.integer(3, "count", 0, static_cast<int64_t>(desc.length / kRunWords)));
  const Span<uint8_t> records = args.bytes(4, "records");
  const Span<int32_t> result = args.words(5, "result", 4);
  for (size_t i = 0; i < count; i++) runAt(data, desc, records, i);

  Outcome outcome;
  // Messages a call: falls to one after an error, so that a run of errors does not prepare the same messages again and again.
  size_t limit = kSendBatch;
  for (size_t next = 0; next < count;) {
    size_t prepared = 0;
    for (; prepared < limit && next + prepared < count; prepared++) {
      const Run run = runAt(data, desc, records, next + prepared);
      const socklen_t addressLength = fromRecord(run.record, udp.v6, udp.addresses[prepared]);
      const bool segmented = run.frames() > 1;
      if (run.length == 0 || addressLength == 0 || run.whole() || (segmented && (!udp.gso || udp.refusals.has(run.record)))) break;
      prepare(udp, prepared, run.at, run.length, addressLength, segmented ? run.stride : 0, run.trafficClass, run.local);
    }
    if (prepared == 0) {
      // The next one goes another way.
      const Run run = runAt(data, desc, records, next++);
      Address unused;
      if (fromRecord(run.record, udp.v6, unused) != 0) {
        if (udp.refusals.has(run.record)) udp.refusals.passed(run.record);
        if (run.whole()) sendWhole(udp, run, outcome);
        else sendFrames(udp, run, outcome);
      } else if (run.length > 0) {
        outcome.failed += run.frames();
        outcome.error = EAFNOSUPPORT;
      }
      continue;
    }
    int error;
    const auto done = static_cast<size_t>(sendSome(udp, 0, prepared, error));
    for (size_t i = 0; i < done; i++) outcome.sent += runAt(data, desc, records, next + i).frames();
    next += done;
    limit = error != 0 ? 1 : std::min(limit * 2, kSendBatch);
    if (error == EAGAIN) {
      // The socket's buffer is full: for the rest of the batch too.
      for (; next < count; next++) outcome.failed += runAt(data, desc, records, next).frames();
      outcome.error = error;
    } else if (error != 0) {
      sendRefused(udp, runAt(data, desc, records, next++), error, outcome);
    }
  }
  result.data[0] = outcome.sent;
  result.data[1] = outcome.failed;
  result.data[2] = outcome.error;
  result.data[3] = !udp.gso ? 0 : udp.refusals.any() ? 2 : 1;
  return undefined(args.env());
}

}  // namespace caracal
