// A block of 4 warps makes 128 weight rows x kTokens (32, 64 or 128) activation rows; a warp 32 x kTokens, so that
// what it reads of the activations serves two products. Each warp's weights are its own: their packed records come
// into shared memory a record ahead, and become 16-bit fragments in registers. Activations come 64 columns at a
// time, some stages ahead, shared by the warps. Sums over the columns are in order, whatever the shape of the grid.
//
// In the gated form a warp's two tiles are the same 16 rows of the gate and of the other half, so the product of the
// two is taken in registers.
#include "matmul.h"

#include <algorithm>

#include "common/async_copy.cuh"
#include "common/launch.cuh"
#include "common/matrix_units.cuh"
#include "common/operand.cuh"
#include "common/packed_unit.cuh"
#include "common/silu.cuh"

namespace nosa::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kWarpTiles = 2;
constexpr int kBlockTiles = kWarps * kWarpTiles;
constexpr int kThreads = 32 * kWarps;
constexpr int kRowChunks = kUnitCols * 2 / kCopyBytes;
constexpr size_t kSharedMax = 99 * 1024;  // that every target has

struct Work {
  PackedWeight weights[kMatmulTargetsMax];
  const float* biases[kMatmulTargetsMax];
  float* outs[kMatmulTargetsMax];
  int first_block[kMatmulTargetsMax + 1];  // of each target; the rest holds the number of all blocks
  Operand x;
  Operand gated_out;
  bool accumulate;
};

/// Activations in shared memory: [tokens, 8 chunks of 16 bytes]. Odd tokens have their halves swapped, so that two
/// tokens' four chunks of one block are in different banks.
__device__ inline int chunk_place(int token, int chunk) { return token * kRowChunks + (chunk ^ (token % 2 * 4)); }

template <DType kType>
using Value = std::conditional_t<kType == DType::kBF16, __nv_bfloat16, __half>;

template <DType kType, int kTokens>
struct Plan {
  static constexpr PackedFormat kFormat = packed_format(kType);
  static constexpr int kUnits = kFormat.cols / kUnitCols;
  static constexpr int kRecordBytes = kFormat.bytes();
  static constexpr int kStageBytes = kTokens * kUnitCols * 2;
  /// Stages of activations, and records of a tile, that are in flight or in use.
  static constexpr int stages() {
    for (int n = 4; n > 2; --n) {
      if (bytes(n) <= int(kSharedMax)) return n;
    }
    return 2;
  }
  static constexpr int slots(int stages) { return kUnits == 1 ? stages : 2; }
  static constexpr int bytes(int stages) { return stages * kStageBytes + slots(stages) * kBlockTiles * kRecordBytes; }
  static constexpr int kStages = stages();
  static constexpr int kSlots = slots(kStages);
  static constexpr int kBytes = bytes(kStages);
  static_assert(kStages - 1 <= (kSlots - 1) * kUnits, "a record's slot is free when its successor comes");
  static_assert(kBytes <= int(kSharedMax));
};

/// The warp's two tiles.
struct WarpTiles {
  const std::byte* records[kWarpTiles];
};

template <DType kType, int kTokens>
struct Product {
  using P = Plan<kType, kTokens>;
  static constexpr int kColumnTiles = kTokens / 8;
  static constexpr int kTogether = 4;  // column tiles whose products are interleaved

  float acc[kWarpTiles][kColumnTiles][4] = {};

