"""Facts that stand in single lines of code: constants, defaults, fields of a configuration, file names, variables of the environment.

Found by regular expressions, without any model; `ask_teacher` has them asked and answered in plain words. A fact has one value in its
package and hardly another place in its surroundings, so that an answer either says it or does not.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from . import repos
from .cases import SIDE, ContextCase, load_cases
from .lookups import Lookup
from .questions import words_above
from .repos import Repository, SourceFile, language_of
from .samples import load_samples

_NUMBER = r"-?(?:0[xX][0-9a-fA-F_]+|\d[\d_]*(?:\.\d+)?(?:[eE][-+]?\d+)?)"
_SUFFIX = r"(?:[iu](?:8|16|32|64|128|size)|f32|f64|n)?"
# What a number is multiplied with to be a length of time or a size.
_UNIT = r"(?:[A-Za-z_]\w*\.)?\w*(?i:second|minute|hour|day|week|month|year|milli|micro|nano|ms|sec|min|[kmg]i?b|byte)\w*"
# 30   16 * 1024   7 * dayMs   time.Second * 30   Duration::from_secs(30)   timedelta(days=7)
_QUANTITY = (rf"{_NUMBER}{_SUFFIX}(?:\s*\*\s*(?:{_NUMBER}{_SUFFIX}|{_UNIT}))*|{_UNIT}\s*\*\s*{_NUMBER}"
             rf"|(?:Duration::from_\w+|(?:\w+\.)?timedelta|time\.Duration)\((?:\w+=)?{_NUMBER}\)")  # fmt: skip
_STRING = r"\"[^\"\\\n]{3,48}\"|'[^'\\\n]{3,48}'"
_VALUE = rf"(?P<value>{_QUANTITY}|{_STRING})"
_NAME = r"(?P<name>[A-Za-z_][\w]{2,40})"
_LEADS = r"(?P<lead>(?:(?:export|default|pub(?:\([^)\n]*\))?|public|private|protected|static|readonly|final|const|let|var|mut|declare)\s+)*)"
_LINE = re.compile(rf"(?P<indent>[ \t]*){_LEADS}(?P<self>self\.|this\.|#)?(?P<quote>[\"']?){_NAME}(?P=quote)"
                   rf"(?P<type>\??\s*:\s*[^=\n,:\"'()]{{1,60}}?)?\s*(?P<mark>:=|=|:)\s*{_VALUE}\s*(?P<end>[;,]?)\s*(?:(?:#|//(?!\s*\d)|/\*).*)?$")  # fmt: skip
_TYPED_GO = re.compile(rf"(?P<indent>[ \t]*)(?P<lead>(?:const |var )?){_NAME}\s+[\w.*\[\]]+\s*(?P<mark>=)\s*{_VALUE}\s*(?://.*)?$")
_DEFAULT = re.compile(rf"[(,]\s*(?:readonly |private |public )*{_NAME}(?:\s*:\s*[^=,()\n]{{1,50}}?)?\s*=\s*{_VALUE}\s*(?=[,)])")
_SIGNATURE = re.compile(r"\b(?:def|function\*?|constructor)\b|^[ \t]+(?:async |static )*\w+\([^)]*\)[^;]*\{\s*$")
_ENVIRONMENT = re.compile(r"(?:environ(?:\.get\(|\[)|[gG]etenv\(|LookupEnv\(|process\.env(?:\.|\[)|\benv::var(?:_os)?\()\s*[\"']?(?P<value>[A-Z][A-Z0-9_]{3,40})\b")
_FILE = re.compile(r"(?<=[\s(,=:\[])(?P<value>([\"'])[\w./-]{2,40}\.(?:jsonl?|ya?ml|toml|ini|cfg|conf|lock|log|txt|csv|db|sqlite3?|pid|sock|html?|pem|dat)\2)")
_COMMENT = re.compile(r"\s*(?:#(?!\w)|//|/\*|\*|>>>)")
_IMPORT = re.compile(r"^\s*(?:import|from|export|use|require|#|//|\*)|require\(")
_FALLS_BACK = re.compile(rf"(?:\?\?|\|\||\.unwrap_or\(|\bor)\s*{_VALUE}\s*[;,)]*\s*$")
_ASSIGNED = re.compile(rf"^[ \t]*(?:const |let |var |self\.|this\.)*{_NAME}\s*(?::[^=\n]*)?[:=]")
_OWNER = re.compile(r"\b(?:class|def|function\*?|func|fn|struct|impl|enum|interface|const|let|var|type|static)\s+(?:\([^)]*\)\s*)?(?:<[^>]*>\s*)?([A-Za-z_]\w*)|^[ \t]*([A-Za-z_]\w*)\s*[=(:]")
_KEYWORDS = set("Args Returns Raises Example Examples Note Yields __init__ constructor if elif else for while switch case default function pub const var let return raise throw print yield await else try with async import from require export assert".split())
_HOLDS_FIELDS = re.compile(r"^[ \t]*(?:export |default |pub |abstract |public |final )*(?:class|enum|struct|interface|trait)\b|^(?:const|var) \($")
# Names that say nothing by themselves, and values that say nothing at all.
_PLAIN_NAMES = set("type name value values key id kind title label text message msg description desc version status code index size length count data item items args result "
                   "res ret tmp temp left right width height start end begin stop step line lines path file source target total sum num level mode flag flags "
                   "pos offset first last prev next char token state node out err error i18n main test self this default defaults options opts alias summary help usage "
                   "doc docs example examples prefix suffix color colour url uri href tag category group author license licence email encoding format input output "
                   "operator expr regex pattern match priority order weight".split())  # fmt: skip
_PLAIN_VALUES = set("utf-8 utf8 ascii get post put delete none true false null undefined string number object function boolean array default auto int str float bool bytes unknown "
                    "other error warning info use strict module node_env home path user debug".split())  # fmt: skip
_PROSE = re.compile(r"[{}<>$%|]|\s\S+\s\S+\s")
LINES_AROUND = (9, 7)
EXCERPT_CHARACTERS = 1400
FILE_MOST = 10  # tables of a hundred names are one thing to learn, not a hundred
OFTEN = 2  # a value that stands more often in its surroundings is found without looking
_WORDS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty".split()
_UNITS = r"(?:ms|s|secs?|seconds?|m|min|h|hours?|d|days?|px|em|pt|b|kb|mb|gb|kib|mib|gib|bytes?|bits?|x|k|th)\b"


@dataclass(frozen=True)
class Fact:
    split: str
    repository: str
    path: str
    line: int  # from 0
    name: str
    owner: str  # what the line belongs to: a class, a function, an object; "" where it stands for itself
    value: str  # as it is written, strings without their quotes
    is_text: bool
    comment: str
    excerpt: str
    is_shared: bool = False  # whether its name stands for another value elsewhere
    question: str = ""
    answer: str = ""

    def lookup(self, text: str) -> Lookup:
        """As a question of a case; `text` is of the fact's file."""
        return Lookup("fact", self.question, "", self.answer, self.path, "\n".join(text.split("\n")[self.line : self.line + 6]) + "\n")


