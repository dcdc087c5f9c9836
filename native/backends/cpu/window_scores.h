// The first stage of selection for any vectors `S`: queries against compressed keys.
//
// A file for an instruction set includes this after its vectors. Everything is internal to that
// file.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "backends/cpu/elementwise.h"
#include "backends/cpu/ops.h"

namespace nosa::cpu {
namespace {

/// Windows [begin, end) of a tile, and where the logit of the tile's first window would lie.
struct TilePart {
  int begin;
  int end;
  float* logits;
};

inline int64_t n_tiles(const WindowLogits& args) {
  return (int64_t{args.first_window} + args.n_windows + kTileWindows - 1) / kTileWindows;
}

/// Tile `i` of the call.
inline TilePart tile_part(const WindowLogits& args, int64_t i) {
  const int64_t first = i * kTileWindows - args.first_window;
  return {static_cast<int>(std::max<int64_t>(0, -first)),
          static_cast<int>(std::min<int64_t>(kTileWindows, args.n_windows - first)),
          args.logits + first};
}

/// The windows of the part, of all in a tile, to where the logits of the query at `row` lie.
template <typename S>
[[gnu::always_inline]] inline void store_logits(const typename S::F* logits, const TilePart& part,
                                                int64_t row) {
  constexpr int vectors = kTileWindows / S::lanes;
  float* to = part.logits + row;
  if (part.begin == 0 && part.end == kTileWindows) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) S::store(to + v * S::lanes, logits[v]);
    return;
  }
  float all[kTileWindows];
#pragma GCC unroll 4
  for (int v = 0; v < vectors; ++v) S::store(all + v * S::lanes, logits[v]);
  for (int m = part.begin; m < part.end; ++m) to[m] = all[m];
}

/// kQueries queries against kTiles tiles of keys in float16 or float32, each product one chain of
/// fused additions over the dimensions. What `ahead` points to, as large, is asked for meanwhile.
template <typename S, bool kHalf, int kQueries, int kTiles>
[[gnu::always_inline]] inline void tile_dots(const WindowLogits& args, int first_query,
                                             const std::byte* keys, const std::byte* ahead,
                                             const TilePart* parts) {
  using F = typename S::F;
  constexpr int vectors = kTileWindows / S::lanes;
  constexpr int64_t column_bytes = kTileWindows * (kHalf ? 2 : 4);
  const int64_t tile_bytes = args.head_dim * column_bytes;
  const float* q[kQueries];
  F sums[kQueries][kTiles][vectors];
#pragma GCC unroll 8
  for (int i = 0; i < kQueries; ++i) {
    q[i] = args.query(first_query + i);
#pragma GCC unroll 2
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[i][tile][v] = S::zero();
    }
  }
  // head_dim is even, and two columns fill whole lines.
  for (int d0 = 0; d0 < args.head_dim; d0 += 2) {
    if (ahead != nullptr) {
#pragma GCC unroll 2
      for (int tile = 0; tile < kTiles; ++tile) {
        for (int64_t at = 0; at < 2 * column_bytes; at += 64) {
          S::prefetch(ahead + tile * tile_bytes + d0 * column_bytes + at);
        }
      }
    }
#pragma GCC unroll 2
    for (int d = d0; d < d0 + 2; ++d) {
#pragma GCC unroll 2
      for (int tile = 0; tile < kTiles; ++tile) {
        const std::byte* column = keys + tile * tile_bytes + d * column_bytes;
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
          const F key = kHalf ? S::load_f16(reinterpret_cast<const uint16_t*>(column) + v * S::lanes)
                              : S::load(reinterpret_cast<const float*>(column) + v * S::lanes);
#pragma GCC unroll 8
          for (int i = 0; i < kQueries; ++i) {
            sums[i][tile][v] = S::fma(S::set1(q[i][d]), key, sums[i][tile][v]);
          }
        }
      }
    }
  }
  const F scale = S::set1(args.scale);
#pragma GCC unroll 8
  for (int i = 0; i < kQueries; ++i) {
#pragma GCC unroll 2
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[i][tile][v] = S::mul(sums[i][tile][v], scale);
      store_logits<S>(sums[i][tile], parts[tile], (first_query + i) * args.logits_stride);
    }
  }
}

