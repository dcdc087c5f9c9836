"""Rounded updates are near what they were, and pack to less; all else of the file is the same."""

import zlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from nosa_train.lighten import lighten, rounded


def test_rounds_to_the_nearest_and_halves_to_even():
    values = torch.tensor([1.0, 1.03125, 1.09375, -1.09375, 1.96875 + 0.015625, 0.0], dtype=torch.bfloat16)
    assert rounded(values, 4).tolist() == [1.0, 1.0, 1.125, -1.125, 2.0, 0.0]
    assert torch.equal(rounded(values, 7), values)


def test_every_value_is_within_half_a_step():
    values = (torch.randn(4096, generator=torch.Generator().manual_seed(5)) * 0.02).to(torch.bfloat16)
    for bits in (2, 4, 6):
        error = (rounded(values, bits).float() - values.float()).abs() / values.float().abs()
        assert error.max() <= 2.0 ** -(bits + 1)
        assert error.max() > 2.0 ** -(bits + 2)


def test_a_file_keeps_everything_else_and_packs_to_less(tmp_path: Path):
    make = torch.Generator().manual_seed(6)
    tensors = {
        "model.layers.0.self_attn.A": torch.randn(2, generator=make),
        "model.layers.0.mlp.gate_proj.lora_A.weight": (torch.randn(8, 4096, generator=make) * 0.02).to(torch.bfloat16),
    }
    save_file(tensors, tmp_path / "whole", {"format": "nosa-adapter-1", "rank": "8"})
    lighten(tmp_path / "whole", tmp_path / "light", 4)
    with safe_open(tmp_path / "light", framework="pt") as file:
        assert file.metadata() == {"format": "nosa-adapter-1", "rank": "8", "mantissa_bits": "4"}
        assert torch.equal(file.get_tensor("model.layers.0.self_attn.A"), tensors["model.layers.0.self_attn.A"])
    packed = [len(zlib.compress((tmp_path / name).read_bytes(), 9)) for name in ("whole", "light")]
    assert packed[1] < 0.8 * packed[0]


def test_refuses_what_is_not_bf16():
    with pytest.raises(ValueError, match="cannot be rounded"):
        rounded(torch.zeros(2), 4)
