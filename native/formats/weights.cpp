#include "formats/weights.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "formats/weights_source.h"

namespace nosa {
namespace {

/// JSON as the scalars of GGUF; nothing for null, lists and objects.
std::optional<GgufScalar> scalar_of(const JsonValue& value) {
  if (const auto flag = value.boolean()) return GgufScalar(*flag);
  if (const auto whole = value.integer()) return GgufScalar(*whole);
  if (const auto number = value.number()) return GgufScalar(*number);
  if (const auto* text = value.string()) return GgufScalar(std::string_view(*text));
  return std::nullopt;
}

/// What the path "rope_scaling.factor" leads to from the root of config.json; null for nothing.
const JsonValue* find_path(const JsonValue& root, std::string_view path) {
  const JsonValue* value = &root;
  while (value != nullptr) {
    const size_t dot = path.find('.');
    value = value->find(path.substr(0, dot));
    if (dot == std::string_view::npos) break;
    path.remove_prefix(dot + 1);
  }
  return value != nullptr && value->is_null() ? nullptr : value;
}

/// The scalars under a key, one or a list. Nothing when the key is absent; an empty optional inside
/// stands for an element that is no scalar.
using Scalars = std::vector<std::optional<GgufScalar>>;
std::optional<Scalars> find_scalars(const WeightsSource& source, std::string_view key) {
  Scalars scalars;
  if (const auto* gguf = std::get_if<Gguf>(&source.metadata)) {
    const GgufValue* value = gguf->find(key);
    if (value == nullptr) return std::nullopt;
    if (const auto* scalar = std::get_if<GgufScalar>(value)) return Scalars{*scalar};
    std::get<GgufArray>(*value).for_each(
        [&](const GgufScalar& scalar) { scalars.push_back(scalar); });
    return scalars;
  }
  const JsonValue* value = find_path(std::get<JsonValue>(source.metadata), key);
  if (value == nullptr) return std::nullopt;
  if (value->array() == nullptr) return Scalars{scalar_of(*value)};
  for (const JsonValue& item : *value->array()) scalars.push_back(scalar_of(item));
  return scalars;
}

bool is_list(const WeightsSource& source, std::string_view key) {
  if (const auto* gguf = std::get_if<Gguf>(&source.metadata)) {
    return gguf->find_array(key) != nullptr;
  }
  const JsonValue* value = find_path(std::get<JsonValue>(source.metadata), key);
  return value != nullptr && value->array() != nullptr;
}

// Each turns a scalar into one kind of value, or nothing when something would be lost.

std::optional<double> to_number(const GgufScalar& scalar) {
  if (const auto* value = std::get_if<double>(&scalar)) return *value;
  if (const auto* value = std::get_if<uint64_t>(&scalar)) return static_cast<double>(*value);
  if (const auto* value = std::get_if<int64_t>(&scalar)) return static_cast<double>(*value);
  return std::nullopt;
}

std::optional<uint32_t> to_u32(const GgufScalar& scalar) {
  const auto number = to_number(scalar);
  constexpr double max = std::numeric_limits<uint32_t>::max();
  if (!number || !(*number >= 0.0 && *number <= max) || std::floor(*number) != *number) {
    return std::nullopt;
  }
  return static_cast<uint32_t>(*number);
}

std::optional<float> to_f32(const GgufScalar& scalar) {
  const auto number = to_number(scalar);
  if (!number || std::fabs(*number) > static_cast<double>(std::numeric_limits<float>::max())) {
    return std::nullopt;
  }
  return static_cast<float>(*number);
}

std::optional<bool> to_bool(const GgufScalar& scalar) {
  const bool* flag = std::get_if<bool>(&scalar);
  return flag == nullptr ? std::nullopt : std::optional<bool>(*flag);
}

std::optional<std::string> to_text(const GgufScalar& scalar) {
  const auto* text = std::get_if<std::string_view>(&scalar);
  return text == nullptr ? std::nullopt : std::optional<std::string>(*text);
}

template <typename T>
Result<std::vector<T>> meta_list(const WeightsSource& source, std::string_view key,
                                 const char* kind, std::optional<T> (*convert)(const GgufScalar&)) {
  const std::string file(file_name_of(source.path));
  const auto scalars = find_scalars(source, key);
  if (!scalars) {
    return Status::not_found(file + " does not say " + std::string(key) +
                             "; use the model from another source");
  }
  std::vector<T> values;
  values.reserve(scalars->size());
  for (const auto& scalar : *scalars) {
    const auto value = scalar ? convert(*scalar) : std::nullopt;
    if (!value) {
      return Status::corrupt(file + ": " + std::string(key) + " is not " + kind +
                             "; use the model from another source");
    }
    values.push_back(*value);
  }
  return values;
}

template <typename T>
Result<T> meta_one(const WeightsSource& source, std::string_view key, const char* kind,
                   std::optional<T> (*convert)(const GgufScalar&)) {
  if (is_list(source, key)) {
    return Status::corrupt(std::string(file_name_of(source.path)) + ": " + std::string(key) +
                           " is a list, not " + kind + "; use the model from another source");
  }
  auto values = meta_list(source, key, kind, convert);
  if (!values.ok()) return values.status();
  return T(values->front());
}

constexpr const char* kind_u32 = "a whole number from 0 to 4294967295";
constexpr const char* kind_f32 = "a number";
constexpr const char* kind_bool = "true or false";
constexpr const char* kind_text = "text";

}  // namespace

std::string_view file_name_of(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  const size_t slash = path.find_last_of("/\\");
  return slash == std::string_view::npos || path.size() == 1 ? path : path.substr(slash + 1);
}

Status WeightsSource::add(std::string name, const WeightView& view) {
  WeightView kept = view;
  // Quantised blocks begin with a binary16, plain types are one element.
  const int64_t alignment = block_values(view.dtype) == 1 ? block_bytes(view.dtype) : 2;
  if (reinterpret_cast<uintptr_t>(view.data) % static_cast<uintptr_t>(alignment) != 0) {
    auto copy = AlignedBuffer::create(static_cast<size_t>(view.size_bytes()));
    if (!copy.ok()) return copy.status();
    std::memcpy(copy->bytes().data(), view.data, copy->bytes().size());
    kept.data = copy->bytes().data();
    copies.push_back(*std::move(copy));
  }
  if (!tensors.emplace(name, kept).second) {
    return Status::corrupt(std::string(file_name_of(path)) + " has two tensors " + name +
                           "; download it again");
  }
  return {};
}

Result<std::unique_ptr<Weights>> Weights::open(const std::string& path) {
  std::error_code ignored;
  const bool is_folder = std::filesystem::is_directory(path, ignored);
  auto source = is_folder ? open_folder_weights(path) : open_gguf_weights(path);
  if (!source.ok()) return source.status();
  return std::unique_ptr<Weights>(new Weights(*std::move(source)));
}

Result<std::unique_ptr<Weights>> Weights::open_tensors(const std::string& path) {
  auto source = open_tensors_file(path);
  if (!source.ok()) return source.status();
  return std::unique_ptr<Weights>(new Weights(*std::move(source)));
}

Weights::Weights(std::unique_ptr<WeightsSource> source) : source_(std::move(source)) {}
Weights::~Weights() = default;

WeightsKind Weights::kind() const { return source_->kind; }
const std::string& Weights::path() const { return source_->path; }
const std::string& Weights::architecture() const { return source_->architecture; }
RopePairing Weights::rope_pairing() const { return source_->rope_pairing; }

const std::map<std::string, WeightView, std::less<>>& Weights::tensors() const {
  return source_->tensors;
}

bool Weights::has(std::string_view name) const { return tensors().contains(name); }

Result<WeightView> Weights::tensor(std::string_view name) const {
  const auto at = tensors().find(name);
  if (at == tensors().end()) {
    return Status::not_found(std::string(file_name_of(path())) + " has no tensor " +
                             std::string(name) + "; use the model from another source");
  }
  return at->second;
}

Result<WeightView> Weights::tensor(std::string_view name, int64_t rows, int64_t cols) const {
  auto view = tensor(name);
  if (!view.ok()) return view.status();
  if (view->rows != rows || view->cols != cols) {
    const auto shape = [](int64_t r, int64_t c) {
      return "[" + std::to_string(r) + ", " + std::to_string(c) + "]";
    };
    return Status::corrupt(std::string(file_name_of(path())) + ": tensor " + std::string(name) +
                           " is " + shape(view->rows, view->cols) +
                           " where the model's sizes need " + shape(rows, cols) +
                           "; use the model from another source");
  }
  return view;
}

int64_t Weights::size_bytes() const {
  int64_t total = 0;
  for (const auto& [name, view] : tensors()) total += view.size_bytes();
  return total;
}

bool Weights::has_meta(std::string_view key) const {
  if (const auto* gguf = std::get_if<Gguf>(&source_->metadata)) return gguf->find(key) != nullptr;
  return find_path(std::get<JsonValue>(source_->metadata), key) != nullptr;
}

Result<uint32_t> Weights::meta_u32(std::string_view key) const {
  return meta_one<uint32_t>(*source_, key, kind_u32, to_u32);
}

Result<float> Weights::meta_f32(std::string_view key) const {
  return meta_one<float>(*source_, key, kind_f32, to_f32);
}

Result<bool> Weights::meta_bool(std::string_view key) const {
  return meta_one<bool>(*source_, key, kind_bool, to_bool);
}

Result<std::string> Weights::meta_string(std::string_view key) const {
  return meta_one<std::string>(*source_, key, kind_text, to_text);
}

Result<std::vector<float>> Weights::meta_f32_array(std::string_view key) const {
  return meta_list<float>(*source_, key, "a list of numbers", to_f32);
}

Result<std::vector<uint32_t>> Weights::meta_u32_array(std::string_view key) const {
  return meta_list<uint32_t>(*source_, key, "a list of whole numbers", to_u32);
}

Result<std::vector<std::string>> Weights::meta_string_array(std::string_view key) const {
  return meta_list<std::string>(*source_, key, "a list of texts", to_text);
}

}  // namespace nosa
