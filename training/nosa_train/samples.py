"""What the model reads in one step: a context without its live files, and tails that the product would ask.

A case's live files (those with holes) are left out of the context and stand in tails: as text being written, and as holes to
fill in. Questions about the other files are chat tails.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import lzma
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from . import repos
from .cases import ContextCase, windows
from .layouts import Document, Encode, Layout, Marks, build_segments, chat_tail_text, encode_document, fim_tail_text
from .lookups import Infill, Lookup, make_infills
from .questions import make_questions
from .repos import Repository, SourceFile
from .sparse import AlignedRow
from .typed import cut_within, typed_holes

PACKAGE_CHARACTERS = 6_000_000  # at most so much of one package is looked at
CHARACTERS_PER_TOKEN = 3.5  # of source code, near enough for cutting samples to size
SUFFIX_FIRST = "infill, suffix first"
TYPED_HOLES = 9


@dataclass(frozen=True)
class Tail:
    kind: str  # "continue", "infill", SUFFIX_FIRST, or a question's kind
    prompt: list[int]
    answer: list[int]
    about: str = ""  # words among which is the name of a definition that the answer depends on; the path of a file being written
    source: str = ""  # the lines that the answer stands in, where they are known better than by a name
    telling: tuple[int, int] | None = None  # [first, end) of the answer's tokens that say what was asked for, scored by themselves too


@dataclass(frozen=True)
class TailRow:
    row: AlignedRow  # positions count from the start of the tails
    answers: list[tuple[int, int]]  # [first, end) of each tail's answer in the row
    kinds: list[str]


def aligned_context(layout: Layout, header: list[int], documents: Sequence[Document]) -> tuple[AlignedRow, int]:
    """The context as a block-aligned row, and the position at which its tails start."""
    row = AlignedRow()
    if layout.kind == "segments":
        row.add(header, 0, 0)
        for number, segment in enumerate(build_segments(documents, layout.size, layout.group), start=1):
            row.add(segment, len(header), number)
        start = len(header) + layout.size
    else:
        ids = header + [t for d in documents for t in d.lead + d.body] if layout.kind == "sequence" else header
        row.add(ids, 0, 0)
        start = len(ids)
    row.finish()
    return row, start


def tail_row(tails: Sequence[Tail]) -> TailRow:
    row, answers = AlignedRow(), []
    for number, tail in enumerate(tails, start=1):
        first = row.add(tail.prompt + tail.answer, 0, -number) + len(tail.prompt)
        answers.append((first, first + len(tail.answer)))
    row.finish()
    return TailRow(row, answers, [t.kind for t in tails])


def continuation(document: Document, tokens: int) -> Tail:
    return Tail("continue", document.lead, document.body[:tokens], document.path)


def infill_tail(infill: Infill, encode: Encode, marks: Marks, order: str = "prefix-first") -> Tail:
    kind = "infill" if order == "prefix-first" else SUFFIX_FIRST
    return Tail(kind, encode(fim_tail_text(infill.path, infill.prefix, infill.suffix, marks, order)), encode(infill.answer), infill.name)


def lookup_tail(lookup: Lookup, header: str, encode: Encode) -> Tail:
    return Tail(lookup.kind, encode(chat_tail_text(header, lookup.question, lookup.answer_start)), encode(lookup.answer), lookup.question, lookup.source)


def split_case(case: ContextCase, encode: Encode, marks: Marks, header: str, live_tokens: int, order: str = "prefix-first") -> tuple[list[Document], list[Tail]]:
    """Documents of the context, and the tails: live files, holes in them, questions about the rest. One hole in eight is asked in the order that models come with."""
    live = {i.path for i in case.infills}
    documents = [encode_document(f.path, f.text, encode, marks) for f in case.files]
    tails = [continuation(d, live_tokens) for d in documents if d.path in live]
    tails += [infill_tail(i, encode, marks, order if number % 8 != 7 else "prefix-first") for number, i in enumerate(case.infills)]
    tails += [lookup_tail(q, header, encode) for q in case.lookups if q.path not in live]
    return [d for d in documents if d.path not in live], tails


def make_samples(repositories: Sequence[Repository], count: Callable[[str], int], wanted: int, seed: int,
                 sizes: Sequence[tuple[int, int]]) -> Iterator[ContextCase]:  # fmt: skip
    """Cases of the sizes in turn, of each size from all repositories in turn, a repository's windows in random order."""
    rng = random.Random(seed)
    some = [Repository(**{**r.__dict__, "files": _slice(r.files, PACKAGE_CHARACTERS, rng)}) for r in repositories]
    of_sizes = [itertools.cycle([p for r in some if (p := _pool(r, count, low, high, rng))]) for low, high in sizes]
    made, missed = 0, 0
    while made < wanted and missed < 4 * len(some) * len(sizes):
        for pools in of_sizes:
            pool = next(pools, [])
            case = _sample(*pool.pop(), rng) if pool else None
            missed = missed + 1 if case is None else 0
            if case is not None and made < wanted:
                made += 1
                yield case


