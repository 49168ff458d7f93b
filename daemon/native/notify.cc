// The service manager's notification protocol (sd_notify(3)): one datagram to a unix socket, which Node cannot send. Needs no descriptor
// that stays open.

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>

#include "check.h"

namespace caracal {
namespace {

constexpr const char* kCode = "CARACAL_E_NOTIFY";
/** What a service manager reads of one datagram (PIPE_BUF). */
constexpr size_t kTextMax = 4096;

/** Address of `/path` or `@name`, which stands for the abstract name; returns its length. */
socklen_t toAddress(const std::string& path, sockaddr_un& address) {
  const bool abstract = path[0] == '@';
  // A path's NUL is part of it.
  if (path.size() + (abstract ? 0 : 1) > sizeof address.sun_path) outOfRange("path is longer than the address of a unix socket can be");
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, path.data(), path.size());
  if (abstract) address.sun_path[0] = '\0';
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (abstract ? 0 : 1));
}

/** notify(path, text): sends `text` as one datagram, without waiting. */
napi_value notify(const Arguments& args) {
  const std::string path = args.string(0, "path", sizeof(sockaddr_un::sun_path));
  const std::string text = args.string(1, "text", kTextMax);
  if (path.size() < 2 || (path[0] != '/' && path[0] != '@')) outOfRange("path must begin with / or @");
  if (text.empty()) outOfRange("text must not be empty");
  sockaddr_un address = {};
  const socklen_t length = toAddress(path, address);

  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) systemFault(kCode, "socket", errno, "cannot notify " + path);
  ssize_t sent;
  do {
    sent = sendto(fd, text.data(), text.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address), length);
  } while (sent < 0 && errno == EINTR);
  const int error = sent < 0 ? errno : 0;
  ::close(fd);
  if (error != 0) systemFault(kCode, "sendto", error, "cannot notify " + path);
  return undefined(args.env());
}

}  // namespace
}  // namespace caracal

void NotifyInit(napi_env env, napi_value exports) { caracal::define<caracal::notify>(env, exports, "notify", nullptr); }