def find_facts(repository: Repository, split: str) -> list[Fact]:
    """All facts of a package, but where one name of one owner has several values. Of a name that has another value elsewhere only numbers are taken, and a question must name the owner."""
    found = [fact for file in repository.files if not SIDE.search(file.path) for fact in facts_of(file)]
    values: dict[str, set[str]] = defaultdict(set)
    owned: dict[tuple[str, str], set[str]] = defaultdict(set)
    for fact in found:
        values[fact.name].add(fact.value)
        owned[fact.owner, fact.name].add(fact.value)
    kept: dict[tuple[str, str], Fact] = {}
    for fact in found:
        is_shared = len(values[fact.name]) > 1
        key = (fact.owner if is_shared else "", fact.name)
        if key not in kept and (not is_shared or (fact.owner and not fact.is_text and len(owned[key]) == 1)):
            kept[key] = replace(fact, split=split, repository=repository.key, is_shared=is_shared)
    return list(kept.values())


def facts_of(file: SourceFile) -> Iterator[Fact]:
    lines = file.text.split("\n")
    language = language_of(file.path) or ""
    for at in _of_code(lines, language):
        line = lines[at]
        if len(line) > 200 or not any(c in line for c in "=:([."):
            continue
        for name, raw in _told(line, lines, at, language):
            is_text = raw[0] in "\"'"
            value = raw[1:-1] if is_text else raw
            if is_trivial(name, value, is_text):
                continue
            above, owner = owner_of(lines, at)
            owner = "" if owner == name else owner
            excerpt = _excerpt(lines, at, above)
            if 1 <= len(list(gold(value, is_text).finditer(excerpt))) <= OFTEN:
                yield Fact("", "", file.path, at, name, owner, value, is_text, _comment(lines, at), excerpt)


