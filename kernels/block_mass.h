#pragma once

#include "attend_blocks.h"

namespace nosa::cuda {

/// How much of each query's attention went to each block of its list, after attend_blocks. For row r, KV head h and entry
/// i of the list:
///
///   mass[r, h, i] = mean over the query heads g of h of  sum_j softmax_j(scale q[r, g] . k[j] + bias[j])
///
/// over the tokens j of the entry's block that the row sees, with the softmax over all tokens of the list. The list itself
/// comes along, in the order of all blocks.
struct BlockMassParams {
  AttendBlocksParams attended;  // as attend_blocks took it: a list, one query a sequence
  float* mass;                  // [n_rows, n_kv_heads, n_selected_max]; entries beyond the list are left alone
  int32_t* blocks;              // likewise: which block it is
  int32_t* n_blocks;            // [n_rows, n_kv_heads]
};

cudaError_t block_mass(const BlockMassParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
