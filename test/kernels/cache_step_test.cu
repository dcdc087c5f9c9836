// link: kernels/append_kv.cu kernels/rope_angles.cu kernels/score_blocks.cu kernels/rank_blocks.cu
// link: kernels/select_blocks.cu kernels/gather_blocks.cu kernels/attend_blocks.cu
// link: kernels/merge_parts.cu
//
// What attention does in a decode step, over several layers in one graph: with all blocks on the
// device, and with blocks fetched out of host memory into slots. Both choose alike, so their
// outputs are the same to the last bit; any race between the kernels of the graph shows.
#include "append_kv.h"
#include "attend_blocks.h"
#include "cache_fixture.h"
#include "gather_blocks.h"
#include "rope_angles.h"
#include "score_blocks.h"
#include "select_blocks.h"

using namespace nosa;
using namespace nosa::test;

namespace {

/// Reproducible numbers of mean 0 and variance 1 or so, for memory too large to fill from the host.
__global__ void fill_kernel(__half* out, size_t n, uint32_t seed, float scale) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n;
       i += size_t(gridDim.x) * blockDim.x) {
    uint32_t x = uint32_t(i) * 2654435761u + seed;
    float sum = 0.0f;
    for (int round = 0; round < 4; ++round) {
      x ^= x >> 16, x *= 0x7feb352du, x ^= x >> 15, x *= 0x846ca68bu, x ^= x >> 16;
      sum += float(x >> 8) / float(1 << 24) - 0.5f;
    }
    out[i] = __float2half_rn(sum * 1.7f * scale);
  }
}

void fill(__half* out, size_t n, uint32_t seed, float scale) {
  fill_kernel<<<1024, 256>>>(out, n, seed, scale);
  MUST(cudaGetLastError());
}

constexpr int kTotal = 64;

/// The per-layer state of one way to keep the cache.
class Path {
 public:
  Path(CacheFixture& f, int n_layers, int n_slots, bool fetches, __half* pages, __half* mapped,
       __half* compressed, float* windows)
      : f_(f),
        s_(f.shape),
        n_layers_(n_layers),
        n_slots_(n_slots),
        fetches_(fetches),
        pages_(pages),
        mapped_(mapped),
        compressed_(compressed),
        windows_(windows),
        slots_(std::max<size_t>(
            1, size_t(n_layers) * n_streams() * n_slots * s_.extent_bytes() / sizeof(__half))),
        slot_of_block_(std::vector<int16_t>(n_layers * n_streams() * s_.n_blocks_max, -1)),
        block_of_slot_(std::vector<int32_t>(n_layers * n_streams() * std::max(1, n_slots), -1)),
        last_step_(std::vector<uint32_t>(n_layers * n_streams() * std::max(1, n_slots), 0)),
        token_scores_(std::vector<float>(n_layers * tokens(), 0.25f)),
        order_(n_layers * n_streams() * kTotal),
        order_scores_(order_.size()),
        n_entries_(n_layers * n_streams()),
        n_own_(n_layers * n_streams()),
        best_(lists() * s_.n_blocks_max),
        selected_(lists() * kTotal),
        n_selected_(lists()),
        load_pages_(loads() * std::max(1, n_slots)),
        load_slots_(load_pages_.size()),
        n_loads_(loads()),
        n_total_(std::vector<unsigned long long>(s_.n_lanes, 0)),
        failed_(std::vector<int32_t>(1, 0)),
        qkv_(n_layers * s_.n_rows() * stride()),
        out(n_layers * size_t(s_.n_rows()) * s_.n_heads * s_.head_dim),
        score_scratch_(cuda::score_blocks_scratch_bytes(s_.n_rows(), s_.n_heads, s_.n_kv_heads,
                                                        s_.n_blocks_max)),
        parts_(cuda::attention_parts_bytes(s_.n_rows(), s_.n_heads, s_.head_dim)) {
    MUST(cudaMemset(score_scratch_.data(), 0, score_scratch_.bytes()));
    for (int layer = 0; layer < n_layers; ++layer) {
      for (int lane = 0; lane < s_.n_lanes; ++lane) rank(layer, lane);
    }
    MUST(cudaDeviceSynchronize());
  }

