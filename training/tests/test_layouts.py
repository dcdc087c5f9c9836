"""Layouts on a tiny random model: what sees what, and that both attention routes agree."""

import pytest
import torch

from nosa_train import attention
from nosa_train.attention import ContextCache, Correction
from nosa_train.cases import ContextCase
from nosa_train.gguf_weights import ModelConfig
from nosa_train.layout_experiment import PLAIN, Reader, evaluate, run_case
from nosa_train.layouts import QWEN, Document, Layout, build_segments, encode_document, tails_row
from nosa_train.lookups import make_infills, make_lookups
from nosa_train.model import Decoder, random_tensors
from nosa_train.repos import SourceFile

CONFIG = ModelConfig(layers=2, hidden=48, heads=6, kv_heads=2, head_dim=8, ffn=64, vocab=256, rope_theta=10000.0, norm_eps=1e-6, context=4096)

FILES = (
    SourceFile("pkg/shapes.py", "import math\n\n\ndef circle_area(radius):\n    return math.pi * radius ** 2\n\n\nclass Square:\n    side = 1\n"),
    SourceFile("pkg/report.py", "from .shapes import circle_area\n\n\ndef describe(radius):\n    total = circle_area(radius)\n    print(circle_area(total))\n    return str(total)\n"),
    SourceFile("pkg/sub/loader.go", "package sub\n\nfunc LoadConfig(path string) error {\n\treturn readAll(path, 3)\n}\n"),
)


def encode(text: str) -> list[int]:
    return list(text.encode())


@pytest.fixture(scope="module")
def model() -> Decoder:
    return Decoder(CONFIG, random_tensors(CONFIG, seed=3))


def documents() -> list[Document]:
    return [encode_document(f.path, f.text, encode, QWEN) for f in FILES]


def hidden_of(model: Decoder, layout: Layout, docs: list[Document], tail: str, use_flex: bool = False, correction: Correction = PLAIN) -> torch.Tensor:
    row, start = layout.context(encode("head"), docs)
    cache = ContextCache(torch.tensor(row.parts), use_flex)
    model.hidden(torch.tensor(row.ids), torch.tensor(row.positions), cache.prefill())
    tails = tails_row([encode(tail), encode("other tail")], start)
    hidden = model.hidden(torch.tensor(tails.ids), torch.tensor(tails.positions), cache.tails(torch.tensor(tails.parts), correction))
    return hidden[: len(tail)]


@torch.inference_mode()
def test_single_segment_is_the_sequence(model):
    doc = documents()[0]
    sequence = hidden_of(model, Layout("sequence"), [doc], "what is it")
    size = len(doc.lead) + len(doc.body)
    segment = hidden_of(model, Layout("segments", size=size), [doc], "what is it")
    torch.testing.assert_close(sequence, segment)


@torch.inference_mode()
def test_a_segment_depends_on_header_and_itself_alone(model):
    def keys_of(docs: list[Document]) -> list[torch.Tensor]:
        row, _ = Layout("segments", size=128).context(encode("head"), docs)
        cache = ContextCache(torch.tensor(row.parts), use_flex=False)
        model.hidden(torch.tensor(row.ids), torch.tensor(row.positions), cache.prefill())
        first = torch.tensor(row.parts) == 1
        return [k[first] for k in cache.keys]

    docs = documents()
    for alone, among in zip(keys_of(docs[:1]), keys_of(docs), strict=True):
        torch.testing.assert_close(alone, among)


@torch.inference_mode()
def test_tails_do_not_see_each_other_and_see_every_segment(model):
    docs = documents()
    base = hidden_of(model, Layout("segments", size=128), docs, "what is it")
    fewer = hidden_of(model, Layout("segments", size=128), docs[:2], "what is it")
    assert not torch.allclose(base, fewer, atol=1e-4)
    row, start = Layout("segments", size=128).context(encode("head"), docs)
    cache = ContextCache(torch.tensor(row.parts), use_flex=False)
    model.hidden(torch.tensor(row.ids), torch.tensor(row.positions), cache.prefill())
    lone = tails_row([encode("what is it")], start)
    alone = model.hidden(torch.tensor(lone.ids), torch.tensor(lone.positions), cache.tails(torch.tensor(lone.parts), PLAIN))
    torch.testing.assert_close(base, alone)


@torch.inference_mode()
@pytest.mark.parametrize("correction", [PLAIN, Correction(1.2, -0.5)])
def test_flex_agrees_with_dense(model, monkeypatch, correction):
    monkeypatch.setattr(attention, "_compiled_flex", attention.flex_attention)
    layout = Layout("segments", size=64, group=64)
    dense = hidden_of(model, layout, documents(), "what is it", False, correction)
    flex = hidden_of(model, layout, documents(), "what is it", True, correction)
    torch.testing.assert_close(dense, flex, atol=1e-4, rtol=1e-4)


def test_segments_hold_every_token_once_and_respect_their_size():
    docs = documents()
    for size, group in [(40, 0), (64, 0), (1000, 0), (400, 200), (300, 300)]:
        segments = build_segments(docs, size, group)
        assert all(0 < len(s) <= size for s in segments)
        bodies = sum(len(d.body) for d in docs)
        leads = sum(len(d.lead) * -(-len(d.body) // (size - len(d.lead))) for d in docs)
        assert sum(map(len, segments)) == bodies + leads
    assert len(build_segments(docs, 1000)) == 3
    assert len(build_segments(docs, 1000, 500)) == 2  # the folder changes at the last file
    assert len(build_segments(docs, 1000, 1000)) == 1


@torch.inference_mode()
def test_experiment_runs_on_generated_cases(model):
    lookups, holes = make_lookups(FILES, 4, 0), make_infills(FILES, 2, 0)
    assert len(lookups) == 4 and {q.kind for q in lookups} >= {"where", "returns"}
    assert holes[0].name == "circle_area" and holes[0].defined_in == "pkg/shapes.py"
    case = ContextCase("demo", 0, FILES, tuple(lookups), tuple(holes))
    docs = {f.path: encode_document(f.path, f.text, encode, QWEN) for f in FILES}
    reader = Reader(model, encode, chr, QWEN, "cpu")
    scores = run_case(reader, Layout("segments", size=256), [PLAIN, Correction(1.5, 1.0)], case, docs)
    assert len(scores["infill"][0]) == len(holes) == 2 and scores["infill"][0][0].nll != scores["infill"][1][0].nll
    rows = evaluate(reader, Layout("sequence", "raw"), [PLAIN], [case], [docs])
    assert rows[0]["lookups"]["cases"] == len(lookups) and rows[0]["lookups"]["nll"] > 0
