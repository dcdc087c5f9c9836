"""What sparse reading costs and what the adapter wins back, on packages that training never saw.

Every policy answers the same requests over the same contexts: questions, holes in live files, and live files as they are
written (perplexity). Differences carry paired bootstrap intervals. Locality counts, on live files, how the selection moves
from one token to the next: only context blocks count, a tail's own blocks are produced where they are used.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import adapter
from .cases import ContextCase, load_cases
from .gguf_weights import cached_weights, load_tokenizer
from .layouts import QWEN, SMOLLM, Document, Encode, Layout, Marks, encode_document, header_text
from .model import Decoder
from .samples import Tail, aligned_context, continuation, infill_tail, load_samples, lookup_tail, split_case, tail_row
from .scoring import Score, paired_interval, score_answers
from .sparse import PAD, Budget, Scorer, SparseContext


@dataclass(frozen=True)
class Reading:
    """One row of the comparison."""

    name: str
    policy: str = "full"
    budget: Budget = Budget()
    training_free: bool = False


@dataclass(frozen=True)
class Setting:
    """Readings that share one prefilled context."""

    adapted: bool
    layout: Layout
    readings: tuple[Reading, ...]


def settings(product: Layout) -> list[Setting]:
    sequence = Layout("sequence", product.header)
    budgets = [Reading(f"adapter, {64 * n} tokens", "nosa", Budget(n, min(16, n // 4), min(17, n // 4))) for n in (16, 32, 96, 128)]
    return [
        Setting(False, Layout("none", product.header), (Reading("no repository"),)),
        Setting(False, sequence, (Reading("dense, sequence"), Reading("infllmv2, sequence", "infllmv2"))),
        Setting(False, product, (Reading("dense, segments"), Reading("infllmv2, segments", "infllmv2"), Reading("training-free, segments", "nosa", training_free=True))),
        Setting(True, product, (Reading("adapter, segments", "nosa"), Reading("adapter dense, segments"), *budgets)),
        Setting(True, sequence, (Reading("adapter, sequence", "nosa"), Reading("adapter dense, sequence"))),
    ]


def quick(table: list[Setting]) -> list[Setting]:
    wanted = ("dense, sequence", "dense, segments", "training-free, segments", "adapter, segments", "adapter dense, sequence")
    kept = [Setting(s.adapted, s.layout, tuple(r for r in s.readings if r.name in wanted)) for s in table]
    return [s for s in kept if s.readings]


class ExpectedAttention:
    """Eviction scores without training: the log of the attention that a Gaussian query would pay a key, times the value's norm."""

    def __init__(self) -> None:
        self.queries: dict[int, list[Tensor]] = defaultdict(list)
        self.means: list[Tensor] = []
        self.covariances: list[Tensor] = []

    def watch(self, attend, real: Tensor):
        def watched(layer: int, q: Tensor, k: Tensor, v: Tensor, cis: Tensor | None) -> Tensor:
            self.queries[layer].append(q[real].float())
            return attend(layer, q, k, v, cis)

        return watched

    def settle(self) -> None:
        for layer in sorted(self.queries):
            q = torch.cat(self.queries[layer])
            mean = q.mean(0)
            self.means.append(mean)
            self.covariances.append(torch.einsum("thd,the->hde", q - mean, q - mean) / len(q))
        self.queries.clear()

    def __call__(self, layer: int, k: Tensor, v: Tensor) -> Tensor:
        mean, covariance = self.means[layer], self.covariances[layer]
        k, dim = k.float(), k.shape[-1]
        mean, covariance = mean.unflatten(0, (k.shape[1], -1)), covariance.unflatten(0, (k.shape[1], -1))
        first = torch.einsum("tgd,gnd->tgn", k, mean) * dim**-0.5
        second = torch.einsum("tgd,gnde,tge->tgn", k, covariance, k) / (2 * dim)
        return (first + second).logsumexp(-1) + v.float().norm(dim=-1).log()


