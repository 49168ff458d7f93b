// TUN devices: one descriptor is one queue. A read or write carries a packet or, with offloads, a super-packet of up to 64 KB, behind a
// 10-byte virtio_net_hdr that JavaScript always sees, whether the kernel has it or not.

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "descriptor.h"
#include "express.h"
#include "tun_offload.h"

// Younger than some distributions' headers.
#ifndef TUNSETSTEERINGEBPF
#define TUNSETSTEERINGEBPF _IOR('T', 224, int)
#endif
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

namespace caracal {
namespace {

constexpr const char* kCode = "CARACAL_E_TUN";
constexpr size_t kPacketMax = 65535;
constexpr int kBatch = 64;
constexpr size_t kWords = 4;  // PACKET_WORDS in lib/wire/batch.ts
/** Longer packets are bulk. */
constexpr ssize_t kAlone = 4096;

enum OpenFlag : int64_t { kMultiQueue = 1, kNoVnetHeader = 2 };
enum Offload : int32_t { kNone = 0, kChecksum = 1, kTso = 2, kUso = 3 };

struct Tun : Descriptor, PacketSink {
  static constexpr Kind kKind = Kind::tun;
  explicit Tun(int fd) : Descriptor(kKind, fd) {}
  ~Tun() override {
    if (express == nullptr) return;
    express->packets = nullptr;
    express->tun = nullptr;
  }
  bool vnet = false;
  Offload offload = kNone;
  /** Is tried first with what comes alone; null: nobody is. */
  Express* express = nullptr;
  /** What JavaScript reads into; what was read there for it, and is what it gets next. */
  Span<uint8_t> data = {};
  Span<int32_t> desc = {};
  int32_t waiting = 0;

  Descriptor* step() override;
  bool takePacket(const uint8_t* packet, size_t length) override;
  void leaveExpress() override { express = nullptr; }

