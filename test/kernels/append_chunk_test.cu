// link: kernels/append_chunk.cu
#include "append_chunk.h"

#include "harness.h"
#include "reference/selection.h"

using namespace nosa;
using namespace nosa::test;

namespace {

struct Case {
  int n_kv_heads;
  int head_dim;
  bool learned;
  std::vector<int> chunks;  // tokens of each chunk, one after the other
};

double softplus(double x) { return std::log1p(std::exp(x)); }

void check_case(const Case& c, Random& random) {
  const int width = c.n_kv_heads * c.head_dim;
  int n_tokens = 0;
  for (const int n : c.chunks) n_tokens += n;
  const int n_blocks = (n_tokens + kBlockTokens - 1) / kBlockTokens;
  const int n_pages = n_blocks + 4, n_places = n_blocks + 2;
  const auto order = [&](int n) {
    std::vector<int32_t> all(n);
    for (int i = 0; i < n; ++i) all[i] = i;
    std::shuffle(all.begin(), all.end(), random.engine());
    all.resize(n_blocks);
    return all;
  };
  const std::vector<int32_t> pages = order(n_pages), places = order(n_places);
  const std::vector<float> k = random.normals(size_t(n_tokens) * width), v = random.normals(size_t(n_tokens) * width);
  const std::vector<float> a = random.normals(c.n_kv_heads), bias = random.normals(c.n_kv_heads);
  const std::vector<float> delta = random.normals(size_t(c.n_kv_heads) * width, 0.2f);
  Device<float> d_k(k), d_v(v), d_a(a), d_bias(bias), d_delta(delta);
  Device<int32_t> d_pages(pages), d_places(places);
  const size_t extent_halves = size_t(2) * kBlockTokens * c.head_dim;
  Device<__half> pool(size_t(n_places) * c.n_kv_heads * extent_halves);
  Device<__half> compressed(size_t(c.n_kv_heads) * n_pages * cuda::kBlockWindows * c.head_dim);
  Device<float> token_scores(size_t(c.n_kv_heads) * n_pages * kBlockTokens);
  Device<float> window_scores(size_t(c.n_kv_heads) * n_pages * cuda::kBlockWindows);

  cuda::AppendChunkParams p = {};
  const size_t extent_bytes = extent_halves * sizeof(__half);
  p.pool = {reinterpret_cast<std::byte*>(pool.data()), 0, extent_bytes, extent_bytes * c.n_kv_heads};
  p.indices = d_places.data();
  p.pages = d_pages.data();
  p.side_car = {compressed.data(), token_scores.data(), window_scores.data(), n_pages};
  p.a = c.learned ? d_a.data() : nullptr;
  p.delta = c.learned ? d_delta.data() : nullptr;
  p.delta_bias = c.learned ? d_bias.data() : nullptr;
  p.n_kv_heads = c.n_kv_heads;
  p.head_dim = c.head_dim;
  int at = 0;
  for (const int n : c.chunks) {
    p.k = d_k.data() + size_t(at) * width;
    p.v = d_v.data() + size_t(at) * width;
    p.own_start = at;
    p.n_tokens = n;
    MUST(cuda::append_chunk(p, nullptr));
    at += n;
  }

  const std::vector<__half> got = pool.get(), got_keys = compressed.get();
  const std::vector<float> got_scores = token_scores.get(), got_windows = window_scores.get();
  double worst_kv = 0.0, worst_score = 0.0, worst_key = 0.0, worst_window = 0.0;
  int n_windows = 0;
  for (int h = 0; h < c.n_kv_heads; ++h) {
    std::vector<double> keys(size_t(n_tokens) * c.head_dim), scores(n_tokens);
    for (int t = 0; t < n_tokens; ++t) {
      const size_t extent = (size_t(places[t / kBlockTokens]) * c.n_kv_heads + h) * extent_halves;
      double sum = 0.0;
      for (int d = 0; d < c.head_dim; ++d) {
        const size_t from = size_t(t) * width + size_t(h) * c.head_dim + d;
        const size_t row = extent + size_t(t % kBlockTokens) * c.head_dim + d;
        const double key = __half2float(got[row]);
        worst_kv = std::max({worst_kv, std::fabs(key - k[from]), std::fabs(double(__half2float(got[row + extent_halves / 2])) - v[from])});
        keys[size_t(t) * c.head_dim + d] = key;
        sum += double(k[from]) * k[from];
      }
      scores[t] = -std::sqrt(sum);
      if (c.learned) {
        double u = bias[h];
        for (int i = 0; i < width; ++i) u += double(delta[size_t(h) * width + i]) * v[size_t(t) * width + i];
        scores[t] = a[h] * softplus(u);
      }
      const size_t place = (size_t(h) * n_pages + pages[t / kBlockTokens]) * kBlockTokens + t % kBlockTokens;
      worst_score = std::max(worst_score, std::fabs(got_scores[place] - scores[t]));
    }
    for (int m = 0; 16 * m + 32 <= n_tokens; ++m) {
      const std::vector<double> mean = reference::window_mean(keys.data() + size_t(16 * m) * c.head_dim, 32, c.head_dim);
      const std::vector<double> score = reference::window_mean(scores.data() + 16 * m, 32, 1);
      const size_t place = (size_t(h) * n_pages + pages[m / 4]) * cuda::kBlockWindows + m % 4;
      for (int d = 0; d < c.head_dim; ++d) {
        worst_key = std::max(worst_key, std::fabs(double(__half2float(got_keys[place * c.head_dim + d])) - mean[d]));
      }
      worst_window = std::max(worst_window, std::fabs(got_windows[place] - score[0]));
      n_windows += 1;
    }
  }
  EXPECT(worst_kv < 4e-3, "stored keys and values");
  EXPECT(worst_score < 1e-4 && worst_window < 1e-4, "scores");
  EXPECT(worst_key < 2e-3, "compressed keys");
  // What no token and no window has must be as it was.
  size_t n_written = 0;
  for (const float score : got_windows) n_written += std::isnan(score) ? 0 : 1;
  EXPECT(n_written == size_t(n_windows), "windows that are not complete");
  std::printf("append_chunk %d x %d, %s, %d tokens: %d windows; worst errors kv %.1e, score %.1e, key %.1e, window %.1e\n", c.n_kv_heads,
              c.head_dim, c.learned ? "learned" : "training-free", n_tokens, n_windows, worst_kv, worst_score, worst_key, worst_window);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  Random random;
  check_case({2, 64, false, {1}}, random);
  check_case({3, 64, true, {31, 1, 16, 15, 200}}, random);
  check_case({1, 96, false, {33, 7, 64}}, random);
  std::vector<int> ragged;
  for (int i = 0; i < (options.small ? 5 : 40); ++i) ragged.push_back(random.integer(1, 100));
  check_case({2, 128, true, ragged}, random);
  if (!options.small) check_case({2, 128, false, {2048, 2048}}, random);
  cuda::AppendChunkParams none = {};
  none.n_kv_heads = 1;
  none.head_dim = 64;
  MUST(cuda::append_chunk(none, nullptr));
  none.head_dim = 60;
  EXPECT(cuda::append_chunk(none, nullptr) == cudaErrorInvalidValue, "an odd head size is refused");
  return report("append_chunk_test");
}
