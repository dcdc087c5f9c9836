#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace nosa::cuda {

/// How a row's token is drawn; the meaning is that of SamplingOptions in native/session/sampler.h.
struct RowSampling {
  uint64_t seed;
  uint64_t position;
  float temperature;         // 0 is greedy
  float top_p;               // 1 keeps all
  float min_p;               // 0 keeps all
  float repetition_penalty;  // 1 is none
  int32_t top_k;             // 0 keeps all
  int32_t n_recent;          // ids of `recent` that the penalty looks at
  int32_t n_banned;          // ids of `banned`
};

/// Draws one token a row. In this order: banned ids are out; the penalty divides positive scores of recent ids and
/// multiplies negative ones; then, greedy, the best; otherwise the top_k best, of those the fewest best whose
/// probabilities reach top_p, of those the ones with at least min_p of the best's probability, and of what is left one
/// by exp(score / temperature), as far down as u(seed, position) says, best first (in order of ids when neither top_k
/// nor top_p cuts). Ties go to the lower id. The token depends on the row's scores and options alone. When all ids are
/// banned the best one is taken all the same.
struct SampleParams {
  const float* logits;         // [n_rows, n_vocab]
  const RowSampling* options;  // [n_rows]
  const int32_t* recent;       // [n_rows, n_recent_max]
  const int32_t* banned;       // [n_rows, n_banned_max]
  int32_t* ids;                // [n_rows]
  float* logprobs;             // [n_rows] of the ids, by the model's own scores
  std::byte* scratch;          // sample_scratch_bytes(), 16-byte aligned
  int n_rows;
  int n_vocab;
  int n_recent_max;
  int n_banned_max;
};

size_t sample_scratch_bytes(int n_rows, int n_vocab);

cudaError_t sample(const SampleParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
