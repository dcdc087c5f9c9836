"""Context and tails through each layer together, made for speed: few launches, masks built once a step, selection without sorting.

The same mathematics as `model` and `sparse` (a test holds them together), for rows whose tails fit NOSA's window, so that a tail's
own blocks are all taken and only blocks of the context are chosen among.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .gathered import Batch, batches, over_chosen, over_everything, widened, within_parts
from .model import Decoder, Layer, Projection, rotate
from .sparse import BLOCK, PAD, STRIDE, Budget, window_means

Scorer = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # layer, q [T,H,D], k and v [T,G,D] -> [T,G]
STEADY = 0.3  # how sharply the soft count of misses tells chosen from not chosen, in nats of score


@dataclass(frozen=True)
class JointRow:
    """A context, padded to whole tiles, and the tails behind it. One for the student's layout, one for the teacher's."""

    ids: Tensor  # [T]
    positions: Tensor  # [T]
    parts: Tensor  # [T]
    context: int

    @property
    def tails(self) -> Tensor:
        return self.parts[self.context :]


@dataclass(frozen=True)
class Plan:
    """What all layers share of a row: who sees whom, by token, window and block."""

    row: JointRow
    usable: Tensor  # [T] not filling
    window_seen: Tensor  # [Tq, W] complete windows that a tail's query may score
    window_ok: Tensor  # [Wc] complete windows of the context
    free: Tensor  # [Bc] blocks of the context that may be chosen: all with text but the first
    own: Tensor  # [Tq, Bt] the tail's own blocks
    prefill: list[Batch]
    asked: list[Batch]  # the tails alone, counted from the first


def plan(row: JointRow) -> Plan:
    parts, context = row.parts, row.context
    chunks = parts.view(-1, STRIDE)
    whole = (chunks == chunks[:, :1]).all(1) & (chunks[:, 0] != PAD)
    pairs = whole[:-1] & whole[1:] & (chunks[:-1, 0] == chunks[1:, 0])
    at = torch.arange(len(parts), device=parts.device)
    queries = at[context:]
    window_part = chunks[:-1, 0]
    window_end = STRIDE * torch.arange(len(window_part), device=parts.device) + 2 * STRIDE - 1
    own_window = (window_part[None] == row.tails[:, None]) & (window_end[None] <= queries[:, None])
    window_seen = pairs & ((window_part >= 0)[None] | own_window)
    block_part = parts.view(-1, BLOCK)[:, 0]
    blocks = torch.arange(len(block_part), device=parts.device)
    free = (block_part[: context // BLOCK] >= 0) & (blocks[: context // BLOCK] > 0)
    own = (block_part[None, context // BLOCK :] == row.tails[:, None]) & (blocks[None, context // BLOCK :] <= (queries // BLOCK)[:, None])
    usable = parts != PAD
    plain = parts.cpu().numpy()
    of_context, of_tails = batches(plain[:context], parts.device, True), batches(plain[context:], parts.device, False)
    return Plan(row, usable, window_seen, pairs[: context // STRIDE - 1], free, own, of_context, of_tails)


def block_scores(share: Tensor, blocks: int) -> Tensor:
    """Highest of the windows 4b-1 .. 4b+3 of each of the first blocks, [..., W] -> [..., blocks]; no window gives 0."""
    padded = F.pad(share[..., : 4 * blocks - 1], (1, 1))
    return torch.maximum(padded[..., :-1].unflatten(-1, (blocks, 4)).amax(-1), padded[..., 4::4])


@dataclass(frozen=True)
class Watch:
    """Queries that losses of the selection look at, and compressed keys of other repositories that must not be taken for this one's."""

    steady: slice  # neighbouring queries of one tail
    look: Tensor  # [R] queries at answers, which have to find a block
    others: list[Tensor]  # by layer [4 * blocks, G, D]; empty lists when there are none
    others_ok: Tensor  # [4 * blocks]


