#pragma once

#include <napi.h>

#include "addon/addon_data.h"
#include "session/session.h"

namespace nosa::addon {

class ModelObject;

/// SEAM 3's NativeSequence: the name of a sequence that lives on the model's thread. It keeps its
/// model alive, and closes the sequence when it is collected.
class SequenceObject : public Napi::ObjectWrap<SequenceObject> {
 public:
  static Napi::Function define(Napi::Env env);

  static Napi::Value create(ModelObject& model, SequenceId id);

  /// Null unless `value` is one.
  static SequenceObject* from(Napi::Value value, AddonData& addon);

  /// Of Externals with the model and the id, never called by scripts.
  explicit SequenceObject(const Napi::CallbackInfo& info);
  ~SequenceObject() override;

  const ModelObject* model() const { return model_; }
  SequenceId id() const { return id_; }

 private:
  Napi::Value select(const Napi::CallbackInfo& info);
  Napi::Value set_tokens(const Napi::CallbackInfo& info);
  Napi::Value tokens(const Napi::CallbackInfo& info);
  Napi::Value prefetch(const Napi::CallbackInfo& info);
  Napi::Value prefill(const Napi::CallbackInfo& info);
  Napi::Value decode(const Napi::CallbackInfo& info);
  Napi::Value score(const Napi::CallbackInfo& info);
  Napi::Value fork(const Napi::CallbackInfo& info);
  Napi::Value save(const Napi::CallbackInfo& info);
  Napi::Value load(const Napi::CallbackInfo& info);
  Napi::Value checkpoint(const Napi::CallbackInfo& info);
  Napi::Value resume(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);

  /// Queues `work(Sequence&, const StopFlag&) -> Result<T>`.
  template <typename T, typename Work, typename Convert>
  Napi::Value run(Work work, Convert convert);

  ModelObject* model_ = nullptr;
  Napi::ObjectReference keep_model_;
  SequenceId id_{};
};

}  // namespace nosa::addon
