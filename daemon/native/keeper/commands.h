// Commands that are run one after the other, while the keeper goes on with its other work.
#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <csignal>
#include <deque>

#include "message.h"

extern char** environ;

namespace keeper {

class Commands {
 public:
  /** A command that takes longer is ended. */
  static constexpr int64_t kLimitMs = 20000;

  uint32_t failed = 0;

  bool busy() const { return child_ > 0 || !waiting_.empty(); }
  void add(const std::vector<Command>& commands) { waiting_.insert(waiting_.end(), commands.begin(), commands.end()); }

  /** When {@link go} has something to do though nothing happens, ms; -1: never. */
  int64_t due() const { return child_ > 0 && !killed_ ? until_ : -1; }

  /** Sees to the one that runs, and starts the next one. */
  void go(int64_t now) {
    if (child_ > 0) {
      int status = 0;
      const pid_t ended = waitpid(child_, &status, WNOHANG);
      if (ended == child_ || (ended < 0 && errno == ECHILD)) {
        if (ended < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) failed++;
        child_ = 0;
      } else if (now >= until_ && !killed_) {
        killed_ = true;
        kill(child_, SIGKILL);
      }
    }
    while (child_ == 0 && !waiting_.empty()) {
      const Command command = waiting_.front();
      waiting_.pop_front();
      start(command);
      until_ = now + kLimitMs;
      killed_ = false;
    }
  }

 private:
  void start(const Command& command) {
    std::vector<char*> words;
    for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attributes);
    for (int fd = 0; fd < 3; fd++) posix_spawn_file_actions_addopen(&files, fd, "/dev/null", O_RDWR, 0);
    sigset_t none, usual;
    sigemptyset(&none);
    sigemptyset(&usual);
    sigaddset(&usual, SIGPIPE);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &usual);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    pid_t child = 0;
    if (posix_spawnp(&child, words[0], &files, &attributes, words.data(), environ) == 0) child_ = child;
    else failed++;
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
  }

  std::deque<Command> waiting_;
  pid_t child_ = 0;
  int64_t until_ = 0;
  bool killed_ = false;
};

}  // namespace keeper