@dataclass(frozen=True)
class Chosen:
    blocks: Tensor  # [G, Tq, B]
    rank: Tensor  # loss of the eviction scores
    moves: Tensor  # soft count of blocks that come in at a step
    misses: Tensor  # the hard count
    find: Tensor  # how far the block scores at `look` are from the attention that all keys would get
    caught: Tensor  # share of that attention in chosen blocks
    windows: Tensor  # [4 * Bc, G, D] compressed keys of the context


def shares_of(q: Tensor, compressed: Tensor, seen: Tensor) -> Tensor:
    """Attention of each query over windows, summed over the heads of a key head: q [Tq,N,D], compressed [W,D] -> [Tq,W]."""
    logits = torch.einsum("qnd,wd->nqw", q.float(), compressed) * q.shape[-1] ** -0.5
    return logits.masked_fill(~seen, float("-inf")).softmax(-1).nan_to_num(0.0).sum(0)


def choose(plan: Plan, q: Tensor, k: Tensor, cis: Tensor, sharpness: Tensor, budget: Budget, watch: Watch, layer: int) -> Chosen:
    """NOSA's selection of the context's blocks for every query of the tails, and the losses that make it rank and hold still.

    q [Tq,H,D], k [T,G,D], cis [T,G]; sharpness [2,G]: how sharply eviction scores and block scores are read as a ranking.
    """
    groups, tokens, context = k.shape[1], len(q), plan.row.context
    count = context // BLOCK
    real = plan.usable[context:]
    follows = (plan.row.tails[1:] == plan.row.tails[:-1]) & real[1:]
    chosen, ranks, moves, misses, finds, caught, windows = [], [], [], [], [], [], []
    picks_most = min(budget.query - 1, count)
    # Neighbours often share their best window: the later one is taken first.
    later = 1 + 3e-7 * torch.arange(count, device=q.device)
    for g in range(groups):
        queries = q.unflatten(1, (groups, -1))[:, g]
        compressed = window_means(k[:, g].float())
        with torch.no_grad():
            share = shares_of(queries, compressed, plan.window_seen)
            mass = share[:, : len(plan.window_ok)].mul(real[:, None]).sum(0) / real.sum()
            scores = (block_scores(share, count) * later).masked_fill(~plan.free, -1.0)
            top = scores.topk(picks_most, dim=-1, sorted=False)
            picks = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, top.indices, top.values >= 0)
        means = window_means(cis[:context, g].float())
        pooled = block_scores_low(means, plan.window_ok, count)
        with torch.no_grad():
            order = count - 1 - pooled.masked_fill(~plan.free, float("-inf")).flip(0).argsort(descending=True, stable=True)
            left = budget.total - 1 - plan.own.sum(-1, keepdim=True) - picks_most
            open_ = ~picks[:, order] & plan.free[order]
            filled = open_ & (open_.cumsum(-1, dtype=torch.int32) <= left)
            back = torch.empty_like(order).scatter_(0, order, torch.arange(count, device=order.device))
            taken = picks | filled[:, back]
            entered = (picks[1:] & ~picks[:-1] & follows[:, None]).sum(0).float()
            missed = (taken[1:] & ~taken[:-1] & follows[:, None]).sum() / follows.sum().clamp_min(1)
            taken[:, 0] = True
            chosen.append(torch.cat((taken, plan.own), 1))
            misses.append(missed)
        ranks.append(_rank_loss(pooled, block_scores(mass, count), entered, plan.free, sharpness[0, g]))
        moves.append(_moves(queries[watch.steady], compressed, plan, watch.steady, taken, picks_most, count))
        goal = _dense_mass(queries[watch.look], k[:, g], cis[:, g], plan, watch.look, count)
        caught.append((goal * taken[watch.look]).sum() / goal.sum().clamp_min(1e-9))
        others = watch.others[layer][:, g] if watch.others else compressed[:0]
        finds.append(_find_loss(goal, queries[watch.look], compressed, others, plan, watch, sharpness[1, g], count))
        windows.append(F.pad(compressed[: 4 * count - 1].detach(), (0, 0, 0, 1)))
    means = (torch.stack(each).mean() for each in (ranks, moves, misses, finds, caught))
    return Chosen(torch.stack(chosen), *means, torch.stack(windows, 1))