@torch.inference_mode()
def locality(chosen: Sequence[Tensor], context_blocks: int, first: int, end: int) -> dict[str, list[float]]:
    """Per layer, over tail rows [first, end): overlap of neighbouring selections, and misses per step with 64 and 128 slots."""
    picks = torch.stack([c[:, first:end, :context_blocks] for c in chosen])  # [L, G, T, B]
    sizes = picks[:, :, 1:].sum(-1).float()
    both = (picks[:, :, 1:] & picks[:, :, :-1]).sum(-1).float()
    layers, groups, steps, blocks = picks.shape
    flat = picks.flatten(0, 1)
    resident = torch.zeros_like(flat[:, 0])
    last = torch.full(resident.shape, -1, dtype=torch.long, device=flat.device)
    missed = torch.zeros(len(flat), device=flat.device)
    for t in range(steps):
        now = flat[:, t]
        if t > 0:
            missed += (now & ~resident).sum(-1)
        last = torch.where(now, t, last)
        resident |= now
        if blocks > 128:
            keep = torch.zeros_like(resident).scatter_(-1, last.topk(128, dim=-1).indices, True)
            resident &= keep
    return {
        "overlap": (both / sizes.clamp_min(1)).mean((1, 2)).tolist(),
        "misses_64": (sizes - both).mean((1, 2)).tolist(),
        "misses_128": (missed / max(1, steps - 1)).view(layers, groups).mean(1).tolist(),
    }


