"""The folder of one run: its name, its lock, its records, and its end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dataset_steps import workspace
from dataset_steps.errors import TemporaryError
from dataset_steps.workspace import (
    Base,
    Change,
    Workspace,
    exclusive_lock,
    run_key,
    sweep,
    try_lock,
)

BASE = Base("0123abc", "d41d8cd98f00b204e9800998ecf8427e", 7)
DEADLINE = 20  # seconds, for every wait of a test
HOLDER = """
import sys, time
from pathlib import Path
from dataset_steps.workspace import Workspace, exclusive_lock
with exclusive_lock(Workspace(Path(sys.argv[1]), "data.csv", Path(sys.argv[1]).name)):
    {inside}
"""


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "runs" / "run", "datasets/data.csv", "run")


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
    space = Workspace(Path(sys.argv[1]), "data.csv", Path(sys.argv[1]).name)
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
    assert (space.read_base(), space.read_change()) == (None, None)
    space.record_base(BASE)
    space.record_change(Change(BASE.md5, 12))
    assert (space.read_base(), space.read_change()) == (BASE, Change(BASE.md5, 12))


def test_a_record_that_was_cut_off_is_none(space: Workspace) -> None:
    space.clear()
    (space.root / "base.json.part").write_text('{"commit": "0')
    assert space.read_base() is None
    space.record_base(BASE)
    (space.root / "base.json.part").write_text('{"commit": "0')
    assert space.read_base() == BASE


def test_a_cleared_workspace_is_empty(space: Workspace) -> None:
    space.clear()
    space.record_base(BASE)
    space.dataset.parent.mkdir(parents=True)
    space.dataset.touch()
    space.clear()
    assert list(space.root.iterdir()) == []


def test_a_removed_workspace_leaves_nothing(space: Workspace) -> None:
    space.clear()
    space.record_base(BASE)
    space.remove()
    assert not space.root.exists()


# --- Sweeping


@pytest.fixture
def old(space: Workspace) -> Workspace:
    """Return a workspace that was last touched longer ago than one is kept."""
    with exclusive_lock(space):
        space.record_base(BASE)
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
        assert old.read_base() == BASE
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
