// What attend_blocks leaves for merge_parts.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace nosa::cuda {

inline constexpr int kPartsMax = 32;

/// Of the logits of a part, in units of exp2: the highest, and the sum of 2^(logit - highest).
struct PartTotal {
  float peak;
  float total;
};

/// Where part `part` of query head `head` of a row lies.
struct PartsView {
  PartTotal* totals;  // [n_rows, n_heads, kPartsMax]
  float* sums;        // [n_rows, n_heads, kPartsMax, head_dim]

  __host__ __device__ PartsView(std::byte* memory, int n_rows, int n_heads)
      : totals(reinterpret_cast<PartTotal*>(memory)),
        sums(reinterpret_cast<float*>(totals + size_t(n_rows) * n_heads * kPartsMax)) {}
};

/// Into how many parts the lists of `n_groups` (row, KV head, tile of heads) are cut: enough to
/// fill the machine, one when the groups alone do. Asks the device once.
cudaError_t part_count(int n_groups, int* n_parts);

}  // namespace nosa::cuda
