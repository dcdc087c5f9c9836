#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>
#include <vector>

namespace nosa::test {

/// Fresh random numbers in every run; the seed is printed, and NOSA_TEST_SEED repeats a run.
inline uint64_t fresh_seed() {
  const char* fixed = std::getenv("NOSA_TEST_SEED");
  const uint64_t seed = fixed != nullptr
                            ? std::strtoull(fixed, nullptr, 10)
                            : (uint64_t{std::random_device{}()} << 32 | std::random_device{}());
  std::cout << "seed " << seed << " (repeat with NOSA_TEST_SEED)\n";
  return seed;
}

class Random {
 public:
  explicit Random(uint64_t seed = fresh_seed()) : engine_(seed) {}

  /// Uniform in [low, high], both included.
  int64_t between(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(engine_);
  }
  uint32_t bits() { return static_cast<uint32_t>(engine_()); }
  float normal(float deviation = 1.0f) {
    return std::normal_distribution<float>(0.0f, deviation)(engine_);
  }
  std::vector<float> normals(int64_t n, float deviation = 1.0f) {
    std::vector<float> values(static_cast<size_t>(n));
    for (float& value : values) value = normal(deviation);
    return values;
  }
  std::vector<std::byte> bytes(int64_t n) {
    std::vector<std::byte> values(static_cast<size_t>(n));
    for (std::byte& value : values) value = static_cast<std::byte>(engine_());
    return values;
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace nosa::test
