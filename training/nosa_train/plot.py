"""A picture of a training log: each loss, smoothed, by step."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

PANELS = [("kl", "KL to the dense teacher, nats a tail token"), ("text", "files being written, nats a token"), ("answer", "answers, nats a token"),
          ("align", "attention outputs, relative squared error"), ("rank", "eviction scores against attention (listwise)"),
          ("find", "block scores against attention (listwise)"), ("misses", "blocks fetched a step, head and layer (of > 8 k tokens)"),
          ("caught", "attention in chosen blocks (of > 8 k tokens)")]  # fmt: skip
LONG = 8000  # tokens of a context; in shorter ones nearly every block is chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=25, help="steps of the running mean")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.log.read_text().splitlines()]
    figure, axes = plt.subplots(2, 4, figsize=(15, 5.4), constrained_layout=True)
    for axis, (key, title) in zip(axes.flat, PANELS, strict=True):
        points = [(r["step"], r[key]) for r in rows if key in r and (key not in ("misses", "caught") or r["context"] > LONG)]
        if points:
            steps, values = np.array(points).T
            axis.plot(steps, values, ".", color="tab:blue", alpha=0.15, markersize=3)
            axis.set_ylim(0, 1.1 * np.percentile(values, 98) + 1e-9)
        if len(points) >= args.width:
            axis.plot(steps[args.width - 1 :], np.convolve(values, np.ones(args.width) / args.width, "valid"), color="tab:blue")
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