/// All tiles, for so few queries that the time is that of reading the keys.
template <typename S, bool kHalf, int kQueries>
void few_query_logits(const WindowLogits& args) {
  if constexpr (kQueries > 1) {
    if (args.n_queries < kQueries) return few_query_logits<S, kHalf, kQueries - 1>(args);
  }
  // A second tile when there are too few sums to keep the additions busy.
  constexpr int vectors = kTileWindows / S::lanes;
  constexpr int at_once = kQueries * vectors <= (S::lanes == 8 ? 4 : 8) ? 2 : 1;
  // Far enough for the memory to answer; farther, and requests get lost (measured).
  constexpr int tiles_ahead = 4;
  const int64_t tile_bytes = int64_t{kTileWindows} * args.head_dim * (kHalf ? 2 : 4);
  const int64_t n = n_tiles(args);
  for (int64_t tile = 0; tile < n;) {
    const std::byte* keys = args.keys + tile * tile_bytes;
    if (tile + at_once > n) {
      const TilePart part = tile_part(args, tile);
      tile_dots<S, kHalf, kQueries, 1>(args, 0, keys, nullptr, &part);
      tile += 1;
      continue;
    }
    const std::byte* ahead = tile + tiles_ahead + at_once <= n ? keys + tiles_ahead * tile_bytes : nullptr;
    TilePart parts[at_once];
    for (int i = 0; i < at_once; ++i) parts[i] = tile_part(args, tile + i);
    tile_dots<S, kHalf, kQueries, at_once>(args, 0, keys, ahead, parts);
    tile += at_once;
  }
}

/// One tile of float32 keys, for what is left from `first_query` on, at most kQueries.
template <typename S, int kQueries>
void dots_of_up_to(const WindowLogits& args, int first_query, const std::byte* keys,
                   const TilePart& part) {
  if constexpr (kQueries > 1) {
    if (args.n_queries - first_query < kQueries) {
      return dots_of_up_to<S, kQueries - 1>(args, first_query, keys, part);
    }
  }
  tile_dots<S, false, kQueries, 1>(args, first_query, keys, nullptr, &part);
}

template <typename S, bool kHalf>
void window_logits_of(const WindowLogits& args) {
  // As many queries as leave registers for the keys.
  constexpr int most = S::lanes == 16 ? 8 : 4;
  if (args.n_queries <= most) return few_query_logits<S, kHalf, most>(args);
  alignas(64) float expanded[kTileWindows * WindowLogits::head_dim_max];
  const int64_t n_values = int64_t{kTileWindows} * args.head_dim;
  for (int64_t tile = 0; tile < n_tiles(args); ++tile) {
    const std::byte* keys = args.keys + tile * n_values * (kHalf ? 2 : 4);
    if constexpr (kHalf) {
      const auto* halves = reinterpret_cast<const uint16_t*>(keys);
      for (int64_t i = 0; i < n_values; i += S::lanes)
        S::store(expanded + i, S::load_f16(halves + i));
      keys = reinterpret_cast<const std::byte*>(expanded);
    }
    const TilePart part = tile_part(args, tile);
    for (int i = 0; i < args.n_queries; i += most) dots_of_up_to<S, most>(args, i, keys, part);
  }
}

template <typename S>
void window_logits(const WindowLogits& args) {
  args.kv_dtype == DType::kF32 ? window_logits_of<S, false>(args) : window_logits_of<S, true>(args);
}

/// fn(0), fn(1), .. fn(n - 1), each number a constant of its own type: so that arrays they count
/// are registers.
template <int n, typename Fn>
[[gnu::always_inline]] inline void unrolled(Fn&& fn) {
  [&]<int... i>(std::integer_sequence<int, i...>) { (fn(std::integral_constant<int, i>()), ...); }
  (std::make_integer_sequence<int, n>());
}

/// A query for the packed keys of one group.
struct PackedQuery {
  alignas(64) std::byte high[WindowLogits::head_dim_max];
  alignas(64) std::byte low[WindowLogits::head_dim_max];
  int32_t high_start;  // what the sums of products start from
  int32_t low_start;
  float base;  // logit = base + unit (high sum 254 + low sum)
  float unit;
};

