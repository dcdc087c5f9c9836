"""What keeps a run from going wrong: where the look-up loss may reach, when a run ends by itself, which checkpoint it keeps, what fits."""

import json
import random
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers

from nosa_train import adapter, estimate, train
from nosa_train.cases import ContextCase
from nosa_train.course import WINDOW, Course
from nosa_train.gguf_weights import _LAYER_NAMES, _TOP_NAMES, ModelConfig
from nosa_train.joint import Watch, learn, plan
from nosa_train.layouts import QWEN, Layout
from nosa_train.losses import Others, Weights, step_loss
from nosa_train.lookups import make_infills, make_lookups
from nosa_train.model import Decoder, random_tensors
from nosa_train.recipes import RECIPES
from nosa_train.samples import save_samples
from nosa_train.repos import SourceFile
from nosa_train.sparse import BLOCK, Budget
from nosa_train.steps import build_step, make_steps
from nosa_train.train import Trainer, arguments
from tests.test_sparse import CONFIG, FILES, adapted, encode, joint_row  # noqa: F401


def step_of(tokens: int = 100):
    infills = make_infills(FILES, 1, 0, per_file=1)
    lookups = [q for q in make_lookups(FILES, 8, 0) if q.path != infills[0].path]
    return build_step(ContextCase("demo", 0, FILES, tuple(lookups[:1]), tuple(infills[:1])), Layout("segments", "raw", 256), encode, QWEN, tokens)


def test_what_is_learned_of_finding_stays_in_its_layer(adapted):  # noqa: F811
    row = joint_row([10, 300, 500, 70, 900], [150, 70])
    watch = Watch(slice(0, 100), torch.arange(0, 140, 10), [], torch.zeros(0))
    sharpness = torch.ones(2, CONFIG.layers, CONFIG.kv_heads)
    losses = learn(adapted, plan(row), Budget(8, 3, 17), sharpness, watch).chosen[1].losses

    def reached(loss: torch.Tensor) -> set[str]:
        adapted.zero_grad(set_to_none=True)
        loss.backward(retain_graph=True)
        return {name for name, p in adapted.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}

    own = {f"layers.1.self_attn_{name}_proj.lora_{which}" for name in "qk" for which in "AB"}
    assert reached(losses["find"]) == own
    assert reached(losses["moves"]) > own  # of the others nothing was changed: they reach the layer below


def test_a_lean_step_has_the_gradients_of_a_plain_one(adapted):  # noqa: F811
    step, results = step_of(), []
    for is_lean in (False, True):
        sharpness = torch.ones(2, CONFIG.layers, CONFIG.kv_heads, requires_grad=True)
        adapted.zero_grad(set_to_none=True)
        loss, _ = step_loss(adapted, sharpness, step, Budget(8, 3, 17), Weights(), random.Random(0), Others(), "cpu", is_lean=is_lean)
        loss.backward()
        results.append([loss.detach(), sharpness.grad, *(p.grad for p in adapted.parameters())])
    for plain, lean in zip(*results, strict=True):
        torch.testing.assert_close(lean, plain)


@pytest.mark.parametrize("seed", range(3))
def test_a_run_ends_when_its_kl_rises_and_not_by_chance(seed):
    rng = np.random.default_rng(seed)

    def ends_at(course: Course, factor: float, steps: int = 300) -> int | None:
        for number in range(steps):
            course.kl.append(float(0.2 * rng.lognormal(sigma=0.3) * (1 + (factor - 1) * number / steps)))
            if course.rises():
                return number
        return None

    assert ends_at(Course(), 0.9) is None
    assert 2 * WINDOW - 1 <= ends_at(Course(), 2.0) < 300
    assert ends_at(Course(margin=2.0), 2.0) is None
    assert Course(kl=[0.2] * WINDOW + [0.21 - 1e-6] * WINDOW).rises() is False
    assert Course(kl=[0.2] * WINDOW + [0.21 + 1e-6] * WINDOW).rises() is True
    assert Course(kl=[0.2] * WINDOW + [float("nan")] * WINDOW).rises() is True


def test_memory_is_what_autograd_keeps():
    config = ModelConfig(layers=3, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=256, vocab=256, rope_theta=10000.0, norm_eps=1e-6, context=4096)
    model = Decoder(config, random_tensors(config, seed=5))
    adapter.attach(model, 4, 8)
    weights = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    row = joint_row([10, 900, 700, 500, 64], [150, 70])
    watch = Watch(slice(0, 2), torch.tensor([3]), [], torch.zeros(0), layers=())  # what losses of the selection keep is counted apart
    for is_lean in (False, True):
        kept: dict[int, torch.Tensor] = {}  # held, so that no address is used twice

        def pack(tensor: torch.Tensor, kept: dict[int, torch.Tensor] = kept) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            made = learn(model, plan(row), Budget(), torch.ones(2, 3, 2), watch, is_lean)
        found = sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in weights)
        predicted = len(row.parts) * config.layers * estimate.kept_of_token(config, 4, is_lean, size=4)
        assert made.hidden.requires_grad and predicted == pytest.approx(found, rel=0.15)


