// What libnosa_cuda offers to those who load it at run time: plain C, so that the library and its user share nothing but
// this page. Both are built from one tree; `abi` tells them apart when they are not.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NOSA_CUDA_ABI 5

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

/// A network on the GPU, and copies of sequences; see runner.h, whose methods these are. Calls that can fail give 1, or 0
/// and say why. Not thread-safe.
typedef struct NosaCudaRunner NosaCudaRunner;

enum {
  NOSA_CUDA_FULL = 1,      // No memory of some kind is left.
  NOSA_CUDA_NOT_HERE = 2,  // Valid, but the GPU does not do it.
  NOSA_CUDA_FAILED = 3     // The GPU or its driver failed: everything else will too.
};

typedef struct NosaCudaError {
  int32_t code;
  char text[512];
} NosaCudaError;

typedef struct NosaCudaTensor {
  const void* data;
  int32_t dtype;  // the number of core/dtype.h
  int64_t rows;
  int64_t cols;
} NosaCudaTensor;

typedef struct NosaCudaLinear {
  NosaCudaTensor weight;
  const float* bias;  // [rows] or null
} NosaCudaLinear;

/// See model_source.h.
typedef struct NosaCudaLayer {
  const float* attn_norm;
  const float* ffn_norm;
  NosaCudaLinear q, k, v, out, gate, up, down;
  const float* eviction_a;
  const float* eviction_delta;
  const float* eviction_delta_bias;
} NosaCudaLayer;

typedef struct NosaCudaNetwork {
  int32_t n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_dim, n_vocab, n_rotated;
  int32_t rope_neighbours;
  float rms_eps;
  float rope_magnitude;
  const float* inv_freq;
  NosaCudaTensor embedding;
  const float* output_norm;
  NosaCudaTensor output;
  const NosaCudaLayer* layers;
  int32_t keeps_choices;  // 1, for tests: next_choice() tells what queries chose
} NosaCudaNetwork;

/// What a runner took, and what it can do.
typedef struct NosaCudaPlan {
  uint64_t device_bytes;
  uint64_t host_bytes;       // page-locked
  int32_t n_pages;           // blocks of 64 tokens of all sequences
  int32_t n_blocks_max;      // that one sequence sees
  int32_t chunk_tokens;      // of one advance
  int32_t step_tokens;       // of one advance whose tokens choose their blocks
  int32_t head_rows;         // rows of scores that are computed together
  int32_t step_sequences;    // of one advance_together
} NosaCudaPlan;

typedef struct NosaCudaSelection {
  int32_t policy;  // the number of kv/selection.h
  int32_t total_blocks, query_blocks, sink_blocks, window_blocks;
  const uint8_t* flags;  // [n_flags] by attended block: 1 masked, 2 pinned; or null
  int32_t n_flags;
} NosaCudaSelection;

typedef struct NosaCudaBlock {
  int32_t n_tokens;              // 1 .. 64
  const uint8_t* const* extents;  // [n_layers * n_kv_heads]
  const uint16_t* compressed;    // f16 [n_layers * n_kv_heads, 4, head_dim]
  const float* token_scores;     // [n_layers * n_kv_heads, 64]
  const float* window_scores;    // [n_layers * n_kv_heads, 4]
} NosaCudaBlock;

typedef struct NosaCudaAdvance {
  uint64_t key;
  const uint32_t* tokens;  // [n_tokens]
  int32_t n_tokens;
  int32_t n_hidden;        // of the last so many
  int32_t detail;          // 1: what the last token attended to
} NosaCudaAdvance;

/// Good until the next call.
typedef struct NosaCudaAdvanced {
  const float* hidden;      // [n_hidden, n_embd]
  const int32_t* n_blocks;  // with detail: [n_layers * n_kv_heads]
  const int32_t* blocks;    // [n_layers * n_kv_heads, n_selected_max]
  const float* mass;        // likewise
  int32_t n_selected_max;
  uint64_t n_fetched;       // extents copied from host memory because queries chose them
} NosaCudaAdvanced;

/// A sequence's next token.
typedef struct NosaCudaNext {
  uint64_t key;
  uint32_t token;
  int32_t detail;  // as NosaCudaAdvance
} NosaCudaNext;

