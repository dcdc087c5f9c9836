// Random weights and random blocks, for shapes whose weights are not to be had.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <thread>

#include "bench.h"
#include "force_scores.h"

namespace nosa::bench {
namespace {

constexpr size_t pattern_bytes = size_t(64) << 20;

/// Random bf16 numbers of some 0.02, so that nothing overflows in 32 layers.
void fill_bf16(std::vector<std::byte>& memory, size_t bytes) {
  memory.resize(bytes);
  auto* values = reinterpret_cast<uint16_t*>(memory.data());
  std::mt19937_64 random{std::random_device{}()};
  const size_t n = std::min(bytes, pattern_bytes) / 2;
  for (size_t i = 0; i < n; i += 4) {
    uint64_t bits = random();
    for (size_t j = i; j < std::min(i + 4, n); ++j, bits >>= 16) {
      // Sign and mantissa at random, exponent 2^-7 or 2^-6.
      values[j] = uint16_t((bits & 0x807f) | ((0x78 + (bits >> 7 & 1)) << 7));
    }
  }
  for (size_t at = n * 2; at < bytes; at += n * 2) std::memcpy(memory.data() + at, memory.data(), std::min(n * 2, bytes - at));
}

}  // namespace

std::unique_ptr<cuda::ModelSource> random_8b(int n_layers, std::vector<std::byte>& memory) {
  auto source = std::make_unique<cuda::ModelSource>();
  cuda::ModelShape& shape = source->shape;
  shape.n_layers = n_layers;
  shape.n_embd = 4096;
  shape.n_ff = 16384;
  shape.n_heads = 32;
  shape.n_kv_heads = 2;
  shape.head_dim = 128;
  shape.n_vocab = 73448;
  shape.rms_eps = 1e-6f;
  shape.n_rotated = 128;
  fill_bf16(memory, (size_t(shape.n_vocab) * size_t(shape.n_embd) + 4096) * 2);
  static std::vector<float> ones(16384, 1.0f), inv_freq(64), heads(4096, 0.01f);
  for (int i = 0; i < 64; ++i) inv_freq[size_t(i)] = float(std::pow(10000.0, -i / 64.0));
  source->inv_freq = inv_freq.data();
  const auto view = [&](int rows, int cols, size_t offset = 0) {
    return WeightView{memory.data() + offset, DType::kBF16, rows, cols};
  };
  source->embedding = view(shape.n_vocab, shape.n_embd);
  source->output = view(shape.n_vocab, shape.n_embd, 4096);
  source->output_norm = ones.data();
  cuda::LayerSource layer;
  layer.attn_norm = layer.ffn_norm = ones.data();
  layer.q.weight = view(shape.q_width(), shape.n_embd);
  layer.k.weight = layer.v.weight = view(shape.kv_width(), shape.n_embd);
  layer.out.weight = view(shape.n_embd, shape.q_width());
  layer.gate.weight = layer.up.weight = view(shape.n_ff, shape.n_embd);
  layer.down.weight = view(shape.n_embd, shape.n_ff);
  layer.eviction_a = layer.eviction_delta = layer.eviction_delta_bias = heads.data();
  source->layers.assign(size_t(n_layers), layer);
  return source;
}

void fill_random(std::byte* memory, size_t bytes) {
  // Halves between 1/16 and 1/4, of either sign.
  const size_t n = std::min(bytes, pattern_bytes);
  std::mt19937_64 random{std::random_device{}()};
  auto* values = reinterpret_cast<uint16_t*>(memory);
  for (size_t i = 0; i < n / 2; i += 4) {
    uint64_t bits = random();
    for (size_t j = i; j < std::min(i + 4, n / 2); ++j, bits >>= 16) {
      values[j] = uint16_t((bits & 0x83ff) | ((11 + (bits >> 10 & 1)) << 10));
    }
  }
  const size_t n_threads = std::max(1u, std::thread::hardware_concurrency());
  const size_t n_copies = bytes / n;
  std::vector<std::thread> threads;
  for (size_t t = 0; t < n_threads; ++t) {
    threads.emplace_back([=] {
      // A little apart from one another, so that no two blocks hold the same.
      for (size_t i = 1 + t; i < n_copies; i += n_threads) std::memcpy(memory + i * n, memory + (i * 64) % (n / 2), n / 2), std::memcpy(memory + i * n + n / 2, memory, n / 2);
    });
  }
  for (std::thread& thread : threads) thread.join();
  const size_t rest = bytes - n_copies * n;
  if (rest > 0) std::memcpy(memory + n_copies * n, memory, rest);
}

cuda::DeviceBuffer force_misses(cuda::Runner& runner, const cuda::RunnerOptions& options, int n_tokens, double fresh) {
  const cuda::ModelShape& shape = runner.shape();
  const SelectionBudget& budget = options.step.budget;
  const size_t layer_stride = size_t(options.n_seqs_max) * size_t(shape.n_kv_heads) * size_t(options.n_blocks_max);
  auto memory = must(cuda::DeviceBuffer::create(layer_stride * size_t(shape.n_layers) * sizeof(float2), "scores"), "forcing scores");
  ForcedPicks picks = {};
  picks.best = memory.as<float2>();
  picks.n_layers = shape.n_layers;
  picks.n_rows = options.n_seqs_max;
  picks.n_kv_heads = shape.n_kv_heads;
  picks.n_blocks_max = options.n_blocks_max;
  picks.n_free = n_tokens / kBlockTokens - budget.window_blocks - 1;
  picks.n_picks = options.step.policy == Policy::kNosa ? budget.query_picks()
                                                       : budget.total_blocks - budget.sink_blocks - budget.window_blocks;
  picks.fresh = float(fresh);
  must(set_forced_picks(picks, runner.stream()), "forcing scores");
  must(runner.synchronise(), "forcing scores");
  cuda::DecodeStep::ForcedScores& forced = runner.step().forced_scores;
  forced.best = picks.best;
  forced.layer_stride = layer_stride;
  // Strides are those of all rows, whatever rows a step has.
  forced.prepare = [picks](const uint32_t* step, int, cudaStream_t stream) {
    ForcedPicks now = picks;
    now.step = step;
    return move_forced_picks(now, stream);
  };
  return memory;
}

cuda::SequenceKey fabricate(cuda::Runner& runner, int n_tokens, uint32_t seed) {
  const cuda::SequenceKey key = must(runner.create_sequence(0, {}), "creating a sequence");
  std::vector<uint32_t> tokens(static_cast<size_t>(n_tokens));
  std::mt19937 random(seed);
  for (uint32_t& token : tokens) token = uint32_t(random() % uint32_t(runner.shape().n_vocab));
  must(runner.pretend_computed(key, tokens), "filling a sequence");
  return key;
}

double step_bytes(cuda::Runner& runner, const cuda::ModelSource& source, int n_seqs, int n_tokens, int n_attended_blocks) {
  const cuda::ModelShape& shape = runner.shape();
  // One row of the embedding is read, not the table; the output may be the same table.
  double weights = double(source.output.size_bytes());
  for (const cuda::LayerSource& layer : source.layers) {
    for (const cuda::LinearSource* linear : {&layer.q, &layer.k, &layer.v, &layer.out, &layer.gate, &layer.up, &layer.down}) {
      weights += double(linear->weight.size_bytes());
    }
  }
  const double windows = n_attended_blocks * kBlockTokens >= n_tokens ? 0.0 : double(n_tokens) / 16.0;
  const double streams = double(shape.n_streams());
  const double compressed = windows * shape.head_dim * 2.0 * streams;
  const double attended = double(n_attended_blocks) * double(runner.pool().extent_bytes()) * streams;
  return weights + double(n_seqs) * (compressed + attended);
}

}  // namespace nosa::bench
