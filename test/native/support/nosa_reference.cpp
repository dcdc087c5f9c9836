#include "support/nosa_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nosa::test {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// Scores this close, relatively, may be ordered either way by an implementation in float32.
constexpr double near = 5e-5;

double dot(const double* a, const double* b, int n) {
  double sums[4] = {};
  for (int i = 0; i < n; i += 4) {
    for (int j = 0; j < 4; ++j) sums[j] += a[i + j] * b[i + j];
  }
  return sums[0] + sums[1] + sums[2] + sums[3];
}

// The value that the lowest of the `count` best has, forced ones aside.
double threshold(const std::vector<double>& scores, const std::vector<bool>& out, int count) {
  std::vector<double> open;
  for (size_t b = 0; b < scores.size(); ++b) {
    if (!out[b]) open.push_back(scores[b]);
  }
  if (count <= 0 || size_t(count) > open.size()) return -infinity;
  std::nth_element(open.begin(), open.begin() + count - 1, open.end(), std::greater());
  return open[size_t(count) - 1];
}

std::vector<size_t> close_to(double value, const std::vector<double>& scores) {
  std::vector<size_t> close;
  if (!std::isfinite(value)) return close;
  const double reach = near * std::max(std::abs(value), 1e-3);
  for (size_t b = 0; b < scores.size(); ++b) {
    if (std::abs(scores[b] - value) <= reach) close.push_back(b);
  }
  return close;
}

// Moves the scores at `close` out of each other's way, by the bits of `order`.
std::vector<double> moved(std::vector<double> scores, const std::vector<size_t>& close, unsigned order) {
  for (size_t i = 0; i < close.size(); ++i) {
    const double reach = 4 * near * std::max(std::abs(scores[close[i]]), 1e-3);
    scores[close[i]] += (order >> i & 1) != 0 ? reach : -reach;
  }
  return scores;
}

}  // namespace

NosaReference::NosaReference(const TinyModel& model) : model_(model) {
  const TinyOptions& o = model.options();
  for (int i = 0; i < o.head_dim / 2; ++i) {
    const double factor = o.long_factors.empty() ? 1.0 : double(o.long_factors[size_t(i)]);
    // Rounded, as every implementation keeps them: far from the start that is a visible angle.
    frequencies_.push_back(float(std::pow(double(o.theta), -2.0 * i / o.head_dim) / factor));
  }
}

NosaReference::Part::Part(const NosaReference& reference, int base_position,
                          std::vector<const Part*> attends)
    : base_position_(base_position), attends_(std::move(attends)) {
  const TinyOptions& o = reference.model_.options();
  heads_.resize(size_t(o.n_layers) * size_t(o.n_kv_heads));
}

NosaReference::Step NosaReference::step(Part& part, uint32_t token, const Constants* constants,
                                        const Selection* seen) const {
  const TinyOptions& o = model_.options();
  const int group = o.n_heads / o.n_kv_heads;
  Step answer;
  const auto embedding = model_.values("token_embd.weight").begin() + ptrdiff_t(token) * o.n_embd;
  Row x(embedding, embedding + o.n_embd);
  part.n_tokens_ += 1;
  for (int layer = 0; layer < o.n_layers; ++layer) {
    const std::string blk = "blk." + std::to_string(layer) + ".";
    const Row normed = norm(blk + "attn_norm.weight", x);
    const int position = part.base_position_ + part.n_tokens_ - 1;
    Row q = linear(blk + "attn_q", normed);
    Row k = linear(blk + "attn_k", normed);
    turn(q, position);
    turn(k, position);
    store(part, layer, k, linear(blk + "attn_v", normed));

    Row mixed;
    for (int kv_head = 0; kv_head < o.n_kv_heads; ++kv_head) {
      const size_t at = size_t(layer) * size_t(o.n_kv_heads) + size_t(kv_head);
      const double* queries = q.data() + size_t(kv_head * group) * size_t(o.head_dim);
      const std::vector<int32_t>* blocks = nullptr;
      // An implementation that took everything says so by an empty list.
      if (constants != nullptr) {
        check(part, part.heads_[at], at, queries, *constants, (*seen)[at], answer);
        if (!(*seen)[at].empty()) blocks = &(*seen)[at];
      }
      for (int head = 0; head < group; ++head) {
        const Row out = attend(part, at, queries + size_t(head) * size_t(o.head_dim), blocks);
        mixed.insert(mixed.end(), out.begin(), out.end());
      }
    }
    const Row attended = linear(blk + "attn_output", mixed);
    for (size_t i = 0; i < x.size(); ++i) x[i] += attended[i];

    const Row ffn = norm(blk + "ffn_norm.weight", x);
    Row gate = linear(blk + "ffn_gate", ffn);
    const Row up = linear(blk + "ffn_up", ffn);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
    const Row down = linear(blk + "ffn_down", gate);
    for (size_t i = 0; i < x.size(); ++i) x[i] += down[i];
  }
  answer.logprobs = linear(model_.has("output.weight") ? "output" : "token_embd",
                           norm("output_norm.weight", x));
  const double peak = *std::max_element(answer.logprobs.begin(), answer.logprobs.end());
  double total = 0;
  for (const double logit : answer.logprobs) total += std::exp(logit - peak);
  for (double& logit : answer.logprobs) logit -= peak + std::log(total);
  return answer;
}

