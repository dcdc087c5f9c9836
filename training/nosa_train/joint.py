"""Context and tails through each layer together, made for speed: few launches, masks built once a step, selection without sorting.

The same mathematics as `model` and `sparse`; a test holds them together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .gathered import Batch, batches, over_chosen, over_everything, widened, within_parts
from .model import Decoder, Layer, Projection, rotate
from .sparse import BLOCK, PAD, STRIDE, Budget, window_means

Scorer = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # layer, the tails' q [Tq,H,D], k and v [T,G,D] -> [T,G]
STEADY = 0.3  # how sharply the soft count of misses tells chosen from not chosen, in nats of score
DEFINING = 20  # a head that looks at the block which an answer comes from learns to rank that block so many times as eagerly


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
    real: Tensor  # [n] tokens of the context that are not filling
    window_seen: Tensor  # [Tq, W] complete windows that a tail's query may score
    window_ok: Tensor  # [W] complete windows
    free: Tensor  # [Tq, B] blocks that a query may choose among
    forced: Tensor  # [Tq, B] blocks that it takes anyway: the first of all and the last of its own tail
    text: Tensor  # [Bc] blocks of the context with text, but the first
    prefill: list[Batch]
    asked: list[Batch]  # the tails alone, counted from the first


def plan(row: JointRow, window: int = Budget().window) -> Plan:
    parts, context = row.parts, row.context
    chunks = parts.view(-1, STRIDE)
    whole = (chunks == chunks[:, :1]).all(1) & (chunks[:, 0] != PAD)
    pairs = whole[:-1] & whole[1:] & (chunks[:-1, 0] == chunks[1:, 0])
    queries = torch.arange(context, len(parts), device=parts.device)
    window_part = chunks[:-1, 0]
    window_end = STRIDE * torch.arange(len(window_part), device=parts.device) + 2 * STRIDE - 1
    own_window = (window_part[None] == row.tails[:, None]) & (window_end[None] <= queries[:, None])
    window_seen = pairs & ((window_part >= 0)[None] | own_window)
    block_part = parts.view(-1, BLOCK)[:, 0]
    blocks, current = torch.arange(len(block_part), device=parts.device)[None], (queries // BLOCK)[:, None]
    own = (block_part[None] == row.tails[:, None]) & (blocks <= current)
    forced = (blocks == 0) | (own & (blocks > current - window))
    free = ((block_part >= 0)[None] | own) & ~forced
    text = (block_part[: context // BLOCK] >= 0) & (blocks[0, : context // BLOCK] > 0)
    plain = parts.cpu().numpy()
    of_context, of_tails = batches(plain[:context], parts.device, True), batches(plain[context:], parts.device, False)
    usable = parts != PAD
    return Plan(row, usable, usable[:context].nonzero()[:, 0], window_seen, pairs, free, forced, text, of_context, of_tails)


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
    defining: Tensor | None = None  # [R, Bc] the block that a query's answer comes from
    writing: Tensor | None = None  # [R] queries of files being written, which count for half of what is to be found
    layers: Collection[int] | None = None  # those that are looked at; all without it
    is_dense: bool = False  # tails attend to everything, while eviction scores and picks learn what to choose


@dataclass(frozen=True)
class Chosen:
    blocks: Tensor  # [G, Tq, B]
    misses: Tensor  # blocks that come in at a step
    windows: Tensor  # [4 * Bc, G, D] compressed keys of the context
    losses: dict[str, Tensor]  # empty for layers that are not looked at


def shares_of(q: Tensor, compressed: Tensor, seen: Tensor) -> Tensor:
    """Attention of each query over windows, summed over the heads of a key head: q [Tq,H,D], compressed [W,G,D] -> [G,Tq,W]."""
    logits = torch.einsum("qgnd,wgd->gnqw", q.float().unflatten(1, (compressed.shape[1], -1)), compressed) * q.shape[-1] ** -0.5
    return logits.masked_fill(~seen, float("-inf")).softmax(-1).nan_to_num(0.0).sum(1)


@torch.no_grad()
def select(plan: Plan, share: Tensor, ranks: Tensor | None, budget: Budget) -> tuple[Tensor, Tensor]:
    """Blocks [G, Tq, B] picked by the queries' shares of windows [G, Tq, W], and all that are taken.

    `ranks` [G, B] are the blocks' eviction scores; without them (InfLLM v2) queries pick all that the budget holds.
    """
    count = plan.free.shape[1]
    numbers = torch.arange(count, device=share.device)
    left = (budget.total - plan.forced.sum(-1, keepdim=True)).clamp_min(0)
    # Neighbours often share their best window: the later one is taken first.
    scores = (block_scores(share, count) * (1 + 3e-7 * numbers)).masked_fill(~plan.free, -1.0)
    top = scores.topk(min(count, budget.total if ranks is None else budget.query - 1), dim=-1)
    wanted = (top.values >= 0) & (numbers[: top.values.shape[-1]] < left)
    picks = torch.zeros(scores.shape, dtype=torch.bool, device=share.device).scatter_(-1, top.indices, wanted)
    taken = picks | plan.forced
    if ranks is not None:
        order = count - 1 - ranks.flip(-1).argsort(dim=-1, descending=True, stable=True)
        back = torch.empty_like(order).scatter_(-1, order, numbers.expand_as(order))
        open_ = (plan.free & ~picks).gather(-1, order[:, None].expand_as(picks))
        filled = open_ & (open_.cumsum(-1, dtype=torch.int32) <= left - picks.sum(-1, keepdim=True))
        taken |= filled.gather(-1, back[:, None].expand_as(picks))
    return picks, taken


def block_ranks(plan: Plan, cis: Tensor) -> Tensor:
    """Eviction scores of tokens [T, G] -> of blocks [G, B]."""
    return block_scores_low(window_means(cis.float()).T, plan.window_ok, plan.free.shape[1])


def choose(plan: Plan, q: Tensor, k: Tensor, cis: Tensor, sharpness: Tensor, budget: Budget, watch: Watch, layer: int,
           own: tuple[Tensor, Tensor] | None) -> Chosen:  # fmt: skip
    """NOSA's selection of the context's blocks for every query of the tails, and the losses that make it rank and hold still.

    q [Tq,H,D], k [T,G,D], cis [T,G]; sharpness [2,G]: how sharply eviction scores and block scores are read as a ranking.
    own: q[watch.look] and k once more, as `_own` gives them; without them this layer has no losses in this step.
    """
    count = plan.row.context // BLOCK
    real = plan.usable[plan.row.context :]
    follows = ((plan.row.tails[1:] == plan.row.tails[:-1]) & real[1:])[:, None]
    compressed, pooled = window_means(k.float()), block_ranks(plan, cis)
    with torch.no_grad():
        share = shares_of(q, compressed, plan.window_seen)
        picks, blocks = select(plan, share, pooled, budget)
        picks, taken = picks[..., :count], blocks[..., :count]
        if watch.is_dense:
            blocks = (plan.free | plan.forced).expand_as(blocks)
        misses = (taken[:, 1:] & ~taken[:, :-1] & follows).sum() / (len(taken) * follows.sum()).clamp_min(1)
        windows = F.pad(compressed[: 4 * count - 1].detach(), (0, 0, 0, 0, 0, 1))
        if own is None:
            return Chosen(blocks, misses, windows, {})
        mass = block_scores(share[..., : 4 * count - 1].mul(real[:, None]).sum(1) / real.sum(), count)
        entered = (picks[:, 1:] & ~picks[:, :-1] & follows).sum(1).float()
        goal = _dense_mass(q[watch.look], k, cis, plan, watch.look, count)
        caught = (goal * taken[:, watch.look]).sum() / goal.sum().clamp_min(1e-9)
        if watch.defining is not None:
            goal = goal * (1 + DEFINING * watch.defining)
    losses = {
        # of the eviction scores
        "rank": _rank_loss(pooled[:, :count], mass, entered, plan.text, sharpness[0]),
        # soft count of blocks that come in at a step
        "moves": _moves(q[watch.steady], compressed, plan, watch.steady, taken, min(budget.query - 1, count), count),
        # how far the block scores at `look` are from the attention that all keys would get
        "find": _find_loss(goal, own[0], window_means(own[1].float()), watch.others[layer] if watch.others else compressed[:0], plan, watch, sharpness[1], count),
        # share of that attention in chosen blocks: watched, not trained
        "caught": caught,
    }
    return Chosen(blocks, misses, windows, losses)


@torch.no_grad()
def _dense_mass(queries: Tensor, keys: Tensor, bias: Tensor, plan: Plan, look: Tensor, count: int) -> Tensor:
    """What the context's blocks but the first get of these queries' attention over everything they see, [G, R, Bc]; sums to less than 1."""
    parts, context = plan.row.parts, plan.row.context
    at = torch.arange(len(parts), device=parts.device)
    own = (parts[None] == plan.row.tails[look][:, None]) & (at[None] <= (context + look)[:, None])
    seen = plan.usable & ((parts >= 0)[None] | own)
    logits = torch.einsum("qgnd,kgd->gnqk", queries.float().unflatten(1, (keys.shape[1], -1)), keys.float()) * queries.shape[-1] ** -0.5
    weights = (logits + bias.float().T[:, None, None]).masked_fill_(~seen, float("-inf")).softmax(-1).mean(1)
    return weights[..., :context].unflatten(-1, (count, BLOCK)).sum(-1) * plan.text


def _find_loss(goal: Tensor, queries: Tensor, compressed: Tensor, others: Tensor, plan: Plan, watch: Watch, sharpness: Tensor, count: int) -> Tensor:
    """Listwise: blocks of this repository and of others, by the scores that selection reads, against where the attention is."""
    keys, seen = compressed, plan.window_seen[watch.look]
    foreign = len(others) // 4
    if foreign:
        keys, seen = torch.cat((compressed, others)), torch.cat((seen, watch.others_ok.expand(len(seen), -1)), 1)
    share = shares_of(queries, keys, seen)
    scores, allowed = block_scores(share, count), plan.text
    if foreign:
        scores = torch.cat((scores, block_scores(share[..., len(compressed) :], foreign)), -1)
        allowed = torch.cat((allowed, watch.others_ok.view(foreign, 4).any(1)))
    logits = (sharpness[:, None, None] * (scores + 1e-9).log()).masked_fill(~allowed, -1e9).log_softmax(-1)[..., :count]
    mass = goal.sum(-1)
    wanted = goal / mass[..., None].clamp_min(1e-9)
    distance = (wanted * (wanted.clamp_min(1e-12).log() - logits)).sum(-1)
    writing = torch.zeros(len(queries), dtype=torch.bool, device=queries.device) if watch.writing is None else watch.writing
    kinds = [mass * writing, mass * ~writing]
    means = [(distance * of).sum(1) / of.sum(1).clamp_min(1e-9) for of in kinds]
    here = torch.stack([of.sum(1) > 0 for of in kinds]).float()
    return ((torch.stack(means) * here).sum(0) / here.sum(0).clamp_min(1)).mean()


def block_scores_low(means: Tensor, ok: Tensor, blocks: int) -> Tensor:
    """As block_scores, of scores of any sign: a block without a complete window stands below all others."""
    low = float(-1e30)
    padded = F.pad(means.masked_fill(~ok, low), (1, 1), value=low)
    return torch.maximum(padded[..., :-1].unflatten(-1, (blocks, 4)).amax(-1), padded[..., 4::4])


def _rank_loss(pooled: Tensor, mass: Tensor, entered: Tensor, free: Tensor, gamma: Tensor) -> Tensor:
    """Listwise: what is kept for all queries should be what they pay attention to, and what they would else fetch again and again."""
    usable = free & (pooled > -1e29)
    number = usable.sum(-1, keepdim=True).clamp_min(1)
    values = pooled.masked_fill(~usable, 0.0)
    centred = (values - values.sum(-1, keepdim=True) / number) * usable
    spread = (centred.square().sum(-1, keepdim=True) / number + 1e-12).sqrt()
    logits = (gamma[:, None] * centred / spread).masked_fill(~usable, -1e9)
    mass, entered = mass * usable, entered * usable
    goal = 0.5 * mass / mass.sum(-1, keepdim=True).clamp_min(1e-9) + 0.5 * entered / entered.sum(-1, keepdim=True).clamp_min(1.0)
    goal = goal / goal.sum(-1, keepdim=True).clamp_min(1e-9)
    return (goal * (goal.clamp_min(1e-12).log() - logits.log_softmax(-1))).sum(-1).mean()


def _moves(queries: Tensor, compressed: Tensor, plan: Plan, steady: slice, taken: Tensor, picks: int, count: int) -> Tensor:
    """Expected number of blocks that a query picks and that the query before it had not chosen; gradient into queries and keys."""
    share = shares_of(queries, compressed, plan.window_seen[steady])
    scores = (block_scores(share, count) + 1e-7).log()
    edge = scores.detach().masked_fill(~plan.text, float("-inf")).topk(picks, dim=-1).values[..., -1:]
    soft = ((scores - edge) / STEADY).sigmoid() * plan.text
    return (soft[:, 1:] * ~taken[:, steady][:, :-1]).sum(-1).mean()


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


def _own(layer: Layer, x: Tensor, at: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Queries [len(at),H,D] and all keys [T,G,D] of x as it stands: what is learned from them changes how this layer asks and is
    found, and nothing below it, where it would change what the model says (training/LEDGER.md, adapter 5)."""
    h = layer.norm_attention(x.detach())
    q, k = (_linear(layer.projection(f"self_attn.{name}_proj"), of, True).view(len(of), -1, layer.config.head_dim) for name, of in (("q", h[at]), ("k", h)))
    return rotate(q, cos[at], sin[at]), rotate(k, cos, sin)


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
        of_tails = over_everything(q[c:], k, v, plan.real, plan.asked, scale)
        outputs.append(of_tails)
        x = _layer_out(layer, x, torch.cat((of_context, of_tails)), False)
    return Pass(model.norm(x[c:]), outputs, [])


