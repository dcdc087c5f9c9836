#include "addon/grammar_object.h"

#include <array>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "addon/convert.h"

namespace nosa::addon {
namespace {

constexpr int64_t int_max = std::numeric_limits<int>::max();

ValueRule value_from(Options& options) {
  static constexpr std::array<std::string_view, 7> kinds = {"text",   "string", "number", "integer",
                                                            "object", "array",  "anyOf"};
  switch (options.choice("kind", kinds)) {
    case 0:
      return {ValueRule::Text{options.texts("texts")}};
    case 1:
      return {ValueRule::String{}};
    case 2:
      return {ValueRule::Number{false}};
    case 3:
      return {ValueRule::Number{true}};
    case 4: {
      ValueRule::Object object;
      options.each("properties", [&](Options& property) {
        object.properties.push_back({property.text("key"), int(property.whole("value", 0, int_max)),
                                     property.flag_or("required", false)});
      });
      object.rest = int(options.whole_or("rest", -1, 0, int_max));
      return {std::move(object)};
    }
    case 5:
      return {ValueRule::Array{int(options.whole("items", 0, int_max)),
                               int(options.whole("min", 0, int_max)),
                               int(options.whole_or("max", int_max, 0, int_max))}};
    default:
      break;
  }
  ValueRule::AnyOf any;
  for (const uint32_t value : options.ids_or_none("values")) any.values.push_back(int(value));
  return {std::move(any)};
}

}  // namespace

Napi::Function GrammarObject::define(Napi::Env env) {
  return DefineClass(env, "NativeGrammar", std::vector<PropertyDescriptor>());
}

Napi::Value GrammarObject::create(Napi::Env env, std::shared_ptr<const Grammar> grammar) {
  const auto external = Napi::External<std::shared_ptr<const Grammar>>::New(env, &grammar);
  return AddonData::of(env).grammar_class.New({external});
}

std::shared_ptr<const Grammar> GrammarObject::from(Napi::Value value) {
  if (!value.IsObject()) return nullptr;
  const Napi::Object object = value.As<Napi::Object>();
  if (!object.InstanceOf(AddonData::of(value.Env()).grammar_class.Value())) return nullptr;
  return Unwrap(object)->grammar_;
}

GrammarObject::GrammarObject(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<GrammarObject>(info) {
  if (!info[0].IsExternal()) {
    Napi::TypeError::New(info.Env(), "Grammars come from createGrammar().")
        .ThrowAsJavaScriptException();
    return;
  }
  grammar_ = *info[0].As<Napi::External<std::shared_ptr<const Grammar>>>().Data();
}

Result<std::shared_ptr<const Vocabulary>> vocabulary_from(Napi::Value value) {
  Options options(value);
  const Napi::Value bytes = options.field("bytes");
  const bool is_bytes =
      bytes.IsTypedArray() && bytes.As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array;
  if (!is_bytes) options.fail("bytes must be an Uint8Array.");
  std::vector<uint32_t> offsets = options.ids_or_none("offsets");
  if (!options.status().ok()) return options.status();
  const auto array = bytes.As<Napi::Uint8Array>();
  const auto* data = reinterpret_cast<const char*>(array.Data());
  Result<Vocabulary> vocabulary =
      Vocabulary::create(std::string(data, data + array.ElementLength()), std::move(offsets));
  if (!vocabulary.ok()) return vocabulary.status();
  return std::make_shared<const Vocabulary>(*std::move(vocabulary));
}

Result<CallRules> call_rules_from(Napi::Value value) {
  Options options(value);
  CallRules rules;
  options.each("values", [&](Options& item) { rules.values.push_back(value_from(item)); });
  options.each("calls", [&](Options& call) {
    rules.calls.push_back(
        {call.text("begin"), int(call.whole("arguments", 0, int_max)), call.text_or("end", "")});
  });
  rules.open = options.text("open");
  rules.close = options.text("close");
  rules.required = options.flag_or("required", false);
  if (!options.status().ok()) return options.status();
  return rules;
}

}  // namespace nosa::addon