/// What became of it. Good until the next call.
typedef struct NosaCudaTogether {
  int32_t done;  // 0: the sequence is as it was
  NosaCudaAdvanced advanced;
  const float* logits;  // [n_vocab] of the token that follows
} NosaCudaTogether;

/// What one query chose. Good until the next call.
typedef struct NosaCudaChoice {
  uint64_t key;
  int32_t own_idx;          // of its token
  int32_t n_selected_max;
  const int32_t* n_blocks;  // [n_layers * n_kv_heads]
  const int32_t* blocks;    // [n_layers * n_kv_heads, n_selected_max] ascending
} NosaCudaChoice;

/// Where rows of a block go; see RowsRead of runner.h.
typedef struct NosaCudaRows {
  uint8_t* const* extents;  // [n_layers * n_kv_heads]
  float* scores;            // [n_layers * n_kv_heads, n_rows]
  uint16_t* compressed;     // f16 [n_layers * n_kv_heads, windows that the rows complete, head_dim]
  float* window_scores;     // [n_layers * n_kv_heads, likewise]
  int32_t has_windows;      // set: 1 when these two were
} NosaCudaRows;

typedef struct NosaCudaRunnerFunctions {
  /// Null when it fails. `host_bytes_max` is of page-locked memory. The network is only read meanwhile.
  NosaCudaRunner* (*open)(const NosaCudaNetwork* network, uint64_t host_bytes_max, NosaCudaPlan* plan, NosaCudaError* error);
  void (*close)(NosaCudaRunner* runner);
  /// Room for sequences that see `n_blocks`. When it gives 1, all sequences are gone, and `plan` says what there is now, which
  /// may still be less; with NOSA_CUDA_FAILED the runner can only be closed; else nothing has changed.
  int32_t (*grow)(NosaCudaRunner* runner, int32_t n_blocks, uint64_t host_bytes_max, NosaCudaPlan* plan, NosaCudaError* error);
  /// A sequence's number, or 0.
  uint64_t (*create)(NosaCudaRunner* runner, int32_t base_position, NosaCudaError* error);
  uint64_t (*fork)(NosaCudaRunner* runner, uint64_t key, NosaCudaError* error);
  void (*drop)(NosaCudaRunner* runner, uint64_t key);
  int32_t (*attend)(NosaCudaRunner* runner, uint64_t key, const uint64_t* others, int32_t n_others, NosaCudaError* error);
  int32_t (*select)(NosaCudaRunner* runner, uint64_t key, const NosaCudaSelection* selection, NosaCudaError* error);
  int32_t (*put)(NosaCudaRunner* runner, uint64_t key, const NosaCudaBlock* block, NosaCudaError* error);
  int32_t (*cut)(NosaCudaRunner* runner, uint64_t key, int32_t n_tokens, NosaCudaError* error);
  int32_t (*advance)(NosaCudaRunner* runner, const NosaCudaAdvance* request, NosaCudaAdvanced* out, NosaCudaError* error);
  /// One token of each of several sequences, each sequence once, in one step: of as many as go with the first that goes
  /// through a step at all. Those left out are for another call, or for advance(). `out` is [n].
  int32_t (*advance_together)(NosaCudaRunner* runner, const NosaCudaNext* next, int32_t n, NosaCudaTogether* out, NosaCudaError* error);
  /// Rows [first_row, first_row + n_rows) of a block, which the last advance, alone or together, computed.
  int32_t (*read)(NosaCudaRunner* runner, uint64_t key, int32_t block, int32_t first_row, int32_t n_rows, NosaCudaRows* to,
                  NosaCudaError* error);
  /// hidden [n_rows, n_embd] to logits [n_rows, n_vocab].
  int32_t (*head)(NosaCudaRunner* runner, const float* hidden, int32_t n_rows, float* logits, NosaCudaError* error);
  /// The next query that chose, in the order in which they were computed; 0 when all are told.
  int32_t (*next_choice)(NosaCudaRunner* runner, NosaCudaChoice* out);
} NosaCudaRunnerFunctions;

const NosaCudaRunnerFunctions* nosa_cuda_runner_functions(void);

#ifdef __cplusplus
}  // extern "C"
#endif
