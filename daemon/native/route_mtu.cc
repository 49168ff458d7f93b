// What this host's own links and routes say of how large a packet to an address may be. Not what the kernel has heard of the path from routers: that anybody may have said.

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "udp.h"

#ifndef RTM_F_FIB_MATCH
#define RTM_F_FIB_MATCH 0x2000
#endif

namespace caracal {
namespace {

constexpr int kNoRoute = -1;
constexpr size_t kAnswer = 8192;
/** The kernel answers before the request's call returns. */
constexpr timeval kPatience = {1, 0};

struct Request {
  nlmsghdr header;
  rtmsg route;
  /** Destination, source and link. */
  uint8_t attributes[64];
};

/** Closed with the scope. */
struct Socket {
  explicit Socket(int fd) : fd(fd) {}
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() {
    if (fd >= 0) close(fd);
  }
  const int fd;
};

void put(Request& request, uint16_t type, const void* value, size_t length) {
  auto* attribute = reinterpret_cast<rtattr*>(reinterpret_cast<uint8_t*>(&request) + NLMSG_ALIGN(request.header.nlmsg_len));
  attribute->rta_type = type;
  attribute->rta_len = static_cast<uint16_t>(RTA_LENGTH(length));
  memcpy(RTA_DATA(attribute), value, length);
  request.header.nlmsg_len = static_cast<uint32_t>(NLMSG_ALIGN(request.header.nlmsg_len) + RTA_ALIGN(attribute->rta_len));
}

/** Where the route lookup of this socket is to start from: the own address that a record names, if it names one that this host has. Whether it does. */
bool lookFrom(int fd, const uint8_t* record, bool v6) {
  if (memcmp(record + kLocal, kAnyLocal, sizeof kAnyLocal) == 0) return false;
  uint8_t own[kAddressRecord] = {};
  own[0] = record[0];
  memcpy(own + 8, record + kLocal, sizeof kAnyLocal);
  Address from;
  const socklen_t length = fromRecord(own, v6, from);
  const int on = 1;
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
  // Else it starts from nowhere.
  return bind(fd, &from.any, length) == 0;
}

/** The route's link, and the MTU that was set for the route: 0 where there is none, or none is told. */
struct Route {
  int link = 0;
  int mtu = 0;
};

/** Asks for the route to where the record says. `flags`: RTM_F_FIB_MATCH for the entry of the table, without what was learnt of the path; else what comes of it. */
Route routeTo(int fd, const uint8_t* record, bool v6, bool pinned, uint32_t scope, uint32_t flags) {
  const size_t length = v6 ? sizeof(in6_addr) : sizeof(in_addr);
  Request request = {};
  request.header.nlmsg_len = NLMSG_LENGTH(sizeof request.route);
  request.header.nlmsg_type = RTM_GETROUTE;
  request.header.nlmsg_flags = NLM_F_REQUEST;
  request.route.rtm_family = v6 ? AF_INET6 : AF_INET;
  request.route.rtm_dst_len = static_cast<uint8_t>(8 * length);
  request.route.rtm_flags = flags;
  put(request, RTA_DST, record + 8, length);
  if (pinned) {
    request.route.rtm_src_len = static_cast<uint8_t>(8 * length);
    put(request, RTA_SRC, record + kLocal, length);
  }
  if (scope != 0) put(request, RTA_OIF, &scope, sizeof scope);
  if (send(fd, &request, request.header.nlmsg_len, 0) < 0) return {};

  alignas(nlmsghdr) uint8_t bytes[kAnswer];
  sockaddr_nl from = {};
  socklen_t fromLength = sizeof from;
  ssize_t got;
  do got = recvfrom(fd, bytes, sizeof bytes, 0, reinterpret_cast<sockaddr*>(&from), &fromLength);
  // Other processes can send to us too.
  while ((got < 0 && errno == EINTR) || (got >= 0 && from.nl_pid != 0));
  const auto* answer = reinterpret_cast<const nlmsghdr*>(bytes);
  if (got < 0 || !NLMSG_OK(answer, static_cast<size_t>(got)) || answer->nlmsg_type != RTM_NEWROUTE || answer->nlmsg_len < NLMSG_LENGTH(sizeof(rtmsg))) return {};
  Route route;
  auto left = static_cast<int>(answer->nlmsg_len - NLMSG_LENGTH(sizeof(rtmsg)));
  const auto* attribute = reinterpret_cast<const rtattr*>(bytes + NLMSG_LENGTH(sizeof(rtmsg)));
  for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
    if (attribute->rta_type == RTA_OIF && RTA_PAYLOAD(attribute) == sizeof route.link) memcpy(&route.link, RTA_DATA(attribute), sizeof route.link);
    if (attribute->rta_type != RTA_METRICS) continue;
    auto metricsLeft = static_cast<int>(RTA_PAYLOAD(attribute));
    const auto* metric = static_cast<const rtattr*>(RTA_DATA(attribute));
    for (; RTA_OK(metric, metricsLeft); metric = RTA_NEXT(metric, metricsLeft))
      if (metric->rta_type == RTAX_MTU && RTA_PAYLOAD(metric) == sizeof route.mtu) memcpy(&route.mtu, RTA_DATA(metric), sizeof route.mtu);
  }
  return route;
}

/** MTU of the link of this index; 0: not known. */
int linkMtu(int fd, int link) {
  ifreq request = {};
  if (if_indextoname(static_cast<unsigned>(link), request.ifr_name) == nullptr || ioctl(fd, SIOCGIFMTU, &request) != 0) return 0;
  return std::max(request.ifr_mtu, 0);
}

/** routeMtu(record): MTU by which this host reaches the address: of the link, or less where the route says so; 0: not known; -1: there is no route. */
napi_value routeMtu(const Arguments& args) {
  const Span<uint8_t> record = args.bytes(0, "record", kAddressRecord);
  const bool v6 = record.data[0] == 6;
  Address to;
  const socklen_t addressLength = fromRecord(record.data, v6, to);
  if (addressLength == 0) return integer(args.env(), 0);
  const Socket udp(socket(to.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (udp.fd < 0) return integer(args.env(), 0);
  // Nothing is sent: the kernel only looks the route up.
  const bool pinned = lookFrom(udp.fd, record.data, v6);
  if (connect(udp.fd, &to.any, addressLength) != 0)
    // The last two are said by routes of the types prohibit and blackhole.
    return integer(args.env(), errno == ENETUNREACH || errno == EHOSTUNREACH || errno == ENETDOWN || errno == EACCES || errno == EINVAL ? kNoRoute : 0);
  const Socket netlink(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (netlink.fd < 0 || setsockopt(netlink.fd, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof kPatience) != 0) return integer(args.env(), 0);
  const uint32_t scope = v6 ? to.v6.sin6_scope_id : 0;
  // Of several next hops only the lookup tells which one it is; of the route's own MTU only the table.
  const int link = linkMtu(udp.fd, routeTo(netlink.fd, record.data, v6, pinned, scope, 0).link);
  const int route = routeTo(netlink.fd, record.data, v6, pinned, scope, RTM_F_FIB_MATCH).mtu;
  return integer(args.env(), route > 0 ? std::min(route, link) : link);
}

}  // namespace
}  // namespace caracal

void RouteMtuInit(napi_env env, napi_value exports) { caracal::define<caracal::routeMtu>(env, exports, "routeMtu", nullptr); }
