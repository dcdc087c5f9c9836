// What a kernel test needs: checks, random numbers, device memory that is poisoned and guarded, and
// timing.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace nosa::test {

inline int failures = 0;

/// Ends the program: after a broken call nothing that follows means anything.
inline void must(cudaError_t error, const char* what, const char* file, int line) {
  if (error == cudaSuccess) return;
  std::printf("%s:%d: %s: %s\n", file, line, what, cudaGetErrorString(error));
  std::exit(1);
}
#define MUST(call) ::nosa::test::must((call), #call, __FILE__, __LINE__)

inline void check(bool holds, const std::string& what, const char* file, int line) {
  if (holds) return;
  failures += 1;
  if (failures <= 20) std::printf("%s:%d: failed: %s\n", file, line, what.c_str());
}
#define EXPECT(condition, what) ::nosa::test::check((condition), (what), __FILE__, __LINE__)

struct Options {
  bool time = false;   // --time: print times instead of checking
  bool small = false;  // --small: shapes for compute-sanitizer
};

inline Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    options.time = options.time || std::strcmp(argv[i], "--time") == 0;
    options.small = options.small || std::strcmp(argv[i], "--small") == 0;
  }
  return options;
}

/// Random numbers with a seed of their own in every run, which NOSA_SEED repeats.
class Random {
 public:
  Random() {
    const char* given = std::getenv("NOSA_SEED");
    seed_ = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed_));
    engine_.seed(seed_);
  }
  float normal() { return normal_(engine_); }
  float uniform(float from, float to) {
    return std::uniform_real_distribution<float>(from, to)(engine_);
  }
  /// from .. to, both included.
  int integer(int from, int to) { return std::uniform_int_distribution<int>(from, to)(engine_); }
  std::vector<float> normals(size_t n, float scale = 1.0f) {
    std::vector<float> values(n);
    for (float& value : values) value = scale * normal();
    return values;
  }
  std::vector<__half> halves(size_t n, float scale = 1.0f) {
    std::vector<__half> values(n);
    for (__half& value : values) value = __float2half_rn(scale * normal());
    return values;
  }
  std::mt19937_64& engine() { return engine_; }

 private:
  uint64_t seed_;
  std::mt19937_64 engine_;
  std::normal_distribution<float> normal_;
};

/// `n` values on the device between two guards. Fresh ones hold 0xff bytes: NaN, -1 or the highest
/// number.
template <typename T>
class Device {
 public:
  explicit Device(size_t n) : n_(n) {
    MUST(cudaMalloc(&memory_, bytes() + 2 * kGuard));
    MUST(cudaMemset(memory_, kGuardByte, bytes() + 2 * kGuard));
    poison();
  }
  explicit Device(const std::vector<T>& values) : Device(values.size()) { put(values); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() {
    check_guards();
    cudaFree(memory_);
  }

  T* data() { return reinterpret_cast<T*>(memory_ + kGuard); }
  size_t size() const { return n_; }
  size_t bytes() const { return n_ * sizeof(T); }

  void poison() { MUST(cudaMemset(data(), 0xff, bytes())); }
  void put(const std::vector<T>& values) {
    MUST(cudaMemcpy(data(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  std::vector<T> get() {
    std::vector<T> values(n_);
    MUST(cudaDeviceSynchronize());
    MUST(cudaMemcpy(values.data(), data(), bytes(), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  static constexpr size_t kGuard = 256;
  static constexpr int kGuardByte = 0xa5;

  void check_guards() {
    std::vector<uint8_t> guard(kGuard);
    for (const uint8_t* at : {memory_, memory_ + kGuard + bytes()}) {
      MUST(cudaMemcpy(guard.data(), at, kGuard, cudaMemcpyDeviceToHost));
      const bool whole =
          std::all_of(guard.begin(), guard.end(), [](uint8_t b) { return b == kGuardByte; });
      EXPECT(whole, "a kernel wrote outside its buffer");
    }
  }

  size_t n_;
  uint8_t* memory_ = nullptr;
};

/// Pinned host memory that kernels read and write through data() and the program through host().
template <typename T>
class Mapped {
 public:
  explicit Mapped(size_t n) : n_(n) {
    MUST(cudaHostAlloc(&memory_, n * sizeof(T), cudaHostAllocMapped));
    MUST(cudaHostGetDevicePointer(reinterpret_cast<void**>(&device_), memory_, 0));
  }
  Mapped(const Mapped&) = delete;
  Mapped& operator=(const Mapped&) = delete;
  ~Mapped() { cudaFreeHost(memory_); }

  T* host() { return memory_; }
  T* data() { return device_; }
  size_t size() const { return n_; }

 private:
  size_t n_;
  T* memory_ = nullptr;
  T* device_ = nullptr;
};

/// |got - want| / |want| over all values; infinite when some value is no number.
template <typename Got, typename Want>
double relative_norm(const std::vector<Got>& got, const std::vector<Want>& want) {
  double error = 0.0;
  double total = 0.0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double difference = double(got[i]) - double(want[i]);
    if (std::isnan(difference)) return INFINITY;
    error += difference * difference;
    total += double(want[i]) * double(want[i]);
  }
  return total > 0.0 ? std::sqrt(error / total) : std::sqrt(error);
}

/// Median microseconds of one call of `work`, from replays of a graph that holds `n_calls` of them.
/// `work` gets the number of the call, to rotate among inputs that together exceed the cache.
inline double median_us(const std::function<void(int, cudaStream_t)>& work, int n_calls = 20,
                        int n_replays = 15) {
  cudaStream_t stream;
  MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < n_calls; ++i) work(i, stream);
  cudaGraph_t graph;
  MUST(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t exec;
  MUST(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t from, to;
  MUST(cudaEventCreate(&from));
  MUST(cudaEventCreate(&to));
  std::vector<float> times;
  for (int i = 0; i < n_replays + 3; ++i) {
    MUST(cudaEventRecord(from, stream));
    MUST(cudaGraphLaunch(exec, stream));
    MUST(cudaEventRecord(to, stream));
    MUST(cudaEventSynchronize(to));
    float ms = 0.0f;
    MUST(cudaEventElapsedTime(&ms, from, to));
    if (i >= 3) times.push_back(ms);
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  MUST(cudaGraphExecDestroy(exec));
  MUST(cudaGraphDestroy(graph));
  MUST(cudaEventDestroy(from));
  MUST(cudaEventDestroy(to));
  MUST(cudaStreamDestroy(stream));
  return 1000.0 * times[times.size() / 2] / n_calls;
}

/// The last line of main().
inline int report(const char* name) {
  MUST(cudaDeviceSynchronize());
  std::printf(failures == 0 ? "PASS %s\n" : "FAIL %s\n", name);
  return failures == 0 ? 0 : 1;
}

}  // namespace nosa::test
