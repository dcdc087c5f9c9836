"""Known answers of an adapted model, in float32 on a CPU, for an engine to compare itself with.

One small context in the product's layout and one tail, as token ids; for full attention and for a small sparse budget: the
log-probabilities of the best tokens at the tail's last positions, and the chosen blocks of the very last query. Blocks are
numbered over header, segments and tail in this order, each part beginning a block.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from . import adapter
from .gguf_weights import load_tokenizer, load_weights
from .layouts import QWEN, Layout, chat_tail_text, encode_document, header_text
from .model import Decoder
from .samples import Tail, aligned_context, tail_row
from .sparse import BLOCK, PAD, Budget, SparseContext

FILES = {
    "store/cache.py": "class LineCache:\n    def __init__(self, capacity):\n        self.capacity = capacity\n        self.lines = {}\n\n    def fetch_line(self, key, default=None):\n        return self.lines.get(key, default)\n",
    "store/disk.py": "import os\n\n\ndef read_extent(path, offset, length):\n    with open(path, 'rb') as file:\n        file.seek(offset)\n        return file.read(length)\n\n\ndef extent_count(path, size):\n    return os.path.getsize(path) // size\n",
    "app/main.py": "from store.cache import LineCache\nfrom store.disk import read_extent\n\n\ndef load(path):\n    cache = LineCache(64)\n    for index in range(8):\n        cache.lines[index] = read_extent(path, index * 512, 512)\n    return cache\n",
}
QUESTION = "Quote the line that defines `read_extent`, exactly as it stands in the repository."
LAST, BEST = 6, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config, tensors = load_weights(args.model)
    model = Decoder(config, tensors)
    adapter.load(model, args.adapter)
    tokenizer = load_tokenizer(args.model)

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    layout = Layout("segments", "raw", 8192)
    documents = [encode_document(path, text, encode) for path, text in FILES.items()]
    row, start = aligned_context(layout, encode(header_text("raw", "demo", QWEN)), documents)
    answer = "def read_extent(path, offset, length):\n"
    tail = Tail("signature", encode(chat_tail_text("raw", QUESTION, "```python\n")), encode(answer))
    asked = tail_row([tail])
    readings = []
    with torch.inference_mode():
        for policy, budget in (("full", Budget()), ("nosa", Budget(4, 2, 1))):
            context = SparseContext(torch.tensor(row.parts))
            context.keep_chosen = True
            model.hidden(torch.tensor(row.ids), torch.tensor(row.positions), context.prefill())
            positions = torch.tensor(asked.row.positions) + start
            hidden = model.hidden(torch.tensor(asked.row.ids), positions, context.tails(torch.tensor(asked.row.parts), policy, budget))
            end = len(tail.prompt) + len(tail.answer)
            best = model.logits(hidden[end - LAST : end]).log_softmax(-1).topk(BEST)
            readings.append({
                "policy": policy, "total_blocks": budget.total, "query_blocks": budget.query, "window_blocks": budget.window,
                "top": [[[i, round(p, 5)] for i, p in zip(ids, values, strict=True)] for ids, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)],
                "chosen": [[c[g, end - 1].nonzero()[:, 0].tolist() for g in range(config.kv_heads)] for c in context.chosen],
            })  # fmt: skip
    parts: list[dict] = []
    for token, position, part in zip(row.ids, row.positions, row.parts, strict=True):
        if part == PAD:
            continue
        if not parts or parts[-1]["part"] != part:
            parts.append({"part": part, "start": position, "ids": []})
        parts[-1]["ids"].append(token)
    scores = [[round(float(x), 6) for x in s[0]] for s in context.scores]  # of the very first token, by layer and key head
    golden = {"base_sha256": adapter.file_sha256(args.model), "adapter_sha256": adapter.file_sha256(args.adapter), "block": BLOCK,
              "parts": parts, "tail": {"start": start, "ids": tail.prompt + tail.answer}, "last_positions": LAST,
              "first_token_scores": scores, "readings": readings}  # fmt: skip
    args.out.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(f"{args.out}: {len(parts)} parts, {sum(len(p['ids']) for p in parts)} context tokens, tail of {len(golden['tail']['ids'])}")


if __name__ == "__main__":
    main()
