// link: kernels/prefill_attention.cu
// Attention of chunks over attended and own blocks: all of them, or lists per token.
#include "kernels/prefill_attention.h"

#include <memory>
#include <numeric>

#include "harness.h"
#include "kernels/reference/attention.h"
#include "weights.h"

using namespace nosa;
using namespace nosa::test;
using cuda::BlockInfo;
using cuda::OperandType;

namespace {

struct Case {
  int n_heads, n_kv_heads, head_dim;
  int n_attended;
  int own_start, n_tokens;
  bool biased;
  bool listed;
  bool with_info;  // some attended blocks are partial or masked
};

/// A sequence's keys and values of one layer on the device, in extents at random places; what is no token is NaN.
class Cache {
 public:
  Cache(const Case& c, Random& random) : c_(c) {
    const int own_tokens = c.own_start + c.n_tokens;
    n_blocks_ = c.n_attended + (own_tokens + kBlockTokens - 1) / kBlockTokens;
    n_places_ = n_blocks_ + 5;
    for (int b = 0; b < n_blocks_; ++b) {
      const bool own = b >= c.n_attended;
      const int left = own_tokens - (b - c.n_attended) * kBlockTokens;
      const bool partial = c.with_info && random.integer(0, 3) == 0;
      const int n = own ? std::min(left, kBlockTokens) : partial ? random.integer(1, kBlockTokens) : kBlockTokens;
      info_.push_back({uint8_t(n), 0, uint8_t(!own && c.with_info && random.integer(0, 5) == 0), 0});
    }
    places_.resize(size_t(n_places_));
    std::iota(places_.begin(), places_.end(), 0);
    std::shuffle(places_.begin(), places_.end(), random.engine());
    pages_ = places_;
    std::shuffle(pages_.begin(), pages_.end(), random.engine());

    const size_t extent = size_t(2 * kBlockTokens * c.head_dim);
    std::vector<__half> kv(extent * size_t(n_places_ * c.n_kv_heads), __ushort_as_half(0xffff));
    for (int h = 0; h < c.n_kv_heads; ++h) {
      for (int b = 0; b < n_blocks_; ++b) {
        __half* at = kv.data() + (size_t(h * n_places_) + size_t(places_[size_t(b)])) * extent;
        for (int half = 0; half < 2; ++half) {
          for (int i = 0; i < info_[size_t(b)].n_tokens * c.head_dim; ++i) {
            at[half * kBlockTokens * c.head_dim + i] = __float2half_rn(random.normal());
          }
        }
      }
    }
    kv_ = kv;
    bias_ = random.normals(size_t(c.n_kv_heads * n_places_ * kBlockTokens), 2.0f);
    kv_device_ = std::make_unique<Device<__half>>(kv_);
    places_device_ = std::make_unique<Device<int32_t>>(places_);
    pages_device_ = std::make_unique<Device<int32_t>>(pages_);
    info_device_ = std::make_unique<Device<BlockInfo>>(
        std::vector<BlockInfo>(info_.begin(), info_.begin() + std::max(1, c.n_attended)));
    bias_device_ = std::make_unique<Device<float>>(bias_);
  }

  int n_blocks() const { return n_blocks_; }
  bool open(int block) const { return info_[size_t(block)].masked == 0; }

  void set(cuda::PrefillAttentionParams& p) {
    const size_t extent = size_t(2 * kBlockTokens * c_.head_dim) * sizeof(__half);
    p.pool = {reinterpret_cast<std::byte*>(kv_device_->data()), 0, extent * size_t(n_places_), extent};
    p.indices = places_device_->data();
    p.info = c_.with_info ? info_device_->data() : nullptr;
    p.token_bias = c_.biased ? bias_device_->data() : nullptr;
    p.pages = c_.biased ? pages_device_->data() : nullptr;
    p.n_pages = n_places_;
    p.n_attended = c_.n_attended;
    p.n_heads = c_.n_heads;
    p.n_kv_heads = c_.n_kv_heads;
    p.head_dim = c_.head_dim;
  }

