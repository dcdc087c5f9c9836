#include "addon/model_object.h"

#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "addon/convert.h"
#include "addon/errors.h"
#include "addon/grammar_object.h"
#include "addon/promise_task.h"
#include "addon/sequence_object.h"
#include "core/check.h"
#include "core/thread_pool.h"

namespace nosa::addon {
namespace {

struct OpenOptions {
  ModelOptions model;
  KvLimits limits;
};

Result<OpenOptions> open_options_from(Napi::Value value) {
  static constexpr std::array<std::string_view, 2> precisions = {"fast", "f32"};
  static constexpr std::array<std::string_view, 5> kernels = {"auto", "generic", "avx2", "avx512",
                                                              "neon"};
  Options options(value);
  OpenOptions open;
  ModelOptions& model = open.model;
  model.path = options.text("path");
  model.adapter = options.text_or("adapter", "");
  model.cuda_library = options.text_or("cudaLibrary", "");
  model.base_sha256 = options.text_or("baseSha256", "");
  model.n_threads = int(options.whole("threads", 1, ThreadPool::threads_max));
  model.precision = options.choice("precision", precisions) == 0 ? Precision::kFast
                                                                  : Precision::kF32;
  static constexpr std::array<cpu::KernelChoice, 5> choices = {
      cpu::KernelChoice::kBest, cpu::KernelChoice::kGeneric, cpu::KernelChoice::kAvx2,
      cpu::KernelChoice::kAvx512, cpu::KernelChoice::kNeon};
  model.kernels = choices[options.choice("kernels", kernels)];
  constexpr int64_t no_limit = int64_t(1) << 53;
  KvLimits& limits = open.limits;
  limits.spill_folder = options.text_or("spillFolder", "");
  limits.spill_bytes_max = size_t(options.whole_or("spillBytesMax", no_limit, 0, no_limit));
  if (!options.status().ok()) return options.status();
  return open;
}

const char* selection_name(SelectionSource source) {
  switch (source) {
    case SelectionSource::kNative: return "native";
    case SelectionSource::kAdapter: return "adapter";
    case SelectionSource::kTrainingFree: break;
  }
  return "trainingFree";
}

const char* order_name(CompletionOrder order) {
  return order == CompletionOrder::kSuffixFirst ? "suffix-first" : "prefix-first";
}

Napi::Object info_to_js(Napi::Env env, const Session& session) {
  const Model& model = session.model();
  const ModelConfig& config = model.config();
  Napi::Object info = Napi::Object::New(env);
  info.Set("architecture", config.architecture);
  info.Set("name", config.name);
  info.Set("vocabSize", config.n_vocab);
  info.Set("layers", config.n_layers);
  info.Set("embeddingLength", config.n_embd);
  info.Set("heads", config.n_heads);
  info.Set("kvHeads", config.n_kv_heads);
  info.Set("headDim", config.head_dim);
  info.Set("contextLength", config.context_length);
  info.Set("weightBytes", double(model.weight_bytes()));
  info.Set("kvBytesPerToken", double(model.kv_shape().bytes_per_token()));
  info.Set("blockTokens", kBlockTokens);
  info.Set("stepSequences", session.step_sequences());
  info.Set("device", model.device());
  info.Set("gpuProblem", model.gpu_problem());
  info.Set("selection", selection_name(model.selection_source()));
  info.Set("completionOrder", order_name(model.completion_order()));
  info.Set("sideCarBytesPerToken", model.side_car_bytes_per_token());
  info.Set("workBytes", double(session.work_bytes()));
  info.Set("fingerprint", model.fingerprint());
  info.Freeze();
  return info;
}

/// The promise of a model. The core of one that does not open goes when it is settled.
class Opening final : public Settlement {
 public:
  Opening(Napi::Env env, AddonData& addon, ModelCore* core)
      : deferred_(env), addon_(addon), core_(core) {}

  Napi::Promise promise() const { return deferred_.Promise(); }
  void set_status(Status status) { status_ = std::move(status); }

  void settle(Napi::Env env) override {
    if (status_.ok()) {
      deferred_.Resolve(addon_.model_class.New({Napi::External<ModelCore>::New(env, core_)}));
      return;
    }
    addon_.remove_core(core_);
    deferred_.Reject(make_error(env, status_).Value());
  }
  void forget() override {}

