"""What sparse reading costs and what adapters win back, on packages that training never saw.

Every reading answers the same requests over the same contexts: questions, holes in live files, and live files as they are
written (perplexity, and which of their lines that name something of another file are right token by token). Differences carry paired
bootstrap intervals. Locality counts, on live files, how the selection moves from one token to the next: only context blocks
count, a tail's own blocks are produced where they are used.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import adapter
from .cases import ContextCase, load_cases
from .facts import Fact, asked_facts, gold
from .gguf_weights import cached_weights, load_tokenizer
from .joint import JointRow, Memory, Plan, ask, plan, read, remember, remember_sparsely
from .layouts import ORDERS, QWEN, SMOLLM, Document, Encode, Layout, Marks, encode_document, header_text
from .lookups import Infill, unique_definitions
from .model import Decoder
from .samples import Tail, TailRow, aligned_context, continuation, infill_tail, load_samples, lookup_tail, split_case, tail_row
from .scoring import Score, paired_interval, score_answers
from .sparse import PAD, Budget
from .typed import cut_within

FACTS_MOST = 3  # of a context
REFERENCES = ("dense, sequence", "dense, segments", "training-free, segments")


@dataclass(frozen=True)
class Reading:
    """One row of the comparison. `adapted` names an adapter; without one the base model reads."""

    name: str
    layout: Layout
    policy: str = "full"
    budget: Budget = Budget()
    adapted: str | None = None
    is_prefill_sparse: bool = False


def readings(product: Layout, adapters: Sequence[str], is_quick: bool, picks: Sequence[int] = (), sparse_prefill: Sequence[str] = ()) -> list[Reading]:
    """`picks`: other splits of the product's budget, with so many blocks by the query. Contexts are read densely but in the rows that say otherwise."""
    sequence = Layout("sequence", product.header)
    rows = [Reading("dense, sequence", sequence), Reading("training-free, segments", product, "nosa")]
    for name in adapters:
        rows += [Reading(f"{name}, segments", product, "nosa", adapted=name), Reading(f"{name}, dense, segments", product, adapted=name)]
    for number in picks:
        split = Budget(query=number)
        rows.append(Reading(f"training-free, {number} picks", product, "nosa", split))
        rows += [Reading(f"{name}, {number} picks", product, "nosa", split, name) for name in adapters]
    rows += [Reading(f"{name}, sparse prefill", product, "nosa", adapted=name, is_prefill_sparse=True) for name in (sparse_prefill if is_quick else adapters)]
    if is_quick:
        return rows
    rows += [Reading("no repository", Layout("none", product.header)), Reading("dense, segments", product)]
    rows += [Reading("infllmv2, sequence", sequence, "infllmv2"), Reading("infllmv2, segments", product, "infllmv2")]
    for name in adapters:
        rows += [Reading(f"{name}, sequence", sequence, "nosa", adapted=name), Reading(f"{name}, dense, sequence", sequence, adapted=name)]
        budgets = [Budget(n, min(16, n // 4), min(17, n // 4)) for n in (16, 32, 96, 128)]
        rows += [Reading(f"{name}, {64 * b.total} tokens", product, "nosa", b, name) for b in budgets]
    return rows


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


def joint_row(layout: Layout, header: list[int], documents: Sequence[Document], asked: TailRow, device: str) -> JointRow:
    context, start = aligned_context(layout, header, documents)
    columns = (context.ids + asked.row.ids, context.positions + [start + p for p in asked.row.positions], context.parts + asked.row.parts)
    return JointRow(*(torch.tensor(c, device=device) for c in columns), len(context.ids))


def telling_lines(ids: Sequence[int], piece: Callable[[int], str], names: set[str], skip: int = 128, most: int = 12) -> list[tuple[int, int]]:
    """Lines [first, end) among the tokens of a text that name something of another file, once enough of the text has been seen."""
    found, first = [], 0
    for at, token in enumerate(ids):
        if "\n" not in piece(token) and "Ċ" not in piece(token):
            continue
        line = "".join(piece(t) for t in ids[first : at + 1]).replace("Ġ", " ")
        if first >= skip and 3 <= at + 1 - first <= 40 and names.intersection(re.findall(r"\w+", line)):
            found.append((first, at + 1))
        first = at + 1
    return found[:: -(-len(found) // most)] if found else []


def asked_in_both_orders(infills: Sequence[Infill], encode: Encode, marks: Marks) -> list[Tail]:
    """Each line whole and from a point within it on, with its prompt in either order."""
    rng = random.Random(0)
    tails = []
    for where, holes in (("", infills), (" within", [cut_within(i, rng) for i in infills])):
        for order in ORDERS:
            tails += [replace(tail, kind=tail.kind.replace("infill", f"infill{where}")) for i in holes for tail in [infill_tail(i, encode, marks, order)]]
    return tails


def fact_tail(fact: Fact, header: str, encode: Encode, piece: Callable[[int], str]) -> Tail:
    """A question about a fact; the tokens that hold its value are scored by themselves too. Byte-level tokens: a character of a piece is a byte of the text."""
    tail = lookup_tail(fact.lookup(""), header, encode)
    match = gold(fact.value, fact.is_text).search(fact.answer)
    assert match is not None
    first, end = (len(fact.answer[:at].encode()) for at in match.span())
    ends = list(itertools.accumulate(len(piece(token)) for token in tail.answer))
    return replace(tail, telling=(sum(at <= first for at in ends), sum(at < end for at in ends) + 1))


class Evaluator:
    def __init__(self, models: dict[str, Decoder], encode: Encode, piece: Callable[[int], str], marks: Marks, device: str):
        """`models` by the names of their adapters; any of them, with its adapter out of use, is the base model."""
        self.models, self.encode, self.piece, self.marks, self.device = models, encode, piece, marks, device
        self.base = next(iter(models.values()))
        self.expected = ExpectedAttention()
        self.scores: dict[str, dict[str, list[Score]]] = defaultdict(lambda: defaultdict(list))
        self.moves: dict[str, list[dict[str, list[float]]]] = defaultdict(list)

    def calibrate(self, cases: Sequence[ContextCase], product: Layout) -> None:
        """Query statistics from a few training contexts, for the training-free ranking."""
        for case in cases:
            documents, tails = split_case(case, self.encode, self.marks, product.header, 512)
            row = joint_row(product, self._header(product, case.repository), documents, tail_row(tails), self.device)
            real = row.tails != PAD

            def watch(layer: int, q: Tensor, k: Tensor, v: Tensor, real: Tensor = real) -> Tensor:
                self.expected.queries[layer].append(q[real].float())
                return -k.float().norm(dim=-1)

            read(self.base, plan(row), "nosa", Budget(), False, watch)
        self.expected.settle()

    def _header(self, layout: Layout, repository: str) -> list[int]:
        return self.encode(header_text(layout.header, repository, self.marks))

    @torch.inference_mode()
    def read(self, table: Sequence[Reading], repository: str, documents: Sequence[Document], tails: Sequence[Tail], label: str = "",
             names: dict[str, str] | None = None, watch_moves: bool = False) -> None:  # fmt: skip
        """`names`: where each definition stands; with it, lines that name something of another file are scored too."""
        asked = tail_row(tails)
        spans, kinds = list(asked.answers), list(asked.kinds)
        for (first, _), tail, kind in zip(asked.answers, tails, asked.kinds, strict=True):
            if tail.telling is not None:
                spans.append((first + tail.telling[0], first + tail.telling[1]))
                kinds.append(f"{kind}'s value")
            if names is not None and kind == "continue":
                elsewhere = {name for name, path in names.items() if path != tail.about}
                lines = telling_lines(tail.answer, self.piece, elsewhere)
                spans += [(first + a, first + b) for a, b in lines]
                kinds += ["next line"] * len(lines)
        plans: dict[tuple[str, int], Plan] = {}
        memories: dict[tuple[str, str | None, bool], Memory] = {}
        for reading in table:
            key = (reading.layout.label, reading.budget.window)
            if key not in plans:
                plans[key] = plan(joint_row(reading.layout, self._header(reading.layout, repository), documents, asked, self.device), reading.budget.window)
            planned = plans[key]
            model = self.base if reading.adapted is None else self.models[reading.adapted]
            scorer = (lambda layer, q, k, v: self.expected(layer, k, v)) if reading.policy == "nosa" and reading.adapted is None else None
            known = (reading.layout.label, reading.adapted, reading.is_prefill_sparse)
            if known not in memories:
                adapted = reading.adapted is not None
                memories[known] = remember_sparsely(model, planned, reading.budget, adapted) if reading.is_prefill_sparse else remember(model, planned, adapted)
            hidden, chosen = ask(model, planned, memories[known], reading.policy, reading.budget, reading.adapted is not None, scorer)
            ids = planned.row.ids[planned.row.context :]
            for kind, score in zip(kinds, score_answers(model, hidden, ids, spans, self.piece), strict=True):
                self.scores[reading.name][label + kind].append(score)
            first, end = asked.answers[0]
            if watch_moves and reading.policy != "full" and asked.kinds[0] == "continue" and end - first >= 200:
                self.moves[reading.name].append(locality(chosen, planned.row.context // 64, first, end))


def summarise(scores: dict[str, dict[str, list[Score]]], moves: dict[str, list[dict[str, list[float]]]]) -> list[dict]:
    """One row a reading and kind; perplexity counts tokens, the rest counts cases. Differences are against every reference."""
    kinds = sorted({kind for by_kind in scores.values() for kind in by_kind})
    facts = {name: [k for k in kinds if k.endswith(name)] for name in ("fact", "fact's value")}  # of all sizes together
    groups = {kind: [kind] for kind in kinds} | facts | {"lookups": [k for k in kinds if k in ("where", "signature", "returns", "calls")]}
    rows = []
    for name, by_kind in scores.items():
        for group, members in groups.items():
            ours = [s for k in members for s in by_kind.get(k, [])]
            if not ours:
                continue
            row = {"reading": name, "kind": group, "cases": len(ours), "nll": sum(s.nll for s in ours) / sum(s.tokens for s in ours),
                   "exact": 100 * float(np.mean([s.exact for s in ours]))}  # fmt: skip
            row["perplexity"] = float(np.exp(row["nll"]))
            for other in REFERENCES:
                theirs = [s for k in members for s in scores.get(other, {}).get(k, [])]
                if len(theirs) == len(ours) and other != name:
                    row[f"nll - {other}"] = paired_interval([s.nll / s.tokens for s in ours], [s.nll / s.tokens for s in theirs])
                    row[f"exact - {other}"] = paired_interval([100.0 * s.exact for s in ours], [100.0 * s.exact for s in theirs])
            rows.append(row)
        if not moves[name]:
            continue
        for_layers = {key: np.mean([m[key] for m in moves[name]], axis=0) for key in moves[name][0]}
        row = {"reading": name, "kind": "locality", "cases": len(moves[name]), **{k: float(v.mean()) for k, v in for_layers.items()}}
        theirs = moves.get("training-free, segments", [])
        if len(theirs) == len(moves[name]) and name != "training-free, segments":
            for key in ("misses_64", "misses_128"):
                row[f"{key} - training-free, segments"] = paired_interval([float(np.mean(m[key])) for m in moves[name]], [float(np.mean(m[key])) for m in theirs])
        rows.append({**row, "layers": {k: [round(float(x), 3) for x in v] for k, v in for_layers.items()}})
    return rows


def show(rows: Sequence[dict]) -> None:
    for row in rows:
        if row["kind"] == "locality":
            print(f"{row['reading']:26} locality ({row['cases']}) overlap {row['overlap']:.3f}  misses {row['misses_64']:.2f} / {row['misses_128']:.2f}")
            continue
        against = row.get("nll - dense, sequence")
        beside = f"  {against[0]:+.4f} [{against[1]:+.4f}, {against[2]:+.4f}]" if against else ""
        print(f"{row['reading']:26} {row['kind']:14} ({row['cases']}) nll {row['nll']:.4f}{beside}  ppl {row['perplexity']:.3f}  exact {row['exact']:5.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--adapters", nargs="+", required=True, help="NAME=FILE, any number")
    parser.add_argument("--cases", type=Path, help="contexts with questions and holes (nosa_train.cases)")
    parser.add_argument("--perplexity", type=Path, nargs="*", default=[], help="more contexts, read for perplexity alone; the file's stem is their label")
    parser.add_argument("--facts", type=Path, help="facts with question and answer (nosa_train.ask_teacher), asked where a context of either kind holds them")
    parser.add_argument("--calibration", type=Path, required=True, help="training samples for the training-free ranking")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--each", type=Path, help="also write every case's nats, tokens and exactness, by reading and kind")
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--group", type=int, default=2048)
    parser.add_argument("--contexts", type=int, help="at most so many of each file")
    parser.add_argument("--until", type=float, default=1e12, help="no context is begun after this time (seconds since 1970)")
    parser.add_argument("--picks", type=int, nargs="*", default=[], help="also read with so many of the 64 blocks picked by the query (product: 32)")
    parser.add_argument("--sparse-prefill", nargs="*", default=[], metavar="NAME", help="adapters that also read their contexts sparsely; without --quick all do")
    parser.add_argument("--quick", action="store_true", help="only the readings that a run is judged by")
    args = parser.parse_args()
    begun = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew for every length
    config, tensors = cached_weights(args.model, torch.bfloat16 if device == "cuda" else torch.float32)
    tensors = {name: t.to(device) for name, t in tensors.items()}
    models, steps = {}, {}
    for name, file in (each.split("=", 1) for each in args.adapters):
        models[name] = Decoder(config, tensors)
        steps[name] = adapter.load(models[name], Path(file)).get("steps", "")
    tokenizer = load_tokenizer(args.model)
    marks = QWEN if tokenizer.token_to_id(QWEN.repo) is not None else SMOLLM
    product = Layout("segments", "raw", args.size, args.group)

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    evaluator = Evaluator(models, encode, lambda token: tokenizer.id_to_token(token) or "", marks, device)
    evaluator.calibrate(load_samples(args.calibration, 4), product)
    table = readings(product, list(models), args.quick, args.picks, args.sparse_prefill)
    sets = [[(case, "") for case in load_cases(args.cases)[: args.contexts]]] if args.cases is not None else []
    sets += [[(case, f"{path.stem} ") for case in load_cases(path)[: args.contexts]] for path in args.perplexity]
    # One of each set in turn: a run that ends early has read some of all.
    work = [each for turn in itertools.zip_longest(*sets) for each in turn if each is not None]
    facts = asked_facts(args.facts)
    done = 0

    def keep() -> list[dict]:
        rows = summarise(evaluator.scores, evaluator.moves)
        args.out.write_text(json.dumps({"model": args.model.stem, "steps": steps, "contexts": done, "rows": rows}) + "\n")
        if args.each is not None:
            each = {name: {kind: [(round(s.nll, 4), s.tokens, int(s.exact)) for s in scores] for kind, scores in by_kind.items()} for name, by_kind in evaluator.scores.items()}
            args.each.write_text(json.dumps(each, separators=(",", ":")) + "\n")
        return rows

    for case, label in work:
        if time.time() > args.until:
            break
        documents = [encode_document(f.path, f.text, encode, marks) for f in case.files]
        live = {i.path for i in case.infills}
        names = {d.name: d.path for d in unique_definitions(case.files)}
        writing = [continuation(d, 1024) for d in documents if d.path in live][:3]
        holes = [] if label else asked_in_both_orders(case.infills, encode, marks)
        known = [fact for d in documents if d.path not in live for fact in facts.get(case.repository, {}).get(d.path, ())]
        asked = [fact_tail(fact, product.header, encode, evaluator.piece) for fact in random.Random(0).sample(known, min(FACTS_MOST, len(known)))]
        evaluator.read(table, case.repository, [d for d in documents if d.path not in live], writing + holes + asked, label, names, watch_moves=not label)
        if not label:
            evaluator.read(table, case.repository, documents, [lookup_tail(q, product.header, encode) for q in case.lookups])
        done += 1
        if done % 4 == 0:
            keep()
            print(f"{done}/{len(work)} {time.monotonic() - begun:.0f} s", flush=True)
    show(keep())


if __name__ == "__main__":
    main()
