// link: kernels/sample.cu
// Drawing tokens, against a plain sampler that sorts everything and counts in double.
#include "kernels/sample.h"

#include <algorithm>
#include <numeric>

#include "harness.h"

using namespace nosa;
using namespace nosa::test;
using cuda::RowSampling;

namespace {

double uniform_at(uint64_t seed, uint64_t position) {
  const auto mix = [](uint64_t word) {
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9u;
    word = (word ^ word >> 27) * 0x94D049BB133111EBu;
    return word ^ word >> 31;
  };
  return double(mix(mix(seed + 0x9E3779B97F4A7C15u) + position * 0xD1B54A32D192ED03u) >> 11) * 0x1.0p-53;
}

struct Row {
  std::vector<float> logits;
  RowSampling options;
  std::vector<int32_t> recent, banned;
};

/// What is left after the cuts, in the order of the draw, each with its share of the row's own distribution.
struct Left {
  std::vector<int> ids;
  std::vector<double> shares;
  double cut_slack = 1.0;  // how near the sum of probabilities came to top_p without being the reason to stop
};

Left left_of(const Row& row) {
  std::vector<float> adjusted = row.logits;
  if (row.options.repetition_penalty != 1.0f) {
    for (const int32_t id : row.recent) {
      const float logit = row.logits[size_t(id)];
      adjusted[size_t(id)] =
          logit > 0 ? logit / row.options.repetition_penalty : logit * row.options.repetition_penalty;
    }
  }
  for (const int32_t id : row.banned) adjusted[size_t(id)] = -INFINITY;
  std::vector<int> order;
  for (int i = 0; i < int(adjusted.size()); ++i) {
    if (adjusted[size_t(i)] > -INFINITY) order.push_back(i);
  }
  Left left;
  if (order.empty()) {
    left.ids.push_back(int(std::max_element(row.logits.begin(), row.logits.end()) - row.logits.begin()));
    left.shares.push_back(1.0);
    return left;
  }
  const auto better = [&](int a, int b) {
    return adjusted[size_t(a)] != adjusted[size_t(b)] ? adjusted[size_t(a)] > adjusted[size_t(b)] : a < b;
  };
  std::sort(order.begin(), order.end(), better);
  const double best = adjusted[size_t(order[0])];
  if (!(row.options.temperature > 0)) order.resize(1);
  if (row.options.top_k > 0 && order.size() > size_t(row.options.top_k)) order.resize(size_t(row.options.top_k));
  if (row.options.top_p < 1.0f) {
    double total = 0.0;
    for (const int id : order) total += std::exp(adjusted[size_t(id)] - best);
    double sum = 0.0;
    size_t n = 0;
    while (n < order.size() && sum < double(row.options.top_p) * total) {
      sum += std::exp(adjusted[size_t(order[n++])] - best);
      left.cut_slack = std::min(left.cut_slack, std::fabs(sum / total - double(row.options.top_p)));
    }
    order.resize(n);
  }
  if (row.options.min_p > 0.0f) {
    std::erase_if(order, [&](int id) { return adjusted[size_t(id)] < float(best) + std::log(row.options.min_p); });
  }
  if (row.options.top_k == 0 && row.options.top_p >= 1.0f) std::sort(order.begin(), order.end());
  double total = 0.0;
  const double temperature = row.options.temperature > 0 ? row.options.temperature : 1.0;
  for (const int id : order) total += std::exp((adjusted[size_t(id)] - best) / temperature);
  for (const int id : order) left.shares.push_back(std::exp((adjusted[size_t(id)] - best) / temperature) / total);
  left.ids = order;
  return left;
}

/// Whether a correct sampler may have drawn `id`: rounding moves the edges between tokens a little.
bool may_draw(const Row& row, int id) {
  constexpr double kSlack = 1e-5;
  const Left left = left_of(row);
  if (left.cut_slack < kSlack) return true;
  const double u = uniform_at(row.options.seed, row.options.position);
  double before = 0.0;
  for (size_t i = 0; i < left.ids.size(); ++i) {
    if (left.ids[i] == id) return u >= before - kSlack && u <= before + left.shares[i] + kSlack;
    before += left.shares[i];
  }
  return false;
}

Row random_row(int n_vocab, Random& random) {
  Row row;
  const float spread = random.uniform(0.5f, 8.0f);
  row.logits = random.normals(size_t(n_vocab), spread);
  if (random.integer(0, 2) == 0) {
    for (float& logit : row.logits) logit = std::round(logit);  // Many ties.
  }
  RowSampling& o = row.options;
  o = {};
  o.seed = random.engine()();
  o.position = uint64_t(random.integer(0, 1 << 20));
  o.temperature = random.integer(0, 3) == 0 ? 0.0f : random.uniform(0.1f, 2.0f);
  o.top_k = random.integer(0, 1) == 0 ? 0 : random.integer(1, 60);
  o.top_p = random.integer(0, 1) == 0 ? 1.0f : random.uniform(0.05f, 0.99f);
  o.min_p = random.integer(0, 2) == 0 ? random.uniform(0.01f, 0.3f) : 0.0f;
  o.repetition_penalty = random.integer(0, 1) == 0 ? 1.0f : random.uniform(1.05f, 2.0f);
  const auto some = [&](int n_max) {
    std::vector<int32_t> ids;
    for (int i = random.integer(0, n_max); i > 0; --i) ids.push_back(random.integer(0, n_vocab - 1));
    return ids;
  };
  row.recent = some(200);
  row.banned = some(20);
  // The best ones often, so that bans and penalties matter.
  const int best = int(std::max_element(row.logits.begin(), row.logits.end()) - row.logits.begin());
  if (random.integer(0, 1) == 0) row.banned.push_back(best);
  if (random.integer(0, 1) == 0) row.recent.push_back(best);
  o.n_recent = int32_t(row.recent.size());
  o.n_banned = int32_t(row.banned.size());
  return row;
}

struct Drawn {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
};

Drawn draw(const std::vector<Row>& rows) {
  constexpr int kIdsMax = 512;
  const int n_rows = int(rows.size());
  const int n_vocab = int(rows[0].logits.size());
  std::vector<float> logits;
  std::vector<RowSampling> options;
  std::vector<int32_t> recent(size_t(n_rows) * kIdsMax, -1), banned(recent);
  for (int i = 0; i < n_rows; ++i) {
    const Row& row = rows[size_t(i)];
    logits.insert(logits.end(), row.logits.begin(), row.logits.end());
    options.push_back(row.options);
    std::copy(row.recent.begin(), row.recent.end(), recent.begin() + i * kIdsMax);
    std::copy(row.banned.begin(), row.banned.end(), banned.begin() + i * kIdsMax);
  }
  Device<float> logits_device(logits);
  Device<RowSampling> options_device(options);
  Device<int32_t> recent_device(recent), banned_device(banned), ids(static_cast<size_t>(n_rows));
  Device<float> logprobs(static_cast<size_t>(n_rows));
  Device<std::byte> scratch(cuda::sample_scratch_bytes(n_rows, n_vocab));
  MUST(cuda::sample({logits_device.data(), options_device.data(), recent_device.data(), banned_device.data(),
                     ids.data(), logprobs.data(), scratch.data(), n_rows, n_vocab, kIdsMax, kIdsMax},
                    nullptr));
  return {ids.get(), logprobs.get()};
}

void check(int n_rows, int n_vocab, Random& random) {
  std::vector<Row> rows;
  for (int i = 0; i < n_rows; ++i) rows.push_back(random_row(n_vocab, random));
  if (n_rows > 2 && n_vocab <= 500) {  // Everything banned.
    rows[1].banned.resize(size_t(n_vocab));
    std::iota(rows[1].banned.begin(), rows[1].banned.end(), 0);
    rows[1].options.n_banned = n_vocab;
  }
  const Drawn drawn = draw(rows);
  double worst = 0.0;
  for (int i = 0; i < n_rows; ++i) {
    const Row& row = rows[size_t(i)];
    const int id = drawn.ids[size_t(i)];
    if (id < 0 || id >= n_vocab) {
      EXPECT(false, "a token that is none");
      continue;
    }
    EXPECT(may_draw(row, id), "a token that the row's number does not lead to");
    const double best = *std::max_element(row.logits.begin(), row.logits.end());
    double total = 0.0;
    for (const float logit : row.logits) total += std::exp(logit - best);
    const double want = row.logits[size_t(id)] - best - std::log(total);
    worst = std::max(worst, std::fabs(drawn.logprobs[size_t(i)] - want) / std::max(1.0, std::fabs(want)));
  }
  EXPECT(worst < 1e-5, "log-probabilities");
  std::printf("sample %3d rows of %6d: log-probabilities to %.1e\n", n_rows, n_vocab, worst);

  // Alone, and again: the same token.
  const int one = random.integer(0, n_rows - 1);
  EXPECT(draw({rows[size_t(one)]}).ids[0] == drawn.ids[size_t(one)], "a row's token depends on its neighbours");
  EXPECT(draw(rows).ids == drawn.ids, "a second draw differs");
}

/// Over many seeds, tokens come as often as they should.
void check_frequencies(Random& random) {
  constexpr int kRows = 4000, kVocab = 40;
  Row row = random_row(kVocab, random);
  row.options.temperature = 0.8f;
  row.options.top_k = 0;
  row.options.top_p = 0.9f;
  row.options.min_p = 0.0f;
  std::vector<Row> rows(kRows, row);
  for (int i = 0; i < kRows; ++i) rows[size_t(i)].options.position = uint64_t(i);
  const Drawn drawn = draw(rows);
  const Left left = left_of(row);
  for (size_t i = 0; i < left.ids.size(); ++i) {
    const double n = double(std::count(drawn.ids.begin(), drawn.ids.end(), left.ids[i]));
    const double want = left.shares[i] * kRows;
    EXPECT(std::fabs(n - want) < 6.0 * std::sqrt(want + 1.0), "a token comes too often or too seldom");
  }
}

void time_all(Random& random) {
  constexpr int kVocab = 151936, kIdsMax = 256;
  for (const int n_rows : {1, 16, 64}) {
    Device<float> logits(random.normals(size_t(n_rows) * kVocab, 3.0f));
    Device<int32_t> none(std::vector<int32_t>(size_t(n_rows) * kIdsMax, -1)), ids(static_cast<size_t>(n_rows));
    Device<float> logprobs(static_cast<size_t>(n_rows));
    Device<std::byte> scratch(cuda::sample_scratch_bytes(n_rows, kVocab));
    for (const float temperature : {0.0f, 0.7f}) {
      RowSampling options = {1, 2, temperature, 0.9f, 0.0f, 1.0f, 0, 0, 0};
      Device<RowSampling> options_device(std::vector<RowSampling>(size_t(n_rows), options));
      const double us = median_us([&](int, cudaStream_t s) {
        MUST(cuda::sample({logits.data(), options_device.data(), none.data(), none.data(), ids.data(), logprobs.data(),
                           scratch.data(), n_rows, kVocab, kIdsMax, kIdsMax},
                          s));
      });
      std::printf("sample %2d x %d, temperature %.1f: %.2f us (%.0f GB/s of logits, cached)\n", n_rows, kVocab,
                  temperature, us, 4e-3 * n_rows * kVocab / us);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  Random random;
  if (options.time) {
    time_all(random);
    return report("sample");
  }
  check(40, 300, random);
  check(7, 1, random);
  check(5, 63, random);
  check(options.small ? 2 : 30, 49152, random);
  if (!options.small) {
    check(20, 151936, random);
    check_frequencies(random);
  }
  EXPECT(cuda::sample({.n_rows = 0, .n_vocab = 10}, nullptr) == cudaSuccess, "no rows");
  EXPECT(cuda::sample({.n_rows = 1, .n_vocab = 0}, nullptr) == cudaErrorInvalidValue, "no tokens");
  return report("sample");
}
