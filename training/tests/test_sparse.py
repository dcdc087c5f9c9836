"""Selection against a plain reading of its rules, the biased attention in both routes, and a training step, on tiny models."""

import math
import random
from dataclasses import replace

import pytest
import torch

from nosa_train import adapter
from nosa_train.cases import ContextCase
from nosa_train.evaluate import Evaluator, readings, summarise, telling_lines
from nosa_train.gguf_weights import ModelConfig
from nosa_train.layouts import QWEN, Layout
from nosa_train.lookups import make_infills, make_lookups, unique_definitions
from nosa_train.model import Decoder, random_tensors
from nosa_train.repos import SourceFile
from nosa_train.samples import split_case
from nosa_train.sparse import BLOCK, PAD, AlignedRow, Budget, Places, SparseContext, select, with_bias
from nosa_train.gathered import over_chosen
from nosa_train.joint import JointRow, Watch, learn, plan, read, remember, remember_sparsely, teach
from nosa_train.losses import Others, Weights, step_loss
from nosa_train.steps import build_step
from nosa_train.train import Trainer

CONFIG = ModelConfig(layers=2, hidden=48, heads=6, kv_heads=2, head_dim=8, ffn=64, vocab=256, rope_theta=10000.0, norm_eps=1e-6, context=4096)


