import json
import tempfile
import unittest
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

from forecast import DEFAULT_STAY_DAYS, arrivals_by_weekday, mean_stay_days, places_needed
from journal import Stay, read_stays
from report import daily_report

MONDAY = datetime(2026, 1, 5, 9, tzinfo=timezone.utc)


def stay(day: int, size: str = "small", length_days: float | None = 2, shelf: str = "S1") -> Stay:
    received = MONDAY + timedelta(days=day)
    closed = None if length_days is None else received + timedelta(days=length_days)
    outcome = "waiting" if closed is None else "collected"
    return Stay(f"P{day}", "Swift", size, shelf, received, closed, outcome)


class Forecast(unittest.TestCase):
    def test_no_history_needs_no_places(self) -> None:
        self.assertEqual(places_needed([], "large"), 0)
        self.assertEqual(mean_stay_days([], "large"), DEFAULT_STAY_DAYS)

    def test_a_weekday_moves_by_a_quarter_of_the_surprise(self) -> None:
        history = [stay(0)] * 8 + [stay(7)] * 4
        self.assertEqual(arrivals_by_weekday(history, "small")[0], 7.0)

    def test_places_follow_littles_law_with_a_margin(self) -> None:
        self.assertEqual(places_needed([stay(0, length_days=4)] * 4, "small"), 16 + 8)


class Report(unittest.TestCase):
    def test_counts_arrivals_and_spill_over(self) -> None:
        text = daily_report([stay(0), stay(0, shelf="M3"), stay(1)], date(2026, 1, 5))
        self.assertIn("small       2 arrived", text)
        self.assertIn("larger shelf than needed: 1", text)

    def test_half_a_line_is_skipped(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            parcel = {"id": "P1", "courier": "Swift", "size": "small", "shelf": "S1"}
            line = json.dumps({"kind": "received", "atMs": 0, "parcel": parcel})
            (Path(folder) / "events.jsonl").write_text(line + '\n{"kind": "coll', encoding="utf-8")
            self.assertEqual([each.parcel_id for each in read_stays(Path(folder))], ["P1"])


if __name__ == "__main__":
    unittest.main()
