#include "cuda/products.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "cuda/cuda_status.h"
#include "cuda/upload.h"
#include "kernels/to_operand.h"

namespace nosa::cuda {
namespace {

constexpr const char* multiplying = "Multiplying on the GPU";
constexpr int tile_rows = 16;  // pack_weights() lays tiles of rows one after the other.

}  // namespace

Result<std::unique_ptr<Products>> Products::create() {
  std::unique_ptr<Products> products(new Products());
  Result<DeviceBuffer> staging = DeviceBuffer::create(staging_bytes_max, "weights on their way");
  if (!staging.ok()) return staging.status();
  products->staging_ = *std::move(staging);
  NOSA_CUDA_TRY(cudaStreamCreateWithFlags(&products->stream_, cudaStreamNonBlocking), "Opening the GPU");
  return products;
}

Products::~Products() {
  if (stream_ == nullptr) return;
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
}

Result<int> Products::add(const WeightView& weight) {
  Result<PackedUpload> uploaded = upload_packed(weight, staging_, "a weight", stream_);
  if (!uploaded.ok()) return uploaded.status();
  NOSA_CUDA_TRY(cudaStreamSynchronize(stream_), "Uploading the weights");
  packed_.push_back(std::move(uploaded->memory));
  weights_.push_back(uploaded->weight);
  return int(weights_.size()) - 1;
}

Status Products::reserve(size_t x_values, size_t out_values, size_t operand_bytes, size_t scratch_bytes) {
  const auto grow = [](auto& buffer, size_t bytes) -> Status {
    if (buffer.bytes() >= bytes) return {};
    auto larger = std::remove_reference_t<decltype(buffer)>::create(bytes, "activations");
    if (!larger.ok()) return larger.status();
    buffer = *std::move(larger);
    return {};
  };
  NOSA_TRY(grow(host_x_, x_values * sizeof(float)));
  NOSA_TRY(grow(x_, x_values * sizeof(float)));
  NOSA_TRY(grow(host_out_, out_values * sizeof(float)));
  NOSA_TRY(grow(out_, out_values * sizeof(float)));
  NOSA_TRY(grow(operand_, operand_bytes));
  return grow(scratch_, scratch_bytes);
}

Status Products::run(std::span<const Target> targets, const float* x, int n_tokens) {
  if (targets.empty() || n_tokens == 0) return {};
  const int n_cols = weights_[size_t(targets[0].weight)].cols;
  std::vector<Part> parts;
  size_t out_values = 0;
  int all_rows = 0;
  for (const Target& target : targets) {
    CHECK(weights_[size_t(target.weight)].cols == n_cols);
    const int first_row = target.row_begin / tile_rows * tile_rows;
    const int n_rows = target.row_begin + target.n_rows - first_row;
    parts.push_back({&target, first_row, n_rows, out_values});
    all_rows += n_rows;
    out_values += (size_t(n_rows) * size_t(n_tokens) + 3) / 4 * 4;  // Each begins on 16 bytes.
  }
  const size_t operand_most = std::max(operand_bytes(OperandType::kQ8, kLinearRowsMax, n_cols),
                                       operand_bytes(OperandType::kF16, kLinearRowsMax, n_cols));
  const size_t x_bytes = size_t(n_tokens) * size_t(n_cols) * sizeof(float);
  NOSA_TRY(reserve(size_t(n_tokens) * size_t(n_cols), out_values, operand_most,
                   linear_scratch_bytes(std::min(n_tokens, kLinearRowsMax), all_rows)));
  std::memcpy(host_x_.host(), x, x_bytes);
  NOSA_CUDA_TRY(cudaMemcpyAsync(x_.data(), host_x_.host(), x_bytes, cudaMemcpyHostToDevice, stream_), multiplying);
  for (int token = 0; token < n_tokens; token += kLinearRowsMax) {
    NOSA_TRY(launch(parts, token, std::min(kLinearRowsMax, n_tokens - token), n_cols));
  }
  NOSA_CUDA_TRY(cudaMemcpyAsync(host_out_.host(), out_.data(), out_values * sizeof(float), cudaMemcpyDeviceToHost, stream_), multiplying);
  NOSA_CUDA_TRY(cudaStreamSynchronize(stream_), multiplying);
  for (const Part& part : parts) {
    const Target& target = *part.target;
    const int skipped = target.row_begin - part.first_row;
    for (int t = 0; t < n_tokens; ++t) {
      const float* from = host_out_.as<float>() + part.out_offset + size_t(t) * size_t(part.n_rows) + skipped;
      float* to = target.out + size_t(t) * size_t(target.n_rows);
      std::memcpy(to, from, size_t(target.n_rows) * sizeof(float));
      if (target.bias == nullptr) continue;
      for (int r = 0; r < target.n_rows; ++r) to[r] += target.bias[r];
    }
  }
  return {};
}

// Up to kLinearRowsMax tokens of every part.
Status Products::launch(std::span<const Part> parts, int first_token, int n_tokens, int n_cols) {
  for (const OperandType type : {OperandType::kQ8, OperandType::kF16, OperandType::kBF16}) {
    const Operand in{operand_.data(), type, n_tokens, n_cols};
    LinearParams params = {};
    params.x = in;
    params.scratch = scratch_.as<float>();
    bool converted = false;
    const auto flush = [&]() -> Status {
      if (params.n_targets == 0) return {};
      NOSA_CUDA_TRY(linear(params, stream_), multiplying);
      params.n_targets = 0;
      return {};
    };
    for (const Part& part : parts) {
      PackedWeight weight = weights_[size_t(part.target->weight)];
      if (linear_operand(weight.dtype) != type) continue;
      if (!converted) {
        NOSA_CUDA_TRY(to_operand({x_.as<float>() + size_t(first_token) * size_t(n_cols), in}, stream_), multiplying);
        converted = true;
      }
      weight.data += packed_bytes(weight.dtype, part.first_row, weight.cols);
      weight.rows = part.n_rows;
      float* out = out_.as<float>() + part.out_offset + size_t(first_token) * size_t(part.n_rows);
      params.targets[params.n_targets++] = {weight, nullptr, out};
      if (params.n_targets == kLinearTargetsMax) NOSA_TRY(flush());
    }
    NOSA_TRY(flush());
  }
  return {};
}

}  // namespace nosa::cuda
