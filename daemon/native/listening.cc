// Which sockets listen in this network namespace, asked of the kernel by sock_diag(7). The tables in /proc/net tell the same, but to read them the
// kernel walks the hash of all connections, a matter of milliseconds on a machine with much memory; here it walks the listening ones only.

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

namespace caracal {
namespace {

constexpr const char* kCode = "CARACAL_E_SOCKETS";
constexpr size_t kRecord = 18;  // port and address, network order; IPv4 in the first four bytes of the latter
/** States of the kernel's net/tcp_states.h; an unconnected UDP socket is "closed". */
constexpr uint32_t kClosed = 7, kListen = 10;

class Asking {
 public:
  Asking() : fd_(socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG)) {
    if (fd_ < 0) fail("socket", errno);
  }
  ~Asking() { ::close(fd_); }
  Asking(const Asking&) = delete;
  Asking& operator=(const Asking&) = delete;

  void ask(uint8_t family, uint8_t protocol) {
    struct {
      nlmsghdr header;
      inet_diag_req_v2 request;
    } message = {};
    message.header.nlmsg_len = sizeof message;
    message.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
    message.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.request.sdiag_family = family;
    message.request.sdiag_protocol = protocol;
    message.request.idiag_states = 1u << (protocol == IPPROTO_TCP ? kListen : kClosed);
    if (send(fd_, &message, sizeof message, 0) < 0) fail("send", errno);
  }

  /** Writes as many records as there is room for; returns their number. */
  size_t answers(const Span<uint8_t>& into) {
    size_t count = 0;
    for (;;) {
      alignas(nlmsghdr) char buffer[32768];
      // The kernel makes each part of the answer while the one before it is fetched: there is nothing to wait for.
      ssize_t got;
      do got = recv(fd_, buffer, sizeof buffer, MSG_DONTWAIT);
      while (got < 0 && errno == EINTR);
      if (got <= 0) fail("recv", got < 0 ? errno : EPIPE);
      auto left = static_cast<unsigned>(got);
      for (auto* header = reinterpret_cast<const nlmsghdr*>(buffer); NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
        if (header->nlmsg_type == NLMSG_DONE) return count;
        if (header->nlmsg_type == NLMSG_ERROR) {
          const auto* error = static_cast<const nlmsgerr*>(NLMSG_DATA(header));
          fail("send", header->nlmsg_len >= NLMSG_LENGTH(sizeof *error) && error->error < 0 ? -error->error : EPROTO);
        }
        if (header->nlmsg_type != SOCK_DIAG_BY_FAMILY || header->nlmsg_len < NLMSG_LENGTH(sizeof(inet_diag_msg))) continue;
        const auto* found = static_cast<const inet_diag_msg*>(NLMSG_DATA(header));
        // A connected UDP socket hears its peer only.
        if (found->id.idiag_dport != 0) continue;
        if ((count + 1) * kRecord > into.length) return count;
        uint8_t* const record = into.data + count++ * kRecord;
        memcpy(record, &found->id.idiag_sport, 2);
        memcpy(record + 2, found->id.idiag_src, 16);
      }
    }
  }

 private:
  [[noreturn]] static void fail(const char* call, int error) { systemFault(kCode, call, error, "cannot ask for listening sockets"); }

  const int fd_;
};

/** listeningSockets(udp, v6, into) → records written, at most as many as there is room for. Never waits. */
napi_value listeningSockets(const Arguments& args) {
  const bool udp = args.boolean(0, "udp"), v6 = args.boolean(1, "v6");
  const Span<uint8_t> into = args.bytes(2, "into", kRecord);
  Asking asking;
  asking.ask(v6 ? AF_INET6 : AF_INET, udp ? IPPROTO_UDP : IPPROTO_TCP);
  return integer(args.env(), static_cast<int32_t>(asking.answers(into)));
}

}  // namespace
}  // namespace caracal

void ListeningInit(napi_env env, napi_value exports) {
  caracal::define<caracal::listeningSockets>(env, exports, "listeningSockets", nullptr);
}
