#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "core/status.h"

namespace nosa {

/// Expands a row of any type to floats: plain loops, the truth that faster code is compared with.
///
/// `row` is row_bytes(dtype, n_values) bytes and need not be aligned; `out` has `n_values` floats.
/// REQUIRES: `n_values` is a multiple of block_values(dtype), zero allowed.
void dequantize_row(DType dtype, const std::byte* row, int64_t n_values, float* out);

/// Packs floats into a row of `dtype`, each block on its own, with the scale that maps its
/// extremes. The k-quants, whose packing is a search, are not offered: kUnsupported.
///
/// `out` receives row_bytes(dtype, n_values) bytes. Fails with kInvalidArgument when `n_values` is
/// not a multiple of block_values(dtype).
Status quantize_row(DType dtype, const float* values, int64_t n_values, std::byte* out);

}  // namespace nosa
