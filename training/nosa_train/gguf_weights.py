"""A GGUF file as float tensors under the names of the original checkpoints, and its tokenizer.

The dense model that everything is compared with is this de-quantised file: no higher precision is at hand.
"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader, ReaderTensor
from gguf.quants import dequantize
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

_LAYER_NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_TOP_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}

# How text is cut before merging, by GGUF's name for it. Qwen2 takes digits one by one and contractions in any case.
_PRE_TOKENIZERS = {
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "smollm": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
}
_CONTROL, _USER_DEFINED = 3, 4


@dataclass(frozen=True)
class ModelConfig:
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    rope_theta: float
    norm_eps: float
    context: int

    @property
    def group(self) -> int:
        return self.heads // self.kv_heads


def read_config(reader: GGUFReader) -> ModelConfig:
    def field(name: str):
        return reader.fields[name].contents()

    arch = field("general.architecture")
    heads, hidden = field(f"{arch}.attention.head_count"), field(f"{arch}.embedding_length")
    return ModelConfig(
        layers=field(f"{arch}.block_count"),
        hidden=hidden,
        heads=heads,
        kv_heads=field(f"{arch}.attention.head_count_kv"),
        head_dim=hidden // heads,
        ffn=field(f"{arch}.feed_forward_length"),
        vocab=len(reader.fields["tokenizer.ggml.tokens"].data),
        rope_theta=float(field(f"{arch}.rope.freq_base")),
        norm_eps=float(field(f"{arch}.attention.layer_norm_rms_epsilon")),
        context=field(f"{arch}.context_length"),
    )


def _checkpoint_name(name: str) -> str:
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if layer:
        return f"model.layers.{layer[1]}.{_LAYER_NAMES[layer[2]]}.{layer[3]}"
    stem, kind = name.rsplit(".", 1)
    return f"{_TOP_NAMES[stem]}.{kind}"


def _half_split_rows(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undoes llama.cpp's reordering of rotary pairs: (2i, 2i+1) rows become (i, i + d/2)."""
    rows = weight.shape[0]
    return weight.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def load_weights(path: Path, dtype: torch.dtype = torch.float32) -> tuple[ModelConfig, dict[str, Tensor]]:
    """De-quantises every tensor; matrices are [out, in]. `lm_head.weight` is the embedding where the file ties them."""
    reader = GGUFReader(path)
    config = read_config(reader)
    interleaved = reader.fields["general.architecture"].contents() == "llama"

    def floats(entry: ReaderTensor) -> Tensor:
        values = dequantize(entry.data, entry.tensor_type)
        if interleaved and ".attn_q." in entry.name:
            values = _half_split_rows(values, config.heads)
        elif interleaved and ".attn_k." in entry.name:
            values = _half_split_rows(values, config.kv_heads)
        return torch.from_numpy(np.array(values, dtype=np.float32)).to(dtype)

    entries = [entry for entry in reader.tensors if entry.name != "rope_freqs.weight"]
    with ThreadPoolExecutor(min(12, len(os.sched_getaffinity(0)))) as pool:
        tensors = dict(zip((_checkpoint_name(entry.name) for entry in entries), pool.map(floats, entries), strict=True))
    tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"])
    return config, tensors


def cached_weights(path: Path, dtype: torch.dtype) -> tuple[ModelConfig, dict[str, Tensor]]:
    """As load_weights, but keeps the de-quantised tensors beside the file: reading them back takes a second, not half a minute."""
    stat = path.stat()
    aside = path.with_name(f"{path.stem}.{str(dtype).split('.')[-1]}.{stat.st_size}.{int(stat.st_mtime)}.pt")
    if not aside.exists():
        config, tensors = load_weights(path, dtype)
        part = aside.with_suffix(f".{os.getpid()}.part")
        torch.save(tensors, part)
        part.rename(aside)
        return config, tensors
    return read_config(GGUFReader(path)), torch.load(aside, weights_only=True)


def load_tokenizer(path: Path) -> Tokenizer:
    """The byte-level BPE of the file's own metadata; special tokens are recognised in text."""
    fields = GGUFReader(path).fields
    tokens: list[str] = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ", 1)) for m in fields["tokenizer.ggml.merges"].contents()]
    kinds: list[int] = fields["tokenizer.ggml.token_type"].contents()
    pattern = fields["tokenizer.ggml.pre"].contents()
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    steps = [pre_tokenizers.Split(Regex(_PRE_TOKENIZERS[pattern]), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    if pattern == "smollm":
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    special = [t for t, kind in zip(tokens, kinds, strict=True) if kind in (_CONTROL, _USER_DEFINED)]
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in special])
    return tokenizer