def _of_code(lines: Sequence[str], language: str) -> Iterator[int]:
    """Numbers of the lines that are neither comments nor parts of strings of several lines."""
    inside = ""
    marks = ('"""', "'''") if language == "python" else ("`",) if language in ("javascript", "typescript", "go") else ()
    for at, line in enumerate(lines):
        if inside:
            inside = "" if line.count(inside) % 2 else inside
            continue
        if _COMMENT.match(line):
            continue
        inside = next((mark for mark in marks if line.count(mark) % 2), "")
        if not inside:
            yield at


def _told(line: str, lines: Sequence[str], at: int, language: str) -> Iterator[tuple[str, str]]:
    """Names and values that a line gives, values with their quotes."""
    assigned = _ASSIGNED.match(line)
    if environment := _ENVIRONMENT.search(line):
        if name := assigned["name"] if assigned else owner_of(lines, at)[1]:
            yield name, f'"{environment["value"]}"'
        return
    if _SIGNATURE.search(line):
        for default in _DEFAULT.finditer(line):
            yield default["name"], default["value"]
        return
    match = _LINE.match(line) or (_TYPED_GO.match(line) if language == "go" else None)
    if match is not None and _stands_for_itself(match, lines, at, language):
        yield match["name"], match["value"]
    elif found := _FALLS_BACK.search(line):
        if assigned:
            yield assigned["name"], found["value"]
    elif (found := _FILE.search(line)) and not _IMPORT.match(line):
        if name := assigned["name"] if assigned else owner_of(lines, at)[1]:
            yield name, found["value"]


def is_read_from_environment(fact: Fact) -> bool:
    return any(found["value"] == fact.value for found in _ENVIRONMENT.finditer(fact.excerpt))


def _stands_for_itself(match: re.Match[str], lines: Sequence[str], at: int, language: str) -> bool:
    """Whether the line says how things are, rather than being one of many steps of a function."""
    parts = {"self": None, "quote": "", "end": ""} | match.groupdict()
    if match["mark"] == ":":
        closes = at + 1 < len(lines) and lines[at + 1].lstrip()[:1] in ("}", ")")
        return (parts["end"] == "," or closes) and bool(match["indent"]) and (language != "python" or bool(parts["quote"]))
    if parts["quote"] or match["mark"] == ":=":
        return False
    name = match["name"]
    if (name.isupper() and len(name) >= 4) or parts["self"] or re.search(r"\b(?:static|readonly|private|public|protected)\b", match["lead"] or ""):
        return True
    if not match["indent"]:
        return language == "python" or bool((match["lead"] or "").strip())
    above = enclosing(lines, at)
    around = lines[above] if above >= 0 else ""
    if _SIGNATURE.search(around) and not around.rstrip().endswith((":", "{")):
        return True  # a parameter's default on a line of its own
    return bool(_HOLDS_FIELDS.search(around)) and not (match["lead"] or "").strip().startswith("let")


