// Times the operations of CpuBackend at the shapes of the models that Nosa runs by default.
//
//   bench_ops [all|matmul|low_rank|attention|small] [n_threads] [best|avx512|avx2|neon|generic] [exact]
//   [cached]
//
// Each line is the best of several runs, as other programs only ever make a run slower. Weights and
// keys are walked through in a memory much larger than the processor's caches, as a model does;
// with `cached` they are not, which shows what the memory costs.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "core/check.h"
#include "core/half.h"

namespace nosa {
namespace {

using cpu::CpuBackend;
using cpu::KernelChoice;

/// Bytes that a decode step walks through: more than any last-level cache of a laptop.
int64_t walked_bytes = int64_t{192} << 20;

/// With one thread its own processor time, which other programs hardly touch; else the clock's.
bool one_thread = false;

double seconds() {
#if defined(__linux__)
  if (one_thread) {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
  }
#endif
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

template <typename Fn>
double best_seconds(int n_runs, Fn&& fn) {
  double best = 1e9;
  for (int run = 0; run < n_runs; ++run) {
    const double start = seconds();
    fn();
    best = std::min(best, seconds() - start);
  }
  return best;
}

std::mt19937_64 random_bits(7);

std::vector<float> normals(int64_t n) {
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = normal(random_bits);
  return values;
}

/// Bytes whose halves are all small numbers: as scales of blocks they do no harm.
std::vector<std::byte> weight_bytes(int64_t n) {
  std::vector<std::byte> bytes(static_cast<size_t>(n));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random_bits() & 0x3f);
  return bytes;
}

struct MatmulShape {
  const char* name;
  DType dtype;
  int64_t rows;
  int64_t cols;
};

void bench_matmul(CpuBackend& backend) {
  constexpr MatmulShape shapes[] = {
      {"135M attn", DType::kQ8_0, 576, 576},     {"135M up", DType::kQ8_0, 1536, 576},
      {"135M down", DType::kQ8_0, 576, 1536},    {"135M vocab", DType::kQ8_0, 49152, 576},
      {"135M up", DType::kQ4_1, 1536, 576},      {"0.5B up", DType::kQ5_0, 4864, 896},
      {"0.5B down", DType::kQ6_K, 896, 4864},    {"0.5B down", DType::kQ4_K, 896, 4864},
      {"0.5B vocab", DType::kQ8_0, 151936, 896}, {"1.5B up", DType::kQ4_K, 8960, 1536},
      {"1.5B down", DType::kQ6_K, 1536, 8960},   {"1.5B down", DType::kQ4_K, 1536, 8960},
      {"1.5B up", DType::kQ5_K, 8960, 1536},     {"1.5B up", DType::kF16, 8960, 1536},
  };
  std::printf("%-11s %-5s %7s %5s  %22s  %22s  %22s\n", "matmul", "type", "rows", "cols", "1 token",
              "4 tokens", "256 tokens");
  for (const MatmulShape& shape : shapes) {
    const int64_t bytes = shape.rows * row_bytes(shape.dtype, shape.cols);
    const int64_t n_copies = std::max<int64_t>(1, walked_bytes / bytes);
    const auto data = weight_bytes(bytes * n_copies);
    const auto x = normals(256 * shape.cols);
    std::vector<float> out(static_cast<size_t>(256 * shape.rows));
    std::printf("%-11s %-5s %7lld %5lld", shape.name, dtype_name(shape.dtype),
                static_cast<long long>(shape.rows), static_cast<long long>(shape.cols));
    for (const int n_tokens : {1, 4, 256}) {
      if (n_tokens == 256 && shape.rows > 16384) continue;
      const int64_t n_calls = n_tokens == 256 ? 2 : std::min<int64_t>(n_copies, 64);
      const double time = best_seconds(5,
                                       [&] {
                                         for (int64_t call = 0; call < n_calls; ++call) {
                                           const WeightView weight = {
                                               data.data() + call * (n_copies / n_calls) * bytes,
                                               shape.dtype, shape.rows, shape.cols};
                                           const MatmulTarget target{&weight, nullptr, out.data()};
                                           backend.matmul({&target, 1}, x.data(), n_tokens);
                                         }
                                       }) /
                          static_cast<double>(n_calls);
      const double products = static_cast<double>(shape.rows * shape.cols) * n_tokens;
      std::printf(
          "  %7.1f us %5.1f %s", time * 1e6,
          n_tokens == 256 ? products / time * 1e-9 : static_cast<double>(bytes) / time * 1e-9,
          n_tokens == 256 ? "GMAC/s" : "GB/s  ");
    }
    std::printf("\n");
  }
}

/// What an adapter's updates cost beside the products that they are added to.
void bench_low_rank(CpuBackend& backend) {
  constexpr int rank = 8;
  constexpr MatmulShape shapes[] = {{"0.5B q", DType::kQ5_0, 896, 896},
                                    {"0.5B k", DType::kQ5_0, 128, 896},
                                    {"0.5B up", DType::kQ5_0, 4864, 896},
                                    {"0.5B down", DType::kQ6_K, 896, 4864},
                                    {"1.5B up", DType::kQ4_K, 8960, 1536}};
  std::printf("%-11s %-5s %21s %21s %21s\n", "rank 8", "type", "1 token", "4 tokens", "256 tokens");
  for (const MatmulShape& shape : shapes) {
    const int64_t bytes = shape.rows * row_bytes(shape.dtype, shape.cols);
    const int64_t factor_values = rank * (shape.rows + shape.cols);
    const int64_t n_copies = std::max<int64_t>(1, walked_bytes / (bytes + 2 * factor_values));
    const auto data = weight_bytes(bytes * n_copies);
    const auto factors = weight_bytes(2 * factor_values * n_copies);
    const auto x = normals(256 * shape.cols);
    std::vector<float> out(static_cast<size_t>(256 * shape.rows));
    std::printf("%-11s %-5s", shape.name, dtype_name(shape.dtype));
    for (const int n_tokens : {1, 4, 256}) {
      const int64_t n_calls = n_tokens == 256 ? 2 : std::min<int64_t>(n_copies, 64);
      double times[2];
      for (const bool with_update : {false, true}) {
        times[with_update] = best_seconds(5, [&] {
          for (int64_t call = 0; call < n_calls; ++call) {
            const int64_t copy = call * (n_copies / n_calls);
            const auto* a = reinterpret_cast<const uint16_t*>(factors.data()) + copy * factor_values;
            const WeightView weight = {data.data() + copy * bytes, shape.dtype, shape.rows, shape.cols};
            const LowRankUpdate update = {rank, 2.0f, a, a + rank * shape.cols};
            const MatmulTarget target{&weight, nullptr, out.data(), with_update ? &update : nullptr};
            backend.matmul({&target, 1}, x.data(), n_tokens);
          }
        }) / static_cast<double>(n_calls);
      }
      std::printf("  %8.1f to %8.1f us", times[0] * 1e6, times[1] * 1e6);
    }
    std::printf("\n");
  }
}

struct HeadShape {
  const char* name;
  int n_heads;
  int n_kv_heads;
  int head_dim;
};

void bench_attention(CpuBackend& backend) {
  constexpr HeadShape shapes[] = {{"135M", 9, 3, 64}, {"0.5B", 14, 2, 64}, {"1.5B", 12, 2, 128}};
  std::printf("%-9s %6s %8s %11s %10s\n", "attention", "tokens", "context", "us", "GMAC/s");
  for (const HeadShape& shape : shapes) {
    for (const int n_tokens : {1, 4, 256}) {
      for (const int n_context : {512, 4096, 16384}) {
        const int n_blocks = (n_context + n_tokens - 1) / kBlockTokens + 1;
        const int64_t extent_values = int64_t{2} * kBlockTokens * shape.head_dim;
        const int64_t layer_values = shape.n_kv_heads * n_blocks * extent_values;
        const int64_t n_layers =
            n_tokens > 4 ? 1 : std::max<int64_t>(1, walked_bytes / (layer_values * 2));
        std::vector<uint16_t> kv(static_cast<size_t>(layer_values * n_layers));
        for (uint16_t& value : kv) value = static_cast<uint16_t>(random_bits() & 0xbbff);
        const auto q = normals(int64_t{n_tokens} * shape.n_heads * shape.head_dim);
        std::vector<float> out(q.size());
        const double time =
            best_seconds(n_tokens > 4 ? 3 : 5,
                         [&] {
                           for (int64_t layer = 0; layer < n_layers; ++layer) {
                             std::vector<KvBlockRef> own;
                             for (int b = 0; b < shape.n_kv_heads * n_blocks; ++b) {
                               const auto* at =
                                   kv.data() + layer * layer_values + b * extent_values;
                               own.push_back(
                                   {reinterpret_cast<const std::byte*>(at), nullptr, kBlockTokens});
                             }
                             backend.attend({.q = q.data(),
                                             .out = out.data(),
                                             .n_tokens = n_tokens,
                                             .n_heads = shape.n_heads,
                                             .n_kv_heads = shape.n_kv_heads,
                                             .head_dim = shape.head_dim,
                                             .own_start = n_context - n_tokens,
                                             .scale = 0.125f,
                                             .kv_dtype = DType::kF16,
                                             .context = {},
                                             .own = own,
                                             .picked = {},
                                             .picked_begin = {},
                                             .picks = {}});
                           }
                         }) /
            static_cast<double>(n_layers);
        const double products =
            2.0 * shape.n_heads * shape.head_dim * n_tokens * (n_context - n_tokens / 2.0);
        std::printf("%-9s %6d %8d %11.1f %10.1f\n", shape.name, n_tokens, n_context, time * 1e6,
                    products / time * 1e-9);
      }
    }
  }
}

void bench_small(CpuBackend& backend) {
  constexpr int n_embd = 576;
  constexpr int n_ff = 1536;
  std::printf("%-10s %6s %10s\n", "small", "tokens", "us");
  for (const int n_tokens : {1, 256}) {
    auto x = normals(int64_t{n_tokens} * n_ff);
    const auto y = normals(int64_t{n_tokens} * n_ff);
    const auto inv_freq = normals(32);
    std::vector<float> out(x.size());
    const auto print = [&](const char* name, auto&& fn) {
      const double time = best_seconds(20, [&] {
        for (int i = 0; i < 50; ++i) fn();
      });
      std::printf("%-10s %6d %10.2f\n", name, n_tokens, time / 50 * 1e6);
    };
    print("rms_norm",
          [&] { backend.rms_norm(x.data(), y.data(), n_tokens, n_embd, 1e-5f, out.data()); });
    print("rope", [&] {
      backend.rope({.x = out.data(),
                    .n_tokens = n_tokens,
                    .n_heads = 9,
                    .head_dim = 64,
                    .first_position = 100,
                    .inv_freq = inv_freq.data(),
                    .n_rotated = 64,
                    .magnitude = 1.0f,
                    .pairing = RopePairing::kAdjacent});
    });
    print("silu_mul", [&] {
      std::copy(x.begin(), x.end(), out.begin());
      backend.silu_mul(out.data(), y.data(), int64_t{n_tokens} * n_ff);
    });
    print("add", [&] { backend.add(out.data(), y.data(), int64_t{n_tokens} * n_embd); });
  }
}

KernelChoice kernels_named(const std::string& name) {
  if (name == "avx512") return KernelChoice::kAvx512;
  if (name == "avx2") return KernelChoice::kAvx2;
  if (name == "neon") return KernelChoice::kNeon;
  if (name == "generic") return KernelChoice::kGeneric;
  return KernelChoice::kBest;
}

int run(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "all";
  const int n_threads = argc > 2 ? std::atoi(argv[2]) : 2;
  const KernelChoice kernels = kernels_named(argc > 3 ? argv[3] : "best");
  one_thread = n_threads == 1;
  bool exact = false;
  for (int i = 4; i < argc; ++i) {
    exact |= std::string(argv[i]) == "exact";
    if (std::string(argv[i]) == "cached") walked_bytes = 0;
  }
  auto backend = CpuBackend::create({.n_threads = n_threads, .kernels = kernels, .exact = exact});
  if (!backend.ok()) {
    std::fprintf(stderr, "%s\n", backend.status().message().c_str());
    return 1;
  }
  CpuBackend& cpu = *backend.value();
  std::printf("%.*s, %d threads\n", static_cast<int>(cpu.name().size()), cpu.name().data(),
              n_threads);
  if (what == "matmul" || what == "all") bench_matmul(cpu);
  if (what == "low_rank" || what == "all") bench_low_rank(cpu);
  if (what == "attention" || what == "all") bench_attention(cpu);
  if (what == "small" || what == "all") bench_small(cpu);
  return 0;
}

}  // namespace
}  // namespace nosa

int main(int argc, char** argv) { return nosa::run(argc, argv); }