template <typename S>
void pack_query(const float* q, const float* ranges, const WindowLogits& args, PackedQuery& out) {
  using F = typename S::F;
  const float* centres = ranges;
  const float* steps = ranges + args.head_dim;
  alignas(64) float high[WindowLogits::head_dim_max];
  alignas(64) float low[WindowLogits::head_dim_max];
  F peaks = S::zero();
  F base = S::zero();
  for (int d = 0; d < args.head_dim; d += S::lanes) {
    const F value = S::load(q + d);
    const F in_steps = S::mul(value, S::load(steps + d));
    peaks = S::max(peaks, S::abs(in_steps));
    base = S::fma(value, S::load(centres + d), base);
    S::store(low + d, in_steps);
  }
  const float peak = S::horizontal_max(peaks);
  constexpr float least_peak = 1e-30f;  // so that what it divides stays finite
  const float levels = peak > least_peak ? packed_query_levels / peak : 0.0f;
  constexpr float digit = packed_query_digit;
  F high_sum = S::zero();  // Of whole numbers that floats hold: exact, in any order.
  F low_sum = S::zero();
  for (int d = 0; d < args.head_dim; d += S::lanes) {
    const F whole = S::round(S::mul(S::load(low + d), S::set1(levels)));
    const F upper = S::round(S::mul(whole, S::set1(1.0f / digit)));
    const F lower = S::fnma(upper, S::set1(digit), whole);
    S::store(high + d, upper);
    S::store(low + d, lower);
    high_sum = S::add(high_sum, upper);
    low_sum = S::add(low_sum, lower);
  }
  // head_dim is a multiple of 16, and may end in the middle of the last 32 values.
  for (int d = args.head_dim; d % quant_values != 0; ++d) high[d] = low[d] = 0.0f;
  for (int d = 0; d < args.head_dim; d += quant_values) {
    [[maybe_unused]] int half_sums[4];
    S::quantize32(high + d, 1.0f, out.high + d, &half_sums[0], &half_sums[1]);
    S::quantize32(low + d, 1.0f, out.low + d, &half_sums[2], &half_sums[3]);
  }
  out.high_start = -S::level_shift(0) * static_cast<int32_t>(S::horizontal_sum(high_sum));
  out.low_start = -S::level_shift(0) * static_cast<int32_t>(S::horizontal_sum(low_sum));
  out.base = S::horizontal_sum(base) * args.scale;
  out.unit = peak / packed_query_levels * args.scale;
}

/// kQueries queries against a tile of codes: whole numbers, so that no order changes a bit. What
/// `ahead` points to, as large, is asked for meanwhile.
template <typename S, int kQueries>
[[gnu::always_inline]] inline void tile_code_dots(const WindowLogits& args, int first_query,
                                                  const PackedQuery* queries,
                                                  const std::byte* codes, const std::byte* ahead,
                                                  const TilePart& part) {
  using I = typename S::I;
  constexpr int vectors = kTileWindows / S::lanes;
  constexpr int64_t column_bytes = kTileWindows * 4;
  I high[kQueries][vectors];
  I low[kQueries][vectors];
  unrolled<kQueries>([&](auto i) {
    unrolled<vectors>([&](auto v) {
      high[i][v] = S::set1_i(queries[i].high_start);
      low[i][v] = S::set1_i(queries[i].low_start);
    });
  });
  // head_dim is a multiple of 16: four columns. Taken together, or half of the work is GCC 12
  // moving the sums about.
  for (int d = 0; d < args.head_dim; d += 16) {
    const int64_t first_column = int64_t{d} / 4 * column_bytes;
    if (ahead != nullptr) {
      unrolled<4>([&](auto j) { S::prefetch_near(ahead + first_column + j * column_bytes); });
    }
    unrolled<4>([&](auto j) {
      unrolled<vectors>([&](auto v) {
        I code = S::load_i(codes + first_column + j * column_bytes + v * S::lanes * 4);
        if constexpr (S::level_shift(0) != 0) code = S::add8(code, S::level_shift(0));
        unrolled<kQueries>([&](auto i) {
          high[i][v] = S::template dot4<false>(high[i][v], code, queries[i].high + d + 4 * j);
          low[i][v] = S::template dot4<false>(low[i][v], code, queries[i].low + d + 4 * j);
        });
      });
    });
  }
  unrolled<kQueries>([&](auto i) {
    typename S::F logits[vectors];
    unrolled<vectors>([&](auto v) {
      const typename S::F sum =
          S::fma(S::to_float(high[i][v]), S::set1(packed_query_digit), S::to_float(low[i][v]));
      logits[v] = S::fma(sum, S::set1(queries[i].unit), S::set1(queries[i].base));
    });
    store_logits<S>(logits, part, (first_query + i) * args.logits_stride);
  });
}