def enclosing(lines: Sequence[str], at: int) -> int:
    """The next line above that is indented less; -1 where there is none."""
    indent = len(lines[at]) - len(lines[at].lstrip())
    for above in range(at - 1, max(-1, at - 400), -1):
        line = lines[above]
        if line.strip() and len(line) - len(line.lstrip()) < indent and not _COMMENT.match(line) and line.lstrip()[0] not in ")]}":
            return above
    return -1


def owner_of(lines: Sequence[str], at: int) -> tuple[int, str]:
    """The nearest enclosing line that gives a name, and that name; -1 and "" where there is none. A signature owns its defaults."""
    above = at if _SIGNATURE.search(lines[at]) else enclosing(lines, at)
    while above >= 0:
        found = _OWNER.search(lines[above])
        name = (found[1] or found[2]) if found else ""
        if name and name not in _KEYWORDS:
            return above, name
        above = enclosing(lines, above)
    return -1, ""


def is_trivial(name: str, value: str, is_text: bool) -> bool:
    if name.lower().strip("_") in _PLAIN_NAMES or len(name.strip("_")) < 4 or name.startswith("__"):
        return True
    if is_text:
        spoken = re.sub(r"\W|_", "", value).lower()
        same = re.sub(r"_", "", name).lower()
        return len(re.findall(r"[A-Za-z]", value)) < 2 or value.lower() in _PLAIN_VALUES or bool(_PROSE.search(value)) or spoken in same or same in spoken or value != value.strip()
    numbers = re.findall(_NUMBER, value)
    return not numbers or all(abs(_number(n)) in (0, 1) for n in numbers) or len(value) > 40


def _number(written: str) -> float:
    plain = written.replace("_", "")
    return float(int(plain, 16)) if "x" in plain.lower() else float(plain)


def gold(value: str, is_text: bool) -> re.Pattern[str]:
    """What an answer that says the value has in it: a string as it is; a number as written, in plain digits, with separators, or spelled."""
    if is_text:
        start, end = (r"(?<!\w)" if value[0].isalnum() else "", r"(?!\w)" if value[-1].isalnum() else "")
        return re.compile(start + re.escape(value) + end)
    value = re.sub(rf"(?<=\d){_SUFFIX}(?!\w)", "", value)
    numbers = re.findall(rf"(?<![\w.]){_NUMBER}(?!\w)", value)
    product = math.prod(map(_number, numbers))
    forms = {value, value.replace("_", ""), *([n for n in numbers if len(numbers) == 1])}
    if product == int(product) and abs(product) < 1e15:
        whole = int(product)
        forms |= {str(whole), f"{whole:,}", f"{whole:_}", f"{whole}.0"}
        forms |= {_WORDS[whole]} if 0 <= whole < len(_WORDS) else set()
    else:
        forms.add(repr(product))
    spelled = "|".join(re.sub(r"(?:\\ )?\\\*(?:\\ )?", r"\\s*[*×x]\\s*", re.escape(form)) for form in sorted(forms, key=len, reverse=True))
    return re.compile(rf"(?<![\w.])(?<!\w-)(?<!\d,)(?:{spelled})(?:(?={_UNITS})|(?!\w))(?![.,]\d)", re.I)


def _comment(lines: Sequence[str], at: int) -> str:
    beside = re.search(r"\s(?:#|//|/\*)\s?(.{6,160}?)(?:\*/)?$", lines[at])
    words = beside[1] if beside else words_above(lines, at)
    return words[:240].strip() if len(words) > 5 else ""


def _excerpt(lines: Sequence[str], at: int, above: int) -> str:
    """The lines around, fewer where they are long, led by the line that they belong to."""
    before, behind = LINES_AROUND
    while True:
        first, end = max(0, at - before), min(len(lines), at + behind + 1)
        chosen = lines[first:end]
        if 0 <= above < first:
            chosen = [lines[above], "    ...", *chosen]
        text = "\n".join(chosen).strip("\n") + "\n"
        if len(text) <= EXCERPT_CHARACTERS or before + behind < 4:
            return text
        before, behind = max(2, before - 1), max(2, behind - 1)


