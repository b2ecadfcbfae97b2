"""Data sets of any kind, pulled and published by the steps that every pipeline has."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from tenacity import retry, retry_if_exception_type, stop_after_attempt

from lab.errors import CommitError, LabError
from tests.support.steps import STEPS, run_dvc
from tests.support.stores import DAG_ID, DAG_VERSION, PATH, STOPPER, copy_project, employees, md5_of

if TYPE_CHECKING:
    from tests.support.stores import Project, Run

ORDERS, REPORT = "data/orders", "reports/daily.txt"
DECLARED = {"orders": ORDERS, "report": REPORT}
FILES = {"a.bin": bytes(range(256)), "sub/ä b.txt": b"text\r\n", "empty": b""}


@dataclass(frozen=True)
class Pipeline:
    """One run of a pipeline of somebody's own: its data sets, and what its step does to them."""

    run: Run
    script: str = ""  # the step that publish may run again, as a shell script
    declared: str = json.dumps(DECLARED)

    def step(self, *argv: str, code: int = 0, **env: str | None) -> str:
        """Run a step, which must end with this code. Return what it printed."""
        again = [{"argv": ["sh", "-ec", self.script], "variables": {"MARK": "7"}}]
        given = {"DATA_SETS": self.declared, "AGAIN": json.dumps(again), **env}
        process = self.run.start("dataset-steps", *argv, **given)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == code, output
        return output

    def pull(self, *words: str, **env: str) -> str:
        return self.step("pull", *words, code=0, **env)

    def publish(self, *words: str, code: int = 0, **env: str | None) -> str:
        return self.step("publish", *words, code=code, **env)

    @property
    def clone(self) -> Path:
        return self.run.folder / "repository"

    def write(self, path: str, content: bytes) -> None:
        """Write a file to the clone, as a step of the pipeline does."""
        file = self.clone / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def write_orders(self, **changed: bytes) -> None:
        for name, content in {**FILES, **changed}.items():
            self.write(f"{ORDERS}/{name}", content)


