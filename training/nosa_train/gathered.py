"""Attention over packed rows: parts in batches of dense products, and chosen blocks, by a kernel of our own on a GPU.

A kernel with a mask of chosen blocks looks every pair of tokens up; here neighbouring queries share the blocks that any of them
chose (they choose nearly the same), and the mask is small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .sparse import BLOCK, PAD

NEIGHBOURS = 32  # queries that share gathered blocks, where no GPU is
EXTRA = 8  # columns beside a head's own: two carry the bias, the rest aligns
_LENGTHS = (256, 576, 1152, 2304, 4608, 9216, 1 << 30)


@dataclass(frozen=True)
class Batch:
    """Parts of like length side by side: `take` [n, L] are tokens of the row; what comes out at `source` belongs to token `target`."""

    take: Tensor
    source: Tensor
    target: Tensor


def batches(parts: np.ndarray, device: torch.device, lead: bool) -> list[Batch]:
    """One entry for each part; with `lead` part 0 stands before each other one. Fillings are nobody's."""
    first = np.flatnonzero(parts == 0) if lead else np.zeros(0, dtype=np.int64)
    order = np.argsort(parts, kind="stable")
    numbers, starts = np.unique(parts[order], return_index=True)
    entries = []
    for number, own in zip(numbers, np.split(order, starts[1:]), strict=True):
        if number != PAD:
            own = np.sort(own)
            entries.append((np.concatenate((first, own)) if lead and number != 0 else own, own))
    entries.sort(key=lambda e: len(e[0]))
    made: list[Batch] = []
    low = 0
    for high in _LENGTHS:
        members = [e for e in entries if low < len(e[0]) <= high]
        low = high
        if not members:
            continue
        length = -(-max(len(e) for e, _ in members) // 8) * 8
        take = np.zeros((len(members), length), dtype=np.int64)
        source, target = [], []
        for n, (tokens, own) in enumerate(members):
            take[n, : len(tokens)] = tokens
            source.append(n * length + np.arange(len(tokens) - len(own), len(tokens)))
            target.append(own)
        made.append(Batch(*(torch.from_numpy(a).to(device, non_blocking=True) for a in (take, np.concatenate(source), np.concatenate(target)))))
    return made


def widened(q: Tensor, k: Tensor, cis: Tensor) -> tuple[Tensor, Tensor]:
    """Heads with columns that add the bias to q.k / sqrt(D); two keep a float32 score in bfloat16 keys, one carries the gradient."""
    high = cis.to(k.dtype)
    low = (cis.detach() - high.detach().float()).to(k.dtype)
    ones = torch.full_like(q[..., :2], q.shape[-1] ** 0.5)
    filling = EXTRA - 2
    return torch.cat((q, ones, torch.zeros_like(q[..., :filling])), -1), torch.cat((k, high[..., None], low[..., None], torch.zeros_like(k[..., :filling])), -1)


def within_parts(q: Tensor, k: Tensor, v: Tensor, of: list[Batch], scale: float) -> Tensor:
    """Causal attention in each part behind part 0: q [T,H,E], k [T,G,E], v [T,G,D] -> [T,H,D]; fillings give zeros."""
    heads, dim = q.shape[1], v.shape[-1]
    repeat = heads // k.shape[1]
    v = F.pad(v, (0, q.shape[-1] - dim))
    out = q.new_zeros(len(q), heads, dim)
    for batch in of:
        entries, length = batch.take.shape
        at = batch.take.flatten()
        read = (t.index_select(0, at).view(entries, length, t.shape[1], -1).transpose(1, 2) for t in (q, k, v))
        ours, keys, values = read
        keys, values = keys.repeat_interleave(repeat, 1), values.repeat_interleave(repeat, 1)
        one = F.scaled_dot_product_attention(ours, keys, values, is_causal=True, scale=scale)[..., :dim]
        out = out.index_copy(0, batch.target, one.transpose(1, 2).reshape(entries * length, heads, dim).index_select(0, batch.source))
    return out


class _Blocks(torch.autograd.Function):
    """table [G, B, W], rows [G, N] -> [G, N, W]. Backward is a product with the one-hot choice: exact sums, no atomics."""

    @staticmethod
    def forward(ctx, table: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.blocks = table.shape[1]
        flat = (rows + torch.arange(len(table), device=rows.device)[:, None] * table.shape[1]).flatten()
        return table.flatten(0, 1).index_select(0, flat).view(*rows.shape, -1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        choice = torch.zeros(len(rows), ctx.blocks, rows.shape[1], dtype=gradient.dtype, device=gradient.device)
        choice.scatter_(1, rows[:, None], 1.0)
        return choice @ gradient, None


def _shared(q: Tensor, k: Tensor, v: Tensor, blocks: Tensor, usable: Tensor, shared: Tensor, scale: float) -> Tensor:
    groups, queries, count = blocks.shape
    heads, width, dim = q.shape[1], q.shape[-1], v.shape[-1]
    teams, most = shared.shape[1:]
    context = len(k) - queries
    tables = (t.unflatten(0, (count, BLOCK)).permute(2, 0, 1, 3).reshape(groups, count, -1) for t in (k, v))
    keys, values = (_Blocks.apply(t, shared.flatten(1)).view(groups * teams, 1, most * BLOCK, -1) for t in tables)
    ours = q.view(teams, NEIGHBOURS, groups, heads // groups, width).permute(2, 0, 1, 3, 4).reshape(groups * teams, 1, -1, width)

    own = blocks.view(groups, teams, NEIGHBOURS, count).gather(-1, shared[:, :, None].expand(-1, -1, NEIGHBOURS, -1))
    at = shared[..., None] * BLOCK + torch.arange(BLOCK, device=q.device)
    until = context + torch.arange(queries, device=q.device).view(1, teams, NEIGHBOURS, 1, 1)
    seen = own[..., None] & usable[at][:, :, None] & (at[:, :, None] <= until)
    bias = torch.zeros(seen.shape, dtype=q.dtype, device=q.device).masked_fill_(~seen, float("-inf"))
    bias = bias.flatten(3)[:, :, :, None].expand(-1, -1, -1, heads // groups, -1).reshape(groups * teams, 1, ours.shape[2], -1)
    out = F.scaled_dot_product_attention(ours, keys, values, attn_mask=bias, scale=scale)
    return out.view(groups, teams, NEIGHBOURS, heads // groups, dim).permute(1, 2, 0, 3, 4).reshape(queries, heads, dim)


def over_chosen(q: Tensor, k: Tensor, v: Tensor, cis: Tensor, blocks: Tensor, usable: Tensor, scale: float) -> Tensor:
    """Attention of the last len(q) tokens to the blocks that each has chosen: q [Tq,H,D], k and v [T,G,D], cis [T,G], blocks [G,Tq,B]."""
    if q.is_cuda:
        from . import chosen_kernel  # Triton is there where a GPU is

        return chosen_kernel.over_chosen(q, k, v, cis, blocks, usable, scale)
    return _over_gathered(*widened(q, k, cis), v, blocks, usable, scale)


def _over_gathered(q: Tensor, k: Tensor, v: Tensor, blocks: Tensor, usable: Tensor, scale: float) -> Tensor:
    with torch.no_grad():
        counts = blocks.view(len(blocks), -1, NEIGHBOURS, blocks.shape[-1]).sum(2, dtype=torch.int32)
        most = int((counts > 0).sum(-1).max())
        shared = counts.topk(most, dim=-1).indices
    # Gathered blocks and masks are large and quickly made again.
    return checkpoint(_shared, q, k, v, blocks, usable, shared, scale, use_reentrant=False)


def with_sums(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Attention and the logarithm of its normaliser, without gradient: [n,H,Lq,D], [n,H,Lq]. All of the same heads."""
    if q.is_cuda:
        out, sums, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)
        return out, sums[..., : q.shape[2]].float()
    logits = q.float() @ k.float().transpose(-1, -2) * scale
    if causal:
        logits = logits.masked_fill(~torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).tril(), float("-inf"))
    return (logits.softmax(-1) @ v.float()).to(q.dtype), logits.logsumexp(-1)


def over_everything(q: Tensor, k: Tensor, v: Tensor, real: Tensor, own: list[Batch], scale: float) -> Tensor:
    """Attention of the last len(q) tokens to the `real` ones of the context and their own tail, without gradient; `own` counts from the first tail."""
    context = len(k) - len(q)
    repeat = q.shape[1] // k.shape[1]
    wide = [t.repeat_interleave(repeat, 1) for t in (k, v)]
    keys, values = (t[:context].index_select(0, real).transpose(0, 1)[None] for t in wide)
    far, far_sums = with_sums(q.transpose(0, 1)[None], keys, values, False, scale)
    far, far_sums = far[0].transpose(0, 1).float(), far_sums[0].T
    near, near_sums = torch.zeros_like(far), torch.full_like(far_sums, float("-inf"))
    for batch in own:
        entries, length = batch.take.shape
        at = batch.take.flatten()
        ours, keys, values = (t.index_select(0, at).view(entries, length, q.shape[1], -1).transpose(1, 2) for t in (q, wide[0][context:], wide[1][context:]))
        out, sums = with_sums(ours, keys, values, True, scale)
        near[batch.target] = out.transpose(1, 2).reshape(entries * length, q.shape[1], -1).index_select(0, batch.source).float()
        near_sums[batch.target] = sums.transpose(1, 2).reshape(entries * length, -1).index_select(0, batch.source)
    share = (far_sums - torch.logaddexp(far_sums, near_sums)).exp()[..., None]
    return (far * share + near * (1 - share)).to(q.dtype)
