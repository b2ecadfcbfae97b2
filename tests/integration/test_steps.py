"""The steps as real processes, against the lab's real S3 server and git server."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from botocore.exceptions import ClientError

from dataset_steps import remote
from dataset_steps.content import Content
from dataset_steps.errors import TemporaryError
from dataset_steps.pointer import Pointer
from dataset_steps.remote import Remote
from dataset_steps.workspace import try_lock
from lab import layout
from lab.backends.embedded.services import gitserver, seaweedfs
from tests.support.serving import Silent, serving
from tests.support.steps import HASTY, MEASURE, STEPS, open_remote, reproduce_dataset, run_dvc
from tests.support.stores import (
    DAG_ID,
    DAG_VERSION,
    PATH,
    complete,
    employees,
    md5_of,
)

if TYPE_CHECKING:
    from tests.support.stores import Project, Run, Stores


# --- The first version


def test_an_import_can_be_reproduced(empty: Project, tmp_path: Path) -> None:
    content = employees(50, "imported")
    source = tmp_path / "some file.csv"
    source.write_bytes(content)
    done = empty.run().run_step("import", source)
    assert done.code == 0, done.output
    (commit,) = empty.prove_commits()
    assert commit.parents == ()
    assert commit.trailers == {
        "Data-Path": PATH,
        "Data-Md5": md5_of(content),
        "Data-Size": str(len(content)),
    }
    assert reproduce_dataset(empty, commit.hash, tmp_path / "clone") == content
    assert source.read_bytes() == content


def test_an_import_leaves_git_and_dvc_nothing_to_complain_about(
    template: Project, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    reproduce_dataset(template, "main", clone)
    status = template.git("status", "--porcelain", "--ignored", cwd=clone).splitlines()
    assert status == ["!! .dvc/cache/", "!! .dvc/tmp/", f"!! {PATH}"]
    assert "up to date" in run_dvc(clone, template, "status")


def test_importing_twice_changes_nothing(project: Project, tmp_path: Path) -> None:
    source = tmp_path / "other.csv"
    source.write_bytes(employees(9, "other"))
    before = project.tip()
    done = project.run().run_step("import", source)
    assert (done.code, project.tip()) == (0, before)
    assert "already versioned" in done.output


def test_two_imports_at_once_make_one_version(empty: Project, tmp_path: Path) -> None:
    sources = [tmp_path / f"{n}.csv" for n in range(2)]
    for n, source in enumerate(sources):
        source.write_bytes(employees(9, f"import {n}"))
    runs = [empty.run() for _ in sources]
    started = [r.start("dataset-steps", "import", s) for r, s in zip(runs, sources, strict=True)]
    assert [r.finish(p).code for r, p in zip(runs, started, strict=True)] == [0, 0]
    assert len(empty.prove_commits()) == 1


# --- A run


def test_a_run_makes_one_commit(project: Project) -> None:
    before = project.list_commits()[-1]
    run = replace(project.run(), fresh=True)
    run.run_steps(*STEPS)
    _, after = project.prove_commits()
    assert after.parents == (before.hash,)
    assert after.trailers == {
        "Run-Id": run.id,
        "Dag-Id": DAG_ID,
        "Dag-Version": DAG_VERSION,
        "Data-Path": PATH,
        "Data-Md5": after.md5,
        "Data-Size": str(after.size),
        "Data-Parent": before.md5,
    }
    assert after.message.startswith(f"data: append a record to {PATH}\n\nRun-Id: ")
    changed = project.git("show", "--stat=200", "--format=", after.hash)
    assert " ".join(changed.split()) == (
        f"{PATH}.dvc | 4 ++-- 1 file changed, 2 insertions(+), 2 deletions(-)"
    )
    assert project.list_leftovers() == []


@pytest.mark.parametrize("fresh", [True, False], ids=["a Python of its own", "a fork"])
def test_dvc_s_databases_are_where_only_the_step_is(project: Project, fresh: bool) -> None:
    run = replace(project.run(), fresh=fresh)
    run.run_steps("pull", "modify")
    run.kill_step("publish", "after", "repository:push")
    # Beside the clone's own `.dvc`, nothing of DVC's is on the volume that all steps share.
    assert {path.name for path in project.shared.iterdir()} == {"runs"}
    assert not [*project.shared.rglob("*.db"), *project.shared.rglob("*.db-wal")]
    (left,) = project.temporary.iterdir()
    assert [*left.rglob("*.db")], "a killed step leaves them there"
    run.run_steps("publish")
    assert [*project.temporary.iterdir()] == [left], "one that ends leaves nothing"


def test_a_run_can_be_reproduced(project: Project, tmp_path: Path) -> None:
    run = project.run()
    run.run_steps(*STEPS)
    first, second = project.prove_commits()
    old = reproduce_dataset(project, first.hash, tmp_path / "old")
    new = reproduce_dataset(project, second.hash, tmp_path / "new")
    assert new.startswith(old)
    assert new[len(old) :].startswith(b"301,")
    assert new.count(b"\n") == old.count(b"\n") + 1


def test_runs_one_after_another(project: Project) -> None:
    runs = [project.run() for _ in range(3)]
    for run in runs:
        run.run_steps(*STEPS)
    assert project.list_run_ids() == [run.id for run in runs]
    keys = [
        project.stores.read_object(c.md5).splitlines()[-1].split(b",")[0]
        for c in project.prove_commits()
    ]
    assert keys == [b"300", b"301", b"302", b"303"]


def test_every_step_can_be_repeated(project: Project) -> None:
    run = project.run()
    first = run.run_steps("pull")
    pulled = run.dataset.read_bytes()
    assert "already pulled" in run.run_steps("pull")
    assert run.dataset.read_bytes() == pulled
    said = run.run_steps("modify")
    modified = run.dataset.read_bytes()
    assert run.run_steps("modify") == said
    assert run.dataset.read_bytes() == modified
    assert "already pulled" in run.run_steps("pull")
    assert run.dataset.read_bytes() == modified
    published = run.run_steps("publish")
    tip = project.tip()
    assert tip in published
    assert "pulled" in first
    assert tip in run.run_steps("publish")
    assert project.tip() == tip
    assert len(project.prove_commits()) == 2


def test_a_run_that_starts_over_after_its_end_adds_nothing(project: Project) -> None:
    """As when somebody clears a finished run, or deletes it and triggers its id again."""
    run = project.run()
    first = run.run_steps(*STEPS)
    tip = project.tip()
    again = run.run_steps(*STEPS)
    assert project.tip() == tip
    assert first.endswith(f"published commit {tip}\n")
    assert f"\ncommit {tip} of this run was published before" in again
    assert "published commit" not in again
    assert not run.folder.exists()


def test_another_dag_s_run_of_the_same_name_is_another_run(project: Project) -> None:
    run = project.run("manual__same")
    run.run_steps(*STEPS)
    for step in STEPS:
        assert run.run_step(step, DAG_ID="other_pipeline").code == 0
    _, first, second = project.list_commits()
    assert first.trailers["Run-Id"] == second.trailers["Run-Id"]
    assert (first.trailers["Dag-Id"], second.trailers["Dag-Id"]) == (DAG_ID, "other_pipeline")


@pytest.mark.parametrize("run_id", ["größe, 王\u2028\x85", "a: b <c> 100%s $(id) `id` \\n 'x'\""])
def test_odd_names_of_runs(project: Project, run_id: str) -> None:
    run = project.run(run_id)
    run.run_steps(*STEPS)
    tip = project.tip()
    run.run_steps("publish")
    assert (project.tip(), project.list_run_ids()) == (tip, [run_id])


def test_an_unversioned_bundle(project: Project) -> None:
    run = project.run()
    run.run_steps("pull", "modify")
    assert run.run_step("publish", DAG_VERSION=None).code == 0
    assert project.list_commits()[-1].trailers["Dag-Version"] == "unversioned"


# --- Runs that overlap


def test_two_runs_from_one_base_make_two_commits(project: Project) -> None:
    runs = [project.run(), project.run()]
    for step in STEPS:
        for run in runs:
            run.run_steps(step)
    assert project.list_run_ids() == [run.id for run in runs]
    _, _, last = project.prove_commits()
    assert project.stores.read_object(last.md5).count(b"\n") == 303


def test_somebody_else_s_files_are_kept_and_the_dataset_is_not_pulled_again(
    project: Project,
) -> None:
    run = project.run()
    run.run_steps("pull", "modify")
    other = project.push_change(lambda clone: write_bytes(clone / "README.md", b"# Data\n"))
    said = run.run_steps("publish")
    assert "pulled" not in said
    assert "appended" not in said
    _, readme, mine = project.list_commits()
    assert (readme.hash, mine.parents) == (other, (other,))
    assert project.git("show", f"{mine.hash}:README.md") == "# Data\n"
    project.prove_one_record(
        project.stores.read_object(readme.md5), project.stores.read_object(mine.md5)
    )


def test_a_branch_that_moves_during_the_push(project: Project) -> None:
    """The server refuses the push; the run's commit is made anew on top of the other one."""
    run = project.run()
    run.run_steps("pull", "modify")
    with run.holding_step("publish", "repository:push"):
        project.push_change(lambda clone: write_bytes(clone / "README.md", b"# Data\n"))
    _, readme, mine = project.list_commits()
    assert mine.parents == (readme.hash,)
    assert project.list_run_ids() == [run.id]


