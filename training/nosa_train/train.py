"""Trains a NOSA adapter: the dense model over one sequence teaches the sparse one over segments.

Each step reads one repository context twice. The teacher is the frozen base model, dense, in sequence layout. The student has
eviction heads and low-rank updates, reads the context in the product's layout, and its tails attend sparsely. Losses, on tails:
  KL      teacher || student at every tail token
  text    cross-entropy on files being written, as a language model is trained (small weight)
  answer  cross-entropy on the answers of look-ups and holes (small weight). Of holes in an order that the teacher was not taught it is all there is;
          explanations have none, and several times the KL: their words are the teacher's business
  align   relative squared error of every layer's attention output
  rank    listwise: the eviction scores' ranking of blocks against the attention that they get and how often queries fetch them
  find    listwise: the block scores that queries at answers pick by, over this repository's blocks and those of others, against
          the attention that all keys would get; the block that defines what the answer names counts many times. Its gradient ends
          at each layer's own queries and keys
  moves   expected number of blocks that a query picks and that the query before it had not chosen
Time-boxed: the learning rate follows the share of --seconds that has passed, over restarts too. Held-out contexts are read now and
then; `adapter.safetensors` is the best so far, `last.safetensors` the latest. A run whose KL rises ends by itself.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
from gguf import GGUFReader
from torch import Tensor

from . import adapter, estimate
from .course import Course, Judge, mean_of_all
from .gguf_weights import ModelConfig, cached_weights, read_config
from .layouts import ORDERS, Layout
from .losses import Others, Weights, step_loss
from .model import Decoder
from .recipes import RECIPES
from .sparse import PAD, Budget
from .steps import READ, Source, prefetch

LOOKED_AT = 2  # every so many layers have losses of their selection, in turn: these are many small kernels


def schedule(progress: float) -> float:
    """Learning-rate factor: a short rise, then a cosine down to a twentieth."""
    return min(1.0, progress / 0.03) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def draw_budget(rng: random.Random, picks: Sequence[int]) -> Budget:
    """Mostly the product's own number of blocks; others keep the model usable at them. One of `picks` of 64 is the query's share."""
    total = rng.choice([64, 64, 64, 64, 48, 96])
    return Budget(total, round(rng.choice(picks) * total / 64))


@dataclass
class Progress:
    step: int = 0
    seconds: float = 0.0


class Trainer:
    def __init__(self, model: Decoder, rank: int, alpha: float, lr: float, eviction_lr: float, state: Path, start: Path | None):
        self.model, self.rank, self.alpha, self.state = model, rank, alpha, state
        self.seeds: list[str] = []  # of the runs behind: the same one again would bring the same samples with the same questions
        if start is not None:
            metadata = adapter.load(model, start)
            self.seeds = [seed for seed in metadata.get("seeds", "1").split(",") if seed]  # files without them are of runs with seed 1
            if (int(metadata["rank"]), float(metadata["alpha"])) != (rank, alpha):
                raise ValueError(f"{start} has rank {metadata['rank']} and alpha {metadata['alpha']}")
        else:
            adapter.attach(model, rank, alpha)
        eviction, updates = adapter.parameters_of(model)
        self.sharpness = torch.nn.Parameter(torch.ones((2, model.config.layers, model.config.kv_heads), device=model.embedding.device))
        self.parameters = [*eviction, *updates, self.sharpness]
        groups = [{"params": updates, "lr": lr}, {"params": eviction, "lr": eviction_lr}, {"params": [self.sharpness], "lr": 0.02}]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0, foreach=True)
        self.base_rates = [g["lr"] for g in self.optimizer.param_groups]
        self.progress, self.course = Progress(), Course()
        if state.exists():
            saved = torch.load(state, map_location=model.embedding.device, weights_only=True)
            for parameter, value in zip(self.parameters, saved["parameters"], strict=True):
                parameter.data.copy_(value)
            self.optimizer.load_state_dict(saved["optimizer"])
            self.progress, self.course = Progress(**saved["progress"]), Course(**saved["course"])

    def save(self) -> None:
        aside = self.state.with_suffix(".part")
        kept = {"optimizer": self.optimizer.state_dict(), "progress": self.progress.__dict__, "course": self.course.__dict__}
        torch.save({"parameters": [p.data for p in self.parameters], **kept}, aside)
        aside.rename(self.state)

    def update(self, fraction: float, parts: dict[str, Tensor]) -> dict[str, float]:
        """One step of the optimizer; returns the losses and the gradient's norm, the only values that are waited for."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if dist.is_initialized():
            flat = mean_of_all(torch.cat([p.grad.flatten() for p in self.parameters]))
            for parameter, piece in zip(self.parameters, flat.split([p.numel() for p in self.parameters]), strict=True):
                parameter.grad.copy_(piece.view_as(parameter))
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * schedule(fraction)
        shown = torch.stack([*parts.values(), norm])
        values = dict(zip([*parts, "norm"], mean_of_all(shown).tolist(), strict=True))
        if math.isfinite(values["norm"]):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return values


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=RECIPES, help="defaults for what follows (nosa_train/recipes.py)")
    parser.add_argument("--plan", action="store_true", help="only say what memory and time a step takes, by the shapes; needs no GPU")
    parser.add_argument("--model", type=Path, help="a Qwen2 or Llama GGUF; for --plan also a name of nosa_train/estimate.py")
    parser.add_argument("--samples", type=Path)
    parser.add_argument("--facts", type=Path, help="facts with question and answer (nosa_train.ask_teacher): of those in what a step reads, some are asked; of held-out packages the judge asks")
    parser.add_argument("--held-out", type=Path, help="samples of packages that nothing is trained on: the best adapter is the one that reads them best")
    parser.add_argument("--state", type=Path, help="checkpoint that a restart goes on from")
    parser.add_argument("--out", type=Path, help="folder for the best adapter, the last one and the loss log")
    parser.add_argument("--from-adapter", type=Path, help="an adapter of the same rank to begin from")
    parser.add_argument("--seconds", type=float, default=840, help="training time over all restarts")
    parser.add_argument("--this-run", type=float, default=1e9, help="stop this process so many seconds after its start, to be restarted")
    parser.add_argument("--until", type=float, help="end at this time (seconds since 1970), instead of after --seconds")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--eviction-lr", type=float, default=1e-3)
    parser.add_argument("--picks", type=int, nargs="+", default=[Budget().query], help="blocks of 64 that the query picks, the current one among them; one of these a step")
    parser.add_argument("--weights", nargs="*", default=[], metavar="NAME=VALUE", help="of losses, where they are to differ")
    parser.add_argument("--warm-up", type=float, help="share of the training in which tails attend to everything; 0.08 without --from-adapter, else 0")
    parser.add_argument("--size", type=int, default=8192, help="S")
    parser.add_argument("--group", type=int, default=2048, help="small neighbours of a folder share a segment up to so many tokens")
    parser.add_argument("--live-tokens", type=int, default=1024)
    parser.add_argument("--least", type=int, default=0, help="leave out contexts of fewer tokens")
    parser.add_argument("--most", type=int, default=65_536, help="leave out steps of more tokens, tails among them: they would not fit")
    parser.add_argument("--fill", type=int, nargs="+", default=READ, metavar="TOKENS", help="contexts are filled up to one of these sizes with files of their package")
    parser.add_argument("--completion-order", choices=ORDERS, default="prefix-first", help="how holes are asked for; the engine asks as the adapter's file says")
    parser.add_argument("--lean", action="store_true", help="compute what follows attention twice instead of keeping it")
    parser.add_argument("--makers", type=int, default=3, help="processes that make steps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--judge-every", type=int, default=50, help="steps between readings of the held-out contexts")
    parser.add_argument("--judge-contexts", type=int, default=8)
    parser.add_argument("--margin", type=float, default=0.05, help="a run ends by itself when its mean KL of 40 steps is so far above the first one's")
    recipe = parser.parse_known_args(given)[0].recipe
    parser.set_defaults(**RECIPES.get(recipe, {}))
    args = parser.parse_args(given)
    if missing := [name for name in ("model", "samples", "state", "out") if getattr(args, name) is None and not (args.plan and name != "model")]:
        parser.error(f"--{missing[0]} is needed")
    return args


