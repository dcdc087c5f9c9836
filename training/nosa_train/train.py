"""Trains a NOSA adapter: the dense model over one sequence teaches the sparse one over segments.

Each step reads one repository context twice. The teacher is the frozen base model, dense, in sequence layout. The student has
eviction heads and low-rank updates, reads the context in the product's layout, and its tails attend sparsely. Losses, on tails:
  KL      teacher || student at every tail token
  answer  cross-entropy on the answers of look-ups and holes (small weight)
  align   relative squared error of every layer's attention output
  rank    1 - correlation, over windows, of the eviction score with the log of the attention that the window really gets; the
          bias alone teaches which tokens to weigh more, this one teaches which to keep
Time-boxed: the learning rate follows the share of --seconds that has passed, over restarts too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import queue
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from . import adapter
from .cases import ContextCase
from .gguf_weights import cached_weights, load_tokenizer
from .layouts import QWEN, SMOLLM, Encode, Layout, Marks, header_text
from .model import Decoder
from .samples import TailRow, aligned_context, load_samples, split_case, tail_row
from .sparse import PAD, Budget, SparseContext, window_means


@dataclass(frozen=True)
class Step:
    repository: str
    student: tuple[Tensor, Tensor, Tensor]  # ids, positions, parts of the context
    teacher: tuple[Tensor, Tensor, Tensor]
    tails: TailRow
    tail_ids: Tensor
    tail_offsets: Tensor
    tail_parts: Tensor
    student_start: int
    teacher_start: int


@dataclass(frozen=True)
class Weights:
    answer: float = 0.2
    align: float = 0.2
    rank: float = 0.05


def build_step(case: ContextCase, layout: Layout, encode: Encode, marks: Marks, live_tokens: int, device: str) -> Step:
    documents, tails = split_case(case, encode, marks, layout.header, live_tokens)
    header = encode(header_text(layout.header, case.repository, marks))
    student, student_start = aligned_context(layout, header, documents)
    teacher, teacher_start = aligned_context(Layout("sequence", layout.header), header, documents)
    row = tail_row(tails)

    def tensors(r) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(torch.tensor(x, device=device) for x in (r.ids, r.positions, r.parts))

    ids, offsets, parts = tensors(row.row)
    return Step(case.repository, tensors(student), tensors(teacher), row, ids, offsets, parts, student_start, teacher_start)


def chunked_loss(hidden: Tensor, head: Tensor, teacher_hidden: Tensor, rows: Tensor, wanted: Tensor, is_answer: Tensor,
                 answer_weight: float, chunk: int = 1024) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
    """Mean KL over `rows` plus the weighted answer loss, without ever holding all logits; backward reaches `hidden` once."""
    leaf = hidden.detach().requires_grad_()
    total, kl_sum, ce_sum = 0.0, 0.0, 0.0
    answers = int(is_answer.sum())
    for part, target, asked in zip(rows.split(chunk), wanted.split(chunk), is_answer.split(chunk), strict=True):
        with torch.no_grad():
            goal = F.linear(teacher_hidden[part], head).float().log_softmax(-1)
        ours = F.linear(leaf[part], head).float().log_softmax(-1)
        kl = F.kl_div(ours, goal, reduction="sum", log_target=True) / len(rows)
        ce = -(ours.gather(-1, target[:, None])[:, 0] * asked).sum() / max(1, answers)
        loss = kl + answer_weight * ce
        loss.backward()
        total, kl_sum, ce_sum = total + float(loss.detach()), kl_sum + float(kl.detach()), ce_sum + float(ce.detach())
    assert leaf.grad is not None
    surrogate = (hidden * leaf.grad).sum()
    return surrogate - surrogate.detach() + total, {"kl": kl_sum, "answer": ce_sum}


def step_loss(model: Decoder, step: Step, policy: str, budget: Budget, weights: Weights, use_flex: bool) -> tuple[Tensor, dict[str, float]]:
    group = model.config.group
    real = step.tail_parts != PAD
    with torch.no_grad():
        adapter.set_enabled(model, False)
        taught = SparseContext(step.teacher[2], group, use_flex)
        model.hidden(step.teacher[0], step.teacher[1], taught.prefill())
        goal = model.hidden(step.tail_ids, step.tail_offsets + step.teacher_start, taught.tails(step.tail_parts))
        adapter.set_enabled(model, True)
    context = SparseContext(step.student[2], group, use_flex)
    model.hidden(step.student[0], step.student[1], context.prefill())
    hidden = model.hidden(step.tail_ids, step.tail_offsets + step.student_start, context.tails(step.tail_parts, policy, budget))

    is_answer = torch.zeros(len(step.tail_ids), dtype=torch.bool, device=hidden.device)
    for (first, end), kind in zip(step.tails.answers, step.tails.kinds, strict=True):
        if kind != "continue":
            is_answer[first - 1 : end - 1] = True
    rows = real.nonzero()[:, 0]
    wanted = step.tail_ids.roll(-1)
    loss, parts = chunked_loss(hidden, model.head, goal, rows, wanted[rows], is_answer[rows], weights.answer)

    align = torch.stack([
        (ours[real].float() - theirs[real].float()).square().mean() / theirs[real].float().square().mean()
        for ours, theirs in zip(context.outputs, taught.outputs, strict=True)
    ]).mean()  # fmt: skip
    loss = loss + weights.align * align
    parts["align"] = float(align.detach())
    if context.shares:
        rank = rank_loss(context)
        loss = loss + weights.rank * rank
        parts["rank"] = float(rank.detach())
    return loss, parts


def rank_loss(context: SparseContext) -> Tensor:
    """1 - correlation of eviction scores with log attention shares, over the context's windows; mean of layers and heads."""
    chunks = context.parts.view(-1, 16)
    whole = (chunks == chunks[:, :1]).all(1) & (chunks[:, 0] >= 0)
    ok = whole[:-1] & whole[1:] & (chunks[:-1, 0] == chunks[1:, 0])
    losses = []
    for scores, share in zip(context.scores, context.shares, strict=True):
        ours = window_means(scores)[ok].T
        goal = (share[:, : len(ok)][:, ok] + 1e-7).log()
        ours, goal = ours - ours.mean(1, keepdim=True), goal - goal.mean(1, keepdim=True)
        losses.append(1 - F.cosine_similarity(ours, goal, dim=1).mean())
    return torch.stack(losses).mean()


