// UDP sockets of the underlay, and what comes in by them: batches of datagrams in one call, with GRO (one buffer holds up to 64 KB of equal segments).

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <utility>

#include "udp.h"

namespace caracal {
namespace {

constexpr const char* kCode = "CARACAL_E_UDP";
constexpr size_t kAddress = 8;
constexpr size_t kBuffer = 65536;
constexpr size_t kReceiveBatch = 8;

enum OpenFlag : int64_t { kNoGro = 1, kNoGso = 2 };

uint32_t little32(const uint8_t* at) {
  return static_cast<uint32_t>(at[0]) | static_cast<uint32_t>(at[1]) << 8 | static_cast<uint32_t>(at[2]) << 16 | static_cast<uint32_t>(at[3]) << 24;
}
void putLittle32(uint8_t* at, uint32_t value) {
  for (int i = 0; i < 4; i++) at[i] = static_cast<uint8_t>(value >> (8 * i));
}

void setOption(int fd, int level, int name, int value, const char* what) {
  if (setsockopt(fd, level, name, &value, sizeof value) != 0) systemFault(kCode, what, errno, "cannot set up the UDP socket");
}

void toRecord(const Address& from, uint8_t* record) {
  memset(record, 0, kAddressRecord);
  if (from.any.sa_family == AF_INET) {
    record[0] = 4;
    memcpy(record + 2, &from.v4.sin_port, 2);
    memcpy(record + 8, &from.v4.sin_addr, 4);
  } else if (from.any.sa_family == AF_INET6) {
    record[0] = 6;
    memcpy(record + 2, &from.v6.sin6_port, 2);
    putLittle32(record + 4, from.v6.sin6_scope_id);
    memcpy(record + 8, &from.v6.sin6_addr, 16);
  }
}

/** Asks for `wanted` bytes, beyond the system's limit where we may; returns what it became. */
int setBuffer(int fd, int force, int plain, int wanted) {
  if (setsockopt(fd, SOL_SOCKET, force, &wanted, sizeof wanted) != 0) setsockopt(fd, SOL_SOCKET, plain, &wanted, sizeof wanted);
  int got = 0;
  socklen_t length = sizeof got;
  getsockopt(fd, SOL_SOCKET, plain, &got, &length);
  // The kernel doubles what it is told, for its own bookkeeping, and reports that.
  return got / 2;
}

Address parseAddress(const std::string& text, int port) {
  Address address = {};
  const size_t percent = text.find('%');
  const std::string literal = text.substr(0, percent);
  if (inet_pton(AF_INET, literal.c_str(), &address.v4.sin_addr) == 1 && percent == std::string::npos) {
    address.v4.sin_family = AF_INET;
    address.v4.sin_port = htons(static_cast<uint16_t>(port));
    return address;
  }
  memset(&address, 0, sizeof address);
  if (inet_pton(AF_INET6, literal.c_str(), &address.v6.sin6_addr) != 1) badArgument("address must be an IP address: " + text);
  address.v6.sin6_family = AF_INET6;
  address.v6.sin6_port = htons(static_cast<uint16_t>(port));
  if (percent != std::string::npos) {
    address.v6.sin6_scope_id = if_nametoindex(text.substr(percent + 1).c_str());
    if (address.v6.sin6_scope_id == 0) badArgument("no such interface: " + text);
  }
  return address;
}

/** Sets everything of the socket that a daemon relies on, also what another daemon has set before; its options are all that it keeps. The buffers' sizes go to the last two. */
void setUp(Udp& udp, int buffer, int64_t flags, int& receive, int& send) {
  const int fd = udp.fd;
  if (udp.v6) {
    setOption(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1, "IPV6_RECVTCLASS");
    setOption(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO");
  } else {
    setOption(fd, IPPROTO_IP, IP_RECVTOS, 1, "IP_RECVTOS");
    setOption(fd, IPPROTO_IP, IP_PKTINFO, 1, "IP_PKTINFO");
  }
  setWhole(udp, false);
  receive = setBuffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, buffer);
  send = setBuffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, buffer);
  // Kernels before 4.18 would take the control message of a GSO send for nothing and send one huge datagram: ask first.
  int zero = 0, wanted = flags & kNoGro ? 0 : 1;
  udp.gso = !(flags & kNoGso) && setsockopt(fd, SOL_UDP, UDP_SEGMENT, &zero, sizeof zero) == 0;
  udp.gro = setsockopt(fd, SOL_UDP, UDP_GRO, &wanted, sizeof wanted) == 0 && wanted == 1;
}

napi_value opened(const Arguments& args, std::unique_ptr<Udp> udp, int receive, int send) {
  Address bound = {};
  socklen_t length = sizeof bound;
  if (getsockname(udp->fd, &bound.any, &length) != 0) systemFault(kCode, "getsockname", errno, "cannot open a UDP socket");
  napi_env env = args.env();
  void* bytes = nullptr;
  napi_value arrayBuffer, local;
  must(napi_create_arraybuffer(env, kAddressRecord, &bytes, &arrayBuffer), "local");
  toRecord(bound, static_cast<uint8_t*>(bytes));
  must(napi_create_typedarray(env, napi_uint8_array, kAddressRecord, arrayBuffer, 0, &local), "local");
  napi_value result = object(env);
  set(env, result, "local", local);
  set(env, result, "receiveBuffer", integer(env, receive));
  set(env, result, "sendBuffer", integer(env, send));
  set(env, result, "gro", boolean(env, udp->gro));
  set(env, result, "gso", boolean(env, udp->gso));
  set(env, result, "handle", integer(env, static_cast<Descriptors*>(args.data())->add(std::move(udp))));
  return result;
}

/** udpOpen(address, port, bufferBytes, flags) → { handle, local (address record), receiveBuffer, sendBuffer, gro, gso } */
napi_value udpOpen(const Arguments& args) {
  const std::string host = args.string(0, "address", 64);
  const int port = static_cast<int>(args.integer(1, "port", 0, 65535));
  const int buffer = static_cast<int>(args.integer(2, "bufferBytes", 4096, 1 << 29));
  const int64_t flags = args.integer(3, "flags", 0, kNoGro | kNoGso);
  const Address wanted = parseAddress(host, port);
  const bool v6 = wanted.any.sa_family == AF_INET6;

  const int fd = socket(wanted.any.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) systemFault(kCode, "socket", errno, "cannot open a UDP socket");
  auto udp = std::make_unique<Udp>(fd, v6);
  if (v6) setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1, "IPV6_V6ONLY");
  int receive, send;
  setUp(*udp, buffer, flags, receive, send);
  if (bind(fd, &wanted.any, v6 ? sizeof wanted.v6 : sizeof wanted.v4) != 0)
    systemFault(kCode, "bind", errno, "cannot listen on " + host + " port " + std::to_string(port));
  return opened(args, std::move(udp), receive, send);
}

