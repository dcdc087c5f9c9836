// Plain loops, written to be read. They compute what the faster files compute, in the same order
// wherever the order shows; nothing here is tuned.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backends/cpu/ops.h"
#include "backends/cpu/token_tiles.h"
#include "core/check.h"
#include "core/dequantize.h"
#include "core/half.h"
#include "core/quant_blocks.h"

namespace nosa::cpu {
namespace {

template <typename T>
T read(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

template <typename T>
void write(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof(T));
}

void quantize_tile(const float* x, int width, int64_t n_cols, std::byte* out) {
  const QuantRecord record{width};
  for (int64_t block = 0; block < n_cols / quant_values; ++block) {
    std::byte* at = out + block * record.bytes();
    for (int t = 0; t < width; ++t) {
      const float* values = x + t * n_cols + block * quant_values;
      float largest = 0.0f;
      for (int i = 0; i < quant_values; ++i) largest = std::max(largest, std::fabs(values[i]));
      const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
      int sum = 0;
      for (int i = 0; i < quant_values; ++i) {
        const auto q = static_cast<int8_t>(std::lrintf(values[i] * inverse));
        at[t * quant_values + i] = static_cast<std::byte>(q);
        sum += q;
      }
      const float scale = largest / 127.0f;
      write(at + record.scale_at() + 4 * t, scale);
      write(at + record.offset_at() + 4 * t, scale * static_cast<float>(sum));
    }
  }
}

void transpose_tile(const float* x, int width, int64_t n_cols, float* out) {
  for (int64_t c = 0; c < n_cols; ++c) {
    for (int t = 0; t < width; ++t) out[c * width + t] = x[t * n_cols + c];
  }
}

/// 32 values of a quantised row as integers: value[i] = scale[i / 16] q[i] + offset.
struct Levels {
  int8_t q[32];
  float scale[2];
  float offset;
};

int low_nibble(const uint8_t* qs, int i) { return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4; }

int fifth_bit(const uint8_t* qh, int i) { return ((qh[i / 8] >> (i % 8)) & 1) << 4; }

/// Fills `levels` by q(i), with one scale for all.
template <typename Q>
Levels levels_of(float scale, float offset, Q&& q) {
  Levels levels{{}, {scale, scale}, offset};
  for (int i = 0; i < 32; ++i) levels.q[i] = static_cast<int8_t>(q(i));
  return levels;
}

template <typename Block>
Levels k_levels(const Block& block, int group, const uint8_t* qh) {
  const KScaleMin packed = k_scale_min(block.scales, group);
  const float scale = f16_to_f32(block.d) * static_cast<float>(packed.scale);
  const float offset = -f16_to_f32(block.dmin) * static_cast<float>(packed.min);
  const uint8_t* qs = block.qs + 32 * (group / 2);
  return levels_of(scale, offset, [&](int i) {
    const int high = qh == nullptr ? 0 : ((qh[i] >> group) & 1) << 4;
    return ((qs[i] >> (4 * (group % 2))) & 15) | high;
  });
}

Levels q6_levels(const BlockQ6_K& block, int group) {
  const int half = group / 4;
  const int k = group % 4;
  Levels levels = levels_of(0.0f, 0.0f, [&](int i) {
    const int low = (block.ql[64 * half + 32 * (k % 2) + i] >> (4 * (k / 2))) & 15;
    const int high = (block.qh[32 * half + i] >> (2 * k)) & 3;
    return (low | (high << 4)) - 32;
  });
  for (int s = 0; s < 2; ++s) {
    levels.scale[s] = f16_to_f32(block.d) * static_cast<float>(block.scales[2 * group + s]);
  }
  return levels;
}

/// The 32 values from column 32 * `block_idx` of a row.
Levels read_levels(DType dtype, const std::byte* row, int64_t block_idx) {
  const int64_t per_block = block_values(dtype) / quant_values;
  const std::byte* at = row + block_idx / per_block * block_bytes(dtype);
  const int group = static_cast<int>(block_idx % per_block);
  switch (dtype) {
    case DType::kQ8_0: {
      const auto b = read<BlockQ8_0>(at);
      return levels_of(f16_to_f32(b.d), 0.0f, [&](int i) { return b.qs[i]; });
    }
    case DType::kQ4_0: {
      const auto b = read<BlockQ4_0>(at);
      return levels_of(f16_to_f32(b.d), 0.0f, [&](int i) { return low_nibble(b.qs, i) - 8; });
    }
    case DType::kQ4_1: {
      const auto b = read<BlockQ4_1>(at);
      return levels_of(f16_to_f32(b.d), f16_to_f32(b.m),
                       [&](int i) { return low_nibble(b.qs, i); });
    }
    case DType::kQ5_0: {
      const auto b = read<BlockQ5_0>(at);
      return levels_of(f16_to_f32(b.d), 0.0f,
                       [&](int i) { return (low_nibble(b.qs, i) | fifth_bit(b.qh, i)) - 16; });
    }
    case DType::kQ5_1: {
      const auto b = read<BlockQ5_1>(at);
      return levels_of(f16_to_f32(b.d), f16_to_f32(b.m),
                       [&](int i) { return low_nibble(b.qs, i) | fifth_bit(b.qh, i); });
    }
    case DType::kQ4_K:
      return k_levels(read<BlockQ4_K>(at), group, nullptr);
    case DType::kQ5_K: {
      const auto b = read<BlockQ5_K>(at);
      return k_levels(b, group, b.qh);
    }
    case DType::kQ6_K:
      return q6_levels(read<BlockQ6_K>(at), group);
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      break;
  }
  CHECK(false && "not a quantised type");
  return {};
}

/// Adds the product of 32 columns of one row with one token of a tile record to `sum`.
float add_block_product(const Levels& levels, const std::byte* record_at, QuantRecord record, int t,
                        float sum) {
  const auto token_scale = read<float>(record_at + record.scale_at() + 4 * t);
  for (int half = 0; half < 2; ++half) {
    int dot = 0;
    for (int i = 16 * half; i < 16 * half + 16; ++i) {
      dot += levels.q[i] * static_cast<int8_t>(record_at[t * quant_values + i]);
    }
    sum = std::fma(static_cast<float>(dot), levels.scale[half] * token_scale, sum);
  }
  return std::fma(levels.offset, read<float>(record_at + record.offset_at() + 4 * t), sum);
}

void matmul_quant(const MatmulSlice& slice) {
  const WeightView& weight = *slice.weight;
  const int64_t n_blocks = weight.cols / quant_values;
  const auto tile_bytes = [&](int width) { return quant_tile_bytes(width, weight.cols); };
  for (int64_t r = slice.row_begin; r < slice.row_end; ++r) {
    float* out = slice.out + r;
    const float start = slice.bias == nullptr ? 0.0f : slice.bias[r];
    for (int t = 0; t < slice.n_tokens; ++t) out[t * weight.rows] = 0.0f;
    for (int64_t b = 0; b < n_blocks; ++b) {
      const Levels levels = read_levels(weight.dtype, weight.row(r), b);
      for_each_tile(slice.n_tokens, tile_bytes, [&](int first, int width, int64_t offset) {
        const QuantRecord record{width};
        const std::byte* at = slice.tokens + offset + b * record.bytes();
        for (int t = 0; t < width; ++t) {
          float& sum = out[(first + t) * weight.rows];
          sum = add_block_product(levels, at, record, t, sum);
        }
      });
    }
    for (int t = 0; t < slice.n_tokens; ++t) out[t * weight.rows] += start;
  }
}

void matmul_float(const MatmulSlice& slice) {
  const WeightView& weight = *slice.weight;
  auto* row = reinterpret_cast<float*>(slice.scratch);
  const auto tile_bytes = [&](int width) { return float_tile_bytes(width, weight.cols); };
  for (int64_t r = slice.row_begin; r < slice.row_end; ++r) {
    dequantize_row(weight.dtype, weight.row(r), weight.cols, row);
    const float bias = slice.bias == nullptr ? 0.0f : slice.bias[r];
    for_each_tile(slice.n_tokens, tile_bytes, [&](int first, int width, int64_t offset) {
      const auto* x = reinterpret_cast<const float*>(slice.tokens + offset);
      for (int t = 0; t < width; ++t) {
        float sum = 0.0f;
        for (int64_t c = 0; c < weight.cols; ++c) sum = std::fma(row[c], x[c * width + t], sum);
        slice.out[(first + t) * weight.rows + r] = sum + bias;
      }
    });
  }
}

void low_rank_inner(const LowRankUpdate& update, const float* x, int64_t n_cols, float* inner) {
  for (int i = 0; i < update.rank; ++i) {
    float sum = 0.0f;
    for (int64_t c = 0; c < n_cols; ++c) sum += bf16_to_f32(update.a[i * n_cols + c]) * x[c];
    inner[i] = update.scale * sum;
  }
}

void add_low_rank(const LowRankSlice& slice) {
  for (int t = 0; t < slice.n_tokens; ++t) {
    for (int64_t r = slice.row_begin; r < slice.row_end; ++r) {
      float sum = 0.0f;
      for (int i = 0; i < slice.rank; ++i) {
        sum += bf16_to_f32(slice.b[i * slice.n_rows + r]) * slice.inner[t * slice.rank + i];
      }
      slice.out[t * slice.n_rows + r] += sum;
    }
  }
}

void rms_norm(const float* x, const float* weight, int n_embd, float eps, float* out) {
  double squares = 0.0;
  for (int i = 0; i < n_embd; ++i) squares += static_cast<double>(x[i]) * x[i];
  const auto factor = static_cast<float>(1.0 / std::sqrt(squares / n_embd + eps));
  for (int i = 0; i < n_embd; ++i) out[i] = x[i] * factor * weight[i];
}

void rope(float* x, const float* cosine, const float* sine, int n_rotated, RopePairing pairing) {
  const bool adjacent = pairing == RopePairing::kAdjacent;
  for (int pair = 0; pair < n_rotated / 2; ++pair) {
    float& a = x[adjacent ? 2 * pair : pair];
    float& b = x[adjacent ? 2 * pair + 1 : pair + n_rotated / 2];
    const float rotated = a * cosine[pair] - b * sine[pair];
    b = b * cosine[pair] + a * sine[pair];
    a = rotated;
  }
}

void silu_mul(float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) gate[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

void add(float* x, const float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] += y[i];
}

void to_f16(const float* x, int64_t n, uint16_t* out) {
  constexpr float largest = 65504.0f;
  for (int64_t i = 0; i < n; ++i) out[i] = f32_to_f16(std::clamp(x[i], -largest, largest));
}

float kv_value(const std::byte* extent, DType dtype, int64_t i) {
  if (dtype == DType::kF32) return read<float>(extent + 4 * i);
  return f16_to_f32(read<uint16_t>(extent + 2 * i));
}

void clear_state(float* state, int head_dim) {
  std::fill(state, state + head_dim, 0.0f);
  state[head_dim] = peak_of_nothing;
  state[head_dim + 1] = 0.0f;
}

/// Adds one block to the state of one query of an AttendRun or AttendPicks. `n_keys` are visible to it.
template <typename Run>
BlockShare attend_block(const Run& run, const KvBlockRef& block, int n_keys, const float* q,
                        float* state) {
  constexpr float log2_e = 1.44269504f;
  const int head_dim = run.head_dim;
  float logits[kBlockTokens];
  float& peak = state[head_dim];
  float& sum = state[head_dim + 1];
  float block_peak = peak;
  for (int j = 0; j < n_keys; ++j) {
    float dot = 0.0f;
    for (int d = 0; d < head_dim; ++d) {
      dot += q[d] * kv_value(block.extent, run.kv_dtype, int64_t{j} * head_dim + d);
    }
    const float bias = block.token_bias == nullptr ? 0.0f : block.token_bias[j];
    logits[j] = (dot * run.scale + bias) * log2_e;
    block_peak = std::max(block_peak, logits[j]);
  }
  const float correction = std::exp2(peak - block_peak);
  float block_sum = 0.0f;
  for (int d = 0; d < head_dim; ++d) state[d] *= correction;
  for (int j = 0; j < n_keys; ++j) {
    const float weight = std::exp2(logits[j] - block_peak);
    block_sum += weight;
    const int64_t v_at = int64_t{kBlockTokens + j} * head_dim;
    for (int d = 0; d < head_dim; ++d) {
      state[d] += weight * kv_value(block.extent, run.kv_dtype, v_at + d);
    }
  }
  sum = sum * correction + block_sum;
  peak = block_peak;
  return {block_peak, block_sum};
}

void attend(const AttendRun& run) {
  const int n_context = static_cast<int>(run.context.size());
  for (int t = 0; t < run.n_tokens; ++t) {
    for (int g = 0; g < run.group; ++g) {
      const float* q = run.q + (int64_t{t} * run.n_heads + run.first_head + g) * run.head_dim;
      float* state = run.states + (int64_t{t} * run.group + g) * state_floats(run.head_dim);
      clear_state(state, run.head_dim);
      for (int b = run.block_begin; b < run.block_end; ++b) {
        const KvBlockRef& block = b < n_context ? run.context[b] : run.own[b - n_context];
        const int own_visible = run.own_start + t + 1 - (b - n_context) * kBlockTokens;
        const int n_keys =
            b < n_context ? block.n_tokens : std::clamp(own_visible, 0, block.n_tokens);
        const BlockShare share = attend_block(run, block, n_keys, q, state);
        if (run.shares != nullptr && t == run.n_tokens - 1) run.shares[g * run.shares_stride + b] = share;
      }
    }
  }
}

void attend_picks(const AttendPicks& args) {
  for (int t = 0; t < args.n_tokens; ++t) {
    for (int g = 0; g < args.group; ++g) {
      const float* q = args.q + (int64_t{t} * args.n_heads + args.first_head + g) * args.head_dim;
      float* state = args.states + (int64_t{t} * args.group + g) * state_floats(args.head_dim);
      clear_state(state, args.head_dim);
      for (int i = args.pick_begin; i < args.pick_end; ++i) {
        const KvBlockRef& block = args.blocks[args.picks[int64_t{t} * args.n_picks + i]];
        attend_block(args, block, block.n_tokens, q, state);
      }
    }
  }
}

void packed_logits(const WindowLogits& args) {
  const auto* codes = reinterpret_cast<const int8_t*>(args.keys);
  std::vector<float> rounded(size_t(args.head_dim));
  for (int i = 0; i < args.n_queries; ++i) {
    const float* q = args.query(i);
    const float* rounded_for = nullptr;
    float base = 0.0f;
    float unit = 0.0f;
    for (int32_t m = 0; m < args.n_windows; ++m) {
      const int64_t window = int64_t{args.first_window} + m;
      const int64_t tile = window / kTileWindows;
      const int64_t group = (args.tile_in_group + tile) / PackedKeysView::kGroupTiles;
      const float* centres = args.ranges + group * 2 * args.head_dim;
      const float* steps = centres + args.head_dim;
      if (rounded_for != centres) {
        rounded_for = centres;
        float peak = 0.0f;
        base = 0.0f;
        for (int d = 0; d < args.head_dim; ++d) {
          peak = std::max(peak, std::abs(q[d] * steps[d]));
          base += q[d] * centres[d];
        }
        unit = peak / packed_query_levels;
        for (int d = 0; d < args.head_dim; ++d) {
          rounded[size_t(d)] = unit > 0.0f ? std::nearbyint(q[d] * steps[d] / unit) : 0.0f;
        }
      }
      double dot = 0.0;  // Of whole numbers: exact.
      for (int d = 0; d < args.head_dim; ++d) {
        const int64_t word = (tile * (args.head_dim / 4) + d / 4) * kTileWindows + window % kTileWindows;
        dot += double(rounded[size_t(d)]) * codes[word * 4 + d % 4];
      }
      args.logits[i * args.logits_stride + m] = (base + unit * float(dot)) * args.scale;
    }
  }
}

void window_logits(const WindowLogits& args) {
  for (int32_t m = 0; m < args.n_windows; ++m) {
    for (int i = 0; i < args.n_queries; ++i) {
      const float* q = args.query(i);
      float dot = 0.0f;
      for (int d = 0; d < args.head_dim; ++d) {
        const int64_t window = int64_t{args.first_window} + m;
        const int64_t at = (window / kTileWindows * args.head_dim + d) * kTileWindows + window % kTileWindows;
        const float key = args.kv_dtype == DType::kF32
                              ? reinterpret_cast<const float*>(args.keys)[at]
                              : f16_to_f32(reinterpret_cast<const uint16_t*>(args.keys)[at]);
        dot += q[d] * key;
      }
      args.logits[i * args.logits_stride + m] = dot * args.scale;
    }
  }
}

void add_softmax(float* logits, int64_t n, float* out) {
  const float peak = *std::max_element(logits, logits + n);
  float sum = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    logits[i] = std::exp(logits[i] - peak);
    sum += logits[i];
  }
  for (int64_t i = 0; i < n; ++i) out[i] += logits[i] / sum;
}

}  // namespace

