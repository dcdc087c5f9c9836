"""Attention over packed rows: who sees whom, with the KV of a context kept for the tails that follow.

Two routes give the same numbers: a dense one in plain PyTorch (the reference, and what a CPU test uses) and FlexAttention
(a GPU, where the empty tiles of the mask are skipped).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

_compiled_flex: Callable | None = None


def flex(*args, **kwargs) -> Tensor:
    global _compiled_flex
    if _compiled_flex is None:
        _compiled_flex = torch.compile(flex_attention, dynamic=True)
    return _compiled_flex(*args, **kwargs)


def visible(query_part: Tensor, key_part: Tensor, query_at: Tensor, key_at: Tensor) -> Tensor:
    """True where a token sees a key: earlier in the row, and header, same part, or a segment seen from a tail."""
    same = (key_part == 0) | (key_part == query_part)
    from_tail = (query_part < 0) & (key_part > 0)
    return (key_at <= query_at) & (same | from_tail)


@dataclass(frozen=True)
class Correction:
    """What a tail does to its logits on segment keys: logit * scale + bias. The identity leaves one plain softmax."""

    scale: float = 1.0
    bias: float = 0.0


def attend_dense(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """q [Tq,H,D], k and v [Tk,G,D], seen [Tq,Tk] or [H,Tq,Tk]; scale and bias act on logits, [Tq,Tk] or [H,Tq,Tk]. Float32 inside."""
    heads, groups = q.shape[1], k.shape[1]
    k, v = (t.repeat_interleave(heads // groups, dim=1).float() for t in (k, v))
    logits = torch.einsum("qhd,khd->hqk", q.float(), k) * q.shape[-1] ** -0.5
    if scale is not None:
        logits = logits * scale
    if bias is not None:
        logits = logits + bias
    weights = logits.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v).to(q.dtype)


class ContextCache:
    """Prefills a context row once; then answers tails against its keys and values."""

    def __init__(self, parts: Tensor, use_flex: bool):
        self.parts = parts
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.use_flex = use_flex

    def prefill(self) -> Callable[..., Tensor]:
        at = torch.arange(len(self.parts), device=self.parts.device)
        parts = self.parts
        mask = self._block_mask(parts, parts, at, at) if self.use_flex else None

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, cis: Tensor | None) -> Tensor:
            self.keys.append(k)
            self.values.append(v)
            if mask is not None:
                return _flex_packed(q, k, v, mask, None)
            return attend_dense(q, k, v, visible(parts[:, None], parts[None, :], at[:, None], at[None, :]))

        return attend

    def tails(self, tail_parts: Tensor, correction: Correction) -> Callable[..., Tensor]:
        context = len(self.parts)
        parts = torch.cat((self.parts, tail_parts))
        at = torch.arange(len(parts), device=parts.device)
        query_at = at[context:]
        mask = self._block_mask(tail_parts, parts, query_at, at) if self.use_flex else None
        scale = torch.where(parts > 0, correction.scale, 1.0)
        bias = torch.where(parts > 0, correction.bias, 0.0)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, cis: Tensor | None) -> Tensor:
            k, v = torch.cat((self.keys[layer], k)), torch.cat((self.values[layer], v))
            if mask is not None:
                return _flex_packed(q, k, v, mask, lambda score, b, h, i, j: score * scale[j] + bias[j])
            seen = visible(tail_parts[:, None], parts[None, :], query_at[:, None], at[None, :])
            return attend_dense(q, k, v, seen, scale.expand_as(seen), bias.expand_as(seen))

        return attend

    @staticmethod
    def _block_mask(query_parts: Tensor, key_parts: Tensor, query_at: Tensor, key_at: Tensor) -> BlockMask:
        def rule(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return visible(query_parts[i], key_parts[j], query_at[i], key_at[j])

        return create_block_mask(rule, None, None, len(query_parts), len(key_parts), device=query_parts.device.type)


def _flex_packed(q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, score: Callable | None) -> Tensor:
    q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v))
    return flex(q, k, v, score_mod=score, block_mask=mask, enable_gqa=True)[0].transpose(0, 1)
