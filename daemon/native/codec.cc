// The boundary of the native frame codec (lib/crypto/codec.ts says what a codec does). Everything that comes in is checked before
// anything is touched; what throws has changed nothing.

#include <node_api.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "aead.h"
#include "aead_ipsec_mb.h"
#include "check.h"
#include "coalesce.h"
#include "codec.h"
#include "frame.h"
#include "segment.h"

namespace caracal {
namespace {

constexpr int32_t kClear = 1;

const SharedCodec& holder(const Arguments& args) { return *static_cast<const SharedCodec*>(args.data()); }
Codec& codec(const Arguments& args) { return *holder(args); }

/** An AEAD by name; CARACAL_E_AEAD when it is unknown or not offered here. */
Aead aeadArgument(const Arguments& args, size_t i) {
  const std::string name = args.string(i, "aead", 64);
  for (size_t a = 0; a < kAeads; a++) {
    const Aead aead = static_cast<Aead>(a);
    if (name == aeadName(aead) && aeadOffered(aead)) return aead;
  }
  throw Fault{"CARACAL_E_AEAD", "this codec does not offer " + name};
}

Span<uint8_t> exactBytes(const Arguments& args, size_t i, const char* name, size_t length) {
  const Span<uint8_t> span = args.bytes(i, name);
  if (span.length != length) outOfRange(std::string(name) + " must have " + std::to_string(length) + " bytes");
  return span;
}

/** "openssl" or "ipsec-mb"; CARACAL_E_AEAD when it is unknown or cannot be used here. */
Library libraryArgument(const Arguments& args, size_t i) {
  const std::string name = args.string(i, "library", 64);
  if (name == "openssl") return Library::openssl;
  if (name != "ipsec-mb") throw Fault{"CARACAL_E_AEAD", "there is no library " + name};
  if (!ipsecMb().problem.empty()) throw Fault{"CARACAL_E_AEAD", ipsecMb().problem};
  return Library::ipsecMb;
}

std::unique_ptr<AeadKey> keyArguments(const Arguments& args, size_t aeadAt, size_t keyAt, Direction direction, Library library) {
  const Aead aead = aeadArgument(args, aeadAt);
  const uint8_t* const bytes = exactBytes(args, keyAt, "key", kKeyLength).data;
  auto key = library == Library::ipsecMb && aead == Aead::aes256Gcm ? makeIpsecMbKey(bytes) : makeAeadKey(aead, direction, bytes);
  if (key == nullptr) throw Fault{"CARACAL_E_INTERNAL", std::string("a key was refused for ") + aeadName(aead)};
  return key;
}

void checkApart(const Span<uint8_t>& a, const Span<uint8_t>& b) {
  const auto from = [](const Span<uint8_t>& s) { return reinterpret_cast<uintptr_t>(s.data); };
  if (from(a) < from(b) + b.length && from(b) < from(a) + a.length) badArgument("input and output must not overlap");
}

/** (slot, aead, key, receiverLane) */
napi_value installSeal(const Arguments& args) {
  const size_t slot = static_cast<size_t>(args.integer(0, "slot", 0, kSlots - 1));
  const uint32_t lane = static_cast<uint32_t>(args.integer(3, "receiverLane", 0, UINT32_MAX));
  auto installed = std::make_unique<SealLane>();
  installed->key = keyArguments(args, 1, 2, Direction::seal, codec(args).library);
  installed->hot = installed->key->hot();
  installed->receiverLane = lane;
  const Lock lock(codec(args).mutex);
  codec(args).seals.set(slot, std::move(installed));
  return nullptr;
}

/** (slot) */
napi_value removeSeal(const Arguments& args) {
  const auto slot = static_cast<size_t>(args.integer(0, "slot", 0, kSlots - 1));
  const Lock lock(codec(args).mutex);
  codec(args).seals.set(slot, nullptr);
  return nullptr;
}

/** (slot) → frames sealed */
napi_value sealed(const Arguments& args) {
  const auto slot = static_cast<size_t>(args.integer(0, "slot", 0, kSlots - 1));
  const Lock lock(codec(args).mutex);
  const SealLane* lane = codec(args).seals.get(slot);
  return number(args.env(), lane == nullptr ? 0 : static_cast<double>(lane->counter));
}

/** (lane, aead, key) */
napi_value installOpen(const Arguments& args) {
  const uint32_t lane = static_cast<uint32_t>(args.integer(0, "lane", 0, UINT32_MAX));
  auto installed = std::make_unique<OpenLane>();
  installed->key = keyArguments(args, 1, 2, Direction::open, codec(args).library);
  installed->hot = installed->key->hot();
  installed->lane = lane;
  const Lock lock(codec(args).mutex);
  codec(args).opens.set(lane & 0xffff, std::move(installed));
  return nullptr;
}

/** (lane): nothing when the row has another lane by now. */
napi_value removeOpen(const Arguments& args) {
  const uint32_t lane = static_cast<uint32_t>(args.integer(0, "lane", 0, UINT32_MAX));
  const Lock lock(codec(args).mutex);
  const OpenLane* installed = codec(args).opens.get(lane & 0xffff);
  if (installed != nullptr && installed->lane == lane) codec(args).opens.set(lane & 0xffff, nullptr);
  return nullptr;
}

/** Asks for the keys of the entry so far ahead: with many peers each entry has others, and they lie far away. */
constexpr size_t kAhead = 4;

/** Asks for the keys of entry i, unless they are those of the entry before. */
void prefetchKeys(const Codec& codec, const Span<int32_t>& desc, size_t i) {
  const auto slot = [&](size_t entry) { return static_cast<uint16_t>(desc.data[entry * kSealWords + kSealSlot]); };
  if (i > 0 && slot(i) == slot(i - 1)) return;
  if (const SealLane* const lane = codec.seals.get(slot(i)))
    for (const Region& region : lane->hot) region.prefetch();
}

/** (data, desc, count, from, runsData, runsDesc, runsCount, runsUsed, state) → first entry not consumed; state: count and used of the runs, entries that were not sealed */
napi_value seal(const Arguments& args) {
  const Span<uint8_t> data = args.bytes(0, "batch.data");
  const Span<int32_t> desc = args.words(1, "batch.desc");
  const size_t count = static_cast<size_t>(args.integer(2, "batch.count", 0, static_cast<int64_t>(desc.length / kSealWords)));
  const size_t from = static_cast<size_t>(args.integer(3, "from", 0, static_cast<int64_t>(count)));
  const Span<uint8_t> out = args.bytes(4, "runs.data");
  const Span<int32_t> outDesc = args.words(5, "runs.desc", kRunWords);
  const int64_t runsCount = args.integer(6, "runs.count", 0, static_cast<int64_t>(outDesc.length / kRunWords));
  const int64_t runsUsed = args.integer(7, "runs.used", 0, static_cast<int64_t>(out.length));
  const Span<int32_t> state = args.words(8, "state", 3);
  checkApart(data, out);
  if (out.length > INT32_MAX) outOfRange("runs.data must have less than 2 GB");

  const Lock lock(codec(args).mutex);
  SealEntry entry;
  for (size_t i = from; i < count; i++) {
    entry.read(data, desc, i, out.length);
    __builtin_prefetch(codec(args).seals.get(entry.sealSlot()));
  }
  for (size_t i = from; i < std::min(from + kAhead, count); i++) prefetchKeys(codec(args), desc, i);
  RunWriter runs(out, outDesc, static_cast<size_t>(runsCount), static_cast<size_t>(runsUsed));
  size_t i = from;
  int32_t skipped = 0;
  for (; i < count; i++) {
    if (i + kAhead < count) prefetchKeys(codec(args), desc, i + kAhead);
    entry.read(data, desc, i, out.length);
    SealLane* const lane = codec(args).seals.get(entry.sealSlot());
    if (lane == nullptr) {
      skipped++;
      continue;
    }
    size_t segment = 0;
    bool sealed = true;
    for (; segment < entry.segments(); segment++) {
      const size_t length = entry.length(segment);
      uint8_t* const place = runs.place(length + kFrameOverhead, entry);
      if (place == nullptr) break;
      sealed = sealFrame(*lane, entry.plaintext(segment), length, place);
      if (!sealed) break;
      runs.commit(length + kFrameOverhead, entry);
    }
    if (!sealed) {
      skipped++;
    } else if (segment < entry.segments()) {
      entry.keepRest(segment);
      break;
    }
  }
  state.data[0] = static_cast<int32_t>(runs.count());
  state.data[1] = static_cast<int32_t>(runs.used());
  state.data[2] = skipped;
  return integer(args.env(), static_cast<int32_t>(i));
}

struct Datagram {
  size_t offset, length, stride;
  int32_t trafficClass;
};

Datagram readDatagram(const Span<uint8_t>& data, const Span<int32_t>& desc, size_t index) {
  int32_t words[kDatagramWords];
  std::memcpy(words, desc.data + index * kDatagramWords, sizeof words);
  const int64_t offset = words[0], length = words[1], size = words[2];
  if (offset < 0 || length < 0 || size < 0 || offset + length > static_cast<int64_t>(data.length))
    outOfRange("datagram " + std::to_string(index) + " lies outside the batch");
  const int64_t stride = size == 0 || size > length ? length : size;
  return {static_cast<size_t>(offset), static_cast<size_t>(length), static_cast<size_t>(stride), words[3]};
}

/** One frame of a datagram, from its clear header to an entry of the batch. False when there is no room. */
bool openFrame(Codec& codec, const uint8_t* frame, size_t offset, size_t length, Coalescer& out) {
  const auto fail = [&](Drop drop, int32_t lane) {
    out.reject(offset, length, lane, codec.status(drop));
    return true;
  };
  const bool transport = length >= kCounterAt && frame[0] == kTypeTransport;
  const uint32_t index = transport ? static_cast<uint32_t>(readLittle(frame + kLaneAt, 4)) : 0;
  const int32_t lane = static_cast<int32_t>(index);
  if (length < 2) return fail(kTruncated, 0);
  if (frame[0] < kTypeFirst || frame[0] > kTypeLast) return fail(kBadType, 0);
  if (frame[0] != kTypeTransport) {
    out.reject(offset, length, 0, kClear);
    return true;
  }
  if (frame[1] != kVersion) return fail(kBadVersion, lane);
  if (length < kFrameMin) return fail(kTruncated, lane);
  OpenLane* const installed = codec.opens.get(index & 0xffff);
  if (installed == nullptr || installed->lane != index) return fail(kUnknownLane, lane);

  const uint64_t counter = readLittle(frame + kCounterAt, 8);
  uint8_t nonce[kNonceLength] = {};
  writeLittle(nonce + 4, 8, counter);
  const size_t plain = length - kFrameOverhead;
  uint8_t* const place = out.place(plain, lane);
  if (place == nullptr) return false;
  if (!installed->key->open(nonce, frame, kClearHeader, frame + kClearHeader, length - kClearHeader, place)) {
    out.discard();
    return fail(kBadTag, lane);
  }
  if (counter >= kCounterEnd || !installed->window.accept(counter)) {
    out.discard();
    return fail(counter >= kCounterEnd ? kBadFrame : kReplayed, lane);
  }
  return out.add(plain, lane) || fail(kBadFrame, lane);
}

/** Asks for the keys and the window of a datagram's first frame, unless they are those of the datagram before. */
void prefetchLane(const Codec& codec, const uint8_t* frame, size_t length, const OpenLane*& last) {
  if (length < kFrameMin) return;
  const OpenLane* const lane = codec.opens.get(readLittle(frame + kLaneAt, 4) & 0xffff);
  if (lane == nullptr || lane == last) return;
  for (const Region& region : lane->hot) region.prefetch();
  lane->window.prefetch(readLittle(frame + kCounterAt, 8));
  last = lane;
}

/** (data, desc, addresses, count, outData, outDesc, state) → entries; state: their number and bytes used */
napi_value open(const Arguments& args) {
  const Span<uint8_t> data = args.bytes(0, "datagrams.data");
  const Span<int32_t> desc = args.words(1, "datagrams.desc");
  const Span<uint8_t> addresses = args.bytes(2, "datagrams.addresses");
  const size_t rows = std::min(desc.length / kDatagramWords, addresses.length / kAddressRecord);
  const size_t count = static_cast<size_t>(args.integer(3, "datagrams.count", 0, static_cast<int64_t>(rows)));
  const Span<uint8_t> out = args.bytes(4, "out.data");
  const Span<int32_t> outDesc = args.words(5, "out.desc");
  const Span<int32_t> state = args.words(6, "state", 2);
  checkApart(data, out);
  if (out.length > INT32_MAX) outOfRange("out.data must have less than 2 GB");
  size_t entries = 0, bytes = 0;
  for (size_t d = 0; d < count; d++) {
    const Datagram datagram = readDatagram(data, desc, d);
    entries += datagram.length == 0 ? 1 : std::min((datagram.length + datagram.stride - 1) / datagram.stride, kReadSegmentsMax + 1);
    bytes += datagram.length;
  }
  if (entries * kOpenWords > outDesc.length || bytes + entries * kEntryOverhead > out.length)
    outOfRange("out must have room for every entry");

  const Lock lock(codec(args).mutex);
  Coalescer coalescer(out, outDesc);
  bool room = true;
  const OpenLane* last = nullptr;
  for (size_t d = 0; d < count && room; d++) {
    const Datagram datagram = readDatagram(data, desc, d);
    if (d + 1 < count) {
      const Datagram next = readDatagram(data, desc, d + 1);
      prefetchLane(codec(args), data.data + next.offset, next.length, last);
    }
    const size_t first = coalescer.first();
    coalescer.datagram(d, desc.data[first * kDatagramWords + 3] == datagram.trafficClass &&
                              std::memcmp(addresses.data + first * kAddressRecord, addresses.data + d * kAddressRecord, kAddressRecord) == 0);
    size_t at = 0, segment = 0;
    do {
      const size_t length = std::min(datagram.stride, datagram.length - at);
      const size_t offset = datagram.offset + at;
      if (segment++ == kReadSegmentsMax) {
        if (!coalescer.full()) coalescer.reject(offset, datagram.length - at, 0, codec(args).status(kBadFrame), datagram.stride);
        break;
      }
      room = !coalescer.full() && openFrame(codec(args), data.data + offset, offset, length, coalescer);
      at += datagram.stride;
    } while (at < datagram.length && room);
  }
  state.data[0] = static_cast<int32_t>(coalescer.count());
  state.data[1] = static_cast<int32_t>(coalescer.used());
  return integer(args.env(), static_cast<int32_t>(coalescer.count()));
}

void releaseCodec(napi_env, void* data, void*) { delete static_cast<SharedCodec*>(data); }

/** Adds a function to the codec's object; the function holds a share of the codec. */
template <napi_value (*body)(const Arguments&)>
void method(napi_env env, napi_value target, const char* name, const SharedCodec& codec) {
  napi_value function;
  auto share = std::make_unique<SharedCodec>(codec);
  must(napi_create_function(env, name, NAPI_AUTO_LENGTH, guarded<body>, share.get(), &function), name);
  must(napi_add_finalizer(env, function, share.get(), releaseCodec, nullptr, nullptr), name);
  share.release();  // the function's finalizer has it
  set(env, target, name, function);
}

/** Codecs on their way from one environment of the process to another, by token. */
struct Sharing {
  std::mutex mutex;
  std::map<int32_t, SharedCodec> waiting;
  int32_t last = 0;
};
Sharing& sharing() {
  static Sharing all;
  return all;
}
constexpr size_t kSharedMax = 256;

/** () → token, with which another environment of this process may use the codec too, once. */
napi_value shareCodec(const Arguments& args) {
  Sharing& all = sharing();
  const Lock lock(all.mutex);
  if (all.waiting.size() >= kSharedMax || all.last == INT32_MAX) throw Fault{"CARACAL_E_LIMIT", "too many shared codecs"};
  all.waiting.emplace(++all.last, holder(args));
  return integer(args.env(), all.last);
}

napi_value codecObject(napi_env env, const SharedCodec& codec) {
  const napi_value target = object(env);
  method<installSeal>(env, target, "installSeal", codec);
  method<removeSeal>(env, target, "removeSeal", codec);
  method<sealed>(env, target, "sealed", codec);
  method<installOpen>(env, target, "installOpen", codec);
  method<removeOpen>(env, target, "removeOpen", codec);
  method<seal>(env, target, "seal", codec);
  method<open>(env, target, "open", codec);
  method<shareCodec>(env, target, "share", codec);
  return target;
}

/** (drops: Int32Array of the numbers in the order of `Drop`, library) → an object with the functions above. */
napi_value createCodec(const Arguments& args) {
  const Span<int32_t> drops = args.words(0, "drops");
  if (drops.length != kDrops) outOfRange("drops must have " + std::to_string(static_cast<int>(kDrops)) + " elements");
  const auto created = std::make_shared<Codec>();
  created->library = libraryArgument(args, 1);
  for (size_t i = 0; i < kDrops; i++) {
    if (drops.data[i] < 0 || drops.data[i] == INT32_MAX) outOfRange("drops must not be negative");
    created->drops[i] = drops.data[i];
  }
  return codecObject(args.env(), created);
}

/** (token) → an object with the functions of the codec that was shared. CARACAL_E_CLOSED when nothing waits under the token. */
napi_value adoptCodec(const Arguments& args) {
  return codecObject(args.env(), takeCodec(static_cast<int32_t>(args.integer(0, "token", 1, INT32_MAX))));
}

/** () → names of the AEADs offered, best first */
napi_value codecAeads(const Arguments& args) {
  napi_value names;
  must(napi_create_array(args.env(), &names), "array");
  uint32_t n = 0;
  for (size_t a = 0; a < kAeads; a++) {
    const Aead aead = static_cast<Aead>(a);
    if (aeadOffered(aead)) must(napi_set_element(args.env(), names, n++, text(args.env(), aeadName(aead))), "element");
  }
  return names;
}

/** () → { version, variant, problem, failed } of libipsec-mb, which it loads and tests. */
napi_value aboutIpsecMb(const Arguments& args) {
  const napi_env env = args.env();
  const IpsecMb& about = ipsecMb();
  const napi_value result = object(env);
  set(env, result, "version", text(env, about.version));
  set(env, result, "variant", text(env, about.variant));
  set(env, result, "problem", text(env, about.problem));
  set(env, result, "failed", boolean(env, about.failed));
  return result;
}

napi_value newBytes(napi_env env, size_t length, uint8_t** data) {
  napi_value buffer, array;
  void* memory = nullptr;
  must(napi_create_arraybuffer(env, length, &memory, &buffer), "bytes");
  must(napi_create_typedarray(env, napi_uint8_array, length, buffer, 0, &array), "bytes");
  *data = static_cast<uint8_t*>(memory);
  return array;
}

/** One call of an AEAD by itself: (aead, key, nonce, aad, plaintext, library) → ciphertext and tag. For the published vectors. */
napi_value aeadSeal(const Arguments& args) {
  const auto key = keyArguments(args, 0, 1, Direction::seal, libraryArgument(args, 5));
  const Span<uint8_t> nonce = exactBytes(args, 2, "nonce", kNonceLength);
  const Span<uint8_t> aad = args.bytes(3, "aad");
  const Span<uint8_t> in = args.bytes(4, "plaintext");
  uint8_t* out;
  const napi_value result = newBytes(args.env(), in.length + kTagLength, &out);
  if (!key->seal(nonce.data, aad.data, aad.length, in.data, in.length, out))
    throw Fault{"CARACAL_E_INTERNAL", "the plaintext could not be sealed"};
  return result;
}

/** (aead, key, nonce, aad, ciphertext and tag, library) → plaintext, undefined when the tag is wrong. */
napi_value aeadOpen(const Arguments& args) {
  const auto key = keyArguments(args, 0, 1, Direction::open, libraryArgument(args, 5));
  const Span<uint8_t> nonce = exactBytes(args, 2, "nonce", kNonceLength);
  const Span<uint8_t> aad = args.bytes(3, "aad");
  const Span<uint8_t> in = args.bytes(4, "ciphertext");
  if (in.length < kTagLength) return undefined(args.env());
  uint8_t* out;
  const napi_value result = newBytes(args.env(), in.length - kTagLength, &out);
  return key->open(nonce.data, aad.data, aad.length, in.data, in.length, out) ? result : undefined(args.env());
}

}  // namespace

SharedCodec takeCodec(int32_t token) {
  Sharing& all = sharing();
  const Lock lock(all.mutex);
  const auto found = all.waiting.find(token);
  if (found == all.waiting.end()) throw Fault{"CARACAL_E_CLOSED", "no codec is shared under this token"};
  SharedCodec taken = std::move(found->second);
  all.waiting.erase(found);
  return taken;
}

}  // namespace caracal

napi_value CodecInit(napi_env env, napi_value exports) {
  using namespace caracal;
  // Every host must have this one: without it there is no session with anybody.
  if (!aeadOffered(Aead::chacha20Poly1305))
    throw Fault{"CARACAL_E_AEAD", "ChaCha20-Poly1305 of this Node's OpenSSL did not pass its self-test"};
  define<createCodec>(env, exports, "createCodec", nullptr);
  define<adoptCodec>(env, exports, "adoptCodec", nullptr);
  define<codecAeads>(env, exports, "codecAeads", nullptr);
  define<aboutIpsecMb>(env, exports, "ipsecMb", nullptr);
  define<aeadSeal>(env, exports, "aeadSeal", nullptr);
  define<aeadOpen>(env, exports, "aeadOpen", nullptr);
  return exports;
}