def choose(facts: Sequence[Fact], most: int, seed: int) -> list[Fact]:
    """One of each file, then a second one, up to `FILE_MOST`; no package has more than four times its share."""
    rng = random.Random(seed)
    mixed = rng.sample(list(facts), len(facts))
    turn: Counter[tuple[str, str]] = Counter()
    ranked = []
    for fact in mixed:
        ranked.append((turn[fact.repository, fact.path], fact))
        turn[fact.repository, fact.path] += 1
    ranked.sort(key=lambda pair: pair[0])
    share = max(8, 4 * most // max(1, len({f.repository for f in facts})))
    taken: Counter[str] = Counter()
    chosen = []
    for place, fact in ranked:
        if len(chosen) < most and place < FILE_MOST and taken[fact.repository] < share:
            taken[fact.repository] += 1
            chosen.append(fact)
    return chosen


def save_facts(path: Path, facts: Iterable[Fact]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as out:
        out.writelines(json.dumps(asdict(fact)) + "\n" for fact in facts)


def load_facts(path: Path) -> list[Fact]:
    """What `save_facts` or `ask_teacher` wrote; a last line that was cut is left out."""
    packed = gzip.open if path.suffix == ".gz" else open
    with packed(path, "rt", encoding="utf-8") as lines:
        return [Fact(**json.loads(line)) for line in lines if line.endswith("\n")]


Facts = dict[str, dict[str, list[Fact]]]  # by package, then by path


def asked_facts(path: Path | None) -> Facts:
    """Facts that have their question and answer."""
    by_path: Facts = defaultdict(lambda: defaultdict(list))
    for fact in load_facts(path) if path is not None else []:
        if fact.question and fact.answer:
            by_path[fact.repository][fact.path].append(fact)
    return by_path


def with_facts(case: ContextCase, facts: Facts, most: int, rng: random.Random) -> ContextCase:
    """The case with up to `most` more questions, each about another fact of its files, but of those being written."""
    live = {i.path for i in case.infills}
    here = facts.get(case.repository, {})
    known = [fact.lookup(file.text) for file in case.files if file.path not in live for fact in here.get(file.path, ())]
    one_each = {(q.path, q.source): q for q in rng.sample(known, len(known))}
    return replace(case, lookups=case.lookups + tuple(one_each.values())[:most])


def _read_paths(files: Sequence[Path]) -> set[tuple[str, str]]:
    contexts = [case for path in files for case in (load_cases(path) if path.suffix == ".json" else load_samples(path))]
    return {(case.repository, file.path) for case in contexts for file in case.files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repos", type=Path, required=True, help="a split written by nosa_train.repos; its name becomes the facts' split")
    parser.add_argument("--read", type=Path, nargs="*", default=[], help="samples or cases: facts of files that none of them holds are left out")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--most", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=0, help="print so many of them")
    args = parser.parse_args()
    split = args.repos.name.split(".")[0]
    found = [fact for repository in repos.load(args.repos) for fact in find_facts(repository, split)]
    read = _read_paths(args.read)
    usable = [f for f in found if not args.read or (f.repository, f.path) in read]
    chosen = choose(usable, args.most, args.seed)
    save_facts(args.out, chosen)
    print(f"{len(found)} facts, {len(usable)} in files that are read, {len(chosen)} of {len({f.repository for f in chosen})} packages kept, {args.out.stat().st_size / 1e6:.1f} MB")
    for fact in random.Random(args.seed).sample(chosen, min(args.show, len(chosen))):
        print(f"{fact.repository} {fact.path}:{fact.line + 1}  [{fact.owner}] {fact.name} = {fact.value!r}  {fact.comment}")


if __name__ == "__main__":
    main()