int64_t matmul_scratch_bytes(int64_t n_cols) {
  // The fast files keep a panel of 16 rows there: 32 columns take 16 x 32 bytes and two scales
  // each, or a stretch of columns is expanded to float32 once as rows and once as a panel.
  const int64_t quantised = (n_cols / quant_values + 1) * (panel_rows * quant_values + 128);
  constexpr int64_t expanded = 64 * 1024;
  return std::max({quantised, expanded, n_cols * int64_t{sizeof(float)}});
}

int64_t attend_scratch_bytes(int group, int head_dim) {
  // The fast files keep there, in float32: one block's keys and values, in two layouts; the queries, in
  // two types, and their sums with tokens innermost; the logits; and a few vectors of peaks and sums.
  const int64_t block = 4 * kBlockTokens * int64_t{head_dim};
  const int64_t queries = 3 * int64_t{attend_tokens_max} * group * (head_dim + 2);
  const int64_t logits = int64_t{attend_tokens_max} * kBlockTokens * group;
  return 4 * (block + queries + logits) + 4096;
}

const Ops& ops_generic() {
  static constexpr Ops ops = {
      .name = "generic",
      .quantize_tile = quantize_tile,
      .transpose_tile = transpose_tile,
      .matmul_quant = matmul_quant,
      .matmul_float = matmul_float,
      .low_rank_inner = low_rank_inner,
      .add_low_rank = add_low_rank,
      .rms_norm = rms_norm,
      .rope = rope,
      .silu_mul = silu_mul,
      .add = add,
      .to_f16 = to_f16,
      .attend = attend,
      .attend_exact = attend,
      .attend_picks = attend_picks,
      .attend_picks_exact = attend_picks,
      .window_logits = window_logits,
      .packed_logits = packed_logits,
      .add_softmax = add_softmax,
  };
  return ops;
}

}  // namespace nosa::cpu
