// caracal-keeper DIRECTORY: holds open files for a daemon that is ended, killed or replaced, so that its device keeps its carrier and packets wait in the queues of device and sockets. It knows what
// it was given by name only, never reads or writes it, and gives it to the next daemon. Without one it runs, after a while each, the commands it was told for that; then it ends, which closes all.
//
// It listens on keeper.sock in the directory, which must be its user's own, and hears processes of that user, one at a time. It ends when it is told to, when it has given up, or when its socket is
// removed while no daemon is there, since nobody would ever find it again.

#include <errno.h>
#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>

#include "commands.h"
#include "message.h"

namespace keeper {
namespace {

constexpr const char* kSocket = "keeper.sock";
/** What a configuration allows at most: of 16 lanes (LANES_MAX) each a queue and 32 sockets (LISTEN_MAX). */
constexpr size_t kHeldMax = 16 * (1 + 32);
/** Who asks for all of that has to read meanwhile: the socket has not room for so much. */
constexpr int kReadingMs = 1000;
/** Of one message. One is asked for; more are closed and refused. */
constexpr size_t kDescriptorsMax = 8;
/** Who was never told what to do waits this long for a daemon. */
constexpr uint32_t kUntoldSeconds = 10;

int64_t nowMs() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<int64_t>(time.tv_sec) * 1000 + time.tv_nsec / 1000000;
}

[[noreturn]] void stop(const char* what) {
  fprintf(stderr, "caracal-keeper: %s: %s\n", what, strerror(errno));
  exit(1);
}

sockaddr_un socketAddress() {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  strcpy(address.sun_path, kSocket);
  return address;
}

/** Somebody answers to the socket's name. */
bool taken(const sockaddr_un& address) {
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  const bool answered = fd >= 0 && connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  if (fd >= 0) close(fd);
  return answered;
}

/** The process is in the directory from then on. */
int openSocket(const char* directory) {
  const int folder = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  struct stat status;
  if (folder < 0 || fstat(folder, &status) != 0 || fchdir(folder) != 0) stop(directory);
  close(folder);
  errno = EPERM;
  if (status.st_uid != geteuid() || (status.st_mode & 022) != 0) stop(directory);
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) stop("socket");
  const sockaddr_un address = socketAddress();
  umask(0177);
  // A killed keeper leaves the name.
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (errno != EADDRINUSE || taken(address) || unlink(kSocket) != 0) stop("there is another keeper");
    if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) stop("bind");
  }
  if (listen(fd, 4) != 0) stop("listen");
  return fd;
}

class Keeper {
 public:
  Keeper(int listener, int signals, int watch) : listener_(listener), signals_(signals), watch_(watch), since_(nowMs()) {}

  [[noreturn]] void run() {
    for (;;) {
      pollfd wanted[] = {{signals_, POLLIN, 0}, {watch_, POLLIN, 0}, {listener_, POLLIN, 0}, {daemon_, POLLIN, 0}};
      // Nobody is heard while commands run: what they undo is not to meet what a daemon does.
      if (commands_.busy() || giving_) wanted[2].fd = -1;
      poll(wanted, 4, timeout());
      if (wanted[0].revents != 0) hearSignals();
      if (wanted[1].revents != 0) lookForSocket();
      if (wanted[3].revents != 0) hear();
      if (wanted[2].revents != 0) acceptDaemon();
      commands_.go(nowMs());
      if (daemon_ < 0 && !commands_.busy()) goOn(nowMs());
      commands_.go(nowMs());
    }
  }

 private:
  struct Plans {
    bool told = false;
    Plan plan = {0, {}};
  };

  int64_t withdrawAt() const { return since_ + static_cast<int64_t>(withdraw_.plan.afterSeconds) * 1000; }
  int64_t giveUpAt() const { return since_ + static_cast<int64_t>(giveUp_.told ? giveUp_.plan.afterSeconds : kUntoldSeconds) * 1000; }

  int timeout() const {
    int64_t at = commands_.due();
    if (!commands_.busy() && daemon_ < 0) {
      at = giveUpAt();
      if (withdraw_.told && !withdrawn_) at = std::min(at, withdrawAt());
    }
    if (at < 0) return -1;
    return static_cast<int>(std::clamp<int64_t>(at - nowMs(), 0, 3600000));
  }

  /** There is no daemon, and no command runs. */
  void goOn(int64_t now) {
    if (giving_) end();
    if (withdraw_.told && !withdrawn_ && now >= withdrawAt()) withdraw();
    if (!ending_ && now < giveUpAt()) return;
    giving_ = true;
    if (withdraw_.told && !withdrawn_) withdraw();
    commands_.add(giveUp_.plan.commands);
    if (!commands_.busy()) end();
  }

  void withdraw() {
    withdrawn_ = true;
    commands_.add(withdraw_.plan.commands);
  }

  [[noreturn]] void end() {
    if (!orphaned_) unlink(kSocket);
    exit(0);
  }

  void hearSignals() {
    signalfd_siginfo signal;
    while (read(signals_, &signal, sizeof signal) == static_cast<ssize_t>(sizeof signal)) {
      if (signal.ssi_signo == SIGCHLD) continue;
      // With a daemon there it is not needed; it will start another one.
      if (daemon_ >= 0) end();
      ending_ = true;
    }
  }

  void lookForSocket() {
    alignas(inotify_event) char events[4096];
    for (;;) {
      const ssize_t length = read(watch_, events, sizeof events);
      if (length <= 0) return;
      for (ssize_t at = 0; at < length;) {
        const auto* event = reinterpret_cast<const inotify_event*>(events + at);
        if (event->len > 0 && strcmp(event->name, kSocket) == 0) orphaned_ = ending_ = true;
        at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
      }
    }
  }

