"""The check of a user's own data: a table, by the steps' reader; any other file; a directory."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.dataset import first_version
from lab.dataset.inspection import Content, Shape, inspect, is_table_name
from lab.errors import (
    DatasetEmpty,
    DatasetError,
    DatasetMissing,
    DatasetNotUtf8,
    DatasetRagged,
    DatasetWithoutHeader,
)

BAD: dict[str, tuple[bytes, type[DatasetError], str]] = {
    "zero bytes": (b"", DatasetEmpty, "is empty"),
    "header only": (b"a,b\r\n", DatasetEmpty, "has no record"),
    "a record first": (b"1,2\n3,4\n", DatasetWithoutHeader, "first line is '1,2'"),
    "a ragged line": (b"a,b\n1,2\n1,2,3\n", DatasetRagged, "line 3 has 3 fields, the header 2"),
    "an open quote": (b'a,b\n1,"2\n3,4\n', DatasetRagged, "the record of line 2 is never closed"),
    "latin 1": (b"a,b\n1,caf\xe9\n", DatasetNotUtf8, "byte 0xE9 at offset 9, in line 2"),
    "utf-16": ("a,b\n1,2\n".encode("utf-16"), DatasetNotUtf8, "is UTF-16"),
    "nul": (b"a,b\n1,2\0\n", DatasetNotUtf8, "a NUL byte at offset 7, in line 2"),
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return the path of a test's CSV; its name needs quotes in a shell."""
    return tmp_path / "my table.csv"


def test_the_shape_of_a_file_of_another_system(table: Path) -> None:
    content = b'\xef\xbb\xbf"a";\r\n1;"two\nlines"\r\n2;3'
    table.write_bytes(content)
    md5 = hashlib.md5(content).hexdigest()
    assert inspect(table) == Shape(("a", ""), 2, len(content), md5)


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_can_not_be_right_is_refused(table: Path, name: str) -> None:
    content, kind, message = BAD[name]
    table.write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        inspect(table)
    assert type(caught.value) is kind
    assert caught.value.what.startswith(f"{table}: ") and message in caught.value.what
    assert caught.value.fix


@pytest.mark.skipif(shutil.which("iconv") is None, reason="some fixes are made by iconv")
@pytest.mark.parametrize("name", ["latin 1", "utf-16", "nul"])
def test_the_command_in_the_fix_makes_the_file_good(table: Path, name: str) -> None:
    table.write_bytes(BAD[name][0])
    with pytest.raises(DatasetError) as caught:
        inspect(table)
    (command,) = re.findall("`(.+)`", caught.value.fix)
    subprocess.run(["sh", "-c", command], check=True)
    assert str(inspect(table.with_name("my table.utf-8.csv"))) == "1 records of 2 columns"


def test_a_relative_path_is_of_the_folder_where_the_command_was_typed(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.write_bytes(b"a,b\n1,2\n")
    monkeypatch.chdir(table.parent)
    monkeypatch.setenv("PYTHONPATH", str(table.parent))
    (table.parent / "csv.py").write_text("raise SystemExit(7)")
    assert str(inspect(Path(table.name))) == "1 records of 2 columns"


def test_a_missing_file(table: Path) -> None:
    with pytest.raises(DatasetMissing, match="no such file") as caught:
        inspect(table)
    assert f"`ls -l {shlex.quote(str(table.parent))}`" in caught.value.fix


def test_a_pipe_is_refused_instead_of_waited_for(table: Path) -> None:
    os.mkfifo(table)
    with pytest.raises(DatasetMissing, match="not a regular file"):
        inspect(table)


def test_a_path_that_the_system_can_not_follow(table: Path) -> None:
    table.symlink_to(table)
    with pytest.raises(DatasetMissing, match="can't be read"):
        inspect(table)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(table: Path) -> None:
    table.write_bytes(b"a,b\n1,2\n")
    table.chmod(0)
    with pytest.raises(DatasetMissing, match="can't be read") as caught:
        inspect(table)
    assert f"chmod u+r '{table}'" in caught.value.fix


# --- What is taken as it is ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "table"),
    [
        *((name, True) for name in ("a.csv", "a.TSV", "a.b.tab", "a.txt", "a.utf-8.csv")),
        *((name, False) for name in ("a.parquet", "a", "csv", "a.csv.gz", "a.json", ".csv.d")),
    ],
)
def test_a_file_is_a_table_by_its_name(name: str, table: bool) -> None:
    assert is_table_name(Path("/some.csv", name)) is table


