#include "addon/convert.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "addon/grammar_object.h"

namespace nosa::addon {
namespace {

constexpr int64_t whole_max = int64_t(1) << 53;

bool is_uint32_array(Napi::Value value) {
  return value.IsTypedArray() &&
         value.As<Napi::TypedArray>().TypedArrayType() == napi_uint32_array;
}

std::vector<uint32_t> copy_uint32_array(Napi::Value value) {
  const auto array = value.As<Napi::Uint32Array>();
  const uint32_t* data = array.Data();
  return {data, data + array.ElementLength()};
}

Napi::Array lists_to_js(Napi::Env env, std::span<const std::vector<int32_t>> lists) {
  Napi::Array result = Napi::Array::New(env, lists.size());
  for (uint32_t i = 0; i < lists.size(); ++i) {
    const Napi::HandleScope scope(env);
    Napi::Array list = Napi::Array::New(env, lists[i].size());
    for (uint32_t at = 0; at < lists[i].size(); ++at) list.Set(at, lists[i][at]);
    result.Set(i, list);
  }
  return result;
}

}  // namespace

Options::Options(Napi::Value value) : value_(value) {
  if (!value.IsObject()) fail("The options must be an object.");
}

int64_t Options::whole(const char* name, int64_t lowest, int64_t highest) {
  const double value = number(name, double(lowest), double(highest));
  if (status_.ok() && value != std::floor(value)) {
    fail(std::string(name) + " must be a whole number.");
  }
  return status_.ok() ? int64_t(value) : lowest;
}

int64_t Options::whole_or(const char* name, int64_t otherwise, int64_t lowest, int64_t highest) {
  return absent(name) ? otherwise : whole(name, lowest, highest);
}

double Options::number(const char* name, double lowest, double highest) {
  const Napi::Value value = field(name);
  if (!value.IsNumber()) {
    fail(std::string(name) + " must be a number.");
    return lowest;
  }
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(number >= lowest && number <= highest)) {
    fail(std::string(name) + " is out of range.");
    return lowest;
  }
  return number;
}

bool Options::flag_or(const char* name, bool otherwise) {
  if (absent(name)) return otherwise;
  const Napi::Value value = field(name);
  if (!value.IsBoolean()) {
    fail(std::string(name) + " must be true or false.");
    return otherwise;
  }
  return value.As<Napi::Boolean>().Value();
}

std::string Options::text(const char* name) {
  const Napi::Value value = field(name);
  if (!value.IsString()) {
    fail(std::string(name) + " must be a text.");
    return {};
  }
  return value.As<Napi::String>().Utf8Value();
}

std::string Options::text_or(const char* name, std::string otherwise) {
  return absent(name) ? std::move(otherwise) : text(name);
}

std::vector<std::string> Options::texts(const char* name) {
  std::vector<std::string> texts;
  const Napi::Value array = field(name);
  if (!array.IsArray()) {
    fail(std::string(name) + " must be an array of texts.");
    return texts;
  }
  for (uint32_t i = 0; status_.ok() && i < array.As<Napi::Array>().Length(); ++i) {
    const Napi::HandleScope scope(value_.Env());
    const Napi::Value item = array.As<Napi::Array>().Get(i);
    if (item.IsString()) {
      texts.push_back(item.As<Napi::String>().Utf8Value());
    } else {
      fail(std::string(name) + " must hold texts only.");
    }
  }
  return texts;
}

size_t Options::choice(const char* name, std::span<const std::string_view> choices) {
  const std::string chosen = text(name);
  const auto found = std::ranges::find(choices, chosen);
  if (found == choices.end()) {
    fail(std::string(name) + " has no choice \"" + chosen + "\".");
    return 0;
  }
  return size_t(found - choices.begin());
}

Napi::Value Options::field(const char* name) {
  const Napi::Env env = value_.Env();
  if (!status_.ok()) return env.Undefined();
  return value_.As<Napi::Object>().Get(name);
}

Options Options::object(const char* name) {
  Options nested(field(name));
  if (!nested.status_.ok()) nested.status_ = Status::invalid_argument(std::string(name) + " must be an object.");
  return nested;
}

std::vector<uint32_t> Options::ids_or_none(const char* name) {
  if (absent(name)) return {};
  const Napi::Value value = field(name);
  if (is_uint32_array(value)) return copy_uint32_array(value);
  std::vector<uint32_t> ids;
  if (!value.IsArray()) {
    fail(std::string(name) + " must be an array of token ids.");
    return ids;
  }
  const auto array = value.As<Napi::Array>();
  ids.reserve(array.Length());
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array.Get(i);
    const double id = item.IsNumber() ? item.As<Napi::Number>().DoubleValue() : -1;
    if (!(id >= 0 && id <= std::numeric_limits<uint32_t>::max() && id == std::floor(id))) {
      fail(std::string(name) + " must hold token ids only.");
      return {};
    }
    ids.push_back(uint32_t(id));
  }
  return ids;
}

void Options::fail(std::string message) {
  if (status_.ok()) status_ = Status::invalid_argument(std::move(message));
}

bool Options::absent(const char* name) {
  const Napi::Value value = field(name);
  return value.IsUndefined() || value.IsNull();
}

Result<std::vector<uint32_t>> tokens_from(Napi::Value value) {
  if (is_uint32_array(value)) return copy_uint32_array(value);
  return Status::invalid_argument("Tokens must come as an Uint32Array.");
}

