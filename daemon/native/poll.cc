// Readiness of descriptors in the event loop of the environment (libuv is part of the node binary), and their lifetime.

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>

#include "descriptor.h"

namespace caracal {

/** A watch outlives its descriptor by one turn of the loop, until libuv has let go of it. */
struct Watch {
  uv_poll_t poll;
  Descriptors* owner;
  Descriptor* descriptor;  // null once closing
  napi_ref callback;
};

namespace {

constexpr size_t kMaxDescriptors = 4096;
constexpr uint32_t kSlotBits = 12;
constexpr uint32_t kGenerations = 1u << (31 - kSlotBits);
constexpr int kLingerEvents = 8;
/** A day. */
constexpr int64_t kMaxTimerUs = 86400000000;
/** A turn of JavaScript takes longer than a packet. What is due while packets pass waits for a gap between them: until one has passed and so long, ns, none has followed, but no longer than the other. */
constexpr uint64_t kGapNs = 250000, kGapWithinNs = 3000000;

/** What one thread wakes another with. */
struct Event : Descriptor {
  static constexpr Kind kKind = Kind::event;
  explicit Event(int fd) : Descriptor(kKind, fd) {}

 protected:
  std::unique_ptr<Descriptor> with(int fd) const override { return std::make_unique<Event>(fd); }
};

/** Goes off once, when it was last set to. */
struct Timer : Descriptor {
  static constexpr Kind kKind = Kind::timer;
  explicit Timer(int fd) : Descriptor(kKind, fd) {}
  Descriptor* step() override {
    uint64_t times;
    // It may have been set anew meanwhile.
    return read(fd, &times, sizeof times) == sizeof times ? this : nullptr;
  }

 protected:
  std::unique_ptr<Descriptor> with(int fd) const override { return std::make_unique<Timer>(fd); }
};

/** 0: it does not go off. */
void setTimer(int fd, uint64_t nanoseconds) {
  itimerspec in = {};
  in.it_value.tv_sec = static_cast<time_t>(nanoseconds / 1000000000);
  in.it_value.tv_nsec = static_cast<long>(nanoseconds % 1000000000);
  timerfd_settime(fd, 0, &in, nullptr);
}

/** Descriptors on their way from one environment of the process to another, by token. */
struct Shared {
  std::mutex mutex;
  std::map<int32_t, std::unique_ptr<Descriptor>> waiting;
  int32_t last = 0;
};
Shared& shared() {
  static Shared all;
  return all;
}

const char* kindName(Descriptor::Kind kind) {
  switch (kind) {
    case Descriptor::Kind::tun: return "a TUN's";
    case Descriptor::Kind::udp: return "a UDP socket's";
    case Descriptor::Kind::timer: return "a timer's";
    case Descriptor::Kind::netlink: return "a netlink socket's";
    case Descriptor::Kind::express: return "an express's";
    case Descriptor::Kind::keeper: return "a keeper's";
    case Descriptor::Kind::held: return "a held file's";
    default: return "an event's";
  }
}

}  // namespace

Descriptor::~Descriptor() { ::close(fd); }

std::unique_ptr<Descriptor> Descriptor::duplicate() const {
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) systemFault("CARACAL_E_LIMIT", "fcntl", errno, "cannot share the device or socket");
  return with(copy);
}

int Held::copy(const char* code) const {
  const int copied = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copied < 0) systemFault(code, "fcntl", errno, "cannot take the device or socket over");
  return copied;
}

Descriptors::Descriptors(napi_env env) : env_(env) {
  must(napi_add_async_cleanup_hook(env, onCleanup, this, &hook_), "cleanup hook");
}

Descriptors::~Descriptors() {
  if (lingerSet_ >= 0) ::close(lingerSet_);
  if (lingerTimer_ >= 0) ::close(lingerTimer_);
}

int32_t Descriptors::add(std::unique_ptr<Descriptor> descriptor) {
  size_t slot = 0;
  while (slot < slots_.size() && slots_[slot].descriptor != nullptr) slot++;
  if (slot == kMaxDescriptors) throw Fault{"CARACAL_E_LIMIT", "too many open devices and sockets"};
  if (slot == slots_.size()) slots_.emplace_back();
  slots_[slot].generation = (slots_[slot].generation + 1) % kGenerations;
  slots_[slot].descriptor = std::move(descriptor);
  return static_cast<int32_t>(slots_[slot].generation << kSlotBits | slot);
}

