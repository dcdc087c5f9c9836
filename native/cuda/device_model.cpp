#include "cuda/device_model.h"

#include <algorithm>
#include <string>

#include "cuda/cuda_status.h"

namespace nosa::cuda {
namespace {

constexpr size_t staging_bytes_max = size_t(64) << 20;
constexpr int tile_rows = 16;  // pack_weights() takes whole tiles.

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

// Raw rows go through the staging buffer, as many whole tiles as it holds.
Result<PackedWeight> DeviceModel::pack(const WeightView& weight, const char* what, cudaStream_t stream) {
  const int rows = int(weight.rows);
  const int cols = int(weight.cols);
  const size_t bytes = packed_bytes(weight.dtype, rows, cols);
  if (bytes == 0) {
    return Status::unsupported(std::string("The GPU does not read ") + what + " of type " + dtype_name(weight.dtype) +
                               " and " + std::to_string(cols) + " columns.");
  }
  Result<DeviceBuffer> packed = DeviceBuffer::create(bytes, "weights");
  if (!packed.ok()) return packed.status();
  bytes_ += bytes;
  buffers_.push_back(*std::move(packed));

  const size_t row_bytes = size_t(weight.row_bytes());
  const int run_rows = std::max<int>(tile_rows, int(staging_bytes_max / row_bytes) / tile_rows * tile_rows);
  for (int row = 0; row < rows; row += run_rows) {
    PackWeightsParams params = {};
    params.raw = staging_.data();
    params.packed = buffers_.back().data();
    params.dtype = weight.dtype;
    params.rows = rows;
    params.cols = cols;
    params.first_row = row;
    params.n_rows = std::min(run_rows, rows - row);
    NOSA_CUDA_TRY(cudaMemcpyAsync(staging_.data(), weight.row(row), row_bytes * size_t(params.n_rows),
                                  cudaMemcpyHostToDevice, stream),
                  "Uploading the weights");
    NOSA_CUDA_TRY(pack_weights(params, stream), "Packing the weights");
  }
  return PackedWeight{buffers_.back().data(), weight.dtype, rows, cols};
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
