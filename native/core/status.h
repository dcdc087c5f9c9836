#pragma once

#include <string>
#include <utility>
#include <variant>

#include "core/check.h"

namespace nosa {

/// Why something failed. The list is closed: the addon maps every code to a JavaScript error code
/// of the same name, so a new cause must find its place here.
enum class StatusCode {
  kOk,
  kInvalidArgument,  ///< The caller asked for something that makes no sense.
  kNotFound,         ///< A file, tensor or key that is not there.
  kIo,               ///< The operating system refused or failed a read, write or map.
  kCorrupt,          ///< Data that contradicts its own format.
  kUnsupported,      ///< Valid, but Nosa does not handle it.
  kOutOfMemory,      ///< A budget or the machine is exhausted.
  kNoSpace,          ///< The disk is full, or its quota.
  kInterrupted,      ///< Stopped on request before it was finished; it can be resumed.
  kDisposed,         ///< The object was closed.
};

/// The name of a code without its `k`, as in messages and in JavaScript: "Corrupt".
constexpr const char* status_code_name(StatusCode code) {
  switch (code) {
    case StatusCode::kOk:
      return "Ok";
    case StatusCode::kInvalidArgument:
      return "InvalidArgument";
    case StatusCode::kNotFound:
      return "NotFound";
    case StatusCode::kIo:
      return "Io";
    case StatusCode::kCorrupt:
      return "Corrupt";
    case StatusCode::kUnsupported:
      return "Unsupported";
    case StatusCode::kOutOfMemory:
      return "OutOfMemory";
    case StatusCode::kNoSpace:
      return "NoSpace";
    case StatusCode::kInterrupted:
      return "Interrupted";
    case StatusCode::kDisposed:
      return "Disposed";
  }
  return "Unknown";
}

/// Success, or a code and one clear sentence for a person: what is wrong and what to do about it.
class [[nodiscard]] Status {
 public:
  /// Success.
  Status() = default;

  /// A failure. REQUIRES: `code` is not kOk.
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {
    CHECK(code != StatusCode::kOk);
  }

  static Status invalid_argument(std::string message) {
    return {StatusCode::kInvalidArgument, std::move(message)};
  }
  static Status not_found(std::string message) {
    return {StatusCode::kNotFound, std::move(message)};
  }
  static Status io(std::string message) { return {StatusCode::kIo, std::move(message)}; }
  static Status corrupt(std::string message) { return {StatusCode::kCorrupt, std::move(message)}; }
  static Status unsupported(std::string message) {
    return {StatusCode::kUnsupported, std::move(message)};
  }
  static Status out_of_memory(std::string message) {
    return {StatusCode::kOutOfMemory, std::move(message)};
  }
  static Status no_space(std::string message) { return {StatusCode::kNoSpace, std::move(message)}; }
  static Status interrupted(std::string message) {
    return {StatusCode::kInterrupted, std::move(message)};
  }
  static Status disposed(std::string message) {
    return {StatusCode::kDisposed, std::move(message)};
  }

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

/// A value, or the status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}  // NOLINT: `return value;` is the point.

  /// REQUIRES: `status` is a failure.
  Result(Status status) : state_(std::move(status)) {  // NOLINT: `return status;` is the point.
    CHECK(!std::get<Status>(state_).ok());
  }

  bool ok() const { return std::holds_alternative<T>(state_); }

  /// The failure, or success when there is a value.
  Status status() const { return ok() ? Status() : std::get<Status>(state_); }

  /// REQUIRES: ok().
  T& value() & {
    CHECK(ok());
    return *std::get_if<T>(&state_);
  }
  const T& value() const& {
    CHECK(ok());
    return *std::get_if<T>(&state_);
  }
  T&& value() && {
    CHECK(ok());
    return std::move(*std::get_if<T>(&state_));
  }

  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<T, Status> state_;
};

}  // namespace nosa
