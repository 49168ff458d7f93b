// Memory: what the system is told about it, and a kind that outlives the process.

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "check.h"

namespace caracal {
namespace {

/** More than V8 lets hang on a heap without collecting it at once, and as thoroughly as it can. */
constexpr int64_t kBurden = int64_t{1} << 40;

/** Bytes that are kept for the next allocation. */
constexpr int kKept = 256 * 1024;

/** trimMemory(): gives what this thread's objects no longer need, and what all threads have freed, back to the system. Takes some tens of milliseconds. */
napi_value trimMemory(const Arguments& args) {
  int64_t total;
  must(napi_adjust_external_memory(args.env(), kBurden, &total), "memory");
  must(napi_adjust_external_memory(args.env(), -kBurden, &total), "memory");
#ifdef __GLIBC__
  // From now on, too, what is freed goes back soon, and threads that are yet to come share what they allocate from: a daemon's do little of that.
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_TRIM_THRESHOLD, kKept);
  mallopt(M_MMAP_THRESHOLD, kKept);
  malloc_trim(0);
#endif
  return undefined(args.env());
}

/** adviseHugePages(bytes): asks for large pages behind as much of the array as whole ones fit into. Systems without them go on as before. */
napi_value adviseHugePages(const Arguments& args) {
  constexpr uintptr_t kPage = 2u << 20;
  const auto bytes = args.bytes(0, "bytes");
  const uintptr_t start = (reinterpret_cast<uintptr_t>(bytes.data) + kPage - 1) & ~(kPage - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(bytes.data) + bytes.length) & ~(kPage - 1);
#ifdef MADV_HUGEPAGE
  if (start < end) madvise(reinterpret_cast<void*>(start), end - start, MADV_HUGEPAGE);
#endif
  return undefined(args.env());
}

constexpr const char* kCode = "CARACAL_E_MEMORY";
constexpr int64_t kMapMax = int64_t{1} << 32;
/** TMPFS_MAGIC: its pages are memory, and nothing of them is ever written to a disk but as swap. */
constexpr int64_t kTmpfs = 0x01021994;

/** Takes the room for all of the file that has none yet; an errno, 0: it is there. */
int reserve(int fd, int64_t bytes) {
  constexpr int64_t kBlock = 512;
  struct stat status = {};
  if (fstat(fd, &status) != 0) return errno;
  // Asking for what is there takes as long as taking it.
  if (status.st_blocks * kBlock >= bytes) return 0;
  for (;;) {
    const int error = posix_fallocate(fd, 0, bytes);
    if (error != EINTR) return error;
  }
}

void unmap(napi_env, void* data, void* bytes) { munmap(data, reinterpret_cast<uintptr_t>(bytes)); }

/**
 * mapFile(path, bytes, keep) → { memory (ArrayBuffer), kept }: memory that is the file's content, of this process and of whoever maps it next. It is zeroed, but where the file is there already with that
 * size and `keep` is set. The file must be this user's alone, and lie in a tmpfs with room for it, which is taken at once: a page for which there
 * is no room when it is touched ends the process (SIGBUS).
 */
napi_value mapFile(const Arguments& args) {
  const std::string path = args.string(0, "path", 4096);
  const int64_t bytes = args.integer(1, "bytes", 1, kMapMax);
  const bool keep = args.boolean(2, "keep");
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
  if (fd < 0) systemFault(kCode, "open", errno, "cannot map " + path);
  void* data = MAP_FAILED;
  bool kept = false;
  const char* failed = nullptr;
  int error = 0;
  const auto check = [&](bool good, const char* what, int otherwise) {
    if (failed != nullptr || good) return;
    failed = what;
    error = otherwise;
  };
  struct stat status = {};
  struct statfs system = {};
  check(fstat(fd, &status) == 0 && fstatfs(fd, &system) == 0, "fstat", errno);
  check(S_ISREG(status.st_mode) && status.st_uid == geteuid() && (status.st_mode & 077) == 0 && status.st_nlink == 1, "fstat", EPERM);
  check(system.f_type == kTmpfs, "fstatfs", EINVAL);
  if (failed == nullptr) {
    kept = keep && status.st_size == bytes;
    // 0: without limit.
    const auto room = static_cast<int64_t>(system.f_bavail) * system.f_bsize;
    check(kept || system.f_blocks == 0 || room > bytes, "fstatfs", ENOSPC);
    check(failed != nullptr || kept || (ftruncate(fd, 0) == 0 && ftruncate(fd, bytes) == 0), "ftruncate", errno);
  }
  if (failed == nullptr) {
    const int missing = reserve(fd, bytes);
    check(missing == 0, "fallocate", missing);
  }
  if (failed == nullptr) {
    data = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    check(data != MAP_FAILED, "mmap", errno);
  }
  ::close(fd);
  if (failed != nullptr) systemFault(kCode, failed, error, "cannot map " + path);
  napi_value memory;
  const auto length = static_cast<size_t>(bytes);
  if (napi_create_external_arraybuffer(args.env(), data, length, unmap, reinterpret_cast<void*>(length), &memory) != napi_ok) {
    munmap(data, length);
    throw Fault{"CARACAL_E_INTERNAL", "memory"};
  }
  napi_value result = object(args.env());
  set(args.env(), result, "memory", memory);
  set(args.env(), result, "kept", boolean(args.env(), kept));
  return result;
}

}  // namespace
}  // namespace caracal

void MemoryInit(napi_env env, napi_value exports) {
  caracal::define<caracal::trimMemory>(env, exports, "trimMemory", nullptr);
  caracal::define<caracal::adviseHugePages>(env, exports, "adviseHugePages", nullptr);
  caracal::define<caracal::mapFile>(env, exports, "mapFile", nullptr);
}
