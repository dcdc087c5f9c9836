// link: kernels/attend_blocks.cu kernels/block_mass.cu kernels/merge_parts.cu
#include "attend_blocks.h"
#include "block_mass.h"
#include "cache_fixture.h"
#include "reference/attention.h"

using namespace nosa;
using namespace nosa::test;

namespace {

struct Case {
  CacheShape shape;
  bool listed;
  bool biased;
};

constexpr int kCapacity = 128;

/// Pool and lists over a fixture: in slots, or in pages when the shape has no slots.
struct Attention {
  Attention(const Case& c, Random& random)
      : f(c.shape, random),
        s(f.shape),
        offloaded(s.n_slots > 0),
        values(pool_values()),
        pool(values),
        q(random.normals(size_t(s.n_rows()) * s.n_heads * s.head_dim, 2.0f)),
        d_q(q),
        bias(random.normals(size_t(s.n_kv_heads) * f.n_pages * kBlockTokens, 3.0f)),
        d_bias(bias),
        selected(size_t(s.n_rows()) * s.n_kv_heads * kCapacity, {-7, -7, -7, -7}),
        n_selected(size_t(s.n_rows()) * s.n_kv_heads, 0),
        out(q.size()),
        rounded(q.size()),
        parts(cuda::attention_parts_bytes(s.n_rows(), s.n_heads, s.head_dim)) {
    // Half the values are drawn, and repeated: drawing is what takes the time.
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = i < 1 << 20 ? __float2half_rn(random.normal()) : values[i - (1 << 20) + 7];
    }
    if (c.listed) {
      for (int row = 0; row < s.n_rows(); ++row) fill_lists(row, random);
    }
    spoil_missing_tokens();
    pool.put(values);
    f.upload();
    d_selected = std::make_unique<Device<cuda::SelectedBlock>>(selected);
    d_n_selected = std::make_unique<Device<int32_t>>(n_selected);
    p.rows = f.rows();
    p.blocks = f.blocks();
    p.pool = {reinterpret_cast<std::byte*>(pool.data()),
              offloaded ? s.n_kv_heads * head_bytes() : 0, head_bytes(), s.extent_bytes()};
    p.q = d_q.data();
    p.q_stride = size_t(s.n_heads) * s.head_dim;
    if (c.listed) p.selected = d_selected->data(), p.n_selected = d_n_selected->data();
    p.token_bias = c.biased ? d_bias.data() : nullptr;
    p.parts = parts.data();
    p.scale = 1.0f / std::sqrt(float(s.head_dim));
    p.n_heads = s.n_heads, p.n_kv_heads = s.n_kv_heads, p.head_dim = s.head_dim;
    p.n_selected_max = kCapacity;
    p.n_pages = f.n_pages;
    m.rows = p.rows, m.parts = p.parts;
    m.out = {rounded.data(), cuda::OperandType::kF16, s.n_rows(), s.n_heads * s.head_dim};
    m.out_f32 = out.data(), m.out_stride = p.q_stride;
    m.n_heads = s.n_heads, m.n_kv_heads = s.n_kv_heads, m.head_dim = s.head_dim;
  }

  void launch(cudaStream_t stream) {
    MUST(cuda::attend_blocks(p, stream));
    MUST(cuda::merge_parts(m, stream));
  }

  size_t n_extents() const { return offloaded ? size_t(s.n_slots) : size_t(f.n_pages); }
  size_t head_bytes() const { return n_extents() * s.extent_bytes(); }
  std::vector<__half> pool_values() const {
    return std::vector<__half>((offloaded ? s.n_lanes : 1) * s.n_kv_heads * head_bytes() /
                               sizeof(__half));
  }
  size_t extent(int lane, int h, int index) const {
    return ((offloaded ? size_t(lane) * s.n_kv_heads : 0) * head_bytes() + h * head_bytes() +
            size_t(index) * s.extent_bytes()) /
           sizeof(__half);
  }

