// Random weights of every type for kernel tests, and the host's view of operands.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/dtype.h"
#include "core/half.h"
#include "core/tensor_view.h"
#include "harness.h"
#include "kernels/operand.h"
#include "kernels/pack_weights.h"
#include "kernels/reference/quantised.h"

namespace nosa::test {

inline constexpr DType packed_dtypes[] = {DType::kF16,  DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
                                          DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

/// Rows as a file would hold them: random levels, scales such that values are of size 1 / sqrt(cols).
inline std::vector<std::byte> random_weights(DType dtype, int rows, int cols, Random& random) {
  std::vector<std::byte> bytes(size_t(row_bytes(dtype, cols)) * size_t(rows));
  std::uniform_int_distribution<int> any(0, 255);
  for (std::byte& byte : bytes) byte = std::byte(any(random.engine()));
  const float size = 1.0f / std::sqrt(float(cols));
  const auto put = [&](size_t at, uint16_t bits) { std::memcpy(bytes.data() + at, &bits, 2); };
  const auto put_scale = [&](size_t at, float levels) {
    put(at, f32_to_f16(size * random.uniform(0.5f, 1.5f) / levels));
  };
  const size_t stride = size_t(block_bytes(dtype));
  for (size_t at = 0; at < bytes.size(); at += stride) {
    switch (dtype) {
      case DType::kF16:
        put(at, f32_to_f16(size * random.normal()));
        break;
      case DType::kBF16:
        put(at, f32_to_bf16(size * random.normal()));
        break;
      case DType::kQ8_0:
        put_scale(at, 70.0f);
        break;
      case DType::kQ4_0:
        put_scale(at, 4.5f);
        break;
      case DType::kQ5_0:
        put_scale(at, 9.0f);
        break;
      case DType::kQ4_1:
      case DType::kQ5_1:
        put_scale(at, dtype == DType::kQ4_1 ? 4.5f : 9.0f);
        put(at + 2, f32_to_f16(-size * random.uniform(0.5f, 2.5f)));
        break;
      case DType::kQ4_K:
      case DType::kQ5_K:
        put_scale(at, dtype == DType::kQ4_K ? 150.0f : 300.0f);
        put_scale(at + 2, 20.0f);
        break;
      case DType::kQ6_K:
        put_scale(at + 208, 1300.0f);
        break;
      case DType::kF32:
        break;
    }
  }
  return bytes;
}

/// The same rows in double.
inline std::vector<double> weight_values(DType dtype, const std::vector<std::byte>& raw, int rows, int cols) {
  const WeightView view{raw.data(), dtype, rows, cols};
  std::vector<double> values;
  values.reserve(size_t(rows) * size_t(cols));
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < cols; ++c) values.push_back(reference::weight_value(view, r, c));
  }
  return values;
}

/// A packed matrix on the device.
class Packed {
 public:
  Packed(DType dtype, const std::vector<std::byte>& raw, int rows, int cols)
      : packed_(cuda::packed_bytes(dtype, rows, cols)), dtype_(dtype), rows_(rows), cols_(cols) {
    Device<std::byte> on_device(raw);
    MUST(cuda::pack_weights({on_device.data(), packed_.data(), dtype, rows, cols, 0, rows}, nullptr));
    MUST(cudaDeviceSynchronize());
  }
  cuda::PackedWeight view() { return {packed_.data(), dtype_, rows_, cols_}; }

 private:
  Device<std::byte> packed_;
  DType dtype_;
  int rows_;
  int cols_;
};

/// An operand's memory, and what it holds.
class OperandMemory {
 public:
  OperandMemory(cuda::OperandType type, int n_rows, int cols)
      : bytes_(cuda::operand_bytes(type, n_rows, cols)), type_(type), n_rows_(n_rows), cols_(cols) {}
  cuda::Operand view() { return {bytes_.data(), type_, n_rows_, cols_}; }

  /// [n_rows, cols]
  std::vector<double> values() {
    const std::vector<std::byte> bytes = bytes_.get();
    const int rows = cuda::rows_padded(n_rows_);
    const auto* halves = reinterpret_cast<const uint16_t*>(bytes.data());
    const auto* levels = reinterpret_cast<const int8_t*>(bytes.data());
    const auto* scales = reinterpret_cast<const float*>(bytes.data() + size_t(cols_) * size_t(rows));
    std::vector<double> values;
    for (int n = 0; n < n_rows_; ++n) {
      for (int c = 0; c < cols_; ++c) {
        const size_t block = size_t(c / 32) * size_t(rows) + size_t(n);
        const int quad = c % 32 / 4;
        const int place = 8 * (quad % 4) + 4 * (quad / 4) + c % 4;
        const size_t at = size_t(n) * size_t(cols_) + size_t(c / 32 * 32 + place);
        const size_t level_at = block * 32 + size_t(place);
        values.push_back(type_ == cuda::OperandType::kF16    ? f16_to_f32(halves[at])
                         : type_ == cuda::OperandType::kBF16 ? bf16_to_f32(halves[at])
                                                             : double(scales[2 * block]) * levels[level_at]);
      }
    }
    return values;
  }

