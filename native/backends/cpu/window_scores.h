// The first stage of selection for any vectors `S`: queries against compressed keys.
//
// A file for an instruction set includes this after its vectors. Everything is internal to that
// file.
#pragma once

#include <algorithm>
#include <cstdint>

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
      const TilePart& part = parts[tile];
      float* to = part.logits + (first_query + i) * args.logits_stride;
      if (part.begin == 0 && part.end == kTileWindows) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
          S::store(to + v * S::lanes, S::mul(sums[i][tile][v], scale));
        }
        continue;
      }
      float all[kTileWindows];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        S::store(all + v * S::lanes, S::mul(sums[i][tile][v], scale));
      }
      for (int m = part.begin; m < part.end; ++m) to[m] = all[m];
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
      for (int64_t i = 0; i < n_values; i += S::lanes) S::store(expanded + i, S::load_f16(halves + i));
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
