// link: kernels/rms_norm.cu kernels/to_operand.cu kernels/silu_mul.cu kernels/rope.cu
// The kernels that make operands, and rope.
#include <numbers>

#include "harness.h"
#include "kernels/reference/rms_norm.h"
#include "kernels/reference/rope.h"
#include "kernels/reference/silu_mul.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/silu_mul.h"
#include "kernels/to_operand.h"
#include "weights.h"

using namespace nosa;
using namespace nosa::test;
using cuda::OperandType;

namespace {

constexpr OperandType kTypes[] = {OperandType::kQ8, OperandType::kF16, OperandType::kBF16};
constexpr const char* kTypeNames[] = {"q8", "f16", "bf16"};

void check_rms_norm(int n_rows, int cols, Random& random) {
  const std::vector<float> x = random.normals(size_t(n_rows) * size_t(cols), random.uniform(0.1f, 30.0f));
  const std::vector<float> weight = random.normals(size_t(cols));
  const std::vector<double> want = reference::rms_norm(x.data(), weight.data(), n_rows, cols, 1e-6);
  Device<float> x_device(x), weight_device(weight);
  for (const OperandType type : kTypes) {
    OperandMemory out(type, n_rows, cols);
    Device<float> plain(x.size());
    MUST(cuda::rms_norm({x_device.data(), weight_device.data(), 1e-6f, out.view(), plain.data()}, nullptr));
    const double plain_error = relative_norm(plain.get(), want);
    const double error = relative_norm(out.values(), want);
    std::printf("rms_norm %3d x %5d %-4s %.1e (plain %.1e)\n", n_rows, cols, kTypeNames[int(type)], error, plain_error);
    EXPECT(plain_error < 1e-6, "rms_norm in float32");
    EXPECT(error < operand_bound(type, want), "rms_norm as operand");
    EXPECT(out.sums_hold(), "rms_norm: the sums of an operand's levels");
  }
}

void check_silu_mul(int n_rows, int cols, Random& random) {
  const std::vector<float> gate = random.normals(size_t(n_rows) * size_t(cols), 4.0f);
  std::vector<float> up = random.normals(gate.size());
  std::vector<double> want;
  for (size_t i = 0; i < gate.size(); ++i) want.push_back(reference::silu_mul(gate[i], up[i]));
  Device<float> gate_device(gate), up_device(up);
  for (const OperandType type : kTypes) {
    OperandMemory out(type, n_rows, cols);
    MUST(cuda::silu_mul({gate_device.data(), up_device.data(), out.view()}, nullptr));
    const double error = relative_norm(out.values(), want);
    std::printf("silu_mul %3d x %5d %-4s %.1e\n", n_rows, cols, kTypeNames[int(type)], error);
    EXPECT(error < 1.5 * operand_bound(type, want), "silu_mul");
    EXPECT(out.sums_hold(), "silu_mul: the sums of an operand's levels");
  }
}

void check_to_operand(int n_rows, int cols, Random& random) {
  std::vector<float> x = random.normals(size_t(n_rows) * size_t(cols));
  std::fill(x.begin(), x.begin() + 32, 0.0f);  // A block of zeros has scale zero, not NaN.
  Device<float> x_device(x);
  for (const OperandType type : kTypes) {
    OperandMemory out(type, n_rows, cols);
    MUST(cuda::to_operand({x_device.data(), out.view()}, nullptr));
    const double error = relative_norm(out.values(), x);
    std::printf("to_operand %3d x %5d %-4s %.1e\n", n_rows, cols, kTypeNames[int(type)], error);
    EXPECT(error < operand_bound(type), "to_operand");
    EXPECT(out.sums_hold(), "to_operand: the sums of an operand's levels");
  }
}

void check_extremes() {
  const std::vector<float> gate = {-1e4f, 1e4f, -100.0f, 100.0f};
  std::vector<float> gates(32), ups(32, 3.0f), x(32, 1e6f);
  for (size_t i = 0; i < gates.size(); ++i) gates[i] = gate[i % 4];
  Device<float> gate_device(gates), up_device(ups), x_device(x);
  OperandMemory out(OperandType::kF16, 1, 32);
  MUST(cuda::silu_mul({gate_device.data(), up_device.data(), out.view()}, nullptr));
  const std::vector<double> got = out.values();
  EXPECT(got[0] == 0.0 && std::fabs(got[1] - 3e4) < 20 && got[2] == 0.0 && std::fabs(got[3] - 300.0) < 0.2,
         "silu_mul of large gates");
  MUST(cuda::to_operand({x_device.data(), out.view()}, nullptr));
  EXPECT(out.values()[5] == 65504.0, "what a half cannot hold becomes its largest");
}

void check_rope(int n_rows, int n_heads, int head_dim, int n_rotated, RopePairing pairing, bool by_row,
                Random& random) {
  const std::vector<float> x = random.normals(size_t(n_rows) * size_t(n_heads) * size_t(head_dim));
  std::vector<float> inv_freq;
  for (int i = 0; i < n_rotated / 2; ++i) inv_freq.push_back(std::pow(1e6f, -2.0f * float(i) / float(n_rotated)));
  std::vector<int32_t> positions;
  const int first = random.integer(0, 131072);
  for (int n = 0; n < n_rows; ++n) positions.push_back(by_row ? random.integer(0, 262143) : first + n);
  const float magnitude = 1.25f;

  std::vector<double> want;
  for (int head = 0; head < n_rows * n_heads; ++head) {
    const std::vector<double> rotated =
        reference::rope(x.data() + size_t(head) * size_t(head_dim), head_dim, positions[size_t(head / n_heads)],
                        inv_freq.data(), n_rotated, magnitude, pairing);
    want.insert(want.end(), rotated.begin(), rotated.end());
  }
  Device<float> x_device(x), inv_freq_device(inv_freq);
  Device<int32_t> positions_device(positions), first_device(std::vector<int32_t>{first});
  MUST(cuda::rope({x_device.data(), n_rows, n_heads, head_dim, by_row ? positions_device.data() : nullptr,
                   first_device.data(), inv_freq_device.data(), n_rotated, magnitude, pairing},
                  nullptr));
  const double error = relative_norm(x_device.get(), want);
  std::printf("rope %3d x %2d x %3d (%d) %.1e\n", n_rows, n_heads, head_dim, n_rotated, error);
  EXPECT(error < 5e-7, "rope");
}

void time_all(Random& random) {
  constexpr int kCols = 4096;
  const std::vector<float> weight = random.normals(kCols);
  Device<float> weight_device(weight);
  for (const int n_rows : {1, 64, 2048}) {
    Device<float> x(random.normals(size_t(n_rows) * kCols));
    Device<float> y(random.normals(size_t(n_rows) * kCols));
    for (const OperandType type : {OperandType::kQ8, OperandType::kF16}) {
      OperandMemory out(type, n_rows, kCols);
      const double norm = median_us([&](int, cudaStream_t s) {
        MUST(cuda::rms_norm({x.data(), weight_device.data(), 1e-6f, out.view(), nullptr}, s));
      });
      const double silu = median_us([&](int, cudaStream_t s) {
        MUST(cuda::silu_mul({x.data(), y.data(), out.view()}, s));
      });
      const double convert = median_us([&](int, cudaStream_t s) { MUST(cuda::to_operand({x.data(), out.view()}, s)); });
      std::printf("%4d x %d %-4s rms_norm %.2f us, silu_mul %.2f us, to_operand %.2f us (cached)\n", n_rows, kCols,
                  kTypeNames[int(type)], norm, silu, convert);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  Random random;
  if (options.time) {
    time_all(random);
    return report("elementwise");
  }
  for (const int cols : {32, 576, 896, 4096, 8960}) {
    if (options.small && cols > 1000) continue;
    const int n_rows = random.integer(1, 17);
    check_rms_norm(n_rows, cols, random);
    check_silu_mul(n_rows, cols, random);
    check_to_operand(n_rows, cols, random);
  }
  check_rms_norm(1, 16384, random);
  check_extremes();
  for (const RopePairing pairing : {RopePairing::kHalfSplit, RopePairing::kAdjacent}) {
    check_rope(random.integer(1, 9), 14, 64, 64, pairing, true, random);
    check_rope(random.integer(1, 9), 3, 128, 128, pairing, false, random);
    check_rope(random.integer(1, 9), 2, 128, 32, pairing, true, random);
  }
  EXPECT(cuda::to_operand({nullptr, {nullptr, OperandType::kQ8, 0, 64}}, nullptr) == cudaSuccess, "no rows");
  EXPECT(cuda::to_operand({nullptr, {nullptr, OperandType::kQ8, 0, 33}}, nullptr) == cudaErrorInvalidValue, "cols");
  return report("elementwise");
}
