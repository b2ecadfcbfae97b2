"""readings_pipeline: a directory and a file that somebody's own steps make, in one commit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from lab.errors import ConfError, LabError
from lab.lab import Lab
from lab.model import Version

DAG = "readings_pipeline"
DAYS, SUMMARY = "readings/days", "readings/summary.parquet"
RUNS = 3  # at once
THEIRS = "2025-12-31.parquet"  # the day that a person pushes


@pytest.fixture(scope="module")
def first(lab: Lab) -> Version:
    """Run the pipeline once, and return the version of the directory that it published."""
    run = lab.run(DAG)
    found = lab.version("readings")
    assert found.trailers["Run-Id"] == run.id
    return found


def list_days(lab: Lab, version: Version) -> dict[str, str]:
    """Return the MD5 of each file of a version, by its name, as DVC's own object lists them."""
    listing = json.loads(lab.read_object(lab.object_key(version.md5)))
    return {entry["relpath"]: entry["md5"] for entry in listing}


def test_both_data_sets_are_in_one_commit_that_brings_them_back(lab: Lab, first: Version) -> None:
    """Plain `dvc pull` does, and the summary is of these very days."""
    summary = lab.version("readings_summary", first.commit)
    assert (summary.commit, summary.trailers["Run-Id"]) == (first.commit, first.trailers["Run-Id"])
    assert (first.trailers["Data-Path"], summary.trailers["Data-Path"]) == (DAYS, SUMMARY)
    with lab.checkout(first.commit, DAYS, SUMMARY) as checkout:
        require_summary_of(checkout.folder)
        names = {file.name for file in (checkout.folder / DAYS).iterdir()}
    assert names == set(list_days(lab, first))
    assert {one.name for one in lab.verify(first.commit).data} >= {"readings", "readings_summary"}


def require_summary_of(folder: Path) -> None:
    """Fail unless the summary is that of the days beside it, computed in another way."""
    files = sorted((folder / DAYS).iterdir())
    rows = [row for file in files for row in pl.read_parquet(file).iter_rows(named=True)]
    found = {row["sensor"]: row for row in pl.read_parquet(folder / SUMMARY).iter_rows(named=True)}
    assert sorted(found) == sorted({row["sensor"] for row in rows})
    for sensor, said in found.items():
        degrees = [row["decidegrees"] / 10 for row in rows if row["sensor"] == sensor]
        assert said["readings"] == len(degrees)
        assert (said["coldest"], said["warmest"]) == (min(degrees), max(degrees))
        assert said["mean"] == pytest.approx(sum(degrees) / len(degrees), abs=0.001)


def test_a_run_that_changes_no_byte_makes_no_commit_and_says_so(lab: Lab, first: Version) -> None:
    (day, *_) = list_days(lab, first)
    before = lab.history(name="readings")
    run = lab.run(DAG, {"day": Path(day).stem})
    assert f"{day} is there already" in lab.log(run, "collect_readings")
    assert "no commit was made" in lab.log(run, "publish")
    assert lab.history(name="readings") == before


def test_runs_at_once_and_a_person_s_push_are_each_made_from_the_newest(
    lab: Lab, first: Version
) -> None:
    """One commit per run; the steps of a run that comes later run again."""
    before = lab.history(name="readings")
    started = [lab.trigger(DAG) for _ in range(RUNS)]
    push_day(lab)
    for run in started:
        lab.follow(run)
    after = lab.history(name="readings")
    made = after[: len(after) - len(before)]
    assert after[len(made) :] == before
    runs = [one.trailers["Run-Id"] for one in made if "Run-Id" in one.trailers]
    assert sorted(runs) == sorted(run.id for run in started)
    assert len(made) == RUNS + 1
    for newer, older in zip(after, [*made[1:], before[0]], strict=False):
        days, known = list_days(lab, newer), list_days(lab, older)
        assert days.items() >= known.items()
        assert len(days) == len(known) + 1
        assert newer.trailers.get("Data-Parent", older.md5) == older.md5
    assert THEIRS in list_days(lab, made[0])
    with lab.checkout(made[0].commit, DAYS, SUMMARY) as checkout:
        if "Run-Id" in made[0].trailers:  # else the person's push came last
            require_summary_of(checkout.folder)
    assert lab.verify().ok


def push_day(lab: Lab) -> None:
    """Push one more day as a person, who tries again when a run comes first."""
    trying = Retrying(
        retry=retry_if_exception_type(LabError),
        stop=stop_after_attempt(10),
        wait=wait_fixed(0.5),
        reraise=True,
    )
    trying(push_day_once, lab)


def push_day_once(lab: Lab) -> None:
    with lab.clone() as clone:
        lab.git("checkout", "--quiet", "main", cwd=clone)
        pointer = clone / f"{DAYS}.dvc"
        described: Any = yaml.safe_load(pointer.read_text("utf-8"))
        (out,) = described["outs"]
        listing = json.loads(lab.read_object(lab.object_key(out["md5"])))
        listing = [{"md5": listing[0]["md5"], "relpath": THEIRS}, *listing]  # sorted by name
        content = json.dumps(listing).encode()
        md5 = hashlib.md5(content).hexdigest() + ".dir"
        lab.put_object(lab.object_key(md5), content)
        size = len(lab.read_object(lab.object_key(listing[0]["md5"])))
        out |= {"md5": md5, "size": out["size"] + size, "nfiles": len(listing)}
        pointer.write_text(yaml.safe_dump(described), "utf-8")
        lab.git("commit", "--quiet", "--all", "--message", "add a day by hand", cwd=clone)
        lab.git("push", "--quiet", "origin", "main", cwd=clone)


@pytest.mark.parametrize("conf", [{"day": "yesterday"}, {"day": 1}])
def test_a_day_that_is_none_starts_no_run(lab: Lab, conf: dict[str, object]) -> None:
    with pytest.raises(ConfError):
        lab.trigger(DAG, conf)