def learn(model: Decoder, plan: Plan, budget: Budget, sharpness: Tensor, watch: Watch, is_lean: bool = False) -> Pass:
    """The adapted model in the product's layout; tails attend to the blocks that they choose. sharpness [2, layers, G].

    `is_lean`: what follows attention is computed once more on the way back instead of being kept, most of a step's memory.
    """
    row = plan.row
    cos, sin = model.angles(row.positions)
    x = F.embedding(row.ids, model.embedding)
    c, outputs, chosen = row.context, [], []
    for layer in model.layers:
        q, k, v = _layer_in(layer, x, cos, sin, True)
        assert layer.eviction is not None
        cis = layer.eviction(v)
        own = _own(layer, x, c + watch.look, cos, sin) if watch.layers is None or layer.index in watch.layers else None
        picked = choose(plan, q[c:], k, cis, sharpness[:, layer.index], budget, watch, layer.index, own)
        chosen.append(picked)
        scale = q.shape[-1] ** -0.5
        of_context = within_parts(*widened(q[:c], k[:c], cis[:c]), v[:c], plan.prefill, scale)
        of_tails = over_chosen(q[c:], k, v, cis, picked.blocks, plan.usable, scale)
        outputs.append(of_tails)
        attended = torch.cat((of_context, of_tails))
        x = checkpoint(_layer_out, layer, x, attended, True, use_reentrant=False) if is_lean else _layer_out(layer, x, attended, True)
    return Pass(model.norm(x[c:]), outputs, chosen)


