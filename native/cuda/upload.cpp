#include "cuda/upload.h"

#include <algorithm>
#include <string>
#include <utility>

#include "cuda/cuda_status.h"

namespace nosa::cuda {
namespace {

constexpr int tile_rows = 16;  // pack_weights() takes whole tiles.

}  // namespace

// As many whole tiles at a time as the staging buffer holds.
Result<PackedUpload> upload_packed(const WeightView& weight, const DeviceBuffer& staging, const char* what,
                                   cudaStream_t stream) {
  const int rows = int(weight.rows);
  const int cols = int(weight.cols);
  const size_t bytes = packed_bytes(weight.dtype, rows, cols);
  if (bytes == 0) {
    return Status::unsupported(std::string("The GPU does not read ") + what + " of type " + dtype_name(weight.dtype) +
                               " and " + std::to_string(cols) + " columns.");
  }
  Result<DeviceBuffer> packed = DeviceBuffer::create(bytes, "weights");
  if (!packed.ok()) return packed.status();

  const size_t row_bytes = size_t(weight.row_bytes());
  const int run_rows = std::max<int>(tile_rows, int(staging.bytes() / row_bytes) / tile_rows * tile_rows);
  for (int row = 0; row < rows; row += run_rows) {
    PackWeightsParams params = {};
    params.raw = staging.data();
    params.packed = packed->data();
    params.dtype = weight.dtype;
    params.rows = rows;
    params.cols = cols;
    params.first_row = row;
    params.n_rows = std::min(run_rows, rows - row);
    NOSA_CUDA_TRY(cudaMemcpyAsync(staging.data(), weight.row(row), row_bytes * size_t(params.n_rows),
                                  cudaMemcpyHostToDevice, stream),
                  "Uploading the weights");
    NOSA_CUDA_TRY(pack_weights(params, stream), "Packing the weights");
  }
  const PackedWeight view{packed->data(), weight.dtype, rows, cols};
  return PackedUpload{view, *std::move(packed)};
}

}  // namespace nosa::cuda
