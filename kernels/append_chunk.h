#pragma once

#include "layout.h"

namespace nosa::cuda {

/// What a chunk of a prefill leaves in the cache of one layer; the numbers are those of append_kv.
/// For each of n_tokens consecutive own tokens of one sequence, token i = own_start + t:
///
///   extent    K[i mod 64] = f16(k[t]), V[i mod 64] = f16(v[t]) of own block i / 64
///   score     a[h] softplus(delta[h] . concat(v of all KV heads) + delta_bias[h]), or -|k| when there is no delta
///   windows   each window m whose last token 16 m + 31 is in the chunk: the mean of its 32 stored keys, as f16, and
///             the mean of their scores
struct AppendChunkParams {
  const float* k;           // [n_tokens, n_kv_heads, head_dim], after RoPE
  const float* v;           // [n_tokens, n_kv_heads, head_dim]
  int n_tokens;
  int own_start;
  KvPool pool;              // of the layer; lane_stride is not used
  const int32_t* indices;   // [own blocks to the chunk's end] where each lies in the pool
  const int32_t* pages;     // [own blocks to the chunk's end] whose side-car each has
  SideCarView side_car;     // of the layer
  const float* a;           // [n_kv_heads]; null without eviction heads
  const float* delta;       // [n_kv_heads, n_kv_heads * head_dim]
  const float* delta_bias;  // [n_kv_heads] or null
  int n_kv_heads;
  int head_dim;             // a multiple of 8
};

cudaError_t append_chunk(const AppendChunkParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
