"""`collect`: write the readings of one day."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl

FIRST = date(2026, 1, 1)  # where there is no day yet
SENSORS = 10
MINUTES = 15  # between two readings of a sensor


def collect(readings: Path, day: date | None, run_id: str) -> None:
    """Write `<day>.parquet` into the directory; without a day, that of the day after the newest.

    The day that a run collects, and the run's id, decide on each value. A day that is there is not
    collected twice.
    """
    readings.mkdir(parents=True, exist_ok=True)
    chosen = day or find_next_day(readings)
    file = readings / f"{chosen}.parquet"
    if file.exists():
        print(f"{file.name} is there already")
        return
    found = read_sensors(chosen, random.Random(f"{run_id}/{chosen}"))
    found.write_parquet(file)
    print(f"collected {found.height} readings of {chosen}")


def find_next_day(readings: Path) -> date:
    """Return the day after the newest one. Raise ValueError for a file that is no day's."""
    days = [date.fromisoformat(file.stem) for file in readings.glob("*.parquet")]
    return max(days) + timedelta(days=1) if days else FIRST


def read_sensors(day: date, chance: random.Random) -> pl.DataFrame:
    """Return the readings of a day, by sensor and time. There are no sensors: they are drawn."""
    began = datetime(day.year, day.month, day.day)  # noqa: DTZ001
    times = [began + timedelta(minutes=minutes) for minutes in range(0, 24 * 60, MINUTES)]
    rows = [
        # Tenths of a degree: a sum of whole numbers is the same in any order.
        (f"sensor-{number:02}", time, chance.randint(-50, 300))
        for number in range(SENSORS)
        for time in times
    ]
    columns = pl.Schema(
        {"sensor": pl.String(), "time": pl.Datetime("us"), "decidegrees": pl.Int32()}
    )
    return pl.DataFrame(rows, schema=columns, orient="row")