  /// Of 8-bit operands: whether each block's second number is its scale times the sum of its levels.
  bool sums_hold() {
    if (type_ != cuda::OperandType::kQ8) return true;
    const std::vector<double> all = values();
    const std::vector<std::byte> bytes = bytes_.get();
    const int rows = cuda::rows_padded(n_rows_);
    const auto* scales = reinterpret_cast<const float*>(bytes.data() + size_t(cols_) * size_t(rows));
    for (int n = 0; n < n_rows_; ++n) {
      for (int block = 0; block < cols_ / 32; ++block) {
        double sum = 0.0;
        double size = 0.0;
        for (int i = 0; i < 32; ++i) {
          sum += all[size_t(n) * size_t(cols_) + size_t(block * 32 + i)];
          size += std::fabs(all[size_t(n) * size_t(cols_) + size_t(block * 32 + i)]);
        }
        const double stored = scales[2 * (size_t(block) * size_t(rows) + size_t(n)) + 1];
        if (!(std::fabs(stored - sum) <= 1e-5 * size)) return false;
      }
    }
    return true;
  }

 private:
  Device<std::byte> bytes_;
  cuda::OperandType type_;
  int n_rows_;
  int cols_;
};

/// Matrices that together exceed the cache, each a run of copies of a small one.
class Rotation {
 public:
  Rotation(DType dtype, int rows, int cols, Random& random) : dtype_(dtype), rows_(rows), cols_(cols) {
    constexpr int kSeedRows = 64;
    constexpr size_t kAllBytes = size_t(512) << 20;
    const size_t bytes = cuda::packed_bytes(dtype, rows, cols);
    Packed seed(dtype, random_weights(dtype, kSeedRows, cols, random), kSeedRows, cols);
    const size_t seed_bytes = cuda::packed_bytes(dtype, kSeedRows, cols);
    n_ = int(std::clamp<size_t>(kAllBytes / bytes, 1, 64));
    memory_ = std::make_unique<Device<std::byte>>(bytes * size_t(n_));
    for (size_t at = 0; at < memory_->bytes(); at += seed_bytes) {
      MUST(cudaMemcpy(memory_->data() + at, seed.view().data, std::min(seed_bytes, memory_->bytes() - at),
                      cudaMemcpyDeviceToDevice));
    }
  }
  int n() const { return n_; }
  cuda::PackedWeight operator[](int i) {
    return {memory_->data() + cuda::packed_bytes(dtype_, rows_, cols_) * size_t(i % n_), dtype_, rows_, cols_};
  }

 private:
  std::unique_ptr<Device<std::byte>> memory_;
  DType dtype_;
  int rows_;
  int cols_;
  int n_;
};

/// weight [rows, cols] times each row of x [n_rows, cols]: [n_rows, rows].
inline std::vector<double> product(const std::vector<double>& weight, int rows, const std::vector<double>& x,
                                   int n_rows, int cols) {
  std::vector<double> out;
  for (int n = 0; n < n_rows; ++n) {
    for (int r = 0; r < rows; ++r) {
      double sum = 0.0;
      for (int c = 0; c < cols; ++c) {
        sum += weight[size_t(r) * size_t(cols) + size_t(c)] * x[size_t(n) * size_t(cols) + size_t(c)];
      }
      out.push_back(sum);
    }
  }
  return out;
}

/// How far an operand's rounding may take values from what they stand for, as a relative norm of normal numbers.
inline double operand_bound(cuda::OperandType type) {
  return type == cuda::OperandType::kF16 ? 4e-4 : type == cuda::OperandType::kBF16 ? 3e-3 : 8e-3;
}

/// The same for `want`, rows of whole blocks: 8-bit levels step by 1/127 of the greatest of 32 values, which is far from the others
/// where those are products of normal numbers. Rounding is even over a step; 1.3 is seven deviations of its sum over 128 values.
inline double operand_bound(cuda::OperandType type, const std::vector<double>& want) {
  if (type != cuda::OperandType::kQ8) return operand_bound(type);
  double rounding = 0.0, total = 0.0;
  for (size_t block = 0; block < want.size(); block += 32) {
    double greatest = 0.0;
    for (size_t i = block; i < std::min(block + 32, want.size()); ++i) {
      greatest = std::max(greatest, std::fabs(want[i]));
      total += want[i] * want[i];
    }
    const double step = greatest / 127.0;
    rounding += 32.0 * step * step / 12.0;
  }
  return total > 0.0 ? 1.3 * std::sqrt(rounding / total) + 1e-3 : 1e-3;
}

}  // namespace nosa::test
