"""Which training-free ranking of blocks serves later queries best, on real code that nothing was calibrated on.

A ranking is a score of each token that is frozen when it is written and sees its key and value alone. NOSA's selection takes
some blocks by the query and the rest by the ranking; every row of the table differs in the ranking and in nothing else. Small
enough for a CPU: contexts of a few thousand tokens, and a budget that is as small beside them as the product's is beside a repository.

"mass" is the share of the dense attention to the context, its first block aside, that the chosen blocks catch, averaged over
layers, heads and the tokens of answers; "alone" counts the blocks taken by the ranking only. "nats" scores the answers to
look-ups with the sparse selection in place. Intervals are paired, against the first row.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .cases import ContextCase, load_cases
from .evaluate import ExpectedAttention
from .gguf_weights import cached_weights, load_tokenizer
from .layouts import QWEN, SMOLLM, Document, Encode, Layout, Marks, encode_document, header_text
from .lookups import Lookup
from .model import Decoder
from .samples import TailRow, aligned_context, load_samples, lookup_tail, tail_row
from .scoring import paired_interval, score_answers
from .sparse import PAD, AlignedRow, Budget, Places, Scorer, SparseContext, select


def key_norm(layer: int, k: Tensor, v: Tensor) -> Tensor:
    """Keys of small norm are those that queries attend to whatever they ask."""
    return -k.float().norm(dim=-1)


def value_norm(layer: int, k: Tensor, v: Tensor) -> Tensor:
    return v.float().norm(dim=-1)


def both_norms(layer: int, k: Tensor, v: Tensor) -> Tensor:
    return v.float().norm(dim=-1).log() - k.float().norm(dim=-1)


def chance(layer: int, k: Tensor, v: Tensor) -> Tensor:
    return torch.rand(k.shape[:2], generator=torch.Generator().manual_seed(layer + len(k))).to(k.device)


class ExpectedLogit(ExpectedAttention):
    """Expected attention without the value's norm."""

    def __call__(self, layer: int, k: Tensor, v: Tensor) -> Tensor:
        return super().__call__(layer, k, torch.ones_like(v))


