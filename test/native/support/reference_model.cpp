#include "support/reference_model.h"

#include <algorithm>
#include <cmath>

namespace nosa::test {

ReferenceModel::Answer ReferenceModel::run(const std::vector<Part>& parts) const {
  std::vector<Kv> kv(parts.size());
  Answer answer;
  std::vector<Row> hidden;
  for (size_t i = 0; i < parts.size(); ++i) {
    hidden = run_part(parts[i], kv, kv[i], parts, answer.masses);
  }
  const char* output = model_.has("output.weight") ? "output" : "token_embd";
  for (const Row& x : hidden) {
    Row logits = linear(output, norm("output_norm.weight", x));
    const double peak = *std::max_element(logits.begin(), logits.end());
    double total = 0;
    for (const double logit : logits) total += std::exp(logit - peak);
    for (double& logit : logits) logit -= peak + std::log(total);
    answer.logprobs.push_back(std::move(logits));
  }
  return answer;
}

std::vector<ReferenceModel::Row> ReferenceModel::run_part(const Part& part,
                                                          const std::vector<Kv>& earlier, Kv& own,
                                                          const std::vector<Part>& parts,
                                                          std::vector<double>& masses) const {
  const TinyOptions& o = model_.options();
  const size_t n_tokens = part.tokens.size();
  masses.clear();
  for (const size_t other : part.attends) {
    masses.resize(masses.size() + (parts[other].tokens.size() + 63) / 64, 0.0);
  }

  std::vector<Row> x(n_tokens);
  const std::vector<float>& table = model_.values("token_embd.weight");
  for (size_t t = 0; t < n_tokens; ++t) {
    const auto row = table.begin() + ptrdiff_t(part.tokens[t]) * o.n_embd;
    x[t].assign(row, row + o.n_embd);
  }
  own.k.resize(o.n_layers);
  own.v.resize(o.n_layers);
  for (int layer = 0; layer < o.n_layers; ++layer) {
    const std::string blk = "blk." + std::to_string(layer) + ".";
    std::vector<Row> q(n_tokens);
    for (size_t t = 0; t < n_tokens; ++t) {
      const Row normed = norm(blk + "attn_norm.weight", x[t]);
      q[t] = linear(blk + "attn_q", normed);
      Row k = linear(blk + "attn_k", normed);
      turn(q[t], part.base_position + int(t));
      turn(k, part.base_position + int(t));
      own.k[layer].push_back(std::move(k));
      own.v[layer].push_back(linear(blk + "attn_v", normed));
    }
    for (size_t t = 0; t < n_tokens; ++t) {
      Row mixed(size_t(o.n_heads) * o.head_dim, 0.0);
      for (int head = 0; head < o.n_heads; ++head) {
        const size_t at = size_t(head) * o.head_dim;
        const size_t kv_at = size_t(head / (o.n_heads / o.n_kv_heads)) * o.head_dim;
        // All keys that token t sees: those of the attended parts, then its own past.
        std::vector<const Row*> keys, values;
        for (const size_t other : part.attends) {
          for (const Row& k : earlier[other].k[layer]) keys.push_back(&k);
          for (const Row& v : earlier[other].v[layer]) values.push_back(&v);
        }
        for (size_t s = 0; s <= t; ++s) {
          keys.push_back(&own.k[layer][s]);
          values.push_back(&own.v[layer][s]);
        }
        Row weights(keys.size());
        for (size_t j = 0; j < keys.size(); ++j) {
          for (int d = 0; d < o.head_dim; ++d) weights[j] += q[t][at + d] * (*keys[j])[kv_at + d];
          weights[j] /= std::sqrt(double(o.head_dim));
        }
        const double peak = *std::max_element(weights.begin(), weights.end());
        double total = 0;
        for (double& w : weights) total += w = std::exp(w - peak);
        for (size_t j = 0; j < keys.size(); ++j) {
          for (int d = 0; d < o.head_dim; ++d) {
            mixed[at + d] += weights[j] / total * (*values[j])[kv_at + d];
          }
        }
        if (t + 1 < n_tokens) continue;
        size_t block = 0;
        size_t j = 0;
        for (const size_t other : part.attends) {
          const size_t n_other = parts[other].tokens.size();
          for (size_t s = 0; s < n_other; ++s) {
            masses[block + s / 64] += weights[j++] / total / (o.n_heads * o.n_layers);
          }
          block += (n_other + 63) / 64;
        }
      }
      const Row attended = linear(blk + "attn_output", mixed);
      for (int i = 0; i < o.n_embd; ++i) x[t][i] += attended[i];

      const Row normed = norm(blk + "ffn_norm.weight", x[t]);
      Row gate = linear(blk + "ffn_gate", normed);
      const Row up = linear(blk + "ffn_up", normed);
      for (int i = 0; i < o.n_ff; ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
      const Row down = linear(blk + "ffn_down", gate);
      for (int i = 0; i < o.n_embd; ++i) x[t][i] += down[i];
    }
  }
  return x;
}

ReferenceModel::Row ReferenceModel::linear(const std::string& stem, const Row& x) const {
  const std::vector<float>& weight = model_.values(stem + ".weight");
  Row out(weight.size() / x.size());
  for (size_t r = 0; r < out.size(); ++r) {
    for (size_t c = 0; c < x.size(); ++c) out[r] += double(weight[r * x.size() + c]) * x[c];
  }
  if (model_.has(stem + ".bias")) {
    const std::vector<float>& bias = model_.values(stem + ".bias");
    for (size_t r = 0; r < out.size(); ++r) out[r] += bias[r];
  }
  return out;
}

ReferenceModel::Row ReferenceModel::norm(const std::string& name, const Row& x) const {
  const std::vector<float>& weight = model_.values(name);
  double squares = 0;
  for (const double value : x) squares += value * value;
  const double scale = 1 / std::sqrt(squares / double(x.size()) + double(1e-5f));
  Row out(x.size());
  for (size_t i = 0; i < x.size(); ++i) out[i] = x[i] * scale * weight[i];
  return out;
}

// Turns the pairs (i, i + head_dim / 2) of every head by position * theta^(-2 i / head_dim).
void ReferenceModel::turn(Row& heads, int position) const {
  const int head_dim = model_.options().head_dim;
  const int half = head_dim / 2;
  for (size_t at = 0; at < heads.size(); at += size_t(head_dim)) {
    for (int i = 0; i < half; ++i) {
      const double angle =
          position * std::pow(double(model_.options().theta), -2.0 * i / head_dim);
      const double a = heads[at + i];
      const double b = heads[at + i + half];
      heads[at + i] = a * std::cos(angle) - b * std::sin(angle);
      heads[at + i + half] = b * std::cos(angle) + a * std::sin(angle);
    }
  }
}

}  // namespace nosa::test
