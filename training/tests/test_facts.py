"""Facts in single lines of code: which are found, what counts as an answer, how a larger model words them, and what becomes of them in a step."""

import json
import random
import sys
from dataclasses import replace

import pytest
import torch

from nosa_train import ask_teacher, train
from nosa_train.ask_teacher import BY_NAME, BY_NAME_OF_OWNER, batched, generate, named_question, question_prompt, usable_answer, usable_question
from nosa_train.cases import ContextCase
from nosa_train.course import Judge
from nosa_train.evaluate import Evaluator, Reading, fact_tail, summarise
from nosa_train.facts import Fact, asked_facts, choose, facts_of, find_facts, gold, load_facts, save_facts, with_facts
from nosa_train.layouts import QWEN, Layout, encode_document
from nosa_train.lookups import make_infills
from nosa_train.model import Decoder, random_tensors
from nosa_train.repos import Repository, SourceFile
from nosa_train.samples import load_samples
from nosa_train.sparse import BLOCK
from nosa_train.steps import FACTS_MOST, build_step, make_steps
from tests.test_course import CONFIG, folder, run  # noqa: F401
from tests.test_sparse import FILES, adapted, encode  # noqa: F401

PYTHON = '''import os

# How long a client may be silent.
IDLE_SECONDS = 45
DATA_FOLDER = os.environ.get("DESK_DATA", "data")


class Queue:
    """Holds what waits.

    example_size = 99
    """

    batch_most = 12  # of one delivery

    def __init__(self, path, retry_most=7):
        self.journal_name = "events.jsonl"
        attempts = 31
        for attempts in range(5):
            pass


def deliver(
    letters,
    pause: float = 2.5,
):
    with open("outbox.json") as file:
        return file


OPTIONS = {
    "idle_limit": 600,
    "word": word_of(5),
}
'''
SCRIPT = """export const defaults = {
  overdueAfterMs: 7 * dayMs,
  shelfLetter: "shelf-m",
  enabled: true,
};
const bodyBytesMax = 16 * 1024;
export class Desk {
  static readonly codeLength = 6;
  #attemptsMax = 8;
  open(options, waitMs = 1500) {
    const port = options.port ?? 4710;
    const step = 3;
    return process.env.DESK_HOST;
  }
}
"""
GO = "package desk\n\nconst (\n\tmaxShelves = 40\n\tidle time.Duration = 90 * time.Second\n)\n\nvar s = Server{\n\tReadTimeout: 15 * time.Second,\n}\n\nfunc f() {\n\tcount := 77\n}\n"
RUST = '/// Most parcels of a shelf.\npub const PARCELS_MOST: usize = 2_500;\nstatic NAME_OF_LOG: &str = "desk.log";\nfn f() -> Limits {\n    let other = 88;\n    Limits {\n        idle_timeout: Duration::from_secs(35),\n    }\n}\n'


@pytest.mark.parametrize(
    ("path", "text", "wanted"),
    [
        ("desk/queue.py", PYTHON, [("IDLE_SECONDS", "45", ""), ("DATA_FOLDER", "DESK_DATA", ""), ("batch_most", "12", "Queue"), ("retry_most", "7", "Queue"),
                                   ("journal_name", "events.jsonl", "Queue"), ("pause", "2.5", "deliver"), ("deliver", "outbox.json", ""), ("idle_limit", "600", "OPTIONS")]),
        ("src/desk.ts", SCRIPT, [("overdueAfterMs", "7 * dayMs", "defaults"), ("shelfLetter", "shelf-m", "defaults"), ("bodyBytesMax", "16 * 1024", ""), ("codeLength", "6", "Desk"),
                                 ("attemptsMax", "8", "Desk"), ("waitMs", "1500", "open"), ("port", "4710", "open"), ("open", "DESK_HOST", "")]),
        ("desk.go", GO, [("maxShelves", "40", ""), ("idle", "90 * time.Second", ""), ("ReadTimeout", "15 * time.Second", "s")]),
        ("src/desk.rs", RUST, [("PARCELS_MOST", "2_500", ""), ("NAME_OF_LOG", "desk.log", ""), ("idle_timeout", "Duration::from_secs(35)", "f")]),
    ],
)  # fmt: skip
def test_facts_are_found_in_lines_that_say_how_things_are(path, text, wanted):
    found = list(facts_of(SourceFile(path, text)))
    assert [(f.name, f.value, f.owner) for f in found] == wanted
    lines = text.split("\n")
    assert all(f.value in lines[f.line] and lines[f.line] in f.excerpt for f in found)


