#include "model/device_network.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <thread>

#include "core/check.h"
#include "model/device_source.h"

#ifdef _WIN32
#include <windows.h>
#else
#include <unistd.h>
#endif

namespace nosa {
namespace {

using Clock = std::chrono::steady_clock;

/// What a pass may take: commands must be heard within it.
constexpr double pass_seconds = 0.04;
constexpr int chunk_tokens_least = 128;
constexpr int chunk_tokens_first = 512;
/// Of queries that choose their blocks each.
constexpr int step_tokens_max = 32;

/// Tokens whose blocks get page-locked memory at the start: a context of 128 k, and what is written to it. Longer ones ask for
/// more when they are there: a gigabyte takes a quarter of a second.
constexpr size_t tokens_wanted = size_t(144) << 10;
/// Page-locked memory is lost to everybody else: no more than this share of the machine's.
constexpr size_t memory_share = 6;

size_t machine_bytes() {
#ifdef _WIN32
  MEMORYSTATUSEX status = {};
  status.dwLength = sizeof(status);
  return GlobalMemoryStatusEx(&status) != 0 ? size_t(status.ullTotalPhys) : 0;
#else
  return size_t(sysconf(_SC_PHYS_PAGES)) * size_t(sysconf(_SC_PAGE_SIZE));
#endif
}

size_t page_bytes(const KvShape& shape) { return shape.extent_bytes() * size_t(shape.extents_per_block()); }

NosaCudaTensor tensor_of(const WeightView& view) { return {view.data, int32_t(view.dtype), view.rows, view.cols}; }

NosaCudaLinear linear_of(const cuda::LinearSource& linear) { return {tensor_of(linear.weight), linear.bias}; }

NosaCudaLayer layer_of(const cuda::LayerSource& layer) {
  return {layer.attn_norm,       layer.ffn_norm,        linear_of(layer.q),    linear_of(layer.k),
          linear_of(layer.v),    linear_of(layer.out),  linear_of(layer.gate), linear_of(layer.up),
          linear_of(layer.down), layer.eviction_a,      layer.eviction_delta,  layer.eviction_delta_bias};
}

}  // namespace

DeviceKv::~DeviceKv() {
  if (key_ != 0) network_->forget(*this);
}

void DeviceKv::fork_from(const DeviceKv& other) {
  n_otherwise_ = other.n_otherwise_;
  if (other.key_ == 0 || !other.network_->usable()) return;
  CHECK(key_ == 0);
  NosaCudaError error = {};
  key_ = network_->calls().fork(network_->runner_, other.key_, &error);
  if (key_ == 0) {
    network_->failed(error);
    return;
  }
  n_there_ = other.n_there_;
  n_valid_ = other.n_valid_;
  attends_ = other.attends_;
  last_use_ = other.last_use_;
  selects_ = other.selects_;
  selection_ = other.selection_;
  network_->there_.push_back(this);
}

Result<std::unique_ptr<DeviceNetwork>> DeviceNetwork::create(const std::string& library_path, const Weights& weights,
                                                             const Adapter* adapter, const ModelConfig& config,
                                                             const KvShape& kv_shape, int n_threads, bool keeps_choices) {
  if (kv_shape.dtype != DType::kF16) return Status::unsupported("The GPU keeps keys and values as 16-bit floats.");
  Result<std::unique_ptr<CudaLibrary>> library = CudaLibrary::open(library_path);
  if (!library.ok()) return library.status();
  const NosaCudaProbe probe = (*library)->probe();
  if (probe.usable == 0) return Status::unsupported(probe.reason);
  const Result<std::unique_ptr<DeviceSource>> source = DeviceSource::create(weights, config, adapter, n_threads);
  if (!source.ok()) return source.status();

  const cuda::ModelSource& from = (*source)->source();
  std::vector<NosaCudaLayer> layers;
  for (const cuda::LayerSource& layer : from.layers) layers.push_back(layer_of(layer));
  NosaCudaNetwork network = {};
  network.n_layers = from.shape.n_layers;
  network.n_embd = from.shape.n_embd;
  network.n_ff = from.shape.n_ff;
  network.n_heads = from.shape.n_heads;
  network.n_kv_heads = from.shape.n_kv_heads;
  network.head_dim = from.shape.head_dim;
  network.n_vocab = from.shape.n_vocab;
  network.n_rotated = from.shape.n_rotated;
  network.rope_neighbours = from.shape.rope_neighbours ? 1 : 0;
  network.rms_eps = from.shape.rms_eps;
  network.rope_magnitude = from.shape.rope_magnitude;
  network.inv_freq = from.inv_freq;
  network.embedding = tensor_of(from.embedding);
  network.output_norm = from.output_norm;
  network.output = tensor_of(from.output);
  network.layers = layers.data();
  network.keeps_choices = keeps_choices ? 1 : 0;

  std::unique_ptr<DeviceNetwork> device(new DeviceNetwork(*std::move(library), kv_shape, config.n_embd));
  const size_t host_bytes = std::min(machine_bytes() / memory_share, tokens_wanted / kBlockTokens * page_bytes(kv_shape));
  NosaCudaError error = {};
  device->runner_ = device->calls().open(&network, host_bytes, &device->plan_, &error);
  if (device->runner_ == nullptr) {
    return error.code == NOSA_CUDA_FULL ? Status::out_of_memory(error.text) : Status::unsupported(error.text);
  }
  device->name_ = probe.gpu;
  return device;
}

DeviceNetwork::~DeviceNetwork() {
  CHECK(there_.empty());
  if (runner_ != nullptr) calls().close(runner_);
}

// The runner has none of its sequences any more.
void DeviceNetwork::lose_all() {
  for (DeviceKv* kv : there_) {
    kv->key_ = 0;
    kv->n_there_ = kv->n_valid_ = 0;
    kv->attends_ = kv->selects_ = kv->refused_ = false;
  }
  there_.clear();
}

// From here on the cores compute. What is on the GPU is lost; host memory has it all.
void DeviceNetwork::give_up(const std::string& why) {
  lose_all();
  calls().close(runner_);
  runner_ = nullptr;
  problem_ = why;
}

DeviceNetwork::Outcome DeviceNetwork::failed(const NosaCudaError& error) {
  if (error.code == NOSA_CUDA_FAILED) give_up(error.text);
  return Outcome::kNotHere;
}

void DeviceNetwork::forget(DeviceKv& kv) {
  std::erase(there_, &kv);
  if (runner_ != nullptr) calls().drop(runner_, kv.key_);
}

void DeviceNetwork::drop(DeviceKv& kv) {
  forget(kv);
  kv.key_ = 0;
  kv.n_there_ = kv.n_valid_ = 0;
  kv.attends_ = kv.selects_ = kv.refused_ = false;
}

// Takes away the copy longest unused, but none that is in use; false when there is no other. One that attends others was
// last used before them, so it goes first.
bool DeviceNetwork::make_room() {
  DeviceKv* oldest = nullptr;
  for (DeviceKv* kv : there_) {
    if (kv->last_use_ >= in_use_since_) continue;
    if (oldest == nullptr || kv->last_use_ < oldest->last_use_) oldest = kv;
  }
  if (oldest == nullptr) return false;
  drop(*oldest);
  return true;
}

int DeviceNetwork::pass_tokens(const PassTarget& target, int first) const {
  const BlockSelector& selector = *target.selector;
  if (selector.chooses(first)) return step_tokens_max;
  int n = std::min(chunk_tokens_first, plan_.chunk_tokens);
  if (token_seconds_ > 0.0) {
    const double fits = std::min(pass_seconds / token_seconds_, double(plan_.chunk_tokens));
    n = std::clamp(int(std::bit_floor(unsigned(fits))), chunk_tokens_least, plan_.chunk_tokens);
  }
  // Up to the first that chooses.
  int end = first + n;
  if (selector.chooses(end - 1)) {
    end = (first / kBlockTokens + 1) * kBlockTokens;
    while (!selector.chooses(end)) end += kBlockTokens;
  }
  return end - first;
}

DeviceNetwork::Outcome DeviceNetwork::cut(DeviceKv& kv, int n_tokens) {
  if (kv.n_there_ <= n_tokens) return Outcome::kDone;
  NosaCudaError error = {};
  if (calls().cut(runner_, kv.key_, n_tokens, &error) == 0) return failed(error);
  kv.n_there_ = n_tokens;
  kv.n_valid_ = std::min(kv.n_valid_, n_tokens);
  return Outcome::kDone;
}

// Makes the copy the first `n_tokens` tokens of a sequence.
Result<DeviceNetwork::Outcome> DeviceNetwork::bring(DeviceKv& kv, const BlockTable& blocks, const SideCar& side_car, int n_tokens,
                                                    const StopFlag& stop) {
  if (kv.key_ == 0) {
    NosaCudaError error = {};
    kv.key_ = calls().create(runner_, kv.base_position_, &error);
    if (kv.key_ == 0) return failed(error);
    there_.push_back(&kv);
  }
  kv.last_use_ = clock_;
  if (kv.n_valid_ >= n_tokens) return cut(kv, std::max(n_tokens, kv.n_valid_));
  // Whole blocks are brought; the one before the first of them may have got its last window since.
  const Outcome cut_off = cut(kv, std::max(0, kv.n_valid_ / kBlockTokens - 1) * kBlockTokens);
  if (cut_off != Outcome::kDone) return cut_off;
  while (kv.n_there_ < n_tokens) {
    if (stop.raised()) return Outcome::kInterrupted;
    const Result<Outcome> outcome = bring_block(kv, blocks, side_car, kv.n_there_ / kBlockTokens, n_tokens);
    if (!outcome.ok() || *outcome != Outcome::kDone) return outcome;
  }
  return Outcome::kDone;
}

Result<DeviceNetwork::Outcome> DeviceNetwork::bring_block(DeviceKv& kv, const BlockTable& blocks, const SideCar& side_car, int block,
                                                          int n_tokens) {
  const size_t n_streams = size_t(kv_shape_.extents_per_block());
  const size_t head_dim = size_t(kv_shape_.head_dim);
  constexpr size_t n_windows_each = kBlockTokens / kWindowStride;
  static_assert(kTileWindows % n_windows_each == 0);
  ids_.clear();
  extents_.clear();
  compressed_.assign(n_streams * n_windows_each * head_dim, 0);
  token_scores_.assign(n_streams * kBlockTokens, 0.0f);
  window_scores_.assign(n_streams * n_windows_each, 0.0f);
  const int n_block_tokens = std::min(kBlockTokens, n_tokens - block * kBlockTokens);
  const size_t first_window = size_t(block) * n_windows_each;
  const size_t n_windows = std::min(n_windows_each, size_t(windows_in(n_tokens)) - std::min(size_t(windows_in(n_tokens)), first_window));
  for (int layer = 0; layer < kv_shape_.n_layers; ++layer) {
    for (int head = 0; head < kv_shape_.n_kv_heads; ++head) {
      const size_t stream = ids_.size();
      ids_.push_back(blocks.id(layer, head, block));
      const auto scores = side_car.token_scores(layer, head).subspan(size_t(block) * kBlockTokens, size_t(n_block_tokens));
      std::ranges::copy(scores, token_scores_.begin() + long(stream * kBlockTokens));
      const auto windows = side_car.window_scores(layer, head).subspan(first_window, n_windows);
      std::ranges::copy(windows, window_scores_.begin() + long(stream * n_windows_each));
      // A tile has dimension by dimension what a row of the GPU's has window by window.
      const auto* tile = reinterpret_cast<const uint16_t*>(side_car.compressed_keys(layer, head)) +
                         first_window / kTileWindows * head_dim * kTileWindows + first_window % kTileWindows;
      uint16_t* keys = compressed_.data() + stream * n_windows_each * head_dim;
      for (size_t window = 0; window < n_windows; ++window) {
        for (size_t d = 0; d < head_dim; ++d) keys[window * head_dim + d] = tile[d * kTileWindows + window];
      }
    }
  }
  BlockStore& store = blocks.store();
  store.begin_step();
  if (Status status = store.make_resident(ids_); !status.ok()) return status;
  for (const BlockId id : ids_) extents_.push_back(reinterpret_cast<const uint8_t*>(store.data(id)));

  const NosaCudaBlock source = {n_block_tokens, extents_.data(), compressed_.data(), token_scores_.data(), window_scores_.data()};
  NosaCudaError error = {};
  while (calls().put(runner_, kv.key_, &source, &error) == 0) {
    if (error.code != NOSA_CUDA_FULL || !make_room()) return failed(error);
  }
  kv.n_there_ += n_block_tokens;
  kv.n_valid_ = kv.n_there_;
  return Outcome::kDone;
}

// Whatever a sequence sees with `n_own` own tokens should fit. If more room is taken for that, all copies on the GPU are gone: only
// where nothing is in use yet.
void DeviceNetwork::make_long_enough(const PassTarget& target, int n_own) {
  if (!usable()) return;
  const int n_blocks = target.selector->n_context_blocks() + blocks_for(n_own) + 1;
  if ((n_blocks <= plan_.n_pages && n_blocks <= plan_.n_blocks_max) || n_blocks >= n_blocks_refused_) return;
  NosaCudaPlan plan = {};
  NosaCudaError error = {};
  if (calls().grow(runner_, n_blocks, machine_bytes() / memory_share, &plan, &error) == 0) {
    n_blocks_refused_ = n_blocks;
    failed(error);
    return;
  }
  lose_all();
  plan_ = plan;
  if (plan_.n_blocks_max < n_blocks) n_blocks_refused_ = n_blocks;
}

// What is attended and the first `n_own` own tokens are brought to the GPU, which learns how they are attended.
Result<DeviceNetwork::Outcome> DeviceNetwork::prepare(const PassTarget& target, int n_own, const StopFlag& stop) {
  DeviceKv& own = *target.device;
  if (!usable()) return Outcome::kNotHere;
  if (own.refused_ && own.selection_ == target.selector->options()) return Outcome::kNotHere;
  const int n_blocks = target.selector->n_context_blocks() + blocks_for(n_own) + 1;
  if (n_blocks > plan_.n_pages || n_blocks > plan_.n_blocks_max) return Outcome::kNotHere;

  // In this order of use, copies go before those that they attend.
  own.last_use_ = ++clock_;
  ++clock_;
  for (const AttendedKv& attended : target.attended) {
    if (attended.device->key_ != 0) attended.device->last_use_ = clock_;
  }
  for (const AttendedKv& attended : target.attended) {
    const Result<Outcome> outcome = bring(*attended.device, *attended.blocks, *attended.side_car, attended.n_tokens, stop);
    if (!outcome.ok() || *outcome != Outcome::kDone) return outcome;
  }
  --clock_;
  const Result<Outcome> outcome = bring(own, *target.blocks, *target.side_car, n_own, stop);
  ++clock_;
  if (!outcome.ok() || *outcome != Outcome::kDone) return outcome;
  const Outcome attends = attend(own, target);
  if (attends != Outcome::kDone) return attends;
  return select(own, *target.selector);
}

DeviceNetwork::Outcome DeviceNetwork::attend(DeviceKv& kv, const PassTarget& target) {
  if (kv.attends_) return Outcome::kDone;
  std::vector<uint64_t> keys;
  for (const AttendedKv& attended : target.attended) keys.push_back(attended.device->key_);
  NosaCudaError error = {};
  if (calls().attend(runner_, kv.key_, keys.data(), int32_t(keys.size()), &error) == 0) return failed(error);
  kv.attends_ = true;
  kv.selects_ = false;
  return Outcome::kDone;
}

DeviceNetwork::Outcome DeviceNetwork::select(DeviceKv& kv, const BlockSelector& selector) {
  const SelectionOptions& options = selector.options();
  if (kv.selects_ && kv.selection_ == options) return kv.refused_ ? Outcome::kNotHere : Outcome::kDone;
  std::vector<uint8_t> flags(size_t(selector.n_context_blocks()), 0);
  for (size_t b = 0; b < flags.size(); ++b) flags[b] = uint8_t((selector.masked(int32_t(b)) ? 1 : 0) | (selector.pinned(int32_t(b)) ? 2 : 0));
  const SelectionBudget& budget = options.budget;
  const NosaCudaSelection selection = {int32_t(options.policy), budget.total_blocks, budget.query_blocks, budget.sink_blocks,
                                       budget.window_blocks,    flags.data(),        int32_t(flags.size())};
  NosaCudaError error = {};
  const bool taken = calls().select(runner_, kv.key_, &selection, &error) != 0;
  kv.selection_ = options;
  kv.selects_ = true;
  kv.refused_ = !taken;
  return taken ? Outcome::kDone : failed(error);
}

Result<DeviceNetwork::Outcome> DeviceNetwork::load_attended(const PassTarget& target, const StopFlag& stop) {
  make_long_enough(target, 0);
  begin_use();
  return prepare(target, 0, stop);
}

Result<DeviceNetwork::Outcome> DeviceNetwork::compute(ForwardPass& pass, const PassTarget& target, const StopFlag& stop) {
  const PassPlan& plan = pass.plan();
  // The copy below would attend to keys and values that the sequence does not have.
  if (plan.first < std::min(plan.store_from, target.device->n_otherwise_)) return Outcome::kNotHere;
  // What a pass that was given up has left of tokens that do not count yet.
  target.side_car->truncate(plan.store_from);
  make_long_enough(target, pass.end());
  begin_use();
  const Result<Outcome> prepared = prepare(target, std::min(plan.first, plan.store_from), stop);
  if (!prepared.ok() || *prepared != Outcome::kDone) return prepared;
  DeviceKv& own = *target.device;
  if (plan.first >= plan.store_from && own.n_there_ == plan.first) {
    const Result<Outcome> outcome = run(own.key_, pass, target);
    if (own.key_ != 0) own.n_there_ = pass.end();  // Whatever came of it, it is cut off again when it is not valid.
    if (outcome.ok() && *outcome == Outcome::kDone) own.n_valid_ = pass.end();
    return outcome;
  }
  // Tokens whose keys and values are there already are computed anew in a copy, so that those stay as they are.
  NosaCudaError error = {};
  const uint64_t copy = calls().fork(runner_, own.key_, &error);
  if (copy == 0) return failed(error);
  Result<Outcome> outcome = calls().cut(runner_, copy, plan.first, &error) != 0 ? run(copy, pass, target) : failed(error);
  if (usable()) calls().drop(runner_, copy);
  return outcome;
}

Result<DeviceNetwork::Outcome> DeviceNetwork::run(uint64_t key, ForwardPass& pass, const PassTarget& target) {
  const PassPlan& plan = pass.plan();
  const bool detail = plan.masses || plan.selections;
  const auto tokens = target.tokens.subspan(size_t(plan.first), size_t(plan.n_tokens));
  const NosaCudaAdvance request = {key, tokens.data(), plan.n_tokens, plan.all_hidden ? plan.n_tokens : 1, detail ? 1 : 0};
  NosaCudaAdvanced advanced = {};
  NosaCudaError error = {};
  const Clock::time_point start = Clock::now();
  while (calls().advance(runner_, &request, &advanced, &error) == 0) {
    if (error.code != NOSA_CUDA_FULL || !make_room()) return failed(error);
  }
  if (plan.n_tokens >= chunk_tokens_least) {
    token_seconds_ = std::chrono::duration<double>(Clock::now() - start).count() / plan.n_tokens;
  }
  const Together told = {.pass = &pass, .target = target, .status = {}};
  take_choices({&told, 1});
  Outcome outcome = Outcome::kDone;
  if (Status status = take(key, advanced, pass, target, outcome); !status.ok()) return status;
  return outcome;
}

// Makes what the runner computed for a pass its result.
Status DeviceNetwork::take(uint64_t key, const NosaCudaAdvanced& advanced, ForwardPass& pass, const PassTarget& target, Outcome& outcome) {
  const PassPlan& plan = pass.plan();
  const size_t n_hidden = plan.all_hidden ? size_t(plan.n_tokens) : 1;
  pass.rows_.assign(advanced.hidden, advanced.hidden + n_hidden * size_t(n_embd_));
  pass.n_fetched_ = advanced.n_fetched;
  if (Status status = take_rows(key, pass, target, outcome); !status.ok() || outcome != Outcome::kDone) {
    target.side_car->truncate(plan.store_from);
    return status;
  }
  take_detail(advanced, pass, target);
  pass.stage_ = ForwardPass::Stage::kDone;
  return {};
}

// Whether a pass can go with others, once what it attends to is there.
bool DeviceNetwork::fits_together(Together& of, const StopFlag& stop) {
  const PassPlan& plan = of.pass->plan();
  CHECK(plan.n_tokens == 1 && plan.first == plan.store_from);
  if (!usable() || plan.first < of.target.device->n_otherwise_) return false;
  of.target.side_car->truncate(plan.store_from);
  const BlockStore& store = of.target.blocks->store();
  const uint64_t n_loaded = store.n_loaded();
  const Result<Outcome> prepared = prepare(of.target, plan.first, stop);
  of.n_loaded += store.n_loaded() - n_loaded;
  of.status = prepared.status();
  return prepared.ok() && *prepared == Outcome::kDone && of.target.device->n_there_ == plan.first;
}

void DeviceNetwork::compute_together(std::span<Together> passes, const StopFlag& stop) {
  std::vector<Together*> ready;
  begin_use();
  for (Together& of : passes) {
    if (fits_together(of, stop)) ready.push_back(&of);
  }
  // Those that came later may have taken the GPU with them.
  if (!usable() || ready.size() < 2) return;
  std::vector<NosaCudaNext> next;
  for (const Together* of : ready) {
    const PassPlan& plan = of->pass->plan();
    next.push_back({of->target.device->key_, of->target.tokens[size_t(plan.first)], plan.masses || plan.selections ? 1 : 0});
  }
  std::vector<NosaCudaTogether> found(next.size());
  NosaCudaError error = {};
  while (calls().advance_together(runner_, next.data(), int32_t(next.size()), found.data(), &error) == 0) {
    if (error.code == NOSA_CUDA_FULL && make_room()) continue;
    failed(error);
    return;
  }
  take_choices(passes);
  const bool shared = std::ranges::count(found, 1, &NosaCudaTogether::done) > 1;
  for (size_t i = 0; i < ready.size() && usable(); ++i) {
    if (found[i].done == 0) continue;
    Together& of = *ready[i];
    DeviceKv& own = *of.target.device;
    const BlockStore& store = of.target.blocks->store();
    const uint64_t n_loaded = store.n_loaded();
    Outcome outcome = Outcome::kDone;
    of.status = take(own.key_, found[i].advanced, *of.pass, of.target, outcome);
    of.n_loaded += store.n_loaded() - n_loaded;
    if (own.key_ != 0) own.n_there_ = of.pass->end();  // As of compute().
    if (!of.status.ok() || outcome != Outcome::kDone) continue;
    own.n_valid_ = of.pass->end();
    of.computed = true;
    of.shared = shared;
    of.logits = found[i].logits;
  }
}

// Copies what the pass left into the sequence's own blocks and side-car.
Status DeviceNetwork::take_rows(uint64_t key, const ForwardPass& pass, const PassTarget& target, Outcome& outcome) {
  for (int from = std::max(pass.plan().first, pass.plan().store_from); from < pass.end() && outcome == Outcome::kDone;) {
    const int block = from / kBlockTokens;
    const int n_rows = std::min((block + 1) * kBlockTokens, pass.end()) - from;
    Status status = take_block(key, target, block, from % kBlockTokens, n_rows, outcome);
    if (!status.ok()) return status;
    from += n_rows;
  }
  return {};
}

Status DeviceNetwork::take_block(uint64_t key, const PassTarget& target, int block, int first_row, int n_rows, Outcome& outcome) {
  BlockTable& blocks = *target.blocks;
  blocks.store().begin_step();
  if (Status status = blocks.grow(block + 1); !status.ok()) return status;
  // A window reaches back to keys of the block before.
  const int first = block * kBlockTokens + first_row;
  const size_t n_windows = size_t(windows_in(first + n_rows) - windows_in(first));
  const size_t head_dim = size_t(kv_shape_.head_dim);
  ids_.clear();
  writable_.clear();
  for (int layer = 0; layer < kv_shape_.n_layers; ++layer) {
    for (int head = 0; head < kv_shape_.n_kv_heads; ++head) {
      const Result<std::byte*> extent = blocks.writable_extent(layer, head, block);
      if (!extent.ok()) return extent.status();
      writable_.push_back(reinterpret_cast<uint8_t*>(*extent));
      if (block > 0) ids_.push_back(blocks.id(layer, head, block - 1));
    }
  }
  token_scores_.resize(writable_.size() * size_t(n_rows));
  compressed_.resize(writable_.size() * n_windows * head_dim);
  window_scores_.resize(writable_.size() * n_windows);
  NosaCudaRows rows = {writable_.data(), token_scores_.data(), compressed_.data(), window_scores_.data(), 0};
  NosaCudaError error = {};
  if (calls().read(runner_, key, block, first_row, n_rows, &rows, &error) == 0) {
    outcome = failed(error);
    return {};
  }
  if (rows.has_windows == 0 && n_windows > 0) {
    if (Status status = blocks.store().make_resident(ids_); !status.ok()) return status;
  }
  const size_t n_heads = size_t(kv_shape_.n_kv_heads);
  for (size_t layer = 0; layer < size_t(kv_shape_.n_layers); ++layer) {
    const auto scores = std::span(token_scores_).subspan(layer * n_heads * size_t(n_rows), n_heads * size_t(n_rows));
    if (rows.has_windows == 0) {
      target.side_car->append(int(layer), blocks, first + n_rows, scores);
      continue;
    }
    const auto windows = std::span(window_scores_).subspan(layer * n_heads * n_windows, n_heads * n_windows);
    const uint16_t* keys = compressed_.data() + layer * n_heads * n_windows * head_dim;
    target.side_car->append(int(layer), first + n_rows, scores, reinterpret_cast<const std::byte*>(keys), windows);
  }
  return {};
}

// What the last token attended to, in the pass's own terms.
void DeviceNetwork::take_detail(const NosaCudaAdvanced& advanced, ForwardPass& pass, const PassTarget& target) const {
  const PassPlan& plan = pass.plan();
  const BlockSelector& selector = *target.selector;
  const int last = pass.end() - 1;
  const size_t n_lists = size_t(kv_shape_.extents_per_block());
  const size_t n_blocks = size_t(selector.n_context_blocks() + blocks_for(pass.end()));
  const bool chooses = selector.chooses(last);
  const size_t n_open = size_t(selector.n_open_blocks() + blocks_for(pass.end()));
  pass.n_attended_ = n_lists * (chooses ? size_t(selector.options().budget.total_blocks) : n_open);
  pass.selections_.assign(n_lists, {});
  if (!plan.masses && !plan.selections) return;
  pass.masses_.assign(size_t(kv_shape_.n_kv_heads) * n_blocks, 0.0f);
  for (size_t list = 0; list < n_lists; ++list) {
    const size_t at = list * size_t(advanced.n_selected_max);
    const size_t n = size_t(advanced.n_blocks[list]);
    const std::span<const int32_t> chosen(advanced.blocks + at, n);
    float* masses = pass.masses_.data() + list % size_t(kv_shape_.n_kv_heads) * n_blocks;
    for (size_t i = 0; i < n; ++i) masses[size_t(chosen[i])] += advanced.mass[at + i];
    if (chooses || selector.masks_any()) pass.selections_[list].assign(chosen.begin(), chosen.end());
  }
}

// Queries of a copy tell of the sequence that it is a copy of, which is alone then.
void DeviceNetwork::take_choices(std::span<const Together> passes) const {
  const size_t n_heads = size_t(kv_shape_.n_kv_heads);
  NosaCudaChoice choice = {};
  while (calls().next_choice(runner_, &choice) != 0) {
    const auto mine = std::ranges::find(passes, choice.key, [](const Together& of) { return of.target.device->key_; });
    const Together& of = passes.size() == 1 ? passes[0] : *mine;
    CHECK(passes.size() == 1 || mine != passes.end());
    ChoiceLog* log = of.target.selector->recorded();
    for (size_t list = 0; log != nullptr && list < size_t(kv_shape_.extents_per_block()); ++list) {
      log->put(choice.own_idx, int(list / n_heads), int(list % n_heads),
               {choice.blocks + list * size_t(choice.n_selected_max), size_t(choice.n_blocks[list])});
    }
  }
}

bool DeviceNetwork::logits(const float* hidden, int n_tokens, float* out) {
  if (!usable()) return false;
  NosaCudaError error = {};
  if (calls().head(runner_, hidden, n_tokens, out, &error) != 0) return true;
  failed(error);
  return false;
}

}  // namespace nosa
