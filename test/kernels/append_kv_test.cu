// link: kernels/append_kv.cu kernels/rope_angles.cu
#include <map>

#include "append_kv.h"
#include "cache_fixture.h"
#include "reference/rope.h"
#include "reference/selection.h"
#include "rope_angles.h"

using namespace nosa;
using namespace nosa::test;

namespace {

struct Case {
  CacheShape shape;
  int n_rotated;
  RopePairing pairing;
  bool learned;  // eviction heads
  int n_steps;
};

class AppendTest {
 public:
  AppendTest(const Case& c, Random& random)
      : c_(c),
        f_(c.shape, random),
        s_(f_.shape),
        random_(random),
        offloaded_(s_.n_slots > 0),
        width_(s_.n_kv_heads * s_.head_dim),
        pool_((offloaded_ ? s_.n_lanes : 1) * s_.n_kv_heads * n_extents() * s_.extent_bytes() /
              sizeof(__half)),
        slot_of_block_(std::vector<int16_t>(n_streams() * s_.n_blocks_max, -1)),
        block_of_slot_(std::vector<int32_t>(n_streams() * std::max(1, s_.n_slots), -1)),
        last_step_(std::vector<uint32_t>(n_streams() * std::max(1, s_.n_slots), 0)),
        compressed_(size_t(s_.n_kv_heads) * f_.n_pages * cuda::kBlockWindows * s_.head_dim),
        token_scores_(size_t(s_.n_kv_heads) * f_.n_pages * kBlockTokens),
        window_scores_(size_t(s_.n_kv_heads) * f_.n_pages * cuda::kBlockWindows),
        a_(random.normals(s_.n_kv_heads)),
        delta_(random.normals(size_t(s_.n_kv_heads) * width_, 0.2f)),
        delta_bias_(random.normals(s_.n_kv_heads)),
        d_a_(a_),
        d_delta_(delta_),
        d_delta_bias_(delta_bias_),
        inv_freq_(frequencies()),
        d_inv_freq_(inv_freq_),
        base_(bases()),
        d_base_(base_),
        rotation_(size_t(s_.n_rows()) * c.n_rotated / 2),
        step_(1),
        stride_(size_t(s_.n_heads + 2 * s_.n_kv_heads) * s_.head_dim),
        qkv_(s_.n_rows() * stride_) {
    // Fresh sequences: the step's tokens are the first.
    for (int lane = 0; lane < s_.n_lanes; ++lane) f_.n_tokens[lane] = 0;
    next_step();
    f_.upload();
    f_.d_places->poison();  // rope_angles fills them.
  }

  void run() {
    for (int i = 1; i <= c_.n_steps; ++i) {
      step_.put({uint32_t(i)});
      f_.d_new->put(f_.n_new);
      f_.d_tokens->put(f_.n_tokens);
      check_step();
      next_step();
    }
    EXPECT(worst_key_ < 1e-3, "keys off by " + std::to_string(worst_key_));
    EXPECT(worst_query_ < 1e-5, "queries off by " + std::to_string(worst_query_));
    EXPECT(worst_score_ < 1e-5, "scores off by " + std::to_string(worst_score_));
    EXPECT(worst_window_ < 1e-3, "windows off by " + std::to_string(worst_window_));
    EXPECT(n_windows_ > 0, "no window was completed");
    std::printf(
        "append_kv %d/%d x %d, %s, %s: %d windows; worst errors q %.1e, k %.1e, score %.1e, window "
        "%.1e\n",
        s_.n_heads, s_.n_kv_heads, s_.head_dim, offloaded_ ? "slots" : "pages",
        c_.learned ? "learned" : "training-free", n_windows_, worst_query_, worst_key_,
        worst_score_, worst_window_);
  }

 private:
  size_t n_extents() const { return offloaded_ ? size_t(s_.n_slots) : size_t(f_.n_pages); }
  size_t n_streams() const { return size_t(s_.n_lanes) * s_.n_kv_heads; }
  std::vector<float> frequencies() const {
    std::vector<float> values;
    for (int i = 0; i < c_.n_rotated / 2; ++i)
      values.push_back(float(std::pow(1e6, -2.0 * i / c_.n_rotated)));
    return values;
  }
  std::vector<int32_t> bases() {
    std::vector<int32_t> values;
    for (int i = 0; i < s_.n_lanes; ++i) values.push_back(random_.integer(0, 200000));
    return values;
  }

  /// Every sequence that is not idle gets up to n_queries more tokens, while its lane has room.
  void next_step() {
    for (int seq = 0; seq < s_.n_seqs; ++seq) {
      const int lane = f_.lanes[seq];
      if (lane < 0) continue;
      const int room = (s_.n_blocks_max - f_.n_attended[lane]) * kBlockTokens - f_.n_tokens[lane];
      f_.n_new[seq] = std::min({random_.integer(random_.integer(0, 1), s_.n_queries), room});
      f_.n_tokens[lane] += f_.n_new[seq];
    }
  }

