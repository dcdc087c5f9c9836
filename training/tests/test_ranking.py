import torch

from nosa_train.model import Decoder, ModelConfig, random_tensors
from nosa_train.ranking import Mass, by_parts, chance, key_norm, tensors, value_norm
from nosa_train.samples import Tail, tail_row
from nosa_train.sparse import AlignedRow, Budget, SparseContext

CONFIG = ModelConfig(layers=2, hidden=32, heads=4, kv_heads=2, head_dim=8, ffn=48, vocab=50, rope_theta=10000.0, norm_eps=1e-5, context=4096)


def draw(count: int, seed: int) -> list[int]:
    return torch.randint(0, CONFIG.vocab, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def read() -> tuple[Decoder, AlignedRow]:
    row = AlignedRow()
    row.add(draw(20, 0), 0, 0)
    for part in range(1, 9):
        row.add(draw(50 + 23 * part, part), 20, part)
    row.finish()
    return Decoder(CONFIG, random_tensors(CONFIG, 3)), row


def test_reading_by_parts_is_the_dense_prefill() -> None:
    model, row = read()
    ids, positions, parts = tensors(row, "cpu")
    whole, apart = (SparseContext(parts) for _ in range(2))
    with torch.inference_mode():
        model.hidden(ids, positions, whole.prefill())
        model.hidden(ids, positions, by_parts(apart))
    real = parts >= 0
    for a, b in zip(whole.keys + whole.values, apart.keys + apart.values, strict=True):
        assert torch.allclose(a[real], b[real], atol=1e-4)


def test_mass_is_a_share_and_all_blocks_catch_all_of_it() -> None:
    model, row = read()
    ids, positions, parts = tensors(row, "cpu")
    context = SparseContext(parts)
    tail = tail_row([Tail("where", draw(30, 20), draw(9, 21)), Tail("where", draw(12, 22), draw(5, 23))])
    rankings = {"key": key_norm, "value": value_norm, "chance": chance}
    with torch.inference_mode():
        model.hidden(ids, positions, by_parts(context))
        tail_ids, tail_positions, tail_parts = tensors(tail.row, "cpu", 400)
        for total, whole in ((8, False), (64, True)):
            mass = Mass(context, tail, tail_parts, Budget(total, 3, 2), rankings)
            model.hidden(tail_ids, tail_positions, mass.watch(context.tails(tail_parts)))
            for name in rankings:
                assert len(mass.caught[name]) == CONFIG.layers
                for caught, alone in zip(mass.caught[name], mass.alone[name], strict=True):
                    assert 0 < alone < caught <= 1 + 1e-5
                    assert not whole or caught > 1 - 1e-5
            assert whole or mass.caught["key"] != mass.caught["chance"]