def shape_of(model: Path) -> ModelConfig:
    return read_config(GGUFReader(model)) if model.exists() else estimate.SHAPES[str(model)]


def main(given: Sequence[str] | None = None) -> None:
    args = arguments(given)
    if args.plan:
        print(estimate.show(shape_of(args.model), args.rank, args.seconds, args.most, args.fill, args.lean))
        return
    begun = time.monotonic()
    torch.set_num_threads(2)
    weights = replace(Weights(), **{name: float(value) for name, value in (each.split("=") for each in args.weights)})
    warm_up = args.warm_up if args.warm_up is not None else 0.08 if args.from_adapter is None else 0.0

    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = f"cuda:{rank}" if torch.cuda.is_available() else "cpu"
    if device != "cpu":
        torch.cuda.set_device(rank)
    if world > 1:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew for every length
    torch.backends.cuda.matmul.allow_tf32 = True
    product = Layout("segments", "raw", args.size, args.group)
    done = Progress(**torch.load(args.state, weights_only=True)["progress"]).step if args.state.exists() else 0
    common = {"least": args.least, "fill": tuple(args.fill), "most": args.most, "order": args.completion_order, "facts": args.facts}
    sources = [Source(args.samples, args.model, product, args.live_tokens, args.seed + done, world, (done + i) * world + rank, args.makers * world, **common) for i in range(args.makers)]
    steps = prefetch(sources)
    config, tensors = cached_weights(args.model, torch.bfloat16 if device != "cpu" else torch.float32)
    torch.manual_seed(args.seed)
    model = Decoder(config, on_device(tensors, device))
    trainer = Trainer(model, args.rank, args.alpha, args.lr, args.eviction_lr, args.state, args.from_adapter)
    trainer.course.margin = args.margin
    if str(args.seed) in trainer.seeds:
        raise SystemExit(f"{args.from_adapter} was trained with seed {args.seed}: take another, or it learns the same samples by heart")
    judge = Judge(args.held_out, args.model, product, args.live_tokens, args.judge_contexts, world, rank, device, args.completion_order, args.facts) if args.held_out else None
    base_sha = adapter.file_sha256(args.model)
    rng = random.Random(args.seed * 1000 + done)  # the same on every process: all draw the same policy
    args.out.mkdir(parents=True, exist_ok=True)
    log = (args.out / "losses.jsonl").open("a") if rank == 0 else None
    notes = {"header": product.header, "segment_positions": str(args.size), "segment_group": str(args.group), "completion_order": args.completion_order,
             "query_picks": ",".join(map(str, args.picks)), "seeds": ",".join([*trainer.seeds, str(args.seed)])}  # fmt: skip
    progress, course = trainer.progress, trainer.course

    def say(row: dict[str, object], is_shown: bool) -> None:
        if log is not None:
            log.write(json.dumps(row) + "\n")
            log.flush()
            if is_shown:
                print(json.dumps(row), flush=True)

    def publish(score: float | None) -> None:
        """Keeps the checkpoint, the last adapter, and the best one, which has the lowest score."""
        names = ["last"] + (["adapter"] if score is not None and course.is_best(score, progress.step) else [])
        if rank == 0:
            trainer.save()
            for name in names:
                adapter.export(model, args.out / f"{name}.safetensors", base_sha, args.rank, args.alpha, {"steps": str(progress.step), **notes})

    def judged() -> None:
        mark = time.monotonic()
        verdict = judge(model)
        progress.seconds += time.monotonic() - mark
        publish(verdict["score"])
        shown = {name: round(value, 4) for name, value in verdict.items()}
        say({"step": progress.step, "seconds": round(progress.seconds, 2), "held_out": shown, "best_step": course.best_step}, True)

    if rank == 0:
        print(f"from step {progress.step} ({progress.seconds:.0f} s); {world} process(es); {time.monotonic() - begun:.0f} s to get ready", flush=True)
    own_rng, others = random.Random(rank), Others()
    if args.until is not None:
        args.seconds = progress.seconds + args.until - time.time()
    if judge is not None and progress.step == 0:
        judged()
    published, judged_at = time.monotonic(), progress.step
    while (fraction := _fraction(progress, args, begun, device)) < 1 and not course.rises():
        mark = time.monotonic()
        step = next(steps)
        waited = time.monotonic() - mark
        budget = draw_budget(rng, args.picks)
        is_dense = fraction < warm_up
        try:
            looked_at = range(progress.step % LOOKED_AT, config.layers, LOOKED_AT)
            loss, parts = step_loss(model, trainer.sharpness, step, budget, weights, own_rng, others, device, looked_at, is_dense, args.lean)
            loss.backward()
        except torch.OutOfMemoryError:
            if world > 1:
                raise  # the others wait for this one's gradients
            print(f"too large: {step.repository}, {len(step.student[0])} tokens", flush=True)
            trainer.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            continue
        values = trainer.update(fraction, parts)
        now = time.monotonic()
        progress.step += 1
        progress.seconds += now - mark
        if not is_dense:
            course.kl.append(values["kl"])
        tails = int((step.student[2][step.student_context :] != PAD).sum())
        say({"step": progress.step, "seconds": round(progress.seconds, 2), "total": budget.total, "picks": budget.query,
             "context": int((step.student[2][: step.student_context] != PAD).sum()), "tails": tails, "ms": round(1000 * (now - mark)),
             "waited": round(1000 * waited), **{k: round(v, 4) for k, v in values.items()}},
            progress.step % 20 == 1 or progress.step < 6)  # fmt: skip
        if judge is not None and progress.step % args.judge_every == 0:
            judged()
            published, judged_at = time.monotonic(), progress.step
        elif now - published > 40:
            publish(None if judge is not None else course.mean_at("last"))
            published = time.monotonic()
    if judge is not None and judged_at < progress.step:
        judged()
    else:
        publish(None if judge is not None else course.mean_at("last"))
    if rank == 0:
        why = f"KL rose from {course.mean_at('first'):.3f} to {course.mean_at('last'):.3f}" if course.rises() else "its time was over"
        peak = f"; peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device != "cpu" else ""
        print(f"stopped at step {progress.step}: {why}; best at step {course.best_step}{peak}", flush=True)


def on_device(tensors: dict[str, Tensor], device: str) -> dict[str, Tensor]:
    """One copy of each, of tied ones too."""
    moved = {t.data_ptr(): t.to(device) for t in tensors.values()}
    return {name: moved[t.data_ptr()] for name, t in tensors.items()}


def _fraction(progress: Progress, args: argparse.Namespace, begun: float, device: str) -> float:
    """How much of the training is behind, the same on all processes; 1 is the end."""
    fraction = max(progress.seconds / args.seconds, progress.step / args.steps)
    if time.monotonic() - begun >= args.this_run:
        fraction = 1.0
    if not dist.is_initialized():
        return fraction
    shared = torch.tensor(fraction, device=device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return float(shared)


if __name__ == "__main__":
    main()