def test_a_plan_needs_no_gpu_and_knows_that_tied_weights_are_there_once(capsys, tmp_path):
    train.main(["--plan", "--recipe", "1.5b", "--model", "qwen2.5-coder-1.5b"])
    shown = capsys.readouterr().out
    assert "28 layers of 1536" in shown and "lean" in shown
    shape = estimate.SHAPES["qwen2.5-coder-1.5b"]
    biggest = RECIPES["1.5b"]["most"] - estimate.TAILS
    plain, lean = (sum(estimate.bytes_of_step(shape, biggest, estimate.TAILS, 8, is_lean).values()) for is_lean in (False, True))
    assert lean < 100 * estimate.GIB < plain  # on a GPU of 139 GiB, with what fragments
    trained = sum(p.numel() for group in adapter.attach(Decoder(CONFIG, random_tensors(CONFIG, 1)), 4, 8) for p in group)
    assert estimate.parameters(CONFIG, 4) == trained
    tensors = random_tensors(CONFIG, 1)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    moved = train.on_device(tensors, "cpu")
    assert moved["lm_head.weight"].data_ptr() == moved["model.embed_tokens.weight"].data_ptr() and moved.keys() == tensors.keys()


def test_recipes_are_defaults_that_a_command_line_overrules():
    needed = ["--model", "m", "--samples", "s", "--state", "t", "--out", "o"]
    for name, recipe in RECIPES.items():
        args = arguments(["--recipe", name, *needed])
        assert {key: getattr(args, key) for key in recipe} == recipe
        assert args.seed != 1  # what the shipped adapter was trained with
        replace(Weights(), **{key: float(value) for key, value in (each.split("=") for each in args.weights)})
    assert arguments(["--recipe", "long", "--seed", "5", *needed]).seed == 5
    with pytest.raises(SystemExit):
        arguments(["--model", "m"])


