"""The NOSA adapter of a dense model: eviction heads and low-rank updates, as the engine reads them from one file."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .model import UPDATABLE, Decoder, EvictionHead

FORMAT = "nosa-adapter-1"


def attach(model: Decoder, rank: int, alpha: float, names: tuple[str, ...] = UPDATABLE) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Gives every layer an eviction head and updates of `rank`; returns (eviction parameters, update parameters)."""
    eviction: list[nn.Parameter] = []
    updates: list[nn.Parameter] = []
    for layer in model.layers:
        layer.eviction = EvictionHead(model.config, model.embedding.device)
        eviction += [layer.eviction.A, layer.eviction.delta]
        for name in names if rank > 0 else ():
            projection = layer.projection(name)
            projection.add_update(rank, alpha)
            updates += [projection.lora_A, projection.lora_B]
    return eviction, updates


def parameters_of(model: Decoder) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(eviction parameters, update parameters) of an attached adapter."""
    eviction = [p for layer in model.layers for p in (layer.eviction.A, layer.eviction.delta)]
    projections = [layer.projection(name) for layer in model.layers for name in UPDATABLE]
    return eviction, [p for projection in projections if projection.lora_A is not None for p in (projection.lora_A, projection.lora_B)]


def set_enabled(model: Decoder, enabled: bool) -> None:
    """Turns the whole adapter on or off; off is the dense base model, bit for bit."""
    for layer in model.layers:
        layer.adapter_enabled = enabled
        for name in UPDATABLE:
            layer.projection(name).update_enabled = enabled


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def tensors_of(model: Decoder) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for i, layer in enumerate(model.layers):
        prefix = f"model.layers.{i}."
        if layer.eviction is not None:
            tensors[f"{prefix}self_attn.A"] = layer.eviction.A.detach().float().cpu().contiguous()
            tensors[f"{prefix}self_attn.delta.weight"] = layer.eviction.delta.detach().float().cpu().contiguous()
        for name in UPDATABLE:
            projection = layer.projection(name)
            if projection.lora_A is not None and projection.lora_B is not None:
                tensors[f"{prefix}{name}.lora_A.weight"] = projection.lora_A.detach().to(torch.bfloat16).cpu().contiguous()
                tensors[f"{prefix}{name}.lora_B.weight"] = projection.lora_B.detach().to(torch.bfloat16).cpu().contiguous()
    return tensors


def export(model: Decoder, path: Path, base_sha256: str, rank: int, alpha: float, notes: dict[str, str]) -> None:
    metadata = {"format": FORMAT, "base_sha256": base_sha256, "rank": str(rank), "alpha": str(alpha), **notes}
    aside = path.with_suffix(".part")  # whoever reads the file while training goes on reads a whole one
    save_file(tensors_of(model), aside, metadata)
    aside.rename(path)


def load(model: Decoder, path: Path) -> dict[str, str]:
    """Attaches a saved adapter; returns its metadata. Fails when the file is of another format or shape."""
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{path} is not a {FORMAT} file")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    names = tuple(n for n in UPDATABLE if any(re.search(rf"{re.escape(n)}\.lora_A", key) for key in tensors))
    attach(model, int(metadata["rank"]) if names else 0, float(metadata["alpha"]), names)
    with torch.no_grad():
        for i, layer in enumerate(model.layers):
            prefix = f"model.layers.{i}."
            layer.eviction.A.copy_(tensors[f"{prefix}self_attn.A"])
            layer.eviction.delta.copy_(tensors[f"{prefix}self_attn.delta.weight"])
            for name in names:
                projection = layer.projection(name)
                projection.lora_A.copy_(tensors[f"{prefix}{name}.lora_A.weight"])
                projection.lora_B.copy_(tensors[f"{prefix}{name}.lora_B.weight"])
    return metadata