  void acceptDaemon() {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    ucred peer = {};
    socklen_t length = sizeof peer;
    char byte;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 || peer.uid != geteuid()) {
      refused_++;
      close(fd);
      return;
    }
    // What the last one left to be read, its end included, comes first.
    while (daemon_ >= 0 && recv(daemon_, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0) hear();
    if (daemon_ >= 0) {
      refuse(fd, Refusal::busy);
      close(fd);
      return;
    }
    daemon_ = fd;
    daemons_++;
    found_ = withdrawn_;
    withdrawn_ = false;
  }

  void leave() {
    close(daemon_);
    daemon_ = -1;
    since_ = nowMs();
  }

  void hear() {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kDescriptorsMax)];
    iovec part = {buffer_, sizeof buffer_};
    msghdr header = {};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    const ssize_t got = recvmsg(daemon_, &header, MSG_CMSG_CLOEXEC);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) return leave();
    std::vector<int> descriptors;
    for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
      if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
      const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      const size_t before = descriptors.size();
      descriptors.resize(before + count);
      memcpy(descriptors.data() + before, CMSG_DATA(c), count * sizeof(int));
    }
    Request request = {};
    const bool whole = !(header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) && decode(buffer_, static_cast<size_t>(got), request);
    const size_t wanted = whole && request.ask == Ask::hold ? 1 : 0;
    if (!whole || descriptors.size() != wanted) {
      for (const int fd : descriptors) close(fd);
      refused_++;
      return refuse(daemon_, Refusal::malformed);
    }
    answer(request, wanted == 1 ? descriptors[0] : -1);
  }

  void answer(const Request& request, int fd) {
    switch (request.ask) {
      case Ask::take:
        for (const auto& [name, held] : held_) tell(daemon_, Answer::held, std::vector<uint8_t>(name.begin(), name.end()), held);
        return tellState();
      case Ask::state: return tellState();
      case Ask::hold: {
        const auto found = held_.find(request.name);
        if (found == held_.end() && held_.size() >= kHeldMax) {
          close(fd);
          return refuse(daemon_, Refusal::full);
        }
        if (found != held_.end()) close(found->second);
        held_[request.name] = fd;
        break;
      }
      case Ask::release: {
        const auto found = held_.find(request.name);
        if (found != held_.end()) {
          close(found->second);
          held_.erase(found);
        }
        break;
      }
      case Ask::note: note_ = request.note; break;
      case Ask::plan: (request.occasion == Occasion::withdraw ? withdraw_ : giveUp_) = {true, request.plan}; break;
      case Ask::end: end();
    }
    tell(daemon_, Answer::done, {}, -1);
  }

  void tellState() {
    std::vector<uint8_t> body;
    for (const uint32_t number : {static_cast<uint32_t>(getpid()), daemons_, static_cast<uint32_t>(held_.size()), commands_.failed, refused_, static_cast<uint32_t>(found_)})
      putU32(body, number);
    body.insert(body.end(), note_.begin(), note_.end());
    tell(daemon_, Answer::state, body, -1);
  }

  void refuse(int to, Refusal why) { tell(to, Answer::refused, {static_cast<uint8_t>(why)}, -1); }

  /** Who does not read for a while is not waited for. */
  void tell(int to, Answer kind, std::vector<uint8_t> body, int fd) {
    body.insert(body.begin(), {kVersion, static_cast<uint8_t>(kind)});
    iovec part = {body.data(), body.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr header = {};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (fd >= 0) {
      header.msg_control = control;
      header.msg_controllen = sizeof control;
      cmsghdr* const c = CMSG_FIRSTHDR(&header);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(sizeof(int));
      memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }
    ssize_t sent;
    pollfd room = {to, POLLOUT, 0};
    do sent = sendmsg(to, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && (errno == EINTR || (errno == EAGAIN && poll(&room, 1, kReadingMs) > 0)));
    // It sees from the end of the connection that it has not heard everything.
    if (sent < 0) shutdown(to, SHUT_RDWR);
  }

  const int listener_;
  const int signals_;
  const int watch_;
  int daemon_ = -1;
  std::map<std::string, int> held_;
  std::vector<uint8_t> note_;
  Plans withdraw_;
  Plans giveUp_;
  Commands commands_;
  /** Since when there is no daemon, ms. */
  int64_t since_;
  /** The first commands have been run since the last daemon. */
  bool withdrawn_ = false;
  /** They had been when this daemon came. */
  bool found_ = false;
  bool giving_ = false;
  /** It gives up as soon as there is no daemon. */
  bool ending_ = false;
  /** The socket's name is gone, or another one's. */
  bool orphaned_ = false;
  uint32_t daemons_ = 0;
  uint32_t refused_ = 0;
  uint8_t buffer_[kMessageMax];
};

}  // namespace
}  // namespace keeper

int main(int count, char** words) {
  if (count != 2) {
    fprintf(stderr, "usage: caracal-keeper DIRECTORY\n");
    return 2;
  }
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGCHLD}) sigaddset(&signals, signal);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  for (const int signal : {SIGPIPE, SIGHUP, SIGINT}) std::signal(signal, SIG_IGN);
  const int listener = keeper::openSocket(words[1]);
  const int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (watch < 0 || inotify_add_watch(watch, ".", IN_DELETE | IN_MOVED_FROM) < 0) keeper::stop("inotify");
  const int heard = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
  if (heard < 0) keeper::stop("signalfd");
  static keeper::Keeper keeper(listener, heard, watch);
  // Who has started it waits for this line; nothing is written from now on, to whomever.
  puts("ready");
  fflush(stdout);
  const int none = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd < 3; fd++) dup2(none, fd);
  keeper.run();
}
