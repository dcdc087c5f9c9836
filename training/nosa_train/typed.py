"""Places where somebody types: what an editor asks a completion for, several to a file being written.

A hole of `lookups.make_infills` is a whole line that needs another file. Typing asks within lines, within words, before brackets that the editor has closed
already, and for several lines; and it shows no more around the cursor than can be read while a person waits.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from .lookups import Infill
from .repos import SourceFile

BEFORE_CHARACTERS = (300, 600, 1200, 3000)  # of what is shown before the cursor; the first is what two cores read in time
BEHIND_CHARACTERS = (80, 160, 400)
LINE_CHARACTERS = (12, 110)  # without indentation
LINES_MOST = 4  # of one answer
_CLOSERS = re.compile(r"[)\]}\"'`]+[;,:]?$")
_COMMENT = re.compile(r"^\s*(#|//|/\*|\*|\"\"\")")


def typed_holes(files: Sequence[SourceFile], count: int, seed: int) -> list[Infill]:
    """Up to `count` places in the files' lines, none of them twice; `name` and `defined_in` are empty, for an answer need not depend on another file."""
    rng = random.Random(seed)
    places = [(file, lines, at) for file in files for lines in [file.text.split("\n")] for at in range(2, len(lines)) if _is_worth_asking(lines[at], rng)]
    return [_hole(file.path, lines, at, rng) for file, lines, at in rng.sample(places, min(count, len(places)))]


def cut_within(infill: Infill, rng: random.Random) -> Infill:
    """The same line with its beginning typed already, up to a point behind its indentation."""
    text = infill.answer.rstrip("\n")
    start = len(text) - len(text.lstrip())
    if len(text) - start < 4:
        return infill
    cut = rng.randrange(start + 1, len(text))
    return replace(infill, prefix=infill.prefix + infill.answer[:cut], answer=infill.answer[cut:])


def whole_lines(text: str, characters: int) -> str:
    """So many characters at most, whole lines of them unless that would lose more than half."""
    end = text.rfind("\n", 0, characters) + 1
    return text[:end] if 2 * end > min(characters, len(text)) else text[:characters]


def _is_worth_asking(line: str, rng: random.Random) -> bool:
    low, high = LINE_CHARACTERS
    return low <= len(line.strip()) <= high and (_COMMENT.match(line) is None or rng.random() < 0.1)


def _hole(path: str, lines: Sequence[str], at: int, rng: random.Random) -> Infill:
    line = lines[at]
    start = len(line) - len(line.lstrip())
    draw = rng.random()
    closed = _CLOSERS.search(line.rstrip())
    last = at
    if draw < 0.2:
        cut, end = rng.choice([0, start]), len(line)
    elif draw < 0.35 and closed is not None and closed.start() - start > 4:
        # The editor has written what closes: it stands behind the cursor.
        cut, end = rng.randrange(start + 2, closed.start()), closed.start()
    else:
        cut, end = rng.randrange(start + 1, len(line.rstrip())), len(line)
    answer, rest = line[cut:end], line[end:]
    if not rest:
        last = min(len(lines) - 1, at + rng.choice([0] * 5 + list(range(1, LINES_MOST))))
        answer = "\n".join([answer, *lines[at + 1 : last + 1]]) + "\n"
    behind = "\n".join(lines[last + 1 :])
    suffix = f"{rest}\n{behind}" if rest else behind
    before = "\n".join(lines[:at]) + "\n" + line[:cut]
    return Infill(path, "", "", before[-rng.choice(BEFORE_CHARACTERS) :], whole_lines(suffix, rng.choice(BEHIND_CHARACTERS)), answer)