/** udpTake(held, bufferBytes, flags) → as udpOpen: the bound socket that another process has handed over. */
napi_value udpTake(const Arguments& args) {
  const Held& held = descriptor<Held>(args);
  const int buffer = static_cast<int>(args.integer(1, "bufferBytes", 4096, 1 << 29));
  const int64_t flags = args.integer(2, "flags", 0, kNoGro | kNoGso);
  int family = 0, protocol = 0;
  socklen_t length = sizeof family;
  if (getsockopt(held.fd, SOL_SOCKET, SO_DOMAIN, &family, &length) != 0 || getsockopt(held.fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) != 0 ||
      (family != AF_INET && family != AF_INET6) || protocol != IPPROTO_UDP)
    badArgument("held must be a UDP socket's");
  auto udp = std::make_unique<Udp>(held.copy(kCode), family == AF_INET6);
  int receive, send;
  setUp(*udp, buffer, flags, receive, send);
  return opened(args, std::move(udp), receive, send);
}

/** udpLost(handle) → datagrams that the kernel has dropped, modulo 2^32, because the socket's buffer was full or they were damaged; also before this process had the socket. */
napi_value udpLost(const Arguments& args) {
  uint32_t counts[SK_MEMINFO_VARS] = {};
  socklen_t length = sizeof counts;
  if (getsockopt(descriptor<Udp>(args).fd, SOL_SOCKET, SO_MEMINFO, counts, &length) != 0) return number(args.env(), 0);
  return number(args.env(), counts[SK_MEMINFO_DROPS]);
}

