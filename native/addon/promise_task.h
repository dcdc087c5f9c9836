#pragma once

#include <napi.h>

#include <memory>
#include <optional>
#include <utility>

#include "addon/addon_data.h"
#include "addon/errors.h"
#include "core/status.h"
#include "session/worker.h"

namespace nosa::addon {

/// Result of a command that has nothing to tell, and what it gives.
struct Nothing {};
inline Napi::Value undefined(Napi::Env env, Nothing&) { return env.Undefined(); }

/// The one asynchronous pattern: arguments are copied on the JavaScript thread, `Work` runs on a
/// worker with no JavaScript at hand, and the promise is settled back on the JavaScript thread.
///
///   work(const StopFlag&) -> Result<T>     on the worker
///   convert(Napi::Env, T&) -> Napi::Value  on the JavaScript thread
///
/// `keep` stays alive until then.
template <typename T, typename Convert>
class PromiseTask final : public Settlement {
 public:
  PromiseTask(Napi::Env env, Napi::Object keep, Convert convert)
      : deferred_(env), keep_(Napi::Persistent(keep)), convert_(std::move(convert)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }
  void set_result(Result<T> result) { result_.emplace(std::move(result)); }

  void settle(Napi::Env env) override {
    if (result_->ok()) {
      deferred_.Resolve(convert_(env, result_->value()));
    } else {
      deferred_.Reject(make_error(env, result_->status()).Value());
    }
  }

  void forget() override { keep_.SuppressDestruct(); }

 private:
  Napi::Promise::Deferred deferred_;
  Napi::ObjectReference keep_;
  Convert convert_;
  std::optional<Result<T>> result_;
};

enum class Turn {
  kNext,  ///< One command among others.
  kLast,  ///< The command that closes the worker down.
};

/// Queues `work` and returns its promise, which is rejected at once when the worker takes no more.
template <typename T, typename Work, typename Convert>
Napi::Promise run_on(Worker& worker, AddonData& addon, Napi::Object keep, Turn turn, Work work,
                     Convert convert) {
  const Napi::Env env = keep.Env();
  auto task = std::make_unique<PromiseTask<T, Convert>>(env, keep, std::move(convert));
  const Napi::Promise promise = task->promise();
  addon.expect_one();
  auto command = make_command(
      [task = std::move(task), work = std::move(work), &addon](const StopFlag& stop) mutable {
        task->set_result(work(stop));
        addon.hand_over(std::move(task));
      });
  const Status status = turn == Turn::kLast ? worker.finish(std::move(command))
                                            : worker.post(std::move(command));
  if (status.ok()) return promise;
  addon.expect_one_less();
  return rejected(env, status);
}

}  // namespace nosa::addon