// A new token: its key, value and eviction score, and the window that it completes.
void NosaReference::store(Part& part, int layer, const Row& k, const Row& v) const {
  const TinyOptions& o = model_.options();
  const std::string blk = "blk." + std::to_string(layer) + ".";
  const bool has_heads = model_.has(blk + "nosa_a");
  Row u(static_cast<size_t>(o.n_kv_heads));
  if (has_heads) u = linear(blk + "nosa_delta", v);
  for (int h = 0; h < o.n_kv_heads; ++h) {
    Part::Head& head = part.heads_[size_t(layer) * size_t(o.n_kv_heads) + size_t(h)];
    const auto first = ptrdiff_t(h) * o.head_dim;
    head.k.insert(head.k.end(), k.begin() + first, k.begin() + first + o.head_dim);
    head.v.insert(head.v.end(), v.begin() + first, v.begin() + first + o.head_dim);
    head.score.push_back(
        has_heads ? double(model_.values(blk + "nosa_a")[size_t(h)]) * std::log1p(std::exp(u[size_t(h)]))
                  : 0.0);
    const int m = int(head.window_score.size());
    if (16 * m + 31 != part.n_tokens_ - 1) continue;
    const Row mean =
        reference::window_mean(head.k.data() + size_t(16 * m) * size_t(o.head_dim), 32, o.head_dim);
    head.window_key.insert(head.window_key.end(), mean.begin(), mean.end());
    head.window_score.push_back(reference::window_mean(head.score.data() + 16 * m, 32, 1)[0]);
  }
}

void NosaReference::check(const Part& part, const Part::Head& own, size_t head_at, const double* q,
                          const Constants& constants, const std::vector<int32_t>& seen,
                          Step& step) const {
  const TinyOptions& o = model_.options();
  const int group = o.n_heads / o.n_kv_heads;
  // One softmax over the windows of all parts, pooled part by part: no block mixes two of them.
  std::vector<double> keys;
  std::vector<int> n_windows;
  std::vector<int> n_blocks;
  std::vector<double> by_eviction;
  const auto add = [&](const Part::Head& head, int blocks) {
    keys.insert(keys.end(), head.window_key.begin(), head.window_key.end());
    n_windows.push_back(int(head.window_score.size()));
    n_blocks.push_back(blocks);
    const auto pooled = reference::pool(head.window_score, blocks);
    by_eviction.insert(by_eviction.end(), pooled.begin(), pooled.end());
  };
  for (const Part* other : part.attends_) add(other->heads_[head_at], other->n_blocks());
  const int n_context = int(by_eviction.size());
  add(own, part.n_blocks());
  const int n_all = int(by_eviction.size());
  if (n_all <= constants.total_blocks) {
    if (!seen.empty() && int(seen.size()) != n_all) step.n_wrong += 1;
    return;
  }

  const std::vector<double> queries(q, q + size_t(group) * size_t(o.head_dim));
  const auto windows = reference::window_scores(queries, keys, group, o.head_dim,
                                                1 / std::sqrt(double(o.head_dim)));
  std::vector<double> by_query;
  auto at = windows.begin();
  for (size_t i = 0; i < n_windows.size(); ++i) {
    const auto pooled = reference::pool({at, at + n_windows[i]}, n_blocks[i]);
    by_query.insert(by_query.end(), pooled.begin(), pooled.end());
    at += n_windows[i];
  }

  std::vector<bool> forced(size_t(n_all), false);
  int n_forced = 0;
  for (int b = 0; b < n_all; ++b) {
    const bool window = b >= n_context && b > n_all - 1 - constants.window_blocks;
    forced[size_t(b)] = b < constants.sink_blocks || window;
    n_forced += forced[size_t(b)];
  }
  // A tail that is shorter than the window has fewer forced blocks; what they leave goes to the
  // eviction ranking, so that no more than query_blocks - 1 can change from step to step.
  Constants now = constants;
  now.window_blocks = n_forced - constants.sink_blocks;
  const std::vector<int32_t> chosen = reference::nosa_blocks(by_query, by_eviction, forced, now);
  if (chosen == seen) return;

  // Not the same: is there an order of what is too close to call that gives what was seen?
  const auto close_q = close_to(threshold(by_query, forced, constants.query_blocks - 1), by_query);
  std::vector<size_t> close_e;
  for (const int32_t b : chosen) {
    if (forced[size_t(b)]) continue;
    const auto close = close_to(by_eviction[size_t(b)], by_eviction);
    if (close.size() > 1) close_e.insert(close_e.end(), close.begin(), close.end());
  }
  std::sort(close_e.begin(), close_e.end());
  close_e.erase(std::unique(close_e.begin(), close_e.end()), close_e.end());
  if (close_q.size() + close_e.size() > 14) {  // More than rounding makes of a tie.
    step.n_wrong += 1;
    return;
  }
  for (unsigned order_q = 0; order_q < 1u << close_q.size(); ++order_q) {
    for (unsigned order_e = 0; order_e < 1u << close_e.size(); ++order_e) {
      if (reference::nosa_blocks(moved(by_query, close_q, order_q),
                                 moved(by_eviction, close_e, order_e), forced, now) == seen) {
        step.n_near_ties += 1;
        return;
      }
    }
  }
  step.n_wrong += 1;
}

