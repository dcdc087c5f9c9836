// link: kernels/pack_weights.cu kernels/embed.cu
// Packing, by taking the rows out again: the values must be the file's, to float32's last bits.
#include "harness.h"
#include "kernels/embed.h"
#include "weights.h"

using namespace nosa;
using namespace nosa::test;

namespace {

void check(DType dtype, int rows, int cols, Random& random) {
  const std::vector<std::byte> raw = random_weights(dtype, rows, cols, random);
  Device<std::byte> on_device(raw);
  Device<std::byte> packed(cuda::packed_bytes(dtype, rows, cols));
  // In two parts, as a loader with a small buffer does.
  const int first = rows / 32 * 16;
  const size_t row = size_t(row_bytes(dtype, cols));
  Device<std::byte> second_part(std::vector<std::byte>(raw.begin() + std::ptrdiff_t(first * row), raw.end()));
  MUST(cuda::pack_weights({on_device.data(), packed.data(), dtype, rows, cols, 0, first}, nullptr));
  MUST(cuda::pack_weights({second_part.data(), packed.data(), dtype, rows, cols, first, rows - first}, nullptr));

  // Every row once, in any order, with two ids that are none.
  std::vector<int32_t> ids(size_t(rows) + 2);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = int32_t(i) - 1;
  std::shuffle(ids.begin(), ids.end(), random.engine());
  Device<int32_t> ids_on_device(ids);
  Device<float> out(ids.size() * size_t(cols));
  MUST(cuda::embed({{packed.data(), dtype, rows, cols}, ids_on_device.data(), out.data(), int(ids.size())}, nullptr));

  const std::vector<float> got = out.get();
  const std::vector<double> values = weight_values(dtype, raw, rows, cols);
  std::vector<double> want;
  for (const int32_t id : ids) {
    for (int c = 0; c < cols; ++c) {
      want.push_back(id < 0 || id >= rows ? 0.0 : values[size_t(id) * size_t(cols) + size_t(c)]);
    }
  }
  const double error = relative_norm(got, want);
  std::printf("%-5s %4d x %4d  %.1e\n", dtype_name(dtype), rows, cols, error);
  EXPECT(error < 2e-7, std::string("embedded rows differ: ") + dtype_name(dtype));
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  Random random;
  for (const DType dtype : packed_dtypes) {
    check(dtype, options.small ? 35 : 333, 768, random);
    check(dtype, 16, 256, random);
    check(dtype, 1, 512, random);
  }
  EXPECT(cuda::packed_bytes(DType::kF32, 16, 64) == 0, "float32 weights are not packed");
  EXPECT(cuda::packed_bytes(DType::kQ4_K, 16, 64) == 0, "a k-quant row holds whole blocks");
  EXPECT(cuda::pack_weights({nullptr, nullptr, DType::kQ4_0, 64, 64, 8, 16}, nullptr) == cudaErrorInvalidValue,
         "parts begin at whole tiles");
  EXPECT(cuda::embed({{nullptr, DType::kQ4_0, 64, 64}, nullptr, nullptr, 0}, nullptr) == cudaSuccess, "no rows");
  return report("pack_weights");
}