  /// Some of the blocks that the row sees, ascending, anywhere in the slots.
  void fill_lists(int row, Random& random) {
    const auto place = f.place(row);
    if (place.lane < 0) return;
    for (int h = 0; h < s.n_kv_heads; ++h) {
      const size_t list = size_t(row) * s.n_kv_heads + h;
      std::vector<int> slots(offloaded ? s.n_slots : 1);
      std::iota(slots.begin(), slots.end(), 0);
      std::shuffle(slots.begin(), slots.end(), random.engine());
      int n = 0;
      for (int b = 0;
           b < place.n_blocks && n < std::min(kCapacity, offloaded ? s.n_slots : kCapacity); ++b) {
        if (b != place.n_blocks - 1 && random.integer(0, 2) == 0) continue;
        // A block that is nowhere is left out.
        const bool nowhere = b != place.n_blocks - 1 && random.integer(0, 30) == 0;
        const int index = nowhere ? -1 : offloaded ? slots[n] : f.page(place.lane, b);
        selected[list * kCapacity + n] = {b, index, f.page(place.lane, b), f.tokens_in(place, b)};
        n += 1;
      }
      n_selected[list] = n;
    }
  }

  struct Seen {
    int block;
    int index;
  };
  std::vector<Seen> seen(int row, int h) const {
    const auto place = f.place(row);
    std::vector<Seen> all;
    if (p.selected != nullptr) {
      const size_t list = size_t(row) * s.n_kv_heads + h;
      for (int i = 0; i < n_selected[list]; ++i) {
        const auto& of = selected[list * kCapacity + i];
        if (of.index >= 0) all.push_back({of.block, of.index});
      }
      return all;
    }
    for (int b = 0; b < place.n_blocks; ++b) {
      if (f.info[size_t(place.lane) * s.n_blocks_max + b].masked == 0)
        all.push_back({b, f.page(place.lane, b)});
    }
    return all;
  }

  /// What lies behind the last token of an attended block must not count, whatever it is.
  void spoil_missing_tokens() {
    if (offloaded) return;
    for (int lane = 0; lane < s.n_lanes; ++lane) {
      for (int b = 0; b < f.n_attended[lane]; ++b) {
        for (int h = 0; h < s.n_kv_heads; ++h) {
          const size_t at = extent(lane, h, f.page(lane, b));
          for (int j = f.info[size_t(lane) * s.n_blocks_max + b].n_tokens; j < kBlockTokens; ++j) {
            for (int d = 0; d < s.head_dim; ++d) {
              values[at + size_t(j) * s.head_dim + d] = __ushort_as_half(0x7e00);
              values[at + size_t(kBlockTokens + j) * s.head_dim + d] = __ushort_as_half(0x7e00);
            }
          }
        }
      }
    }
  }

  CacheFixture f;
  CacheShape s;
  bool offloaded;
  std::vector<__half> values;
  Device<__half> pool;
  std::vector<float> q;
  Device<float> d_q;
  std::vector<float> bias;
  Device<float> d_bias;
  std::vector<cuda::SelectedBlock> selected;
  std::vector<int32_t> n_selected;
  Device<float> out;
  Device<__half> rounded;
  Device<std::byte> parts;
  std::unique_ptr<Device<cuda::SelectedBlock>> d_selected;
  std::unique_ptr<Device<int32_t>> d_n_selected;
  cuda::AttendBlocksParams p = {};
  cuda::MergePartsParams m = {};
};

/// The mass of every listed block, against the weights of the reference, [n_rows, n_kv_heads, kCapacity].
void check_masses(Attention& a, const std::vector<double>& want) {
  const CacheShape& s = a.s;
  const size_t n_lists = size_t(s.n_rows()) * s.n_kv_heads;
  Device<float> mass(n_lists * kCapacity);
  Device<int32_t> blocks(n_lists * kCapacity), n_blocks(n_lists);
  const cuda::BlockMassParams p = {a.p, mass.data(), blocks.data(), n_blocks.data()};
  MUST(cuda::block_mass(p, nullptr));
  const auto got = mass.get();
  const auto got_blocks = blocks.get();
  const auto got_n = n_blocks.get();
  double worst = 0.0;
  for (size_t list = 0; list < n_lists; ++list) {
    if (a.f.place(int(list) / s.n_kv_heads).lane < 0) continue;
    EXPECT(got_n[list] == a.n_selected[list], "the length of a list");
    double total = 0.0;
    for (int i = 0; i < a.n_selected[list]; ++i) {
      const size_t at = list * kCapacity + size_t(i);
      EXPECT(got_blocks[at] == a.selected[at].block, "a block of a list");
      worst = std::max(worst, std::fabs(double(got[at]) - want[at]));
      total += got[at];
    }
    EXPECT(std::fabs(total - 1.0) < 1e-3, "masses add up to " + std::to_string(total));
  }
  EXPECT(worst < 1e-3, "masses off by " + std::to_string(worst));
  std::printf("block_mass: worst error %.1e\n", worst);
}

