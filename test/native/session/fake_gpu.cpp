#include "fake_gpu.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cuda/api.h"
#include "kv/block_store.h"
#include "model/model.h"

namespace nosa::test {
namespace {

constexpr int chunk_tokens = 200;  // No multiple of anything.
constexpr int step_tokens = 40;
constexpr int step_sequences = 3;
constexpr int windows_each = kBlockTokens / kWindowStride;

FakeGpuOptions options;
FakeGpuCounts counts;

struct Copy {
  Copy(BlockStore& store, const KvShape& shape, int base) : base(base), blocks(store, shape), side_car(shape) {
    selector = std::make_unique<BlockSelector>(shape, SelectionOptions(), attended_kv);
  }

  int base;
  std::vector<uint32_t> tokens;
  BlockTable blocks;
  SideCar side_car;
  std::vector<uint64_t> attended;
  std::vector<AttendedKv> attended_kv;
  std::unique_ptr<BlockSelector> selector;
  std::vector<std::vector<uint16_t>> given_keys;     // By block, as they came.
  std::vector<std::vector<float>> given_scores;
};

}  // namespace
}  // namespace nosa::test

struct NosaCudaRunner {
  std::unique_ptr<nosa::Model> model;
  std::unique_ptr<nosa::BlockStore> store;
  std::map<uint64_t, std::unique_ptr<nosa::test::Copy>> copies;
  uint64_t last_key = 0;
  int32_t n_pages = 0;
  int n_advances = 0;
  /// What the last advance left of a sequence.
  struct Left {
    uint64_t key = 0;
    int first = 0;
    bool has_windows = false;
    std::vector<float> hidden, logits;
    std::vector<int32_t> n_blocks, blocks;
    std::vector<float> mass;
  };
  std::vector<Left> left;
  // What is told of choices.
  bool keeps_choices = false;
  struct Choice {
    uint64_t key;
    int own_idx;
    std::vector<std::vector<int32_t>> blocks;
  };
  std::vector<Choice> choices;
  size_t n_told = 0;
  std::vector<int32_t> n_chosen, chosen;
};