/** Segment size, traffic class and own address (into the last part of `record`) from a received message's control data. */
void readControl(msghdr& header, int32_t& segment, int32_t& trafficClass, uint8_t* record) {
  segment = 0;
  trafficClass = 0;
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO && c->cmsg_len >= CMSG_LEN(sizeof(int))) {
      memcpy(&segment, CMSG_DATA(c), sizeof segment);
    } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS && c->cmsg_len >= CMSG_LEN(1)) {
      trafficClass = *CMSG_DATA(c);
    } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS && c->cmsg_len >= CMSG_LEN(sizeof(int))) {
      memcpy(&trafficClass, CMSG_DATA(c), sizeof trafficClass);
    } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO && c->cmsg_len >= CMSG_LEN(sizeof(in_pktinfo))) {
      memcpy(record + kLocal, CMSG_DATA(c) + offsetof(in_pktinfo, ipi_spec_dst), sizeof(in_addr));
    } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO && c->cmsg_len >= CMSG_LEN(sizeof(in6_pktinfo))) {
      memcpy(record + kLocal, CMSG_DATA(c) + offsetof(in6_pktinfo, ipi6_addr), sizeof(in6_addr));
    }
  }
}

/** Receives datagrams behind the `first` ones, at most `most` in all and as many as there is room for; returns how many there are then. */
int32_t receive(Udp& udp, const Span<uint8_t>& data, const Span<int32_t>& desc, const Span<uint8_t>& addresses, size_t first, size_t most) {
  const size_t room = std::min({data.length / kBuffer, desc.length / kDatagramWords, addresses.length / kAddressRecord, most});
  if (room <= first) return static_cast<int32_t>(first);
  for (size_t i = first; i < room; i++) {
    udp.parts[i] = {data.data + i * kBuffer, kBuffer};
    msghdr& header = udp.messages[i].msg_hdr;
    header = {};
    header.msg_name = &udp.addresses[i];
    header.msg_namelen = sizeof udp.addresses[i];
    header.msg_iov = &udp.parts[i];
    header.msg_iovlen = 1;
    header.msg_control = &udp.controls[i];
    header.msg_controllen = sizeof udp.controls[i];
  }
  int got;
  // An error that an earlier send left behind (ECONNREFUSED and its kin) is taken off by reading it: it says nothing of what waits.
  int tries = 0;
  do got = recvmmsg(udp.fd, udp.messages + first, static_cast<unsigned>(room - first), 0, nullptr);
  while (got < 0 && errno != EAGAIN && errno != ENOMEM && errno != EBADF && ++tries < 4);
  const size_t end = first + static_cast<size_t>(std::max(got, 0));
  auto count = static_cast<int32_t>(first);
  for (size_t i = first; i < end; i++) {
    msghdr& header = udp.messages[i].msg_hdr;
    if ((header.msg_flags & MSG_TRUNC) || header.msg_namelen == 0) continue;
    int32_t* words = desc.data + static_cast<size_t>(count) * kDatagramWords;
    words[0] = static_cast<int32_t>(i * kBuffer);
    words[1] = static_cast<int32_t>(udp.messages[i].msg_len);
    uint8_t* const record = addresses.data + static_cast<size_t>(count) * kAddressRecord;
    toRecord(udp.addresses[i], record);
    readControl(header, words[2], words[3], record);
    // A lone segment is one datagram.
    if (words[2] >= words[1] || words[2] < 0) words[2] = 0;
    count++;
  }
  return count;
}

/** udpReceive(handle, data, desc, addresses) → datagrams received, at most 8 and as many as there is room for. */
napi_value udpReceive(const Arguments& args) {
  Udp& udp = descriptor<Udp>(args);
  const Span<uint8_t> data = args.bytes(1, "data", kBuffer);
  const Span<int32_t> desc = args.words(2, "desc", kDatagramWords);
  const Span<uint8_t> addresses = args.bytes(3, "addresses", kAddressRecord);
  if (udp.waiting > 0 && (data.data != udp.data.data || desc.data != udp.desc.data || addresses.data != udp.records.data))
    badArgument("data must be the batch that express receives into");
  if (udp.waiting > 0) return integer(args.env(), std::exchange(udp.waiting, 0));
  return integer(args.env(), receive(udp, data, desc, addresses, 0, kReceiveBatch));
}

