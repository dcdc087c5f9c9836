"""Has the facts of `facts.py` asked and answered in plain words by a larger model of the same family, with the lines before its eyes.

Each fact is asked for twice: by its name, in one of several wordings, and by what it is, in the model's words (asked to name it, a 1.5B model does not).
A question that gives its answer away is left out, and an answer that does not say the value, or says units or numbers that the lines do not. Plain PyTorch: batches of
like length, right-padded, with a KV cache.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .facts import Fact, gold, is_read_from_environment, load_facts
from .gguf_weights import cached_weights, load_tokenizer
from .layouts import chat_tail_text, file_text, header_text
from .model import Decoder
from .repos import language_of

QUESTION_TOKENS, ANSWER_TOKENS = 48, 80
QUESTION_CHARACTERS, ANSWER_CHARACTERS = (20, 160), (20, 300)
TEMPERATURE = 0.7
_SPEAKS_OF_ITSELF = re.compile(r"\b(?:snippet|excerpt|code (?:above|below)|(?:this|given|provided|following) (?:code|file|line|context|script)|according to|in the code|line \d+)\b", re.I)
_FILE_LIKE = re.compile(r"`([\w./-]+\.[A-Za-z]{1,4})`")
_COMMON = set("what which does that this with from have used when value default name many much long into there they their your will would should must file files class function "
              "method constant variable field code number the and for are any all has how not its can may one who set get".split())  # fmt: skip
# How each unit is spelled in answers, and by what a line hints at it.
_UNITS = {
    r"milliseconds?|\bms\b": r"ms\b|Ms(?![a-z])|_ms|milli", r"(?<!milli)seconds?\b": r"sec|_s\b|expires|ttl", r"minutes?\b": r"min", r"hours?\b": r"hour|_h\b|\* 60 \* 60",
    r"\bdays?\b": r"day", r"\bweeks?\b": r"week", r"(?:kilo|mega|\b)bytes?\b|\b[KMG]i?B\b": r"byte|size|1024|buf|chunk", r"\bpixels?\b|\bpx\b": r"pixel|px|width|height",
    r"percent|%": r"percent|%|ratio|share",
}  # fmt: skip
BY_NAME = (
    "What is the value of `{name}`?", "What is `{name}` set to?", "what is {name} here?", "Which value does `{name}` have in `{path}`?", "What does the repository use for `{name}`?",
    "What is {name} set to in {path}?",
)  # fmt: skip
BY_NAME_OF_OWNER = ("What is `{name}` of `{owner}`?", "What is the default of `{name}` in `{owner}`?", "Which value does `{owner}` have for `{name}`?", "What is {name} set to in {owner}?")
FROM_ENVIRONMENT = ("Which environment variable does `{name}` come from?", "What is the environment variable for `{name}` called?", "which environment variable sets {name}?")
# Turns that show how to ask. All made up.
_SHOWN = (
    ("src/pump.ts", "typescript", "export const defaults = {\n  /** Stops by itself. */\n  runMsMax: 20 * minuteMs,\n", "20 * minuteMs", "runMsMax", "", "For how many minutes may a pump run at most by default?"),
    ("mail/outbox.py", "python", 'QUEUE_FILE = "unsent.sqlite"\n', "unsent.sqlite", "QUEUE_FILE", "", "What is the name of the file that the mail outbox keeps its queue in?"),
    ("gate/listen.go", "go", 'func listen() {\n\taddress := os.Getenv("GATE_ADDRESS")\n', "GATE_ADDRESS", "address", ", an environment variable", "Which environment variable sets the address that the gate listens on?"),
    ("web/fetch.py", "python", "def fetch(url, attempts=4):\n", "4", "attempts", " of `fetch`", "How many times does `fetch` try to get a page?"),
)  # fmt: skip


def question_prompt(fact: Fact) -> str:
    """What a question is made from, behind some that show how: the lines, and the answer."""
    of = f" of `{fact.owner}`" if fact.owner else ""
    of += ", an environment variable" if fact.is_text and is_read_from_environment(fact) else ""
    wanted = _wanted(fact.path, language_of(fact.path) or "", fact.excerpt, fact.value, fact.name, of)
    if fact.is_shared:
        wanted += f" Name `{fact.owner}`."
    turns = [turn for *lines, question in _SHOWN for turn in (("user", _wanted(*lines)), ("assistant", question))]
    said = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in [("system", _TASK), *turns, ("user", wanted)])
    return f"{said}<|im_start|>assistant\n"


_TASK = (
    "You write the short question of a developer who has not seen the code, does not know the names in it, and wants to know one value. Say in plain words what the value is of, "
    "so that nothing else in a large code base could be meant; never write the value."
)


def _wanted(path: str, language: str, lines: str, value: str, name: str, of: str) -> str:
    return f"`{path}`:\n```{language}\n{lines}```\nThe answer is `{value}` (`{name}`{of}). Ask without writing `{name}`."


def named_question(fact: Fact, rng: random.Random) -> str:
    if fact.is_text and is_read_from_environment(fact):
        wordings = FROM_ENVIRONMENT
    elif fact.owner and (fact.is_shared or rng.random() < 0.5):
        wordings = BY_NAME_OF_OWNER
    else:
        wordings = BY_NAME
    return rng.choice(wordings).format(name=fact.name, owner=fact.owner, path=fact.path)


def answer_prompt(fact: Fact, names_file: bool) -> str:
    """As the product asks, with the lines for a repository; half of the answers are to name their file."""
    how = "Answer in one sentence that names the file in backticks." if names_file else "Answer in one sentence."
    return header_text("raw", fact.repository.rsplit("/", 1)[-1]) + file_text(fact.path, fact.excerpt) + chat_tail_text("raw", f"{fact.question} {how}", "")


def usable_question(text: str, fact: Fact) -> str | None:
    """The question, or None when it is none, gives its answer away, or could be asked of anything."""
    question = text.strip().strip('"').strip()
    low, high = QUESTION_CHARACTERS
    if not low <= len(question) <= high or not question.endswith("?") or question.count("?") > 1 or re.search(r"[.!]\s+[A-Z]|\n", question):
        return None
    if gold(fact.value, fact.is_text).search(question) or fact.value.lower() in question.lower() or _SPEAKS_OF_ITSELF.search(question):
        return None
    names = set(re.findall(r"\w+", question))
    if fact.is_shared and fact.owner not in names:
        return None
    about = words_of(f"{fact.name} {fact.owner} {fact.comment} {fact.path.rpartition('/')[2]}")
    if fact.name not in names and len(words_of(question) & about) < 2:
        return None
    return question


def words_of(text: str) -> set[str]:
    """What a text speaks of: the beginnings of its words, also of those that a name is made of."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_", " ", text)
    return {word.lower()[:5] for word in re.findall(r"[A-Za-z]{3,}", parted) if word.lower() not in _COMMON}


