// What every function of the addon does at its boundary: arguments are checked before anything is touched, and whatever is wrong
// becomes a JavaScript Error with a stable code. Inside, faults are C++ exceptions; `guarded` turns them into JavaScript's.
#pragma once

#include <node_api.h>
#include <uv.h>

#include <cstdint>
#include <cstring>
#include <exception>
#include <string>

namespace caracal {

/** A fault on its way to JavaScript. `error` is an errno, 0 when no system call failed. */
struct Fault {
  const char* code;
  std::string message;
  int error = 0;
  const char* syscall = nullptr;
};

[[noreturn]] inline void badArgument(const std::string& what) { throw Fault{"CARACAL_E_ARGUMENT", what}; }
[[noreturn]] inline void outOfRange(const std::string& what) { throw Fault{"CARACAL_E_RANGE", what}; }
[[noreturn]] inline void systemFault(const char* code, const char* syscall, int error, const std::string& what) {
  throw Fault{code, what + ": " + syscall + ": " + uv_err_name(-error) + ", " + uv_strerror(-error), error, syscall};
}

/** A call into Node-API that cannot fail for valid arguments; when it does, an exception may be pending already. */
inline void must(napi_status status, const char* what) {
  if (status != napi_ok) throw Fault{"CARACAL_E_INTERNAL", what};
}

inline napi_value text(napi_env env, const std::string& s) {
  napi_value value;
  must(napi_create_string_utf8(env, s.data(), s.size(), &value), "string");
  return value;
}
inline napi_value number(napi_env env, double n) {
  napi_value value;
  must(napi_create_double(env, n, &value), "number");
  return value;
}
inline napi_value integer(napi_env env, int32_t n) {
  napi_value value;
  must(napi_create_int32(env, n, &value), "integer");
  return value;
}
inline napi_value boolean(napi_env env, bool b) {
  napi_value value;
  must(napi_get_boolean(env, b, &value), "boolean");
  return value;
}
inline napi_value undefined(napi_env env) {
  napi_value value;
  must(napi_get_undefined(env, &value), "undefined");
  return value;
}
inline napi_value object(napi_env env) {
  napi_value value;
  must(napi_create_object(env, &value), "object");
  return value;
}
inline void set(napi_env env, napi_value target, const char* name, napi_value value) {
  must(napi_set_named_property(env, target, name, value), name);
}

/** A string of at most `max` bytes in UTF-8, without NUL. */
inline std::string stringOf(napi_env env, napi_value from, const char* name, size_t max) {
  size_t length = 0;
  if (napi_get_value_string_utf8(env, from, nullptr, 0, &length) != napi_ok) badArgument(std::string(name) + " must be a string");
  if (length > max) outOfRange(std::string(name) + " must have at most " + std::to_string(max) + " bytes");
  std::string value(length + 1, '\0');
  must(napi_get_value_string_utf8(env, from, value.data(), length + 1, &length), name);
  value.resize(length);
  if (value.find('\0') != std::string::npos) badArgument(std::string(name) + " must not contain NUL");
  return value;
}

/** Elements of a typed array, valid until JavaScript runs again. */
template <typename T>
struct Span {
  T* data;
  size_t length;
};

/** The arguments of one call. Each getter throws CARACAL_E_ARGUMENT with the argument's name when the type is another. */
class Arguments {
 public:
  static constexpr size_t kMax = 12;

  Arguments(napi_env env, napi_callback_info info) : env_(env) {
    count_ = kMax;
    must(napi_get_cb_info(env, info, &count_, values_, nullptr, &data_), "arguments");
    if (count_ > kMax) count_ = kMax;
  }

  size_t count() const { return count_; }
  /** What the function was created with. */
  void* data() const { return data_; }
  napi_env env() const { return env_; }

  /** An integral number in [low, high]; CARACAL_E_RANGE outside. */
  int64_t integer(size_t i, const char* name, int64_t low, int64_t high) const {
    double n = 0;
    if (i >= count_ || napi_get_value_double(env_, values_[i], &n) != napi_ok) badArgument(std::string(name) + " must be a number");
    if (!(n >= -9007199254740991.0 && n <= 9007199254740991.0) || n != static_cast<double>(static_cast<int64_t>(n)))
      badArgument(std::string(name) + " must be an integer");
    const int64_t value = static_cast<int64_t>(n);
    if (value < low || value > high)
      outOfRange(std::string(name) + " must be between " + std::to_string(low) + " and " + std::to_string(high));
    return value;
  }

