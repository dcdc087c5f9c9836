#include "formats/weights_source.h"

namespace nosa {
namespace {

/// Converters permute q and k of this architecture so that RoPE can rotate neighbours; qwen2 and
/// the others keep the order of the checkpoint.
RopePairing pairing_of(std::string_view architecture) {
  return architecture == "llama" ? RopePairing::kAdjacent : RopePairing::kHalfSplit;
}

Status check_whole(const Gguf& gguf, const std::string& file_name) {
  const uint64_t n_parts = gguf.find_unsigned("split.count").value_or(1);
  if (n_parts <= 1) return {};
  return Status::unsupported(file_name + " is one of " + std::to_string(n_parts) +
                             " parts of a model; join them into one file first");
}

}  // namespace

Result<std::unique_ptr<WeightsSource>> open_gguf_weights(const std::string& path) {
  const std::string file_name(file_name_of(path));
  auto file = MappedFile::open(path);
  if (!file.ok()) return file.status();
  const std::span<const std::byte> bytes = file->bytes();
  auto gguf = parse_gguf(bytes, file_name);
  if (!gguf.ok()) return gguf.status();
  if (Status status = check_whole(*gguf, file_name); !status.ok()) return status;

  const auto architecture = gguf->find_string("general.architecture");
  if (!architecture) {
    return Status::corrupt(file_name +
                           " does not say its architecture (general.architecture); use the file "
                           "of another source");
  }

  auto source = std::make_unique<WeightsSource>();
  source->kind = WeightsKind::kGguf;
  source->path = path;
  source->architecture = *architecture;
  source->rope_pairing = pairing_of(*architecture);
  for (const GgufTensor& tensor : gguf->tensors) {
    if (!tensor.dtype) {
      return Status::unsupported(
          file_name + " stores tensor " + std::string(tensor.name) + " as " +
          gguf_type_name(tensor.file_type) +
          ", which Nosa does not read; use the model in Q4_K_M, Q8_0 or F16");
    }
    WeightView view;
    view.data = bytes.data() + tensor.offset;
    view.dtype = *tensor.dtype;
    view.rows = tensor.dims[1] * tensor.dims[2] * tensor.dims[3];
    view.cols = tensor.dims[0];
    Status status = source->add(std::string(tensor.name), view);
    if (!status.ok()) return status;
  }
  source->files.push_back(*std::move(file));
  source->metadata = *std::move(gguf);
  return source;
}

}  // namespace nosa
