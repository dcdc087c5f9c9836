// The products of CudaBackend against those of the processor's cores: every type of weight, one token alone and many
// together (to the bit), whole weights and some of their rows; and what is said where there is no GPU.
//
//   cuda_backend LIBRARY       the path of libnosa_cuda.so; exit code 1 when something differs
#include "backends/cuda/cuda_backend.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "support/quantised_rows.h"
#include "support/random.h"

namespace nosa {
namespace {

int failures = 0;

void check(bool holds, const std::string& what) {
  if (holds) return;
  failures += 1;
  std::printf("failed: %s\n", what.c_str());
}

std::unique_ptr<cpu::CpuBackend> cores() {
  cpu::CpuBackend::Options options;
  options.n_threads = 4;
  options.exact = true;
  return *cpu::CpuBackend::create(options);
}

double relative_error(const std::vector<float>& got, const std::vector<float>& want) {
  double error = 0.0;
  double total = 0.0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (double(got[i]) - want[i]) * (double(got[i]) - want[i]);
    total += double(want[i]) * want[i];
  }
  return std::sqrt(error / total);
}

std::vector<float> product(Backend& backend, const WeightView& weight, const float* bias, const std::vector<float>& x, int n_tokens) {
  std::vector<float> out(size_t(weight.rows) * size_t(n_tokens), NAN);
  const MatmulTarget target{&weight, bias, out.data(), nullptr};
  backend.matmul({&target, 1}, x.data(), n_tokens);
  return out;
}

int run(const std::string& library_path) {
  test::Random random;
  constexpr int n_cols = 512;
  const DType dtypes[] = {DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0,
                          DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kF32};
  std::vector<std::vector<std::byte>> memory;
  std::vector<WeightView> weights;
  for (const DType dtype : dtypes) {
    const int n_rows = int(random.between(16, 700));
    memory.push_back(test::random_rows(dtype, n_rows, n_cols, random));
    weights.push_back({memory.back().data(), dtype, n_rows, n_cols});
  }
  std::unique_ptr<cpu::CpuBackend> cpu = cores();
  Result<std::unique_ptr<CudaBackend>> opened = CudaBackend::create(library_path, weights, cpu);
  if (!opened.ok()) {
    check(cpu != nullptr, "the cores are still there when the GPU cannot be used");
    check(!opened.status().message().empty(), "there is a reason");
    std::printf("%s\n%s\n", opened.status().message().c_str(), failures == 0 ? "SKIP cuda_backend" : "FAIL cuda_backend");
    return failures == 0 ? 0 : 1;
  }
  CudaBackend& gpu = **opened;
  std::printf("%s\n", std::string(gpu.name()).c_str());
  const std::unique_ptr<cpu::CpuBackend> reference = cores();
  for (const WeightView& weight : weights) {
    const std::vector<float> bias = random.normals(weight.rows);
    for (const int n_tokens : {1, 7, 64, 65, 128}) {
      const std::vector<float> x = random.normals(int64_t(n_tokens) * n_cols);
      const std::vector<float> got = product(gpu, weight, bias.data(), x, n_tokens);
      const double error = relative_error(got, product(*reference, weight, bias.data(), x, n_tokens));
      const std::string name = std::string(dtype_name(weight.dtype)) + ", " + std::to_string(n_tokens) + " tokens";
      if (n_tokens == 65) std::printf("%s: relative error %.2g\n", name.c_str(), error);
      check(error < 0.02, name + ": relative error " + std::to_string(error));
      // Each token alone has the same bits.
      const int t = int(random.between(0, n_tokens - 1));
      const std::vector<float> one(x.begin() + t * n_cols, x.begin() + (t + 1) * n_cols);
      const std::vector<float> alone = product(gpu, weight, bias.data(), one, 1);
      check(std::memcmp(alone.data(), got.data() + size_t(t) * size_t(weight.rows), alone.size() * sizeof(float)) == 0,
            name + ": a token alone differs");
      // And so have some of the rows.
      WeightView part = weight;
      const int64_t first = random.between(0, weight.rows - 1);
      part.data = weight.row(first);
      part.rows = random.between(1, weight.rows - first);
      const std::vector<float> rows = product(gpu, part, bias.data() + first, one, 1);
      check(std::memcmp(rows.data(), alone.data() + first, rows.size() * sizeof(float)) == 0, name + ": rows alone differ");
    }
  }
  check(gpu.name().find("failed") == std::string_view::npos, std::string(gpu.name()));
  std::printf(failures == 0 ? "PASS cuda_backend\n" : "FAIL cuda_backend\n");
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace nosa

int main(int argc, char** argv) {
  if (argc != 2) {
    std::printf("Say where libnosa_cuda.so is.\n");
    return 2;
  }
  return nosa::run(argv[1]);
}