@dataclass(frozen=True)
class Memory:
    """Keys, values and biases of a context that a model has read, by layer: what every tail behind it may attend to, under any policy."""

    keys: list[Tensor]  # [context, G, D]
    values: list[Tensor]
    biases: list[Tensor]  # [context, G]


def _bias(layer: Layer, v: Tensor, adapted: bool) -> Tensor:
    return layer.eviction(v) if adapted and layer.eviction is not None else torch.zeros(v.shape[:2], device=v.device)


@torch.no_grad()
def remember(model: Decoder, plan: Plan, adapted: bool) -> Memory:
    """Reads the plan's context, densely within each part."""
    row, c = plan.row, plan.row.context
    cos, sin = model.angles(row.positions[:c])
    x = F.embedding(row.ids[:c], model.embedding)
    memory = Memory([], [], [])
    for layer in model.layers:
        q, k, v = _layer_in(layer, x, cos, sin, adapted)
        bias = _bias(layer, v, adapted)
        memory.keys.append(k)
        memory.values.append(v)
        memory.biases.append(bias)
        x = _layer_out(layer, x, within_parts(*widened(q, k, bias), v, plan.prefill, q.shape[-1] ** -0.5), adapted)
    return memory


@torch.no_grad()
def ask(model: Decoder, plan: Plan, memory: Memory, policy: str, budget: Budget, adapted: bool, scorer: Scorer | None = None) -> tuple[Tensor, list[Tensor]]:
    """Reads the plan's tails behind what was remembered of its context: their hidden states, and each layer's blocks [G, Tq, B].

    policy "full", "infllmv2" or "nosa"; a model that is not adapted ranks by `scorer`, and nothing is added to its logits.
    """
    return _go_on(model, plan, memory, policy, budget, adapted, scorer)[:2]


