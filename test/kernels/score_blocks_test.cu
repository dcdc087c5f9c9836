// link: kernels/score_blocks.cu
#include "cache_fixture.h"
#include "reference/selection.h"
#include "score_blocks.h"

using namespace nosa;
using namespace nosa::test;

namespace {

struct Case {
  CacheShape shape;
  int total_blocks;
};

/// Compares with the reference, window by window, for every row that has a choice.
void check_case(const Case& c, Random& random) {
  CacheFixture f(c.shape, random);
  const CacheShape& s = c.shape;
  f.upload();
  const auto q = random.normals(size_t(s.n_rows()) * s.n_heads * s.head_dim, 1.5f);
  auto compressed =
      random.halves(size_t(s.n_kv_heads) * f.n_pages * cuda::kBlockWindows * s.head_dim);
  Device<float> d_q(q);
  Device<__half> d_compressed(compressed);
  Device<float2> best(size_t(s.n_rows()) * s.n_kv_heads * s.n_blocks_max);
  Device<std::byte> scratch(
      cuda::score_blocks_scratch_bytes(s.n_rows(), s.n_heads, s.n_kv_heads, s.n_blocks_max));
  MUST(cudaMemset(scratch.data(), 0, scratch.bytes()));

  cuda::ScoreBlocksParams p = {};
  p.rows = f.rows();
  p.blocks = f.blocks();
  p.side_car.compressed = d_compressed.data();
  p.side_car.n_pages = f.n_pages;
  p.q = d_q.data();
  p.q_stride = size_t(s.n_heads) * s.head_dim;
  p.best = best.data();
  p.scratch = scratch.data();
  p.scale = 1.0f / std::sqrt(float(s.head_dim));
  p.n_heads = s.n_heads;
  p.n_kv_heads = s.n_kv_heads;
  p.head_dim = s.head_dim;
  p.total_blocks = c.total_blocks;
  // The last launch meets what others left in the scratch memory: one like itself, and one of fewer rows.
  MUST(cuda::score_blocks(p, nullptr));
  cuda::ScoreBlocksParams fewer = p;
  fewer.rows.n_seqs = 1;
  MUST(cuda::score_blocks(fewer, nullptr));
  MUST(cudaDeviceSynchronize());
  best.poison();
  MUST(cuda::score_blocks(p, nullptr));
  const auto got = best.get();

  double worst = 0.0;
  for (int row = 0; row < s.n_rows(); ++row) {
    const auto place = f.place(row);
    for (int h = 0; h < s.n_kv_heads; ++h) {
      const float2* of = got.data() + (size_t(row) * s.n_kv_heads + h) * s.n_blocks_max;
      if (place.lane < 0 || place.n_blocks <= c.total_blocks) {
        EXPECT(std::isnan(of[0].x), "an idle row was written");
        continue;
      }
      std::vector<double> queries, keys;
      for (int i = 0; i < s.group() * s.head_dim; ++i) {
        queries.push_back(q[(size_t(row) * s.n_heads + size_t(h) * s.group()) * s.head_dim + i]);
      }
      for (int b = 0; b < place.n_blocks; ++b) {
        for (int m = 0; m < f.windows_in_block(place, b); ++m) {
          const size_t at =
              ((size_t(h) * f.n_pages + f.page(place.lane, b)) * cuda::kBlockWindows + m) *
              s.head_dim;
          for (int d = 0; d < s.head_dim; ++d) keys.push_back(__half2float(compressed[at + d]));
        }
      }
      const auto scores = reference::window_scores(queries, keys, s.group(), s.head_dim, p.scale);
      size_t at = 0;
      for (int b = 0; b < place.n_blocks; ++b) {
        const int n = f.windows_in_block(place, b);
        double highest = -INFINITY;
        for (int m = 0; m < n; ++m) highest = std::max(highest, scores[at + m]);
        const double last = n == cuda::kBlockWindows ? scores[at + 3] : -INFINITY;
        at += n;
        if (n == 0) {
          EXPECT(of[b].x == -INFINITY && of[b].y == -INFINITY,
                 "a block without windows has a score");
          continue;
        }
        worst = std::max(worst, std::fabs(of[b].x - highest) / highest);
        if (n == cuda::kBlockWindows)
          worst = std::max(worst, std::fabs(of[b].y - last) / last);
        else
          EXPECT(of[b].y == -INFINITY, "a window that is not there has a score");
      }
    }
  }
  // Halves of the queries alone would be off by 1e-3 here.
  EXPECT(worst < 5e-5, "scores off by " + std::to_string(worst));
  std::printf("score_blocks %d/%d x %d, %d rows, up to %d blocks: worst relative error %.1e\n",
              s.n_heads, s.n_kv_heads, s.head_dim, s.n_rows(), s.n_blocks_max, worst);
}

void time_case(int n_heads, int n_kv_heads, int head_dim, int n_seqs, int n_blocks,
               Random& random) {
  CacheShape s;
  s.n_heads = n_heads, s.n_kv_heads = n_kv_heads, s.head_dim = head_dim;
  s.n_lanes = s.n_seqs = n_seqs, s.n_blocks_max = n_blocks, s.blocks_least = n_blocks,
  s.idle = false;
  CacheFixture f(s, random);
  for (auto& of : f.info) of = {64, 4, 0, 0};
  for (int lane = 0; lane < s.n_lanes; ++lane)
    f.n_attended[lane] = n_blocks - 1, f.n_tokens[lane] = 64;
  f.upload();
  const size_t layer = size_t(n_kv_heads) * f.n_pages * cuda::kBlockWindows * head_dim;
  const int n_layers =
      int(std::max<size_t>(1, (size_t(256) << 20) / (layer * 2)));  // beyond the cache
  Device<__half> compressed(layer * n_layers);
  const auto some = random.halves(layer);
  for (int i = 0; i < n_layers; ++i) {
    MUST(cudaMemcpy(compressed.data() + i * layer, some.data(), layer * 2, cudaMemcpyHostToDevice));
  }
  Device<float> q(random.normals(size_t(s.n_rows()) * n_heads * head_dim));
  Device<float2> best(size_t(s.n_rows()) * n_kv_heads * n_blocks);
  Device<std::byte> scratch(
      cuda::score_blocks_scratch_bytes(s.n_rows(), n_heads, n_kv_heads, n_blocks));
  MUST(cudaMemset(scratch.data(), 0, scratch.bytes()));
  const double us = median_us([&](int i, cudaStream_t stream) {
    cuda::ScoreBlocksParams p = {};
    p.rows = f.rows();
    p.blocks = f.blocks();
    p.side_car.compressed = compressed.data() + (i % n_layers) * layer;
    p.side_car.n_pages = f.n_pages;
    p.q = q.data(), p.q_stride = size_t(n_heads) * head_dim;
    p.best = best.data(), p.scratch = scratch.data(), p.scale = 0.1f;
    p.n_heads = n_heads, p.n_kv_heads = n_kv_heads, p.head_dim = head_dim, p.total_blocks = 64;
    MUST(cuda::score_blocks(p, stream));
  });
  const double bytes = double(n_seqs) * n_kv_heads * n_blocks * cuda::kBlockWindows * head_dim * 2;
  std::printf("time score_blocks %d/%d x %d, %d x %d blocks: %.2f us, %.0f GB/s\n", n_heads,
              n_kv_heads, head_dim, n_seqs, n_blocks, us, bytes / us / 1000);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  Random random;
  if (options.time) {
    for (const int n_blocks : {512, 2048, 16384}) {
      time_case(14, 2, 64, 1, n_blocks, random);
      time_case(32, 2, 128, 1, n_blocks, random);
    }
    for (const int n_seqs : {8, 16, 64}) time_case(32, 2, 128, n_seqs, 1024, random);
    return report("score_blocks_test");
  }
  const int scale = options.small ? 1 : 8;
  const auto shape = [&](int n_heads, int n_kv_heads, int head_dim, int n_queries, int n_blocks) {
    CacheShape s;
    s.n_heads = n_heads, s.n_kv_heads = n_kv_heads, s.head_dim = head_dim;
    s.n_queries = n_queries, s.n_blocks_max = n_blocks, s.blocks_least = n_blocks / 3;
    return s;
  };
  check_case({shape(14, 2, 64, 1, 90 * scale), 4}, random);
  check_case({shape(12, 2, 128, 2, 40 * scale), 4}, random);
  check_case({shape(32, 2, 128, 1, 70 * scale), 64}, random);
  check_case({shape(9, 3, 64, 8, 33), 2}, random);
  check_case({shape(8, 8, 128, 1, 20), 1}, random);
  check_case({shape(40, 2, 64, 1, 50), 1}, random);
  check_case({shape(64, 1, 128, 1, 50), 1}, random);
  if (!options.small) {
    CacheShape large =
        shape(14, 2, 64, 1, 6000);  // more units than a thread block keeps, at one split
    large.blocks_least = 5000;
    check_case({large, 64}, random);
    large = shape(14, 14, 64, 8, 700);
    large.n_lanes = large.n_seqs = 12;
    check_case({large, 64}, random);
  }
  cuda::ScoreBlocksParams none = {};
  none.n_heads = none.n_kv_heads = 1, none.head_dim = 64, none.rows.n_queries = 1,
  none.blocks.n_blocks_max = 1;
  EXPECT(cuda::score_blocks(none, nullptr) == cudaSuccess, "no rows are fine");
  none.rows.n_seqs = 1, none.head_dim = 80;
  EXPECT(cuda::score_blocks(none, nullptr) == cudaErrorInvalidValue,
         "an unknown head size is refused");
  return report("score_blocks_test");
}
