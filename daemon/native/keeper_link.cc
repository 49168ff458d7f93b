// The connection to the keeper (keeper/keeper.cc): messages that carry descriptors, to which JavaScript gives their meaning.

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

#include "descriptor.h"

namespace caracal {
namespace {

constexpr const char* kCode = "CARACAL_E_KEEPER";
constexpr size_t kMessageMax = 65536;
constexpr size_t kDescriptorsMax = 8;
constexpr int32_t kNothing = -1;

struct KeeperLink : Descriptor {
  static constexpr Kind kKind = Kind::keeper;
  explicit KeeperLink(int fd) : Descriptor(kKind, fd) {}

 protected:
  std::unique_ptr<Descriptor> with(int fd) const override { return std::make_unique<KeeperLink>(fd); }
};

/** Closed on every way out. */
struct Owned {
  int fd = -1;
  ~Owned() {
    if (fd >= 0) ::close(fd);
  }
};

/** keeperConnect(directory) → handle of a connection to the keeper that listens there. The folder may have a longer name than the address of a unix socket has room for. */
napi_value keeperConnect(const Arguments& args) {
  const std::string directory = args.string(0, "directory", 4096);
  Owned folder{open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)};
  if (folder.fd < 0) systemFault(kCode, "open", errno, "cannot reach the keeper");
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/keeper.sock", folder.fd);
  auto link = std::make_unique<KeeperLink>(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (link->fd < 0) systemFault(kCode, "socket", errno, "cannot reach the keeper");
  if (connect(link->fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) systemFault(kCode, "connect", errno, "cannot reach the keeper");
  ucred peer = {};
  socklen_t length = sizeof peer;
  if (getsockopt(link->fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 || peer.uid != geteuid())
    systemFault(kCode, "SO_PEERCRED", EPERM, "the keeper belongs to somebody else");
  return integer(args.env(), static_cast<Descriptors*>(args.data())->add(std::move(link)));
}

/** keeperSend(handle, message, handles): sends one message with copies of the descriptors of these handles. Never waits. */
napi_value keeperSend(const Arguments& args) {
  const KeeperLink& link = descriptor<KeeperLink>(args);
  const Span<uint8_t> message = args.bytes(1, "message", 1);
  const Span<int32_t> handles = args.words(2, "handles");
  if (message.length > kMessageMax) outOfRange("message must have at most " + std::to_string(kMessageMax) + " bytes");
  if (handles.length > kDescriptorsMax) outOfRange("handles must be at most " + std::to_string(kDescriptorsMax));
  auto& all = *static_cast<Descriptors*>(args.data());
  iovec part = {message.data, message.length};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kDescriptorsMax)] = {};
  msghdr header = {};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (handles.length > 0) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(sizeof(int) * handles.length);
    cmsghdr* const c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * handles.length);
    for (size_t i = 0; i < handles.length; i++) memcpy(CMSG_DATA(c) + i * sizeof(int), &all.get(handles.data[i]).fd, sizeof(int));
  }
  ssize_t sent;
  do sent = sendmsg(link.fd, &header, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  if (sent < 0) systemFault(kCode, "sendmsg", errno, "the keeper was not told");
  return undefined(args.env());
}

/** keeperReceive(handle, data, handles) → bytes of the next message, 0: the keeper is gone, -1: nothing waits; the descriptors that came with it are in `handles`, which ends with -1. Never waits. */
napi_value keeperReceive(const Arguments& args) {
  const KeeperLink& link = descriptor<KeeperLink>(args);
  const Span<uint8_t> data = args.bytes(1, "data", kMessageMax);
  const Span<int32_t> handles = args.words(2, "handles", kDescriptorsMax + 1);
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kDescriptorsMax)];
  iovec part = {data.data, data.length};
  msghdr header = {};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  ssize_t got;
  // A keeper that hangs up before it has read everything makes an error of that, which comes before its last word, once.
  int resets = 0;
  do got = recvmsg(link.fd, &header, MSG_CMSG_CLOEXEC);
  while (got < 0 && (errno == EINTR || (errno == ECONNRESET && resets++ == 0)));
  std::vector<std::unique_ptr<Descriptor>> came;
  for (cmsghdr* c = got < 0 ? nullptr : CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
      came.push_back(std::make_unique<Held>(fd));
    }
  }
  if (got < 0) return integer(args.env(), errno == EAGAIN ? kNothing : 0);
  size_t count = 0;
  for (auto& one : came) handles.data[count++] = static_cast<Descriptors*>(args.data())->add(std::move(one));
  handles.data[count] = -1;
  // What does not fit is no message of a keeper.
  return integer(args.env(), header.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ? 0 : static_cast<int32_t>(got));
}

}  // namespace
}  // namespace caracal

void KeeperLinkInit(napi_env env, napi_value exports, caracal::Descriptors* descriptors) {
  caracal::define<caracal::keeperConnect>(env, exports, "keeperConnect", descriptors);
  caracal::define<caracal::keeperSend>(env, exports, "keeperSend", descriptors);
  caracal::define<caracal::keeperReceive>(env, exports, "keeperReceive", descriptors);
}