def usable_answer(text: str, fact: Fact) -> str | None:
    """The answer, or None when it does not say the value, or names a file that it does not come from."""
    answer = text.strip()
    low, high = ANSWER_CHARACTERS
    if not low <= len(answer) <= high or "\n" in answer or not answer.endswith((".", "`.", "!", "`")) or answer.count("`") % 2:
        return None
    if not gold(fact.value, fact.is_text).search(answer) or not units_fit(f"{fact.question} {answer}", fact) or re.search(r"\b(?:snippet|excerpt|provided|not specified|sorry|cannot)\b", answer, re.I):
        return None
    named = [name for name in _FILE_LIKE.findall(answer) if name != fact.value and name.rpartition(".")[2] in _ENDINGS]
    return answer if all(fact.path.endswith(name) for name in named) else None


def units_fit(said: str, fact: Fact) -> bool:
    """Whether every unit that is spoken of is hinted at by the fact's own words, and every other number stands in its lines. A string has no unit."""
    unit = re.sub(r"(?<=[a-z])Ms\b", "", " ".join(re.findall(r"[A-Za-z_.]{3,}", fact.value)))  # seven of `dayMs` are days
    hints = unit or f"{fact.name} {fact.owner} {fact.comment}"
    if not fact.is_text and not all(re.search(hint, hints, re.I) for spelled, hint in _UNITS.items() if re.search(spelled, said, re.I)):
        return False
    others = re.findall(r"\d+", gold(fact.value, fact.is_text).sub("", said))
    return set(others) <= set(re.findall(r"\d+", f"{fact.excerpt} {fact.path} {fact.name}"))