def remember_sparsely(model: Decoder, dense: Plan, budget: Budget, adapted: bool) -> Memory:
    """As `remember`, but each token of a segment attends to the blocks that it chooses, as a tail behind the header would."""
    row = dense.row
    parts = row.parts[: row.context]
    header = -(-int((parts == 0).sum()) // BLOCK) * BLOCK
    inner = plan(JointRow(row.ids[: row.context], row.positions[: row.context], torch.where(parts > 0, -parts, parts), header), budget.window)
    return _go_on(model, inner, remember(model, inner, adapted), "nosa", budget, adapted, None)[2]


@torch.no_grad()
def _go_on(model: Decoder, plan: Plan, memory: Memory, policy: str, budget: Budget, adapted: bool, scorer: Scorer | None) -> tuple[Tensor, list[Tensor], Memory]:
    """What `ask` gives, and all that is then remembered: context and tails."""
    row, c = plan.row, plan.row.context
    cos, sin = model.angles(row.positions[c:])
    x = F.embedding(row.ids[c:], model.embedding)
    chosen, grown = [], Memory([], [], [])
    for layer in model.layers:
        q, k, v = _layer_in(layer, x, cos, sin, adapted)
        bias = torch.cat((memory.biases[layer.index], _bias(layer, v, adapted)))
        k, v = torch.cat((memory.keys[layer.index], k)), torch.cat((memory.values[layer.index], v))
        grown.keys.append(k)
        grown.values.append(v)
        grown.biases.append(bias)
        if policy == "full":
            chosen.append((plan.free | plan.forced).expand(k.shape[1], -1, -1))
        else:
            ranks = scorer(layer.index, q, k, v) if scorer is not None else bias
            share = shares_of(q, window_means(k.float()), plan.window_seen)
            chosen.append(select(plan, share, block_ranks(plan, ranks) if policy == "nosa" else None, budget)[1])
        attended = over_chosen(q, k, v, bias, chosen[-1], plan.usable, q.shape[-1] ** -0.5)
        x = _layer_out(layer, x, attended, adapted)
    return model.norm(x), chosen, grown


def read(model: Decoder, plan: Plan, policy: str, budget: Budget, adapted: bool, scorer: Scorer | None = None) -> tuple[Tensor, list[Tensor]]:
    """What `learn` computes, of any policy and without losses."""
    return ask(model, plan, remember(model, plan, adapted), policy, budget, adapted, scorer)
