// What the system is told about memory: what is not needed any more, and what is read at random.

#include <malloc.h>
#include <sys/mman.h>

#include "check.h"

namespace caracal {
namespace {

/** trimMemory(): gives what all threads have freed back to the system. Takes a millisecond or so. */
napi_value trimMemory(const Arguments& args) {
#ifdef __GLIBC__
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

}  // namespace
}  // namespace caracal

void MemoryInit(napi_env env, napi_value exports) {
  caracal::define<caracal::trimMemory>(env, exports, "trimMemory", nullptr);
  caracal::define<caracal::adviseHugePages>(env, exports, "adviseHugePages", nullptr);
}