  __device__ void run(const WarpTiles& tiles, const Operand& x, int first_token, std::byte* shared) {
    std::byte* own_records = shared + P::kStages * P::kStageBytes + threadIdx.x / 32 * kWarpTiles * P::kRecordBytes;
    constexpr int kSlotBytes = kBlockTiles * P::kRecordBytes;
    const int lane = threadIdx.x % 32;
    const int n_units = x.cols / kUnitCols;

    const auto fetch = [&](int unit) {
      if (unit < n_units) {
        std::byte* stage = shared + unit % P::kStages * P::kStageBytes;
#pragma unroll
        for (int i = 0; i < kTokens * kRowChunks / kThreads; ++i) {
          const int token = (i * kThreads + threadIdx.x) / kRowChunks;
          const int chunk = threadIdx.x % kRowChunks;
          const bool valid = first_token + token < x.n_rows;
          const size_t row = valid ? size_t(first_token + token) : 0;
          const std::byte* from = static_cast<const std::byte*>(x.data) + (row * x.cols + unit * kUnitCols) * 2;
          copy_async(stage + chunk_place(token, chunk) * kCopyBytes, from + chunk * kCopyBytes, valid);
        }
        if (unit % P::kUnits == 0) {
          const int record = unit / P::kUnits;
          std::byte* slot = own_records + record % P::kSlots * kSlotBytes;
#pragma unroll
          for (int tile = 0; tile < kWarpTiles; ++tile) {
            for (int at = lane * kCopyBytes; at < P::kRecordBytes; at += 32 * kCopyBytes) {
              copy_async(slot + tile * P::kRecordBytes + at,
                         tiles.records[tile] + size_t(record) * P::kRecordBytes + at, true);
            }
          }
        }
      }
      commit_copies();  // An empty group too: the count of groups is what is waited for.
    };

    for (int unit = 0; unit < P::kStages - 1; ++unit) fetch(unit);
    for (int unit = 0; unit < n_units; ++unit) {
      wait_copies<P::kStages - 2>();
      __syncthreads();  // This stage is there for all, and the one before it is no longer read.
      fetch(unit + P::kStages - 1);
      const std::byte* records = own_records + unit / P::kUnits % P::kSlots * kSlotBytes;
      add_unit(records, unit % P::kUnits, shared + unit % P::kStages * P::kStageBytes, lane);
    }
  }

 private:
  __device__ void add_unit(const std::byte* records, int unit, const std::byte* stage, int lane) {
    const int g = lane / 4;
    const int t = lane % 4;
    PackedUnit<is_quantised(kType) ? kType : DType::kQ8_0> units[kWarpTiles];
    if constexpr (is_quantised(kType)) {
#pragma unroll
      for (int tile = 0; tile < kWarpTiles; ++tile) units[tile].load(records + tile * P::kRecordBytes, unit, lane);
    }
#pragma unroll
    for (int b = 0; b < kUnitCols / 32; ++b) {
      uint32_t a[kWarpTiles][2][4];
#pragma unroll
      for (int tile = 0; tile < kWarpTiles; ++tile) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if constexpr (is_quantised(kType)) {
            units[tile].fragment(b, half, a[tile][half]);
          } else {
            const std::byte* at = records + tile * P::kRecordBytes + (2 * b + half) * 512 + lane * 16;
            const uint4 v = *reinterpret_cast<const uint4*>(at);
            a[tile][half][0] = v.x;
            a[tile][half][1] = v.z;
            a[tile][half][2] = v.y;
            a[tile][half][3] = v.w;
          }
        }
      }
      // Products of one sum lie some instructions apart, since each waits for the one before.
#pragma unroll
      for (int first = 0; first < kColumnTiles; first += kTogether) {
        uint4 v[kTogether];
#pragma unroll
        for (int n = 0; n < kTogether; ++n) {
          v[n] = reinterpret_cast<const uint4*>(stage)[chunk_place((first + n) * 8 + g, 4 * b + t)];
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
          for (int n = 0; n < kTogether; ++n) {
#pragma unroll
            for (int tile = 0; tile < kWarpTiles; ++tile) {
              const uint32_t(&w)[4] = a[tile][half];
              mma_16bit<Value<kType>>(acc[tile][first + n], w[0], w[1], w[2], w[3], half == 0 ? v[n].x : v[n].z,
                                      half == 0 ? v[n].y : v[n].w);
            }
          }
        }
      }
    }
  }
};

