#pragma once

#include <map>
#include <string>
#include <vector>

#include "support/tiny_model.h"

namespace nosa::test {

/// A random NOSA adapter for a tiny model, which has updates of all projections.
class TinyAdapter {
 public:
  static constexpr const char* base_sha256 =
      "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

  /// `base` must outlive the adapter.
  TinyAdapter(const TinyModel& base, int rank, Random& random);

  /// What its file says; to be changed by who tests what is refused.
  std::map<std::string, std::string> metadata;

  struct Tensor {
    std::string type;  // As in the file.
    std::vector<int64_t> shape;
    Bytes bytes;
  };
  /// By the name in the file.
  std::map<std::string, Tensor> tensors;

  /// Writes the file and returns its path.
  std::string write(const TempFolder& folder, const std::string& name) const;

  /// The model with the updates in its weights, and the eviction heads.
  TinyModel merged() const;

 private:
  void add(const std::string& name, const std::vector<int64_t>& shape, DType dtype, float deviation,
           Random& random);
  std::vector<float> values(const std::string& name) const;

  const TinyModel& base_;
  int rank_;
  float alpha_;
};

}  // namespace nosa::test