  void launch() {
    cuda::RopeAnglesParams r = {};
    r.rows = f_.rows();
    r.n_attended = f_.d_attended->data();
    r.base_position = d_base_.data();
    r.inv_freq = d_inv_freq_.data();
    r.rotation = rotation_.data();
    r.n_rotated = c_.n_rotated;
    r.magnitude = 1.25f;
    MUST(cuda::rope_angles(r, nullptr));
    MUST(cudaDeviceSynchronize());  // In a step other kernels lie between the two, as append_kv's
                                    // early reads want.

    cuda::AppendKvParams p = {};
    p.rows = f_.rows();
    p.blocks = f_.blocks();
    const size_t head = n_extents() * s_.extent_bytes();
    p.pool = {reinterpret_cast<std::byte*>(pool_.data()), offloaded_ ? head * s_.n_kv_heads : 0,
              head, s_.extent_bytes()};
    p.slots = {slot_of_block_.data(), block_of_slot_.data(), last_step_.data(), s_.n_slots};
    p.side_car = {compressed_.data(), token_scores_.data(), window_scores_.data(), f_.n_pages};
    p.q = qkv_.data();
    p.k = qkv_.data() + size_t(s_.n_heads) * s_.head_dim;
    p.v = p.k + width_;
    p.q_stride = p.k_stride = p.v_stride = stride_;
    p.rotation = rotation_.data();
    if (c_.learned)
      p.a = d_a_.data(), p.delta = d_delta_.data(), p.delta_bias = d_delta_bias_.data();
    p.step = step_.data();
    p.n_heads = s_.n_heads, p.n_kv_heads = s_.n_kv_heads, p.head_dim = s_.head_dim,
    p.n_rotated = c_.n_rotated;
    p.pairing = c_.pairing;
    MUST(cuda::append_kv(p, nullptr));
  }

  void check_step() {
    const auto before = random_.normals(qkv_.size());
    qkv_.put(before);
    launch();
    const auto after = qkv_.get();
    const auto pool = pool_.get();
    const auto compressed = compressed_.get();
    const auto token_scores = token_scores_.get(), window_scores = window_scores_.get();
    const auto slot_of_block = slot_of_block_.get();
    for (int row = 0; row < s_.n_rows(); ++row) {
      const auto place = f_.place(row);
      const float* x = before.data() + row * stride_;
      const float* y = after.data() + row * stride_;
      if (place.lane < 0) {
        EXPECT(std::equal(x, x + stride_, y), "an idle row was changed");
        continue;
      }
      const int position = base_[place.lane] + place.own;
      for (int head = 0; head < s_.n_heads; ++head) {
        const auto want = rotate(x + head * s_.head_dim, position);
        const std::vector<float> got(y + head * s_.head_dim, y + (head + 1) * s_.head_dim);
        worst_query_ = std::max(worst_query_, relative_norm(got, want));
      }
      const float* k = x + s_.n_heads * s_.head_dim;
      EXPECT(std::equal(k, k + 2 * width_, y + s_.n_heads * s_.head_dim),
             "keys and values are inputs only");
      for (int h = 0; h < s_.n_kv_heads; ++h) {
        const int block = f_.n_attended[place.lane] + place.own / kBlockTokens;
        const int page = f_.page(place.lane, block);
        const size_t stream = size_t(place.lane) * s_.n_kv_heads + h;
        const int index = offloaded_ ? slot_of_block[stream * s_.n_blocks_max + block] : page;
        EXPECT(index >= 0, "the tail block has no slot");
        if (index < 0) continue;
        const size_t extent = (((offloaded_ ? stream : size_t(h)) * n_extents()) + index) *
                              s_.extent_bytes() / sizeof(__half);
        const auto want_key = rotate(k + h * s_.head_dim, position);
        std::vector<float> key, value;
        bool same_value = true;
        for (int d = 0; d < s_.head_dim; ++d) {
          const size_t at = extent + size_t(place.own % kBlockTokens) * s_.head_dim + d;
          key.push_back(__half2float(pool[at]));
          const float v = k[width_ + h * s_.head_dim + d];
          same_value = same_value && __half2float(pool[at + kBlockTokens * s_.head_dim]) ==
                                         __half2float(__float2half_rn(v));
        }
        EXPECT(same_value, "a value is not the rounded input");
        worst_key_ = std::max(worst_key_, relative_norm(key, want_key));
        keys_[{place.lane, h}].insert(keys_[{place.lane, h}].end(), key.begin(), key.end());

        const double want_score = score(k, k + width_, want_key, h);
        const size_t token =
            (size_t(h) * f_.n_pages + page) * kBlockTokens + place.own % kBlockTokens;
        worst_score_ = std::max(worst_score_, std::fabs(token_scores[token] - want_score) /
                                                  (1.0 + std::fabs(want_score)));
        scores_[{place.lane, h}].push_back(token_scores[token]);
        check_window(place, h, compressed, window_scores);
      }
    }
    if (offloaded_) check_maps(slot_of_block);
  }