def test_a_dataset_that_moves_during_the_push(project: Project) -> None:
    run, other = project.run(), project.with_own_folder().run()
    run.run_steps("pull", "modify")
    other.run_steps("pull")
    with run.holding_step("publish", "repository:push"):
        other.run_steps("modify", "publish")
    assert project.list_run_ids() == [other.id, run.id]
    project.prove_commits()


def test_a_dataset_that_somebody_replaced(project: Project) -> None:
    """The run's record goes to the newest version, whatever the pulled one was."""
    run = project.run()
    run.run_steps("pull", "modify")
    project.replace_dataset(employees(7, f"shorter {project.name}"))
    assert "pulled" in run.run_steps("publish")
    assert (
        project.stores.read_object(project.prove_commits()[-1].md5)
        .splitlines()[-1]
        .startswith(b"8,")
    )


def write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


# --- Steps that are killed

PLACES = [
    ("pull", "after", "repository:clone"),
    ("pull", "before", "remote:write_blocks"),
    ("pull", "after", "remote:Remote.download"),
    ("pull", "after", "pull:pull_once"),
    ("modify", "before", "modify:append"),
    ("modify", "after", "modify:append"),
    ("modify", "after", "workspace:Workspace.seal"),
    ("publish", "before", "remote:Remote.send"),
    ("publish", "after", "remote:Remote.store"),
    ("publish", "before", "files:sync_to_disk"),
    ("publish", "after", "pointer:write"),
    ("publish", "after", "repository:commit"),
    ("publish", "after", "workspace:Workspace.record_made"),
    ("publish", "after", "repository:push"),
    ("publish", "before", "workspace:Workspace.remove"),
    ("publish", "after", "workspace:Workspace.clear"),
]


