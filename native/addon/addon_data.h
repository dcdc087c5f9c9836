#pragma once

#include <napi.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "session/session.h"
#include "session/worker.h"

namespace nosa::addon {

class ModelObject;

/// A promise that waits to be settled on the JavaScript thread.
class Settlement {
 public:
  virtual ~Settlement() = default;
  virtual void settle(Napi::Env env) = 0;

  /// The environment is going: nothing of it may be touched any more.
  virtual void forget() = 0;
};

/// The native side of one model: its thread, and the session that only this thread touches.
struct ModelCore {
  Worker worker;
  std::unique_ptr<Session> session;  // Null until opened, and again once disposed.
  ModelObject* object = nullptr;     // Null until opened.
};

/// Everything the addon keeps for one JavaScript environment; nothing is global. Used on that
/// environment's thread, but for hand_over().
class AddonData {
 public:
  explicit AddonData(Napi::Env env);
  AddonData(const AddonData&) = delete;
  AddonData& operator=(const AddonData&) = delete;

  static AddonData& of(Napi::Env env) { return *env.GetInstanceData<AddonData>(); }

  ModelCore& add_core();

  /// Ends the thread of a model that runs nothing, and frees what it owns.
  void remove_core(ModelCore* core);

  /// A command that will be handed over is on its way: the process must not end before it.
  void expect_one();
  void expect_one_less();

  /// From any thread: settles on the JavaScript thread, soon.
  void hand_over(std::unique_ptr<Settlement> settlement);

  Napi::FunctionReference model_class;
  Napi::FunctionReference sequence_class;
  Napi::FunctionReference grammar_class;

 private:
  static void settle_one(napi_env env, napi_value, void* addon, void* settlement);
  static void close(void* addon);

  napi_env env_;
  napi_threadsafe_function to_js_thread_ = nullptr;
  size_t n_expected_ = 0;
  std::vector<std::unique_ptr<ModelCore>> cores_;
};

}  // namespace nosa::addon
