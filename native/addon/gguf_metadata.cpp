#include "addon/gguf_metadata.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "addon/errors.h"
#include "core/check.h"
#include "core/mapped_file.h"
#include "formats/gguf.h"

namespace nosa::addon {
namespace {

/// Elements made before their handles are let go: a vocabulary has several hundred thousand.
constexpr uint32_t scope_elements = 4096;

napi_value make_value(napi_env env, const GgufScalar& scalar) {
  napi_value value = nullptr;
  napi_status status = napi_ok;
  if (const auto* text = std::get_if<std::string_view>(&scalar)) {
    status = napi_create_string_utf8(env, text->data(), text->size(), &value);
  } else if (const auto* flag = std::get_if<bool>(&scalar)) {
    status = napi_get_boolean(env, *flag, &value);
  } else if (const auto* whole = std::get_if<int64_t>(&scalar)) {
    status = napi_create_int64(env, *whole, &value);
  } else if (const auto* natural = std::get_if<uint64_t>(&scalar)) {
    status = napi_create_double(env, double(*natural), &value);
  } else {
    status = napi_create_double(env, std::get<double>(scalar), &value);
  }
  CHECK(status == napi_ok);
  return value;
}

Napi::Array make_array(Napi::Env env, const GgufArray& array) {
  const Napi::Array result = Napi::Array::New(env, array.size());
  napi_handle_scope scope = nullptr;
  uint32_t at = 0;
  array.for_each([&](const GgufScalar& scalar) {
    if (at % scope_elements == 0) {
      if (scope != nullptr) CHECK(napi_close_handle_scope(env, scope) == napi_ok);
      CHECK(napi_open_handle_scope(env, &scope) == napi_ok);
    }
    CHECK(napi_set_element(env, result, at++, make_value(env, scalar)) == napi_ok);
  });
  if (scope != nullptr) CHECK(napi_close_handle_scope(env, scope) == napi_ok);
  return result;
}

}  // namespace

Napi::Value gguf_metadata(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fail = [&](const Status& status) {
    make_error(env, status).ThrowAsJavaScriptException();
    return env.Undefined();
  };
  if (!info[0].IsString()) return fail(Status::invalid_argument("The path must be a text."));
  const std::string path = info[0].As<Napi::String>().Utf8Value();
  const Result<MappedFile> file = MappedFile::open(path);
  if (!file.ok()) return fail(file.status());
  const Result<Gguf> gguf = parse_gguf(file->bytes(), path);
  if (!gguf.ok()) return fail(gguf.status());

  Napi::Object scalars = Napi::Object::New(env);
  Napi::Object arrays = Napi::Object::New(env);
  for (const auto& [key, value] : gguf->metadata) {
    const std::string name(key);
    if (const auto* scalar = std::get_if<GgufScalar>(&value)) {
      scalars.Set(name, Napi::Value(env, make_value(env, *scalar)));
    } else {
      arrays.Set(name, make_array(env, std::get<GgufArray>(value)));
    }
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("scalars", scalars);
  result.Set("arrays", arrays);
  return result;
}

}  // namespace nosa::addon