 protected:
  std::unique_ptr<Descriptor> with(int fd) const override {
    auto copy = std::make_unique<Tun>(fd);
    copy->vnet = vnet;
    copy->offload = offload;
    return copy;
  }
};

int openDevice() {
  const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) systemFault(kCode, "open", errno, "cannot open /dev/net/tun");
  return fd;
}

/** The best offload not above `wanted` that the kernel takes. */
Offload setOffload(int fd, Offload wanted) {
  for (int level = wanted; level >= kNone; level--) {
    unsigned long flags = 0;
    if (level >= kChecksum) flags |= TUN_F_CSUM;
    if (level >= kTso) flags |= TUN_F_TSO4 | TUN_F_TSO6;
    if (level >= kUso) flags |= TUN_F_USO4 | TUN_F_USO6;
    if (ioctl(fd, TUNSETOFFLOAD, flags) == 0) return static_cast<Offload>(level);
  }
  return kNone;
}

/** The device's name of now; it may have been renamed. */
ifreq request(const Tun& tun) {
  ifreq ifr = {};
  if (ioctl(tun.fd, TUNGETIFF, &ifr) != 0) systemFault(kCode, "TUNGETIFF", errno, "the TUN device is gone");
  ifr.ifr_name[IFNAMSIZ - 1] = '\0';
  return ifr;
}

/** Sets up a queue of the device that `ifr` names, with offload up to `wanted`; what tunOpen returns. */
napi_value opened(const Arguments& args, std::unique_ptr<Tun> tun, const ifreq& ifr, Offload wanted) {
  if (tun->vnet) {
    int size = kVnetHeader, on = 1;
    if (ioctl(tun->fd, TUNSETVNETHDRSZ, &size) != 0)
      systemFault(kCode, "TUNSETVNETHDRSZ", errno, std::string("cannot set up the TUN device ") + ifr.ifr_name);
    // The native order where it is little-endian; older kernels lack the call and need none.
    ioctl(tun->fd, TUNSETVNETLE, &on);
    tun->offload = setOffload(tun->fd, wanted);
  } else {
    // A persistent device remembers what its last owner wanted.
    setOffload(tun->fd, kNone);
  }
  const bool vnet = tun->vnet;
  const Offload offload = tun->offload;
  napi_value result = object(args.env());
  set(args.env(), result, "name", text(args.env(), ifr.ifr_name));
  set(args.env(), result, "vnetHeader", boolean(args.env(), vnet));
  set(args.env(), result, "multiQueue", boolean(args.env(), ifr.ifr_flags & IFF_MULTI_QUEUE));
  set(args.env(), result, "offload", integer(args.env(), offload));
  set(args.env(), result, "handle", integer(args.env(), static_cast<Descriptors*>(args.data())->add(std::move(tun))));
  return result;
}

/** tunOpen(name, flags, offload) → { handle, name, vnetHeader, multiQueue, offload }. Makes the device or attaches to the persistent one. */
napi_value tunOpen(const Arguments& args) {
  const std::string name = args.string(0, "name", IFNAMSIZ - 1);
  const int64_t flags = args.integer(1, "flags", 0, kMultiQueue | kNoVnetHeader);
  const auto wanted = static_cast<Offload>(args.integer(2, "offload", kNone, kUso));
  if (name.empty()) badArgument("name must not be empty");

  auto tun = std::make_unique<Tun>(openDevice());
  unsigned int features = 0;
  tun->vnet = !(flags & kNoVnetHeader) && ioctl(tun->fd, TUNGETFEATURES, &features) == 0 && (features & IFF_VNET_HDR);
  ifreq ifr = {};
  memcpy(ifr.ifr_name, name.data(), name.size());
  ifr.ifr_flags = static_cast<short>(IFF_TUN | IFF_NO_PI | (tun->vnet ? IFF_VNET_HDR : 0) | (flags & kMultiQueue ? IFF_MULTI_QUEUE : 0));
  if (ioctl(tun->fd, TUNSETIFF, &ifr) != 0) systemFault(kCode, "TUNSETIFF", errno, "cannot open the TUN device " + name);
  ifr.ifr_name[IFNAMSIZ - 1] = '\0';
  return opened(args, std::move(tun), ifr, wanted);
}

/**
 * tunTake(held, offload) → as tunOpen, and whether it is one of several queues: the queue that another process has handed over. Nothing of the device changes but what it leaves to us, which is set anew.
 */
napi_value tunTake(const Arguments& args) {
  const Held& held = descriptor<Held>(args);
  const auto wanted = static_cast<Offload>(args.integer(1, "offload", kNone, kUso));
  auto tun = std::make_unique<Tun>(held.copy(kCode));
  ifreq ifr = request(*tun);
  if (!(ifr.ifr_flags & IFF_TUN) || !(ifr.ifr_flags & IFF_NO_PI)) badArgument("held must be a TUN's");
  tun->vnet = ifr.ifr_flags & IFF_VNET_HDR;
  return opened(args, std::move(tun), ifr, wanted);
}

/**
 * A program that chooses the queue of a packet of the own kernel: by its addresses, and the ports where it is TCP. Other packets may come as fragments, which have no ports, so all
 * that go between two addresses go the same way. The kernel's own choice follows where packets were written last, and takes fragments for another flow.
 */
std::vector<bpf_insn> steeringProgram() {
  constexpr int32_t kMix = 0x01000193, kSpread = static_cast<int32_t>(0x9e3779b1);
  std::vector<bpf_insn> program;
  const auto add = [&](int code, int to, int from, int offset, int32_t value) {
    bpf_insn instruction = {};
    instruction.code = static_cast<uint8_t>(code);
    instruction.dst_reg = static_cast<uint8_t>(to & 15);
    instruction.src_reg = static_cast<uint8_t>(from & 15);
    instruction.off = static_cast<int16_t>(offset);
    instruction.imm = value;
    program.push_back(instruction);
    return program.size() - 1;
  };
  const auto load = [&](int size, int32_t at) { add(BPF_LD | BPF_ABS | size, 0, 0, 0, at); };
  const auto mix = [&]() {
    add(BPF_ALU | BPF_MUL | BPF_K, BPF_REG_7, 0, 0, kMix);
    add(BPF_ALU | BPF_XOR | BPF_X, BPF_REG_7, BPF_REG_0, 0, 0);
  };
  std::vector<size_t> toEnd;
  const auto endUnless = [&](int condition, int32_t value) { toEnd.push_back(add(BPF_JMP | condition | BPF_K, BPF_REG_0, 0, 0, value)); };

  add(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_6, BPF_REG_1, 0, 0);
  add(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_7, 0, 0, 0);
  load(BPF_B, 0);
  add(BPF_ALU | BPF_RSH | BPF_K, BPF_REG_0, 0, 0, 4);
  const size_t toV6 = add(BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_0, 0, 0, 6);
  for (int32_t at = 12; at < 20; at += 4) {
    load(BPF_W, at);
    mix();
  }
  load(BPF_B, 9);
  endUnless(BPF_JNE, IPPROTO_TCP);
  load(BPF_H, 6);
  add(BPF_ALU | BPF_AND | BPF_K, BPF_REG_0, 0, 0, 0x3fff);  // more fragments, or the position of one
  endUnless(BPF_JNE, 0);
  load(BPF_B, 0);
  add(BPF_ALU | BPF_AND | BPF_K, BPF_REG_0, 0, 0, 15);
  add(BPF_ALU | BPF_LSH | BPF_K, BPF_REG_0, 0, 0, 2);
  add(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_8, BPF_REG_0, 0, 0);
  add(BPF_LD | BPF_IND | BPF_W, 0, BPF_REG_8, 0, 0);
  mix();
  toEnd.push_back(add(BPF_JMP | BPF_JA, 0, 0, 0, 0));
  program[toV6].off = static_cast<int16_t>(program.size() - toV6 - 1);
  for (int32_t at = 8; at < 40; at += 4) {
    load(BPF_W, at);
    mix();
  }
  load(BPF_B, 6);
  endUnless(BPF_JNE, IPPROTO_TCP);
  load(BPF_W, 40);
  mix();
  for (const size_t jump : toEnd) program[jump].off = static_cast<int16_t>(program.size() - jump - 1);
  add(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_0, BPF_REG_7, 0, 0);
  add(BPF_ALU | BPF_RSH | BPF_K, BPF_REG_0, 0, 0, 16);
  add(BPF_ALU | BPF_XOR | BPF_X, BPF_REG_7, BPF_REG_0, 0, 0);
  add(BPF_ALU | BPF_MUL | BPF_K, BPF_REG_7, 0, 0, kSpread);
  add(BPF_ALU | BPF_RSH | BPF_K, BPF_REG_7, 0, 0, 16);
  add(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_0, BPF_REG_7, 0, 0);
  add(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
  return program;
}

/** tunSteer(handle) → whether the device's queues are chosen by the program above; false: this process may not, or the kernel cannot. For all queues of the device. */
napi_value tunSteer(const Arguments& args) {
  const Tun& tun = descriptor<Tun>(args);
  const std::vector<bpf_insn> program = steeringProgram();
  bpf_attr attributes = {};
  attributes.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
  attributes.insns = reinterpret_cast<uintptr_t>(program.data());
  attributes.insn_cnt = static_cast<uint32_t>(program.size());
  attributes.license = reinterpret_cast<uintptr_t>("MIT");
  int loaded = static_cast<int>(syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof attributes));
  const bool steered = loaded >= 0 && ioctl(tun.fd, TUNSETSTEERINGEBPF, &loaded) == 0;
  if (loaded >= 0) ::close(loaded);  // the device holds it
  return boolean(args.env(), steered);
}

/** tunPersist(handle, on): whether the device outlives its last descriptor. */
napi_value tunPersist(const Arguments& args) {
  const Tun& tun = descriptor<Tun>(args);
  const bool on = args.boolean(1, "on");
  if (ioctl(tun.fd, TUNSETPERSIST, on ? 1ul : 0ul) != 0) systemFault(kCode, "TUNSETPERSIST", errno, "cannot change the TUN device");
  return undefined(args.env());
}

/** tunConfigure(handle, mtu, up) in the network namespace the process is in, which must be the device's. */
napi_value tunConfigure(const Arguments& args) {
  const Tun& tun = descriptor<Tun>(args);
  const int mtu = static_cast<int>(args.integer(1, "mtu", 68, kPacketMax));
  const bool up = args.boolean(2, "up");
  ifreq ifr = request(tun);
  const int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (control < 0) systemFault(kCode, "socket", errno, "cannot set up the TUN device");
  const char* failed = nullptr;
  int error = 0;
  ifr.ifr_mtu = mtu;
  if (ioctl(control, SIOCSIFMTU, &ifr) != 0) {
    failed = "SIOCSIFMTU";
    error = errno;
  } else if (ioctl(control, SIOCGIFFLAGS, &ifr) != 0) {
    failed = "SIOCGIFFLAGS";
    error = errno;
  } else {
    ifr.ifr_flags = static_cast<short>(up ? ifr.ifr_flags | IFF_UP : ifr.ifr_flags & ~IFF_UP);
    if (ioctl(control, SIOCSIFFLAGS, &ifr) != 0) {
      failed = "SIOCSIFFLAGS";
      error = errno;
    }
  }
  ::close(control);
  if (failed != nullptr) systemFault(kCode, failed, error, std::string("cannot set up the TUN device ") + ifr.ifr_name);
  return undefined(args.env());
}

/** Reads one packet to `offset` of `data`, which has room for it; its length with vnet header, 0: none is there, -1: the device is gone. */
ssize_t readOne(const Tun& tun, const Span<uint8_t>& data, size_t offset) {
  const size_t missing = tun.vnet ? 0 : kVnetHeader;
  for (;;) {
    const ssize_t got = read(tun.fd, data.data + offset + missing, kVnetHeader + kPacketMax - missing);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno == EBADFD || errno == EIO ? -1 : 0;
    const size_t length = static_cast<size_t>(got) + missing;
    if (length <= kVnetHeader) continue;
    memset(data.data + offset, 0, missing);
    return static_cast<ssize_t>(length);
  }
}

/** The IP header behind the vnet header lies on a multiple of four. */
size_t behind(size_t offset, size_t length) { return ((offset + length + 1) & ~static_cast<size_t>(3)) + 2; }

/** Fills the batch, in which `count` packets are already. Returns their number; -1: the device is gone, and there are none. */
int32_t readMore(const Tun& tun, const Span<uint8_t>& data, const Span<int32_t>& desc, int32_t count) {
  const size_t limit = desc.length / kWords < kBatch ? desc.length / kWords : kBatch;
  const int32_t* const last = desc.data + (static_cast<size_t>(count) - 1) * kWords;
  size_t offset = count == 0 ? 2 : behind(static_cast<size_t>(last[0]), static_cast<size_t>(last[1]));
  while (static_cast<size_t>(count) < limit && offset + kVnetHeader + kPacketMax <= data.length && offset <= INT32_MAX) {
    const ssize_t length = readOne(tun, data, offset);
    if (length < 0 && count == 0) return -1;
    if (length <= 0) break;
    int32_t* words = desc.data + static_cast<size_t>(count) * kWords;
    words[0] = static_cast<int32_t>(offset);
    words[1] = static_cast<int32_t>(length);
    count++;
    offset = behind(offset, static_cast<size_t>(length));
  }
  return count;
}

/** A packet that comes after a pause mostly comes alone, and is tried without JavaScript. What that is not for stays in JavaScript's batch. */
Descriptor* Tun::step() {
  if (waiting > 0) return this;
  if (express == nullptr || !express->on() || uv_hrtime() - restedAt < kPauseNs) return this;
  const ssize_t length = readOne(*this, data, 2);
  if (length <= 0) return length < 0 ? this : nullptr;
  if (express->outward(data.data + 2, static_cast<size_t>(length)) != Express::Way::missed) return nullptr;
  desc.data[0] = 2;
  desc.data[1] = static_cast<int32_t>(length);
  // After a large one, more of them are to be expected.
  waiting = length > kAlone ? readMore(*this, data, desc, 1) : 1;
  return this;
}

/**
 * tunRead(handle, data, desc) → packets read: until there are no more, 64 have come, `desc` is full or less than one super-packet's room is left.
 * Each lies so that its IP header is 4-aligned within `data`. Throws CARACAL_E_GONE when the device was removed.
 */
napi_value tunRead(const Arguments& args) {
  Tun& tun = descriptor<Tun>(args);
  const Span<uint8_t> data = args.bytes(1, "data", kVnetHeader + kPacketMax + 2);
  const Span<int32_t> desc = args.words(2, "desc", kWords);
  if (tun.waiting > 0 && (data.data != tun.data.data || desc.data != tun.desc.data)) badArgument("data must be the batch that express reads into");
  if (tun.waiting > 0) return integer(args.env(), std::exchange(tun.waiting, 0));
  const int32_t count = readMore(tun, data, desc, 0);
  if (count < 0) systemFault("CARACAL_E_GONE", "read", errno, "the TUN device is gone");
  return integer(args.env(), count);
}

/** tunExpress(handle, express, data, desc): what comes alone is tried by `express` (a handle) from now on. The arrays, a PacketBatch's, are the ones that tunRead is called with, and live as long. */
napi_value tunExpress(const Arguments& args) {
  Tun& tun = descriptor<Tun>(args);
  auto& express = static_cast<Express&>(static_cast<Descriptors*>(args.data())->get(args.integer(1, "express", 0, INT32_MAX), Express::kKind));
  const Span<uint8_t> data = args.bytes(2, "data", kVnetHeader + kPacketMax + 2);
  const Span<int32_t> desc = args.words(3, "desc", kWords);
  if (express.packets != nullptr || tun.express != nullptr) throw Fault{"CARACAL_E_WATCHED", "there is an express for the device already"};
  tun.data = data;
  tun.desc = desc;
  express.hold(args.value(2), args.value(3));
  express.packets = &tun;
  express.tun = &tun;
  tun.express = &express;
  return undefined(args.env());
}

bool writePacket(void* context, const uint8_t* head, size_t headLength, const uint8_t* body, size_t bodyLength) {
  const auto& tun = *static_cast<const Tun*>(context);
  const size_t skip = tun.vnet ? 0 : kVnetHeader;
  const iovec parts[2] = {{const_cast<uint8_t*>(head) + skip, headLength - skip}, {const_cast<uint8_t*>(body), bodyLength}};
  ssize_t done;
  do done = writev(tun.fd, parts, 2);
  while (done < 0 && errno == EINTR);
  return done >= 0;
}

/** `length`: more than the vnet header. */
bool Tun::takePacket(const uint8_t* packet, size_t length) {
  const VnetHeader header = VnetHeader::read(packet);
  const bool kernelCan = vnet && (header.gsoType != VnetHeader::kGsoUdp || offload == kUso);
  return kernelCan ? writePacket(this, packet, kVnetHeader, packet + kVnetHeader, length - kVnetHeader)
                   : writeSegments(packet, length, !vnet, writePacket, this);
}

/**
 * tunWrite(handle, data, desc, count) → packets written. Entries of negative length are skipped; what the kernel does not take (interface down,
 * no memory, malformed) is left out of the result and never throws. All descriptors are checked before the first write.
 */
napi_value tunWrite(const Arguments& args) {
  Tun& tun = descriptor<Tun>(args);
  const Span<uint8_t> data = args.bytes(1, "data");
  const Span<int32_t> desc = args.words(2, "desc");
  const auto count = static_cast<size_t>(args.integer(3, "count", 0, static_cast<int64_t>(desc.length / kWords)));
  for (size_t i = 0; i < count; i++) {
    const int32_t offset = desc.data[i * kWords], length = desc.data[i * kWords + 1];
    if (length < 0) continue;
    if (offset < 0 || static_cast<size_t>(offset) + static_cast<size_t>(length) > data.length)
      outOfRange("packet " + std::to_string(i) + " lies outside its buffer");
  }
  int32_t written = 0;
  for (size_t i = 0; i < count; i++) {
    const int32_t length = desc.data[i * kWords + 1];
    if (length <= static_cast<int32_t>(kVnetHeader)) continue;
    if (tun.takePacket(data.data + desc.data[i * kWords], static_cast<size_t>(length))) written++;
  }
  return integer(args.env(), written);
}

}  // namespace
}  // namespace caracal

void TunInit(napi_env env, napi_value exports, caracal::Descriptors* descriptors) {
  caracal::define<caracal::tunOpen>(env, exports, "tunOpen", descriptors);
  caracal::define<caracal::tunTake>(env, exports, "tunTake", descriptors);
  caracal::define<caracal::tunSteer>(env, exports, "tunSteer", descriptors);
  caracal::define<caracal::tunPersist>(env, exports, "tunPersist", descriptors);
  caracal::define<caracal::tunConfigure>(env, exports, "tunConfigure", descriptors);
  caracal::define<caracal::tunRead>(env, exports, "tunRead", descriptors);
  caracal::define<caracal::tunExpress>(env, exports, "tunExpress", descriptors);
  caracal::define<caracal::tunWrite>(env, exports, "tunWrite", descriptors);
}