@torch.no_grad()
def _dense_mass(queries: Tensor, keys: Tensor, bias: Tensor, plan: Plan, look: Tensor, count: int) -> Tensor:
    """What the context's blocks but the first get of these queries' attention over everything they see, [R, Bc]; sums to less than 1."""
    parts, context = plan.row.parts, plan.row.context
    at = torch.arange(len(parts), device=parts.device)
    own = (parts[None] == plan.row.tails[look][:, None]) & (at[None] <= (context + look)[:, None])
    seen = plan.usable & ((parts >= 0)[None] | own)
    logits = torch.einsum("qnd,kd->nqk", queries.float(), keys.float()) * queries.shape[-1] ** -0.5 + bias.float()
    weights = logits.masked_fill_(~seen, float("-inf")).softmax(-1).mean(0)
    return weights[:, :context].unflatten(-1, (count, BLOCK)).sum(-1) * plan.free


def _find_loss(goal: Tensor, queries: Tensor, compressed: Tensor, others: Tensor, plan: Plan, watch: Watch, sharpness: Tensor, count: int) -> Tensor:
    """Listwise: blocks of this repository and of others, by the scores that selection reads, against where the attention is."""
    keys, seen = compressed, plan.window_seen[watch.look]
    foreign = len(others) // 4
    if foreign:
        keys, seen = torch.cat((compressed, others)), torch.cat((seen, watch.others_ok.expand(len(seen), -1)), 1)
    share = shares_of(queries, keys, seen)
    scores, allowed = block_scores(share, count), plan.free
    if foreign:
        scores = torch.cat((scores, block_scores(share[:, len(compressed) :], foreign)), 1)
        allowed = torch.cat((allowed, watch.others_ok.view(foreign, 4).any(1)))
    logits = (sharpness * (scores + 1e-9).log()).masked_fill(~allowed, -1e9).log_softmax(-1)[:, :count]
    mass = goal.sum(-1, keepdim=True)
    wanted = goal / mass.clamp_min(1e-9)
    distance = (wanted * (wanted.clamp_min(1e-12).log() - logits)).sum(-1)
    return (distance * mass[:, 0]).sum() / mass.sum().clamp_min(1e-9)


def block_scores_low(means: Tensor, ok: Tensor, blocks: int) -> Tensor:
    """As block_scores, of scores of any sign: a block without a complete window stands below all others."""
    low = float(-1e30)
    padded = F.pad(means.masked_fill(~ok, low), (1, 1), value=low)
    return torch.maximum(padded[:-1].view(blocks, 4).amax(-1), padded[4::4])


def _rank_loss(pooled: Tensor, mass: Tensor, entered: Tensor, free: Tensor, gamma: Tensor) -> Tensor:
    """Listwise: what is kept for all queries should be what they pay attention to, and what they would else fetch again and again."""
    usable = free & (pooled > -1e29)
    number = usable.sum().clamp_min(1)
    values = pooled.masked_fill(~usable, 0.0)
    centre = values.sum() / number
    spread = (((values - centre) * usable).square().sum() / number + 1e-12).sqrt()
    logits = (gamma * (values - centre) / spread).masked_fill(~usable, -1e9)
    mass, entered = mass * usable, entered * usable
    goal = 0.5 * mass / mass.sum().clamp_min(1e-9) + 0.5 * entered / entered.sum().clamp_min(1.0)
    goal = goal / goal.sum().clamp_min(1e-9)
    return (goal * (goal.clamp_min(1e-12).log() - logits.log_softmax(-1))).sum()


def _moves(queries: Tensor, compressed: Tensor, plan: Plan, steady: slice, taken: Tensor, picks: int, count: int) -> Tensor:
    """Expected number of blocks that a query picks and that the query before it had not chosen; gradient into queries and keys."""
    share = shares_of(queries, compressed, plan.window_seen[steady])
    scores = (block_scores(share, count) + 1e-7).log()
    edge = scores.detach().masked_fill(~plan.free, float("-inf")).topk(picks, dim=-1).values[:, -1:]
    soft = ((scores - edge) / STEADY).sigmoid() * plan.free
    return (soft[1:] * ~taken[steady][:-1]).sum(-1).mean()