class Mass:
    """Attends densely, and counts what each ranking's blocks would have caught."""

    def __init__(self, context: SparseContext, tail: TailRow, tail_parts: Tensor, budget: Budget, rankings: dict[str, Scorer]):
        self.context, self.budget, self.rankings = context, budget, rankings
        self.places = Places.of(context.parts, tail_parts, budget.window)
        self.rows = torch.tensor([t for first, end in tail.answers for t in range(first - 1, end - 1)], device=tail_parts.device)
        self.caught: dict[str, list[float]] = {name: [] for name in rankings}
        self.alone: dict[str, list[float]] = {name: [] for name in rankings}

    def watch(self, attend: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def watched(layer: int, q: Tensor, k: Tensor, v: Tensor, cis: Tensor | None) -> Tensor:
            keys, values = torch.cat((self.context.keys[layer], k)), torch.cat((self.context.values[layer], v))
            mass = self.block_mass(q, keys)
            by_query, _ = select(self.places, q, keys, None, "infllmv2", Budget(self.forced() + self.budget.query - 1, 0, self.budget.window))
            for name, ranking in self.rankings.items():
                chosen, _ = select(self.places, q, keys, ranking(layer, keys, values), "nosa", self.budget)
                self.caught[name].append(self.share(mass, chosen))
                self.alone[name].append(self.share(mass, chosen & ~by_query))
            return attend(layer, q, k, v, cis)

        return watched

    def forced(self) -> int:
        return int(self.places.forced[self.rows].sum(-1).max())

    def block_mass(self, q: Tensor, keys: Tensor) -> Tensor:
        """[G, rows, blocks] of the answers' queries, averaged over the heads of a key head."""
        groups, blocks = keys.shape[1], len(keys) // 64
        seen = self.places.open[self.rows].repeat_interleave(64, dim=-1)
        at = torch.arange(len(keys), device=keys.device)
        seen = seen & (self.places.parts != PAD) & (at[None] <= self.rows[:, None] + self.places.context)
        queries = q[self.rows].unflatten(1, (groups, -1)).float()
        logits = torch.einsum("tgnd,kgd->gntk", queries, keys.float()) * q.shape[-1] ** -0.5
        return logits.masked_fill_(~seen, float("-inf")).softmax(-1).unflatten(-1, (blocks, 64)).sum(-1).mean(1)

    def share(self, mass: Tensor, chosen: Tensor) -> float:
        of_context = mass[..., 1 : self.places.context // 64]
        caught = (of_context * chosen[:, self.rows, 1 : self.places.context // 64]).sum(-1)
        return float((caught / of_context.sum(-1).clamp_min(1e-9)).mean())


def by_parts(context: SparseContext) -> Callable[..., Tensor]:
    """Prefill of a context part by part: no matrix of all tokens by all tokens."""
    ranges = {int(p): (context.parts == p).nonzero()[:, 0] for p in context.parts.unique() if p >= 0}
    header = ranges[0]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, cis: Tensor | None) -> Tensor:
        context.keys.append(k)
        context.values.append(v)
        context.scores.append(cis)
        out = torch.zeros_like(q)
        for part, own in ranges.items():
            seen = own if part == 0 else torch.cat((header, own))
            mask = torch.ones(len(own), len(seen), dtype=torch.bool, device=q.device).tril(len(seen) - len(own))
            heads = [t.transpose(0, 1)[None] for t in (q[own], k[seen], v[seen])]
            out[own] = F.scaled_dot_product_attention(*heads, attn_mask=mask, enable_gqa=True)[0].transpose(0, 1)
        return out

    return attend


def small_case(case: ContextCase, tokens: int, lookups: int, encode: Encode, marks: Marks) -> tuple[list[Document], list[Lookup]]:
    """Files of the first questions, then others, up to about so many tokens; in path order."""
    asked = list(case.lookups[:lookups])
    wanted = {q.path for q in asked}
    chosen: list[Document] = []
    total = 0
    for file in sorted(case.files, key=lambda f: f.path not in wanted):
        document = encode_document(file.path, file.text, encode, marks)
        length = len(document.lead) + len(document.body)
        if chosen and total + length > tokens:
            continue
        chosen.append(document)
        total += length
    there = {d.path for d in chosen}
    return sorted(chosen, key=lambda d: d.path), [q for q in asked if q.path in there]


def tensors(row: AlignedRow, device: str, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    ids, positions, parts = (torch.tensor(x, device=device) for x in (row.ids, row.positions, row.parts))
    return ids, positions + start, parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--cases", type=Path, required=True, help="held-out contexts with questions (nosa_train.cases)")
    parser.add_argument("--calibration", type=Path, required=True, help="training samples (nosa_train.samples)")
    parser.add_argument("--contexts", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--lookups", type=int, default=6)
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument("--query-blocks", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=600, help="stop beginning contexts after that")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    started = time.monotonic()
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config, weights = cached_weights(args.model, torch.bfloat16)
    model = Decoder(config, {name: t.to(device) for name, t in weights.items()})
    tokenizer = load_tokenizer(args.model)
    marks = QWEN if tokenizer.token_to_id(QWEN.repo) is not None else SMOLLM
    layout = Layout("segments", "raw", 8192 if marks is QWEN else 4096, 2048)
    budget = Budget(args.blocks, args.query_blocks, 2)

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    def read(case: ContextCase, documents: Sequence[Document]) -> tuple[SparseContext, int]:
        row, start = aligned_context(layout, encode(header_text("raw", case.repository, marks)), documents)
        ids, positions, parts = tensors(row, device)
        context = SparseContext(parts)
        model.hidden(ids, positions, by_parts(context))
        return context, start

    expected, expected_logit = ExpectedAttention(), ExpectedLogit()
    with torch.inference_mode():
        samples = [c for c in load_samples(args.calibration) if c.lookups]
        for case in random.Random(0).sample(samples, 3):
            documents, asked = small_case(case, args.tokens // 2, args.lookups, encode, marks)
            context, start = read(case, documents)
            tail = tail_row([lookup_tail(q, "raw", encode) for q in asked]).row
            ids, positions, parts = tensors(tail, device, start)
            dense = context.tails(parts)
            model.hidden(ids, positions, expected_logit.watch(expected.watch(dense, parts != PAD), parts != PAD))
        expected.settle()
        expected_logit.settle()
        rankings: dict[str, Scorer] = {
            "key norm, negated": key_norm, "value norm": value_norm, "value norm over exp(key norm)": both_norms,
            "expected attention": expected, "expected attention, no value": expected_logit, "chance": chance,
        }  # fmt: skip

        caught: dict[str, list[float]] = {name: [] for name in rankings}
        alone: dict[str, list[float]] = {name: [] for name in rankings}
        nats: dict[str, list[float]] = {name: [] for name in ("dense", *rankings)}
        blocks = 0
        for done, case in enumerate(load_cases(args.cases)[: args.contexts], start=1):
            if time.monotonic() - started > args.seconds:
                break
            documents, asked = small_case(case, args.tokens, args.lookups, encode, marks)
            context, start = read(case, documents)
            blocks += len(context.parts) // 64
            tail = tail_row([lookup_tail(q, "raw", encode) for q in asked])
            ids, positions, parts = tensors(tail.row, device, start)
            mass = Mass(context, tail, parts, budget, rankings)

            def answers(attend: Callable[..., Tensor]) -> list[float]:
                hidden = model.hidden(ids, positions, attend)
                scores = score_answers(model, hidden, ids, tail.answers, lambda token: tokenizer.id_to_token(token) or "")
                return [s.nll / s.tokens for s in scores]

            nats["dense"] += answers(mass.watch(context.tails(parts)))
            for name, ranking in rankings.items():
                caught[name] += mass.caught[name]
                alone[name] += mass.alone[name]
                context.scorer = ranking
                nats[name] += answers(context.tails(parts, "nosa", budget))
            context.scorer = None
            print(f"{done} {case.repository}: {len(context.parts)} tokens, {len(asked)} questions, {time.monotonic() - started:.0f} s", flush=True)

    print(f"{args.model.stem}, {len(nats['dense'])} questions, {blocks / max(1, done):.0f} blocks a context, {args.blocks} attended; dense {sum(nats['dense']) / len(nats['dense']):.3f} nats")
    first = next(iter(rankings))
    rows = []
    for name in rankings:
        row = {"ranking": name, "mass": sum(caught[name]) / len(caught[name]), "alone": sum(alone[name]) / len(alone[name]),
               "nats": sum(nats[name]) / len(nats[name]), "mass - first": paired_interval(caught[name], caught[first]),
               "nats - first": paired_interval(nats[name], nats[first])}  # fmt: skip
        rows.append(row)
        m, n = row["mass - first"], row["nats - first"]
        print(f"{name:32} mass {row['mass']:.3f} ({m[0]:+.3f} [{m[1]:+.3f}, {m[2]:+.3f}])  alone {row['alone']:.3f}  nats {row['nats']:.3f} ({n[0]:+.3f} [{n[1]:+.3f}, {n[2]:+.3f}])")
    if args.out is not None:
        args.out.write_text(json.dumps({"model": args.model.stem, "blocks": args.blocks, "query_blocks": args.query_blocks, "dense": nats["dense"], "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