class Evaluator:
    def __init__(self, model: Decoder, encode: Encode, piece, marks: Marks, device: str, scorer: Scorer):
        self.model, self.encode, self.piece, self.marks, self.device, self.scorer = model, encode, piece, marks, device, scorer
        self.scores: dict[str, dict[str, list[Score]]] = defaultdict(lambda: defaultdict(list))
        self.moves: dict[str, list[dict[str, list[float]]]] = defaultdict(list)

    @torch.inference_mode()
    def read(self, setting: Setting, repository: str, documents: Sequence[Document], tails: Sequence[Tail], label: str = "", watch_moves: bool = False) -> None:
        adapter.set_enabled(self.model, setting.adapted)
        header = self.encode(header_text(setting.layout.header, repository, self.marks))
        row, start = aligned_context(setting.layout, header, documents)
        parts = torch.tensor(row.parts, device=self.device)
        context = SparseContext(parts, self.model.config.group, self.device == "cuda")
        self.model.hidden(torch.tensor(row.ids, device=self.device), torch.tensor(row.positions, device=self.device), context.prefill())
        asked = tail_row(tails)
        ids, offsets, tail_parts = (torch.tensor(x, device=self.device) for x in (asked.row.ids, asked.row.positions, asked.row.parts))
        for reading in setting.readings:
            context.scorer = self.scorer if reading.training_free else None
            context.keep_chosen = watch_moves and reading.policy != "full"
            context.chosen, context.shares, context.outputs = [], [], []
            hidden = self.model.hidden(ids, offsets + start, context.tails(tail_parts, reading.policy, reading.budget))
            for kind, score in zip(asked.kinds, score_answers(self.model, hidden, ids, asked.answers, self.piece), strict=True):
                self.scores[reading.name][label + kind].append(score)
            if context.keep_chosen:
                first, end = asked.answers[0]
                if asked.kinds[0] == "continue" and end - first >= 200:
                    self.moves[reading.name].append(locality(context.chosen, len(parts) // 64, first, end))


def calibrate(model: Decoder, cases: Sequence[ContextCase], product: Layout, encode: Encode, marks: Marks, device: str) -> ExpectedAttention:
    """Query statistics from a few training contexts."""
    expected = ExpectedAttention()
    adapter.set_enabled(model, False)
    for case in cases:
        documents, tails = split_case(case, encode, marks, product.header, 512)
        row, start = aligned_context(product, encode(header_text(product.header, case.repository, marks)), documents)
        asked = tail_row(tails).row
        with torch.inference_mode():
            parts, tail_parts = torch.tensor(row.parts, device=device), torch.tensor(asked.parts, device=device)
            context = SparseContext(parts, model.config.group, device == "cuda")
            model.hidden(torch.tensor(row.ids, device=device), torch.tensor(row.positions, device=device), context.prefill())
            ids, positions = torch.tensor(asked.ids, device=device), torch.tensor(asked.positions, device=device) + start
            model.hidden(ids, positions, expected.watch(context.tails(tail_parts), tail_parts != PAD))
    expected.settle()
    return expected


def summarise(scores: dict[str, dict[str, list[Score]]], moves: dict[str, list[dict[str, list[float]]]]) -> list[dict]:
    """One row a reading and kind; perplexity counts tokens, the rest counts cases. Differences are against both dense layouts."""
    kinds = sorted({kind for by_kind in scores.values() for kind in by_kind})
    groups = {kind: [kind] for kind in kinds} | {"lookups": [k for k in kinds if k in ("where", "signature", "returns")]}
    rows = []
    for name, by_kind in scores.items():
        for group, members in groups.items():
            ours = [s for k in members for s in by_kind.get(k, [])]
            if not ours:
                continue
            row = {"reading": name, "kind": group, "cases": len(ours), "nll": sum(s.nll for s in ours) / sum(s.tokens for s in ours),
                   "exact": 100 * float(np.mean([s.exact for s in ours]))}  # fmt: skip
            row["perplexity"] = float(np.exp(row["nll"]))
            for other in ("dense, sequence", "dense, segments"):
                theirs = [s for k in members for s in scores.get(other, {}).get(k, [])]
                if len(theirs) == len(ours) and other != name:
                    row[f"nll - {other}"] = paired_interval([s.nll / s.tokens for s in ours], [s.nll / s.tokens for s in theirs])
                    row[f"exact - {other}"] = paired_interval([100.0 * s.exact for s in ours], [100.0 * s.exact for s in theirs])
            rows.append(row)
        for_layers = {key: np.mean([m[key] for m in moves[name]], axis=0) for key in (moves[name][0] if moves[name] else ())}
        if for_layers:
            rows.append({"reading": name, "kind": "locality", "cases": len(moves[name]), **{k: float(v.mean()) for k, v in for_layers.items()},
                         "layers": {k: [round(float(x), 3) for x in v] for k, v in for_layers.items()}})  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--cases", type=Path, required=True, help="contexts with questions and holes (nosa_train.cases)")
    parser.add_argument("--perplexity", type=Path, nargs="*", default=[], help="more contexts, read for perplexity alone; the file's stem is their label")
    parser.add_argument("--calibration", type=Path, required=True, help="training samples for the training-free ranking")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--group", type=int, default=2048)
    parser.add_argument("--contexts", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--quick", action="store_true", help="only the readings that a run is judged by")
    args = parser.parse_args()
    started = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config, tensors = cached_weights(args.model, torch.bfloat16 if device == "cuda" else torch.float32)
    model = Decoder(config, {name: t.to(device) for name, t in tensors.items()})
    metadata = adapter.load(model, args.adapter)
    tokenizer = load_tokenizer(args.model)
    marks = QWEN if tokenizer.token_to_id(QWEN.repo) is not None else SMOLLM
    product = Layout("segments", "raw", args.size, args.group)

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    scorer = calibrate(model, load_samples(args.calibration)[:6], product, encode, marks, device)
    evaluator = Evaluator(model, encode, lambda token: tokenizer.id_to_token(token) or "", marks, device, scorer)
    table = quick(settings(product)) if args.quick else settings(product)
    sets = [[(case, "") for case in load_cases(args.cases)[: args.contexts]]]
    sets += [[(case, f"{path.stem} ") for case in load_cases(path)[: args.contexts]] for path in args.perplexity]
    # One of each set in turn: a run that ends early has read some of all.
    work = [each for turn in itertools.zip_longest(*sets) for each in turn if each is not None]
    done = 0
    for case, label in work:
        if time.monotonic() - started > args.seconds:
            break
        documents = [encode_document(f.path, f.text, encode, marks) for f in case.files]
        live = {i.path for i in case.infills}
        rest = [d for d in documents if d.path not in live]
        writing = [continuation(d, 1024) for d in documents if d.path in live][:3]
        holes = [] if label else [infill_tail(i, encode, marks) for i in case.infills]
        for setting in table:
            evaluator.read(setting, case.repository, rest, writing + holes, label, watch_moves=not label)
            if not label:
                asked = [lookup_tail(q, product.header, encode) for q in case.lookups]
                evaluator.read(setting, case.repository, documents, asked, label)
        done += 1
        print(f"{done}/{len(work)} {label}{case.repository} {time.monotonic() - started:.0f} s", flush=True)
        args.out.write_text(json.dumps({"model": args.model.stem, "adapter": metadata, "contexts": done, "rows": summarise(evaluator.scores, evaluator.moves)}) + "\n")
    for row in summarise(evaluator.scores, evaluator.moves):
        if row["kind"] == "locality":
            print(f"{row['reading']:26} locality  overlap {row['overlap']:.3f}  misses {row['misses_64']:.2f} / {row['misses_128']:.2f}")
        else:
            print(f"{row['reading']:26} {row['kind']:14} nll {row['nll']:.4f}  ppl {row['perplexity']:.3f}  exact {row['exact']:5.1f} %")


if __name__ == "__main__":
    main()