def test_comments_come_with_their_facts():
    comments = {f.name: f.comment for f in [*facts_of(SourceFile("a.py", PYTHON)), *facts_of(SourceFile("a.rs", RUST))]}
    assert comments["IDLE_SECONDS"] == "How long a client may be silent." and comments["batch_most"] == "of one delivery"
    assert comments["PARCELS_MOST"] == "Most parcels of a shelf." and comments["pause"] == ""


@pytest.mark.parametrize("line", [
    "RETRIES = 0", "RETRIES = 1", "RETRIES = -1", "IS_READY = True", 'MODE_NAME = ""', 'RETRY_MODE = "retry-mode"', 'GREETING = "hello to all of you"', "name = 40",
    "# RETRIES = 40", "    retries = 40", "RETRIES = other * 40", "RETRIES == 40", 'ENCODING_OF_LOGS = "utf-8"', "RETRIES = 40\n# 40 or 40 or 40",
])  # fmt: skip
def test_trivial_lines_are_no_facts(line):
    assert list(facts_of(SourceFile("a.py", f"import os\n\n{line}\n"))) == []


def test_a_name_has_one_value_in_its_package_or_an_owner_to_tell_it_by():
    texts = {"a.py": "LIMIT_OF_A = 5\nSHARED_LIMIT = 6\n\n\nclass One:\n    waits = 20\n    mode_of_it = 'slowly'\n", "b.py": "SHARED_LIMIT = 7\nLIMIT_OF_A = 5\n\n\nclass Two:\n    waits = 30\n    mode_of_it = 'fast'\n",
             "tests/test_c.py": "LIMIT_OF_TESTS = 9\n"}  # fmt: skip
    found = find_facts(Repository("pypi", "demo", "1", "MIT", "", tuple(SourceFile(*each) for each in texts.items())), "train")
    assert [(f.name, f.owner, f.is_shared) for f in found] == [("LIMIT_OF_A", "", False), ("waits", "One", True), ("waits", "Two", True)]
    assert {(f.split, f.repository) for f in found} == {("train", "pypi/demo")}
    assert len({f.path for f in choose(found, 2, 0)}) == 2


@pytest.mark.parametrize(("value", "is_text", "right", "wrong"), [
    ("4710", False, ["It is 4710.", "port 4,710 is", "`4710`"], ["14710", "47100", "4710.5", "4,710,000", "x4710"]),
    ("5_000", False, ["5_000", "5000 ms", "5,000", "5000ms"], ["5 seconds", "15,000"]),
    ("3", False, ["three days", "3 days", "3.", "(3)"], ["13", "3.5", "thirty", "v3a", "sha-3"]),
    ("0.25", False, ["0.25."], ["10.25", "0.256"]),
    ("30.0", False, ["30 seconds", "30.0 s"], ["30.5", "130"]),
    ("16 * 1024", False, ["16 * 1024", "16384", "16,384 bytes", "16*1024"], ["16 and more", "1024"]),
    ("7 * dayMs", False, ["7 days", "seven days", "`7 * dayMs`"], ["17 days", "70"]),
    ("Duration::from_secs(35)", False, ["35 seconds", "35s"], ["350"]),
    ("0x10", False, ["`0x10`", "16"], ["0x100", "10"]),
    ("30u64", False, ["30"], ["64"]),
    ("events.jsonl", True, ["in `events.jsonl`.", "events.jsonl"], ["events.json", "my_events.jsonl", "Events.jsonl"]),
    ("DESK_DATA", True, ["`DESK_DATA`"], ["DESK_DATA_2", "desk data"]),
])  # fmt: skip
def test_an_answer_says_the_value_or_does_not(value, is_text, right, wrong):
    assert all(gold(value, is_text).search(text) for text in right)
    assert not any(gold(value, is_text).search(text) for text in wrong)