@pytest.mark.parametrize("adopted", [False, True], ids=["", "a pointer of DVC 2"])
def test_a_run_whose_steps_are_killed_between_all_that_they_do(
    project: Project, *, adopted: bool
) -> None:
    """The pointer is as the import wrote it, or as somebody else did with DVC 2, for CRLF."""
    if adopted:
        content = employees(40, project.name).replace(b"\n", b"\r\n")
        project.adopt_dvc_2(content, "# theirs\n")
    before = len(project.list_commits())
    run = project.run()
    for step in STEPS:
        for _, when, place in (p for p in PLACES if p[0] == step):
            run.kill_step(step, when, place)
            assert len(project.prove_commits()) <= before + 1
        run.run_steps(step)
    assert project.list_run_ids() == [run.id]
    project.prove_commits()
    assert project.git("show", f"main:{PATH}.dvc").startswith("# theirs\n") is adopted
    assert not run.folder.exists()


def test_a_run_whose_push_was_killed_says_that_it_has_published(project: Project) -> None:
    """Its commit was made in its own workspace, and not by another run of the same id."""
    run = project.run()
    run.run_steps("pull", "modify")
    run.kill_step("publish", "after", "repository:push")
    assert run.run_steps("publish") == f"published commit {project.tip()}\n"


FOLLOWING = (
    "workspace:Workspace.clear",
    "repository:clone",
    "remote:Remote.download",
    "pull:download",
    "again:run_step",
    "again:start_over",
)


