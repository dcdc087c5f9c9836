// 64-bit ARM with the dot product instructions of ARMv8.2: Apple M1 and later, most since 2018.

#include "backends/cpu/attention_float.h"
#include "backends/cpu/elementwise.h"
#include "backends/cpu/low_rank.h"
#include "backends/cpu/matmul_float.h"
#include "backends/cpu/matmul_quant.h"
#include "backends/cpu/ops.h"
#include "backends/cpu/simd_neon.h"
#include "backends/cpu/window_scores.h"

namespace nosa::cpu {

const Ops& ops_neon() {
  using S = Neon;
  static constexpr Ops ops = {
      .name = "NEON dot product",
      .quantize_tile = quantize_tile<S>,
      .transpose_tile = transpose_tile<S>,
      .matmul_quant = matmul_quant<S>,
      .matmul_float = matmul_float<S>,
      .low_rank_inner = low_rank_inner<S>,
      .add_low_rank = add_low_rank<S>,
      .rms_norm = rms_norm<S>,
      .rope = rope<S>,
      .silu_mul = silu_mul<S>,
      .add = add<S>,
      .to_f16 = to_f16<S>,
      .attend = attend_float<S>,
      .attend_exact = attend_float<S>,
      .attend_picks = Attention<S, FloatMath<S>>::picks,
      .attend_picks_exact = Attention<S, FloatMath<S>>::picks,
      .window_logits = window_logits<S>,
      .packed_logits = packed_logits<S>,
      .add_softmax = add_softmax<S>,
  };
  return ops;
}

}  // namespace nosa::cpu
