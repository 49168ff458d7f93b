// The open TUN queues, UDP sockets, events and timers of one JavaScript environment. JavaScript holds them by handle, a number that names slot and
// generation, so that a stale or invented handle is found out and never reaches a file descriptor of somebody else. Two environments (threads) that
// use the same queue or socket have a descriptor each: `share` makes the second one, `adopt` takes it over.
#pragma once

#include <node_api.h>
#include <uv.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "check.h"

namespace caracal {

class Descriptors;

/** One file descriptor with the watch that the event loop has on it. Closing ends the watch first. */
class Descriptor {
 public:
  enum class Kind { tun, udp, event, timer, netlink, express, keeper, held };

  Descriptor(Kind kind, int fd) : kind(kind), fd(fd) {}
  virtual ~Descriptor();
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  /** The same open file by another descriptor, for another thread. Throws when the kernel has no descriptor left. */
  std::unique_ptr<Descriptor> duplicate() const;

  /** It is readable. Returns whom to tell; null: that was seen to without JavaScript. */
  virtual Descriptor* step() { return this; }
  /** What becomes readable by it is no packet, and can wait for a gap between those. */
  bool isTimer() const { return kind == Kind::timer || kind == Kind::express; }
  /** Calls who watches it. */
  void tell();
  /** No reference to anything of JavaScript is good any more. */
  virtual void environmentEnds() {}

  const Kind kind;
  const int fd;
  /** When what came last had been seen to, ns (uv_hrtime). */
  uint64_t restedAt = 0;
  /** Lives in the event loop until its close callback; null while nobody watches. */
  struct Watch* watch = nullptr;
  /** In the set of Descriptors::linger. */
  bool lingers = false;
  /** A timer that has gone off while `linger` waited, and whoever watches it is still to be told. */
  bool due = false;

 protected:
  /** A descriptor of the same kind and settings. */
  virtual std::unique_ptr<Descriptor> with(int fd) const = 0;
};

/** An open file that another process has handed over, and that is not known yet for what it is. */
struct Held : Descriptor {
  static constexpr Kind kKind = Kind::held;
  explicit Held(int fd) : Descriptor(kKind, fd) {}

  /** A further descriptor of the file. */
  int copy(const char* code) const;

 protected:
  std::unique_ptr<Descriptor> with(int fd) const override { return std::make_unique<Held>(fd); }
};

class Descriptors {
 public:
  explicit Descriptors(napi_env env);
  ~Descriptors();

  /** Takes the descriptor over; returns its handle. Throws CARACAL_E_LIMIT above 4,096. */
  int32_t add(std::unique_ptr<Descriptor> descriptor);
  /** Throws CARACAL_E_CLOSED for a handle that is not open, or open as something else. */
  Descriptor& get(int64_t handle, Descriptor::Kind kind);
  Descriptor& get(int64_t handle);
  void close(int64_t handle);

  /** Calls `callback` from the event loop whenever the descriptor is readable or broken. One watch a descriptor. */
  void startWatch(Descriptor& descriptor, napi_value callback);
  void stopWatch(Descriptor& descriptor);
  /** Readable or not, the callback is left alone until `pause(…, false)`. */
  void pause(Descriptor& descriptor, bool on);

 private:
  friend class Descriptor;
  static void onCleanup(napi_async_cleanup_hook_handle handle, void* self);
  static void onClosed(uv_handle_t* handle);
  static void onReadable(uv_poll_t* handle, int status, int events);
  static void call(struct Watch* watch);
  void linger();
  void mute(const uv_loop_t* loop, bool on);
  bool openLinger(uv_loop_t* loop);
  void lingerUntil(const uv_loop_t* loop, int timeout);
  void armLinger(uint64_t nanoseconds);
  bool joinsLinger(Descriptor& descriptor);
  void leaveLinger(Descriptor& descriptor);
  void tellDue();
  void finishCleanup();

  struct Slot {
    uint32_t generation = 0;
    std::unique_ptr<Descriptor> descriptor;
  };
  napi_env env_;
  napi_async_cleanup_hook_handle hook_ = nullptr;
  std::vector<Slot> slots_;
  /** Watches whose close callback is still to come. */
  size_t closing_ = 0;
  bool ending_ = false;
  /** An epoll set of the descriptors that were seen to without JavaScript, and of libuv's own one; -1: there is none yet. */
  int lingerSet_ = -1;
  /** A timer in that set, and when it goes off, ms of libuv's clock; 0: it does not. */
  int lingerTimer_ = -1;
  uint64_t lingerUntil_ = 0;
  /** When something was seen to last while `linger` waited, ns (uv_hrtime). */
  uint64_t passedAt_ = 0;
};

/** The descriptor that the first argument, a handle, names. */
template <typename T>
T& descriptor(const Arguments& args) {
  auto& all = *static_cast<Descriptors*>(args.data());
  return static_cast<T&>(all.get(args.integer(0, "handle", 0, INT32_MAX), T::kKind));
}

}  // namespace caracal