@dataclass
class Pass:
    hidden: Tensor  # [Tq, hidden] of the tails, normalised
    outputs: list[Tensor]  # attention outputs of the tails, by layer
    chosen: list[Chosen]


def _linear(projection: Projection, x: Tensor, adapted: bool) -> Tensor:
    y = F.linear(x, projection.weight, projection.bias)
    if not adapted or projection.lora_A is None or projection.lora_B is None:
        return y
    return torch.addmm(y, F.linear(x, projection.lora_A.to(x.dtype)), (projection.lora_scale * projection.lora_B).to(x.dtype).T)


def _layer_in(layer: Layer, x: Tensor, cos: Tensor, sin: Tensor, adapted: bool) -> tuple[Tensor, Tensor, Tensor]:
    h = layer.norm_attention(x)
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    q, k, v = (_linear(layer.projection(name), h, adapted).view(len(x), -1, layer.config.head_dim) for name in names)
    return rotate(q, cos, sin), rotate(k, cos, sin), v


def _layer_out(layer: Layer, x: Tensor, attended: Tensor, adapted: bool) -> Tensor:
    x = x + _linear(layer.projection("self_attn.o_proj"), attended.reshape(len(x), -1), adapted)
    h = layer.norm_mlp(x)
    gate, up = (_linear(layer.projection(name), h, adapted) for name in ("mlp.gate_proj", "mlp.up_proj"))
    return x + _linear(layer.projection("mlp.down_proj"), F.silu(gate) * up, adapted)


@torch.no_grad()
def teach(model: Decoder, plan: Plan) -> Pass:
    """The base model, dense, one causal sequence that every tail follows."""
    row = plan.row
    cos, sin = model.angles(row.positions)
    x = F.embedding(row.ids, model.embedding)
    c, outputs = row.context, []
    for layer in model.layers:
        q, k, v = _layer_in(layer, x, cos, sin, False)
        scale = q.shape[-1] ** -0.5
        of_context = within_parts(q[:c], k[:c], v[:c], plan.prefill, scale)
        of_tails = over_everything(q[c:], k, v, plan.usable, plan.asked, scale)
        outputs.append(of_tails)
        x = _layer_out(layer, x, torch.cat((of_context, of_tails)), False)
    return Pass(model.norm(x[c:]), outputs, [])


def learn(model: Decoder, plan: Plan, budget: Budget, sharpness: Tensor, watch: Watch, scorer: Scorer | None = None) -> Pass:
    """The adapted model in the product's layout; tails attend to the blocks that they choose. sharpness [2, layers, G].

    With a `scorer` the base model instead: it ranks by it, and nothing is added to its logits.
    """
    row = plan.row
    cos, sin = model.angles(row.positions)
    x = F.embedding(row.ids, model.embedding)
    c, outputs, chosen = row.context, [], []
    for layer in model.layers:
        q, k, v = _layer_in(layer, x, cos, sin, scorer is None)
        if scorer is None:
            assert layer.eviction is not None
            cis = layer.eviction(v)
        else:
            cis = scorer(layer.index, q, k, v)
        picked = choose(plan, q[c:], k, cis, sharpness[:, layer.index], budget, watch, layer.index)
        chosen.append(picked)
        scale = q.shape[-1] ** -0.5
        bias = cis if scorer is None else torch.zeros_like(cis)
        of_context = within_parts(*widened(q[:c], k[:c], bias[:c]), v[:c], plan.prefill, scale)
        of_tails = over_chosen(q[c:], k, v, bias, picked.blocks, plan.usable, scale)
        outputs.append(of_tails)
        x = _layer_out(layer, x, torch.cat((of_context, of_tails)), scorer is None)
    return Pass(model.norm(x[c:]), outputs, chosen)
