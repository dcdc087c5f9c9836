"""Trains a NOSA adapter: the dense model over one sequence teaches the sparse one over segments.

Each step reads one repository context twice. The teacher is the frozen base model, dense, in sequence layout. The student has
eviction heads and low-rank updates, reads the context in the product's layout, and its tails attend sparsely. Losses, on tails:
  KL      teacher || student at every tail token
  text    cross-entropy on files being written, as a language model is trained (small weight)
  answer  cross-entropy on the answers of look-ups and holes (small weight)
  align   relative squared error of every layer's attention output
  rank    listwise: the eviction scores' ranking of blocks against the attention that they get and how often queries fetch them
  find    listwise: the block scores that queries at answers pick by, over this repository's blocks and those of others, against
          the attention that all keys would get; the block that defines what the answer names counts many times
  moves   expected number of blocks that a query picks and that the query before it had not chosen
Time-boxed: the learning rate follows the share of --seconds that has passed, over restarts too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import random
import re
import time
from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from . import adapter
from .cases import ContextCase
from .gguf_weights import cached_weights, load_tokenizer
from .joint import Chosen, JointRow, Watch, learn, plan, teach
from .layouts import QWEN, SMOLLM, Encode, Layout, Marks, header_text
from .lookups import definitions, unique_definitions
from .model import Decoder
from .repos import SourceFile
from .samples import CHARACTERS_PER_TOKEN, aligned_context, ask_again, load_samples, split_case, tail_row
from .sparse import BLOCK, PAD, Budget

STEADY_QUERIES = 192
LOOK_QUERIES, LOOK_WRITING = 96, 64  # that answer, and that write a file
LOOKED_AT = 2  # every so many layers have losses of their selection, in turn: these are many small kernels
READ = (0, 16_000, 27_000, 30_000)  # tokens that samples are filled up to, by the estimate that makes them


@dataclass(frozen=True)
class Step:
    """One sample as arrays, made in another process: the interpreter that launches kernels has no time for tokens."""

    repository: str
    student: tuple[np.ndarray, np.ndarray, np.ndarray]  # ids, positions, parts of context and tails
    student_context: int
    teacher: tuple[np.ndarray, np.ndarray, np.ndarray]
    teacher_context: int
    answers: list[tuple[int, int]]  # [first, end) of each tail's answer among the tails' tokens
    kinds: list[str]
    sources: list[int]  # the student's block that each tail's answer depends on; -1 where none is known

    def rows(self, device: str) -> tuple[JointRow, JointRow]:
        def row(arrays: tuple[np.ndarray, ...], context: int) -> JointRow:
            return JointRow(*(torch.from_numpy(a).to(device, non_blocking=True) for a in arrays), context)

        return row(self.student, self.student_context), row(self.teacher, self.teacher_context)

    def look(self, rng: random.Random) -> list[int]:
        """Queries whose picks are looked at: some of files being written, some that answer questions and fill holes."""
        writing: list[int] = []
        answering: list[int] = []
        for (first, end), kind in zip(self.answers, self.kinds, strict=True):
            (writing if kind == "continue" else answering).extend(range(first - 1, end - 1))
        return sorted(rng.sample(writing, min(LOOK_WRITING, len(writing))) + rng.sample(answering, min(LOOK_QUERIES, len(answering))))

    def writing(self, look: list[int]) -> list[bool]:
        spans = [span for span, kind in zip(self.answers, self.kinds, strict=True) if kind == "continue"]
        return [any(first - 1 <= query < end - 1 for first, end in spans) for query in look]

    def defining(self, look: list[int]) -> np.ndarray:
        """[queries, blocks of the student's context]: the block that each query's answer depends on."""
        marked = np.zeros((len(look), self.student_context // BLOCK), dtype=np.float32)
        for (first, end), block in zip(self.answers, self.sources, strict=True):
            marked[[i for i, query in enumerate(look) if first - 1 <= query < end - 1], block] = float(block >= 0)
        return marked

    def steady(self, rng: random.Random) -> slice:
        """Neighbouring queries of the first file being written, for which steady picks are asked for."""
        first, end = self.answers[0]
        if self.kinds[0] != "continue" or end - first < 64:
            return slice(first, first + 2)
        start = rng.randrange(first, max(first + 1, end - STEADY_QUERIES))
        return slice(start, min(end, start + STEADY_QUERIES))


@dataclass(frozen=True)
class Weights:
    text: float = 0.6
    answer: float = 0.5
    align: float = 0.2
    rank: float = 0.1
    moves: float = 0.01
    find: float = 0.03  # at 0.06 and more the student drifts from its teacher: training/LEDGER.md, adapter 5


class Others:
    """Compressed keys of the repositories read last, so that a block is looked for among as many as a large repository has."""

    def __init__(self, contexts: int = 6):
        self.kept: deque[tuple[str, list[Tensor], Tensor]] = deque(maxlen=contexts)

    def add(self, repository: str, chosen: Sequence[Chosen], ok: Tensor) -> None:
        self.kept.append((repository, [c.windows.to(torch.bfloat16) for c in chosen], F.pad(ok, (0, 1))))

    def beside(self, repository: str) -> tuple[list[Tensor], Tensor]:
        """By layer [4 * blocks, G, D], and which of them are complete."""
        others = [each for each in self.kept if each[0] != repository]
        if not others:
            return [], torch.zeros(0)
        layers = [torch.cat([keys[i] for _, keys, _ in others]).float() for i in range(len(others[0][1]))]
        return layers, torch.cat([ok for _, _, ok in others])


def _definition_texts(case: ContextCase) -> dict[str, str]:
    """The first lines of everything that the case defines once, by name."""
    lines = {file.path: file.text.split("\n") for file in case.files}
    return {d.name: "\n".join(lines[d.path][d.line : d.line + 6]) + "\n" for d in unique_definitions(case.files)}


def _block_of(ids: np.ndarray, text: str, encode: Encode) -> int:
    """The block of the row in which a text stands; -1 when it does not stand there, or more than once."""
    wanted = encode(text)[2:14]  # the first tokens depend on what stands before
    found = np.flatnonzero(ids == wanted[0]) if len(wanted) > 4 else []
    matches = [int(at) for at in found if ids[at : at + len(wanted)].tolist() == wanted]
    return matches[0] // BLOCK if len(matches) == 1 else -1


def build_step(case: ContextCase, layout: Layout, encode: Encode, marks: Marks, live_tokens: int) -> Step:
    documents, tails = split_case(case, encode, marks, layout.header, live_tokens)
    tails = [t for t in tails if len(t.prompt) + len(t.answer) <= Budget().window * BLOCK]  # own blocks are then never chosen among
    header = encode(header_text(layout.header, case.repository, marks))
    row = tail_row(tails)

    def joined(of: Layout) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], int]:
        context, start = aligned_context(of, header, documents)
        positions = context.positions + [start + p for p in row.row.positions]
        arrays = (context.ids + row.row.ids, positions, context.parts + row.row.parts)
        ids, places, parts = (np.array(a, dtype=np.int64) for a in arrays)
        return (ids, places, parts), len(context.ids)

    student, context = joined(layout)
    texts = _definition_texts(case)
    named = [next((texts[word] for word in re.findall(r"\w{5,}", tail.about) if word in texts and tail.kind != "continue"), "") for tail in tails]
    sources = [_block_of(student[0][:context], text, encode) if text else -1 for text in named]
    return Step(case.repository, student, context, *joined(Layout("sequence", layout.header)), row.answers, row.kinds, sources)


def text_losses(hidden: Tensor, head: Tensor, taught: Tensor, rows: Tensor, wanted: Tensor, written: Tensor, asked: Tensor,
                weights: Weights, chunk: int = 2048) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Mean KL over `rows`, plus cross-entropy on what was written and what was asked, without ever holding all logits.

    written and asked [rows] are each loss's share of a token, summing to 1 or 0. The gradient reaches `hidden` in one piece.
    """
    leaf = hidden.detach()
    gradient = torch.zeros_like(leaf)
    sums = torch.zeros(3, device=leaf.device)
    for part, target, of_text, of_answer in zip(rows.split(chunk), wanted.split(chunk), written.split(chunk), asked.split(chunk), strict=True):
        with torch.no_grad():
            goal = F.linear(taught[part], head).float().log_softmax(-1)
            ours = F.linear(leaf[part], head).float().log_softmax(-1)
            right = ours.gather(-1, target[:, None])[:, 0]
            likely = goal.exp()
            kl = (likely * (goal - ours)).sum() / len(rows)
            sums += torch.stack((kl, -(right * of_text).sum(), -(right * of_answer).sum()))
            share = weights.text * of_text + weights.answer * of_answer
            slope = ours.exp() * (1 / len(rows) + share[:, None]) - likely / len(rows)
            slope.scatter_add_(-1, target[:, None], -share[:, None])
            gradient[part] = (slope.to(head.dtype) @ head).to(gradient.dtype)
    value = sums[0] + weights.text * sums[1] + weights.answer * sums[2]
    surrogate = (hidden.float() * gradient.float()).sum()
    return surrogate - surrogate.detach() + value, {"kl": sums[0], "text": sums[1], "answer": sums[2]}


def step_loss(model: Decoder, sharpness: Tensor, step: Step, budget: Budget, weights: Weights, rng: random.Random,
              others: Others, device: str, looked_at: Collection[int] | None = None, is_dense: bool = False) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """`looked_at`: layers whose selection has losses in this step; all without it. `is_dense`: tails attend to everything."""
    student, teacher = step.rows(device)
    taught = teach(model, plan(teacher))
    steady, look = step.steady(rng), step.look(rng)
    marked = torch.from_numpy(step.defining(look)).to(device), torch.tensor(step.writing(look), dtype=torch.bool, device=device)
    watch = Watch(steady, torch.tensor(look, device=device), *others.beside(step.repository), *marked, looked_at, is_dense)
    planned = plan(student)
    ours = learn(model, planned, budget, sharpness, watch)

    tails = student.tails
    written, asked = np.zeros(len(tails), dtype=np.float32), np.zeros(len(tails), dtype=np.float32)
    for (first, end), kind in zip(step.answers, step.kinds, strict=True):
        (written if kind == "continue" else asked)[max(0, first - 1) : end - 1] = 1.0
    written, asked = (torch.from_numpy(a / max(1.0, a.sum())).to(device, non_blocking=True) for a in (written, asked))
    rows = torch.from_numpy(np.flatnonzero(step.student[2][step.student_context :] != PAD)).to(device, non_blocking=True)
    wanted = student.ids[student.context :].roll(-1)
    loss, parts = text_losses(ours.hidden, model.head, taught.hidden, rows, wanted[rows], written[rows], asked[rows], weights)

    align = torch.stack([
        (a[rows].float() - b[rows].float()).square().mean() / b[rows].float().square().mean() for a, b in zip(ours.outputs, taught.outputs, strict=True)
    ]).mean()  # fmt: skip
    loss, parts["align"] = loss + weights.align * align, align.detach()
    chosen = {name: torch.stack([c.losses[name] for c in ours.chosen if c.losses]).mean() for name in ("rank", "moves", "find", "caught")}
    loss = loss + weights.rank * chosen["rank"] + weights.moves * chosen["moves"] + weights.find * chosen["find"]
    parts |= {name: value.detach() for name, value in chosen.items()} | {"misses": torch.stack([c.misses for c in ours.chosen]).mean()}
    others.add(step.repository, ours.chosen, planned.window_ok[: 4 * (student.context // BLOCK) - 1])
    return loss, parts


def schedule(progress: float) -> float:
    """Learning-rate factor: a short rise, then a cosine down to a twentieth."""
    return min(1.0, progress / 0.03) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def draw_budget(rng: random.Random, picks: Sequence[int]) -> Budget:
    """Mostly the product's own number of blocks; others keep the model usable at them. One of `picks` of 64 is the query's share."""
    total = rng.choice([64, 64, 64, 64, 48, 96])
    return Budget(total, round(rng.choice(picks) * total / 64))


def draw_layout(product: Layout, rng: random.Random) -> Layout:
    return product if rng.random() < 0.85 else Layout("sequence", product.header)


@dataclass(frozen=True)
class Source:
    """What a process needs to make steps; each takes every `stride`-th sample from `first` on."""

    samples: Path
    model: Path
    product: Layout
    live_tokens: int
    seed: int
    world: int
    first: int
    stride: int
    least: int = 0  # tokens of a context, as its sample estimates them
    fill: tuple[int, ...] = READ


def in_order(cases: list[ContextCase], world: int, seed: int) -> list[ContextCase]:
    """Mixed, but neighbours that several GPUs take at the same time are of like size."""
    by_size = sorted(cases, key=lambda c: c.tokens)
    teams = [by_size[i : i + world] for i in range(0, len(by_size) - world + 1, world)]
    random.Random(seed).shuffle(teams)
    return [case for team in teams for case in team]


def widened(case: ContextCase, package: dict[str, SourceFile], tokens: int, rng: random.Random) -> ContextCase:
    """The case among more files of its package, up to about so many tokens: samples take their own files out of what is read."""
    live = {i.path for i in case.infills}
    asked = {word for q in case.lookups for word in re.findall(r"\w{5,}", q.question)} | {i.name for i in case.infills}
    files = {f.path: f for f in case.files}
    total = sum(len(f.text) for f in case.files if f.path not in live) / CHARACTERS_PER_TOKEN
    others = sorted(package.keys() - files.keys())
    start = rng.randrange(len(others)) if others else 0
    for path in others[start:] + others[:start]:
        size = len(package[path].text) / CHARACTERS_PER_TOKEN
        if total + size <= tokens and not any(d.name in asked for d in definitions(package[path])):
            files[path] = package[path]
            total += size
    return replace(case, files=tuple(files[path] for path in sorted(files)))


def make_steps(source: Source) -> Iterator[Step]:
    tokenizer = load_tokenizer(source.model)
    marks = QWEN if tokenizer.token_to_id(QWEN.repo) is not None else SMOLLM

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    cases = in_order([c for c in load_samples(source.samples) if c.tokens >= source.least], source.world, source.seed)
    packages: dict[str, dict[str, SourceFile]] = defaultdict(dict)
    for case in cases:
        packages[case.repository].update((f.path, f) for f in case.files)
    for number in itertools.count(source.first, source.stride):
        case = cases[number % len(cases)]
        choices = random.Random(f"{source.seed} {number // source.world}")  # the same for all that take part in a step: its rows are then of like size
        layout, tokens = draw_layout(source.product, choices), choices.choice(source.fill)
        case = ask_again(case, source.seed * len(cases) + number) or case  # other files are written and other things asked each time
        case = widened(case, packages[case.repository], tokens, choices)
        yield build_step(case, layout, encode, marks, source.live_tokens)


def _produce(source: Source, ready: multiprocessing.Queue) -> None:
    torch.set_num_threads(1)
    try:
        for step in make_steps(source):
            ready.put(step)
    except Exception as error:  # handed to the consumer, who raises it
        ready.put(error)


def prefetch(sources: Sequence[Source], depth: int = 4) -> Iterator[Step]:
    """Steps of all sources in turn, each made by a process of its own."""
    context = multiprocessing.get_context("spawn")
    queues = [context.Queue(depth) for _ in sources]
    for source, ready in zip(sources, queues, strict=True):
        context.Process(target=_produce, args=(source, ready), daemon=True).start()
    for ready in itertools.cycle(queues):
        item = ready.get(timeout=300)
        if isinstance(item, Exception):
            raise item
        yield item


@dataclass
class Progress:
    step: int = 0
    seconds: float = 0.0


def _mean_of_all(values: Tensor) -> Tensor:
    """The mean over all processes that train together."""
    if not dist.is_initialized():
        return values
    dist.all_reduce(values)
    return values / dist.get_world_size()


class Trainer:
    def __init__(self, model: Decoder, rank: int, alpha: float, lr: float, eviction_lr: float, state: Path, start: Path | None):
        self.model, self.rank, self.alpha, self.state = model, rank, alpha, state
        self.seeds: list[str] = []  # of the runs behind: the same one again would bring the same samples with the same questions
        if start is not None:
            metadata = adapter.load(model, start)
            self.seeds = [seed for seed in metadata.get("seeds", "").split(",") if seed]
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

    def update(self, fraction: float, parts: dict[str, Tensor]) -> dict[str, float]:
        """One step of the optimizer; returns the losses and the gradient's norm, the only values that are waited for."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if dist.is_initialized():
            flat = _mean_of_all(torch.cat([p.grad.flatten() for p in self.parameters]))
            for parameter, piece in zip(self.parameters, flat.split([p.numel() for p in self.parameters]), strict=True):
                parameter.grad.copy_(piece.view_as(parameter))
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * schedule(fraction)
        shown = torch.stack([*parts.values(), norm])
        values = dict(zip([*parts, "norm"], _mean_of_all(shown).tolist(), strict=True))
        if math.isfinite(values["norm"]):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True, help="checkpoint that a restart goes on from")
    parser.add_argument("--out", type=Path, required=True, help="folder for the adapter and the loss log")
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
    parser.add_argument("--fill", type=int, nargs="+", default=READ, metavar="TOKENS", help="contexts are filled up to one of these sizes with files of their package")
    parser.add_argument("--makers", type=int, default=3, help="processes that make steps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10**9)
    args = parser.parse_args()
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
    sources = [Source(args.samples, args.model, product, args.live_tokens, args.seed + done, world, (done + i) * world + rank, args.makers * world, args.least, tuple(args.fill)) for i in range(args.makers)]
    steps = prefetch(sources)
    config, tensors = cached_weights(args.model, torch.bfloat16 if device != "cpu" else torch.float32)
    torch.manual_seed(args.seed)
    model = Decoder(config, {name: t.to(device) for name, t in tensors.items()})
    trainer = Trainer(model, args.rank, args.alpha, args.lr, args.eviction_lr, args.state, args.from_adapter)
    if str(args.seed) in trainer.seeds:
        raise SystemExit(f"{args.from_adapter} was trained with seed {args.seed}: take another, or it learns the same samples by heart")
    base_sha = adapter.file_sha256(args.model)
    rng = random.Random(args.seed * 1000 + done)  # the same on every process: all draw the same policy
    args.out.mkdir(parents=True, exist_ok=True)
    log = (args.out / "losses.jsonl").open("a") if rank == 0 else None
    notes = {"header": product.header, "segment_positions": str(args.size), "segment_group": str(args.group),
             "query_picks": ",".join(map(str, args.picks)), "seeds": ",".join([*trainer.seeds, str(args.seed)])}  # fmt: skip

    def publish() -> None:
        if rank == 0:
            trainer.save()
            adapter.export(model, args.out / "adapter.safetensors", base_sha, args.rank, args.alpha, {"steps": str(trainer.progress.step), **notes})

    published = time.monotonic()
    print(f"from step {trainer.progress.step} ({trainer.progress.seconds:.0f} s); {world} process(es); {published - begun:.0f} s to get ready", flush=True)
    own_rng, others = random.Random(rank), Others()
    if args.until is not None:
        args.seconds = trainer.progress.seconds + args.until - time.time()
    while (fraction := _fraction(trainer.progress, args, begun, device)) < 1:
        mark = time.monotonic()
        step = next(steps)
        waited = time.monotonic() - mark
        budget = draw_budget(rng, args.picks)
        try:
            looked_at = range(trainer.progress.step % LOOKED_AT, config.layers, LOOKED_AT)
            loss, parts = step_loss(model, trainer.sharpness, step, budget, weights, own_rng, others, device, looked_at, fraction < warm_up)
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
        trainer.progress.step += 1
        trainer.progress.seconds += now - mark
        if log is not None:
            tails = int((step.student[2][step.student_context :] != PAD).sum())
            row = {"step": trainer.progress.step, "seconds": round(trainer.progress.seconds, 2), "total": budget.total, "picks": budget.query,
                   "context": int((step.student[2][: step.student_context] != PAD).sum()), "tails": tails, "ms": round(1000 * (now - mark)),
                   "waited": round(1000 * waited), **{k: round(v, 4) for k, v in values.items()}}  # fmt: skip
            log.write(json.dumps(row) + "\n")
            log.flush()
            if trainer.progress.step % 20 == 1 or trainer.progress.step < 6:
                print(json.dumps(row), flush=True)
        if now - published > 40:
            publish()
            published = time.monotonic()
    publish()
    if device != "cpu":
        print(f"stopped at step {trainer.progress.step}; peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)


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