def tiny_gguf(path: Path) -> Path:
    """A Qwen2 file with random weights whose tokens are bytes and the marks of repositories."""
    config = ModelConfig(layers=2, hidden=32, heads=4, kv_heads=2, head_dim=8, ffn=48, vocab=0, rope_theta=10000.0, norm_eps=1e-6, context=4096)
    spelled = sorted(pre_tokenizers.ByteLevel.alphabet())
    marks = [QWEN.repo, QWEN.file, *QWEN.fim, "<|im_start|>", "<|im_end|>"]
    tokens = [*spelled, "er", *marks]
    tensors = random_tensors(replace(config, vocab=len(tokens)), seed=2)
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(config.layers)
    writer.add_embedding_length(config.hidden)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_feed_forward_length(config.ffn)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_context_length(config.context)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_merges(["e r"])
    writer.add_token_types([1] * (len(spelled) + 1) + [3] * len(marks))
    names = {f"model.layers.{i}.{ours}": f"blk.{i}.{theirs}" for theirs, ours in _LAYER_NAMES.items() for i in range(config.layers)}
    names |= {ours: theirs for theirs, ours in _TOP_NAMES.items()}
    for name, tensor in tensors.items():
        stem, kind = name.rsplit(".", 1)
        writer.add_tensor(f"{names[stem]}.{kind}", tensor.numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


PACKAGE = tuple(
    SourceFile(f"pkg/part{i}.py", "".join(f"def make_{i}_{j}(value):\n    total = value + {j}\n    return make_{(i + 1) % 5}_{j}(total) * {i}\n\n\n" for j in range(2)))
    for i in range(5)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, samples to train on and samples held out, all tiny."""
    made = tmp_path_factory.mktemp("run")
    tiny_gguf(made / "tiny.gguf")
    for name in ("train", "watch"):
        files = tuple(replace(f, text=f.text.replace("total", name)) for f in PACKAGE)
        holes = make_infills(files, 2, 0, per_file=1, prefix_chars=60, suffix_chars=20)
        asked = [q for q in make_lookups(files, 8, 0) if q.path not in {h.path for h in holes}][:1]
        save_samples(made / f"{name}.jsonl.xz", [ContextCase(f"pypi/{name}", 900, files, tuple(asked), tuple(holes))])
    return made


@pytest.fixture
def in_one_process(monkeypatch) -> None:
    """Steps are made here, and of one short wording: bytes are tokens, and tails of thousands take a CPU a minute."""
    monkeypatch.setattr(train, "prefetch", lambda sources: make_steps(sources[0]))
    monkeypatch.setattr("nosa_train.steps.ask_again", lambda case, seed: None)


def run(folder: Path, out: Path, *words: str) -> list[dict]:
    """A whole run on a CPU, as the command line has it; the rows of its log."""
    train.main([
        "--model", str(folder / "tiny.gguf"), "--samples", str(folder / "train.jsonl.xz"), "--held-out", str(folder / "watch.jsonl.xz"),
        "--state", str(out / "state.pt"), "--out", str(out), "--rank", "2", "--live-tokens", "60", "--makers", "1", "--fill", "0", "--seconds", "3600",
        "--judge-every", "2", "--judge-contexts", "1", "--warm-up", "0", *words,
    ])  # fmt: skip
    return [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()]


def test_a_run_keeps_the_adapter_that_reads_held_out_code_best_and_goes_on_where_it_stopped(folder, in_one_process, tmp_path, monkeypatch, capsys):
    scores = iter([3.0, 2.0, 4.0, 5.0, 1.0])
    monkeypatch.setattr(train.Judge, "__call__", lambda self, model: {"score": next(scores)})
    rows = run(folder, tmp_path, "--steps", "5", "--seed", "3")
    assert [row["step"] for row in rows if "kl" in row] == [1, 2, 3, 4, 5]
    assert [(row["step"], row["best_step"]) for row in rows if "held_out" in row] == [(0, 0), (2, 2), (4, 2), (5, 2)]
    assert "stopped at step 5: its time was over; best at step 2" in capsys.readouterr().out
    kept = [adapter.load(Decoder(*shapes(folder)), tmp_path / f"{name}.safetensors") for name in ("adapter", "last")]
    assert [(of["steps"], of["seeds"]) for of in kept] == [("2", "3"), ("5", "3")]
    rows = run(folder, tmp_path, "--steps", "6", "--seed", "3")
    assert [row["step"] for row in rows if "kl" in row] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["best_step"] == 6  # its score, 1.0, is the lowest: the course of the first process is known to the second
    with pytest.raises(SystemExit, match="trained with seed 3"):
        run(folder, tmp_path / "next", "--from-adapter", str(tmp_path / "last.safetensors"), "--seed", "3")


def shapes(folder: Path) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    return train.cached_weights(folder / "tiny.gguf", torch.float32)


def test_a_forced_rise_ends_a_run_with_the_best_it_had(folder, in_one_process, tmp_path, monkeypatch, capsys):
    judged = train.Judge.__call__
    seen: list[dict[str, float]] = []
    monkeypatch.setattr(train.Judge, "__call__", lambda self, model: seen.append(judged(self, model)) or seen[-1])
    monkeypatch.setattr("nosa_train.course.WINDOW", 3)
    monkeypatch.setattr(train, "schedule", lambda fraction: float(fraction > 0.12))
    rows = run(folder, tmp_path, "--steps", "30", "--lr", "3", "--seed", "3")  # from the fifth step on, a rate that ruins any model
    steps = [row["step"] for row in rows if "kl" in row]
    assert 6 <= len(steps) < 30 and "KL rose from" in capsys.readouterr().out
    best = min(range(len(seen)), key=lambda i: seen[i]["score"])
    assert rows[-1]["best_step"] == [row["step"] for row in rows if "held_out" in row][best]
    assert adapter.load(Decoder(*shapes(folder)), tmp_path / "adapter.safetensors")["steps"] == str(rows[-1]["best_step"])
    assert all({"text", "answer", "over", "score"} <= values.keys() and np.isfinite(list(values.values())).all() for values in seen)
    assert run(folder, tmp_path, "--steps", "30", "--lr", "3", "--seed", "3")[-1]["step"] == steps[-1]  # a restart does not go on


def test_an_adapter_says_in_which_order_it_was_asked(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(train, "prefetch", lambda sources: make_steps(sources[0]))  # holes as they are made today, in this process
    rows = run(folder, tmp_path, "--steps", "2", "--seed", "3", "--completion-order", "suffix-first")
    assert all(np.isfinite(row[name]) for row in rows if "kl" in row for name in ("kl", "text", "answer", "align"))
    assert adapter.load(Decoder(*shapes(folder)), tmp_path / "adapter.safetensors")["completion_order"] == "suffix-first"