_ENDINGS = {"py", "js", "mjs", "cjs", "jsx", "ts", "tsx", "mts", "rs", "go", "json", "toml", "md"}


class CachedAttention:
    """Attention over a batch of rows with their keys and values kept; row b holds `lengths[b]` tokens from place 0 on, whatever it was padded to.

    The decoder sees one long row: tokens of the batch one after the other.
    """

    def __init__(self, layers: int, lengths: Tensor, room: int):
        self.lengths, self.room = lengths, room
        self.keys: list[Tensor] = []  # by layer [B, G, room, D]
        self.values: list[Tensor] = []
        self.layers = layers
        self.seen = torch.zeros((len(lengths), 1, 1, room), dtype=torch.bool, device=lengths.device)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, cis: Tensor | None) -> Tensor:
        batch = len(self.lengths)
        heads, groups, dim = q.shape[1], k.shape[1], q.shape[2]
        if len(self.keys) < self.layers:  # the prompts: padding stands behind, so that nobody sees it
            wide = [x.view(batch, -1, x.shape[1], dim).transpose(1, 2) for x in (q, k, v)]
            room = self.room - wide[1].shape[2]
            self.keys.append(F.pad(wide[1], (0, 0, 0, room)))
            self.values.append(F.pad(wide[2], (0, 0, 0, room)))
            again = [x.repeat_interleave(heads // groups, 1) for x in wide[1:]]
            return F.scaled_dot_product_attention(wide[0], *again, is_causal=True).transpose(1, 2).reshape(-1, heads, dim)
        rows = torch.arange(batch, device=q.device)
        self.keys[layer][rows, :, self.lengths] = k
        self.values[layer][rows, :, self.lengths] = v
        # The heads that share a key are so many queries of one head: nothing is repeated.
        asked = q.view(batch, groups, heads // groups, dim)
        return F.scaled_dot_product_attention(asked, self.keys[layer], self.values[layer], attn_mask=self.seen).reshape(batch, heads, dim)


@torch.inference_mode()
def generate(model: Decoder, prompts: Sequence[Sequence[int]], most: int, stops: Collection[int], temperature: float = 0.0, seed: int = 0) -> list[list[int]]:
    """What the model says after each prompt, up to `most` tokens, without the token that ended it. Greedy at temperature 0."""
    device = model.embedding.device
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    width = max(map(len, prompts))
    padded = torch.tensor([[*p, *[0] * (width - len(p))] for p in prompts], device=device)
    attend = CachedAttention(len(model.layers), lengths, -(-(width + most) // 16) * 16)
    places = torch.arange(width, device=device).expand(len(prompts), -1)
    hidden = model.hidden(padded.flatten(), places.flatten(), attend).view(len(prompts), width, -1)
    hidden = hidden[torch.arange(len(prompts), device=device), lengths - 1]
    ends = torch.tensor(sorted(stops), device=device)
    rng = torch.Generator(device).manual_seed(seed)
    said: list[Tensor] = []
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    for number in range(most):
        logits = model.logits(hidden).float()
        token = logits.argmax(-1) if temperature == 0 else torch.multinomial((logits / temperature).softmax(-1), 1, generator=rng)[:, 0]
        said.append(token)
        done |= torch.isin(token, ends)
        if number + 1 == most or (number % 8 == 7 and bool(done.all())):
            break
        attend.seen = (torch.arange(attend.room, device=device) <= attend.lengths[:, None])[:, None, None]
        hidden = model.hidden(token, attend.lengths, attend)
        attend.lengths = attend.lengths + 1
    columns = torch.stack(said, 1).tolist()
    return [row[: next((at for at, token in enumerate(row) if token in stops), len(row))] for row in columns]


def batched(prompts: Sequence[list[int]], size: int, seed: int) -> Iterator[list[int]]:
    """Indices of prompts of like length, batches in random order: a run that is cut has some of all lengths."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    batches = [order[at : at + size] for at in range(0, len(order), size)]
    random.Random(seed).shuffle(batches)
    yield from batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a Qwen2 GGUF larger than the one to be trained")
    parser.add_argument("--facts", type=Path, nargs="+", required=True, help="files of nosa_train.facts; the first are asked first")
    parser.add_argument("--out", type=Path, required=True, help="facts with question and answer, a line each")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--most", type=int, help="at most so many facts of each file")
    parser.add_argument("--until", type=float, default=1e12, help="no batch is begun after this time (seconds since 1970)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=0, help="print so many, with what was left out")
    args = parser.parse_args()
    begun = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew for every length
    config, tensors = cached_weights(args.model, torch.bfloat16 if device == "cuda" else torch.float32)
    model = Decoder(config, {name: t.to(device) for name, t in tensors.items()})
    tokenizer = load_tokenizer(args.model)
    stops = {i for piece in ("<|im_end|>", "<|endoftext|>") if (i := tokenizer.token_to_id(piece)) is not None}
    print(f"{time.monotonic() - begun:.0f} s to get ready", flush=True)

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    kept = shown = 0
    with args.out.open("w") as out:
        for number, path in enumerate(args.facts):
            facts = load_facts(path)[: args.most]
            prompts = [encode(question_prompt(fact)) for fact in facts]
            for turn, batch in enumerate(batched(prompts, args.batch, args.seed)):
                if time.time() > args.until:
                    break
                seed = args.seed * 100_000 + number * 10_000 + turn
                said = [tokenizer.decode(ids) for ids in generate(model, [prompts[i] for i in batch], QUESTION_TOKENS, stops, TEMPERATURE, seed)]
                rng = random.Random(seed)
                questions = [(facts[i], text) for i, text in zip(batch, said, strict=True)] + [(facts[i], named_question(facts[i], rng)) for i in batch]
                known = [replace(fact, question=question) for fact, text in questions if (question := usable_question(text, fact)) is not None]
                answers = []
                for at in range(0, len(known), args.batch):
                    wanted = [encode(answer_prompt(fact, rng.random() < 0.5)) for fact in known[at : at + args.batch]]
                    answers += [tokenizer.decode(ids) for ids in generate(model, wanted, ANSWER_TOKENS, stops)]
                right = [replace(fact, answer=answer) for fact, text in zip(known, answers, strict=True) if (answer := usable_answer(text, fact)) is not None]
                out.writelines(json.dumps(asdict(fact)) + "\n" for fact in right)
                out.flush()
                kept += len(right)
                print(f"{path.name}: {turn + 1} batches, {len(known)} of {2 * len(batch)} questions and {len(right)} answers are usable; {kept} kept, {time.monotonic() - begun:.0f} s", flush=True)
                if shown < args.show:
                    shown += len(batch)
                    show(questions, known, answers)
    print(f"{kept} kept, {args.out}")


def show(questions: Sequence[tuple[Fact, str]], known: Sequence[Fact], answers: Sequence[str]) -> None:
    replies = iter(zip(known, answers, strict=True))
    for fact, text in questions:
        print(f"--- {fact.path}:{fact.line + 1} [{fact.owner}] {fact.name} = {fact.value!r}")
        if usable_question(text, fact) is None:
            print(f"    left out, Q: {text.strip()}")
            continue
        asked, answer = next(replies)
        print(f"    Q: {asked.question}\n    {'A' if usable_answer(answer, asked) else 'left out, A'}: {answer.strip()}")


if __name__ == "__main__":
    main()
