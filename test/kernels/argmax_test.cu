// link: kernels/argmax.cu kernels/advance_step.cu
#include "argmax.h"

#include <limits>

#include "advance_step.h"
#include "harness.h"

using namespace nosa;
using namespace nosa::test;

namespace {

void check_argmax(int n_rows, int n_values, Random& random) {
  std::vector<float> scores = random.normals(size_t(n_rows) * n_values);
  for (float& score : scores) {
    // Few different values, so that the first of equals is asked for; and numbers that are none.
    if (random.integer(0, 3) == 0) score = float(random.integer(-3, 3));
    if (random.integer(0, 50) == 0) score = std::numeric_limits<float>::quiet_NaN();
    if (random.integer(0, 5000) == 0) score = std::numeric_limits<float>::infinity();
  }
  Device<float> d_scores(scores);
  Device<int32_t> out(n_rows);
  Device<std::byte> scratch(cuda::argmax_scratch_bytes(n_rows));
  MUST(cudaMemset(scratch.data(), 0, scratch.bytes()));
  // Twice: the scratch must be left as it was found.
  for (int run = 0; run < 2; ++run) {
    out.poison();
    MUST(cuda::argmax({d_scores.data(), out.data(), scratch.data(), n_rows, n_values}, nullptr));
    const std::vector<int32_t> got = out.get();
    for (int row = 0; row < n_rows; ++row) {
      int want = -1;
      for (int i = 0; i < n_values; ++i) {
        const float score = scores[size_t(row) * n_values + i];
        if (!std::isnan(score) && (want < 0 || score > scores[size_t(row) * n_values + want])) want = i;
      }
      EXPECT(got[row] == std::max(want, 0), "row " + std::to_string(row) + " of " + std::to_string(n_values) + " values");
    }
  }
  std::printf("argmax %d rows of %d values\n", n_rows, n_values);
}

void check_advance(int n_seqs, Random& random) {
  constexpr int n_steps_max = 9;
  const int n_seqs_max = n_seqs + 2;
  const int n_lanes = n_seqs + 3;
  std::vector<int32_t> lanes, drawn, teacher(size_t(n_steps_max) * n_seqs_max, -1), n_tokens(n_lanes, 100);
  for (int s = 0; s < n_seqs; ++s) {
    lanes.push_back(random.integer(0, 3) == 0 ? -1 : n_lanes - 1 - s);
    drawn.push_back(random.integer(0, 1000));
  }
  for (int32_t& token : teacher) {
    if (random.integer(0, 1) == 0) token = random.integer(2000, 3000);
  }
  Device<int32_t> d_lanes(lanes), d_drawn(drawn), d_teacher(teacher), d_tokens(n_tokens);
  Device<int32_t> history(size_t(n_steps_max) * n_seqs_max), ids(n_seqs);
  Device<int32_t> cursor(std::vector<int32_t>{0});
  Device<uint32_t> step(std::vector<uint32_t>{41});
  cuda::AdvanceStepParams p = {};
  p.lanes = d_lanes.data();
  p.drawn = d_drawn.data();
  p.teacher = d_teacher.data();
  p.history = history.data();
  p.ids = ids.data();
  p.n_tokens = d_tokens.data();
  p.cursor = cursor.data();
  p.step = step.data();
  p.n_seqs = n_seqs;
  p.n_seqs_max = n_seqs_max;
  p.n_steps_max = n_steps_max;
  // One more than there is room for: it must write nowhere.
  for (int i = 0; i < n_steps_max + 1; ++i) MUST(cuda::advance_step(p, nullptr));
  const std::vector<int32_t> got = history.get(), got_tokens = d_tokens.get(), got_ids = ids.get();
  for (int s = 0; s < n_seqs; ++s) {
    for (int i = 0; i < n_steps_max; ++i) {
      const size_t at = size_t(i) * n_seqs_max + s;
      const int32_t want = lanes[s] < 0 ? -1 : teacher[at] >= 0 ? teacher[at] : drawn[s];
      EXPECT(got[at] == want, "history of step " + std::to_string(i));
      if (lanes[s] >= 0 && i == n_steps_max - 1) EXPECT(got_ids[s] == want, "the next id");
    }
    if (lanes[s] >= 0) EXPECT(got_tokens[lanes[s]] == 100 + n_steps_max, "the length of a lane");
  }
  EXPECT(step.get()[0] == 41 + n_steps_max + 1, "the step's number");
  // A feed step counts the step alone.
  p.ids = nullptr;
  MUST(cuda::advance_step(p, nullptr));
  EXPECT(step.get()[0] == 41 + n_steps_max + 2 && d_tokens.get() == got_tokens, "a step that draws nothing");
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  Random random;
  for (const int n_values : {1, 31, 320, 1000, options.small ? 2000 : 151936}) check_argmax(random.integer(1, 5), n_values, random);
  if (!options.small) check_argmax(64, 73448, random);
  for (const int n_seqs : {1, 3, 64}) check_advance(n_seqs, random);
  MUST(cuda::argmax({nullptr, nullptr, nullptr, 0, 5}, nullptr));
  EXPECT(cuda::argmax({nullptr, nullptr, nullptr, 1, 0}, nullptr) == cudaErrorInvalidValue, "no values are refused");
  return report("argmax_test");
}