FACT = Fact("train", "npm/desk", "src/config.ts", 4, "overdueAfterMs", "defaults", "7 * dayMs", False, "When a parcel is late.", "const defaults = {\n  overdueAfterMs: 7 * dayMs,\n};\n")


def test_questions_are_left_out_that_give_the_answer_away_or_could_be_asked_of_anything():
    assert usable_question(' "After how many days is a parcel overdue?"\n', FACT) == "After how many days is a parcel overdue?"
    assert usable_question("What is the default of `overdueAfterMs`?", FACT)
    named = replace(FACT, is_shared=True)
    assert usable_question("What is the default of `overdueAfterMs` in `defaults`?", named)
    key = replace(FACT, name="_MIN_KEY_SIZE", owner="RSAAlgorithm", value="2048", comment="")
    assert usable_question("What is the minimum length of an RSA key in bits by default?", key)
    assert usable_question("What is the size of a part of the system?", key) is None
    for text, fact in [
        ("After how many days is a parcel overdue", FACT), ("Is a parcel overdue after 7 days?", FACT), ("Is a parcel overdue after seven days?", FACT),
        ("What is the default value of it all?", FACT), ("After how many days is it overdue to ask?", replace(FACT, comment="", name="overdueMs", owner="")),
        ("Is it? When is a parcel overdue?", FACT), ("When is a parcel overdue in this snippet?", FACT), ("Overdue?", FACT),
        ("Parcels wait. When is a parcel overdue?", FACT), ("What is the default of `overdueAfterMs`?", named),
    ]:  # fmt: skip
        assert usable_question(text, fact) is None, text
    assert question_prompt(named).count("Name `defaults`.") == 1
    assert FACT.excerpt in question_prompt(FACT) and question_prompt(FACT).endswith("Ask without writing `overdueAfterMs`.<|im_end|>\n<|im_start|>assistant\n")


def test_a_fact_is_asked_for_by_name_with_its_owner_where_that_tells_it():
    asked = {named_question(fact, random.Random(seed)) for fact in (FACT, replace(FACT, is_shared=True)) for seed in range(60)}
    assert len(asked) == len(BY_NAME) + len(BY_NAME_OF_OWNER) and all("overdueAfterMs" in question for question in asked)
    assert all("defaults" in named_question(replace(FACT, is_shared=True), random.Random(seed)) for seed in range(9))
    host = Fact("train", "npm/desk", "a.ts", 0, "host", "", "DESK_HOST", True, "", "const host = process.env.DESK_HOST;\n")
    assert "environment variable" in named_question(host, random.Random(0)) and "(`host`, an environment variable)" in question_prompt(host)


def test_answers_are_kept_that_say_the_value_and_name_no_other_file():
    for text in ("A parcel is overdue after 7 days.", "It is `7 * dayMs`, as `src/config.ts` says.", " In `config.ts`, seven days.\n"):
        assert usable_answer(text, FACT) == text.strip()
    for text in ("A parcel is overdue after 14 days.", "After 7 days", "7 days.", "It is 7 days, as `src/other.ts` says.", "After 7 days.\n\n```ts\n```", "A parcel is overdue after 7 days, " + "x" * 300 + ".",
                 "A parcel is overdue after 7 hours.", "A parcel is overdue after 7 days, that is 168 of them."):  # fmt: skip
        assert usable_answer(text, FACT) is None