Result<DecodeRequest> decode_request_from(Napi::Value value) {
  constexpr int64_t int_max = std::numeric_limits<int>::max();
  constexpr double any = std::numeric_limits<float>::max();
  Options options(value);
  DecodeRequest request;
  request.n_steps = int(options.whole("steps", 0, int_max));
  request.stop_ids = options.ids_or_none("stopIds");
  request.banned_ids = options.ids_or_none("bannedIds");
  request.top = int(options.whole_or("top", 0, 0, int_max));
  request.masses = options.flag_or("masses", false);
  request.selections = options.flag_or("selections", false);
  request.drafts = options.flag_or("drafts", false);
  request.forced = options.field("teacher").IsTypedArray();
  request.teacher = options.ids_or_none("teacher");
  if (options.has("grammar")) {
    Options grammar = options.object("grammar");
    request.grammar = GrammarObject::from(grammar.field("rules"));
    request.grammar_from = int(grammar.whole("from", 0, int_max));
    if (request.grammar == nullptr) grammar.fail("rules must come from createGrammar().");
    if (!grammar.status().ok()) return grammar.status();
  }
  if (!options.status().ok()) return options.status();

  Options sampling = options.object("sampling");
  request.sampling.temperature = float(sampling.number("temperature", 0, any));
  request.sampling.top_k = int(sampling.whole("topK", 0, int_max));
  request.sampling.top_p = float(sampling.number("topP", 0, 1));
  request.sampling.min_p = float(sampling.number("minP", 0, 1));
  request.sampling.repetition_penalty = float(sampling.number("repetitionPenalty", 1e-3, 1e3));
  request.sampling.seed = uint64_t(sampling.whole("seed", -whole_max, whole_max));
  if (!sampling.status().ok()) return sampling.status();
  return request;
}

Result<SelectionOptions> selection_from(Napi::Value value) {
  constexpr int64_t int_max = std::numeric_limits<int>::max();
  // As many blocks as the positions of a sequence could fill.
  constexpr int64_t blocks_max = Sequence::position_end / kBlockTokens;
  static constexpr std::array<std::string_view, 3> policies = {"full", "infllmv2", "nosa"};
  static constexpr std::array<Policy, 3> choices = {Policy::kFull, Policy::kInfLlmV2, Policy::kNosa};
  Options options(value);
  SelectionOptions selection;
  selection.policy = choices[options.choice("policy", policies)];
  selection.budget.total_blocks = int(options.whole("totalBlocks", 1, blocks_max));
  selection.budget.query_blocks = int(options.whole("queryBlocks", 0, blocks_max));
  selection.budget.sink_blocks = int(options.whole("sinkBlocks", 0, blocks_max));
  selection.budget.window_blocks = int(options.whole("windowBlocks", 1, blocks_max));
  selection.exact_keys = options.flag_or("exactKeys", false);
  for (const auto& [name, ranges] : {std::pair("masked", &selection.masked),
                                     std::pair("pinned", &selection.pinned)}) {
    options.each(name, [&](Options& range) {
      ranges->push_back({int(range.whole("sequence", 0, int_max)), int(range.whole("from", 0, int_max)),
                         int(range.whole("to", 0, int_max))});
    });
  }
  if (!options.status().ok()) return options.status();
  return selection;
}

Napi::Value to_js(Napi::Env env, const PrefillOutcome& outcome) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("computed", outcome.computed);
  result.Set("done", outcome.done);
  result.Set("interrupted", outcome.interrupted);
  result.Set("blocksRead", double(outcome.blocks_read));
  result.Set("blocksFetched", double(outcome.blocks_fetched));
  return result;
}

Napi::Value to_js(Napi::Env env, const DecodeOutcome& outcome) {
  Napi::Array steps = Napi::Array::New(env, outcome.steps.size());
  for (uint32_t i = 0; i < outcome.steps.size(); ++i) {
    const Napi::HandleScope scope(env);
    const DecodeStep& step = outcome.steps[i];
    Napi::Array top = Napi::Array::New(env, step.top.size());
    for (uint32_t rank = 0; rank < step.top.size(); ++rank) {
      Napi::Array pair = Napi::Array::New(env, 2);
      pair.Set(0u, step.top[rank].id);
      pair.Set(1u, step.top[rank].logprob);
      top.Set(rank, pair);
    }
    Napi::Object item = Napi::Object::New(env);
    item.Set("token", step.token);
    item.Set("logprob", step.logprob);
    item.Set("top", top);
    item.Set("selections", lists_to_js(env, step.selections));
    steps.Set(i, item);
  }
  Napi::Array masses = Napi::Array::New(env, outcome.masses.size());
  for (uint32_t i = 0; i < outcome.masses.size(); ++i) {
    const Napi::HandleScope scope(env);
    Napi::Object item = Napi::Object::New(env);
    item.Set("sequence", outcome.masses[i].sequence);
    item.Set("block", outcome.masses[i].block);
    item.Set("mass", outcome.masses[i].mass);
    masses.Set(i, item);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("steps", steps);
  result.Set("stopped", outcome.stopped);
  result.Set("interrupted", outcome.interrupted);
  result.Set("masses", masses);
  result.Set("attendedBlocks", outcome.attended_blocks);
  result.Set("totalBlocks", outcome.total_blocks);
  result.Set("blocksRead", double(outcome.blocks_read));
  result.Set("blocksFetched", double(outcome.blocks_fetched));
  result.Set("drafted", outcome.n_drafted);
  result.Set("draftedRight", outcome.n_right);
  result.Set("shared", outcome.n_shared);
  return result;
}

Napi::Value to_js(Napi::Env env, const ScoreOutcome& outcome) {
  Napi::Float32Array logprobs = Napi::Float32Array::New(env, outcome.logprobs.size());
  std::ranges::copy(outcome.logprobs, logprobs.Data());
  Napi::Object result = Napi::Object::New(env);
  result.Set("logprobs", logprobs);
  result.Set("interrupted", outcome.interrupted);
  return result;
}

}  // namespace nosa::addon
