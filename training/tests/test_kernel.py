"""The Triton kernels of chosen blocks, interpreted on the CPU, against attention written out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

_CHECK = """
import torch
import triton.runtime.interpreter as interpreter
from nosa_train import chosen_kernel
from nosa_train.sparse import BLOCK

patch = interpreter._patch_lang_tensor

def patched(tensor, scope):  # numpy 2.4 makes no integer of an array of one element
    patch(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

interpreter._patch_lang_tensor = patched

def written_out(q, k, v, cis, blocks, usable, scale):
    context, ratio = len(k) - len(q), q.shape[1] // k.shape[1]
    at = torch.arange(len(k))
    seen = blocks.repeat_interleave(BLOCK, -1) & usable & (at[None] <= at[context:, None])
    keys, values = (t.repeat_interleave(ratio, 1) for t in (k, v))
    logits = torch.einsum("qhd,khd->hqk", q, keys) * scale + cis.repeat_interleave(ratio, 1).T[:, None]
    return torch.einsum("hqk,khd->qhd", logits.masked_fill(~seen.repeat_interleave(ratio, 0), float("-inf")).softmax(-1), values)

seed = torch.seed()
print("seed", seed)
for heads, groups, context, queries in ((6, 2, 256, 128), (7, 1, 192, 64), (2, 2, 64, 128)):
    total = context + queries
    q, k, v = torch.randn(queries, heads, 16), torch.randn(total, groups, 16), torch.randn(total, groups, 16)
    cis, weights = torch.randn(total, groups), torch.randn(queries, heads, 16)
    blocks = torch.rand(groups, queries, total // BLOCK) < 0.5
    usable = torch.rand(total) < 0.9
    blocks[..., 0], usable[:BLOCK] = True, True
    results = []
    for attend in (chosen_kernel.over_chosen, written_out):
        leaves = [t.clone().requires_grad_() for t in (q, k, v, cis)]
        out = attend(*leaves, blocks, usable, 0.25)
        (out * weights).sum().backward()
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
print("same")
"""


def test_kernels_are_attention_written_out():
    done = subprocess.run([sys.executable, "-c", _CHECK], cwd=Path(__file__).parents[1], env={**os.environ, "TRITON_INTERPRET": "1"},
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.stdout.endswith("same\n"), done.stdout + done.stderr