Descriptor& Descriptors::get(int64_t handle) {
  const size_t slot = static_cast<size_t>(handle) & (kMaxDescriptors - 1);
  if (slot >= slots_.size() || slots_[slot].descriptor == nullptr || slots_[slot].generation != handle >> kSlotBits)
    throw Fault{"CARACAL_E_CLOSED", "the device or socket is closed"};
  return *slots_[slot].descriptor;
}

Descriptor& Descriptors::get(int64_t handle, Descriptor::Kind kind) {
  Descriptor& found = get(handle);
  if (found.kind != kind) badArgument(std::string("handle must be ") + kindName(kind));
  return found;
}

void Descriptors::close(int64_t handle) {
  stopWatch(get(handle));
  slots_[static_cast<size_t>(handle) & (kMaxDescriptors - 1)].descriptor.reset();
}

void Descriptors::startWatch(Descriptor& descriptor, napi_value callback) {
  if (descriptor.watch != nullptr) throw Fault{"CARACAL_E_WATCHED", "the device or socket has a reader already"};
  uv_loop_t* loop = nullptr;
  must(napi_get_uv_event_loop(env_, &loop), "event loop");
  auto watch = std::make_unique<Watch>();
  watch->owner = this;
  watch->descriptor = &descriptor;
  watch->poll.data = watch.get();
  const int status = uv_poll_init(loop, &watch->poll, descriptor.fd);
  if (status != 0) systemFault("CARACAL_E_POLL", "uv_poll_init", -status, "cannot watch the descriptor");
  // From here on libuv knows the handle: it must go through uv_close.
  Watch* live = watch.release();
  descriptor.watch = live;
  live->callback = nullptr;
  const bool referenced = napi_create_reference(env_, callback, 1, &live->callback) == napi_ok;
  const int started = referenced ? uv_poll_start(&live->poll, UV_READABLE, onReadable) : UV_ENOMEM;
  if (started != 0) {
    stopWatch(descriptor);
    systemFault("CARACAL_E_POLL", "uv_poll_start", -started, "cannot watch the descriptor");
  }
}

void Descriptors::stopWatch(Descriptor& descriptor) {
  Watch* watch = descriptor.watch;
  if (watch == nullptr) return;
  leaveLinger(descriptor);
  descriptor.watch = nullptr;
  watch->descriptor = nullptr;
  // While the environment ends it frees its references itself.
  if (!ending_ && watch->callback != nullptr) napi_delete_reference(env_, watch->callback);
  watch->callback = nullptr;
  closing_++;
  uv_close(reinterpret_cast<uv_handle_t*>(&watch->poll), onClosed);
}

void Descriptors::pause(Descriptor& descriptor, bool on) {
  Watch* watch = descriptor.watch;
  if (watch == nullptr) return;
  leaveLinger(descriptor);
  const int status = on ? uv_poll_stop(&watch->poll) : uv_poll_start(&watch->poll, UV_READABLE, onReadable);
  if (status != 0) systemFault("CARACAL_E_POLL", "uv_poll_start", -status, "cannot watch the descriptor");
}

void Descriptors::onClosed(uv_handle_t* handle) {
  auto* watch = static_cast<Watch*>(handle->data);
  Descriptors* owner = watch->owner;
  delete watch;
  owner->closing_--;
  if (owner->ending_) owner->finishCleanup();
}

void Descriptors::onReadable(uv_poll_t* handle, int status, int) {
  auto* watch = static_cast<Watch*>(handle->data);
  if (watch->descriptor == nullptr || watch->callback == nullptr) return;
  Descriptors* const owner = watch->owner;
  Descriptor* const told = status < 0 ? watch->descriptor : watch->descriptor->step();
  if (told != nullptr) told->tell();
  if (watch->descriptor != nullptr) watch->descriptor->restedAt = uv_hrtime();
  if (told == nullptr) {
    if (owner->joinsLinger(*watch->descriptor)) owner->linger();
    return;
  }
  // An error condition ends libuv's watch. A socket's passes once it has been read; a TUN's means that the device is gone.
  if (status < 0 && watch->descriptor != nullptr && watch->descriptor->kind != Descriptor::Kind::tun)
    uv_poll_start(&watch->poll, UV_READABLE, onReadable);
}