template <DType kType>
__device__ inline const std::byte* tile_records(const PackedWeight& weight, int tile) {
  constexpr PackedFormat kFormat = packed_format(kType);
  // Tiles behind the last one are computed like it, and not stored.
  const int last = (weight.rows + kTileRows - 1) / kTileRows - 1;
  return weight.data + size_t(min(tile, last)) * (weight.cols / kFormat.cols) * kFormat.bytes();
}

template <DType kType, int kTokens>
__global__ void __launch_bounds__(kThreads, 2) matmul_kernel(const __grid_constant__ Work work) {
  begin_kernel();
  extern __shared__ __align__(128) std::byte shared[];
  int target = 0;
  while (target + 1 < kMatmulTargetsMax && int(blockIdx.y) >= work.first_block[target + 1]) ++target;
  const PackedWeight& weight = work.weights[target];
  const int first_tile = (int(blockIdx.y) - work.first_block[target]) * kBlockTiles + threadIdx.x / 32 * kWarpTiles;
  const int first_token = blockIdx.x * kTokens;
  Product<kType, kTokens> product;
  product.run({tile_records<kType>(weight, first_tile), tile_records<kType>(weight, first_tile + 1)}, work.x,
              first_token, shared);

  constexpr float kFactor = is_quantised(kType) ? 1.0f / kHalfWeightFactor : 1.0f;
  const int g = threadIdx.x % 32 / 4;
  const int t = threadIdx.x % 4;
  const float* bias = work.biases[target];
#pragma unroll
  for (int tile = 0; tile < kWarpTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = (first_tile + tile) * kTileRows + g + 8 * (i / 2);
      if (row >= weight.rows) continue;
      const float offset = bias != nullptr ? bias[row] : 0.0f;
#pragma unroll
      for (int n = 0; n < kTokens / 8; ++n) {
        const int token = first_token + n * 8 + 2 * t + i % 2;
        if (token >= work.x.n_rows) continue;
        float* out = work.outs[target] + size_t(token) * weight.rows + row;
        const float value = product.acc[tile][n][i] * kFactor + offset;
        *out = work.accumulate ? *out + value : value;
      }
    }
  }
}

template <DType kType, int kTokens>
__global__ void __launch_bounds__(kThreads, 2) gated_matmul_kernel(const __grid_constant__ Work work) {
  begin_kernel();
  extern __shared__ __align__(128) std::byte shared[];
  const int tile = blockIdx.y * kWarps + threadIdx.x / 32;
  const int first_token = blockIdx.x * kTokens;
  Product<kType, kTokens> product;
  product.run({tile_records<kType>(work.weights[0], tile), tile_records<kType>(work.weights[1], tile)}, work.x,
              first_token, shared);

  constexpr float kFactor = is_quantised(kType) ? 1.0f / kHalfWeightFactor : 1.0f;
  const int g = threadIdx.x % 32 / 4;
  const int t = threadIdx.x % 4;
  auto* out = static_cast<uint16_t*>(work.gated_out.data);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = tile * kTileRows + g + 8 * (i / 2);
    if (row >= work.weights[0].rows) continue;
    const size_t place = size_t(row / 32 * 32 + 4 * place_of(row % 32 / 4) + row % 4);
#pragma unroll
    for (int n = 0; n < kTokens / 8; ++n) {
      const int token = first_token + n * 8 + 2 * t + i % 2;
      if (token >= work.x.n_rows) continue;
      const float value = gated(product.acc[0][n][i] * kFactor, product.acc[1][n][i] * kFactor);
      out[size_t(token) * work.gated_out.cols + place] =
          uint16_t(work.gated_out.type == OperandType::kF16 ? pack_f16(value, 0.0f) : pack_bf16(value, 0.0f));
    }
  }
}

template <DType kType, int kTokens, bool kGated>
cudaError_t start(const Work& work, int n_blocks, cudaStream_t stream) {
  using P = Plan<kType, kTokens>;
  const auto kernel = kGated ? gated_matmul_kernel<kType, kTokens> : matmul_kernel<kType, kTokens>;
  static SharedMemoryLimit limit;
  if (const cudaError_t error = limit.raise(kernel, P::kBytes); error != cudaSuccess) return error;
  const dim3 grid((work.x.n_rows + kTokens - 1) / kTokens, n_blocks);
  return launch(kernel, grid, kThreads, P::kBytes, stream, work);
}

