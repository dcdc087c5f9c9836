#pragma once

#include <napi.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/status.h"
#include "session/sequence.h"

namespace nosa::addon {

/// Reads the fields of an options object and remembers the first one that is missing or makes no
/// sense, so that a list of fields reads as a list.
class Options {
 public:
  /// `value` is the argument as it came; anything but an object is a failure.
  explicit Options(Napi::Value value);

  const Status& status() const { return status_; }

  /// A number in [lowest, highest], whole for the first two.
  int64_t whole(const char* name, int64_t lowest, int64_t highest);
  int64_t whole_or(const char* name, int64_t otherwise, int64_t lowest, int64_t highest);
  double number(const char* name, double lowest, double highest);
  bool flag_or(const char* name, bool otherwise);
  std::string text(const char* name);
  std::string text_or(const char* name, std::string otherwise);

  /// An array of texts.
  std::vector<std::string> texts(const char* name);

  /// The index of the field's text in `choices`.
  size_t choice(const char* name, std::span<const std::string_view> choices);

  bool has(const char* name) { return !absent(name); }
  Napi::Value field(const char* name);
  Options object(const char* name);

  /// An array of objects, each read by `read(Options&)`; the first failure is remembered.
  template <typename Read>
  void each(const char* name, Read read) {
    const Napi::Value array = field(name);
    if (!array.IsArray()) return fail(std::string(name) + " must be an array.");
    for (uint32_t i = 0; status_.ok() && i < array.As<Napi::Array>().Length(); ++i) {
      const Napi::HandleScope scope(value_.Env());
      Options item(array.As<Napi::Array>().Get(i));
      read(item);
      if (!item.status_.ok()) status_ = item.status_;
    }
  }

  /// Token ids, as an array of numbers or an Uint32Array; none when the field is absent.
  std::vector<uint32_t> ids_or_none(const char* name);

  /// Takes over a failure found elsewhere, unless there is one already.
  void fail(std::string message);

 private:
  bool absent(const char* name);

  Napi::Value value_;
  Status status_;
};

/// The token ids of an Uint32Array. Fails with kInvalidArgument for anything else.
Result<std::vector<uint32_t>> tokens_from(Napi::Value value);

Result<DecodeRequest> decode_request_from(Napi::Value value);

Result<SelectionOptions> selection_from(Napi::Value value);

Napi::Value to_js(Napi::Env env, const PrefillOutcome& outcome);
Napi::Value to_js(Napi::Env env, const DecodeOutcome& outcome);
Napi::Value to_js(Napi::Env env, const ScoreOutcome& outcome);

}  // namespace nosa::addon