/** udpExpress(handle, express, local, data, desc, addresses): what comes alone is tried by `express` (a handle) from now on, and it sends by this socket. `local`: the socket's own address record. The arrays, a DatagramBatch's, are the ones that udpReceive is called with. */
napi_value udpExpress(const Arguments& args) {
  Udp& udp = descriptor<Udp>(args);
  auto& express = static_cast<Express&>(static_cast<Descriptors*>(args.data())->get(args.integer(1, "express", 0, INT32_MAX), Express::kKind));
  const Span<uint8_t> local = args.bytes(2, "local", kAddressRecord);
  if (udp.express != nullptr) throw Fault{"CARACAL_E_WATCHED", "there is an express for the socket already"};
  udp.data = args.bytes(3, "data", kBuffer);
  udp.desc = args.words(4, "desc", kDatagramWords);
  udp.records = args.bytes(5, "addresses", kAddressRecord);
  express.hold(args.value(3), args.value(4), args.value(5));
  express.addSocket(&udp, udp.v6 ? 6 : 4, local.data + kAddress);
  udp.express = &express;
  return undefined(args.env());
}

}  // namespace

/** A datagram that comes after a pause mostly comes alone, and is tried without JavaScript. From the first one on that this is not for, all stay in JavaScript's batch. */
Descriptor* Udp::step() {
  if (waiting > 0) return this;
  if (express == nullptr || !express->on() || uv_hrtime() - restedAt < kPauseNs) return this;
  waiting = receive(*this, data, desc, records, 0, 1);
  if (waiting == 0) return nullptr;
  const int32_t* const words = desc.data;
  const Express::Way way = words[2] != 0 ? Express::Way::missed : express->inward(data.data + words[0], static_cast<size_t>(words[1]), words[3], records.data);
  if (way == Express::Way::missed) {
    waiting = receive(*this, data, desc, records, 1, kReceiveBatch);
    return this;
  }
  waiting = 0;
  return way == Express::Way::echo && express->tun != nullptr ? express->tun->step() : nullptr;
}

socklen_t fromRecord(const uint8_t* record, bool v6, Address& to) {
  memset(&to, 0, sizeof to);
  if (record[0] == 4 && !v6) {
    to.v4.sin_family = AF_INET;
    memcpy(&to.v4.sin_port, record + 2, 2);
    memcpy(&to.v4.sin_addr, record + 8, 4);
    return sizeof to.v4;
  }
  if (record[0] == 6 && v6) {
    to.v6.sin6_family = AF_INET6;
    memcpy(&to.v6.sin6_port, record + 2, 2);
    to.v6.sin6_scope_id = little32(record + 4);
    memcpy(&to.v6.sin6_addr, record + 8, 16);
    return sizeof to.v6;
  }
  return 0;
}

void setWhole(const Udp& udp, bool whole) {
  if (udp.v6) setOption(udp.fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, whole ? IPV6_PMTUDISC_PROBE : IPV6_PMTUDISC_OMIT, "IPV6_MTU_DISCOVER");
  else setOption(udp.fd, IPPROTO_IP, IP_MTU_DISCOVER, whole ? IP_PMTUDISC_PROBE : IP_PMTUDISC_OMIT, "IP_MTU_DISCOVER");
}

}  // namespace caracal

void UdpInit(napi_env env, napi_value exports, caracal::Descriptors* descriptors) {
  caracal::define<caracal::udpOpen>(env, exports, "udpOpen", descriptors);
  caracal::define<caracal::udpTake>(env, exports, "udpTake", descriptors);
  caracal::define<caracal::udpReceive>(env, exports, "udpReceive", descriptors);
  caracal::define<caracal::udpExpress>(env, exports, "udpExpress", descriptors);
  caracal::define<caracal::udpLost>(env, exports, "udpLost", descriptors);
  caracal::define<caracal::udpSend>(env, exports, "udpSend", descriptors);
}