  /// What own token `own` sees, of the blocks in `list` or of all.
  reference::VisibleKeys visible(int kv_head, int own, const std::vector<int32_t>* list) const {
    reference::VisibleKeys keys;
    const size_t extent = size_t(2 * kBlockTokens * c_.head_dim);
    for (int b = 0; b < n_blocks_; ++b) {
      if (!open(b) || (list != nullptr && !std::binary_search(list->begin(), list->end(), b))) continue;
      int n = info_[size_t(b)].n_tokens;
      if (b >= c_.n_attended) n = std::min(n, own + 1 - (b - c_.n_attended) * kBlockTokens);
      const __half* at = kv_.data() + (size_t(kv_head * n_places_) + size_t(places_[size_t(b)])) * extent;
      for (int j = 0; j < n; ++j) {
        for (int i = 0; i < c_.head_dim; ++i) {
          keys.k.push_back(__half2float(at[j * c_.head_dim + i]));
          keys.v.push_back(__half2float(at[(kBlockTokens + j) * c_.head_dim + i]));
        }
        const size_t bias = (size_t(kv_head * n_places_) + size_t(pages_[size_t(b)])) * kBlockTokens + size_t(j);
        keys.bias.push_back(c_.biased ? bias_[bias] : 0.0f);
      }
    }
    return keys;
  }

