// What the kernel tells of links, addresses and routes (rtnetlink(7)): the changes as they happen, and everything when asked. The messages go to JavaScript as they came.

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include "descriptor.h"

namespace caracal {
namespace {

constexpr const char* kCode = "CARACAL_E_NETLINK";
/** The kernel makes no longer datagram than this for readers with such a buffer. */
constexpr size_t kDatagram = 32768;
constexpr int kOverrun = -1;
/** What a burst of changes may take before the kernel gives up on us. */
constexpr int kBuffer = 1 << 20;

struct Netlink : Descriptor {
  static constexpr Kind kKind = Kind::netlink;
  explicit Netlink(int fd) : Descriptor(kKind, fd) {}
  std::unique_ptr<Descriptor> with(int copy) const override { return std::make_unique<Netlink>(copy); }
};

/** netlinkOpen() → handle of a socket that hears of changes of links, addresses and routes in this network namespace. */
napi_value netlinkOpen(const Arguments& args) {
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) systemFault(kCode, "socket", errno, "cannot listen for changes of the network");
  auto netlink = std::make_unique<Netlink>(fd);
  // As large as we are allowed to: a full buffer is found out and made good.
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kBuffer, sizeof kBuffer);
  sockaddr_nl address = {};
  address.nl_family = AF_NETLINK;
  address.nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    systemFault(kCode, "bind", errno, "cannot listen for changes of the network");
  return integer(args.env(), static_cast<Descriptors*>(args.data())->add(std::move(netlink)));
}

/** netlinkAsk(handle, type, sequence): asks for all objects of a kind (RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE); the answer ends with NLMSG_DONE. */
napi_value netlinkAsk(const Arguments& args) {
  const Netlink& netlink = descriptor<Netlink>(args);
  const int64_t type = args.integer(1, "type", 0, UINT16_MAX);
  if (type != RTM_GETLINK && type != RTM_GETADDR && type != RTM_GETROUTE) outOfRange("type must be RTM_GETLINK, RTM_GETADDR or RTM_GETROUTE");
  struct {
    nlmsghdr header;
    // The longest of the three headers, all of which begin with the family: any.
    ifinfomsg body;
  } message = {};
  message.header.nlmsg_len = sizeof message;
  message.header.nlmsg_type = static_cast<uint16_t>(type);
  message.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  message.header.nlmsg_seq = static_cast<uint32_t>(args.integer(2, "sequence", 0, UINT32_MAX));
  ssize_t sent;
  do sent = send(netlink.fd, &message, sizeof message, 0);
  while (sent < 0 && errno == EINTR);
  if (sent < 0) systemFault(kCode, "send", errno, "cannot ask for the network's state");
  return undefined(args.env());
}

/** netlinkRead(handle, data) → bytes of the next datagram, which is one or more messages; 0: nothing waits; -1: messages were lost. Never waits. */
napi_value netlinkRead(const Arguments& args) {
  const Netlink& netlink = descriptor<Netlink>(args);
  const Span<uint8_t> data = args.bytes(1, "data", kDatagram);
  for (;;) {
    sockaddr_nl from = {};
    iovec part = {data.data, data.length};
    msghdr header = {};
    header.msg_name = &from;
    header.msg_namelen = sizeof from;
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    const ssize_t got = recvmsg(netlink.fd, &header, 0);
    if (got < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return integer(args.env(), 0);
      if (errno == ENOBUFS) return integer(args.env(), kOverrun);
      systemFault(kCode, "recvmsg", errno, "cannot hear of changes of the network");
    }
    // Other processes can send to us too.
    if (got == 0 || header.msg_namelen != sizeof from || from.nl_pid != 0) continue;
    if (header.msg_flags & MSG_TRUNC) return integer(args.env(), kOverrun);
    return integer(args.env(), static_cast<int32_t>(got));
  }
}

}  // namespace
}  // namespace caracal

void NetlinkInit(napi_env env, napi_value exports, caracal::Descriptors* descriptors) {
  caracal::define<caracal::netlinkOpen>(env, exports, "netlinkOpen", descriptors);
  caracal::define<caracal::netlinkAsk>(env, exports, "netlinkAsk", descriptors);
  caracal::define<caracal::netlinkRead>(env, exports, "netlinkRead", descriptors);
}
