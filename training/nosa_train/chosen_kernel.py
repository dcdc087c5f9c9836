"""Attention of queries to the blocks that each has chosen, forward and backward, as two Triton kernels.

One program serves the query heads of one key head for 16 neighbouring queries: it walks the blocks that any of them chose and hides
each from those that did not. Keys' gradients are summed with atomics, so the last bits of a training step vary from run to run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .sparse import BLOCK

TEAM = 16  # queries of one program; their choices are the bits of a word


@triton.jit
def _rows(team, group, H: tl.constexpr, RATIO: tl.constexpr, TEAM: tl.constexpr, ROWS: tl.constexpr):
    row = tl.arange(0, ROWS)
    query = team * TEAM + row // RATIO
    return row // RATIO, query, query * H + group * RATIO + row % RATIO, row < TEAM * RATIO


@triton.jit
def _block(i, q, k_at, v_at, bias_at, usable_at, order_at, words_at, first, group, member, query, real, context, scale,
           G: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """The i-th block of a team: where its tokens stand in [T, G], its keys and values, logits [ROWS, BLOCK] and which of them count."""
    block = tl.load(order_at + first + i)
    token, column = block * BLOCK + tl.arange(0, BLOCK), tl.arange(0, D)
    at = token * G + group
    k = tl.load(k_at + at[:, None] * D + column[None, :])
    v = tl.load(v_at + at[:, None] * D + column[None, :])
    chosen = ((tl.load(words_at + first + block) >> member) & 1) == 1
    usable = tl.load(usable_at + token) != 0
    seen = (chosen & real)[:, None] & usable[None, :] & (token[None, :] <= (context + query)[:, None])
    logits = tl.where(seen, tl.dot(q, tl.trans(k)) * scale + tl.load(bias_at + at)[None, :], -1e30)
    return at, k, v, logits, seen


@triton.jit
def _forward(q_at, k_at, v_at, bias_at, usable_at, order_at, count_at, words_at, out_at, sums_at, context, scale, teams, blocks,
             H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, TEAM: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    team, group = tl.program_id(0), tl.program_id(1)
    member, query, head, real = _rows(team, group, H, H // G, TEAM, ROWS)
    column = tl.arange(0, D)
    q = tl.load(q_at + head[:, None] * D + column[None, :], mask=real[:, None], other=0.0)
    most = tl.full((ROWS,), -1e30, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    summed = tl.zeros((ROWS, D), tl.float32)
    first = (group * teams + team) * blocks
    for i in range(tl.load(count_at + group * teams + team)):
        at, k, v, logits, seen = _block(i, q, k_at, v_at, bias_at, usable_at, order_at, words_at, first, group, member, query, real, context, scale, G, D, BLOCK)
        higher = tl.maximum(most, tl.max(logits, 1))
        weights = tl.where(seen, tl.exp(logits - higher[:, None]), 0.0)
        shrink = tl.exp(most - higher)
        summed = summed * shrink[:, None] + tl.dot(weights.to(v.dtype), v)
        total = total * shrink + tl.sum(weights, 1)
        most = higher
    total = tl.maximum(total, 1e-30)
    tl.store(out_at + head[:, None] * D + column[None, :], (summed / total[:, None]).to(out_at.dtype.element_ty), mask=real[:, None])
    tl.store(sums_at + head, most + tl.log(total), mask=real)


@triton.jit
def _backward(q_at, k_at, v_at, bias_at, usable_at, order_at, count_at, words_at, slope_at, sums_at, inner_at, dq_at, dk_at, dv_at, db_at,
              context, scale, teams, blocks, H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, TEAM: tl.constexpr, ROWS: tl.constexpr,
              BLOCK: tl.constexpr):  # fmt: skip
    team, group = tl.program_id(0), tl.program_id(1)
    member, query, head, real = _rows(team, group, H, H // G, TEAM, ROWS)
    column = tl.arange(0, D)
    q = tl.load(q_at + head[:, None] * D + column[None, :], mask=real[:, None], other=0.0)
    slope = tl.load(slope_at + head[:, None] * D + column[None, :], mask=real[:, None], other=0.0)
    sums = tl.load(sums_at + head, mask=real, other=0.0)
    inner = tl.load(inner_at + head, mask=real, other=0.0)
    dq = tl.zeros((ROWS, D), tl.float32)
    first = (group * teams + team) * blocks
    for i in range(tl.load(count_at + group * teams + team)):
        at, k, v, logits, seen = _block(i, q, k_at, v_at, bias_at, usable_at, order_at, words_at, first, group, member, query, real, context, scale, G, D, BLOCK)
        weights = tl.where(seen, tl.exp(logits - sums[:, None]), 0.0)
        ds = weights * (tl.dot(slope, tl.trans(v)) - inner[:, None])
        low = ds.to(k.dtype)
        dq += tl.dot(low, k)
        to = at[:, None] * D + column[None, :]
        tl.atomic_add(dv_at + to, tl.dot(tl.trans(weights.to(slope.dtype)), slope), sem="relaxed")
        tl.atomic_add(dk_at + to, tl.dot(tl.trans(low), q) * scale, sem="relaxed")
        tl.atomic_add(db_at + at, tl.sum(ds, 0), sem="relaxed")
    tl.store(dq_at + head[:, None] * D + column[None, :], (dq * scale).to(dq_at.dtype.element_ty), mask=real[:, None])


class _OverChosen(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, cis: Tensor, blocks: Tensor, usable: Tensor, scale: float) -> Tensor:
        groups, queries, count = blocks.shape
        teams, heads, dim = queries // TEAM, q.shape[1], q.shape[2]
        bits = (1 << torch.arange(TEAM, dtype=torch.int32, device=q.device))[None, None, :, None]
        words = (blocks.view(groups, teams, TEAM, count) * bits).sum(2, dtype=torch.int32)
        chosen = words != 0
        order = chosen.to(torch.uint8).argsort(dim=-1, descending=True, stable=True).to(torch.int32)
        lists = (usable.to(torch.int8), order, chosen.sum(-1, dtype=torch.int32), words)
        q, k, v, bias = q.contiguous(), k.contiguous(), v.contiguous(), cis.float().contiguous()
        out, sums = torch.empty_like(q), torch.empty(queries, heads, device=q.device)
        sizes = {"H": heads, "G": groups, "D": dim, "TEAM": TEAM, "ROWS": triton.next_power_of_2(TEAM * heads // groups), "BLOCK": BLOCK}
        numbers = (len(k) - queries, scale, teams, count)
        _forward[(teams, groups)](q, k, v, bias, *lists, out, sums, *numbers, **sizes, num_warps=8, num_stages=2)
        ctx.save_for_backward(q, k, v, bias, *lists, out, sums)
        ctx.numbers, ctx.sizes, ctx.kind = numbers, sizes, cis.dtype
        return out

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, *lists, out, sums = ctx.saved_tensors
        slope = slope.contiguous()
        inner = (slope.float() * out.float()).sum(-1)
        dq = torch.empty_like(q)
        dk, dv, db = (torch.zeros(t.shape, device=t.device) for t in (k, v, bias))
        grid = (ctx.numbers[2], ctx.sizes["G"])
        _backward[grid](q, k, v, bias, *lists, slope, sums, inner, dq, dk, dv, db, *ctx.numbers, **ctx.sizes, num_warps=8, num_stages=1)
        return dq, dk.to(k.dtype), dv.to(v.dtype), db.to(ctx.kind), None, None, None


def over_chosen(q: Tensor, k: Tensor, v: Tensor, cis: Tensor, blocks: Tensor, usable: Tensor, scale: float) -> Tensor:
    """As `gathered.over_chosen`: q [Tq,H,D], k and v [T,G,D], cis [T,G], blocks [G,Tq,B], usable [T]; D a power of two."""
    return _OverChosen.apply(q, k, v, cis, blocks, usable, scale)
