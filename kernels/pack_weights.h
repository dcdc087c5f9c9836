#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace nosa::cuda {

/// A weight matrix [rows, cols] in the order in which the matrix units read it: tiles of 16 rows, each
/// a run of records of 64 columns (256 for k-quants); common/packed_chunk.cuh says what a record holds.
/// The same values as the file's, to the bit; some percent larger where 6-bit scales are widened.
struct PackedWeight {
  const std::byte* data;  // packed_bytes(...), 16-byte aligned
  DType dtype;
  int rows;  // any; the last tile is padded with zeros
  int cols;  // a multiple of 64, of 256 for k-quants
};

/// Bytes of a packed matrix; 0 when it cannot be packed: kF32, or `cols` is no multiple of the record's columns.
size_t packed_bytes(DType dtype, int rows, int cols);

/// Packs rows first_row .. first_row + n_rows - 1, so that a large matrix can pass through a small buffer.
struct PackWeightsParams {
  const std::byte* raw;  // [n_rows, row_bytes(dtype, cols)], as in the file, 16-byte aligned
  std::byte* packed;     // the whole matrix
  DType dtype;
  int rows;  // of the whole matrix
  int cols;
  int first_row;  // a multiple of 16
  int n_rows;     // a multiple of 16, or all that are left
};

cudaError_t pack_weights(const PackWeightsParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
