"""Writes dequantize_golden.txt: random blocks of every type and what gguf-py makes of them.

  pip install gguf numpy
  python3 dequantize_golden.py > dequantize_golden.txt
"""

import sys

import numpy as np
from gguf import GGMLQuantizationType, quants

TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]
F16_AT = {"F16": [0], "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "Q8_0": 34, "Q4_0": 18, "Q4_1": 20, "Q5_0": 22, "Q5_1": 24,
         "Q4_K": 144, "Q5_K": 176, "Q6_K": 210}

random = np.random.default_rng(1)
for name in TYPES:
    for _ in range(2):
        block = random.integers(0, 256, BYTES[name], dtype=np.uint8)
        for at in F16_AT.get(name, []):
            block[at:at + 2] = np.frombuffer(np.float16(random.normal()).tobytes(), np.uint8)
        if name in ("F32", "BF16"):
            block[-1] = 0x3F
        if name == "F32":
            values = block.view(np.float32)
        elif name == "F16":
            values = block.view(np.float16).astype(np.float32)
        else:
            values = quants.dequantize(block.reshape(1, -1), GGMLQuantizationType[name]).reshape(-1)
        words = [float(v).hex() for v in values]
        sys.stdout.write(f"{name} {block.tobytes().hex()} {' '.join(words)}\n")
