// What libnosa_cuda offers to those who load it at run time: plain C, so that the library and its user share nothing but
// this page. Both are built from one tree; `abi` tells them apart when they are not.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NOSA_CUDA_ABI 1

/// What a look at the GPU found.
typedef struct NosaCudaProbe {
  int32_t abi;           // NOSA_CUDA_ABI of the library
  int32_t usable;        // 1 when a kernel of ours ran and gave the right answer
  char gpu[256];         // its name, when there is one
  int32_t capability;    // 10 * major + minor, such as 90
  int32_t driver;        // CUDA version that the driver supports, 1000 * major + 10 * minor; 0 without a driver
  int32_t runtime;       // CUDA version that the library was built with, likewise
  uint64_t free_bytes;   // device memory
  uint64_t total_bytes;
  char reason[512];      // why it is not usable: a sentence
} NosaCudaProbe;

/// Looks at the first GPU and tries it. May end the process when the driver is broken: call it in one to spare.
void nosa_cuda_probe(NosaCudaProbe* probe);

/// Weights on the device, and products with them; see products.h. Calls that fail give their least value and leave a
/// sentence in `error`. Not thread-safe.
typedef struct NosaCudaProducts NosaCudaProducts;

typedef struct NosaCudaTarget {
  int32_t weight;     // of nosa_cuda_products_add
  int32_t row_begin;  // rows of the weight to compute
  int32_t n_rows;
  const float* bias;  // [n_rows] or null
  float* out;         // [n_tokens, n_rows]
} NosaCudaTarget;

/// Null when it fails.
NosaCudaProducts* nosa_cuda_products_open(char* error, size_t error_bytes);
void nosa_cuda_products_close(NosaCudaProducts* products);

/// Uploads a weight [rows, cols] of `dtype` (the number of core/dtype.h); its number, or -1.
int32_t nosa_cuda_products_add(NosaCudaProducts* products, const void* data, int32_t dtype, int64_t rows, int64_t cols,
                               char* error, size_t error_bytes);

/// All targets of one x [n_tokens, cols]; 1, or 0 when it fails.
int32_t nosa_cuda_products_run(NosaCudaProducts* products, const NosaCudaTarget* targets, int32_t n_targets, const float* x,
                               int32_t n_tokens, char* error, size_t error_bytes);

#ifdef __cplusplus
}  // extern "C"
#endif
