#pragma once

#include <cstdint>
#include <vector>

#include "support/tiny_model.h"

namespace nosa::test {

/// The whole of a tiny model in double precision and plain loops, written from the formulas and
/// sharing nothing with the engine: what a sequence, a header with segments and a tail must give.
class ReferenceModel {
 public:
  /// Tokens from a position on that see all tokens of some earlier parts, and their own past.
  struct Part {
    int base_position = 0;
    std::vector<uint32_t> tokens;
    std::vector<size_t> attends;  ///< Indices of earlier parts.
  };

  struct Answer {
    /// Log-probabilities of the token after each one of the last part, [n_tokens][n_vocab].
    std::vector<std::vector<double>> logprobs;
    /// Softmax mass of the last part's last token on each block of 64 of its attended parts, in
    /// order, averaged over layers and heads.
    std::vector<double> masses;
  };

  /// `model` must outlive the reference.
  explicit ReferenceModel(const TinyModel& model) : model_(model) {}

  Answer run(const std::vector<Part>& parts) const;

 private:
  using Row = std::vector<double>;
  /// By layer and token: [n_kv_heads * head_dim].
  struct Kv {
    std::vector<std::vector<Row>> k, v;
  };

  Row linear(const std::string& stem, const Row& x) const;
  Row norm(const std::string& name, const Row& x) const;
  void turn(Row& heads, int position) const;
  std::vector<Row> run_part(const Part& part, const std::vector<Kv>& earlier, Kv& own,
                            const std::vector<Part>& parts, std::vector<double>& masses) const;

  const TinyModel& model_;
};

}  // namespace nosa::test