/// The widest tile of tokens that still gives a large GPU two blocks a multiprocessor.
template <DType kType, bool kGated>
cudaError_t start_for(const Work& work, int n_blocks, cudaStream_t stream) {
  constexpr int kBlocksWanted = 240;
  const auto blocks = [&](int tokens) { return (work.x.n_rows + tokens - 1) / tokens * n_blocks; };
  if (work.x.n_rows > 64 && blocks(128) >= kBlocksWanted) return start<kType, 128, kGated>(work, n_blocks, stream);
  if (work.x.n_rows > 32 && blocks(64) >= kBlocksWanted / 2) return start<kType, 64, kGated>(work, n_blocks, stream);
  return start<kType, 32, kGated>(work, n_blocks, stream);
}

bool weight_fits(const PackedWeight& weight, const Operand& x) {
  return weight.rows > 0 && weight.cols == x.cols && packed_bytes(weight.dtype, weight.rows, weight.cols) > 0 &&
         x.type == matmul_operand(weight.dtype);
}

}  // namespace

cudaError_t matmul(const MatmulParams& p, cudaStream_t stream) {
  if (p.n_targets < 1 || p.n_targets > kMatmulTargetsMax || p.x.n_rows < 0) return cudaErrorInvalidValue;
  for (int i = 0; i < p.n_targets; ++i) {
    if (!weight_fits(p.targets[i].weight, p.x)) return cudaErrorInvalidValue;
  }
  if (p.x.n_rows == 0) return cudaSuccess;
  // One launch for each type among the targets.
  bool done[kMatmulTargetsMax] = {};
  for (int first = 0; first < p.n_targets; ++first) {
    if (done[first]) continue;
    const DType dtype = p.targets[first].weight.dtype;
    Work work = {.x = p.x, .accumulate = p.accumulate};
    int n = 0;
    int n_blocks = 0;
    for (int i = first; i < p.n_targets; ++i) {
      if (p.targets[i].weight.dtype != dtype) continue;
      done[i] = true;
      work.weights[n] = p.targets[i].weight;
      work.biases[n] = p.targets[i].bias;
      work.outs[n] = p.targets[i].out;
      work.first_block[n++] = n_blocks;
      n_blocks += (p.targets[i].weight.rows + kBlockTiles * kTileRows - 1) / (kBlockTiles * kTileRows);
    }
    for (; n <= kMatmulTargetsMax; ++n) work.first_block[n] = n_blocks;
    cudaError_t error = cudaErrorInvalidValue;
    with_packed_type(dtype,
                     [&](auto type) { error = start_for<decltype(type)::value, false>(work, n_blocks, stream); });
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t gated_matmul(const GatedMatmulParams& p, cudaStream_t stream) {
  if (p.x.n_rows < 0 || p.out.n_rows != p.x.n_rows || p.out.cols != p.gate.rows || p.out.type == OperandType::kQ8 ||
      !operand_valid(p.out) || !weight_fits(p.gate, p.x) || !weight_fits(p.up, p.x) || p.gate.dtype != p.up.dtype ||
      p.gate.rows != p.up.rows) {
    return cudaErrorInvalidValue;
  }
  if (p.x.n_rows == 0) return cudaSuccess;
  const Work work = {.weights = {p.gate, p.up}, .x = p.x, .gated_out = p.out};
  const int n_blocks = (p.gate.rows + kWarps * kTileRows - 1) / (kWarps * kTileRows);
  cudaError_t error = cudaErrorInvalidValue;
  with_packed_type(p.gate.dtype,
                   [&](auto type) { error = start_for<decltype(type)::value, true>(work, n_blocks, stream); });
  return error;
}

}  // namespace nosa::cuda
