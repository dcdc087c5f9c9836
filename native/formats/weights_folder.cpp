#include <algorithm>
#include <filesystem>
#include <set>

#include "formats/safetensors.h"
#include "formats/tensor_names.h"
#include "formats/weights_source.h"

namespace nosa {
namespace {

namespace fs = std::filesystem;

constexpr const char* config_name = "config.json";
constexpr const char* index_name = "model.safetensors.index.json";
constexpr const char* single_name = "model.safetensors";

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

Status no_model(const fs::path& folder) {
  if (is_file(folder / "pytorch_model.bin") || is_file(folder / "pytorch_model.bin.index.json")) {
    return Status::unsupported(folder.string() +
                               " has its weights in pytorch_model.bin, which can run code when "
                               "read; convert them to safetensors");
  }
  return Status::not_found(folder.string() + " holds neither " + single_name + " nor " +
                           index_name + "; choose the folder of a model or a GGUF file");
}

Result<JsonValue> read_config(const fs::path& folder) {
  if (!is_file(folder / config_name)) {
    return Status::not_found(folder.string() + " holds no " + config_name +
                             "; choose the folder of a model or a GGUF file");
  }
  auto file = MappedFile::open((folder / config_name).string());
  if (!file.ok()) return file.status();
  auto config = parse_json(text_of(*file));
  if (!config.ok() || config->object() == nullptr) {
    return Status::corrupt(std::string(config_name) + " is damaged: " +
                           (config.ok() ? "it is no JSON object" : config.status().message()) +
                           "; download it again");
  }
  if (const JsonValue* quantised = config->find("quantization_config");
      quantised != nullptr && !quantised->is_null()) {
    return Status::unsupported(folder.string() +
                               " holds a quantised checkpoint, which Nosa reads as GGUF only; "
                               "choose the original checkpoint or a GGUF file");
  }
  return config;
}

/// Which tensors to take from which file; nothing stands for all of them.
struct ShardPlan {
  std::string file_name;
  std::set<std::string> tensors;
};

Result<std::vector<ShardPlan>> plan_shards(const fs::path& folder) {
  if (!is_file(folder / index_name)) {
    if (!is_file(folder / single_name)) return no_model(folder);
    return std::vector<ShardPlan>{{single_name, {}}};
  }
  auto index = MappedFile::open((folder / index_name).string());
  if (!index.ok()) return index.status();
  auto shards = parse_safetensors_index(text_of(*index), index_name);
  if (!shards.ok()) return shards.status();
  std::vector<ShardPlan> plans;
  for (SafetensorsShard& shard : *shards) {
    auto plan = std::find_if(plans.begin(), plans.end(), [&](const ShardPlan& other) {
      return other.file_name == shard.file_name;
    });
    if (plan == plans.end()) plan = plans.insert(plans.end(), {shard.file_name, {}});
    plan->tensors.insert(std::move(shard.tensor));
  }
  return plans;
}

WeightView view_of(const SafetensorsEntry& entry, const std::byte* file_data) {
  WeightView view;
  view.data = file_data + entry.offset;
  view.dtype = *entry.dtype;
  view.cols = entry.shape.empty() ? 1 : entry.shape.back();
  view.rows = 1;
  for (size_t dim = 0; dim + 1 < entry.shape.size(); ++dim) view.rows *= entry.shape[dim];
  return view;
}

Status add_entry(const SafetensorsEntry& entry, const std::string& file_name,
                 const std::byte* file_data, WeightsSource* source) {
  std::string name = canonical_tensor_name(entry.name);
  if (!entry.dtype) {
    // Checkpoints also carry integer buffers that no weight depends on.
    if (name == entry.name) return {};
    return Status::unsupported(
        file_name + " stores tensor " + entry.name + " as " + entry.file_type +
        ", which Nosa does not read; use the checkpoint in BF16, F16 or F32");
  }
  return source->add(std::move(name), view_of(entry, file_data));
}

Status add_shard(const fs::path& folder, const ShardPlan& plan, WeightsSource* source) {
  auto file = MappedFile::open((folder / plan.file_name).string());
  if (!file.ok()) return file.status();
  auto entries = parse_safetensors(file->bytes(), plan.file_name);
  if (!entries.ok()) return entries.status();

  std::set<std::string> missing = plan.tensors;
  for (const SafetensorsEntry& entry : *entries) {
    if (!plan.tensors.empty() && missing.erase(entry.name) == 0) continue;
    Status status = add_entry(entry, plan.file_name, file->bytes().data(), source);
    if (!status.ok()) return status;
  }
  if (!missing.empty()) {
    return Status::corrupt(plan.file_name + " lacks tensor " + *missing.begin() + ", which " +
                           index_name + " promises; download the folder again");
  }
  source->files.push_back(*std::move(file));
  return {};
}

}  // namespace

Result<std::unique_ptr<WeightsSource>> open_tensors_file(const std::string& path) {
  const fs::path file(path);
  auto mapped = MappedFile::open(path);
  if (!mapped.ok()) return mapped.status();
  auto metadata = parse_safetensors_metadata(mapped->bytes(), file.filename().string());
  if (!metadata.ok()) return metadata.status();
  auto source = std::make_unique<WeightsSource>();
  source->kind = WeightsKind::kTensors;
  source->path = path;
  source->metadata = *std::move(metadata);
  Status status = add_shard(file.parent_path(), {file.filename().string(), {}}, source.get());
  if (!status.ok()) return status;
  return source;
}

Result<std::unique_ptr<WeightsSource>> open_folder_weights(const std::string& path) {
  const fs::path folder(path);
  auto config = read_config(folder);
  if (!config.ok()) return config.status();
  const JsonValue* type = config->find("model_type");
  if (type == nullptr || type->string() == nullptr) {
    return Status::corrupt(std::string(config_name) + " in " + path +
                           " does not say its model_type; download it again");
  }
  auto plans = plan_shards(folder);
  if (!plans.ok()) return plans.status();

  auto source = std::make_unique<WeightsSource>();
  source->kind = WeightsKind::kFolder;
  source->path = path;
  source->architecture = *type->string();
  source->rope_pairing = RopePairing::kHalfSplit;
  for (const ShardPlan& plan : *plans) {
    Status status = add_shard(folder, plan, source.get());
    if (!status.ok()) return status;
  }
  source->metadata = *std::move(config);
  return source;
}

}  // namespace nosa
