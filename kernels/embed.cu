// One thread per (row, record, t): it loads what lane 4 g + t of the row's tile would and keeps its row's half.
#include "embed.h"

#include "common/launch.cuh"
#include "common/packed_chunk.cuh"

namespace nosa::cuda {
namespace {

constexpr int kThreads = 128;

template <DType kType>
__device__ void expand(const std::byte* record, int row, int t, float* out) {
  PackedChunk<kType> chunk;
  chunk.load(record, row % 8 * 4 + t);
  const bool second = row >= 8;
#pragma unroll
  for (int b = 0; b < PackedChunk<kType>::kBlocks; ++b) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t word = second ? chunk.word(b, 2 * half + 1) : chunk.word(b, 2 * half);
      const float2 scale = second ? chunk.scale(b, half, 1) : chunk.scale(b, half, 0);
      const auto value = [&](int i) { return scale.x * float(int8_t(byte_of(word, i))) - scale.y; };
      reinterpret_cast<float4*>(out)[b * 8 + half * 4 + t] = make_float4(value(0), value(1), value(2), value(3));
    }
  }
}

template <DType kType>
__device__ void expand_16bit(const std::byte* record, int row, int t, float* out) {
  PackedChunk16 chunk;
  chunk.load(record, row % 8 * 4 + t);
  const bool second = row >= 8;
#pragma unroll
  for (int step = 0; step < PackedChunk16::kSteps; ++step) {
    float v[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t word = second ? chunk.w[step][2 + i / 2] : chunk.w[step][i / 2];
      const uint32_t bits = i % 2 == 0 ? word & 0xffff : word >> 16;
      v[i] = kType == DType::kF16 ? low_half(bits) : __uint_as_float(bits << 16);
    }
    reinterpret_cast<float4*>(out)[step * 4 + t] = make_float4(v[0], v[1], v[2], v[3]);
  }
}

template <DType kType>
__global__ void embed_kernel(EmbedParams p) {
  begin_kernel();
  constexpr PackedFormat kFormat = packed_format(kType);
  const int n_records = p.table.cols / kFormat.cols;
  const int at = blockIdx.x * kThreads + threadIdx.x;
  const int record_idx = at / 4;
  if (record_idx >= n_records) return;
  const int n = blockIdx.y;
  const int id = p.ids[n];
  float* out = p.out + size_t(n) * p.table.cols + record_idx * kFormat.cols;
  if (id < 0 || id >= p.table.rows) {
    for (int i = at % 4; i < kFormat.cols / 4; i += 4) {
      reinterpret_cast<float4*>(out)[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    return;
  }
  const std::byte* record = p.table.data + (size_t(id / kTileRows) * n_records + record_idx) * kFormat.bytes();
  if constexpr (is_quantised(kType)) {
    expand<kType>(record, id % kTileRows, at % 4, out);
  } else {
    expand_16bit<kType>(record, id % kTileRows, at % 4, out);
  }
}

template <DType kType>
cudaError_t start(const EmbedParams& p, cudaStream_t stream) {
  const int n_threads = p.table.cols / packed_format(kType).cols * 4;
  const dim3 grid((n_threads + kThreads - 1) / kThreads, p.n_rows);
  return launch(embed_kernel<kType>, grid, kThreads, 0, stream, p);
}

}  // namespace

cudaError_t embed(const EmbedParams& p, cudaStream_t stream) {
  constexpr int kGridRowsMax = 65535;
  if (p.n_rows < 0 || p.n_rows > kGridRowsMax || p.table.rows < 0) return cudaErrorInvalidValue;
  if (packed_bytes(p.table.dtype, kTileRows, p.table.cols) == 0) return cudaErrorInvalidValue;
  if (p.n_rows == 0) return cudaSuccess;
  cudaError_t error = cudaErrorInvalidValue;
  with_packed_type(p.table.dtype, [&](auto type) { error = start<decltype(type)::value>(p, stream); });
  return error;
}

}  // namespace nosa::cuda
