"""The check of a user's own CSV: what the steps' reader says, as an error of the kit."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.dataset.inspection import Shape, inspect
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
    assert inspect(table.with_name("my table.csv.utf-8")).records == 1


def test_a_relative_path_is_of_the_folder_where_the_command_was_typed(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.write_bytes(b"a,b\n1,2\n")
    monkeypatch.chdir(table.parent)
    monkeypatch.setenv("PYTHONPATH", str(table.parent))
    (table.parent / "csv.py").write_text("raise SystemExit(7)")
    assert inspect(Path(table.name)).records == 1


def test_a_missing_file(table: Path) -> None:
    with pytest.raises(DatasetMissing, match="no such file") as caught:
        inspect(table)
    assert f"`ls -l {shlex.quote(str(table.parent))}`" in caught.value.fix


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match="is a directory") as caught:
        inspect(tmp_path)
    assert f"`ls {shlex.quote(str(tmp_path))}`" in caught.value.fix


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
