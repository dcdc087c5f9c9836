#include "addon/sequence_object.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "addon/convert.h"
#include "addon/errors.h"
#include "addon/model_object.h"
#include "addon/promise_task.h"

namespace nosa::addon {
namespace {

constexpr int64_t int_max = std::numeric_limits<int>::max();

struct SequenceName {
  ModelObject* model;
  SequenceId id;
};

Napi::Object one_number(Napi::Env env, const char* name, double value) {
  Napi::Object result = Napi::Object::New(env);
  result.Set(name, value);
  return result;
}

struct Place {
  std::string path;
  std::string key;
};

Result<Place> place_from(Napi::Value value) {
  Options options(value);
  Place place{options.text("path"), options.text("key")};
  if (!options.status().ok()) return options.status();
  return place;
}

}  // namespace

Napi::Function SequenceObject::define(Napi::Env env) {
  return DefineClass(env, "NativeSequence",
                     {InstanceMethod<&SequenceObject::select>("select"),
                      InstanceMethod<&SequenceObject::set_tokens>("setTokens"),
                      InstanceMethod<&SequenceObject::tokens>("tokens"),
                      InstanceMethod<&SequenceObject::prefetch>("prefetch"),
                      InstanceMethod<&SequenceObject::prefill>("prefill"),
                      InstanceMethod<&SequenceObject::decode>("decode"),
                      InstanceMethod<&SequenceObject::score>("score"),
                      InstanceMethod<&SequenceObject::fork>("fork"),
                      InstanceMethod<&SequenceObject::save>("save"),
                      InstanceMethod<&SequenceObject::load>("load"),
                      InstanceMethod<&SequenceObject::checkpoint>("checkpoint"),
                      InstanceMethod<&SequenceObject::resume>("resume"),
                      InstanceMethod<&SequenceObject::dispose>("dispose")});
}

Napi::Value SequenceObject::create(ModelObject& model, SequenceId id) {
  SequenceName name{&model, id};
  const Napi::Env env = model.Env();
  return AddonData::of(env).sequence_class.New({Napi::External<SequenceName>::New(env, &name)});
}

SequenceObject* SequenceObject::from(Napi::Value value, AddonData& addon) {
  if (!value.IsObject()) return nullptr;
  const Napi::Object object = value.As<Napi::Object>();
  return object.InstanceOf(addon.sequence_class.Value()) ? Unwrap(object) : nullptr;
}

SequenceObject::SequenceObject(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<SequenceObject>(info) {
  if (!info[0].IsExternal()) {
    Napi::TypeError::New(info.Env(), "Sequences come from createSequence().")
        .ThrowAsJavaScriptException();
    return;
  }
  const SequenceName& name = *info[0].As<Napi::External<SequenceName>>().Data();
  model_ = name.model;
  id_ = name.id;
  keep_model_ = Napi::Persistent(model_->Value());
}

SequenceObject::~SequenceObject() {
  if (model_ == nullptr || model_->core() == nullptr) return;
  ModelCore* core = model_->core();
  // Refused only when the model is being disposed, which closes the sequence too, or when the queue
  // is full, and then the sequence stays until the model goes.
  const Status ignored = core->worker.post(
      make_command([core, id = id_](const StopFlag&) { core->session->close_sequence(id); }));
  static_cast<void>(ignored);
}

template <typename T, typename Work, typename Convert>
Napi::Value SequenceObject::run(Work work, Convert convert) {
  ModelCore* core = model_->core();
  if (core == nullptr) return rejected(Env(), Status::disposed("The model was disposed."));
  auto command = [core, id = id_, work = std::move(work)](const StopFlag& stop) -> Result<T> {
    const Result<Sequence*> sequence = core->session->sequence(id);
    if (!sequence.ok()) return sequence.status();
    return work(**sequence, stop);
  };
  return run_on<T>(core->worker, AddonData::of(Env()), Value(), Turn::kNext, std::move(command),
                   std::move(convert));
}

Napi::Value SequenceObject::select(const Napi::CallbackInfo& info) {
  Result<SelectionOptions> options = selection_from(info[0]);
  if (!options.ok()) return rejected(info.Env(), options.status());
  return run<Nothing>(
      [options = *std::move(options)](Sequence& sequence, const StopFlag&) -> Result<Nothing> {
        if (Status status = sequence.select(options); !status.ok()) return status;
        return Nothing();
      },
      undefined);
}

Napi::Value SequenceObject::set_tokens(const Napi::CallbackInfo& info) {
  Result<std::vector<uint32_t>> tokens = tokens_from(info[0]);
  if (!tokens.ok()) return rejected(info.Env(), tokens.status());
  return run<int>(
      [tokens = *std::move(tokens)](Sequence& sequence, const StopFlag&) {
        return sequence.set_tokens(tokens);
      },
      [](Napi::Env env, int kept) { return one_number(env, "kept", kept); });
}

Napi::Value SequenceObject::tokens(const Napi::CallbackInfo&) {
  return run<std::vector<uint32_t>>(
      [](Sequence& sequence, const StopFlag&) -> Result<std::vector<uint32_t>> {
        return std::vector<uint32_t>(sequence.tokens().begin(), sequence.tokens().end());
      },
      [](Napi::Env env, const std::vector<uint32_t>& tokens) -> Napi::Value {
        Napi::Uint32Array ids = Napi::Uint32Array::New(env, tokens.size());
        std::copy(tokens.begin(), tokens.end(), ids.Data());
        return ids;
      });
}

Napi::Value SequenceObject::prefetch(const Napi::CallbackInfo&) {
  return run<PrefetchOutcome>(
      [](Sequence& sequence, const StopFlag& stop) { return sequence.prefetch(stop); },
      [](Napi::Env env, const PrefetchOutcome& outcome) -> Napi::Value {
        Napi::Object result = Napi::Object::New(env);
        result.Set("blocks", double(outcome.blocks));
        result.Set("interrupted", outcome.interrupted);
        return result;
      });
}

Napi::Value SequenceObject::prefill(const Napi::CallbackInfo& info) {
  Options options(info[0]);
  const int tokens_max = int(options.whole("tokensMax", 0, int_max));
  if (!options.status().ok()) return rejected(info.Env(), options.status());
  return run<PrefillOutcome>(
      [tokens_max](Sequence& sequence, const StopFlag& stop) {
        return sequence.prefill(tokens_max, stop);
      },
      [](Napi::Env env, const PrefillOutcome& outcome) { return to_js(env, outcome); });
}

Napi::Value SequenceObject::decode(const Napi::CallbackInfo& info) {
  Result<DecodeRequest> request = decode_request_from(info[0]);
  if (!request.ok()) return rejected(info.Env(), request.status());
  return run<DecodeOutcome>(
      [request = *std::move(request)](Sequence& sequence, const StopFlag& stop) {
        return sequence.decode(request, stop);
      },
      [](Napi::Env env, const DecodeOutcome& outcome) { return to_js(env, outcome); });
}

Napi::Value SequenceObject::score(const Napi::CallbackInfo& info) {
  Options options(info[0]);
  const int from = int(options.whole("from", 1, int_max));
  if (!options.status().ok()) return rejected(info.Env(), options.status());
  return run<ScoreOutcome>(
      [from](Sequence& sequence, const StopFlag& stop) { return sequence.score(from, stop); },
      [](Napi::Env env, const ScoreOutcome& outcome) { return to_js(env, outcome); });
}

Napi::Value SequenceObject::fork(const Napi::CallbackInfo& info) {
  ModelCore* core = model_->core();
  if (core == nullptr) return rejected(info.Env(), Status::disposed("The model was disposed."));
  return run_on<SequenceId>(
      core->worker, AddonData::of(info.Env()), Value(), Turn::kNext,
      [core, id = id_](const StopFlag&) { return core->session->fork_sequence(id); },
      [model = model_](Napi::Env, SequenceId id) { return create(*model, id); });
}

Napi::Value SequenceObject::save(const Napi::CallbackInfo& info) {
  Result<Place> place = place_from(info[0]);
  if (!place.ok()) return rejected(info.Env(), place.status());
  return run<int64_t>(
      [place = *std::move(place)](Sequence& sequence, const StopFlag&) {
        return sequence.save(place.path, place.key);
      },
      [](Napi::Env env, int64_t bytes) { return one_number(env, "bytes", double(bytes)); });
}

Napi::Value SequenceObject::load(const Napi::CallbackInfo& info) {
  Result<Place> place = place_from(info[0]);
  if (!place.ok()) return rejected(info.Env(), place.status());
  return run<int>(
      [place = *std::move(place)](Sequence& sequence, const StopFlag&) {
        return sequence.load(place.path, place.key);
      },
      [](Napi::Env env, int tokens) { return one_number(env, "tokens", tokens); });
}

Napi::Value SequenceObject::checkpoint(const Napi::CallbackInfo& info) {
  Result<Place> place = place_from(info[0]);
  if (!place.ok()) return rejected(info.Env(), place.status());
  return run<int>(
      [place = *std::move(place)](Sequence& sequence, const StopFlag&) {
        return sequence.checkpoint(place.path, place.key);
      },
      [](Napi::Env env, int tokens) { return one_number(env, "tokens", tokens); });
}

Napi::Value SequenceObject::resume(const Napi::CallbackInfo& info) {
  Result<Place> place = place_from(info[0]);
  if (!place.ok()) return rejected(info.Env(), place.status());
  return run<int>(
      [place = *std::move(place)](Sequence& sequence, const StopFlag&) {
        return sequence.resume(place.path, place.key);
      },
      [](Napi::Env env, int tokens) { return one_number(env, "tokens", tokens); });
}

Napi::Value SequenceObject::dispose(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ModelCore* core = model_->core();
  if (core == nullptr) {
    const Napi::Promise::Deferred done(env);
    done.Resolve(env.Undefined());
    return done.Promise();
  }
  return run_on<Nothing>(
      core->worker, AddonData::of(env), Value(), Turn::kNext,
      [core, id = id_](const StopFlag&) -> Result<Nothing> {
        core->session->close_sequence(id);
        return Nothing();
      },
      undefined);
}

}  // namespace nosa::addon
