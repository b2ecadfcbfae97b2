"""extract, transform, load as real processes, against the lab's real S3 server and git server."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import pytest

from dataset_steps.contract import run_key
from dataset_steps.workspace import try_lock
from lab import layout
from tests.support.stores import DAG_VERSION, PATH, Process, Run, md5_of

if TYPE_CHECKING:
    from tests.support.stores import Project, Stores

STEPS = ("pull", "extract", "transform", "load")
HEADER = "Employee ID,Name,Job Role,Monthly Income,Left early,Attrition\n"
NUMBERS = itertools.count(1)
HOUR = 3600


def make_staff(count: int = 300, more: int = 0) -> str:
    """Return a dataset with quoted commas, and departments with non-ASCII letters."""
    roles = ("Finance", "Media", "Größe & Maß", '"Health, Care"')
    rows = (
        f'{n},"Müller, {n}",{roles[n % 7 % 4]},{3000 + n * 37 % 4001 + more},no,'
        f"{'Left' if n % 3 == 0 else 'Stayed'}\n"
        for n in range(1, count + 1)
    )
    return HEADER + "".join(rows)


def compute_summaries(content: str) -> dict[str, Any]:
    """Compute the departments' summaries by other means than the step's."""
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    found = {}
    for role in {row["Job Role"] for row in rows}:
        own = [row for row in rows if row["Job Role"] == role]
        left = sum(row["Attrition"] == "Left" for row in own)
        income = mean(float(row["Monthly Income"]) for row in own)
        found[role] = {
            "head_count": len(own),
            "mean_income": pytest.approx(income, abs=0.0051),
            "attrition_rate": pytest.approx(left / len(own), abs=0.000051),
        }
    return found


@dataclass(frozen=True)
class Etl(Run):
    """A run of a workflow; what its steps leave is kept for `keep` hours, if these are given."""

    dag_id: str
    keep: str | None = None

    @property
    def folder(self) -> Path:
        return self.project.shared / "runs" / run_key(self.dag_id, self.id)

    @property
    def key(self) -> str:
        return f"results/{self.dag_id}/employee_summary.json"

    def start(self, *argv: str | Path, **env: str | None) -> Process:
        return super().start(*argv, **{"DAG_ID": self.dag_id, "KEEP_HOURS": self.keep, **env})

    def read_result(self) -> bytes | None:
        """Return the bytes of the workflow's result; None where there is none."""
        client = self.project.stores.client
        try:
            body = client.get_object(Bucket=layout.BUCKET, Key=self.key)["Body"]
        except client.exceptions.NoSuchKey:
            return None
        content: bytes = body.read()
        return content

    def put_result(self, content: bytes) -> None:
        """Store this as the workflow's result, as somebody else."""
        client = self.project.stores.client
        client.put_object(Bucket=layout.BUCKET, Key=self.key, Body=content)

    def expect_refusal(self, step: str, **env: str | None) -> str:
        """Run a step that must end with the code for "no retry helps"; return its last line."""
        done = self.run_step(step, **env)
        assert done.code == 65, done
        last = done.output.splitlines()[-1]
        assert last.startswith("error: "), "a traceback instead of an error"
        return last

    def read_summary(self) -> Any:
        """Return the result, which must be there."""
        content = self.read_result()
        assert content
        return json.loads(content)


Start = Callable[..., Etl]


@pytest.fixture
def start(project: Project) -> Start:
    """Return a function that makes runs of the test's own workflow, on a dataset of staff."""
    project.replace_dataset(make_staff().encode())
    dag_id = f"etl_workflow_{next(NUMBERS)}"

    def make_run(keep: str | None = None, dag_id: str = dag_id) -> Etl:
        return Etl(project, f"manual__{next(NUMBERS)}/+00:00", dag_id, keep)

    return make_run


def list_keys(stores: Stores) -> set[str]:
    """Return the key of everything that is in the bucket."""
    pages = stores.client.get_paginator("list_objects_v2").paginate(Bucket=layout.BUCKET)
    return {entry["Key"] for page in pages for entry in page.get("Contents", [])}


# --- A run --------------------------------------------------------------------------------------


