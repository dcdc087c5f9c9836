"""The losses of one training step: what the student says against what its teacher says, and how it selects."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .joint import Chosen, Watch, learn, plan, teach
from .model import Decoder
from .samples import SUFFIX_FIRST
from .sparse import BLOCK, PAD, Budget
from .steps import Step


@dataclass(frozen=True)
class Weights:
    text: float = 0.6
    answer: float = 0.5
    align: float = 0.2
    rank: float = 0.1
    moves: float = 0.01
    find: float = 0.03  # at 0.06 and more the student drifts from its teacher: training/LEDGER.md, adapter 5


EXPLAINED = 6.0  # times the KL of another token


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


def text_losses(hidden: Tensor, head: Tensor, taught: Tensor, rows: Tensor, wanted: Tensor, written: Tensor, asked: Tensor,
                heed: Tensor, weights: Weights, chunk: int = 2048) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """KL at `rows`, plus cross-entropy on what was written and what was asked, without ever holding all logits.

    heed, written and asked [rows] are each loss's share of a token, summing to 1 or 0. The gradient reaches `hidden` in one piece.
    """
    leaf = hidden.detach()
    gradient = torch.zeros_like(leaf)
    sums = torch.zeros(3, device=leaf.device)
    shares = (written.split(chunk), asked.split(chunk), heed.split(chunk))
    for part, target, of_text, of_answer, of_kl in zip(rows.split(chunk), wanted.split(chunk), *shares, strict=True):
        with torch.no_grad():
            goal = F.linear(taught[part], head).float().log_softmax(-1)
            ours = F.linear(leaf[part], head).float().log_softmax(-1)
            right = ours.gather(-1, target[:, None])[:, 0]
            likely = goal.exp()
            kl = ((likely * (goal - ours)).sum(-1) * of_kl).sum()
            sums += torch.stack((kl, -(right * of_text).sum(), -(right * of_answer).sum()))
            share = weights.text * of_text + weights.answer * of_answer
            slope = ours.exp() * (of_kl + share)[:, None] - likely * of_kl[:, None]
            slope.scatter_add_(-1, target[:, None], -share[:, None])
            gradient[part] = (slope.to(head.dtype) @ head).to(gradient.dtype)
    value = sums[0] + weights.text * sums[1] + weights.answer * sums[2]
    surrogate = (hidden.float() * gradient.float()).sum()
    return surrogate - surrogate.detach() + value, {"kl": sums[0], "text": sums[1], "answer": sums[2]}


def step_loss(model: Decoder, sharpness: Tensor, step: Step, budget: Budget, weights: Weights, rng: random.Random,
              others: Others, device: str, looked_at: Collection[int] | None = None, is_dense: bool = False, is_lean: bool = False) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """`looked_at`: layers whose selection has losses in this step; all without it. `is_dense`: tails attend to everything. `is_lean`: as in `learn`."""
    student, teacher = step.rows(device)
    taught = teach(model, plan(teacher))
    steady, look = step.steady(rng), step.look(rng)
    marked = torch.from_numpy(step.defining(look)).to(device), torch.tensor(step.writing(look), dtype=torch.bool, device=device)
    watch = Watch(steady, torch.tensor(look, device=device), *others.beside(step.repository), *marked, looked_at, is_dense)
    planned = plan(student)
    ours = learn(model, planned, budget, sharpness, watch, is_lean)

    tails = student.tails
    written, asked, heed = (np.zeros(len(tails), dtype=np.float32) for _ in range(3))
    heed[step.student[2][step.student_context :] != PAD] = 1.0
    for (first, end), kind in zip(step.answers, step.kinds, strict=True):
        span = slice(max(0, first - 1), end - 1)
        if kind == "explains":
            heed[span] = EXPLAINED
            continue
        (written if kind == "continue" else asked)[span] = 1.0
        if kind == SUFFIX_FIRST:
            heed[span] = 0.0
    written, asked, heed = (torch.from_numpy(a / max(1.0, a.sum())).to(device, non_blocking=True) for a in (written, asked, heed))
    rows = torch.from_numpy(np.flatnonzero(step.student[2][step.student_context :] != PAD)).to(device, non_blocking=True)
    wanted = student.ids[student.context :].roll(-1)
    loss, parts = text_losses(ours.hidden, model.head, taught.hidden, rows, wanted[rows], written[rows], asked[rows], heed[rows], weights)

    align = torch.stack([
        (a[rows].float() - b[rows].float()).square().mean() / b[rows].float().square().mean() for a, b in zip(ours.outputs, taught.outputs, strict=True)
    ]).mean()  # fmt: skip
    loss, parts["align"] = loss + weights.align * align, align.detach()
    chosen = {name: torch.stack([c.losses[name] for c in ours.chosen if c.losses]).mean() for name in ("rank", "moves", "find", "caught")}
    loss = loss + weights.rank * chosen["rank"] + weights.moves * chosen["moves"] + weights.find * chosen["find"]
    parts |= {name: value.detach() for name, value in chosen.items()} | {"misses": torch.stack([c.misses for c in ours.chosen]).mean()}
    others.add(step.repository, ours.chosen, planned.window_ok[: 4 * (student.context // BLOCK) - 1])
    return loss, parts
