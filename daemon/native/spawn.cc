// Programs run to their end. Node's own way forks this process, whose threads then all stand still while its page tables are copied, and stumble over each page that they write to for the first time since: that
// is milliseconds, which packets wait for. posix_spawn(3) shares the memory with the child instead, until it has become the program; and a thread of libuv's pool waits for it.

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "check.h"

#ifndef __GLIBC_PREREQ
#define __GLIBC_PREREQ(major, minor) 0
#endif

namespace caracal {
namespace {

constexpr const char* kCode = "CARACAL_E_SPAWN";
/** Of one word or variable; the kernel takes no longer one (MAX_ARG_STRLEN, with its NUL). */
constexpr size_t kWordMax = (128 << 10) - 1;
constexpr int64_t kWordsMax = 65536;
constexpr int64_t kInputMax = 64 << 20;
constexpr int64_t kOutputMax = 64 << 20;
constexpr int64_t kLimitMaxMs = 3600 * 1000;

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(); }
  int fd() const { return fd_; }
  void set(int fd) { close(), fd_ = fd; }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

struct Pipe {
  Descriptor read, write;
  void open() {
    int both[2];
    if (pipe2(both, O_CLOEXEC) != 0) systemFault(kCode, "pipe2", errno, "cannot run a program");
    read.set(both[0]);
    write.set(both[1]);
  }
};

int64_t nowMs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

struct Run {
  std::vector<std::string> words, environment;
  std::string input, output, complaint;
  size_t outputMax = 0;
  int64_t limitMs = 0;
  /** As waitpid(2) tells it. */
  int status = 0;
  bool late = false, tooMuch = false;
  Fault fault{nullptr, {}};
  napi_deferred deferred = nullptr;
  napi_async_work work = nullptr;
};

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> out;
  for (std::string& word : words) out.push_back(word.data());
  out.push_back(nullptr);
  return out;
}

/** With its standard streams in these, and signals as a program expects them. Throws a Fault. */
pid_t start(Run& run, int in, int out, int complaint) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  pid_t pid = -1;
  int error = posix_spawn_file_actions_adddup2(&actions, in, 0);
  if (error == 0) error = posix_spawn_file_actions_adddup2(&actions, out, 1);
  if (error == 0) error = posix_spawn_file_actions_adddup2(&actions, complaint, 2);
#if __GLIBC_PREREQ(2, 34)
  // Whatever some library has left open to children.
  if (error == 0) error = posix_spawn_file_actions_addclosefrom_np(&actions, 3);
#endif
  if (error == 0) error = posix_spawnattr_setsigmask(&attributes, &none);
  if (error == 0) error = posix_spawnattr_setsigdefault(&attributes, &all);
  if (error == 0) error = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  if (error == 0) error = posix_spawn(&pid, run.words[0].c_str(), &actions, &attributes, pointers(run.words).data(), pointers(run.environment).data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) systemFault(kCode, "posix_spawn", error, "cannot run " + run.words[0]);
  return pid;
}

/** Takes what there is; false: the other end is closed. */
bool take(Run& run, const Descriptor& from, std::string& to) {
  char buffer[16 << 10];
  const ssize_t got = read(from.fd(), buffer, sizeof buffer);
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return true;
  if (got <= 0) return false;
  if (to.size() + static_cast<size_t>(got) > run.outputMax) {
    run.tooMuch = true;
    return false;
  }
  to.append(buffer, static_cast<size_t>(got));
  return true;
}

/** Feeds it (SIGPIPE is ignored in all of Node) and takes what it says, until it closes its streams or its time is over. */
void converse(Run& run, Descriptor& in, Descriptor& out, Descriptor& complaint) {
  const int64_t deadline = nowMs() + run.limitMs;
  size_t fed = 0;
  if (run.input.empty()) in.close();
  else fcntl(in.fd(), F_SETFL, O_NONBLOCK);
  while ((out.fd() >= 0 || complaint.fd() >= 0) && !run.tooMuch) {
    const int64_t left = deadline - nowMs();
    if (left <= 0) {
      run.late = true;
      return;
    }
    // A descriptor of -1 is left out.
    pollfd ends[] = {{out.fd(), POLLIN, 0}, {complaint.fd(), POLLIN, 0}, {in.fd(), POLLOUT, 0}};
    if (poll(ends, 3, static_cast<int>(left)) < 0) {
      if (errno != EINTR) return;
      continue;
    }
    // One that says too much is killed before it can find that nobody reads any more.
    if (ends[0].revents != 0 && !take(run, out, run.output) && !run.tooMuch) out.close();
    if (ends[1].revents != 0 && !take(run, complaint, run.complaint) && !run.tooMuch) complaint.close();
    if (ends[2].revents != 0) {
      const ssize_t sent = write(in.fd(), run.input.data() + fed, run.input.size() - fed);
      if (sent > 0) fed += static_cast<size_t>(sent);
      // Who ends without reading its input is judged by its status.
      if (fed == run.input.size() || (sent < 0 && errno != EAGAIN && errno != EINTR)) in.close();
    }
  }
}