@pytest.fixture(scope="module")
def ordered_once(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a repository in which a run has published a directory and a file."""
    project = copy_project(template, tmp_path_factory.mktemp("ordered"))
    first = Pipeline(project.run())
    first.pull("orders", "report", "--optional")
    first.write_orders()
    first.write(REPORT, b"three\n")
    first.publish("orders", "report")
    return project


@pytest.fixture
def ordered(ordered_once: Project, tmp_path: Path) -> Project:
    """Return a copy of that repository, of a test's own."""
    return copy_project(ordered_once, tmp_path)


def checkout(project: Project, folder: Path, commit: str = "main") -> Path:
    """Return a plain clone at a commit, with all that plain DVC pulls."""
    project.git("clone", "--quiet", project.lab.git_url, folder, cwd=folder.parent)
    project.git("checkout", "--quiet", commit, cwd=folder)
    run_dvc(folder, project, "pull")
    return folder


def read_trailers(project: Project, commit: str = "main") -> list[list[str]]:
    """Return the trailers of a commit in their order."""
    said = project.git("log", "-1", "--format=%(trailers:only,unfold)", commit)
    return [line.split(": ", 1) for line in said.splitlines() if line]


def read_out(project: Project, path: str, commit: str = "main") -> dict[str, str | int]:
    (out,) = yaml.safe_load(project.git("show", f"{commit}:{path}.dvc"))["outs"]
    assert isinstance(out, dict)
    return out


# --- What is published


def test_two_data_sets_are_one_commit_that_plain_dvc_brings_back(
    ordered: Project, tmp_path: Path
) -> None:
    folder = checkout(ordered, tmp_path / "clone")
    found = {
        str(p.relative_to(folder / ORDERS)): p.read_bytes()
        for p in (folder / ORDERS).rglob("*")
        if p.is_file()
    }
    assert found == FILES
    assert (folder / REPORT).read_bytes() == b"three\n"
    orders, report = read_out(ordered, ORDERS), read_out(ordered, REPORT)
    assert orders["nfiles"] == 3
    run_id = dict(read_trailers(ordered))["Run-Id"]
    assert read_trailers(ordered) == [
        ["Run-Id", run_id],
        ["Dag-Id", DAG_ID],
        ["Dag-Version", DAG_VERSION],
        ["Data-Path", ORDERS],
        ["Data-Md5", orders["md5"]],
        ["Data-Size", str(orders["size"])],
        ["Data-Path", REPORT],
        ["Data-Md5", report["md5"]],
        ["Data-Size", str(report["size"])],
    ]
    assert len(ordered.list_commits()) == 2
    status = ordered.git("status", "--porcelain", cwd=folder)
    assert status == ""
    assert "up to date" in run_dvc(folder, ordered, "status")


def test_only_what_has_changed_is_in_the_commit(ordered: Project) -> None:
    before = read_out(ordered, ORDERS)
    mine = Pipeline(ordered.run())
    mine.pull("orders", "report")
    assert {p: (mine.clone / ORDERS / p).read_bytes() for p in FILES} == FILES
    mine.write_orders(**{"a.bin": b"new"})
    mine.publish("orders", "report", "--message", "correct")
    subject, _, _ = ordered.git("log", "-1", "--format=%B").partition("\n")
    assert subject == f"data: correct {ORDERS}"
    groups = [value for key, value in read_trailers(ordered) if key in ("Data-Path", "Data-Parent")]
    assert groups == [ORDERS, before["md5"]]
    changed = ordered.git("show", "--name-only", "--format=")
    assert changed.split() == [f"{ORDERS}.dvc"]


def test_the_very_same_bytes_make_no_commit(ordered: Project) -> None:
    tip = ordered.tip()
    mine = Pipeline(ordered.run())
    mine.pull("orders", "report")
    mine.write_orders()
    assert "byte for byte what main has: no commit was made" in mine.publish("orders", "report")
    assert "no commit was made" in mine.publish("orders", "report"), "a retry after the end"
    assert ordered.tip() == tip
    assert sorted(p.name for p in mine.run.folder.iterdir()) == ["unchanged.json"]


def test_what_was_read_is_named_with_its_commit(ordered: Project) -> None:
    made = ordered.tip()
    Pipeline(ordered.run()).run.run_steps(*STEPS)  # the dataset moves on
    mine = Pipeline(ordered.run())
    mine.pull("orders", DATA_COMMIT=made[:12])
    mine.pull("report")
    mine.write(REPORT, b"of older orders\n")
    mine.publish("report")
    assert read_trailers(ordered)[-3:] == [
        ["From-Path", ORDERS],
        ["From-Commit", made],
        ["From-Md5", read_out(ordered, ORDERS)["md5"]],
    ]


def test_an_older_version_is_pulled_and_replaces_the_newest(ordered: Project) -> None:
    first = ordered.tip()
    old = read_out(ordered, REPORT)["md5"]
    second = Pipeline(ordered.run())
    second.pull("report")
    second.write(REPORT, b"four\n")
    second.publish("report")
    newer = read_out(ordered, REPORT)["md5"]
    back = Pipeline(ordered.run())
    back.pull("report", DATA_COMMIT=first)
    assert (back.clone / REPORT).read_bytes() == b"three\n"
    back.publish("report")
    assert read_out(ordered, REPORT)["md5"] == old
    assert dict(read_trailers(ordered))["Data-Parent"] == newer


def test_small_files_and_metrics_are_in_the_same_commit(ordered: Project, tmp_path: Path) -> None:
    mine = Pipeline(ordered.run())
    mine.pull("orders", "report")
    mine.write(REPORT, b"five\n")
    mine.write("reports/daily.schema.json", b"{}\n")
    mine.write("reports/daily.metrics.json", b'{"rows": 5}\n')
    mine.write("notes.txt", b"of nobody")
    words = ("--file", "reports/daily.schema.json", "--metrics", "reports/daily.metrics.json")
    said = mine.publish("report", *words, "--result", "report.json")
    assert "not published: notes.txt" in said
    folder = checkout(ordered, tmp_path / "clone")
    assert json.loads((folder / "reports/daily.schema.json").read_text()) == {}
    assert "rows" in run_dvc(folder, ordered, "metrics", "show")
    result = json.loads(ordered.lab.read_object(f"results/{DAG_ID}/report.json"))
    orders, report = read_out(ordered, ORDERS), read_out(ordered, REPORT)
    parent = ordered.git("rev-parse", "main~1").strip()
    before = read_out(ordered, REPORT, parent)["md5"]
    assert result == {
        "run_id": mine.run.id,
        "dag_id": DAG_ID,
        "commit": ordered.tip(),
        "dag_version": DAG_VERSION,
        "data": [
            {
                "name": "report",
                "path": REPORT,
                "md5": report["md5"],
                "size": report["size"],
                "parent": before,
            }
        ],
        "from": [{"name": "orders", "path": ORDERS, "commit": parent, "md5": orders["md5"]}],
        "metrics": {"rows": 5},
    }
    assert "was published before" in mine.publish("report", *words), "a retry after the end"


# --- Somebody else publishes meanwhile

COUNT = f'test "$MARK" = 7; printf "%s," "$RUN_ID" >> {REPORT}'

LEAVE = f'touch {ORDERS}/"$(printf %s "$RUN_ID" | md5sum | cut -c 1-32)"'


def start_counting(project: Project, *names: str) -> Pipeline:
    """Return a run that has pulled the report, and whose step has added the run's id to it."""
    mine = Pipeline(project.run(), COUNT)
    mine.pull(*(names or ("orders", "report")))
    with (mine.clone / REPORT).open("a") as file:
        file.write(f"{mine.run.id},")
    return mine


def test_the_steps_run_again_on_the_newest_version(ordered: Project) -> None:
    runs = [start_counting(ordered) for _ in range(3)]
    said = [mine.publish("report") for mine in runs]
    assert "again: sh" not in said[0]
    assert all("report was published by somebody else meanwhile" in text for text in said[1:])
    ids = "".join(f"{mine.run.id}," for mine in runs)
    assert content_of_report(ordered) == f"three\n{ids}"
    assert ordered.list_run_ids()[-3:] == [mine.run.id for mine in runs]


def test_twelve_runs_at_once_and_a_person_s_pushes(ordered: Project) -> None:
    """Each run changes a directory and a file; eight take turns in one folder, four in others."""
    folders = [ordered] * 8 + [ordered.with_own_folder() for _ in range(4)]
    runs = [replace(start_counting(folder), script=f"{COUNT}; {LEAVE}") for folder in folders]
    for mine in runs:
        mine.write(f"{ORDERS}/{md5_of(mine.run.id.encode())}", b"")
    with ThreadPoolExecutor(13) as pool:
        done = [pool.submit(mine.publish, "orders", "report") for mine in runs]
        for number in range(2):
            push_report(ordered, f"person {number},")
        said = [each.result() for each in done]
    assert all("published commit" in text for text in said)
    ids = sorted(mine.run.id for mine in runs)
    assert sorted(ordered.list_run_ids()[1:]) == ids
    *told, last = content_of_report(ordered).removeprefix("three\n").split(",")
    assert (sorted(told), last) == (sorted([*ids, "person 0", "person 1"]), "")
    listing = ordered.stores.read_object(str(read_out(ordered, ORDERS)["md5"]))
    left = {entry["relpath"] for entry in json.loads(listing)} - FILES.keys()
    assert left == {md5_of(run_id.encode()) for run_id in ids}


@retry(stop=stop_after_attempt(20), retry=retry_if_exception_type(LabError), reraise=True)
def push_report(project: Project, words: str) -> None:
    """Publish the newest report with these words added, as a person does; again if outrun."""

    def add(clone: Path) -> None:
        pointer = clone / f"{REPORT}.dvc"
        content = yaml.safe_load(pointer.read_text())
        (out,) = content["outs"]
        added = project.stores.read_object(out["md5"]) + words.encode()
        project.stores.put_object(added)
        out |= {"md5": md5_of(added), "size": len(added)}
        pointer.write_text(yaml.safe_dump(content))

    project.push_change(add)


def content_of_report(project: Project) -> str:
    return project.stores.read_object(str(read_out(project, REPORT)["md5"])).decode()


PLACES = [
    ("after", "workspace:Workspace.clear"),
    ("after", "repository:clone"),
    ("after", "again:pull_once"),
    ("after", "again:run_step"),
    ("after", "again:start_over"),
    ("after", "repository:open_publishing_tree"),
    ("before", "again:run_step"),  # the last one: nobody publishes after it
]


def test_kills_while_the_steps_run_again_change_nothing_twice(ordered: Project) -> None:
    """Before each of them another run publishes, so that the steps have to run again."""
    mine, others = start_counting(ordered), []
    for when, place in PLACES:
        others.append(start_counting(ordered, "report"))
        others[-1].publish("report")
        kill_publish(mine, when, place)
    mine.publish("report")
    ids = "".join(f"{each.run.id}," for each in (*others, mine))
    assert content_of_report(ordered) == f"three\n{ids}"


def kill_publish(mine: Pipeline, when: str, place: str) -> None:
    """Publish the report, and have the step kill itself before or after a function."""
    again = [{"argv": ["sh", "-ec", COUNT], "variables": {"MARK": "7"}}]
    words = (sys.executable, "-c", STOPPER, place, when, "publish", "report")
    process = mine.run.start(*words, DATA_SETS=mine.declared, AGAIN=json.dumps(again))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, output


def test_steps_of_another_image_are_left_to_the_operator(ordered: Project) -> None:
    """Publish pulls anew and keeps the turn; it goes on when it hears that they have run."""
    mine, other = start_counting(ordered), start_counting(ordered)
    third = start_counting(ordered)
    other.publish("report")
    for _ in range(2):  # as when the operator was killed before it ran the steps
        assert "steps have to run again" in mine.publish("report", code=80, AGAIN=None)
    assert (mine.clone / REPORT).read_bytes() == f"three\n{other.run.id},".encode()
    turn = json.loads((mine.run.folder.parent / "publish.turn").read_text())
    assert turn["key"] == mine.run.folder.name
    with (mine.clone / REPORT).open("a") as file:
        file.write(f"{mine.run.id},")
    waiting = third.run.start(
        "dataset-steps",
        "publish",
        "report",
        DATA_SETS=third.declared,
        AGAIN=json.dumps([{"argv": ["sh", "-ec", COUNT], "variables": {"MARK": "7"}}]),
    )
    mine.publish("report", AGAIN=None, STEPS_HAVE_RUN="1")
    output, _ = waiting.communicate(timeout=120)
    assert waiting.returncode == 0, output
    ids = [other.run.id, mine.run.id, third.run.id]
    assert ordered.list_run_ids()[-3:] == ids
    assert not (mine.run.folder.parent / "publish.turn").exists()


def test_a_dag_may_ask_to_fail_instead(ordered: Project) -> None:
    mine, other = start_counting(ordered), start_counting(ordered)
    other.publish("report")
    tip = ordered.tip()
    said = mine.publish("report", "--on-conflict", "fail", code=65)
    assert '`on_conflict` is "fail": start another run' in said
    assert ordered.tip() == tip


FETCH = "import pickle, sys; print(pickle.load(sys.stdin.buffer).data('report'))"


def test_data_is_a_path_in_a_clone_that_stays_until_the_process_ends(ordered: Project) -> None:
    lab = replace(ordered.lab, data_sets=DECLARED)
    with ThreadPoolExecutor(3) as pool:
        orders, report, again = pool.map(lab.data, ("orders", "report", "orders"))
    assert {path: (orders / path).read_bytes() for path in FILES} == FILES
    assert again == lab.data("orders", ordered.tip()) == orders, "one clone of a commit"
    mine = Pipeline(ordered.run())
    mine.pull("report")
    mine.write(REPORT, b"four\n")
    mine.publish("report")
    assert lab.data("report").read_bytes() == b"four\n"
    assert report.read_bytes() == lab.data("report", "main~1").read_bytes() == b"three\n"
    for name, commit in (("order", "main"), ("orders", "main~2"), ("orders", "no-branch")):
        with pytest.raises(CommitError):
            lab.data(name, commit)
    words, given = [sys.executable, "-c", FETCH], pickle.dumps(lab)
    done = subprocess.run(words, input=given, capture_output=True, check=True, timeout=120)
    path = Path(done.stdout.decode().strip())
    assert path.name == report.name
    assert not path.parent.exists()


def test_what_was_only_read_may_move(ordered: Project) -> None:
    """The commit names the version that was read; nothing runs again."""
    mine = Pipeline(ordered.run())
    mine.pull("dataset", "report")
    Pipeline(ordered.run()).run.run_steps(*STEPS)
    mine.write(REPORT, b"of an older dataset\n")
    assert "again:" not in mine.publish("report")
    assert ["From-Path", PATH] in read_trailers(ordered)


def test_a_step_that_fails_when_it_runs_again(ordered: Project) -> None:
    other = start_counting(ordered)
    mine = replace(start_counting(ordered), script="exit 3")
    hopeless = replace(start_counting(ordered), script="exit 65")
    other.publish("report")
    tip = ordered.tip()
    assert "ended with code 3" in mine.publish("report", code=75)
    assert "no retry can help" in hopeless.publish("report", code=65)
    assert ordered.tip() == tip
    replace(mine, script=COUNT).publish("report")
    assert ordered.list_run_ids()[-1] == mine.run.id


# --- What can't be right


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ({"a": "x/y", "b": "x/y"}, "are both at x/y"),
        ({"a": "x", "b": "x/y"}, "are inside each other"),
        ({"a": PATH}, f"are both at {PATH}"),
        ({"a": "../x"}, "is not a path inside the repository"),
        ({"A": "x"}, "is no name of a data set"),
    ],
)
def test_data_sets_that_can_not_be_declared(
    project: Project, declared: dict[str, str], why: str
) -> None:
    mine = Pipeline(project.run(), declared=json.dumps(declared))
    assert why in mine.step("pull", "dataset", code=65)
    assert list(project.shared.iterdir()) == []