  size_t stride() const { return size_t(s_.n_heads + 2 * s_.n_kv_heads) * s_.head_dim; }
  void put_qkv(const std::vector<float>& qkv) { qkv_.put(qkv); }
  size_t n_qkv() const { return qkv_.size(); }
  bool failed() { return failed_.get()[0] != 0; }
  unsigned long long n_loads_ever() {
    unsigned long long sum = 0;
    for (const auto n : n_total_.get()) sum += n;
    return sum;
  }

  enum Part { kAppend = 1, kScore = 2, kSelect = 4, kGather = 8, kAttend = 16, kAll = 31 };

  void launch(const float2* rotation, const uint32_t* step, cudaStream_t stream, int parts = kAll) {
    for (int layer = 0; layer < n_layers_; ++layer)
      launch_layer(layer, rotation, step, stream, parts);
  }

 private:
  size_t n_streams() const { return size_t(s_.n_lanes) * s_.n_kv_heads; }
  size_t lists() const { return size_t(s_.n_rows()) * s_.n_kv_heads; }
  size_t loads() const { return size_t(s_.n_seqs) * s_.n_kv_heads; }
  size_t tokens() const { return size_t(s_.n_kv_heads) * f_.n_pages * kBlockTokens; }

  cuda::KvPool page_pool(int layer, __half* base) const {
    const size_t head = size_t(f_.n_pages) * s_.extent_bytes();
    return {reinterpret_cast<std::byte*>(base) + layer * s_.n_kv_heads * head, 0, head,
            s_.extent_bytes()};
  }
  cuda::KvPool pool(int layer) {
    if (n_slots_ == 0) return page_pool(layer, pages_);
    const size_t head = size_t(n_slots_) * s_.extent_bytes();
    return {reinterpret_cast<std::byte*>(slots_.data()) + layer * n_streams() * head,
            head * s_.n_kv_heads, head, s_.extent_bytes()};
  }
  cuda::StreamSlots stream_slots(int layer) {
    return {slot_of_block_.data() + layer * n_streams() * s_.n_blocks_max,
            block_of_slot_.data() + layer * n_streams() * n_slots_,
            last_step_.data() + layer * n_streams() * n_slots_, n_slots_};
  }
  cuda::SideCarView side_car(int layer) {
    const size_t windows = size_t(s_.n_kv_heads) * f_.n_pages * cuda::kBlockWindows;
    return {compressed_ + layer * windows * s_.head_dim, token_scores_.data() + layer * tokens(),
            windows_ + layer * windows, f_.n_pages};
  }
  cuda::EvictionRanking ranking(int layer) {
    const size_t at = layer * n_streams();
    return {order_.data() + at * kTotal, order_scores_.data() + at * kTotal, n_entries_.data() + at,
            n_own_.data() + at, kTotal};
  }

  void rank(int layer, int lane) {
    cuda::RankBlocksParams p = {};
    p.blocks = f_.blocks(), p.side_car = side_car(layer), p.ranking = ranking(layer), p.lane = lane;
    p.n_attended = f_.n_attended[lane], p.n_own_tokens = 0, p.window_blocks = 17,
    p.n_kv_heads = s_.n_kv_heads;
    MUST(cuda::rank_blocks(p, nullptr));
  }

