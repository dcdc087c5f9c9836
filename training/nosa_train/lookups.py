"""Questions about a repository made from its own code, and lines to fill in that depend on another file.

Every case has exactly one right answer, taken from the text, so that it can be scored token by token.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from .repos import SourceFile, language_of

# The name of a definition, by language. Groups: indentation, name.
_DEFINITIONS = {
    "python": [r"^([ \t]*)(?:async )?def (\w+)\(", r"^([ \t]*)class (\w+)\b"],
    "javascript": [r"^([ \t]*)(?:export )?(?:default )?(?:async )?function\*? (\w+)\s*\(", r"^([ \t]*)(?:export )?(?:default )?class (\w+)\b",
                   r"^([ \t]*)(?:export )?const (\w+) = (?:async )?(?:function|\([^()]*\) =>)", r"^([ \t]*)(?:\w+\.)+(?:prototype\.)?(\w+) = (?:async )?function"],
    "rust": [r"^([ \t]*)(?:pub(?:\([^)]*\))? )?(?:const |async |unsafe )*fn (\w+)\b", r"^([ \t]*)(?:pub(?:\([^)]*\))? )?(?:struct|enum|trait) (\w+)\b"],
    "go": [r"^()func (?:\([^)]*\) )?(\w+)\(", r"^()type (\w+) (?:struct|interface|func)\b"],
}  # fmt: skip
_DEFINITIONS["typescript"] = _DEFINITIONS["javascript"] + [r"^([ \t]*)(?:export )?(?:interface|type|enum) (\w+)\b"]
_FUNCTION = re.compile(r"\b(def|function|fn|func)\b|=>|= (async )?function")
_RETURN = re.compile(r"^[ \t]+return ([^\s;].{2,70}?);?$", re.M)
_COMMENT = re.compile(r"^\s*(#|//|/\*|\*|\"\"\"|import |from |use |package |require|export \*|'use strict')")


@dataclass(frozen=True)
class Definition:
    name: str
    path: str
    line: int  # from 0
    signature: str  # the line, without indentation
    body: str  # the lines after it that are indented deeper


@dataclass(frozen=True)
class Lookup:
    kind: str  # "where", "signature", "returns"; "fact"
    question: str
    answer_start: str  # what the assistant has said already, so that the format is given
    answer: str
    path: str
    source: str = ""  # the lines that the answer stands in, where the question need not name their definition


@dataclass(frozen=True)
class Infill:
    path: str
    name: str  # what the hidden line uses and another file defines
    defined_in: str
    prefix: str
    suffix: str
    answer: str


def definitions(file: SourceFile) -> list[Definition]:
    patterns = [re.compile(p) for p in _DEFINITIONS[language_of(file.path) or "python"]]
    lines = file.text.split("\n")
    found = []
    for number, line in enumerate(lines):
        match = next((m for p in patterns if (m := p.match(line))), None)
        if match is None:
            continue
        indent = len(match[1])
        end = number + 1
        while end < len(lines) and (not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > indent):
            end += 1
        found.append(Definition(match[2], file.path, number, line.strip(), "\n".join(lines[number + 1 : end])))
    return found


def unique_definitions(files: Sequence[SourceFile]) -> list[Definition]:
    by_name: dict[str, list[Definition]] = defaultdict(list)
    for file in files:
        for definition in definitions(file):
            by_name[definition.name].append(definition)
    ordinary = re.compile(r"(test|_test|main$|init$|new$|setup|constructor)", re.I)
    return [d[0] for name, d in sorted(by_name.items()) if len(d) == 1 and len(name) >= 5 and not ordinary.match(name) and not name.startswith("__")]


def make_lookups(files: Sequence[SourceFile], count: int, seed: int) -> list[Lookup]:
    """Up to `count` questions, the three kinds in turn, each about another definition where there are enough."""
    rng = random.Random(seed)
    pool = unique_definitions(files)
    rng.shuffle(pool)
    queues: dict[str, list[Lookup]] = {"where": [], "signature": [], "returns": []}
    for d in pool:
        is_function = bool(_FUNCTION.search(d.signature))
        noun = "function" if is_function else "type"
        language = language_of(d.path) or ""
        returned = _RETURN.findall(d.body)
        if is_function and len(re.findall(r"\breturn\b", d.body)) == 1 and len(returned) == 1 and len(d.body) < 3000:
            if len(returned[0]) >= 8 and returned[0][-1] not in "([{,":
                queues["returns"].append(Lookup("returns", f"Which expression does the function `{d.name}` return?",
                                                f"`{d.name}` returns the expression `", returned[0] + "`", d.path))  # fmt: skip
                continue
        if is_function and 20 <= len(d.signature) <= 110 and d.signature[-1] in ":{":
            queues["signature"].append(Lookup("signature", f"Quote the line that defines `{d.name}`, exactly as it stands in the repository.",
                                              f"```{language}\n", d.signature + "\n", d.path))  # fmt: skip
        queues["where"].append(Lookup("where", f"In which file is the {noun} `{d.name}` defined?",
                                      f"The {noun} `{d.name}` is defined in `", d.path + "`", d.path))  # fmt: skip
    chosen: list[Lookup] = []
    asked: set[str] = set()
    while len(chosen) < count and any(queues.values()):
        for kind in queues:
            while queues[kind] and len(chosen) < count:
                lookup = queues[kind].pop()
                if lookup.question not in asked:
                    asked.add(lookup.question)
                    chosen.append(lookup)
                    break
    return chosen


def make_infills(files: Sequence[SourceFile], count: int, seed: int, per_file: int = 4,
                 prefix_chars: int = 3000, suffix_chars: int = 1200) -> list[Infill]:  # fmt: skip
    """Lines that call or name something of another file. A name that the rest of the file shows less often comes first."""
    rng = random.Random(seed)
    home = {d.name: d.path for d in unique_definitions(files)}
    by_file: list[tuple[str, list[tuple[int, Infill]]]] = []
    for file in files:
        lines = file.text.split("\n")
        found: list[tuple[int, Infill]] = []
        for number in rng.sample(range(len(lines)), len(lines)):
            line = lines[number]
            if len(found) == 8 * per_file:
                break
            if number < 3 or not 16 <= len(line.strip()) <= 100 or _COMMENT.match(line):
                continue
            names = [n for n in re.findall(r"\b([A-Za-z_]\w{4,})\b(?=[({<!:.])", line) if home.get(n, file.path) != file.path]
            if not names:
                continue
            name = names[0]
            prefix, suffix = "\n".join(lines[:number]) + "\n", "\n".join(lines[number + 1 :])
            shown = len(re.findall(rf"\b{re.escape(name)}\b", prefix[-prefix_chars:] + suffix[:suffix_chars]))
            found.append((shown, Infill(file.path, name, home[name], prefix[-prefix_chars:], suffix[:suffix_chars], line + "\n")))
        found.sort(key=lambda pair: pair[0])
        if found:
            by_file.append((file.path, found[:per_file]))
    rng.shuffle(by_file)
    by_file.sort(key=lambda pair: sum(shown for shown, _ in pair[1]) / len(pair[1]))
    chosen: list[Infill] = []
    for _, found in by_file:
        chosen.extend(infill for _, infill in found)
        if len(chosen) >= count:
            break
    return chosen[:count]