void check_case(const Case& c, Random& random) {
  Attention a(c, random);
  const CacheShape& s = a.s;
  std::vector<double> masses(size_t(s.n_rows()) * s.n_kv_heads * kCapacity, 0.0);
  a.launch(nullptr);
  const auto first = a.out.get();
  a.out.poison();
  a.launch(nullptr);
  const auto got = a.out.get();
  const auto rounded = a.rounded.get();
  EXPECT(std::memcmp(first.data(), got.data(), got.size() * sizeof(float)) == 0, "two runs differ");

  double worst = 0.0;
  for (int row = 0; row < s.n_rows(); ++row) {
    const auto place = a.f.place(row);
    for (int head = 0; head < s.n_heads; ++head) {
      const size_t at = (size_t(row) * s.n_heads + head) * s.head_dim;
      for (int d = 0; d < s.head_dim; ++d) {
        // Of each 32 values, 4q .. 4q + 3 lie at 8 (q mod 4) + 4 (q / 4), see operand.h.
        const int q = d % 32 / 4;
        const __half want = rounded[at + d / 32 * 32 + 8 * (q % 4) + 4 * (q / 4) + d % 4];
        EXPECT(__half2float(want) == __half2float(__float2half_rn(got[at + d])),
               "the operand is not the rounded output");
      }
      if (place.lane < 0) {
        EXPECT(got[at] == 0.0f && got[at + s.head_dim - 1] == 0.0f, "an idle row is not zero");
        continue;
      }
      const int h = head / s.group();
      reference::VisibleKeys keys;
      for (const auto& block : a.seen(row, h)) {
        const size_t extent = a.extent(place.lane, h, block.index);
        for (int j = 0; j < a.f.tokens_in(place, block.block); ++j) {
          for (int d = 0; d < s.head_dim; ++d) {
            keys.k.push_back(__half2float(a.values[extent + size_t(j) * s.head_dim + d]));
            keys.v.push_back(
                __half2float(a.values[extent + size_t(kBlockTokens + j) * s.head_dim + d]));
          }
          const size_t page = size_t(h) * a.f.n_pages + a.f.page(place.lane, block.block);
          keys.bias.push_back(c.biased ? a.bias[page * kBlockTokens + j] : 0.0f);
        }
      }
      const std::vector<float> query(a.q.begin() + at, a.q.begin() + at + s.head_dim);
      const auto want = reference::attention(query, keys, a.p.scale);
      const std::vector<float> of(got.begin() + at, got.begin() + at + s.head_dim);
      worst = std::max(worst, relative_norm(of, want.out));
      if (!c.listed) continue;
      const size_t list = size_t(row) * s.n_kv_heads + h;
      size_t token = 0;
      for (int i = 0; i < a.n_selected[list]; ++i) {
        const auto& entry = a.selected[list * kCapacity + i];
        if (entry.index < 0) continue;
        for (int j = 0; j < a.f.tokens_in(place, entry.block); ++j) {
          masses[list * kCapacity + i] += want.weights[token++] / s.group();
        }
      }
    }
  }
  if (c.listed && s.n_queries == 1) check_masses(a, masses);
  // Weights are rounded to halves, 2^-12 each; a key left out or counted twice shows at 1e-2.
  EXPECT(worst < 6e-4, "attention off by " + std::to_string(worst));
  std::printf("attend_blocks %d/%d x %d, %d rows, %s, %s: worst relative error %.1e\n", s.n_heads,
              s.n_kv_heads, s.head_dim, s.n_rows(), c.listed ? "listed" : "all",
              a.offloaded ? "slots" : "pages", worst);
}

