"""A Llama or Qwen2 decoder over one packed row of tokens, with positions and visibility given from outside.

Shapes: T tokens in the row, H query heads, G key/value heads, D head size. The row is not batched: several prompts are
packed one after the other and kept apart by the `Attend` that is passed in.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .gguf_weights import ModelConfig

UPDATABLE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
             "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip


class Attend(Protocol):
    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, cis: Tensor | None) -> Tensor:
        """q [T,H,D], k and v [T,G,D] after RoPE, cis [T,G] or None when the model has no adapter; returns [T,H,D]."""
        ...


class Projection(nn.Module):
    """A frozen matrix with an optional trainable low-rank update, (alpha / rank) B A."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.lora_A: nn.Parameter | None = None
        self.lora_B: nn.Parameter | None = None
        self.lora_scale = 0.0
        self.update_enabled = True

    def add_update(self, rank: int, alpha: float) -> None:
        out_features, in_features = self.weight.shape
        device = self.weight.device
        self.lora_A = nn.Parameter(torch.randn(rank, in_features, device=device) * in_features**-0.5)
        self.lora_B = nn.Parameter(torch.zeros(out_features, rank, device=device))
        self.lora_scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, self.bias)
        if self.lora_A is None or self.lora_B is None or not self.update_enabled:
            return y
        return y + F.linear(F.linear(x, self.lora_A.to(x.dtype)), (self.lora_scale * self.lora_B).to(x.dtype))


class RmsNorm(nn.Module):
    def __init__(self, weight: Tensor, eps: float):
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE on [T, heads, D], pairs (i, i + D/2); cos and sin [T, 1, D/2] in float32."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


class EvictionHead(nn.Module):
    """NOSA's query-agnostic score of a token: cis[h] = A[h] * softplus(delta[h] . concat(v))."""

    def __init__(self, config: ModelConfig, device: torch.device | str):
        super().__init__()
        width = config.kv_heads * config.head_dim
        self.A = nn.Parameter(torch.full((config.kv_heads,), 0.1, device=device))
        self.delta = nn.Parameter(torch.randn(config.kv_heads, width, device=device) * 0.02)

    def forward(self, v: Tensor) -> Tensor:
        return self.A * F.softplus(F.linear(v.flatten(1).float(), self.delta))


class Layer(nn.Module):
    def __init__(self, config: ModelConfig, index: int, tensors: dict[str, Tensor]):
        super().__init__()
        prefix = f"model.layers.{index}."
        self.index, self.config = index, config
        for name in UPDATABLE:
            bias = tensors.get(f"{prefix}{name}.bias")
            self.add_module(name.replace(".", "_"), Projection(tensors[f"{prefix}{name}.weight"], bias))
        self.norm_attention = RmsNorm(tensors[f"{prefix}input_layernorm.weight"], config.norm_eps)
        self.norm_mlp = RmsNorm(tensors[f"{prefix}post_attention_layernorm.weight"], config.norm_eps)
        self.eviction: EvictionHead | None = None
        self.adapter_enabled = True

    def projection(self, name: str) -> Projection:
        module = getattr(self, name.replace(".", "_"))
        assert isinstance(module, Projection)
        return module

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        tokens, dim = x.shape[0], self.config.head_dim
        h = self.norm_attention(x)
        q = rotate(self.self_attn_q_proj(h).view(tokens, -1, dim), cos, sin)
        k = rotate(self.self_attn_k_proj(h).view(tokens, -1, dim), cos, sin)
        v = self.self_attn_v_proj(h).view(tokens, -1, dim)
        cis = self.eviction(v) if self.eviction is not None and self.adapter_enabled else None
        x = x + self.self_attn_o_proj(attend(self.index, q, k, v, cis).reshape(tokens, -1))
        h = self.norm_mlp(x)
        return x + self.mlp_down_proj(F.silu(self.mlp_gate_proj(h)) * self.mlp_up_proj(h))


class Decoder(nn.Module):
    def __init__(self, config: ModelConfig, tensors: dict[str, Tensor]):
        super().__init__()
        self.config = config
        self.register_buffer("embedding", tensors["model.embed_tokens.weight"], persistent=False)
        self.register_buffer("head", tensors["lm_head.weight"], persistent=False)
        self.layers = nn.ModuleList(Layer(config, i, tensors) for i in range(config.layers))
        self.norm = RmsNorm(tensors["model.norm.weight"], config.norm_eps)
        exponents = torch.arange(0, config.head_dim, 2, device=self.embedding.device, dtype=torch.float32) / config.head_dim
        self.register_buffer("inverse_frequencies", config.rope_theta**-exponents, persistent=False)

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        angle = positions.float()[:, None, None] * self.inverse_frequencies
        return angle.cos(), angle.sin()

    def hidden(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Normalised hidden states [T, hidden] of a packed row; ids and positions [T]."""
        cos, sin = self.angles(positions)
        x = F.embedding(ids, self.embedding)
        for layer in self.layers:
            x = layer(x, cos, sin, attend)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.head)


def random_tensors(config: ModelConfig, seed: int, attention_bias: bool = True) -> dict[str, Tensor]:
    """Weights of the right shapes for a test; scaled so that activations neither vanish nor explode."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng) * shape[-1] ** -0.5

    q_width, kv_width = config.heads * config.head_dim, config.kv_heads * config.head_dim
    shapes = {
        "self_attn.q_proj": (q_width, config.hidden), "self_attn.k_proj": (kv_width, config.hidden),
        "self_attn.v_proj": (kv_width, config.hidden), "self_attn.o_proj": (config.hidden, q_width),
        "mlp.gate_proj": (config.ffn, config.hidden), "mlp.up_proj": (config.ffn, config.hidden),
        "mlp.down_proj": (config.hidden, config.ffn),
    }  # fmt: skip
    tensors = {"model.embed_tokens.weight": draw(config.vocab, config.hidden) * config.hidden**0.5,
               "lm_head.weight": draw(config.vocab, config.hidden), "model.norm.weight": torch.ones(config.hidden)}  # fmt: skip
    for i in range(config.layers):
        for name, shape in shapes.items():
            tensors[f"model.layers.{i}.{name}.weight"] = draw(*shape)
            if attention_bias and name[10:] in ("q_proj", "k_proj", "v_proj"):
                tensors[f"model.layers.{i}.{name}.bias"] = draw(shape[0]) * 3
        tensors[f"model.layers.{i}.input_layernorm.weight"] = torch.ones(config.hidden)
        tensors[f"model.layers.{i}.post_attention_layernorm.weight"] = torch.ones(config.hidden)
    return tensors
