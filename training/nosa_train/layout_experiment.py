"""Which context layout a dense model reads best: one sequence, or independent segments, and how they are arranged.

The same questions and holes are asked in every layout; answers are scored token by token. A hole's own file is left out of the
repository, as the product masks it, and stands in the tail instead.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from .attention import ContextCache, Correction
from .cases import ContextCase, load_cases
from .gguf_weights import cached_weights, load_tokenizer
from .layouts import QWEN, SMOLLM, Document, Encode, Layout, Marks, chat_tail_text, encode_document, fim_tail_text, header_text, tails_row
from .model import Decoder
from .scoring import Score, score_answers, summarise

PLAIN = Correction()
CORRECTIONS = [Correction(s, b) for s, b in [(0.95, 0), (1.05, 0), (1.1, 0), (1, -0.5), (1, -1), (1, 0.5), (1, 1), (1.05, -0.5)]]


def grid(positions: int, longest: int) -> list[Layout]:
    """The arrangements to compare, the most telling first, in case time runs out."""
    first, small, large = (8192, 4096, 16384) if positions >= 32768 else (2048, 1024, 4096)
    whole = [Layout("sequence", header) for header in ("raw", "system", "user")] if longest < positions else []
    return [
        Layout("none", "raw"),
        Layout("segments", "raw", first),
        *whole[:2],
        Layout("segments", "system", first),
        Layout("segments", "raw", first, first // 4),
        Layout("segments", "raw", first, first),
        Layout("segments", "raw", small),
        Layout("segments", "raw", large),
        Layout("segments", "raw", first, 0, "right"),
        Layout("segments", "raw", small, small),
        Layout("segments", "raw", large, large),
        Layout("segments", "raw", small, small // 2),
        Layout("segments", "system", first, first),
        Layout("segments", "user", first),
        *whole[2:],
        Layout("segments", "system", small),
        Layout("none", "system"),
    ]


class Reader:
    """A model that reads contexts and answers cases under a layout."""

    def __init__(self, model: Decoder, encode: Encode, piece: Callable[[int], str], marks: Marks, device: str):
        self.model, self.encode, self.piece, self.marks, self.device = model, encode, piece, marks, device

    def answer(self, layout: Layout, corrections: Sequence[Correction], repository: str, documents: Sequence[Document],
               requests: Sequence[tuple[str, str]]) -> list[list[Score]]:  # fmt: skip
        """One list of scores for each correction; requests are (tail up to the answer, answer)."""
        header = self.encode(header_text(layout.header, repository, self.marks))
        row, start = layout.context(header, documents)
        prompts = [self.encode(tail) for tail, _ in requests]
        answers = [self.encode(answer) for _, answer in requests]
        tails = tails_row([p + a for p, a in zip(prompts, answers, strict=True)], start)
        spans, offset = [], 0
        for prompt, answer in zip(prompts, answers, strict=True):
            spans.append((offset + len(prompt), offset + len(prompt) + len(answer)))
            offset += len(prompt) + len(answer)
        cache = ContextCache(self._tensor(row.parts), use_flex=self.device == "cuda")
        self.model.hidden(self._tensor(row.ids), self._tensor(row.positions), cache.prefill())
        ids, positions, parts = self._tensor(tails.ids), self._tensor(tails.positions), self._tensor(tails.parts)
        hidden = (self.model.hidden(ids, positions, cache.tails(parts, c)) for c in corrections)
        return [score_answers(self.model, h, ids, spans, self.piece) for h in hidden]

    def _tensor(self, values: Sequence[int]) -> torch.Tensor:
        return torch.tensor(values, device=self.device)


def run_case(reader: Reader, layout: Layout, corrections: Sequence[Correction], case: ContextCase,
             documents: dict[str, Document]) -> dict[str, list[list[Score]]]:  # fmt: skip
    """Scores by kind ("where", "signature", "returns", "infill"), one list for each correction."""
    everything = list(documents.values())
    asked = [(chat_tail_text(layout.header, q.question, q.answer_start), q.answer) for q in case.lookups]
    results: dict[str, list[list[Score]]] = {}

    def record(kinds: Sequence[str], scores: list[list[Score]]) -> None:
        for slot, column in enumerate(scores):
            for kind, score in zip(kinds, column, strict=True):
                results.setdefault(kind, [[] for _ in corrections])[slot].append(score)

    record([q.kind for q in case.lookups], reader.answer(layout, corrections, case.repository, everything, asked))
    for path in sorted({i.path for i in case.infills}):
        holes = [i for i in case.infills if i.path == path]
        tails = [(fim_tail_text(path, i.prefix, i.suffix, reader.marks), i.answer) for i in holes]
        others = [d for d in everything if d.path != path]
        record(["infill"] * len(holes), reader.answer(layout, corrections, case.repository, others, tails))
    return results


def evaluate(reader: Reader, layout: Layout, corrections: Sequence[Correction], cases: Sequence[ContextCase],
             documents: Sequence[dict[str, Document]]) -> list[dict]:  # fmt: skip
    """One result row for each correction: summaries by kind and every case's own score, for paired comparison later."""
    gathered: list[dict[str, list[Score]]] = [{} for _ in corrections]
    for case, docs in zip(cases, documents, strict=True):
        for kind, columns in run_case(reader, layout, corrections, case, docs).items():
            for slot, column in enumerate(columns):
                gathered[slot].setdefault(kind, []).extend(column)
    rows = []
    for correction, by_kind in zip(corrections, gathered, strict=True):
        lookups = [s for kind, scores in by_kind.items() if kind != "infill" for s in scores]
        rows.append({
            "layout": layout.label, "scale": correction.scale, "bias": correction.bias,
            "lookups": summarise(lookups), "infill": summarise(by_kind["infill"]),
            "kinds": {kind: summarise(scores) for kind, scores in sorted(by_kind.items())},
            "each": {kind: [[round(s.nll, 3), s.tokens, int(s.exact)] for s in scores] for kind, scores in sorted(by_kind.items())},
        })  # fmt: skip
    return rows


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--contexts", type=int, default=None, help="take only the first so many")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no further layout after this long")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first so many layouts of the grid")
    parser.add_argument("--layouts", type=int, default=None, help="stop after so many layouts of the grid, skipped ones counted")
    parser.add_argument("--corrections", type=int, default=2, help="try the corrections on so many of the best segment layouts")
    args = parser.parse_args()
    started = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config, tensors = cached_weights(args.model, torch.bfloat16 if device == "cuda" else torch.float32)
    model = Decoder(config, {name: t.to(device) for name, t in tensors.items()})
    tokenizer = load_tokenizer(args.model)
    marks = QWEN if tokenizer.token_to_id(QWEN.repo) is not None else SMOLLM

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    reader = Reader(model, encode, lambda token: tokenizer.id_to_token(token) or "", marks, device)
    cases = load_cases(args.cases)[: args.contexts]
    documents = [{f.path: encode_document(f.path, f.text, encode, marks) for f in c.files} for c in cases]
    longest = max(sum(len(d.lead) + len(d.body) for d in docs.values()) for docs in documents) + 3000
    print(f"{len(cases)} contexts ready after {time.monotonic() - started:.0f} s; longest {longest}", flush=True)
    rows: list[dict] = []

    def run(layout: Layout, corrections: Sequence[Correction]) -> None:
        begun = time.monotonic()
        for row in evaluate(reader, layout, corrections, cases, documents):
            rows.append(row)
            print(f"{row['layout']:34} x{row['scale']:<4} {row['bias']:+.1f}  look-ups {row['lookups']['nll']:.4f} {row['lookups']['exact']:5.1f} %"
                  f"  infill {row['infill']['nll']:.4f} {row['infill']['exact']:5.1f} %  {time.monotonic() - begun:.1f} s", flush=True)  # fmt: skip
        args.out.write_text(json.dumps({"model": args.model.stem, "dtype": str(model.head.dtype), "rows": rows}) + "\n")

    for layout in grid(config.context, longest)[args.skip : args.layouts]:
        if time.monotonic() - started < args.seconds * 0.7:
            run(layout, [PLAIN])
    by_label = {layout.label: layout for layout in grid(config.context, longest)}
    segments = sorted((r for r in rows if r["layout"].startswith("segments")), key=lambda r: r["lookups"]["nll"] + r["infill"]["nll"])
    for row in [*segments[:1], *(r for r in segments[1:] if r["layout"].endswith("file"))][: args.corrections]:
        if time.monotonic() - started < args.seconds:
            run(by_label[row["layout"]], CORRECTIONS)


if __name__ == "__main__":
    main()