/// Tiles [first, end) of the call, all of one group, for kQueries queries or fewer.
template <typename S, int kQueries>
void group_logits(const WindowLogits& args, int first_query, const PackedQuery* queries,
                  int64_t first, int64_t end) {
  if constexpr (kQueries > 1) {
    if (args.n_queries - first_query < kQueries) {
      return group_logits<S, kQueries - 1>(args, first_query, queries, first, end);
    }
  }
  // One tile after the other, so that the processor too sees where this goes; asked for into the
  // first cache, and no farther ahead (measured).
  constexpr int tiles_ahead = 2;
  const int64_t tile_bytes = int64_t{args.head_dim} * kTileWindows;
  const int64_t n = n_tiles(args);
  for (int64_t tile = first; tile < end; ++tile) {
    const std::byte* codes = args.keys + tile * tile_bytes;
    // Once for all queries.
    const bool asks = first_query == 0 && tile + tiles_ahead < n;
    tile_code_dots<S, kQueries>(args, first_query, queries, codes,
                                asks ? codes + tiles_ahead * tile_bytes : nullptr,
                                tile_part(args, tile));
  }
}

template <typename S>
void packed_logits(const WindowLogits& args) {
  // As many queries as leave registers for the codes, each with two sums.
  constexpr int most = S::lanes == 16 ? 8 : 2;
  PackedQuery queries[most];
  const float* ranges = args.ranges;
  for (int64_t tile = 0, n = n_tiles(args); tile < n; ranges += 2 * args.head_dim) {
    const int64_t in_group = (args.tile_in_group + tile) % PackedKeysView::kGroupTiles;
    const int64_t end = std::min(n, tile + PackedKeysView::kGroupTiles - in_group);
    const int64_t range_bytes = int64_t{args.head_dim} * 2 * 4;
    for (int64_t at = 0; end < n && at < range_bytes; at += 64) {
      S::prefetch_near(reinterpret_cast<const std::byte*>(ranges) + range_bytes + at);
    }
    for (int first = 0; first < args.n_queries; first += most) {
      const int n_queries = std::min(most, args.n_queries - first);
      for (int i = 0; i < n_queries; ++i)
        pack_query<S>(args.query(first + i), ranges, args, queries[i]);
      group_logits<S, most>(args, first, queries, tile, end);
    }
    tile = end;
  }
}

template <typename S>
void add_softmax(float* logits, int64_t n, float* out) {
  typename S::F peaks = S::set1(logits[0]);
  for_vectors<S>(n, [&](int64_t i, int width) {
    const typename S::F x = S::load_n(logits + i, width);
    peaks = S::max(peaks, S::select_below(x, peaks, 0, width));
  });
  const typename S::F peak = S::set1(S::horizontal_max(peaks));
  typename S::F sums = S::zero();
  for_vectors<S>(n, [&](int64_t i, int width) {
    typename S::F term = exp_of<S>(S::sub(S::load_n(logits + i, width), peak));
    term = S::select_below(term, S::zero(), 0, width);
    S::store_n(logits + i, term, width);
    sums = S::add(sums, term);
  });
  const typename S::F factor = S::set1(1.0f / S::horizontal_sum(sums));
  for_vectors<S>(n, [&](int64_t i, int width) {
    S::store_n(out + i, S::fma(S::load_n(logits + i, width), factor, S::load_n(out + i, width)),
               width);
  });
}

}  // namespace
}  // namespace nosa::cpu
