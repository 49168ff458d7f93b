// How soon the kernel lets this thread run when it has something to do: sched(7). Node knows nice values only, which count among the threads of one session of programs where the kernel groups
// these (autogroup), so that they say nothing of other programs.

#include <errno.h>
#include <sched.h>

#include "check.h"

namespace caracal {
namespace {

constexpr const char* kCode = "CARACAL_E_PRIORITY";

/** setRealTime(on): from now on this thread runs before all that is not real-time itself, or no more; programs that it starts do not. Throws CARACAL_E_PRIORITY when the system does not allow it. */
napi_value setRealTime(const Arguments& args) {
  const bool on = args.boolean(0, "on");
  sched_param param = {};
  // The lowest there is: the kernel's own work goes before it, and what others have made real-time.
  param.sched_priority = on ? sched_get_priority_min(SCHED_RR) : 0;
  if (sched_setscheduler(0, (on ? SCHED_RR : SCHED_OTHER) | SCHED_RESET_ON_FORK, &param) != 0)
    systemFault(kCode, "sched_setscheduler", errno, "cannot set the priority of the thread");
  return undefined(args.env());
}

/** isRealTime() → whether this thread is. */
napi_value isRealTime(const Arguments& args) {
  const int policy = sched_getscheduler(0) & ~SCHED_RESET_ON_FORK;
  napi_value result;
  must(napi_get_boolean(args.env(), policy == SCHED_RR || policy == SCHED_FIFO, &result), "boolean");
  return result;
}

}  // namespace
}  // namespace caracal

void PriorityInit(napi_env env, napi_value exports) {
  caracal::define<caracal::setRealTime>(env, exports, "setRealTime", nullptr);
  caracal::define<caracal::isRealTime>(env, exports, "isRealTime", nullptr);
}