def test_a_push_killed_while_it_follows_a_dataset_that_moved(project: Project) -> None:
    run = project.run()
    run.run_steps("pull", "modify")
    for place in FOLLOWING:
        project.run().run_steps(*STEPS)
        run.kill_step("publish", "after", place)
    run.run_steps("publish")
    assert project.list_run_ids()[-1] == run.id
    assert len(project.prove_commits()) == 2 + len(FOLLOWING)


KILLS = {"pull": 2, "modify": 1, "publish": 2}  # how often a run's step is killed


@pytest.mark.sweep
def test_kills_at_random_moments(project: Project, pytestconfig: pytest.Config) -> None:
    seed = pytestconfig.getoption("--seed") or random.SystemRandom().randrange(2**32)
    print(f"repeat it with --seed {seed}")
    chance = random.Random(seed)
    undisturbed = project.run()
    seconds = {step: measure_seconds(undisturbed, step) for step in STEPS}
    runs = [project.run() for _ in range(20 if pytestconfig.getoption("--every") else 5)]
    for run in runs:
        for step, times in KILLS.items():
            for _ in range(times):
                moment = chance.uniform(0, seconds[step])
                kill_after(run, step, moment, group=chance.random() < 0.5)
            run.run_steps(step)
        assert project.list_leftovers() == []
    assert project.list_run_ids() == [undisturbed.id, *(run.id for run in runs)]
    project.prove_commits()


def measure_seconds(run: Run, step: str) -> float:
    """Return how long a step takes that nobody disturbs."""
    began = time.monotonic()
    run.run_steps(step)
    return time.monotonic() - began


def kill_after(run: Run, step: str, seconds: float, *, group: bool) -> None:
    """Kill a step after some seconds: with all that it started, or alone."""
    process = run.start("dataset-steps", *complete(step))
    time.sleep(seconds)  # the moment of the kill, not a wait
    if group:
        with suppress(ProcessLookupError):  # it has ended already
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    run.finish(process)


def test_the_git_of_a_killed_step_keeps_a_retry_out(project: Project, tmp_path: Path) -> None:
    mark, script = tmp_path / "pid", tmp_path / "bin" / "git"
    script.parent.mkdir()
    script.write_text(
        f"#!/bin/sh\necho $$ > '{mark}.part'; mv '{mark}.part' '{mark}'; exec sleep 60"
    )
    script.chmod(0o700)
    run = project.run()
    path = f"{script.parent}:{project.environment(run.id)['PATH']}"
    process = run.start("dataset-steps", "pull", "dataset", PATH=path)
    while not mark.exists():
        time.sleep(0.02)
    process.kill()
    run.finish(process)
    try:
        assert try_lock(run.folder.with_name(f"{run.folder.name}.lock")) is None
    finally:
        os.kill(int(mark.read_text()), signal.SIGKILL)
    run.run_steps(*STEPS)
    project.prove_commits()


def test_a_lock_file_of_a_killed_git_does_not_block(project: Project) -> None:
    run = project.run()
    run.run_steps("pull", "modify")
    folder = run.folder / "repository" / ".git"
    locks = ["index.lock", "HEAD.lock", "config.lock", "packed-refs.lock"]
    locks += ["refs/heads/main.lock", "refs/remotes/origin/main.lock"]
    for name in locks:
        (folder / name).touch()
    run.run_steps("publish")
    assert project.list_run_ids() == [run.id]


def test_what_a_killed_modification_appended_is_cut_off(project: Project) -> None:
    run = project.run()
    run.run_steps("pull")
    with run.dataset.open("ab") as file:
        file.write(b'301,"M\xc3')
    run.run_steps("modify", "publish")
    project.prove_commits()


def test_a_half_emptied_workspace_is_pulled_anew(project: Project) -> None:
    run = project.run()
    run.run_steps("pull")
    (run.folder / "pulled.dataset.json").unlink()
    run.dataset.unlink()
    run.run_steps(*STEPS)
    project.prove_commits()