bool Descriptors::openLinger(uv_loop_t* loop) {
  const int set = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  epoll_event event = {}, timed = {};
  event.events = timed.events = EPOLLIN;
  timed.data.ptr = &lingerTimer_;
  if (set < 0 || timer < 0 || epoll_ctl(set, EPOLL_CTL_ADD, uv_backend_fd(loop), &event) != 0 || epoll_ctl(set, EPOLL_CTL_ADD, timer, &timed) != 0) {
    if (set >= 0) ::close(set);
    if (timer >= 0) ::close(timer);
    return false;
  }
  lingerSet_ = set;
  lingerTimer_ = timer;
  return true;
}

/** A timer of its own stays armed while packets come and go; a time-out of the wait would be armed at each. */
void Descriptors::lingerUntil(const uv_loop_t* loop, int timeout) {
  const uint64_t until = timeout < 0 ? 0 : uv_now(loop) + static_cast<uint64_t>(timeout);
  if (until == lingerUntil_) return;
  armLinger(timeout < 0 ? 0 : static_cast<uint64_t>(timeout) * 1000000);
  lingerUntil_ = until;
}

/** 0: it does not go off. */
void Descriptors::armLinger(uint64_t nanoseconds) {
  lingerUntil_ = 0;
  setTimer(lingerTimer_, nanoseconds);
}

bool Descriptors::joinsLinger(Descriptor& descriptor) {
  if (descriptor.lingers) return true;
  if (lingerSet_ < 0 && !openLinger(descriptor.watch->poll.loop)) return false;
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.ptr = &descriptor;
  descriptor.lingers = epoll_ctl(lingerSet_, EPOLL_CTL_ADD, descriptor.fd, &event) == 0;
  return descriptor.lingers;
}

void Descriptors::leaveLinger(Descriptor& descriptor) {
  if (!descriptor.lingers) return;
  descriptor.lingers = false;
  epoll_ctl(lingerSet_, EPOLL_CTL_DEL, descriptor.fd, nullptr);
}

/** In libuv's set the descriptor is heard of, or not, while `linger` waits: else each packet would wake its set as well. */
void Descriptors::mute(const uv_loop_t* loop, bool on) {
  for (Slot& slot : slots_) {
    if (slot.descriptor == nullptr || !slot.descriptor->lingers) continue;
    epoll_event event = {};
    event.events = on ? 0u : static_cast<uint32_t>(EPOLLIN);
    event.data.fd = slot.descriptor->fd;
    epoll_ctl(uv_backend_fd(loop), EPOLL_CTL_MOD, slot.descriptor->fd, &event);
  }
}

/**
 * Waits here for what can be seen to without JavaScript, because a turn of libuv's and Node's loop takes longer than a packet. Returns when there is anything else to do: at once when another
 * descriptor is ready (libuv's own set is in the set) or JavaScript was called, and in the next gap between packets when a timer is due.
 */
