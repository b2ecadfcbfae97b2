"""The `.dvc` file: read from what DVC writes, written as DVC writes it, refused when it is none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from dataset_steps import pointer
from dataset_steps.errors import StepError
from dataset_steps.pointer import Pointer

MD5 = hashlib.md5(b"a,b\n1,2\n", usedforsecurity=False).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.csv.dvc"


def test_what_is_written_is_read(path: Path) -> None:
    pointer.write(path, Pointer(MD5, 8))
    assert pointer.read(path) == Pointer(MD5, 8)


@pytest.mark.parametrize("md5", ["0" * 32, "12345678" * 4, "1" * 29 + "e10", "0" * 31 + "7"])
def test_a_hash_that_looks_like_a_number_stays_a_text(path: Path, md5: str) -> None:
    pointer.write(path, Pointer(md5, 8))
    assert pointer.read(path) == Pointer(md5, 8)
    assert yaml.safe_load(path.read_bytes())["outs"][0]["md5"] == md5


@pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")
@pytest.mark.parametrize("name", ["data.csv", "größe 1.csv", "a'b: c.csv", "yes"])
def test_the_text_is_the_one_of_dvc_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    repo = Repo.init(str(tmp_path), no_scm=True)
    path = tmp_path / name
    path.write_bytes(b"a,b\n1,2\n")
    repo.add(str(path))
    added = tmp_path / f"{name}.dvc"
    expected = added.read_bytes()
    assert pointer.read(added) == Pointer(MD5, 8)
    pointer.write(added, Pointer(MD5, 8))
    assert added.read_bytes() == expected


def test_a_missing_pointer(path: Path) -> None:
    with pytest.raises(StepError, match=r"no data\.csv\.dvc: import the dataset first"):
        pointer.read(path)


OUT = f"md5: {MD5}\n  size: 8\n  path: data.csv\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "just words",
        "outs: [",
        "outs:\n\t- tabs: 1",
        "outs:\n",
        "outs: []\n",
        f"outs:\n- {OUT}- {OUT}",
        f"outs:\n- md5: {MD5}\n",
        "outs:\n- size: 8\n",
        f"outs:\n- md5: {MD5}\n  size: many\n",
        f"outs:\n- md5: {MD5}\n  size:\n",
        f"outs:\n- md5: {MD5}.dir\n  size: 8\n",
        f"outs:\n- md5: {MD5.upper()}\n  size: 8\n",
        f"outs:\n- md5: {MD5[1:]}\n  size: 8\n",
        "outs:\n- md5: ../../../../../../etc/shadow/root\n  size: 8\n",
        "outs:\n- md5:\n  size: 8\n",
        f"<<<<<<< HEAD\nouts:\n- {OUT}=======\n",
    ],
)
def test_what_is_no_pointer_to_one_file(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StepError, match=r"data\.csv\.dvc") as refusal:
        pointer.read(path)
    assert refusal.value.exit_code == 65


def test_bytes_that_are_no_text(path: Path) -> None:
    path.write_bytes(b"outs:\n- md5: \xff\xfe\x00\n")
    with pytest.raises(StepError, match="is not a pointer"):
        pointer.read(path)
