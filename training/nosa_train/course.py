"""Whether a run goes the right way: its KL against how it began, and what it says of repositories that nothing is trained on."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from .evaluate import locality
from .facts import asked_facts, with_facts
from .gguf_weights import load_tokenizer
from .joint import plan, read, teach
from .layouts import QWEN, SMOLLM, Layout
from .model import Decoder
from .samples import load_samples
from .scoring import score_answers
from .sparse import BLOCK, Budget
from .steps import FACTS_MOST, Step, asked_otherwise, build_step

WINDOW = 40  # steps whose mean is compared
CHANCE = 3  # standard errors: looked at after every step, a run of 300 that does not rise is ended once in thirty
# A tenth of a nat of answers is worth a hundredth of a nat, 1 % of perplexity, of files being written: between two checkpoints whose text is equal
# within chance, the one that answers better is kept.
ANSWERS = 0.1
PICKS = 32  # as many as the product lets the query pick


def mean_of_all(values: Tensor) -> Tensor:
    """The mean over all processes that train together."""
    if not dist.is_initialized():
        return values
    dist.all_reduce(values)
    return values / dist.get_world_size()


@dataclass
class Course:
    """What a run has shown so far; kept with its checkpoint."""

    margin: float = 0.05
    kl: list[float] = field(default_factory=list)  # of every step with sparse tails
    best: float | None = None  # lowest score so far
    best_step: int = 0

    def rises(self) -> bool:
        """The last steps' mean KL is above the first ones' by more than the margin and by more than chance makes of so few."""
        if len(self.kl) < 2 * WINDOW:
            return False
        first, last = np.array(self.kl[:WINDOW]), np.array(self.kl[-WINDOW:])
        if not np.isfinite(last).all():
            return True
        chance = CHANCE * math.sqrt((first.var(ddof=1) + last.var(ddof=1)) / WINDOW)
        return bool(last.mean() - first.mean() > max(self.margin * first.mean(), chance))

    def mean_at(self, which: str) -> float:
        """Of the first or the last steps; the last is the score of a run that reads no held-out contexts."""
        return float(np.mean(self.kl[:WINDOW] if which == "first" else self.kl[-WINDOW:])) if self.kl else math.inf

    def is_best(self, score: float, step: int) -> bool:
        if self.best is not None and not score < self.best:
            return False
        self.best, self.best_step = score, step
        return True


class Judge:
    """Reads the same held-out contexts each time, as the product does, with the same tails; processes share them out."""

    def __init__(self, samples: Path, model: Path, product: Layout, live_tokens: int, contexts: int, world: int, rank: int, device: str,
                 order: str = "prefix-first", facts: Path | None = None):  # fmt: skip
        tokenizer = load_tokenizer(model)
        marks = QWEN if tokenizer.token_to_id(QWEN.repo) is not None else SMOLLM
        known = asked_facts(facts)
        cases = [with_facts(asked_otherwise(c, 0), known, FACTS_MOST, random.Random(0)) for c in load_samples(samples, contexts)[rank::world]]
        self.steps = [build_step(c, product, lambda text: tokenizer.encode(text, add_special_tokens=False).ids, marks, live_tokens, order) for c in cases]
        self.device = device
        self.dense: float | None = None

    def __call__(self, model: Decoder) -> dict[str, float]:
        """Nats of files being written and of answers, misses with 64 and 128 slots, and `over`: percent of perplexity above the dense base model."""
        if self.dense is None:
            self.dense = self._mean([self._nats(model, step, None) for step in self.steps])["text"]
        values = self._mean([self._nats(model, step, Budget(query=PICKS)) for step in self.steps])
        return values | {"over": 100 * math.expm1(values["text"] - self.dense), "score": values["text"] + ANSWERS * values["answer"]}

    @torch.no_grad()
    def _nats(self, model: Decoder, step: Step, budget: Budget | None) -> dict[str, tuple[float, float]]:
        """Sums and what to divide them by; without a budget, of the dense base model in one sequence."""
        student, teacher = step.rows(self.device)
        row, chosen = (teacher, None) if budget is None else (student, [])
        if budget is None:
            hidden = teach(model, plan(teacher)).hidden
        else:
            hidden, chosen = read(model, plan(student), "nosa", budget, True)
        scores = list(zip(step.kinds, score_answers(model, hidden, row.ids[row.context :], step.answers, lambda token: ""), strict=True))
        text, answers = ([s for kind, s in scores if (kind == "continue") == is_text] for is_text in (True, False))
        sums = {"text": (sum(s.nll for s in text), float(sum(s.tokens for s in text))), "answer": (sum(s.nll / s.tokens for s in answers), float(len(answers)))}
        first, end = step.answers[0]
        if chosen and step.kinds[0] == "continue" and end - first > 1:
            moved = locality(chosen, student.context // BLOCK, first, end)
            sums |= {key: (float(np.mean(moved[key])), 1.0) for key in ("misses_64", "misses_128")}
        return sums

    def _mean(self, each: Sequence[dict[str, tuple[float, float]]]) -> dict[str, float]:
        names = ("text", "answer", "misses_64", "misses_128")
        sums = torch.tensor([[sum(of.get(name, (0.0, 0.0))[i] for of in each) for i in (0, 1)] for name in names], dtype=torch.float32, device=self.device)
        totals = mean_of_all(sums).tolist()
        return {name: total / number for name, (total, number) in zip(names, totals, strict=True) if number}