def rows(lengths: list[int], tails: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    context, tail = AlignedRow(), AlignedRow()
    for number, length in enumerate(lengths):
        context.add([1] * length, 0, number)
    for number, length in enumerate(tails, start=1):
        tail.add([1] * length, 0, -number)
    context.finish()
    tail.finish()
    return torch.tensor(context.parts), torch.tensor(tail.parts)


def plain_selection(parts, context, t, q, k, rank, policy, budget):
    """One query of one key head, by the words of the specification: loops, no tensors of blocks."""
    count = len(parts) // BLOCK
    mine = parts[t]
    windows = {}
    for m in range(len(parts) // 16 - 1):
        span = parts[16 * m : 16 * m + 32]
        if all(p == span[0] for p in span) and span[0] != PAD and (span[0] >= 0 or (span[0] == mine and 16 * m + 31 <= t)):
            windows[m] = k[16 * m : 16 * m + 32].mean(0)
    share = dict.fromkeys(windows, 0.0)
    for head in q:
        logits = {m: float(head @ w) * len(head) ** -0.5 for m, w in windows.items()}
        top = max(logits.values(), default=0.0)
        total = sum(math.exp(x - top) for x in logits.values())
        for m, x in logits.items():
            share[m] += math.exp(x - top) / total
    open_blocks = [b for b in range(count) if parts[b * BLOCK] != PAD and (parts[b * BLOCK] >= 0 or (parts[b * BLOCK] == mine and b * BLOCK <= t))]
    current = t // BLOCK
    forced = {b for b in open_blocks if b == 0 or (parts[b * BLOCK] == mine and b > current - budget.window)}

    def best(b, values):
        return max((values[m] for m in range(4 * b - 1, 4 * b + 4) if m in values), default=-math.inf)

    free = sorted((b for b in open_blocks if b not in forced), key=lambda b: (-best(b, share), -b))
    taken = set(forced)
    room = max(0, budget.total - len(forced))
    taken.update(free[: min(room, budget.query - 1 if policy == "nosa" else budget.total)])
    if policy == "nosa":
        means = {m: float(rank[16 * m : 16 * m + 32].mean()) for m in windows}
        rest = sorted((b for b in free if b not in taken), key=lambda b: (-best(b, means), -b))
        taken.update(rest[: max(0, budget.total - len(taken))])
    return taken


@pytest.mark.parametrize("policy", ["nosa", "infllmv2"])
@pytest.mark.parametrize("seed", range(3))
def test_selection_follows_its_rules(policy, seed):
    rng = random.Random(seed)
    lengths = [rng.randint(1, 60)] + [rng.randint(64, 700) for _ in range(4)]
    context, tail = rows(lengths, [300, 40])
    generator = torch.Generator().manual_seed(seed)
    total = len(context) + len(tail)
    q, k = torch.randn(len(tail), 6, 8, generator=generator), torch.randn(total, 2, 8, generator=generator)
    rank = torch.randn(total, 2, generator=generator)
    budget = Budget(total=12, query=5, window=3)
    places = Places.of(context, tail, budget.window)
    chosen, _ = select(places, q, k, rank, policy, budget)
    parts = torch.cat((context, tail)).tolist()
    for i in [0, 15, 63, 64, 130, 299, 320, 359]:
        if tail[i] == PAD:
            continue
        for g in range(2):
            wanted = plain_selection(parts, len(context), len(context) + i, q[i, 3 * g : 3 * g + 3], k[:, g], rank[:, g], policy, budget)
            got = set(chosen[g, i].nonzero()[:, 0].tolist())
            assert got == wanted


def test_bias_enters_the_logit_at_full_scale():
    generator = torch.Generator().manual_seed(0)
    q, k, cis = torch.randn(5, 4, 8, generator=generator), torch.randn(7, 2, 8, generator=generator), torch.randn(7, 2, generator=generator)
    wide_q, wide_k = with_bias(q, k, cis)
    for h in range(4):
        got = wide_q[:, h] @ wide_k[:, h // 2].T * 8**-0.5
        torch.testing.assert_close(got, q[:, h] @ k[:, h // 2].T * 8**-0.5 + cis[:, h // 2])
    scores = torch.randn(7, 2, generator=generator, requires_grad=True)
    with_bias(q, k, scores)[1].sum().backward()
    torch.testing.assert_close(scores.grad, torch.ones(7, 2))  # not two: the low part carries no gradient


def answer(model: Decoder, lengths: list[int], policy: str, budget: Budget) -> torch.Tensor:
    context_parts, tail_parts = rows(lengths, [150, 70])
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 256, (len(context_parts) + len(tail_parts),), generator=generator)
    context = SparseContext(context_parts)
    model.hidden(ids[: len(context_parts)], torch.arange(len(context_parts)) % 500, context.prefill())
    hidden = model.hidden(ids[len(context_parts) :], 600 + torch.arange(len(tail_parts)) % 150, context.tails(tail_parts, policy, budget))
    return hidden[tail_parts != PAD]


@pytest.fixture
def adapted() -> Decoder:
    model = Decoder(CONFIG, random_tensors(CONFIG, seed=5))
    torch.manual_seed(0)
    _, updates = adapter.attach(model, rank=2, alpha=4)
    for parameter in updates:
        torch.nn.init.normal_(parameter, std=0.05)
    for layer in model.layers:
        torch.nn.init.normal_(layer.eviction.delta, std=1.0)
        torch.nn.init.normal_(layer.eviction.A, std=1.0)
    return model


def test_gathered_attention_has_the_gradients_of_the_plain_one():
    row = joint_row([10, 300, 500, 70], [150, 70])
    generator = torch.Generator().manual_seed(2)
    total, queries = len(row.parts), len(row.tails)
    q, k, v = (torch.randn(total, n, 8, generator=generator) for n in (6, 2, 2))
    cis = torch.randn(total, 2, generator=generator)
    blocks = torch.rand(2, queries, total // BLOCK, generator=generator) < 0.5
    blocks[..., 0] = True
    weights = torch.randn(queries, 6, 8, generator=generator) * (row.tails != PAD)[:, None, None]
    usable = row.parts != PAD
    results = []
    for is_gathered in (True, False):
        leaves = [t.clone().requires_grad_() for t in (q, k, v, cis)]
        if is_gathered:
            out = over_chosen(leaves[0][row.context :], leaves[1], leaves[2], leaves[3], blocks, usable, 8**-0.5)
        else:
            at = torch.arange(total)
            seen = blocks.repeat_interleave(BLOCK, -1) & usable & (at[None] <= at[row.context :, None])
            keys, values = (t.repeat_interleave(3, 1) for t in (leaves[1], leaves[2]))
            logits = torch.einsum("qhd,khd->hqk", leaves[0][row.context :], keys) * 8**-0.5 + leaves[3].repeat_interleave(3, 1).T[:, None]
            out = torch.einsum("hqk,khd->qhd", logits.masked_fill(~seen.repeat_interleave(3, 0), float("-inf")).softmax(-1), values)
        (out * weights).sum().backward()
        results.append([out.detach()[row.tails != PAD], *(t.grad for t in leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def joint_row(lengths: list[int], tails: list[int]) -> JointRow:
    context_parts, tail_parts = rows(lengths, tails)
    total, context = len(context_parts) + len(tail_parts), len(context_parts)
    ids = torch.randint(0, 256, (total,), generator=torch.Generator().manual_seed(3))
    positions = torch.cat((torch.arange(context) % 500, 600 + torch.arange(total - context) % 150))
    return JointRow(ids, positions, torch.cat((context_parts, tail_parts)), context)


@pytest.mark.parametrize("policy", ["full", "nosa", "infllmv2"])
@pytest.mark.parametrize("budget", [Budget(10, 4, 17), Budget(7, 3, 1), Budget(3, 2, 2)])
def test_reading_in_one_pass_is_what_it_is_in_two(adapted, policy, budget):
    row = joint_row([10, 300, 500, 70, 900], [330, 70])
    for is_adapted in (True, False):
        adapter.set_enabled(adapted, is_adapted)
        scorer = None if is_adapted else lambda layer, k, v: k[..., 0]
        with torch.no_grad():
            apart = SparseContext(row.parts[: row.context], scorer)
            apart.keep_chosen = True
            adapted.hidden(row.ids[: row.context], row.positions[: row.context], apart.prefill())
            wanted = adapted.hidden(row.ids[row.context :], row.positions[row.context :], apart.tails(row.tails, policy, budget))
        beside = None if scorer is None else lambda layer, q, k, v: scorer(layer, k, v)
        got, chosen = read(adapted, plan(row, budget.window), policy, budget, is_adapted, beside)
        real = row.tails != PAD
        torch.testing.assert_close(got[real], wanted[real], atol=2e-4, rtol=1e-3)
        for ours, theirs in zip(chosen if policy != "full" else [], apart.chosen, strict=True):
            assert torch.equal(ours[:, real], theirs[:, real])


@torch.no_grad()
@pytest.mark.parametrize("budget", [Budget(10, 4, 17), Budget(8, 3, 17), Budget()])
def test_context_and_tails_together_are_what_they_are_apart(adapted, budget):
    row = joint_row([10, 300, 500, 70, 900], [150, 70])
    apart = SparseContext(row.parts[: row.context])
    apart.keep_chosen = True
    adapted.hidden(row.ids[: row.context], row.positions[: row.context], apart.prefill())
    wanted = adapted.hidden(row.ids[row.context :], row.positions[row.context :], apart.tails(row.tails, "nosa", budget))
    watch = Watch(slice(0, 100), torch.arange(0, 140, 10), [], torch.zeros(0))
    sharpness = torch.ones(2, CONFIG.layers, CONFIG.kv_heads)
    got = learn(adapted, plan(row), budget, sharpness, watch)
    real = row.tails != PAD
    torch.testing.assert_close(got.hidden[real], wanted[real], atol=2e-4, rtol=1e-3)
    for ours, theirs in zip(got.chosen, apart.chosen, strict=True):
        assert torch.equal(ours.blocks[:, real], theirs[:, real])


@torch.no_grad()
def test_the_teacher_reads_one_sequence_without_the_adapter(adapted):
    row = joint_row([700], [150, 70])
    adapter.set_enabled(adapted, False)
    apart = SparseContext(row.parts[: row.context])
    adapted.hidden(row.ids[: row.context], row.positions[: row.context], apart.prefill())
    wanted = adapted.hidden(row.ids[row.context :], row.positions[row.context :], apart.tails(row.tails))
    adapter.set_enabled(adapted, True)
    got = teach(adapted, plan(row))
    real = row.tails != PAD
    torch.testing.assert_close(got.hidden[real], wanted[real], atol=2e-4, rtol=1e-3)


@torch.no_grad()
def test_a_sparse_prefill_that_may_choose_everything_is_the_dense_one_and_a_smaller_is_not(adapted):
    row = joint_row([100, 300, 700, 70, 900], [150, 70])
    planned = plan(row)
    dense = remember(adapted, planned, True)
    real = (row.parts != PAD)[: row.context]
    everything, few = (remember_sparsely(adapted, planned, budget, True) for budget in (Budget(), Budget(6, 3, 2)))
    for name in ("keys", "values", "biases"):
        for ours, wanted in zip(getattr(everything, name), getattr(dense, name), strict=True):
            assert ours.shape == wanted.shape
            torch.testing.assert_close(ours[real], wanted[real], atol=2e-4, rtol=1e-3)
    assert torch.allclose(few.keys[0][real], dense.keys[0][real], atol=1e-5)  # before the first attention
    assert not torch.allclose(few.keys[1][real], dense.keys[1][real], atol=1e-3)


@torch.no_grad()
def test_a_warm_up_attends_to_everything_and_still_has_losses_of_its_selection(adapted):
    row = joint_row([10, 300, 500, 70, 900], [150, 70])
    planned, budget = plan(row), Budget(8, 3, 17)
    watch = Watch(slice(0, 100), torch.arange(0, 140, 10), [], torch.zeros(0))
    sharpness = torch.ones(2, CONFIG.layers, CONFIG.kv_heads)
    warm, sparse = (learn(adapted, planned, budget, sharpness, replace(watch, is_dense=is_dense)) for is_dense in (True, False))
    everything, _ = read(adapted, planned, "full", budget, True)
    real = row.tails != PAD
    torch.testing.assert_close(warm.hidden[real], everything[real], atol=2e-4, rtol=1e-3)
    assert not torch.allclose(sparse.hidden[real], everything[real], atol=1e-3)
    first = [each.chosen[0] for each in (warm, sparse)]  # the layer whose queries and keys are the same in both
    assert torch.equal(first[0].misses, first[1].misses)
    for name, value in first[1].losses.items():
        torch.testing.assert_close(first[0].losses[name], value)


@torch.no_grad()
def test_writers_and_answerers_count_alike_in_what_is_to_be_found(adapted):
    row = joint_row([10, 300, 500, 70, 900], [150, 70])
    planned, look, sharpness = plan(row), torch.arange(0, 140, 10), torch.ones(2, CONFIG.layers, CONFIG.kv_heads)

    def find(of: torch.Tensor, writing: torch.Tensor | None) -> float:
        watch = Watch(slice(0, 100), of, [], torch.zeros(0), writing=writing)
        return float(learn(adapted, planned, Budget(8, 3, 17), sharpness, watch).chosen[0].losses["find"])

    few = torch.zeros(len(look), dtype=torch.bool)
    few[:3] = True
    apart = find(look[:3], None), find(look[3:], None)
    assert apart[0] != pytest.approx(apart[1], rel=1e-3)
    assert find(look, few) == pytest.approx(sum(apart) / 2, rel=1e-4)
    for alike in (few.zero_(), ~few):
        assert find(look, alike) == pytest.approx(find(look, None), rel=1e-5)


@torch.inference_mode()
def test_a_budget_that_holds_everything_is_full_attention_and_a_smaller_one_is_not(adapted):
    lengths = [10, 300, 500, 70]
    full = answer(adapted, lengths, "full", Budget())
    torch.testing.assert_close(full, answer(adapted, lengths, "nosa", Budget()))
    assert not torch.allclose(full, answer(adapted, lengths, "nosa", Budget(6, 3, 2)), atol=1e-3)


FILES = tuple(
    SourceFile(f"pkg/m{i}.py", f"def compute_{w}(value):\n    return value * {i} + {i}\n\n\ndef run_{w}(items):\n    for item in items:\n        result = compute_{v}(item)\n    return result\n")
    for i, (w, v) in enumerate([("alpha", "gamma"), ("gamma", "delta"), ("delta", "alpha"), ("omega", "gamma")])
)


def encode(text: str) -> list[int]:
    return list(text.encode())


def test_training_lowers_the_loss_and_the_file_round_trips(tmp_path):
    model = Decoder(CONFIG, random_tensors(CONFIG, seed=5))
    torch.manual_seed(0)
    eviction, updates = adapter.attach(model, rank=4, alpha=8)
    infills = make_infills(FILES, 1, 0, per_file=1)
    live = {i.path for i in infills}
    lookups = [q for q in make_lookups(FILES, 8, 0) if q.path not in live]
    assert infills and lookups
    case = ContextCase("demo", 0, FILES, tuple(lookups[:1]), tuple(infills[:1]))
    step = build_step(case, Layout("segments", "raw", 256), encode, QWEN, 100)
    sharpness = torch.nn.Parameter(torch.ones(2, CONFIG.layers, CONFIG.kv_heads))
    optimizer = torch.optim.AdamW([*eviction, *updates, sharpness], lr=1e-2)
    history, others = [], Others()
    for number in range(6):
        again = replace(step, repository=f"demo{number % 2}")  # every other one finds foreign keys beside its own
        loss, parts = step_loss(model, sharpness, again, Budget(8, 3, 17), Weights(), random.Random(0), others, "cpu")
        loss.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in [*eviction, *updates, sharpness])
        optimizer.step()
        optimizer.zero_grad()
        history.append({name: float(value) for name, value in parts.items()})
    assert history[-1]["answer"] < 0.95 * history[0]["answer"]  # the teacher of this test is noise, so only answers can be learned
    assert history[-1]["text"] < history[0]["text"]
    assert history[-1]["rank"] < history[0]["rank"] - 0.01

    path = tmp_path / "adapter.safetensors"
    adapter.export(model, path, "ab" * 32, 4, 8, {"steps": "12"})
    again = Decoder(CONFIG, random_tensors(CONFIG, seed=5))
    assert adapter.load(again, path)["base_sha256"] == "ab" * 32
    ours, theirs = answer(model, [10, 300, 200], "full", Budget()), answer(again, [10, 300, 200], "full", Budget())
    torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=2e-2)  # updates are stored in bfloat16
    base = Decoder(CONFIG, random_tensors(CONFIG, seed=5))
    adapter.set_enabled(again, False)
    torch.testing.assert_close(answer(again, [10, 300], "full", Budget()), answer(base, [10, 300], "full", Budget()))


def test_a_trainer_goes_on_from_its_checkpoint_as_if_it_had_not_stopped(tmp_path):
    def trainer(state) -> Trainer:
        torch.manual_seed(0)
        return Trainer(Decoder(CONFIG, random_tensors(CONFIG, seed=5)), 2, 4, 1e-2, 1e-2, tmp_path / state, None)

    def update(made: Trainer, number: int) -> None:
        generator = torch.Generator().manual_seed(number)
        sum((p * torch.randn(p.shape, generator=generator)).sum() for p in made.parameters).backward()
        made.update(0.5, {"loss": torch.tensor(1.0)})
        made.progress.step += 1

    whole, stopped = trainer("whole"), trainer("stopped")
    update(whole, 0)
    update(stopped, 0)
    stopped.save()
    gone_on = trainer("stopped")
    assert gone_on.progress.step == 1
    for each in (whole, gone_on):
        update(each, 1)
    for ours, theirs in zip(gone_on.parameters, whole.parameters, strict=True):
        assert torch.equal(ours, theirs)
    fresh = trainer("other")
    assert any(not torch.equal(a, b) for a, b in zip(fresh.parameters, whole.parameters, strict=True))


def test_evaluation_compares_every_reading_on_the_same_requests(adapted):
    infills = make_infills(FILES, 1, 0, per_file=1)
    lookups = [q for q in make_lookups(FILES, 8, 0) if q.path != infills[0].path][:1]
    case = ContextCase("demo", 0, FILES, tuple(lookups), tuple(infills))
    documents, tails = split_case(case, encode, QWEN, "raw", 200)
    evaluator = Evaluator({"ours": adapted}, encode, chr, QWEN, "cpu")
    product = Layout("segments", "raw", 256)
    evaluator.calibrate([case], product)
    table = readings(product, ["ours"], False, [24])
    names = {d.name: d.path for d in unique_definitions(FILES)}
    evaluator.read(table, "demo", documents, tails, names=names, watch_moves=True)
    rows = {(r["reading"], r["kind"]): r for r in summarise(evaluator.scores, evaluator.moves)}
    assert {reading for reading, _ in rows} == {r.name for r in table}
    assert len({rows[r.name, kind]["cases"] for r in table for kind in ("continue", "infill", "lookups")}) == 1
    for reading in table:  # a full budget's worth of blocks is all there is here
        assert (reading.name, "locality") in rows or reading.policy == "full" or len(tails[0].answer) < 200
    low, mean, high = (rows["ours, segments", "continue"]["nll - dense, sequence"][i] for i in (1, 0, 2))
    assert low <= mean <= high
    assert rows["ours, segments", "continue"]["nll"] != rows["training-free, segments", "continue"]["nll"]
    # Of adapters that are the same, none is better.
    same = rows["ours, 6144 tokens", "continue"]["nll"] - rows["ours, segments", "continue"]["nll"]
    assert same == pytest.approx(0, abs=1e-5)


def test_lines_that_tell_something_name_another_file():
    text = "import os\n\n\ndef f(x):\n    return compute_alpha(x)\n    y = 1\n    z = compute_alpha(2)\n"
    spans = telling_lines(encode(text), chr, {"compute_alpha"}, skip=20)
    assert [text[a:b] for a, b in spans] == ["    return compute_alpha(x)\n", "    z = compute_alpha(2)\n"]
    assert telling_lines(encode(text), chr, {"compute_alpha"}, skip=60) == [spans[1]]
    assert len(telling_lines(encode("value = compute_alpha(1)\n" * 50), chr, {"compute_alpha"}, skip=0, most=12)) <= 12