def test_a_dataset_that_somebody_changed_is_refused(project: Project) -> None:
    run = project.run()
    run.run_steps("pull", "modify")
    content = run.dataset.read_bytes()
    before = project.tip()
    for other in (content.replace(b"note 3", b"note 4", 1), content + b"302,a,b,c\n", content[:-9]):
        run.dataset.write_bytes(other)
        assert "was changed by somebody else" in run.expect_refusal("publish")
    assert project.tip() == before
    run.dataset.write_bytes(content)
    run.run_steps("publish")


def test_a_base_that_somebody_changed_is_refused(project: Project) -> None:
    run = project.run()
    run.run_steps("pull")
    content = run.dataset.read_bytes()
    run.dataset.write_bytes(content.replace(b"note 3", b"note 4", 1))
    assert "was changed by somebody else" in run.expect_refusal("modify")
    assert len(project.list_commits()) == 1


def test_steps_out_of_order(project: Project) -> None:
    run = project.run()
    assert "was not pulled into this run's workspace" in run.expect_refusal("modify")
    assert "run the pull step first" in run.expect_refusal("publish")
    assert len(project.prove_commits()) == 1


# --- Errors that no retry can help


def test_a_missing_object_is_named(project: Project) -> None:
    key = project.replace_dataset(employees(5, project.name))
    project.stores.client.delete_object(Bucket=layout.BUCKET, Key=key)
    assert f"the remote has no object s3://{layout.BUCKET}/{key}" in project.run().expect_refusal(
        "pull"
    )


def test_an_object_of_other_bytes_is_refused(project: Project) -> None:
    content = employees(5, project.name)
    key = project.replace_dataset(content)
    for other in (content.replace(b"note 3", b"note 4"), content + b"6,a,1,b\n", content[:-9], b""):
        project.stores.client.put_object(Bucket=layout.BUCKET, Key=key, Body=other)
        run = project.run()
        said = run.expect_refusal("pull")
        assert f"the object s3://{layout.BUCKET}/{key} is not what its pointer names" in said
        assert not (run.folder / "pulled.dataset.json").exists()


def pointer_text(md5: object, size: object = 8) -> str:
    out = {"md5": md5, "size": size, "hash": "md5", "path": Path(PATH).name}
    return yaml.safe_dump({"outs": [out]})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (pointer_text("0" * 32), "the remote has no object"),
        (pointer_text("no hash"), "which is not the MD5 of a file"),
        (pointer_text(None), "which is not the MD5 of a file"),
        (pointer_text(md5_of(employees(300)), 8), "is not what its pointer names"),
        ("outs:\n- md5: [\n", "employees.csv.dvc is not a pointer: "),
        ("<<<<<<< HEAD\nouts:\n", "employees.csv.dvc is not a pointer: "),
        ("", "employees.csv.dvc is not a pointer: "),
    ],
)
def test_a_pointer_that_is_wrong(project: Project, text: str, why: str) -> None:
    project.replace_pointer(text)
    assert why in project.run().expect_refusal("pull")


def test_a_repository_without_a_dataset(empty: Project) -> None:
    assert "import a dataset first" in empty.run().expect_refusal("pull")


def test_a_repository_without_dvc(project: Project) -> None:
    project.push_change(lambda clone: (clone / ".dvc" / "config").unlink())
    assert "DVC" in project.run().expect_refusal("pull")


