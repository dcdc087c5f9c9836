"""Places where somebody types, and prompts that ask for them in either order."""

import random

import pytest

from nosa_train.layouts import QWEN, fim_tail_text
from nosa_train.lookups import Infill
from nosa_train.questions import comment_of, make_questions
from nosa_train.lookups import definitions
from nosa_train.repos import SourceFile
from nosa_train.samples import SUFFIX_FIRST, infill_tail
from nosa_train.typed import cut_within, typed_holes, whole_lines

TEXT = "import os\n\n\n" + "".join(
    f'def read_{i}(path, limit):\n    """Reads at most so many bytes of a file, from its beginning on."""\n    with open(path, "rb") as file:\n        return decode(file.read(limit + {i}))\n\n\n'
    for i in range(9)
)
FILE = SourceFile("pkg/read.py", TEXT)


def test_a_typed_place_and_its_answer_are_the_file():
    holes = typed_holes([FILE], 24, 3)
    assert len(holes) == 24 and len({(h.prefix, h.answer, h.suffix) for h in holes}) >= 22  # windows of repeated code may be alike
    for hole in holes:
        around = hole.prefix + hole.answer + hole.suffix
        assert around in TEXT and hole.answer.strip()
        # What is behind the cursor on its line is what an editor closes by itself; an answer to the end of its line has the end with it.
        rest = hole.suffix.split("\n")[0] if not hole.answer.endswith("\n") else ""
        assert all(c in ")]}\"'`;,:" for c in rest)
    within_words = [h for h in holes if h.prefix[-1:].isalnum() and h.answer[:1].isalnum()]
    assert len(within_words) >= 5
    assert any(h.answer.count("\n") > 1 for h in holes) and any(not h.answer.endswith("\n") for h in holes)
    assert typed_holes([FILE], 24, 3) == holes != typed_holes([FILE], 24, 4)
    assert typed_holes([], 3, 0) == []


def test_a_line_is_cut_behind_its_indentation():
    infill = Infill("a.py", "f", "b.py", "x = 1\n", "y = 2\n", "    return call(x)\n")
    for seed in range(20):
        cut = cut_within(infill, random.Random(seed))
        assert cut.prefix + cut.answer == infill.prefix + infill.answer
        assert len("x = 1\n    r") <= len(cut.prefix) and len(cut.answer) >= 2
    short = Infill("a.py", "f", "b.py", "", "", "  }\n")
    assert cut_within(short, random.Random(0)) == short


@pytest.mark.parametrize(("text", "most", "kept"), [("ab\ncd\nef\n", 7, "ab\ncd\n"), ("abcdefgh\nij", 6, "abcdef"), ("a\n" + "b" * 20, 12, "a\n" + "b" * 10), ("", 5, "")])
def test_a_suffix_is_of_whole_lines_unless_that_loses_more_than_half(text, most, kept):
    assert whole_lines(text, most) == kept


def test_with_the_suffix_first_a_prompt_ends_with_what_is_typed():
    text = fim_tail_text("a.py", "before", "behind", QWEN, "suffix-first")
    assert text == "<|file_sep|>a.py\n<|fim_prefix|><|fim_suffix|>behind<|fim_middle|>before"
    infill = Infill("a.py", "name", "b.py", "before", "behind", "answer\n")
    tails = [infill_tail(infill, lambda t: list(t.encode()), QWEN, order) for order in ("prefix-first", "suffix-first")]
    assert [t.kind for t in tails] == ["infill", SUFFIX_FIRST] and tails[0].answer == tails[1].answer and tails[0].prompt != tails[1].prompt


def test_explanations_are_the_codes_own_words():
    questions = [q for q in make_questions([FILE], 9, 1) if q.kind == "explains"]
    assert questions and all("Reads at most so many bytes of a file, from its beginning on." in q.answer_start + q.answer for q in questions)
    rust = "/// Opens the store.\n/// Fails when it is locked.\n///\n/// # Errors\n#[inline]\npub fn open_store(path: &Path) -> Store {\n    todo!()\n}\n"
    (found,) = definitions(SourceFile("a.rs", rust))
    assert comment_of(found, rust.split("\n")) == "Opens the store. Fails when it is locked."
    bare = "x = 1\n\ndef plain_one(a):\n    return a\n"
    (found,) = definitions(SourceFile("a.py", bare))
    assert comment_of(found, bare.split("\n")) == ""
