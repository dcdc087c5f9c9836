#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <span>
#include <vector>

#include "core/status.h"
#include "core/tensor_view.h"
#include "cuda/device_memory.h"
#include "kernels/linear.h"
#include "kernels/pack_weights.h"

namespace nosa::cuda {

/// Matrix products for a network that is otherwise computed elsewhere: weights lie on the device, activations come from
/// host memory and go back there. Every row of a product has the bits that it has alone, however many come with it.
///
/// Not thread-safe.
class Products {
 public:
  struct Target {
    int weight = 0;             // of add()
    int row_begin = 0;          // rows of the weight to compute
    int n_rows = 0;
    const float* bias = nullptr;  // [n_rows] or null
    float* out = nullptr;         // [n_tokens, n_rows]
  };

  static Result<std::unique_ptr<Products>> create();
  ~Products();
  Products(const Products&) = delete;
  Products& operator=(const Products&) = delete;

  /// Uploads a weight; gives its number. Fails with kUnsupported when the kernels do not read its type or width, with
  /// kOutOfMemory when the device is full.
  Result<int> add(const WeightView& weight);

  /// out[t, r] = sum_c weight[row_begin + r, c] x[t, c] + bias[r] for every target; x [n_tokens, n_cols]. Waits for the
  /// result. REQUIRES: all weights have the same n_cols.
  Status run(std::span<const Target> targets, const float* x, int n_tokens);

 private:
  struct Part {
    const Target* target;
    int first_row;   // of the weight, a whole tile
    int n_rows;      // computed: the target's and those before it in its first tile
    size_t out_offset;  // values
  };

  Products() = default;
  Status reserve(size_t x_values, size_t out_values, size_t operand_bytes, size_t scratch_bytes);
  Status launch(std::span<const Part> parts, int first_token, int n_tokens, int n_cols);

  cudaStream_t stream_ = nullptr;
  DeviceBuffer staging_;  // Raw rows on their way.
  std::vector<DeviceBuffer> packed_;
  std::vector<PackedWeight> weights_;
  PinnedBuffer host_x_, host_out_;
  DeviceBuffer x_, out_, operand_, scratch_;
};

}  // namespace nosa::cuda
