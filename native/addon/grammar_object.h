#pragma once

#include <napi.h>

#include <memory>

#include "addon/addon_data.h"
#include "session/grammar.h"

namespace nosa::addon {

/// SEAM 3's NativeGrammar: rules that decode commands follow. Nothing of it changes, so it needs no
/// thread.
class GrammarObject : public Napi::ObjectWrap<GrammarObject> {
 public:
  static Napi::Function define(Napi::Env env);

  static Napi::Value create(Napi::Env env, std::shared_ptr<const Grammar> grammar);

  /// Null unless `value` is one.
  static std::shared_ptr<const Grammar> from(Napi::Value value);

  /// Of Externals with the grammar, never called by scripts.
  explicit GrammarObject(const Napi::CallbackInfo& info);

 private:
  std::shared_ptr<const Grammar> grammar_;  // Shared with the commands that follow it.
};

/// SEAM 3's TokenBytes. Fails with kInvalidArgument.
Result<std::shared_ptr<const Vocabulary>> vocabulary_from(Napi::Value value);

/// SEAM 3's CallRules. Fails with kInvalidArgument.
Result<CallRules> call_rules_from(Napi::Value value);

}  // namespace nosa::addon
