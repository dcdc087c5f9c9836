// The runner as plain C: what a session in another library calls.
#include <algorithm>
#include <cstdio>
#include <deque>
#include <memory>
#include <vector>

#include "cuda/api.h"
#include "cuda/runner.h"

struct NosaCudaRunner {
  std::unique_ptr<nosa::cuda::Runner> runner;
  // Its shapes and types: what it points to has gone.
  nosa::cuda::ModelSource source;
  // What is told by next_choice().
  std::deque<nosa::cuda::TokenChoice> choices;
  std::vector<int32_t> n_blocks, blocks;
};

namespace {

using nosa::Status;
using nosa::StatusCode;
using nosa::cuda::SequenceKey;

int32_t code_of(const Status& status) {
  switch (status.code()) {
    case StatusCode::kOutOfMemory: return NOSA_CUDA_FULL;
    case StatusCode::kUnsupported:
    case StatusCode::kInvalidArgument:
    case StatusCode::kDisposed: return NOSA_CUDA_NOT_HERE;
    default: return NOSA_CUDA_FAILED;
  }
}

int32_t tell(const Status& status, NosaCudaError* error) {
  if (status.ok()) return 1;
  error->code = code_of(status);
  std::snprintf(error->text, sizeof(error->text), "%s", status.message().c_str());
  return 0;
}

nosa::WeightView view_of(const NosaCudaTensor& tensor) {
  return {static_cast<const std::byte*>(tensor.data), nosa::DType(tensor.dtype), tensor.rows, tensor.cols};
}

nosa::cuda::LinearSource linear_of(const NosaCudaLinear& linear) { return {view_of(linear.weight), linear.bias}; }

nosa::cuda::ModelSource source_of(const NosaCudaNetwork& network) {
  nosa::cuda::ModelSource source;
  nosa::cuda::ModelShape& shape = source.shape;
  shape.n_layers = network.n_layers;
  shape.n_embd = network.n_embd;
  shape.n_ff = network.n_ff;
  shape.n_heads = network.n_heads;
  shape.n_kv_heads = network.n_kv_heads;
  shape.head_dim = network.head_dim;
  shape.n_vocab = network.n_vocab;
  shape.n_rotated = network.n_rotated;
  shape.rope_neighbours = network.rope_neighbours != 0;
  shape.rms_eps = network.rms_eps;
  shape.rope_magnitude = network.rope_magnitude;
  source.inv_freq = network.inv_freq;
  source.embedding = view_of(network.embedding);
  source.output_norm = network.output_norm;
  source.output = view_of(network.output);
  for (int32_t i = 0; i < network.n_layers; ++i) {
    const NosaCudaLayer& from = network.layers[i];
    nosa::cuda::LayerSource& to = source.layers.emplace_back();
    to.attn_norm = from.attn_norm;
    to.ffn_norm = from.ffn_norm;
    to.q = linear_of(from.q);
    to.k = linear_of(from.k);
    to.v = linear_of(from.v);
    to.out = linear_of(from.out);
    to.gate = linear_of(from.gate);
    to.up = linear_of(from.up);
    to.down = linear_of(from.down);
    to.eviction_a = from.eviction_a;
    to.eviction_delta = from.eviction_delta;
    to.eviction_delta_bias = from.eviction_delta_bias;
  }
  return source;
}

NosaCudaPlan plan_of(const nosa::cuda::Runner& runner) {
  const nosa::cuda::MemoryPlan& plan = runner.plan();
  return {plan.device_bytes(),
          plan.host_bytes,
          plan.options.n_pages,
          plan.options.n_blocks_max,
          plan.options.chunk_tokens,
          nosa::cuda::Runner::step_tokens_max,
          nosa::cuda::Head::rows_max,
          plan.options.n_seqs_max};
}

NosaCudaRunner* open(const NosaCudaNetwork* network, uint64_t host_bytes_max, NosaCudaPlan* plan, NosaCudaError* error) {
  nosa::cuda::RunnerOptions options;
  options.n_lanes = 0;  // As many as a share of the memory holds.
  options.n_seqs_max = 0;
  options.n_slots = 192;  // Room for what eight queries choose.
  options.host_bytes_max = size_t(host_bytes_max);
  options.step.keeps_choices = network->keeps_choices != 0;
  nosa::cuda::ModelSource source = source_of(*network);
  auto runner = nosa::cuda::Runner::create(source, options);
  if (!runner.ok()) {
    tell(runner.status(), error);
    return nullptr;
  }
  *plan = plan_of(**runner);
  return std::make_unique<NosaCudaRunner>(NosaCudaRunner{*std::move(runner), std::move(source), {}, {}, {}}).release();
}

int32_t grow(NosaCudaRunner* runner, int32_t n_blocks, uint64_t host_bytes_max, NosaCudaPlan* plan, NosaCudaError* error) {
  const Status status = nosa::cuda::Runner::grow(runner->runner, runner->source, n_blocks, size_t(host_bytes_max));
  if (!status.ok()) return tell(status, error);
  runner->choices.clear();
  *plan = plan_of(*runner->runner);
  return 1;
}

void close(NosaCudaRunner* runner) { const std::unique_ptr<NosaCudaRunner> owned(runner); }

uint64_t number_of(const nosa::Result<SequenceKey>& key, NosaCudaError* error) {
  if (key.ok()) return uint64_t(*key);
  tell(key.status(), error);
  return 0;
}

uint64_t create(NosaCudaRunner* runner, int32_t base_position, NosaCudaError* error) {
  return number_of(runner->runner->create_sequence(base_position, {}), error);
}

uint64_t fork(NosaCudaRunner* runner, uint64_t key, NosaCudaError* error) {
  return number_of(runner->runner->fork(SequenceKey(key)), error);
}

void drop(NosaCudaRunner* runner, uint64_t key) {
  // A device that fails now will fail at the next call that matters.
  const Status ignored = runner->runner->close(SequenceKey(key));
  static_cast<void>(ignored);
}

int32_t attend(NosaCudaRunner* runner, uint64_t key, const uint64_t* others, int32_t n_others, NosaCudaError* error) {
  std::vector<SequenceKey> keys;
  for (int32_t i = 0; i < n_others; ++i) keys.push_back(SequenceKey(others[i]));
  return tell(runner->runner->attend(SequenceKey(key), keys), error);
}

int32_t select(NosaCudaRunner* runner, uint64_t key, const NosaCudaSelection* selection, NosaCudaError* error) {
  nosa::cuda::StepOptions options;
  options.policy = nosa::Policy(selection->policy);
  options.budget = {selection->total_blocks, selection->query_blocks, selection->sink_blocks, selection->window_blocks};
  options.keeps_choices = runner->runner->plan().options.step.keeps_choices;
  return tell(runner->runner->select(SequenceKey(key), options, {selection->flags, size_t(selection->n_flags)}), error);
}

int32_t put(NosaCudaRunner* runner, uint64_t key, const NosaCudaBlock* block, NosaCudaError* error) {
  return tell(runner->runner->put_block(SequenceKey(key),
                                        {block->n_tokens, reinterpret_cast<const std::byte* const*>(block->extents),
                                         block->compressed, block->token_scores, block->window_scores}),
              error);
}

int32_t cut(NosaCudaRunner* runner, uint64_t key, int32_t n_tokens, NosaCudaError* error) {
  return tell(runner->runner->cut(SequenceKey(key), n_tokens), error);
}

/// Of sequence `seq` of what was advanced last.
NosaCudaAdvanced advanced(const nosa::cuda::Runner& runner, int seq) {
  const nosa::cuda::StepDetail& detail = runner.detail(seq);
  return {runner.hidden().data() + size_t(seq) * size_t(runner.shape().n_embd), detail.n_blocks.data(), detail.blocks.data(),
          detail.mass.data(), detail.n_selected_max, runner.n_fetched(seq)};
}

int32_t advance(NosaCudaRunner* runner, const NosaCudaAdvance* request, NosaCudaAdvanced* out, NosaCudaError* error) {
  nosa::cuda::AdvanceRequest of;
  of.key = SequenceKey(request->key);
  of.tokens = {request->tokens, size_t(request->n_tokens)};
  of.n_hidden = request->n_hidden;
  of.detail = request->detail != 0;
  const Status status = runner->runner->advance(of);
  if (!status.ok()) return tell(status, error);
  *out = advanced(*runner->runner, 0);
  return 1;
}

int32_t advance_together(NosaCudaRunner* runner, const NosaCudaNext* next, int32_t n, NosaCudaTogether* out, NosaCudaError* error) {
  nosa::cuda::Runner& of = *runner->runner;
  std::vector<SequenceKey> keys;
  for (int32_t i = 0; i < n; ++i) keys.push_back(SequenceKey(next[i].key));
  const nosa::Result<std::vector<int>> together = of.together(keys);
  if (!together.ok()) return tell(together.status(), error);
  std::fill(out, out + n, NosaCudaTogether{});
  if (together->empty()) return 1;
  std::vector<nosa::cuda::NextToken> tokens;
  for (const int i : *together) tokens.push_back({keys[size_t(i)], next[i].token, next[i].detail != 0});
  if (const Status status = of.advance_together(tokens); !status.ok()) return tell(status, error);
  for (size_t seq = 0; seq < together->size(); ++seq) {
    out[(*together)[seq]] = {1, advanced(of, int(seq)), of.logits_together(int(seq))};
  }
  return 1;
}

int32_t read(NosaCudaRunner* runner, uint64_t key, int32_t block, int32_t first_row, int32_t n_rows, NosaCudaRows* to,
             NosaCudaError* error) {
  bool has_windows = false;
  const nosa::cuda::RowsRead into = {reinterpret_cast<std::byte* const*>(to->extents), to->scores, to->compressed, to->window_scores,
                                     &has_windows};
  const Status status = runner->runner->read_rows(SequenceKey(key), block, first_row, n_rows, into);
  to->has_windows = has_windows ? 1 : 0;
  return tell(status, error);
}

int32_t head(NosaCudaRunner* runner, const float* hidden, int32_t n_rows, float* logits, NosaCudaError* error) {
  return tell(runner->runner->head(hidden, n_rows, logits), error);
}

int32_t next_choice(NosaCudaRunner* runner, NosaCudaChoice* out) {
  for (nosa::cuda::TokenChoice& choice : runner->runner->take_choices()) runner->choices.push_back(std::move(choice));
  if (runner->choices.empty()) return 0;
  const nosa::cuda::TokenChoice choice = std::move(runner->choices.front());
  runner->choices.pop_front();
  size_t n_most = 0;
  for (const auto& list : choice.blocks) n_most = std::max(n_most, list.size());
  runner->n_blocks.clear();
  runner->blocks.assign(choice.blocks.size() * n_most, -1);
  for (size_t i = 0; i < choice.blocks.size(); ++i) {
    runner->n_blocks.push_back(int32_t(choice.blocks[i].size()));
    std::ranges::copy(choice.blocks[i], runner->blocks.begin() + long(i * n_most));
  }
  *out = {uint64_t(choice.key), choice.own_idx, int32_t(n_most), runner->n_blocks.data(), runner->blocks.data()};
  return 1;
}

constexpr NosaCudaRunnerFunctions functions = {open, close, grow,    create,           fork, drop, attend,     select,
                                               put,  cut,   advance, advance_together, read, head, next_choice};

}  // namespace

extern "C" __attribute__((visibility("default"))) const NosaCudaRunnerFunctions* nosa_cuda_runner_functions(void) { return &functions; }
