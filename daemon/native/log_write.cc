// Writing to whom may not read: a log's reader must not hold up who logs.

#include <errno.h>
#include <limits.h>
#include <sys/poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "check.h"

namespace caracal {
namespace {

constexpr const char* kCode = "CARACAL_E_LOG";

/**
 * writeNow(fd, bytes) → how many of the bytes the file, terminal, pipe or stream socket has taken, 0: it has no room. Never waits, whatever flags the descriptor has, which other processes may share.
 * Throws CARACAL_E_LOG when it takes nothing any more.
 */
napi_value writeNow(const Arguments& args) {
  const int fd = static_cast<int>(args.integer(0, "fd", 0, INT_MAX));
  const Span<uint8_t> bytes = args.bytes(1, "bytes", 1);
  ssize_t taken;
  do taken = send(fd, bytes.data, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (taken < 0 && errno == EINTR);
  if (taken < 0 && errno == ENOTSOCK) {
    pollfd room = {fd, POLLOUT, 0};
    if (poll(&room, 1, 0) == 0) return integer(args.env(), 0);
    // So much has room in a pipe that has any.
    do taken = write(fd, bytes.data, std::min(bytes.length, static_cast<size_t>(PIPE_BUF)));
    while (taken < 0 && errno == EINTR);
  }
  if (taken < 0 && errno != EAGAIN) systemFault(kCode, "write", errno, "cannot write to the log");
  return integer(args.env(), taken < 0 ? 0 : static_cast<int32_t>(taken));
}

}  // namespace
}  // namespace caracal

void LogWriteInit(napi_env env, napi_value exports) { caracal::define<caracal::writeNow>(env, exports, "writeNow", nullptr); }
