"""NOSA's selection and biased attention over packed rows, differentiable, in the product's layout.

Rows are block-aligned: every part (header, segment, tail) begins at a multiple of 64 tokens, and the filling is invisible.
A tail's query attends to: the first block of the row (the sink), its own last 17 blocks, the blocks that its scores over
compressed keys like best, and then those that the eviction scores rank highest. Inside the context, attention is dense.
Every attended token carries its eviction score as an additive bias on the logit when the model has an adapter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import visible

BLOCK = 64
STRIDE = 16  # a window of compressed keys is two strides long
TILE = 128  # rows are a whole number of tiles
PAD = -(10**6)
LOW = -1e30  # a block that no complete window touches: below every score, above what may not be chosen

Scorer = Callable[[int, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Budget:
    """Published constants of NOSA: 64 blocks, of which 15 free picks by the query (16 with the current block)."""

    total: int = 64
    query: int = 16
    window: int = 17

    def picks(self, policy: str) -> int:
        return self.query - 1 if policy == "nosa" else self.total


@dataclass
class AlignedRow:
    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)

    def add(self, ids: list[int], start: int, part: int) -> int:
        """Appends a part and fills up its last block; returns the index of its first token."""
        first = len(self.ids)
        self._put(ids, range(start, start + len(ids)), part)
        self._fill(BLOCK)
        return first

    def finish(self) -> None:
        self._fill(TILE)

    def _fill(self, unit: int) -> None:
        missing = -len(self.ids) % unit
        self._put([0] * missing, range(missing), PAD)

    def _put(self, ids: list[int], positions: range, part: int) -> None:
        self.ids.extend(ids)
        self.positions.extend(positions)
        self.parts.extend([part] * len(ids))


def window_means(values: Tensor) -> Tensor:
    """Means of 32 tokens every 16, [T, ...] -> [T/16 - 1, ...]."""
    halves = values.unflatten(0, (-1, STRIDE)).mean(1)
    return (halves[:-1] + halves[1:]) / 2


def pool_windows(windows: Tensor) -> Tensor:
    """Highest of the windows 4b-1 .. 4b+3 that touch block b, [..., 4 * blocks - 1] -> [..., blocks]."""
    padded = F.pad(windows, (1, 1), value=float("-inf"))
    return padded.unfold(-1, 5, 4).amax(-1)


@dataclass(frozen=True)
class Places:
    """What selection needs to know of a row of context and tails; computed once, the same for all layers."""

    parts: Tensor  # [T]
    context: int  # tokens before the first tail
    window_ok: Tensor  # [W] all 32 tokens are real and of one part
    window_seen: Tensor  # [Tq, W]
    open: Tensor  # [Tq, B] blocks that a query may choose or must take
    forced: Tensor  # [Tq, B]

    @staticmethod
    def of(context_parts: Tensor, tail_parts: Tensor, window: int) -> Places:
        parts = torch.cat((context_parts, tail_parts))
        context = len(context_parts)
        chunks = parts.view(-1, STRIDE)
        whole = (chunks == chunks[:, :1]).all(1) & (chunks[:, 0] != PAD)
        window_ok = whole[:-1] & whole[1:] & (chunks[:-1, 0] == chunks[1:, 0])
        at = torch.arange(context, len(parts), device=parts.device)
        window_part = chunks[:-1, 0]
        window_end = STRIDE * torch.arange(len(window_part), device=parts.device) + 2 * STRIDE - 1
        own_window = (window_part[None] == tail_parts[:, None]) & (window_end[None] <= at[:, None])
        window_seen = window_ok & ((window_part >= 0)[None] | own_window)
        block_part = parts.view(-1, BLOCK)[:, 0]
        block = torch.arange(len(block_part), device=parts.device)
        current = (at // BLOCK)[:, None]
        own_block = (block_part[None] == tail_parts[:, None]) & (block[None] <= current)
        forced = (block == 0)[None] | (own_block & (block[None] > current - window))
        return Places(parts, context, window_ok, window_seen, (block_part >= 0)[None] | own_block, forced)


@torch.no_grad()
def select(places: Places, q: Tensor, k: Tensor, rank: Tensor | None, policy: str, budget: Budget) -> tuple[Tensor, Tensor]:
    """Chosen blocks [G, Tq, B] and every window's share of the queries' attention [G, W].

    q [Tq,H,D], k [T,G,D]; rank [T,G] are the eviction scores ("nosa" alone needs them).
    """
    groups = k.shape[1]
    compressed = window_means(k.float())
    chosen, shares = [], []
    for g in range(groups):
        queries = q.unflatten(1, (groups, -1))[:, g].float()
        logits = torch.einsum("qnd,wd->nqw", queries, compressed[:, g]) * q.shape[-1] ** -0.5
        share = logits.masked_fill_(~places.window_seen, float("-inf")).softmax(-1).nan_to_num_().sum(0)
        shares.append(share[places.parts[places.context :] != PAD].mean(0))
        scores = pool_windows(share.masked_fill(~places.window_seen, float("-inf"))).clamp_min(LOW)
        free = places.open & ~places.forced
        taken = places.forced.clone()
        left = budget.total - places.forced.sum(-1, keepdim=True)
        _take(taken, scores.masked_fill(~free, float("-inf")), left.clamp_max(budget.picks(policy)), budget.total)
        if policy == "nosa":
            assert rank is not None
            means = window_means(rank[:, g].float()).masked_fill(~places.window_ok, float("-inf"))
            order = pool_windows(means).clamp_min(LOW).expand_as(scores)
            _take(taken, order.masked_fill(~free | taken, float("-inf")), budget.total - taken.sum(-1, keepdim=True), budget.total)
        chosen.append(taken & places.open)
    return torch.stack(chosen), torch.stack(shares)


def _take(taken: Tensor, scores: Tensor, count: Tensor, most: int) -> None:
    """Marks each row's `count` highest scores, ties to the higher block (neighbours often share a window); never -inf."""
    best = scores.flip(-1).sort(dim=-1, descending=True, stable=True)
    values, indices = best.values[:, :most], scores.shape[-1] - 1 - best.indices[:, :most]
    wanted = (torch.arange(values.shape[-1], device=scores.device) < count) & (values > float("-inf"))
    taken |= torch.zeros_like(taken).scatter_(-1, indices, wanted)


