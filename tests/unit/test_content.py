"""What a place holds, measured as `dvc add` measures it; what DVC can't keep is refused by name."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.repo import Repo

from dataset_steps import content, pointer
from dataset_steps.content import File
from dataset_steps.errors import StepError, TemporaryError
from dataset_steps.pointer import Pointer
from dataset_steps.remote import Remote
from tests.support.names import ODD

MD5_OF_NOTHING = "d41d8cd98f00b204e9800998ecf8427e"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a DVC repository that nothing of this machine's configuration reaches."""
    for variable in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    folder = tmp_path / "clone"
    folder.mkdir()
    Repo.init(str(folder), no_scm=True)
    return folder


def fill(folder: Path, *names: str) -> Path:
    """Make files that hold their own names, but for the first one, which is empty."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() if number else b"")
    return folder


def measure(clone: Path, place: Path | None = None) -> content.Content:
    return Remote(clone).measure("data", place or clone / "data")


def add(clone: Path) -> tuple[Pointer, bytes, bytes]:
    """Return what `dvc add` writes of the directory: its pointer, its text and its listing."""
    Repo(str(clone)).add(str(clone / "data"))
    path = clone / "data.dvc"
    named = pointer.read(path)
    listing = clone / ".dvc/cache/files/md5" / named.md5[:2] / named.md5[2:]
    return named, path.read_bytes(), listing.read_bytes()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")
def test_a_directory_is_listed_as_dvc_lists_it(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(content, "LISTED", 7)
    place = fill(clone / "data", *ODD)
    (place / "a").chmod(0o755)
    ours = measure(clone)
    assert [file.relpath for file in ours.files] == sorted(ODD)
    named, text, listing = add(clone)
    assert ours.listing == listing
    assert ours.pointer == named
    assert File("a b", MD5_OF_NOTHING, 0) in ours.files
    (clone / "data.dvc").unlink()
    pointer.write(clone / "data.dvc", ours.pointer)
    assert (clone / "data.dvc").read_bytes() == text
    assert "left out" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")
def test_what_dvcignore_names_is_left_out_as_dvc_leaves_it_out(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clone / ".dvcignore").write_text("*.tmp\n!keep.tmp\n/data/scratch/\n", "utf-8")
    kept = ("first", "keep.tmp", "in/scratch/c", "tmp")
    left = ("x.tmp", "in/y.tmp", "scratch/z", "in/.git/config", ".hg/a")
    place = fill(clone / "data", *kept, *left)
    (place / "scratch" / "link").symlink_to("z")
    ours = measure(clone)
    assert {file.relpath for file in ours.files} == set(kept)
    shown = "left out of data, as .dvcignore says: .hg, in/.git, in/y.tmp, scratch, x.tmp\n"
    assert shown in capsys.readouterr().out
    assert add(clone)[::2] == (ours.pointer, ours.listing)


def test_a_directory_elsewhere_is_measured_as_if_it_were_in_the_clone(
    clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`lab up --dataset` names it where it is; a step works in another work tree."""
    (clone / ".dvcignore").write_text("/data/*.tmp\n", "utf-8")
    fill(tmp_path / "other", *(f"{n}.tmp" for n in range(9)), "a")
    ours = measure(clone, tmp_path / "other")
    assert [file.relpath for file in ours.files] == ["a"]
    assert "0.tmp, 1.tmp, 2.tmp, 3.tmp, 4.tmp and 4 more\n" in capsys.readouterr().out


def test_empty_directories_are_told(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = fill(clone / "data", "a", "full/b")
    for name in ("empty", "deep/er", "a\nb"):
        (place / name).mkdir(parents=True)
    assert len(measure(clone).files) == 2
    assert capsys.readouterr().out == (
        "left out of data, since DVC keeps no empty directory: 'a\\nb', deep/er, empty\n"
    )


def test_the_remote_of_the_pointer_is_the_new_version_s(clone: Path) -> None:
    place = fill(clone / "data", "a")
    pointer.write(clone / "data.dvc", Pointer(MD5_OF_NOTHING, 0))
    with (clone / "data.dvc").open("a", encoding="utf-8") as file:
        file.write("  remote: archive\n")
    assert measure(clone).pointer.remote == "archive"
    assert measure(clone, place / "a").pointer == Pointer(MD5_OF_NOTHING, 0, remote="archive")


# --- What can't be a data set


@pytest.fixture
def closed_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the name of a socket in the current directory, whose own path would be too long."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
        yield "socket"


def make_link(place: Path) -> None:
    (place / "in").mkdir()
    (place / "in" / "link").symlink_to("../a")


def make_link_to_directory(place: Path) -> None:
    (place / "link").symlink_to(place)


def make_broken_link(place: Path) -> None:
    (place / "link").symlink_to("nowhere")


def make_pipe(place: Path) -> None:
    os.mkfifo(place / "pipe\n")


def make_bytes(place: Path) -> None:
    (place / os.fsdecode(b"\xffx")).write_bytes(b"")


def make_ignore_file(place: Path) -> None:
    (place / ".dvcignore").write_text("*.tmp\n", "utf-8")


def make_pointer(place: Path) -> None:
    (place / "other.dvc").write_text("any", "utf-8")


def make_pipeline(place: Path) -> None:
    (place / "dvc.yaml").write_text("any", "utf-8")


REFUSED = [
    (make_link, "data/in/link is a symbolic link"),
    (make_link_to_directory, "data/link is a symbolic link"),
    (make_broken_link, "data/link is a symbolic link"),
    (make_pipe, r"'data/pipe\\n' is neither a file nor a directory"),
    (make_bytes, r"'data/\\udcffx' is not UTF-8"),
    (make_ignore_file, r"data/\.dvcignore is inside of a data set"),
    (make_pointer, r"data/other\.dvc is inside of a data set"),
    (make_pipeline, r"data/dvc\.yaml is inside of a data set"),
]


@pytest.mark.parametrize(("make", "why"), REFUSED, ids=[make.__name__ for make, _ in REFUSED])
def test_what_dvc_does_not_keep_is_refused_by_name(clone: Path, make: object, why: str) -> None:
    place = fill(clone / "data", "a")
    assert callable(make)
    make(place)
    with pytest.raises(StepError, match=why) as refusal:
        measure(clone)
    assert "\n" not in str(refusal.value)
    assert not isinstance(refusal.value, TemporaryError)


@pytest.mark.usefixtures("closed_socket")
@pytest.mark.parametrize("target", ["clone/real", "clone", "nowhere"])
def test_a_link_in_place_of_a_data_set(clone: Path, target: str) -> None:
    (clone / "real").write_bytes(b"a")
    (clone / "data").symlink_to(clone.parent / target)
    with pytest.raises(StepError, match="data is a symbolic link"):
        measure(clone)


def test_a_socket_in_place_of_a_data_set(clone: Path, closed_socket: str) -> None:
    with pytest.raises(StepError, match="data is neither a file nor a directory"):
        measure(clone, Path(closed_socket))


@pytest.mark.parametrize("empty", [False, True])
def test_a_step_that_wrote_nothing(clone: Path, *, empty: bool) -> None:
    if empty:
        (clone / "data" / "empty").mkdir(parents=True)
    with pytest.raises(StepError, match="elsewhere") as refusal:
        measure(clone)
    assert "DATA_" in str(refusal.value)
