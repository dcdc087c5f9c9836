"""Contexts of a wanted size cut out of real repositories, each with its questions and lines to fill in."""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from . import repos
from .gguf_weights import load_tokenizer
from .lookups import Infill, Lookup, make_infills, make_lookups
from .repos import Repository, SourceFile

SIDE = re.compile(r"(^|/)(tests?|testing|benches|benchmarks?|examples?|_examples|docs)/|_test\.go$|(^|/)test_|\.(test|spec|bench)\.")


@dataclass(frozen=True)
class ContextCase:
    repository: str
    tokens: int
    files: tuple[SourceFile, ...]
    lookups: tuple[Lookup, ...]
    infills: tuple[Infill, ...]


def windows(repository: Repository, count: Callable[[str], int], low: int, high: int) -> list[tuple[int, tuple[SourceFile, ...]]]:
    """Runs of neighbouring source files (tests and examples aside) of `low` to `high` tokens, without overlap."""
    found, run, total = [], [], 0
    for file in (f for f in repository.files if not SIDE.search(f.path)):
        size = count(file.text) + 16
        if size > high // 2:
            continue
        if total + size > high:
            if total >= low:
                found.append((total, tuple(run)))
            run, total = [], 0
        run.append(file)
        total += size
    if total >= low:
        found.append((total, tuple(run)))
    return found


def make_cases(repositories: Sequence[Repository], count: Callable[[str], int], low: int, high: int, contexts: int,
               lookups: int, infills: int, seed: int, per_repository: int = 2, per_file: int = 4) -> list[ContextCase]:  # fmt: skip
    """Contexts taken in turn from all repositories (first every repository's first window), until there are enough.

    `low` and `high` bound what is read: files with holes are being written and do not count.
    """
    pools = [[c for tokens, files in windows(r, count, low, 2 * high) if (c := _case(r.key, files, count, low, high, lookups, infills, seed, per_file))] for r in repositories]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*(pool[:per_repository] for pool in pools)))
    return list(itertools.islice((case for case in turns if case is not None), contexts))


def _case(key: str, files: Sequence[SourceFile], count: Callable[[str], int], low: int, high: int, lookups: int, infills: int, seed: int, per_file: int) -> ContextCase | None:
    holes = make_infills(files, infills, seed, per_file)
    live, needed = {h.path for h in holes}, {h.defined_in for h in holes}
    rest = {f.path: count(f.text) + 16 for f in files if f.path not in live}
    for path in [p for p in reversed(rest) if p not in needed]:  # the last files go until the rest fits
        if sum(rest.values()) > high:
            del rest[path]
    kept = tuple(f for f in files if f.path in rest or f.path in live)
    asked = make_lookups([f for f in kept if f.path in rest], lookups, seed)
    if len(holes) != infills or len(asked) != lookups or not low <= sum(rest.values()) <= high:
        return None
    return ContextCase(key, sum(rest.values()), kept, tuple(asked), tuple(holes))


def save_cases(path: Path, cases: Sequence[ContextCase]) -> None:
    path.write_text(json.dumps([asdict(c) for c in cases]))


def load_cases(path: Path) -> list[ContextCase]:
    return [
        ContextCase(
            row["repository"],
            row["tokens"],
            tuple(SourceFile(**f) for f in row["files"]),
            tuple(Lookup(**q) for q in row["lookups"]),
            tuple(Infill(**i) for i in row["infills"]),
        )
        for row in json.loads(path.read_text())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repos", type=Path, required=True, help="a split written by nosa_train.repos")
    parser.add_argument("--model", type=Path, required=True, help="GGUF whose tokenizer measures the sizes")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--low", type=int, default=16_000)
    parser.add_argument("--high", type=int, default=24_000)
    parser.add_argument("--contexts", type=int, default=20)
    parser.add_argument("--lookups", type=int, default=10)
    parser.add_argument("--infills", type=int, default=10)
    parser.add_argument("--per-file", type=int, default=4, help="most holes of one file")
    parser.add_argument("--per-repository", type=int, default=2, help="most contexts of one repository")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    tokenizer = load_tokenizer(args.model)
    cases = make_cases(repos.load(args.repos), lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids), args.low, args.high,
                       args.contexts, args.lookups, args.infills, args.seed, args.per_repository, args.per_file)  # fmt: skip
    save_cases(args.out, cases)
    for case in cases:
        print(f"{case.repository}: {case.tokens} tokens, {len(case.files)} files, {len(case.lookups)} look-ups, {len(case.infills)} holes")
    print(f"{len(cases)} contexts, {sum(len(c.lookups) for c in cases)} look-ups, {sum(len(c.infills) for c in cases)} holes")


if __name__ == "__main__":
    main()