void Descriptors::linger() {
  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env_, &loop) != napi_ok) return;
  uv_update_time(loop);
  // 0 too while libuv has watches to put into its set. Nothing here changes it.
  const int timeout = uv_backend_timeout(loop);
  if (timeout == 0) return;
  for (Slot& slot : slots_)
    if (slot.descriptor != nullptr && slot.descriptor->kind == Descriptor::Kind::timer && slot.descriptor->watch != nullptr) joinsLinger(*slot.descriptor);
  lingerUntil(loop, timeout);
  mute(loop, true);
  Descriptor* told = nullptr;
  epoll_event events[kLingerEvents];
  // Of what is due, here or to libuv's timers: until when it waits at most; 0: nothing is.
  uint64_t gapUntil = 0;
  for (bool others = false; !others && told == nullptr;) {
    const int count = epoll_wait(lingerSet_, events, kLingerEvents, -1);
    others = count <= 0;
    bool timed = false, passed = false;
    for (int i = 0; i < count && told == nullptr; i++) {
      if (events[i].data.ptr == &lingerTimer_) {
        timed = true;
        continue;
      }
      auto* const descriptor = static_cast<Descriptor*>(events[i].data.ptr);
      // An error of a descriptor is libuv's to tell.
      if (descriptor == nullptr || events[i].events != EPOLLIN) {
        others = true;
        continue;
      }
      told = descriptor->step();
      descriptor->restedAt = uv_hrtime();
      if (descriptor->isTimer()) {
        if (told == nullptr) continue;
        told->due = true;
        told = nullptr;
        timed = true;
      } else {
        passedAt_ = descriptor->restedAt;
        passed = true;
      }
    }
    const uint64_t now = passed ? passedAt_ : uv_hrtime();
    if (timed && (gapUntil > 0 || now - passedAt_ > kGapWithinNs)) break;
    if (timed) gapUntil = now + kGapWithinNs;
    if (gapUntil == 0 || others || told != nullptr) continue;
    if (now >= gapUntil) break;
    if (timed || passed) armLinger(passed ? std::min(kGapNs, gapUntil - now) : gapUntil - now);
  }
  mute(loop, false);
  if (told != nullptr) told->tell();
  tellDue();
}

/** Whatever is called may close anything, and open more. */
void Descriptors::tellDue() {
  for (size_t i = 0; i < slots_.size(); i++) {
    Descriptor* const descriptor = slots_[i].descriptor.get();
    if (descriptor == nullptr || !descriptor->due) continue;
    descriptor->due = false;
    descriptor->tell();
  }
}

void Descriptor::tell() {
  if (watch != nullptr && watch->callback != nullptr) Descriptors::call(watch);
}

void Descriptors::call(Watch* watch) {
  napi_env env = watch->owner->env_;
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value callback, receiver, result;
  if (napi_get_reference_value(env, watch->callback, &callback) == napi_ok && callback != nullptr &&
      napi_get_global(env, &receiver) == napi_ok) {
    if (napi_make_callback(env, nullptr, receiver, callback, 0, nullptr, &result) == napi_pending_exception) {
      napi_value error;
      if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
    }
  }
  napi_close_handle_scope(env, scope);
}

void Descriptors::onCleanup(napi_async_cleanup_hook_handle, void* self) {
  auto* descriptors = static_cast<Descriptors*>(self);
  descriptors->ending_ = true;
  for (Slot& slot : descriptors->slots_) {
    if (slot.descriptor == nullptr) continue;
    descriptors->stopWatch(*slot.descriptor);
    slot.descriptor->environmentEnds();
    slot.descriptor.reset();
  }
  descriptors->finishCleanup();
}

void Descriptors::finishCleanup() {
  if (closing_ > 0) return;
  napi_remove_async_cleanup_hook(hook_);
  delete this;
}

