"""Prints what happened at the desk on one day: python3 tools/report.py DATA_FOLDER [YYYY-MM-DD]"""

from __future__ import annotations

import sys
from collections import Counter
from datetime import date, datetime, timezone
from pathlib import Path

from journal import Stay, read_stays

SIZES = ("small", "medium", "large")


def daily_report(stays: list[Stay], day: date) -> str:
    arrived = [stay for stay in stays if stay.received.date() == day]
    closed = [stay for stay in stays if stay.closed is not None and stay.closed.date() == day]
    collected = [stay for stay in closed if stay.outcome == "collected"]
    fees = sum(stay.fee_cents for stay in collected)
    lines = [f"Desk report for {day.isoformat()}", ""]
    for size in SIZES:
        there = sum(1 for stay in stays if stay.size == size and stay.present_on(day))
        came = sum(1 for stay in arrived if stay.size == size)
        lines.append(f"{size:<8}{came:>5} arrived{there:>6} on the shelves")
    lines += [
        "",
        f"collected {len(collected)}, returned {len(closed) - len(collected)}, fees {fees / 100:.2f}",
        f"on a larger shelf than needed: {sum(1 for stay in arrived if stay.spilled_over)}",
    ]
    busiest = Counter(stay.courier for stay in arrived).most_common(1)
    if busiest:
        lines.append(f"busiest courier: {busiest[0][0]} ({busiest[0][1]} parcels)")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    if len(arguments) not in (1, 2):
        print(__doc__, file=sys.stderr)
        return 2
    day = date.fromisoformat(arguments[1]) if len(arguments) == 2 else datetime.now(timezone.utc).date()
    print(daily_report(read_stays(Path(arguments[0])), day))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