def test_a_run_leaves_the_summary_in_the_bucket_and_nothing_else(
    start: Start, project: Project
) -> None:
    before, run = list_keys(project.stores), start()
    run.run_steps(*STEPS)
    assert list_keys(project.stores) - before == {run.key}
    content = make_staff().encode()
    assert run.read_summary() == {
        "departments": compute_summaries(make_staff()),
        "data": {
            "path": PATH,
            "commit": project.tip(),
            "md5": md5_of(content),
            "size": len(content),
        },
        "dag_id": run.dag_id,
        "run_id": run.id,
        "dag_version": DAG_VERSION,
    }
    assert list(run.read_summary()["departments"]) == sorted(compute_summaries(make_staff()))
    assert project.list_leftovers() == []


def test_a_later_run_s_result_takes_the_place_of_an_earlier_one_s(
    start: Start, project: Project
) -> None:
    first, second = start(), start()
    first.run_steps(*STEPS)
    project.replace_dataset(make_staff(200, more=100).encode())
    second.run_steps(*STEPS)
    assert second.read_summary()["departments"] == compute_summaries(make_staff(200, more=100))
    assert second.read_summary()["run_id"] == second.id


def test_a_run_goes_on_with_the_version_that_it_extracted(start: Start, project: Project) -> None:
    run, then = start(), project.tip()
    run.run_steps("pull")
    project.replace_dataset(make_staff(9).encode())
    run.run_steps(*STEPS)
    assert run.read_summary()["departments"] == compute_summaries(make_staff())
    assert run.read_summary()["data"]["commit"] == then


def test_copies_take_memory_and_change_nothing(start: Start) -> None:
    run = start("24")
    run.run_steps(*STEPS)
    alone = run.read_result()
    assert run.run_step("transform", COPIES="7").code == 0
    run.run_steps("load")
    assert run.read_result() == alone


# --- Steps that are repeated --------------------------------------------------------------------


def test_a_step_that_is_done_again_changes_nothing(start: Start, project: Project) -> None:
    run = start("24")
    run.run_steps(*STEPS)
    before, result = list_keys(project.stores), run.read_result()
    run.run_steps(*STEPS, "load", "transform", "load")
    assert (list_keys(project.stores), run.read_result()) == (before, result)


KILLS = [
    ("pull", "after", "pull:download"),
    ("extract", "before", "extract:write_columns"),
    ("transform", "before", "transform:write_atomically"),
    ("load", "before", "load:put"),
    ("load", "after", "load:put"),
    ("load", "after", "workspace:Workspace.clear"),
    ("load", "after", "workspace:Workspace.remove"),
]


@pytest.mark.parametrize(("step", "when", "place"), KILLS)
def test_a_step_that_was_killed_is_finished_by_the_next_attempt(
    start: Start, project: Project, step: str, when: str, place: str
) -> None:
    """The old result stays until the new one is in its place, whole."""
    run, done = start(), STEPS.index(step)
    run.put_result(b"old")
    run.run_steps(*STEPS[:done])
    run.kill_step(step, when, place)
    assert run.read_result() == b"old" or run.read_summary()["departments"] == compute_summaries(
        make_staff()
    )
    run.run_steps(*STEPS[done:])
    assert run.read_summary()["run_id"] == run.id
    assert run.read_summary()["departments"] == compute_summaries(make_staff())
    assert project.list_leftovers() == []


def test_a_load_does_not_take_another_run_s_result_for_its_own(start: Start) -> None:
    run, other = start(), start()
    run.run_steps(*STEPS)
    run.run_steps("load")
    assert run.read_summary()["run_id"] == run.id
    other.run_steps(*STEPS)
    assert "nothing was transformed" in run.expect_refusal("load")
    assert run.read_summary()["run_id"] == other.id


def test_a_step_before_its_time_says_what_is_missing(start: Start) -> None:
    assert "run the extract step first" in start().expect_refusal("transform")
    assert "dataset was not pulled" in start().expect_refusal("extract")
    run = start()
    assert "run that step first" in run.expect_refusal("load")
    assert run.read_result() is None


# --- What is wrong with the data ----------------------------------------------------------------

