#pragma once

#include <napi.h>

#include <memory>

#include "addon/addon_data.h"
#include "session/vocabulary.h"

namespace nosa::addon {

/// SEAM 3's NativeModel.
class ModelObject : public Napi::ObjectWrap<ModelObject> {
 public:
  static Napi::Function define(Napi::Env env);

  /// SEAM 3's openModel(): a promise of a NativeModel.
  static Napi::Value open(const Napi::CallbackInfo& info);

  /// Of an External with the core, never called by scripts.
  explicit ModelObject(const Napi::CallbackInfo& info);
  ~ModelObject() override;

  /// Null once the model is disposed or its environment is going.
  ModelCore* core() const { return core_; }
  void detach() { core_ = nullptr; }

 private:
  Napi::Value info(const Napi::CallbackInfo& info);
  Napi::Value create_sequence(const Napi::CallbackInfo& info);
  Napi::Value decode_together(const Napi::CallbackInfo& info);
  Napi::Value set_token_bytes(const Napi::CallbackInfo& info);
  Napi::Value create_grammar(const Napi::CallbackInfo& info);
  Napi::Value interrupt(const Napi::CallbackInfo& info);
  Napi::Value memory(const Napi::CallbackInfo& info);
  Napi::Value limit_memory(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);

  ModelCore* core_ = nullptr;
  Napi::ObjectReference info_;
  std::shared_ptr<const Vocabulary> vocabulary_;  // Shared with the grammars; null until it is set.
};

}  // namespace nosa::addon
