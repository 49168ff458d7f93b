// What a daemon says to its keeper, and what it hears: one message a datagram of a SOCK_SEQPACKET socket, version and kind first, numbers little-endian. Whatever comes is either a whole message or
// none: nothing here trusts a length.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace keeper {

constexpr uint8_t kVersion = 1;
constexpr size_t kMessageMax = 65536;
constexpr size_t kNameMax = 31;
constexpr size_t kNoteMax = 16384;
constexpr size_t kCommandsMax = 32;
constexpr size_t kWordsMax = 16;
constexpr size_t kWordMax = 1024;
/** Seconds: thirty days. */
constexpr uint32_t kAfterMax = 30 * 86400;

enum class Ask : uint8_t { take = 1, hold = 2, release = 3, note = 4, plan = 5, state = 6, end = 7 };
enum class Answer : uint8_t { held = 129, state = 130, done = 131, refused = 132 };
enum class Refusal : uint8_t { malformed = 1, busy = 2, full = 3 };
enum class Occasion : uint8_t { withdraw = 0, giveUp = 1 };

using Command = std::vector<std::string>;

struct Plan {
  uint32_t afterSeconds;
  std::vector<Command> commands;
};

/** A request, with what its kind has of the rest. */
struct Request {
  Ask ask;
  std::string name;
  std::vector<uint8_t> note;
  Occasion occasion;
  Plan plan;
};

class Reader {
 public:
  Reader(const uint8_t* at, size_t left) : at_(at), left_(left) {}
  bool u8(uint8_t& value) {
    if (left_ < 1) return false;
    value = at_[0];
    return skip(1);
  }
  bool u16(uint16_t& value) {
    if (left_ < 2) return false;
    value = static_cast<uint16_t>(at_[0] | at_[1] << 8);
    return skip(2);
  }
  bool u32(uint32_t& value) {
    if (left_ < 4) return false;
    value = static_cast<uint32_t>(at_[0]) | static_cast<uint32_t>(at_[1]) << 8 | static_cast<uint32_t>(at_[2]) << 16 | static_cast<uint32_t>(at_[3]) << 24;
    return skip(4);
  }
  bool text(size_t length, std::string& value) {
    if (left_ < length) return false;
    value.assign(reinterpret_cast<const char*>(at_), length);
    return skip(length);
  }
  const uint8_t* rest() const { return at_; }
  size_t left() const { return left_; }

 private:
  bool skip(size_t count) {
    at_ += count;
    left_ -= count;
    return true;
  }
  const uint8_t* at_;
  size_t left_;
};

inline bool isName(const std::string& name) {
  if (name.empty() || name.size() > kNameMax) return false;
  for (const char c : name)
    if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-')) return false;
  return true;
}

inline bool decodePlan(Reader& reader, Request& request) {
  uint8_t occasion, count;
  if (!reader.u8(occasion) || occasion > static_cast<uint8_t>(Occasion::giveUp)) return false;
  request.occasion = static_cast<Occasion>(occasion);
  if (!reader.u32(request.plan.afterSeconds) || request.plan.afterSeconds > kAfterMax) return false;
  if (!reader.u8(count) || count > kCommandsMax) return false;
  for (uint8_t i = 0; i < count; i++) {
    uint8_t words;
    Command command;
    if (!reader.u8(words) || words == 0 || words > kWordsMax) return false;
    for (uint8_t word = 0; word < words; word++) {
      uint16_t length;
      std::string text;
      if (!reader.u16(length) || length > kWordMax || !reader.text(length, text)) return false;
      if (text.find('\0') != std::string::npos) return false;
      command.push_back(text);
    }
    if (command[0].empty()) return false;
    request.plan.commands.push_back(command);
  }
  return reader.left() == 0;
}

/** false: not a whole message of this version. */
inline bool decode(const uint8_t* bytes, size_t length, Request& request) {
  Reader reader(bytes, length);
  uint8_t version, kind;
  if (!reader.u8(version) || version != kVersion || !reader.u8(kind)) return false;
  request.ask = static_cast<Ask>(kind);
  switch (request.ask) {
    case Ask::take:
    case Ask::state:
    case Ask::end: return reader.left() == 0;
    case Ask::hold:
    case Ask::release: return reader.text(reader.left(), request.name) && isName(request.name);
    case Ask::note:
      if (reader.left() > kNoteMax) return false;
      request.note.assign(reader.rest(), reader.rest() + reader.left());
      return true;
    case Ask::plan: return decodePlan(reader, request);
  }
  return false;
}

inline void putU32(std::vector<uint8_t>& to, uint32_t value) {
  for (int i = 0; i < 4; i++) to.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

}  // namespace keeper
