"""Several processes that train together: the same step from the mean of their gradients, other samples in each, rows of like size."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nosa_train import adapter, steps
from nosa_train.cases import ContextCase
from nosa_train.gguf_weights import ModelConfig
from nosa_train.layouts import Layout
from nosa_train.model import Decoder, random_tensors
from nosa_train.steps import Source, in_order, make_steps
from nosa_train.train import Trainer

CONFIG = ModelConfig(layers=2, hidden=16, heads=2, kv_heads=1, head_dim=8, ffn=32, vocab=64, rope_theta=10000.0, norm_eps=1e-6, context=512)


def stepped(folder: Path, seeds: list[int]) -> list[torch.Tensor]:
    """Parameters after two steps whose gradients are the mean of those that the seeds give."""
    torch.manual_seed(0)
    trainer = Trainer(Decoder(CONFIG, random_tensors(CONFIG, seed=5)), 2, 4, 1e-2, 1e-2, folder / f"state {seeds}", None)
    for number in range(2):
        total = torch.zeros(())
        for seed in seeds:
            generator = torch.Generator().manual_seed(10 * number + seed)
            total = total + sum((p * torch.randn(p.shape, generator=generator)).sum() for p in trainer.parameters)
        (total / len(seeds)).backward()
        values = trainer.update(0.5, {"loss": torch.tensor(float(sum(seeds)) / len(seeds))})
        assert values["loss"] == pytest.approx(0.5)
    return [p.detach() for p in trainer.parameters]


_MEMBER = """
import os, sys
from pathlib import Path
import torch, torch.distributed as dist
from tests.test_together import CONFIG, Trainer, Decoder, random_tensors

folder, rank = Path(sys.argv[1]), int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
torch.manual_seed(0)
trainer = Trainer(Decoder(CONFIG, random_tensors(CONFIG, seed=5)), 2, 4, 1e-2, 1e-2, folder / f"state {rank}", None)
for number in range(2):
    generator = torch.Generator().manual_seed(10 * number + rank)
    sum((p * torch.randn(p.shape, generator=generator)).sum() for p in trainer.parameters).backward()
    assert abs(trainer.update(0.5, {"loss": torch.tensor(float(rank))})["loss"] - 0.5) < 1e-6
torch.save([p.detach() for p in trainer.parameters], folder / f"{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_make_the_step_of_their_mean_gradient(tmp_path):
    root = Path(__file__).parents[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    members = [subprocess.Popen([sys.executable, "-c", _MEMBER, str(tmp_path), str(rank)], cwd=root, env=environment) for rank in range(2)]
    assert [member.wait(timeout=240) for member in members] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for ours, others, wanted in zip(first, second, stepped(tmp_path, [0, 1]), strict=True):
        assert torch.equal(ours, others)
        torch.testing.assert_close(ours, wanted)


def test_processes_take_other_samples_of_like_size_and_layout(monkeypatch):
    rng = random.Random()
    cases = [ContextCase(f"r{i}", rng.randrange(1000, 30000), (), (), ()) for i in range(31)]
    seen: dict[int, list[tuple[str, int, Layout]]] = {0: [], 1: [], 2: []}
    monkeypatch.setattr(steps, "load_samples", lambda path: cases)
    monkeypatch.setattr(steps, "load_tokenizer", lambda path: type("T", (), {"token_to_id": lambda self, piece: 1})())
    monkeypatch.setattr(steps, "ask_again", lambda case, seed: case)
    monkeypatch.setattr(steps, "widened", lambda case, package, tokens, choices: (case, tokens))
    monkeypatch.setattr(steps, "build_step", lambda case, layout, encode, marks, live, order: (case[0], case[1], layout))
    monkeypatch.setattr(steps, "tokens_of", lambda step: 0)
    makers = 2
    for rank in seen:
        sources = [Source(Path(), Path(), Layout("segments", "raw", 8192, 2048), 1024, 7, 3, i * 3 + rank, makers * 3) for i in range(makers)]
        made = [make_steps(source) for source in sources]
        seen[rank] = [next(made[i % makers]) for i in range(20)]
    spread = 0
    for together in zip(*seen.values(), strict=True):
        assert len({case.repository for case, _, _ in together}) == 3
        assert len({filled for _, filled, _ in together}) == 1
        assert len({layout.kind for _, _, layout in together}) == 1
        spread += max(case.tokens for case, _, _ in together) - min(case.tokens for case, _, _ in together)
    sizes = sorted(case.tokens for case in in_order(cases, 3, 7))
    assert spread < 20 * (sizes[-1] - sizes[0]) / 2
    assert len({case.repository for rank in seen for case, _, _ in seen[rank][:10]}) == 30


def test_an_adapter_knows_the_seeds_that_it_was_trained_with(tmp_path):
    model = Decoder(CONFIG, random_tensors(CONFIG, seed=5))
    adapter.attach(model, 2, 4)
    for seeds, wanted in (("1,7", ["1", "7"]), ("", [])):
        adapter.export(model, tmp_path / "adapter.safetensors", "ab" * 32, 2, 4, {"seeds": seeds})
        assert Trainer(Decoder(CONFIG, random_tensors(CONFIG, seed=5)), 2, 4, 1e-2, 1e-2, tmp_path / "state", tmp_path / "adapter.safetensors").seeds == wanted
    assert not list(tmp_path.glob("*.part"))