def with_bias(q: Tensor, k: Tensor, cis: Tensor | None) -> tuple[Tensor, Tensor]:
    """Widens heads so that q.k / sqrt(D) gains + cis. Two columns keep a float32 score in bfloat16 keys."""
    if cis is None:
        return q, k
    dim = q.shape[-1]
    high = cis.to(k.dtype)
    low = (cis.detach() - high.detach().float()).to(k.dtype)
    ones = torch.full_like(q[..., :2], dim**0.5)
    q = torch.cat((q, ones, torch.zeros_like(q[..., 2:])), -1)
    k = torch.cat((k, high[..., None], low[..., None], torch.zeros_like(k[..., 2:])), -1)
    return q, k


def _dense(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> Tensor:
    """seen [H or 1, Tq, Tk]; a row that sees nothing gives zeros."""
    repeat = q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(repeat, dim=1).float() for t in (k, v))
    logits = torch.einsum("qhd,khd->hqk", q.float(), k) * scale
    logits = logits.masked_fill(~seen, -1e30)
    weights = logits.softmax(-1) * seen
    return torch.einsum("hqk,khd->qhd", weights, v).to(q.dtype)


class SparseContext:
    """A context that is prefilled once, densely within each part, and then read by tails under a policy: written to be read, not fast.

    `scorer` gives eviction scores to a model that has no
    adapter (ranking only, no bias).
    """

    def __init__(self, parts: Tensor, scorer: Scorer | None = None):
        """parts [T] of an aligned row."""
        self.parts, self.scorer = parts, scorer
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.scores: list[Tensor | None] = []
        self.outputs: list[Tensor] = []  # of the tails, by layer
        self.shares: list[Tensor] = []  # windows' share of the tails' attention, by layer
        self.chosen: list[Tensor] = []  # blocks, by layer; kept when keep_chosen is set
        self.keep_chosen = False

    def prefill(self) -> Callable[..., Tensor]:
        parts = self.parts
        at = torch.arange(len(parts), device=parts.device)

        seen = visible(parts[:, None], parts[None], at[:, None], at[None]) & ((parts[:, None] == PAD) == (parts[None] == PAD))

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, cis: Tensor | None) -> Tensor:
            self.keys.append(k)
            self.values.append(v)
            self.scores.append(cis)
            scale = q.shape[-1] ** -0.5
            q, k = with_bias(q, k, cis)
            return _dense(q, k, v, seen[None], scale)

        return attend

    def tails(self, tail_parts: Tensor, policy: str = "full", budget: Budget = Budget()) -> Callable[..., Tensor]:
        places = Places.of(self.parts, tail_parts, budget.window)
        context, parts = places.context, places.parts
        fine = (parts != PAD) & (torch.arange(len(parts), device=parts.device)[None] <= torch.arange(context, len(parts), device=parts.device)[:, None])

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, cis: Tensor | None) -> Tensor:
            rank_tail = self.scorer(layer, k, v) if self.scorer is not None else cis
            rank_context = self.scorer(layer, self.keys[layer], self.values[layer]) if self.scorer is not None else self.scores[layer]
            k, v = torch.cat((self.keys[layer], k)), torch.cat((self.values[layer], v))
            rank = torch.cat((rank_context, rank_tail)) if rank_context is not None and rank_tail is not None else None
            blocks = places.open[None]
            if policy != "full":
                blocks, share = select(places, q, k, rank, policy, budget)
                self.shares.append(share)
                if self.keep_chosen:
                    self.chosen.append(blocks)
            bias = torch.cat((self.scores[layer], cis)) if cis is not None else None
            scale = q.shape[-1] ** -0.5
            q, k = with_bias(q, k, bias)
            seen = (blocks.repeat_interleave(BLOCK, dim=-1) & fine).repeat_interleave(q.shape[1] // len(blocks), dim=0)
            out = _dense(q, k, v, seen, scale)
            self.outputs.append(out)
            return out

        return attend
