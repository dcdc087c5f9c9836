#pragma once

#include "core/rope_pairing.h"
#include "layout.h"

namespace nosa::cuda {

/// What attention of a decode step needs done to the new tokens of one layer, in one launch. For
/// every row:
///
///   q, k       rotated: a pair (a, b) becomes (a cos - b sin, b cos + a sin), q in place
///   extent     K[i mod 64] = f16(k), V[i mod 64] = f16(v) for own token i, in the tail block's
///   slot or page; a
///              tail block that has no slot yet takes the one longest unused
///   score      a[h] softplus(delta[h] . concat(v of all KV heads) + delta_bias[h]), or -|k| when
///   there is no delta windows    for each window m that token i = 16 m + 31 completes: the mean of
///   its 32 stored keys, as f16, and
///              the mean of their scores, at window m mod 4 of own block m / 4
///
/// Rows are read in the order of the sequence's tokens. Values beyond f16 are clamped to its
/// largest.
struct AppendKvParams {
  StepRows rows;
  LaneBlocks blocks;
  KvPool pool;
  StreamSlots slots;
  SideCarView side_car;
  float* q;        // row r at q + r q_stride: [n_heads, head_dim]
  const float* k;  // row r at k + r k_stride: [n_kv_heads, head_dim]
  const float* v;  // row r at v + r v_stride: [n_kv_heads, head_dim]
  size_t q_stride;
  size_t k_stride;
  size_t v_stride;
  const float2* rotation;   // [n_rows, n_rotated / 2] cos and sin, see rope_angles.h
  const float* a;           // [n_kv_heads]; null without eviction heads
  const float* delta;       // [n_kv_heads, n_kv_heads * head_dim]
  const float* delta_bias;  // [n_kv_heads] or null
  const uint32_t* step;     // number of this step, counted up by one a step
  int n_heads;
  int n_kv_heads;
  int head_dim;   // 64 or 128, or any multiple of 8 up to 256
  int n_rotated;  // even, at most head_dim
  RopePairing pairing;
};

cudaError_t append_kv(const AppendKvParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
