// The express as JavaScript opens it, and as tests try it without devices.

#include <errno.h>
#include <sys/timerfd.h>

#include <cstring>
#include <utility>

#include "express.h"

namespace caracal {
namespace {

/** What a test looks at instead of devices. */
struct Capture final : FrameSink, PacketSink {
  explicit Capture(const Span<uint8_t>& out) : out(out) {}
  bool sendFrame(uint8_t* frame, size_t length, const uint8_t*, int32_t) override { return keep(frame, length); }
  bool takePacket(const uint8_t* packet, size_t length) override { return keep(packet, length); }
  void leaveExpress() override {}
  bool keep(const uint8_t* bytes, size_t length) {
    if (length > out.length) return false;
    memcpy(out.data, bytes, length);
    kept = length;
    return true;
  }
  Span<uint8_t> out;
  size_t kept = 0;
};

/** expressOpen(codec, memory, now) → handle. `codec`: a token of AddonCodec.share; `memory`: ExpressMemory; `now`: ms of the clock that JavaScript goes by. Closing it leaves everything to JavaScript. */
napi_value expressOpen(const Arguments& args) {
  const auto token = static_cast<int32_t>(args.integer(0, "codec", 1, INT32_MAX));
  const double now = args.decimal(2, "now");
  const napi_value memory = args.object(1, "memory");
  SharedCodec codec = takeCodec(token);
  const int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (timer < 0) systemFault("CARACAL_E_LIMIT", "timerfd_create", errno, "cannot make a timer");
  return integer(args.env(), static_cast<Descriptors*>(args.data())->add(std::make_unique<Express>(timer, args.env(), std::move(codec), memory, now)));
}

/** expressWatch(handle): looks from now on whether one of the peers that are attended to has fallen silent. */
napi_value expressWatch(const Arguments& args) {
  descriptor<Express>(args).arm();
  return undefined(args.env());
}

/** expressTry(handle, outward, data, length, record, trafficClass, out, now) → bytes written to `out`, 0: missed. One packet or datagram as the devices would hand it over, for tests. */
napi_value expressTry(const Arguments& args) {
  Express& express = descriptor<Express>(args);
  const bool outward = args.boolean(1, "outward");
  const Span<uint8_t> data = args.bytes(2, "data");
  const auto length = static_cast<size_t>(args.integer(3, "length", 0, static_cast<int64_t>(data.length)));
  const Span<uint8_t> record = args.bytes(4, "record", kAddressRecord);
  const auto trafficClass = static_cast<int32_t>(args.integer(5, "trafficClass", 0, 255));
  Capture capture(args.bytes(6, "out"));
  express.freeze(args.decimal(7, "now"));
  Express::Way way;
  if (outward) {
    const uint8_t any[16] = {};
    express.addSocket(&capture, 4, any);
    express.addSocket(&capture, 6, any);
    way = express.outward(data.data, length);
    express.removeSocket(&capture);
  } else {
    PacketSink* const before = std::exchange(express.packets, &capture);
    way = express.inward(data.data, length, trafficClass, record.data);
    express.packets = before;
  }
  express.freeze(-1);
  return integer(args.env(), way == Express::Way::missed ? 0 : static_cast<int32_t>(capture.kept));
}

}  // namespace
}  // namespace caracal

void ExpressInit(napi_env env, napi_value exports, caracal::Descriptors* descriptors) {
  caracal::define<caracal::expressOpen>(env, exports, "expressOpen", descriptors);
  caracal::define<caracal::expressTry>(env, exports, "expressTry", descriptors);
  caracal::define<caracal::expressWatch>(env, exports, "expressWatch", descriptors);
}
