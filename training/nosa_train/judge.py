"""Adapters against each other and against the dense model, on packages that training never saw: what a run is judged by.

As `evaluate`, but only the readings that decide, by the trainer's fast route, for any number of adapters at once.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections import defaultdict
from pathlib import Path

import torch

from . import adapter
from .cases import ContextCase, load_cases
from .evaluate import ExpectedAttention, locality, summarise
from .gguf_weights import cached_weights, load_tokenizer
from .joint import JointRow, Pass, Watch, learn, plan, teach
from .layouts import QWEN, SMOLLM, Document, Encode, Layout, encode_document, header_text
from .model import Decoder
from .samples import Tail, TailRow, aligned_context, continuation, infill_tail, load_samples, lookup_tail, split_case, tail_row
from .scoring import Score, score_answers
from .sparse import BLOCK, PAD, Budget


def joint_row(layout: Layout, header: list[int], documents: list[Document], asked: TailRow, device: str) -> JointRow:
    context, start = aligned_context(layout, header, documents)
    columns = (context.ids + asked.row.ids, context.positions + [start + p for p in asked.row.positions], context.parts + asked.row.parts)
    return JointRow(*(torch.tensor(c, device=device) for c in columns), len(context.ids))


class Judge:
    def __init__(self, models: dict[str, Decoder], encode: Encode, piece, product: Layout, device: str):
        """`models` by name; the first one, with its adapter out of use, is the dense model too."""
        self.models, self.encode, self.piece, self.product, self.device = models, encode, piece, product, device
        self.base = next(iter(models.values()))
        self.expected = ExpectedAttention()
        self.scores: dict[str, dict[str, list[Score]]] = defaultdict(lambda: defaultdict(list))
        self.moves: dict[str, list[dict[str, list[float]]]] = defaultdict(list)
        config = self.base.config
        self.sharpness = torch.ones(2, config.layers, config.kv_heads, device=device)
        nothing = torch.zeros(0, dtype=torch.long, device=device)
        self.watch = Watch(slice(0, 2), nothing, [], nothing)

    def calibrate(self, cases: list[ContextCase], marks) -> None:
        for case in cases:
            documents, tails = split_case(case, self.encode, marks, self.product.header, 512)
            asked = tail_row([t for t in tails if fits(t)])
            row = joint_row(self.product, self.encode(header_text(self.product.header, case.repository, marks)), documents, asked, self.device)
            real = row.tails != PAD

            def watch(layer, q, k, v, row=row, real=real):
                self.expected.queries[layer].append(q[row.context :][real].float())
                return -k.float().norm(dim=-1)

            learn(self.base, plan(row), Budget(), self.sharpness, self.watch, watch)
        self.expected.settle()

    def read(self, repository: str, marks, documents: list[Document], tails: list[Tail], label: str) -> None:
        header = self.encode(header_text(self.product.header, repository, marks))
        asked = tail_row([t for t in tails if fits(t)])
        sequence = plan(joint_row(Layout("sequence", self.product.header), header, documents, asked, self.device))
        segments = plan(joint_row(self.product, header, documents, asked, self.device))
        self._keep("dense, sequence", teach(self.base, sequence), sequence, asked, label)
        free = learn(self.base, segments, Budget(), self.sharpness, self.watch, lambda layer, q, k, v: self.expected(layer, k, v))
        self._keep("training-free, segments", free, segments, asked, label)
        for name, model in self.models.items():
            self._keep(f"{name}, segments", learn(model, segments, Budget(), self.sharpness, self.watch), segments, asked, label)

    def _keep(self, name: str, done: Pass, planned, asked: TailRow, label: str) -> None:
        ids = planned.row.ids[planned.row.context :]
        for kind, score in zip(asked.kinds, score_answers(self.base, done.hidden, ids, asked.answers, self.piece), strict=True):
            self.scores[name][label + kind].append(score)
        first, end = asked.answers[0]
        if done.chosen and label == "" and asked.kinds[0] == "continue" and end - first >= 200:
            self.moves[name].append(locality([c.blocks for c in done.chosen], planned.row.context // BLOCK, first, end))


def fits(tail: Tail) -> bool:
    return len(tail.prompt) + len(tail.answer) <= Budget().window * BLOCK


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--adapters", nargs="+", required=True, help="NAME=FILE")
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--perplexity", type=Path, nargs="*", default=[])
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--group", type=int, default=2048)
    parser.add_argument("--until", type=float, default=1e12, help="no context is begun after this time (seconds since 1970)")
    args = parser.parse_args()
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cuda.enable_cudnn_sdp(False)
    config, tensors = cached_weights(args.model, torch.bfloat16 if device != "cpu" else torch.float32)
    tensors = {name: t.to(device) for name, t in tensors.items()}
    models = {}
    for each in args.adapters:
        name, file = each.split("=", 1)
        models[name] = Decoder(config, tensors)
        adapter.load(models[name], Path(file))
    tokenizer = load_tokenizer(args.model)
    marks = QWEN if tokenizer.token_to_id(QWEN.repo) is not None else SMOLLM
    product = Layout("segments", "raw", args.size, args.group)

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    judge = Judge(models, encode, lambda token: tokenizer.id_to_token(token) or "", product, device)
    judge.calibrate(list(itertools.islice(load_samples(args.calibration), 4)), marks)
    sets = [[(case, "") for case in load_cases(args.cases)]]
    sets += [[(case, f"{path.stem} ") for case in load_cases(path)] for path in args.perplexity]
    done = 0
    for case, label in (each for turn in itertools.zip_longest(*sets) for each in turn if each is not None):
        if time.time() > args.until:
            break
        documents = [encode_document(f.path, f.text, encode, marks) for f in case.files]
        live = {i.path for i in case.infills}
        tails = [continuation(d, 1024) for d in documents if d.path in live][:3]
        if not label:
            tails += [infill_tail(i, encode, marks) for i in case.infills]
        judge.read(case.repository, marks, [d for d in documents if d.path not in live], tails, label)
        if not label:
            judge.read(case.repository, marks, documents, [lookup_tail(q, product.header, encode) for q in case.lookups], label)
        done += 1
    rows = summarise(judge.scores, judge.moves)
    args.out.write_text(json.dumps({"model": args.model.stem, "contexts": done, "rows": rows}, indent=1) + "\n")
    for row in rows:
        if row["kind"] == "locality":
            print(f"{row['reading']:26} locality  overlap {row['overlap']:.3f}  misses {row['misses_64']:.2f} / {row['misses_128']:.2f}")
        else:
            print(f"{row['reading']:26} {row['kind']:14} ({row['cases']}) nll {row['nll']:.4f}  ppl {row['perplexity']:.3f}  exact {row['exact']:5.1f} %")
    print(f"{done} contexts")


if __name__ == "__main__":
    main()