/** Its end; one that has closed its streams and does not end is made to when its time is over. */
void waitFor(Run& run, pid_t pid, int64_t deadline) {
  for (bool killed = run.late || run.tooMuch; ; ) {
    if (killed) kill(pid, SIGKILL);
    const pid_t ended = waitpid(pid, &run.status, killed ? 0 : WNOHANG);
    if (ended == pid || (ended < 0 && errno != EINTR)) return;
    if (killed) continue;
    if (nowMs() >= deadline) killed = run.late = true;
    else poll(nullptr, 0, 1);
  }
}

/** In a thread of the pool. */
void execute(napi_env, void* data) {
  Run& run = *static_cast<Run*>(data);
  try {
    const int64_t deadline = nowMs() + run.limitMs;
    Pipe in, out, complaint;
    in.open();
    out.open();
    complaint.open();
    const pid_t pid = start(run, in.read.fd(), out.write.fd(), complaint.write.fd());
    in.read.close();
    out.write.close();
    complaint.write.close();
    converse(run, in.write, out.read, complaint.read);
    in.write.close();
    waitFor(run, pid, deadline);
  } catch (const Fault& fault) {
    run.fault = fault;
  }
}

void settle(napi_env env, Run& run) {
  if (run.fault.code != nullptr) {
    throwFault(env, run.fault);
    napi_value error;
    must(napi_get_and_clear_last_exception(env, &error), "error");
    must(napi_reject_deferred(env, run.deferred, error), "reject");
    return;
  }
  napi_value result = object(env);
  set(env, result, "status", integer(env, WIFEXITED(run.status) ? WEXITSTATUS(run.status) : -1));
  set(env, result, "signal", integer(env, WIFSIGNALED(run.status) ? WTERMSIG(run.status) : 0));
  set(env, result, "late", boolean(env, run.late));
  set(env, result, "tooMuch", boolean(env, run.tooMuch));
  set(env, result, "output", text(env, run.output));
  set(env, result, "complaint", text(env, run.complaint));
  must(napi_resolve_deferred(env, run.deferred, result), "resolve");
}

void complete(napi_env env, napi_status outcome, void* data) {
  Run* run = static_cast<Run*>(data);
  napi_delete_async_work(env, run->work);
  if (outcome != napi_ok) run->fault = Fault{kCode, "the thread that wanted " + run->words[0] + " has ended"};
  try {
    settle(env, *run);
  } catch (const Fault& fault) {
    throwFault(env, fault);
  }
  delete run;
}

std::vector<std::string> strings(const Arguments& args, size_t i, const char* name) {
  const napi_value list = args.object(i, name);
  bool isArray = false;
  uint32_t length = 0;
  if (napi_is_array(args.env(), list, &isArray) != napi_ok || !isArray) badArgument(std::string(name) + " must be an array");
  must(napi_get_array_length(args.env(), list, &length), name);
  if (length > kWordsMax) outOfRange(std::string(name) + " must have at most " + std::to_string(kWordsMax) + " elements");
  std::vector<std::string> out;
  for (uint32_t at = 0; at < length; at++) {
    napi_value element;
    must(napi_get_element(args.env(), list, at, &element), name);
    out.push_back(stringOf(args.env(), element, name, kWordMax));
  }
  return out;
}

/**
 * runProgram(words, environment, input, limitMs, outputMax): runs the program of the path words[0], with `input` on its stdin, and resolves with
 * {status, signal, late, tooMuch, output, complaint} when it has ended: its status (-1: a signal ended it), that signal, whether it was ended for
 * taking longer than limitMs or writing more than outputMax, and what it wrote to stdout and stderr. Rejects with CARACAL_E_SPAWN.
 */
napi_value runProgram(const Arguments& args) {
  auto* run = new Run();
  try {
    run->words = strings(args, 0, "words");
    run->environment = strings(args, 1, "environment");
    const Span<uint8_t> input = args.bytes(2, "input");
    if (run->words.empty() || run->words[0].empty() || run->words[0][0] != '/') outOfRange("words must begin with a path from the root");
    if (input.length > static_cast<size_t>(kInputMax)) outOfRange("input must have at most " + std::to_string(kInputMax) + " bytes");
    run->input.assign(reinterpret_cast<const char*>(input.data), input.length);
    run->limitMs = args.integer(3, "limitMs", 1, kLimitMaxMs);
    run->outputMax = static_cast<size_t>(args.integer(4, "outputMax", 0, kOutputMax));
    napi_value promise;
    must(napi_create_async_work(args.env(), nullptr, text(args.env(), "runProgram"), execute, complete, run, &run->work), "work");
    must(napi_create_promise(args.env(), &run->deferred, &promise), "promise");
    must(napi_queue_async_work(args.env(), run->work), "queue");
    return promise;
  } catch (...) {
    if (run->work != nullptr) napi_delete_async_work(args.env(), run->work);
    delete run;
    throw;
  }
}

}  // namespace
}  // namespace caracal

void SpawnInit(napi_env env, napi_value exports) { caracal::define<caracal::runProgram>(env, exports, "runProgram", nullptr); }