def prepare_run(step: str, project: Project) -> Run:
    """Return a new run, in which every step before `step` is done."""
    run = project.run()
    run.run_steps(*STEPS[: STEPS.index(step)])
    return run


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ("pull", "AWS_SECRET_ACCESS_KEY"),
        ("pull", "AWS_ACCESS_KEY_ID"),
        ("publish", "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_a_wrong_s3_key_is_refused_quickly(project: Project, step: str, name: str) -> None:
    run = prepare_run(step, project)
    began = time.monotonic()
    said = run.expect_refusal(step, **{name: "c4nary-s3-key"})
    assert time.monotonic() - began < 15
    assert "the S3 server refused the step's key" in said


@pytest.mark.parametrize("step", ["pull", "publish"])
def test_a_wrong_git_password_is_refused_quickly(project: Project, step: str) -> None:
    run = prepare_run(step, project)
    began = time.monotonic()
    said = run.expect_refusal(step, GIT_SYNC_PASSWORD="c4nary-git-password")
    assert time.monotonic() - began < 15
    assert "the git server refused the step's credentials" in said


def test_a_repository_of_somebody_else(project: Project) -> None:
    url = gitserver.repository_url(project.stores.site.ports, layout.PIPELINES)
    assert "the git server refused" in project.run().expect_refusal("pull", GIT_URL=url)


@pytest.mark.parametrize("name", ["GIT_URL", "S3_BUCKET", "RUN_ID", "GIT_SYNC_PASSWORD"])
def test_a_missing_variable(project: Project, name: str) -> None:
    assert f"lacks {name}\n" in project.run().expect_refusal("pull", **{name: None})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RUN_ID", "a\nRun-Id: other"),
        ("DAG_VERSION", "a\r\nx"),
        ("DATASET_PATH", "../employees.csv"),
        ("DATASET_PATH", "datasets/../../employees.csv"),
        ("DATASET_PATH", ".git/config"),
    ],
)
def test_a_variable_that_makes_no_sense(project: Project, name: str, value: str) -> None:
    assert name in project.run().expect_refusal("pull", **{name: value})
    assert list(project.shared.iterdir()) == []


# --- Errors that a retry may help


def test_a_machine_that_can_t_keep_a_workspace(project: Project) -> None:
    """A full disk, or a volume that is not there yet."""
    place = project.shared / "file"
    place.touch()
    done = project.run().run_step("pull", SHARED_DIR=str(place))
    assert done.code == 75
    assert done.output.startswith("error: ")
    assert str(place) in done.output


def run_hasty(run: Run, step: str, **env: str) -> str:
    """Run a step that does not wait between attempts; it must end with "a retry may help"."""
    done = run.finish(run.start(sys.executable, "-c", HASTY, *complete(step), **env))
    assert done.code == 75, done
    assert done.output.startswith("error: ")
    return done.output


@pytest.mark.parametrize("step", ["pull", "publish"])
def test_a_git_server_that_is_down(project: Project, step: str) -> None:
    run = prepare_run(step, project)
    project.stores.kill(gitserver.NAME)
    try:
        assert "git fetch failed" in run_hasty(run, step)
    finally:
        project.stores.start()
    run.run_steps(*STEPS)
    project.prove_commits()


@pytest.mark.parametrize("step", ["pull", "publish"])
def test_an_s3_server_that_is_down(project: Project, step: str) -> None:
    run = prepare_run(step, project)
    project.stores.kill(seaweedfs.NAME)
    try:
        began = time.monotonic()
        assert "s3://" in run_hasty(run, step)
        assert time.monotonic() - began < 60
    finally:
        project.stores.start()
    run.run_steps(*STEPS)
    project.prove_commits()


def test_servers_that_come_back_in_time(project: Project) -> None:
    """A step outlasts a restart; none of the task's attempts is spent on it."""
    run = project.run()
    for step in ("pull", "publish"):
        for service in (gitserver.NAME, seaweedfs.NAME):
            project.stores.kill(service)
        process = run.start("dataset-steps", *complete(step))
        time.sleep(1.5)
        project.stores.start()
        done = run.finish(process)
        assert done.code == 0, done
        run.run_steps("modify") if step == "pull" else None
    assert project.list_run_ids() == [run.id]
    project.prove_commits()


class Stranger(Silent, BaseHTTPRequestHandler):
    """A server that a request reaches by mistake: it knows no S3, and answers all the same."""

    status = 404
    body = b""

    def do_HEAD(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.body)

    def do_PUT(self) -> None:
        self.do_GET()


PAGE = b"<html><head><title>404 Not Found</title></head><body>Not Found</body></html>"
STRANGERS = [
    ("pull", 403, b"", "answered 403 for"),
    ("pull", 404, b"", "answered 404 for"),
    ("pull", 404, PAGE, "answered 404 for"),
    ("pull", 200, PAGE, "gives no ETag"),
    ("publish", 403, b"", "answered 403 for"),
    ("publish", 404, b"", "answered 404 for"),
    ("publish", 404, PAGE, "answered 404 for"),
    ("publish", 404, b"<Error><Code/></Error>", "answered 404 for"),
    ("publish", 200, PAGE, "gives no ETag"),
]


