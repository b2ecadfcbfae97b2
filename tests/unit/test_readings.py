"""The steps of `readings_pipeline`, which know a step's environment and nothing of the kit."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from reading_steps import __main__ as reading_steps
from reading_steps.collect import collect
from reading_steps.summarise import summarise


def list_days(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.iterdir())


def test_each_run_collects_the_day_after_the_newest(tmp_path: Path) -> None:
    folder = tmp_path / "days"
    for run in ("a", "b"):
        collect(folder, None, run)
    collect(folder, date(2025, 1, 1), "c")
    collect(folder, None, "d")
    assert list_days(folder) == ["2025-01-01", "2026-01-01", "2026-01-02", "2026-01-03"]


def test_a_day_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    collect(tmp_path, date(2026, 1, 1), "a")
    before = (tmp_path / "2026-01-01.parquet").read_bytes()
    collect(tmp_path, date(2026, 1, 1), "b")
    assert (tmp_path / "2026-01-01.parquet").read_bytes() == before


def test_the_same_run_makes_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        collect(tmp_path / name, None, "a")
        collect(tmp_path / name, None, "b")
        summarise(tmp_path / name, tmp_path / f"{name}.parquet")
        files = [*sorted((tmp_path / name).iterdir()), tmp_path / f"{name}.parquet"]
        made.append([file.read_bytes() for file in files])
    assert made[0] == made[1]
    assert len(set(made[0])) == 3


def test_the_summary_is_of_all_days(tmp_path: Path) -> None:
    folder, summary = tmp_path / "days", tmp_path / "out" / "summary.parquet"
    collect(folder, None, "a")
    collect(folder, None, "b")
    summarise(folder, summary)
    found = pl.read_parquet(summary)
    assert found["days"].unique().to_list() == [2]
    days = [pl.read_parquet(file) for file in sorted(folder.iterdir())]
    assert found["readings"].sum() == sum(day.height for day in days)
    assert found["warmest"].max() == max(day["decidegrees"].max() for day in days) / 10  # type: ignore[operator,type-var]


@pytest.mark.parametrize(("step", "day"), [("collect", "yesterday"), ("summarise", "")])
def test_what_can_not_be_right_is_not_tried_again(
    step: str,
    day: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = {"READINGS": tmp_path / "days", "READINGS_SUMMARY": tmp_path / "summary.parquet"}
    for name, path in given.items():
        monkeypatch.setenv(f"DATA_{name}", str(path))
    monkeypatch.setenv("DAY", day)
    monkeypatch.setenv("RUN_ID", "r")
    with pytest.raises(SystemExit) as caught:
        reading_steps.main([step])
    assert caught.value.code == 65
    assert capsys.readouterr().err.startswith("error: ")


def test_they_import_nothing_of_the_kit() -> None:
    code = (
        "import sys, reading_steps.__main__, reading_steps.collect, reading_steps.summarise\n"
        "print(sorted(n for n in sys.modules if n.split('.')[0] in ('dataset_steps', 'lab')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_forked_step_does_not_inherit_polars() -> None:
    """Its threads would not be in the fork: what Airflow imports beforehand must not start them."""
    code = "import sys, dataset_steps.preload; print('polars' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