  void launch_layer(int layer, const float2* rotation, const uint32_t* step, cudaStream_t stream,
                    int parts) {
    float* q = qkv_.data() + layer * s_.n_rows() * stride();
    const float scale = 1.0f / std::sqrt(float(s_.head_dim));
    if ((parts & kAppend) != 0) {
      cuda::AppendKvParams p = {};
      p.rows = f_.rows(), p.blocks = f_.blocks(), p.pool = pool(layer),
      p.slots = stream_slots(layer);
      p.side_car = side_car(layer);
      p.q = q, p.k = q + size_t(s_.n_heads) * s_.head_dim,
      p.v = p.k + size_t(s_.n_kv_heads) * s_.head_dim;
      p.q_stride = p.k_stride = p.v_stride = stride();
      p.rotation = rotation, p.step = step;
      p.n_heads = s_.n_heads, p.n_kv_heads = s_.n_kv_heads, p.head_dim = p.n_rotated = s_.head_dim;
      MUST(cuda::append_kv(p, stream));
    }
    if ((parts & kScore) != 0) {
      cuda::ScoreBlocksParams p = {};
      p.rows = f_.rows(), p.blocks = f_.blocks(), p.side_car = side_car(layer);
      p.q = q, p.q_stride = stride(), p.best = best_.data(), p.scratch = score_scratch_.data(),
      p.scale = scale;
      p.n_heads = s_.n_heads, p.n_kv_heads = s_.n_kv_heads, p.head_dim = s_.head_dim,
      p.total_blocks = kTotal;
      MUST(cuda::score_blocks(p, stream));
    }
    if ((parts & kSelect) != 0) {
      cuda::SelectBlocksParams p = {};
      p.rows = f_.rows(), p.blocks = f_.blocks(), p.slots = stream_slots(layer),
      p.side_car = side_car(layer);
      p.ranking = ranking(layer), p.best = best_.data(), p.step = step;
      p.selected = selected_.data(), p.n_selected = n_selected_.data();
      p.load_pages = load_pages_.data(), p.load_slots = load_slots_.data(),
      p.n_loads = n_loads_.data();
      p.n_loads_total = n_total_.data(), p.failed = failed_.data();
      p.n_kv_heads = s_.n_kv_heads, p.n_selected_max = p.total_blocks = kTotal;
      p.query_picks = 15, p.sink_blocks = 1, p.window_blocks = 17, p.by_eviction = true;
      MUST(cuda::select_blocks(p, stream));
    }
    if ((parts & kGather) != 0 && n_slots_ > 0 && !fetches_) {
      cuda::GatherBlocksParams p = {};
      p.lanes = f_.d_lanes->data(), p.load_pages = load_pages_.data(),
      p.load_slots = load_slots_.data();
      p.n_loads = n_loads_.data(), p.pages = page_pool(layer, mapped_), p.slots = pool(layer);
      p.extent_bytes = s_.extent_bytes(), p.n_seqs = s_.n_seqs, p.n_kv_heads = s_.n_kv_heads,
      p.n_loads_max = n_slots_;
      MUST(cuda::gather_blocks(p, stream));
    }
    if ((parts & kAttend) != 0) {
      cuda::AttendBlocksParams p = {};
      p.rows = f_.rows(), p.blocks = f_.blocks(), p.pool = pool(layer), p.q = q,
      p.q_stride = stride();
      p.selected = selected_.data(), p.n_selected = n_selected_.data();
      if (fetches_) p.pages = page_pool(layer, mapped_);
      p.token_bias = side_car(layer).token_scores;
      p.parts = parts_.data(), p.scale = scale;
      p.n_heads = s_.n_heads, p.n_kv_heads = s_.n_kv_heads, p.head_dim = s_.head_dim;
      p.n_selected_max = kTotal, p.n_pages = f_.n_pages;
      MUST(cuda::attend_blocks(p, stream));
      cuda::MergePartsParams m = {};
      m.rows = f_.rows(), m.parts = parts_.data();
      m.out_stride = size_t(s_.n_heads) * s_.head_dim,
      m.out_f32 = out.data() + layer * s_.n_rows() * m.out_stride;
      m.n_heads = s_.n_heads, m.n_kv_heads = s_.n_kv_heads, m.head_dim = s_.head_dim;
      MUST(cuda::merge_parts(m, stream));
    }
  }

  CacheFixture& f_;
  CacheShape s_;
  int n_layers_;
  int n_slots_;
  bool fetches_;  // attention fetches what is missing, not gather_blocks
  __half* pages_;
  __half* mapped_;
  __half* compressed_;
  float* windows_;
  Device<__half> slots_;
  Device<int16_t> slot_of_block_;
  Device<int32_t> block_of_slot_;
  Device<uint32_t> last_step_;
  Device<float> token_scores_;
  Device<int32_t> order_;
  Device<float> order_scores_;
  Device<int32_t> n_entries_, n_own_;
  Device<float2> best_;
  Device<cuda::SelectedBlock> selected_;
  Device<int32_t> n_selected_, load_pages_, load_slots_, n_loads_;
  Device<unsigned long long> n_total_;
  Device<int32_t> failed_;
  Device<float> qkv_;

