#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace nosa::cuda {

/// The end of a decode step, which makes the device ready for the next one without the host. For every sequence s of the
/// step with lane = lanes[s] >= 0:
///
///   token              = teacher[cursor, s] when that is not negative, else drawn[s]
///   history[cursor, s] = token;  ids[s] = token;  n_tokens[lane] += 1
///
/// and then cursor += 1, step += 1. Without `ids` only step is counted up: the host feeds the next tokens.
struct AdvanceStepParams {
  const int32_t* lanes;    // [n_seqs]
  const int32_t* drawn;    // [n_seqs]
  const int32_t* teacher;  // [n_steps_max, n_seqs_max], -1 to draw
  int32_t* history;        // [n_steps_max, n_seqs_max]
  int32_t* ids;            // [n_seqs], what the next step embeds; or null
  int32_t* n_tokens;       // [n_lanes]
  int32_t* cursor;         // of the command, 0 .. n_steps_max - 1
  uint32_t* step;          // ever
  int n_seqs;
  int n_seqs_max;          // stride of teacher and history
  int n_steps_max;
};

cudaError_t advance_step(const AdvanceStepParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
