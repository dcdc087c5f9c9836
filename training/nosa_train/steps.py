"""What one training step reads, as arrays: a context in the student's layout and in the teacher's, tails, and where to look.

Samples are read again and again with other files being written and other questions. Steps are made by processes of their own.
"""

from __future__ import annotations

import itertools
import multiprocessing
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from .cases import ContextCase
from .facts import asked_facts, with_facts
from .gguf_weights import load_tokenizer
from .joint import JointRow
from .layouts import QWEN, SMOLLM, Encode, Layout, Marks, header_text
from .lookups import definitions, unique_definitions
from .repos import SourceFile
from .samples import CHARACTERS_PER_TOKEN, aligned_context, ask_again, load_samples, split_case, tail_row
from .sparse import BLOCK, Budget

STEADY_QUERIES = 192
FACTS_MOST = 3  # questions about facts in a step, beside some ten others
LOOK_QUERIES, LOOK_WRITING = 96, 64  # that answer, and that write a file
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


def asked_otherwise(case: ContextCase, seed: int) -> ContextCase:
    """The files of a sample with holes and questions as they are made today."""
    return ask_again(case, seed) or case


def build_step(case: ContextCase, layout: Layout, encode: Encode, marks: Marks, live_tokens: int, order: str = "prefix-first") -> Step:
    documents, tails = split_case(case, encode, marks, layout.header, live_tokens, order)
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
    named = [tail.source or next((texts[word] for word in re.findall(r"\w{5,}", tail.about) if word in texts and tail.kind != "continue"), "") for tail in tails]
    sources = [_block_of(student[0][:context], text, encode) if text else -1 for text in named]
    return Step(case.repository, student, context, *joined(Layout("sequence", layout.header)), row.answers, row.kinds, sources)


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
    most: int = 1 << 30  # tokens of a step, tails among them
    order: str = "prefix-first"  # of a completion's prompt
    facts: Path | None = None  # facts with question and answer, as `ask_teacher` writes them


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


def tokens_of(step: Step) -> int:
    return max(len(step.student[0]), len(step.teacher[0]))


def make_steps(source: Source) -> Iterator[Step]:
    tokenizer = load_tokenizer(source.model)
    marks = QWEN if tokenizer.token_to_id(QWEN.repo) is not None else SMOLLM

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    cases = in_order([c for c in load_samples(source.samples) if c.tokens >= source.least], source.world, source.seed)
    packages: dict[str, dict[str, SourceFile]] = defaultdict(dict)
    for case in cases:
        packages[case.repository].update((f.path, f) for f in case.files)
    facts = asked_facts(source.facts)
    for number in itertools.count(source.first, source.stride):
        case = cases[number % len(cases)]
        choices = random.Random(f"{source.seed} {number // source.world}")  # the same for all that take part in a step: its rows are then of like size
        layout, tokens = draw_layout(source.product, choices), choices.choice(source.fill)
        case = asked_otherwise(case, source.seed * len(cases) + number)  # other files are written and other things asked each time
        case = widened(case, packages[case.repository], tokens, choices)
        if facts:
            case = with_facts(case, facts, FACTS_MOST, random.Random(f"{source.seed} {number} facts"))
        step = build_step(case, layout, encode, marks, source.live_tokens, source.order)
        if tokens_of(step) <= source.most:
            yield step


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