def test_a_data_set_that_is_not_declared(project: Project) -> None:
    mine = Pipeline(project.run())
    said = mine.step("pull", "order", code=65)
    assert "no data set order is declared" in said
    assert "there are dataset, orders, report" in said
    assert mine.step("publish", "order", code=65).startswith("error: no data set order")


def test_a_data_set_without_a_version(project: Project) -> None:
    mine = Pipeline(project.run())
    assert f"has no {ORDERS}.dvc" in mine.step("pull", "orders", code=65)
    assert "it begins empty" in mine.pull("orders", "--optional")
    assert not (mine.clone / ORDERS).exists()


def test_steps_that_leave_nothing_to_publish(ordered: Project) -> None:
    tip = ordered.tip()
    mine = Pipeline(ordered.run())
    mine.pull("orders", "report")
    (mine.clone / REPORT).unlink()
    assert REPORT in mine.publish("report", code=65)
    (mine.clone / REPORT).symlink_to("/etc/hostname")
    assert "symbolic link" in mine.publish("report", code=65)
    (mine.clone / REPORT).unlink()
    mine.write(REPORT, b"seven\n")
    assert "no step wrote x.json" in mine.publish("report", "--file", "x.json", code=65)
    assert ordered.tip() == tip
    mine.publish("report")


