"""Named recipes: what a run is told where its command line does not say otherwise. Their predictions stand in LEDGER.md."""

from __future__ import annotations

# Long contexts with every split of the budget that is worth offering. `least` and `fill` are by the estimate that makes samples.
_LONG = {
    "seed": 11,  # adapters 1 to 4 were trained with 1
    "picks": [16, 24, 32],
    "least": 13_000,
    "fill": [24_000, 30_000, 36_000],
    # Text at this weight moves the model away from its teacher, so a rising KL says nothing: the held-out contexts decide.
    "weights": ["text=0.8", "answer=0.5", "find=0.03", "moves=0.004"],
    "margin": 0.6,
    "lr": 1.5e-4,
    "judge_every": 40,
}

RECIPES: dict[str, dict[str, object]] = {
    # From adapter 1, best at look-ups and holes: win back what its short training contexts (7 k tokens in the median) left at 32 k.
    "long": {**_LONG, "seconds": 320.0, "most": 49_152},
    # From adapter 6: completions asked for with the suffix first, as people type, and explanations in the teacher's words.
    "typed": {**_LONG, "seed": 31, "seconds": 420.0, "most": 49_152, "completion_order": "suffix-first"},
    # From adapter 7: questions in plain words about single lines (--facts), which it answers worse than adapter 1. Text at full weight and longer contexts, for
    # perplexity at 32 k was 1.7 % above dense; a lower rate, for what adapter 7 has learned is to stay.
    "facts": {**_LONG, "seed": 47, "seconds": 450.0, "most": 49_152, "fill": [24_000, 32_000, 38_000], "lr": 1e-4, "completion_order": "suffix-first",
              "weights": ["text=1.0", "answer=0.5", "find=0.03", "moves=0.004"]},
    # The 1.5B model from nothing: its warm-up comes first, and what follows attention is computed twice to fit one GPU. Its file stays under 15 MB.
    "1.5b": {**_LONG, "seed": 21, "seconds": 740.0, "most": 49_152, "lr": 4e-4, "rank": 6, "alpha": 12.0, "lean": True},
}
