#include "backends/cpu/attention.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"

namespace nosa::cpu {
namespace {

constexpr int64_t align_line(int64_t n_bytes) { return (n_bytes + 63) / 64 * 64; }

int run_begin(int run_idx, int n_blocks) {
  int begin = 0;
  for (int i = 0; i < run_idx; ++i) begin = run_end(begin, n_blocks);
  return begin;
}

/// Which of the states of all runs, see attend_item, is that of a run's query `member` of the heads that share a KV head.
int64_t state_idx(const AttentionArgs& args, const AttentionPlan& plan, int run_idx, int kv_head, int token, int member = 0) {
  return ((int64_t{run_idx} * args.n_kv_heads + kv_head) * args.n_tokens + token) * plan.group + member;
}

void clear(float* state, int head_dim) {
  std::fill(state, state + head_dim, 0.0f);
  state[head_dim] = peak_of_nothing;
  state[head_dim + 1] = 0.0f;
}

/// Joins `part` to `total`: the softmax over both sets of keys.
void join(float* total, const float* part, int head_dim) {
  const float peak = std::max(total[head_dim], part[head_dim]);
  const float keep = std::exp2(total[head_dim] - peak);
  const float take = std::exp2(part[head_dim] - peak);
  for (int d = 0; d < head_dim; ++d) total[d] = total[d] * keep + part[d] * take;
  total[head_dim + 1] = total[head_dim + 1] * keep + part[head_dim + 1] * take;
  total[head_dim] = peak;
}

/// out = values / sum; a query that saw no key gets zeros.
void finish(const float* total, int head_dim, float* out) {
  const float sum = total[head_dim + 1];
  const float factor = sum > 0.0f ? 1.0f / sum : 0.0f;
  for (int d = 0; d < head_dim; ++d) out[d] = total[d] * factor;
}

/// The part of the call that one item or run is about; `states` and block borders are still open.
AttendRun run_of(const AttentionArgs& args, const AttentionPlan& plan, int kv_head,
                 int first_token) {
  const size_t n_context = args.context.size() / static_cast<size_t>(args.n_kv_heads);
  const size_t n_own = args.own.size() / static_cast<size_t>(args.n_kv_heads);
  const auto head = static_cast<size_t>(kv_head);
  AttendRun run;
  run.q = args.q + int64_t{first_token} * args.n_heads * args.head_dim;
  run.n_tokens = std::min(plan.tile_tokens, args.n_tokens - first_token);
  run.n_heads = args.n_heads;
  run.first_head = kv_head * plan.group;
  run.group = plan.group;
  run.head_dim = args.head_dim;
  run.own_start = args.own_start + first_token;
  run.scale = args.scale;
  run.kv_dtype = args.kv_dtype;
  run.context = args.context.subspan(head * n_context, n_context);
  run.own = args.own.subspan(head * n_own, n_own);
  run.beside_picks = args.n_picks > 0;
  return run;
}

/// Blocks that some token of the run sees; those after it are all in its future.
int visible_blocks(const AttendRun& run) {
  const int own = (run.own_start + run.n_tokens + kBlockTokens - 1) / kBlockTokens;
  return static_cast<int>(run.context.size()) + std::min(own, static_cast<int>(run.own.size()));
}

/// One run of the picks of the tokens of `run`, into its states.
void attend_pick_run(const AttentionArgs& args, const AttentionPlan& plan, const AttendRun& run,
                     int kv_head, int first_token, int pick_run, const AttentionOps& ops) {
  const auto head = static_cast<size_t>(kv_head);
  const auto begin = static_cast<size_t>(args.picked_begin[head]);
  const auto end = static_cast<size_t>(args.picked_begin[head + 1]);
  AttendPicks picks;
  picks.q = run.q;
  picks.n_tokens = run.n_tokens;
  picks.n_heads = run.n_heads;
  picks.first_head = run.first_head;
  picks.group = run.group;
  picks.head_dim = run.head_dim;
  picks.scale = run.scale;
  picks.kv_dtype = run.kv_dtype;
  picks.blocks = args.picked.subspan(begin, end - begin);
  picks.picks = args.picks.data() + (int64_t{kv_head} * args.n_tokens + first_token) * args.n_picks;
  picks.n_picks = args.n_picks;
  picks.pick_begin = pick_run * pick_run_blocks;
  picks.pick_end = std::min(args.n_picks, picks.pick_begin + pick_run_blocks);
  picks.states = run.states;
  picks.scratch = run.scratch;
  if (args.n_tokens > 1) return ops.attend_picks(picks);
  // A token alone: its picks are all that was picked, in order.
  AttendRun alone = run;
  alone.context = picks.blocks;
  alone.own = {};
  alone.block_begin = picks.pick_begin;
  alone.block_end = picks.pick_end;
  if (run.shares != nullptr) alone.shares = run.shares + plan.n_blocks;
  ops.attend(alone);
}

}  // namespace

AttentionPlan plan_attention(const AttentionArgs& args, int n_threads) {
  CHECK(args.n_heads % args.n_kv_heads == 0);
  AttentionPlan plan;
  plan.group = args.n_heads / args.n_kv_heads;
  plan.n_blocks = static_cast<int>((args.context.size() + args.own.size()) /
                                   static_cast<size_t>(args.n_kv_heads));
  // Tokens that see everything come in chunks, and are cut such that there is enough to share. Those that
  // choose are few, and stay together: the more of them, the more of them picked the same block.
  constexpr int chunk_tile_tokens = 32;
  plan.tile_tokens = std::min(args.n_tokens, args.n_picks > 0 ? attend_tokens_max : chunk_tile_tokens);
  plan.n_tiles = (args.n_tokens + plan.tile_tokens - 1) / plan.tile_tokens;
  plan.n_picks = args.n_picks;
  CHECK(plan.n_picks == 0 || args.block_mass == nullptr || args.n_tokens == 1);
  for (int begin = 0; begin < plan.n_blocks; begin = run_end(begin, plan.n_blocks)) ++plan.n_block_runs;
  plan.n_runs = plan.n_block_runs + (plan.n_picks + pick_run_blocks - 1) / pick_run_blocks;
  const int64_t n_whole = int64_t{plan.n_tiles} * args.n_kv_heads;
  plan.runs_apart = n_threads > 1 && plan.n_runs > 1 && n_whole < 4 * int64_t{n_threads};
  plan.n_items = n_whole * (plan.runs_apart ? plan.n_runs : 1);

  const int64_t state = state_floats(args.head_dim) * int64_t{sizeof(float)};
  const int64_t tile_states = align_line(state * plan.tile_tokens * plan.group);
  plan.worker_bytes = 2 * tile_states + attend_scratch_bytes(plan.group, args.head_dim);
  plan.state_bytes = plan.runs_apart ? state * args.n_tokens * args.n_heads * plan.n_runs : 0;
  plan.share_bytes =
      int64_t{args.n_heads} * (plan.n_blocks + plan.n_picks) * int64_t{sizeof(BlockShare)};
  return plan;
}

void attend_item(const AttentionArgs& args, const AttentionPlan& plan, int64_t item,
                 const AttentionOps& ops, float* states, BlockShare* shares, std::byte* scratch) {
  const int n_runs_each = plan.runs_apart ? plan.n_runs : 1;
  int64_t whole = item / n_runs_each;
  int run_idx = static_cast<int>(item % n_runs_each);
  // One token's runs come in order, as each reads ahead the beginning of the next. Many tokens' longest
  // runs, the last ones, come first, so that no thread is left with them.
  if (args.n_tokens > 1) {
    const int64_t n_whole = int64_t{plan.n_tiles} * args.n_kv_heads;
    whole = item % n_whole;
    run_idx = n_runs_each - 1 - static_cast<int>(item / n_whole);
  }
  const int kv_head = static_cast<int>(whole % args.n_kv_heads);
  // The last tokens see the most blocks: they come first too.
  const int tile = plan.n_tiles - 1 - static_cast<int>(whole / args.n_kv_heads);
  const int first_token = tile * plan.tile_tokens;

  AttendRun run = run_of(args, plan, kv_head, first_token);
  const int64_t state = state_floats(args.head_dim);
  const int64_t n_states = int64_t{run.n_tokens} * plan.group;
  auto* part = reinterpret_cast<float*>(scratch);
  const int64_t tile_floats = align_line(state * 4 * plan.tile_tokens * plan.group) / 4;
  float* total = part + tile_floats;
  run.states = part;
  run.scratch = scratch + 2 * tile_floats * 4;
  if (shares != nullptr && tile == plan.n_tiles - 1) {
    run.shares = shares + int64_t{run.first_head} * (plan.n_blocks + plan.n_picks);
    run.shares_stride = plan.n_blocks + plan.n_picks;
  }

  const int n_visible = visible_blocks(run);
  if (plan.runs_apart) {
    run.states = states + state_idx(args, plan, run_idx, kv_head, first_token) * state;
    if (run_idx < plan.n_block_runs) {
      run.block_begin = run_begin(run_idx, plan.n_blocks);
      run.block_end = run_end(run.block_begin, plan.n_blocks);
      run.block_end = std::min(run.block_end, std::max(run.block_begin, n_visible));
      ops.attend(run);
    } else {
      attend_pick_run(args, plan, run, kv_head, first_token, run_idx - plan.n_block_runs, ops);
    }
    return;
  }

  for (int64_t i = 0; i < n_states; ++i) clear(total + i * state, args.head_dim);
  const auto join_all = [&] {
    for (int64_t i = 0; i < n_states; ++i) join(total + i * state, part + i * state, args.head_dim);
  };
  for (int begin = 0; begin < n_visible; begin = run_end(begin, plan.n_blocks)) {
    run.block_begin = begin;
    run.block_end = std::min(run_end(begin, plan.n_blocks), n_visible);
    ops.attend(run);
    join_all();
  }
  for (int pick_run = 0; pick_run < plan.n_runs - plan.n_block_runs; ++pick_run) {
    attend_pick_run(args, plan, run, kv_head, first_token, pick_run, ops);
    join_all();
  }
  for (int64_t i = 0; i < n_states; ++i) {
    const int64_t query =
        (first_token + i / plan.group) * args.n_heads + run.first_head + i % plan.group;
    finish(total + i * state, args.head_dim, args.out + query * args.head_dim);
  }
}

void merge_runs(const AttentionArgs& args, const AttentionPlan& plan, const float* states,
                int64_t begin, int64_t end) {
  const int64_t state = state_floats(args.head_dim);
  // The joined state takes the first run's place in a copy: states stay as they were.
  constexpr int head_dim_max = 1024;
  CHECK(args.head_dim <= head_dim_max);
  float total[state_floats(head_dim_max)];
  for (int64_t query = begin; query < end; ++query) {
    const int token = static_cast<int>(query / args.n_heads);
    const int head = static_cast<int>(query % args.n_heads);
    clear(total, args.head_dim);
    for (int run = 0; run < plan.n_runs; ++run) {
      const int64_t idx = state_idx(args, plan, run, head / plan.group, token, head % plan.group);
      join(total, states + idx * state, args.head_dim);
    }
    finish(total, args.head_dim, args.out + query * args.head_dim);
  }
}

void add_block_mass(const AttentionArgs& args, const AttentionPlan& plan,
                    const BlockShare* shares) {
  const int row = plan.n_blocks + plan.n_picks;
  const int last = args.own_start + args.n_tokens - 1;
  const int n_context = plan.n_blocks - static_cast<int>(args.own.size()) / args.n_kv_heads;
  const int n_seen = std::min(plan.n_blocks, n_context + last / kBlockTokens + 1);
  for (int head = 0; head < args.n_heads; ++head) {
    const BlockShare* of_head = shares + int64_t{head} * row;
    float* mass = args.block_mass + int64_t{head / plan.group} * row;
    const auto each_seen = [&](auto&& fn) {
      for (int b = 0; b < n_seen; ++b) fn(b);
      for (int b = plan.n_blocks; b < row; ++b) fn(b);
    };
    float peak = peak_of_nothing;
    each_seen([&](int b) { peak = std::max(peak, of_head[b].peak); });
    double total = 0.0;
    each_seen([&](int b) {
      total += static_cast<double>(of_head[b].sum) * std::exp2(of_head[b].peak - peak);
    });
    each_seen([&](int b) {
      const double share = of_head[b].sum * std::exp2(of_head[b].peak - peak) / total;
      mass[b] += static_cast<float>(share / plan.group);
    });
  }
}

}  // namespace nosa::cpu
