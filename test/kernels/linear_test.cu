// link: kernels/linear.cu kernels/gated_linear.cu kernels/wide_product.cu kernels/pack_weights.cu kernels/to_operand.cu kernels/rms_norm.cu
// Products with few rows. The bound is tight against the operand as it was rounded, loose against what it stands for.
#include <memory>

#include "harness.h"
#include "kernels/gated_linear.h"
#include "kernels/linear.h"
#include "kernels/reference/silu_mul.h"
#include "kernels/rms_norm.h"
#include "kernels/to_operand.h"
#include "weights.h"

using namespace nosa;
using namespace nosa::test;
using cuda::Operand;
using cuda::OperandType;

namespace {

/// Scratch for any product of this test, kept until its end.
float* scratch(int n_rows, int rows) {
  static std::unique_ptr<Device<float>> memory;
  const size_t n = cuda::linear_scratch_bytes(n_rows, rows) / sizeof(float);
  if (memory == nullptr || memory->size() < n) memory = std::make_unique<Device<float>>(std::max<size_t>(n, 4));
  memory->poison();
  return n == 0 ? nullptr : memory->data();
}

struct Case {
  DType dtypes[3];
  int rows[3];
  int n_targets;
  int cols;
  int n_rows;
  bool accumulate;
};

void check_linear(const Case& c, Random& random) {
  const OperandType type = cuda::linear_operand(c.dtypes[0]);
  const std::vector<float> x = random.normals(size_t(c.n_rows) * size_t(c.cols));
  Device<float> x_device(x);
  OperandMemory operand(type, c.n_rows, c.cols);
  MUST(cuda::to_operand({x_device.data(), operand.view()}, nullptr));
  const std::vector<double> rounded = operand.values();

  cuda::LinearParams p = {.n_targets = c.n_targets,
                          .x = operand.view(),
                          .accumulate = c.accumulate,
                          .scratch = scratch(c.n_rows, c.rows[0] + c.rows[1] + c.rows[2])};
  std::vector<std::unique_ptr<Packed>> weights;
  std::vector<std::unique_ptr<Device<float>>> buffers;
  std::vector<std::vector<double>> wants, loose_wants;
  for (int i = 0; i < c.n_targets; ++i) {
    const std::vector<std::byte> raw = random_weights(c.dtypes[i], c.rows[i], c.cols, random);
    weights.push_back(std::make_unique<Packed>(c.dtypes[i], raw, c.rows[i], c.cols));
    const bool has_bias = random.integer(0, 1) == 1;
    const std::vector<float> bias = random.normals(size_t(c.rows[i]));
    const std::vector<float> before = random.normals(size_t(c.n_rows) * size_t(c.rows[i]));
    buffers.push_back(std::make_unique<Device<float>>(bias));
    buffers.push_back(std::make_unique<Device<float>>(before.size()));
    if (c.accumulate) buffers.back()->put(before);
    p.targets[i] = {weights.back()->view(), has_bias ? buffers[buffers.size() - 2]->data() : nullptr,
                    buffers.back()->data()};
    const std::vector<double> values = weight_values(c.dtypes[i], raw, c.rows[i], c.cols);
    for (auto* list : {&wants, &loose_wants}) {
      const std::vector<double> exact(x.begin(), x.end());
      std::vector<double> want = product(values, c.rows[i], list == &wants ? rounded : exact, c.n_rows, c.cols);
      for (size_t at = 0; at < want.size(); ++at) {
        if (has_bias) want[at] += bias[at % size_t(c.rows[i])];
        if (c.accumulate) want[at] += before[at];
      }
      list->push_back(std::move(want));
    }
  }
  MUST(cuda::linear(p, nullptr));
  for (int i = 0; i < c.n_targets; ++i) {
    const std::vector<float> got = buffers[size_t(2 * i + 1)]->get();
    const double error = relative_norm(got, wants[size_t(i)]);
    const double loose = relative_norm(got, loose_wants[size_t(i)]);
    std::printf("linear %-5s %4d x %4d, %2d rows  %.1e (of the rounded operand), %.1e\n", dtype_name(c.dtypes[i]),
                c.rows[i], c.cols, c.n_rows, error, loose);
    // The matrix units cut the last bits of long sums of 16-bit products; sums of levels are exact.
    const double bound = type == OperandType::kQ8 ? 2e-6 : 2e-5;
    EXPECT(error < bound, std::string("linear ") + dtype_name(c.dtypes[i]));
    // A few sums alone may cancel to less than their errors.
    const bool enough = c.rows[i] * c.n_rows >= 100;
    EXPECT(!enough || loose < operand_bound(type), std::string("linear, operand and all, ") + dtype_name(c.dtypes[i]));
  }
}

void check_gated(DType gate_type, DType up_type, int rows, int cols, int n_rows, OperandType out_type, Random& random) {
  const std::vector<float> x = random.normals(size_t(n_rows) * size_t(cols), 2.0f);
  Device<float> x_device(x);
  OperandMemory operand(cuda::linear_operand(gate_type), n_rows, cols);
  MUST(cuda::to_operand({x_device.data(), operand.view()}, nullptr));
  const std::vector<std::byte> raw_gate = random_weights(gate_type, rows, cols, random);
  const std::vector<std::byte> raw_up = random_weights(up_type, rows, cols, random);
  Packed gate(gate_type, raw_gate, rows, cols), up(up_type, raw_up, rows, cols);
  OperandMemory out(out_type, n_rows, rows);
  MUST(cuda::gated_linear({gate.view(), up.view(), operand.view(), out.view(), scratch(n_rows, 2 * rows)}, nullptr));

  const std::vector<double> rounded = operand.values();
  const std::vector<double> g = product(weight_values(gate_type, raw_gate, rows, cols), rows, rounded, n_rows, cols);
  std::vector<double> want = product(weight_values(up_type, raw_up, rows, cols), rows, rounded, n_rows, cols);
  for (size_t i = 0; i < want.size(); ++i) want[i] = reference::silu_mul(g[i], want[i]);
  const double error = relative_norm(out.values(), want);
  std::printf("gated_linear %-5s %4d x %4d, %2d rows  %.1e\n", dtype_name(gate_type), rows, cols, n_rows, error);
  EXPECT(error < 1.5 * operand_bound(out_type, want), std::string("gated_linear ") + dtype_name(gate_type));
  EXPECT(out.sums_hold(), "gated_linear: the sums of an operand's levels");
}

/// A row that the products normalise themselves gives the bits of one that rms_norm did.
void check_normed(DType dtype, int rows, int cols, Random& random) {
  const OperandType type = cuda::linear_operand(dtype);
  Device<float> x(random.normals(size_t(cols), 30.0f));
  Device<float> norm(random.normals(size_t(cols)));
  Device<float> bias(random.normals(size_t(rows)));
  const cuda::NormedRow row = {x.data(), norm.data(), 1e-6f};
  OperandMemory operand(type, 1, cols);
  MUST(cuda::rms_norm({x.data(), norm.data(), row.eps, operand.view(), nullptr}, nullptr));
  const Operand empty = {nullptr, type, 1, cols};
  Packed gate(dtype, random_weights(dtype, rows, cols, random), rows, cols);
  Packed up(dtype, random_weights(dtype, rows, cols, random), rows, cols);

  Device<float> want(size_t(2) * size_t(rows)), got(size_t(2) * size_t(rows));
  const auto linear = [&](Device<float>& out, const Operand& in, const cuda::NormedRow& own) {
    MUST(cuda::linear({.targets = {{gate.view(), nullptr, out.data()}, {up.view(), bias.data(), out.data() + rows}},
                       .n_targets = 2,
                       .x = in,
                       .row = own},
                      nullptr));
  };
  linear(want, operand.view(), {});
  linear(got, empty, row);
  const std::vector<float> a = want.get(), b = got.get();
  EXPECT(std::memcmp(a.data(), b.data(), a.size() * 4) == 0, std::string("linear with a norm: ") + dtype_name(dtype));

  OperandMemory gated(type, 1, rows), gated_normed(type, 1, rows);
  MUST(cuda::gated_linear({gate.view(), up.view(), operand.view(), gated.view(), nullptr, {}}, nullptr));
  MUST(cuda::gated_linear({gate.view(), up.view(), empty, gated_normed.view(), nullptr, row}, nullptr));
  EXPECT(gated.values() == gated_normed.values(), std::string("gated_linear with a norm: ") + dtype_name(dtype));
}

/// A row's result has the same bits alone and among others.
void check_rows_apart(DType dtype, int rows, int cols, Random& random) {
  constexpr int kRows = cuda::kLinearRowsMax;
  const OperandType type = cuda::linear_operand(dtype);
  const std::vector<float> x = random.normals(size_t(kRows) * size_t(cols));
  Device<float> x_device(x);
  Packed weight(dtype, random_weights(dtype, rows, cols, random), rows, cols);
  OperandMemory all(type, kRows, cols);
  MUST(cuda::to_operand({x_device.data(), all.view()}, nullptr));
  Device<float> out(size_t(kRows) * size_t(rows));
  MUST(cuda::linear({{{weight.view(), nullptr, out.data()}}, 1, all.view(), false, scratch(kRows, rows)}, nullptr));
  const std::vector<float> together = out.get();
  for (const int n_rows : {1, 3, 11, 29, 35, 45, 51}) {
    const int first = random.integer(0, kRows - n_rows);
    OperandMemory some(type, n_rows, cols);
    MUST(cuda::to_operand({x_device.data() + size_t(first) * size_t(cols), some.view()}, nullptr));
    Device<float> some_out(size_t(n_rows) * size_t(rows));
    MUST(cuda::linear({{{weight.view(), nullptr, some_out.data()}}, 1, some.view(), false, scratch(n_rows, rows)},
                      nullptr));
    const std::vector<float> got = some_out.get();
    const bool same = std::memcmp(got.data(), together.data() + size_t(first) * size_t(rows), got.size() * 4) == 0;
    EXPECT(same, std::string("a row's bits depend on its neighbours: ") + dtype_name(dtype));
  }
}

void time_all(Random& random) {
  constexpr double kBandwidth = 4300.0;  // GB/s that a copy reaches on an H200
  constexpr struct {
    int rows, cols;
  } kShapes[] = {{4096, 4096}, {14336, 4096}, {4096, 14336}, {6144, 4096},
                 {1536, 1536}, {896, 896},    {896, 4864},   {151936, 896}};
  for (const DType dtype : {DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ5_0, DType::kQ4_K, DType::kQ6_K}) {
    for (const auto& shape : kShapes) {
      const int record = dtype == DType::kQ4_K || dtype == DType::kQ6_K ? 256 : 64;
      if (shape.cols % record != 0) continue;
      Rotation weights(dtype, shape.rows, shape.cols, random);
      const double bytes = double(row_bytes(dtype, shape.cols)) * shape.rows;
      std::printf("linear %-5s %6d x %5d %6.1f MB:", dtype_name(dtype), shape.rows, shape.cols, bytes / 1e6);
      for (const int n_rows : {1, 4, 8, 16, 32, 40, 48, 64}) {
        Device<float> x(random.normals(size_t(n_rows) * size_t(shape.cols)));
        OperandMemory operand(cuda::linear_operand(dtype), n_rows, shape.cols);
        MUST(cuda::to_operand({x.data(), operand.view()}, nullptr));
        Device<float> out(size_t(n_rows) * size_t(shape.rows));
        float* const memory = scratch(n_rows, shape.rows);
        const double us = median_us(
            [&](int i, cudaStream_t s) {
              MUST(cuda::linear({{{weights[i], nullptr, out.data()}}, 1, operand.view(), false, memory}, s));
            },
            std::max(20, weights.n()));
        std::printf("  %d: %.2f us %.0f%%", n_rows, us, 100.0 * bytes / us / 1e3 / kBandwidth);
      }
      std::printf("\n");
    }
  }
  for (const DType dtype : {DType::kBF16, DType::kQ4_K, DType::kQ5_0}) {
    for (const auto& shape : {kShapes[1], {8960, 1536}, {4864, 896}}) {
      if (dtype == DType::kQ4_K && shape.cols == 896) continue;
      Rotation gates(dtype, shape.rows, shape.cols, random), ups(dtype, shape.rows, shape.cols, random);
      const double bytes = 2.0 * double(row_bytes(dtype, shape.cols)) * shape.rows;
      std::printf("gated_linear %-5s %6d x %5d:", dtype_name(dtype), shape.rows, shape.cols);
      for (const int n_rows : {1, 8, 16, 32, 64}) {
        Device<float> x(random.normals(size_t(n_rows) * size_t(shape.cols)));
        OperandMemory operand(cuda::linear_operand(dtype), n_rows, shape.cols);
        MUST(cuda::to_operand({x.data(), operand.view()}, nullptr));
        OperandMemory out(cuda::linear_operand(dtype), n_rows, shape.rows);
        float* const memory = scratch(n_rows, 2 * shape.rows);
        const double us = median_us(
            [&](int i, cudaStream_t s) {
              MUST(cuda::gated_linear({gates[i], ups[i], operand.view(), out.view(), memory}, s));
            },
            std::max(20, gates.n()));
        std::printf("  %d: %.2f us %.0f%%", n_rows, us, 100.0 * bytes / us / 1e3 / kBandwidth);
      }
      std::printf("\n");
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  Random random;
  if (options.time) {
    time_all(random);
    return report("linear");
  }
  const int scale = options.small ? 1 : 4;
  for (const DType dtype : packed_dtypes) {
    for (const int n_rows : {1, 5, 8, 13, 27, 33, 41, 49, 64}) {
      if (options.small && n_rows % 2 == 0) continue;
      check_linear({{dtype},
                    {scale * 48 + random.integer(0, 15)},
                    1,
                    256 * random.integer(1, 5),
                    n_rows,
                    random.integer(0, 1) == 1},
                   random);
    }
    check_linear({{dtype}, {1}, 1, 256, 2, false}, random);
    check_gated(dtype, dtype, 32 * scale, 512, random.integer(1, 3), cuda::linear_operand(dtype), random);
    check_gated(dtype, dtype, 32 * scale, 1280, random.integer(9, 64), OperandType::kBF16, random);
    for (const int cols : {256, 768, 1536, 2048}) check_normed(dtype, 32 * random.integer(1, 3 * scale), cols, random);
    if (!options.small) check_rows_apart(dtype, 200, 1536, random);
  }
  // Three targets of different types and ragged heights, as q, k and v of a mixed file; many rows, for one split.
  check_linear({{DType::kQ4_K, DType::kQ4_K, DType::kQ6_K}, {scale * 100, 30, 33}, 3, 768, 1, false}, random);
  check_linear({{DType::kQ5_0, DType::kQ5_0, DType::kQ8_0}, {scale * 56, 8, 8}, 3, 576, 9, true}, random);
  if (!options.small) check_linear({{DType::kQ8_0}, {40000}, 1, 128, 3, false}, random);
  // So many rows that tiles are not split.
  for (const DType dtype : {DType::kQ8_0, DType::kQ4_K, DType::kQ6_K})
    check_linear({{dtype}, {options.small ? 9000 : 20000}, 1, 256, 1, true}, random);
  check_gated(DType::kQ4_K, DType::kQ6_K, 64, 512, 2, OperandType::kQ8, random);

  const cuda::PackedWeight weight{nullptr, DType::kQ4_0, 64, 64};
  const Operand none{nullptr, OperandType::kQ8, 0, 64};
  const Operand other{nullptr, OperandType::kF16, 0, 64};
  EXPECT(cuda::linear({{{weight, nullptr, nullptr}}, 1, none, false, nullptr}, nullptr) == cudaSuccess, "no rows");
  EXPECT(cuda::linear({{{weight, nullptr, nullptr}}, 1, other, false, nullptr}, nullptr) == cudaErrorInvalidValue,
         "an operand of another type is refused");
  const Operand wide{nullptr, OperandType::kQ8, 1, 4096};
  const cuda::PackedWeight wide_weight{nullptr, DType::kQ4_0, 64, 4096};
  const float value = 0.0f;
  EXPECT(cuda::linear({.targets = {{wide_weight, nullptr, nullptr}}, .n_targets = 1, .x = wide, .row = {&value, &value, 0.0f}},
                      nullptr) == cudaErrorInvalidValue,
         "a row too wide to be normalised by every thread block is refused");
  return report("linear");
}