// One head's attention to some blocks, or to all: logits are q . k / sqrt(head_dim) + score.
NosaReference::Row NosaReference::attend(const Part& part, size_t head_at, const double* q,
                                         const std::vector<int32_t>* blocks) const {
  const int head_dim = model_.options().head_dim;
  std::vector<double> logits;
  std::vector<const double*> values;
  int32_t first_block = 0;
  const auto add = [&](const Part& other) {
    const Part::Head& head = other.heads_[head_at];
    for (int b = 0; b < other.n_blocks(); ++b) {
      if (blocks != nullptr && !std::binary_search(blocks->begin(), blocks->end(), first_block + b)) continue;
      for (int t = 64 * b; t < std::min(64 * b + 64, other.n_tokens_); ++t) {
        const size_t row = size_t(t) * size_t(head_dim);
        logits.push_back(dot(q, head.k.data() + row, head_dim) / std::sqrt(double(head_dim)) +
                         head.score[size_t(t)]);
        values.push_back(head.v.data() + row);
      }
    }
    first_block += other.n_blocks();
  };
  for (const Part* other : part.attends_) add(*other);
  add(part);

  const double peak = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  Row out(static_cast<size_t>(head_dim), 0.0);
  for (size_t j = 0; j < logits.size(); ++j) {
    const double weight = std::exp(logits[j] - peak);
    total += weight;
    for (int d = 0; d < head_dim; ++d) out[size_t(d)] += weight * values[j][d];
  }
  for (double& value : out) value /= total;
  return out;
}

NosaReference::Row NosaReference::linear(const std::string& stem, const Row& x) const {
  const std::vector<float>& weight = model_.values(stem + ".weight");
  Row out(weight.size() / x.size());
  for (size_t r = 0; r < out.size(); ++r) {
    double sums[4] = {};
    const float* row = weight.data() + r * x.size();
    for (size_t c = 0; c < x.size(); c += 4) {
      for (size_t j = 0; j < 4; ++j) sums[j] += double(row[c + j]) * x[c + j];
    }
    out[r] = sums[0] + sums[1] + sums[2] + sums[3];
  }
  if (model_.has(stem + ".bias")) {
    const std::vector<float>& bias = model_.values(stem + ".bias");
    for (size_t r = 0; r < out.size(); ++r) out[r] += bias[r];
  }
  return out;
}

NosaReference::Row NosaReference::norm(const std::string& name, const Row& x) const {
  const std::vector<float>& weight = model_.values(name);
  double squares = 0;
  for (const double value : x) squares += value * value;
  const double scale = 1 / std::sqrt(squares / double(x.size()) + double(1e-5f));
  Row out(x.size());
  for (size_t i = 0; i < x.size(); ++i) out[i] = x[i] * scale * weight[i];
  return out;
}

void NosaReference::turn(Row& heads, int position) const {
  const size_t half = frequencies_.size();
  for (size_t at = 0; at < heads.size(); at += 2 * half) {
    for (size_t i = 0; i < half; ++i) {
      const double angle = position * frequencies_[i];
      const double a = heads[at + i];
      const double b = heads[at + i + half];
      heads[at + i] = a * std::cos(angle) - b * std::sin(angle);
      heads[at + i + half] = b * std::cos(angle) + a * std::sin(angle);
    }
  }
}

}  // namespace nosa::test