@pytest.mark.parametrize(("step", "status", "body", "why"), STRANGERS)
def test_what_a_stranger_says_of_the_data_is_not_believed(
    project: Project, step: str, status: int, body: bytes, why: str
) -> None:
    """While a server is restarted, a proxy may answer for it: nothing is lost, nothing refused."""
    run = prepare_run(step, project)
    stranger = type("Stranger", (Stranger,), {"status": status, "body": body})
    with serving(stranger) as url:
        assert why in run_hasty(run, step, AWS_ENDPOINT_URL_S3=url)
    run.run_steps(*STEPS)
    project.prove_commits()


class NoGet(Stranger):
    """An S3 server that reports an object but refuses its bytes, as without its KMS key."""

    body = b"<Error><Code>AccessDenied</Code><Message>no kms:Decrypt</Message></Error>"

    def do_HEAD(self) -> None:
        self.send_response(200 if self.command == "HEAD" else 403)
        self.send_header("Content-Length", str(len(self.body)))
        self.send_header("ETag", '"of an object"')
        self.end_headers()


def test_bytes_that_are_refused_where_their_head_is_not(project: Project) -> None:
    with serving(NoGet) as url:
        said = project.run().expect_refusal("pull", AWS_ENDPOINT_URL_S3=url)
    assert "refused the step's key" in said
    assert "no kms:Decrypt" in said


@pytest.mark.parametrize("step", ["pull", "publish"])
def test_a_bucket_that_is_not_there(project: Project, step: str) -> None:
    """It is not taken for a dataset that somebody has deleted."""
    run = prepare_run(step, project)
    body = b"<Error><Code>NoSuchBucket</Code><Message>no such bucket</Message></Error>"
    with serving(type("Stranger", (Stranger,), {"body": body})) as url:
        said = run.expect_refusal(step, AWS_ENDPOINT_URL_S3=url)
    assert "the S3 server can't serve s3://" in said
    assert "NoSuchBucket" in said


# --- Secrets


def test_secrets_are_in_no_file_commit_or_argument(project: Project) -> None:
    run = replace(project.run(), fresh=True)
    with recording_arguments() as seen:
        run.run_steps("pull", "modify")
        left = b"\0".join(p.read_bytes() for p in project.shared.rglob("*") if p.is_file())
        run.run_steps("publish")
    assert b"[remote" in left, "the clone's configuration is among what was looked at"
    assert any("dataset-steps" in text for text in seen)
    assert any("git" in text and "push" in text for text in seen)
    assert not project.stores.find_leaks(left.decode("utf-8", "replace"))
    assert not project.stores.find_leaks("\n".join(seen))
    assert not project.stores.find_leaks(project.git("log", "--format=raw", "--patch", "--all"))


@contextmanager
def recording_arguments() -> Iterator[set[str]]:
    """Yield the arguments of every process that is seen on this machine while the block runs."""
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("no /proc to read arguments from")
    seen: set[str] = set()
    ended = threading.Event()
    watcher = threading.Thread(target=record_arguments, args=(seen, ended))
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


def record_arguments(seen: set[str], ended: threading.Event) -> None:
    while not ended.wait(0.002):
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                seen.add(path.read_bytes().decode("utf-8", "replace"))


# --- The proof that the remote gives


@pytest.fixture
def workspace_remote(project: Project, monkeypatch: pytest.MonkeyPatch) -> Remote:
    """Return the remote as a run's step has it, in this process."""
    run = project.run()
    run.run_steps("pull")
    return open_remote(run, monkeypatch)


def make_pointer(content: bytes) -> Pointer:
    return Pointer(md5_of(content), len(content))


def test_dvc_does_not_wait_for_a_server_that_nobody_answers_for(workspace_remote: Remote) -> None:
    """A killed pod's address swallows what is sent there: botocore alone would wait 60 s."""
    limits = workspace_remote.objects(make_pointer(b"")).fs.fs_args["config_kwargs"]
    assert (limits["connect_timeout"], limits["read_timeout"]) == (5, 60)


