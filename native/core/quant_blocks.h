#pragma once

#include <bit>
#include <cstdint>

#include "core/dtype.h"

namespace nosa {

// The packed blocks of the GGUF format, as they lie in files and in memory (little endian, no
// padding; 2-byte alignment). Source of the layouts: the public GGUF/ggml format. Written once
// here, used by the CPU operations, by the CUDA kernels and by the tests.
//
// `d` and `m` (`dmin`) are binary16 bits: see half.h. In the 32-value types, byte j of `qs` holds
// value j in its low and value j + 16 in its high nibble.

static_assert(std::endian::native == std::endian::little, "files are read in place");

/// value[i] = d * qs[i]
struct BlockQ8_0 {
  uint16_t d;
  int8_t qs[32];
};

/// value[i] = d * (q[i] - 8), q of 4 bits
struct BlockQ4_0 {
  uint16_t d;
  uint8_t qs[16];
};

/// value[i] = d * q[i] + m, q of 4 bits
struct BlockQ4_1 {
  uint16_t d;
  uint16_t m;
  uint8_t qs[16];
};

/// value[i] = d * (q[i] - 16), q of 5 bits; the fifth bit of value i is bit i % 8 of qh[i / 8]
struct BlockQ5_0 {
  uint16_t d;
  uint8_t qh[4];
  uint8_t qs[16];
};

/// value[i] = d * q[i] + m, q of 5 bits, packed as in BlockQ5_0
struct BlockQ5_1 {
  uint16_t d;
  uint16_t m;
  uint8_t qh[4];
  uint8_t qs[16];
};

/// 256 values in 8 groups of 32: value[i] = d * scale[g] * q[i] - dmin * min[g].
///
/// `qs`: 32 bytes for two groups; bytes 32p .. 32p+31 hold group 2p in the low and group 2p + 1 in
/// the high nibbles. `scales`: 8 scales and 8 minima of 6 bits each, see k_scale_min().
struct BlockQ4_K {
  uint16_t d;
  uint16_t dmin;
  uint8_t scales[12];
  uint8_t qs[128];
};

/// As BlockQ4_K with a fifth bit: bit g of qh[l] belongs to value l of group g.
struct BlockQ5_K {
  uint16_t d;
  uint16_t dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};

/// 256 values in 16 groups of 16: value[i] = d * scales[i / 16] * (q[i] - 32), q of 6 bits.
///
/// Each half of 128 values has 64 bytes of `ql` and 32 of `qh`. With l = 0 .. 31, value 32k + l of
/// a half takes its low four bits from ql[32 (k % 2) + l] (low nibble for k = 0, 1, high nibble for
/// k = 2, 3) and its high two bits from bits 2k, 2k + 1 of qh[l].
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d;
};

static_assert(sizeof(BlockQ8_0) == block_bytes(DType::kQ8_0));
static_assert(sizeof(BlockQ4_0) == block_bytes(DType::kQ4_0));
static_assert(sizeof(BlockQ4_1) == block_bytes(DType::kQ4_1));
static_assert(sizeof(BlockQ5_0) == block_bytes(DType::kQ5_0));
static_assert(sizeof(BlockQ5_1) == block_bytes(DType::kQ5_1));
static_assert(sizeof(BlockQ4_K) == block_bytes(DType::kQ4_K));
static_assert(sizeof(BlockQ5_K) == block_bytes(DType::kQ5_K));
static_assert(sizeof(BlockQ6_K) == block_bytes(DType::kQ6_K));
static_assert(alignof(BlockQ6_K) == 2 && alignof(BlockQ4_K) == 2 && alignof(BlockQ8_0) == 2);

/// A 6-bit scale and a 6-bit minimum of one group of a BlockQ4_K or BlockQ5_K.
struct KScaleMin {
  uint8_t scale;
  uint8_t min;
};

/// Unpacks group 0 .. 7 of the 12 packed bytes. Groups 0 to 3 lie in the low six bits of bytes g
/// (scale) and g + 4 (minimum). Groups 4 to 7 have their low four bits in byte g + 4 and their high
/// two bits in the top of bytes g - 4 (scale) and g (minimum).
constexpr KScaleMin k_scale_min(const uint8_t (&packed)[12], int group) {
  if (group < 4) {
    return {static_cast<uint8_t>(packed[group] & 63), static_cast<uint8_t>(packed[group + 4] & 63)};
  }
  const int low = packed[group + 4];
  return {static_cast<uint8_t>((low & 15) | ((packed[group - 4] >> 6) << 4)),
          static_cast<uint8_t>((low >> 4) | ((packed[group] >> 6) << 4))};
}

}  // namespace nosa
