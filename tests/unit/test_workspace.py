"""The folder of one run: its name, its lock, its records, and its end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from dataset_steps import workspace
from dataset_steps.contract import run_key
from dataset_steps.errors import StepError, TemporaryError
from dataset_steps.workspace import (
    LASTING,
    LOCK_IS_HELD,
    Asked,
    Began,
    Pulled,
    Sealed,
    Workspace,
    exclusive_lock,
    sweep,
    try_lock,
)

MD5 = "d41d8cd98f00b204e9800998ecf8427e"
DATA = {"orders": "data/orders", "dataset": "datasets/data.csv"}
ASKED = Asked("orders", "data/orders", "main", optional=False)
PULLED = Pulled("orders", "data/orders", "0123abc", MD5, 7)
DEADLINE = 20  # seconds, for every wait of a test
HOLDER = """
import sys, time
from pathlib import Path
from dataset_steps.workspace import Workspace, exclusive_lock
with exclusive_lock(Workspace(Path(sys.argv[1]), dict(), Path(sys.argv[1]).name)):
    {inside}
"""


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "runs" / "run", DATA, "run")


def lock_path(space: Workspace) -> Path:
    return space.root.with_name(f"{space.key}.lock")


@contextmanager
def holding_process(space: Workspace, inside: str) -> Iterator[subprocess.Popen[str]]:
    """Run another process that holds the workspace's lock; kill it afterwards."""
    command = [sys.executable, "-u", "-c", HOLDER.format(inside=inside), str(space.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def read_first_line(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return child.stdout.readline().strip()


# --- Its name


def test_runs_with_similar_names_have_different_folders() -> None:
    names = [("d", "a b"), ("d", "a-b"), ("d", "a_b"), ("d", "a+b"), ("d", "A-b"), ("d", "a-b ")]
    names += [("d-a", "b"), ("d", "a"), ("", "d-a"), ("d", "x" * 200), ("d", "x" * 201)]
    assert len({run_key(*name) for name in names}) == len(names)


@pytest.mark.parametrize(
    "run_id",
    [
        "../../etc",
        "/",
        "..",
        "",
        "manual__2026-01-01T00:00:00+00:00",
        "größe 王",
        "-rf",
        "x" * 999,
        "a\0b",
        "$(id)",
        "*",
    ],
)
def test_a_folder_s_name_is_safe_everywhere(run_id: str) -> None:
    key = run_key("dataset_pipeline", run_id)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,80}", key)
    assert key == run_key("dataset_pipeline", run_id)


def test_a_folder_s_name_is_readable() -> None:
    assert run_key("dataset_pipeline", "manual_7").startswith("dataset-pipeline-manual-7-")


# --- Its lock


def test_one_process_at_a_time(space: Workspace) -> None:
    with holding_process(space, "print('inside'); time.sleep(60)") as child:
        assert read_first_line(child) == "inside"
        assert try_lock(lock_path(space)) is None
    with exclusive_lock(space):
        assert space.root.is_dir()


def test_a_step_that_the_holder_starts_does_not_wait(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with exclusive_lock(space):
        for name, value in LOCK_IS_HELD.items():
            monkeypatch.setenv(name, value)
        with exclusive_lock(space):
            pass
        assert lock_path(space).exists()


def test_waiting_ends(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "LOCK_SECONDS", 0.3)
    with holding_process(space, "print('inside'); time.sleep(60)") as child:
        read_first_line(child)
        began = time.monotonic()
        with pytest.raises(TemporaryError, match="another process holds"), exclusive_lock(space):
            pytest.fail("two are inside")
        assert time.monotonic() - began < 5


def test_a_retry_comes_in_as_soon_as_the_other_is_gone(space: Workspace) -> None:
    with holding_process(space, "print('inside'); time.sleep(0.5)") as child:
        read_first_line(child)
        began = time.monotonic()
        with exclusive_lock(space):
            assert 0.1 < time.monotonic() - began < DEADLINE


def test_a_child_of_a_killed_step_keeps_a_retry_out(space: Workspace) -> None:
    orphan = "import subprocess; p = subprocess.Popen(['sleep', '60'], close_fds=False)"
    with holding_process(space, f"{orphan}; print(p.pid); time.sleep(60)") as child:
        pid = int(read_first_line(child))
        child.kill()
        child.wait()
    try:
        assert try_lock(lock_path(space)) is None
    finally:
        os.kill(pid, signal.SIGKILL)
    with exclusive_lock(space):
        pass


def test_the_lock_goes_with_the_workspace(space: Workspace) -> None:
    with exclusive_lock(space):
        assert lock_path(space).exists()
        space.remove()
    assert list(space.root.parent.iterdir()) == []


def test_the_lock_stays_with_the_workspace(space: Workspace) -> None:
    with pytest.raises(ZeroDivisionError), exclusive_lock(space):
        raise ZeroDivisionError
    assert space.root.is_dir()
    with exclusive_lock(space):
        pass


def test_never_two_inside_though_each_removes_the_lock(space: Workspace) -> None:
    """A process that waited for a lock file must not enter by it once the file was removed."""
    inside = f"""
    pass
for _ in range(40):
    space = Workspace(Path(sys.argv[1]), dict(), Path(sys.argv[1]).name)
    with exclusive_lock(space):
        mark = Path({str(space.root.parent.parent / "mark")!r})
        mark.touch(exist_ok=False)
        time.sleep(0.0005)
        mark.unlink()
        space.remove()
    """
    eager = "import tenacity; tenacity.wait_fixed = lambda _: tenacity.wait_none()\n"
    command = [sys.executable, "-c", eager + HOLDER.format(inside=inside), str(space.root)]
    children = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [child.communicate(timeout=60)[1] for child in children]
    assert errors == [""] * 4


# --- Its records


def test_records_are_read_as_they_were_written(space: Workspace) -> None:
    space.clear()
    assert (space.read_pulled("orders"), space.read_seal("orders")) == (None, None)
    record_pull(space)
    space.seal("orders", MD5, 12)
    assert (space.read_pulled("orders"), space.read_seal("orders")) == (PULLED, Sealed(MD5, 12))
    assert (space.list_asked(), space.list_pulled()) == ([ASKED], [PULLED])


def record_pull(space: Workspace) -> None:
    space.record("asked.orders", ASKED)
    space.record("pulled.orders", PULLED)


def test_what_was_not_pulled_is_named(space: Workspace) -> None:
    space.clear()
    record_pull(space)
    assert space.require_pulled("orders") == PULLED
    with pytest.raises(StepError, match="dataset was not pulled into this run's workspace"):
        space.require_pulled("dataset")


def test_a_data_set_is_at_its_path_in_the_clone(space: Workspace) -> None:
    assert space.place("orders") == space.repository / "data" / "orders"


def test_a_record_that_was_cut_off_is_none(space: Workspace) -> None:
    space.clear()
    (space.root / "pulled.orders.json.part").write_text('{"commit": "0')
    assert space.read_pulled("orders") is None
    record_pull(space)
    (space.root / "pulled.orders.json.part").write_text('{"commit": "0')
    assert space.read_pulled("orders") == PULLED


def test_a_cleared_workspace_is_empty(space: Workspace) -> None:
    space.clear()
    record_pull(space)
    space.place("dataset").parent.mkdir(parents=True)
    space.place("dataset").touch()
    space.clear()
    assert list(space.root.iterdir()) == []


def test_what_tells_how_to_begin_anew_outlives_what_was_pulled(space: Workspace) -> None:
    space.clear()
    record_pull(space)
    space.record("began", Began("0123abc"))
    space.record("again", Began("why"))
    (space.repository / "file").mkdir(parents=True)
    space.clear(but=LASTING)
    assert sorted(path.name for path in space.root.iterdir()) == ["again.json", "asked.orders.json"]
    assert space.is_begun()


@pytest.mark.parametrize("count", range(4))
def test_a_workspace_that_was_cut_off_while_it_was_removed(
    space: Workspace, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked for is there only with the clone that `publish` then works in."""
    space.clear()
    record_pull(space)
    space.record("began", Began("0123abc"))
    unlink, left = Path.unlink, iter(range(count))

    def unlink_a_few(path: Path, **options: bool) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", unlink_a_few)
    with pytest.raises(KeyboardInterrupt) if count < 3 else nullcontext():
        space.clear()
    began = space.read_record("began", Began)
    assert began is not None or not space.is_begun()


def test_a_link_out_of_the_workspace_is_not_followed(space: Workspace, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").touch()
    space.clear()
    (space.root / "link").symlink_to(tmp_path / "theirs")
    space.remove()
    assert (tmp_path / "theirs" / "file").exists()


def test_a_removed_workspace_leaves_nothing(space: Workspace) -> None:
    space.clear()
    record_pull(space)
    space.remove()
    assert not space.root.exists()


# --- Sweeping


@pytest.fixture
def old(space: Workspace) -> Workspace:
    """Return a workspace that was last touched longer ago than one is kept."""
    with exclusive_lock(space):
        record_pull(space)
    long_ago = time.time() - workspace.KEEP_SECONDS - 60
    os.utime(space.root, (long_ago, long_ago))
    return space


def test_old_workspaces_are_swept(old: Workspace) -> None:
    young = old.root.with_name("young")
    young.mkdir()
    young.with_name("young.lock").touch()
    sweep(old.root.parent)
    assert sorted(path.name for path in old.root.parent.iterdir()) == ["young", "young.lock"]


def test_an_old_workspace_in_use_is_not_swept(old: Workspace) -> None:
    with exclusive_lock(old):
        sweep(old.root.parent)
        assert old.read_pulled("orders") == PULLED
        assert lock_path(old).exists()


def test_a_workspace_that_goes_meanwhile_does_not_disturb(
    old: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghost = old.root.with_name("ghost")
    monkeypatch.setattr(Path, "iterdir", lambda _: iter([ghost, old.root]))
    monkeypatch.setattr(Path, "is_dir", lambda _: True)
    sweep(old.root.parent)
    monkeypatch.undo()
    assert list(old.root.parent.iterdir()) == []