def _pool(repository: Repository, count: Callable[[str], int], low: int, high: int, rng: random.Random) -> list[tuple[str, int, tuple[SourceFile, ...]]]:
    pool = [(repository.key, tokens, files) for tokens, files in windows(repository, count, low, high)]
    rng.shuffle(pool)
    return pool


def _sample(key: str, tokens: int, files: tuple[SourceFile, ...], rng: random.Random) -> ContextCase | None:
    """Three files being written, in each a line that needs another file (half of them typed in part) and places where somebody types, and questions about the rest."""
    seed = rng.randrange(1 << 30)
    around = {"prefix_chars": rng.choice([400, 900, 1600, 3000]), "suffix_chars": rng.choice([120, 400, 1200])}
    infills = make_infills(files, 3, seed, per_file=1, **around)
    live = {i.path for i in infills}
    places = random.Random(seed)
    holes = [cut_within(i, places) if places.random() < 0.5 else i for i in infills] + typed_holes([f for f in files if f.path in live], TYPED_HOLES, seed)
    rest = [f for f in files if f.path not in live]
    questions = [q for q in make_questions(rest, 10, seed) if q.path not in live]
    return ContextCase(key, tokens, files, tuple(questions), tuple(holes)) if len(infills) >= 2 and len(questions) >= 3 else None


def ask_again(case: ContextCase, seed: int) -> ContextCase | None:
    """The same files with other holes and questions."""
    return _sample(case.repository, case.tokens, case.files, random.Random(seed))


def within(cases: Iterator[ContextCase], tokens_max: int) -> Iterator[ContextCase]:
    """The first cases, of no more than so many tokens together: what is carried to another machine has its limit."""
    left = tokens_max
    for case in cases:
        left -= case.tokens
        if left < 0:
            return
        yield case


def _slice(files: Sequence[SourceFile], characters: int, rng: random.Random) -> tuple[SourceFile, ...]:
    """A run of neighbouring files of about so many characters: a large package must not fill the set."""
    total = sum(len(f.text) for f in files)
    start = rng.randrange(max(1, total - characters)) if total > characters else 0
    chosen, at = [], 0
    for file in files:
        if start <= at < start + characters:
            chosen.append(file)
        at += len(file.text)
    return tuple(chosen)


def _packed(path: Path):
    """xz finds what repeats further back than gzip can see: holes repeat their file."""
    return lzma.open if path.suffix == ".xz" else gzip.open


def save_samples(path: Path, cases: Sequence[ContextCase]) -> None:
    with _packed(path)(path, "wt", encoding="utf-8") as out:
        for case in cases:
            out.write(json.dumps(asdict(case)) + "\n")


def load_samples(path: Path, most: int | None = None) -> list[ContextCase]:
    with _packed(path)(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in itertools.islice(lines, most)]
    return [
        ContextCase(row["repository"], row["tokens"], tuple(SourceFile(**f) for f in row["files"]),
                    tuple(Lookup(**q) for q in row["lookups"]), tuple(Infill(**i) for i in row["infills"]))
        for row in rows
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repos", type=Path, required=True, help="a split written by nosa_train.repos")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=1600)
    parser.add_argument("--tokens-max", type=int, default=1 << 40, help="of all samples together, by the estimate; a million takes about half a megabyte of xz")
    parser.add_argument("--sizes", default="6500:9500,13000:17500,25000:33000", help="low:high tokens of contexts, in turn")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    sizes = [tuple(int(n) for n in pair.split(":")) for pair in args.sizes.split(",")]
    repositories = repos.load(args.repos)
    random.Random(args.seed).shuffle(repositories)
    made = make_samples(repositories, lambda text: int(len(text) / CHARACTERS_PER_TOKEN), args.samples, args.seed, sizes)
    cases = list(within(made, args.tokens_max))
    random.Random(args.seed).shuffle(cases)
    save_samples(args.out, cases)
    print(f"{len(cases)} samples of {len({c.repository for c in cases})} packages, {sum(c.tokens for c in cases) / 1e6:.1f} M tokens, {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()