  /// The window that the row's token completes, if any, against the mean of what was stored.
  void check_window(const CacheFixture::RowPlace& place, int h,
                    const std::vector<__half>& compressed,
                    const std::vector<float>& window_scores) {
    const int n = place.own + 1;
    if (n < cuda::kWindowTokens || n % cuda::kWindowStride != 0) return;
    n_windows_ += 1;
    const int window = (n - cuda::kWindowTokens) / cuda::kWindowStride;
    const int page = f_.page(place.lane, f_.n_attended[place.lane] + window / cuda::kBlockWindows);
    const size_t at =
        (size_t(h) * f_.n_pages + page) * cuda::kBlockWindows + window % cuda::kBlockWindows;
    const auto& keys = keys_[{place.lane, h}];
    const std::vector<double> rows(
        keys.begin() + size_t(window) * cuda::kWindowStride * s_.head_dim, keys.end());
    const auto want = reference::window_mean(rows.data(), cuda::kWindowTokens, s_.head_dim);
    std::vector<float> got;
    for (int d = 0; d < s_.head_dim; ++d)
      got.push_back(__half2float(compressed[at * s_.head_dim + d]));
    worst_window_ = std::max(worst_window_, relative_norm(got, want));
    const auto& scores = scores_[{place.lane, h}];
    const double mean = std::accumulate(scores.end() - cuda::kWindowTokens, scores.end(), 0.0) /
                        cuda::kWindowTokens;
    worst_score_ =
        std::max(worst_score_, std::fabs(window_scores[at] - mean) / (1.0 + std::fabs(mean)));
  }

  void check_maps(const std::vector<int16_t>& slot_of_block) {
    const auto block_of_slot = block_of_slot_.get();
    for (size_t stream = 0; stream < n_streams(); ++stream) {
      for (int slot = 0; slot < s_.n_slots; ++slot) {
        const int block = block_of_slot[stream * s_.n_slots + slot];
        EXPECT(block < 0 || slot_of_block[stream * s_.n_blocks_max + block] == slot,
               "the maps contradict each other");
      }
      int n = 0;
      for (int b = 0; b < s_.n_blocks_max; ++b)
        n += slot_of_block[stream * s_.n_blocks_max + b] >= 0 ? 1 : 0;
      EXPECT(n <= s_.n_slots, "more blocks than slots");
    }
  }

  std::vector<double> rotate(const float* x, int position) const {
    return reference::rope(x, s_.head_dim, position, inv_freq_.data(), c_.n_rotated, 1.25,
                           c_.pairing);
  }
  double score(const float*, const float* v, const std::vector<double>& key, int h) const {
    if (!c_.learned) {
      double sum = 0.0;
      for (const double x : key) sum += x * x;
      return -std::sqrt(sum);
    }
    double u = delta_bias_[h];
    for (int i = 0; i < width_; ++i) u += double(delta_[size_t(h) * width_ + i]) * v[i];
    return a_[h] * std::log1p(std::exp(u));
  }

  Case c_;
  CacheFixture f_;
  CacheShape s_;
  Random& random_;
  bool offloaded_;
  int width_;
  Device<__half> pool_;
  Device<int16_t> slot_of_block_;
  Device<int32_t> block_of_slot_;
  Device<uint32_t> last_step_;
  Device<__half> compressed_;
  Device<float> token_scores_, window_scores_;
  std::vector<float> a_, delta_, delta_bias_;
  Device<float> d_a_, d_delta_, d_delta_bias_;
  std::vector<float> inv_freq_;
  Device<float> d_inv_freq_;
  std::vector<int32_t> base_;
  Device<int32_t> d_base_;
  Device<float2> rotation_;
  Device<uint32_t> step_;
  size_t stride_;
  Device<float> qkv_;
  std::map<std::pair<int, int>, std::vector<float>> keys_, scores_;
  double worst_query_ = 0.0, worst_key_ = 0.0, worst_score_ = 0.0, worst_window_ = 0.0;
  int n_windows_ = 0;
};

CacheShape shape(int n_heads, int n_kv_heads, int head_dim, int n_queries, int n_slots) {
  CacheShape s;
  s.n_heads = n_heads, s.n_kv_heads = n_kv_heads, s.head_dim = head_dim, s.n_queries = n_queries,
  s.n_slots = n_slots;
  s.n_blocks_max = 24;
  return s;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  Random random;
  const int n_steps = options.small ? 90 : 200;
  AppendTest({shape(14, 2, 64, 1, 6), 64, RopePairing::kHalfSplit, false, n_steps}, random).run();
  AppendTest({shape(32, 2, 128, 4, 5), 128, RopePairing::kHalfSplit, true, n_steps}, random).run();
  AppendTest({shape(9, 3, 64, 8, 0), 64, RopePairing::kAdjacent, true, n_steps}, random).run();
  AppendTest({shape(4, 4, 96, 2, 0), 32, RopePairing::kHalfSplit, false, n_steps}, random).run();
  cuda::AppendKvParams none = {};
  EXPECT(cuda::append_kv(none, nullptr) == cudaErrorInvalidValue, "empty parameters are refused");
  return report("append_kv_test");
}