def test_batched_generation_with_a_cache_is_generation_one_by_one():
    model = Decoder(CONFIG, random_tensors(CONFIG, seed=4))
    rng = random.Random(0)
    prompts = [[rng.randrange(CONFIG.vocab) for _ in range(length)] for length in (1, 9, 23, 40, 23)]

    def plain(prompt: list[int], most: int, stops: set[int]) -> list[int]:
        ids = list(prompt)
        for _ in range(most):
            row = torch.tensor(ids)
            causal = torch.ones(len(ids), len(ids)).tril().bool()

            def attend(layer, q, k, v, cis, causal=causal):
                heads = q.shape[1] // k.shape[1]
                logits = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(heads, 1)) * q.shape[-1] ** -0.5
                return torch.einsum("hqk,khd->qhd", logits.masked_fill(~causal, float("-inf")).softmax(-1), v.repeat_interleave(heads, 1))

            with torch.no_grad():
                token = int(model.logits(model.hidden(row, torch.arange(len(ids)), attend)[-1:]).argmax())
            if token in stops:
                break
            ids.append(token)
        return ids[len(prompt) :]

    free = [plain(p, 21, set()) for p in prompts]
    assert generate(model, prompts, 21, set()) == free and len({tuple(f) for f in free}) > 1
    stops = {free[1][3], free[3][12]}
    assert generate(model, prompts, 21, stops) == [plain(p, 21, stops) for p in prompts]
    drawn = [generate(model, prompts, 9, set(), 5.0, seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert generate(model, prompts, 21, set(), 1e-4, 3) == free
    assert sorted(i for batch in batched(prompts, 2, 0) for i in batch) == list(range(5))


def test_what_the_teacher_says_is_written_batch_by_batch(folder, tmp_path, monkeypatch, capsys):  # noqa: F811
    facts = [replace(FACT, path=f"src/{i}.ts") for i in range(6)]
    save_facts(tmp_path / "facts.jsonl.gz", facts)
    lines_before: list[int] = []

    def said(model, prompts, most, stops, temperature=0.0, seed=0):
        lines_before.append(len((tmp_path / "asked.jsonl").read_text().splitlines()))
        if temperature == 0:
            return [spelled("A parcel is late after 7 days." if len(lines_before) < 5 else "A parcel is late after 8 days.") for _ in prompts]
        assert all(tokenizer.decode(p, skip_special_tokens=False).endswith("<|im_start|>assistant\n") for p in prompts)
        return [spelled("When is a parcel overdue?") for _ in prompts]

    tokenizer = ask_teacher.load_tokenizer(folder / "tiny.gguf")

    def spelled(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    monkeypatch.setattr(ask_teacher, "generate", said)
    monkeypatch.setattr("sys.argv", ["ask", "--model", str(folder / "tiny.gguf"), "--facts", str(tmp_path / "facts.jsonl.gz"), "--out", str(tmp_path / "asked.jsonl"), "--batch", "3"])
    ask_teacher.main()
    kept = load_facts(tmp_path / "asked.jsonl")
    # Of each batch of three facts six questions are answered in two calls; the second batch's second call gives wrong answers.
    assert lines_before == [0, 0, 0, 6, 6, 6] and len(kept) == 6
    assert "6 kept" in capsys.readouterr().out
    assert {f.answer for f in kept} == {"A parcel is late after 7 days."} and sum(f.question == "When is a parcel overdue?" for f in kept) == 3
    with (tmp_path / "asked.jsonl").open("a") as out:
        out.write(json.dumps({"split": "cut"})[:9])
    assert load_facts(tmp_path / "asked.jsonl") == kept
    monkeypatch.setattr("sys.argv", [*sys.argv, "--until", "1"])
    ask_teacher.main()
    assert load_facts(tmp_path / "asked.jsonl") == []


def known_fact(file: SourceFile, line: int, question: str, answer: str) -> Fact:
    return Fact("train", "demo", file.path, line, "x", "", "7", False, "", "", question=question, answer=answer)


def test_facts_become_questions_of_a_step_with_the_block_that_their_line_stands_in(tmp_path):
    live = make_infills(FILES, 1, 0, per_file=1)
    files = [f for f in FILES if f.path != live[0].path]
    asked = [known_fact(f, f.text.count("\n") // 2, f"What is it in {i}?", f"It is 7 in `{f.path}`.") for i, f in enumerate(files)]
    written = known_fact(next(f for f in FILES if f.path == live[0].path), 0, "Of the file being written?", "It is 7.")
    path = tmp_path / "asked.jsonl.gz"
    save_facts(path, [*asked, written, replace(asked[0], repository="other"), replace(asked[0], question="")])
    facts = asked_facts(path)
    case = ContextCase("demo", 0, FILES, (), tuple(live))
    assert with_facts(replace(case, repository="none"), facts, 3, random.Random(0)).lookups == ()
    assert len(with_facts(case, facts, 1, random.Random(0)).lookups) == 1
    step = build_step(with_facts(case, facts, 99, random.Random(0)), Layout("segments", "raw", 256), encode, QWEN, 60)
    ids = step.student[0]
    at = [i for i, kind in enumerate(step.kinds) if kind == "fact"]
    assert len(at) == len(asked) and step.kinds[0] == "continue"
    told = {bytes(ids[step.student_context + a : step.student_context + b].tolist()).decode() for a, b in (step.answers[i] for i in at)}
    assert told == {f.answer for f in asked}
    placed = 0
    for i in at:
        first, end = step.answers[i]
        fact = next(f for f in asked if f.answer.encode() == bytes(ids[step.student_context + first : step.student_context + end].tolist()))
        line = next(f for f in FILES if f.path == fact.path).text.split("\n")[fact.line]
        if step.sources[i] >= 0:
            placed += 1
            block = bytes(ids[step.sources[i] * BLOCK : (step.sources[i] + 2) * BLOCK].tolist())
            assert line.encode()[2:] in block
    assert placed >= len(at) // 2


def test_the_tokens_of_a_value_are_known():
    fact = replace(FACT, question="When is a parcel overdue?", answer="Überfällig nach `7 * dayMs`, say the defaults.")
    tail = fact_tail(fact, "raw", lambda text: list(text.encode()), lambda token: chr(token))
    first, end = tail.telling
    assert bytes(tail.answer[first:end]) == b"7 * dayMs" and bytes(tail.answer).decode() == fact.answer


def test_a_value_is_a_row_of_its_own_over_all_sizes(adapted):  # noqa: F811
    fact = replace(FACT, question="When is a parcel overdue?", answer="A parcel is overdue after 7 days.")
    tail = fact_tail(fact, "raw", encode, chr)
    evaluator = Evaluator({"ours": adapted}, encode, chr, QWEN, "cpu")
    documents = [encode_document(f.path, f.text, encode, QWEN) for f in FILES]
    table = [Reading("dense, sequence", Layout("sequence", "raw")), Reading("ours", Layout("segments", "raw", 256), "nosa", adapted="ours")]
    for label in ("8k ", "32k "):
        evaluator.read(table, "demo", documents, [tail], label)
    rows = {(row["reading"], row["kind"]): row for row in summarise(evaluator.scores, evaluator.moves)}
    assert rows["ours", "fact"]["cases"] == rows["ours", "fact's value"]["cases"] == 2
    (score,) = evaluator.scores["ours"]["8k fact's value"]
    assert score.tokens == 1 and 0 < score.nll < evaluator.scores["ours"]["8k fact"][0].nll


def test_a_run_asks_for_facts_of_what_it_reads_and_its_judge_for_those_of_held_out_packages(folder, tmp_path, monkeypatch):  # noqa: F811
    (case,) = load_samples(folder / "train.jsonl.xz")
    rows = [replace(known_fact(f, 1, "What is it, pray?", "It is 7."), repository=f"pypi/{name}") for f in case.files for name in ("train", "watch")]
    save_facts(tmp_path / "asked.jsonl.gz", rows)
    seen, judged = [], []
    make = Judge.__init__
    monkeypatch.setattr(Judge, "__init__", lambda self, *words: make(self, *words) or judged.extend(kind for step in self.steps for kind in step.kinds))
    monkeypatch.setattr("nosa_train.steps.ask_again", lambda case, seed: None)

    def here(sources):
        for step in make_steps(sources[0]):
            seen.extend(step.kinds)
            yield step

    monkeypatch.setattr(train, "prefetch", here)
    run(folder, tmp_path, "--steps", "1", "--seed", "3", "--facts", str(tmp_path / "asked.jsonl.gz"))
    assert seen.count("fact") == judged.count("fact") == FACTS_MOST
