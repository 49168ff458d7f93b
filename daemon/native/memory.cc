// Memory that was needed once, to load and start, and is not any more.

#include <malloc.h>

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

}  // namespace
}  // namespace caracal

void MemoryInit(napi_env env, napi_value exports) {
  caracal::define<caracal::trimMemory>(env, exports, "trimMemory", nullptr);
}
