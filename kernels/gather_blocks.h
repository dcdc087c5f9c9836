#pragma once

#include "layout.h"

namespace nosa::cuda {

/// Fetches what select_blocks listed out of mapped host memory: for every sequence, KV head and i <
/// n_loads,
///   slots[lane, head, load_slots[i]] = pages[head, load_pages[i]]
/// one extent each, K and V together.
struct GatherBlocksParams {
  const int32_t* lanes;       // [n_seqs], -1 for none
  const int32_t* load_pages;  // [n_seqs, n_kv_heads, n_loads_max]
  const int32_t* load_slots;  // likewise
  const int32_t* n_loads;     // [n_seqs, n_kv_heads]
  KvPool pages;               // where extents are fetched from; its lane_stride is not used
  KvPool slots;
  size_t extent_bytes;  // a multiple of 4096
  int n_seqs;
  int n_kv_heads;
  int n_loads_max;
};

cudaError_t gather_blocks(const GatherBlocksParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
