// link: kernels/matmul.cu kernels/pack_weights.cu kernels/to_operand.cu
// Products with many rows, against the operand as it was rounded; quantised weights are rounded to halves on the way.
#include "kernels/matmul.h"

#include "harness.h"
#include "kernels/reference/silu_mul.h"
#include "kernels/to_operand.h"
#include "weights.h"

using namespace nosa;
using namespace nosa::test;
using cuda::Operand;
using cuda::OperandType;

namespace {

bool is_16bit(DType dtype) { return dtype == DType::kF16 || dtype == DType::kBF16; }

/// Rounding a scale and a product to halves, or the matrix units' sums.
double bound(DType dtype) { return is_16bit(dtype) ? 2e-5 : 8e-4; }

struct Case {
  DType dtypes[3];
  int rows[3];
  int n_targets;
  int cols;
  int n_rows;
  bool accumulate;
};

void check_matmul(const Case& c, Random& random) {
  const OperandType type = cuda::matmul_operand(c.dtypes[0]);
  Device<float> x(random.normals(size_t(c.n_rows) * size_t(c.cols)));
  OperandMemory operand(type, c.n_rows, c.cols);
  MUST(cuda::to_operand({x.data(), operand.view()}, nullptr));
  const std::vector<double> rounded = operand.values();

  cuda::MatmulParams p = {.n_targets = c.n_targets, .x = operand.view(), .accumulate = c.accumulate};
  std::vector<std::unique_ptr<Packed>> weights;
  std::vector<std::unique_ptr<Device<float>>> outs, biases;
  std::vector<std::vector<double>> wants;
  for (int i = 0; i < c.n_targets; ++i) {
    const std::vector<std::byte> raw = random_weights(c.dtypes[i], c.rows[i], c.cols, random);
    weights.push_back(std::make_unique<Packed>(c.dtypes[i], raw, c.rows[i], c.cols));
    const bool has_bias = random.integer(0, 1) == 1;
    const std::vector<float> bias = random.normals(size_t(c.rows[i]));
    const std::vector<float> before = random.normals(size_t(c.n_rows) * size_t(c.rows[i]));
    biases.push_back(std::make_unique<Device<float>>(bias));
    outs.push_back(std::make_unique<Device<float>>(before.size()));
    if (c.accumulate) outs.back()->put(before);
    p.targets[i] = {weights.back()->view(), has_bias ? biases.back()->data() : nullptr, outs.back()->data()};
    std::vector<double> want =
        product(weight_values(c.dtypes[i], raw, c.rows[i], c.cols), c.rows[i], rounded, c.n_rows, c.cols);
    for (size_t at = 0; at < want.size(); ++at) {
      if (has_bias) want[at] += bias[at % size_t(c.rows[i])];
      if (c.accumulate) want[at] += before[at];
    }
    wants.push_back(std::move(want));
  }
  MUST(cuda::matmul(p, nullptr));
  for (int i = 0; i < c.n_targets; ++i) {
    const double error = relative_norm(outs[size_t(i)]->get(), wants[size_t(i)]);
    std::printf("matmul %-5s %4d x %4d, %4d rows  %.1e\n", dtype_name(c.dtypes[i]), c.rows[i], c.cols, c.n_rows, error);
    EXPECT(error < bound(c.dtypes[i]), std::string("matmul ") + dtype_name(c.dtypes[i]));
  }
}

void check_gated(DType dtype, int rows, int cols, int n_rows, OperandType out_type, Random& random) {
  Device<float> x(random.normals(size_t(n_rows) * size_t(cols), 2.0f));
  OperandMemory operand(cuda::matmul_operand(dtype), n_rows, cols);
  MUST(cuda::to_operand({x.data(), operand.view()}, nullptr));
  const std::vector<std::byte> raw_gate = random_weights(dtype, rows, cols, random);
  const std::vector<std::byte> raw_up = random_weights(dtype, rows, cols, random);
  Packed gate(dtype, raw_gate, rows, cols), up(dtype, raw_up, rows, cols);
  OperandMemory out(out_type, n_rows, rows);
  MUST(cuda::gated_matmul({gate.view(), up.view(), operand.view(), out.view()}, nullptr));

  const std::vector<double> rounded = operand.values();
  const std::vector<double> g = product(weight_values(dtype, raw_gate, rows, cols), rows, rounded, n_rows, cols);
  std::vector<double> want = product(weight_values(dtype, raw_up, rows, cols), rows, rounded, n_rows, cols);
  for (size_t i = 0; i < want.size(); ++i) want[i] = reference::silu_mul(g[i], want[i]);
  const double error = relative_norm(out.values(), want);
  std::printf("gated_matmul %-5s %4d x %4d, %4d rows  %.1e\n", dtype_name(dtype), rows, cols, n_rows, error);
  EXPECT(error < bound(dtype) + operand_bound(out_type), std::string("gated_matmul ") + dtype_name(dtype));
}

/// A row's result has the same bits in a short call as in a long one.
void check_rows_apart(DType dtype, Random& random) {
  constexpr int kRows = 1000, kOutputs = 8000, kCols = 512;
  Device<float> x(random.normals(size_t(kRows) * kCols));
  Packed weight(dtype, random_weights(dtype, kOutputs, kCols, random), kOutputs, kCols);
  const auto run = [&](int first, int n_rows) {
    OperandMemory operand(cuda::matmul_operand(dtype), n_rows, kCols);
    MUST(cuda::to_operand({x.data() + size_t(first) * kCols, operand.view()}, nullptr));
    Device<float> out(size_t(n_rows) * kOutputs);
    MUST(cuda::matmul({{{weight.view(), nullptr, out.data()}}, 1, operand.view(), false}, nullptr));
    return out.get();
  };
  const std::vector<float> together = run(0, kRows);
  for (const int n_rows : {1, 130, 500}) {
    const int first = random.integer(0, kRows - n_rows);
    const std::vector<float> got = run(first, n_rows);
    const bool same = std::memcmp(got.data(), together.data() + size_t(first) * kOutputs, got.size() * 4) == 0;
    EXPECT(same, std::string("a row's bits depend on its neighbours: ") + dtype_name(dtype));
  }
}

void time_all(Random& random) {
  constexpr double kPeak = 790.0;  // TFLOP/s, bf16 on an H200 through the vendor's library
  constexpr struct { int rows, cols; } kShapes[] = {{4096, 4096}, {4096, 14336}, {1536, 8960}, {896, 4864}};
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kQ8_0, DType::kQ5_0, DType::kQ4_K, DType::kQ6_K}) {
    for (const auto& shape : kShapes) {
      Rotation weights(dtype, shape.rows, shape.cols, random);
      std::printf("matmul %-5s %5d x %5d:", dtype_name(dtype), shape.rows, shape.cols);
      for (const int n_rows : {64, 256, 2048, 8192}) {
        Device<float> x(random.normals(size_t(n_rows) * size_t(shape.cols)));
        OperandMemory operand(cuda::matmul_operand(dtype), n_rows, shape.cols);
        MUST(cuda::to_operand({x.data(), operand.view()}, nullptr));
        Device<float> out(size_t(n_rows) * size_t(shape.rows));
        const double us = median_us(
            [&](int i, cudaStream_t s) {
              MUST(cuda::matmul({{{weights[i], nullptr, out.data()}}, 1, operand.view(), false}, s));
            },
            8, 8);
        const double tflops = 2e-6 * n_rows * double(shape.rows) * shape.cols / us;
        std::printf("  %d: %.1f us %.0f T %.0f%%", n_rows, us, tflops, 100.0 * tflops / kPeak);
      }
      std::printf("\n");
    }
  }
  for (const DType dtype : {DType::kBF16, DType::kQ4_K}) {
    constexpr int kRows = 14336, kCols = 4096, kTokens = 2048;
    Rotation weights(dtype, kRows, kCols, random);
    Device<float> x(random.normals(size_t(kTokens) * kCols));
    OperandMemory operand(cuda::matmul_operand(dtype), kTokens, kCols),
        out(cuda::matmul_operand(dtype), kTokens, kRows);
    MUST(cuda::to_operand({x.data(), operand.view()}, nullptr));
    const double us = median_us(
        [&](int i, cudaStream_t s) {
          MUST(cuda::gated_matmul({weights[i], weights[i + 1], operand.view(), out.view()}, s));
        },
        8, 8);
    std::printf("gated_matmul %-5s 2 x %d x %d, %d rows: %.1f us %.0f T\n", dtype_name(dtype), kRows, kCols, kTokens,
                us, 4e-6 * kTokens * double(kRows) * kCols / us);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  Random random;
  if (options.time) {
    time_all(random);
    return report("matmul");
  }
  for (const DType dtype : packed_dtypes) {
    for (const int n_rows : {1, 37, 70, 200}) {
      if (options.small && n_rows > 40) continue;
      check_matmul(
          {{dtype}, {random.integer(100, 300)}, 1, 256 * random.integer(1, 4), n_rows, random.integer(0, 1) == 1},
          random);
    }
    check_gated(dtype, 96, 512, random.integer(1, 60), cuda::matmul_operand(dtype), random);
    if (!options.small) check_rows_apart(dtype, random);
  }
  // As q, k and v of a mixed file; and enough of both for the widest tiles.
  check_matmul({{DType::kQ4_K, DType::kQ6_K, DType::kQ4_K}, {150, 30, 33}, 3, 768, 19, false}, random);
  if (!options.small) {
    check_matmul({{DType::kQ5_0, DType::kQ5_0, DType::kQ8_0}, {4000, 100, 128}, 3, 64, 1100, true}, random);
    check_matmul({{DType::kQ4_K}, {4000}, 1, 256, 1000, false}, random);
    check_matmul({{DType::kBF16}, {4096}, 1, 64, 1024, false}, random);
    check_gated(DType::kQ4_K, 2048, 256, 1000, OperandType::kF16, random);
    check_gated(DType::kBF16, 2048, 128, 515, OperandType::kBF16, random);
  }
  const cuda::PackedWeight weight{nullptr, DType::kQ4_0, 64, 64};
  EXPECT(cuda::matmul({{{weight, nullptr, nullptr}}, 1, {nullptr, OperandType::kF16, 0, 64}, false}, nullptr) ==
             cudaSuccess,
         "no rows");
  EXPECT(cuda::matmul({{{weight, nullptr, nullptr}}, 1, {nullptr, OperandType::kQ8, 0, 64}, false}, nullptr) ==
             cudaErrorInvalidValue,
         "an operand of another type is refused");
  return report("matmul");
}
