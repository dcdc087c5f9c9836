"""How many places of each size the desk will need next week: python3 tools/forecast.py DATA_FOLDER

Arrivals are smoothed by weekday: the estimate for a weekday moves by a quarter of the surprise each time that weekday
comes round. Multiplied by the mean time that parcels of a size stay (Little's law), that gives the places in use; two
standard deviations of a Poisson count are added, so that about one week in forty is fuller than foretold.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

from journal import Stay, read_stays

SMOOTHING = 0.25
#: Used for a size nobody has collected yet.
DEFAULT_STAY_DAYS = 2.5


def arrivals_by_weekday(stays: list[Stay], size: str) -> list[float]:
    """Smoothed arrivals for Monday to Sunday; zeros when there is no history."""
    counts = Counter(stay.received.date() for stay in stays if stay.size == size)
    estimates: list[float | None] = [None] * 7
    if counts:
        day, last = min(counts), max(counts)
        while day <= last:
            seen, before = counts[day], estimates[day.weekday()]
            estimates[day.weekday()] = seen if before is None else before + SMOOTHING * (seen - before)
            day += timedelta(days=1)
    return [estimate or 0.0 for estimate in estimates]


def mean_stay_days(stays: list[Stay], size: str) -> float:
    lengths = [(stay.closed - stay.received) / timedelta(days=1) for stay in stays if stay.size == size and stay.closed]
    return sum(lengths) / len(lengths) if lengths else DEFAULT_STAY_DAYS


def places_needed(stays: list[Stay], size: str) -> int:
    """Places for the fullest day of the coming week."""
    fullest = max(arrivals_by_weekday(stays, size))
    in_use = fullest * mean_stay_days(stays, size)
    return math.ceil(in_use + 2 * math.sqrt(in_use))


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    stays = read_stays(Path(arguments[0]))
    print(f"Places needed in the week from {date.today().isoformat()}")
    for size in ("small", "medium", "large"):
        print(f"{size:<8}{places_needed(stays, size):>5}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
