// The addon: what must touch every byte or needs a system call that Node lacks. It knows nothing of services, sessions or policy.
// Context-aware: each environment (main thread, worker) has its own descriptors; nothing is shared between them.

#include <node_api.h>

#include "check.h"
#include "descriptor.h"

void TunInit(napi_env env, napi_value exports, caracal::Descriptors* descriptors);
void UdpInit(napi_env env, napi_value exports, caracal::Descriptors* descriptors);
void NetlinkInit(napi_env env, napi_value exports, caracal::Descriptors* descriptors);
void PollInit(napi_env env, napi_value exports, caracal::Descriptors* descriptors);
void ExpressInit(napi_env env, napi_value exports, caracal::Descriptors* descriptors);
void KeeperLinkInit(napi_env env, napi_value exports, caracal::Descriptors* descriptors);
void NotifyInit(napi_env env, napi_value exports);
void MemoryInit(napi_env env, napi_value exports);
void ListeningInit(napi_env env, napi_value exports);
void PriorityInit(napi_env env, napi_value exports);
void SpawnInit(napi_env env, napi_value exports);
void RouteMtuInit(napi_env env, napi_value exports);
void LogWriteInit(napi_env env, napi_value exports);
/** In codec.cc. */
napi_value CodecInit(napi_env env, napi_value exports) __attribute__((weak));

NAPI_MODULE_INIT() {
  try {
    // Freed by its own cleanup hook, after the last watch has left the event loop.
    auto* descriptors = new caracal::Descriptors(env);
    TunInit(env, exports, descriptors);
    UdpInit(env, exports, descriptors);
    NetlinkInit(env, exports, descriptors);
    PollInit(env, exports, descriptors);
    ExpressInit(env, exports, descriptors);
    KeeperLinkInit(env, exports, descriptors);
    NotifyInit(env, exports);
    MemoryInit(env, exports);
    ListeningInit(env, exports);
    PriorityInit(env, exports);
    SpawnInit(env, exports);
    RouteMtuInit(env, exports);
    LogWriteInit(env, exports);
    if (CodecInit != nullptr) CodecInit(env, exports);
  } catch (const caracal::Fault& fault) {
    caracal::throwFault(env, fault);
  }
  return exports;
}