def test_bytes_that_arrive_changed_are_refused(
    workspace_remote: Remote, stores: Stores, tmp_path: Path
) -> None:
    content = employees(20, "sent")
    named, path = make_pointer(content), tmp_path / "sent"
    path.write_bytes(content.replace(b"note 3", b"note 4"))
    with pytest.raises(TemporaryError, match="BadDigest"):
        workspace_remote.store(Content(named), path)
    assert not workspace_remote.is_stored(named)
    with pytest.raises(ClientError, match="NoSuchKey"):
        stores.read_object(named.md5)
    path.write_bytes(content)
    workspace_remote.store(Content(named), path)
    assert stores.read_object(named.md5) == content


def test_an_object_of_other_bytes_is_no_proof_and_is_replaced(
    workspace_remote: Remote, stores: Stores, tmp_path: Path
) -> None:
    content = employees(20, "right")
    named, path = make_pointer(content), tmp_path / "right"
    path.write_bytes(content)
    key = stores.put_object(content)
    stores.client.put_object(Bucket=layout.BUCKET, Key=key, Body=content[::-1])
    assert not workspace_remote.is_stored(named)
    workspace_remote.store(Content(named), path)
    assert stores.read_object(named.md5) == content


def test_an_object_that_is_there_is_not_sent_again(
    workspace_remote: Remote, stores: Stores, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = employees(20, "there already")
    stores.put_object(content)
    monkeypatch.setattr(Remote, "send", lambda *_: pytest.fail("it was sent again"))
    workspace_remote.store(Content(make_pointer(content)), tmp_path / "absent")


def test_bytes_that_are_lost_on_the_way_are_worth_another_try(
    workspace_remote: Remote, stores: Stores, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = employees(20, "cut off")
    stores.put_object(content)
    part = content[:-9]
    monkeypatch.setattr(remote, "write_blocks", lambda _, file: [part][: file.write(part)])
    with pytest.raises(TemporaryError, match=f"arrived as {len(part)} bytes"):
        workspace_remote.download(make_pointer(content), PATH, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_an_object_of_several_parts_is_proved_by_reading_it_back(
    workspace_remote: Remote, stores: Stores, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is too long for one PUT goes up in parts, and its ETag is then no MD5."""
    monkeypatch.setattr(remote, "SINGLE_PUT", 1_000_000)
    content = random.Random(1).randbytes(20_000_000)
    named, path = make_pointer(content), tmp_path / "large"
    path.write_bytes(content)
    workspace_remote.store(Content(named), path)
    tag = workspace_remote.s3(named).head_object(**workspace_remote.location(named))["ETag"]
    assert named.md5 not in tag
    assert stores.read_object(named.md5) == content
    path.write_bytes(content[::-1])
    workspace_remote.send(named, path)
    assert not workspace_remote.is_stored(named)


# --- Size


def test_memory_does_not_grow_with_the_dataset(project: Project) -> None:
    small, large = (measure_peaks(project, megabytes) for megabytes in (6, 60))
    print({step: (small[step] >> 20, large[step] >> 20) for step in STEPS}, "MB")
    for step in STEPS:
        assert large[step] < 250 << 20
        assert large[step] - small[step] < 40 << 20
    project.prove_commits()


def measure_peaks(project: Project, megabytes: int) -> dict[str, int]:
    """Return each step's peak of memory, in bytes, with a dataset of that size."""
    line = 'x,"Müller, of a large file",' + "y" * 200
    rows = (f"{n},{line}\n" for n in range(megabytes * 1_000_000 // 240))
    project.replace_dataset(("Employee ID,a,b,c\n" + "".join(rows)).encode())
    run = replace(project.run(), fresh=True)
    return {step: measure_peak(run, step) for step in STEPS}


def measure_peak(run: Run, step: str) -> int:
    """Measure by a small process: a child's peak begins at its parent's."""
    done = run.finish(run.start(sys.executable, "-c", MEASURE, "dataset-steps", *complete(step)))
    code, most = json.loads(done.output.splitlines()[-1])
    assert code == 0, done.output
    assert isinstance(most, int)
    return most