WRONG = {
    "columns": (
        "Employee ID,Job Role\n1,Media\n",
        "extract",
        "employees.csv: has no column Monthly Income and no column Attrition",
    ),
    "fields": (HEADER + "1,a,Media,1,no,Left\n2,b,Media\n", "extract", "employees.csv: line 3 has"),
    "values": (HEADER + "1,a,Media,much,no,Left\n", "transform", "'much' as Monthly Income"),
}


@pytest.mark.parametrize("what", WRONG)
def test_data_of_another_shape_is_refused_and_the_old_result_stays(
    start: Start, project: Project, what: str
) -> None:
    content, step, text = WRONG[what]
    run = start()
    project.replace_dataset(content.encode())
    run.put_result(b"old")
    run.run_steps(*STEPS[: STEPS.index(step)])
    assert text in run.expect_refusal(step)
    assert run.read_result() == b"old"


def test_what_a_dag_may_not_ask_for_is_refused(start: Start) -> None:
    run = start()
    assert "KEEP_HOURS is 'a day'" in run.expect_refusal("pull", KEEP_HOURS="a day")
    run.run_steps("pull", "extract")
    assert "COPIES is '0'" in run.expect_refusal("transform", COPIES="0")


def test_a_directory_is_no_table(start: Start, project: Project) -> None:
    """Its pointer names one; nothing else of it has to be right."""
    run = start()
    run.run_steps("pull")
    dataset = run.folder / "repository" / PATH
    dataset.unlink()
    dataset.mkdir()
    assert f"{PATH} is a directory" in run.expect_refusal("extract")


def test_a_key_that_the_server_refuses_fails_for_good(start: Start) -> None:
    run = start()
    run.run_steps("pull", "extract", "transform")
    output = run.expect_refusal("load", AWS_SECRET_ACCESS_KEY="wrong")
    assert f"refused the step's key for s3://{layout.BUCKET}/{run.key}" in output
    assert run.read_result() is None


# --- What is kept -------------------------------------------------------------------------------


def set_age(run: Etl, hours: float) -> Etl:
    """Make the run's workspace look untouched for so many hours; return the run."""
    then = time.time() - hours * HOUR
    os.utime(run.folder, (then, then))
    return run


def test_a_kept_run_leaves_its_workspace_and_says_whose_it_is(start: Start) -> None:
    run = start("24")
    run.run_steps(*STEPS)
    assert {p.name for p in run.folder.iterdir()} >= {"extract.csv", "summary.json", "repository"}
    note = json.loads((run.folder / "kept.json").read_text("utf-8"))
    assert note == {"dag_id": run.dag_id, "run_id": run.id}


def test_a_run_that_failed_at_once_is_kept_too(start: Start, project: Project) -> None:
    project.replace_pointer("no pointer")
    run = start("24")
    run.expect_refusal("pull")
    assert (run.folder / "kept.json").exists()


def test_a_later_run_removes_what_is_old(start: Start, project: Project) -> None:
    old, failed, young = start("24"), start("24"), start("24")
    old.run_steps(*STEPS)
    for run in (failed, young):
        run.run_steps("pull")
    set_age(old, 24.1), set_age(failed, 24.1), set_age(young, 23.9)
    output = start("24").run_steps("pull")
    assert [run.folder.exists() for run in (old, failed, young)] == [False, False, True]
    assert f"removed {old.folder.name}" in output
    later = start("0")
    later.run_steps(*STEPS)
    assert project.list_leftovers() == [later.folder.name, later.folder.name + ".lock"]


def test_only_the_same_workflow_s_runs_are_removed(start: Start) -> None:
    mine, other, own = start("24"), start("24", dag_id="another"), start("0")
    unkept = start()
    for run in (mine, other, unkept, own):
        run.run_steps("pull")
    set_age(own, 1000).run_steps("pull")
    assert [r.folder.exists() for r in (mine, other, unkept, own)] == [False, True, True, True]


def test_a_workspace_in_which_a_step_is_at_work_is_left(start: Start) -> None:
    run = start("24")
    run.run_steps("pull")
    lock = try_lock(run.folder.with_name(run.folder.name + ".lock"))
    assert lock
    with lock:
        start("0").run_steps("pull")
    assert (run.folder / "kept.json").exists()
    start("0").run_steps("pull")
    assert not run.folder.exists()
