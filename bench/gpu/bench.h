// What the parts of the GPU's benchmark share.
#pragma once

#include <cuda_runtime.h>

#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/status.h"
#include "cuda/runner.h"

namespace nosa::bench {

/// Ends the program: after a broken call nothing that follows means anything.
[[noreturn]] void fail(const std::string& what);
void must(cudaError_t error, const char* what);
void must(const Status& status, const char* what);

template <typename T>
T must(Result<T> result, const char* what) {
  must(result.status(), what);
  return *std::move(result);
}

/// One line of JSON a figure, on standard output and in the result.
class Figures {
 public:
  Figures& begin(const std::string& name);
  Figures& add(const std::string& key, double value);
  Figures& add(const std::string& key, const std::string& value);
  void end();
  /// All lines as one JSON list.
  void write(const std::string& path) const;

 private:
  std::string line_;
  std::vector<std::string> lines_;
};

struct Settings {
  std::string model;           // --model: a GGUF file
  std::string tokens;          // --tokens: int32 ids of a text
  double nosa_misses = 0.71;   // at 128 slots; --nosa-misses
  double exact_misses = 3.58;  // at 64 slots; --exact-misses
  double infllm_misses = 3.0;  // at 128 slots; --infllm-misses
  double infllm_exact_misses = 7.1;  // at 64 slots; --infllm-exact-misses
  int context = 131072;        // --context
  int steps = 256;             // --steps
  int layers = 32;             // --layers, of the 8B shape
  double host_gib = 100;       // --host-gib
  std::string library;         // --library: libnosa_cuda.so
  std::string llama_bench;     // --llama-bench: llama.cpp's benchmark, built for this GPU
  int prompt = 4096;           // --prompt, tokens that a session reads
};

/// Ceilings of this machine, in bytes a second.
struct Ceilings {
  double device_copy = 0;     // device to device, read and written
  double pinned_to_device = 0;
};

/// The shape of NOSA's 8B model with random bf16 weights, all layers from the same bytes.
std::unique_ptr<cuda::ModelSource> random_8b(int n_layers, std::vector<std::byte>& memory);

/// Bytes that one decode step must read at least: weights, compressed keys and attended blocks.
double step_bytes(cuda::Runner& runner, const cuda::ModelSource& source, int n_seqs, int n_tokens, int n_attended_blocks);

/// Makes every stream of a decode step fetch `fresh` blocks on average, see force_scores.h. The memory must outlive the
/// runner. `n_tokens`: of the shortest sequence.
cuda::DeviceBuffer force_misses(cuda::Runner& runner, const cuda::RunnerOptions& options, int n_tokens, double fresh);

/// A sequence of `n_tokens` tokens whose blocks hold random numbers.
cuda::SequenceKey fabricate(cuda::Runner& runner, int n_tokens, uint32_t seed);

/// Fills pinned memory with random halves, once for all.
void fill_random(std::byte* memory, size_t bytes);

Ceilings measure_ceilings(Figures& figures);
void gather(Figures& figures, const Ceilings& ceilings);
void decode_8b(Figures& figures, const Settings& settings, const Ceilings& ceilings);
/// What it finds of misses is what many() forces afterwards.
void decode_model(Figures& figures, Settings& settings, const Ceilings& ceilings);
void engine_session(Figures& figures, const Settings& settings);
/// Ours and llama.cpp's in turns.
void beside_llama(Figures& figures, const Settings& settings);
void many(Figures& figures, const Settings& settings, const Ceilings& ceilings);

}  // namespace nosa::bench