def test_a_disk_that_is_full_is_worth_another_try(ordered: Project) -> None:
    """A file may have 1 MiB here, which is what a full disk looks like to whoever writes it."""
    first = Pipeline(ordered.run())
    first.pull("orders")
    first.write_orders(large=bytes(3 << 20))
    first.publish("orders")
    mine = Pipeline(replace(ordered.run(), fresh=True))
    words = ("sh", "-c", "ulimit -f 2048; exec dataset-steps pull report orders")
    process = mine.run.start(*words, DATA_SETS=mine.declared)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output
    assert "error: " in output
    assert not (mine.clone / ORDERS).exists()
    mine.pull("report", "orders")
    assert (mine.clone / ORDERS / "large").stat().st_size == 3 << 20


def test_a_file_that_is_too_large_for_git(ordered: Project) -> None:
    mine = Pipeline(ordered.run())
    mine.pull("report")
    mine.write("large.json", b" " * (10 * 2**20 + 1))
    said = mine.publish("report", "--file", "large.json", code=65)
    assert "too many for git" in said


def test_a_directory_that_git_keeps_itself(project: Project) -> None:
    project.push_change(lambda clone: keep_in_git(clone / ORDERS))
    mine = Pipeline(project.run())
    mine.pull("orders", "--optional")
    mine.write_orders()
    assert f"git keeps {ORDERS} itself" in mine.publish("orders", code=65)


def keep_in_git(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "kept.txt").write_bytes(b"by git")


def test_a_table_is_appended_to_and_no_directory(ordered: Project) -> None:
    """`dataset_pipeline` of a lab whose dataset is a directory says so."""
    mine = Pipeline(ordered.run(), declared="")
    env = {"DATASET_PATH": ORDERS}
    mine.step("pull", "dataset", code=0, **env)
    assert "is a directory" in mine.step("modify", code=65, **env)


def test_the_default_dataset_needs_no_declaration(project: Project) -> None:
    run = project.run()
    run.run_steps(*STEPS)
    assert project.prove_commits()[-1].trailers["Run-Id"] == run.id
    assert employees(300) in project.stores.read_object(project.list_commits()[0].md5)