  /** A finite number. */
  double decimal(size_t i, const char* name) const {
    double n = 0;
    if (i >= count_ || napi_get_value_double(env_, values_[i], &n) != napi_ok || !(n - n == 0)) badArgument(std::string(name) + " must be a number");
    return n;
  }

  /** Whatever it is. */
  napi_value value(size_t i) const { return values_[i]; }

  napi_value object(size_t i, const char* name) const {
    napi_valuetype type = napi_undefined;
    if (i >= count_ || napi_typeof(env_, values_[i], &type) != napi_ok || type != napi_object) badArgument(std::string(name) + " must be an object");
    return values_[i];
  }

  bool boolean(size_t i, const char* name) const {
    bool value = false;
    if (i >= count_ || napi_get_value_bool(env_, values_[i], &value) != napi_ok) badArgument(std::string(name) + " must be a boolean");
    return value;
  }

  /** As stringOf does. */
  std::string string(size_t i, const char* name, size_t max) const {
    if (i >= count_) badArgument(std::string(name) + " must be a string");
    return stringOf(env_, values_[i], name, max);
  }

  napi_value function(size_t i, const char* name) const {
    napi_valuetype type = napi_undefined;
    if (i >= count_ || napi_typeof(env_, values_[i], &type) != napi_ok || type != napi_function)
      badArgument(std::string(name) + " must be a function");
    return values_[i];
  }

  Span<uint8_t> bytes(size_t i, const char* name, size_t atLeast = 0) const {
    return array<uint8_t>(i, name, napi_uint8_array, "a Uint8Array", atLeast);
  }
  Span<int32_t> words(size_t i, const char* name, size_t atLeast = 0) const {
    return array<int32_t>(i, name, napi_int32_array, "an Int32Array", atLeast);
  }

 private:
  template <typename T>
  Span<T> array(size_t i, const char* name, napi_typedarray_type wanted, const char* kind, size_t atLeast) const {
    napi_typedarray_type type;
    size_t length = 0;
    void* data = nullptr;
    if (i >= count_ || napi_get_typedarray_info(env_, values_[i], &type, &length, &data, nullptr, nullptr) != napi_ok || type != wanted)
      badArgument(std::string(name) + " must be " + kind);
    // A detached array has no elements.
    if (data == nullptr) length = 0;
    if (length < atLeast) outOfRange(std::string(name) + " must have at least " + std::to_string(atLeast) + " elements");
    return {static_cast<T*>(data), length};
  }

  napi_env env_;
  size_t count_;
  napi_value values_[kMax];
  void* data_;
};

inline void throwFault(napi_env env, const Fault& fault) {
  bool pending = false;
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending) return;
  napi_value code, message, error, value;
  if (napi_create_string_utf8(env, fault.code, NAPI_AUTO_LENGTH, &code) != napi_ok) return;
  if (napi_create_string_utf8(env, fault.message.data(), fault.message.size(), &message) != napi_ok) return;
  if (napi_create_error(env, code, message, &error) != napi_ok) return;
  if (fault.error != 0) {
    if (napi_create_string_utf8(env, uv_err_name(-fault.error), NAPI_AUTO_LENGTH, &value) == napi_ok)
      napi_set_named_property(env, error, "reason", value);
    if (fault.syscall != nullptr && napi_create_string_utf8(env, fault.syscall, NAPI_AUTO_LENGTH, &value) == napi_ok)
      napi_set_named_property(env, error, "syscall", value);
  }
  napi_throw(env, error);
}

/** Makes a callback of `napi_value body(const Arguments&)`. */
template <napi_value (*body)(const Arguments&)>
napi_value guarded(napi_env env, napi_callback_info info) {
  try {
    return body(Arguments(env, info));
  } catch (const Fault& fault) {
    throwFault(env, fault);
  } catch (const std::exception& e) {
    throwFault(env, Fault{"CARACAL_E_INTERNAL", e.what()});
  }
  return nullptr;
}

/** Adds a function to the addon's exports; `data` is what Arguments::data gives back. */
template <napi_value (*body)(const Arguments&)>
void define(napi_env env, napi_value exports, const char* name, void* data) {
  napi_value function;
  must(napi_create_function(env, name, NAPI_AUTO_LENGTH, guarded<body>, data, &function), name);
  set(env, exports, name, function);
}

}  // namespace caracal
