"""Bytes and seconds of a training step from the shapes alone, so that a run can be planned where no GPU is.

Bytes count what the way back needs of every token and layer (a test compares them with what autograd keeps), the two kinds of weights (the
teacher is the student without its updates: one set serves both), and the largest pieces that live for a moment. Seconds are calibrated
by LEDGER.md: 0.55 s a step at 5 k tokens and 1.0 s at 30 k for the 0.5B model on one H200.
"""

from __future__ import annotations

from collections.abc import Sequence

from .gguf_weights import ModelConfig
from .gathered import EXTRA
from .steps import LOOK_QUERIES, LOOK_WRITING, STEADY_QUERIES

RATE = 270e12  # operations a second of the whole step, by what 30 k tokens took
FLOOR = 0.45 / 24  # seconds of launches a layer
TAILS = 5_000  # tokens of an ordinary step's tails
GIB = 2**30

# Shapes of models whose file need not be at hand.
SHAPES = {
    "qwen2.5-coder-0.5b": ModelConfig(24, 896, 14, 2, 64, 4864, 151_936, 1e6, 1e-6, 32_768),
    "qwen2.5-coder-1.5b": ModelConfig(28, 1536, 12, 2, 128, 8960, 151_936, 1e6, 1e-6, 32_768),
}


def weights_of_layer(c: ModelConfig) -> int:
    return 2 * c.hidden * c.heads * c.head_dim + 2 * c.hidden * c.kv_heads * c.head_dim + 3 * c.hidden * c.ffn


def kept_of_token(c: ModelConfig, rank: int, is_lean: bool, size: int = 2) -> int:
    """Bytes that one layer keeps of a token for the way back; `size` of a number."""
    # x, its norm; queries, repeated keys and values, what comes out; keys and values once more, for the tails
    attention = c.hidden * 2 + 4 * c.heads * (c.head_dim + EXTRA) + 2 * c.kv_heads * c.head_dim
    values = 2 * c.kv_heads * c.head_dim  # in float32, for the eviction head
    after = c.heads * c.head_dim + (0 if is_lean else 2 * c.hidden + 4 * c.ffn)
    updates = rank * (3 if is_lean else 7)
    return size * (attention + after + updates) + 2 * values


def looks_of_layer(c: ModelConfig, windows: int, foreign: int) -> int:
    """Bytes of the losses of one layer's selection: scores of the queries looked at over this repository's windows and those of others."""
    found = (LOOK_QUERIES + LOOK_WRITING) * (windows + foreign)
    return 4 * 3 * c.heads * (found + STEADY_QUERIES * windows)


def parameters(c: ModelConfig, rank: int) -> int:
    wide = c.heads * c.head_dim
    narrow = c.kv_heads * c.head_dim
    pairs = 2 * (c.hidden + wide) + 2 * (c.hidden + narrow) + 3 * (c.hidden + c.ffn)
    return c.layers * (rank * pairs + c.kv_heads * (narrow + 1))


def bytes_of_step(c: ModelConfig, context: int, tails: int, rank: int, is_lean: bool) -> dict[str, float]:
    tokens, windows = context + tails, context // 16
    return {
        "weights": 2 * (c.layers * weights_of_layer(c) + c.vocab * c.hidden),
        "adapter": 16 * parameters(c, rank),  # value, gradient and two moments
        "kept": 1.1 * tokens * c.layers * kept_of_token(c, rank, is_lean),  # parts in batches are filled up
        "losses": c.layers / 2 * looks_of_layer(c, windows, 6 * windows),
        "logits": 4 * 4 * 2048 * c.vocab,
        "moment": 2 * tokens * 5 * c.ffn,  # one layer's feed-forward, there and back
    }


def operations_of_step(c: ModelConfig, context: int, tails: int, is_lean: bool, part: int = 4096) -> float:
    tokens, wide = context + tails, 4 * c.head_dim * c.heads * c.layers
    products = 2 * c.layers * weights_of_layer(c) * tokens
    again = 2 * c.layers * (3 * c.ffn + c.heads * c.head_dim) * c.hidden * tokens if is_lean else 0
    teacher = wide * (context**2 / 2 + tails * context)
    student = 3.5 * wide * (context * part / 2 + tails * 64 * 64)
    return 3 * products + again + teacher + student + 6 * c.hidden * c.vocab * tails


def seconds_of_step(c: ModelConfig, context: int, tails: int, is_lean: bool) -> float:
    return FLOOR * c.layers + operations_of_step(c, context, tails, is_lean) / RATE


def show(c: ModelConfig, rank: int, seconds: float, most: int, fill: Sequence[int], is_lean: bool) -> str:
    lines = [f"{c.layers} layers of {c.hidden}, rank {rank}: {parameters(c, rank) / 1e6:.1f} M parameters are trained" + (", lean" if is_lean else "")]
    for context in sorted({8_192, 16_384, 32_768, max(fill), most - TAILS}):
        parts = bytes_of_step(c, context, TAILS, rank, is_lean)
        each = ", ".join(f"{name} {value / GIB:.1f}" for name, value in parts.items())
        lines.append(f"context of {context} and tails of {TAILS} tokens: {sum(parts.values()) / GIB:.0f} GiB ({each}), {seconds_of_step(c, context, TAILS, is_lean):.2f} s")
    typical = sum(seconds_of_step(c, max(f, 20_000), TAILS, is_lean) for f in fill) / len(fill)
    lines.append(f"{seconds / typical:.0f} steps in {seconds:.0f} s on one GPU, at {typical:.2f} s; as many on each of several")
    return "\n".join(lines)