def schedule(progress: float) -> float:
    """Learning-rate factor: a short rise, then a cosine down to a twentieth."""
    return min(1.0, progress / 0.03) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def draw_policy(progress: float, rng: random.Random) -> tuple[str, Budget]:
    """Dense with bias while warming up; then sparse at several budgets, one step in five still dense."""
    if progress < 0.06 or rng.random() < 0.2:
        return "full", Budget()
    return "nosa", Budget(total=rng.choice([64, 64, 64, 48, 96, 40]))


def draw_layout(product: Layout, rng: random.Random) -> Layout:
    return product if rng.random() < 0.85 else Layout("sequence", product.header)


def prefetch(steps: Iterator[Step], depth: int = 4) -> Iterator[Step]:
    ready: queue.Queue[Step | BaseException] = queue.Queue(depth)

    def work() -> None:
        try:
            for step in steps:
                ready.put(step)
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, who raises it
            ready.put(error)

    threading.Thread(target=work, daemon=True).start()
    while True:
        item = ready.get()
        if isinstance(item, BaseException):
            raise item
        yield item


@dataclass
class Progress:
    step: int = 0
    seconds: float = 0.0


class Trainer:
    def __init__(self, model: Decoder, rank: int, alpha: float, lr: float, eviction_lr: float, state: Path):
        self.model, self.rank, self.alpha, self.state = model, rank, alpha, state
        eviction, updates = adapter.attach(model, rank, alpha)
        self.parameters = eviction + updates
        self.optimizer = torch.optim.AdamW([{"params": updates, "lr": lr}, {"params": eviction, "lr": eviction_lr}], betas=(0.9, 0.98), weight_decay=0.0)
        self.base_rates = [g["lr"] for g in self.optimizer.param_groups]
        self.progress = Progress()
        if state.exists():
            saved = torch.load(state, map_location=model.embedding.device, weights_only=True)
            for parameter, value in zip(self.parameters, saved["parameters"], strict=True):
                parameter.data.copy_(value)
            self.optimizer.load_state_dict(saved["optimizer"])
            self.progress = Progress(**saved["progress"])

    def save(self) -> None:
        aside = self.state.with_suffix(".part")
        torch.save({"parameters": [p.data for p in self.parameters], "optimizer": self.optimizer.state_dict(), "progress": self.progress.__dict__}, aside)
        aside.rename(self.state)

    def update(self, fraction: float) -> float:
        if dist.is_initialized():
            for parameter in self.parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad, dist.ReduceOp.AVG)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * schedule(fraction)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True, help="checkpoint that a restart goes on from")
    parser.add_argument("--out", type=Path, required=True, help="folder for the adapter and the loss log")
    parser.add_argument("--seconds", type=float, default=840, help="training time over all restarts")
    parser.add_argument("--this-run", type=float, default=1e9, help="stop this process after so many seconds, to be restarted")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--eviction-lr", type=float, default=2e-3)
    parser.add_argument("--size", type=int, default=8192, help="S")
    parser.add_argument("--group", type=int, default=2048, help="small neighbours of a folder share a segment up to so many tokens")
    parser.add_argument("--live-tokens", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10**9)
    args = parser.parse_args()

    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        dist.init_process_group("nccl")
        torch.cuda.set_device(rank)
    device = f"cuda:{rank}" if torch.cuda.is_available() else "cpu"
    use_flex = device != "cpu"
    config, tensors = cached_weights(args.model, torch.bfloat16 if use_flex else torch.float32)
    torch.manual_seed(args.seed)
    model = Decoder(config, {name: t.to(device) for name, t in tensors.items()})
    tokenizer = load_tokenizer(args.model)
    marks = QWEN if tokenizer.token_to_id(QWEN.repo) is not None else SMOLLM
    trainer = Trainer(model, args.rank, args.alpha, args.lr, args.eviction_lr, args.state)
    cases = load_samples(args.samples)
    product = Layout("segments", "raw", args.size, args.group)
    base_sha = adapter.file_sha256(args.model)
    # Every process takes its own share of the samples; a restart goes on after the last one that was read.
    order = itertools.islice(itertools.cycle(cases), trainer.progress.step * world + rank, None, world)
    rng = random.Random(args.seed * 1000 + rank + 17 * trainer.progress.step)
    choices = random.Random(rng.random())

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    steps = prefetch(build_step(case, draw_layout(product, choices), encode, marks, args.live_tokens, device) for case in order)
    args.out.mkdir(parents=True, exist_ok=True)
    log = (args.out / "losses.jsonl").open("a") if rank == 0 else None

    def publish() -> None:
        if rank == 0:
            trainer.save()
            adapter.export(model, args.out / "adapter.safetensors", base_sha, args.rank, args.alpha, {"steps": str(trainer.progress.step)})

    begun, published = time.monotonic(), time.monotonic()
    print(f"from step {trainer.progress.step} ({trainer.progress.seconds:.0f} s); {len(cases)} samples; {world} process(es)", flush=True)
    while trainer.progress.seconds < args.seconds and time.monotonic() - begun < args.this_run and trainer.progress.step < args.steps:
        mark = time.monotonic()
        step = next(steps)
        fraction = trainer.progress.seconds / args.seconds
        policy, budget = draw_policy(fraction, rng)
        loss, parts = step_loss(model, step, policy, budget, Weights(), use_flex)
        loss.backward()
        norm = trainer.update(fraction)
        now = time.monotonic()
        trainer.progress.step += 1
        trainer.progress.seconds += now - mark
        row = {"step": trainer.progress.step, "seconds": round(trainer.progress.seconds, 2), "policy": policy, "total": budget.total,
               "context": int((step.student[2] != PAD).sum()), "tails": int((step.tail_parts != PAD).sum()), "norm": round(norm, 3),
               "ms": round(1000 * (now - mark)), **{k: round(v, 4) for k, v in parts.items()}}  # fmt: skip
        if log is not None:
            log.write(json.dumps(row) + "\n")
            log.flush()
            if trainer.progress.step % 20 == 1:
                print(json.dumps(row), flush=True)
        if now - published > 90:
            publish()
            published = time.monotonic()
    publish()
    if use_flex:
        print(f"stopped at step {trainer.progress.step}; peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)


if __name__ == "__main__":
    main()