 private:
  Case c_;
  int n_blocks_ = 0;
  int n_places_ = 0;
  std::vector<BlockInfo> info_;
  std::vector<int32_t> places_, pages_;
  std::vector<__half> kv_;
  std::vector<float> bias_;
  std::unique_ptr<Device<__half>> kv_device_;
  std::unique_ptr<Device<int32_t>> places_device_, pages_device_;
  std::unique_ptr<Device<BlockInfo>> info_device_;
  std::unique_ptr<Device<float>> bias_device_;
};

/// Lists of each token and KV head: its own block, and a random few of the others, some of them closed or not yet its.
std::vector<std::vector<int32_t>> random_lists(const Case& c, const Cache& cache, int n_selected_max, Random& random) {
  std::vector<std::vector<int32_t>> lists;
  for (int t = 0; t < c.n_tokens; ++t) {
    for (int h = 0; h < c.n_kv_heads; ++h) {
      std::vector<int32_t> all(size_t(cache.n_blocks()));
      std::iota(all.begin(), all.end(), 0);
      std::vector<int32_t> list;
      std::sample(all.begin(), all.end(), std::back_inserter(list), random.integer(0, n_selected_max - 1),
                  random.engine());
      const int own = c.n_attended + (c.own_start + t) / kBlockTokens;
      if (!std::binary_search(list.begin(), list.end(), own)) list.push_back(own);
      std::sort(list.begin(), list.end());
      lists.push_back(std::move(list));
    }
  }
  return lists;
}

void check(const Case& c, OperandType out_type, Random& random) {
  Cache cache(c, random);
  const std::vector<float> q = random.normals(size_t(c.n_tokens * c.n_heads * c.head_dim));
  Device<float> q_device(q);
  const int cols = c.n_heads * c.head_dim;

  constexpr int kSelectedMax = 24;
  std::vector<std::vector<int32_t>> lists;
  std::vector<int32_t> chosen(size_t(c.n_tokens * c.n_kv_heads * kSelectedMax), 1 << 30), n_chosen;
  if (c.listed) {
    lists = random_lists(c, cache, kSelectedMax, random);
    for (size_t i = 0; i < lists.size(); ++i) {
      std::copy(lists[i].begin(), lists[i].end(), chosen.begin() + std::ptrdiff_t(i * kSelectedMax));
      n_chosen.push_back(int32_t(lists[i].size()));
    }
  }
  n_chosen.resize(std::max<size_t>(1, n_chosen.size()));
  Device<int32_t> chosen_device(chosen), n_chosen_device(n_chosen);

  const auto run = [&](int first, int n_tokens, size_t scratch_bytes, OperandMemory& out) {
    Device<std::byte> scratch(std::max<size_t>(16, scratch_bytes));
    cuda::PrefillAttentionParams p = {};
    cache.set(p);
    p.q = q_device.data() + size_t(first) * size_t(cols);
    p.out = out.view();
    if (c.listed) {
      p.chosen = chosen_device.data() + size_t(first * c.n_kv_heads * kSelectedMax);
      p.n_chosen = n_chosen_device.data() + size_t(first * c.n_kv_heads);
      p.n_selected_max = kSelectedMax;
    }
    p.scratch = scratch.data();
    p.scratch_bytes = scratch_bytes;
    p.scale = 1.0f / std::sqrt(float(c.head_dim));
    p.n_tokens = n_tokens;
    p.own_start = c.own_start + first;
    MUST(cuda::prefill_attention(p, nullptr));
    return out.values();
  };
  const size_t scratch = cuda::prefill_attention_scratch_bytes(c.n_tokens, cache.n_blocks(), c.n_heads, c.head_dim);
  OperandMemory out(out_type, c.n_tokens, cols);
  const std::vector<double> got = run(0, c.n_tokens, scratch, out);

  std::vector<double> want;
  for (int t = 0; t < c.n_tokens; ++t) {
    for (int head = 0; head < c.n_heads; ++head) {
      const int kv_head = head / (c.n_heads / c.n_kv_heads);
      const auto* list = c.listed ? &lists[size_t(t * c.n_kv_heads + kv_head)] : nullptr;
      const auto keys = cache.visible(kv_head, c.own_start + t, list);
      const std::span<const float> row(q.data() + size_t(t * c.n_heads + head) * size_t(c.head_dim),
                                       size_t(c.head_dim));
      const auto result = reference::attention(row, keys, 1.0 / std::sqrt(double(c.head_dim)));
      want.insert(want.end(), result.out.begin(), result.out.end());
    }
  }
  const double error = relative_norm(got, want);
  std::printf("prefill_attention %2d/%d x %3d, %d attended blocks, own %d + %d%s%s  %.1e\n", c.n_heads, c.n_kv_heads,
              c.head_dim, c.n_attended, c.own_start, c.n_tokens, c.biased ? ", biased" : "", c.listed ? ", lists" : "",
              error);
  EXPECT(error < 1e-3 + operand_bound(out_type), "prefill_attention");

  // In two chunks, with little scratch: the same bits.
  if (c.n_tokens < 2) return;
  const int first = random.integer(1, c.n_tokens - 1);
  OperandMemory before(out_type, first, cols), after(out_type, c.n_tokens - first, cols);
  std::vector<double> parts = run(0, first, scratch / 2 + 16, before);
  const std::vector<double> rest = run(first, c.n_tokens - first, scratch, after);
  parts.insert(parts.end(), rest.begin(), rest.end());
  EXPECT(parts == got, "a token's bits depend on its chunk");
}

void time_all(Random& random) {
  for (const Case& c :
       {Case{14, 2, 64, 0, 6144, 2048, false, false, false}, Case{14, 2, 64, 512, 0, 2048, false, false, false},
        Case{32, 2, 128, 0, 6144, 2048, false, false, false}, Case{32, 8, 128, 0, 6144, 2048, false, false, false},
        Case{32, 2, 128, 512, 0, 2048, false, false, false}, Case{14, 2, 64, 2048, 0, 64, false, false, false},
        Case{12, 2, 128, 512, 0, 256, false, false, false}}) {
    const int n_blocks = c.n_attended + (c.own_start + c.n_tokens + kBlockTokens - 1) / kBlockTokens;
    const int cols = c.n_heads * c.head_dim;
    const size_t extent = size_t(2 * kBlockTokens * c.head_dim);
    Device<__half> kv(random.halves(extent * size_t(n_blocks * c.n_kv_heads)));
    std::vector<int32_t> indices(static_cast<size_t>(n_blocks));
    std::iota(indices.begin(), indices.end(), 0);
    Device<int32_t> indices_device(indices);
    Device<float> q(random.normals(size_t(c.n_tokens) * size_t(cols)));
    OperandMemory out(OperandType::kF16, c.n_tokens, cols);
    const size_t scratch_bytes = cuda::prefill_attention_scratch_bytes(c.n_tokens, n_blocks, c.n_heads, c.head_dim);
    Device<std::byte> scratch(std::max<size_t>(16, scratch_bytes));
    cuda::PrefillAttentionParams p = {};
    p.q = q.data();
    p.out = out.view();
    p.pool = {reinterpret_cast<std::byte*>(kv.data()), 0, extent * 2 * size_t(n_blocks), extent * 2};
    p.indices = indices_device.data();
    p.scratch = scratch.data();
    p.scratch_bytes = scratch_bytes;
    p.scale = 0.1f;
    p.n_tokens = c.n_tokens;
    p.own_start = c.own_start;
    p.n_attended = c.n_attended;
    p.n_heads = c.n_heads;
    p.n_kv_heads = c.n_kv_heads;
    p.head_dim = c.head_dim;
    const double us = median_us([&](int, cudaStream_t s) { MUST(cuda::prefill_attention(p, s)); }, 5, 8);
    const double keys = c.n_attended * double(kBlockTokens) + c.own_start + c.n_tokens / 2.0;
    std::printf("prefill_attention %2d/%d x %3d, %d tokens over %d: %.1f us, %.0f TFLOP/s\n", c.n_heads, c.n_kv_heads,
                c.head_dim, c.n_tokens, n_blocks * kBlockTokens, us, 4e-6 * c.n_tokens * keys * cols / us);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  Random random;
  if (options.time) {
    time_all(random);
    return report("prefill_attention");
  }
  check({14, 2, 64, 0, 0, 1, false, false, false}, OperandType::kF16, random);
  check({14, 2, 64, 0, 0, options.small ? 20 : 150, false, false, false}, OperandType::kF16, random);
  check({12, 2, 128, 5, random.integer(0, 100), 33, true, false, true}, OperandType::kBF16, random);
  check({9, 3, 64, 7, random.integer(0, 300), random.integer(1, 40), true, false, true}, OperandType::kF16, random);
  check({32, 2, 128, 3, 70, 11, false, false, true}, OperandType::kF16, random);
  check({4, 4, 64, 4, 64, 130, false, false, true}, OperandType::kBF16, random);
  check({14, 2, 64, 30, random.integer(0, 100), 25, false, true, true}, OperandType::kF16, random);
  check({32, 2, 128, 20, 10, 19, true, true, true}, OperandType::kF16, random);
  if (!options.small) {
    // Several splits: in the attended part, and beginning within the chunk's own blocks.
    check({14, 2, 64, 300, 40, 9, false, false, true}, OperandType::kF16, random);
    check({4, 2, 128, 127, 0, 100, true, false, true}, OperandType::kF16, random);
    check({2, 2, 64, 3000, 0, 20, false, true, true}, OperandType::kF16, random);
  }
  cuda::PrefillAttentionParams none = {};
  none.out = {nullptr, OperandType::kF16, 0, 128};
  none.n_heads = none.n_kv_heads = 2;
  none.head_dim = 64;
  EXPECT(cuda::prefill_attention(none, nullptr) == cudaSuccess, "no tokens");
  none.head_dim = 32;
  EXPECT(cuda::prefill_attention(none, nullptr) == cudaErrorInvalidValue, "an unknown head size is refused");
  return report("prefill_attention");
}
