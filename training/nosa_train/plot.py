"""A picture of a training log: each loss, smoothed, by step."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

PANELS = [("kl", "KL to the dense teacher, nats a tail token"), ("answer", "answers, nats a token"),
          ("align", "attention outputs, relative squared error"), ("rank", "1 - correlation of eviction scores")]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=25, help="steps of the running mean")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.log.read_text().splitlines()]
    figure, axes = plt.subplots(2, 2, figsize=(9, 5.4), constrained_layout=True)
    for axis, (key, title) in zip(axes.flat, PANELS, strict=True):
        for policy, colour in (("nosa", "tab:blue"), ("full", "tab:orange")):
            points = [(r["step"], r[key]) for r in rows if key in r and r["policy"] == policy]
            if len(points) < args.width:
                continue
            steps, values = np.array(points).T
            smooth = np.convolve(values, np.ones(args.width) / args.width, "valid")
            axis.plot(steps, values, ".", color=colour, alpha=0.15, markersize=3)
            axis.plot(steps[args.width - 1 :], smooth, color=colour, label="sparse tails" if policy == "nosa" else "dense tails")
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=8)
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
