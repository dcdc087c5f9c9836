// AVX2 with FMA and F16C: nearly every x86 processor since 2013.

#include "backends/cpu/attention_float.h"
#include "backends/cpu/elementwise.h"
#include "backends/cpu/low_rank.h"
#include "backends/cpu/matmul_float.h"
#include "backends/cpu/matmul_quant.h"
#include "backends/cpu/ops.h"
#include "backends/cpu/row_products_avx2.h"
#include "backends/cpu/simd_avx2.h"
#include "backends/cpu/window_scores.h"

namespace nosa::cpu {

const Ops& ops_avx2() {
  using S = Avx2;
  static constexpr Ops ops = {
      .name = "AVX2",
      .quantize_tile = quantize_tile<S>,
      .transpose_tile = transpose_tile<S>,
      .matmul_quant = matmul_quant_avx2,
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