 private:
  Napi::Promise::Deferred deferred_;
  AddonData& addon_;
  ModelCore* core_;
  Status status_;
};

}  // namespace

Napi::Function ModelObject::define(Napi::Env env) {
  return DefineClass(env, "NativeModel",
                     {InstanceAccessor<&ModelObject::info>("info"),
                      InstanceMethod<&ModelObject::create_sequence>("createSequence"),
                      InstanceMethod<&ModelObject::decode_together>("decodeTogether"),
                      InstanceMethod<&ModelObject::set_token_bytes>("setTokenBytes"),
                      InstanceMethod<&ModelObject::create_grammar>("createGrammar"),
                      InstanceMethod<&ModelObject::interrupt>("interrupt"),
                      InstanceMethod<&ModelObject::memory>("memory"),
                      InstanceMethod<&ModelObject::limit_memory>("limitMemory"),
                      InstanceMethod<&ModelObject::dispose>("dispose")});
}

Napi::Value ModelObject::open(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  AddonData& addon = AddonData::of(env);
  Result<OpenOptions> options = open_options_from(info[0]);
  if (!options.ok()) return rejected(env, options.status());

  ModelCore* core = &addon.add_core();
  auto opening = std::make_unique<Opening>(env, addon, core);
  const Napi::Promise promise = opening->promise();
  addon.expect_one();
  const Status posted = core->worker.post(make_command(
      [opening = std::move(opening), core, options = *std::move(options),
       &addon](const StopFlag&) mutable {
        Result<std::unique_ptr<Session>> session = Session::open(options.model, options.limits);
        opening->set_status(session.status());
        if (session.ok()) core->session = *std::move(session);
        addon.hand_over(std::move(opening));
      }));
  CHECK(posted.ok());  // The worker is new.
  return promise;
}

ModelObject::ModelObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ModelObject>(info) {
  if (!info[0].IsExternal()) {
    Napi::TypeError::New(info.Env(), "Models come from openModel().").ThrowAsJavaScriptException();
    return;
  }
  core_ = info[0].As<Napi::External<ModelCore>>().Data();
  core_->object = this;
  info_ = Napi::Persistent(info_to_js(info.Env(), *core_->session));
}

// A promise or a sequence that is still wanted keeps the object alive, so the worker is idle here.
ModelObject::~ModelObject() {
  if (core_ != nullptr) AddonData::of(Env()).remove_core(core_);
}

Napi::Value ModelObject::info(const Napi::CallbackInfo&) { return info_.Value(); }

Napi::Value ModelObject::create_sequence(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  AddonData& addon = AddonData::of(env);
  if (core_ == nullptr) return rejected(env, Status::disposed("The model was disposed."));

  Options options(info[0]);
  const int base_position = int(options.whole("basePosition", 0, Sequence::position_end - 1));
  const Napi::Value attends = options.field("attends");
  if (!attends.IsArray()) options.fail("attends must be an array of sequences.");
  std::vector<SequenceId> attended;
  for (uint32_t i = 0; options.status().ok() && i < attends.As<Napi::Array>().Length(); ++i) {
    const Napi::HandleScope scope(env);
    const Napi::Value item = attends.As<Napi::Array>().Get(i);
    const SequenceObject* sequence = SequenceObject::from(item, addon);
    if (sequence == nullptr || sequence->model() != this) {
      options.fail("attends must hold sequences of the same model.");
    } else {
      attended.push_back(sequence->id());
    }
  }
  if (!options.status().ok()) return rejected(env, options.status());

  const auto work = [core = core_, base_position,
                     attended = std::move(attended)](const StopFlag&) {
    return core->session->create_sequence(base_position, attended);
  };
  return run_on<SequenceId>(core_->worker, addon, Value(), Turn::kNext, work,
                            [this](Napi::Env, SequenceId id) {
                              return SequenceObject::create(*this, id);
                            });
}

Napi::Value ModelObject::decode_together(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  AddonData& addon = AddonData::of(env);
  if (core_ == nullptr) return rejected(env, Status::disposed("The model was disposed."));
  Options options(info[0]);
  std::vector<Session::DecodeTask> tasks;
  options.each("tasks", [&](Options& item) {
    const SequenceObject* sequence = SequenceObject::from(item.field("sequence"), addon);
    if (sequence == nullptr || sequence->model() != this) return item.fail("tasks must hold sequences of the same model.");
    Result<DecodeRequest> request = decode_request_from(item.field("options"));
    if (!request.ok()) return item.fail(request.status().message());
    tasks.push_back({sequence->id(), *std::move(request)});
  });
  if (!options.status().ok()) return rejected(env, options.status());

  using Outcomes = std::vector<Result<DecodeOutcome>>;
  const auto work = [core = core_, tasks = std::move(tasks)](const StopFlag& stop) -> Result<Outcomes> {
    return core->session->decode_together(tasks, stop);
  };
  return run_on<Outcomes>(core_->worker, addon, Value(), Turn::kNext, work, [](Napi::Env env, const Outcomes& outcomes) -> Napi::Value {
    Napi::Array results = Napi::Array::New(env, outcomes.size());
    for (uint32_t i = 0; i < outcomes.size(); ++i) {
      const Napi::HandleScope scope(env);
      const Result<DecodeOutcome>& outcome = outcomes[i];
      Napi::Object item = Napi::Object::New(env);
      item.Set("kind", outcome.ok() ? "decoded" : "failed");
      if (outcome.ok()) item.Set("result", to_js(env, *outcome));
      if (!outcome.ok()) item.Set("error", make_error(env, outcome.status()).Value());
      results.Set(i, item);
    }
    return results;
  });
}

Napi::Value ModelObject::set_token_bytes(const Napi::CallbackInfo& info) {
  Result<std::shared_ptr<const Vocabulary>> vocabulary = vocabulary_from(info[0]);
  if (!vocabulary.ok()) {
    make_error(info.Env(), vocabulary.status()).ThrowAsJavaScriptException();
  } else {
    vocabulary_ = *std::move(vocabulary);
  }
  return info.Env().Undefined();
}

Napi::Value ModelObject::create_grammar(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fail = [&](const Status& status) {
    make_error(env, status).ThrowAsJavaScriptException();
    return env.Undefined();
  };
  if (vocabulary_ == nullptr) return fail(Status::invalid_argument("Set the bytes of the tokens first."));
  Result<CallRules> rules = call_rules_from(info[0]);
  if (!rules.ok()) return fail(rules.status());
  Result<Grammar> grammar = Grammar::create(*std::move(rules), vocabulary_);
  if (!grammar.ok()) return fail(grammar.status());
  return GrammarObject::create(env, std::make_shared<const Grammar>(*std::move(grammar)));
}

Napi::Value ModelObject::interrupt(const Napi::CallbackInfo& info) {
  if (core_ != nullptr) core_->worker.interrupt();
  return info.Env().Undefined();
}

Napi::Value ModelObject::memory(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (core_ == nullptr) return rejected(env, Status::disposed("The model was disposed."));
  const auto work = [core = core_](const StopFlag&) -> Result<MemoryUse> {
    return core->session->memory();
  };
  const auto convert = [](Napi::Env env, const MemoryUse& use) -> Napi::Value {
    Napi::Object result = Napi::Object::New(env);
    result.Set("kvBytes", double(use.kv_bytes));
    result.Set("kvBlocks", double(use.kv_blocks));
    result.Set("sequences", double(use.sequences));
    result.Set("residentBytes", double(use.resident_bytes));
    result.Set("sideCarBytes", double(use.side_car_bytes));
    result.Set("memoryBytesMax", double(use.memory_bytes_max));
    result.Set("diskBytesRead", double(use.disk_bytes_read));
    result.Set("diskBytesWritten", double(use.disk_bytes_written));
    result.Set("blocksRead", double(use.blocks_read));
    result.Set("blocksPrefetched", double(use.blocks_prefetched));
    result.Set("prefetchedUsed", double(use.prefetched_used));
    result.Set("blocksSpilled", double(use.blocks_spilled));
    result.Set("blocksWrittenBehind", double(use.blocks_written_behind));
    result.Set("stepSequences", use.step_sequences);
    result.Set("device", use.device);
    result.Set("gpuProblem", use.gpu_problem);
    result.Set("deviceBytes", double(use.device_bytes));
    return result;
  };
  return run_on<MemoryUse>(core_->worker, AddonData::of(env), Value(), Turn::kNext, work, convert);
}

Napi::Value ModelObject::limit_memory(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (core_ == nullptr) return rejected(env, Status::disposed("The model was disposed."));
  Options options(info[0]);
  const int64_t bytes_max = options.whole("kvBytesMax", 1, int64_t(1) << 53);
  if (!options.status().ok()) return rejected(env, options.status());
  const auto work = [core = core_, bytes_max](const StopFlag&) -> Result<Nothing> {
    if (Status status = core->session->limit_memory(size_t(bytes_max)); !status.ok()) return status;
    return Nothing();
  };
  return run_on<Nothing>(core_->worker, AddonData::of(env), Value(), Turn::kNext, work, undefined);
}

Napi::Value ModelObject::dispose(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  AddonData& addon = AddonData::of(env);
  if (core_ == nullptr) {
    const Napi::Promise::Deferred done(env);
    done.Resolve(env.Undefined());
    return done.Promise();
  }
  // From here on every other call finds no core; the queue still runs what came before.
  ModelCore* core = std::exchange(core_, nullptr);
  core->object = nullptr;
  const auto work = [core](const StopFlag&) -> Result<Nothing> {
    core->session.reset();
    return Nothing();
  };
  return run_on<Nothing>(core->worker, addon, Value(), Turn::kLast, work,
                         [core, &addon](Napi::Env env, Nothing& nothing) {
                           addon.remove_core(core);
                           return undefined(env, nothing);
                         });
}

}  // namespace nosa::addon
