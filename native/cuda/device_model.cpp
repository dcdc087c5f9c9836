#include "cuda/device_model.h"

#include <string>

#include "cuda/cuda_status.h"
#include "cuda/upload.h"

namespace nosa::cuda {
namespace {

size_t linear_bytes(const LinearSource& linear) {
  const size_t bias = linear.bias == nullptr ? 0 : size_t(linear.weight.rows) * sizeof(float);
  return packed_bytes(linear.weight.dtype, int(linear.weight.rows), int(linear.weight.cols)) + bias;
}

bool same(const WeightView& a, const WeightView& b) { return a.data == b.data; }

}  // namespace

size_t DeviceModel::bytes_for(const ModelSource& source) {
  const auto weight_bytes = [](const WeightView& w) { return packed_bytes(w.dtype, int(w.rows), int(w.cols)); };
  size_t bytes = weight_bytes(source.embedding);
  if (!same(source.embedding, source.output)) bytes += weight_bytes(source.output);
  for (const LayerSource& layer : source.layers) {
    for (const LinearSource* linear :
         {&layer.q, &layer.k, &layer.v, &layer.out, &layer.gate, &layer.up, &layer.down}) {
      bytes += linear_bytes(*linear);
    }
    bytes += size_t(2) * size_t(source.shape.n_embd) * sizeof(float);
  }
  return bytes;
}

Result<std::unique_ptr<DeviceModel>> DeviceModel::create(const ModelSource& source, cudaStream_t stream) {
  std::unique_ptr<DeviceModel> model(new DeviceModel());
  if (Status status = model->load(source, stream); !status.ok()) return status;
  return model;
}

Status DeviceModel::load(const ModelSource& source, cudaStream_t stream) {
  shape_ = source.shape;
  additive_ = source.additive();
  Result<DeviceBuffer> staging = DeviceBuffer::create(staging_bytes_max, "weights on their way");
  if (!staging.ok()) return staging.status();
  staging_ = *std::move(staging);

  const auto load_floats = [&](const float*& to, const float* from, size_t n) -> Status {
    const Result<const float*> values = floats(from, n);
    if (!values.ok()) return values.status();
    to = *values;
    return {};
  };
  const size_t n_embd = size_t(shape_.n_embd);
  const size_t n_kv_heads = size_t(shape_.n_kv_heads);
  NOSA_TRY(load_floats(inv_freq_, source.inv_freq, size_t(shape_.n_rotated) / 2));
  NOSA_TRY(load_floats(output_norm_, source.output_norm, n_embd));

  Result<PackedWeight> embedding = pack(source.embedding, "token_embd", stream);
  if (!embedding.ok()) return embedding.status();
  embedding_ = output_ = *embedding;
  if (!same(source.embedding, source.output)) {
    const Result<PackedWeight> output = pack(source.output, "output", stream);
    if (!output.ok()) return output.status();
    output_ = *output;
  }
  for (const LayerSource& from : source.layers) {
    DeviceLayer& to = layers_.emplace_back();
    NOSA_TRY(load_floats(to.attn_norm, from.attn_norm, n_embd));
    NOSA_TRY(load_floats(to.ffn_norm, from.ffn_norm, n_embd));
    NOSA_TRY(load_floats(to.eviction_a, from.eviction_a, n_kv_heads));
    NOSA_TRY(load_floats(to.eviction_delta, from.eviction_delta, n_kv_heads * size_t(shape_.kv_width())));
    NOSA_TRY(load_floats(to.eviction_delta_bias, from.eviction_delta_bias, n_kv_heads));
    struct Part {
      const LinearSource& from;
      DeviceLinear& to;
      const char* what;
    };
    const Part parts[] = {{from.q, to.q, "attn_q"},       {from.k, to.k, "attn_k"},
                          {from.v, to.v, "attn_v"},       {from.out, to.out, "attn_output"},
                          {from.gate, to.gate, "ffn_gate"}, {from.up, to.up, "ffn_up"},
                          {from.down, to.down, "ffn_down"}};
    for (const Part& part : parts) NOSA_TRY(load_linear(part.from, part.what, part.to, stream));
  }
  NOSA_CUDA_TRY(cudaStreamSynchronize(stream), "Uploading the weights");
  staging_ = DeviceBuffer();
  return {};
}

Status DeviceModel::load_linear(const LinearSource& source, const char* what, DeviceLinear& linear,
                                cudaStream_t stream) {
  const Result<PackedWeight> weight = pack(source.weight, what, stream);
  if (!weight.ok()) return weight.status();
  linear.weight = *weight;
  const Result<const float*> bias = floats(source.bias, size_t(source.weight.rows));
  if (!bias.ok()) return bias.status();
  linear.bias = *bias;
  return {};
}

Result<PackedWeight> DeviceModel::pack(const WeightView& weight, const char* what, cudaStream_t stream) {
  Result<PackedUpload> uploaded = upload_packed(weight, staging_, what, stream);
  if (!uploaded.ok()) return uploaded.status();
  bytes_ += uploaded->memory.bytes();
  buffers_.push_back(std::move(uploaded->memory));
  return uploaded->weight;
}

// Null stays null.
Result<const float*> DeviceModel::floats(const float* values, size_t n) {
  if (values == nullptr) return static_cast<const float*>(nullptr);
  Result<DeviceBuffer> buffer = DeviceBuffer::create(n * sizeof(float), "weights");
  if (!buffer.ok()) return buffer.status();
  NOSA_CUDA_TRY(cudaMemcpy(buffer->data(), values, n * sizeof(float), cudaMemcpyHostToDevice), "Uploading the weights");
  bytes_ += n * sizeof(float);
  buffers_.push_back(*std::move(buffer));
  return static_cast<const float*>(buffers_.back().as<float>());
}

}  // namespace nosa::cuda