namespace {

Descriptors& all(const Arguments& args) { return *static_cast<Descriptors*>(args.data()); }

/** watch(handle, callback) */
napi_value watch(const Arguments& args) {
  Descriptor& descriptor = all(args).get(args.integer(0, "handle", 0, INT32_MAX));
  all(args).startWatch(descriptor, args.function(1, "callback"));
  return undefined(args.env());
}

/** unwatch(handle): nothing happens when nobody watches. */
napi_value unwatch(const Arguments& args) {
  all(args).stopWatch(all(args).get(args.integer(0, "handle", 0, INT32_MAX)));
  return undefined(args.env());
}

/** close(handle) */
napi_value close(const Arguments& args) {
  all(args).close(args.integer(0, "handle", 0, INT32_MAX));
  return undefined(args.env());
}

/** pause(handle, on): a watch that is on hold says nothing; nothing happens when nobody watches. */
napi_value pause(const Arguments& args) {
  all(args).pause(all(args).get(args.integer(0, "handle", 0, INT32_MAX)), args.boolean(1, "on"));
  return undefined(args.env());
}

/** share(handle) → token, with which another environment of this process may take over a descriptor of the same device or socket, once. */
napi_value share(const Arguments& args) {
  auto copy = all(args).get(args.integer(0, "handle", 0, INT32_MAX)).duplicate();
  Shared& waiting = shared();
  const std::lock_guard<std::mutex> lock(waiting.mutex);
  if (waiting.waiting.size() >= kMaxDescriptors) throw Fault{"CARACAL_E_LIMIT", "too many shared devices and sockets"};
  while (waiting.waiting.count(++waiting.last) > 0 || waiting.last <= 0)
    if (waiting.last == INT32_MAX) waiting.last = 0;
  waiting.waiting.emplace(waiting.last, std::move(copy));
  return integer(args.env(), waiting.last);
}

/** adopt(token) → handle. CARACAL_E_CLOSED when nothing waits under the token. */
napi_value adopt(const Arguments& args) {
  const auto token = static_cast<int32_t>(args.integer(0, "token", 1, INT32_MAX));
  std::unique_ptr<Descriptor> taken;
  {
    Shared& waiting = shared();
    const std::lock_guard<std::mutex> lock(waiting.mutex);
    const auto found = waiting.waiting.find(token);
    if (found == waiting.waiting.end()) throw Fault{"CARACAL_E_CLOSED", "nothing is shared under this token"};
    taken = std::move(found->second);
    waiting.waiting.erase(found);
  }
  return integer(args.env(), all(args).add(std::move(taken)));
}

/** timerOpen() → handle */
napi_value timerOpen(const Arguments& args) {
  const int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (fd < 0) systemFault("CARACAL_E_LIMIT", "timerfd_create", errno, "cannot make a timer");
  return integer(args.env(), all(args).add(std::make_unique<Timer>(fd)));
}

/** timerSet(handle, microseconds): readable once from then on, and not when it was set to before; 0: not at all. */
napi_value timerSet(const Arguments& args) {
  const auto microseconds = static_cast<uint64_t>(args.integer(1, "microseconds", 0, kMaxTimerUs));
  Timer& timer = descriptor<Timer>(args);
  timer.due = false;
  setTimer(timer.fd, microseconds * 1000);
  return undefined(args.env());
}

/** eventOpen() → handle */
napi_value eventOpen(const Arguments& args) {
  const int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd < 0) systemFault("CARACAL_E_LIMIT", "eventfd", errno, "cannot make an event");
  return integer(args.env(), all(args).add(std::make_unique<Event>(fd)));
}

/** eventSignal(handle): makes it readable, for all that share it. */
napi_value eventSignal(const Arguments& args) {
  const uint64_t one = 1;
  // Full is readable too.
  [[maybe_unused]] const ssize_t done = write(descriptor<Event>(args).fd, &one, sizeof one);
  return undefined(args.env());
}

/** eventClear(handle): not readable until it is signalled again. */
napi_value eventClear(const Arguments& args) {
  uint64_t count;
  [[maybe_unused]] const ssize_t done = read(descriptor<Event>(args).fd, &count, sizeof count);
  return undefined(args.env());
}

}  // namespace
}  // namespace caracal

void PollInit(napi_env env, napi_value exports, caracal::Descriptors* descriptors) {
  caracal::define<caracal::watch>(env, exports, "watch", descriptors);
  caracal::define<caracal::unwatch>(env, exports, "unwatch", descriptors);
  caracal::define<caracal::pause>(env, exports, "pause", descriptors);
  caracal::define<caracal::close>(env, exports, "close", descriptors);
  caracal::define<caracal::share>(env, exports, "share", descriptors);
  caracal::define<caracal::adopt>(env, exports, "adopt", descriptors);
  caracal::define<caracal::timerOpen>(env, exports, "timerOpen", descriptors);
  caracal::define<caracal::timerSet>(env, exports, "timerSet", descriptors);
  caracal::define<caracal::eventOpen>(env, exports, "eventOpen", descriptors);
  caracal::define<caracal::eventSignal>(env, exports, "eventSignal", descriptors);
  caracal::define<caracal::eventClear>(env, exports, "eventClear", descriptors);
}
