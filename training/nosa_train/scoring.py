"""Teacher-forced scores of answers, and what is said about them: means, exact matches, paired bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .model import Decoder


@dataclass(frozen=True)
class Score:
    nll: float  # nats, summed over the answer's tokens
    tokens: int
    exact: bool  # the text that greedy decoding gives from the prompt begins with this answer


def score_answers(model: Decoder, hidden: Tensor, ids: Tensor, spans: Sequence[tuple[int, int]], piece: Callable[[int], str]) -> list[Score]:
    """hidden and ids belong to one packed row; each span [start, end) of it is an answer; `piece` spells a token.

    The last token need only begin with the answer's: a model may well close a bracket and end the line in one token.
    """
    at = torch.cat([torch.arange(start - 1, end - 1) for start, end in spans]).to(hidden.device)
    logits = model.logits(hidden[at]).float()
    wanted = ids[at + 1]
    nll = torch.nn.functional.cross_entropy(logits, wanted, reduction="none").cpu()
    best, wanted = logits.argmax(-1).tolist(), wanted.tolist()
    scores, offset = [], 0
    for start, end in spans:
        last = offset + end - start - 1
        exact = best[offset:last] == wanted[offset:last] and piece(best[last]).startswith(piece(wanted[last]))
        scores.append(Score(float(nll[offset : last + 1].sum()), end - start, exact))
        offset = last + 1
    return scores


def summarise(scores: Sequence[Score]) -> dict[str, float]:
    """Mean nats per token (each case counts the same) and the share of exact answers in percent."""
    per_token = [s.nll / s.tokens for s in scores]
    return {"nll": float(np.mean(per_token)), "exact": 100 * float(np.mean([s.exact for s in scores])), "cases": len(scores)}


def paired_interval(ours: Sequence[float], theirs: Sequence[float], seed: int = 0, rounds: int = 4000) -> tuple[float, float, float]:
    """Mean difference ours - theirs over the same cases, with its 95 % bootstrap interval."""
    difference = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    rng = np.random.default_rng(seed)
    means = difference[rng.integers(0, len(difference), (rounds, len(difference)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(difference.mean()), float(low), float(high)