namespace nosa::test {
namespace {

int32_t fail(NosaCudaError* error, int32_t code, const std::string& text) {
  error->code = code;
  std::snprintf(error->text, sizeof(error->text), "%s", text.c_str());
  return 0;
}

bool is_gone(const NosaCudaRunner& runner) { return options.fails_after >= 0 && runner.n_advances >= options.fails_after; }

size_t pages_of(const NosaCudaRunner& runner) {
  size_t n = 0;
  for (const auto& [key, copy] : runner.copies) n += size_t(copy->blocks.n_blocks());
  return n;
}

// An element of the tiles in which a side-car keeps its compressed keys.
uint16_t key_value(const SideCar& side_car, int layer, int head, int window, int dim) {
  const auto* tiles = reinterpret_cast<const uint16_t*>(side_car.compressed_keys(layer, head));
  return tiles[(size_t(window / kTileWindows) * size_t(side_car.shape().head_dim) + size_t(dim)) * kTileWindows + size_t(window % kTileWindows)];
}

NosaCudaPlan plan_of(const NosaCudaRunner& runner) {
  NosaCudaPlan plan = {};
  plan.n_pages = runner.n_pages;
  plan.n_blocks_max = runner.n_pages;
  plan.chunk_tokens = chunk_tokens;
  plan.step_tokens = step_tokens;
  plan.head_rows = 3;
  plan.step_sequences = step_sequences;
  return plan;
}

NosaCudaRunner* open(const NosaCudaNetwork* network, uint64_t, NosaCudaPlan* plan, NosaCudaError* error) {
  ModelOptions model;
  model.path = options.model;
  Result<std::unique_ptr<Model>> opened = Model::open(model);
  if (!opened.ok()) {
    fail(error, NOSA_CUDA_NOT_HERE, opened.status().message());
    return nullptr;
  }
  auto runner = std::make_unique<NosaCudaRunner>();
  runner->model = *std::move(opened);
  if (network->n_layers != runner->model->config().n_layers || network->n_vocab != runner->model->config().n_vocab) {
    fail(error, NOSA_CUDA_NOT_HERE, "Another network.");
    return nullptr;
  }
  runner->store = std::make_unique<BlockStore>(BlockStoreOptions{runner->model->kv_shape().extent_bytes()});
  runner->keeps_choices = network->keeps_choices != 0;
  runner->n_pages = options.n_pages;
  *plan = plan_of(*runner);
  counts = {};
  return runner.release();
}

void close(NosaCudaRunner* runner) {
  const std::unique_ptr<NosaCudaRunner> owned(runner);
  runner->copies.clear();  // Before the store.
}

// Hardly more than what is wanted, so that more is wanted soon.
int32_t grow(NosaCudaRunner* runner, int32_t n_blocks, uint64_t, NosaCudaPlan* plan, NosaCudaError* error) {
  if (n_blocks <= runner->n_pages) return fail(error, NOSA_CUDA_FAILED, "There is room for that.");
  if (n_blocks > options.n_pages_most) return fail(error, NOSA_CUDA_NOT_HERE, "There is no room for that.");
  runner->n_pages = std::min(n_blocks + 3, options.n_pages_most);
  runner->copies.clear();
  runner->left.clear();
  counts.n_sequences = 0;
  counts.n_grown += 1;
  *plan = plan_of(*runner);
  return 1;
}

uint64_t create(NosaCudaRunner* runner, int32_t base, NosaCudaError*) {
  runner->copies.emplace(++runner->last_key, std::make_unique<Copy>(*runner->store, runner->model->kv_shape(), base));
  counts.n_sequences = int32_t(runner->copies.size());
  return runner->last_key;
}

void attend_keys(NosaCudaRunner& runner, Copy& copy, std::vector<uint64_t> keys) {
  copy.attended = std::move(keys);
  copy.attended_kv.clear();
  for (const uint64_t key : copy.attended) {
    const Copy& other = *runner.copies.at(key);
    copy.attended_kv.push_back({&other.blocks, &other.side_car, int(other.tokens.size())});
  }
  copy.selector = std::make_unique<BlockSelector>(runner.model->kv_shape(), SelectionOptions(), copy.attended_kv);
}

uint64_t fork(NosaCudaRunner* runner, uint64_t key, NosaCudaError* error) {
  const Copy& from = *runner->copies.at(key);
  const uint64_t made = create(runner, from.base, error);
  Copy& copy = *runner->copies.at(made);
  copy.tokens = from.tokens;
  copy.blocks = from.blocks.fork();
  copy.side_car = from.side_car;
  copy.given_keys = from.given_keys;
  copy.given_scores = from.given_scores;
  attend_keys(*runner, copy, from.attended);
  copy.selector = std::make_unique<BlockSelector>(runner->model->kv_shape(), from.selector->options(), copy.attended_kv);
  return made;
}

void drop(NosaCudaRunner* runner, uint64_t key) {
  for (const auto& [other, copy] : runner->copies) {
    if (std::ranges::find(copy->attended, key) != copy->attended.end()) {
      std::printf("A copy was dropped that another attends.\n");
      std::abort();
    }
  }
  runner->copies.erase(key);
  counts.n_sequences = int32_t(runner->copies.size());
}

int32_t attend(NosaCudaRunner* runner, uint64_t key, const uint64_t* others, int32_t n, NosaCudaError*) {
  attend_keys(*runner, *runner->copies.at(key), {others, others + n});
  return 1;
}

int32_t select(NosaCudaRunner* runner, uint64_t key, const NosaCudaSelection* selection, NosaCudaError* error) {
  Copy& copy = *runner->copies.at(key);
  SelectionOptions chosen;
  chosen.policy = Policy(selection->policy);
  chosen.budget = {selection->total_blocks, selection->query_blocks, selection->sink_blocks, selection->window_blocks};
  int at = 0;
  for (size_t i = 0; i < copy.attended_kv.size(); ++i) {
    for (int b = 0; b < blocks_for(copy.attended_kv[i].n_tokens); ++b, ++at) {
      if ((selection->flags[at] & 1) != 0) chosen.masked.push_back({int(i), b, b + 1});
      if ((selection->flags[at] & 2) != 0) chosen.pinned.push_back({int(i), b, b + 1});
    }
  }
  if (at != selection->n_flags) return fail(error, NOSA_CUDA_FAILED, "Another number of attended blocks.");
  if (Status status = BlockSelector::validate(chosen, copy.attended_kv); !status.ok()) return fail(error, NOSA_CUDA_FAILED, status.message());
  copy.selector = std::make_unique<BlockSelector>(runner->model->kv_shape(), chosen, copy.attended_kv);
  return 1;
}

int32_t put(NosaCudaRunner* runner, uint64_t key, const NosaCudaBlock* block, NosaCudaError* error) {
  const KvShape& shape = runner->model->kv_shape();
  Copy& copy = *runner->copies.at(key);
  if (pages_of(*runner) >= size_t(runner->n_pages)) return fail(error, NOSA_CUDA_FULL, "No page is left.");
  const int n_before = int(copy.tokens.size());
  if (n_before % kBlockTokens != 0) return fail(error, NOSA_CUDA_FAILED, "Blocks are not whole.");
  const int index = n_before / kBlockTokens;
  if (!copy.blocks.grow(index + 1).ok()) return fail(error, NOSA_CUDA_FAILED, "The store is full.");
  counts.n_blocks_put += 1;
  const size_t n_streams = size_t(shape.extents_per_block());
  copy.given_keys.resize(size_t(index) + 1);
  copy.given_scores.resize(size_t(index) + 1);
  copy.given_keys.back().assign(block->compressed, block->compressed + n_streams * windows_each * size_t(shape.head_dim));
  copy.given_scores.back().assign(block->window_scores, block->window_scores + n_streams * windows_each);
  for (int layer = 0; layer < shape.n_layers; ++layer) {
    std::vector<float> scores;
    for (int head = 0; head < shape.n_kv_heads; ++head) {
      const size_t stream = size_t(layer * shape.n_kv_heads + head);
      std::memcpy(*copy.blocks.writable_extent(layer, head, index), block->extents[stream], shape.extent_bytes());
      scores.insert(scores.end(), block->token_scores + stream * kBlockTokens, block->token_scores + stream * kBlockTokens + block->n_tokens);
    }
    copy.side_car.append(layer, copy.blocks, n_before + block->n_tokens, scores);
    // What came must be what follows from the keys.
    for (int window = windows_in(n_before); window < windows_in(n_before + block->n_tokens); ++window) {
      for (int head = 0; head < shape.n_kv_heads; ++head) {
        const size_t at = size_t(layer * shape.n_kv_heads + head) * windows_each + size_t(window % windows_each);
        const size_t of = size_t(window / windows_each);
        if (copy.given_keys[of].empty()) continue;  // Of a block that was computed here.
        bool same = copy.given_scores[of][at] == copy.side_car.window_scores(layer, head)[size_t(window)];
        for (int d = 0; d < shape.head_dim; ++d) {
          same = same && copy.given_keys[of][at * size_t(shape.head_dim) + size_t(d)] == key_value(copy.side_car, layer, head, window, d);
        }
        if (!same) return fail(error, NOSA_CUDA_FAILED, "Window " + std::to_string(window) + " is another.");
      }
    }
  }
  copy.tokens.resize(size_t(n_before + block->n_tokens));
  return 1;
}

int32_t cut(NosaCudaRunner* runner, uint64_t key, int32_t n_tokens, NosaCudaError* error) {
  for (const auto& [other, copy] : runner->copies) {
    if (std::ranges::find(copy->attended, key) != copy->attended.end()) return fail(error, NOSA_CUDA_FAILED, "It is attended.");
  }
  Copy& copy = *runner->copies.at(key);
  copy.tokens.resize(size_t(n_tokens));
  copy.given_keys.resize(std::min(copy.given_keys.size(), size_t(blocks_for(n_tokens))));
  copy.given_scores.resize(copy.given_keys.size());
  copy.blocks.truncate(blocks_for(n_tokens));
  copy.side_car.truncate(n_tokens);
  copy.selector->truncate(n_tokens / kBlockTokens);
  return 1;
}

// What the last token attended to, so that sums over layers and heads are those of the pass.
void tell(const NosaCudaRunner& runner, const Copy& copy, const ForwardPass& pass, NosaCudaRunner::Left& to) {
  const ModelConfig& config = runner.model->config();
  const size_t n_lists = size_t(config.n_layers) * size_t(config.n_kv_heads);
  const int n_context = copy.selector->n_context_blocks();
  const int n_all = n_context + blocks_for(pass.end());
  to.n_blocks.assign(n_lists, 0);
  to.blocks.assign(n_lists * size_t(n_all), 0);
  to.mass.assign(n_lists * size_t(n_all), 0.0f);
  std::vector<float> left = pass.attended_masses(config, n_context);
  for (size_t list = 0; list < n_lists; ++list) {
    std::vector<int32_t> chosen = pass.selections()[list];
    for (int b = 0; pass.selections()[list].empty() && b < n_all; ++b) chosen.push_back(b);
    to.n_blocks[list] = int32_t(chosen.size());
    for (size_t i = 0; i < chosen.size(); ++i) {
      to.blocks[list * size_t(n_all) + i] = chosen[i];
      if (chosen[i] >= n_context) continue;
      // All of a block's mass in the first list that has it.
      to.mass[list * size_t(n_all) + i] = left[size_t(chosen[i])] * float(n_lists);
      left[size_t(chosen[i])] = 0.0f;
    }
  }
}

// What the tokens [from, to) chose, those left out that had no choice.
void keep(NosaCudaRunner& runner, uint64_t key, const ChoiceLog& log, int from, int to) {
  const KvShape& shape = runner.model->kv_shape();
  for (int token = from; token < to; ++token) {
    NosaCudaRunner::Choice choice{key, token, {}};
    for (int list = 0; list < shape.extents_per_block(); ++list) {
      const std::vector<int32_t>* found = log.find(token, list / shape.n_kv_heads, list % shape.n_kv_heads);
      if (found != nullptr) choice.blocks.push_back(*found);
    }
    if (!choice.blocks.empty()) runner.choices.push_back(std::move(choice));
  }
}

bool has_room(const NosaCudaRunner& runner, const Copy& copy, int n_tokens) {
  const int end = int(copy.tokens.size()) + n_tokens;
  return pages_of(runner) + size_t(std::max(0, blocks_for(end) - copy.blocks.n_blocks())) <= size_t(runner.n_pages);
}

int32_t advance_one(NosaCudaRunner* runner, const NosaCudaAdvance* request, NosaCudaAdvanced* out, NosaCudaError* error) {
  Copy& copy = *runner->copies.at(request->key);
  const int first = int(copy.tokens.size());
  const int end = first + request->n_tokens;
  const bool chooses = copy.selector->chooses(end - 1);
  if (chooses != copy.selector->chooses(first)) return fail(error, NOSA_CUDA_FAILED, "Tokens of two kinds.");
  if (request->n_tokens > (chooses ? step_tokens : chunk_tokens)) return fail(error, NOSA_CUDA_FAILED, "Too many tokens.");
  for (size_t i = size_t(std::max(0, first / kBlockTokens - 1)); i < copy.given_keys.size(); ++i) copy.given_keys[i].clear();
  copy.tokens.insert(copy.tokens.end(), request->tokens, request->tokens + request->n_tokens);
  if (!copy.blocks.grow(blocks_for(end)).ok()) return fail(error, NOSA_CUDA_FAILED, "The store is full.");
  const ModelConfig& config = runner->model->config();
  NosaCudaRunner::Left& left = runner->left.emplace_back();
  left.key = request->key;
  left.first = first;
  left.has_windows = request->n_tokens > step_tokens;
  for (int from = first; from < end;) {
    int n = std::min(kChunkTokens, end - from);
    if (request->detail != 0 && from + n == end && n > 1) n -= 1;
    const bool tells = request->detail != 0 && from + n == end;
    ForwardPass pass({from, n, from, tells, tells}, *PassBuffers::create(config));
    ChoiceLog log;
    copy.selector->record(runner->keeps_choices ? &log : nullptr);
    const PassTarget target{copy.tokens, copy.base, &copy.blocks, &copy.side_car, copy.attended_kv, copy.selector.get()};
    if (!runner->model->network().advance(pass, target, {}).ok()) return fail(error, NOSA_CUDA_FAILED, "The cores failed.");
    const float* hidden = pass.hidden(0, config.n_embd);
    left.hidden.insert(left.hidden.end(), hidden, hidden + size_t(n) * size_t(config.n_embd));
    if (tells) tell(*runner, copy, pass, left);
    if (runner->keeps_choices) keep(*runner, request->key, log, from, from + n);
    copy.selector->record(nullptr);
    from += n;
  }
  const size_t skipped = size_t(request->n_tokens - request->n_hidden) * size_t(config.n_embd);
  const int n_all = copy.selector->n_context_blocks() + blocks_for(end);
  *out = {left.hidden.data() + skipped, left.n_blocks.data(), left.blocks.data(), left.mass.data(), n_all, 0};
  return 1;
}

// What there was of the last advance is gone.
int32_t begin_advance(NosaCudaRunner* runner, NosaCudaError* error) {
  if (is_gone(*runner)) return fail(error, NOSA_CUDA_FAILED, "The GPU has fallen off the bus.");
  runner->left.clear();
  return 1;
}

int32_t advance(NosaCudaRunner* runner, const NosaCudaAdvance* request, NosaCudaAdvanced* out, NosaCudaError* error) {
  if (begin_advance(runner, error) == 0) return 0;
  if (!has_room(*runner, *runner->copies.at(request->key), request->n_tokens)) return fail(error, NOSA_CUDA_FULL, "No page is left.");
  runner->n_advances += 1;
  counts.n_advances += 1;
  return advance_one(runner, request, out, error);
}

// Those that attend to all of more blocks than a selection holds do not go through steps.
bool goes_through_step(const Copy& copy) {
  const BlockSelector& selector = *copy.selector;
  const int n = int(copy.tokens.size());
  return selector.chooses(n) || selector.n_open_blocks() + blocks_for(n + 1) <= selector.options().budget.total_blocks;
}

bool selects_alike(const SelectionOptions& a, const SelectionOptions& b) { return a.policy == b.policy && a.budget == b.budget; }

int32_t advance_together(NosaCudaRunner* runner, const NosaCudaNext* next, int32_t n, NosaCudaTogether* out, NosaCudaError* error) {
  if (begin_advance(runner, error) == 0) return 0;
  std::vector<int32_t> together;
  int n_new_blocks = 0;
  for (int32_t i = 0; i < n; ++i) {
    out[i] = {};
    const Copy& copy = *runner->copies.at(next[i].key);
    if (!goes_through_step(copy) || int(together.size()) == step_sequences) continue;
    if (!together.empty() && !selects_alike(copy.selector->options(), runner->copies.at(next[together[0]].key)->selector->options())) continue;
    together.push_back(i);
    n_new_blocks += blocks_for(int(copy.tokens.size()) + 1) - copy.blocks.n_blocks();
  }
  if (pages_of(*runner) + size_t(std::max(0, n_new_blocks)) > size_t(runner->n_pages)) return fail(error, NOSA_CUDA_FULL, "No page is left.");
  runner->n_advances += 1;
  counts.n_advances += 1;
  counts.n_together += together.size() > 1 ? 1 : 0;
  runner->left.reserve(together.size());  // What is told of them stays where it is.
  const ModelConfig& config = runner->model->config();
  for (const int32_t i : together) {
    const NosaCudaAdvance request = {next[i].key, &next[i].token, 1, 1, next[i].detail};
    if (advance_one(runner, &request, &out[i].advanced, error) == 0) return 0;
    std::vector<float>& logits = runner->left.back().logits;
    logits.resize(size_t(config.n_vocab));
    if (!runner->model->network().logits(out[i].advanced.hidden, 1, logits.data(), {})) return fail(error, NOSA_CUDA_FAILED, "Stopped.");
    out[i].logits = logits.data();
    out[i].done = 1;
  }
  return 1;
}

int32_t read(NosaCudaRunner* runner, uint64_t key, int32_t block, int32_t first_row, int32_t n_rows, NosaCudaRows* to, NosaCudaError* error) {
  const KvShape& shape = runner->model->kv_shape();
  const Copy& copy = *runner->copies.at(key);
  const int first = block * kBlockTokens + first_row;
  const auto left = std::ranges::find(runner->left, key, &NosaCudaRunner::Left::key);
  if (left == runner->left.end() || first < left->first || first + n_rows > int(copy.tokens.size())) return fail(error, NOSA_CUDA_FAILED, "Rows that were not computed.");
  const size_t row_bytes = size_t(shape.head_dim) * 2;
  const int first_window = windows_in(first);
  const size_t n_windows = size_t(windows_in(first + n_rows) - first_window);
  to->has_windows = left->has_windows ? 1 : 0;
  for (int layer = 0; layer < shape.n_layers; ++layer) {
    for (int head = 0; head < shape.n_kv_heads; ++head) {
      const size_t stream = size_t(layer * shape.n_kv_heads + head);
      const std::byte* extent = copy.blocks.extent(layer, head, block);
      for (const size_t row : {size_t(first_row), size_t(kBlockTokens + first_row)}) {
        std::memcpy(to->extents[stream] + row * row_bytes, extent + row * row_bytes, size_t(n_rows) * row_bytes);
      }
      const auto scores = copy.side_car.token_scores(layer, head).subspan(size_t(first), size_t(n_rows));
      std::ranges::copy(scores, to->scores + stream * size_t(n_rows));
      for (size_t w = 0; to->has_windows != 0 && w < n_windows; ++w) {
        const int window = first_window + int(w);
        to->window_scores[stream * n_windows + w] = copy.side_car.window_scores(layer, head)[size_t(window)];
        for (int d = 0; d < shape.head_dim; ++d) {
          to->compressed[(stream * n_windows + w) * size_t(shape.head_dim) + size_t(d)] = key_value(copy.side_car, layer, head, window, d);
        }
      }
    }
  }
  return 1;
}

int32_t head(NosaCudaRunner* runner, const float* hidden, int32_t n_rows, float* logits, NosaCudaError* error) {
  if (is_gone(*runner)) return fail(error, NOSA_CUDA_FAILED, "The GPU has fallen off the bus.");
  return runner->model->network().logits(hidden, n_rows, logits, {}) ? 1 : fail(error, NOSA_CUDA_FAILED, "Stopped.");
}

int32_t next_choice(NosaCudaRunner* runner, NosaCudaChoice* out) {
  if (runner->n_told == runner->choices.size()) {
    runner->choices.clear();
    runner->n_told = 0;
    return 0;
  }
  const NosaCudaRunner::Choice& choice = runner->choices[runner->n_told++];
  const size_t n_each = choice.blocks[0].size();
  runner->n_chosen.assign(choice.blocks.size(), int32_t(n_each));
  runner->chosen.clear();
  for (const auto& list : choice.blocks) runner->chosen.insert(runner->chosen.end(), list.begin(), list.end());
  *out = {choice.key, choice.own_idx, int32_t(n_each), runner->n_chosen.data(), runner->chosen.data()};
  return 1;
}

constexpr NosaCudaRunnerFunctions functions = {open, close, grow,    create,           fork, drop, attend,     select,
                                               put,  cut,   advance, advance_together, read, head, next_choice};

}  // namespace
}  // namespace nosa::test

#define EXPORT __attribute__((visibility("default")))

extern "C" {

EXPORT void nosa_cuda_probe(NosaCudaProbe* probe) {
  *probe = {};
  probe->abi = NOSA_CUDA_ABI;
  probe->usable = 1;
  std::snprintf(probe->gpu, sizeof(probe->gpu), "Fake GPU");
}
EXPORT NosaCudaProducts* nosa_cuda_products_open(char*, size_t) { return nullptr; }
EXPORT void nosa_cuda_products_close(NosaCudaProducts*) {}
EXPORT int32_t nosa_cuda_products_add(NosaCudaProducts*, const void*, int32_t, int64_t, int64_t, char*, size_t) { return -1; }
EXPORT int32_t nosa_cuda_products_run(NosaCudaProducts*, const NosaCudaTarget*, int32_t, const float*, int32_t, char*, size_t) { return 0; }
EXPORT const NosaCudaRunnerFunctions* nosa_cuda_runner_functions(void) { return &nosa::test::functions; }

EXPORT void fake_gpu_configure(const nosa::test::FakeGpuOptions* options) { nosa::test::options = *options; }
EXPORT nosa::test::FakeGpuCounts fake_gpu_counts() { return nosa::test::counts; }

}  // extern "C"
