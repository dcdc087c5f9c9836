"""Questions as people put them to the product, in several wordings, answered from the code itself.

`lookups.make_lookups` keeps to one wording a kind, for figures that can be compared; what is trained on varies: with and without
words that the answer begins with, and with callers, which need two files at once.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence

from .lookups import Definition, Lookup, unique_definitions
from .repos import SourceFile, language_of

WHERE = (
    ("In which file is `{name}` defined?", "`{name}` is defined in `", "{path}`."),
    ("Where is `{name}` defined?", "", "`{name}` is defined in `{path}`."),
    ("which file has {name}", "", "`{name}` is in `{path}`."),
    ("Where do I find the definition of `{name}`?", "The definition of `{name}` is in `", "{path}`."),
    ("Show me where `{name}` comes from.", "", "It is defined in `{path}`:\n\n```{language}\n{line}\n```"),
)
SIGNATURE = (
    ("Quote the line that defines `{name}`, exactly as it stands in the repository.", "```{language}\n{lead}{name}", "{rest}\n```"),
    ("What is the signature of `{name}`?", "", "```{language}\n{line}\n```"),
    ("How is `{name}` declared?", "`{name}` is declared in `{path}`:\n\n```{language}\n", "{line}\n```"),
    ("Which parameters does `{name}` take?", "", "From `{path}`:\n\n```{language}\n{line}\n```"),
)
CALLS = (
    ("Which file other than `{path}` uses `{name}`?", "Beside `{path}`, `{name}` is used in `", "{user}`."),
    ("Who uses `{name}`?", "", "`{name}` is used in `{user}`."),
    ("Show a use of `{name}` outside of `{path}`.", "From `{user}`:\n\n```{language}\n", "{use}\n```"),
)
# Answered in the words of the code's own comments; of use to learn how a teacher explains, not to be repeated to the letter.
EXPLAINS = (
    ("What does `{name}` do?", "", "`{name}`, which is defined in `{path}`, does the following: {words}"),
    ("Explain `{name}`.", "", "{words}\n\nIt is defined in `{path}`:\n\n```{language}\n{line}\n```"),
    ("what is {name} for?", "", "{words} You find it in `{path}`."),
    ("How does `{name}` work? Answer briefly.", "", "In `{path}`, `{name}` is declared as `{line}`. {words}"),
)
WORDS_LEAST, WORDS_MOST = 40, 420  # characters of an explanation
_DOCSTRING = re.compile(r"\s*[rRuU]?(\"{3}|'{3})\s*(.+?)(?:\1|\n\s*\n)", re.S)
_ABOVE = re.compile(r"^\s*(?:///?!?|/\*\*?|\*/?|#(?!\[|!))\s?(.*?)(?:\*/)?$")
_RETURN = re.compile(r"^[ \t]+return ([^\s;].{6,70}?);?$", re.M)
RETURNS = (
    ("Which expression does `{name}` return?", "`{name}` returns the expression `", "{returned}`."),
    ("What does `{name}` return?", "", "It returns `{returned}`."),
)


def make_questions(files: Sequence[SourceFile], count: int, seed: int) -> list[Lookup]:
    """Up to `count` questions, each about another definition, kinds in turn."""
    rng = random.Random(seed)
    pool = unique_definitions(files)
    rng.shuffle(pool)
    users = _Users(files)
    lines = {file.path: file.text.split("\n") for file in files}
    makers = [_where, _signature, lambda d, r: _calls(d, r, users), _returns, lambda d, r: _explains(d, r, lines[d.path])]
    made: list[Lookup] = []
    turn = 0
    for definition in pool:
        if len(made) == count:
            break
        for shift in range(len(makers)):
            lookup = makers[(turn + shift) % len(makers)](definition, rng)
            if lookup is not None:
                made.append(lookup)
                turn += shift + 1
                break
    return made


class _Users:
    """Which files name a word, and their text."""

    def __init__(self, files: Sequence[SourceFile]):
        self.texts = {file.path: file.text for file in files}
        self.paths: dict[str, set[str]] = defaultdict(set)
        for file in files:
            for word in set(re.findall(r"\w{5,}", file.text)):
                self.paths[word].add(file.path)


def _fill(kind: str, wordings: Sequence[tuple[str, str, str]], rng: random.Random, about: str, **words: str) -> Lookup:
    """`about` is the file that the answer comes from. The first wording, which figures are taken with, is the most frequent one."""
    chosen = wordings[0] if rng.random() < 0.4 else rng.choice(wordings[1:])
    question, start, answer = (text.format(**words) for text in chosen)
    return Lookup(kind, question, start, answer, about)


def _where(d: Definition, rng: random.Random) -> Lookup | None:
    return _fill("where", WHERE, rng, d.path, name=d.name, path=d.path, line=d.signature, language=language_of(d.path) or "")


def _signature(d: Definition, rng: random.Random) -> Lookup | None:
    if not 16 <= len(d.signature) <= 120 or d.name not in d.signature:
        return None
    lead, rest = d.signature.split(d.name, 1)
    return _fill("signature", SIGNATURE, rng, d.path, name=d.name, path=d.path, line=d.signature, lead=lead, rest=rest, language=language_of(d.path) or "")


def _calls(d: Definition, rng: random.Random, users: _Users) -> Lookup | None:
    others = users.paths[d.name] - {d.path}
    if len(others) != 1:
        return None
    (user,) = others
    uses = [line.strip() for line in users.texts[user].split("\n") if re.search(rf"\b{re.escape(d.name)}\b", line)]
    use = max(uses, key=len)
    if not 10 <= len(use) <= 140:
        return None
    return _fill("calls", CALLS, rng, user, name=d.name, path=d.path, user=user, use=use, language=language_of(user) or "")


def _returns(d: Definition, rng: random.Random) -> Lookup | None:
    returned = _RETURN.findall(d.body)
    if len(re.findall(r"\breturn\b", d.body)) != 1 or len(returned) != 1 or len(d.body) > 3000 or returned[0][-1] in "([{,":
        return None
    return _fill("returns", RETURNS, rng, d.path, name=d.name, returned=returned[0])


def _explains(d: Definition, rng: random.Random, lines: Sequence[str]) -> Lookup | None:
    words = comment_of(d, lines)
    if not WORDS_LEAST <= len(words) <= WORDS_MOST or len(d.signature) > 160:
        return None
    return _fill("explains", EXPLAINS, rng, d.path, name=d.name, path=d.path, words=words, line=d.signature, language=language_of(d.path) or "")


def comment_of(d: Definition, lines: Sequence[str]) -> str:
    """The first paragraph of what the code says about a definition, on one line; "" where it says nothing."""
    docstring = _DOCSTRING.match(d.body)
    if docstring is not None:
        return " ".join(docstring[2].split())
    return words_above(lines, d.line)


def words_above(lines: Sequence[str], at: int) -> str:
    """The first paragraph of the comment right above a line, on one line."""
    said: list[str] = []
    for line in reversed(lines[:at]):
        if line.lstrip().startswith(("@", "#[")):
            continue
        comment = _ABOVE.match(line)
        if comment is None:
            break
        said.insert(0, comment[1].strip())
    paragraph = re.split(r"\n\s*\n|\n@|\n#", "\n".join(said).strip())[0]
    return " ".join(paragraph.split())
