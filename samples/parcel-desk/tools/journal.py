"""Reads the desk's journal (see src/journal.ts) for the reports. Nothing here writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path


@dataclass(frozen=True)
class Stay:
    """One parcel from its arrival to its end, or to now."""

    parcel_id: str
    courier: str
    size: str
    shelf: str
    received: datetime
    closed: datetime | None = None
    outcome: str = "waiting"
    fee_cents: int = 0

    @property
    def spilled_over(self) -> bool:
        """Whether it lay on a larger shelf than it needed."""
        return self.shelf[0].lower() != self.size[0]

    def present_on(self, day: date) -> bool:
        """Whether the parcel took up a place at any time of the day."""
        return self.received.date() <= day and (self.closed is None or self.closed.date() >= day)


def moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, tz=timezone.utc)


def read_events(folder: Path) -> Iterator[dict]:
    """Events in order. Half a line at the end, left by a crash, is skipped as the desk itself skips it."""
    path = folder / "events.jsonl"
    if not path.exists():
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


def read_stays(folder: Path) -> list[Stay]:
    stays: dict[str, Stay] = {}
    for event in read_events(folder):
        if event["kind"] == "received":
            parcel = event["parcel"]
            stays[parcel["id"]] = Stay(
                parcel_id=parcel["id"],
                courier=parcel["courier"],
                size=parcel["size"],
                shelf=parcel["shelf"],
                received=moment(event["atMs"]),
            )
        elif event["kind"] in ("collected", "returned"):
            stay = stays[event["parcelId"]]
            stays[stay.parcel_id] = Stay(
                stay.parcel_id, stay.courier, stay.size, stay.shelf, stay.received,
                closed=moment(event["atMs"]), outcome=event["kind"], fee_cents=event.get("feeCents", 0),
            )
    return list(stays.values())