 public:
  Device<float> out;

 private:
  Device<std::byte> score_scratch_, parts_;
};

struct Case {
  CacheShape shape;
  int n_layers;
  int n_slots;
  bool fetches;
  int n_steps;
};

class StepTest {
 public:
  StepTest(const Case& c, Random& random)
      : c_(c),
        random_(random),
        f_(fixture(c, random)),
        s_(f_.shape),
        n_(extent_halves()),
        pages_(n_),
        mapped_(n_),
        resident_compressed_(n_compressed()),
        offloaded_compressed_(n_compressed()),
        resident_windows_(random.normals(n_compressed() / s_.head_dim)),
        offloaded_windows_(resident_windows_.get()),
        base_(std::vector<int32_t>(s_.n_lanes, 1000)),
        inv_freq_(
            std::vector<float>(s_.head_dim / 2, 0.0f)),  // queries stay as they are in replays
        rotation_(size_t(s_.n_rows()) * s_.head_dim / 2),
        step_(std::vector<uint32_t>(1, 0)) {
    fill(pages_.data(), n_, 17, 1.0f);
    fill(resident_compressed_.data(), n_compressed(), 3, 0.6f);
    MUST(cudaMemcpy(mapped_.host(), pages_.data(), pages_.bytes(), cudaMemcpyDeviceToHost));
    MUST(cudaMemcpy(offloaded_compressed_.data(), resident_compressed_.data(),
                    resident_compressed_.bytes(), cudaMemcpyDeviceToDevice));
    f_.upload();
    resident_ = std::make_unique<Path>(f_, c.n_layers, 0, false, pages_.data(), nullptr,
                                       resident_compressed_.data(), resident_windows_.data());
    offloaded_ =
        std::make_unique<Path>(f_, c.n_layers, c.n_slots, c.fetches, nullptr, mapped_.data(),
                               offloaded_compressed_.data(), offloaded_windows_.data());
    qkv_ = random.normals(resident_->n_qkv());
    MUST(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    resident_graph_ = capture(*resident_);
    offloaded_graph_ = capture(*offloaded_);
  }
  ~StepTest() {
    cudaGraphExecDestroy(resident_graph_);
    cudaGraphExecDestroy(offloaded_graph_);
    cudaStreamDestroy(stream_);
  }

  void run() {
    for (int i = 1; i <= c_.n_steps; ++i) {
      step(i, random_, 0.6f);
      const auto want = resident_->out.get();
      const auto got = offloaded_->out.get();
      const bool same = std::memcmp(got.data(), want.data(), got.size() * sizeof(float)) == 0;
      const bool numbers =
          std::all_of(want.begin(), want.end(), [](float x) { return std::isfinite(x); });
      EXPECT(same, "offloaded and resident differ at step " + std::to_string(i));
      EXPECT(numbers, "an output is no number at step " + std::to_string(i));
    }
    EXPECT(!offloaded_->failed() && !resident_->failed(), "a selection did not fit");
    std::printf(
        "cache_step %d/%d x %d, %d rows, %d layers, %d slots, fetched by %s: %d steps alike, %.2f "
        "loads a stream and step\n",
        s_.n_heads, s_.n_kv_heads, s_.head_dim, s_.n_rows(), c_.n_layers, c_.n_slots,
        c_.fetches ? "attention" : "gather", c_.n_steps, loads_per_stream());
  }

  /// Microseconds a layer: each kernel as what the chain costs more with it, then the whole.
  void time() {
    for (int i = 1; i <= 8; ++i) step(i, random_, 0.0f);
    const auto us = [&](Path& path, int parts) {
      return median_us(
                 [&](int, cudaStream_t stream) {
                   path.launch(rotation_.data(), step_.data(), stream, parts);
                 },
                 1, 9) /
             c_.n_layers;
    };
    const auto line = [&](const char* name, Path& path) {
      std::printf("time cache_step %d/%d x %d, %d x %d blocks, %s, us a layer:", s_.n_heads,
                  s_.n_kv_heads, s_.head_dim, s_.n_seqs, s_.n_blocks_max, name);
      std::printf(" append %.2f", us(path, Path::kAppend));
      std::printf(" score %.2f", us(path, Path::kScore));
      std::printf(" select %.2f", us(path, Path::kSelect));
      std::printf(" gather %.2f", us(path, Path::kGather));
      std::printf(" attend %.2f", us(path, Path::kAttend));
      std::printf(" all %.2f\n", us(path, Path::kAll));
    };
    line("resident", *resident_);
    line("offloaded, all hits", *offloaded_);
    // With misses: steps one after the other, each with queries of its own.
    const unsigned long long before = offloaded_->n_loads_ever();
    double resident_us = 0.0, offloaded_us = 0.0;
    constexpr int kSteps = 24;
    for (int i = 0; i < kSteps; ++i) {
      const auto [a, b] = step(10 + i, random_, 0.06f);
      resident_us += a / kSteps, offloaded_us += b / kSteps;
    }
    const double loads = double(offloaded_->n_loads_ever() - before) / kSteps / c_.n_layers /
                         (s_.n_seqs * s_.n_kv_heads);
    std::printf(
        "time cache_step %d/%d x %d, %d x %d blocks, %d slots, fetched by %s, %.2f loads a stream "
        "and step: %.2f us a layer, resident %.2f\n",
        s_.n_heads, s_.n_kv_heads, s_.head_dim, s_.n_seqs, s_.n_blocks_max, c_.n_slots,
        c_.fetches ? "attention" : "gather", loads, offloaded_us / c_.n_layers,
        resident_us / c_.n_layers);
  }

 private:
  /// Lanes that attend much and have a few own tokens, which stay within the window.
  static CacheFixture fixture(const Case& c, Random& random) {
    CacheFixture f(c.shape, random);
    const CacheShape& s = c.shape;
    for (int lane = 0; lane < s.n_lanes; ++lane) {
      const int n = s.n_blocks_max - 4 - random.integer(0, std::min(3, s.n_blocks_max - 5));
      f.n_attended[lane] = n;
      f.n_tokens[lane] = 0;
      for (int b = 0; b < s.n_blocks_max; ++b) {
        const bool last = b == n - 1 || random.integer(0, 40) == 0;
        f.info[size_t(lane) * s.n_blocks_max + b] = {uint8_t(last ? random.integer(1, 64) : 64),
                                                     uint8_t(last ? 0 : 3), 0, 0};
      }
    }
    f.n_new.assign(s.n_seqs, s.n_queries);
    for (int seq = 0; seq < s.n_seqs; ++seq) f.lanes[seq] = s.n_seqs - 1 - seq;
    return f;
  }

  size_t extent_halves() const {
    return size_t(c_.n_layers) * s_.n_kv_heads * f_.n_pages * s_.extent_bytes() / sizeof(__half);
  }
  size_t n_compressed() const {
    return size_t(c_.n_layers) * s_.n_kv_heads * f_.n_pages * cuda::kBlockWindows * s_.head_dim;
  }
  double loads_per_stream() {
    return double(offloaded_->n_loads_ever()) / c_.n_steps / c_.n_layers /
           (s_.n_seqs * s_.n_kv_heads);
  }

  cudaGraphExec_t capture(Path& path) {
    MUST(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    cuda::RopeAnglesParams r = {};
    r.rows = f_.rows(), r.n_attended = f_.d_attended->data(), r.base_position = base_.data(),
    r.inv_freq = inv_freq_.data(), r.rotation = rotation_.data();
    r.n_rotated = s_.head_dim, r.magnitude = 1.0f;
    MUST(cuda::rope_angles(r, stream_));
    // In a step other kernels lie between the two, as append_kv's early reads want.
    MUST(cudaMemsetAsync(between_.data(), 0, between_.bytes(), stream_));
    path.launch(rotation_.data(), step_.data(), stream_);
    cudaGraph_t graph;
    MUST(cudaStreamEndCapture(stream_, &graph));
    cudaGraphExec_t exec;
    MUST(cudaGraphInstantiate(&exec, graph, 0));
    MUST(cudaGraphDestroy(graph));
    return exec;
  }

  /// One step of both paths with queries that differ by `change` from the last ones; their times in
  /// us.
  std::pair<double, double> step(int i, Random& random, float change) {
    const float kept = std::sqrt(1.0f - change * change);
    for (size_t at = i % 3; at < qkv_.size(); at += 3)
      qkv_[at] = kept * qkv_[at] + change * random.normal();
    for (int lane = 0; lane < s_.n_lanes; ++lane) f_.n_tokens[lane] += s_.n_queries;
    f_.d_tokens->put(f_.n_tokens);
    step_.put({uint32_t(i)});
    resident_->put_qkv(qkv_);
    offloaded_->put_qkv(qkv_);
    MUST(cudaDeviceSynchronize());
    return {launch(resident_graph_), launch(offloaded_graph_)};
  }

  double launch(cudaGraphExec_t graph) {
    cudaEvent_t from, to;
    MUST(cudaEventCreate(&from));
    MUST(cudaEventCreate(&to));
    MUST(cudaEventRecord(from, stream_));
    MUST(cudaGraphLaunch(graph, stream_));
    MUST(cudaEventRecord(to, stream_));
    MUST(cudaEventSynchronize(to));
    float ms = 0.0f;
    MUST(cudaEventElapsedTime(&ms, from, to));
    MUST(cudaEventDestroy(from));
    MUST(cudaEventDestroy(to));
    return 1000.0 * ms;
  }

  Case c_;
  Random& random_;
  CacheFixture f_;
  CacheShape s_;
  size_t n_;
  Device<__half> pages_;
  Mapped<__half> mapped_;
  Device<__half> resident_compressed_, offloaded_compressed_;
  Device<float> resident_windows_, offloaded_windows_;
  Device<int32_t> base_;
  Device<float> inv_freq_;
  Device<float2> rotation_;
  Device<int32_t> between_{1};
  Device<uint32_t> step_;
  std::unique_ptr<Path> resident_, offloaded_;
  std::vector<float> qkv_;
  cudaStream_t stream_ = nullptr;
  cudaGraphExec_t resident_graph_ = nullptr, offloaded_graph_ = nullptr;
};

CacheShape shape(int n_heads, int n_kv_heads, int head_dim, int n_seqs, int n_queries,
                 int n_blocks) {
  CacheShape s;
  s.n_heads = n_heads, s.n_kv_heads = n_kv_heads, s.head_dim = head_dim,
  s.n_lanes = s.n_seqs = n_seqs;
  s.n_queries = n_queries, s.n_blocks_max = n_blocks, s.idle = false;
  return s;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  Random random;
  if (options.time) {
    for (const bool fetches : {false, true}) {
      StepTest({shape(14, 2, 64, 1, 1, 2048), 24, 128, fetches, 0}, random).time();
      StepTest({shape(32, 2, 128, 1, 1, 2048), 12, 128, fetches, 0}, random).time();
      StepTest({shape(32, 2, 128, 16, 1, 256), 8, 128, fetches, 0}, random).time();
    }
    return report("cache_step_test");
  }
  if (options.small) {
    StepTest({shape(14, 2, 64, 2, 1, 90), 2, 80, true, 3}, random).run();
    StepTest({shape(12, 2, 128, 1, 2, 80), 2, 100, false, 2}, random).run();
    return report("cache_step_test");
  }
  StepTest({shape(14, 2, 64, 1, 1, 300), 6, 72, true, 200}, random).run();
  StepTest({shape(14, 2, 64, 1, 1, 300), 6, 72, false, 100}, random).run();
  StepTest({shape(12, 2, 128, 3, 2, 150), 4, 110, false, 60}, random).run();
  StepTest({shape(9, 3, 64, 2, 8, 200), 3, 200, false, 25}, random).run();
  StepTest({shape(40, 2, 128, 2, 1, 150), 3, 70, true, 40}, random).run();
  StepTest({shape(32, 2, 128, 64, 1, 100), 2, 80, true, 40}, random).run();
  StepTest({shape(14, 2, 64, 1, 1, 40), 3, 64, true, 40}, random).run();
  return report("cache_step_test");
}