@pytest.mark.parametrize("name", ["-x.parquet", ".hidden", "a b", "zwei u\u0308", "n" * 251])
@pytest.mark.parametrize("content", [b"", b"\xff\0"])
def test_any_other_file_is_taken_as_it_is(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert inspect(tmp_path / name) == Content(len(content))
    assert str(inspect(tmp_path / name)) == f"one file, {len(content)} bytes"


@pytest.mark.parametrize(
    "name",
    [".git", ".DVC", "dvc.yaml", "model.dvc", "a\nb", "a:b", "a\\b", "blank ", "n" * 252, "\udcff"],
)
@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_a_name_that_git_or_dvc_can_not_keep_is_refused(
    name: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / name)
    with pytest.raises(DatasetError, match=r"^[^\n]+: has a [^\n]*name[^\n]*$") as caught:
        inspect(tmp_path / name)
    assert type(caught.value) is DatasetError
    caught.value.what.encode()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory with files whose names are odd, and two that are empty."""
    top = tmp_path / "out.csv"  # as Spark calls it
    names = ("-x", "a b", "zwei ü", "zwei u\u0308", "A", "a", "new\nline", "n" * 255, "sub/x.csv")
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(name.encode())
    (top / "none").touch()
    (top / "sub" / "e\n").mkdir()
    (top / "empty").mkdir()
    return top


def test_a_directory_is_taken_with_whatever_names(directory: Path) -> None:
    found = inspect(directory)
    assert isinstance(found, Content)
    assert (found.files, found.empty) == (10, ("empty", "sub/e\\n"))
    assert found.size == sum(p.stat().st_size for p in directory.rglob("*") if p.is_file())
    assert str(found) == f"10 files, {found.size} bytes"


def test_empty_directories_are_told(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first_version.tell_empty_directories(inspect(directory))
    told = "left out, as DVC keeps no empty directory: "
    assert capsys.readouterr().out == f"  {told}empty, sub/e\\n\n"
    for number in range(6):
        (directory / "more" / str(number)).mkdir(parents=True)
    first_version.tell_empty_directories(inspect(directory))
    shown = "empty, more/0, more/1, more/2, more/3 and 3 more"
    assert capsys.readouterr().out == f"  {told}{shown}\n"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("sub/.git/config", "sub/.git: has a name that DVC leaves out"),
        (".dvc/config", ".dvc: has a name that DVC leaves out"),
        ("sub/dvc.yaml", "sub/dvc.yaml: has a name by which DVC takes it for a file of its own"),
        (
            "sub/.dvcignore",
            "sub/.dvcignore: has a name by which DVC takes it for a file of its own",
        ),
        ("x.dvc", "x.dvc: has a name by which DVC takes it"),
        ("sub/\udcff", "sub/\\udcff: has a name that is not UTF-8"),
    ],
)
def test_a_name_in_a_directory_that_dvc_can_not_keep_is_refused(
    name: str, why: str, directory: Path
) -> None:
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    (directory / name).touch()
    with pytest.raises(DatasetError) as caught:
        inspect(directory)
    assert caught.value.what.startswith(f"{directory}/{why}")


def make_link(path: Path) -> None:
    path.symlink_to(path.parent / "a")


@pytest.mark.parametrize(
    ("make", "why"),
    [(make_link, "is a symbolic link"), (os.mkfifo, "is neither a file nor a directory")],
)
def test_a_link_or_a_pipe_in_a_directory_is_refused_by_its_name(
    make: Callable[[Path], None], why: str, directory: Path
) -> None:
    make(directory / "sub" / "strange")
    with pytest.raises(DatasetError, match=f"^{directory}/sub/strange: {why}") as caught:
        inspect(directory)
    assert type(caught.value) is DatasetError


def test_a_directory_without_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(DatasetEmpty, match="there is no file in this directory"):
        inspect(tmp_path)


def test_a_link_to_a_directory_is_that_directory(directory: Path) -> None:
    link = directory.with_name("link")
    link.symlink_to(directory)
    assert inspect(link) == inspect(directory)
    assert first_version.repository_path(link) == "datasets/link"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["a", "sub"])
def test_what_is_unreadable_in_a_directory_is_named(name: str, directory: Path) -> None:
    (directory / name).chmod(0)
    try:
        with pytest.raises(DatasetMissing, match=f"^{directory}/{name}: can't be read"):
            inspect(directory)
    finally:
        (directory / name).chmod(0o700)
