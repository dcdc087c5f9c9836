#pragma once

#include <napi.h>

#include <string>

#include "core/status.h"

namespace nosa::addon {

/// The error of a failed command: one sentence as its message, and as its `code` the status code's
/// name as SEAM 3 spells it, "outOfMemory". REQUIRES: `status` is a failure.
inline Napi::Error make_error(Napi::Env env, const Status& status) {
  std::string code = status_code_name(status.code());
  code[0] = static_cast<char>(code[0] - 'A' + 'a');
  Napi::Error error = Napi::Error::New(env, status.message());
  error.Value().Set("code", Napi::String::New(env, code));
  return error;
}

/// A promise that is rejected already.
inline Napi::Promise rejected(Napi::Env env, const Status& status) {
  const Napi::Promise::Deferred deferred(env);
  deferred.Reject(make_error(env, status).Value());
  return deferred.Promise();
}

}  // namespace nosa::addon