void time_case(int n_heads, int n_kv_heads, int head_dim, int n_seqs, int n_selected,
               Random& random) {
  Case c{{}, true, true};
  CacheShape& s = c.shape;
  s.n_heads = n_heads, s.n_kv_heads = n_kv_heads, s.head_dim = head_dim;
  s.n_lanes = s.n_seqs = n_seqs, s.n_blocks_max = s.blocks_least = n_selected * 2, s.n_slots = 128,
  s.idle = false;
  Attention a(c, random);
  for (auto& of : a.f.info) of = {64, 4, 0, 0};
  for (int& n : a.n_selected) n = n_selected;
  for (size_t i = 0; i < a.selected.size(); ++i) {
    const int block = int(i % kCapacity);
    a.selected[i] = {block, int(i * 37 % 128), a.f.page(int(i / kCapacity) / n_kv_heads, block),
                     64};  // every slot once
  }
  for (int lane = 0; lane < n_seqs; ++lane)
    a.f.n_attended[lane] = n_selected * 2 - 1, a.f.n_tokens[lane] = 64;
  a.f.upload();
  a.d_selected->put(a.selected), a.d_n_selected->put(a.n_selected);
  a.p.rows = a.m.rows = a.f.rows(), a.p.blocks = a.f.blocks();
  a.m.out_f32 = nullptr;
  const size_t layer = a.pool.bytes();
  const int n_layers = int(std::max<size_t>(1, (size_t(512) << 20) / layer));
  Device<std::byte> layers(layer * n_layers);
  for (int i = 0; i < n_layers; ++i) {
    MUST(cudaMemcpy(layers.data() + i * layer, a.pool.data(), layer, cudaMemcpyDeviceToDevice));
  }
  const double us = median_us([&](int i, cudaStream_t stream) {
    auto p = a.p;
    p.pool.base = layers.data() + (i % n_layers) * layer;
    MUST(cuda::attend_blocks(p, stream));
    MUST(cuda::merge_parts(a.m, stream));
  });
  const double bytes = double(n_seqs) * n_kv_heads * n_selected * a.s.extent_bytes();
  std::printf("time attend_blocks + merge_parts %d/%d x %d, %d x %d blocks: %.2f us, %.0f GB/s\n",
              n_heads, n_kv_heads, head_dim, n_seqs, n_selected, us, bytes / us / 1000);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  Random random;
  if (options.time) {
    for (const int n_seqs : {1, 4, 16, 64}) {
      time_case(14, 2, 64, n_seqs, 64, random);
      time_case(32, 2, 128, n_seqs, 64, random);
    }
    return report("attend_blocks_test");
  }
  const auto shape = [](int n_heads, int n_kv_heads, int head_dim, int n_queries, int n_blocks,
                        int n_slots) {
    CacheShape s;
    s.n_heads = n_heads, s.n_kv_heads = n_kv_heads, s.head_dim = head_dim;
    s.n_queries = n_queries, s.n_blocks_max = n_blocks, s.n_slots = n_slots;
    return s;
  };
  const int scale = options.small ? 1 : 4;
  check_case({shape(14, 2, 64, 1, 24 * scale, 100), true, true}, random);
  check_case({shape(12, 2, 128, 3, 12 * scale, 70), true, false}, random);
  check_case({shape(32, 2, 128, 1, 20 * scale, 0), true, true}, random);
  check_case({shape(9, 3, 64, 8, 9, 0), false, true}, random);
  check_case({shape(8, 8, 128, 1, 2, 3), true, false}, random);
  check_case({shape(40, 2, 64, 1, 6 * scale, 0), false, false}, random);
  check_case({shape(3, 3, 64, 1, 1, 0), false, true}, random);
  if (!options.small) {
    CacheShape many = shape(14, 2, 64, 1, 40, 0);
    many.n_lanes = many.n_seqs = 64;
    check_case({many, true, true}, random);
    many = shape(14, 2, 64, 8, 30, 0);
    many.n_lanes = many.n_seqs = 40;
    check_case({many, false, false}, random);
  }
  cuda::AttendBlocksParams none = {};
  none.n_heads = none.n_kv_heads = 1, none.head_dim = 64, none.rows.n_queries = 1;
  EXPECT(cuda::attend_blocks(none, nullptr) == cudaSuccess, "no rows are fine");
  none.n_heads = 3, none.n_kv_heads = 2;
  EXPECT(cuda::attend_blocks(none, nullptr) == cudaErrorInvalidValue,
         "heads that do not group are refused");
  return report("attend_blocks_test");
}
