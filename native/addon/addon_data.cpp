#include "addon/addon_data.h"

#include <algorithm>
#include <utility>

#include "addon/model_object.h"
#include "core/check.h"

namespace nosa::addon {

AddonData::AddonData(Napi::Env env) : env_(env) {
  const Napi::String name = Napi::String::New(env, "nosa");
  CHECK(napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this,
                                        settle_one, &to_js_thread_) == napi_ok);
  napi_unref_threadsafe_function(env, to_js_thread_);
  // Hooks run last in, first out: this one before the way back to JavaScript is torn down.
  CHECK(napi_add_env_cleanup_hook(env, close, this) == napi_ok);
}

ModelCore& AddonData::add_core() {
  cores_.push_back(std::make_unique<ModelCore>());
  return *cores_.back();
}

void AddonData::remove_core(ModelCore* core) {
  const auto found = std::ranges::find(cores_, core, &std::unique_ptr<ModelCore>::get);
  CHECK(found != cores_.end());
  core->worker.abandon();
  cores_.erase(found);
}

void AddonData::expect_one() {
  if (n_expected_++ == 0) napi_ref_threadsafe_function(env_, to_js_thread_);
}

void AddonData::expect_one_less() {
  if (--n_expected_ == 0) napi_unref_threadsafe_function(env_, to_js_thread_);
}

void AddonData::hand_over(std::unique_ptr<Settlement> settlement) {
  // The queue has no limit of its own; the workers' queues have.
  const napi_status status =
      napi_call_threadsafe_function(to_js_thread_, settlement.get(), napi_tsfn_nonblocking);
  CHECK(status == napi_ok || status == napi_closing);
  if (status == napi_closing) settlement->forget();
  if (status == napi_ok) settlement.release();  // settle_one() owns it now.
}

void AddonData::settle_one(napi_env env, napi_value, void* addon, void* settlement) {
  const std::unique_ptr<Settlement> owned(static_cast<Settlement*>(settlement));
  if (env == nullptr) {
    owned->forget();
    return;
  }
  static_cast<AddonData*>(addon)->expect_one_less();
  owned->settle(Napi::Env(env));
}

// The environment ends, perhaps in the middle of work: stop every thread, and let the objects that
// are collected later know that nothing is left.
void AddonData::close(void* addon) {
  for (const auto& core : static_cast<AddonData*>(addon)->cores_) {
    core->worker.abandon();
    if (core->object != nullptr) core->object->detach();
  }
  static_cast<AddonData*>(addon)->cores_.clear();
}

}  // namespace nosa::addon
