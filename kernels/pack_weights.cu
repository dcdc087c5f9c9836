// One thread per lane of a record: it gathers the lane's levels one by one and writes them as common/packed_chunk.cuh
// says. Runs once, when a model is loaded, and is then bound by the copy to the device all the same.
#include "pack_weights.h"

#include <cstring>

#include "common/launch.cuh"
#include "common/packed_chunk.cuh"
#include "core/quant_blocks.h"

namespace nosa::cuda {
namespace {

constexpr int kThreads = 256;

__device__ int nibble(const uint8_t* bytes, int i) { return bytes[i % 16] >> (i / 16 * 4) & 15; }

template <typename Block>
__device__ int with_fifth_bit(const Block& b, int i) {
  return nibble(b.qs, i) | (b.qh[i / 8] >> (i % 8) & 1) << 4;
}

/// Level i of a block as the format stores it: unsigned, or the two's complement of a signed one in as many bits.
__device__ int level(const BlockQ8_0& b, int i) { return uint8_t(b.qs[i]); }
__device__ int level(const BlockQ4_0& b, int i) { return nibble(b.qs, i) ^ 8; }
__device__ int level(const BlockQ4_1& b, int i) { return nibble(b.qs, i); }
__device__ int level(const BlockQ5_0& b, int i) { return with_fifth_bit(b, i) ^ 16; }
__device__ int level(const BlockQ5_1& b, int i) { return with_fifth_bit(b, i); }
__device__ int level(const BlockQ4_K& b, int i) { return b.qs[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15; }
__device__ int level(const BlockQ5_K& b, int i) {
  return (b.qs[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15) | (b.qh[i % 32] >> (i / 32) & 1) << 4;
}
__device__ int level(const BlockQ6_K& b, int i) {
  const int half = i / 128;
  const int quarter = i % 128 / 32;
  const int low = b.ql[64 * half + 32 * (quarter % 2) + i % 32] >> (quarter / 2 * 4) & 15;
  const int high = b.qh[32 * half + i % 32] >> (2 * quarter) & 3;
  return (low | high << 4) ^ 32;
}

/// Bytes of a row's share of the scales, for the file's block `b` that is the n-th of a record.
__device__ void put_scales(const BlockQ8_0& b, int n, uint8_t* scales, uint8_t*) { memcpy(scales + 2 * n, &b.d, 2); }
__device__ void put_scales(const BlockQ4_0& b, int n, uint8_t* scales, uint8_t*) { memcpy(scales + 2 * n, &b.d, 2); }
__device__ void put_scales(const BlockQ5_0& b, int n, uint8_t* scales, uint8_t*) { memcpy(scales + 2 * n, &b.d, 2); }
__device__ void put_scales(const BlockQ4_1& b, int n, uint8_t* scales, uint8_t*) {
  memcpy(scales + 4 * n, &b.d, 2);
  memcpy(scales + 4 * n + 2, &b.m, 2);
}
__device__ void put_scales(const BlockQ5_1& b, int n, uint8_t* scales, uint8_t*) {
  memcpy(scales + 4 * n, &b.d, 2);
  memcpy(scales + 4 * n + 2, &b.m, 2);
}
template <typename Block>
__device__ void put_k_scales(const Block& b, uint8_t* scales, uint8_t* super) {
  for (int g = 0; g < 8; ++g) {
    // As k_scale_min() of core/quant_blocks.h, which is for the host.
    const int low = b.scales[g < 4 ? g : g + 4];
    const int low_min = b.scales[g + 4];
    scales[g] = uint8_t(g < 4 ? low & 63 : (low & 15) | b.scales[g - 4] >> 6 << 4);
    scales[8 + g] = uint8_t(g < 4 ? low_min & 63 : low_min >> 4 | b.scales[g] >> 6 << 4);
  }
  memcpy(super, &b.d, 2);
  memcpy(super + 2, &b.dmin, 2);
}
__device__ void put_scales(const BlockQ4_K& b, int, uint8_t* scales, uint8_t* super) { put_k_scales(b, scales, super); }
__device__ void put_scales(const BlockQ5_K& b, int, uint8_t* scales, uint8_t* super) { put_k_scales(b, scales, super); }
__device__ void put_scales(const BlockQ6_K& b, int, uint8_t* scales, uint8_t* super) {
  memcpy(scales, b.scales, 16);
  memcpy(super, &b.d, 2);
}

/// Rows of the file that a launch has, and where they go.
struct Range {
  const std::byte* raw;
  std::byte* packed;
  int rows, cols, first_row, n_rows;

  __device__ bool has(int row) const { return row >= first_row && row < first_row + n_rows; }
};

template <DType kType, typename Block>
__global__ void pack_kernel(Range range) {
  begin_kernel();
  constexpr PackedFormat kFormat = packed_format(kType);
  constexpr int kBlockCols = int(block_values(kType));
  constexpr int kLevelsPerWord = kFormat.low_bits == 8 ? 1 : 2;
  const int n_records = range.cols / kFormat.cols;
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int lane = int(at % 32);
  const int64_t record_idx = at / 32 + int64_t(range.first_row / kTileRows) * n_records;
  const int tile = int(record_idx / n_records);
  const int first_col = int(record_idx % n_records) * kFormat.cols;
  if (tile * kTileRows >= range.first_row + range.n_rows) return;
  std::byte* record = range.packed + record_idx * kFormat.bytes();
  const int g = lane / 4;
  const int t = lane % 4;
  const int blocks_of_row = range.cols / kBlockCols;

  const auto block_of = [&](int row, int col) {
    return reinterpret_cast<const Block*>(range.raw) + int64_t(row - range.first_row) * blocks_of_row +
           col / kBlockCols;
  };
  const auto level_at = [&](int b, int j, int i) {
    const int row = tile * kTileRows + g + 8 * (j % 2);
    const int col = first_col + 32 * b + 16 * (j / 2) + 4 * t + i;
    return range.has(row) ? uint32_t(level(*block_of(row, col), col % kBlockCols)) : 0u;
  };

  constexpr uint32_t kLowMask = kFormat.low_bits == 8 ? 0xff : 0x0f;
  uint32_t* levels = reinterpret_cast<uint32_t*>(record);
  for (int run = 0; run < kFormat.blocks() / kLevelsPerWord; ++run) {
    for (int j = 0; j < 4; ++j) {
      uint32_t word = 0;
      for (int i = 0; i < 4; ++i) {
        for (int n = 0; n < kLevelsPerWord; ++n) {
          word |= (level_at(run * kLevelsPerWord + n, j, i) & kLowMask) << (8 * i + 4 * n);
        }
      }
      levels[run * 128 + lane * 4 + j] = word;
    }
  }

  if constexpr (kFormat.high_bits > 0) {
    constexpr int kHighWords = PackedChunk<kType>::kHighWords;
    constexpr int kRun = kHighWords < 4 ? kHighWords : 4;
    constexpr int kBlocksPerWord = kFormat.high_bits == 1 ? 2 : 1;
    uint32_t* high = reinterpret_cast<uint32_t*>(record + kFormat.high_at());
    for (int n = 0; n < kHighWords; ++n) {
      uint32_t word = 0;
      for (int b = 0; b < kBlocksPerWord; ++b) {
        for (int j = 0; j < 4; ++j) {
          for (int i = 0; i < 4; ++i) {
            const uint32_t bits = level_at(n * kBlocksPerWord + b, j, i) >> kFormat.low_bits;
            word |= bits << (8 * i + (4 * b + j) * kFormat.high_bits);
          }
        }
      }
      high[n / kRun * 32 * kRun + lane * kRun + n % kRun] = word;
    }
  }

  // A row's scales are one thread's, of the 16 that t = 0, 1 make.
  if (t >= 2) return;
  const int row = tile * kTileRows + g + 8 * t;
  uint8_t* scales = reinterpret_cast<uint8_t*>(record + kFormat.scale_at()) + (2 * g + t) * kFormat.scale_bytes;
  uint8_t* super = reinterpret_cast<uint8_t*>(record + kFormat.super_at()) + (2 * g + t) * kFormat.super_bytes;
  if (range.has(row)) {
    constexpr int kFileBlocks = kFormat.cols / kBlockCols;
    for (int n = 0; n < kFileBlocks; ++n) put_scales(*block_of(row, first_col + n * kBlockCols), n, scales, super);
  } else {
    memset(scales, 0, kFormat.scale_bytes);
    memset(super, 0, kFormat.super_bytes);
  }
}

__global__ void pack_16bit_kernel(Range range) {
  begin_kernel();
  constexpr PackedFormat kFormat = packed_format(DType::kF16);
  const int n_records = range.cols / kFormat.cols;
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int lane = int(at % 32);
  const int64_t record_idx = at / 32 + int64_t(range.first_row / kTileRows) * n_records;
  const int tile = int(record_idx / n_records);
  if (tile * kTileRows >= range.first_row + range.n_rows) return;
  uint2* record = reinterpret_cast<uint2*>(range.packed + record_idx * kFormat.bytes());
  for (int step = 0; step < PackedChunk16::kSteps; ++step) {
    for (int half = 0; half < 2; ++half) {
      const int row = tile * kTileRows + lane / 4 + 8 * half;
      const int col = int(record_idx % n_records) * kFormat.cols + step * 16 + lane % 4 * 4;
      const int64_t from = int64_t(row - range.first_row) * range.cols + col;
      const uint2 zero = make_uint2(0, 0);
      record[step * 64 + lane * 2 + half] = range.has(row) ? reinterpret_cast<const uint2*>(range.raw)[from / 4] : zero;
    }
  }
}

}  // namespace

size_t packed_bytes(DType dtype, int rows, int cols) {
  const PackedFormat format = packed_format(dtype);
  if (format.cols == 0 || cols % format.cols != 0) return 0;
  return size_t(rows + kTileRows - 1) / kTileRows * size_t(cols / format.cols) * size_t(format.bytes());
}

cudaError_t pack_weights(const PackWeightsParams& p, cudaStream_t stream) {
  const bool whole_tiles = p.n_rows % kTileRows == 0 || p.first_row + p.n_rows == p.rows;
  if (p.rows < 0 || p.cols <= 0 || p.first_row < 0 || p.n_rows < 0 || p.first_row + p.n_rows > p.rows ||
      p.first_row % kTileRows != 0 || !whole_tiles) {
    return cudaErrorInvalidValue;
  }
  if (packed_bytes(p.dtype, kTileRows, p.cols) == 0) return cudaErrorNotSupported;
  if (p.n_rows == 0) return cudaSuccess;
  const Range range{p.raw, p.packed, p.rows, p.cols, p.first_row, p.n_rows};
  const int64_t n_tiles = (p.n_rows + kTileRows - 1) / kTileRows;
  const int64_t n_threads = n_tiles * (p.cols / packed_format(p.dtype).cols) * 32;
  const dim3 grid(unsigned((n_threads + kThreads - 1) / kThreads));
  switch (p.dtype) {
    case DType::kQ8_0:
      return launch(pack_kernel<DType::kQ8_0, BlockQ8_0>, grid, kThreads, 0, stream, range);
    case DType::kQ4_0:
      return launch(pack_kernel<DType::kQ4_0, BlockQ4_0>, grid, kThreads, 0, stream, range);
    case DType::kQ4_1:
      return launch(pack_kernel<DType::kQ4_1, BlockQ4_1>, grid, kThreads, 0, stream, range);
    case DType::kQ5_0:
      return launch(pack_kernel<DType::kQ5_0, BlockQ5_0>, grid, kThreads, 0, stream, range);
    case DType::kQ5_1:
      return launch(pack_kernel<DType::kQ5_1, BlockQ5_1>, grid, kThreads, 0, stream, range);
    case DType::kQ4_K:
      return launch(pack_kernel<DType::kQ4_K, BlockQ4_K>, grid, kThreads, 0, stream, range);
    case DType::kQ5_K:
      return launch(pack_kernel<DType::kQ5_K, BlockQ5_K>, grid, kThreads, 0, stream, range);
    case DType::kQ6_K:
      return launch(pack_kernel<DType::kQ6_K, BlockQ6_K>, grid, kThreads, 0, stream, range);
    case DType::kF16:
    case DType::kBF16:
      return launch(pack_16bit_kernel, grid, kThreads, 0, stream, range);
    case DType::kF32:
      return cudaErrorNotSupported;
  }
  return cudaErrorNotSupported;
}

}  // namespace nosa::cuda
