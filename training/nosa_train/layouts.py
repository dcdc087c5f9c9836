"""How a repository and its requests become token rows: headers, segments, tails, positions, visibility.

sequence  header and all files are one causal text; tails follow at the next position
segments  every segment sees the header and itself and starts at position h; tails start at h + S and see everything
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Encode = Callable[[str], list[int]]

SYSTEM_LINE = "You are a coding assistant. You have read the whole repository below and answer from it."
# The product's own: a tail's system turn stands behind the repository.
TAIL_SYSTEM_LINE = "You are Nosa, a coding assistant. You have read the whole repository above: answer from its files and name the paths you rely on."


@dataclass(frozen=True)
class Marks:
    """The special tokens of a model family."""

    repo: str
    file: str
    fim: tuple[str, str, str] | None  # prefix, suffix, middle; None when the family has no infilling


QWEN = Marks("<|repo_name|>", "<|file_sep|>", ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"))
SMOLLM = Marks("<repo_name>", "<file_sep>", None)

HEADERS = ("system", "raw", "user")
ORDERS = ("prefix-first", "suffix-first")  # of a completion's prompt


def header_text(kind: str, repository: str, marks: Marks = QWEN) -> str:
    name = f"{marks.repo}{repository}\n"
    if kind == "system":
        return f"<|im_start|>system\n{SYSTEM_LINE}\n{name}"
    if kind == "user":
        return f"<|im_start|>system\n{SYSTEM_LINE}<|im_end|>\n<|im_start|>user\n{name}"
    if kind == "raw":
        return name
    raise ValueError(f"unknown header {kind!r}")


def chat_tail_text(kind: str, question: str, answer_start: str) -> str:
    opening = {
        "system": "<|im_end|>\n<|im_start|>user\n",
        "user": "\n",
        "raw": f"<|im_start|>system\n{TAIL_SYSTEM_LINE}<|im_end|>\n<|im_start|>user\n",
    }[kind]
    return f"{opening}{question}<|im_end|>\n<|im_start|>assistant\n{answer_start}"


def fim_tail_text(path: str, prefix: str, suffix: str, marks: Marks = QWEN, order: str = "prefix-first") -> str:
    """Suffix-aware where the family can; otherwise the text before the hole alone. Orders: `decisions/0004-order-of-a-completion.md`."""
    opening = f"{marks.file}{path}\n"
    if marks.fim is None:
        return opening + prefix
    before, after, middle = marks.fim
    if order == "suffix-first":
        return f"{opening}{before}{after}{suffix}{middle}{prefix}"
    return f"{opening}{before}{prefix}{after}{suffix}{middle}"


def file_text(path: str, text: str, marks: Marks = QWEN) -> str:
    return f"{marks.file}{path}\n{text}" + ("" if text.endswith("\n") else "\n")


@dataclass(frozen=True)
class Document:
    """One file as tokens: `lead` is the separator and the path, repeated when the file has to be split."""

    path: str
    lead: list[int]
    body: list[int]


def encode_document(path: str, text: str, encode: Encode, marks: Marks = QWEN) -> Document:
    return Document(path, encode(f"{marks.file}{path}\n"), encode(text if text.endswith("\n") else text + "\n"))


def build_segments(documents: Sequence[Document], size: int, group: int = 0) -> list[list[int]]:
    """Segments of at most `size` tokens, in path order.

    group = 0      one file a segment; longer files are split, each piece led by the path again
    group = n > 0  neighbours in one folder share a segment while it stays within n tokens
    group = size   neighbours of any folder fill each segment
    """
    segments: list[list[int]] = []
    folder: str | None = None
    for document in documents:
        room = size - len(document.lead)
        pieces = [document.lead + document.body[i : i + room] for i in range(0, max(1, len(document.body)), room)]
        here = os.path.dirname(document.path)
        for piece in pieces:
            joins = group > 0 and segments and (here == folder or group >= size) and len(segments[-1]) + len(piece) <= group
            if joins:
                segments[-1] = segments[-1] + piece
            else:
                segments.append(piece)
            folder = here
    return segments


@dataclass
class Row:
    """A packed row. `part` says who sees whom: 0 is seen by all that follow, n > 0 is a segment, n < 0 a tail."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], start: int, part: int) -> None:
        self.ids.extend(ids)
        self.positions.extend(range(start, start + len(ids)))
        self.parts.extend([part] * len(ids))

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Layout:
    kind: str  # "sequence", "segments" or "none" (no repository at all)
    header: str = "system"
    size: int = 8192  # S
    group: int = 0
    align: str = "left"  # "right": a segment ends at h + S, next to the tail, instead of starting at h

    def context(self, header: Sequence[int], documents: Sequence[Document]) -> tuple[Row, int]:
        """The context row and the position at which tails start."""
        row = Row()
        row.add(header, 0, 0)
        h = len(header)
        if self.kind == "none":
            return row, h
        if self.kind == "sequence":
            for document in documents:
                row.add(document.lead + document.body, len(row), 0)
            return row, len(row)
        for number, segment in enumerate(build_segments(documents, self.size, self.group), start=1):
            start = h if self.align == "left" else h + self.size - len(segment)
            row.add(segment, start, number)
        return row, h + self.size

    @property
    def label(self) -> str:
        if self.kind != "segments":
            return f"{self.kind}/{self.header}"
        packing = "file" if self.group == 0 else "fill" if self.group >= self.size else f"group{self.group}"
        return f"segments/{self.header}/S{self.size}/{packing}" + ("" if self.align == "left" else "/right")


def tails_row(tails: Sequence[Sequence[int]], start: int) -> Row:
    """Independent requests side by side: each starts at `start` and sees the context and itself."""
    row = Row()
    for number, ids in enumerate(tails, start=1):
        row.add(ids, start, -number)
    return row
